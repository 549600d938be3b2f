//! From what an attempt met to what comes next: states, backoff, holds, and the end of a partition's life.
//!
//! This file owns the outcome table. It must not know how an attempt was made or where any of this is recorded;
//! the present and the jitter are arguments.

use std::{fmt, time::Duration};

use backoff::{ExponentialBackoff, backoff::Backoff};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    config::Source,
    report::{self, Partition},
};

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The object and its manifest are at the destination.
    Stored,
    /// Archives: the vendor says it has no such file.
    NotPublished,
    /// JSON sources: the vendor refuses the request itself.
    Rejected,
    /// The vendor refuses the credentials.
    Unauthorized,
    /// The vendor asks to come back later.
    RateLimited,
    /// The vendor could not be reached or could not answer.
    Unavailable,
    /// What came is not the whole, intact archive.
    Corrupt,
    /// What came is of a format that cannot be verified.
    Unsupported,
    /// The destination refused.
    StoreFailed,
}

impl Outcome {
    /// Every outcome, in the table's order.
    pub const ALL: [Outcome; 9] = [
        Outcome::Stored,
        Outcome::NotPublished,
        Outcome::Rejected,
        Outcome::Unauthorized,
        Outcome::RateLimited,
        Outcome::Unavailable,
        Outcome::Corrupt,
        Outcome::Unsupported,
        Outcome::StoreFailed,
    ];

    /// The word used in the ledger, in JSON and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Stored => "stored",
            Outcome::NotPublished => "not_published",
            Outcome::Rejected => "rejected",
            Outcome::Unauthorized => "unauthorized",
            Outcome::RateLimited => "rate_limited",
            Outcome::Unavailable => "unavailable",
            Outcome::Corrupt => "corrupt",
            Outcome::Unsupported => "unsupported",
            Outcome::StoreFailed => "store_failed",
        }
    }

    /// The outcome that `word` names.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == word)
    }

    /// Which outcomes share one run of retries: a reset after a truncated body is the next try, not a first one.
    fn ladder(self) -> Ladder {
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

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where a partition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not due yet.
    Scheduled,
    /// Due, not stored.
    Pending,
    /// Object and manifest are there.
    Stored,
    /// Never published.
    Absent,
    /// Was or may have been there, and is gone.
    Lost,
}

impl State {
    /// Every state, in the order of a partition's life.
    pub const ALL: [State; 5] = [State::Scheduled, State::Pending, State::Stored, State::Absent, State::Lost];

    /// The word used everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Scheduled => "scheduled",
            State::Pending => "pending",
            State::Stored => "stored",
            State::Absent => "absent",
            State::Lost => "lost",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How a partition's life ended, or that it has not: what the ledger records. [`State`] adds the present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Still to be stored.
    Open,
    /// See [`State::Stored`].
    Stored,
    /// See [`State::Absent`].
    Absent,
    /// See [`State::Lost`].
    Lost,
}

/// The object that a stored partition consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    /// Its key at the destination.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Lower-case hex.
    pub sha256: String,
    /// When it was fetched.
    pub stored_at: Timestamp,
}

/// What the ledger knows of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What and when.
    pub partition: Partition,
    /// How its life ended, if it has.
    pub settled: Settled,
    /// How the last attempt ended.
    pub outcome: Option<Outcome>,
    /// How many attempts were made.
    pub attempts: u32,
    /// How many of the last ones went up the same ladder of retries.
    pub streak: u32,
    /// How many of the last ones ended alike.
    pub repeats: u32,
    /// When the last attempt ended.
    pub last_attempt_at: Option<Timestamp>,
    /// When the next one may begin.
    pub next_attempt_at: Option<Timestamp>,
    /// Whether the vendor ever answered with content.
    pub seen: bool,
    /// The vendor's own time of its last "no such file" before expiry.
    pub denied_at: Option<Timestamp>,
    /// What the last attempt met, for people.
    pub message: Option<String>,
    /// The object, once stored.
    pub object: Option<StoredObject>,
}

impl Entry {
    /// A partition of which nothing has happened yet.
    pub fn new(partition: Partition) -> Self {
        Self {
            partition,
            settled: Settled::Open,
            outcome: None,
            attempts: 0,
            streak: 0,
            repeats: 0,
            last_attempt_at: None,
            next_attempt_at: None,
            seen: false,
            denied_at: None,
            message: None,
            object: None,
        }
    }

    /// Where the partition stands at `now`.
    pub fn state(&self, now: Timestamp) -> State {
        match self.settled {
            Settled::Open if now < self.partition.due_at => State::Scheduled,
            Settled::Open => State::Pending,
            Settled::Stored => State::Stored,
            Settled::Absent => State::Absent,
            Settled::Lost => State::Lost,
        }
    }
}

/// What one attempt met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
    /// The vendor's status, if it answered.
    pub http_status: Option<u16>,
    /// For people; no secrets. Empty when stored without remark.
    pub message: String,
    /// Whether the vendor answered with content.
    pub seen: bool,
    /// The `Date` of the vendor's answer.
    pub vendor_date: Option<Timestamp>,
    /// How long the vendor asks to wait, if it said something usable.
    pub retry_after: Option<SignedDuration>,
    /// Bytes received.
    pub size: Option<u64>,
    /// Hash of all bytes received.
    pub sha256: Option<String>,
    /// What to name to MoEngage's support.
    pub request_id: Option<String>,
}

impl Attempt {
    /// Whether the vendor itself answered, and accepted who was asking: an answer by a proxy or of a server in trouble
    /// says nothing about credentials.
    pub fn was_admitted(&self) -> bool {
        let is_about_the_file =
            !matches!(self.outcome, Outcome::Unauthorized | Outcome::RateLimited | Outcome::Unavailable);
        self.http_status.is_some() && is_about_the_file
    }
}

/// How the message of an attempt begins that stored something although other content was, or had been, in its place.
pub const OTHER_CONTENT: &str = "other content";

/// The message of an attempt that found the partition's object at `key`, stored by a process that could not record it.
pub fn found_at(key: &str) -> String {
    match report::is_version(key) {
        true => format!("{OTHER_CONTENT} has its place; found beside it"),
        false => "found at the destination".to_owned(),
    }
}

/// A wait that begins later than this from now was written by a clock that has since been set back, and is void.
pub const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(1);

/// A whole workspace that is left alone for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// [`Outcome::Unauthorized`] or [`Outcome::RateLimited`].
    pub outcome: Outcome,
    /// When the vendor's answer came.
    pub since: Timestamp,
    /// Until when no request is made, but for a probe.
    pub until: Timestamp,
    /// Whether the vendor named that time, rather than us.
    pub is_asked: bool,
}

impl Hold {
    /// Until when the hold binds a partition that expires at `expires_at`. A wait of our own is cut to a quarter of
    /// what was left to expiry, one that the vendor asked for to half of it.
    pub fn until_for(&self, expires_at: Option<Timestamp>) -> Timestamp {
        let share = if self.is_asked { 2 } else { 4 };
        let left = expires_at.map(|expiry| expiry.duration_since(self.since)).filter(SignedDuration::is_positive);
        left.map_or(self.until, |left| self.until.min(after(self.since, left / share)))
    }

    /// This hold, in place of the one that the workspace had before. Where several requests were under way, no answer cuts
    /// short the wait that another one asked for; that the key is refused is known at once all the same.
    pub fn or_longer(self, before: Option<Hold>) -> Self {
        let is_believable = |before: &Hold| before.since <= after(self.since, CLOCK_TOLERANCE);
        let Some(before) = before.filter(|before| before.until > self.until && is_believable(before)) else {
            return self;
        };
        match (before.outcome, self.outcome) {
            // A rate is no word about the key, but whoever counts requests may have taken it.
            (Outcome::Unauthorized, Outcome::RateLimited) => self,
            (Outcome::RateLimited, Outcome::Unauthorized) => {
                Hold { until: before.until, is_asked: before.is_asked, ..self }
            }
            _ => before,
        }
    }
}

/// What follows from an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// Whether the partition's life has ended with it.
    pub settled: Settled,
    /// See [`Entry::streak`].
    pub streak: u32,
    /// See [`Entry::repeats`].
    pub repeats: u32,
    /// When the next attempt may begin; `None` when there is none to come.
    pub next_attempt_at: Option<Timestamp>,
    /// See [`Entry::seen`].
    pub seen: bool,
    /// See [`Entry::denied_at`].
    pub denied_at: Option<Timestamp>,
    /// Whether the whole workspace waits.
    pub hold: Option<Hold>,
}

/// How many attempts follow each other within seconds before the retries slow down.
pub const QUICK_TRIES: u32 = 6;

/// A denial counts as the vendor's word on an unpublished report when it came this long before expiry, or less.
const LAST_LOOK: SignedDuration = SignedDuration::from_hours(24);

/// A longer wait that a vendor asks for is taken for a mistake.
pub const ABSURD_RETRY_AFTER: SignedDuration = SignedDuration::from_hours(24);

/// What follows from `attempt` on `entry`, by the outcome table. `give_up_after` is the report's; `jitter` is a random
/// number in `[0, 1)`.
pub fn settle(entry: &Entry, give_up_after: SignedDuration, attempt: &Attempt, jitter: f64) -> Settlement {
    let partition = &entry.partition;
    let same_ladder = entry.outcome.is_some_and(|before| before.ladder() == attempt.outcome.ladder());
    let streak = if same_ladder { entry.streak.saturating_add(1) } else { 1 };
    let is_alike = entry.outcome == Some(attempt.outcome);
    let repeats = if is_alike { entry.repeats.saturating_add(1) } else { 1 };
    let seen = entry.seen || attempt.seen;

    // Only these statuses say "there is no such file"; any other refusal may be about the request.
    let denial = match attempt {
        Attempt { outcome: Outcome::NotPublished, http_status: Some(400 | 404 | 410), vendor_date, .. } => *vendor_date,
        _ => None,
    };
    // Nothing ends by the local clock alone: the vendor's own `Date` has to be past the end.
    let end = match partition.source {
        Source::DailyDump => partition.generated_at.checked_add(give_up_after).ok(),
        _ => partition.expires_at,
    };
    let denied_at_end = denial.zip(end).is_some_and(|(date, end)| date >= end);
    let denied_at = match denial {
        Some(date) if !denied_at_end => entry.denied_at.max(Some(date)),
        _ => entry.denied_at,
    };
    // A live listing of a day that is over: the vendor shows another by now.
    let is_over = partition.source.is_live_listing()
        && attempt.outcome == Outcome::NotPublished
        && attempt.vendor_date.zip(partition.expires_at).is_some_and(|(date, expiry)| date >= expiry);
    // What is stored stays so, though fetching it again may fail.
    let settled = if attempt.outcome == Outcome::Stored || entry.settled == Settled::Stored {
        Settled::Stored
    } else if is_over {
        Settled::Lost
    } else if !denied_at_end {
        Settled::Open
    } else if seen {
        Settled::Lost
    } else {
        let denied_shortly_before = match (partition.source, partition.expires_at) {
            (Source::DailyDump, _) => true,
            (_, Some(expiry)) => denied_at.is_some_and(|date| expiry.duration_since(date) <= LAST_LOOK),
            (_, None) => false,
        };
        if denied_shortly_before { Settled::Absent } else { Settled::Lost }
    };

    let asked = attempt.retry_after.filter(|wait| wait.is_positive() && *wait <= ABSURD_RETRY_AFTER);
    let asked = asked.filter(|_| attempt.outcome == Outcome::RateLimited);
    let wait = Hold {
        outcome: attempt.outcome,
        since: attempt.finished_at,
        until: after(attempt.finished_at, asked.unwrap_or_else(|| delay(attempt.outcome, streak, jitter))),
        is_asked: asked.is_some(),
    };
    let comes_again = settled == Settled::Open || (settled == Settled::Stored && attempt.outcome != Outcome::Stored);
    let next_attempt_at = comes_again.then(|| wait.until_for(partition.expires_at));
    // The workspace waits its whole time; what is near its expiry does not wait for the others. A JSON API that is
    // switched off for the account (403, seed document 002) says nothing about the others.
    let is_switched_off = !partition.source.is_archive() && attempt.http_status == Some(403);
    let hold = match attempt.outcome {
        Outcome::Unauthorized => !is_switched_off,
        Outcome::RateLimited => true,
        _ => false,
    };
    let hold = hold.then_some(wait);
    Settlement { settled, streak, repeats, next_attempt_at, seen, denied_at, hold }
}

/// The delay before try `number + 1` of one pass, whatever the ledger remembers of earlier ones; `None` when the quick
/// tries are used up.
pub fn quick_retry(number: u32, jitter: f64) -> Option<Duration> {
    (number < QUICK_TRIES).then(|| spread(step(QUICK, number), jitter))
}

/// The delay before try `number + 1` of anything else that is retried: seconds at first, then minutes growing to an hour.
pub fn retry(number: u32, jitter: f64) -> SignedDuration {
    delay(Outcome::Unavailable, number, jitter)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ladder {
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

/// How long we wait of our own, if there were no expiry.
fn delay(outcome: Outcome, streak: u32, jitter: f64) -> SignedDuration {
    let delay = match outcome.ladder() {
        Ladder::Done => Duration::ZERO,
        // One probe an hour for a whole workspace: there are no others to keep apart from.
        Ladder::Hourly => HOUR,
        // Until a person changes the report's settings, the same comes each time.
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
/// The only place that speaks to the `backoff` crate. Its own randomness and its time limit stay switched off: jitter
/// and time are arguments here.
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

/// A quarter less to a quarter more, so that many partitions that failed together do not return together.
fn spread(interval: Duration, jitter: f64) -> Duration {
    interval.mul_f64(0.75 + 0.5 * jitter)
}

fn after(instant: Timestamp, delay: SignedDuration) -> Timestamp {
    instant.checked_add(delay).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::PartitionId;
    use jiff::civil::date;
    use proptest::prelude::*;

    const NEVER: SignedDuration = SignedDuration::from_hours(24 * 7);

    fn utc(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn entry(source: Source) -> Entry {
        let generated_at = utc("2026-11-10T09:30:00Z");
        Entry::new(Partition {
            id: PartitionId { workspace: "acme".into(), report: "daily".into(), date: date(2026, 11, 10) },
            source,
            generated_at,
            due_at: utc("2026-11-10T10:00:00Z"),
            expires_at: (source == Source::CampaignReport).then(|| generated_at + SignedDuration::from_hours(168)),
        })
    }

    #[test]
    fn no_answer_cuts_short_the_wait_that_another_asked_for() {
        let hold = |since: &str, until: &str| Hold {
            outcome: Outcome::RateLimited,
            since: utc(since),
            until: utc(until),
            is_asked: true,
        };
        let long = hold("2026-11-21T12:00:00Z", "2026-11-21T13:00:00Z");
        let short = hold("2026-11-21T12:00:01Z", "2026-11-21T12:01:00Z");
        assert_eq!(short.clone().or_longer(Some(long.clone())), long);
        assert_eq!(long.clone().or_longer(Some(short.clone())), long);
        assert_eq!(short.clone().or_longer(None), short);
        let refused = Hold { outcome: Outcome::Unauthorized, is_asked: false, ..short.clone() };
        let both = refused.clone().or_longer(Some(long.clone()));
        assert_eq!((both.outcome, both.until), (Outcome::Unauthorized, long.until), "and the alarm is not put off");
        assert_eq!(short.clone().or_longer(Some(Hold { until: long.until, ..refused })), short);
        let of_a_wild_clock = hold("2027-11-21T12:00:00Z", "2027-11-21T12:01:00Z");
        assert_eq!(short.clone().or_longer(Some(of_a_wild_clock)), short);
    }

    fn attempt(outcome: Outcome, at: &str) -> Attempt {
        let at = utc(at);
        Attempt {
            started_at: at,
            finished_at: at,
            outcome,
            http_status: (outcome == Outcome::NotPublished).then_some(400),
            message: String::new(),
            seen: false,
            vendor_date: Some(at),
            retry_after: None,
            size: None,
            sha256: None,
            request_id: None,
        }
    }

    fn follow(entry: &mut Entry, attempt: &Attempt) -> Settlement {
        let settlement = settle(entry, NEVER, attempt, 0.5);
        entry.outcome = Some(attempt.outcome);
        entry.streak = settlement.streak;
        entry.repeats = settlement.repeats;
        entry.seen = settlement.seen;
        entry.denied_at = settlement.denied_at;
        settlement
    }

    fn delays(outcome: Outcome, count: usize) -> Vec<f64> {
        let mut entry = entry(Source::DailyDump);
        let attempt = attempt(outcome, "2026-11-10T10:00:00Z");
        (0..count)
            .map(|_| {
                let next = follow(&mut entry, &attempt).next_attempt_at.unwrap();
                next.duration_since(attempt.finished_at).as_secs_f64()
            })
            .collect()
    }

    #[test]
    fn six_quick_tries_then_a_minute_growing_to_an_hour() {
        let expected = [0.5, 1.0, 2.0, 4.0, 8.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 3600.0, 3600.0];
        for outcome in [Outcome::Unavailable, Outcome::Corrupt, Outcome::StoreFailed] {
            assert_eq!(delays(outcome, expected.len()), expected);
        }
    }

    #[test]
    fn an_unsupported_format_is_asked_for_daily_and_sooner_only_near_its_expiry() {
        assert_eq!(delays(Outcome::Unsupported, 3), [86_400.0; 3]);
        let near = attempt(Outcome::Unsupported, "2026-11-16T09:30:00Z");
        let next = settle(&entry(Source::CampaignReport), NEVER, &near, 0.5).next_attempt_at;
        assert_eq!(next, Some(utc("2026-11-16T15:30:00Z")), "a quarter of the day that is left");
    }

    #[test]
    fn an_unpublished_report_is_polled_each_minute_growing_to_half_an_hour() {
        assert_eq!(delays(Outcome::NotPublished, 7), [60.0, 120.0, 240.0, 480.0, 960.0, 1800.0, 1800.0]);
    }

    #[test]
    fn a_retry_after_is_honoured_unless_it_is_nothing_or_absurd() {
        let wait = |seconds: Option<i64>| {
            let mut attempt = attempt(Outcome::RateLimited, "2026-11-10T10:00:00Z");
            attempt.retry_after = seconds.map(SignedDuration::from_secs);
            let settlement = settle(&entry(Source::DailyDump), NEVER, &attempt, 0.5);
            let hold = settlement.hold.unwrap();
            assert_eq!(Some(hold.until), settlement.next_attempt_at, "nothing expires here");
            hold.until.duration_since(hold.since).as_secs()
        };
        assert_eq!(wait(Some(90)), 90);
        assert_eq!(wait(Some(0)), 60);
        assert_eq!(wait(None), 60);
        assert_eq!(wait(Some(365 * 86_400)), 60);
    }

    #[test]
    fn a_report_denied_shortly_before_and_again_after_expiry_is_absent() {
        let mut entry = entry(Source::CampaignReport);
        let before = follow(&mut entry, &attempt(Outcome::NotPublished, "2026-11-17T03:00:00Z"));
        assert_eq!(before.settled, Settled::Open);
        let after = follow(&mut entry, &attempt(Outcome::NotPublished, "2026-11-17T09:30:00Z"));
        assert_eq!((after.settled, after.next_attempt_at), (Settled::Absent, None));
    }

    #[test]
    fn a_report_that_nobody_asked_for_in_its_last_day_is_lost() {
        let mut entry = entry(Source::CampaignReport);
        follow(&mut entry, &attempt(Outcome::NotPublished, "2026-11-15T03:00:00Z"));
        let after = follow(&mut entry, &attempt(Outcome::NotPublished, "2026-11-18T00:00:00Z"));
        assert_eq!(after.settled, Settled::Lost);
    }

    #[test]
    fn a_report_that_was_seen_and_is_gone_is_lost() {
        let mut entry = entry(Source::CampaignReport);
        let mut broken = attempt(Outcome::StoreFailed, "2026-11-17T03:00:00Z");
        broken.seen = true;
        follow(&mut entry, &broken);
        follow(&mut entry, &attempt(Outcome::NotPublished, "2026-11-17T08:00:00Z"));
        let after = follow(&mut entry, &attempt(Outcome::NotPublished, "2026-11-17T10:00:00Z"));
        assert_eq!(after.settled, Settled::Lost);
    }

    #[test]
    fn nothing_ends_by_the_local_clock_alone() {
        let entry = entry(Source::CampaignReport);
        let mut ahead = attempt(Outcome::NotPublished, "2106-01-01T00:00:00Z");
        for vendor_date in [None, Some(utc("2026-11-12T00:00:00Z"))] {
            ahead.vendor_date = vendor_date;
            assert_eq!(settle(&entry, NEVER, &ahead, 0.5).settled, Settled::Open);
        }
        for outcome in [Outcome::Unavailable, Outcome::Unauthorized] {
            let late = attempt(outcome, "2026-12-01T00:00:00Z");
            assert_eq!(settle(&entry, NEVER, &late, 0.5).settled, Settled::Open);
        }
    }

    #[test]
    fn a_refusal_that_is_no_denial_settles_nothing() {
        let mut entry = entry(Source::CampaignReport);
        follow(&mut entry, &attempt(Outcome::NotPublished, "2026-11-17T03:00:00Z"));
        let mut conflict = attempt(Outcome::NotPublished, "2026-11-18T00:00:00Z");
        conflict.http_status = Some(409);
        assert_eq!(follow(&mut entry, &conflict).settled, Settled::Open);
    }

    #[test]
    fn a_daily_dump_is_given_up_as_absent_after_its_time() {
        let mut entry = entry(Source::DailyDump);
        assert_eq!(follow(&mut entry, &attempt(Outcome::NotPublished, "2026-11-17T09:29:59Z")).settled, Settled::Open);
        assert_eq!(
            follow(&mut entry, &attempt(Outcome::NotPublished, "2026-11-17T09:30:00Z")).settled,
            Settled::Absent
        );
    }

    #[test]
    fn a_refused_key_is_probed_hourly_and_what_is_near_expiry_does_not_wait_for_it() {
        let settlement =
            settle(&entry(Source::CampaignReport), NEVER, &attempt(Outcome::Unauthorized, "2026-11-17T08:30:00Z"), 0.9);
        let hold = settlement.hold.unwrap();
        assert_eq!(hold.until, utc("2026-11-17T09:30:00Z"));
        assert_eq!(hold.until_for(Some(utc("2026-11-17T09:30:00Z"))), utc("2026-11-17T08:45:00Z"));
        assert_eq!(settlement.next_attempt_at, Some(utc("2026-11-17T08:45:00Z")));
    }

    proptest! {
        #[test]
        fn no_delay_of_ours_exceeds_a_quarter_of_the_time_left(
            seconds_left in 1i64..700_000, streak in 0u32..40, jitter in 0.0..1.0f64, which in 1usize..9
        ) {
            let outcome = Outcome::ALL[which];
            let mut entry = entry(Source::CampaignReport);
            entry.streak = streak;
            entry.outcome = Some(outcome);
            let expiry = entry.partition.expires_at.unwrap();
            let mut attempt = attempt(outcome, "2026-11-10T10:00:00Z");
            attempt.finished_at = expiry - SignedDuration::from_secs(seconds_left);
            attempt.vendor_date = Some(attempt.finished_at);
            let next = settle(&entry, NEVER, &attempt, jitter).next_attempt_at.unwrap();
            let delay = next.duration_since(attempt.finished_at);
            prop_assert!(delay * 4 <= SignedDuration::from_secs(seconds_left), "{delay:?}");
            prop_assert!(next >= attempt.finished_at);
        }
    }
}
