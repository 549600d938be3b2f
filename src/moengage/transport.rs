//! One request to the vendor, redirects included.
//!
//! This file owns redirects: which are followed, and what their targets receive. It must not know the APIs, which decide
//! what a status means.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use reqwest::{
    StatusCode,
    header::{HeaderMap, LOCATION},
};
use secrecy::SecretString;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::{
    bandwidth::Bandwidth,
    body::{Body, BodyLimits},
    endpoint::clear_userinfo,
    head::{self, status_text},
    redact::Redactor,
    sender::{Outgoing, Sender},
};
use crate::{
    config::{Limits, is_permitted},
    http,
    outcome::{Evidence, Failure, Outcome},
};

/// Most redirects followed. MoEngage may redirect to presigned storage, which is one.
const MAX_REDIRECTS: usize = 3;

/// Longest time from the request to the head of the last response, redirects included.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(120);

/// A request, and the credentials for it.
pub(super) struct Request {
    /// May itself be a secret.
    pub(super) url: Url,
    /// Headers that only the origin of `url` may receive.
    pub(super) credentials: HeaderMap,
    /// JSON to post; a request without is a download.
    pub(super) json: Option<Bytes>,
}

/// A response that is not a redirect, with its body yet to be read.
pub(super) struct Response {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Scheme and host of the redirect's target that responded, if there was a redirect.
    pub(super) redirected_to: Option<String>,
    /// That target's query. A secret.
    pub(super) presigned: Option<SecretString>,
    pub(super) evidence: Evidence,
    pub(super) body: Body,
}

#[derive(Clone)]
pub(super) struct Transport {
    sender: Arc<dyn Sender>,
    allow_http: bool,
    response_timeout: Duration,
    attempt_timeout: Duration,
    min_rate: u64,
    bandwidth: Bandwidth,
}

impl Transport {
    /// `allow_http` is whether a redirect may lead to an `http://` URL of another host than this machine.
    pub(super) fn new(sender: Arc<dyn Sender>, allow_http: bool, limits: &Limits) -> Self {
        Transport {
            sender,
            allow_http,
            response_timeout: response_timeout(limits),
            attempt_timeout: limits.attempt_timeout,
            min_rate: limits.min_rate,
            bandwidth: Bandwidth::default(),
        }
    }

    /// The same, with this limit on the bandwidth.
    pub(super) fn limited_by(self, bandwidth: Bandwidth) -> Self {
        Transport { bandwidth, ..self }
    }

    /// The limit on the bytes a second of all downloads.
    pub(super) fn bandwidth(&self) -> &Bandwidth {
        &self.bandwidth
    }

    /// Sends a request and follows the redirects of a download itself: the HTTP library would send the credentials to
    /// their targets. A redirect of a JSON request is an error.
    pub(super) async fn send(&self, request: Request, redactor: &Redactor) -> Result<Response, Failure> {
        let start = Instant::now();
        let deadline = later(start, self.attempt_timeout);
        let respond_by = start + self.response_timeout;
        let vendor = request.url.origin();
        let json = request.json;
        let mut path = vec![request.url];
        let mut credentials = Some(request.credentials);
        // Its `Date` is that of the last response from the vendor itself.
        let mut evidence = Evidence::default();

        loop {
            let url = &path[path.len() - 1];
            let origin = http::origin(url);
            let redirected_to = (path.len() > 1).then(|| origin.clone());
            let unavailable = |evidence: &Evidence, message: &str| {
                Failure::after(evidence, Outcome::Unavailable, redactor.redact(message))
            };
            let outgoing = Outgoing { url, credentials: credentials.as_ref(), json: json.as_ref() };
            let sent = timeout_at(respond_by, self.sender.send(outgoing)).await;
            let sent =
                sent.unwrap_or_else(|_| Err(format!("{origin} did not answer within {:?}", self.response_timeout)));
            let response = sent.map_err(|message| {
                let no_response = Evidence { http_status: None, ..evidence.clone() };
                let message = match &redirected_to {
                    Some(_) => format!("after a redirect from {}: {message}", vendor.ascii_serialization()),
                    None => message,
                };
                unavailable(&no_response, &message)
            })?;
            let status = response.status();
            evidence.http_status = Some(status.as_u16());
            if url.origin() == vendor {
                evidence.vendor_date = head::date(response.headers());
            }
            if !status.is_redirection() {
                let headers = response.headers().clone();
                evidence.request_id = head::request_id(&headers, redactor);
                evidence.seen = status.is_success();
                let limits = BodyLimits {
                    // The body of an error only explains it, so its time is short.
                    deadline: if status.is_success() { deadline } else { respond_by },
                    attempt_timeout: self.attempt_timeout,
                    min_rate: self.min_rate,
                };
                let body = Body::new(response, origin, limits, self.bandwidth.clone(), evidence.clone());
                let presigned = url.query().filter(|_| redirected_to.is_some()).map(SecretString::from);
                return Ok(Response { status, headers, redirected_to, presigned, evidence, body });
            }
            let target = match json {
                None => self.target(&response, &path, redactor),
                Some(_) => {
                    Err("redirects are followed only for archives; if the API has moved, change base_url".to_owned())
                }
            };
            let target = target.map_err(|reason| {
                let status = status_text(status);
                unavailable(&evidence, &format!("{origin} answered {status}, which is not followed: {reason}"))
            })?;
            // Another origin may redirect back to the vendor, without credentials: that was its decision.
            if target.origin() != vendor {
                credentials = None;
            }
            path.push(target);
        }
    }

    /// The target of a redirect, or why it is not followed. The reason names at most scheme and host of the target, whose
    /// path and query may be a presigned secret.
    fn target(&self, response: &reqwest::Response, path: &[Url], redactor: &Redactor) -> Result<Url, String> {
        let from = &path[path.len() - 1];
        if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Err("this status is not a redirect of a download".into());
        }
        let location = response.headers().get(LOCATION).ok_or("it has no Location header")?;
        let location = str::from_utf8(location.as_bytes()).map_err(|_| "its location is not UTF-8")?;
        let mut target = from.join(location).map_err(|_| "its location is not a URL")?;
        if !matches!(target.scheme(), "http" | "https") {
            return Err("its location is neither http nor https".into());
        }
        clear_userinfo(&mut target);
        target.set_fragment(None);
        let origin = http::origin(&target);
        if from.scheme() == "https" && target.scheme() == "http" {
            return Err(format!(
                "it leads from https to {origin}, where the archive could be read and changed on the way"
            ));
        }
        if !is_permitted(&target, self.allow_http) {
            return Err(format!("it leads to {origin}, and http needs network.allow_http"));
        }
        if target.origin() != from.origin() && redactor.finds_signature(target.as_str()) {
            return Err(format!(
                "it would send the signature to {origin}; if that is MoEngage too, make it the base_url"
            ));
        }
        if path.contains(&target) {
            return Err(format!("it leads back to a URL of {origin} that has already redirected"));
        }
        if path.len() > MAX_REDIRECTS {
            return Err(format!("it leads to {origin} after {MAX_REDIRECTS} redirects, the most that are followed"));
        }
        Ok(target)
    }
}

fn response_timeout(limits: &Limits) -> Duration {
    limits.attempt_timeout.min(RESPONSE_TIMEOUT)
}

fn later(from: Instant, by: Duration) -> Instant {
    const TEN_YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
    from + by.min(TEN_YEARS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_begins_within_two_minutes_and_within_the_attempt() {
        for (attempt_timeout, response_timeout) in [(3600, 120), (30, 30)] {
            let limits = Limits {
                concurrency: 1,
                concurrency_per_workspace: 1,
                concurrency_per_destination: 1,
                archive_bytes: 1,
                inflated_bytes: 1,
                inflate_ratio: 1,
                attempt_timeout: Duration::from_secs(attempt_timeout),
                connect_timeout: Duration::from_secs(1),
                min_rate: 1,
                bandwidth: None,
            };
            assert_eq!(super::response_timeout(&limits), Duration::from_secs(response_timeout));
        }
    }
}
