//! What became of an attempt to make the tables of a partition, and what follows from it.
//!
//! This file owns when a failed attempt is repeated, and the values that the ledger keeps and events contain. It must not
//! know how tables are made.

use std::fmt::Display;

use jiff::{SignedDuration, Timestamp, civil::Date};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    report::PartitionId,
    retry::{self, QUICK_TRIES},
    table_words::{ColumnType, TableFormat, TablesState},
};

/// When an attempt is repeated that failed for the content of the object.
const CONTENT_INTERVAL: SignedDuration = SignedDuration::from_hours(24);

/// From this number of attempts in a row on, a failing destination is an alarm.
const FAILED_AFTER: u32 = 2;

/// That the file at `key` is not the schema of a table, and what is to be done. It is never replaced: types of columns would
/// change.
pub fn not_a_schema(key: &str, reason: impl Display) -> String {
    format!(
        "`{key}` is not the schema of a table: {reason}; restore it from a copy, or remove the table's folder and run \
         `moesync tables rebuild`"
    )
}

/// One object of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TableObject {
    /// Name of the table.
    pub table: String,
    /// Key of the object at the destination.
    pub key: String,
    /// Number of its rows.
    pub rows: u64,
    /// Number of its rows with a value that fits no column.
    pub rescued_rows: u64,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256, lower-case hex.
    pub sha256: String,
    /// Identifies the names and types of the table's columns when it was made.
    pub schema_version: String,
}

/// The tables of a partition, as they are at the destination.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Derived {
    /// All objects, by table and part.
    pub objects: Vec<TableObject>,
    /// Names of the entries that become no table.
    pub left_alone: Vec<String>,
}

impl Derived {
    /// Number of rows of all tables.
    pub fn rows(&self) -> u64 {
        self.objects.iter().map(|object| object.rows).sum()
    }
}

/// The JSON beside each object of a table. It follows from the object and its source alone: the same source gives the same
/// manifest. Unknown fields are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableManifest {
    /// Version of the manifest format; [`TableManifest::FORMAT_VERSION`].
    pub format_version: u32,
    /// Name of the workspace.
    pub workspace: String,
    /// The report's id.
    pub report: String,
    /// The partition's date.
    pub date: Date,
    /// Number of objects that all tables of the partition have together.
    pub objects: usize,
    /// The object.
    #[serde(flatten)]
    pub object: TableObject,
    /// Its format.
    pub format: TableFormat,
    /// The entry that it was made of; of a snapshot, the name of its file.
    pub entry: String,
    /// The sheet of the entry; null unless that is a workbook.
    pub sheet: Option<String>,
    /// Key of the archive or snapshot that it was made of.
    pub source_key: String,
    /// SHA-256 of that.
    pub source_sha256: String,
    /// Version of the moesync that made it.
    pub moesync_version: String,
}

impl TableManifest {
    /// Format written by this version of moesync.
    pub const FORMAT_VERSION: u32 = 1;

    /// Whether it describes an object of this partition.
    pub fn is_of(&self, id: &PartitionId) -> bool {
        (self.workspace.as_str(), self.report.as_str(), self.date) == (id.workspace(), id.report.name(), id.date)
    }
}

/// What changed in the schema of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// The table has a column that it did not have.
    Added,
    /// The newest date lacks a column that the date before had. The table keeps it.
    Vanished,
    /// The configuration changed the type of a column. Objects that exist keep the former one until they are made again.
    Retyped,
}

/// One column that differs between a table and a date.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// How it differs.
    pub change: DifferenceKind,
    /// Name of the column.
    pub column: String,
    /// The heading that it was named after.
    pub heading: String,
    /// Its type before; null unless that has changed.
    pub former_type: Option<ColumnType>,
    /// Its type now; null while it has no value.
    #[serde(rename = "type")]
    pub column_type: Option<ColumnType>,
}

/// A difference, with its table and date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaChange {
    /// Name of the table.
    pub table: String,
    /// The date whose files differ.
    pub date: Date,
    /// The difference.
    pub difference: Difference,
}

/// Why tables could not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DerivationFailure {
    /// What was being done, to which object, and what came back.
    pub message: String,
    /// Whether the object itself is the reason: then the next attempt probably fails likewise.
    pub is_of_content: bool,
}

/// One attempt to make the tables of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derivation {
    /// When it ended.
    pub finished_at: Timestamp,
    /// SHA-256 of the object that it was to read.
    pub sha256: String,
    /// What was made.
    pub result: Result<Derived, DerivationFailure>,
    /// Whether the tables are news: not if they were found and no attempt of this ledger made them.
    pub is_news: bool,
}

/// What follows from an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consequence {
    /// The state of the tables.
    pub state: TablesState,
    /// Number of failures in a row.
    pub failures: u32,
    /// When the next attempt may begin; `None` if there is none to come.
    pub next_attempt_at: Option<Timestamp>,
}

impl Derivation {
    /// What follows after `failures` in a row before it.
    pub fn consequence(&self, failures: u32, jitter: f64) -> Consequence {
        let at = |wait: SignedDuration| self.finished_at.checked_add(wait).ok();
        match &self.result {
            Ok(_) => Consequence { state: TablesState::Made, failures: 0, next_attempt_at: None },
            Err(failure) => {
                let failures = failures.saturating_add(1);
                if failure.is_of_content {
                    return Consequence { state: TablesState::Failed, failures, next_attempt_at: at(CONTENT_INTERVAL) };
                }
                // Without the first intervals of seconds: the tables are in no hurry.
                let wait = retry::delay(failures.saturating_add(QUICK_TRIES - 1), jitter);
                let state = if failures >= FAILED_AFTER { TablesState::Failed } else { TablesState::Pending };
                Consequence { state, failures, next_attempt_at: at(wait) }
            }
        }
    }
}

/// The tables of one partition as the ledger has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionTables {
    /// Their state.
    pub state: TablesState,
    /// What was last made.
    pub derived: Derived,
    /// When the last attempt ended.
    pub finished_at: Option<Timestamp>,
    /// When the next attempt may begin; `None` if it may now, or there is none to come.
    pub next_attempt_at: Option<Timestamp>,
    /// Why the last attempt failed.
    pub message: Option<String>,
}

/// The tables of one report in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFigures {
    /// Their format.
    pub format: TableFormat,
    /// Rows of all of them.
    pub rows: u64,
    /// The newest date that has tables.
    pub newest: Option<Date>,
    /// Partitions whose tables are to be made.
    pub pending: u64,
    /// Partitions whose tables cannot be made.
    pub failed: u64,
    /// Columns that were added, vanished, or changed their type.
    pub schema_changes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(result: Result<Derived, DerivationFailure>) -> Derivation {
        Derivation { finished_at: Timestamp::UNIX_EPOCH, sha256: String::new(), result, is_news: true }
    }

    fn failed(is_of_content: bool) -> Derivation {
        ended(Err(DerivationFailure { message: "row 7 is not JSON".into(), is_of_content }))
    }

    #[test]
    fn content_that_makes_no_table_fails_immediately_and_is_read_again_daily() {
        for failures in [0, 5] {
            let after = failed(true).consequence(failures, 0.5);
            let next = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24);
            assert_eq!((after.state, after.next_attempt_at), (TablesState::Failed, Some(next)));
        }
    }

    #[test]
    fn a_destination_that_fails_is_retried_within_minutes_and_has_failed_from_the_second_time_on() {
        let (first, second) = (failed(false).consequence(0, 0.5), failed(false).consequence(1, 0.5));
        assert_eq!((first.state, second.state), (TablesState::Pending, TablesState::Failed));
        let hour = Timestamp::UNIX_EPOCH + SignedDuration::from_mins(75);
        for failures in 0..50 {
            assert!(failed(false).consequence(failures, 0.5).next_attempt_at.unwrap() <= hour);
        }
        assert_eq!(ended(Ok(Derived::default())).consequence(7, 0.5).failures, 0);
    }
}
