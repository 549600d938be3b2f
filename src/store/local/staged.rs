//! Files under `_staging/`, and hidden files beside their targets.
//!
//! This file owns files that have no final name yet, and how those of a dead process are found and removed. It must not know
//! what is in them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    ops::Deref,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use object_store::path::Path as Key;

use super::directory::{Directory, is_absent};
use crate::store::STAGING;

/// Numbers staged files for the whole process, because two destinations may share a directory.
static NEXT_STAGED: AtomicU64 = AtomicU64::new(0);

/// Prefix of the hidden name of a file beside its target, for when `_staging/` is on another device.
const HIDDEN: &str = ".moesync-";

/// Suffix of the note under `_staging/` that holds the key of a hidden file in use.
const NOTE: &str = ".hidden";

/// A file under `_staging/`.
pub(super) struct Staged {
    pub(super) file: File,
    pub(super) path: StagedPath,
}

/// The staged name of a file, which is removed when this is dropped; a name that the file has been given stays.
pub(super) struct StagedPath(PathBuf);

impl StagedPath {
    /// Ends this after a rename, when there is nothing to remove.
    pub(super) fn renamed(mut self) {
        self.0.clear();
    }
}

impl AsRef<Path> for StagedPath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Deref for StagedPath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for StagedPath {
    fn drop(&mut self) {
        // Fails if the name was moved away. A file that cannot be removed now is swept at the next start.
        if !self.0.as_os_str().is_empty() {
            let _ = fs::remove_file(&self.0);
        }
    }
}

/// A hidden name beside a target. Its file is removed when this is dropped; should this process die, the note lets
/// another process remove it.
pub(super) struct Hidden {
    pub(super) path: PathBuf,
    _note: Staged,
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Directory {
    /// Appends `bytes` to the staged file, making one if there is none yet.
    pub(super) fn append(&self, staged: Option<Staged>, bytes: &[u8]) -> io::Result<Staged> {
        let mut staged = match staged {
            Some(staged) => staged,
            None => self.stage()?,
        };
        staged.file.write_all(bytes)?;
        Ok(staged)
    }

    pub(super) fn stage(&self) -> io::Result<Staged> {
        self.stage_as("")
    }

    fn stage_as(&self, suffix: &str) -> io::Result<Staged> {
        loop {
            let path = self.staging.join(format!("{}{suffix}", NEXT_STAGED.fetch_add(1, Ordering::Relaxed)));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Staged { file, path: StagedPath(path) }),
                // Left by an earlier process with our holder's name.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.find_root(error)?;
                    // Need not survive a power cut, so it is not forced to disk.
                    fs::create_dir_all(&self.staging)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// A free hidden name in the directory of `target`, with its note. The name contains the note's number, so no other
    /// process takes it while the note exists.
    pub(super) fn hidden_beside(&self, target: &Path) -> io::Result<Hidden> {
        let directory = target.parent().unwrap_or(&self.root);
        let holder = self.staging.file_name().unwrap_or_default().to_string_lossy();
        loop {
            let mut note = self.stage_as(NOTE)?;
            let number = note.path.file_stem().unwrap_or_default().to_string_lossy();
            let path = directory.join(format!("{HIDDEN}{holder}-{number}"));
            // Left by an earlier process with our holder's name.
            if fs::symlink_metadata(&path).is_ok() {
                continue;
            }
            let key = path.strip_prefix(&self.root).ok().and_then(Path::to_str);
            note.file.write_all(key.ok_or_else(|| io::Error::other("a key that is not UTF-8"))?.as_bytes())?;
            return Ok(Hidden { path, _note: note });
        }
    }

    /// Holders that have staged files here.
    pub(super) fn holders(&self) -> io::Result<Vec<String>> {
        Self::folders(&self.root.join(STAGING))
    }

    /// Removes all that `holder` has staged and returns the number of files.
    pub(super) fn remove_staged(&self, holder: &str) -> io::Result<u64> {
        let directory = self.root.join(STAGING).join(holder);
        let mut removed = 0;
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            // The hidden file first: it can be found only by its note.
            if let Some(hidden) = self.noted(&path)? {
                match fs::remove_file(hidden) {
                    Err(error) if !is_absent(&error) => return Err(error),
                    _ => {}
                }
            }
            fs::remove_file(path)?;
            removed += 1;
        }
        fs::remove_dir(&directory)?;
        Ok(removed)
    }

    /// The hidden file that the note at `path` names; `None` if it is not a note of ours.
    fn noted(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        if !path.to_str().is_some_and(|path| path.ends_with(NOTE)) {
            return Ok(None);
        }
        let key = fs::read_to_string(path).ok().and_then(|key| Key::parse(key).ok());
        let key = key.filter(|key| key.filename().is_some_and(|name| name.starts_with(HIDDEN)));
        Ok(key.map(|key| self.path(&key)))
    }
}
