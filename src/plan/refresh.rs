//! Which stored partitions are fetched again, because MoEngage restates their numbers.

use std::{cmp::Reverse, sync::Arc};

use jiff::{Timestamp, ToSpan, civil};

use super::{Decision, Item, LedgerView, decide::decide};
use crate::{
    config::{Report, SnapshotSource, Source, StatsQuery},
    outcome::{CLOCK_TOLERANCE, Outcome},
    partition::{Entry, Settled},
    schedule,
};

/// How many partitions of `report` are fetched again each day; `None` if its numbers are not restated.
pub(super) fn refresh_days(report: &Report) -> Option<u16> {
    match &report.source {
        Source::Snapshot(SnapshotSource::CampaignStats(StatsQuery { refresh_days, .. })) => Some(*refresh_days),
        _ => None,
    }
}

/// The last date that is due at `now`, and when it became due, as if the schedule had every day: stored partitions before
/// this date are fetched again.
pub(super) fn refreshed_before(report: &Report, now: Timestamp) -> Option<(civil::Date, Timestamp)> {
    refresh_days(report)?;
    let today = report.timezone.to_datetime(now).date();
    let earlier = report.timezone.to_datetime(now.checked_sub(report.buffer).unwrap_or(now)).date();
    let recent = earlier.saturating_sub(2.days()).series(1.day()).take_while(|date| *date <= today);
    let due = |date| {
        let occurrence = schedule::on_any_day(&report.schedule, &report.timezone, date)?;
        Some((date, report.partition(occurrence).due_at))
    };
    recent.filter_map(due).filter(|(_, due_at)| *due_at <= now).last()
}

/// The newest stored partitions of `report`, `refresh_days` of them, that were not fetched since today's refresh became
/// due.
pub(super) fn refreshes(report: &Arc<Report>, ledger: &LedgerView, now: Timestamp) -> Vec<Item> {
    let Some((refresh_days, (day, since))) = refresh_days(report).zip(refreshed_before(report, now)) else {
        return Vec::new();
    };
    let mut stored: Vec<&Entry> = ledger
        .entries
        .iter()
        .filter(|entry| entry.settled == Settled::Stored && entry.partition.id.report == report.id)
        .filter(|entry| entry.partition.id.date < day)
        .collect();
    stored.sort_by_key(|entry| Reverse(entry.partition.id.date));
    // A replacement that was interrupted is completed at any age.
    let is_half_done = |entry: &&Entry| entry.outcome == Some(Outcome::StoreFailed);
    let older = stored.split_off(stored.len().min(usize::from(refresh_days)));
    stored.extend(older.into_iter().filter(is_half_done));
    let is_fresh = |entry: &Entry| {
        let stored_at = entry.object.as_ref().map(|object| object.stored_at);
        let fetched_at = entry.last_attempt_at.max(stored_at).filter(|_| entry.outcome == Some(Outcome::Stored));
        // A time in the future was written by a clock that has since been set back.
        fetched_at.is_some_and(|at| at >= since && at <= now + CLOCK_TOLERANCE)
    };
    let item = |entry: &Entry| {
        let decision = match decide(entry, ledger.holds.get(entry.partition.id.workspace()), now) {
            Decision::Fetch => Decision::Refresh,
            wait => wait,
        };
        Item { entry: entry.clone(), report: Some(Arc::clone(report)), decision }
    };
    stored.into_iter().filter(|entry| !is_fresh(entry)).map(item).collect()
}
