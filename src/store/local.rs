//! A destination in a directory of this machine.
//!
//! This file owns durability and atomicity on a file system: what is staged, forced to disk, linked under its final
//! name only if that is free. It is all blocking calls, one function a step, for the caller to run where blocking is
//! allowed. It must not know what the bytes are.
//!
//! object_store's own local store is not used: its multipart completes by a rename that overwrites, and a crash leaves
//! `name#1` beside the final name.

use std::{
    collections::{BTreeSet, HashSet},
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use object_store::path::Path as Key;
use sha2::{Digest, Sha256};

use super::{Commit, STAGING};

/// How much is read at a time.
const READ_BYTES: usize = 256 * 1024;

/// How many directories are remembered as durable before the memory is emptied.
const DURABLE_DIRECTORIES: usize = 10_000;

/// Numbers staged files; process-wide, so that two destinations over one directory don't meet.
static NEXT_STAGED: AtomicU64 = AtomicU64::new(0);

/// Most folders that one probe looks into.
const PROBED_FOLDERS: usize = 32;

/// Begins the hidden name of a file beside its target, where `_staging/` is on another device.
const HIDDEN: &str = ".moesync-";

/// Ends the name of the note under `_staging/` that says which hidden file is in use.
const NOTE: &str = ".hidden";

/// The directory of a `file://` destination.
pub(super) struct Directory {
    /// The destination's name in the configuration.
    name: String,
    root: PathBuf,
    /// `_staging/{holder}`.
    staging: PathBuf,
    fsync: bool,
    /// Directories known to survive a power cut, so that each costs its fsync once.
    durable: Mutex<HashSet<PathBuf>>,
    /// Serialises check-then-rename where the file system has no hard links.
    renaming: Mutex<()>,
    /// Whether the log says already that names cannot be forced to disk.
    warned: AtomicBool,
}

/// What the file system can do.
pub(super) struct Abilities {
    /// Whether it refuses a name that is taken, by hard links.
    pub(super) refuses_overwrite: bool,
    /// Whether it forces names to disk, or was not asked to.
    pub(super) forces_names: bool,
}

/// A hidden name beside a target. Its file, if there is one, is removed when this is dropped; the note has another
/// process remove it should this one die.
struct Hidden {
    path: PathBuf,
    _note: Staged,
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A file under `_staging/`, removed when dropped. Once it has another name too, or was renamed, that is just the
/// removal of the staged name.
pub(super) struct Staged {
    file: File,
    path: PathBuf,
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Gone already after a rename; what cannot be removed now is swept at the next start.
        let _ = fs::remove_file(&self.path);
    }
}

impl Directory {
    /// Opens `root`, making it where missing.
    pub(super) fn open(name: &str, root: PathBuf, holder: &str, fsync: bool) -> io::Result<Self> {
        let missing: Vec<&Path> = root.ancestors().take_while(|directory| !directory.exists()).collect();
        for directory in missing.iter().rev() {
            match fs::create_dir(directory) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            if fsync && let Some(parent) = directory.parent() {
                force_names(parent)?;
            }
        }
        let staging = root.join(STAGING).join(holder);
        let durable = Mutex::new(HashSet::from([root.clone()]));
        let (renaming, warned) = (Mutex::new(()), AtomicBool::new(false));
        Ok(Directory { name: name.to_owned(), root, staging, fsync, durable, renaming, warned })
    }

    /// Where `key` is on disk.
    pub(super) fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_ref())
    }

    /// Writes `bytes` behind what is staged, making a staged file where there is none yet.
    pub(super) fn append(&self, staged: Option<Staged>, bytes: &[u8]) -> io::Result<Staged> {
        let mut staged = match staged {
            Some(staged) => staged,
            None => self.stage()?,
        };
        staged.file.write_all(bytes)?;
        Ok(staged)
    }

    /// Gives what is staged plus `rest` its final name, if that is free. Its bytes are forced to disk before, its name
    /// only by [`Directory::force`]. The staged file comes back when other content has the name; in every other case it
    /// is removed. After an error it must be: a second fsync of the same file may report success although the pages that
    /// could not be written are lost.
    pub(super) fn commit(
        &self,
        staged: Option<Staged>,
        rest: &[u8],
        target: &Path,
        size: u64,
        sha256: &str,
    ) -> io::Result<(Commit, Option<Staged>)> {
        let staged = self.append(staged, rest)?;
        if self.fsync {
            staged.file.sync_all()?;
        }
        if self.link(&staged.path, target)? {
            return Ok((Commit::Stored, None));
        }
        if !is_same(target, size, sha256)? {
            return Ok((Commit::Taken { kept: true }, Some(staged)));
        }
        // Whoever linked it may have died before forcing it to disk.
        if self.fsync {
            File::open(target)?.sync_all()?;
        }
        Ok((Commit::AlreadyThere, None))
    }

    /// Puts `bytes` at `target` in one step, whatever is there, and forces the names of all beside it to disk.
    pub(super) fn put(&self, target: &Path, bytes: &[u8]) -> io::Result<()> {
        self.rename_over(None, bytes, target)?;
        // What may be gone after a power cut must not be found, and believed, before one.
        self.force(target).inspect_err(|_| {
            let _ = fs::remove_file(target);
        })
    }

    /// Gives what is staged plus `rest` its name in one step, whatever has that name. Somebody who reads sees the old
    /// content or the new.
    pub(super) fn replace(&self, staged: Option<Staged>, rest: &[u8], target: &Path) -> io::Result<()> {
        self.rename_over(staged, rest, target)?;
        self.force(target)
    }

    fn rename_over(&self, staged: Option<Staged>, rest: &[u8], target: &Path) -> io::Result<()> {
        let staged = self.append(staged, rest)?;
        if self.fsync {
            staged.file.sync_all()?;
        }
        self.with_directory(target, || self.rename(&staged.path, target))
    }

    /// Gives the file at `from` the name `to` as well, which must be free or hold the same bytes.
    pub(super) fn keep_as(&self, from: &Path, to: &Path) -> io::Result<()> {
        let linked = self.with_directory(to, || match fs::hard_link(from, to) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) if no_other_way(&error) => Err(error),
            // No link: what stays under its name has to be copied.
            Err(_) => {
                let mut copy = self.stage()?;
                self.copy(from, &mut copy.file)?;
                self.name_if_free(&copy.path, to)
            }
        })?;
        if !linked {
            let (size, sha256) = digest(from)?;
            if !is_same(to, size, &sha256)? {
                return Err(io::Error::new(ErrorKind::AlreadyExists, "the new name holds other content"));
            }
        }
        self.force(to)
    }

    /// Moves `from` to `to`, which must be free or hold the same bytes. Nothing to do when it was done before.
    pub(super) fn move_aside(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self.keep_as(from, to) {
            Err(error) if error.kind() == ErrorKind::NotFound && to.is_file() && !from.exists() => return Ok(()),
            kept => kept?,
        }
        match fs::remove_file(from) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.force(from)
    }

    /// Size of the file; `None` when there is none.
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

    /// Opens the file for reading; `None` when there is none.
    pub(super) fn read(path: &Path) -> io::Result<Option<File>> {
        match Self::size(path)? {
            None => Ok(None),
            Some(_) => match File::open(path) {
                Err(error) if is_absent(&error) => Ok(None),
                file => file.map(Some),
            },
        }
    }

    /// The first `limit` bytes of the file; `None` when there is none.
    pub(super) fn read_up_to(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = Self::read(path)? else { return Ok(None) };
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

    /// Every file below `prefix`, as a key. Names that aren't UTF-8 are not ours and left out; links aren't followed.
    pub(super) fn keys(&self, prefix: &Path) -> io::Result<Vec<String>> {
        // Where the root is gone, so is the disk that belongs there: that is not the same as no objects.
        if !fs::metadata(&self.root)?.is_dir() {
            return Err(ErrorKind::NotADirectory.into());
        }
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

    /// Who has staged something here.
    pub(super) fn holders(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.root.join(STAGING)) {
            Err(error) if is_absent(&error) => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut holders = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir()
                && let Ok(holder) = entry.file_name().into_string()
            {
                holders.push(holder);
            }
        }
        Ok(holders)
    }

    /// Removes all that `holder` has staged and returns how many files that were.
    pub(super) fn remove_staged(&self, holder: &str) -> io::Result<u64> {
        let directory = self.root.join(STAGING).join(holder);
        let mut removed = 0;
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            // The hidden file first: without its note nothing would find it.
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

    /// Writes, reads and removes a probe, by the steps that a commit takes: at the root, and in those of `folders` that
    /// exist, because each may be on another device than `_staging/`.
    pub(super) fn probe(&self, folders: &[PathBuf]) -> io::Result<Abilities> {
        let mut abilities = match self.probe_in(&self.root) {
            // The root may belong to another user, who made the folders for objects.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => self.probe_in(&self.staging)?,
            probed => probed?,
        };
        let existing = folders.iter().filter_map(|folder| folder.ancestors().find(|folder| folder.is_dir()));
        let existing: BTreeSet<&Path> = existing.filter(|folder| *folder != self.root).collect();
        for folder in existing.into_iter().take(PROBED_FOLDERS) {
            let found = self.probe_in(folder)?;
            abilities.refuses_overwrite &= found.refuses_overwrite;
            abilities.forces_names &= found.forces_names;
        }
        Ok(abilities)
    }

    fn probe_in(&self, folder: &Path) -> io::Result<Abilities> {
        let [first, second] = [b"probe", b"other"].map(|bytes| self.append(None, bytes));
        let (first, second) = (first?, second?);
        if self.fsync {
            first.file.sync_all()?;
        }
        let hidden = self.hidden_beside(&folder.join("probe"))?;
        let expect = |bytes: &[u8]| match fs::read(&hidden.path)? == bytes {
            true => Ok(()),
            false => Err(io::Error::other("what was read back is not what was written")),
        };
        // A link to a name that is taken is refused before the file system is asked; so the name is free.
        let refuses_overwrite = fs::hard_link(&first.path, &hidden.path).is_ok()
            && matches!(fs::hard_link(&second.path, &hidden.path), Err(error) if error.kind() == ErrorKind::AlreadyExists);
        if !refuses_overwrite {
            let _ = fs::remove_file(&hidden.path);
            self.name_if_free(&first.path, &hidden.path)?;
        }
        expect(b"probe")?;
        self.rename(&second.path, &hidden.path)?;
        expect(b"other")?;
        let forces_names = !self.fsync || force_names(folder)?;
        Ok(Abilities { refuses_overwrite, forces_names })
    }

    fn stage(&self) -> io::Result<Staged> {
        self.stage_as("")
    }

    fn stage_as(&self, suffix: &str) -> io::Result<Staged> {
        loop {
            let path = self.staging.join(format!("{}{suffix}", NEXT_STAGED.fetch_add(1, Ordering::Relaxed)));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Staged { file, path }),
                // Left by an earlier process that had our holder's name.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) if error.kind() == ErrorKind::NotFound && self.root.is_dir() => {
                    // Need not survive a power cut, so not forced to disk.
                    fs::create_dir_all(&self.staging)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives the file at `from` the name `to`, as well or instead; `false` when that is taken.
    fn link(&self, from: &Path, to: &Path) -> io::Result<bool> {
        self.with_directory(to, || self.name_if_free(from, to))
    }

    /// As [`Directory::link`], where the directory of `to` exists: by a link, else by a rename, else by a copy beside
    /// `to` that is linked or renamed.
    fn name_if_free(&self, from: &Path, to: &Path) -> io::Result<bool> {
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
            Err(error) if no_other_way(&error) => Err(error),
            // What refuses a link says many things: "not permitted" (FAT), "not supported" (network file systems),
            // "input/output error" (rclone, Docker Desktop), "cross-device link" (mergerfs). Where the cause is another
            // one, the rename fails alike. Two processes could collide here; claims keep them apart.
            Err(_) => {
                let _renaming = self.renaming.lock().unwrap_or_else(PoisonError::into_inner);
                match fs::symlink_metadata(to) {
                    Ok(_) => Ok(false),
                    Err(error) if error.kind() == ErrorKind::NotFound => fs::rename(from, to).map(|()| true),
                    Err(error) => Err(error),
                }
            }
        }
    }

    /// Gives the file at `from` the name `to` instead of its own, in one step, whatever has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match fs::rename(from, to) {
            Err(error) if error.kind() == ErrorKind::CrossesDevices => {
                let copy = self.copy_beside(from, to)?;
                fs::rename(&copy.path, to)
            }
            renamed => renamed,
        }
    }

    /// A copy of the file at `from`, forced to disk, in the directory of `to`: what is on another device can get its
    /// final name in one step only from there.
    fn copy_beside(&self, from: &Path, to: &Path) -> io::Result<Hidden> {
        let hidden = self.hidden_beside(to)?;
        let mut copy = OpenOptions::new().write(true).create_new(true).open(&hidden.path)?;
        self.copy(from, &mut copy)?;
        Ok(hidden)
    }

    fn copy(&self, from: &Path, copy: &mut File) -> io::Result<()> {
        io::copy(&mut File::open(from)?, copy)?;
        if self.fsync {
            copy.sync_all()?;
        }
        Ok(())
    }

    /// A free hidden name in the directory of `target`, with its note. The note's number is in it, so no other process
    /// takes the same name while the note exists.
    fn hidden_beside(&self, target: &Path) -> io::Result<Hidden> {
        let directory = target.parent().unwrap_or(&self.root);
        let holder = self.staging.file_name().unwrap_or_default().to_string_lossy();
        loop {
            let mut note = self.stage_as(NOTE)?;
            let number = note.path.file_stem().unwrap_or_default().to_string_lossy();
            let path = directory.join(format!("{HIDDEN}{holder}-{number}"));
            // Left by an earlier process that had our holder's name.
            if fs::symlink_metadata(&path).is_ok() {
                continue;
            }
            let key = path.strip_prefix(&self.root).ok().and_then(Path::to_str);
            note.file.write_all(key.ok_or_else(|| io::Error::other("a key that is not UTF-8"))?.as_bytes())?;
            return Ok(Hidden { path, _note: note });
        }
    }

    /// The hidden file that the note at `path` names; `None` for what is no note of ours.
    fn noted(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        if !path.to_str().is_some_and(|path| path.ends_with(NOTE)) {
            return Ok(None);
        }
        let key = fs::read_to_string(path).ok().and_then(|key| Key::parse(key).ok());
        let key = key.filter(|key| key.filename().is_some_and(|name| name.starts_with(HIDDEN)));
        Ok(key.map(|key| self.path(&key)))
    }

    /// Does `step`, for which the directory of `path` must exist.
    fn with_directory<T>(&self, path: &Path, step: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match step() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.make_directory(path.parent().unwrap_or(&self.root))?;
                step()
            }
            done => done,
        }
    }

    /// Makes a directory below the root, never the root itself: where that is gone, so is the disk that belongs there.
    fn make_directory(&self, directory: &Path) -> io::Result<()> {
        let missing: Vec<&Path> =
            directory.ancestors().take_while(|directory| *directory != self.root && !directory.exists()).collect();
        for directory in missing.into_iter().rev() {
            match fs::create_dir(directory) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => self.durable().remove(directory),
            };
        }
        Ok(())
    }

    /// Forces the name of `path`, of all beside it, and of the directories above it to disk.
    pub(super) fn force(&self, path: &Path) -> io::Result<()> {
        let directory = path.parent().unwrap_or(&self.root);
        if !self.fsync {
            return Ok(());
        }
        self.force_directory(directory)?;
        let unknown: Vec<&Path> =
            directory.ancestors().take_while(|directory| !self.durable().contains(*directory)).collect();
        // From above, so that what is known to be durable stands on what is.
        for directory in unknown.into_iter().rev() {
            if let Some(parent) = directory.parent() {
                self.force_directory(parent)?;
            }
            let mut durable = self.durable();
            if durable.len() >= DURABLE_DIRECTORIES {
                durable.retain(|known| *known == self.root);
            }
            durable.insert(directory.to_owned());
        }
        Ok(())
    }

    fn force_directory(&self, directory: &Path) -> io::Result<()> {
        if !force_names(directory)? && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                destination = self.name,
                "this file system cannot force the names of new files to disk, so a power cut may lose the newest \
                 objects, which `moesync verify` then finds; `fsync = false` on this destination accepts that"
            );
        }
        Ok(())
    }

    fn durable(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        // A set is whole between any two calls, so a panic elsewhere leaves it usable.
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forces the names in `directory` to disk; `false` where the file system has no such thing for directories: SMB and
/// DrvFs say "invalid argument", FUSE "not implemented" or "not supported".
fn force_names(directory: &Path) -> io::Result<bool> {
    match File::open(directory)?.sync_all() {
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(false),
        forced => forced.map(|()| true),
    }
}

/// Whether a link failed for a reason that a rename or a copy would meet as well.
fn no_other_way(error: &io::Error) -> bool {
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
    Ok(digest(path)? == (size, sha256.to_owned()))
}

fn digest(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let (mut size, mut hash) = (0, Sha256::new());
    loop {
        let bytes = Directory::read_some(&mut file)?;
        if bytes.is_empty() {
            return Ok((size, hex::encode(hash.finalize())));
        }
        size += bytes.len() as u64;
        hash.update(&bytes);
    }
}

/// A missing parent, or a file where a directory should be, means as well that there is no such object.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}
