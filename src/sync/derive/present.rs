//! Tables of a partition that are at the destination already, and their removal where they no longer belong there.
//!
//! This file owns when present tables count as made: every object that its manifests announce is there, complete, and of
//! the recorded source. It must not know how tables are made.

use std::collections::{BTreeSet, HashSet};

use super::{Derive, DeriveError};
use crate::{
    derivation::{Derived, TableManifest, TableObject},
    outcome::StoredObject,
    report::{PartitionId, manifest_key, manifest_subject},
    store::{Destination, Manifest, StoreError},
    tables::Content,
};

/// Largest manifest of a table's object that is read, in bytes.
const MANIFEST_BYTES: u64 = 64 * 1024;

/// What is in the folders of a partition's tables.
pub(super) struct Present {
    /// All keys, with sizes if the listing shows them.
    keys: Vec<(String, Option<u64>)>,
}

impl Present {
    /// The objects that the ledger has, with their manifests.
    pub(super) fn recorded(objects: &[TableObject]) -> Self {
        let keys = objects.iter().flat_map(|object| [object.key.clone(), manifest_key(&object.key)]);
        Present { keys: keys.map(|key| (key, None)).collect() }
    }

    /// Lists the folders of all tables of the report.
    pub(super) async fn list(derive: &Derive<'_>, id: &PartitionId) -> Result<Self, DeriveError> {
        let mut keys = Vec::new();
        for table in derive.destination.derived_folders(&derive.report.tables_prefix()).await? {
            keys.extend(derive.destination.derived_objects(&derive.report.table_folder(&table, id.date)).await?);
        }
        Ok(Present { keys })
    }

    /// The tables, if they are those of `source` in the configured format.
    pub(super) async fn complete(
        &self,
        derive: &Derive<'_>,
        id: &PartitionId,
        source: &StoredObject,
    ) -> Result<Option<Derived>, DeriveError> {
        let (mut objects, mut entries) = (Vec::new(), HashSet::new());
        let mut announced = None;
        for key in self.keys.iter().filter_map(|(key, _)| manifest_subject(key)) {
            let Some(manifest) = read_manifest(derive.destination, &key).await? else { return Ok(None) };
            let is_ours = manifest.is_of(id)
                && manifest.source_sha256 == source.sha256
                && manifest.format == derive.format
                && manifest.object.key == key
                && *announced.get_or_insert(manifest.objects) == manifest.objects;
            let size = match self.keys.iter().find(|(other, _)| *other == key) {
                Some((_, Some(size))) => Some(*size),
                Some((_, None)) => derive.destination.size(&key).await?,
                None => None,
            };
            if !is_ours || size != Some(manifest.object.size) {
                return Ok(None);
            }
            entries.insert(manifest.entry);
            objects.push(manifest.object);
        }
        objects.sort_by(|a, b| (&a.table, &a.key).cmp(&(&b.table, &b.key)));
        if announced != Some(objects.len()) || self.keys.len() != 2 * objects.len() {
            return Ok(None);
        }
        let described = derive.destination.manifest(&source.key).await?;
        let left_alone = described.map(|described| left_alone(described, &entries)).unwrap_or_default();
        Ok(Some(Derived { objects, left_alone }))
    }

    /// Removes all but these objects and their manifests: an object after its manifest, so that none is without one.
    pub(super) async fn remove_others(&self, derive: &Derive<'_>, objects: &[TableObject]) -> Result<(), DeriveError> {
        let kept: BTreeSet<String> =
            objects.iter().flat_map(|object| [object.key.clone(), manifest_key(&object.key)]).collect();
        let mut others: Vec<_> = self.keys.iter().map(|(key, _)| key).filter(|key| !kept.contains(*key)).collect();
        others.sort_by_key(|key| (manifest_subject(key).is_none(), key.to_string()));
        if !others.is_empty() {
            derive.check_claim().await?;
        }
        for key in others {
            derive.destination.remove_derived(key).await?;
        }
        Ok(())
    }
}

/// The manifest of the object at `key`; `None` if it is missing or is none.
pub(super) async fn read_manifest(destination: &Destination, key: &str) -> Result<Option<TableManifest>, StoreError> {
    let read = destination.read_derived(&manifest_key(key), MANIFEST_BYTES).await?;
    Ok(read.and_then(|read| serde_json::from_slice(&read.bytes).ok()))
}

/// The entries that are in no table and whose names say that none is made of them.
fn left_alone(described: Manifest, in_tables: &HashSet<String>) -> Vec<String> {
    let names = described.entries.unwrap_or_default().into_iter().map(|entry| entry.name);
    let is_left = |name: &String| !name.ends_with(['/', '\\']) && Content::of(name).is_none();
    names.filter(|name| is_left(name) && !in_tables.contains(name)).collect()
}
