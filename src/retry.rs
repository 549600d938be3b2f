//! When to retry: intervals of retries, and holds of workspaces.
//!
//! This file owns the delays. It must not know what is retried; the present and the jitter are arguments.

use std::time::Duration;

use backoff::{ExponentialBackoff, backoff::Backoff};
use jiff::{SignedDuration, Timestamp};

use crate::outcome::{CLOCK_TOLERANCE, Outcome};

/// Number of attempts within seconds of each other, before the retries slow down.
pub const QUICK_TRIES: u32 = 6;

/// A longer wait requested by MoEngage is taken for a mistake.
pub const ABSURD_RETRY_AFTER: SignedDuration = SignedDuration::from_hours(24);

/// A pause of a workspace: no requests except a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// [`Outcome::Unauthorized`] or [`Outcome::RateLimited`].
    pub outcome: Outcome,
    /// When MoEngage answered.
    pub since: Timestamp,
    /// When it ends.
    pub until: Timestamp,
    /// Whether MoEngage requested this wait; otherwise the interval is moesync's own.
    pub is_requested: bool,
}

impl Hold {
    /// Whether a clock that has not been set back could have written it by `now`. If not, it is void.
    pub fn is_believable(&self, now: Timestamp) -> bool {
        self.since <= later(now, CLOCK_TOLERANCE)
    }

    /// When the hold ends for a partition that expires at `expires_at`: it takes at most a quarter of the time left to
    /// expiry, or half of it if MoEngage requested the wait.
    pub fn until_for(&self, expires_at: Option<Timestamp>) -> Timestamp {
        let share = if self.is_requested { 2 } else { 4 };
        let left = expires_at.map(|expiry| expiry.duration_since(self.since)).filter(SignedDuration::is_positive);
        left.map_or(self.until, |left| self.until.min(later(self.since, left / share)))
    }

    /// The hold of a workspace that had the hold `before`, after the answer that led to this one. Requests are made
    /// concurrently, so an answer does not shorten a wait that another one requested; it may change the outcome.
    pub fn or_longer(self, before: Option<Hold>) -> Self {
        let Some(before) = before.filter(|before| before.until > self.until && before.is_believable(self.since)) else {
            return self;
        };
        match (before.outcome, self.outcome) {
            // A 429 does not show whether the key is still refused: retry when the rate limit ends.
            (Outcome::Unauthorized, Outcome::RateLimited) => self,
            (Outcome::RateLimited, Outcome::Unauthorized) => {
                Hold { until: before.until, is_requested: before.is_requested, ..self }
            }
            _ => before,
        }
    }
}

impl Outcome {
    /// Outcomes with the same ladder share one series of retries: a reset after a truncated body is the next try.
    pub(crate) fn ladder(self) -> Ladder {
        match self {
            Outcome::Stored => Ladder::Done,
            Outcome::NotPublished => Ladder::Poll,
            Outcome::Rejected | Outcome::Unauthorized => Ladder::Hourly,
            Outcome::RateLimited => Ladder::RateLimited,
            Outcome::Unsupported => Ladder::Daily,
            Outcome::Unavailable | Outcome::Corrupt | Outcome::StoreFailed => Ladder::Tries,
        }
    }

    /// Whether the next attempt may follow within seconds (see [`QUICK_TRIES`]).
    pub fn is_retried_quickly(self) -> bool {
        self.ladder() == Ladder::Tries
    }
}

/// The delay before try `number + 1` of one pass, independent of earlier passes; `None` after the quick tries.
pub fn quick(number: u32, jitter: f64) -> Option<Duration> {
    (number < QUICK_TRIES).then(|| spread(step(QUICK, number), jitter))
}

/// The delay before try `number + 1` of anything else that is retried: seconds at first, then minutes growing to an hour.
pub fn delay(number: u32, jitter: f64) -> SignedDuration {
    delay_after(Outcome::Unavailable, number, jitter)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ladder {
    Done,
    Poll,
    Hourly,
    Daily,
    RateLimited,
    Tries,
}

/// First and longest interval of a doubling series.
type Interval = (Duration, Duration);
const QUICK: Interval = (Duration::from_millis(500), Duration::from_secs(16));
const SLOW: Interval = (Duration::from_secs(60), Duration::from_secs(3600));
const POLL: Interval = (Duration::from_secs(60), Duration::from_secs(1800));
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The interval after `outcome`, without regard to the expiry.
pub(crate) fn delay_after(outcome: Outcome, streak: u32, jitter: f64) -> SignedDuration {
    let delay = match outcome.ladder() {
        Ladder::Done => Duration::ZERO,
        // A workspace has one probe, so jitter is not needed.
        Ladder::Hourly => HOUR,
        // The result changes only with the report's settings.
        Ladder::Daily => DAY,
        Ladder::Poll => spread(step(POLL, streak), jitter),
        Ladder::RateLimited => spread(step(SLOW, streak), jitter),
        Ladder::Tries if streak < QUICK_TRIES => spread(step(QUICK, streak), jitter),
        Ladder::Tries => spread(step(SLOW, streak - QUICK_TRIES + 1), jitter),
    };
    SignedDuration::try_from(delay).unwrap_or(SignedDuration::MAX)
}

/// The `number`th interval of a doubling series, counted from 1.
///
/// The only use of the `backoff` crate, without its randomness and time limit: jitter and time are arguments here.
fn step((first, longest): Interval, number: u32) -> Duration {
    let mut series = ExponentialBackoff {
        current_interval: first,
        initial_interval: first,
        max_interval: longest,
        multiplier: 2.0,
        randomization_factor: 0.0,
        max_elapsed_time: None,
        ..ExponentialBackoff::default()
    };
    // Every series has reached its longest interval long before the 32nd step.
    let mut interval = first;
    for _ in 0..number.clamp(1, 32) {
        interval = series.next_backoff().unwrap_or(longest);
    }
    interval
}

/// A quarter less to a quarter more, so that partitions that failed together are not retried together.
fn spread(interval: Duration, jitter: f64) -> Duration {
    interval.mul_f64(0.75 + 0.5 * jitter)
}

/// `delay` after `instant`, limited to the last instant that can be represented.
pub(crate) fn later(instant: Timestamp, delay: SignedDuration) -> Timestamp {
    instant.checked_add(delay).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_does_not_shorten_the_wait_that_another_requested() {
        let hold = |since: &str, until: &str| Hold {
            outcome: Outcome::RateLimited,
            since: since.parse().unwrap(),
            until: until.parse().unwrap(),
            is_requested: true,
        };
        let long = hold("2026-11-21T12:00:00Z", "2026-11-21T13:00:00Z");
        let short = hold("2026-11-21T12:00:01Z", "2026-11-21T12:01:00Z");
        assert_eq!(short.clone().or_longer(Some(long.clone())), long);
        assert_eq!(long.clone().or_longer(Some(short.clone())), long);
        assert_eq!(short.clone().or_longer(None), short);
        let refused = Hold { outcome: Outcome::Unauthorized, is_requested: false, ..short.clone() };
        let both = refused.clone().or_longer(Some(long.clone()));
        assert_eq!((both.outcome, both.until), (Outcome::Unauthorized, long.until), "the alarm is not delayed");
        assert_eq!(short.clone().or_longer(Some(Hold { until: long.until, ..refused })), short);
        let of_a_clock_ahead = hold("2027-11-21T12:00:00Z", "2027-11-21T12:01:00Z");
        assert_eq!(short.clone().or_longer(Some(of_a_clock_ahead)), short);
    }
}
