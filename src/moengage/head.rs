//! Values of a response's head: its status as text, single headers, dates.
//!
//! This file owns how they are read. It must not know what they mean for a request.

use jiff::Timestamp;
use reqwest::{
    StatusCode,
    header::{DATE, HeaderMap},
};

use super::redact::Redactor;

/// The usual header of a request id. MoEngage documents the id only in error bodies.
const REQUEST_ID: &str = "x-request-id";

/// A status as code and reason, such as `404 Not Found`.
pub(super) fn status_text(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

/// The redacted value of a header; `None` if it is missing or nothing of it is left.
pub(super) fn header(headers: &HeaderMap, name: &str, redactor: &Redactor) -> Option<String> {
    let value = headers.get(name)?.as_bytes();
    Some(redactor.clean(&String::from_utf8_lossy(value))).filter(|text| !text.is_empty())
}

/// The vendor's id of the request.
pub(super) fn request_id(headers: &HeaderMap, redactor: &Redactor) -> Option<String> {
    header(headers, REQUEST_ID, redactor)
}

/// The `Date` of a response.
pub(super) fn date(headers: &HeaderMap) -> Option<Timestamp> {
    http_date(headers.get(DATE)?.to_str().ok()?)
}

/// A date in any of HTTP's three forms (RFC 9110, section 5.6.7).
pub(super) fn http_date(text: &str) -> Option<Timestamp> {
    httpdate::parse_http_date(text.trim()).ok()?.try_into().ok()
}
