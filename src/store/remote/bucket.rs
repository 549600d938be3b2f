//! A bucket, or folder of one, and single requests to it.
//!
//! This file owns the mapping of keys and errors, and the comparison of an object with the expected one.
//! It must not know in which order requests make an object appear.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    Error, MultipartId, ObjectStore, ObjectStoreExt, PutMode, UpdateVersion, multipart::MultipartStore,
    path::Path as Key,
};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use crate::store::{
    Capabilities, Commit, Replaces, STAGING, StoreError, Versioned, budget::Share, error::Reporter, hash,
};

/// Largest object that S3 copies in one request, in bytes.
const COPY_BYTES: u64 = 5 * 1024 * 1024 * 1024;

/// Numbers staged objects for the whole process, because two destinations may share a bucket.
static NEXT_STAGED: AtomicU64 = AtomicU64::new(0);

/// A destination in an object store.
pub(in crate::store) struct Bucket {
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) multiparts: Arc<dyn MultipartStore>,
    /// The folder; root for the whole bucket.
    folder: Key,
    pub(super) holder: String,
    pub(super) reporter: Arc<Reporter>,
    pub(super) memory: Share,
    /// Set by a probe before the first put.
    pub(super) capabilities: OnceCell<Capabilities>,
    /// One writer a key within this process, where looking and writing are two steps. Keys share these by hash.
    writers: [Mutex<()>; 64],
    /// Larger objects are copied through this process.
    pub(super) copy_bytes: u64,
}

/// An object compared with the one that should be at its key.
#[derive(PartialEq, Eq)]
pub(super) enum Comparison {
    Absent,
    Same,
    Different,
}

impl Comparison {
    /// The result of a commit; `None` if the key is free.
    pub(super) fn commit(self, kept: bool) -> Option<Commit> {
        match self {
            Comparison::Absent => None,
            Comparison::Same => Some(Commit::AlreadyThere),
            Comparison::Different => Some(Commit::Taken { kept }),
        }
    }
}

impl Bucket {
    pub(in crate::store) fn new(
        objects: Arc<dyn ObjectStore>,
        multiparts: Arc<dyn MultipartStore>,
        folder: Key,
        reporter: Arc<Reporter>,
        holder: &str,
        memory: Share,
    ) -> Self {
        Bucket {
            objects,
            multiparts,
            folder,
            holder: holder.to_owned(),
            reporter,
            memory,
            capabilities: OnceCell::new(),
            writers: std::array::from_fn(|_| Mutex::new(())),
            copy_bytes: COPY_BYTES,
        }
    }

    pub(in crate::store) async fn size(&self, key: &Key) -> Result<Option<u64>, StoreError> {
        match self.objects.head(&self.at(key)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.fail("look at", key, &error)),
        }
    }

    pub(in crate::store) async fn read(
        self: &Arc<Self>,
        key: &Key,
    ) -> Result<Option<BoxStream<'static, Result<Bytes, StoreError>>>, StoreError> {
        match self.objects.get(&self.at(key)).await {
            Ok(found) => {
                let (bucket, key) = (Arc::clone(self), key.clone());
                Ok(Some(found.into_stream().map_err(move |error| bucket.fail("read", &key, &error)).boxed()))
            }
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.fail("read", key, &error)),
        }
    }

    /// The first `limit` bytes of the object at `key`, or a few more; `None` if there is none.
    pub(in crate::store) async fn read_up_to(
        self: &Arc<Self>,
        key: &Key,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(mut chunks) = self.read(key).await? else { return Ok(None) };
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < limit
            && let Some(chunk) = chunks.try_next().await?
        {
            bytes.extend_from_slice(&chunk);
        }
        Ok(Some(bytes))
    }

    /// The first `limit` bytes of the object at `key`, or a few more, and its entity tag; `None` if there is none.
    pub(in crate::store) async fn read_versioned(
        &self,
        key: &Key,
        limit: u64,
    ) -> Result<Option<(Vec<u8>, Option<String>)>, StoreError> {
        let fail = |error| self.fail("read", key, &error);
        let found = match self.objects.get(&self.at(key)).await {
            Err(Error::NotFound { .. }) => return Ok(None),
            found => found.map_err(fail)?,
        };
        let tag = found.meta.e_tag.clone();
        let (mut chunks, mut bytes) = (found.into_stream(), Vec::new());
        while (bytes.len() as u64) < limit
            && let Some(chunk) = chunks.try_next().await.map_err(fail)?
        {
            bytes.extend_from_slice(&chunk);
        }
        Ok(Some((bytes, tag)))
    }

    /// Puts a small object, if the object at `key` is the one to replace and the store can compare. Returns whether it
    /// did.
    pub(in crate::store) async fn put_if(
        self: &Arc<Self>,
        key: &Key,
        bytes: Vec<u8>,
        replaces: Replaces<'_>,
    ) -> Result<bool, StoreError> {
        let refuses = replaces != Replaces::Any && self.capabilities().await?.refuses_overwrite;
        let mode = match replaces {
            Replaces::Nothing if refuses => PutMode::Create,
            Replaces::Only(Versioned { tag: Some(tag), .. }) if refuses => {
                PutMode::Update(UpdateVersion { e_tag: Some(tag.clone()), version: None })
            }
            _ => PutMode::Overwrite,
        };
        match self.objects.put_opts(&self.at(key), bytes.clone().into(), mode.into()).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {
                // The reply to our own write may have been lost.
                Ok(self.read_versioned(key, u64::MAX).await?.is_some_and(|(found, _)| found == bytes))
            }
            Err(error) if is_unsupported(&error) => self.put("write", key, bytes).await.map(|()| true),
            Err(error) => Err(self.fail("write", key, &error)),
        }
    }

    /// The names of the folders in the folder at `prefix`.
    pub(in crate::store) async fn folders(&self, prefix: &Key) -> Result<Vec<String>, StoreError> {
        let listed = self.objects.list_with_delimiter(Some(&self.at(prefix))).await;
        let listed = listed.map_err(|error| self.fail("list", prefix, &error))?;
        Ok(listed.common_prefixes.iter().filter_map(|folder| folder.filename().map(str::to_owned)).collect())
    }

    /// The first `limit` bytes of the manifest at `manifest`, and the size of the object at `object`.
    pub(in crate::store) async fn look(
        self: &Arc<Self>,
        object: &Key,
        manifest: &Key,
        limit: u64,
    ) -> Result<(Option<Vec<u8>>, Option<u64>), StoreError> {
        Ok((self.read_up_to(manifest, limit).await?, self.size(object).await?))
    }

    /// Every key below `prefix`, with the size of the object.
    pub(in crate::store) async fn list(&self, prefix: &Key) -> Result<Vec<(String, Option<u64>)>, StoreError> {
        let mut listing = self.objects.list(Some(&self.at(prefix)));
        let mut keys = Vec::new();
        while let Some(meta) = listing.try_next().await.map_err(|error| self.fail("list", prefix, &error))? {
            if let Some(key) = self.key_of(&meta.location) {
                keys.push((key.into(), Some(meta.size)));
            }
        }
        Ok(keys)
    }

    /// Every key below `prefix`.
    pub(super) async fn keys(&self, prefix: &Key) -> Result<Vec<String>, StoreError> {
        Ok(self.list(prefix).await?.into_iter().map(|(key, _)| key).collect())
    }

    /// Puts a small object, replacing an object there.
    pub(in crate::store) async fn put(
        &self,
        operation: &'static str,
        key: &Key,
        bytes: impl Into<object_store::PutPayload>,
    ) -> Result<(), StoreError> {
        let put = self.objects.put(&self.at(key), bytes.into()).await;
        put.map(drop).map_err(|error| self.fail(operation, key, &error))
    }

    pub(in crate::store) async fn delete(&self, operation: &'static str, key: &Key) -> Result<(), StoreError> {
        match self.objects.delete(&self.at(key)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.fail(operation, key, &error)),
        }
    }

    pub(super) async fn abort_multipart(&self, key: &Key, upload: &MultipartId) -> Result<(), StoreError> {
        match self.multiparts.abort_multipart(&self.at(key), upload).await {
            // Not found: completed or aborted before.
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.fail("abort the upload of", key, &error)),
        }
    }

    pub(super) async fn compare(
        self: &Arc<Self>,
        key: &Key,
        size: u64,
        sha256: &str,
    ) -> Result<Comparison, StoreError> {
        match self.size(key).await? {
            None => Ok(Comparison::Absent),
            Some(found) if found != size => Ok(Comparison::Different),
            Some(_) => Ok(match self.sha256_of(key).await? {
                None => Comparison::Absent,
                Some(found) if found == sha256 => Comparison::Same,
                Some(_) => Comparison::Different,
            }),
        }
    }

    /// SHA-256 of an object, read in full; `None` if there is none.
    pub(super) async fn sha256_of(self: &Arc<Self>, key: &Key) -> Result<Option<String>, StoreError> {
        match self.read(key).await? {
            Some(bytes) => hash::of_stream(bytes).await.map(Some),
            None => Ok(None),
        }
    }

    pub(super) async fn expect_size(&self, key: &Key, size: u64) -> Result<(), StoreError> {
        match self.size(key).await? {
            Some(found) if found == size => Ok(()),
            found => {
                let found = found.map_or("nothing".to_owned(), |found| format!("{found} bytes"));
                let cause = format!("the store reported success, but {found} instead of {size} bytes are there");
                Err(self.text("store", key, &cause))
            }
        }
    }

    /// Waits until no other task of this process writes at `key`.
    pub(super) async fn lock_key(&self, key: &Key) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        self.writers[hasher.finish() as usize % self.writers.len()].lock().await
    }

    pub(super) fn staged_key(&self, suffix: &str) -> Key {
        let number = NEXT_STAGED.fetch_add(1, Ordering::Relaxed);
        join([STAGING, &self.holder, &format!("{number}{suffix}")])
    }

    /// The location of `key` in the store.
    pub(super) fn at(&self, key: &Key) -> Key {
        join(self.folder.parts().chain(key.parts()))
    }

    /// The key of a location in the store; `None` if it is outside the folder.
    fn key_of(&self, location: &Key) -> Option<Key> {
        Some(join(location.prefix_match(&self.folder)?))
    }

    pub(super) fn fail(&self, operation: &'static str, key: &Key, error: &Error) -> StoreError {
        self.reporter.remote(operation, key.as_ref(), error)
    }

    pub(super) fn text(&self, operation: &'static str, key: &Key, cause: &str) -> StoreError {
        self.reporter.text(operation, key.as_ref(), cause.to_owned())
    }
}

/// Joins the segments of a key unchanged; `Key::from_iter` would percent-encode them a second time.
pub(super) fn join(segments: impl IntoIterator<Item = impl AsRef<str>>) -> Key {
    let segments: Vec<String> = segments.into_iter().map(|segment| segment.as_ref().to_owned()).collect();
    #[expect(clippy::expect_used, reason = "segments of keys make a key")]
    Key::parse(segments.join("/")).expect("segments of keys make a key")
}

/// Whether the store does not implement the request, rather than failed at it. Some answer with a status of 501.
pub(super) fn is_unsupported(error: &Error) -> bool {
    match error {
        Error::NotSupported { .. } | Error::NotImplemented { .. } => true,
        Error::Generic { .. } => {
            let text = error.to_string();
            text.contains("501 Not Implemented") || text.contains("<Code>NotImplemented</Code>")
        }
        _ => false,
    }
}
