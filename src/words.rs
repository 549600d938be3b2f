//! The JSON that commands print and the web API serves, and times, durations and sizes as text. Other programs rely on this
//! JSON; its schemas are in `docs/schemas/`.
//!
//! These files own that JSON. They must not know where the values come from.

mod check;
mod explain;
mod list;
mod plan;
mod reconcile;
mod settings;
mod status;
mod stored;
mod tables;
mod text;
mod verify;

pub use self::{
    check::{Check, CheckResult, Checked, CheckedSubject, Health},
    explain::{ClockChange, ExplainedTables, Explanation, PastAttempt, Recorded},
    list::ListText,
    plan::{Action, BackfillPartition, BackfillPreview, PlannedPartition, PlannedPartitions},
    reconcile::{ReconciledCampaign, ReconciledCount, Reconciliation, ReconciliationResult},
    settings::{SettingInForce, SettingOrigin, Settings, Signed},
    status::{Acknowledged, Forgotten, PartitionStatus, Partitions, ReportStatus, Status, StatusHead},
    stored::{CopiedObject, StoredEntry, StoredObject, StoredObjects},
    tables::{RebuiltTables, TableColumn, TableDate, TableDescription, TableDescriptions, UnmadeTables},
    text::{duration, instant, left, size, zone},
    verify::{DamageCode, Verification, VerifiedPartition},
};
