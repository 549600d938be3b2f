//! Which part of the ledger a plan needs.

use std::{collections::HashMap, sync::Arc};

use jiff::{Timestamp, civil};

use super::{
    horizon::{first_sight, kept_since, step_end},
    refresh::{refresh_days, refreshed_before},
};
use crate::{config::Report, report::ReportId};

/// Which partitions that are no longer open a plan needs. By it the ledger selects the entries of a
/// [`LedgerView`](super::LedgerView).
#[derive(Debug, Clone)]
pub struct Reach {
    /// The present, by the local clock: holds that it cannot have written are void.
    pub now: Timestamp,
    /// The present, by the clock that is furthest behind.
    pub present: Timestamp,
    /// From when on each report is planned while it has no mark.
    pub first_sights: HashMap<ReportId, Timestamp>,
    /// Of each report whose numbers are restated: the newest partitions, this many, before this date.
    pub restating: Option<(civil::Date, u32)>,
}

impl Reach {
    /// The reach of a plan of `reports` at `now`, where `present` is no later than the present of any of them.
    pub fn of(reports: &[Arc<Report>], present: Timestamp, now: Timestamp) -> Self {
        let restating: Vec<_> = reports
            .iter()
            .filter_map(|report| Some((refreshed_before(report, now)?.0, refresh_days(report)?)))
            .collect();
        let last = restating.iter().map(|(day, _)| *day).max();
        // A report has at most one partition a day between its own date and the last.
        let gap =
            |day: civil::Date, last: civil::Date| last.since(day).map_or(u32::MAX, |gap| gap.get_days().unsigned_abs());
        let counts =
            restating.iter().map(|(day, days)| last.map_or(0, |last| gap(*day, last)).saturating_add(u32::from(*days)));
        Self {
            now,
            present,
            first_sights: reports.iter().map(|report| (report.id.clone(), first_sight(report, present))).collect(),
            restating: last.zip(counts.max()),
        }
    }

    /// Up to which generation time MoEngage has no archive any more.
    pub fn retention(&self) -> Timestamp {
        kept_since(self.present)
    }

    /// The generation times that a plan covers of a report that is planned from `from` on: after the first of each pair, up
    /// to the second. No limit if one step reaches the present, because the plan then includes the next partition after it.
    pub fn of_plan_from(&self, from: Timestamp) -> Vec<(Timestamp, Timestamp)> {
        match step_end(from) {
            end if end < self.present => vec![(from, end), (kept_since(self.present).max(end), Timestamp::MAX)],
            _ => vec![(from, Timestamp::MAX)],
        }
    }
}
