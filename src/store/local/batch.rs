//! Files that get their names together, so that one wait for the disk serves all of them.
//!
//! This file owns the order: all bytes are forced to disk before the first name is given, all names before the call returns.
//! It must not know what is in the files.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    mem,
    path::PathBuf,
    sync::Arc,
};

use sha2::{Digest, Sha256};

use super::{
    directory::Directory,
    durability::Disk,
    staged::{Staged, StagedPath},
};

/// Bytes written at a time.
const WRITE_BYTES: usize = 128 * 1024;

/// Files that have been written since it began can be forced to disk together.
pub(in crate::store) struct FileBatch {
    directory: Arc<Directory>,
    /// `None`: each file and name is forced to disk alone.
    disk: Option<Disk>,
}

/// A complete file without its final name. Dropped, it is removed.
pub(in crate::store) struct BatchFile {
    path: StagedPath,
    pub(in crate::store) size: u64,
    pub(in crate::store) sha256: String,
}

/// What gets a name.
pub(in crate::store) enum Content {
    File(BatchFile),
    Bytes(Vec<u8>),
}

/// Writes one file of a batch. Blocks.
pub(in crate::store) struct BatchWriter {
    batch: Arc<FileBatch>,
    state: io::Result<Option<BufWriter<Hashed>>>,
}

struct Hashed {
    staged: Staged,
    size: u64,
    hash: Sha256,
}

impl FileBatch {
    pub(super) fn begin(directory: &Arc<Directory>) -> io::Result<Self> {
        Ok(FileBatch { directory: Arc::clone(directory), disk: directory.durability.disk(&directory.staging)? })
    }

    pub(in crate::store) fn writer(self: &Arc<Self>) -> BatchWriter {
        BatchWriter { batch: Arc::clone(self), state: Ok(None) }
    }

    /// Gives each content its name, in this order, replacing a file there. Readers, and a process that starts after a power
    /// cut, find no name without those before it, and none without all its bytes.
    pub(super) fn name_all(&self, contents: Vec<(Content, PathBuf)>) -> io::Result<()> {
        let directory = &*self.directory;
        let mut folders: Vec<_> = contents.iter().map(|(_, target)| target.parent()).collect();
        folders.dedup();
        let is_on = |disk: &&Disk| folders.iter().all(|folder| folder.is_some_and(|it| disk.has(it)));
        let disk = self.disk.as_ref().filter(is_on);
        let mut files = Vec::new();
        for (content, target) in contents {
            let path = match content {
                Content::File(file) => {
                    if self.disk.is_some() && disk.is_none() {
                        // Written in the hope that one wait would do.
                        File::open(&*file.path)?.sync_all()?;
                    }
                    file.path
                }
                Content::Bytes(bytes) => {
                    let staged = directory.append(None, &bytes)?;
                    if disk.is_none() {
                        directory.durability.force_bytes(&staged.file)?;
                    }
                    staged.path
                }
            };
            files.push((path, target));
        }
        if let Some(disk) = disk {
            disk.force()?;
        }
        let mut last: Option<PathBuf> = None;
        for (path, target) in files {
            // The names in one folder are forced to disk before the first in another.
            if disk.is_none()
                && let Some(last) = last.filter(|last| last.parent() != target.parent())
            {
                directory.force(&last)?;
            }
            directory.name(&path, &target)?;
            path.renamed();
            last = Some(target);
        }
        match (disk, last) {
            (Some(disk), _) => disk.force(),
            (None, Some(last)) => directory.force(&last),
            (None, None) => Ok(()),
        }
    }
}

impl BatchWriter {
    /// The complete file.
    ///
    /// # Errors
    ///
    /// That of the first write that failed, or the file could not be completed.
    pub(in crate::store) fn finish(mut self) -> io::Result<BatchFile> {
        // Its failure is in `state`.
        let _ = self.flush();
        let FileBatch { directory, disk } = &*self.batch;
        let Hashed { staged: Staged { file, path }, size, hash } = match mem::replace(&mut self.state, Ok(None))? {
            Some(writer) => writer.into_inner().map_err(io::IntoInnerError::into_error)?,
            None => Hashed { staged: directory.stage()?, size: 0, hash: Sha256::new() },
        };
        if disk.is_none() {
            directory.durability.force_bytes(&file)?;
        }
        Ok(BatchFile { path, size, sha256: hex::encode(hash.finalize()) })
    }
}

impl Write for BatchWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.attempt(|writer| writer.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.attempt(Write::flush)
    }
}

impl BatchWriter {
    /// The first error is kept for [`BatchWriter::finish`], and ends the file.
    fn attempt<T>(&mut self, step: impl FnOnce(&mut BufWriter<Hashed>) -> io::Result<T>) -> io::Result<T> {
        let writer = match &mut self.state {
            Ok(Some(writer)) => writer,
            Ok(none) => match self.batch.directory.stage() {
                Ok(staged) => {
                    none.insert(BufWriter::with_capacity(WRITE_BYTES, Hashed { staged, size: 0, hash: Sha256::new() }))
                }
                Err(error) => return Err(self.fail(error)),
            },
            Err(_) => return Err(io::Error::other("an earlier write failed")),
        };
        match step(writer) {
            Err(error) => Err(self.fail(error)),
            done => done,
        }
    }

    fn fail(&mut self, error: io::Error) -> io::Error {
        let again = io::Error::from(error.kind());
        self.state = Err(error);
        again
    }
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.staged.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
