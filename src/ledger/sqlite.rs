//! The ledger in SQLite: one file, write-ahead log, one writer at a time.
//!
//! This folder owns what only a file has: how it is opened, whether it is sound, that a damaged one is kept under another
//! name, and which processes work with it. The parts:
//!
//! | file | subject |
//! |---|---|
//! | `open` | opening the file: journal, soundness, schema |
//! | `holder` | the processes that work with the file |
//! | `errors` | what an error means for the ledger |
//! | `memory` | a ledger without a file, for simulations |

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;

use self::{
    errors::{classify, damaged},
    holder::Holder,
    open::{Rest, identity, note_damage},
};
use super::{Found, Ledger, LedgerError};

mod errors;
mod holder;
pub(super) mod memory;
mod open;

/// The file of an open ledger.
#[derive(Debug, Clone)]
pub(super) struct Home {
    path: Arc<PathBuf>,
    identity: Option<(u64, u64)>,
    holder: Option<Arc<Holder>>,
    /// Where it is read as a file that no process writes.
    rest: Option<Rest>,
}

impl Home {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_alive(&self, name: &str) -> bool {
        holder::is_alive(&self.path, name)
    }

    pub(super) fn check_in_place(&self) -> Result<(), LedgerError> {
        if identity(&self.path) == self.identity {
            Ok(())
        } else {
            let message = format!("the ledger {} was deleted or replaced while it was in use", self.path.display());
            Err(LedgerError::Reopen { message, source: None })
        }
    }

    pub(super) fn holder_name(&self) -> &str {
        self.holder.as_deref().map_or("", Holder::name)
    }

    pub(super) fn error(&self, action: &'static str, source: sqlx::Error) -> LedgerError {
        self.unless_written(classify(&self.path, action, source))
    }

    pub(super) fn damaged(&self, reason: String) -> LedgerError {
        self.unless_written(damaged(&self.path, reason))
    }

    /// A file that is written to while it is read as one at rest looks damaged, and is not.
    fn unless_written(&self, error: LedgerError) -> LedgerError {
        match (&error, &self.rest) {
            (LedgerError::Damaged { .. }, Some(rest)) if !rest.lasts(&self.path) => LedgerError::Unavailable {
                message: format!(
                    "a process began to write to the ledger {} while it was read; run the command again",
                    self.path.display()
                ),
                source: None,
            },
            _ => self.noted(error),
        }
    }

    /// Damage is noted beside the ledger: the next opening reads the whole file.
    fn noted(&self, error: LedgerError) -> LedgerError {
        if matches!(error, LedgerError::Damaged { .. }) {
            note_damage(&self.path);
        }
        error
    }
}

/// Opens the ledger at `path` for writing: creates it, brings an older one up to date, and keeps a damaged one aside
/// under a name with `now` in it.
///
/// `holder` names this process; it must be unique for as long as the process lives.
///
/// # Errors
///
/// [`LedgerError::TooNew`] when a newer version of moesync made the ledger, which is then left as it is; also when the
/// folder or the file cannot be written.
pub async fn open(path: &Path, holder: &str, now: Timestamp) -> Result<(Ledger, Found), LedgerError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(|error| {
            LedgerError::unavailable(format!("could not create the folder {} for the ledger", folder.display()), error)
        })?;
    }
    // One process at a time: two that create a ledger concurrently would each see half of the other's.
    let _alone = holder::alone(path).await.map_err(|error| {
        LedgerError::unavailable(format!("could not lock the ledger {} for opening", path.display()), error)
    })?;
    let opened = match open::open(path, holder).await {
        // A read that fails once looks like damage.
        Err(LedgerError::Damaged { .. }) => open::open(path, holder).await,
        opened => opened,
    };
    match opened {
        Ok((ledger, true)) => Ok((ledger, Found::Existing)),
        Ok((ledger, false)) => Ok((ledger, Found::Nothing)),
        Err(LedgerError::Damaged { reason, .. }) => {
            let kept_at = keep_aside(path, now)?;
            let (ledger, _) = open::open(path, holder).await?;
            Ok((ledger, Found::Damaged { kept_at, reason }))
        }
        Err(error) => Err(error),
    }
}

/// The name of the ledger at `path`, which is part of the names of its holders: `candidate` if it has none yet. It stays with
/// the ledger's folder, so that it is the same in the next container and another on another machine.
///
/// # Errors
///
/// [`LedgerError::Unavailable`] when the folder cannot be written.
pub fn place(path: &Path, candidate: &str) -> Result<String, LedgerError> {
    holder::place(path, candidate).map_err(|error| {
        LedgerError::unavailable(format!("could not write beside the ledger {}", path.display()), error)
    })
}

/// A table in the file at `path` if it is the database of another program.
pub async fn table_of_other_program(path: &Path) -> Option<String> {
    match path.is_file() {
        true => open::table_of_other_program(path).await,
        false => None,
    }
}

/// Opens the ledger at `path` for reading only; `None` when there is none yet. Never creates or changes it.
///
/// # Errors
///
/// When the ledger is damaged, cannot be read, or was made by another version of moesync.
pub async fn open_read_only(path: &Path) -> Result<Option<Ledger>, LedgerError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > 0 => open::open_read_only(path).await,
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LedgerError::unavailable(format!("could not look at the ledger {}", path.display()), error)),
    }
}

/// Renames a damaged database and its journal; nothing is deleted.
fn keep_aside(path: &Path, now: Timestamp) -> Result<PathBuf, LedgerError> {
    let stamp = now.strftime("%Y%m%dT%H%M%SZ");
    let with = |suffix: &str| PathBuf::from(format!("{}{suffix}", path.display()));
    let kept_at = (0..1000)
        .map(|number| match number {
            0 => with(&format!(".damaged-{stamp}")),
            number => with(&format!(".damaged-{stamp}-{number}")),
        })
        .find(|candidate| !candidate.exists())
        .unwrap_or_else(|| with(".damaged"));
    for suffix in ["", "-wal", "-shm"] {
        let to = PathBuf::from(format!("{}{suffix}", kept_at.display()));
        match fs::rename(with(suffix), &to) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                let (from, to) = (path.display(), to.display());
                let message = format!("the ledger {from} is damaged and could not be kept as {to}");
                return Err(LedgerError::unavailable(message, source));
            }
        }
    }
    Ok(kept_at)
}
