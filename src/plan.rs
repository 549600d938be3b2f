//! What to do with each partition: a pure function of the reports, the ledger and the present.
//!
//! This folder owns which partitions exist and which of them are fetched now. It must not know how they are fetched: a
//! plan has no effect, so the daemon acts on the same value that `moesync plan` prints.

mod calendar;
mod decide;
mod horizon;
mod order;
mod planner;
mod reach;
mod refresh;

use std::{collections::HashMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};

pub use self::{
    calendar::{Backfill, backfill, next, upcoming},
    decide::decide,
    horizon::{LONGEST_STEP, MARK_TOLERANCE},
    planner::{plan, unplanned, unplanned_on},
    reach::Reach,
};
use crate::{config::Report, outcome::Outcome, partition::Entry, report::ReportId, retry::Hold};

/// The part of the ledger, and of what answers showed, that a plan depends on.
#[derive(Debug, Clone, Default)]
pub struct LedgerView {
    /// The mark of each report: the generation time through which it is planned. It may be some hours behind the last plan
    /// if the report was not scheduled since; the newest one is at the time of that plan.
    pub planned_through: HashMap<ReportId, Timestamp>,
    /// Every open partition, and every other partition within the plan's [`Reach`].
    pub entries: Vec<Entry>,
    /// Holds by name of the workspace.
    pub holds: HashMap<String, Hold>,
    /// By how much the local clock is ahead of MoEngage's servers, by [`Report::server`]; only differences that several
    /// recent answers confirm.
    pub clock_ahead: HashMap<String, SignedDuration>,
    /// The number of the newest attempt; 0 if there is none. No plan depends on it: a reader learns whether attempts were
    /// recorded since.
    pub newest_attempt: i64,
    /// Whether an earlier plan ended at its longest step and MoEngage has not answered since. Then no report is planned
    /// more than one step.
    pub awaits_answer: bool,
}

impl LedgerView {
    /// The present: the local clock's time, corrected if the clock is known to be ahead of the report's server.
    pub fn present(&self, report: &Report, now: Timestamp) -> Timestamp {
        let ahead = self.clock_ahead.get(&report.server()).copied().unwrap_or_default();
        now.checked_sub(ahead).unwrap_or(now)
    }
}

/// Every partition that is not finished, with the decision about it.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Partitions to fetch, by expiry; then the others, by the time of their next change.
    pub items: Vec<Item>,
    /// Partitions that are not in the ledger yet; `items` contains them too.
    pub new: Vec<Entry>,
    /// The marks to write, and where to: of a report that is idle, only now and then.
    pub planned_through: Vec<(ReportId, Timestamp)>,
    /// Whether a report needs further steps to reach the present.
    pub is_partial: bool,
}

/// One partition and the decision about it.
#[derive(Debug, Clone)]
pub struct Item {
    /// The partition as it is in the ledger, or will be.
    pub entry: Entry,
    /// Its report; `None` if that is no longer configured.
    pub report: Option<Arc<Report>>,
    /// What to do.
    pub decision: Decision,
}

/// What to do with a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Due: fetch it.
    Fetch,
    /// Stored, and MoEngage may have restated its numbers: fetch it again.
    Refresh,
    /// Generated or scheduled, and the buffer has not passed.
    NotDue {
        /// When it is due.
        until: Timestamp,
    },
    /// The last attempt failed.
    Backoff {
        /// When the next attempt may begin.
        until: Timestamp,
    },
    /// Its workspace is on hold.
    Held {
        /// [`Outcome::Unauthorized`] or [`Outcome::RateLimited`].
        outcome: Outcome,
        /// When the hold ends.
        until: Timestamp,
    },
    /// Its report is no longer configured.
    Unconfigured,
}

impl Decision {
    /// Whether the partition is to be fetched at `now`, unless it is stored. A plan may be older than `now`, so waits that
    /// have passed since count.
    pub fn is_fetch(self, now: Timestamp) -> bool {
        self == Decision::Fetch || self.until().is_some_and(|until| until <= now)
    }

    /// When the decision changes; `None` if time alone does not change it.
    pub fn until(self) -> Option<Timestamp> {
        match self {
            Decision::NotDue { until } | Decision::Backoff { until } | Decision::Held { until, .. } => Some(until),
            Decision::Fetch | Decision::Refresh | Decision::Unconfigured => None,
        }
    }
}

impl Plan {
    /// Whether no configured partition is due.
    pub fn is_idle(&self) -> bool {
        self.items.iter().all(|item| matches!(item.decision, Decision::NotDue { .. } | Decision::Unconfigured))
    }

    /// When the first decision changes.
    pub fn next_change(&self) -> Option<Timestamp> {
        self.items.iter().filter_map(|item| item.decision.until()).min()
    }
}

#[cfg(test)]
mod fixtures;
