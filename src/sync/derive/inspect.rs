//! Tables, re-read against their manifests, and the schemas of tables.
//!
//! This file owns what counts as damage of tables that were made. It must not make them.

use std::collections::BTreeSet;

use super::{present::read_manifest, schema};
use crate::{
    config::Report,
    derivation::{PartitionTables, TableObject},
    ledger::{Ledger, LedgerError},
    partition::Entry,
    report::{PartitionId, SCHEMA},
    store::{Destination, StoreError},
    sync::context::OpenReport,
    table_words::TablesState,
};

/// Re-reads the tables of a stored partition at its destination. Returns what is wrong with them, if anything is; nothing is
/// where they are not made, or were made again meanwhile.
///
/// # Errors
///
/// When the ledger cannot be read.
pub async fn inspect_tables(
    ledger: &Ledger,
    OpenReport { report, destination }: &OpenReport,
    entry: &Entry,
) -> Result<Option<String>, LedgerError> {
    let id = &entry.partition.id;
    let Some(before) = settled(ledger, id).await? else { return Ok(None) };
    let mut damages = Vec::new();
    for object in &before.derived.objects {
        match damage(destination, entry, object).await {
            Ok(damage) => damages.extend(damage),
            Err(error) => damages.push(error.to_string()),
        }
    }
    match damaged_schemas(report, destination, &before).await {
        Ok(damaged) => damages.extend(damaged),
        Err(error) => damages.push(error.to_string()),
    }
    let Some(first) = damages.first() else { return Ok(None) };
    let others = match damages.len() - 1 {
        0 => String::new(),
        others => format!("; {others} more objects of its tables are damaged"),
    };
    Ok((settled(ledger, id).await?.as_ref() == Some(&before)).then(|| format!("{first}{others}")))
}

/// What is wrong with the schemas of the partition's tables.
async fn damaged_schemas(
    report: &Report,
    destination: &Destination,
    tables: &PartitionTables,
) -> Result<Vec<String>, StoreError> {
    let keys: BTreeSet<String> = match tables.state {
        // The ledger does not have the objects of a failed attempt. A damaged schema is one reason for it.
        TablesState::Failed => {
            let names = destination.derived_folders(&report.tables_prefix()).await?;
            names.iter().map(|table| report.schema_key(table)).collect()
        }
        _ => tables.derived.objects.iter().filter_map(|object| schema_of(&object.key)).collect(),
    };
    let mut damaged = Vec::new();
    for key in keys {
        damaged.extend(schema::damage(destination, &key).await?);
    }
    Ok(damaged)
}

/// The key of the schema of the table that has the object at `key`.
fn schema_of(key: &str) -> Option<String> {
    let (of_date, _) = key.rsplit_once('/')?;
    let (table, _) = of_date.rsplit_once('/')?;
    Some(format!("{table}/{SCHEMA}"))
}

/// The tables of a partition, unless they are being made.
async fn settled(ledger: &Ledger, id: &PartitionId) -> Result<Option<PartitionTables>, LedgerError> {
    Ok(ledger.tables_of(id).await?.filter(|tables| tables.state != TablesState::Pending))
}

async fn damage(destination: &Destination, entry: &Entry, object: &TableObject) -> Result<Option<String>, StoreError> {
    let (id, key) = (&entry.partition.id, &object.key);
    let Some(sha256) = destination.sha256_of(key).await? else {
        return Ok(Some(format!("the table object `{key}` is missing")));
    };
    let source = entry.object.as_ref().map(|object| object.sha256.as_str());
    let manifest = read_manifest(destination, key).await?.filter(|manifest| {
        manifest.is_of(id) && manifest.object.key == *key && Some(manifest.source_sha256.as_str()) == source
    });
    Ok(match manifest {
        None => Some(format!("the manifest of the table object `{key}` is missing or does not describe it")),
        Some(manifest) if manifest.object.sha256 != sha256 => {
            Some(format!("the table object `{key}` was altered: its sha256 is now {sha256}"))
        }
        Some(_) => None,
    })
}
