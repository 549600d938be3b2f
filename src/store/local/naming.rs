//! Final names on a file system.
//!
//! This file owns how a file gets its name in one step, and only if the name is free, on file systems with and without hard
//! links. All calls block. It must not know what is in the files.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    path::Path,
};

use super::{
    directory::Directory,
    staged::{Hidden, Staged},
};
use crate::{
    lock::lock,
    store::{Commit, hash},
};

impl Directory {
    /// Gives the staged file, with `rest` at its end, its final name if that is free. Its bytes are forced to disk before,
    /// its name only by [`Directory::force`]. The staged file is returned if the name holds other content, and is removed
    /// otherwise. After an error it must be removed: a second fsync of the same file may report success although pages
    /// that could not be written are lost.
    pub(super) fn commit(
        &self,
        staged: Option<Staged>,
        rest: &[u8],
        target: &Path,
        size: u64,
        sha256: &str,
    ) -> io::Result<(Commit, Option<Staged>)> {
        let staged = self.append(staged, rest)?;
        self.durability.force_bytes(&staged.file)?;
        if self.with_directory(target, || self.name_if_free(&staged.path, target))? {
            return Ok((Commit::Stored, None));
        }
        if !is_same(target, size, sha256)? {
            return Ok((Commit::Taken { kept: true }, Some(staged)));
        }
        // The process that linked it may have died before it forced the bytes to disk.
        if self.durability.is_on() {
            self.durability.force_bytes(&File::open(target)?)?;
        }
        Ok((Commit::AlreadyThere, None))
    }

    /// Writes `bytes` to `target` in one step, replacing a file there, and forces the names in its directory to disk.
    pub(super) fn put(&self, target: &Path, bytes: &[u8]) -> io::Result<()> {
        self.rename_over(None, bytes, target)?;
        // A name that may be gone after a power cut must not be found, and relied on, before one.
        self.force(target).inspect_err(|_| {
            let _ = fs::remove_file(target);
        })
    }

    /// Gives the staged file, with `rest` at its end, its name in one step, replacing a file there. Readers see the old
    /// content or the new.
    pub(super) fn replace(&self, staged: Option<Staged>, rest: &[u8], target: &Path) -> io::Result<()> {
        self.rename_over(staged, rest, target)?;
        self.force(target)
    }

    fn rename_over(&self, staged: Option<Staged>, rest: &[u8], target: &Path) -> io::Result<()> {
        let staged = self.append(staged, rest)?;
        self.durability.force_bytes(&staged.file)?;
        self.with_directory(target, || self.rename(&staged.path, target))?;
        staged.path.renamed();
        Ok(())
    }

    /// Gives the file at `from` its name in one step, replacing a file there, and makes its folder.
    pub(super) fn name(&self, from: &Path, target: &Path) -> io::Result<()> {
        self.with_directory(target, || self.rename(from, target))
    }

    /// Gives the file at `from` the name `to` as well, which must be free or hold the same bytes.
    pub(super) fn copy_if_absent(&self, from: &Path, to: &Path) -> io::Result<()> {
        let linked = self.with_directory(to, || match fs::hard_link(from, to) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) if is_final(&error) => Err(error),
            // No hard links. The file keeps its own name, so it has to be copied.
            Err(_) => {
                let mut copy = self.stage()?;
                self.copy(from, &mut copy.file)?;
                self.name_if_free(&copy.path, to)
            }
        })?;
        if !linked {
            let (size, sha256) = hash::of_reader(File::open(from)?)?;
            if !is_same(to, size, &sha256)? {
                return Err(io::Error::new(ErrorKind::AlreadyExists, "the new name holds other content"));
            }
        }
        self.force(to)
    }

    /// Moves `from` to `to`, which must be free or hold the same bytes. An earlier move counts as success.
    pub(super) fn move_if_absent(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self.copy_if_absent(from, to) {
            Err(error) if error.kind() == ErrorKind::NotFound && to.is_file() && !from.exists() => return Ok(()),
            copied => copied?,
        }
        match fs::remove_file(from) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.force(from)
    }

    /// Gives the file at `from` the name `to`, as well or instead; `false` if that is taken. By a link, else by a rename,
    /// else by a copy beside `to` that is linked or renamed. The directory of `to` must exist.
    pub(super) fn name_if_free(&self, from: &Path, to: &Path) -> io::Result<bool> {
        match self.link_or_rename(from, to) {
            Err(error) if error.kind() == ErrorKind::CrossesDevices => {
                let copy = self.copy_beside(from, to)?;
                self.link_or_rename(&copy.path, to)
            }
            named => named,
        }
    }

    fn link_or_rename(&self, from: &Path, to: &Path) -> io::Result<bool> {
        match fs::hard_link(from, to) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) if is_final(&error) => Err(error),
            // File systems without hard links report many errors: "not permitted" (FAT), "not supported" (network file
            // systems), "input/output error" (rclone, Docker Desktop), "cross-device link" (mergerfs). If the cause is
            // another one, the rename fails as well. Two processes could collide here; claims prevent that.
            Err(_) => {
                let _renaming = lock(&self.renaming);
                match fs::symlink_metadata(to) {
                    Ok(_) => Ok(false),
                    Err(error) if error.kind() == ErrorKind::NotFound => fs::rename(from, to).map(|()| true),
                    Err(error) => Err(error),
                }
            }
        }
    }

    /// Gives the file at `from` the name `to` in one step, replacing a file there, and removes its own.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match fs::rename(from, to) {
            Err(error) if error.kind() == ErrorKind::CrossesDevices => {
                let copy = self.copy_beside(from, to)?;
                fs::rename(&copy.path, to)?;
                // What cannot be removed now is swept at the next start.
                let _ = fs::remove_file(from);
                Ok(())
            }
            renamed => renamed,
        }
    }

    /// A copy of the file at `from`, forced to disk, in the directory of `to`: a file on another device can get its final
    /// name in one step only from there.
    fn copy_beside(&self, from: &Path, to: &Path) -> io::Result<Hidden> {
        let hidden = self.hidden_beside(to)?;
        let mut copy = OpenOptions::new().write(true).create_new(true).open(&hidden.path)?;
        self.copy(from, &mut copy)?;
        Ok(hidden)
    }

    fn copy(&self, from: &Path, copy: &mut File) -> io::Result<()> {
        io::copy(&mut File::open(from)?, copy)?;
        self.durability.force_bytes(copy)
    }

    /// Does `step`, and makes the directory of `path` if that is what it lacks.
    fn with_directory<T>(&self, path: &Path, step: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match step() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.make_directory(path.parent().unwrap_or(&self.root))?;
                step()
            }
            result => result,
        }
    }

    /// Makes a directory below the root, never the root itself: a missing root means a missing disk.
    fn make_directory(&self, directory: &Path) -> io::Result<()> {
        let missing: Vec<&Path> =
            directory.ancestors().take_while(|directory| *directory != self.root && !directory.exists()).collect();
        for directory in missing.into_iter().rev() {
            match fs::create_dir(directory) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => self.durability.forget(directory),
            }
        }
        Ok(())
    }
}

/// Whether a link failed for a reason that a rename or a copy would meet as well.
fn is_final(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::NotADirectory
            | ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::InvalidFilename
    )
}

/// Whether the file at `path` has this size and hash.
fn is_same(path: &Path, size: u64, sha256: &str) -> io::Result<bool> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() || metadata.len() != size {
        return Ok(false);
    }
    Ok(hash::of_reader(File::open(path)?)? == (size, sha256.to_owned()))
}
