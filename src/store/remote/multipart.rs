//! Multipart uploads.
//!
//! This file owns parts, their sizes, and what ends an upload: completion, or an abort by this process or the next. It must
//! not know where the bytes of a part come from.

use std::{future::Future, mem, sync::Arc, time::Duration};

use object_store::{Error, MultipartId, ObjectStoreExt, multipart::PartId, path::Path as Key};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::bucket::{Bucket, Comparison};
use crate::store::{
    Commit, MIB, StoreError,
    budget::{Frozen, LARGE_PART_BYTES, Part},
};

/// Size of a part, and of the largest object that is put in one request. S3's minimum for all parts but the last.
pub(in crate::store) const PART_BYTES: u64 = 5 * MIB;

/// Most parts in one multipart upload (S3's limit).
const MOST_PARTS: u64 = 10_000;

/// Most parts of one upload in flight, besides the one being filled.
const PARTS_IN_FLIGHT: usize = 2;

/// How long an abort waits for parts in flight.
const PARTS_GRACE: Duration = Duration::from_secs(5);

/// Suffix of the note under `_staging/` that names a multipart upload under way.
pub(super) const NOTE: &str = ".multipart.json";

/// Most bytes of a note.
const NOTE_BYTES: u64 = 64 * 1024;

/// The multipart upload to abort should its process die; object_store cannot list uploads.
#[derive(Serialize, Deserialize)]
pub(super) struct Note {
    key: String,
    upload: MultipartId,
}

impl Note {
    /// The note at `key`; `None` if there is none, or it is malformed.
    pub(super) async fn read(bucket: &Bucket, key: &Key) -> Result<Option<Note>, StoreError> {
        let fail = |error| bucket.fail("read", key, &error);
        match bucket.objects.get(&bucket.at(key)).await {
            Ok(found) if found.meta.size > NOTE_BYTES => Ok(None),
            Ok(found) => Ok(serde_json::from_slice(&found.bytes().await.map_err(fail)?).ok()),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(fail(error)),
        }
    }

    /// Aborts the upload; does nothing if it is over.
    pub(super) async fn abort(&self, bucket: &Bucket) -> Result<(), StoreError> {
        match Key::parse(&self.key) {
            Ok(key) => bucket.abort_multipart(&key, &self.upload).await,
            Err(_) => Ok(()),
        }
    }
}

/// Size of the part that begins at `position` in an object of `expected` bytes; `None` beyond [`MOST_PARTS`]. That limits
/// an object to 78 GiB, or 63 GiB if its size is unknown.
pub(super) fn part_bytes(position: u64, expected: Option<u64>) -> Option<u64> {
    match expected {
        Some(expected) if expected <= MOST_PARTS * PART_BYTES => Some(PART_BYTES),
        Some(expected) => (expected <= MOST_PARTS * LARGE_PART_BYTES).then_some(LARGE_PART_BYTES),
        // Small parts for the first half of all parts, then large ones.
        None => {
            let small = MOST_PARTS / 2 * PART_BYTES;
            let limit = small + MOST_PARTS / 2 * LARGE_PART_BYTES;
            (position < limit).then_some(if position < small { PART_BYTES } else { LARGE_PART_BYTES })
        }
    }
}

/// Why [`part_bytes`] gives no size.
pub(super) fn too_large() -> String {
    format!("the object is too large: parts of {LARGE_PART_BYTES} bytes, at most {MOST_PARTS} of them")
}

/// A multipart upload under way. It is aborted when dropped; should this process die, a note under `_staging/` lets another
/// process abort it.
pub(super) struct Multipart {
    bucket: Arc<Bucket>,
    key: Key,
    /// `None` once completed or aborted.
    upload: Option<MultipartId>,
    note: Key,
    sending: JoinSet<Result<(usize, PartId), Error>>,
    /// Parts begun; the id of each that has arrived.
    parts: Vec<Option<PartId>>,
}

impl Multipart {
    /// Begins an upload at `key`.
    pub(super) async fn start(bucket: &Arc<Bucket>, key: Key) -> Result<Self, StoreError> {
        let note = bucket.staged_key(NOTE);
        let fail = |error| bucket.fail("begin the upload of", &key, &error);
        let upload = bucket.multiparts.create_multipart(&bucket.at(&key)).await.map_err(fail)?;
        let text = serde_json::to_vec(&Note { key: key.to_string(), upload: upload.clone() });
        let multipart = Multipart {
            bucket: Arc::clone(bucket),
            key,
            upload: Some(upload),
            note,
            sending: JoinSet::new(),
            parts: Vec::new(),
        };
        let text = text.map_err(|error| bucket.text("note", &multipart.note, &error.to_string()))?;
        bucket.put("write", &multipart.note, text).await?;
        Ok(multipart)
    }

    pub(super) fn bucket(&self) -> &Arc<Bucket> {
        &self.bucket
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// Sends a part, in a task of its own. The part's memory is free once it has arrived.
    pub(super) async fn push(&mut self, part: Part) -> Result<(), StoreError> {
        while self.sending.len() >= PARTS_IN_FLIGHT {
            self.arrive().await?;
        }
        let Some(upload) = self.upload.clone() else {
            return Err(self.bucket.text("store", &self.key, "the upload is over"));
        };
        let (multiparts, at, number) =
            (Arc::clone(&self.bucket.multiparts), self.bucket.at(&self.key), self.parts.len());
        self.parts.push(None);
        let part: Frozen = part.freeze();
        self.sending.spawn(async move {
            let sent = multiparts.put_part(&at, &upload, number, part.payload()).await;
            part.recycle();
            sent.map(|id| (number, id))
        });
        Ok(())
    }

    /// Sends the last part and waits until all have arrived.
    pub(super) async fn push_last(&mut self, part: Option<Part>) -> Result<(), StoreError> {
        if let Some(part) = part {
            self.push(part).await?;
        }
        while !self.sending.is_empty() {
            self.arrive().await?;
        }
        Ok(())
    }

    async fn arrive(&mut self) -> Result<(), StoreError> {
        let operation = "send a part of";
        let (number, id) = match self.sending.join_next().await {
            None => return Ok(()),
            Some(Ok(sent)) => sent.map_err(|error| self.bucket.fail(operation, &self.key, &error))?,
            Some(Err(failure)) => return Err(self.bucket.text(operation, &self.key, &failure.to_string())),
        };
        self.parts[number] = Some(id);
        Ok(())
    }

    /// Makes the object appear at its final key, if that is free. Completing has no condition, so: look, check the claim,
    /// complete.
    pub(super) async fn complete_new(
        mut self,
        size: u64,
        sha256: &str,
        still_ours: impl Future<Output = bool> + Send,
    ) -> Result<Commit, StoreError> {
        let bucket = Arc::clone(&self.bucket);
        let key = self.key.clone();
        let _writer = bucket.lock_key(&key).await;
        if let Some(commit) = bucket.compare(&key, size, sha256).await?.commit(false) {
            self.abort().await;
            return Ok(commit);
        }
        if !still_ours.await {
            self.abort().await;
            return Ok(Commit::NotOurs);
        }
        match self.complete().await {
            Ok(()) => bucket.expect_size(&key, size).await.map(|()| Commit::Stored),
            // The reply was lost, not the write: a repeated completion is answered with "no such upload".
            Err(error) => match bucket.compare(&key, size, sha256).await {
                Ok(Comparison::Same) => {
                    self.forget().await;
                    Ok(Commit::AlreadyThere)
                }
                _ => Err(error),
            },
        }
    }

    /// Completes the upload, replacing an object at the key. All parts must have arrived.
    pub(super) async fn complete(&mut self) -> Result<(), StoreError> {
        let operation = "complete the upload of";
        let Some(upload) = self.upload.clone() else { return Ok(()) };
        let parts: Option<Vec<PartId>> = self.parts.iter().cloned().collect();
        let parts = parts.ok_or_else(|| self.bucket.text(operation, &self.key, "a part has not arrived"))?;
        let completed = self.bucket.multiparts.complete_multipart(&self.bucket.at(&self.key), &upload, parts).await;
        completed.map_err(|error| self.bucket.fail(operation, &self.key, &error))?;
        self.upload = None;
        self.delete_note().await;
        Ok(())
    }

    /// Ends an upload whose object is there although completing it failed. Most likely that very upload was completed, so a
    /// refusal to abort it means nothing.
    pub(super) async fn forget(&mut self) {
        if let Some(upload) = self.upload.take() {
            let _ = self.bucket.abort_multipart(&self.key, &upload).await;
            self.delete_note().await;
        }
    }

    /// A note left behind makes the next sweep abort an upload that is over, which does nothing.
    async fn delete_note(&self) {
        if let Err(error) = self.bucket.delete("forget", &self.note).await {
            tracing::warn!("{error}");
        }
    }

    pub(super) async fn abort(mut self) {
        if let Some(upload) = self.upload.take() {
            let sending = mem::take(&mut self.sending);
            clean_up(Arc::clone(&self.bucket), self.key.clone(), upload, self.note.clone(), sending).await;
        }
    }
}

impl Drop for Multipart {
    fn drop(&mut self) {
        if let (Some(upload), Ok(runtime)) = (self.upload.take(), tokio::runtime::Handle::try_current()) {
            let sending = mem::take(&mut self.sending);
            runtime.spawn(clean_up(Arc::clone(&self.bucket), self.key.clone(), upload, self.note.clone(), sending));
        }
    }
}

/// Aborts a multipart upload once no part is in flight: a store may keep a part that it receives after the abort, also one
/// whose request was cancelled.
async fn clean_up(
    bucket: Arc<Bucket>,
    key: Key,
    upload: MultipartId,
    note: Key,
    mut sending: JoinSet<Result<(usize, PartId), Error>>,
) {
    let arrived = async { while sending.join_next().await.is_some() {} };
    if tokio::time::timeout(PARTS_GRACE, arrived).await.is_err() {
        sending.shutdown().await;
    }
    let cleaned = match bucket.abort_multipart(&key, &upload).await {
        Ok(()) => bucket.delete("forget", &note).await,
        Err(error) => Err(error),
    };
    if let Err(error) = cleaned {
        // The note stays for the next sweep.
        tracing::warn!("{error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_admitted_object_needs_more_parts_than_a_store_takes() {
        let most = MOST_PARTS * LARGE_PART_BYTES;
        for expected in [1, MOST_PARTS * PART_BYTES, MOST_PARTS * PART_BYTES + 1, most] {
            let part = part_bytes(0, Some(expected)).unwrap();
            assert!(expected.div_ceil(part) <= MOST_PARTS, "{expected}");
        }
        assert_eq!(part_bytes(0, Some(most + 1)), None);
        let (mut position, mut parts) = (0, 0);
        while let Some(part) = part_bytes(position, None) {
            position += part;
            parts += 1;
        }
        assert_eq!((parts, position), (MOST_PARTS, 65_000 * MIB));
    }
}
