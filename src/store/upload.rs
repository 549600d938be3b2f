//! Bytes on their way to a destination.
//!
//! This file owns the memory, hash and checks of an upload, alike for directories and object stores. It must not know where
//! the bytes come from, or how the destination collects them.

use std::{
    future::Future,
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use object_store::path::Path as Key;
use sha2::{Digest, Sha256};

use super::{
    Commit, Route, STAGING, StoreError,
    budget::Part,
    destination::Destination,
    hash,
    kind::{Kind, for_kind},
    local::FileUpload,
    remote::ObjectUpload,
};
use crate::archive::Verified;

/// The largest part, in bytes, that is hashed between two awaits: that takes no longer than handing it to a thread.
const HASHED_AT_ONCE: usize = 96 * 1024;

/// Bytes on their way to a destination. Dropped, or after an error, it leaves nothing there.
///
/// Dropping cleans up in the background; [`Upload::abort`] waits for that.
pub struct Upload {
    destination: Destination,
    /// The final key, with [`super::Route::Direct`].
    direct: Option<Key>,
    expected_size: Option<u64>,
    written: u64,
    /// Of the bytes before `part`.
    hash: Sha256,
    /// Of all bytes, in lower-case hex, once they are complete.
    sha256: Option<String>,
    /// The part being filled.
    part: Option<Part>,
    /// The bytes before `part`.
    collector: Kind<FileUpload, ObjectUpload>,
    waits_for_memory: Arc<AtomicBool>,
}

/// All bytes of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Size in bytes.
    pub size: u64,
    /// SHA-256, in lower-case hex.
    pub sha256: String,
}

impl Destination {
    /// Begins an upload. The destination is not touched before the bytes exceed one part.
    ///
    /// `expected_size` is the exact number of bytes to come, if known: small objects then take little memory.
    ///
    /// # Errors
    ///
    /// The key is invalid, or the object would be larger than the destination takes.
    pub fn stage(&self, route: Route<'_>, expected_size: Option<u64>) -> Result<Upload, StoreError> {
        let direct = match route {
            Route::Direct(key) => Some(self.key("stage", key)?),
            Route::Staged => None,
        };
        let upload = Upload {
            destination: self.clone(),
            collector: self.collect(direct.clone()),
            direct,
            expected_size,
            written: 0,
            hash: Sha256::new(),
            sha256: None,
            part: None,
            waits_for_memory: Arc::default(),
        };
        upload.next_capacity(0)?;
        Ok(upload)
    }
}

impl Upload {
    /// Takes the next bytes. Waits for memory and for the destination.
    ///
    /// # Errors
    ///
    /// The destination refused, or more bytes came than expected. The upload is over.
    pub async fn write(&mut self, mut chunk: Bytes) -> Result<(), StoreError> {
        self.written += chunk.len() as u64;
        if let Some(expected) = self.expected_size.filter(|expected| self.written > *expected) {
            self.end();
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
                    self.destination.memory().part(capacity)
                }
            };
            part.fill(&mut chunk);
            if !chunk.is_empty() && !part.is_full() {
                if part.is_empty()
                    && let Kind::Local(file) = &mut self.collector
                {
                    // A file takes any number of bytes, so memory is not needed.
                    return file.append(chunk, &mut self.hash).await;
                }
                self.waits_for_memory.store(true, Ordering::Relaxed);
                part.grow().await;
                self.waits_for_memory.store(false, Ordering::Relaxed);
            }
            self.part = Some(part);
        }
        Ok(())
    }

    /// Whether the bytes are collected at their final key and cannot be stored under another.
    pub fn is_bound(&self) -> bool {
        matches!(&self.collector, Kind::Remote(object) if object.is_bound())
    }

    /// Set while [`Upload::write`] waits for memory, not for the destination.
    pub fn waits_for_memory(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.waits_for_memory)
    }

    /// Returns once the upload has to end so that others can continue: it holds the last memory that the destination has for
    /// uploads, fills it slowly, and others wait for it.
    pub async fn overstays(&self) {
        match &self.part {
            Some(part) => part.overstays().await,
            None => std::future::pending().await,
        }
    }

    /// Gives the bytes their final name, if that is free. `verified` proves that they may have it. They survive a power cut
    /// once their manifest is written: see [`Destination::put_manifest`].
    ///
    /// `still_ours` is whether the caller still holds the claim. It is awaited where the destination cannot refuse to
    /// overwrite, as the last step before the object appears.
    ///
    /// After [`Commit::Taken`] with `kept`, the upload may be committed again, under another key.
    ///
    /// # Errors
    ///
    /// The destination refused, or these are not the bytes that were verified. The upload is over. If a reply was lost, the
    /// object may be there; the next attempt will find it.
    pub async fn commit(
        &mut self,
        verified: &Verified,
        key: &str,
        still_ours: impl Future<Output = bool> + Send,
    ) -> Result<Commit, StoreError> {
        if verified.size() != self.written {
            self.end();
            let (verified, written) = (verified.size(), self.written);
            return Err(self.fail(format!("{verified} bytes were verified, but {written} were written")));
        }
        // A file is hashed and named in one step.
        if !matches!(self.collector, Kind::Local(_)) {
            self.check_hash(verified.sha256()).await?;
        }
        self.name_if_free(verified.sha256(), key, still_ours).await
    }

    /// Gives the bytes their final name in one step, replacing the object there: for the one kind of object that is
    /// fetched again because it restates, and only once the old content is kept elsewhere
    /// ([`Destination::copy_if_absent`]).
    ///
    /// # Errors
    ///
    /// As of [`Upload::commit`]; also with [`super::Route::Direct`]. The old object or the new one is at the key.
    pub async fn replace(mut self, verified: &Verified, key: &str) -> Result<(), StoreError> {
        let key = self.destination.key("replace", key)?;
        if verified.size() != self.written || self.direct.is_some() {
            return Err(
                self.fail("these are not the bytes that were verified, or they cannot be stored there".to_owned())
            );
        }
        self.check_hash(verified.sha256()).await?;
        let part = self.part.take();
        match &mut self.collector {
            Kind::Local(file) => file.replace(part, &key).await,
            Kind::Remote(object) => object.replace(part, &key, self.written).await,
        }
    }

    /// Gives the bytes the name `key` in one step, replacing an object there. They need no proof, so the caller decides
    /// which keys may be replaced.
    pub(super) async fn place(mut self, key: &Key) -> Result<(), StoreError> {
        self.seal().await?;
        let (size, part) = (self.written, self.part.take());
        match &mut self.collector {
            Kind::Local(file) => file.replace(part, key).await,
            Kind::Remote(object) => object.replace(part, key, size).await,
        }
    }

    /// Ends the bytes; no more can be written.
    pub(super) async fn seal(&mut self) -> Result<Sealed, StoreError> {
        Ok(Sealed { sha256: self.whole_hash().await?, size: self.written })
    }

    /// Stores bytes that cannot be verified and have this hash under `_quarantine/`. Overwrites nothing, as
    /// [`Upload::commit`].
    ///
    /// # Errors
    ///
    /// As of [`Upload::commit`]; also with [`super::Route::Direct`].
    pub async fn quarantine(mut self, sha256: &str, key: &str) -> Result<Commit, StoreError> {
        self.check_hash(sha256).await?;
        // No claim is needed: the key contains the content's hash, so another writer writes the same bytes.
        let commit = self.name_if_free(sha256, key, async { true }).await?;
        let key = self.destination.key("keep", key)?;
        self.destination.force(&key).await?;
        Ok(commit)
    }

    /// Ends the upload and waits until its leftovers are removed. Those that cannot be removed now are swept later.
    pub async fn abort(mut self) {
        self.part = None;
        for_kind!(&mut self.collector, collector => collector.abort().await);
    }

    /// Refuses the bytes unless they have this hash.
    async fn check_hash(&mut self, expected: &str) -> Result<(), StoreError> {
        let sha256 = self.whole_hash().await?;
        if sha256 == expected {
            return Ok(());
        }
        self.end();
        Err(self.fail(hash::other_bytes(expected, &sha256)))
    }

    /// The hash of all bytes.
    async fn whole_hash(&mut self) -> Result<String, StoreError> {
        if let Some(sha256) = &self.sha256 {
            return Ok(sha256.clone());
        }
        if let Some(part) = self.part.take() {
            self.part = Some(self.hashed(part).await?);
        }
        let sha256 = hex::encode(mem::take(&mut self.hash).finalize());
        self.sha256 = Some(sha256.clone());
        Ok(sha256)
    }

    /// Adds a part to the hash: a large one on a blocking thread.
    async fn hashed(&mut self, part: Part) -> Result<Part, StoreError> {
        if part.length() <= HASHED_AT_ONCE {
            part.blocks().for_each(|block| self.hash.update(block));
            return Ok(part);
        }
        let mut hash = mem::take(&mut self.hash);
        let step = move || {
            part.blocks().for_each(|block| hash.update(block));
            Ok((hash, part))
        };
        match self.destination.threads().run("hash", STAGING, step).await {
            Ok((hash, part)) => {
                self.hash = hash;
                Ok(part)
            }
            Err(error) => {
                self.end();
                Err(error)
            }
        }
    }

    async fn name_if_free(
        &mut self,
        sha256: &str,
        key: &str,
        still_ours: impl Future<Output = bool> + Send,
    ) -> Result<Commit, StoreError> {
        let key = self.destination.key("store", key)?;
        let (size, part) = (self.written, self.part.take());
        match &mut self.collector {
            Kind::Local(file) => {
                let unfinished = self.sha256.is_none().then(|| mem::take(&mut self.hash));
                let commit = file.commit(part, unfinished, &key, size, sha256).await?;
                self.sha256 = Some(sha256.to_owned());
                Ok(commit)
            }
            Kind::Remote(object) => object.commit(part, &key, size, sha256, still_ours).await,
        }
    }

    /// Sends the full part.
    async fn flush(&mut self) -> Result<(), StoreError> {
        let Some(part) = self.part.take() else { return Ok(()) };
        // A file is written and hashed in one step.
        if let Kind::Local(file) = &mut self.collector {
            return file.append_part(part, &mut self.hash).await;
        }
        let part = self.hashed(part).await?;
        match &mut self.collector {
            Kind::Local(_) => Ok(()),
            Kind::Remote(object) => object.send(part).await,
        }
    }

    /// Size of the part that begins at `position`. Parts are equal if the size is known, because some stores require that.
    fn next_capacity(&self, position: u64) -> Result<u64, StoreError> {
        let part = match &self.collector {
            Kind::Local(file) => file.part_bytes(),
            Kind::Remote(object) => {
                object.part_bytes(position, self.expected_size).map_err(|too_large| self.fail(too_large))?
            }
        };
        Ok(self.expected_size.map_or(part, |expected| part.min(expected - position)))
    }

    fn end(&mut self) {
        for_kind!(&mut self.collector, collector => collector.end());
    }

    fn fail(&self, cause: String) -> StoreError {
        self.destination.reporter().text("store", self.direct.as_ref().map_or("", Key::as_ref), cause)
    }
}
