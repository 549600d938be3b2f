//! An upload that is collected in an object store.
//!
//! This file owns which requests an upload takes: one put for a small object, else a multipart upload at the final key or
//! under `_staging/`. It must not know where the bytes come from.

use std::{future::Future, mem, sync::Arc};

use object_store::{Error, ObjectStore, PutMode, PutPayload, path::Path as Key};

use super::{
    bucket::{Bucket, Comparison},
    multipart::{Multipart, part_bytes, too_large},
    staged::StagedObject,
};
use crate::store::{
    Commit, StoreError,
    budget::{Frozen, Part},
};

/// How often a put is tried while the store reports another writer and the key is free.
const PUT_TRIES: usize = 3;

/// An upload to an object store.
pub(in crate::store) struct ObjectUpload {
    bucket: Arc<Bucket>,
    /// The final key, if the upload goes there directly.
    direct: Option<Key>,
    sent: Sent,
}

/// Where the bytes of an upload are.
enum Sent {
    /// There are none.
    Nothing,
    /// In parts, not yet an object.
    Parts(Multipart),
    /// All of them in memory, after a first commit.
    Whole(Frozen),
    /// All of them in an object under `_staging/`, after a first commit.
    Object(StagedObject),
    /// Stored, aborted or failed.
    Over,
}

impl ObjectUpload {
    pub(in crate::store) fn new(bucket: Arc<Bucket>, direct: Option<Key>) -> Self {
        ObjectUpload { bucket, direct, sent: Sent::Nothing }
    }

    /// Whether parts are at their final key and cannot be stored under another.
    pub(in crate::store) fn is_bound(&self) -> bool {
        self.direct.is_some() && matches!(self.sent, Sent::Parts(_))
    }

    /// Size of the part that begins at `position`; an error in words if the object is too large.
    pub(in crate::store) fn part_bytes(&self, position: u64, expected: Option<u64>) -> Result<u64, String> {
        part_bytes(position, expected).ok_or_else(too_large)
    }

    /// Sends a part of a large object.
    pub(in crate::store) async fn send(&mut self, part: Part) -> Result<(), StoreError> {
        let mut multipart = match mem::replace(&mut self.sent, Sent::Over) {
            Sent::Nothing => {
                let key = self.direct.clone().unwrap_or_else(|| self.bucket.staged_key(""));
                Multipart::start(&self.bucket, key).await?
            }
            Sent::Parts(multipart) => multipart,
            _ => return Err(self.fail("the upload is over")),
        };
        multipart.push(part).await?;
        self.sent = Sent::Parts(multipart);
        Ok(())
    }

    /// Makes the object, with `part` at its end, appear at `key` if that is free.
    pub(in crate::store) async fn commit(
        &mut self,
        part: Option<Part>,
        key: &Key,
        size: u64,
        sha256: &str,
        still_ours: impl Future<Output = bool> + Send,
    ) -> Result<Commit, StoreError> {
        let (commit, sent) = match mem::replace(&mut self.sent, Sent::Over) {
            Sent::Nothing => self.put(self.whole(part), key, sha256, still_ours).await?,
            Sent::Whole(whole) => self.put(whole, key, sha256, still_ours).await?,
            Sent::Parts(mut multipart) if multipart.key() == key => {
                multipart.push_last(part).await?;
                (multipart.complete_new(size, sha256, still_ours).await?, Sent::Over)
            }
            Sent::Parts(_) if self.direct.is_some() => {
                return Err(
                    self.fail(&format!("the upload is collected at its final key and cannot be stored at `{key}`"))
                );
            }
            Sent::Parts(mut multipart) => {
                multipart.push_last(part).await?;
                let object = StagedObject::complete(multipart, size).await?;
                (object.copy_to(key, size, sha256, still_ours).await?, Sent::Object(object))
            }
            Sent::Object(object) => (object.copy_to(key, size, sha256, still_ours).await?, Sent::Object(object)),
            Sent::Over => return Err(self.fail("the upload is over")),
        };
        match (commit, sent) {
            (Commit::Taken { kept: true }, sent) => self.sent = sent,
            (_, Sent::Object(object)) => object.delete().await,
            _ => {}
        }
        Ok(commit)
    }

    /// Puts the object, with `part` at its end, at `key`, replacing an object there.
    pub(in crate::store) async fn replace(
        &mut self,
        part: Option<Part>,
        key: &Key,
        size: u64,
    ) -> Result<(), StoreError> {
        match mem::replace(&mut self.sent, Sent::Over) {
            Sent::Nothing => self.bucket.put("write", key, self.whole(part).payload()).await,
            // Completing a multipart upload replaces the object there in one step.
            Sent::Parts(mut multipart) if multipart.key() == key => {
                multipart.push_last(part).await?;
                let _writer = self.bucket.lock_key(key).await;
                multipart.complete().await?;
                self.bucket.expect_size(key, size).await
            }
            Sent::Parts(mut multipart) => {
                multipart.push_last(part).await?;
                let object = StagedObject::complete(multipart, size).await?;
                let replaced = object.replace(key, size).await;
                object.delete().await;
                replaced
            }
            _ => Err(self.fail("the upload is over")),
        }
    }

    /// Removes what is at the store and waits for that.
    pub(in crate::store) async fn abort(&mut self) {
        match mem::replace(&mut self.sent, Sent::Over) {
            Sent::Parts(multipart) => multipart.abort().await,
            Sent::Object(object) => object.delete().await,
            Sent::Nothing | Sent::Whole(_) | Sent::Over => {}
        }
    }

    /// Removes what is at the store, in the background.
    pub(in crate::store) fn end(&mut self) {
        self.sent = Sent::Over;
    }

    fn whole(&self, part: Option<Part>) -> Frozen {
        part.unwrap_or_else(|| self.bucket.memory.part(0)).freeze()
    }

    async fn put(
        &self,
        whole: Frozen,
        key: &Key,
        sha256: &str,
        still_ours: impl Future<Output = bool> + Send,
    ) -> Result<(Commit, Sent), StoreError> {
        Ok((self.bucket.put_new(key, whole.payload(), sha256, still_ours).await?, Sent::Whole(whole)))
    }

    fn fail(&self, cause: &str) -> StoreError {
        self.bucket.reporter.text("store", self.direct.as_ref().map_or("", Key::as_ref), cause.to_owned())
    }
}

impl Bucket {
    /// Puts a small object at a key that must be free.
    async fn put_new(
        self: &Arc<Self>,
        key: &Key,
        bytes: PutPayload,
        sha256: &str,
        still_ours: impl Future<Output = bool> + Send,
    ) -> Result<Commit, StoreError> {
        let size = bytes.content_length() as u64;
        let refuses = self.capabilities().await?.refuses_overwrite;
        let _writer = self.lock_key(key).await;
        if !refuses {
            if let Some(commit) = self.compare(key, size, sha256).await?.commit(true) {
                return Ok(commit);
            }
            if !still_ours.await {
                return Ok(Commit::NotOurs);
            }
        }
        let mode = if refuses { PutMode::Create } else { PutMode::Overwrite };
        let mut tries = 0;
        loop {
            tries += 1;
            let error = match self.objects.put_opts(&self.at(key), bytes.clone(), mode.clone().into()).await {
                Ok(_) => return Ok(Commit::Stored),
                Err(error) => error,
            };
            match (&error, self.compare(key, size, sha256).await) {
                (Error::AlreadyExists { .. }, found) => match found?.commit(true) {
                    Some(commit) => return Ok(commit),
                    // S3 also answers this to two concurrent writers, either of which may then fail.
                    None if tries < PUT_TRIES => {}
                    None => return Err(self.fail("store", key, &error)),
                },
                // The reply was lost, not the write.
                (_, Ok(Comparison::Same)) => return Ok(Commit::AlreadyThere),
                _ => return Err(self.fail("store", key, &error)),
            }
        }
    }
}
