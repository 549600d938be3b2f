//! Sends one event or ping to one target: by HTTP signed JSON, blocks for Slack, a card for Teams, a ping; by SMTP an e-mail.
//!
//! This folder owns the format of each request and what counts as arrived. It must not know when an event is sent, or
//! retried. A target's address is a secret: errors show its scheme, host and port only.

mod email;
mod ping;
mod slack;
mod teams;
mod webhook;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use lettre::transport::smtp::client::Certificate;
use reqwest::{ClientBuilder, RequestBuilder, Response, header::RETRY_AFTER};
use url::Url;

use crate::{
    config::{Channel, Network, Problem, Target, is_loopback},
    event::Event,
    http::{self, ClientError, Connector},
    telemetry::Chain,
};

/// Timeout of one request, from connecting to the end of the response.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of bytes read from the body of an error response.
const MAX_REASON_BYTES: usize = 400;

/// Maximum `Retry-After` in seconds. A longer one is ignored as a mistake.
const MAX_RETRY_AFTER: i64 = 24 * 3600;

/// Sends to targets.
#[derive(Debug, Clone)]
pub struct NotifyClient {
    http: reqwest::Client,
    /// For loopback addresses: a proxy would connect to its own machine.
    direct: reqwest::Client,
    /// Of `ca_file`, for e-mail.
    authority: Option<Certificate>,
}

/// The kinds of ping that a dead man's switch understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ping {
    /// A pass begins.
    Start,
    /// No alarm is on.
    Success,
    /// An alarm is on, or a pass failed.
    Fail,
    /// A test, which does not count as a sign of life.
    Log,
}

/// Why an event or ping did not arrive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    message: String,
    /// The wait that the target requests.
    pub retry_after: Option<SignedDuration>,
    /// Whether the target refuses the content of this event, so that others may be accepted.
    pub is_of_message: bool,
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Refusal::new(problem.to_string())
    }
}

impl Refusal {
    /// A refusal of any message, without a requested wait.
    fn new(message: String) -> Self {
        Refusal { message, retry_after: None, is_of_message: false }
    }
}

impl NotifyClient {
    /// A client with the proxy and certificate authorities of the configuration.
    ///
    /// # Errors
    ///
    /// If these cannot be used.
    pub fn new(network: &Network) -> Result<Self, Refusal> {
        let unusable = |error: ClientError| Refusal::new(Chain(&error).to_string());
        // Only the status counts, so any other header line is accepted.
        let adjust = |builder: ClientBuilder| builder.timeout(TIMEOUT).http1_ignore_invalid_headers_in_responses(true);
        let connector = Connector::new(network).map_err(unusable)?;
        let http = connector.client(adjust).map_err(unusable)?;
        let direct = connector.direct_client(adjust).map_err(unusable)?;
        Ok(NotifyClient { http, direct, authority: email::authorities(network)? })
    }

    /// Sends `event` to `target`, signed with the time `now`. A dead man's switch receives it as [`Ping::Log`].
    ///
    /// # Errors
    ///
    /// If the response is not 2xx, or there is none; if no recipient of an e-mail is accepted.
    pub async fn send(&self, target: &Target, event: &Event, now: Timestamp) -> Result<(), Refusal> {
        match &target.channel {
            Channel::Webhook { .. } => {
                let key = target.key()?;
                self.post(target, |http, url| webhook::request(http, url, event, key.as_ref(), now)).await
            }
            Channel::Slack { .. } => self.post(target, |http, url| slack::request(http, url, event)).await,
            Channel::Teams { .. } => self.post(target, |http, url| teams::request(http, url, event)).await,
            Channel::Email { email, .. } => email::send(target, email, self.authority.as_ref(), event).await,
            Channel::Ping { .. } => self.ping(target, Ping::Log, event.content.message()).await,
        }
    }

    /// Pings `target`, a dead man's switch.
    ///
    /// # Errors
    ///
    /// As [`NotifyClient::send`].
    pub async fn ping(&self, target: &Target, ping: Ping, text: String) -> Result<(), Refusal> {
        self.post(target, |http, url| ping::request(http, url, ping, text)).await
    }

    async fn post(
        &self,
        target: &Target,
        request: impl FnOnce(&reqwest::Client, &Url) -> RequestBuilder,
    ) -> Result<(), Refusal> {
        let url = target.url()?;
        deliver(request(self.for_address(&url), &url), &url).await
    }

    fn for_address(&self, url: &Url) -> &reqwest::Client {
        if is_loopback(url) { &self.direct } else { &self.http }
    }
}

async fn deliver(request: RequestBuilder, url: &Url) -> Result<(), Refusal> {
    let origin = http::origin(url);
    let response = request.send().await.map_err(|error| {
        let advice = http::certificate_advice(&error);
        Refusal::new(format!("could not reach {origin}: {}{advice}", Chain(&error.without_url())))
    })?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let retry_after = retry_after.filter(|seconds| (1..=MAX_RETRY_AFTER).contains(seconds));
    let reason = reason(response, url).await;
    let separator = if reason.is_empty() { "" } else { ": " };
    Err(Refusal {
        message: format!("{origin} answered {}{separator}{reason}", status.as_u16()),
        retry_after: retry_after.map(SignedDuration::from_secs),
        is_of_message: matches!(status.as_u16(), 400 | 413 | 422),
    })
}

/// The beginning of an error response's body on one line, without the parts of the address that it repeats.
async fn reason(mut response: Response, url: &Url) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < MAX_REASON_BYTES
        && let Ok(Some(chunk)) = response.chunk().await
    {
        bytes.extend_from_slice(&chunk);
    }
    bytes.truncate(MAX_REASON_BYTES);
    let text = String::from_utf8_lossy(&bytes);
    let words: Vec<_> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    let mut line = words.join(" ");
    let segments = url.path_segments().into_iter().flatten().map(str::to_owned);
    let queries = url.query_pairs().flat_map(|(name, value)| [name.into_owned(), value.into_owned()]);
    for part in segments.chain(queries).filter(|part| part.len() >= 4) {
        line = line.replace(&part, "…");
    }
    line
}
