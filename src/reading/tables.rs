//! The tables of reports at their destinations.
//!
//! This file owns how a table is found: `tables/{workspace}/{report}/{table}/`, its schema, and its parts. It must not know
//! query engines.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use jiff::civil::Date;

use super::Dates;
use crate::{
    derivation::{TableManifest, not_a_schema},
    report,
    store::{Destination, StoreError},
    sync::OpenReport,
    table_words::TableFormat,
    tables::{Column, Schema},
    words::{TableColumn, TableDate, TableDescription},
};

/// Largest schema that is read, in bytes. One of 4,096 columns is well below it.
const SCHEMA_BYTES: u64 = 16 * 1024 * 1024;

/// Largest manifest of a part that is read, in bytes.
const MANIFEST_BYTES: u64 = 1024 * 1024;

/// Most manifests that are read concurrently.
const CONCURRENCY: usize = 32;

/// A table at a destination.
#[derive(Debug, Clone)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// The folder of all its objects, as a key without a final slash.
    pub folder: String,
    /// Its columns.
    pub schema: Schema,
    /// Its parts by date, those of the selected dates alone.
    pub dates: BTreeMap<Date, Vec<TablePart>>,
}

/// One object of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablePart {
    /// Key of the object.
    pub key: String,
    /// Its format.
    pub format: TableFormat,
}

/// Why tables cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The destination cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A schema is not one.
    #[error("{}", not_a_schema(key, reason))]
    Schema {
        /// Its key.
        key: String,
        /// What it lacks.
        reason: String,
    },
}

impl Table {
    /// The formats of its parts.
    pub fn formats(&self) -> Vec<TableFormat> {
        let mut formats: Vec<_> = self.dates.values().flatten().map(|part| part.format).collect();
        formats.sort_unstable();
        formats.dedup();
        formats
    }
}

/// The tables of a report, by name.
///
/// # Errors
///
/// The destination cannot be read, or has a schema that is not one.
pub async fn tables(open: &OpenReport, dates: &Dates) -> Result<Vec<Table>, TableError> {
    let root = open.report.tables_prefix();
    let mut parts: BTreeMap<String, BTreeMap<Date, Vec<TablePart>>> = BTreeMap::new();
    let mut described = Vec::new();
    for (key, _) in open.destination.derived_objects(&root).await? {
        let Some((table, rest)) = key.strip_prefix(&format!("{root}/")).and_then(|rest| rest.split_once('/')) else {
            continue;
        };
        if rest == report::SCHEMA {
            described.push(table.to_owned());
        } else if let Some((date, format)) = part(rest).filter(|(date, _)| dates.contain(*date)) {
            let part = TablePart { key: key.clone(), format };
            parts.entry(table.to_owned()).or_default().entry(date).or_default().push(part);
        }
    }
    let mut tables = Vec::new();
    for name in described {
        let folder = format!("{root}/{name}");
        let schema = schema(&open.destination, &format!("{folder}/{}", report::SCHEMA)).await?;
        let dates = parts.remove(&name).unwrap_or_default();
        tables.push(Table { name, folder, schema, dates });
    }
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    for parts in tables.iter_mut().flat_map(|table| table.dates.values_mut()) {
        parts.sort_by(|a, b| a.key.cmp(&b.key));
    }
    Ok(tables)
}

/// The date and format of a part at this path in its table's folder.
fn part(path: &str) -> Option<(Date, TableFormat)> {
    let (date, file) = path.strip_prefix("date=")?.split_once('/')?;
    let format = TableFormat::ALL.into_iter().find(|format| {
        let rest = file.strip_prefix("part-");
        let number = rest.and_then(|rest| rest.strip_suffix(format.extension())?.strip_suffix('.'));
        number.is_some_and(|number| number.parse::<usize>().is_ok())
    })?;
    Some((date.parse().ok()?, format))
}

async fn schema(destination: &Destination, key: &str) -> Result<Schema, TableError> {
    let invalid = |reason: String| TableError::Schema { key: key.to_owned(), reason };
    let Some(read) = destination.read_derived(key, SCHEMA_BYTES).await? else {
        return Err(invalid("it has disappeared".to_owned()));
    };
    serde_json::from_slice(&read.bytes).map_err(|error| invalid(error.to_string()))
}

/// The table with the rows of each date, which are in the manifests of its parts.
///
/// # Errors
///
/// The destination cannot be read.
pub async fn with_rows(open: &OpenReport, table: &Table) -> Result<TableDescription, StoreError> {
    let mut dates = Vec::new();
    let parts = table.dates.iter().flat_map(|(date, parts)| parts.iter().map(move |part| (*date, part)));
    let mut counted = stream::iter(parts)
        .map(|(date, part)| async move { Ok::<_, StoreError>((date, rows(&open.destination, &part.key).await?)) })
        .buffered(CONCURRENCY)
        .boxed();
    while let Some((date, rows)) = counted.try_next().await? {
        match dates.last_mut() {
            Some(TableDate { date: last, parts, rows: all }) if *last == date => {
                *parts += 1;
                *all = all.zip(rows).map(|(all, rows)| all + rows);
            }
            _ => dates.push(TableDate { date, parts: 1, rows }),
        }
    }
    let column = |column: &Column| TableColumn {
        name: column.name.clone(),
        heading: column.heading.clone(),
        column_type: column.column_type,
        first_date: column.first_date,
        last_date: column.last_date,
    };
    Ok(TableDescription {
        workspace: open.report.id.workspace().to_owned(),
        report: open.report.id.name().to_owned(),
        table: table.name.clone(),
        destination: open.destination.name().to_owned(),
        key: table.folder.clone(),
        formats: table.formats(),
        rows: dates.iter().filter_map(|date| date.rows).sum(),
        columns: table.schema.columns.iter().map(column).collect(),
        dates,
    })
}

/// The number of rows in the manifest of the part at `key`; `None` without a valid one.
async fn rows(destination: &Destination, key: &str) -> Result<Option<u64>, StoreError> {
    let read = destination.read_derived(&report::manifest_key(key), MANIFEST_BYTES).await?;
    Ok(read.and_then(|read| Some(serde_json::from_slice::<TableManifest>(&read.bytes).ok()?.object.rows)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_known_by_date_number_and_extension() {
        let date = jiff::civil::date(2026, 11, 21);
        assert_eq!(part("date=2026-11-21/part-0.parquet"), Some((date, TableFormat::Parquet)));
        assert_eq!(part("date=2026-11-21/part-12.csv.gz"), Some((date, TableFormat::CsvGz)));
        for other in [
            "date=2026-11-21/_part-0.parquet.manifest.json",
            "date=2026-11-21/part-.parquet",
            "date=2026-11-21/part-0.csv",
            "date=2026-13-21/part-0.parquet",
            "part-0.parquet",
        ] {
            assert_eq!(part(other), None, "{other}");
        }
    }
}
