//! The ledger: the database of partitions, attempts, claims and notifications.
//!
//! This file owns its values, its errors, and how it is opened: a damaged one is kept under another name and a new one
//! created. It must not know about objects: `sync` rebuilds a ledger from manifests.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use jiff::{Timestamp, civil::Date};

use crate::partition::Entry;

mod figures;
mod holder;
mod sqlite;

pub use figures::{AttemptFigures, ReportFigures};
pub use holder::{is_alive, place};
pub use sqlite::{Delivery, Ledger, StoredNews, Summarized, Waiting};

/// A ledger that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file is not a sound database. The daemon and `sync` keep it aside and rebuild it.
    #[error(
        "the ledger {path} is damaged ({reason}); `moesync sync` keeps it aside and rebuilds it from the manifests"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the database said.
        reason: String,
    },
    /// A newer version of moesync made the ledger, or wrote to it. Nothing was changed: that version can go on with it.
    #[error("the ledger {path} was made by a newer version of moesync ({found}); use that one")]
    TooNew {
        /// The file.
        path: PathBuf,
        /// What this version does not know: a migration, or a word and its column.
        found: String,
    },
    /// The claim under which something was to be recorded has passed to another process.
    #[error("the claim on {what} was taken over by another process; the attempt is discarded")]
    Fenced {
        /// The partition.
        what: String,
    },
    /// The file at the ledger's path is no longer the one that was opened.
    #[error("the ledger {path} was deleted or replaced while it was in use")]
    Replaced {
        /// The file.
        path: PathBuf,
    },
    /// The database refused.
    #[error("could not {action} the ledger {path}")]
    Database {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the database said.
        source: sqlx::Error,
    },
    /// Something about the file or its folder.
    #[error("{message}")]
    File {
        /// What was being done, to what, and what to do.
        message: String,
        /// What the system said.
        source: Option<io::Error>,
    },
}

impl LedgerError {
    /// Whether nothing more can be had of this ledger before it is opened again.
    pub fn needs_reopening(&self) -> bool {
        match self {
            LedgerError::Damaged { .. } | LedgerError::Replaced { .. } => true,
            LedgerError::Database { source, .. } => matches!(source, sqlx::Error::PoolClosed),
            LedgerError::TooNew { .. } | LedgerError::Fenced { .. } | LedgerError::File { .. } => false,
        }
    }
}

/// What was found when the ledger was opened for writing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A sound ledger.
    Existing,
    /// None, or an empty one: it is new.
    Nothing,
    /// A damaged one, kept aside under this name: it is new.
    Damaged {
        /// Where the damaged file is now.
        kept_at: PathBuf,
        /// What was wrong with it.
        reason: String,
    },
}

/// Upper bounds of the counts in [`AttemptFigures::within`], in seconds.
pub const DURATION_BOUNDS: [u32; 8] = [1, 5, 15, 60, 300, 900, 1800, 3600];

/// Some partitions; all by default.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// Only those of the workspace with this name.
    pub workspace: Option<String>,
    /// Only those of reports with this id.
    pub report: Option<String>,
    /// Only those of this date and later.
    pub since: Option<Date>,
}

/// The right to work on one partition, until it is recorded or the process ends.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The partition as recorded when the claim was made.
    pub entry: Entry,
    /// When an archive of the partition's workspace last came whole, by MoEngage's clock.
    pub archive_seen_at: Option<Timestamp>,
    row: i64,
    token: i64,
}

/// What came of asking for a claim.
#[derive(Debug)]
pub enum Claimed {
    /// It is ours.
    Ours(Box<Claim>),
    /// A live process has it.
    Theirs,
    /// There is nothing to do any more: it is stored, absent or lost.
    Settled,
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
        fs::create_dir_all(folder).map_err(|source| LedgerError::File {
            message: format!("could not create the folder {} for the ledger", folder.display()),
            source: Some(source),
        })?;
    }
    // One process at a time: two that create a ledger concurrently would each see half of the other's.
    let _alone = holder::alone(path).await.map_err(|source| LedgerError::File {
        message: format!("could not lock the ledger {} for opening", path.display()),
        source: Some(source),
    })?;
    match Ledger::open(path, holder).await {
        Ok((ledger, true)) => Ok((ledger, Found::Existing)),
        Ok((ledger, false)) => Ok((ledger, Found::Nothing)),
        Err(LedgerError::Damaged { reason, .. }) => {
            let kept_at = keep_aside(path, now)?;
            let (ledger, _) = Ledger::open(path, holder).await?;
            Ok((ledger, Found::Damaged { kept_at, reason }))
        }
        Err(error) => Err(error),
    }
}

/// Opens the ledger at `path` for reading only; `None` when there is none yet. Never creates or changes it.
///
/// # Errors
///
/// When the ledger is damaged, cannot be read, or was made by another version of moesync.
pub async fn open_read_only(path: &Path) -> Result<Option<Ledger>, LedgerError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > 0 => Ledger::open_read_only(path).await,
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LedgerError::File {
            message: format!("could not look at the ledger {}", path.display()),
            source: Some(source),
        }),
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
                return Err(LedgerError::File {
                    message: format!(
                        "the ledger {} is damaged and could not be kept aside as {}",
                        path.display(),
                        to.display()
                    ),
                    source: Some(source),
                });
            }
        }
    }
    Ok(kept_at)
}
