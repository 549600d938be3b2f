//! A destination as the rest of the crate sees it.
//!
//! This file owns the operations on keys, for directories and object stores alike. It must not know how either of them
//! implements one.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::{ObjectStore, multipart::MultipartStore, path::Path as Key};

use super::{
    Capabilities, Listed, Lookup, MIB,
    budget::{Budget, Share},
    error::{Reporter, StoreError},
    hash,
    kind::{Kind, for_kind},
    local::{FileUpload, Local},
    manifest::Manifest,
    remote::{Bucket, ObjectUpload},
    threads::Threads,
};
use crate::{
    config::{self, Location},
    report,
};

/// Largest manifest that is read. One with as many entries as the verifier admits is well below it.
const MANIFEST_BYTES: u64 = 64 * MIB;

/// An opened destination. Clones are the same destination.
#[derive(Clone)]
pub struct Destination {
    inner: Arc<Inner>,
}

struct Inner {
    reporter: Arc<Reporter>,
    holder: String,
    memory: Share,
    threads: Threads,
    backend: Kind<Arc<Local>, Arc<Bucket>>,
}

impl Destination {
    /// Opens a destination. Creates a missing directory; does not contact an object store.
    ///
    /// `holder` names this process among all that may use the destination: its staged objects are kept under that name,
    /// and [`Destination::sweep`] asks whether it is alive. It must be a single segment of a key.
    ///
    /// Credentials and settings of object stores come from the environment as object_store reads it (`AWS_…`,
    /// `GOOGLE_…`, `AZURE_…`) and, with precedence, from the destination's `options`.
    ///
    /// # Errors
    ///
    /// The prefix or an option is invalid.
    pub fn open(destination: &config::DestinationSettings, budget: Budget, holder: &str) -> Result<Self, StoreError> {
        let reporter = Arc::new(Reporter::new(destination));
        check_holder(&reporter, holder)?;
        let threads = Threads::new(Arc::clone(&reporter));
        let (memory, backend) = match &destination.location {
            Location::Directory(root) => {
                let local = Local::new(destination, root.clone(), holder, threads.clone(), Arc::clone(&reporter));
                (budget.of_directory(), Kind::Local(Arc::new(local)))
            }
            Location::Bucket(location) => {
                let memory = budget.of_store();
                let bucket = Bucket::open(destination, location, Arc::clone(&reporter), holder, memory.clone())?;
                (memory, Kind::Remote(Arc::new(bucket)))
            }
        };
        Ok(Destination { inner: Arc::new(Inner { reporter, holder: holder.to_owned(), memory, threads, backend }) })
    }

    /// Makes the folder of a directory, if it is missing. Blocks.
    ///
    /// # Errors
    ///
    /// It cannot be made, for example because its disk is away.
    pub fn make_folder(&self) -> Result<(), StoreError> {
        match self.backend() {
            Kind::Local(local) => local.make_root().map_err(|error| self.reporter().io("open", "", &error)),
            Kind::Remote(_) => Ok(()),
        }
    }

    /// As [`Destination::open`], in a store that is open already. Its root is the destination's, whatever the URL says.
    ///
    /// # Errors
    ///
    /// `holder` is not a single segment of a key.
    pub fn in_store<S: ObjectStore + MultipartStore>(
        destination: &config::DestinationSettings,
        store: Arc<S>,
        budget: &Budget,
        holder: &str,
    ) -> Result<Self, StoreError> {
        let reporter = Arc::new(Reporter::new(destination));
        check_holder(&reporter, holder)?;
        let (threads, memory) = (Threads::new(Arc::clone(&reporter)), budget.of_store());
        let (objects, multiparts) = (Arc::clone(&store) as _, store as _);
        let bucket = Bucket::new(objects, multiparts, Key::default(), Arc::clone(&reporter), holder, memory.clone());
        let backend = Kind::Remote(Arc::new(bucket));
        Ok(Destination { inner: Arc::new(Inner { reporter, holder: holder.to_owned(), memory, threads, backend }) })
    }

    /// The destination's name in the configuration.
    pub fn name(&self) -> &str {
        self.inner.reporter.destination()
    }

    /// Writes, reads back and deletes a probe.
    ///
    /// # Errors
    ///
    /// The destination cannot be reached or refuses.
    pub async fn check(&self) -> Result<Capabilities, StoreError> {
        self.check_for(&[]).await
    }

    /// As [`Destination::check`], and in a directory also in the folders of these prefixes (see
    /// [`crate::config::Report::key_prefix`]): a folder may be on another device than those beside it.
    ///
    /// # Errors
    ///
    /// As of [`Destination::check`].
    pub async fn check_for(&self, prefixes: &[String]) -> Result<Capabilities, StoreError> {
        let prefixes = prefixes.iter().map(|prefix| self.key("probe", prefix)).collect::<Result<Vec<_>, _>>()?;
        match &self.inner.backend {
            Kind::Local(local) => local.probe(&prefixes).await,
            Kind::Remote(bucket) => bucket.probe().await,
        }
    }

    /// The manifest beside the object at `object_key`. One that is oversized or malformed counts as absent, and is logged.
    ///
    /// # Errors
    ///
    /// The destination cannot be read.
    pub async fn manifest(&self, object_key: &str) -> Result<Option<Manifest>, StoreError> {
        let key = self.key("read", &report::manifest_key(object_key))?;
        let json = for_kind!(&self.inner.backend, backend => backend.read_up_to(&key, MANIFEST_BYTES + 1).await?);
        Ok(json.and_then(|json| self.parse_manifest(&key, &json)))
    }

    /// What is at `object_key` and beside it.
    ///
    /// # Errors
    ///
    /// The destination cannot be read.
    pub async fn look(&self, object_key: &str) -> Result<Lookup, StoreError> {
        let object = self.key("look at", object_key)?;
        let key = self.key("look at", &report::manifest_key(object_key))?;
        let (json, size) =
            for_kind!(&self.inner.backend, backend => backend.look(&object, &key, MANIFEST_BYTES + 1).await?);
        Ok(Lookup {
            size,
            has_manifest: json.is_some(),
            manifest: json.and_then(|json| self.parse_manifest(&key, &json)),
        })
    }

    /// What is at and beside a listed object, in one request if the listing shows the size that the manifest has.
    ///
    /// # Errors
    ///
    /// The destination cannot be read.
    pub async fn look_at(&self, listed: &Listed) -> Result<Lookup, StoreError> {
        if listed.size.is_some()
            && let Some(manifest) = self.manifest(&listed.key).await?
            && listed.size == Some(manifest.size)
        {
            return Ok(Lookup { size: listed.size, has_manifest: true, manifest: Some(manifest) });
        }
        self.look(&listed.key).await
    }

    fn parse_manifest(&self, key: &Key, json: &[u8]) -> Option<Manifest> {
        let warn = |reason: String| {
            tracing::warn!(destination = self.name(), key = key.as_ref(), "ignored a manifest: {reason}");
        };
        if json.len() as u64 > MANIFEST_BYTES {
            warn(format!("it is larger than {MANIFEST_BYTES} bytes"));
            return None;
        }
        serde_json::from_slice(json).inspect_err(|error| warn(error.to_string())).ok()
    }

    /// Puts `manifest` beside its object, replacing an older one in one step. In a directory, this also makes the
    /// object's name survive a power cut: one wait for the disk serves both.
    ///
    /// # Errors
    ///
    /// The destination refused; the old manifest is still there, or the new one is.
    pub async fn put_manifest(&self, manifest: &Manifest) -> Result<(), StoreError> {
        let operation = "write the manifest";
        let key = self.key(operation, &report::manifest_key(&manifest.key))?;
        let json = manifest.to_json();
        let json = json.map_err(|error| self.inner.reporter.text(operation, key.as_ref(), error.to_string()))?;
        for_kind!(&self.inner.backend, backend => backend.put(operation, &key, json).await)
    }

    /// Size of the object at `key` in bytes; `None` if there is none.
    ///
    /// # Errors
    ///
    /// The destination cannot be read.
    pub async fn size(&self, key: &str) -> Result<Option<u64>, StoreError> {
        let key = self.key("look at", key)?;
        for_kind!(&self.inner.backend, backend => backend.size(&key).await)
    }

    /// The bytes of the object at `key`; `None` if there is none.
    ///
    /// # Errors
    ///
    /// The destination cannot be read; also as an item of the stream.
    pub async fn read(&self, key: &str) -> Result<Option<BoxStream<'static, Result<Bytes, StoreError>>>, StoreError> {
        let key = self.key("read", key)?;
        for_kind!(&self.inner.backend, backend => backend.read(&key).await)
    }

    /// SHA-256 of the object at `key`, read in full, in lower-case hex; `None` if there is none.
    ///
    /// # Errors
    ///
    /// The destination cannot be read.
    pub async fn sha256_of(&self, key: &str) -> Result<Option<String>, StoreError> {
        match self.read(key).await? {
            Some(bytes) => hash::of_stream(bytes).await.map(Some),
            None => Ok(None),
        }
    }

    /// The objects of all manifests below `prefix` (`{workspace}/{report}`, see
    /// [`crate::config::Report::key_prefix`]), `_versions/` included. Other files are ignored.
    ///
    /// # Errors
    ///
    /// The destination cannot be listed.
    pub async fn described_objects(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let prefix = self.key("list", prefix)?;
        let found = for_kind!(&self.inner.backend, backend => backend.list(&prefix).await?);
        let described: Vec<_> = found.iter().filter_map(|(key, _)| report::manifest_subject(key)).collect();
        let sizes: HashMap<_, _> = found.into_iter().collect();
        let listed = |key: String| Listed { size: sizes.get(&key).copied().flatten(), key };
        Ok(described.into_iter().map(listed).collect())
    }

    /// Moves the object at `from` to `to`, which must be free or hold the same bytes. May be repeated: an earlier move
    /// counts as success. Its manifest stays, since it names its key.
    ///
    /// # Errors
    ///
    /// There is no object, `to` holds other content, or the destination refused. The bytes are at `from` or at `to`.
    pub async fn move_if_absent(&self, from: &str, to: &str) -> Result<(), StoreError> {
        let (from, to) = (self.key("move", from)?, self.key("move", to)?);
        for_kind!(&self.inner.backend, backend => backend.move_if_absent(&from, &to).await)
    }

    /// Copies the object at `from` to `to`, which must be free or hold the same bytes, so that `from` can be replaced.
    /// May be repeated. Its manifest is not copied, since it names its key.
    ///
    /// # Errors
    ///
    /// There is no object, `to` holds other content, or the destination refused.
    pub async fn copy_if_absent(&self, from: &str, to: &str) -> Result<(), StoreError> {
        let (from, to) = (self.key("copy", from)?, self.key("copy", to)?);
        for_kind!(&self.inner.backend, backend => backend.copy_if_absent("copy", &from, &to).await)
    }

    /// The holders that have staged objects here, without this process.
    ///
    /// # Errors
    ///
    /// The destination cannot be listed.
    pub async fn staged_holders(&self) -> Result<HashSet<String>, StoreError> {
        let mut holders = for_kind!(&self.inner.backend, backend => backend.staged_holders().await)?;
        holders.remove(&self.inner.holder);
        Ok(holders)
    }

    /// Removes what the `dead` holders have left staged, and returns the number of objects removed.
    ///
    /// # Errors
    ///
    /// The destination cannot be listed, or a removal was refused.
    pub async fn sweep(&self, dead: &HashSet<String>) -> Result<u64, StoreError> {
        for_kind!(&self.inner.backend, backend => backend.sweep(dead).await)
    }

    /// Where the bytes of an upload are collected. `direct` is the final key, with [`Route::Direct`](super::Route::Direct).
    pub(super) fn collect(&self, direct: Option<Key>) -> Kind<FileUpload, ObjectUpload> {
        match &self.inner.backend {
            Kind::Local(local) => Kind::Local(FileUpload::new(Arc::clone(local))),
            Kind::Remote(bucket) => Kind::Remote(ObjectUpload::new(Arc::clone(bucket), direct)),
        }
    }

    /// Makes the object's name survive a power cut, where that takes a step of its own.
    pub(super) async fn force(&self, key: &Key) -> Result<(), StoreError> {
        match &self.inner.backend {
            Kind::Local(local) => local.force(key).await,
            Kind::Remote(_) => Ok(()),
        }
    }

    pub(super) fn key(&self, operation: &'static str, key: &str) -> Result<Key, StoreError> {
        match Key::parse(key) {
            Ok(parsed) if !parsed.is_root() => Ok(parsed),
            Ok(_) => Err(self.inner.reporter.text(operation, key, "it is not a key".to_owned())),
            Err(error) => Err(self.inner.reporter.text(operation, key, error.to_string())),
        }
    }

    pub(super) fn backend(&self) -> &Kind<Arc<Local>, Arc<Bucket>> {
        &self.inner.backend
    }

    pub(super) fn memory(&self) -> &Share {
        &self.inner.memory
    }

    pub(super) fn threads(&self) -> &Threads {
        &self.inner.threads
    }

    pub(super) fn reporter(&self) -> &Reporter {
        &self.inner.reporter
    }
}

fn check_holder(reporter: &Reporter, holder: &str) -> Result<(), StoreError> {
    if holder.contains('/') || Key::parse(holder).map_or(true, |key| key.is_root()) {
        return Err(reporter.text("open", "", format!("`{holder}` cannot name a holder of staged files")));
    }
    Ok(())
}
