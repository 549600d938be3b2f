//! What survives a power cut.
//!
//! This file owns when file contents and names are forced to disk. It must not know what the files are.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::lock::lock;

/// Most directories remembered as durable; beyond that, the memory is cleared.
const MOST_DIRECTORIES: usize = 10_000;

/// Forces files below `root` to disk, unless `fsync` is off.
pub(super) struct Durability {
    /// The destination's name in the configuration.
    destination: String,
    root: PathBuf,
    fsync: bool,
    /// Directories whose names survive a power cut, so that each is forced once.
    durable: Mutex<HashSet<PathBuf>>,
    /// Whether it was logged that names cannot be forced to disk.
    warned: AtomicBool,
}

impl Durability {
    pub(super) fn new(destination: &str, root: PathBuf, fsync: bool) -> Self {
        let durable = Mutex::new(HashSet::from([root.clone()]));
        Durability { destination: destination.to_owned(), root, fsync, durable, warned: AtomicBool::new(false) }
    }

    pub(super) fn is_on(&self) -> bool {
        self.fsync
    }

    /// Forces a file's bytes to disk.
    pub(super) fn force_bytes(&self, file: &File) -> io::Result<()> {
        if self.fsync { file.sync_all() } else { Ok(()) }
    }

    /// Forces the names of `path`, of everything beside it, and of the directories above it to disk.
    pub(super) fn force_names(&self, path: &Path) -> io::Result<()> {
        let directory = path.parent().unwrap_or(&self.root);
        if !self.fsync {
            return Ok(());
        }
        self.force_directory(directory)?;
        let unknown: Vec<&Path> =
            directory.ancestors().take_while(|directory| !self.durable().contains(*directory)).collect();
        // Top down: a directory is durable only if the ones above it are.
        for directory in unknown.into_iter().rev() {
            if let Some(parent) = directory.parent() {
                self.force_directory(parent)?;
            }
            let mut durable = self.durable();
            if durable.len() >= MOST_DIRECTORIES {
                durable.retain(|known| *known == self.root);
            }
            durable.insert(directory.to_owned());
        }
        Ok(())
    }

    /// The disk below the root, for what is written to it from now on, beginning under `staging`. `None` if files must be
    /// forced to disk one by one.
    pub(super) fn disk(&self, staging: &Path) -> io::Result<Option<Disk>> {
        let disk = if self.fsync { Disk::of(&self.root)? } else { None };
        Ok(disk.filter(|disk| disk.has(staging)))
    }

    /// Notes that `directory` is new, so its name has to be forced to disk.
    pub(super) fn forget(&self, directory: &Path) {
        self.durable().remove(directory);
    }

    fn force_directory(&self, directory: &Path) -> io::Result<()> {
        if !force_directory(directory)? && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                destination = self.destination,
                "this file system cannot force the names of new files to disk, so a power cut may lose the newest \
                 objects, which `moesync verify` then finds; `fsync = false` on this destination accepts that"
            );
        }
        Ok(())
    }

    fn durable(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        // Each call leaves the set whole, so a panic elsewhere leaves it usable.
        lock(&self.durable)
    }
}

/// A file system that forces all that was written to it to disk in one step, with the promise of an fsync of each file and
/// folder, and in which a name survives a power cut only with the names given before it.
pub(super) struct Disk {
    /// Opened before the first byte is written: it reports all errors of writing since.
    root: File,
    device: u64,
}

#[cfg(target_os = "linux")]
impl Disk {
    fn of(root: &Path) -> io::Result<Option<Self>> {
        let root = File::open(root)?;
        let kind = rustix::fs::fstatfs(&root)?.f_type as u64;
        // Those with a journal of their own on a block device. FUSE and network file systems answer at once, and have done
        // nothing.
        let has_journal = [0xef53, 0x5846_5342, 0x9123_683e].contains(&(kind & 0xffff_ffff));
        let device = root.metadata()?.dev();
        Ok((has_journal && reports_failures()).then_some(Disk { root, device }))
    }

    /// Forces all that was written to disk.
    pub(super) fn force(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.root)?)
    }
}

/// Before Linux 5.17, syncfs kept failures of the journal to itself.
#[cfg(target_os = "linux")]
fn reports_failures() -> bool {
    let system = rustix::system::uname();
    let mut numbers = system.release().to_str().unwrap_or_default().split(|it: char| !it.is_ascii_digit());
    let mut number = || numbers.next().and_then(|number| number.parse::<u32>().ok()).unwrap_or(0);
    (number(), number()) >= (5, 17)
}

#[cfg(not(target_os = "linux"))]
impl Disk {
    fn of(_: &Path) -> io::Result<Option<Self>> {
        Ok(None)
    }

    pub(super) fn force(&self) -> io::Result<()> {
        self.root.sync_all()
    }
}

impl Disk {
    /// Whether `folder`, or the nearest one above it that exists, is on this disk.
    pub(super) fn has(&self, folder: &Path) -> bool {
        let existing = folder.ancestors().find_map(|folder| fs::metadata(folder).ok());
        existing.is_some_and(|metadata| metadata.dev() == self.device)
    }
}

/// Forces the names in `directory` to disk; `false` if the file system cannot: SMB and DrvFs answer "invalid argument",
/// FUSE "not implemented" or "not supported".
pub(super) fn force_directory(directory: &Path) -> io::Result<bool> {
    match File::open(directory)?.sync_all() {
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(false),
        forced => forced.map(|()| true),
    }
}
