//! Objects that are derived from stored ones, and can be made again: tables, their manifests and schemas.
//!
//! This file owns that only these are replaced and removed. Every operation refuses a key outside their folder. It must not
//! know what is in them.

use std::fs::File;

use object_store::path::Path as Key;

use super::{
    Replaces, StoreError, Versioned,
    destination::Destination,
    kind::{Kind, for_kind},
};
use crate::report;

impl Destination {
    /// The file of the object at `key`, to be read in any order. `None` at an object store, and where there is no object.
    /// The file stays as it is while it is open: an object is replaced by giving its name to another file.
    ///
    /// # Errors
    ///
    /// The destination cannot be read.
    pub async fn file(&self, key: &str) -> Result<Option<File>, StoreError> {
        let key = self.key("read", key)?;
        match self.backend() {
            Kind::Local(local) => local.open_file(&key).await,
            Kind::Remote(_) => Ok(None),
        }
    }

    /// A small derived object at `key`, up to `limit` bytes of it; `None` if there is none.
    ///
    /// # Errors
    ///
    /// The destination cannot be read.
    pub async fn read_derived(&self, key: &str, limit: u64) -> Result<Option<Versioned>, StoreError> {
        let key = self.derived_key("read", key)?;
        match self.backend() {
            Kind::Local(local) => {
                let bytes = local.read_up_to(&key, limit).await?;
                Ok(bytes.map(|bytes| Versioned { bytes, tag: None }))
            }
            Kind::Remote(bucket) => {
                let read = bucket.read_versioned(&key, limit).await?;
                Ok(read.map(|(bytes, tag)| Versioned { bytes, tag }))
            }
        }
    }

    /// Puts a small derived object at `key` in one step. Returns whether it did: a store that can compare refuses if the
    /// object there is not the one to replace. A directory, and any other store, does not compare.
    ///
    /// # Errors
    ///
    /// The destination refused; the old object is still there, or the new one is.
    pub async fn put_derived(&self, key: &str, bytes: Vec<u8>, replaces: Replaces<'_>) -> Result<bool, StoreError> {
        let key = self.derived_key("write", key)?;
        match self.backend() {
            Kind::Local(local) => local.put("write", &key, bytes).await.map(|()| true),
            Kind::Remote(bucket) => bucket.put_if(&key, bytes, replaces).await,
        }
    }

    /// Removes a derived object. That there is none is a success.
    ///
    /// # Errors
    ///
    /// The destination refused.
    pub async fn remove_derived(&self, key: &str) -> Result<(), StoreError> {
        let key = self.derived_key("remove", key)?;
        for_kind!(self.backend(), backend => backend.delete("remove", &key).await)
    }

    /// The keys of all objects in the folder at `prefix`, at any depth, with their sizes if the listing shows them.
    ///
    /// # Errors
    ///
    /// The destination cannot be listed.
    pub async fn derived_objects(&self, prefix: &str) -> Result<Vec<(String, Option<u64>)>, StoreError> {
        let prefix = self.derived_key("list", prefix)?;
        for_kind!(self.backend(), backend => backend.list(&prefix).await)
    }

    /// The names of the folders in the folder at `prefix`.
    ///
    /// # Errors
    ///
    /// The destination cannot be listed.
    pub async fn derived_folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let prefix = self.derived_key("list", prefix)?;
        for_kind!(self.backend(), backend => backend.folders(&prefix).await)
    }

    pub(super) fn derived_key(&self, operation: &'static str, key: &str) -> Result<Key, StoreError> {
        match report::is_derived(key) {
            true => self.key(operation, key),
            false => Err(self.reporter().text(operation, key, "it is not the key of a derived object".to_owned())),
        }
    }
}
