//! The ledger in SQLite: one file, write-ahead log, one writer at a time.
//!
//! This file holds what the parts share: the open ledger, its reads and writes, and how they fail. The parts:
//!
//! | file | subject |
//! |---|---|
//! | `open` | opening the file: journal, soundness, schema |
//! | `view` | what a plan depends on |
//! | `partitions` | partitions: each alone, what planning adds, and what recovery finds |
//! | `claims` | claims on partitions |
//! | `record` | an attempt, the partition after it, the hold on its workspace |
//! | `counters` | the figures of each report, after each change |
//! | `notices` | targets, and what each was notified of |
//! | `outbox` | events that have not arrived |
//! | `rows` | rows to values and back |
//! | `errors` | what an error means for the ledger |
//!
//! The connection has a thread of its own, and a call to it costs more than most statements. So statements that do not
//! depend on the results of earlier ones share a call.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use sqlx::{
    Sqlite, SqlitePool,
    sqlite::{SqliteArguments, SqliteRow},
};

use self::{
    errors::classify,
    open::{Rest, identity, note_damage},
};
use super::{
    Claim, Claimed, LedgerError,
    holder::{self, Holder},
};
use crate::report::PartitionId;

mod claims;
mod counters;
mod errors;
mod notices;
mod open;
mod outbox;
mod partitions;
mod record;
mod rows;
mod view;

pub use notices::{StoredNews, Summarized};
pub use outbox::{Delivery, Waiting};

type Query<'q> = sqlx::query::Query<'q, Sqlite, SqliteArguments>;

/// Queries about one partition.
trait BindId<'q> {
    /// Binds workspace, report and date, in this order.
    fn bind_id(self, id: &'q PartitionId) -> Self;
}

impl<'q> BindId<'q> for Query<'q> {
    fn bind_id(self, id: &'q PartitionId) -> Self {
        self.bind(id.workspace()).bind(id.report.name()).bind(id.date.to_string())
    }
}

impl<'q, T> BindId<'q> for sqlx::query::QueryScalar<'q, Sqlite, T, SqliteArguments> {
    fn bind_id(self, id: &'q PartitionId) -> Self {
        self.bind(id.workspace()).bind(id.report.name()).bind(id.date.to_string())
    }
}

/// An open ledger. Clones share it.
#[derive(Debug, Clone)]
pub struct Ledger {
    pub(super) pool: SqlitePool,
    path: Arc<PathBuf>,
    identity: Option<(u64, u64)>,
    holder: Option<Arc<Holder>>,
    /// Where it is read as a file that no process writes.
    rest: Option<Rest>,
}

impl Ledger {
    /// Closes it for all clones. The last process to do so leaves one file without a journal, which can be copied, and
    /// read by who may not write beside it.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Where the ledger is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether another process works with this ledger.
    pub fn is_shared(&self) -> bool {
        holder::others_live(&self.path, self.holder_name())
    }

    /// Whether the holder called `name` of this ledger still lives.
    pub fn is_alive(&self, name: &str) -> bool {
        holder::is_alive(&self.path, name)
    }

    /// # Errors
    ///
    /// [`LedgerError::Replaced`] when the file was deleted or replaced while open: writes would be lost.
    pub fn check_in_place(&self) -> Result<(), LedgerError> {
        if identity(&self.path) == self.identity {
            Ok(())
        } else {
            Err(LedgerError::Replaced { path: self.path.to_path_buf() })
        }
    }

    fn holder_name(&self) -> &str {
        self.holder.as_deref().map_or("", Holder::name)
    }

    /// A transaction that has the write lock from its first moment, so that it never fails half way for being late.
    async fn begin(&self) -> Result<sqlx::Transaction<'_, sqlx::Sqlite>, LedgerError> {
        self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(|error| self.error("write", error))
    }

    pub(super) async fn read(&self, query: &'static str) -> Result<Vec<SqliteRow>, LedgerError> {
        sqlx::query(query).fetch_all(&self.pool).await.map_err(|error| self.error("read", error))
    }

    async fn change(&self, query: Query<'_>) -> Result<(), LedgerError> {
        query.execute(&self.pool).await.map(drop).map_err(|error| self.error("write", error))
    }

    pub(super) fn error(&self, action: &'static str, source: sqlx::Error) -> LedgerError {
        self.unless_written(classify(&self.path, action, source))
    }

    pub(super) fn nonsense(&self, column: &str, value: &str) -> LedgerError {
        let reason = format!("{column} holds {value:?}");
        self.unless_written(LedgerError::Damaged { path: self.path.to_path_buf(), reason })
    }

    /// A file that is written to while it is read as one at rest looks damaged, and is not.
    fn unless_written(&self, error: LedgerError) -> LedgerError {
        match (&error, &self.rest) {
            (LedgerError::Damaged { .. }, Some(rest)) if !rest.lasts(&self.path) => LedgerError::File {
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
