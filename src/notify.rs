//! Tells one target one thing over HTTP: signed JSON, a line for Slack, a ping.
//!
//! This folder owns the form of each and what counts as arrived. It must not know when something is told, nor what
//! becomes of what did not arrive. An address is a secret here: no error shows more of it than scheme and host.

mod ping;
mod slack;
mod webhook;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::{ClientBuilder, RequestBuilder, Response, header::RETRY_AFTER};
use url::Url;

use crate::{
    config::{Channel, Network, Problem, Target, is_loopback},
    event::Event,
    http::{self, ClientError, Connector},
    telemetry::Chain,
};

/// Longest time for one request, from connecting to the end of the answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Longest part of a refusal's body that is read, in bytes.
const LONGEST_REASON: usize = 400;

/// A longer `Retry-After` is taken for a mistake.
const ABSURD_RETRY_AFTER: i64 = 24 * 3600;

/// Speaks to targets.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    /// For loopback addresses: a proxy has another loopback.
    direct: reqwest::Client,
}

/// How things are, for a dead man's switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ping {
    /// A pass begins.
    Start,
    /// All is well.
    Success,
    /// It is not.
    Fail,
    /// Neither: only that somebody was here.
    Log,
}

/// Why something has not arrived.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    message: String,
    /// How long the target asks to wait.
    pub retry_after: Option<SignedDuration>,
    /// Whether it is this very message that the target refuses, rather than any.
    pub is_of_message: bool,
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        refusal(problem.to_string())
    }
}

impl Client {
    /// Prepares connections, by the proxy and the authorities of the configuration.
    ///
    /// # Errors
    ///
    /// If those cannot be used.
    pub fn new(network: &Network) -> Result<Self, Refusal> {
        let unusable = |error: ClientError| refusal(Chain(&error).to_string());
        // Only the status counts, so any other header line is accepted.
        let adjust = |builder: ClientBuilder| builder.timeout(TIMEOUT).http1_ignore_invalid_headers_in_responses(true);
        let connector = Connector::new(network).map_err(unusable)?;
        let http = connector.client(adjust).map_err(unusable)?;
        Ok(Client { http, direct: connector.direct_client(adjust).map_err(unusable)? })
    }

    /// Tells `target` of `event`, signed with the time `now`. A target that is only pinged is told in a way that
    /// is no sign of life.
    ///
    /// # Errors
    ///
    /// When it has not arrived: any answer but 2xx, or none.
    pub async fn send(&self, target: &Target, event: &Event, now: Timestamp) -> Result<(), Refusal> {
        let url = target.url()?;
        let http = self.for_address(&url);
        let request = match &target.channel {
            Channel::Webhook { .. } => webhook::request(http, &url, event, target.key()?.as_ref(), now),
            Channel::Slack { .. } => slack::request(http, &url, event),
            Channel::Ping { .. } => ping::request(http, &url, Ping::Log, event.content.message()),
        };
        deliver(request, &url).await
    }

    /// Gives a target that is a dead man's switch its sign of life.
    ///
    /// # Errors
    ///
    /// When it has not arrived.
    pub async fn ping(&self, target: &Target, sign: Ping, text: String) -> Result<(), Refusal> {
        let url = target.url()?;
        deliver(ping::request(self.for_address(&url), &url, sign, text), &url).await
    }

    fn for_address(&self, url: &Url) -> &reqwest::Client {
        if is_loopback(url) { &self.direct } else { &self.http }
    }
}

async fn deliver(request: RequestBuilder, url: &Url) -> Result<(), Refusal> {
    let place = http::origin(url);
    let response = request
        .send()
        .await
        .map_err(|error| refusal(format!("could not reach {place}: {}", Chain(&error.without_url()))))?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let retry_after = retry_after.filter(|seconds| (1..=ABSURD_RETRY_AFTER).contains(seconds));
    let reason = reason(response, url).await;
    let separator = if reason.is_empty() { "" } else { ": " };
    Err(Refusal {
        message: format!("{place} answered {}{separator}{reason}", status.as_u16()),
        retry_after: retry_after.map(SignedDuration::from_secs),
        is_of_message: matches!(status.as_u16(), 400 | 413 | 422),
    })
}

/// What a refusal says, on one line, without what it repeats of the address.
async fn reason(mut response: Response, url: &Url) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < LONGEST_REASON
        && let Ok(Some(chunk)) = response.chunk().await
    {
        bytes.extend_from_slice(&chunk);
    }
    bytes.truncate(LONGEST_REASON);
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

fn refusal(message: String) -> Refusal {
    Refusal { message, retry_after: None, is_of_message: false }
}
