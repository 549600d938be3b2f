//! The alarms that one partition's own state shows.

use jiff::{SignedDuration, Timestamp};

use crate::{
    alarm_kind::AlarmKind,
    config::Alarms,
    outcome::Outcome,
    partition::{Entry, Settled, State},
    plan::Item,
};

/// The most severe alarm of a partition at `now`.
pub fn of(entry: &Entry, alarms: &Alarms, now: Timestamp) -> Option<AlarmKind> {
    match entry.state(now) {
        State::Lost => (!entry.acknowledged).then_some(AlarmKind::Lost),
        State::Pending if threshold(entry, alarms, now).is_some() => Some(AlarmKind::Expiring),
        State::Pending => failure(entry).or_else(|| is_late(entry, alarms, now).then_some(AlarmKind::Late)),
        State::Stored | State::Scheduled | State::Absent => None,
    }
}

/// The same for a partition of a plan. A stored one is there to be fetched again, which can fail.
pub fn of_planned(entry: &Entry, alarms: &Alarms, now: Timestamp) -> Option<AlarmKind> {
    match entry.settled {
        Settled::Stored => failure(entry),
        _ => of(entry, alarms, now),
    }
}

/// Whether the last attempt began an alarm. The next attempt may end it within a second.
pub fn begins(entry: &Entry) -> bool {
    match failure(entry) {
        Some(AlarmKind::Corrupt | AlarmKind::StoreFailed) => entry.repeats == 2,
        Some(_) => entry.repeats == 1,
        None => entry.settled == Settled::Lost,
    }
}

/// Whether a partition of a configured report is due and not stored.
pub fn is_pending(item: &Item, now: Timestamp) -> bool {
    item.report.is_some() && item.entry.settled == Settled::Open && item.entry.partition.due_at <= now
}

/// The alarm of the last attempt's outcome, at any time.
pub(super) fn failure(entry: &Entry) -> Option<AlarmKind> {
    match entry.outcome? {
        Outcome::Unauthorized => Some(AlarmKind::Unauthorized),
        Outcome::Rejected => Some(AlarmKind::Rejected),
        Outcome::Corrupt if entry.repeats >= 2 => Some(AlarmKind::Corrupt),
        Outcome::Unsupported => Some(AlarmKind::Unsupported),
        Outcome::StoreFailed if entry.repeats >= 2 => Some(AlarmKind::StoreFailed),
        _ => None,
    }
}

/// The smallest configured time within which a pending partition expires; zero once it has expired. A partition that was
/// first requested after its expiry has none.
pub(super) fn threshold(entry: &Entry, alarms: &Alarms, now: Timestamp) -> Option<SignedDuration> {
    let expires_at = entry.partition.expires_at.filter(|_| !entry.requested_late)?;
    let left = expires_at.duration_since(now);
    // A live listing lasts a day: a threshold longer than that would be passed from the beginning.
    let life = expires_at.duration_since(entry.partition.generated_at);
    // The thresholds are sorted, longest first.
    match left.is_positive() {
        true => alarms.expiry.iter().copied().rfind(|threshold| left <= *threshold && *threshold < life),
        false => Some(SignedDuration::ZERO),
    }
}

/// Whether a pending partition is late or expires soon.
pub(super) fn is_at_risk(entry: &Entry, alarms: &Alarms, now: Timestamp) -> bool {
    threshold(entry, alarms, now).is_some() || is_late(entry, alarms, now)
}

fn is_late(entry: &Entry, alarms: &Alarms, now: Timestamp) -> bool {
    !entry.requested_late && now.duration_since(entry.partition.due_at) >= alarms.late_after
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarm::fixtures::{alarms, entry, utc};

    #[test]
    fn a_corrupt_download_is_an_alarm_from_the_second_on() {
        let at = |entry: Entry| of(&entry, &alarms(), utc("2026-11-10T10:31:00Z"));
        assert_eq!(at(entry(Outcome::Unavailable, 5)), None);
        assert_eq!(at(entry(Outcome::Corrupt, 1)), None);
        assert_eq!(at(entry(Outcome::Corrupt, 2)), Some(AlarmKind::Corrupt));
        assert_eq!(at(entry(Outcome::Unsupported, 1)), Some(AlarmKind::Unsupported));
    }

    #[test]
    fn a_lost_partition_is_an_alarm_until_it_is_acknowledged() {
        let lost = Entry { settled: Settled::Lost, ..entry(Outcome::NotPublished, 1) };
        let at = |entry: &Entry| of(entry, &alarms(), utc("2026-11-20T00:00:00Z"));
        assert_eq!(at(&lost), Some(AlarmKind::Lost));
        assert_eq!(at(&Entry { acknowledged: true, ..lost }), None);
    }

    #[test]
    fn a_partition_requested_after_its_expiry_is_neither_late_nor_expiring() {
        let at = |entry: &Entry| of(entry, &alarms(), utc("2026-11-20T00:00:00Z"));
        let late = Entry { requested_late: true, ..entry(Outcome::Unavailable, 9) };
        assert_eq!(at(&late), None);
        assert_eq!(at(&Entry { requested_late: false, ..late.clone() }), Some(AlarmKind::Expiring));
        assert_eq!(at(&Entry { outcome: Some(Outcome::StoreFailed), ..late }), Some(AlarmKind::StoreFailed));
    }

    #[test]
    fn a_partition_is_late_after_attempts_of_any_outcome() {
        let at = |entry: Entry, now| of(&entry, &alarms(), utc(now));
        let untried = Entry { outcome: None, ..entry(Outcome::Unavailable, 0) };
        for pending in
            [untried, entry(Outcome::Unavailable, 9), entry(Outcome::RateLimited, 1), entry(Outcome::Corrupt, 1)]
        {
            assert_eq!(at(pending.clone(), "2026-11-10T16:29:00Z"), None);
            assert_eq!(at(pending, "2026-11-10T16:30:00Z"), Some(AlarmKind::Late));
        }
        assert_eq!(
            at(entry(Outcome::Corrupt, 2), "2026-11-10T16:30:00Z"),
            Some(AlarmKind::Corrupt),
            "the cause comes first"
        );
    }

    #[test]
    fn a_stored_partition_is_an_alarm_only_while_its_refresh_is_planned() {
        let stored = Entry { settled: Settled::Stored, ..entry(Outcome::Rejected, 1) };
        let now = utc("2026-11-10T16:30:00Z");
        assert_eq!(of(&stored, &alarms(), now), None);
        assert_eq!(of_planned(&stored, &alarms(), now), Some(AlarmKind::Rejected));
        let fresh = Entry { outcome: Some(Outcome::Stored), ..stored };
        assert_eq!(of_planned(&fresh, &alarms(), now), None);
    }

    #[test]
    fn the_smallest_threshold_passed_is_the_one_reported() {
        let waits = entry(Outcome::NotPublished, 1);
        let at = |now| (of(&waits, &alarms(), utc(now)), threshold(&waits, &alarms(), utc(now)));
        assert_eq!(at("2026-11-10T10:31:00Z"), (None, None));
        assert_eq!(at("2026-11-10T16:30:00Z"), (Some(AlarmKind::Late), None));
        let within = |hours| (Some(AlarmKind::Expiring), Some(SignedDuration::from_hours(hours)));
        assert_eq!(at("2026-11-14T12:00:00Z"), within(72));
        assert_eq!(at("2026-11-17T08:00:00Z"), within(6));
        assert_eq!(at("2026-11-17T10:00:00Z"), within(0));
    }
}
