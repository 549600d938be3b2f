//! What is known of a partition, and what follows from an attempt at it: its state, its next attempt, and its end.
//!
//! This file owns the outcome table. It must not know how an attempt was made or where any of this is recorded; the
//! present and the jitter are arguments.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    config::SourceKind,
    outcome::{Attempt, CLOCK_TOLERANCE, Outcome, StoredObject},
    report::Partition,
    retry::{self, ABSURD_RETRY_AFTER, Hold},
};

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
    /// The vendor's own time of its last "no such file" before the end.
    pub denied_at: Option<Timestamp>,
    /// Whether its end had passed when a person first asked for it: what is denied then was not lost by waiting.
    pub asked_late: bool,
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
            asked_late: false,
            message: None,
            object: None,
        }
    }

    /// A partition whose end had passed when a person first asked for it.
    pub fn late(partition: Partition) -> Self {
        Self { asked_late: true, ..Self::new(partition) }
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

/// What the clocks say of content that the vendor answers with, before any of it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    /// It is of its time.
    Timely,
    /// The vendor's clock has not reached the generation time: what comes is not final.
    TooEarly,
    /// The same, but the archive expires within [`LAST_CHANCE`]: it is stored with a warning, so that a server whose clock
    /// is behind for a week costs no report.
    LastChance,
    /// A live listing of a time that is over, by both clocks.
    Over,
    /// A live listing whose time is over by the local clock, while the vendor's says otherwise or nothing.
    Unclear,
}

/// Judges content of `partition` that the vendor began to send at `now` with its `Date`. `is_skew_confirmed` says whether
/// earlier answers of this server showed the same difference between the clocks.
///
/// A live listing in hand before its expiry by the local clock is timely whatever the `Date`: one odd `Date` must not
/// cost what cannot be fetched again.
pub fn timing(
    partition: &Partition,
    now: Timestamp,
    vendor_date: Option<Timestamp>,
    is_skew_confirmed: bool,
) -> Timing {
    let has_expired = |at: Timestamp| partition.expires_at.is_some_and(|expiry| at >= expiry);
    let is_over_here = partition.source.is_live_listing() && has_expired(now);
    let Some(date) = vendor_date else {
        return if is_over_here { Timing::Unclear } else { Timing::Timely };
    };
    if date < partition.generated_at {
        let is_last_chance = partition.source.is_archive() && is_last_chance(partition, now);
        return if is_last_chance { Timing::LastChance } else { Timing::TooEarly };
    }
    if !is_over_here {
        return Timing::Timely;
    }
    let agree = now.duration_since(date).abs() <= CLOCK_TOLERANCE;
    match has_expired(date) {
        true if agree => Timing::Over,
        false if agree || is_skew_confirmed => Timing::Timely,
        _ => Timing::Unclear,
    }
}

/// Whether less than [`LAST_CHANCE`] is left to the expiry at `now`.
pub fn is_last_chance(partition: &Partition, now: Timestamp) -> bool {
    partition.expires_at.is_some_and(|expiry| expiry.duration_since(now) < LAST_CHANCE)
}

/// With less than this left to expiry, what is doubtful is kept at first sight rather than asked for again.
pub const LAST_CHANCE: SignedDuration = SignedDuration::from_hours(24);

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
    /// See [`Entry::asked_late`].
    pub asked_late: bool,
    /// Why the partition's life ended so, where the attempt's own message does not say it; for people.
    pub remark: Option<&'static str>,
    /// Whether the whole workspace waits.
    pub hold: Option<Hold>,
}

/// What the end of a partition is decided by, besides its own attempts.
#[derive(Debug, Clone, Copy)]
pub struct Grounds {
    /// The report's: how long after its generation an unpublished `daily_dump` is given up.
    pub give_up_after: SignedDuration,
    /// When an archive of the workspace last came whole, by the vendor's clock.
    pub archive_seen_at: Option<Timestamp>,
}

/// Why what a person asked for late is absent.
const ASKED_LATE: &str = "its end had passed when it was first asked for";

/// Why a denied report is lost that was not denied in its last day.
const UNWATCHED: &str = "MoEngage did not deny it in the 24 hours before its end, so it may have been there";

/// Said of what is lost because nothing shows that the workspace works.
const UNPROVEN: &str = "no archive of this workspace has come since this one was due, so all its requests may be refused: \
    compare app_id and the report's name with the dashboard, and look at MoEngage's API firewall and the key's scopes";

/// A denial counts as the vendor's word on an unpublished report when it came this long before expiry, or less.
const LAST_LOOK: SignedDuration = SignedDuration::from_hours(24);

/// What follows from `attempt` on `entry`, by the outcome table. `jitter` is a random number in `[0, 1)`.
pub fn settle(entry: &Entry, grounds: Grounds, attempt: &Attempt, jitter: f64) -> Settlement {
    let partition = &entry.partition;
    let same_ladder = entry.outcome.is_some_and(|before| before.ladder() == attempt.outcome.ladder());
    let streak = if same_ladder { entry.streak.saturating_add(1) } else { 1 };
    let is_alike = entry.outcome == Some(attempt.outcome);
    let repeats = if is_alike { entry.repeats.saturating_add(1) } else { 1 };
    let seen = entry.seen || attempt.seen;

    let end = partition.end(grounds.give_up_after);
    // Only these statuses say "there is no such file"; any other refusal may be about the request.
    let is_denial = attempt.outcome == Outcome::NotPublished && matches!(attempt.http_status, Some(400 | 404 | 410));
    // Nothing ends by one clock alone, and a `Date` that is not of this attempt proves nothing.
    let is_past_end = end.is_some_and(|end| attempt.is_past(end));
    let before_end = attempt.vendor_date.filter(|date| attempt.clocks_agree() && end.is_none_or(|end| *date < end));
    let denied_at = entry.denied_at.max(before_end.filter(|_| is_denial));
    // The mark was made by a clock that was ahead, if the vendor answers before the end.
    let asked_late = entry.asked_late && before_end.is_none();
    // A live listing of a day that is over: the vendor shows another by now.
    let is_over = partition.source.is_live_listing() && attempt.outcome == Outcome::NotPublished && is_past_end;
    // What is stored stays so, though fetching it again may fail.
    let (settled, remark) = if attempt.outcome == Outcome::Stored || entry.settled == Settled::Stored {
        (Settled::Stored, None)
    } else if is_over {
        (Settled::Lost, None)
    } else if !(is_denial && is_past_end) {
        (Settled::Open, None)
    } else if seen {
        (Settled::Lost, None)
    } else if asked_late {
        (Settled::Absent, Some(ASKED_LATE))
    } else {
        let is_shortly_before = |(date, end): (Timestamp, Timestamp)| {
            let left = end.duration_since(date);
            left.is_positive() && left <= LAST_LOOK
        };
        let denied_shortly_before =
            partition.source == SourceKind::DailyDump || denied_at.zip(end).is_some_and(is_shortly_before);
        let workspace_works = grounds.archive_seen_at.is_some_and(|seen_at| seen_at >= partition.due_at);
        match (denied_shortly_before, workspace_works) {
            (true, true) => (Settled::Absent, None),
            (false, true) => (Settled::Lost, Some(UNWATCHED)),
            (_, false) => (Settled::Lost, Some(UNPROVEN)),
        }
    };

    let asked = attempt.retry_after.filter(|wait| wait.is_positive() && *wait <= ABSURD_RETRY_AFTER);
    let asked = asked.filter(|_| attempt.outcome == Outcome::RateLimited);
    let wait = Hold {
        outcome: attempt.outcome,
        since: attempt.finished_at,
        until: retry::later(
            attempt.finished_at,
            asked.unwrap_or_else(|| retry::delay_after(attempt.outcome, streak, jitter)),
        ),
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
    Settlement { settled, streak, repeats, next_attempt_at, seen, denied_at, asked_late, remark, hold }
}
#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{PartitionId, ReportId};
    use jiff::civil::date;
    use proptest::prelude::*;

    /// Evidence that the workspace works.
    const PROVEN: Grounds =
        Grounds { give_up_after: SignedDuration::from_hours(24 * 7), archive_seen_at: Some(Timestamp::MAX) };

    fn utc(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn entry(source: SourceKind) -> Entry {
        let generated_at = utc("2026-11-10T09:30:00Z");
        Entry::new(Partition {
            id: PartitionId { report: ReportId::new("acme", "daily"), date: date(2026, 11, 10) },
            source,
            generated_at,
            due_at: utc("2026-11-10T10:00:00Z"),
            expires_at: (source == SourceKind::CampaignReport).then(|| generated_at + SignedDuration::from_hours(168)),
        })
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
        let settlement = settle(entry, PROVEN, attempt, 0.5);
        entry.outcome = Some(attempt.outcome);
        entry.streak = settlement.streak;
        entry.repeats = settlement.repeats;
        entry.seen = settlement.seen;
        entry.denied_at = settlement.denied_at;
        entry.asked_late = settlement.asked_late;
        settlement
    }

    fn delays(outcome: Outcome, count: usize) -> Vec<f64> {
        let mut entry = entry(SourceKind::DailyDump);
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
        let next = settle(&entry(SourceKind::CampaignReport), PROVEN, &near, 0.5).next_attempt_at;
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
            let settlement = settle(&entry(SourceKind::DailyDump), PROVEN, &attempt, 0.5);
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
        let mut entry = entry(SourceKind::CampaignReport);
        let before = follow(&mut entry, &attempt(Outcome::NotPublished, "2026-11-17T03:00:00Z"));
        assert_eq!(before.settled, Settled::Open);
        let after = follow(&mut entry, &attempt(Outcome::NotPublished, "2026-11-17T09:30:00Z"));
        assert_eq!((after.settled, after.next_attempt_at), (Settled::Absent, None));
    }

    #[test]
    fn a_report_that_nobody_asked_for_in_its_last_day_is_lost() {
        let mut entry = entry(SourceKind::CampaignReport);
        follow(&mut entry, &attempt(Outcome::NotPublished, "2026-11-15T03:00:00Z"));
        let after = follow(&mut entry, &attempt(Outcome::NotPublished, "2026-11-18T00:00:00Z"));
        assert_eq!(after.settled, Settled::Lost);
    }

    #[test]
    fn a_report_that_was_seen_and_is_gone_is_lost() {
        let mut entry = entry(SourceKind::CampaignReport);
        let mut broken = attempt(Outcome::StoreFailed, "2026-11-17T03:00:00Z");
        broken.seen = true;
        follow(&mut entry, &broken);
        follow(&mut entry, &attempt(Outcome::NotPublished, "2026-11-17T08:00:00Z"));
        let after = follow(&mut entry, &attempt(Outcome::NotPublished, "2026-11-17T10:00:00Z"));
        assert_eq!(after.settled, Settled::Lost);
    }

    #[test]
    fn nothing_ends_by_one_clock_alone() {
        let entry = entry(SourceKind::CampaignReport);
        let mut ahead = attempt(Outcome::NotPublished, "2106-01-01T00:00:00Z");
        for vendor_date in [None, Some(utc("2026-11-12T00:00:00Z")), Some(utc("2026-12-01T00:00:00Z"))] {
            ahead.vendor_date = vendor_date;
            assert_eq!(settle(&entry, PROVEN, &ahead, 0.5).settled, Settled::Open);
        }
        for outcome in [Outcome::Unavailable, Outcome::Unauthorized] {
            let late = attempt(outcome, "2026-12-01T00:00:00Z");
            assert_eq!(settle(&entry, PROVEN, &late, 0.5).settled, Settled::Open);
        }
    }

    #[test]
    fn a_denial_with_a_date_of_another_time_ends_nothing_and_is_no_evidence() {
        for source in [SourceKind::CampaignReport, SourceKind::DailyDump, SourceKind::Campaigns] {
            let mut entry = entry(source);
            entry.partition.expires_at = entry.partition.expires_at.or(match source {
                SourceKind::Campaigns => Some(utc("2026-11-11T09:30:00Z")),
                _ => None,
            });
            let mut odd = attempt(Outcome::NotPublished, "2026-11-10T20:00:00Z");
            odd.vendor_date = Some(utc("2026-11-20T20:00:00Z"));
            let after = follow(&mut entry, &odd);
            assert_eq!((after.settled, after.denied_at), (Settled::Open, None), "{source}");
        }
    }

    #[test]
    fn clocks_that_differ_by_more_than_a_minute_end_nothing() {
        for (seconds, settled) in
            [(-61, Settled::Open), (-60, Settled::Absent), (60, Settled::Absent), (61, Settled::Open)]
        {
            let mut entry = entry(SourceKind::CampaignReport);
            follow(&mut entry, &attempt(Outcome::NotPublished, "2026-11-17T03:00:00Z"));
            let mut last = attempt(Outcome::NotPublished, "2026-11-18T00:00:00Z");
            last.vendor_date = Some(last.finished_at + SignedDuration::from_secs(seconds));
            assert_eq!(follow(&mut entry, &last).settled, settled, "{seconds}");
        }
    }

    #[test]
    fn without_evidence_that_the_workspace_works_a_denied_report_is_lost_with_the_causes() {
        for source in [SourceKind::CampaignReport, SourceKind::DailyDump] {
            let due_at = entry(source).partition.due_at;
            for archive_seen_at in [None, Some(due_at - SignedDuration::from_secs(1)), Some(due_at)] {
                let grounds = Grounds { archive_seen_at, ..PROVEN };
                let mut entry = entry(source);
                follow(&mut entry, &attempt(Outcome::NotPublished, "2026-11-17T03:00:00Z"));
                let last = settle(&entry, grounds, &attempt(Outcome::NotPublished, "2026-11-18T00:00:00Z"), 0.5);
                let works = archive_seen_at == Some(due_at);
                assert_eq!(last.settled, if works { Settled::Absent } else { Settled::Lost }, "{source}");
                let names = |cause| last.remark.is_some_and(|remark: &str| remark.contains(cause));
                for cause in ["app_id", "the report's name", "API firewall", "scopes"] {
                    assert_eq!(names(cause), !works, "{cause}");
                }
            }
        }
    }

    #[test]
    fn what_a_person_asked_for_after_its_end_is_absent_without_evidence() {
        let nothing_known = Grounds { archive_seen_at: None, ..PROVEN };
        let denied = attempt(Outcome::NotPublished, "2026-12-01T00:00:00Z");
        for source in [SourceKind::CampaignReport, SourceKind::DailyDump] {
            let late = Entry::late(entry(source).partition);
            let after = settle(&late, nothing_known, &denied, 0.5);
            assert_eq!((after.settled, after.remark), (Settled::Absent, Some(ASKED_LATE)), "{source}");
        }
        let expired_unattended = settle(&entry(SourceKind::CampaignReport), PROVEN, &denied, 0.5);
        assert_eq!(expired_unattended.settled, Settled::Lost);
        let mut seen = Entry::late(entry(SourceKind::CampaignReport).partition);
        seen.seen = true;
        assert_eq!(settle(&seen, nothing_known, &denied, 0.5).settled, Settled::Lost);
    }

    #[test]
    fn an_answer_before_the_end_shows_that_the_person_was_not_late() {
        let mut entry = Entry::late(entry(SourceKind::CampaignReport).partition);
        let in_time = follow(&mut entry, &attempt(Outcome::NotPublished, "2026-11-12T00:00:00Z"));
        assert_eq!((in_time.settled, in_time.asked_late), (Settled::Open, false));
        assert_eq!(follow(&mut entry, &attempt(Outcome::NotPublished, "2026-12-01T00:00:00Z")).settled, Settled::Lost);
    }

    #[test]
    fn only_an_archive_that_came_whole_shows_that_the_workspace_works() {
        let stored = Attempt { http_status: Some(200), ..attempt(Outcome::Stored, "2026-11-17T03:00:00Z") };
        assert_eq!(stored.archive_seen_at(SourceKind::DailyDump), stored.vendor_date);
        assert_eq!(stored.archive_seen_at(SourceKind::CampaignStats), None);
        let html = Attempt { outcome: Outcome::Corrupt, ..stored.clone() };
        let found = Attempt { http_status: None, ..stored.clone() };
        let odd = Attempt { vendor_date: Some(utc("2026-12-01T00:00:00Z")), ..stored };
        for unproven in [html, found, odd] {
            assert_eq!(unproven.archive_seen_at(SourceKind::CampaignReport), None, "{unproven:?}");
        }
    }

    #[test]
    fn content_is_final_once_the_vendors_clock_has_reached_its_time() {
        let timing = |source, now: &str, date: Option<&str>, is_skew_confirmed| {
            let mut partition = entry(source).partition;
            if source == SourceKind::Campaigns {
                partition.expires_at = Some(utc("2026-11-11T09:30:00Z"));
            }
            super::timing(&partition, utc(now), date.map(utc), is_skew_confirmed)
        };
        let (before, in_time, past) = ("2026-11-10T09:29:59Z", "2026-11-10T10:00:00Z", "2026-11-12T00:00:00Z");
        for source in
            [SourceKind::CampaignReport, SourceKind::DailyDump, SourceKind::CampaignStats, SourceKind::Campaigns]
        {
            assert_eq!(timing(source, in_time, Some(before), true), Timing::TooEarly, "{source}");
            assert_eq!(timing(source, in_time, Some(in_time), false), Timing::Timely, "{source}");
            assert_eq!(timing(source, in_time, Some(past), true), Timing::Timely, "{source}");
            assert_eq!(timing(source, in_time, None, false), Timing::Timely, "{source}");
        }
        let last_day = "2026-11-16T09:30:01Z";
        assert_eq!(timing(SourceKind::CampaignReport, last_day, Some(before), false), Timing::LastChance);
        assert_eq!(timing(SourceKind::CampaignReport, "2026-11-16T09:30:00Z", Some(before), false), Timing::TooEarly);
        assert_eq!(timing(SourceKind::DailyDump, last_day, Some(before), false), Timing::TooEarly);
        assert_eq!(timing(SourceKind::Campaigns, "2026-11-11T09:00:00Z", Some(before), false), Timing::TooEarly);
    }

    #[test]
    fn a_listing_past_its_time_by_one_clock_alone_waits_for_the_other() {
        let mut partition = entry(SourceKind::Campaigns).partition;
        partition.expires_at = Some(utc("2026-11-11T09:30:00Z"));
        let past = utc("2026-11-12T00:00:00Z");
        let judged = |date: Option<&str>, is_skew_confirmed| timing(&partition, past, date.map(utc), is_skew_confirmed);
        assert_eq!(judged(Some("2026-11-12T00:01:00Z"), false), Timing::Over);
        assert_eq!(judged(Some("2026-11-12T00:01:01Z"), true), Timing::Unclear);
        assert_eq!(judged(None, true), Timing::Unclear);
        assert_eq!(judged(Some("2026-11-10T12:00:00Z"), false), Timing::Unclear);
        assert_eq!(judged(Some("2026-11-10T12:00:00Z"), true), Timing::Timely, "the local clock is ahead");
    }

    #[test]
    fn a_refusal_that_is_no_denial_settles_nothing() {
        let mut entry = entry(SourceKind::CampaignReport);
        follow(&mut entry, &attempt(Outcome::NotPublished, "2026-11-17T03:00:00Z"));
        let mut conflict = attempt(Outcome::NotPublished, "2026-11-18T00:00:00Z");
        conflict.http_status = Some(409);
        assert_eq!(follow(&mut entry, &conflict).settled, Settled::Open);
    }

    #[test]
    fn a_daily_dump_is_given_up_as_absent_after_its_time() {
        let mut entry = entry(SourceKind::DailyDump);
        assert_eq!(follow(&mut entry, &attempt(Outcome::NotPublished, "2026-11-17T09:29:59Z")).settled, Settled::Open);
        assert_eq!(
            follow(&mut entry, &attempt(Outcome::NotPublished, "2026-11-17T09:30:00Z")).settled,
            Settled::Absent
        );
    }

    #[test]
    fn a_refused_key_is_probed_hourly_and_what_is_near_expiry_does_not_wait_for_it() {
        let settlement = settle(
            &entry(SourceKind::CampaignReport),
            PROVEN,
            &attempt(Outcome::Unauthorized, "2026-11-17T08:30:00Z"),
            0.9,
        );
        let hold = settlement.hold.unwrap();
        assert_eq!(hold.until, utc("2026-11-17T09:30:00Z"));
        assert_eq!(hold.until_for(Some(utc("2026-11-17T09:30:00Z"))), utc("2026-11-17T08:45:00Z"));
        assert_eq!(settlement.next_attempt_at, Some(utc("2026-11-17T08:45:00Z")));
    }

    #[test]
    fn a_wait_asked_for_leaves_time_before_the_expiry() {
        let mut limited = attempt(Outcome::RateLimited, "2026-11-16T23:30:00Z");
        limited.retry_after = Some(SignedDuration::from_hours(24));
        let settlement = settle(&entry(SourceKind::CampaignReport), PROVEN, &limited, 0.5);
        assert_eq!(settlement.next_attempt_at, Some(utc("2026-11-17T04:30:00Z")), "half of ten hours");
    }

    proptest! {
        #[test]
        fn no_wait_exceeds_its_share_of_the_time_left(
            seconds_left in 1i64..700_000, streak in 0u32..40, jitter in 0.0..1.0f64,
            outcome in proptest::sample::select(Outcome::ALL[1..].to_vec()),
            asked in proptest::option::of(-10i64..200_000),
        ) {
            let mut entry = entry(SourceKind::CampaignReport);
            entry.streak = streak;
            entry.outcome = Some(outcome);
            let expiry = entry.partition.expires_at.unwrap();
            let mut attempt = attempt(outcome, "2026-11-10T10:00:00Z");
            attempt.finished_at = expiry - SignedDuration::from_secs(seconds_left);
            attempt.vendor_date = Some(attempt.finished_at);
            attempt.retry_after = asked.map(SignedDuration::from_secs);
            let is_asked = outcome == Outcome::RateLimited && asked.is_some_and(|asked| (1..=86_400).contains(&asked));
            let share = if is_asked { 2 } else { 4 };
            let next = settle(&entry, PROVEN, &attempt, jitter).next_attempt_at.unwrap();
            let delay = next.duration_since(attempt.finished_at);
            prop_assert!(delay * share <= SignedDuration::from_secs(seconds_left), "{delay:?}");
            prop_assert!(next >= attempt.finished_at);
        }
    }
}
