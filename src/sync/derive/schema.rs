//! The schema of a table, extended by the columns of a partition and stored before any object that has them.
//!
//! This file owns the order: differences are noted, then the schema is stored. It must not know how columns are compared.

use std::collections::BTreeMap;

use jiff::civil::Date;
use sha2::{Digest, Sha256};
use tracing::warn;

use super::{Derive, DeriveError, survey::SurveyedPart};
use crate::{
    derivation::{Difference, DifferenceKind, SchemaChange, not_a_schema},
    ledger::LedgerError,
    store::{Batch, Destination, Replaces, StoreError},
    tables::{Change, Extended, MOST_COLUMNS, Schema, Survey},
};

/// Largest schema that is read, in bytes. One with as many columns as a table may have is well below it.
const SCHEMA_BYTES: u64 = 16 * 1024 * 1024;

/// How often another writer of the same schema is given way.
const TRIES: usize = 5;

/// The schemas of the partitions whose objects get their names together.
#[derive(Default)]
pub(super) struct Schemas {
    newest: BTreeMap<String, Schema>,
    /// Those to be stored, in this order: each before any object that has its columns.
    unstored: Vec<Unstored>,
    /// What differs in them.
    pub(super) changes: Vec<SchemaChange>,
}

/// A schema to be stored.
pub(super) struct Unstored {
    /// Counts the partitions: it is stored before the objects of this one.
    pub(super) before: usize,
    pub(super) key: String,
    version: String,
    pub(super) bytes: Vec<u8>,
}

/// A schema that is stored before the objects that have its columns.
pub(super) struct PartSchema {
    pub(super) extended: Extended,
    pub(super) version: String,
}

impl Schemas {
    /// Keeps a schema until it is stored. One that differs in its dates alone takes the place of the one before.
    fn keep(&mut self, number: usize, key: &str, version: &str, schema: &Schema) {
        let bytes = text(schema);
        self.newest.insert(key.to_owned(), schema.clone());
        match self.unstored.iter_mut().rfind(|unstored| unstored.key == key) {
            Some(unstored) if unstored.version == version => unstored.bytes = bytes,
            _ => {
                let (key, version) = (key.to_owned(), version.to_owned());
                self.unstored.push(Unstored { before: number, key, version, bytes });
            }
        }
    }

    pub(super) fn into_unstored(self) -> Vec<Unstored> {
        self.unstored
    }
}

/// Extends the schema of `table` by the columns of its parts in the partition `number` of the batch, of `date`. Stores it
/// if the batch names its objects at once, and otherwise leaves that to the end of the batch.
pub(super) async fn extend(
    derive: &Derive<'_>,
    batch: &Batch,
    schemas: &mut Schemas,
    table: &str,
    (number, date): (usize, Date),
    parts: &[SurveyedPart],
) -> Result<PartSchema, DeriveError> {
    let key = derive.report.schema_key(table);
    let surveys: Vec<Survey> = parts.iter().map(|part| part.survey.clone()).collect();
    for _ in 0..TRIES {
        let (stored, before) = match schemas.newest.get(&key) {
            Some(newest) => (None, Some(newest.clone())),
            None => {
                let stored = derive.destination.read_derived(&key, SCHEMA_BYTES + 1).await?;
                let before = stored.as_ref().map(|stored| parse(&key, &stored.bytes)).transpose()?;
                (stored, before)
            }
        };
        let (is_there, before) = (before.is_some(), before.unwrap_or_default());
        let extended = before.extend(&surveys, date, &derive.report.column_types);
        let schema = &extended.schema;
        if schema.columns.len() > MOST_COLUMNS {
            return Err(DeriveError::of_content(format!(
                "table `{table}` would have {} columns over all dates, with the new ones of {date}; it can have {MOST_COLUMNS}",
                schema.columns.len()
            )));
        }
        let version = version(schema);
        let changes: Vec<_> = extended.changes.iter().map(|change| of_change(table, date, change, schema)).collect();
        let is_stored = is_there && *schema == before;
        if !is_stored && !batch.names_at_once() {
            schemas.changes.extend(changes);
            schemas.keep(number, &key, &version, schema);
        } else if !is_stored {
            note(derive, &changes).await?;
            derive.check_claim().await?;
            let replaces = stored.as_ref().map_or(Replaces::Nothing, Replaces::Only);
            if !derive.destination.put_derived(&key, text(schema), replaces).await? {
                continue;
            }
        }
        return Ok(PartSchema { extended, version });
    }
    Err(DeriveError::passing(format!("another writer changes `{key}` each time it is read")))
}

fn parse(key: &str, bytes: &[u8]) -> Result<Schema, DeriveError> {
    serde_json::from_slice(bytes).map_err(|error| DeriveError::of_content(not_a_schema(key, error)))
}

/// What is wrong with the schema at `key`, if anything is.
pub(super) async fn damage(destination: &Destination, key: &str) -> Result<Option<String>, StoreError> {
    Ok(match destination.read_derived(key, SCHEMA_BYTES + 1).await? {
        None => {
            Some(format!("the schema `{key}` is missing: without it, columns of later dates could get other types"))
        }
        Some(stored) => serde_json::from_slice::<Schema>(&stored.bytes).err().map(|error| not_a_schema(key, error)),
    })
}

/// Notes and logs changes, before the schema that has them is stored.
pub(super) async fn note(derive: &Derive<'_>, changes: &[SchemaChange]) -> Result<(), LedgerError> {
    if !changes.is_empty() {
        derive.ctx.ledger.note_schema_changes(derive.claim, changes).await?;
        log(derive, changes);
    }
    Ok(())
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
