//! Bytes on their way to a destination.
//!
//! This file owns what an upload may do next, from the first byte to its final name. It must not know where the bytes come
//! from.

use std::{
    future::Future,
    io, mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use object_store::path::Path as Key;
use sha2::{Digest, Sha256};

use super::{
    Commit, LARGE_PART_BYTES, MAX_PARTS, PART_BYTES, STAGING, StoreError,
    budget::{BLOCK_BYTES, Frozen, Part},
    destination::{Backend, Destination},
    local::Staged,
    remote::{Multipart, StagedObject},
};
use crate::archive::Verified;

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
    pub(super) fn begin(
        destination: Destination,
        direct: Option<Key>,
        expected_size: Option<u64>,
    ) -> Result<Self, StoreError> {
        let upload = Upload {
            destination,
            direct,
            expected_size,
            written: 0,
            hash: Sha256::new(),
            sha256: None,
            part: None,
            state: State::Gathering,
            waits_for_memory: Arc::default(),
        };
        if let (Backend::Remote(_), Some(size)) = (&upload.destination.inner.backend, expected_size)
            && size > MAX_PARTS * LARGE_PART_BYTES
        {
            return Err(upload.too_large());
        }
        Ok(upload)
    }

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
pub(super) fn part_bytes(position: u64, expected: Option<u64>) -> Option<u64> {
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
    use crate::store::MIB;

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
