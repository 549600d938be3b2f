//! The partitions of a schedule, without the ledger: the next, the upcoming, and those of a backfill.

use std::sync::Arc;

use jiff::{Timestamp, ToSpan, civil};

use super::horizon::before_start;
use crate::{config::Report, partition::Entry, report::Partition, schedule};

/// The next partition of `report` that is generated after `now`, and not before its `start`.
pub fn next(report: &Report, now: Timestamp) -> Option<Partition> {
    schedule::next(report, now.max(before_start(report))).map(|occurrence| report.partition(occurrence))
}

/// The scheduled partitions of `reports` that are generated after `now` and not after `until`, in the order of their due
/// times.
pub fn upcoming(reports: &[Arc<Report>], now: Timestamp, until: Timestamp) -> Vec<Partition> {
    let mut partitions: Vec<_> = reports
        .iter()
        .flat_map(|report| {
            schedule::after(&report.schedule, &report.timezone, now.max(before_start(report)))
                .take_while(|occurrence| occurrence.generated_at <= until)
                .map(|occurrence| report.partition(occurrence))
        })
        .collect();
    partitions.sort_by(|a, b| (a.due_at, &a.id).cmp(&(b.due_at, &b.id)));
    partitions
}

/// The partitions of a backfill.
#[derive(Debug)]
pub struct Backfill {
    /// Those that are requested.
    pub requested: Vec<Entry>,
    /// Those that are not generated yet.
    pub future: Vec<Partition>,
}

/// The partitions of `report` that a backfill of `from..=to` names: those of the schedule's dates, or of every day. What is
/// generated at `now` is requested. `start` does not limit them.
pub fn backfill(report: &Report, from: civil::Date, to: civil::Date, every_day: bool, now: Timestamp) -> Backfill {
    let entry = |partition: Partition| match partition.end(report.give_up_after()) {
        Some(end) if end <= now => Entry::requested_late(partition),
        _ => Entry::new(partition),
    };
    let on = if every_day { schedule::on_any_day } else { schedule::on };
    let (past, future): (Vec<_>, Vec<_>) = from
        .series(1.day())
        .take_while(|date| *date <= to)
        .filter_map(|date| on(&report.schedule, &report.timezone, date))
        .map(|occurrence| report.partition(occurrence))
        .partition(|partition| partition.generated_at <= now);
    Backfill { requested: past.into_iter().map(entry).collect(), future }
}

#[cfg(test)]
mod tests {
    use jiff::{civil::date, civil::time};

    use super::*;
    use crate::{
        config::{MonthDay, Schedule, SourceKind},
        plan::fixtures::{daily, late_dates, report, utc},
    };

    #[test]
    fn a_backfill_covers_the_dates_of_the_schedule_or_every_day() {
        let monthly = Schedule::Monthly { on: MonthDay::Last, at: time(7, 0, 0, 0) };
        let report = report(SourceKind::DailyDump, monthly, "UTC");
        let now = utc("2026-11-21T12:00:00Z");
        let asked = |every_day| {
            let Backfill { requested, future } =
                backfill(&report, date(2026, 9, 29), date(2026, 12, 31), every_day, now);
            let requested = requested.into_iter().map(|entry| entry.partition.id.date);
            let future = future.into_iter().map(|partition| partition.id.date);
            (requested.collect::<Vec<_>>(), future.collect::<Vec<_>>())
        };
        let requested = vec![date(2026, 9, 30), date(2026, 10, 31)];
        assert_eq!(asked(false), (requested, vec![date(2026, 11, 30), date(2026, 12, 31)]));
        let (requested, future) = asked(true);
        assert_eq!((requested.len(), future.len()), (2 + 31 + 21, 9 + 31));
    }

    #[test]
    fn a_backfill_marks_partitions_that_have_ended() {
        let now = utc("2026-11-21T12:00:00Z");
        for (source, late) in
            [(SourceKind::CampaignReport, 2), (SourceKind::DailyDump, 2), (SourceKind::CampaignStats, 0)]
        {
            let report = report(source, daily(9, 30), "UTC");
            let asked = backfill(&report, date(2026, 11, 13), date(2026, 11, 20), false, now).requested;
            assert_eq!((asked.len(), late_dates(&asked).len()), (8, late), "{source}");
        }
    }
}
