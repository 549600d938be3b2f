//! One request to the vendor and the body of its answer: redirects, deadlines, the minimum rate, and plain words for
//! everything that can go wrong on the way.
//!
//! This file owns the network. It must not know the APIs: what a status means is theirs to say, except where a
//! redirect or a proxy answered.

use std::{error::Error, io, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{
    ClientBuilder, StatusCode,
    header::{
        ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, LOCATION,
        TRANSFER_ENCODING,
    },
};
use secrecy::SecretString;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::redact::Redactor;
use crate::{
    config::{Limits, Network, is_loopback, is_permitted},
    http::{self, ClientError, Connector},
    outcome::{Evidence, Failure, Outcome},
};

/// Most redirects followed. The vendor may hand over to presigned storage, which is one.
const MAX_REDIRECTS: usize = 3;

/// Longest time from the request to the headers of the last answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// Most header lines of an answer. Firewalls add dozens; the HTTP library's own limit is 100.
const MAX_HEADERS: usize = 1_000;

/// How much time spent waiting for the vendor is judged at once by the minimum rate.
const RATE_WINDOW: Duration = Duration::from_secs(10);

/// Most bytes of one download that HTTP/2 lets the vendor send ahead of the consumer.
const HTTP2_WINDOW: u32 = 1024 * 1024;

/// Everything but what RFC 3986 calls unreserved, so that no server can read a name in two ways.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What to ask for, and what proves who asks.
pub(super) struct Request {
    /// Where to. May itself be a secret.
    pub(super) url: Url,
    /// Headers that only the origin of `url` may see.
    pub(super) credentials: HeaderMap,
    /// JSON to post; a request without is a download.
    pub(super) json: Option<Bytes>,
}

/// An answer that is no redirect, with its body still to come.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// The redirect's target that answered, as scheme and host, if it was one.
    pub(super) redirected_to: Option<String>,
    /// That target's query. A secret.
    pub(super) presigned: Option<SecretString>,
    pub(super) evidence: Evidence,
    pub(super) body: Body,
}

#[derive(Clone)]
pub(super) struct Transport {
    http: Clients,
    /// For loopback addresses, where no proxy is configured: a proxy that the environment names for the world has
    /// another loopback. Go's HTTP client has the same exception.
    direct: Option<Clients>,
    /// The configured proxy, as scheme and host.
    proxy: Option<String>,
    allow_http: bool,
    /// How long an answer may take to begin, redirects included.
    answer_timeout: Duration,
    attempt_timeout: Duration,
    connect_timeout: Duration,
    min_rate: u64,
}

impl Transport {
    pub(super) fn new(network: &Network, limits: &Limits) -> Result<Self, ClientError> {
        let connector = Connector::new(network)?;
        let strict = |builder| adjust(builder, limits).http1_ignore_invalid_headers_in_responses(false);
        let lenient = |builder| adjust(builder, limits).http1_ignore_invalid_headers_in_responses(true);
        let http = Clients { strict: connector.client(strict)?, lenient: connector.client(lenient)? };
        let direct = match network.proxy {
            Some(_) => None,
            None => {
                Some(Clients { strict: connector.direct_client(strict)?, lenient: connector.direct_client(lenient)? })
            }
        };
        Ok(Transport {
            http,
            direct,
            proxy: network.proxy.as_ref().map(http::origin),
            allow_http: network.allow_http,
            answer_timeout: limits.attempt_timeout.min(ANSWER_TIMEOUT),
            attempt_timeout: limits.attempt_timeout,
            connect_timeout: limits.connect_timeout,
            min_rate: limits.min_rate,
        })
    }

    /// Gets an answer. Redirects of a download are followed by hand, because the stock policy would take the credentials
    /// along; those of a question are not followed at all.
    pub(super) async fn ask(&self, request: Request, redactor: &Redactor) -> Result<Answer, Failure> {
        let started = Instant::now();
        let deadline = later(started, self.attempt_timeout);
        let answer_by = started + self.answer_timeout;
        let origin = request.url.origin();
        let json = request.json;
        let mut way = vec![request.url];
        let mut credentials = Some(request.credentials);
        // The `Date` is that of the last answer of the origin that was asked.
        let mut evidence = Evidence::default();

        loop {
            let url = &way[way.len() - 1];
            let place = http::origin(url);
            let redirected_to = (way.len() > 1).then(|| place.clone());
            let unavailable = |evidence: &Evidence, message: &str| {
                Failure::after(evidence, Outcome::Unavailable, redactor.redact(message))
            };
            let sent = self.send(url, credentials.as_ref(), json.as_ref(), answer_by).await;
            let response = sent.map_err(|message| {
                let unanswered = Evidence { http_status: None, ..evidence.clone() };
                match &redirected_to {
                    Some(_) => unavailable(
                        &unanswered,
                        &format!("after a redirect from {}: {message}", origin.ascii_serialization()),
                    ),
                    None => unavailable(&unanswered, &message),
                }
            })?;
            let status = response.status();
            evidence.http_status = Some(status.as_u16());
            if url.origin() == origin {
                evidence.vendor_date = date(response.headers());
            }
            if !status.is_redirection() {
                let headers = response.headers().clone();
                evidence.request_id = header(&headers, REQUEST_ID, redactor);
                evidence.seen = status.is_success();
                let body = Body {
                    expected: response.content_length(),
                    received: 0,
                    response,
                    place,
                    // The body only explains the refusal: a short wait is enough.
                    deadline: if status.is_success() { deadline } else { answer_by },
                    attempt_timeout: self.attempt_timeout,
                    min_rate: self.min_rate,
                    waited: Duration::ZERO,
                    received_in_window: 0,
                    evidence: evidence.clone(),
                };
                let presigned = url.query().filter(|_| redirected_to.is_some()).map(SecretString::from);
                return Ok(Answer { status, headers, redirected_to, presigned, evidence, body });
            }
            let target = match json {
                None => self.target(&response, &way, redactor),
                Some(_) => {
                    Err("redirects are followed only for archives; if the API has moved, change base_url".to_owned())
                }
            };
            let target = target.map_err(|reason| {
                unavailable(&evidence, &format!("{place} answered {}, which is not followed: {reason}", spoken(status)))
            })?;
            // After another origin, a redirect back is that origin's decision too.
            if target.origin() != origin {
                credentials = None;
            }
            way.push(target);
        }
    }

    async fn send(
        &self,
        url: &Url,
        credentials: Option<&HeaderMap>,
        json: Option<&Bytes>,
        answer_by: Instant,
    ) -> Result<reqwest::Response, String> {
        let mut headers = credentials.cloned().unwrap_or_default();
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let clients = self.direct.as_ref().filter(|_| is_loopback(url)).unwrap_or(&self.http);
        let request = |http: &reqwest::Client| match json {
            None => http.get(url.clone()),
            Some(json) => http.post(url.clone()).header(CONTENT_TYPE, "application/json").body(json.clone()),
        };
        let send = |http| request(http).headers(headers.clone()).send();
        let answer = async {
            match send(&clients.strict).await {
                Err(error) if is_unreadable(&error) => Ok((send(&clients.lenient).await?, true)),
                answer => answer.map(|response| (response, false)),
            }
        };
        match timeout_at(answer_by, answer).await {
            Ok(Ok((response, true))) if response.status().is_success() && !has_length(&response) => Err(format!(
                "{} answered with header lines that are not HTTP and without a length, so the end of its body cannot be \
                 known",
                http::origin(url)
            )),
            Ok(Ok((response, _))) => Ok(response),
            Ok(Err(error)) => Err(self.unreachable(error, &http::origin(url))),
            Err(_) => Err(format!("{} did not answer within {:?}", http::origin(url), self.answer_timeout)),
        }
    }

    /// Where a redirect leads, or why it is refused. The reason names the target's scheme and host at most: its path
    /// and query may be a presigned secret.
    fn target(&self, response: &reqwest::Response, way: &[Url], redactor: &Redactor) -> Result<Url, String> {
        let from = &way[way.len() - 1];
        if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Err("it is no redirect that a download knows".into());
        }
        let location = response.headers().get(LOCATION).ok_or("it names no location")?;
        let location = str::from_utf8(location.as_bytes()).map_err(|_| "its location is not UTF-8")?;
        let mut target = from.join(location).map_err(|_| "its location is not a URL")?;
        if !matches!(target.scheme(), "http" | "https") {
            return Err("its location is neither http nor https".into());
        }
        clear_userinfo(&mut target);
        target.set_fragment(None);
        let place = http::origin(&target);
        if from.scheme() == "https" && target.scheme() == "http" {
            return Err(format!("it leads from https to {place}, where everybody could read and change the archive"));
        }
        if !is_permitted(&target, self.allow_http) {
            return Err(format!("it leads to {place}, and http needs network.allow_http"));
        }
        if target.origin() != from.origin() && redactor.finds_signature(target.as_str()) {
            return Err(format!(
                "it would hand our signature to {place}; if that is MoEngage too, make it the base_url"
            ));
        }
        if way.contains(&target) {
            return Err(format!("it leads back to a URL of {place} that redirected already"));
        }
        if way.len() > MAX_REDIRECTS {
            return Err(format!("it leads on to {place} after {MAX_REDIRECTS} redirects"));
        }
        Ok(target)
    }

    /// Plain words for a request that got no answer.
    fn unreachable(&self, error: reqwest::Error, place: &str) -> String {
        let error = error.without_url();
        let through = self.proxy.as_ref().map(|proxy| format!(" through the proxy {proxy}")).unwrap_or_default();
        let causes = causes(&error);
        let root = causes.last().cloned().unwrap_or_default();
        let mentions = |words: &str| causes.iter().any(|cause| cause.contains(words));
        // The proxy connector's and resolver's errors have no public type, only their words.
        if mentions("proxy authorization required") {
            return format!(
                "could not connect to {place}{through}: it wants other credentials (407); see network.proxy"
            );
        }
        if mentions("tunnel error") {
            return format!("could not connect to {place}{through}: it refused ({root}); see network.proxy");
        }
        if mentions("dns error") {
            return format!("could not connect to {place}{through}: its name has no address: {root}");
        }
        if let Some(tls) = find::<rustls::Error>(&error) {
            let hint = match tls {
                rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) => {
                    "; if its certificate authority is a private one, name it in network.ca_file"
                }
                _ => "",
            };
            return format!("could not connect to {place}{through}: TLS: {tls}{hint}");
        }
        if error.is_connect() && error.is_timeout() {
            return format!("could not connect to {place}{through} within {:?}", self.connect_timeout);
        }
        if error.is_connect() {
            return format!("could not connect to {place}{through}: {root}");
        }
        format!("the connection to {place}{through} was lost before the answer: {root}")
    }
}

/// Two ways to read the head of an HTTP/1 answer. Both read a folded line as one, and a space before the colon as none
/// (RFC 9112, section 5.2, asks the former of every client).
#[derive(Clone)]
struct Clients {
    /// A line that is no header spoils the answer.
    strict: reqwest::Client,
    /// Such a line is passed over. It may have been the one that says how long the body is, so this client is asked only
    /// after the strict one, and believed only about bodies whose length is known.
    lenient: reqwest::Client,
}

/// Whether an answer came whose head is not HTTP.
fn is_unreadable(error: &reqwest::Error) -> bool {
    find::<hyper::Error>(error).is_some_and(|error| error.is_parse() && !error.is_parse_too_large())
}

/// Whether the body announces its end, rather than ending with the connection.
fn has_length(response: &reqwest::Response) -> bool {
    let mut codings = response.headers().get_all(TRANSFER_ENCODING).iter();
    let is_chunked =
        codings.next_back().is_some_and(|coding| coding.as_bytes().to_ascii_lowercase().ends_with(b"chunked"));
    is_chunked || response.headers().contains_key(CONTENT_LENGTH)
}

/// The body of an answer, as it comes.
pub(super) struct Body {
    response: reqwest::Response,
    place: String,
    expected: Option<u64>,
    received: u64,
    deadline: Instant,
    attempt_timeout: Duration,
    min_rate: u64,
    /// Time spent waiting in the present window. Time spent on a slow consumer does not count.
    waited: Duration,
    received_in_window: u64,
    /// Of the answer.
    evidence: Evidence,
}

impl Body {
    /// Length in bytes that the answer announced.
    pub(super) fn announced_length(&self) -> Option<u64> {
        self.expected
    }

    /// The next bytes as received; `None` at a proper end. The message of a failure may hold what the server wrote.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let started = Instant::now();
            if started >= self.deadline {
                return Err(self.overdue());
            }
            let until = match self.min_rate {
                0 => self.deadline,
                _ => self.deadline.min(started + RATE_WINDOW.saturating_sub(self.waited)),
            };
            let chunk = match timeout_at(until, self.response.chunk()).await {
                Ok(Ok(Some(bytes))) => Some(bytes),
                Ok(Ok(None)) => return Ok(None),
                Ok(Err(error)) => return Err(self.broken(error.without_url())),
                Err(_) if until == self.deadline => return Err(self.overdue()),
                Err(_) => None,
            };
            let length = chunk.as_ref().map_or(0, |bytes| bytes.len() as u64);
            self.received += length;
            self.received_in_window += length;
            self.waited += started.elapsed();
            if self.min_rate > 0 && self.waited >= RATE_WINDOW {
                if self.received_in_window < self.min_rate.saturating_mul(RATE_WINDOW.as_secs()) {
                    return Err(self.too_slow());
                }
                self.waited = Duration::ZERO;
                self.received_in_window = 0;
            }
            if chunk.is_some() {
                return Ok(chunk);
            }
        }
    }

    fn overdue(&self) -> Failure {
        Failure::after(
            &self.evidence,
            Outcome::Unavailable,
            format!(
                "{} did not send everything within {:?}, only {}; see limits.attempt_timeout",
                self.place,
                self.attempt_timeout,
                self.progress()
            ),
        )
    }

    fn too_slow(&self) -> Failure {
        let message = format!(
            "{} sent slower than {} bytes a second: {} bytes in {:?} of waiting, {} in all; see limits.min_rate",
            self.place,
            self.min_rate,
            self.received_in_window,
            RATE_WINDOW,
            self.progress()
        );
        Failure::after(&self.evidence, Outcome::Unavailable, message)
    }

    /// A body that ends before its announced end, or whose framing is wrong, is a damaged archive; a connection that
    /// breaks is a matter of the network.
    fn broken(&self, error: reqwest::Error) -> Failure {
        let cut = match find::<io::Error>(&error).map(io::Error::kind) {
            Some(io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
                find::<rustls::Error>(&error).is_none()
            }
            Some(_) => false,
            // HTTP/2: the peer broke the protocol, for one by ending a stream short of its length.
            None => find::<h2::Error>(&error).is_some_and(h2::Error::is_library),
        };
        let root = causes(&error).pop().unwrap_or_default();
        if cut {
            Failure::after(
                &self.evidence,
                Outcome::Corrupt,
                format!("the body from {} broke off after {}: {root}", self.place, self.progress()),
            )
        } else {
            let message = format!("the connection to {} was lost after {}: {root}", self.place, self.progress());
            Failure::after(&self.evidence, Outcome::Unavailable, message)
        }
    }

    fn progress(&self) -> String {
        match self.expected {
            Some(expected) => format!("{} of {expected} bytes", self.received),
            None => format!("{} bytes", self.received),
        }
    }
}

/// The URL of `segments` below `base_url`, whose path is kept. Each segment is escaped so that the server sees exactly
/// its UTF-8 bytes.
pub(super) fn below(base_url: &Url, segments: &[&str]) -> Url {
    let mut url = base_url.clone();
    clear_userinfo(&mut url);
    url.set_query(None);
    url.set_fragment(None);
    let mut path = base_url.path().trim_end_matches('/').to_owned();
    for segment in segments {
        path.push('/');
        path.extend(utf8_percent_encode(segment, SEGMENT));
    }
    url.set_path(&path);
    url
}

/// A status as people know it, such as `404 Not Found`.
pub(super) fn spoken(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

/// The vendor documents a request id only in error bodies; this header is the common one, taken if it is there.
const REQUEST_ID: &str = "x-request-id";

/// The value of a header, cleaned; `None` where nothing of it is left.
pub(super) fn header(headers: &HeaderMap, name: &str, redactor: &Redactor) -> Option<String> {
    let value = headers.get(name)?.as_bytes();
    Some(redactor.clean(&String::from_utf8_lossy(value))).filter(|text| !text.is_empty())
}

/// The `Date` of an answer.
fn date(headers: &HeaderMap) -> Option<Timestamp> {
    http_date(headers.get(DATE)?.to_str().ok()?)
}

/// A date in any of HTTP's three forms.
pub(super) fn http_date(text: &str) -> Option<Timestamp> {
    httpdate::parse_http_date(text.trim()).ok()?.try_into().ok()
}

/// What downloads need beyond the common settings.
fn adjust(builder: ClientBuilder, limits: &Limits) -> ClientBuilder {
    let downloads = u32::try_from(limits.concurrency).unwrap_or(u32::MAX);
    builder
        .connect_timeout(limits.connect_timeout)
        .http1_max_headers(MAX_HEADERS)
        // One connection carries all downloads from a host: with less, a slow consumer of one would stall the
        // others, and they would seem slow to the minimum rate. 2^31 - 1 is the protocol's limit.
        .http2_initial_stream_window_size(HTTP2_WINDOW)
        .http2_initial_connection_window_size(HTTP2_WINDOW.saturating_mul(downloads).min(i32::MAX as u32))
}

fn clear_userinfo(url: &mut Url) {
    // Both fail only for URLs without a host, which have no userinfo either.
    let _ = url.set_username("");
    let _ = url.set_password(None);
}

fn later(from: Instant, by: Duration) -> Instant {
    const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
    from + by.min(FOREVER)
}

/// The words of an error and of everything below it.
fn causes(error: &reqwest::Error) -> Vec<String> {
    chain(error).map(ToString::to_string).collect()
}

/// The innermost error of a type.
fn find<T: Error + 'static>(error: &reqwest::Error) -> Option<&T> {
    chain(error).filter_map(|cause| cause.downcast_ref::<T>()).last()
}

/// An error and everything below it, also what an `io::Error` wraps, which its `source` passes over.
fn chain(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(Some(error as &(dyn Error + 'static)), |&error| {
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::{Stream, StreamExt as _, stream};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// The body of an answer that comes as `pieces`.
    fn body(attempt_timeout: Duration, min_rate: u64, pieces: impl Stream<Item = Bytes> + Send + 'static) -> Body {
        let pieces = reqwest::Body::wrap_stream(pieces.map(Ok::<_, Infallible>));
        Body {
            response: hyper::Response::new(pieces).into(),
            place: "https://vendor.example".to_owned(),
            expected: Some(9),
            received: 0,
            deadline: later(Instant::now(), attempt_timeout),
            attempt_timeout,
            min_rate,
            waited: Duration::ZERO,
            received_in_window: 0,
            evidence: Evidence::default(),
        }
    }

    /// An endless body, one byte after each `pause`.
    fn trickle(pause: Duration) -> impl Stream<Item = Bytes> {
        stream::unfold((), move |()| async move {
            tokio::time::sleep(pause).await;
            Some((Bytes::from_static(b"x"), ()))
        })
    }

    /// Why `body` ended, and after how long.
    async fn end(mut body: Body) -> (String, Duration) {
        let started = Instant::now();
        loop {
            match body.chunk().await {
                Ok(bytes) => assert!(bytes.is_some(), "the body ended well"),
                Err(fault) => {
                    assert_eq!(fault.outcome, Outcome::Unavailable);
                    return (fault.message, started.elapsed());
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_slower_than_the_minimum_rate_ends() {
        let (message, after) = end(body(HOUR, 1024, trickle(Duration::from_millis(300)))).await;
        assert!(message.contains("slower than 1024 bytes a second"), "{message}");
        assert!(after < Duration::from_secs(12), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_minimum_rate_a_slow_body_ends_at_the_deadline_of_the_attempt() {
        let minute = Duration::from_secs(60);
        let (message, after) = end(body(minute, 0, trickle(Duration::from_millis(300)))).await;
        assert!(message.contains("within 60s"), "{message}");
        assert_eq!(after.as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_ends_at_the_minimum_rate() {
        let pieces = stream::iter([Bytes::from_static(b"PK")]).chain(stream::pending());
        let (message, after) = end(body(HOUR, 1024, pieces)).await;
        assert!(message.contains("2 of 9 bytes"), "{message}");
        assert!(after < Duration::from_secs(21), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_consumer_is_not_held_against_the_vendor() {
        let mut body = body(2 * HOUR, 1024, trickle(Duration::from_millis(100)).take(60));
        let mut total = 0;
        while let Ok(Some(bytes)) = body.chunk().await {
            total += bytes.len();
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        assert_eq!(total, 60);
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_of_the_attempt_holds_where_bytes_are_always_there() {
        let mut body = body(HOUR, 1024, stream::repeat(Bytes::from_static(b"x")));
        let fault = loop {
            match body.chunk().await {
                Ok(bytes) => assert!(bytes.is_some(), "the body ended well"),
                Err(fault) => break fault,
            }
            tokio::time::sleep(Duration::from_secs(1200)).await;
        };
        assert!(fault.message.contains("limits.attempt_timeout"), "{}", fault.message);
    }

    #[test]
    fn an_answer_begins_within_two_minutes_and_within_the_attempt() {
        for (attempt_timeout, answer_timeout) in [(3600, 120), (30, 30)] {
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
            };
            let network = Network { proxy: None, ca_file: None, allow_http: false };
            let transport = Transport::new(&network, &limits).unwrap();
            assert_eq!(transport.answer_timeout, Duration::from_secs(answer_timeout));
        }
    }
}
