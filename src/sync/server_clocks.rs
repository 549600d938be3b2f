//! The clocks of MoEngage's servers against the local one, by the `Date` of each answer.
//!
//! This file owns when a difference is confirmed, and what an answer whose time is wrong means for its attempt.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex},
};

use jiff::{SignedDuration, Timestamp};
use tracing::warn;

use super::clock::Clock;
use crate::{
    config::Report,
    lock::lock,
    outcome::{CLOCK_TOLERANCE, Evidence, Failure, Outcome},
    partition::{self, Timing},
    report::Partition,
};

/// Skew beyond this is an alarm.
const REPORTED_SKEW: SignedDuration = CLOCK_TOLERANCE;

/// Skew below this ends the alarm. Between the two the alarm stays as it is, so that it does not change with every answer.
const SKEW_CLEARED: SignedDuration = SignedDuration::from_secs(30);

/// How long a measured skew stays valid.
const SKEW_MAX_AGE: SignedDuration = SignedDuration::from_hours(1);

/// A skew is confirmed by an answer that shows it again this long after the first, with no other skew in between. One
/// answer with an odd `Date` must not change the plan.
const CONFIRMED_AFTER: SignedDuration = SignedDuration::from_mins(1);

/// The last skew of each server, by its URL. It outlives a reload.
pub(super) struct ServerClocks {
    clock: Arc<dyn Clock>,
    skews: Mutex<HashMap<String, Skew>>,
}

/// The state of the alarm about the clocks.
pub(super) enum ClockAlarm {
    /// There is one, with this message.
    Raised(String),
    /// There is none.
    Ended,
    /// It stays as it was.
    Undetermined,
}

/// The difference between a server's clock and the local one.
#[derive(Debug, Clone, Copy)]
struct Skew {
    /// When the first of the answers in a row that showed this skew was received.
    since: Timestamp,
    /// When the last one was.
    noted_at: Timestamp,
    /// By how much the local clock is ahead.
    ahead: SignedDuration,
}

impl Skew {
    /// The skew after an answer at `now`.
    fn next(before: Option<Skew>, now: Timestamp, ahead: SignedDuration) -> Skew {
        let is_again = |before: &Skew| {
            before.is_recent(now) && before.noted_at <= now && (before.ahead - ahead).abs() <= CLOCK_TOLERANCE
        };
        Skew { since: before.filter(is_again).map_or(now, |before| before.since), noted_at: now, ahead }
    }

    fn is_recent(&self, now: Timestamp) -> bool {
        now.duration_since(self.noted_at).abs() <= SKEW_MAX_AGE
    }

    fn is_reported(&self) -> bool {
        self.ahead.abs() > REPORTED_SKEW
    }

    fn is_confirmed(&self) -> bool {
        self.noted_at.duration_since(self.since) >= CONFIRMED_AFTER
    }
}

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = self.ahead.abs();
        let by = by.round(jiff::Unit::Second).unwrap_or(by);
        let side = if self.ahead.is_positive() { "ahead of" } else { "behind" };
        write!(f, "the local clock is {by:#} {side} the vendor's")
    }
}

/// By how much the local clock, which shows `now`, differs from that of a server that shows `vendor_date`; `None` if by less
/// than what raises the alarm.
pub fn reported_skew(now: Timestamp, vendor_date: Timestamp) -> Option<impl fmt::Display> {
    let skew = Skew::next(None, now, now.duration_since(vendor_date));
    skew.is_reported().then_some(skew)
}

impl ServerClocks {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, skews: Mutex::default() }
    }

    /// Notes the `Date` of an answer to a request of `report`.
    pub(super) fn note(&self, report: &Report, vendor_date: Option<Timestamp>) {
        let Some(vendor_date) = vendor_date else { return };
        let now = self.clock.now();
        let ahead = now.duration_since(vendor_date);
        let server = report.server();
        let mut skews = lock(&self.skews);
        let before = skews.get(&server).copied();
        let skew = Skew::next(before, now, ahead);
        skews.insert(server.clone(), skew);
        drop(skews);
        if skew.is_reported() && before.is_none_or(|before| !before.is_reported()) {
            warn!(
                skew_seconds = ahead.as_secs(),
                server, "{skew}; no partition ends as absent or lost while they differ, and downloads may come late"
            );
        }
    }

    /// Whether content of `partition` that begins to arrive now, with this `evidence`, may be stored: its generation time
    /// has come, and the time of a live listing is not over.
    ///
    /// # Errors
    ///
    /// Why it must not be stored.
    pub(super) fn check(&self, report: &Report, partition: &Partition, evidence: &Evidence) -> Result<(), Failure> {
        let (now, vendor_date) = (self.clock.now(), evidence.vendor_date);
        let skew = lock(&self.skews).get(&report.server()).copied();
        let is_confirmed = skew.is_some_and(|skew| skew.is_recent(now) && skew.is_confirmed());
        let (outcome, message) = match partition::timing(partition, now, vendor_date, is_confirmed) {
            Timing::Timely | Timing::LastChance => return Ok(()),
            Timing::TooEarly => (Outcome::Unavailable, partition::not_reached(partition, vendor_date)),
            Timing::Over => (Outcome::NotPublished, over(partition)),
            Timing::Unclear => (Outcome::Unavailable, unclear(partition, now, vendor_date)),
        };
        Err(Failure::after(evidence, outcome, message))
    }

    /// Whether some server's last answer showed a difference that is not confirmed yet: the next answers decide what time
    /// it is.
    pub(super) fn are_in_doubt(&self) -> bool {
        self.recent().iter().any(|(_, skew)| skew.is_reported() && !skew.is_confirmed())
    }

    /// By how much the local clock is ahead of each server that has confirmed it.
    pub(super) fn confirmed_ahead(&self) -> HashMap<String, SignedDuration> {
        let confirmed = self.recent().into_iter().filter(|(_, skew)| skew.is_confirmed());
        let ahead = confirmed.map(|(server, skew)| (server, skew.ahead));
        ahead.filter(|(_, ahead)| *ahead > REPORTED_SKEW).collect()
    }

    /// The state of the alarm at present.
    pub(super) fn alarm(&self) -> ClockAlarm {
        match self.recent().into_iter().max_by_key(|(_, skew)| skew.ahead.abs()) {
            Some((server, skew)) if skew.is_reported() => ClockAlarm::Raised(format!("{skew} ({server})")),
            Some((_, skew)) if skew.ahead.abs() <= SKEW_CLEARED => ClockAlarm::Ended,
            Some(_) | None => ClockAlarm::Undetermined,
        }
    }

    fn recent(&self) -> Vec<(String, Skew)> {
        let now = self.clock.now();
        let skews = lock(&self.skews);
        skews.iter().filter(|(_, skew)| skew.is_recent(now)).map(|(server, skew)| (server.clone(), *skew)).collect()
    }
}

fn over(partition: &Partition) -> String {
    format!("MoEngage lists only the present, and this listing had to be read before {}", expiry(partition))
}

fn unclear(partition: &Partition, now: Timestamp, vendor_date: Option<Timestamp>) -> String {
    let date = vendor_date.map_or("is absent".to_owned(), |date| format!("is {date}"));
    format!(
        "this listing had to be read before {}; the local clock shows {now}, and the Date of MoEngage's answer {date}: it is \
         neither stored nor given up until the two agree",
        expiry(partition)
    )
}

fn expiry(partition: &Partition) -> String {
    partition.expires_at.map_or("its expiry".to_owned(), |expiry| expiry.to_string())
}
