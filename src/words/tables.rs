//! The JSON of `tables` and `tables rebuild`.

use jiff::civil::Date;
use schemars::JsonSchema;
use serde::Serialize;

use crate::table_words::{ColumnType, TableFormat};

/// A table made of a report's archives or snapshots.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct TableDescription {
    /// Name of the workspace.
    pub workspace: String,
    /// Id of the report.
    pub report: String,
    /// Name of the table.
    pub table: String,
    /// Name of the destination.
    pub destination: String,
    /// The folder of all its objects, as a key at the destination.
    pub key: String,
    /// Formats of its objects. More than one while a changed format is not applied to all dates.
    pub formats: Vec<TableFormat>,
    /// Number of rows of the listed dates.
    pub rows: u64,
    /// Columns, in the order in which they were added. Objects also have `_entry` and `_rescued`.
    pub columns: Vec<TableColumn>,
    /// Dates of partitions that have objects.
    pub dates: Vec<TableDate>,
}

/// One column of a table.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct TableColumn {
    /// Its name.
    pub name: String,
    /// The heading that it was named after.
    pub heading: String,
    /// Its type; null while it never had a value.
    #[serde(rename = "type")]
    pub column_type: Option<ColumnType>,
    /// The first date of which a file has it.
    #[schemars(with = "String", extend("format" = "date"))]
    pub first_date: Date,
    /// The last one.
    #[schemars(with = "String", extend("format" = "date"))]
    pub last_date: Date,
}

/// One date of a table.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct TableDate {
    /// The partition's date.
    #[schemars(with = "String", extend("format" = "date"))]
    pub date: Date,
    /// Number of objects.
    pub parts: u64,
    /// Number of rows; null if an object has no valid manifest.
    pub rows: Option<u64>,
}

/// What `tables` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct TableDescriptions {
    /// The tables, by report in the configuration's order, then by name.
    pub tables: Vec<TableDescription>,
}

/// A partition whose tables could not be made.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct UnmadeTables {
    /// Name of the workspace.
    pub workspace: String,
    /// Id of the report.
    pub report: String,
    /// The partition's date.
    #[schemars(with = "String", extend("format" = "date"))]
    pub date: Date,
    /// The reason.
    pub message: String,
}

/// What `tables rebuild` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RebuiltTables {
    /// Number of partitions whose tables were made.
    pub partitions: u64,
    /// Number of their objects.
    pub objects: u64,
    /// Number of their rows.
    pub rows: u64,
    /// Those whose tables could not be made.
    pub failed: Vec<UnmadeTables>,
    /// Whether all were tried; otherwise the command was stopped.
    pub complete: bool,
}
