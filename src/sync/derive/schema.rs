//! The schema of a table, extended by the columns of a partition and stored before any object that has them.
//!
//! This file owns the order: differences are noted, then the schema is stored. It must not know how columns are compared.

use jiff::civil::Date;
use sha2::{Digest, Sha256};
use tracing::warn;

use super::{Derive, DeriveError, survey::SurveyedPart};
use crate::{
    derivation::{Difference, DifferenceKind, SchemaChange},
    store::Replaces,
    tables::{Change, Extended, Schema, Survey},
};

/// Largest schema that is read, in bytes. One with as many columns as a table may have is well below it.
const SCHEMA_BYTES: u64 = 16 * 1024 * 1024;

/// How often another writer of the same schema is given way.
const TRIES: usize = 5;

/// A schema that has been stored, and where each part's columns are in it.
pub(super) struct StoredSchema {
    pub(super) extended: Extended,
    pub(super) version: String,
}

/// Extends the schema of `table` by the columns of its parts on `date`.
pub(super) async fn extend(
    derive: &Derive<'_>,
    table: &str,
    date: Date,
    parts: &[SurveyedPart],
) -> Result<StoredSchema, DeriveError> {
    let key = derive.report.schema_key(table);
    let surveys: Vec<Survey> = parts.iter().map(|part| part.survey.clone()).collect();
    for _ in 0..TRIES {
        let stored = derive.destination.read_derived(&key, SCHEMA_BYTES + 1).await?;
        let before = match &stored {
            None => Schema::default(),
            Some(stored) => serde_json::from_slice(&stored.bytes).map_err(|error| {
                DeriveError::of_content(format!(
                    "`{key}` is not the schema of a table: {error}; restore it from a copy, or \
                    remove the table's folder and run `moesync tables rebuild`"
                ))
            })?,
        };
        let extended = before.extend(&surveys, date, &derive.report.column_types);
        let version = version(&extended.schema);
        if stored.is_some() && extended.schema == before {
            return Ok(StoredSchema { extended, version });
        }
        let changes: Vec<_> =
            extended.changes.iter().map(|change| of_change(table, date, change, &extended.schema)).collect();
        if !changes.is_empty() {
            derive.ctx.ledger.note_schema_changes(derive.claim, &changes).await?;
            log(derive, &changes);
        }
        derive.check_claim().await?;
        let replaces = stored.as_ref().map_or(Replaces::Nothing, Replaces::Only);
        if derive.destination.put_derived(&key, text(&extended.schema), replaces).await? {
            return Ok(StoredSchema { extended, version });
        }
    }
    Err(DeriveError::passing(format!("another writer changes `{key}` each time it is read")))
}

/// As written: a line for each column, so that two versions can be compared by eye.
fn text(schema: &Schema) -> Vec<u8> {
    // Texts and dates: they can always be written.
    let columns: Vec<_> =
        schema.columns.iter().map(|column| serde_json::to_string(column).unwrap_or_default()).collect();
    format!("{{\"columns\": [\n{}\n]}}\n", columns.join(",\n")).into_bytes()
}

/// Identifies the names and types of the columns; the dates do not count.
fn version(schema: &Schema) -> String {
    let mut hash = Sha256::new();
    for column in &schema.columns {
        let column_type = column.column_type.map_or("null", |column_type| column_type.as_str());
        hash.update(format!("{} {column_type}\n", column.name));
    }
    hex::encode(hash.finalize())[..12].to_owned()
}

fn of_change(table: &str, date: Date, change: &Change, schema: &Schema) -> SchemaChange {
    let (kind, column, former_type) = match change {
        Change::New { name, .. } => (DifferenceKind::Added, name, None),
        Change::Vanished { name, .. } => (DifferenceKind::Vanished, name, None),
        Change::Retyped { name, from, .. } => (DifferenceKind::Retyped, name, Some(*from)),
    };
    let found = schema.columns.iter().find(|it| it.name == *column);
    let difference = Difference {
        change: kind,
        column: column.clone(),
        heading: found.map(|it| it.heading.clone()).unwrap_or_default(),
        former_type,
        column_type: found.and_then(|it| it.column_type),
    };
    SchemaChange { table: table.to_owned(), date, difference }
}

fn log(derive: &Derive<'_>, changes: &[SchemaChange]) {
    let id = &derive.report.id;
    for SchemaChange { table, date, difference } in changes {
        let (column, heading) = (&difference.column, &difference.heading);
        let what = match difference.change {
            DifferenceKind::Added => "has a new column",
            DifferenceKind::Vanished => "lacks a column that the date before had",
            DifferenceKind::Retyped => "has a column of another type, by the configuration",
        };
        warn!(
            workspace = id.workspace(), report = id.name(), %date, table, column, heading,
            "table {table} of {id} {what}: {column}"
        );
    }
}
