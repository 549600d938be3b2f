//! The operations of a directory, on threads that may block.
//!
//! This file owns which steps one operation has. It must not know how a step is done.

use std::{
    collections::HashSet,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use futures::{StreamExt, stream, stream::BoxStream};
use object_store::path::Path as Key;

use super::{
    batch::{Content, FileBatch},
    directory::Directory,
    probe::Abilities,
};
use crate::{
    config,
    store::{Capabilities, STAGING, StoreError, error::Reporter, threads::Threads},
};

/// A destination in a directory.
pub(in crate::store) struct Local {
    directory: Arc<Directory>,
    threads: Threads,
    reporter: Arc<Reporter>,
}

impl Local {
    pub(in crate::store) fn new(
        destination: &config::DestinationSettings,
        root: PathBuf,
        holder: &str,
        threads: Threads,
        reporter: Arc<Reporter>,
    ) -> Self {
        let directory = Directory::new(&destination.name, root, holder, destination.fsync);
        Local { directory: Arc::new(directory), threads, reporter }
    }

    /// Makes the root if it is missing.
    pub(in crate::store) fn make_root(&self) -> io::Result<()> {
        self.directory.make_root()
    }

    /// Probes the root and the folders of these prefixes.
    pub(in crate::store) async fn probe(&self, prefixes: &[Key]) -> Result<Capabilities, StoreError> {
        let folders: Vec<_> = prefixes.iter().map(|prefix| self.directory.path(prefix)).collect();
        let Abilities { refuses_overwrite, forces_names } =
            self.in_staging("probe", move |directory| directory.probe(&folders)).await?;
        Ok(Capabilities { refuses_overwrite, deletes: true, forces_names, is_directory: true })
    }

    pub(in crate::store) async fn size(&self, key: &Key) -> Result<Option<u64>, StoreError> {
        self.at("look at", key, |_, path| Directory::size(path)).await
    }

    /// The first `limit` bytes of the file; `None` if there is none.
    pub(in crate::store) async fn read_up_to(&self, key: &Key, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.at("read", key, move |_, path| Directory::read_up_to(path, limit)).await
    }

    /// The first `limit` bytes of the manifest at `manifest`, and the size of the object at `object`.
    pub(in crate::store) async fn look(
        &self,
        object: &Key,
        manifest: &Key,
        limit: u64,
    ) -> Result<(Option<Vec<u8>>, Option<u64>), StoreError> {
        let (path, beside) = (self.directory.path(object), self.directory.path(manifest));
        let step = move |directory: &Directory| {
            let found = (Directory::read_up_to(&beside, limit)?, Directory::size(&path)?);
            if let (Some(_), Some(_)) = found {
                // The process that put them there may have died before it forced their names to disk.
                directory.force(&path)?;
            }
            Ok(found)
        };
        self.step("look at", &format!("{object}` and `{manifest}"), step).await
    }

    /// Opens the file; `None` if there is none.
    pub(in crate::store) async fn open_file(&self, key: &Key) -> Result<Option<File>, StoreError> {
        self.at("read", key, Directory::read).await
    }

    /// Removes a file, and its folder if nothing is left in it.
    pub(in crate::store) async fn delete(&self, operation: &'static str, key: &Key) -> Result<(), StoreError> {
        self.at(operation, key, |directory, path| directory.delete(path)).await
    }

    /// The names of the folders in the folder at `prefix`.
    pub(in crate::store) async fn folders(&self, prefix: &Key) -> Result<Vec<String>, StoreError> {
        self.at("list", prefix, |_, path| Directory::folders(path)).await
    }

    pub(in crate::store) async fn read(
        self: &Arc<Self>,
        key: &Key,
    ) -> Result<Option<BoxStream<'static, Result<Bytes, StoreError>>>, StoreError> {
        let Some(file) = self.at("read", key, Directory::read).await? else { return Ok(None) };
        let next = |(this, key, mut file): (Arc<Self>, Key, File)| async move {
            let step = move |_: &Directory| Directory::read_some(&mut file).map(|bytes| (bytes, file));
            let (bytes, file) = this.step("read", key.as_ref(), step).await?;
            Ok((!bytes.is_empty()).then(|| (bytes.into(), (this, key, file))))
        };
        Ok(Some(stream::try_unfold((Arc::clone(self), key.clone(), file), next).boxed()))
    }

    /// Every key below `prefix`.
    pub(in crate::store) async fn list(&self, prefix: &Key) -> Result<Vec<(String, Option<u64>)>, StoreError> {
        let keys = self.at("list", prefix, |directory, path| directory.keys(path)).await?;
        Ok(keys.into_iter().map(|key| (key, None)).collect())
    }

    /// Writes a small file in one step, replacing a file there.
    pub(in crate::store) async fn put(
        &self,
        operation: &'static str,
        key: &Key,
        bytes: Vec<u8>,
    ) -> Result<(), StoreError> {
        self.at(operation, key, move |directory, path| directory.put(path, &bytes)).await
    }

    /// Begins files that get their names together.
    pub(in crate::store) async fn batch(&self) -> Result<FileBatch, StoreError> {
        let directory = Arc::clone(&self.directory);
        self.in_staging("stage", move |_| FileBatch::begin(&directory)).await
    }

    /// As [`FileBatch::name_all`]; `keys` says what a failure was about.
    pub(in crate::store) async fn name_all(
        &self,
        batch: &Arc<FileBatch>,
        contents: Vec<(Content, Key)>,
    ) -> Result<(), StoreError> {
        let about = contents.last().map(|(_, key)| key.to_string()).unwrap_or_default();
        let of = |(content, key): (Content, Key)| (content, self.directory.path(&key));
        let contents: Vec<_> = contents.into_iter().map(of).collect();
        let batch = Arc::clone(batch);
        self.step("write", &about, move |_| batch.name_all(contents)).await
    }

    pub(in crate::store) async fn move_if_absent(&self, from: &Key, to: &Key) -> Result<(), StoreError> {
        self.between("move", from, to, Directory::move_if_absent).await
    }

    pub(in crate::store) async fn copy_if_absent(
        &self,
        operation: &'static str,
        from: &Key,
        to: &Key,
    ) -> Result<(), StoreError> {
        self.between(operation, from, to, Directory::copy_if_absent).await
    }

    /// Forces the name of the file at `key` to disk.
    pub(in crate::store) async fn force(&self, key: &Key) -> Result<(), StoreError> {
        self.at("keep", key, |directory, path| directory.force(path)).await
    }

    pub(in crate::store) async fn staged_holders(&self) -> Result<HashSet<String>, StoreError> {
        Ok(self.in_staging("sweep", |directory| directory.holders()).await?.into_iter().collect())
    }

    /// Removes what the `dead` holders have left staged; the number of files removed.
    pub(in crate::store) async fn sweep(&self, dead: &HashSet<String>) -> Result<u64, StoreError> {
        let mut removed = 0;
        for holder in dead.clone() {
            removed += self.in_staging("sweep", move |directory| directory.remove_staged(&holder)).await?;
        }
        Ok(removed)
    }

    pub(super) fn fail(&self, operation: &'static str, cause: &str) -> StoreError {
        self.reporter.text(operation, "", cause.to_owned())
    }

    /// Runs a step at the path of `key`.
    pub(super) async fn at<T: Send + 'static>(
        &self,
        operation: &'static str,
        key: &Key,
        step: impl FnOnce(&Directory, &Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let path = self.directory.path(key);
        self.step(operation, key.as_ref(), move |directory| step(directory, &path)).await
    }

    pub(super) async fn in_staging<T: Send + 'static>(
        &self,
        operation: &'static str,
        step: impl FnOnce(&Directory) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.step(operation, STAGING, step).await
    }

    async fn between(
        &self,
        operation: &'static str,
        from: &Key,
        to: &Key,
        step: fn(&Directory, &Path, &Path) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        let (source, target) = (self.directory.path(from), self.directory.path(to));
        let step = move |directory: &Directory| step(directory, &source, &target);
        self.step(operation, &format!("{from}` to `{to}"), step).await
    }

    async fn step<T: Send + 'static>(
        &self,
        operation: &'static str,
        key: &str,
        step: impl FnOnce(&Directory) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let directory = Arc::clone(&self.directory);
        self.threads.run(operation, key, move || step(&directory)).await
    }
}
