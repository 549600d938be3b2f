//! The JSON of `plan` and `backfill --dry-run`.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::{status::PartitionStatus, text::instant};
use crate::{
    partition::{Entry, State},
    plan::{Decision, Item},
    report::Partition,
};

/// The plan's decision about a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is fetched now.
    Fetch,
    /// It is stored, and fetched again because MoEngage may have restated its numbers.
    Refresh,
    /// It waits until its buffer has passed.
    NotDue,
    /// It waits for its next attempt.
    Backoff,
    /// Its workspace is held.
    Held,
    /// Its report is not configured, so it is not fetched.
    Unconfigured,
}

impl Action {
    /// The word in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Fetch => "fetch",
            Action::Refresh => "refresh",
            Action::NotDue => "not_due",
            Action::Backoff => "backoff",
            Action::Held => "held",
            Action::Unconfigured => "unconfigured",
        }
    }
}

impl From<Decision> for Action {
    fn from(decision: Decision) -> Self {
        match decision {
            Decision::Fetch => Action::Fetch,
            Decision::Refresh => Action::Refresh,
            Decision::NotDue { .. } => Action::NotDue,
            Decision::Backoff { .. } => Action::Backoff,
            Decision::Held { .. } => Action::Held,
            Decision::Unconfigured => Action::Unconfigured,
        }
    }
}

/// One partition and the plan's decision about it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PlannedPartition {
    /// The partition.
    #[serde(flatten)]
    pub status: PartitionStatus,
    /// The decision.
    pub action: Action,
    /// When that changes; null if time alone does not change it.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub until: Option<Timestamp>,
    /// The reason as text.
    pub reason: String,
}

impl PlannedPartition {
    /// The `item` of a plan at `now`.
    pub fn new(item: &Item, now: Timestamp) -> Self {
        Self {
            status: PartitionStatus::new(&item.entry, item.report.is_some(), now),
            action: item.decision.into(),
            until: item.decision.until(),
            reason: reason(item.decision, item.entry.message.as_deref()),
        }
    }

    /// A partition that is scheduled after those of the plan.
    pub fn upcoming(partition: Partition, now: Timestamp) -> Self {
        let decision = Decision::NotDue { until: partition.due_at };
        Self {
            status: PartitionStatus::upcoming(partition, now),
            action: decision.into(),
            until: decision.until(),
            reason: reason(decision, None),
        }
    }
}

fn reason(decision: Decision, message: Option<&str>) -> String {
    match decision {
        Decision::Fetch => "due and not stored".into(),
        Decision::Refresh => "stored; MoEngage may have restated its numbers".into(),
        Decision::NotDue { until } => format!("due {}", instant(until)),
        Decision::Backoff { until } => {
            format!("retries {}{}", instant(until), message.map(|m| format!(": {m}")).unwrap_or_default())
        }
        Decision::Held { outcome, until } => {
            format!("workspace held until {} ({outcome})", instant(until))
        }
        Decision::Unconfigured => "its report is no longer configured".into(),
    }
}

/// What `plan` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "Planned")]
pub struct PlannedPartitions {
    /// First the partitions to fetch, by expiry; then the others by time.
    pub partitions: Vec<PlannedPartition>,
}

/// One date of a backfill, and whether it is requested.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct BackfillPartition {
    /// The partition.
    #[serde(flatten)]
    pub status: PartitionStatus,
    /// Whether it is requested: a partition that is stored, or not generated yet, is not.
    pub asked: bool,
    /// The reason as text.
    pub reason: String,
}

impl BackfillPartition {
    /// The line of a backfill at `now` for `requested`, whose entry in the ledger is `known`.
    pub fn new(requested: Entry, known: Option<Entry>, now: Timestamp) -> Self {
        let has_ended = requested.requested_late;
        let entry = known.unwrap_or(requested);
        let status = PartitionStatus::new(&entry, true, now);
        let reason = match status.state {
            State::Stored => "stored already",
            State::Absent | State::Lost if has_ended => "opened again; MoEngage has probably deleted it",
            State::Absent | State::Lost => "opened again",
            State::Scheduled => "not due yet; requested once it is",
            State::Pending if has_ended => "MoEngage has probably deleted it; absent if MoEngage denies it",
            State::Pending => "due and not stored",
        };
        Self { asked: status.state != State::Stored, reason: reason.into(), status }
    }

    /// The line of a date that is not generated at `now`.
    pub fn future(partition: Partition, now: Timestamp) -> Self {
        let status = PartitionStatus::upcoming(partition, now);
        Self { asked: false, reason: "not generated yet, so not requested".into(), status }
    }
}

/// What `backfill --dry-run` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct BackfillPreview {
    /// Every date of the backfill, in order.
    pub partitions: Vec<BackfillPartition>,
}
