//! The words for alarms, in the configuration, logs, messages, metrics, the ledger and on the page.
//!
//! This file owns the vocabulary. It must not know when an alarm begins (`alarm/`).

use std::fmt;

use serde::{Deserialize, Serialize};

/// What an alarm is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlarmKind {
    /// A report existed, or may have existed, and expired at MoEngage before it was stored.
    Lost,
    /// A report is not stored and expires soon.
    Expiring,
    /// A report is not stored long after it was due.
    Late,
    /// MoEngage refuses the credentials of a workspace.
    Unauthorized,
    /// MoEngage refuses the request itself.
    Rejected,
    /// Corrupt download, repeatedly.
    Corrupt,
    /// The download has a format that cannot be verified.
    Unsupported,
    /// Writing to the destination failed repeatedly, or the destination does not answer.
    StoreFailed,
    /// The tables of a stored report cannot be made.
    TablesFailed,
    /// Different content was found at a report's key.
    OtherContent,
    /// The ledger was damaged or replaced.
    Ledger,
    /// The new configuration cannot be used.
    Configuration,
    /// The local clock is wrong.
    Clock,
    /// A bug in moesync.
    Panic,
}

impl AlarmKind {
    /// Every kind.
    pub const ALL: [AlarmKind; 14] = [
        AlarmKind::Lost,
        AlarmKind::Expiring,
        AlarmKind::Late,
        AlarmKind::Unauthorized,
        AlarmKind::Rejected,
        AlarmKind::Corrupt,
        AlarmKind::Unsupported,
        AlarmKind::StoreFailed,
        AlarmKind::TablesFailed,
        AlarmKind::OtherContent,
        AlarmKind::Ledger,
        AlarmKind::Configuration,
        AlarmKind::Clock,
        AlarmKind::Panic,
    ];

    /// The kinds that a partition's own state can show, most severe first.
    pub const OF_PARTITIONS: [AlarmKind; 8] = [
        AlarmKind::Lost,
        AlarmKind::Expiring,
        AlarmKind::Unauthorized,
        AlarmKind::Rejected,
        AlarmKind::Corrupt,
        AlarmKind::Unsupported,
        AlarmKind::StoreFailed,
        AlarmKind::Late,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            AlarmKind::Lost => "lost",
            AlarmKind::Expiring => "expiring",
            AlarmKind::Late => "late",
            AlarmKind::Unauthorized => "unauthorized",
            AlarmKind::Rejected => "rejected",
            AlarmKind::Corrupt => "corrupt",
            AlarmKind::Unsupported => "unsupported",
            AlarmKind::StoreFailed => "store_failed",
            AlarmKind::TablesFailed => "tables_failed",
            AlarmKind::OtherContent => "other_content",
            AlarmKind::Ledger => "ledger",
            AlarmKind::Configuration => "configuration",
            AlarmKind::Clock => "clock",
            AlarmKind::Panic => "panic",
        }
    }

    /// The kind that `word` names.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

impl fmt::Display for AlarmKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
