//! HTTP clients: certificate authorities, proxy, TLS version, and no automatic redirect or decompression.
//!
//! This file owns how connections are made from the `[network]` table. It must not know what is requested.

use std::{error::Error, fs, sync::Arc, time::Duration};

use reqwest::{Client, ClientBuilder, Proxy, redirect};
use rustls::{
    CertificateError, ClientConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use rustls_platform_verifier::Verifier;
use url::Url;

use crate::{
    causes,
    config::{NamedFile, Network},
};

/// An HTTP client cannot be made as configured.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ClientError {
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl ClientError {
    fn new(message: String, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        ClientError { message, source: Some(source.into()) }
    }
}

/// Makes clients that share the certificate authorities and the proxy of a `[network]` table.
pub struct Connector<'a> {
    ca_file: Option<&'a NamedFile>,
    /// The system's authorities are more than a hundred files, which are read once for all clients.
    tls: ClientConfig,
    proxy: Option<Proxy>,
}

impl<'a> Connector<'a> {
    /// Reads `ca_file` and the system's certificate authorities, and checks the proxy.
    ///
    /// # Errors
    ///
    /// One of them cannot be used.
    pub fn new(network: &'a Network) -> Result<Self, ClientError> {
        let ca_file = network.ca_file.as_ref();
        let authorities = ca_file.map(certificates).transpose()?.unwrap_or_default();
        Ok(Connector {
            ca_file,
            tls: tls(authorities).map_err(|error| unusable(ca_file, error))?,
            proxy: network.proxy.as_ref().map(proxy).transpose()?,
        })
    }

    /// A client with the configured proxy, else the proxy of the environment.
    ///
    /// # Errors
    ///
    /// The TLS settings cannot be used.
    pub fn client(&self, adjust: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Result<Client, ClientError> {
        self.build(adjust(match &self.proxy {
            Some(proxy) => builder().proxy(proxy.clone()),
            None => builder(),
        }))
    }

    /// A client without a proxy, for loopback addresses: the loopback of a proxy is another host's.
    ///
    /// # Errors
    ///
    /// As of [`Connector::client`].
    pub fn direct_client(&self, adjust: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Result<Client, ClientError> {
        self.build(adjust(builder().no_proxy()))
    }

    fn build(&self, builder: ClientBuilder) -> Result<Client, ClientError> {
        let built = builder.tls_backend_preconfigured(self.tls.clone()).build();
        built.map_err(|error| unusable(self.ca_file, error.without_url()))
    }
}

fn unusable(ca_file: Option<&NamedFile>, error: impl Into<Box<dyn Error + Send + Sync>>) -> ClientError {
    let message = match ca_file {
        Some(file) => file.problem("its certificate authorities, or the system's, cannot be used").to_string(),
        None => "could not set up HTTPS; the system's certificate authorities may be unusable".to_owned(),
    };
    ClientError::new(message, error)
}

/// TLS 1.2 or later with servers that one of these certificate authorities vouches for, or one of the system's.
fn tls(authorities: Vec<CertificateDer<'static>>) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Verifier::new_with_extra_roots(authorities, Arc::clone(&provider))?;
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    // "Dangerous" is any verifier but the default, which knows no authority of the system.
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let mut tls = builder.with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}

/// A client for the daemon on this machine, which speaks no TLS. `timeout` bounds a whole request.
///
/// # Errors
///
/// The client cannot be set up.
pub fn local_client(timeout: Duration) -> Result<Client, ClientError> {
    // Without certificate authorities: reading the system's takes longer than the request.
    let built = builder().no_proxy().timeout(timeout).tls_certs_only([]).build();
    built.map_err(|error| ClientError::new("could not set up HTTP".to_owned(), error))
}

/// What to do about a server's certificate that was refused, to follow the error; else nothing.
pub fn certificate_advice(error: &reqwest::Error) -> &'static str {
    match causes::innermost(error) {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "; if its certificate authority is private, set network.ca_file to its certificate"
        }
        // Such as `CaUsedAsEndEntity`, of which the verifier has the name only.
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(_))) => {
            "; the server needs a certificate for servers, signed by an authority, not the authority's own: a self-signed \
             one that OpenSSL makes by default is both"
        }
        _ => "",
    }
}

/// Scheme, host and port: the part of a URL that is never secret.
pub fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// What all clients have: this program's name, and no redirects. reqwest would send custom headers, credentials among them,
/// to a redirect's target.
pub fn without_redirects() -> ClientBuilder {
    let name = concat!("moesync/", env!("CARGO_PKG_VERSION"));
    Client::builder().user_agent(name).redirect(redirect::Policy::none()).referer(false)
}

fn builder() -> ClientBuilder {
    without_redirects()
        .http1_allow_obsolete_multiline_headers_in_responses(true)
        .http1_allow_spaces_after_header_name_in_responses(true)
}

fn certificates(file: &NamedFile) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let problem = |what: &str| file.problem(format_args!("{} {what}", file.path.display())).to_string();
    let pem = fs::read(&file.path).map_err(|error| ClientError::new(problem("cannot be read"), error))?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| ClientError::new(problem("does not hold PEM certificates"), error))?;
    if certificates.is_empty() {
        return Err(ClientError { message: problem("does not hold PEM certificates"), source: None });
    }
    Ok(certificates)
}

fn proxy(url: &Url) -> Result<Proxy, ClientError> {
    if !matches!(url.scheme(), "http" | "https") {
        let message = format!("network.proxy is a {} URL; only http and https proxies are supported", url.scheme());
        return Err(ClientError { message, source: None });
    }
    Proxy::all(url.as_str())
        .map_err(|error| ClientError::new(format!("network.proxy {} cannot be used", origin(url)), error.without_url()))
}
