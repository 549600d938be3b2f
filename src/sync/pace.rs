//! Keeps requests to the JSON APIs within MoEngage's rate limits.
//!
//! This file owns the published limits. There is one limiter for each account and API, shared by all its reports. It spaces
//! requests evenly, so that no minute, second or hour has too many, also across a restart of the process.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::clock::Clock;
use crate::{config::SourceKind, lock::lock};

/// Time between two requests. MoEngage allows 100 requests a minute for statistics (seed document 002) and for each other JSON
/// API, of these also 10 a second and 6,000 an hour (MoEngage's current documentation). The rate stays a little below, because
/// the network can move requests together.
const DISTANCE: SignedDuration = SignedDuration::from_millis(610);

/// Longest wait. A longer one means that the clock was set back.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_mins(6);

/// All limiters, by app id and API. They outlive a reload.
#[derive(Debug, Default)]
pub(super) struct Pace {
    limiters: Mutex<HashMap<(String, SourceKind), Limiter>>,
}

#[derive(Debug, Clone, Copy)]
struct Limiter {
    /// When the next request may be sent.
    free_at: Timestamp,
    /// No request before this time, as MoEngage has asked with a 429.
    rests_until: Timestamp,
}

impl Pace {
    /// Waits until the caller may send a request.
    pub(super) async fn turn(&self, clock: &dyn Clock, app_id: &str, source: SourceKind) {
        let key = (app_id.to_owned(), source);
        loop {
            let now = clock.now();
            let turn_at = self.with_limiter(&key, now, |limiter| {
                let turn_at = limiter.free_at.max(limiter.rests_until).max(now);
                limiter.free_at = later(turn_at, DISTANCE);
                turn_at
            });
            if let Ok(wait) = Duration::try_from(turn_at.duration_since(now))
                && !wait.is_zero()
            {
                clock.sleep(wait).await;
            }
            let now = clock.now();
            // Another request may have been refused meanwhile.
            if self.with_limiter(&key, now, |limiter| limiter.rests_until <= now) {
                return;
            }
        }
    }

    /// Sends no request for `wait`.
    pub(super) fn rest(&self, clock: &dyn Clock, app_id: &str, source: SourceKind, wait: SignedDuration) {
        let now = clock.now();
        self.with_limiter(&(app_id.to_owned(), source), now, |limiter| {
            limiter.rests_until = limiter.rests_until.max(later(now, wait));
        });
    }

    fn with_limiter<T>(&self, key: &(String, SourceKind), now: Timestamp, act: impl FnOnce(&mut Limiter) -> T) -> T {
        let mut limiters = lock(&self.limiters);
        // A new limiter begins with a pause: a process before this one may have sent a request a moment ago.
        let new = Limiter { free_at: later(now, DISTANCE), rests_until: now };
        let limiter = limiters.entry(key.clone()).or_insert(new);
        if limiter.free_at.max(limiter.rests_until) > later(now, LONGEST_WAIT) {
            *limiter = new;
        }
        act(limiter)
    }
}

fn later(instant: Timestamp, by: SignedDuration) -> Timestamp {
    instant.checked_add(by).unwrap_or(Timestamp::MAX)
}
