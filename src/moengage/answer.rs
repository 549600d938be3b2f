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
    redact::Redactor,
    repair,
    transport::{Body, http_date},
};
use crate::outcome::{Outcome, RetryAfter};

/// Most of an error body that is read, in bytes.
const MAX_ERROR_BODY: usize = 64 * 1024;

/// Longest beginning of an answer of unknown form that is quoted, in characters.
const MAX_BEGINNING: usize = 80;

/// The outcome of an archive request that was answered so; `None` for the archive itself.
pub(super) fn outcome(status: StatusCode, redirected: bool) -> Option<Outcome> {
    match status.as_u16() {
        200 => None,
        201..=299 => Some(Outcome::Corrupt),
        // An answer of the storage is about the redirect, not about the report.
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

/// When to come back, if the answer says so in a form that can be read: by `Retry-After`, else, where it is a 429, by
/// `x-ratelimit-reset`.
pub(super) fn retry_after(
    status: StatusCode,
    headers: &HeaderMap,
    answered_at: Option<Timestamp>,
) -> Option<RetryAfter> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    text(RETRY_AFTER.as_str()).and_then(|value| asked_wait(value, answered_at)).or_else(|| {
        let reset = text(RATE_LIMIT_RESET).filter(|_| status == StatusCode::TOO_MANY_REQUESTS)?;
        // 0 and other past instants say nothing, nor does what is no instant.
        let at = Timestamp::from_second(reset.parse().ok()?).ok().filter(|at| *at > Timestamp::UNIX_EPOCH)?;
        match until(at, answered_at) {
            RetryAfter::Seconds(0) => None,
            wait => Some(wait),
        }
    })
}

/// When the window of a rate ends, in seconds of UTC since 1970 (MoEngage's current documentation).
const RATE_LIMIT_RESET: &str = "x-ratelimit-reset";

fn asked_wait(value: &str, answered_at: Option<Timestamp>) -> Option<RetryAfter> {
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are still a wait; the caller caps it.
        return Some(RetryAfter::Seconds(value.parse().unwrap_or(u64::MAX)));
    }
    http_date(value).map(|at| until(at, answered_at))
}

/// The wait until `at`, which is meant by the clock of the answer.
fn until(at: Timestamp, answered_at: Option<Timestamp>) -> RetryAfter {
    match answered_at {
        Some(answered_at) => RetryAfter::Seconds(u64::try_from(at.as_second() - answered_at.as_second()).unwrap_or(0)),
        None => RetryAfter::At(at),
    }
}

/// What the vendor says in an error body.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Explanation {
    /// Its message and the kind of error, or the title of a web page, cleaned.
    said: Option<Said>,
    /// Its name for the request, cleaned.
    pub(super) request_id: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// In an error body of an API.
    Text(String),
    /// By a web page, of a firewall or a proxy on the way.
    Title(String),
    /// In a form that is not known: its beginning.
    Beginning(String),
}

impl Explanation {
    /// `sentence`, followed by the vendor's own text.
    pub(super) fn follow(self, sentence: String) -> String {
        match self.said {
            Some(Said::Text(text)) => format!("{sentence}; it says: {text}"),
            Some(Said::Title(title)) => format!("{sentence}; what came is a web page with the title `{title}`"),
            Some(Said::Beginning(text)) => format!("{sentence}; the answer begins with `{text}`"),
            None => sentence,
        }
    }
}

/// Reads an error body in any of the vendor's forms: `{"error": {code or type, message, target, request_id}}` (seed
/// documents 001 and 003, and v5), `{title, description, code}` (002), `{"error": "text", "message": "text"}` (the API
/// firewall). Of a web page it takes the title, of other text and unknown JSON the beginning. Anything else explains
/// nothing: the status was judged already.
pub(super) async fn explanation(body: &mut Body, redactor: &Redactor) -> Explanation {
    let mut read = Vec::new();
    while read.len() < MAX_ERROR_BODY {
        match body.chunk().await {
            Ok(Some(bytes)) => read.extend_from_slice(&bytes[..bytes.len().min(MAX_ERROR_BODY - read.len())]),
            Ok(None) | Err(_) => break,
        }
    }
    explain(&repair::unpack(&read.into(), MAX_ERROR_BODY).unwrap_or_default(), redactor)
}

fn explain(body: &[u8], redactor: &Redactor) -> Explanation {
    let cleaned = |text: String| Some(redactor.clean(&text)).filter(|text| !text.is_empty());
    let beginning = || beginning(body, redactor).map(Said::Beginning);
    let Ok(json) = serde_json::from_slice::<Value>(body) else {
        let said = title(body).and_then(cleaned).map(Said::Title).or_else(beginning);
        return Explanation { said, request_id: None };
    };
    let nested = json.get("error").filter(|error| error.is_object());
    let text_of = |object: &Value, name: &str| match object.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let field = |name: &str| text_of(nested.unwrap_or(&json), name);
    let known: Vec<_> =
        ["error", "type", "code", "title", "message", "description"].into_iter().filter_map(field).collect();
    let is_unknown = known.is_empty() && json.as_object().is_some_and(|object| !object.is_empty());
    let parts: Vec<_> = known.into_iter().filter(|text| !text.trim().is_empty()).collect();
    let target = field("target").filter(|target| !target.trim().is_empty());
    let mut text = match target.filter(|_| !parts.is_empty()) {
        Some(target) => format!("{} (about {target})", parts.join(": ")),
        None => parts.join(": "),
    };
    let details = nested.and_then(|error| error.get("details")).and_then(Value::as_array);
    for detail in details.into_iter().flatten() {
        let message = text_of(detail, "message").or_else(|| detail.as_str().map(str::to_owned));
        let Some(message) = message.filter(|message| !text.contains(message.as_str())) else { continue };
        let target = text_of(detail, "target").map(|target| format!("{target}: ")).unwrap_or_default();
        text = [text, format!("{target}{message}")]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join("; ");
    }
    let request_id = field("request_id").filter(|id| !id.is_empty()).or_else(|| text_of(&json, "response_id"));
    let said = cleaned(text).map(Said::Text).or_else(|| beginning().filter(|_| is_unknown));
    Explanation { said, request_id: request_id.and_then(cleaned) }
}

/// The beginning of a text that is neither a web page nor binary. Secrets go before the cut.
fn beginning(body: &[u8], redactor: &Redactor) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let is_odd = |c: char| c == '\u{fffd}' || (c.is_control() && !c.is_whitespace());
    if text.trim_start().starts_with('<') || text.chars().take(MAX_BEGINNING).any(is_odd) {
        return None;
    }
    let text: String = redactor.clean(&text).chars().take(MAX_BEGINNING).collect();
    Some(text.trim_end().to_owned()).filter(|text| !text.is_empty())
}

/// The title of a web page.
fn title(page: &[u8]) -> Option<String> {
    let page = String::from_utf8_lossy(page);
    // ASCII folding keeps every byte's place.
    let folded = page.to_ascii_lowercase();
    let tag = folded.find("<title")?;
    let start = tag + folded[tag..].find('>')? + 1;
    let end = start + folded[start..].find("</title").unwrap_or(folded.len() - start);
    let title = &page[start..end];
    let meant = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&#x27;", "'"), ("&amp;", "&")];
    Some(meant.iter().fold(title.to_owned(), |title, (written, meant)| title.replace(written, meant)))
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    fn explained(body: &str) -> String {
        let redactor = Redactor::new(&"secret-key".into(), &"signature".into());
        explain(body.as_bytes(), &redactor).follow("no".to_owned())
    }

    #[test]
    fn every_form_of_an_error_body_is_shown() {
        for (body, text) in [
            (
                r#"{"error": {"attribute": "", "message": "no file", "type": "BAD REQUEST", "request_id": ""}}"#,
                "no; it says: BAD REQUEST: no file",
            ),
            (
                r#"{"error": {"code": "400 Bad Request", "message": "invalid", "target": "limit", "details": [{}]}}"#,
                "no; it says: 400 Bad Request: invalid (about limit)",
            ),
            (
                r#"{"response_id": "r", "error": {"code": "VALIDATION_FAILED", "message": "invalid", "target": null}}"#,
                "no; it says: VALIDATION_FAILED: invalid",
            ),
            (
                r#"{"title": "Forbidden Request", "description": null, "code": "kmqLuuHM"}"#,
                "no; it says: kmqLuuHM: Forbidden Request",
            ),
            (
                r#"{"error": "IP Validation Required", "message": "IP Validation Failed for secret-key"}"#,
                "no; it says: IP Validation Required: IP Validation Failed for [redacted]",
            ),
            (
                r#"{"response_id": "r", "error": {"code": "VALIDATION_FAILED", "message": "invalid", "details": [
                    {"target": "channels", "message": "no such channel"}, {"message": "invalid"}, "too many"]}}"#,
                "no; it says: VALIDATION_FAILED: invalid; channels: no such channel; too many",
            ),
            ("default backend - 404\n", "no; the answer begins with `default backend - 404`"),
            ("Bad key secret-key", "no; the answer begins with `Bad key [redacted]`"),
            (
                r#"{"errors": [{"message": "bad"}]}"#,
                "no; the answer begins with `{\"errors\": [{\"message\": \"bad\"}]}`",
            ),
            ("", "no"),
            ("{}", "no"),
            ("[1]", "no"),
            ("\u{1}\u{2}binary", "no"),
            (
                "<html><HEAD><TITLE lang=en>\nAttention Required! | Tom &amp; Jerry</TITLE>",
                "no; what came is a web page with the title `Attention Required! | Tom & Jerry`",
            ),
            ("<html><title>cut", "no; what came is a web page with the title `cut`"),
            ("<html><title", "no"),
        ] {
            assert_eq!(explained(body), text, "{body}");
        }
    }

    #[test]
    fn a_429_without_retry_after_waits_for_the_end_of_the_window() {
        let date: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let wait = |status, pairs: &[(&'static str, &'static str)], date| {
            let pairs = pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
            retry_after(status, &HeaderMap::from_iter(pairs), date)
        };
        let of = |pairs: &[(&'static str, &'static str)]| wait(StatusCode::TOO_MANY_REQUESTS, pairs, Some(date));
        // 1795262430 is 30 seconds after that date.
        let reset = ("x-ratelimit-reset", "1795262430");
        assert_eq!(of(&[reset]), Some(RetryAfter::Seconds(30)));
        assert_eq!(of(&[("retry-after", "7"), reset]), Some(RetryAfter::Seconds(7)));
        assert_eq!(of(&[("retry-after", "1.5"), reset]), Some(RetryAfter::Seconds(30)));
        for nothing in ["0", "30", "-1", "1795262400", "1795262399", "99999999999999", "soon", ""] {
            assert_eq!(of(&[("x-ratelimit-reset", nothing)]), None, "{nothing}");
        }
        assert_eq!(wait(StatusCode::SERVICE_UNAVAILABLE, &[reset], Some(date)), None);
        let at = Timestamp::from_second(1_795_262_430).unwrap();
        assert_eq!(wait(StatusCode::TOO_MANY_REQUESTS, &[reset], None), Some(RetryAfter::At(at)));
    }
}
