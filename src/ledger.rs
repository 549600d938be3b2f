//! The ledger: the database of partitions, attempts, claims and notifications.
//!
//! This file owns its values, its errors, and how it is opened: a damaged one is kept under another name and a new one
//! created. It must not know about objects: `sync` rebuilds a ledger from manifests.

use std::{
    error::Error,
    path::{Path, PathBuf},
};

use jiff::{Timestamp, civil::Date};

use self::database::{Database, Query, Row, Transaction, query};
use crate::{outcome::StoredObject, partition::Entry, report::Partition};

mod claims;
mod counters;
mod database;
mod duties;
mod figures;
mod incidents;
mod notices;
mod outbox;
mod partitions;
mod postgres;
mod rates;
mod record;
mod rows;
mod sqlite;
mod table_claims;
mod table_news;
mod tables;
mod undo;
mod view;

pub use duties::{Duty, DutyTaken};
pub use figures::{AttemptFigures, ReportFigures, SettledDate};
pub use notices::{StoredNews, Summarized};
pub use outbox::{Delivery, Waiting};
pub use postgres::{
    ServerFacts, check_url as check_server_url, facts as server_facts, open as open_server,
    open_read_only as open_server_read_only,
};
pub use rates::Rate;
pub use sqlite::{memory::Memory, open, open_read_only, place, table_of_other_program};
pub use table_claims::{TablesClaim, TablesClaimed};
pub use table_news::{SchemaNews, TablesNews};
pub use tables::{DuePartition, FailedTables, MadeTables, MostDue};

/// Why the ledger could not be read or written, by what the caller does about it.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It cannot be used now: pause, alert, try again. What was to be written is not written.
    #[error("{message}")]
    Unavailable {
        /// What was being done, to which ledger, and what to do.
        message: String,
        /// What the database or the system reported.
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// The claim under which something was to be recorded has passed to another process: discard the attempt.
    #[error("the claim on {partition} was taken over by another process; the attempt is discarded")]
    Fenced {
        /// The partition.
        partition: String,
    },
    /// It has to be opened again before it can be used.
    #[error("{message}")]
    Reopen {
        /// What was being done, or what happened to the ledger.
        message: String,
        /// What the database reported.
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// The file is not sound: open it again, which keeps it under another name, and rebuild it from the manifests.
    #[error(
        "the ledger {ledger} is damaged ({reason}); `moesync sync` keeps it under another name and rebuilds it from the manifests"
    )]
    Damaged {
        /// The file.
        ledger: String,
        /// What the database reported, or what a column holds.
        reason: String,
    },
    /// A newer version of moesync made the ledger, or wrote to it: stop. Nothing was changed, and that version can go on with it.
    #[error("the ledger {ledger} was made by a newer version of moesync ({found}); use that one")]
    TooNew {
        /// Which ledger.
        ledger: String,
        /// What this version does not know: a migration, or a word and its column.
        found: String,
    },
}

impl LedgerError {
    /// Whether the ledger has to be opened again before it can be used.
    pub fn needs_reopening(&self) -> bool {
        matches!(self, Self::Reopen { .. } | Self::Damaged { .. })
    }

    fn unavailable(message: impl Into<String>, source: impl Error + Send + Sync + 'static) -> Self {
        Self::Unavailable { message: message.into(), source: Some(Box::new(source)) }
    }

    /// What an error of the database means that is about neither the content nor the version of the ledger.
    fn database(action: &str, ledger: &str, source: sqlx::Error) -> Self {
        let message = format!("could not {action} the ledger {ledger}");
        match source {
            sqlx::Error::PoolClosed => Self::Reopen { message, source: Some(Box::new(source)) },
            source => Self::unavailable(message, source),
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

/// A partition whose object and manifest are at its destination.
#[derive(Debug)]
pub struct Adoption {
    /// The partition that the manifest names.
    pub partition: Partition,
    /// Its object.
    pub object: StoredObject,
    /// The number of attempts, by the manifest.
    pub attempts: u32,
}

/// What came of asking for a claim.
#[derive(Debug)]
pub enum Claimed {
    /// It is ours.
    Ours(Box<Claim>),
    /// A live process has it.
    Theirs,
    /// It has changed since it was planned: it was attempted, or stored, absent or lost.
    Changed,
}

/// An open ledger. Clones share it.
#[derive(Debug, Clone)]
pub struct Ledger {
    database: Database,
    home: Home,
}

/// What only one kind of database has.
#[derive(Debug, Clone)]
enum Home {
    File(sqlite::Home),
    Memory(sqlite::memory::Home),
    Server(postgres::Home),
}

impl Ledger {
    /// Closes it for all clones. The last process to close a file leaves it without a journal: it can be copied, and read
    /// by who may not write beside it.
    pub async fn close(&self) {
        if let Home::Server(home) = &self.home {
            home.leave(&self.database).await;
        }
        self.database.close().await;
    }

    /// The file of the ledger, where it is one.
    pub fn file(&self) -> Option<&Path> {
        match &self.home {
            Home::File(home) => Some(home.path()),
            Home::Memory(_) | Home::Server(_) => None,
        }
    }

    /// Which ledger this is: the file, or the server and its database.
    pub fn shown(&self) -> String {
        match &self.home {
            Home::File(home) => home.path().display().to_string(),
            Home::Memory(_) => sqlite::memory::SHOWN.to_owned(),
            Home::Server(home) => home.shown().to_owned(),
        }
    }

    /// Whether the holder called `name` of this ledger still lives. In doubt, it does.
    pub async fn is_alive(&self, name: &str) -> bool {
        match &self.home {
            Home::File(home) => home.is_alive(name),
            Home::Memory(home) => home.is_alive(name),
            Home::Server(home) => home.is_alive(&self.database, name).await,
        }
    }

    /// # Errors
    ///
    /// [`LedgerError::Reopen`] when the file was deleted or replaced while open: writes would be lost.
    pub fn check_in_place(&self) -> Result<(), LedgerError> {
        match &self.home {
            Home::File(home) => home.check_in_place(),
            Home::Memory(_) | Home::Server(_) => Ok(()),
        }
    }

    /// Reads the whole ledger as a check, where that was not done when it was opened. A server checks its own pages.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Damaged`], after which the next opening keeps the file aside; also whatever keeps it from being read.
    pub async fn check_whole(&self) -> Result<(), LedgerError> {
        match &self.home {
            Home::File(home) => home.check_whole().await,
            Home::Memory(_) | Home::Server(_) => Ok(()),
        }
    }

    fn holder_name(&self) -> &str {
        match &self.home {
            Home::File(home) => home.holder_name(),
            Home::Memory(home) => home.holder_name(),
            Home::Server(home) => home.holder_name(),
        }
    }

    /// The statement that asks a server for its clock.
    fn server_clock(&self) -> Option<&'static str> {
        matches!(self.home, Home::Server(_)).then_some(postgres::CLOCK)
    }

    /// Begins a transaction that writes.
    async fn begin(&self) -> Result<Transaction, LedgerError> {
        self.database.begin().await.map_err(|error| self.error("write", error))
    }

    async fn read(&self, sql: &'static str) -> Result<Vec<Row>, LedgerError> {
        query(sql).read(&self.database).await.map_err(|error| self.error("read", error))
    }

    async fn change(&self, query: Query<'_>) -> Result<(), LedgerError> {
        query.change(&self.database).await.map(drop).map_err(|error| self.error("write", error))
    }

    /// What `source` means for the ledger.
    fn error(&self, action: &'static str, source: sqlx::Error) -> LedgerError {
        match &self.home {
            Home::File(home) => home.error(action, source),
            Home::Memory(_) => LedgerError::database(action, sqlite::memory::SHOWN, source),
            Home::Server(home) => home.error(action, source),
        }
    }

    /// That `column` holds what no version writes.
    fn nonsense(&self, column: &str, value: &str) -> LedgerError {
        let reason = format!("{column} holds {value:?}");
        match &self.home {
            Home::File(home) => home.damaged(reason),
            Home::Memory(_) => LedgerError::Damaged { ledger: self.shown(), reason },
            Home::Server(home) => home.unsound(&reason),
        }
    }

    /// What is wrong where `text` is in a column that holds one of a fixed set of words: if it is a word as moesync writes
    /// them, a newer version wrote it; anything else is damage.
    fn unknown(&self, column: &str, text: &str) -> LedgerError {
        if !rows::is_word(text) {
            return self.nonsense(column, text);
        }
        LedgerError::TooNew { ledger: self.shown(), found: format!("{column} holds the word `{text}`") }
    }
}
