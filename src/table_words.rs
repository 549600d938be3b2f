//! The words for tables, in the configuration, schemas, logs, events, the ledger and on the page: formats, types of columns,
//! and the states of a partition's tables.
//!
//! This file owns the vocabulary. It must not know how a table is made (`tables/`), or when (`sync/derive`).

use std::fmt;

use serde::{Deserialize, Serialize};

/// The format of a table's objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
pub enum TableFormat {
    /// Parquet, compressed with zstd.
    #[serde(rename = "parquet")]
    Parquet,
    /// CSV, compressed with gzip.
    #[serde(rename = "csv.gz")]
    CsvGz,
}

impl TableFormat {
    /// Every format.
    pub const ALL: [TableFormat; 2] = [TableFormat::Parquet, TableFormat::CsvGz];

    /// The extension of an object, without a leading dot. It is also the word in the configuration and the ledger.
    pub fn extension(self) -> &'static str {
        match self {
            TableFormat::Parquet => "parquet",
            TableFormat::CsvGz => "csv.gz",
        }
    }

    /// The format that `word` names.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.extension() == word)
    }
}

/// The type of a column. Serialized as its word in `_schema.json` and in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// Text.
    String,
    /// A whole number of at most 18 digits.
    Int64,
    /// A number with decimals; a percentage is the number before its sign.
    Double,
    /// A calendar date.
    Date,
    /// A civil date and time without a zone, in microseconds. Its zone is that of the report.
    Timestamp,
    /// True or false.
    Boolean,
}

impl ColumnType {
    /// All types. The order is that of inference: the first one that all values have is the column's.
    pub const ALL: [ColumnType; 6] = [
        ColumnType::Boolean,
        ColumnType::Int64,
        ColumnType::Double,
        ColumnType::Date,
        ColumnType::Timestamp,
        ColumnType::String,
    ];

    /// The word for the type.
    pub fn as_str(self) -> &'static str {
        match self {
            ColumnType::String => "string",
            ColumnType::Int64 => "int64",
            ColumnType::Double => "double",
            ColumnType::Date => "date",
            ColumnType::Timestamp => "timestamp",
            ColumnType::Boolean => "boolean",
        }
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The state of the tables of a stored partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TablesState {
    /// They are still to be made, or to be made again.
    Pending,
    /// They are at the destination.
    Made,
    /// They could not be made; the object is stored all the same.
    Failed,
}

impl TablesState {
    /// Every state.
    pub const ALL: [TablesState; 3] = [TablesState::Pending, TablesState::Made, TablesState::Failed];

    /// The word used everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            TablesState::Pending => "pending",
            TablesState::Made => "made",
            TablesState::Failed => "failed",
        }
    }

    /// The state that `word` names.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

impl fmt::Display for TablesState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
