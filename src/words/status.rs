//! The JSON of `status`, `sync`, `backfill`, `acknowledge` and `forget`.

use jiff::{Timestamp, civil::Date};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    config::SourceKind,
    outcome::Outcome,
    partition::{Entry, State},
    report::Partition,
    table_words::TablesState,
};

/// One partition and its state.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PartitionStatus {
    /// Name of the workspace.
    pub workspace: String,
    /// Id of the report.
    pub report: String,
    /// The API that serves it.
    pub source: SourceKind,
    /// Civil date of generation in the report's zone.
    #[schemars(with = "String", extend("format" = "date"))]
    pub date: Date,
    /// Its state.
    pub state: State,
    /// Outcome of the last attempt; null before the first.
    pub outcome: Option<Outcome>,
    /// Number of attempts.
    pub attempts: u32,
    /// When MoEngage generates it.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub generated_at: Timestamp,
    /// When it becomes due, and is fetched.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub due_at: Timestamp,
    /// When it expires; null if it does not.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub expires_at: Option<Timestamp>,
    /// Earliest time of the next attempt; null before the first attempt and after the last.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub next_attempt_at: Option<Timestamp>,
    /// When it was stored.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub stored_at: Option<Timestamp>,
    /// Key of the stored object at its destination.
    pub key: Option<String>,
    /// Size of the stored object in bytes.
    pub size: Option<u64>,
    /// SHA-256 of the stored object, lower-case hex.
    pub sha256: Option<String>,
    /// Message of the last attempt.
    pub message: Option<String>,
    /// Whether the report is in the configuration.
    pub configured: bool,
    /// Whether a person has seen that it is lost: no alarm.
    pub acknowledged: bool,
    /// State of its tables; absent unless tables are made of the report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tables: Option<TablesState>,
}

impl PartitionStatus {
    /// The status of `entry` at `now`.
    pub fn new(entry: &Entry, is_configured: bool, now: Timestamp) -> Self {
        let Entry { partition, object, .. } = entry;
        Self {
            workspace: partition.id.workspace().to_owned(),
            report: partition.id.report.name().to_owned(),
            source: partition.source,
            date: partition.id.date,
            state: entry.state(now),
            outcome: entry.outcome,
            attempts: entry.attempts,
            generated_at: partition.generated_at,
            due_at: partition.due_at,
            expires_at: partition.expires_at,
            next_attempt_at: entry.next_attempt_at,
            stored_at: object.as_ref().map(|object| object.stored_at),
            key: object.as_ref().map(|object| object.key.clone()),
            size: object.as_ref().map(|object| object.size),
            sha256: object.as_ref().map(|object| object.sha256.clone()),
            message: entry.message.clone(),
            configured: is_configured,
            acknowledged: entry.acknowledged,
            tables: entry.tables,
        }
    }

    /// The status of a partition that is not in the ledger yet.
    pub fn upcoming(partition: Partition, now: Timestamp) -> Self {
        Self::new(&Entry::new(partition), true, now)
    }
}

/// One report in numbers.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ReportStatus {
    /// Name of the workspace.
    pub workspace: String,
    /// Id of the report.
    pub report: String,
    /// The API that serves it.
    pub source: SourceKind,
    /// Whether it is in the configuration.
    pub configured: bool,
    /// Date of the newest stored partition.
    #[schemars(with = "Option<String>", extend("format" = "date"))]
    pub newest_stored: Option<Date>,
    /// Number of partitions that are generated and not due yet.
    pub scheduled: u64,
    /// Number of partitions that are due and not stored.
    pub pending: u64,
    /// Number of pending partitions with an alarm.
    pub at_risk: u64,
    /// Number of stored partitions.
    pub stored: u64,
    /// Number of partitions that were never published.
    pub absent: u64,
    /// Number of lost partitions.
    pub lost: u64,
    /// Number of lost partitions that are acknowledged.
    pub acknowledged: u64,
    /// Number of stored partitions whose tables cannot be made.
    pub tables_failed: u64,
    /// When the next partition is due; null if there is none.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub next_due_at: Option<Timestamp>,
}

impl ReportStatus {
    /// The number of partitions in each state.
    pub fn by_state(&self) -> [(State, u64); 5] {
        [
            (State::Scheduled, self.scheduled),
            (State::Pending, self.pending),
            (State::Stored, self.stored),
            (State::Absent, self.absent),
            (State::Lost, self.lost),
        ]
    }
}

/// What `status` prints first: everything but the partitions.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct StatusHead {
    /// When `run` or `sync` last planned; null before the first time.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub planned_at: Option<Timestamp>,
    /// The reports, by workspace and id.
    pub reports: Vec<ReportStatus>,
}

/// What `status` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Status {
    /// When it was planned, and the reports.
    #[serde(flatten)]
    pub head: StatusHead,
    /// Partitions by workspace, report and date: those in the ledger, those that are due and not planned yet, and the next
    /// one of each report.
    pub partitions: Vec<PartitionStatus>,
}

/// What `acknowledge` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Acknowledged {
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// The lost partitions that were not acknowledged before, by workspace, report and date.
    pub partitions: Vec<PartitionStatus>,
}

/// What `forget` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Forgotten {
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// The partitions whose rows go, by workspace, report and date. Their objects stay.
    pub partitions: Vec<PartitionStatus>,
}

/// What `sync` and `backfill` print.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Partitions {
    /// The partitions, by workspace, report and date.
    pub partitions: Vec<PartitionStatus>,
}
