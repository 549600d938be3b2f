//! The directory of a `file://` destination: paths of keys, and reading.
//!
//! This file owns paths and reading. All calls block. It must not know how files get their names, or what is in them.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read},
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use object_store::path::Path as Key;

use super::durability::{Durability, force_directory};
use crate::store::STAGING;

/// Bytes read at a time.
const READ_BYTES: usize = 256 * 1024;

/// An open directory. `staged.rs`, `naming.rs` and `probe.rs` add what it can do.
pub(super) struct Directory {
    pub(super) root: PathBuf,
    /// `_staging/{holder}`.
    pub(super) staging: PathBuf,
    pub(super) durability: Durability,
    /// Held from looking to renaming, where the file system has no hard links.
    pub(super) renaming: Mutex<()>,
    /// Whether the root was there once. If it is gone then, its disk is away or failing, and it is not made again.
    was_there: AtomicBool,
}

impl Directory {
    /// The directory at `root`, whether or not it is there. `name` is the destination's name in the configuration.
    pub(super) fn new(name: &str, root: PathBuf, holder: &str, fsync: bool) -> Self {
        let staging = root.join(STAGING).join(holder);
        let durability = Durability::new(name, root.clone(), fsync);
        Directory { root, staging, durability, renaming: Mutex::new(()), was_there: AtomicBool::new(false) }
    }

    /// Makes the root, unless it is there, or was once: its disk may have been away at the start.
    pub(super) fn find_root(&self, missing: io::Error) -> io::Result<()> {
        match self.root.is_dir() {
            true => Ok(()),
            false if self.was_there.load(Ordering::Relaxed) => Err(missing),
            false => self.make_root(),
        }
    }

    /// Makes the root if it is missing.
    pub(super) fn make_root(&self) -> io::Result<()> {
        let missing: Vec<&Path> = self.root.ancestors().take_while(|directory| !directory.exists()).collect();
        for directory in missing.iter().rev() {
            match fs::create_dir(directory) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            if self.durability.is_on()
                && let Some(parent) = directory.parent()
            {
                // A name that may be gone after a power cut must not be relied on.
                force_directory(parent).inspect_err(|_| {
                    let _ = fs::remove_dir(directory);
                    self.was_there.store(true, Ordering::Relaxed);
                })?;
            }
        }
        self.was_there.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Where `key` is on disk.
    pub(super) fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_ref())
    }

    /// Forces the names of `path`, of everything beside it, and of the directories above it to disk.
    pub(super) fn force(&self, path: &Path) -> io::Result<()> {
        self.durability.force_names(path)
    }

    /// Size of the file in bytes; `None` if there is none.
    pub(super) fn size(path: &Path) -> io::Result<Option<u64>> {
        let metadata = match fs::metadata(path) {
            Err(error) if is_absent(&error) => return Ok(None),
            metadata => metadata?,
        };
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a file"));
        }
        Ok(Some(metadata.len()))
    }

    /// Opens the file for reading; `None` if there is none.
    fn open(path: &Path) -> io::Result<Option<File>> {
        match Self::size(path)? {
            None => Ok(None),
            Some(_) => match File::open(path) {
                Err(error) if is_absent(&error) => Ok(None),
                file => file.map(Some),
            },
        }
    }

    /// Opens the file for reading; `None` if there is none at a root that is there.
    pub(super) fn read(&self, path: &Path) -> io::Result<Option<File>> {
        let file = Self::open(path)?;
        if file.is_none() {
            self.expect_root()?;
        }
        Ok(file)
    }

    /// Fails if the root is missing: that is a missing disk, not a missing object.
    fn expect_root(&self) -> io::Result<()> {
        let root = self.root.display();
        match fs::metadata(&self.root) {
            Ok(metadata) if metadata.is_dir() => Ok(()),
            Ok(_) => Err(io::Error::new(ErrorKind::NotADirectory, format!("{root} is not a folder"))),
            Err(error) => Err(io::Error::new(error.kind(), format!("the destination's folder {root}: {error}"))),
        }
    }

    /// The first `limit` bytes of the file; `None` if there is none.
    pub(super) fn read_up_to(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = Self::open(path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// The next bytes of a file; empty at its end.
    pub(super) fn read_some(file: &mut File) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(READ_BYTES);
        file.take(READ_BYTES as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// The names of the folders in `folder`. Leaves out names that are not UTF-8.
    pub(super) fn folders(folder: &Path) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(folder) {
            Err(error) if is_absent(&error) => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Removes the file at `path` if there is one, and its folder if nothing is left in it.
    pub(super) fn delete(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if !is_absent(&error) => return Err(error),
            _ => {}
        }
        let Some(folder) = path.parent().filter(|folder| *folder != self.root) else { return Ok(()) };
        match fs::remove_dir(folder) {
            Ok(()) => self.durability.forget(folder),
            // Other files are in it, or it is gone.
            Err(_) if folder.is_dir() => self.force(path)?,
            Err(_) => {}
        }
        Ok(())
    }

    /// Every file below `prefix`, as a key. Leaves out names that are not UTF-8, which are not ours; follows no links.
    pub(super) fn keys(&self, prefix: &Path) -> io::Result<Vec<String>> {
        self.expect_root()?;
        let mut keys = Vec::new();
        let mut directories = vec![prefix.to_owned()];
        while let Some(directory) = directories.pop() {
            let entries = match fs::read_dir(&directory) {
                Err(error) if is_absent(&error) => continue,
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    directories.push(entry.path());
                } else if kind.is_file()
                    && let Some(key) = entry.path().strip_prefix(&self.root).ok().and_then(Path::to_str)
                {
                    keys.push(key.to_owned());
                }
            }
        }
        keys.sort_unstable();
        Ok(keys)
    }
}

/// Whether the error means that there is no object: the file or a parent is missing, or a parent is a file.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}
