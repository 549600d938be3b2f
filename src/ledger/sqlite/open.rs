//! Opening the file: its journal, its soundness, its schema.
//!
//! This file decides whether a file is a ledger that this version can work with. A small one is read whole for that, as is
//! one in which damage was met; of others only what work begins with. [`Ledger::check_whole`] reads the rest meanwhile.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use sqlx::{
    ConnectOptions as _, Connection as _, SqlitePool,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{
    Home,
    errors::{classify, damaged, migration_error},
    holder::Holder,
};
use crate::{
    alarm_kind::AlarmKind,
    config::SourceKind,
    ledger::{
        Choice, Home as LedgerHome, Ledger, LedgerError,
        database::Database,
        rows::{is_word, settled_from},
    },
    outcome::{Outcome, Remark},
    plan::Reach,
    table_words::{TableFormat, TablesState},
};

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("src/ledger/sqlite/migrations");

/// How long a writer waits for another process to finish its transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest ledger, in bytes, that is read whole when it is opened: some forty thousand partitions.
const MOST_READ_WHOLE: u64 = 16 * 1024 * 1024;

/// Number of partitions that are checked together.
const CHECKED_TOGETHER: u32 = 500;

/// How often a ledger at rest is opened for reading before it counts as one that is written to.
const OPENINGS: usize = 3;

/// How often, and after which pause, a reader looks again whether another process has brought the schema up to date.
const MIGRATION_LOOKS: u32 = 40;
const MIGRATION_PAUSE: Duration = Duration::from_millis(50);

/// A ledger that no process has open for writing: it has no journal beside it, and the file alone holds everything. It
/// is read as it is, because SQLite would make files of its own beside it, or fail where it may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rest {
    size: u64,
    modified: Option<SystemTime>,
}

impl Rest {
    fn of(path: &Path) -> Option<Self> {
        let has_journal = PathBuf::from(format!("{}-wal", path.display())).exists();
        let metadata = fs::metadata(path).ok().filter(|_| !has_journal)?;
        Some(Self { size: metadata.len(), modified: metadata.modified().ok() })
    }

    /// Whether no process has begun to write to it since.
    pub(super) fn lasts(&self, path: &Path) -> bool {
        Self::of(path).as_ref() == Some(self)
    }
}

/// Opens or creates; says whether there was a ledger already.
pub(super) async fn open(path: &Path, holder: &str) -> Result<(Ledger, bool), LedgerError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // A power cut may take the last transactions, never the file's soundness: the objects whose records
        // went are found again by their manifests. In return nothing waits for the disk at each record.
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(true);
    let pool = connect(path, options).await?;
    let is_checked = is_read_whole(path);
    let prepared = async {
        let existed = has_table(path, &pool, "partitions").await?;
        if existed {
            refuse_newer_schema(path, &pool).await?;
        }
        if is_checked {
            check_pages(path, &pool).await?;
        }
        refuse_unknown_words(path, &pool, is_checked).await?;
        MIGRATIONS.run(&pool).await.map_err(|error| migration_error(path, error))?;
        Ok(existed)
    };
    let existed = match prepared.await {
        Ok(existed) => existed,
        Err(error) => {
            // SQLite removes its journal by name: not to happen once a new ledger has that name.
            pool.close().await;
            return Err(error);
        }
    };
    let holder = Holder::announce(path, holder).map_err(|error| {
        LedgerError::unavailable(format!("could not announce this process beside the ledger {}", path.display()), error)
    })?;
    let (identity, path) = (identity(path), Arc::new(path.to_owned()));
    let home = Home { identity, path: Arc::clone(&path), holder: Some(Arc::new(holder)), rest: None };
    let ledger = Ledger { database: Database::Sqlite(pool), home: LedgerHome::File(home) };
    // Pages can be sound and their content nonsense.
    let read = async {
        ledger.view(&Reach::of(&[], Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH)).await?;
        if is_checked {
            check_rows(&ledger).await?;
            forget_damage(&path);
        }
        Ok(())
    };
    if let Err(error) = read.await {
        ledger.close().await;
        return Err(error);
    }
    Ok((ledger, existed))
}

/// Opens for reading; `None` when nothing was ever recorded.
pub(super) async fn open_read_only(path: &Path) -> Result<Option<Ledger>, LedgerError> {
    for _ in 1..OPENINGS {
        let rest = Rest::of(path);
        let opened = open_read_only_once(path, rest.clone()).await;
        if rest.is_none_or(|rest| rest.lasts(path)) {
            return opened;
        }
        // A process began to write meanwhile: what was found may be half of each.
    }
    open_read_only_once(path, None).await
}

/// Reads every partition as a check.
async fn check_rows(ledger: &Ledger) -> Result<(), LedgerError> {
    let mut last = None;
    loop {
        let entries = ledger.page(&Choice::default(), last.as_ref(), CHECKED_TOGETHER).await?;
        let Some(entry) = entries.into_iter().next_back() else { return Ok(()) };
        last = Some(entry.partition.id);
    }
}

async fn open_read_only_once(path: &Path, rest: Option<Rest>) -> Result<Option<Ledger>, LedgerError> {
    let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(BUSY_TIMEOUT);
    let pool = connect(path, options.immutable(rest.is_some())).await?;
    let home = Home { identity: identity(path), path: Arc::new(path.to_owned()), holder: None, rest };
    // The schema has not been created yet.
    if !has_table(path, &pool, "partitions").await? {
        return Ok(None);
    }
    let mut version = refuse_newer_schema(path, &pool).await?;
    // Where a process writes, it may be bringing the schema up to date: each migration is a transaction of its own.
    for _ in 0..MIGRATION_LOOKS {
        if version == newest_migration() || home.rest.is_some() {
            break;
        }
        tokio::time::sleep(MIGRATION_PAUSE).await;
        version = refuse_newer_schema(path, &pool).await?;
    }
    if version != newest_migration() {
        return Err(LedgerError::Unavailable {
            message: format!(
                "the ledger {} was made by an older version of moesync; `moesync sync` or `moesync run` bring it up \
                     to date",
                path.display(),
            ),
            source: None,
        });
    }
    Ok(Some(Ledger { database: Database::Sqlite(pool), home: LedgerHome::File(home) }))
}

impl Home {
    /// As [`Ledger::check_whole`], beside other work and through a connection of its own.
    pub(in crate::ledger) async fn check_whole(&self) -> Result<(), LedgerError> {
        if is_read_whole(&self.path) {
            return Ok(());
        }
        let Some(reader) = open_read_only(&self.path).await? else { return Ok(()) };
        let checked = async {
            let Database::Sqlite(pool) = &reader.database else { return Ok(()) };
            check_pages(&self.path, pool).await.map_err(|error| self.noted(error))?;
            refuse_unknown_words(&self.path, pool, true).await?;
            check_rows(&reader).await
        };
        let checked = checked.await;
        reader.close().await;
        checked
    }
}

/// One connection, for which the process's tasks queue: connections that want to write at the same time wait for each
/// other by sleeping, up to a tenth of a second at a time, though the other is done in less than a millisecond.
pub(super) async fn connect(path: &Path, options: SqliteConnectOptions) -> Result<SqlitePool, LedgerError> {
    // A writer that waits for another process is not a slow statement.
    let options = options.disable_statement_logging();
    SqlitePoolOptions::new()
        .max_connections(1)
        // There is no network on which it could have been lost since.
        .test_before_acquire(false)
        // Nor anything to renew. The task that would do so can spin endlessly once the pool is closed (sqlx 0.9.0).
        .idle_timeout(None)
        .max_lifetime(None)
        // On a full disk SQLite itself rolls back. sqlx does not notice, and would refuse every later transaction.
        .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
        .connect_with(options)
        .await
        .map_err(|error| classify(path, "open", error))
}

/// Whether the ledger at `path` is read whole when it is opened: it is small, or damage was met in it.
fn is_read_whole(path: &Path) -> bool {
    damage_note(path).exists() || fs::metadata(path).map_or(true, |metadata| metadata.len() <= MOST_READ_WHOLE)
}

/// The file beside a ledger that says that damage was met in it.
fn damage_note(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.suspect", path.display()))
}

/// Notes that damage was met, so that the next opening reads the whole ledger. Where the note cannot be written, because
/// this process may only read, or the disk is full, the next process that meets the damage tries again.
pub(super) fn note_damage(path: &Path) {
    let _ = fs::write(damage_note(path), "");
}

fn forget_damage(path: &Path) {
    let _ = fs::remove_file(damage_note(path));
}

/// A few pages of nonsense in the middle of a database go unnoticed until they are read.
///
/// CHECK constraints are left out: one that lists words is also broken by a newer version, which is not damage.
async fn check_pages(path: &Path, pool: &SqlitePool) -> Result<(), LedgerError> {
    let failed = |error| classify(path, "check", error);
    let mut connection = pool.acquire().await.map_err(failed)?;
    sqlx::query("PRAGMA ignore_check_constraints = ON").execute(&mut *connection).await.map_err(failed)?;
    let verdict: String =
        sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut *connection).await.map_err(failed)?;
    sqlx::query("PRAGMA ignore_check_constraints = OFF").execute(&mut *connection).await.map_err(failed)?;
    if verdict == "ok" { Ok(()) } else { Err(damaged(path, verdict)) }
}

async fn has_table(path: &Path, pool: &SqlitePool, name: &str) -> Result<bool, LedgerError> {
    sqlx::query_scalar("SELECT count(*) > 0 FROM sqlite_master WHERE type = 'table' AND name = ?")
        .bind(name)
        .fetch_one(pool)
        .await
        .map_err(|error| classify(path, "read", error))
}

/// A table in the file at `path` if it is a database, and not a ledger. Only looks at the file.
pub(in crate::ledger) async fn table_of_other_program(path: &Path) -> Option<String> {
    // Nothing beside the file is read or made: what is not in the file yet is of a process that uses it.
    let options = SqliteConnectOptions::new().filename(path).read_only(true).immutable(true);
    let mut connection = options.connect().await.ok()?;
    let table = sqlx::query_scalar(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite~_%' ESCAPE '~'
         AND NOT EXISTS (SELECT 1 FROM sqlite_master WHERE name IN ('_sqlx_migrations', 'partitions')) LIMIT 1",
    );
    // What cannot be read is met again when it is opened as a ledger.
    let table = table.fetch_optional(&mut connection).await.ok().flatten();
    let _ = connection.close().await;
    table
}

async fn has_column(path: &Path, pool: &SqlitePool, table: &str, column: &str) -> Result<bool, LedgerError> {
    sqlx::query_scalar("SELECT count(*) > 0 FROM pragma_table_info($1) WHERE name = $2")
        .bind(table)
        .bind(column)
        .fetch_one(pool)
        .await
        .map_err(|error| classify(path, "read", error))
}

fn newest_migration() -> Option<i64> {
    MIGRATIONS.iter().map(|migration| migration.version).max()
}

/// Returns the ledger's version: its newest migration.
async fn refuse_newer_schema(path: &Path, pool: &SqlitePool) -> Result<Option<i64>, LedgerError> {
    if !has_table(path, pool, "_sqlx_migrations").await? {
        return Ok(None);
    }
    let version: Option<i64> = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations")
        .fetch_one(pool)
        .await
        .map_err(|error| classify(path, "read", error))?;
    match version {
        Some(version) if Some(version) > newest_migration() => {
            Err(LedgerError::TooNew { ledger: path.display().to_string(), found: format!("migration {version}") })
        }
        version => Ok(version),
    }
}

/// Whether a word is in a column's set.
type IsKnown = fn(&str) -> bool;

/// Every column that holds one of a fixed set of words: table, column, and which words it may hold. The first ones are in
/// tables that do not grow with the history.
const VOCABULARY: [(&str, &str, IsKnown); 14] = [
    ("holds", "outcome", |word| Outcome::parse(word).is_some()),
    ("told", "alarm", |word| AlarmKind::parse(word).is_some()),
    ("incidents", "alarm", |word| AlarmKind::parse(word).is_some()),
    ("told", "told_as", |word| AlarmKind::parse(word).is_some()),
    ("report_figures", "source", |word| SourceKind::parse(word).is_some()),
    ("attempt_figures", "outcome", |word| Outcome::parse(word).is_some()),
    ("report_tables", "format", |word| TableFormat::parse(word).is_some()),
    ("partitions", "tables", |word| TablesState::parse(word).is_some()),
    ("partitions", "settled", |word| settled_from(word).is_some()),
    ("partitions", "source", |word| SourceKind::parse(word).is_some()),
    ("partitions", "outcome", |word| Outcome::parse(word).is_some()),
    ("partitions", "remark", |word| Remark::parse(word).is_some()),
    ("attempts", "outcome", |word| Outcome::parse(word).is_some()),
    ("attempts", "remark", |word| Remark::parse(word).is_some()),
];
const IN_HISTORY: [&str; 2] = ["partitions", "attempts"];

/// A newer version may add a word without a migration. It must be met before anything is changed, not while work goes on.
/// The figures show the sources and outcomes of the history.
async fn refuse_unknown_words(path: &Path, pool: &SqlitePool, with_history: bool) -> Result<(), LedgerError> {
    for (table, column, is_known) in VOCABULARY {
        let is_meant = with_history || !IN_HISTORY.contains(&table);
        if !is_meant || !has_column(path, pool, table, column).await? {
            continue;
        }
        let query = format!("SELECT DISTINCT {column} FROM {table} WHERE {column} IS NOT NULL");
        let words: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(query))
            .fetch_all(pool)
            .await
            .map_err(|error| classify(path, "read", error))?;
        if let Some(word) = words.iter().find(|word| !is_known(word)) {
            let column = format!("{table}.{column}");
            return Err(match is_word(word) {
                true => LedgerError::TooNew {
                    ledger: path.display().to_string(),
                    found: format!("{column} holds the word `{word}`"),
                },
                false => damaged(path, format!("{column} holds {word:?}")),
            });
        }
    }
    Ok(())
}

/// Which file is at `path` now.
pub(super) fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}
