//! One HTTP request, without redirects: which client sends it, and why it got no response.
//!
//! This file owns connections. It must not know where redirects lead, how long a response may take, or what it means.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use reqwest::{
    ClientBuilder,
    header::{ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, TRANSFER_ENCODING},
};
use url::Url;

use crate::{
    causes,
    config::{Limits, Network, is_loopback},
    http::{self, ClientError, Connector},
};

/// Most header lines of a response. Firewalls add dozens; the HTTP library's own limit is 100.
const MAX_HEADERS: usize = 1_000;

/// Most bytes of one download that HTTP/2 lets the vendor send ahead of the consumer.
const HTTP2_WINDOW: u32 = 1024 * 1024;

/// One request.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Where it is sent.
    pub url: &'a Url,
    /// Headers with credentials, if the server may have them.
    pub credentials: Option<&'a HeaderMap>,
    /// JSON to post; a request without is a `GET`.
    pub json: Option<&'a Bytes>,
}

/// Carries single requests to servers, and the responses back. The network is one; a simulation has its own.
pub trait Sender: Send + Sync {
    /// Sends one request. Redirects are not followed. The body of the response is still to be received.
    ///
    /// # Errors
    ///
    /// Why there is no response, which may quote the server.
    fn send<'a>(&'a self, request: Outgoing<'a>) -> BoxFuture<'a, Result<reqwest::Response, String>>;
}

/// Sends requests over the network.
pub(super) struct HttpSender {
    clients: Clients,
    /// For loopback addresses, unless a proxy is configured: the loopback of a proxy from the environment is another
    /// host's. Go's HTTP client has the same exception.
    direct: Option<Clients>,
    /// The configured proxy, as scheme and host.
    proxy: Option<String>,
    connect_timeout: Duration,
}

/// Two ways to read the head of an HTTP/1 response. Both accept folded lines (RFC 9112, section 5.2, asks every client
/// to) and a space before the colon.
struct Clients {
    /// A line that is not a header is an error.
    strict: reqwest::Client,
    /// Such a line is skipped. It may have held the length of the body, so this client is used only after the strict one
    /// failed, and its response only if the length of the body is known.
    lenient: reqwest::Client,
}

impl HttpSender {
    pub(super) fn new(network: &Network, limits: &Limits) -> Result<Self, ClientError> {
        let connector = Connector::new(network)?;
        let strict = |builder| adjust(builder, limits).http1_ignore_invalid_headers_in_responses(false);
        let lenient = |builder| adjust(builder, limits).http1_ignore_invalid_headers_in_responses(true);
        let clients = Clients { strict: connector.client(strict)?, lenient: connector.client(lenient)? };
        let direct = match network.proxy {
            Some(_) => None,
            None => {
                Some(Clients { strict: connector.direct_client(strict)?, lenient: connector.direct_client(lenient)? })
            }
        };
        Ok(HttpSender {
            clients,
            direct,
            proxy: network.proxy.as_ref().map(http::origin),
            connect_timeout: limits.connect_timeout,
        })
    }

    async fn respond(&self, Outgoing { url, credentials, json }: Outgoing<'_>) -> Result<reqwest::Response, String> {
        let mut headers = credentials.cloned().unwrap_or_default();
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let clients = self.direct.as_ref().filter(|_| is_loopback(url)).unwrap_or(&self.clients);
        let request = |http: &reqwest::Client| match json {
            None => http.get(url.clone()),
            Some(json) => http.post(url.clone()).header(CONTENT_TYPE, "application/json").body(json.clone()),
        };
        let send = |http| request(http).headers(headers.clone()).send();
        let mut is_lenient = false;
        let response = match send(&clients.strict).await {
            Err(error) if has_invalid_head(&error) => {
                is_lenient = true;
                send(&clients.lenient).await
            }
            response => response,
        };
        match response {
            Ok(response) if is_lenient && response.status().is_success() && !has_length(&response) => Err(format!(
                "{} answered with header lines that are not HTTP and without a length, so a truncated body could not \
                 be detected",
                http::origin(url)
            )),
            Ok(response) => Ok(response),
            Err(error) => Err(self.unreachable(error, &http::origin(url))),
        }
    }

    /// Why a request to `origin` got no response.
    fn unreachable(&self, error: reqwest::Error, origin: &str) -> String {
        let error = error.without_url();
        let through = self.proxy.as_ref().map(|proxy| format!(" through the proxy {proxy}")).unwrap_or_default();
        let texts = causes::texts(&error);
        let root = causes::root(&error);
        let mentions = |words: &str| texts.iter().any(|cause| cause.contains(words));
        // Errors of the proxy connector and the resolver have no public type, only their text.
        if mentions("proxy authorization required") {
            return format!(
                "could not connect to {origin}{through}: the proxy requires other credentials (407); see network.proxy"
            );
        }
        if mentions("tunnel error") {
            return format!("could not connect to {origin}{through}: the proxy refused ({root}); see network.proxy");
        }
        if mentions("dns error") {
            return format!("could not connect to {origin}{through}: its name has no address: {root}");
        }
        if let Some(tls) = causes::innermost::<rustls::Error>(&error) {
            let hint = http::certificate_advice(&error);
            return format!("could not connect to {origin}{through}: TLS: {tls}{hint}");
        }
        if error.is_connect() && error.is_timeout() {
            return format!("could not connect to {origin}{through} within {:?}", self.connect_timeout);
        }
        if error.is_connect() {
            return format!("could not connect to {origin}{through}: {root}");
        }
        format!("the connection to {origin}{through} was lost before the response: {root}")
    }
}

impl Sender for HttpSender {
    fn send<'a>(&'a self, request: Outgoing<'a>) -> BoxFuture<'a, Result<reqwest::Response, String>> {
        Box::pin(self.respond(request))
    }
}

/// Whether a response arrived whose head is not HTTP.
fn has_invalid_head(error: &reqwest::Error) -> bool {
    causes::innermost::<hyper::Error>(error).is_some_and(|error| error.is_parse() && !error.is_parse_too_large())
}

/// Whether the end of the body is announced, so that it does not end with the connection.
fn has_length(response: &reqwest::Response) -> bool {
    let mut codings = response.headers().get_all(TRANSFER_ENCODING).iter();
    let is_chunked =
        codings.next_back().is_some_and(|coding| coding.as_bytes().to_ascii_lowercase().ends_with(b"chunked"));
    is_chunked || response.headers().contains_key(CONTENT_LENGTH)
}

/// Settings for downloads, beyond the common ones.
fn adjust(builder: ClientBuilder, limits: &Limits) -> ClientBuilder {
    let downloads = u32::try_from(limits.concurrency).unwrap_or(u32::MAX);
    builder
        .connect_timeout(limits.connect_timeout)
        .http1_max_headers(MAX_HEADERS)
        // One connection carries all downloads from a host. With a smaller window, a slow consumer of one stalls the
        // others, which then seem to be below the minimum rate. 2^31 - 1 is the protocol's limit.
        .http2_initial_stream_window_size(HTTP2_WINDOW)
        .http2_initial_connection_window_size(HTTP2_WINDOW.saturating_mul(downloads).min(i32::MAX as u32))
}
