//! What the vendor's answer means: from status, headers and error body to an outcome and the vendor's own words.
//!
//! This file owns that judgement. It must not know how the answer came.

use jiff::Timestamp;
use reqwest::{
    StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};
use serde_json::Value;

use super::{
    failure::{Redactor, RetryAfter},
    transport::{Body, http_date},
};
use crate::outcome::Outcome;

/// Most of an error body that is read, in bytes.
const MAX_ERROR_BODY: usize = 64 * 1024;

/// The outcome of an archive request that was answered so; `None` for the archive itself.
pub(super) fn outcome(status: StatusCode, redirected: bool) -> Option<Outcome> {
    match status.as_u16() {
        200 => None,
        201..=299 => Some(Outcome::Corrupt),
        // Whatever storage says is about the hand-over, not about the report.
        _ if redirected => Some(Outcome::Unavailable),
        401 | 403 => Some(Outcome::Unauthorized),
        429 => Some(Outcome::RateLimited),
        // 407 comes from a proxy and says nothing about the report.
        407 | 408 | 425 => Some(Outcome::Unavailable),
        400..=499 => Some(Outcome::NotPublished),
        _ => Some(Outcome::Unavailable),
    }
}

/// The outcome of a question to a JSON API that was answered so; `None` for what was asked for.
pub(super) fn api_outcome(status: StatusCode) -> Option<Outcome> {
    match status.as_u16() {
        200 => None,
        201..=299 => Some(Outcome::Corrupt),
        401 | 403 => Some(Outcome::Unauthorized),
        429 => Some(Outcome::RateLimited),
        407 | 408 | 425 => Some(Outcome::Unavailable),
        400..=499 => Some(Outcome::Rejected),
        _ => Some(Outcome::Unavailable),
    }
}

/// When to come back, if the answer says so in a form that can be read.
pub(super) fn retry_after(headers: &HeaderMap, answered_at: Option<Timestamp>) -> Option<RetryAfter> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are still a wait; the caller caps it.
        return Some(RetryAfter::Seconds(value.parse().unwrap_or(u64::MAX)));
    }
    let at = http_date(value)?;
    Some(match answered_at {
        Some(answered_at) => RetryAfter::Seconds(u64::try_from(at.as_second() - answered_at.as_second()).unwrap_or(0)),
        None => RetryAfter::At(at),
    })
}

/// What the vendor says in an error body.
#[derive(Default)]
pub(super) struct Explanation {
    /// Its message and the kind of error, cleaned.
    pub(super) text: Option<String>,
    /// Its name for the request, cleaned.
    pub(super) request_id: Option<String>,
}

/// Reads an error body in either of the vendor's forms: `{"error": {message, type, request_id}}` (seed document 001;
/// `code` for `type` in 003) or `{title, description, code}` (seed document 002). Anything else explains nothing: the
/// status was judged already.
pub(super) async fn explanation(body: &mut Body, redactor: &Redactor) -> Explanation {
    let mut read = Vec::new();
    while read.len() < MAX_ERROR_BODY {
        match body.chunk().await {
            Ok(Some(bytes)) => read.extend_from_slice(&bytes[..bytes.len().min(MAX_ERROR_BODY - read.len())]),
            Ok(None) | Err(_) => break,
        }
    }
    serde_json::from_slice(&read).map(|json| explain(&json, redactor)).unwrap_or_default()
}

fn explain(json: &Value, redactor: &Redactor) -> Explanation {
    let error = json.get("error").unwrap_or(json);
    let field = |name: &str| match error.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let parts: Vec<_> = ["type", "code", "title", "message", "description"]
        .into_iter()
        .filter_map(field)
        .filter(|text| !text.trim().is_empty())
        .collect();
    let cleaned = |text: String| Some(redactor.clean(&text)).filter(|text| !text.is_empty());
    Explanation { text: cleaned(parts.join(": ")), request_id: field("request_id").and_then(cleaned) }
}
