//! An upload that is collected in a file under `_staging/`.
//!
//! This file owns the state of that file. It must not know how a file gets its final name.

use std::{io, mem, sync::Arc};

use bytes::Bytes;
use object_store::path::Path as Key;
use sha2::{Digest, Sha256};

use super::{backend::Local, directory::Directory, staged::Staged};
use crate::store::{
    Commit, StoreError,
    budget::{BLOCK_BYTES, Part},
    hash::other_bytes,
};

/// An upload to a directory.
pub(in crate::store) struct FileUpload {
    local: Arc<Local>,
    file: UploadFile,
}

/// The file that collects the bytes.
enum UploadFile {
    /// No byte was written yet.
    NotCreated,
    Created(Staged),
    /// Stored, aborted or failed.
    Over,
}

impl FileUpload {
    pub(in crate::store) fn new(local: Arc<Local>) -> Self {
        FileUpload { local, file: UploadFile::NotCreated }
    }

    /// Size in bytes of a part, which is collected in memory before it is written.
    pub(in crate::store) fn part_bytes(&self) -> u64 {
        BLOCK_BYTES
    }

    /// Writes a part to the file and adds it to the hash.
    pub(in crate::store) async fn append_part(&mut self, part: Part, hash: &mut Sha256) -> Result<(), StoreError> {
        let step = move |directory: &Directory, staged, hash: &mut Sha256| {
            hash.update(part.bytes());
            let staged = directory.append(staged, part.bytes())?;
            part.recycle();
            Ok(staged)
        };
        self.stage(step, hash).await
    }

    /// Writes bytes to the file that are in no part, and adds them to the hash.
    pub(in crate::store) async fn append(&mut self, chunk: Bytes, hash: &mut Sha256) -> Result<(), StoreError> {
        let step = move |directory: &Directory, staged, hash: &mut Sha256| {
            hash.update(&chunk);
            directory.append(staged, &chunk)
        };
        self.stage(step, hash).await
    }

    async fn stage(
        &mut self,
        step: impl FnOnce(&Directory, Option<Staged>, &mut Sha256) -> io::Result<Staged> + Send + 'static,
        hash: &mut Sha256,
    ) -> Result<(), StoreError> {
        let (staged, mut so_far) = (self.take()?, mem::take(hash));
        let step = move |directory: &Directory| Ok((step(directory, staged, &mut so_far)?, so_far));
        let (staged, so_far) = self.local.in_staging("stage", step).await?;
        (self.file, *hash) = (UploadFile::Created(staged), so_far);
        Ok(())
    }

    /// Gives the file, with `part` at its end, its final name if that is free. Refuses bytes that do not have this hash:
    /// `unfinished` is that of those before `part`, unless the hash was checked before.
    pub(in crate::store) async fn commit(
        &mut self,
        part: Option<Part>,
        unfinished: Option<Sha256>,
        key: &Key,
        size: u64,
        sha256: &str,
    ) -> Result<Commit, StoreError> {
        let (staged, sha256) = (self.take()?, sha256.to_owned());
        let step = move |directory: &Directory, target: &_| {
            if let Some(mut hash) = unfinished {
                hash.update(last_bytes(part.as_ref()));
                let written = hex::encode(hash.finalize());
                if written != sha256 {
                    return Err(io::Error::other(other_bytes(&sha256, &written)));
                }
            }
            directory.commit(staged, last_bytes(part.as_ref()), target, size, &sha256)
        };
        let (commit, staged) = self.local.at("store", key, step).await?;
        if let Some(staged) = staged {
            self.file = UploadFile::Created(staged);
        }
        Ok(commit)
    }

    /// Gives the file, with `part` at its end, its final name, replacing a file there.
    pub(in crate::store) async fn replace(&mut self, part: Option<Part>, key: &Key) -> Result<(), StoreError> {
        let staged = self.take()?;
        let step =
            move |directory: &Directory, target: &_| directory.replace(staged, last_bytes(part.as_ref()), target);
        self.local.at("replace", key, step).await
    }

    /// Removes the file and waits for that.
    pub(in crate::store) async fn abort(&mut self) {
        if let UploadFile::Created(staged) = mem::replace(&mut self.file, UploadFile::Over) {
            remove(Arc::clone(&self.local), staged).await;
        }
    }

    /// Removes the file in the background: a directory that hangs must not delay other work.
    pub(in crate::store) fn end(&mut self) {
        if let UploadFile::Created(staged) = mem::replace(&mut self.file, UploadFile::Over)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(remove(Arc::clone(&self.local), staged));
        }
    }

    /// The file, if there is one. Until it is put back, the upload is over.
    fn take(&mut self) -> Result<Option<Staged>, StoreError> {
        match mem::replace(&mut self.file, UploadFile::Over) {
            UploadFile::NotCreated => Ok(None),
            UploadFile::Created(staged) => Ok(Some(staged)),
            UploadFile::Over => Err(self.local.fail("store", "the upload is over")),
        }
    }
}

impl Drop for FileUpload {
    fn drop(&mut self) {
        self.end();
    }
}

fn last_bytes(part: Option<&Part>) -> &[u8] {
    part.map_or(&[][..], Part::bytes)
}

async fn remove(local: Arc<Local>, staged: Staged) {
    let removed = local.in_staging("remove", move |_| {
        drop(staged);
        Ok(())
    });
    if let Err(error) = removed.await {
        // The next start sweeps it.
        tracing::warn!("{error}");
    }
}
