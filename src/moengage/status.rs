//! What a response's status and headers mean: the outcome, and when to request again.
//!
//! This file owns that meaning. It must not know bodies.

use jiff::Timestamp;
use reqwest::{
    StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};

use super::head::http_date;
use crate::outcome::{Outcome, RetryAfter};

/// The outcome of a request for an archive; `None` for the archive itself.
pub(super) fn archive_outcome(status: StatusCode, is_redirected: bool) -> Option<Outcome> {
    match status.as_u16() {
        200 => None,
        201..=299 => Some(Outcome::Corrupt),
        // The status is the storage's, about the redirect's target.
        _ if is_redirected => Some(Outcome::Unavailable),
        401 | 403 => Some(Outcome::Unauthorized),
        429 => Some(Outcome::RateLimited),
        // 407 is a proxy's and means nothing for the report.
        407 | 408 | 425 => Some(Outcome::Unavailable),
        400..=499 => Some(Outcome::NotPublished),
        _ => Some(Outcome::Unavailable),
    }
}

/// The outcome of a request to a JSON API; `None` for a page.
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

/// When to request again, if the response says so: by `Retry-After`, else, for status 429, by `x-ratelimit-reset`.
/// `responded_at` is the response's `Date`.
pub(super) fn retry_after(
    status: StatusCode,
    headers: &HeaderMap,
    responded_at: Option<Timestamp>,
) -> Option<RetryAfter> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    text(RETRY_AFTER.as_str()).and_then(|value| wait(value, responded_at)).or_else(|| {
        let reset = text(RATE_LIMIT_RESET).filter(|_| status == StatusCode::TOO_MANY_REQUESTS)?;
        // 0 and other past instants mean no wait.
        let at = Timestamp::from_second(reset.parse().ok()?).ok().filter(|at| *at > Timestamp::UNIX_EPOCH)?;
        match until(at, responded_at) {
            RetryAfter::Seconds(0) => None,
            after => Some(after),
        }
    })
}

/// When the window of a rate ends, in seconds of UTC since 1970 (MoEngage's current documentation).
const RATE_LIMIT_RESET: &str = "x-ratelimit-reset";

fn wait(value: &str, responded_at: Option<Timestamp>) -> Option<RetryAfter> {
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Too many digits are still a wait; the caller caps it.
        return Some(RetryAfter::Seconds(value.parse().unwrap_or(u64::MAX)));
    }
    http_date(value).map(|at| until(at, responded_at))
}

/// The wait until `at` by the clock of the response.
fn until(at: Timestamp, responded_at: Option<Timestamp>) -> RetryAfter {
    match responded_at {
        Some(responded_at) => {
            RetryAfter::Seconds(u64::try_from(at.as_second() - responded_at.as_second()).unwrap_or(0))
        }
        None => RetryAfter::At(at),
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

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
