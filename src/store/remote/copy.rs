//! Copies within a bucket.
//!
//! This file owns how a copy is made, by the store or through this process. It must not know why.

use std::sync::Arc;

use futures::TryStreamExt;
use object_store::{CopyOptions, path::Path as Key};

use super::{
    bucket::{Bucket, is_unsupported},
    multipart::{Multipart, part_bytes},
};
use crate::store::{
    StoreError,
    budget::{LARGE_PART_BYTES, Part},
};

impl Bucket {
    /// Moves an object to a key that must be free or hold the same bytes.
    pub(in crate::store) async fn move_if_absent(self: &Arc<Self>, from: &Key, to: &Key) -> Result<(), StoreError> {
        match self.size(from).await? {
            None if self.size(to).await?.is_some() => Ok(()),
            _ => {
                self.copy_if_absent("move", from, to).await?;
                self.delete("move", from).await
            }
        }
    }

    /// Copies the object at `from` to `to`, which must be free or hold the same bytes.
    pub(in crate::store) async fn copy_if_absent(
        self: &Arc<Self>,
        operation: &'static str,
        from: &Key,
        to: &Key,
    ) -> Result<(), StoreError> {
        let fail = |cause: &str| self.reporter.text(operation, &format!("{from}` to `{to}"), cause.to_owned());
        let Some(size) = self.size(from).await? else { return Err(fail("there is no such object")) };
        let _writer = self.lock_key(to).await;
        if self.size(to).await?.is_none() {
            self.copy(from, to, size).await
        } else if self.sha256_of(from).await? != self.sha256_of(to).await? {
            Err(fail("the new key holds other content"))
        } else {
            Ok(())
        }
    }

    /// Copies to a key, replacing an object there. The caller holds [`Bucket::lock_key`] of `to`.
    pub(super) async fn copy(self: &Arc<Self>, from: &Key, to: &Key, size: u64) -> Result<(), StoreError> {
        if size > self.copy_bytes {
            return self.copy_through(from, to, size).await;
        }
        match self.objects.copy_opts(&self.at(from), &self.at(to), CopyOptions::new()).await {
            Ok(()) => self.expect_size(to, size).await,
            Err(error) if is_unsupported(&error) => self.copy_through(from, to, size).await,
            Err(error) => Err(self.fail("copy to", to, &error)),
        }
    }

    /// Copies by reading and writing, where the store cannot copy.
    async fn copy_through(self: &Arc<Self>, from: &Key, to: &Key, size: u64) -> Result<(), StoreError> {
        let mut multipart = Multipart::start(self, to.clone()).await?;
        let Some(mut chunks) = self.read(from).await? else {
            return Err(self.text("copy", from, "there is no such object"));
        };
        let mut position = 0;
        let mut part: Option<Part> = None;
        while let Some(mut chunk) = chunks.try_next().await? {
            while !chunk.is_empty() {
                let capacity = part_bytes(position, Some(size)).unwrap_or(LARGE_PART_BYTES);
                let filling = match &mut part {
                    Some(filling) => filling,
                    None => part.insert(self.memory.copying(capacity).await),
                };
                let before = chunk.len();
                filling.fill(&mut chunk);
                position += (before - chunk.len()) as u64;
                if filling.is_full()
                    && let Some(full) = part.take()
                {
                    multipart.push(full).await?;
                }
            }
        }
        multipart.push_last(part).await?;
        multipart.complete().await?;
        self.expect_size(to, size).await
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use object_store::memory::InMemory;

    use super::*;
    use crate::{
        config,
        store::{Budget, error::Reporter},
    };

    #[tokio::test]
    async fn an_object_too_large_for_the_store_to_copy_is_copied_through_this_process() {
        let store = Arc::new(InMemory::new());
        let reporter = Arc::new(Reporter::new(&config::DestinationSettings {
            name: "lake".to_owned(),
            location: "s3://reports".parse().unwrap(),
            options: Default::default(),
            fsync: true,
            ca_file: None,
            place: String::new(),
        }));
        let memory = Budget::new().of_store();
        let mut bucket = Bucket::new(Arc::clone(&store) as _, store, Key::from("folder"), reporter, "me", memory);
        bucket.copy_bytes = 1024;
        let bucket = Arc::new(bucket);
        let bytes = Bytes::from_iter((0..12 * 1024 * 1024_u32).map(|number| (number / 7) as u8));
        let (from, to) = (Key::from("from.zip"), Key::from("to.zip"));
        bucket.put("write", &from, bytes.clone()).await.unwrap();

        bucket.move_if_absent(&from, &to).await.unwrap();

        let copy: Vec<Bytes> = bucket.read(&to).await.unwrap().unwrap().try_collect().await.unwrap();
        assert!(copy.concat() == bytes, "the copy differs");
        assert_eq!(bucket.keys(&Key::ROOT).await.unwrap(), ["to.zip"]);
    }
}
