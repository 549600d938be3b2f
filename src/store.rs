//! Destinations: staged uploads, objects that are never overwritten, and the manifests beside them.
//!
//! This file owns how bytes come to lie under their final name. It must not know where they came from, what is in
//! them, or what is recorded about them: of the verifier it knows the proof that an upload is worth its name, of the
//! ledger nothing. Names of objects are made in [`crate::report`]; here they are keys.

mod budget;
mod credentials;
mod error;
mod local;
mod manifest;
mod remote;

use std::{
    fmt,
    future::Future,
    io, mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use futures::{StreamExt, stream, stream::BoxStream};
use object_store::path::Path as Key;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

pub use self::budget::Budget;
use self::{
    budget::{BLOCK_BYTES, Frozen, Part, Share},
    error::Reporter,
    local::{Directory, Staged},
    remote::{Bucket, Multipart, StagedObject},
};
pub use self::{
    error::StoreError,
    manifest::{Format, Manifest, ManifestEntry, Window},
};
use crate::{archive::Verified, config, report};

/// Where unfinished uploads are, at the destination's root.
const STAGING: &str = "_staging";

/// Size of a part, and of the largest object that is put in one request. The least that S3 takes as a part of a
/// multipart upload.
const PART_BYTES: u64 = 5 * MIB;

/// Size of a part where parts of [`PART_BYTES`] would be too many. With [`MAX_PARTS`], the bound of an object is 78 GiB.
const LARGE_PART_BYTES: u64 = 8 * MIB;

/// Most parts in one multipart upload (S3's limit).
const MAX_PARTS: u64 = 10_000;

/// Largest manifest that is read. A manifest of as many entries as the verifier admits is well below it.
const MANIFEST_BYTES: u64 = 64 * MIB;

/// How many steps of one directory are under way at once. Each takes a thread, which a mount that hangs keeps.
const STEPS_AT_ONCE: usize = 16;

const MIB: u64 = 1024 * 1024;

/// An opened destination. Clones are the same destination.
#[derive(Clone)]
pub struct Destination {
    inner: Arc<Inner>,
}

struct Inner {
    reporter: Arc<Reporter>,
    holder: String,
    memory: Share,
    /// Steps of a directory that may be under way at once.
    steps: Arc<Semaphore>,
    backend: Backend,
}

enum Backend {
    Local(Arc<Directory>),
    Remote(Arc<Bucket>),
}

/// What a destination can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether the destination itself refuses to overwrite (`If-None-Match`, hard links). If not, moesync looks before
    /// it writes, which keeps apart only writers that hold the claim in turn.
    pub refuses_overwrite: bool,
    /// Whether what is staged can be removed again. If not, reports are stored all the same and leftovers stay.
    pub deletes: bool,
    /// Whether the names of new objects survive a power cut. If not, the newest may be missing after one.
    pub forces_names: bool,
    /// Whether it is a directory of this machine.
    pub is_directory: bool,
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.deletes {
            true => "written, read and deleted",
            false => "written and read; what is staged there cannot be deleted and will stay",
        })?;
        f.write_str(match (self.refuses_overwrite, self.is_directory) {
            (true, _) => "; refuses to overwrite",
            (false, true) => {
                "; cannot link a file to its final name, so it looks before it renames: let one moesync at a time write to it"
            }
            (false, false) => {
                "; ignores conditional puts: let one moesync at a time write to it, and switch on versioning"
            }
        })?;
        f.write_str(match self.forces_names {
            true => "",
            false => "; cannot force the names of new files to disk, so a power cut may lose the newest (`fsync = false` accepts that)",
        })
    }
}

/// What is at an object's key, and beside it.
#[derive(Debug)]
pub struct Found {
    /// Size of the object in bytes; `None` when there is none.
    pub size: Option<u64>,
    /// Its manifest. One that is oversized or unreadable as a manifest counts as absent, with a warning in the log.
    pub manifest: Option<Manifest>,
    /// Whether something has the manifest's name, readable or not.
    pub has_manifest: bool,
}

/// Where a large upload to an object store gathers. Small ones and files don't care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement<'a> {
    /// Straight at its final key: nothing is copied in the end. If that key turns out to be taken, the bytes are gone.
    Direct(&'a str),
    /// Under `_staging/`, from where it can still go anywhere: for a key known to be taken, or bytes that may have to
    /// be quarantined.
    Staged,
}

/// How a commit ended, when nothing failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// The object is at its key, put there by this commit.
    Stored,
    /// The object is at its key and was before: the same bytes, compared by hash. Also what is found when the reply to
    /// our own write was lost.
    AlreadyThere,
    /// Other content is at the key and was left alone.
    Taken {
        /// Whether the upload still has the bytes, so that it can be committed under another key. Otherwise they must
        /// be fetched again, into [`Placement::Staged`].
        kept: bool,
    },
    /// `still_ours` said no. Nothing was written.
    NotOurs,
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
        let upload = Upload {
            destination: self.clone(),
            direct,
            expected_size,
            written: 0,
            hash: Sha256::new(),
            sha256: None,
            part: None,
            state: State::Gathering,
            waits_for_memory: Arc::default(),
        };
        if let (Backend::Remote(_), Some(size)) = (&self.inner.backend, expected_size)
            && size > MAX_PARTS * LARGE_PART_BYTES
        {
            return Err(upload.too_large());
        }
        Ok(upload)
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

    fn key(&self, operation: &'static str, key: &str) -> Result<Key, StoreError> {
        match Key::parse(key) {
            Ok(parsed) if !parsed.is_root() => Ok(parsed),
            Ok(_) => Err(self.inner.reporter.text(operation, key, "it is not a key".to_owned())),
            Err(error) => Err(self.inner.reporter.text(operation, key, error.to_string())),
        }
    }

    /// Runs a step of a local destination where blocking is allowed.
    async fn blocking<T: Send + 'static>(
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

/// Bytes on their way to a destination. Dropped, or after an error, it leaves nothing there.
///
/// Dropping cleans up in the background where that takes the network; [`Upload::abort`] waits for it.
pub struct Upload {
    destination: Destination,
    /// The final key, with [`Placement::Direct`].
    direct: Option<Key>,
    expected_size: Option<u64>,
    written: u64,
    /// Of the bytes before `part`. The threads that write compute it, so that the tasks of the runtime do not wait for it.
    hash: Sha256,
    /// Of all the bytes, in lower-case hex, once they are to get a name.
    sha256: Option<String>,
    /// The part being filled.
    part: Option<Part>,
    state: State,
    waits_for_memory: Arc<AtomicBool>,
}

/// Where the bytes before `part` are.
enum State {
    /// There are none.
    Gathering,
    /// In a file.
    File(Staged),
    /// In parts at an object store, not yet an object.
    Parts(Multipart),
    /// All there are, in memory, after a first commit.
    Whole(Frozen),
    /// All there are, in an object under `_staging/`, after a first commit.
    Object(StagedObject),
    /// Nowhere: stored, aborted or failed.
    Over,
}

impl Upload {
    /// Takes the next bytes. Waits for the process's memory budget and for the destination.
    ///
    /// # Errors
    ///
    /// The destination refused, or more came than was expected. The upload is over.
    pub async fn write(&mut self, mut chunk: Bytes) -> Result<(), StoreError> {
        self.written += chunk.len() as u64;
        if let Some(expected) = self.expected_size.filter(|expected| self.written > *expected) {
            self.state = State::Over;
            return Err(self.fail(format!("{expected} bytes were announced, but more came")));
        }
        while !chunk.is_empty() {
            if self.part.as_ref().is_some_and(Part::is_full) {
                self.flush().await?;
            }
            let mut part = match self.part.take() {
                Some(part) => part,
                None => {
                    let capacity = self.next_capacity(self.written - chunk.len() as u64)?;
                    self.destination.inner.memory.part(capacity)
                }
            };
            part.fill(&mut chunk);
            if !chunk.is_empty() && !part.is_full() {
                if part.is_empty()
                    && let Backend::Local(directory) = &self.destination.inner.backend
                {
                    // A file takes any number of bytes at once.
                    let directory = Arc::clone(directory);
                    let step = move |staged, hash: &mut Sha256| {
                        hash.update(&chunk);
                        directory.append(staged, &chunk)
                    };
                    return self.append(step).await;
                }
                self.waits_for_memory.store(true, Ordering::Relaxed);
                part.grow().await;
                self.waits_for_memory.store(false, Ordering::Relaxed);
            }
            self.part = Some(part);
        }
        Ok(())
    }

    /// Whether the bytes gather at their final key already and can go nowhere else.
    pub fn is_bound(&self) -> bool {
        self.direct.is_some() && matches!(self.state, State::Parts(_))
    }

    /// Whether [`Upload::write`] waits for memory at the moment, rather than for the destination.
    pub fn waits_for_memory(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.waits_for_memory)
    }

    /// Returns once the upload has to end for the sake of others: it holds the last memory that the destination has for
    /// uploads, takes long to fill it, and others wait for it.
    pub async fn overstays(&self) {
        match &self.part {
            Some(part) => part.overstays().await,
            None => std::future::pending().await,
        }
    }

    /// Gives the bytes their final name, if that is free. `verified` proves that they are worth it. They are safe with
    /// their manifest: see [`Destination::put_manifest`].
    ///
    /// `still_ours` is awaited where the destination cannot refuse to overwrite by itself, last thing before the object
    /// appears: whether the caller still holds the claim.
    ///
    /// After [`Commit::Taken`] with `kept`, the upload may be committed again, under another key.
    ///
    /// # Errors
    ///
    /// The destination refused, or these are not the bytes that were verified. The upload is over. Whether the object
    /// is there is open only if a reply was lost; the next attempt will find it.
    pub async fn commit(
        &mut self,
        verified: &Verified,
        key: &str,
        still_ours: impl Future<Output = bool> + Send,
    ) -> Result<Commit, StoreError> {
        if verified.size() != self.written {
            self.state = State::Over;
            let (verified, written) = (verified.size(), self.written);
            return Err(self.fail(format!("{verified} bytes were verified, but {written} came to be stored")));
        }
        self.check_hash(verified.sha256()).await?;
        self.place(verified.sha256(), key, still_ours).await
    }

    /// Gives the bytes their final name in one step, whatever has it: for the one kind of object that is fetched anew
    /// because it restates, and only once what was there is kept elsewhere ([`Destination::keep_as`]).
    ///
    /// # Errors
    ///
    /// As of [`Upload::commit`]; also when the upload gathers at its final key, [`Placement::Direct`]. The old object or
    /// the new one is at the key.
    pub async fn replace(mut self, verified: &Verified, key: &str) -> Result<(), StoreError> {
        let key = self.destination.key("replace", key)?;
        if verified.size() != self.written || self.direct.is_some() {
            return Err(self.fail("these are not the bytes that were verified, or they cannot go there".to_owned()));
        }
        self.check_hash(verified.sha256()).await?;
        let part = self.part.take();
        let inner = Arc::clone(&self.destination.inner);
        match (&inner.backend, mem::replace(&mut self.state, State::Over)) {
            (Backend::Local(directory), state @ (State::Gathering | State::File(_))) => {
                let staged = if let State::File(staged) = state { Some(staged) } else { None };
                let (directory, target) = (Arc::clone(directory), directory.path(&key));
                let step = move || {
                    let rest = part.as_ref().map_or(&[][..], Part::bytes);
                    directory.replace(staged, rest, &target)
                };
                self.destination.blocking("replace", key.as_ref(), step).await
            }
            (Backend::Remote(bucket), State::Gathering) => {
                let whole = part.unwrap_or_else(|| inner.memory.part(0)).freeze();
                bucket.replace(&key, whole.payload()).await
            }
            (Backend::Remote(_), State::Parts(mut multipart)) => {
                multipart.push_last(part).await?;
                let object = multipart.complete_staged(self.written).await?;
                let replaced = object.replace(&key, self.written, &inner.memory).await;
                object.delete().await;
                replaced
            }
            _ => Err(self.fail("the upload is over".to_owned())),
        }
    }

    /// Keeps bytes that cannot be verified and have this hash, at a key under `_quarantine/`. Overwrites nothing, as
    /// [`Upload::commit`].
    ///
    /// # Errors
    ///
    /// As of [`Upload::commit`]; also when the upload gathers at its final key, [`Placement::Direct`].
    pub async fn keep(mut self, sha256: &str, key: &str) -> Result<Commit, StoreError> {
        self.check_hash(sha256).await?;
        // No claim is asked for: the key has the content's hash in it, so whoever else writes there writes the same.
        let kept = self.place(sha256, key, async { true }).await?;
        let destination = &self.destination;
        if let Backend::Local(directory) = &destination.inner.backend {
            let directory = Arc::clone(directory);
            let path = directory.path(&destination.key("keep", key)?);
            destination.blocking("keep", key, move || directory.force(&path)).await?;
        }
        Ok(kept)
    }

    /// Ends the upload and waits until nothing is left of it. What cannot be removed now is swept later.
    pub async fn abort(mut self) {
        self.part = None;
        match mem::replace(&mut self.state, State::Over) {
            State::Parts(multipart) => multipart.abort().await,
            State::Object(object) => object.delete().await,
            State::File(staged) => remove(self.destination.clone(), staged).await,
            State::Gathering | State::Whole(_) | State::Over => {}
        }
    }

    /// Refuses the bytes unless they have this hash.
    async fn check_hash(&mut self, expected: &str) -> Result<(), StoreError> {
        if self.sha256.is_none() {
            if let Some(part) = self.part.take() {
                self.part = Some(self.hashed(part).await?);
            }
            self.sha256 = Some(hex::encode(mem::take(&mut self.hash).finalize()));
        }
        match self.sha256.as_deref() {
            Some(sha256) if sha256 != expected => {
                let cause = format!("the bytes verified have the sha256 {expected}, those to be stored {sha256}");
                self.state = State::Over;
                Err(self.fail(cause))
            }
            _ => Ok(()),
        }
    }

    /// Counts a part in, on a thread that may be kept busy.
    async fn hashed(&mut self, part: Part) -> Result<Part, StoreError> {
        let mut hash = mem::take(&mut self.hash);
        let step = move || {
            part.blocks().for_each(|block| hash.update(block));
            Ok((hash, part))
        };
        match self.destination.blocking("hash", STAGING, step).await {
            Ok((hash, part)) => {
                self.hash = hash;
                Ok(part)
            }
            Err(error) => {
                self.state = State::Over;
                Err(error)
            }
        }
    }

    async fn place(
        &mut self,
        sha256: &str,
        key: &str,
        still_ours: impl Future<Output = bool> + Send,
    ) -> Result<Commit, StoreError> {
        let key = self.destination.key("store", key)?;
        let (size, part) = (self.written, self.part.take());
        let state = mem::replace(&mut self.state, State::Over);
        let inner = Arc::clone(&self.destination.inner);
        let (commit, state) = match &inner.backend {
            Backend::Local(directory) => {
                let staged = match state {
                    State::Gathering => None,
                    State::File(staged) => Some(staged),
                    _ => return Err(self.fail("the upload is over".to_owned())),
                };
                let (directory, target, sha256) = (Arc::clone(directory), directory.path(&key), sha256.to_owned());
                let step = move || {
                    let rest = part.as_ref().map_or(&[][..], Part::bytes);
                    directory.commit(staged, rest, &target, size, &sha256)
                };
                let (commit, staged) = self.destination.blocking("store", key.as_ref(), step).await?;
                (commit, staged.map_or(State::Over, State::File))
            }
            Backend::Remote(bucket) => match state {
                State::Gathering | State::Whole(_) => {
                    let whole = match state {
                        State::Whole(whole) => whole,
                        _ => part.unwrap_or_else(|| inner.memory.part(0)).freeze(),
                    };
                    let commit = bucket.put_new(&key, whole.payload(), sha256, still_ours).await?;
                    (commit, State::Whole(whole))
                }
                State::Parts(mut multipart) if multipart.is_at(&key) => {
                    multipart.push_last(part).await?;
                    (multipart.complete_new(size, sha256, still_ours).await?, State::Over)
                }
                State::Parts(_) if self.direct.is_some() => {
                    return Err(self.fail(format!("the upload gathers at its final key and cannot go to `{key}`")));
                }
                State::Parts(mut multipart) => {
                    multipart.push_last(part).await?;
                    let object = multipart.complete_staged(size).await?;
                    let commit = object.copy_to(&key, size, sha256, still_ours, &inner.memory).await?;
                    (commit, State::Object(object))
                }
                State::Object(object) => {
                    let commit = object.copy_to(&key, size, sha256, still_ours, &inner.memory).await?;
                    (commit, State::Object(object))
                }
                State::File(_) | State::Over => return Err(self.fail("the upload is over".to_owned())),
            },
        };
        match (commit, state) {
            (Commit::Taken { kept: true }, state) => self.state = state,
            (_, State::Object(object)) => object.delete().await,
            _ => {}
        }
        Ok(commit)
    }

    /// Sends the full part on its way.
    async fn flush(&mut self) -> Result<(), StoreError> {
        let Some(part) = self.part.take() else { return Ok(()) };
        let inner = Arc::clone(&self.destination.inner);
        let bucket = match &inner.backend {
            Backend::Local(directory) => {
                let directory = Arc::clone(directory);
                let step = move |staged, hash: &mut Sha256| {
                    hash.update(part.bytes());
                    let staged = directory.append(staged, part.bytes())?;
                    part.recycle();
                    Ok(staged)
                };
                return self.append(step).await;
            }
            Backend::Remote(bucket) => bucket,
        };
        let part = self.hashed(part).await?;
        let mut multipart = match mem::replace(&mut self.state, State::Over) {
            State::Gathering => bucket.start_multipart(self.direct.as_ref()).await?,
            State::Parts(multipart) => multipart,
            _ => return Err(self.fail("the upload is over".to_owned())),
        };
        multipart.push(part).await?;
        self.state = State::Parts(multipart);
        Ok(())
    }

    /// Writes behind what is staged in a directory, and adds it to the hash.
    async fn append(
        &mut self,
        step: impl FnOnce(Option<Staged>, &mut Sha256) -> io::Result<Staged> + Send + 'static,
    ) -> Result<(), StoreError> {
        let staged = match mem::replace(&mut self.state, State::Over) {
            State::Gathering => None,
            State::File(staged) => Some(staged),
            _ => return Err(self.fail("the upload is over".to_owned())),
        };
        let mut hash = mem::take(&mut self.hash);
        let step = move || Ok((step(staged, &mut hash)?, hash));
        let (staged, hash) = self.destination.blocking("stage", STAGING, step).await?;
        (self.state, self.hash) = (State::File(staged), hash);
        Ok(())
    }

    /// How many bytes the part that begins at `position` shall have. Parts are equal where the size is known, because
    /// some stores want that.
    fn next_capacity(&self, position: u64) -> Result<u64, StoreError> {
        let part = match &self.destination.inner.backend {
            Backend::Local(_) => BLOCK_BYTES,
            Backend::Remote(_) => part_bytes(position, self.expected_size).ok_or_else(|| self.too_large())?,
        };
        Ok(self.expected_size.map_or(part, |expected| part.min(expected - position)))
    }

    fn too_large(&self) -> StoreError {
        self.fail(format!("the object is too large: parts of {LARGE_PART_BYTES} bytes, at most {MAX_PARTS} of them"))
    }

    fn fail(&self, cause: String) -> StoreError {
        self.destination.inner.reporter.text("store", self.direct.as_ref().map_or("", Key::as_ref), cause)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // The rest cleans up after itself. A directory may hang, and its file is removed where that keeps no other work.
        if let (State::File(staged), Ok(runtime)) =
            (mem::replace(&mut self.state, State::Over), tokio::runtime::Handle::try_current())
        {
            runtime.spawn(remove(self.destination.clone(), staged));
        }
    }
}

/// Removes a staged file. What cannot be removed now is swept at the next start.
async fn remove(destination: Destination, staged: Staged) {
    let removed = destination.blocking("remove", STAGING, move || {
        drop(staged);
        Ok(())
    });
    if let Err(error) = removed.await {
        tracing::warn!("{error}");
    }
}

/// Size of the part that begins at `position` in an object of `expected` bytes; `None` beyond [`MAX_PARTS`].
fn part_bytes(position: u64, expected: Option<u64>) -> Option<u64> {
    match expected {
        Some(expected) if expected <= MAX_PARTS * PART_BYTES => Some(PART_BYTES),
        Some(_) => Some(LARGE_PART_BYTES),
        // Small parts for the first half of the parts there may be, then large ones.
        None => {
            let small = MAX_PARTS / 2 * PART_BYTES;
            let limit = small + MAX_PARTS / 2 * LARGE_PART_BYTES;
            (position < limit).then_some(if position < small { PART_BYTES } else { LARGE_PART_BYTES })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_object_that_is_admitted_needs_more_parts_than_a_store_takes() {
        for expected in [1, MAX_PARTS * PART_BYTES, MAX_PARTS * PART_BYTES + 1, MAX_PARTS * LARGE_PART_BYTES] {
            let part = part_bytes(0, Some(expected)).unwrap();
            assert!(expected.div_ceil(part) <= MAX_PARTS, "{expected}");
        }
        let (mut position, mut parts) = (0, 0);
        while let Some(part) = part_bytes(position, None) {
            position += part;
            parts += 1;
        }
        assert_eq!((parts, position), (MAX_PARTS, 65_000 * MIB));
    }
}
