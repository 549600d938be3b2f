//! Tables of stored partitions: made after the object is recorded, beside and behind the downloads.
//!
//! | file | subject |
//! |---|---|
//! | `run` | which reports' tables are made when |
//! | `partition` | partitions from claim to record: the order of the steps |
//! | `inspect` | tables, re-read against their manifests |
//! | `present` | tables that are at the destination already, and those that no longer belong there |
//! | `source` | the object, verified, as a file |
//! | `survey` | which tables the object becomes, and what is in their columns |
//! | `schema` | the schema of a table, extended and stored before any of its objects |
//! | `write` | the objects of a partition's tables |
//! | `threads` | threads that may block, and their end |
//!
//! Nothing here changes the stored object or its partition. Each step can be repeated: what an earlier attempt left is
//! replaced, and the same object and schema give the same bytes.

mod inspect;
mod partition;
mod present;
mod run;
mod schema;
mod source;
mod survey;
mod threads;
mod write;

pub use inspect::inspect_tables;
pub use run::{TablesSummary, derive_continuously, derive_once, note_table_reports, tables_again, tables_of_again};

use self::threads::Threads;
use super::context::Context;
use crate::{
    config::Report,
    derivation::DerivationFailure,
    ledger::{LedgerError, TablesClaim},
    store::{Destination, StoreError},
    table_words::TableFormat,
    tables,
    telemetry::Chain,
};

/// How many partitions, and parts of each, are read or written ahead of the one that is next.
const AHEAD: usize = 4;

/// Why an attempt ends at a step.
#[derive(Debug)]
enum DeriveError {
    /// It failed, and that is recorded.
    Failed(DerivationFailure),
    /// The ledger failed, so nothing can be recorded.
    Ledger(LedgerError),
}

impl From<LedgerError> for DeriveError {
    fn from(error: LedgerError) -> Self {
        DeriveError::Ledger(error)
    }
}

impl From<StoreError> for DeriveError {
    fn from(error: StoreError) -> Self {
        DeriveError::passing(error.to_string())
    }
}

impl DeriveError {
    /// A failure that may be over soon.
    fn passing(message: String) -> Self {
        DeriveError::Failed(DerivationFailure { message, is_of_content: false })
    }

    /// A failure for which the object is the reason.
    fn of_content(message: String) -> Self {
        DeriveError::Failed(DerivationFailure { message, is_of_content: true })
    }

    /// A table that cannot be made of an entry.
    fn of_table(table: &str, entry: &str, error: &tables::Error) -> Self {
        Self::of_content(format!("table `{table}` cannot be made of entry `{entry}`: {}", Chain(error)))
    }
}

/// What the steps share.
struct Derive<'a> {
    ctx: &'a Context,
    report: &'a Report,
    destination: &'a Destination,
    format: TableFormat,
    claim: &'a TablesClaim,
    threads: Threads,
}

impl Derive<'_> {
    /// # Errors
    ///
    /// [`LedgerError::Fenced`] if the claim has passed to another process: nothing may be replaced then.
    async fn check_claim(&self) -> Result<(), LedgerError> {
        match self.ctx.ledger.has_tables_claim(self.claim).await? {
            true => Ok(()),
            false => Err(LedgerError::Fenced { partition: format!("the tables of {}", self.report.id) }),
        }
    }
}
