//! A ledger in memory, for simulations: the database of a file, without the file.
//!
//! This file owns which of its holders live: each stands for a process, and dies when the simulation says so.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use sqlx::sqlite::SqliteConnectOptions;

use super::{errors::migration_error, open};
use crate::{
    ledger::{Home as LedgerHome, Ledger, LedgerError, database::Database},
    lock::lock,
};

/// How it is shown in messages.
pub(in crate::ledger) const SHOWN: &str = "in memory";

/// A database in memory, which several holders share. It is gone with the last of them.
#[derive(Debug, Clone)]
pub struct Memory {
    database: Database,
    living: Living,
}

type Living = Arc<Mutex<BTreeSet<String>>>;

/// One of its holders.
#[derive(Debug, Clone)]
pub(in crate::ledger) struct Home {
    holder: Arc<str>,
    living: Living,
}

impl Memory {
    /// An empty ledger.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Unavailable`] where there is no memory for it.
    pub async fn new() -> Result<Self, LedgerError> {
        let path = SHOWN.as_ref();
        let pool = open::connect(path, SqliteConnectOptions::new().in_memory(true).foreign_keys(true)).await?;
        open::MIGRATIONS.run(&pool).await.map_err(|error| migration_error(path, error))?;
        Ok(Self { database: Database::Sqlite(pool), living: Arc::default() })
    }

    /// The ledger as the process called `holder` has it open.
    pub fn open(&self, holder: &str) -> Ledger {
        lock(&self.living).insert(holder.to_owned());
        let home = Home { holder: holder.into(), living: Arc::clone(&self.living) };
        Ledger { database: self.database.clone(), home: LedgerHome::Memory(home) }
    }

    /// Whether no statement runs. Statements run on a thread that a simulated clock does not see, so it moves only then.
    pub fn is_idle(&self) -> bool {
        match &self.database {
            Database::Sqlite(pool) => pool.num_idle() == pool.size() as usize,
            Database::Postgres(_) => true,
        }
    }

    /// Lets the process called `holder` die: its claims and duties pass to others.
    pub fn kill(&self, holder: &str) {
        lock(&self.living).remove(holder);
    }
}

impl Home {
    pub(in crate::ledger) fn holder_name(&self) -> &str {
        &self.holder
    }

    pub(in crate::ledger) fn is_alive(&self, name: &str) -> bool {
        lock(&self.living).contains(name)
    }
}
