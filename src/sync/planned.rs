//! Publishes the loop's last plan.
//!
//! This file owns the published value and its channel. It must not know its readers.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::{
    config::Report,
    plan::{self, LedgerView, Plan},
};

/// A plan and what it was made from.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The ledger at that time.
    pub view: LedgerView,
    /// The plan. Its new partitions are those that are not in the ledger yet.
    pub plan: Plan,
    /// When it was made, by the local clock.
    pub at: Timestamp,
    /// Number of attempts before it that began an alarm. A reader learns from it that one began in a plan that it has missed.
    pub alarms_begun: usize,
}

impl Planned {
    pub(super) fn new(reports: &[Arc<Report>], view: LedgerView, at: Timestamp, alarms_begun: usize) -> Self {
        let plan = plan::plan(reports, &view, at);
        Planned { view, plan, at, alarms_begun }
    }
}

/// Where the loop publishes its plans. Clones share it.
#[derive(Debug, Clone)]
pub struct Publication(watch::Sender<Option<Arc<Planned>>>);

impl Publication {
    pub(super) fn new() -> Self {
        Publication(watch::Sender::new(None))
    }

    pub(super) fn publish(&self, planned: Planned) -> Arc<Planned> {
        let planned = Arc::new(planned);
        self.0.send_replace(Some(Arc::clone(&planned)));
        planned
    }

    /// Replaces `before`, unless the loop has published another plan since.
    pub(super) fn replace(&self, before: &Arc<Planned>, planned: &Arc<Planned>) {
        self.0.send_if_modified(|current| {
            let is_current = current.as_ref().is_some_and(|current| Arc::ptr_eq(current, before));
            if is_current {
                *current = Some(Arc::clone(planned));
            }
            is_current
        });
    }

    /// The last plan; `None` before the first one. For a moment after a reload it is of the former configuration, and it
    /// is old while the ledger cannot be read.
    pub fn latest(&self) -> Option<Arc<Planned>> {
        self.0.borrow().clone()
    }

    /// [`Planned::alarms_begun`] of the last plan; `None` before the first one.
    pub fn alarms_begun(&self) -> Option<usize> {
        self.0.borrow().as_ref().map(|planned| planned.alarms_begun)
    }

    /// Returns once [`Publication::alarms_begun`] is no longer `known`.
    pub async fn alarm_begun(&self, known: Option<usize>) {
        let is_new = |planned: &Option<Arc<Planned>>| planned.as_ref().map(|planned| planned.alarms_begun) != known;
        // Fails only without a sender, and this is one.
        let _ = self.0.subscribe().wait_for(is_new).await;
    }
}
