//! Which requests are answered, and the headers that every answer has.
//!
//! This file owns admission. It must not know what is served, except the paths that may be open without a token.

use std::{
    net::SocketAddr,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::time::timeout;
use tracing::debug;
use url::Host;

use crate::config::{Open, Web, is_loopback_host};

/// Time limit for making an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Content comes from this server alone, nothing is sent elsewhere, and no page may frame it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
                                       connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// The rules of admission.
pub(super) struct Guard {
    address: SocketAddr,
    hosts: Vec<String>,
    /// Hash of the token: the time of a comparison does not depend on the guess or its length.
    token: RwLock<Option<[u8; 32]>>,
    open: Vec<Open>,
}

impl Guard {
    pub(super) fn new(address: SocketAddr, config: &Web, token: Option<SecretString>) -> Self {
        Guard {
            address,
            hosts: config.hosts.clone(),
            token: RwLock::new(token.as_ref().map(hash_secret)),
            open: config.open.clone(),
        }
    }

    /// Replaces the token. Returns whether it has changed.
    pub(super) fn renew(&self, token: Option<&SecretString>) -> bool {
        let new = token.map(hash_secret);
        let mut known = self.token.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *known, new) != new
    }

    /// Answers an admitted request; rejects any other with a reason.
    pub(super) async fn admit(&self, request: Request, next: Next) -> Response {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let mut response = match self.refusal(&request) {
            Some(refusal) => refusal,
            None => timeout(ANSWER_TIMEOUT, next.run(request)).await.unwrap_or_else(|_| {
                (StatusCode::SERVICE_UNAVAILABLE, "the answer took too long; retry\n").into_response()
            }),
        };
        for (name, value) in HEADERS {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        debug!(%method, path, status = response.status().as_u16(), "answered");
        response
    }

    fn refusal(&self, request: &Request) -> Option<Response> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let reason = reason_for(request, "read-only: use GET or HEAD");
            return Some((StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD")], reason).into_response());
        }
        if !self.is_for_us(request) {
            let reason = "this request is for another host; add the host to [web] hosts if it is correct";
            return Some((StatusCode::MISDIRECTED_REQUEST, reason_for(request, reason)).into_response());
        }
        if !self.is_open(request.uri().path()) && !self.has_token(request.headers()) {
            let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"moesync\", charset=\"UTF-8\"")];
            let reason = "a token is required: as a Bearer token, or as the password of any user";
            return Some((StatusCode::UNAUTHORIZED, challenge, reason_for(request, reason)).into_response());
        }
        None
    }

    /// Whether the request names this server. A foreign page whose name resolves to our address (DNS rebinding) sends its
    /// own name.
    fn is_for_us(&self, request: &Request) -> bool {
        let uri = request.uri();
        let mut named = request.headers().get_all(header::HOST).iter();
        let (host, others) = (named.next(), named.next());
        // Browsers always name a host; some health checks do not.
        if host.is_none() && request.version() == Version::HTTP_10 && uri.authority().is_none() {
            return self.address.ip().is_loopback();
        }
        let (Some(host), None) = (host, others) else { return false };
        let Some(host) = host.to_str().ok().and_then(|text| text.parse::<Authority>().ok()) else { return false };
        // A request line may hold a whole URL.
        uri.authority().is_none_or(|authority| *authority == host) && self.is_our_name(&host)
    }

    fn is_our_name(&self, authority: &Authority) -> bool {
        // No user, and only a port after the name.
        if authority.port_u16().is_none() && authority.as_str() != authority.host() || authority.as_str().contains('@')
        {
            return false;
        }
        // The port is not compared: behind a proxy or a tunnel it differs.
        match Host::parse(authority.host()) {
            // Browsers resolve localhost themselves, so DNS cannot point it here from elsewhere.
            Ok(host) if is_loopback_host(&host) => true,
            Ok(Host::Domain(name)) => self.hosts.contains(&name),
            // DNS cannot redirect an address. A server on loopback is reached by loopback addresses only.
            Ok(Host::Ipv4(_) | Host::Ipv6(_)) => !self.address.ip().is_loopback(),
            Err(_) => false,
        }
    }

    fn is_open(&self, path: &str) -> bool {
        match path {
            "/livez" | "/readyz" => self.open.contains(&Open::Health),
            "/metrics" => self.open.contains(&Open::Metrics),
            _ => false,
        }
    }

    fn has_token(&self, headers: &HeaderMap) -> bool {
        let Some(expected) = *self.token.read().unwrap_or_else(PoisonError::into_inner) else { return true };
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(presented);
        given.is_some_and(|given| hash(&given).ct_eq(&expected).into())
    }
}

/// The token in an `Authorization` header.
fn presented(authorization: &str) -> Option<String> {
    let (scheme, value) = authorization.split_once(' ')?;
    let value = value.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let credentials = String::from_utf8(BASE64_STANDARD.decode(value).ok()?).ok()?;
    credentials.split_once(':').map(|(_, password)| password.to_owned())
}

fn hash_secret(token: &SecretString) -> [u8; 32] {
    hash(token.expose_secret())
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}
/// The reason of a refusal: as the API writes its errors, or as text.
fn reason_for(request: &Request, reason: &str) -> Response {
    match request.uri().path().starts_with("/api/") {
        true => {
            let text = format!("{:#}\n", serde_json::json!({"error": reason}));
            ([(header::CONTENT_TYPE, "application/json")], text).into_response()
        }
        false => format!("{reason}\n").into_response(),
    }
}
