//! The rate limits of the JSON APIs for each workspace.
//!
//! This file owns the limits and the counting, in sliding windows: the strictest reading of "100 a minute". It must not
//! know the form of a refusal.

use std::{
    collections::{HashMap, VecDeque},
    sync::Mutex,
};

use axum::http::HeaderMap;
use jiff::{SignedDuration, Timestamp};

use super::endpoint::Api;
use crate::lock::lock;

/// The window that the headers describe, in seconds, unless another one is exhausted.
const MINUTE: i64 = 60;

/// The limits of a workspace for an API in all its versions: requests, and the window in seconds. Statistics: document
/// 002; the others: "10 a second, 100 a minute, 6,000 an hour".
const fn limits(api: Api) -> &'static [(u32, i64)] {
    match api {
        Api::Stats => &[(100, MINUTE)],
        Api::Search | Api::Meta | Api::Executions => &[(10, 1), (100, MINUTE), (6_000, 3_600)],
    }
}

/// The rate limit of a workspace for an API after a request: `x-ratelimit-limit`, `-remaining` and `-reset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RateStatus {
    limit: u32,
    remaining: u32,
    /// When the window has room again for one more than `remaining`.
    reset: Timestamp,
}

impl RateStatus {
    /// The same, with no request remaining.
    pub(super) fn exhausted(self) -> RateStatus {
        RateStatus { remaining: 0, ..self }
    }

    /// Writes the three headers; the reset in whole seconds since 1970, rounded up.
    pub(super) fn write(self, headers: &mut HeaderMap) {
        let reset = self.reset.as_second() + i64::from(self.reset.subsec_nanosecond() > 0);
        headers.insert("x-ratelimit-limit", self.limit.into());
        headers.insert("x-ratelimit-remaining", self.remaining.into());
        headers.insert("x-ratelimit-reset", reset.into());
    }
}

/// A request above a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exceeded {
    pub(super) rate: RateStatus,
    /// The seconds until the next request is admitted, at least 1.
    pub(super) wait: u32,
}

/// The times of the requests of each workspace to each API.
#[derive(Debug, Default)]
pub(super) struct Rates(Mutex<HashMap<(String, Api), VecDeque<Timestamp>>>);

impl Rates {
    /// Counts a request if it is within the limits. A refused one does not count.
    ///
    /// # Errors
    ///
    /// When a window is full.
    pub(super) fn take(&self, app_id: &str, api: Api, now: Timestamp) -> Result<RateStatus, Exceeded> {
        let limits = limits(api);
        let longest = limits.iter().map(|(_, seconds)| *seconds).max().unwrap_or(0);
        let mut taken = lock(&self.0);
        let taken = taken.entry((app_id.to_owned(), api)).or_default();
        let age = |at: &Timestamp| now.duration_since(*at);
        // After the clock was set back, later requests do not count.
        taken.retain(|at| (SignedDuration::ZERO..SignedDuration::from_secs(longest)).contains(&age(at)));
        let exceeded = limits.iter().filter_map(|(limit, seconds)| {
            let oldest = taken.get(taken.len().checked_sub(*limit as usize)?)?;
            let left = SignedDuration::from_secs(*seconds) - age(oldest);
            // Within an hour.
            let wait = left.as_secs() as u32 + u32::from(left.subsec_nanos() > 0);
            let rate = RateStatus { limit: *limit, remaining: 0, reset: later(*oldest, *seconds) };
            (left > SignedDuration::ZERO).then_some(Exceeded { rate, wait })
        });
        if let Some(exceeded) = exceeded.max_by_key(|exceeded| exceeded.wait) {
            return Err(exceeded);
        }
        taken.push_back(now);
        let limit = limits.iter().find(|(_, seconds)| *seconds == MINUTE).map_or(0, |(limit, _)| *limit);
        let mut within = taken.iter().filter(|at| age(at) < SignedDuration::from_secs(MINUTE)).peekable();
        let reset = later(within.peek().map_or(now, |oldest| **oldest), MINUTE);
        Ok(RateStatus { limit, remaining: limit.saturating_sub(within.count() as u32), reset })
    }
}

fn later(at: Timestamp, seconds: i64) -> Timestamp {
    at.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_holds_at_most_six_thousand_requests() {
        let rates = Rates::default();
        let at = |number: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_millis(600 * number);
        // At the limit of the minute, the limit of the hour is reached at its end.
        for number in 0..6_000 {
            assert!(rates.take("app", Api::Search, at(number)).is_ok(), "{number}");
        }
        let exceeded = rates.take("app", Api::Search, at(5_999)).map(drop).unwrap_err();
        assert_eq!((exceeded.rate.limit, exceeded.wait), (6_000, 1));
        assert!(rates.take("other", Api::Search, at(5_999)).is_ok() && rates.take("app", Api::Meta, at(5_999)).is_ok());
        assert!(rates.take("app", Api::Search, at(6_000)).is_ok());
    }
}
