//! Stored objects, found by their manifests.
//!
//! This file owns which objects belong to a partition. It must not know what is in them.

use jiff::civil::Date;

use super::Dates;
use crate::{
    report::{PartitionId, is_version},
    store::{Listed, Manifest, ObjectFormat, StoreError},
    sync::OpenReport,
    words::{StoredEntry, StoredObject},
};

/// An object that has a manifest.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its manifest.
    pub manifest: Manifest,
    /// Present size of the object in bytes; `None` if there is none.
    pub size: Option<u64>,
}

impl From<Stored> for StoredObject {
    fn from(stored: Stored) -> Self {
        let (damage, stored_at) = (stored.damage(), stored.manifest.stored_at());
        let Manifest { workspace, report, source, date, key, format, size, sha256, records, .. } = stored.manifest;
        let entry = |(name, size, crc32): (String, u64, Option<u32>)| StoredEntry {
            name,
            size,
            crc32: crc32.map(|crc32| format!("{crc32:08x}")),
        };
        let entries = stored.manifest.entries.into_iter().flatten().map(|it| (it.name, it.size, it.crc32));
        Self {
            version: is_version(&key),
            format: match format {
                ObjectFormat::Zip => "zip",
                ObjectFormat::Gzip => "gzip",
                ObjectFormat::Tar => "tar",
                ObjectFormat::NdjsonGz => "ndjson.gz",
            }
            .to_owned(),
            stored_at,
            entries: entries.map(entry).collect(),
            workspace,
            report,
            source,
            date,
            key,
            size,
            sha256,
            records,
            damage,
        }
    }
}

impl Stored {
    /// What is wrong with the object, as far as its size shows.
    pub fn damage(&self) -> Option<String> {
        match self.size {
            Some(size) if size == self.manifest.size => None,
            Some(size) => Some(format!("the object has {size} bytes instead of {}", self.manifest.size)),
            None => Some("the object is missing".to_owned()),
        }
    }
}

/// The objects that a person may mean.
#[derive(Debug)]
pub enum Lookup {
    /// Exactly one.
    One(Box<Stored>),
    /// None.
    Nothing,
    /// Several, with these keys.
    Several(Vec<String>),
}

/// The described objects of a report on these dates, by date; those with the partition's own key before versions.
///
/// # Errors
///
/// The destination cannot be listed.
pub async fn keys(open: &OpenReport, dates: &Dates) -> Result<Vec<Listed>, StoreError> {
    let prefix = open.report.key_prefix();
    let mut listed = match dates.single() {
        // The listing of one date is short.
        Some(date) => {
            let mut own = open.destination.described_objects(&format!("{prefix}/date={date}/")).await?;
            own.extend(open.destination.described_objects(&open.report.keys(date).versions()).await?);
            own
        }
        None => open.destination.described_objects(&format!("{prefix}/")).await?,
    };
    listed.retain(|listed| date_of(&listed.key).is_some_and(|date| dates.contain(date)));
    listed.sort_by_cached_key(|listed| (date_of(&listed.key), is_version(&listed.key), listed.key.clone()));
    Ok(listed)
}

/// Reads the manifest of a listed object; `None` if it describes no partition of the report. Those are logged.
///
/// # Errors
///
/// The destination cannot be read.
pub async fn describe(open: &OpenReport, listed: &Listed) -> Result<Option<Stored>, StoreError> {
    let Some(manifest) = open.destination.manifest(&listed.key).await? else { return Ok(None) };
    let id = PartitionId { report: open.report.id.clone(), date: manifest.date };
    if !manifest.names(&id, &listed.key) || date_of(&listed.key) != Some(manifest.date) {
        tracing::warn!(key = listed.key, "ignored a manifest of another report or object");
        return Ok(None);
    }
    // The listing of a directory shows no sizes.
    let size = match listed.size {
        Some(size) => Some(size),
        None => open.destination.size(&listed.key).await?,
    };
    Ok(Some(Stored { manifest, size }))
}

/// The object of the partition of `date`: the one with the partition's own key. If only versions are stored, it is one of
/// those.
///
/// # Errors
///
/// The destination cannot be read.
pub async fn find(open: &OpenReport, date: Date) -> Result<Lookup, StoreError> {
    let mut found = Vec::new();
    for listed in keys(open, &Dates::only(date)).await? {
        found.extend(describe(open, &listed).await?);
    }
    let own_key = open.report.keys(date).object();
    let (mut own, versions): (Vec<_>, Vec<_>) = found.into_iter().partition(|it| !is_version(&it.manifest.key));
    // A report that was renamed has files with either name.
    if let Some(exact) = own.iter().position(|stored| stored.manifest.key == own_key) {
        own = vec![own.swap_remove(exact)];
    }
    let mut candidates = if own.is_empty() { versions } else { own };
    Ok(match (candidates.pop(), candidates.is_empty()) {
        (None, _) => Lookup::Nothing,
        (Some(stored), true) => Lookup::One(Box::new(stored)),
        (Some(last), false) => {
            Lookup::Several(candidates.into_iter().chain([last]).map(|stored| stored.manifest.key).collect())
        }
    })
}

/// The object at `key`, if it belongs to the report.
///
/// # Errors
///
/// The destination cannot be read.
pub async fn find_key(open: &OpenReport, key: &str) -> Result<Lookup, StoreError> {
    if !key.starts_with(&format!("{}/", open.report.key_prefix())) || date_of(key).is_none() {
        return Ok(Lookup::Nothing);
    }
    let listed = Listed { key: key.to_owned(), size: None };
    Ok(describe(open, &listed).await?.map_or(Lookup::Nothing, |stored| Lookup::One(Box::new(stored))))
}

fn date_of(key: &str) -> Option<Date> {
    key.split('/').find_map(|part| part.strip_prefix("date=")?.parse().ok())
}
