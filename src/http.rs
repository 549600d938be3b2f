//! HTTP clients: certificate authorities, proxy, TLS version, and no automatic redirect or decompression.
//!
//! This file owns how connections are made from the `[network]` table. It must not know what is requested.

use std::{error::Error, fs, time::Duration};

use reqwest::{Certificate, Client, ClientBuilder, Proxy, redirect, tls};
use url::Url;

use crate::config::{NamedFile, Network};

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
    authorities: Vec<Certificate>,
    proxy: Option<Proxy>,
}

impl<'a> Connector<'a> {
    /// Reads `ca_file` and checks the proxy.
    ///
    /// # Errors
    ///
    /// Either cannot be used.
    pub fn new(network: &'a Network) -> Result<Self, ClientError> {
        let ca_file = network.ca_file.as_ref();
        Ok(Connector {
            ca_file,
            authorities: ca_file.map(certificates).transpose()?.unwrap_or_default(),
            proxy: network.proxy.as_ref().map(proxy).transpose()?,
        })
    }

    /// A client with the configured proxy, else the proxy of the environment.
    ///
    /// # Errors
    ///
    /// The certificate authorities, of the file or the system, cannot be used.
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
        builder.tls_certs_merge(self.authorities.iter().cloned()).build().map_err(|error| {
            let message = match self.ca_file {
                Some(file) => file.problem("its certificate authorities, or the system's, cannot be used").to_string(),
                None => "could not set up HTTPS; the system's certificate authorities may be unusable".to_owned(),
            };
            ClientError::new(message, error.without_url())
        })
    }
}

/// A client for the daemon on this machine. `timeout` bounds a whole request.
///
/// # Errors
///
/// The system's certificate authorities cannot be used.
pub fn local_client(timeout: Duration) -> Result<Client, ClientError> {
    let built = builder().no_proxy().timeout(timeout).build();
    built.map_err(|error| ClientError::new("could not set up HTTP".to_owned(), error))
}

/// Scheme, host and port: the part of a URL that is never secret.
pub fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

fn builder() -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("moesync/", env!("CARGO_PKG_VERSION")))
        // reqwest would send custom headers, credentials among them, to the redirect's target.
        .redirect(redirect::Policy::none())
        .referer(false)
        .tls_version_min(tls::Version::TLS_1_2)
        .http1_allow_obsolete_multiline_headers_in_responses(true)
        .http1_allow_spaces_after_header_name_in_responses(true)
}

fn certificates(file: &NamedFile) -> Result<Vec<Certificate>, ClientError> {
    let problem = |what: &str| file.problem(format_args!("{} {what}", file.path.display())).to_string();
    let pem = fs::read(&file.path).map_err(|error| ClientError::new(problem("cannot be read"), error))?;
    let certificates = Certificate::from_pem_bundle(&pem)
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
