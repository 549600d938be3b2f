//! The entry after an attempt, by the outcome table.

use jiff::{SignedDuration, Timestamp};

use super::{Entry, Grounds, Settled};
use crate::{
    config::SourceKind,
    outcome::{Attempt, Outcome, Remark},
    retry::{self, ABSURD_RETRY_AFTER, Hold},
};

/// A report is unpublished only if MoEngage denied it at most this long before its expiry.
const LAST_LOOK: SignedDuration = SignedDuration::from_hours(24);

impl Entry {
    /// The entry after `attempt`, by the outcome table, and the hold of its workspace that follows.
    /// `jitter` is a random number in `[0, 1)`.
    pub fn after(self, attempt: &Attempt, grounds: Grounds, jitter: f64) -> (Self, Option<Hold>) {
        let (outcome, evidence) = (attempt.outcome(), attempt.evidence());
        let same_ladder = self.outcome.is_some_and(|before| before.ladder() == outcome.ladder());
        let streak = if same_ladder { self.streak.saturating_add(1) } else { 1 };
        let is_alike = self.outcome == Some(outcome);
        let repeats = if is_alike { self.repeats.saturating_add(1) } else { 1 };

        let end = self.partition.end(grounds.give_up_after);
        // A `Date` outside the attempt proves nothing.
        let before_end =
            evidence.vendor_date.filter(|date| attempt.clocks_agree() && end.is_none_or(|end| *date < end));
        let denied_at = self.denied_at.max(before_end.filter(|_| is_denial(attempt)));
        // MoEngage answers before the end: the clock that showed the end as past was ahead.
        let requested_late = self.requested_late && before_end.is_none();
        let seen = self.seen || evidence.seen || attempt.result.is_ok();
        let known = Self { seen, denied_at, requested_late, ..self };
        let (settled, conclusion) = known.settle(attempt, end, grounds);

        let wait = wait(attempt, streak, jitter);
        let is_tried_again = settled == Settled::Open || (settled == Settled::Stored && outcome != Outcome::Stored);
        let next_attempt_at = is_tried_again.then(|| wait.until_for(known.partition.expires_at));
        // The hold of the workspace is not shortened by this partition's expiry. A JSON API that is switched off for
        // the account (403, Campaign Stats and Reports API) does not affect the other APIs.
        let is_switched_off = !known.partition.source.is_archive() && evidence.http_status == Some(403);
        let is_held = match outcome {
            Outcome::Unauthorized => !is_switched_off,
            Outcome::RateLimited => true,
            _ => false,
        };
        let message = match conclusion {
            Some(conclusion) => format!("{}; {conclusion}", attempt.message()),
            None => attempt.message().to_owned(),
        };
        let after = Self {
            settled,
            outcome: Some(outcome),
            attempts: known.attempts.saturating_add(1),
            streak,
            repeats,
            last_attempt_at: Some(attempt.finished_at),
            next_attempt_at,
            remark: conclusion.or(attempt.remark()),
            message: Some(message).filter(|message| !message.is_empty()),
            // A failed refresh leaves the stored object.
            object: attempt.result.as_ref().ok().map(|success| success.object.clone()).or(known.object),
            ..known
        };
        (after, is_held.then_some(wait))
    }

    /// Whether the partition ends with `attempt`, which `self` includes already, and the reason if the attempt does not
    /// show it. One clock alone ends nothing.
    fn settle(&self, attempt: &Attempt, end: Option<Timestamp>, grounds: Grounds) -> (Settled, Option<Remark>) {
        let (partition, outcome) = (&self.partition, attempt.outcome());
        let is_past_end = end.is_some_and(|end| attempt.is_past(end));
        // MoEngage shows a later listing by now.
        let is_replaced = partition.source.is_live_listing() && outcome == Outcome::NotPublished && is_past_end;
        if outcome == Outcome::Stored || self.settled == Settled::Stored {
            return (Settled::Stored, None);
        }
        if is_replaced {
            return (Settled::Lost, None);
        }
        if !(is_denial(attempt) && is_past_end) {
            return (Settled::Open, None);
        }
        if self.seen {
            return (Settled::Lost, None);
        }
        if self.requested_late {
            return (Settled::Absent, Some(Remark::RequestedLate));
        }
        let is_shortly_before = |(date, end): (Timestamp, Timestamp)| {
            let left = end.duration_since(date);
            left.is_positive() && left <= LAST_LOOK
        };
        let denied_shortly_before =
            partition.source == SourceKind::DailyDump || self.denied_at.zip(end).is_some_and(is_shortly_before);
        let workspace_works = grounds.archive_seen_at.is_some_and(|seen_at| seen_at >= partition.due_at);
        match (denied_shortly_before, workspace_works) {
            (true, true) => (Settled::Absent, None),
            (false, true) => (Settled::Lost, Some(Remark::Unwatched)),
            (_, false) => (Settled::Lost, Some(Remark::Unproven)),
        }
    }
}

/// Whether MoEngage denies the file. Other statuses may be about the request.
fn is_denial(attempt: &Attempt) -> bool {
    attempt.outcome() == Outcome::NotPublished && matches!(attempt.evidence().http_status, Some(400 | 404 | 410))
}

/// The wait after `attempt`, before the expiry shortens it.
fn wait(attempt: &Attempt, streak: u32, jitter: f64) -> Hold {
    let outcome = attempt.outcome();
    let requested = attempt.evidence().wait(attempt.finished_at);
    let requested = requested.filter(|wait| wait.is_positive() && *wait <= ABSURD_RETRY_AFTER);
    let requested = requested.filter(|_| outcome == Outcome::RateLimited);
    let delay = requested.unwrap_or_else(|| retry::delay_after(outcome, streak, jitter));
    Hold {
        outcome,
        since: attempt.finished_at,
        until: retry::later(attempt.finished_at, delay),
        is_requested: requested.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        outcome::{Evidence, Failure, RetryAfter, StoredObject, Success},
        report::{Partition, PartitionId, ReportId},
    };

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
        let http_status = (outcome == Outcome::NotPublished).then_some(400);
        let evidence = Evidence { http_status, vendor_date: Some(at), ..Evidence::default() };
        let result = Err(Failure::after(&evidence, outcome, String::new()));
        Attempt { started_at: at, finished_at: at, result }
    }

    fn evidence(attempt: &mut Attempt) -> &mut Evidence {
        match &mut attempt.result {
            Ok(success) => &mut success.evidence,
            Err(failure) => &mut failure.evidence,
        }
    }

    fn follow(entry: &mut Entry, attempt: &Attempt) -> Entry {
        *entry = entry.clone().after(attempt, PROVEN, 0.5).0;
        entry.clone()
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
    fn an_unsupported_format_is_requested_daily_and_sooner_only_near_its_expiry() {
        assert_eq!(delays(Outcome::Unsupported, 3), [86_400.0; 3]);
        let near = attempt(Outcome::Unsupported, "2026-11-16T09:30:00Z");
        let next = entry(SourceKind::CampaignReport).after(&near, PROVEN, 0.5).0.next_attempt_at;
        assert_eq!(next, Some(utc("2026-11-16T15:30:00Z")), "a quarter of the day that is left");
    }

    #[test]
    fn an_unpublished_report_is_polled_each_minute_growing_to_half_an_hour() {
        assert_eq!(delays(Outcome::NotPublished, 7), [60.0, 120.0, 240.0, 480.0, 960.0, 1800.0, 1800.0]);
    }

    #[test]
    fn a_retry_after_is_obeyed_unless_it_is_zero_or_longer_than_a_day() {
        let wait = |seconds: Option<u64>| {
            let mut attempt = attempt(Outcome::RateLimited, "2026-11-10T10:00:00Z");
            evidence(&mut attempt).retry_after = seconds.map(RetryAfter::Seconds);
            let (after, hold) = entry(SourceKind::DailyDump).after(&attempt, PROVEN, 0.5);
            let hold = hold.unwrap();
            assert_eq!(Some(hold.until), after.next_attempt_at, "nothing expires here");
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
    fn a_report_that_was_not_requested_in_its_last_day_is_lost() {
        let mut entry = entry(SourceKind::CampaignReport);
        follow(&mut entry, &attempt(Outcome::NotPublished, "2026-11-15T03:00:00Z"));
        let after = follow(&mut entry, &attempt(Outcome::NotPublished, "2026-11-18T00:00:00Z"));
        assert_eq!(after.settled, Settled::Lost);
    }

    #[test]
    fn a_report_whose_content_was_seen_and_that_is_denied_is_lost() {
        let mut entry = entry(SourceKind::CampaignReport);
        let mut broken = attempt(Outcome::StoreFailed, "2026-11-17T03:00:00Z");
        evidence(&mut broken).seen = true;
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
            evidence(&mut ahead).vendor_date = vendor_date;
            assert_eq!(entry.clone().after(&ahead, PROVEN, 0.5).0.settled, Settled::Open);
        }
        for outcome in [Outcome::Unavailable, Outcome::Unauthorized] {
            let late = attempt(outcome, "2026-12-01T00:00:00Z");
            assert_eq!(entry.clone().after(&late, PROVEN, 0.5).0.settled, Settled::Open);
        }
    }

    #[test]
    fn a_denial_with_a_wrong_date_ends_nothing_and_is_no_evidence() {
        for source in [SourceKind::CampaignReport, SourceKind::DailyDump, SourceKind::Campaigns] {
            let mut entry = entry(source);
            entry.partition.expires_at = entry.partition.expires_at.or(match source {
                SourceKind::Campaigns => Some(utc("2026-11-11T09:30:00Z")),
                _ => None,
            });
            let mut odd = attempt(Outcome::NotPublished, "2026-11-10T20:00:00Z");
            evidence(&mut odd).vendor_date = Some(utc("2026-11-20T20:00:00Z"));
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
            evidence(&mut last).vendor_date = Some(last.finished_at + SignedDuration::from_secs(seconds));
            assert_eq!(follow(&mut entry, &last).settled, settled, "{seconds}");
        }
    }

    #[test]
    fn without_evidence_that_the_workspace_works_a_denied_report_is_lost_with_causes() {
        for source in [SourceKind::CampaignReport, SourceKind::DailyDump] {
            let due_at = entry(source).partition.due_at;
            for archive_seen_at in [None, Some(due_at - SignedDuration::from_secs(1)), Some(due_at)] {
                let grounds = Grounds { archive_seen_at, ..PROVEN };
                let mut entry = entry(source);
                follow(&mut entry, &attempt(Outcome::NotPublished, "2026-11-17T03:00:00Z"));
                let last = entry.after(&attempt(Outcome::NotPublished, "2026-11-18T00:00:00Z"), grounds, 0.5).0;
                let works = archive_seen_at == Some(due_at);
                assert_eq!(last.settled, if works { Settled::Absent } else { Settled::Lost }, "{source}");
                let names = |cause| last.message.as_ref().is_some_and(|message| message.contains(cause));
                for cause in ["app_id", "the report's name", "API firewall", "scopes"] {
                    assert_eq!(names(cause), !works, "{cause}");
                }
            }
        }
    }

    #[test]
    fn a_partition_requested_after_its_end_is_absent_without_evidence() {
        let nothing_known = Grounds { archive_seen_at: None, ..PROVEN };
        let denied = attempt(Outcome::NotPublished, "2026-12-01T00:00:00Z");
        for source in [SourceKind::CampaignReport, SourceKind::DailyDump] {
            let late = Entry::requested_late(entry(source).partition);
            let after = late.clone().after(&denied, nothing_known, 0.5).0;
            assert_eq!((after.settled, after.remark), (Settled::Absent, Some(Remark::RequestedLate)), "{source}");
        }
        let not_requested_late = entry(SourceKind::CampaignReport).after(&denied, PROVEN, 0.5).0;
        assert_eq!(not_requested_late.settled, Settled::Lost);
        let mut seen = Entry::requested_late(entry(SourceKind::CampaignReport).partition);
        seen.seen = true;
        assert_eq!(seen.clone().after(&denied, nothing_known, 0.5).0.settled, Settled::Lost);
    }

    #[test]
    fn an_answer_before_the_end_shows_that_the_request_was_not_late() {
        let mut entry = Entry::requested_late(entry(SourceKind::CampaignReport).partition);
        let in_time = follow(&mut entry, &attempt(Outcome::NotPublished, "2026-11-12T00:00:00Z"));
        assert_eq!((in_time.settled, in_time.requested_late), (Settled::Open, false));
        assert_eq!(follow(&mut entry, &attempt(Outcome::NotPublished, "2026-12-01T00:00:00Z")).settled, Settled::Lost);
    }

    #[test]
    fn only_a_complete_archive_shows_that_the_workspace_works() {
        let at = utc("2026-11-17T03:00:00Z");
        let object = StoredObject { key: "k".into(), size: 1, sha256: "00".into(), stored_at: at };
        let evidence = Evidence { http_status: Some(200), vendor_date: Some(at), seen: true, ..Evidence::default() };
        let stored = |evidence: &Evidence| Attempt {
            started_at: at,
            finished_at: at,
            result: Ok(Success {
                object: object.clone(),
                remark: None,
                message: String::new(),
                evidence: evidence.clone(),
            }),
        };
        assert_eq!(stored(&evidence).archive_seen_at(SourceKind::DailyDump), Some(at));
        assert_eq!(stored(&evidence).archive_seen_at(SourceKind::CampaignStats), None);
        let html = Failure::after(&evidence, Outcome::Corrupt, String::new());
        let html = Attempt { result: Err(html), ..stored(&evidence) };
        let found = stored(&Evidence { http_status: None, ..evidence.clone() });
        let odd = stored(&Evidence { vendor_date: Some(utc("2026-12-01T00:00:00Z")), ..evidence });
        for unproven in [html, found, odd] {
            assert_eq!(unproven.archive_seen_at(SourceKind::CampaignReport), None, "{unproven:?}");
        }
    }

    #[test]
    fn a_refusal_that_is_not_a_denial_ends_nothing() {
        let mut entry = entry(SourceKind::CampaignReport);
        follow(&mut entry, &attempt(Outcome::NotPublished, "2026-11-17T03:00:00Z"));
        let mut conflict = attempt(Outcome::NotPublished, "2026-11-18T00:00:00Z");
        evidence(&mut conflict).http_status = Some(409);
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
    fn a_refused_key_is_probed_hourly_and_sooner_for_a_partition_near_its_expiry() {
        let refused = attempt(Outcome::Unauthorized, "2026-11-17T08:30:00Z");
        let (after, hold) = entry(SourceKind::CampaignReport).after(&refused, PROVEN, 0.9);
        let hold = hold.unwrap();
        assert_eq!(hold.until, utc("2026-11-17T09:30:00Z"));
        assert_eq!(hold.until_for(Some(utc("2026-11-17T09:30:00Z"))), utc("2026-11-17T08:45:00Z"));
        assert_eq!(after.next_attempt_at, Some(utc("2026-11-17T08:45:00Z")));
    }

    #[test]
    fn a_requested_wait_leaves_half_of_the_time_to_expiry() {
        let mut limited = attempt(Outcome::RateLimited, "2026-11-16T23:30:00Z");
        evidence(&mut limited).retry_after = Some(RetryAfter::Seconds(24 * 3600));
        let after = entry(SourceKind::CampaignReport).after(&limited, PROVEN, 0.5).0;
        assert_eq!(after.next_attempt_at, Some(utc("2026-11-17T04:30:00Z")), "half of ten hours");
    }

    proptest! {
        #[test]
        fn no_wait_exceeds_its_share_of_the_time_left(
            seconds_left in 1i64..700_000, streak in 0u32..40, jitter in 0.0..1.0f64,
            outcome in proptest::sample::select(Outcome::ALL[1..].to_vec()),
            requested in proptest::option::of(0u64..200_000),
        ) {
            let mut entry = entry(SourceKind::CampaignReport);
            entry.streak = streak;
            entry.outcome = Some(outcome);
            let expiry = entry.partition.expires_at.unwrap();
            let mut attempt = attempt(outcome, "2026-11-10T10:00:00Z");
            attempt.finished_at = expiry - SignedDuration::from_secs(seconds_left);
            evidence(&mut attempt).vendor_date = Some(attempt.finished_at);
            evidence(&mut attempt).retry_after = requested.map(RetryAfter::Seconds);
            let is_requested = outcome == Outcome::RateLimited && requested.is_some_and(|wait| (1..=86_400).contains(&wait));
            let share = if is_requested { 2 } else { 4 };
            let next = entry.clone().after(&attempt, PROVEN, jitter).0.next_attempt_at.unwrap();
            let delay = next.duration_since(attempt.finished_at);
            prop_assert!(delay * share <= SignedDuration::from_secs(seconds_left), "{delay:?}");
            prop_assert!(next >= attempt.finished_at);
        }
    }
}
