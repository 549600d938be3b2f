//! A destination as the rest of the crate sees it.
//!
//! This file owns keys in and errors out: what is done at a key, in a directory or an object store alike. It must not know
//! how either does it.

use std::{io, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, stream, stream::BoxStream};
use object_store::path::Path as Key;
use tokio::sync::Semaphore;

use super::{
    Capabilities, Found, MIB, Placement, STAGING,
    budget::{Budget, Share},
    error::{Reporter, StoreError},
    local::{self, Directory},
    manifest::Manifest,
    remote::Bucket,
    upload::Upload,
};
use crate::{config, report};

/// Largest manifest that is read. A manifest of as many entries as the verifier admits is well below it.
const MANIFEST_BYTES: u64 = 64 * MIB;

/// How many steps of one directory are under way at once. Each takes a thread, which a mount that hangs keeps.
const STEPS_AT_ONCE: usize = 16;

/// An opened destination. Clones are the same destination.
#[derive(Clone)]
pub struct Destination {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) reporter: Arc<Reporter>,
    holder: String,
    pub(super) memory: Share,
    /// Steps of a directory that may be under way at once.
    steps: Arc<Semaphore>,
    pub(super) backend: Backend,
}

pub(super) enum Backend {
    Local(Arc<Directory>),
    Remote(Arc<Bucket>),
}

impl Destination {
    /// Opens a destination; a missing directory is made, a bucket isn't spoken to yet.
    ///
    /// `holder` names this process among all that may use the destination: staged leftovers are kept under it, and
    /// [`Destination::sweep`] asks whether it lives. It must be a single part of a key.
    ///
    /// Credentials and settings of object stores come from the environment as object_store reads it (`AWS_…`,
    /// `GOOGLE_…`, `AZURE_…`) and, with precedence, from the destination's `options`.
    ///
    /// # Errors
    ///
    /// The URL or an option is not understood, or the directory cannot be made.
    pub fn open(destination: &config::Destination, budget: Budget, holder: &str) -> Result<Self, StoreError> {
        let reporter = Arc::new(Reporter::new(destination));
        let fail = |cause: String| reporter.text("open", "", cause);
        if holder.contains('/') || Key::parse(holder).map_or(true, |key| key.is_root()) {
            return Err(fail(format!("`{holder}` cannot name a holder of staged files")));
        }
        let (memory, backend) = if destination.url.scheme() == "file" {
            let root = destination.url.to_file_path().map_err(|()| {
                fail("a file:// URL needs an absolute path and no host, as in file:///srv/reports".to_owned())
            })?;
            let directory = Directory::open(&destination.name, root, holder, destination.fsync);
            let directory = directory.map_err(|error| reporter.io("open", "", &error))?;
            (budget.of_directory(), Backend::Local(Arc::new(directory)))
        } else {
            let bucket = Bucket::open(destination, Arc::clone(&reporter), holder)?;
            (budget.of_store(), Backend::Remote(Arc::new(bucket)))
        };
        let steps = Arc::new(Semaphore::new(STEPS_AT_ONCE));
        Ok(Destination { inner: Arc::new(Inner { reporter, holder: holder.to_owned(), memory, steps, backend }) })
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

    /// The same, in a directory also where objects with these prefixes go (see [`crate::config::Report::key_prefix`]): a
    /// folder may be another device than those beside it.
    ///
    /// # Errors
    ///
    /// As of [`Destination::check`].
    pub async fn check_for(&self, prefixes: &[String]) -> Result<Capabilities, StoreError> {
        match &self.inner.backend {
            Backend::Local(directory) => {
                let directory = Arc::clone(directory);
                let keys = prefixes.iter().map(|prefix| self.key("probe", prefix));
                let folders: Vec<_> = keys.map(|key| Ok(directory.path(&key?))).collect::<Result<_, StoreError>>()?;
                let local::Abilities { refuses_overwrite, forces_names } =
                    self.blocking("probe", STAGING, move || directory.probe(&folders)).await?;
                Ok(Capabilities { refuses_overwrite, deletes: true, forces_names, is_directory: true })
            }
            Backend::Remote(bucket) => bucket.probe().await,
        }
    }

    /// The manifest beside the object at `object_key`. One that is oversized or unreadable as a manifest counts as
    /// absent, with a warning in the log.
    ///
    /// # Errors
    ///
    /// The destination cannot be read.
    pub async fn manifest(&self, object_key: &str) -> Result<Option<Manifest>, StoreError> {
        let key = self.key("read", &report::manifest_key(object_key))?;
        let json = match &self.inner.backend {
            Backend::Local(directory) => {
                let path = directory.path(&key);
                let step = move || Directory::read_up_to(&path, MANIFEST_BYTES + 1);
                self.blocking("read", key.as_ref(), step).await?
            }
            Backend::Remote(bucket) => bucket.read_up_to(&key, MANIFEST_BYTES + 1).await?,
        };
        Ok(json.and_then(|json| self.parse_manifest(&key, &json)))
    }

    /// What is at `object_key` and beside it.
    ///
    /// # Errors
    ///
    /// The destination cannot be read.
    pub async fn look(&self, object_key: &str) -> Result<Found, StoreError> {
        let object = self.key("look at", object_key)?;
        let key = self.key("look at", &report::manifest_key(object_key))?;
        let (json, size) = match &self.inner.backend {
            Backend::Local(directory) => {
                let (path, beside) = (directory.path(&object), directory.path(&key));
                let directory = Arc::clone(directory);
                let step = move || {
                    let found = (Directory::read_up_to(&beside, MANIFEST_BYTES + 1)?, Directory::size(&path)?);
                    if let (Some(_), Some(_)) = found {
                        // Whoever put them there may have died before forcing their names to disk.
                        directory.force(&path)?;
                    }
                    Ok(found)
                };
                self.blocking("look at", &format!("{object}` and `{key}"), step).await?
            }
            Backend::Remote(bucket) => {
                (bucket.read_up_to(&key, MANIFEST_BYTES + 1).await?, bucket.size(&object).await?)
            }
        };
        Ok(Found {
            size,
            has_manifest: json.is_some(),
            manifest: json.and_then(|json| self.parse_manifest(&key, &json)),
        })
    }

    fn parse_manifest(&self, key: &Key, json: &[u8]) -> Option<Manifest> {
        let passed_over = |reason: String| {
            tracing::warn!(destination = self.name(), key = key.as_ref(), "manifest passed over: {reason}");
        };
        if json.len() as u64 > MANIFEST_BYTES {
            passed_over(format!("larger than {MANIFEST_BYTES} bytes"));
            return None;
        }
        serde_json::from_slice(json).inspect_err(|error| passed_over(error.to_string())).ok()
    }

    /// Puts `manifest` beside its object, replacing an older one in one step. In a directory, this is also what makes
    /// sure that the object's name survives a power cut: one wait for the disk serves both.
    ///
    /// # Errors
    ///
    /// The destination refused; what was there before is still there, or the new one is.
    pub async fn put_manifest(&self, manifest: &Manifest) -> Result<(), StoreError> {
        let key = self.key("write the manifest", &report::manifest_key(&manifest.key))?;
        let fail = |cause| self.inner.reporter.text("write the manifest", key.as_ref(), cause);
        let json = manifest.to_json().map_err(|error| fail(error.to_string()))?;
        match &self.inner.backend {
            Backend::Local(directory) => {
                let (directory, path) = (Arc::clone(directory), directory.path(&key));
                self.blocking("write the manifest", key.as_ref(), move || directory.put(&path, &json)).await
            }
            Backend::Remote(bucket) => bucket.replace(&key, json.into()).await,
        }
    }

    /// Size of the object at `key` in bytes; `None` when there is none.
    ///
    /// # Errors
    ///
    /// The destination cannot be asked.
    pub async fn size(&self, key: &str) -> Result<Option<u64>, StoreError> {
        let key = self.key("look at", key)?;
        match &self.inner.backend {
            Backend::Local(directory) => {
                let path = directory.path(&key);
                self.blocking("look at", key.as_ref(), move || Directory::size(&path)).await
            }
            Backend::Remote(bucket) => bucket.size(&key).await,
        }
    }

    /// The bytes of the object at `key`; `None` when there is none.
    ///
    /// # Errors
    ///
    /// The destination cannot be read; also as an item of the stream.
    pub async fn read(&self, key: &str) -> Result<Option<BoxStream<'static, Result<Bytes, StoreError>>>, StoreError> {
        let key = self.key("read", key)?;
        match &self.inner.backend {
            Backend::Local(directory) => {
                let path = directory.path(&key);
                let file = self.blocking("read", key.as_ref(), move || Directory::read(&path)).await?;
                Ok(file.map(|file| {
                    let next = move |(this, key, mut file): (Self, Key, std::fs::File)| async move {
                        let step = move || Directory::read_some(&mut file).map(|bytes| (bytes, file));
                        let (bytes, file) = this.blocking("read", key.as_ref(), step).await?;
                        Ok((!bytes.is_empty()).then(|| (bytes.into(), (this, key, file))))
                    };
                    stream::try_unfold((self.clone(), key, file), next).boxed()
                }))
            }
            Backend::Remote(bucket) => bucket.read(&key).await,
        }
    }

    /// The *object* keys of all manifests below `prefix` (`{workspace}/{report}`, see
    /// [`crate::config::Report::key_prefix`]), `_versions/` included. Other files are passed over.
    ///
    /// # Errors
    ///
    /// The destination cannot be listed.
    pub async fn manifest_keys(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let prefix = self.key("list", prefix)?;
        let keys = match &self.inner.backend {
            Backend::Local(directory) => {
                let (directory, path) = (Arc::clone(directory), directory.path(&prefix));
                self.blocking("list", prefix.as_ref(), move || directory.keys(&path)).await?
            }
            Backend::Remote(bucket) => bucket.keys(&prefix).await?,
        };
        Ok(keys.iter().filter_map(|key| report::manifest_subject(key)).collect())
    }

    /// Moves the object at `from` to `to`, which must be free or hold the same bytes. May be repeated: nothing happens
    /// when it was done before. A manifest is not moved along, since it names its key.
    ///
    /// # Errors
    ///
    /// There is no object, other content is at `to`, or the destination refused. The bytes are at `from` or at `to`.
    pub async fn move_aside(&self, from: &str, to: &str) -> Result<(), StoreError> {
        let (from, to) = (self.key("move", from)?, self.key("move", to)?);
        match &self.inner.backend {
            Backend::Local(directory) => {
                let directory = Arc::clone(directory);
                let (source, target) = (directory.path(&from), directory.path(&to));
                let step = move || directory.move_aside(&source, &target);
                self.blocking("move", &format!("{from}` to `{to}"), step).await
            }
            Backend::Remote(bucket) => bucket.move_aside(&from, &to, &self.inner.memory).await,
        }
    }

    /// Copies the object at `from` to `to`, which must be free or hold the same bytes, so that `from` can be replaced.
    /// May be repeated. A manifest is not copied along, since it names its key.
    ///
    /// # Errors
    ///
    /// There is no object, other content is at `to`, or the destination refused.
    pub async fn keep_as(&self, from: &str, to: &str) -> Result<(), StoreError> {
        let (from, to) = (self.key("copy", from)?, self.key("copy", to)?);
        match &self.inner.backend {
            Backend::Local(directory) => {
                let directory = Arc::clone(directory);
                let (source, target) = (directory.path(&from), directory.path(&to));
                let step = move || directory.keep_as(&source, &target);
                self.blocking("copy", &format!("{from}` to `{to}"), step).await
            }
            Backend::Remote(bucket) => bucket.keep_as("copy", &from, &to, &self.inner.memory).await,
        }
    }

    /// Begins an upload. Nothing is at the destination before the bytes are more than one part.
    ///
    /// `expected_size` is the exact number of bytes to come, where known: it makes small objects cheap to hold.
    ///
    /// # Errors
    ///
    /// The key cannot be one, or the object would be larger than the destination takes.
    pub fn stage(&self, placement: Placement<'_>, expected_size: Option<u64>) -> Result<Upload, StoreError> {
        let direct = match placement {
            Placement::Direct(key) => Some(self.key("stage", key)?),
            Placement::Staged => None,
        };
        Upload::begin(self.clone(), direct, expected_size)
    }

    /// Removes what dead holders have left staged, and returns how many objects that were. This process's own is left
    /// alone, and so is what `is_alive` vouches for.
    ///
    /// # Errors
    ///
    /// The destination cannot be listed, or a removal was refused.
    pub async fn sweep(&self, is_alive: impl Fn(&str) -> bool) -> Result<u64, StoreError> {
        let is_dead = |holder: &str| holder != self.inner.holder && !is_alive(holder);
        match &self.inner.backend {
            Backend::Local(directory) => {
                let lister = Arc::clone(directory);
                let mut removed = 0;
                for holder in self.blocking("sweep", STAGING, move || lister.holders()).await? {
                    if is_dead(&holder) {
                        let directory = Arc::clone(directory);
                        removed += self.blocking("sweep", STAGING, move || directory.remove_staged(&holder)).await?;
                    }
                }
                Ok(removed)
            }
            Backend::Remote(bucket) => bucket.sweep(is_dead).await,
        }
    }

    pub(super) fn key(&self, operation: &'static str, key: &str) -> Result<Key, StoreError> {
        match Key::parse(key) {
            Ok(parsed) if !parsed.is_root() => Ok(parsed),
            Ok(_) => Err(self.inner.reporter.text(operation, key, "it is not a key".to_owned())),
            Err(error) => Err(self.inner.reporter.text(operation, key, error.to_string())),
        }
    }

    /// Runs a step of a local destination where blocking is allowed.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        key: &str,
        step: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        // The thread keeps its place even when its caller no longer waits: a mount that hangs keeps these threads, and
        // takes no others.
        let place = Arc::clone(&self.inner.steps).acquire_owned().await;
        let step = move || {
            let done = step();
            drop(place);
            done
        };
        let result = match tokio::task::spawn_blocking(step).await {
            Ok(result) => result,
            Err(failure) => Err(io::Error::other(failure)),
        };
        result.map_err(|error| self.inner.reporter.io(operation, key, &error))
    }
}
