//! Who is alive: every process that works holds a lock on a file of its own beside the ledger.
//!
//! A process that can take that lock knows, without a clock, that the holder is dead: the kernel lets go of it when the process
//! ends, however it ends. This file must not know what the holders hold.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

/// The lock that says this process lives; the file goes with it.
#[derive(Debug)]
pub(super) struct Holder {
    name: String,
    path: PathBuf,
    _lock: File,
}

impl Holder {
    /// Announces `name` beside the ledger and clears away the files of the dead.
    pub(super) fn announce(ledger: &Path, name: &str) -> io::Result<Self> {
        let folder = folder(ledger);
        fs::create_dir_all(&folder)?;
        for entry in fs::read_dir(&folder)?.flatten() {
            let other = entry.file_name();
            let is_holder = !other.as_encoded_bytes().starts_with(b".");
            if is_holder && !is_alive(ledger, &other.to_string_lossy()) {
                let _ = fs::remove_file(entry.path());
            }
        }
        // Locked before it gets its name, so that no process finds it unlocked and takes the holder for dead.
        let path = folder.join(name);
        let unnamed = folder.join(format!("{name}.new"));
        let lock = File::create(&unnamed)?;
        lock.lock()?;
        fs::rename(&unnamed, &path)?;
        Ok(Self { name: name.to_owned(), path, _lock: lock })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether the process that announced itself as `holder` beside the ledger at `ledger` still lives.
pub(super) fn is_alive(ledger: &Path, holder: &str) -> bool {
    match File::open(folder(ledger).join(holder)) {
        // Shared, so that two processes that ask at the same moment do not take each other for the holder.
        Ok(file) => matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)),
        // Unreadable is not gone: when in doubt, it lives.
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Waits until no other process opens the ledger at `ledger`; the lock goes with the result.
pub(super) async fn alone(ledger: &Path) -> io::Result<File> {
    let folder = folder(ledger);
    let lock = move || {
        fs::create_dir_all(&folder)?;
        let file = File::create(folder.join(".opening"))?;
        file.lock()?;
        Ok(file)
    };
    tokio::task::spawn_blocking(lock).await.map_err(io::Error::other)?
}

/// The name of the place where the ledger at `ledger` is, `candidate` if it has none yet. It stays with the ledger's
/// folder, so that it is the same in the next container and another on another machine. A copy of the folder is another
/// place: the file that holds the name also says which file it is. (A clone of the whole disk has the same name.)
///
/// # Errors
///
/// When the folder cannot be written.
pub(super) fn place(ledger: &Path, candidate: &str) -> io::Result<String> {
    let folder = folder(ledger);
    fs::create_dir_all(&folder)?;
    // The first process names it. A lock decides which one is the first, because not every file system has hard links,
    // and the file appears whole by a rename.
    let lock = File::create(folder.join(".placing"))?;
    lock.lock()?;
    let path = folder.join(".place");
    if let Some(name) = named(&path)? {
        return Ok(name);
    }
    let draft = folder.join(".place-new");
    let mut file = File::create(&draft)?;
    write!(file, "{candidate} {}", which(&file.metadata()?))?;
    fs::rename(&draft, &path)?;
    Ok(candidate.to_owned())
}

/// The name in the file at `path`; `None` when there is none, or it was copied there from another place.
fn named(path: &Path) -> io::Result<Option<String>> {
    let text = match fs::read_to_string(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => return Ok(None),
        read => read?,
    };
    let (name, file) = text.split_once(' ').unwrap_or((&text, ""));
    let is_plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    // Earlier versions wrote the name alone.
    let is_here = file.is_empty() || file == which(&fs::metadata(path)?);
    Ok((is_plain && is_here).then(|| name.to_owned()))
}

/// What a file keeps under every name on its file system, and no copy has.
fn which(metadata: &fs::Metadata) -> String {
    let born = metadata.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    format!("{}-{}", metadata.ino(), born.as_nanos())
}

fn folder(ledger: &Path) -> PathBuf {
    PathBuf::from(format!("{}.holders", ledger.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_the_ledgers_folder_is_another_place() {
        let directory = tempfile::tempdir().unwrap();
        let (ledger, copy) = (directory.path().join("moesync.db"), directory.path().join("copy.db"));
        assert_eq!(place(&ledger, "first").unwrap(), "first");
        assert_eq!(place(&ledger, "second").unwrap(), "first");
        fs::create_dir(folder(&copy)).unwrap();
        fs::copy(folder(&ledger).join(".place"), folder(&copy).join(".place")).unwrap();
        assert_eq!(place(&copy, "third").unwrap(), "third");
        assert_eq!(place(&copy, "fourth").unwrap(), "third");
        // As the first version named it.
        fs::write(folder(&copy).join(".place"), "old").unwrap();
        assert_eq!(place(&copy, "fifth").unwrap(), "old");
        assert!(!folder(&copy).join(".place-new").exists(), "a draft was left");
    }

    #[test]
    fn a_dead_holder_is_dead_to_several_processes_that_ask_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = directory.path().join("moesync.db");
        let holder = Holder::announce(&ledger, "holder").unwrap();
        assert!(is_alive(&ledger, "holder"));
        let path = holder.path.clone();
        // As a killed process leaves it: the file stays, the lock does not.
        fs::hard_link(&path, folder(&ledger).join("dead")).unwrap();
        drop(holder);
        let asking = File::open(folder(&ledger).join("dead")).unwrap();
        asking.lock_shared().unwrap();
        assert!(!is_alive(&ledger, "dead"));
    }
}
