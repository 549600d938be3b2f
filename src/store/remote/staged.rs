//! Complete objects under `_staging/`.
//!
//! This file owns their way to a final key, and their removal. It must not know what is in them.

use std::{future::Future, sync::Arc};

use object_store::path::Path as Key;

use super::{bucket::Bucket, multipart::Multipart};
use crate::store::{Commit, StoreError};

/// An object under `_staging/`, deleted when dropped.
pub(super) struct StagedObject {
    /// `None` once deleted.
    bucket: Option<Arc<Bucket>>,
    key: Key,
}

impl StagedObject {
    /// Completes an upload at a staging key. All parts must have arrived.
    pub(super) async fn complete(mut multipart: Multipart, size: u64) -> Result<Self, StoreError> {
        let bucket = Arc::clone(multipart.bucket());
        let object = StagedObject { bucket: Some(Arc::clone(&bucket)), key: multipart.key().clone() };
        match multipart.complete().await {
            Ok(()) => bucket.expect_size(&object.key, size).await?,
            // Only this upload uses the key, so an object there is ours.
            Err(error) => match bucket.size(&object.key).await {
                Ok(Some(found)) if found == size => multipart.forget().await,
                _ => return Err(error),
            },
        }
        Ok(object)
    }

    /// Copies the object to its final key, if that is free.
    pub(super) async fn copy_to(
        &self,
        to: &Key,
        size: u64,
        sha256: &str,
        still_ours: impl Future<Output = bool> + Send,
    ) -> Result<Commit, StoreError> {
        let Some(bucket) = &self.bucket else { return Ok(Commit::Taken { kept: false }) };
        let _writer = bucket.lock_key(to).await;
        if let Some(commit) = bucket.compare(to, size, sha256).await?.commit(true) {
            return Ok(commit);
        }
        if !still_ours.await {
            return Ok(Commit::NotOurs);
        }
        bucket.copy(&self.key, to, size).await?;
        Ok(Commit::Stored)
    }

    /// Copies the object to a key, replacing the object there.
    pub(super) async fn replace(&self, to: &Key, size: u64) -> Result<(), StoreError> {
        let Some(bucket) = &self.bucket else { return Ok(()) };
        let _writer = bucket.lock_key(to).await;
        bucket.copy(&self.key, to, size).await
    }

    /// Deletes the object and waits for that.
    pub(super) async fn delete(mut self) {
        if let Some(bucket) = self.bucket.take() {
            delete(bucket, self.key.clone()).await;
        }
    }
}

impl Drop for StagedObject {
    fn drop(&mut self) {
        if let (Some(bucket), Ok(runtime)) = (self.bucket.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(delete(bucket, self.key.clone()));
        }
    }
}

async fn delete(bucket: Arc<Bucket>, key: Key) {
    if let Err(error) = bucket.delete("delete", &key).await {
        // The next start sweeps it.
        tracing::warn!("{error}");
    }
}
