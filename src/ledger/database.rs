//! SQL on SQLite and on PostgreSQL: one text of each statement for both.
//!
//! This file owns what differs in sending a statement and reading its rows. It must not know what the tables are for.
//!
//! Columns hold 64-bit integers or text, so that both databases return the same values; placeholders are `$1`, `$2`, ….
//!
//! Each call is boxed: what sqlx needs for two databases would make every future that calls the ledger tens of kilobytes
//! large.
//!
//! Writers are one after the other on both databases: SQLite has one writer, and on PostgreSQL each transaction that
//! writes first takes a lock. So what is right on one of them is right on the other, and rows become visible in the order
//! of their ids.

use std::{borrow::Cow, panic};

use futures::TryStreamExt as _;
use sqlx::{
    Arguments, AssertSqlSafe, Either, Executor as _, Row as _,
    pool::PoolConnection,
    postgres::{PgArguments, PgPool, PgRow, Postgres},
    sqlite::{Sqlite, SqliteArguments, SqliteConnection, SqlitePool, SqliteRow},
};
use tracing::Instrument as _;

use crate::report::PartitionId;

/// Begins a transaction of PostgreSQL that writes: after the writer before it, and no longer than a live process needs. A
/// process that is stopped within one does not keep the others from writing.
///
/// The settings are the transaction's own, because behind PgBouncer the next transaction has another connection.
pub(super) const BEGIN_WRITING: &str = "BEGIN; SET LOCAL client_min_messages = warning; SET LOCAL lock_timeout = '30s'; SET LOCAL statement_timeout = '60s';
     SET LOCAL idle_in_transaction_session_timeout = '5s'; SELECT pg_advisory_xact_lock(7881696101)";

/// Begins a transaction of PostgreSQL that reads. Every read has one: a statement is prepared and then run, and behind
/// PgBouncer only a transaction keeps the connection between the two.
const BEGIN_READING: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = '60s'";

/// Begins a transaction of PostgreSQL that writes what no other process writes.
const BEGIN_OWN: &str = "BEGIN; SET LOCAL statement_timeout = '10s'";

/// Begins a transaction of SQLite that writes: it has the write lock from its first moment, so that it never fails half way
/// for being late.
const BEGIN_IMMEDIATE: &str = "BEGIN IMMEDIATE";

/// Fails, with an integer overflow, if the statement before it has changed nothing.
const UNLESS_CHANGED: &str = "SELECT abs(-9223372036854775808) WHERE changes() = 0";

/// Most statements in one text: longer runs of them become texts that are alike, which stay compiled.
const MOST_JOINED: usize = 32;

/// The connections to the database.
#[derive(Debug, Clone)]
pub(super) enum Database {
    Sqlite(SqlitePool),
    Postgres(Pools),
}

/// Apart, because a writer waits for the writers of all processes: readers must not wait with it. And when a process is
/// stopped, each of its writers keeps the others waiting, one after the other.
#[derive(Debug, Clone)]
pub(super) struct Pools {
    pub(super) readers: PgPool,
    pub(super) writers: PgPool,
}

/// A transaction. Dropped without [`Transaction::commit`], it changes nothing.
pub(super) enum Transaction {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    Postgres(sqlx::Transaction<'static, Postgres>),
}

/// A statement and its values.
pub(super) struct Query<'q> {
    sql: &'static str,
    values: Vec<Value<'q>>,
}

/// A value of a statement.
#[derive(Debug)]
pub(super) enum Value<'q> {
    Integer(Option<i64>),
    Text(Option<Cow<'q, str>>),
}

/// A row of a result.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// A type that a column's value is read as.
pub(super) trait Column: Sized {
    fn read(row: &Row, column: &str) -> sqlx::Result<Self>;
}

/// A statement without values yet.
pub(super) fn query<'q>(sql: &'static str) -> Query<'q> {
    Query { sql, values: Vec::new() }
}

impl<'q> Query<'q> {
    /// Adds the value of the next placeholder.
    pub(super) fn bind(mut self, value: impl Into<Value<'q>>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Binds workspace, report and date, in this order.
    pub(super) fn bind_id(self, id: &'q PartitionId) -> Self {
        self.bind(id.workspace()).bind(id.report.name()).bind(id.date.to_string())
    }

    /// The rows of a statement that only reads.
    pub(super) async fn read(self, database: &Database) -> sqlx::Result<Vec<Row>> {
        Box::pin(async move {
            match database {
                // One statement is a transaction of its own.
                Database::Sqlite(pool) => {
                    Ok(self.for_sqlite().fetch_all(pool).await?.into_iter().map(Row::Sqlite).collect())
                }
                Database::Postgres(_) => {
                    let mut transaction = database.begin_reading().await?;
                    let rows = self.rows(&mut transaction).await?;
                    transaction.commit().await?;
                    Ok(rows)
                }
            }
        })
        .await
    }

    /// The rows of a statement.
    pub(super) async fn rows(self, transaction: &mut Transaction) -> sqlx::Result<Vec<Row>> {
        Box::pin(async move {
            Ok(match transaction {
                Transaction::Sqlite(transaction) => {
                    self.for_sqlite().fetch_all(&mut **transaction).await?.into_iter().map(Row::Sqlite).collect()
                }
                Transaction::Postgres(transaction) => {
                    self.for_postgres().fetch_all(&mut **transaction).await?.into_iter().map(Row::Postgres).collect()
                }
            })
        })
        .await
    }

    /// The first row of a statement that only reads.
    pub(super) async fn read_one(self, database: &Database) -> sqlx::Result<Option<Row>> {
        Ok(self.read(database).await?.into_iter().next())
    }

    /// The first row of a statement.
    pub(super) async fn row(self, transaction: &mut Transaction) -> sqlx::Result<Option<Row>> {
        Ok(self.rows(transaction).await?.into_iter().next())
    }

    /// Runs a statement that writes, in a transaction of its own. Returns how many rows it changed.
    pub(super) async fn change(self, database: &Database) -> sqlx::Result<u64> {
        Box::pin(async move {
            match database {
                Database::Sqlite(pool) => Ok(self.for_sqlite().execute(pool).await?.rows_affected()),
                Database::Postgres(_) => {
                    let mut transaction = database.begin().await?;
                    let changed = self.execute(&mut transaction).await?;
                    transaction.commit().await?;
                    Ok(changed)
                }
            }
        })
        .await
    }

    /// Runs a statement of PostgreSQL that writes what no other process writes: it waits for no other writer, nor for a
    /// connection that one has.
    pub(super) async fn change_own(self, pools: &Pools) -> sqlx::Result<()> {
        Box::pin(async move {
            let mut transaction = Transaction::Postgres(pools.readers.begin_with(BEGIN_OWN).await?);
            self.execute(&mut transaction).await?;
            transaction.commit().await
        })
        .await
    }

    /// Runs a statement that writes. Returns how many rows it changed.
    pub(super) async fn execute(self, transaction: &mut Transaction) -> sqlx::Result<u64> {
        Box::pin(async move {
            Ok(match transaction {
                Transaction::Sqlite(transaction) => {
                    self.for_sqlite().execute(&mut **transaction).await?.rows_affected()
                }
                Transaction::Postgres(transaction) => {
                    self.for_postgres().execute(&mut **transaction).await?.rows_affected()
                }
            })
        })
        .await
    }

    fn for_sqlite(self) -> sqlx::query::Query<'q, Sqlite, SqliteArguments> {
        self.values.into_iter().fold(sqlx::query(self.sql), |query, value| match value {
            Value::Integer(value) => query.bind(value),
            Value::Text(value) => query.bind(value),
        })
    }

    /// Not persistent: behind PgBouncer, a statement that is kept belongs to a connection that the next transaction does
    /// not have. PostgreSQL's text has no NUL.
    fn for_postgres(self) -> sqlx::query::Query<'q, Postgres, PgArguments> {
        let query = sqlx::query(self.sql).persistent(false);
        self.values.into_iter().fold(query, |query, value| match value {
            Value::Integer(value) => query.bind(value),
            Value::Text(Some(text)) if text.contains('\0') => query.bind(Some(text.replace('\0', "\u{fffd}"))),
            Value::Text(value) => query.bind(value),
        })
    }
}

/// Several statements in one text, which sqlx runs on SQLite only. Their placeholders are numbered on.
struct Text {
    sql: String,
    values: SqliteArguments,
}

impl Text {
    fn of<'q>(statements: impl IntoIterator<Item = Query<'q>>) -> sqlx::Result<Self> {
        let mut text = Text { sql: String::new(), values: SqliteArguments::default() };
        for Query { sql, values } in statements {
            let before = Arguments::len(&text.values);
            let mut parts = sql.split('$');
            text.sql += parts.next().unwrap_or_default();
            for part in parts {
                let digits = part.len() - part.trim_start_matches(|digit: char| digit.is_ascii_digit()).len();
                let (number, rest) = part.split_at(digits);
                let number: usize = number.parse().unwrap_or_default();
                text.sql += &format!("${}{rest}", before + number);
            }
            text.sql += ";\n";
            for value in values {
                match value {
                    Value::Integer(value) => Arguments::add(&mut text.values, value),
                    Value::Text(value) => Arguments::add(&mut text.values, value),
                }
                .map_err(sqlx::Error::Encode)?;
            }
        }
        Ok(text)
    }

    /// Runs it, a transaction whose first statement after BEGIN is a guard where it `is_guarded`. The rows of its statements;
    /// `None` if the guard has changed nothing. Leaves no transaction open.
    async fn run(self, mut connection: PoolConnection<Sqlite>, is_guarded: bool) -> sqlx::Result<Option<Vec<Row>>> {
        let mut ended = 0;
        let rows = self.rows(&mut connection, is_guarded, &mut ended).await;
        let is_open = ended > 0 && !matches!(rows, Ok(Some(_)));
        if is_open && connection.execute("ROLLBACK").await.is_err() {
            // On a full disk SQLite has rolled back itself, or the connection is broken.
            connection.close_on_drop();
        }
        rows
    }

    /// The same, without its end. Counts the statements that have ended.
    async fn rows(
        self,
        connection: &mut SqliteConnection,
        is_guarded: bool,
        ended: &mut usize,
    ) -> sqlx::Result<Option<Vec<Row>>> {
        let query = sqlx::query_with(AssertSqlSafe(self.sql), self.values);
        let mut results = connection.fetch_many(query);
        let mut rows = Vec::new();
        while let Some(result) = results.try_next().await? {
            match result {
                Either::Right(row) => rows.push(Row::Sqlite(row)),
                Either::Left(done) => {
                    *ended += 1;
                    if is_guarded && *ended == 2 && done.rows_affected() == 0 {
                        return Ok(None);
                    }
                }
            }
        }
        Ok(Some(rows))
    }
}

impl Database {
    /// Runs statements in one transaction that writes, if `guard`, the first of them, changes a row. The rows of all; `None` if
    /// the guard has changed nothing: then nothing is.
    ///
    /// SQLite gets one text with all of them: each round trip to the thread of its connection costs more than a statement.
    pub(super) async fn write(
        &self,
        guard: Option<Query<'_>>,
        statements: Vec<Query<'_>>,
    ) -> sqlx::Result<Option<Vec<Row>>> {
        Box::pin(async move {
            let Self::Sqlite(pool) = self else {
                let mut transaction = self.begin().await?;
                if let Some(guard) = guard
                    && guard.execute(&mut transaction).await? == 0
                {
                    return Ok(None);
                }
                let rows = transaction.run(statements).await?;
                transaction.commit().await?;
                return Ok(Some(rows));
            };
            let is_guarded = guard.is_some();
            let guard = guard.into_iter().flat_map(|guard| [guard, query(UNLESS_CHANGED)]);
            let all = [query(BEGIN_IMMEDIATE)].into_iter().chain(guard).chain(statements).chain([query("COMMIT")]);
            let text = Text::of(all)?;
            let connection = pool.acquire().await?;
            #[expect(
                clippy::disallowed_methods,
                reason = "it ends with its statements; aborted, it would leave them half done"
            )]
            let running = tokio::spawn(text.run(connection, is_guarded).in_current_span());
            running.await.unwrap_or_else(|failure| match failure.try_into_panic() {
                Ok(panicked) => panic::resume_unwind(panicked),
                // The runtime ends.
                Err(_) => Err(sqlx::Error::WorkerCrashed),
            })
        })
        .await
    }

    /// Begins a transaction that writes, after the writer before it has ended.
    pub(super) async fn begin(&self) -> sqlx::Result<Transaction> {
        Box::pin(async move {
            Ok(match self {
                Self::Sqlite(pool) => Transaction::Sqlite(pool.begin_with(BEGIN_IMMEDIATE).await?),
                Self::Postgres(pools) => Transaction::Postgres(pools.writers.begin_with(BEGIN_WRITING).await?),
            })
        })
        .await
    }

    /// Begins a transaction whose statements all read the same moment.
    pub(super) async fn begin_reading(&self) -> sqlx::Result<Transaction> {
        Box::pin(async move {
            Ok(match self {
                Self::Sqlite(pool) => Transaction::Sqlite(pool.begin().await?),
                Self::Postgres(pools) => Transaction::Postgres(pools.readers.begin_with(BEGIN_READING).await?),
            })
        })
        .await
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(Pools { readers, writers }) => {
                writers.close().await;
                readers.close().await;
            }
        }
    }
}

impl Transaction {
    /// Runs statements, and returns the rows of all.
    pub(super) async fn run(&mut self, statements: Vec<Query<'_>>) -> sqlx::Result<Vec<Row>> {
        Box::pin(async move {
            let mut rows = Vec::new();
            let mut statements = statements.into_iter().peekable();
            while statements.peek().is_some() {
                match self {
                    Self::Sqlite(transaction) => {
                        let text = Text::of(statements.by_ref().take(MOST_JOINED))?;
                        rows.extend(text.rows(transaction, false, &mut 0).await?.unwrap_or_default());
                    }
                    Self::Postgres(_) => {
                        for statement in statements.by_ref() {
                            rows.extend(statement.rows(self).await?);
                        }
                    }
                }
            }
            Ok(rows)
        })
        .await
    }

    pub(super) async fn commit(self) -> sqlx::Result<()> {
        Box::pin(async move {
            match self {
                Self::Sqlite(transaction) => transaction.commit().await,
                Self::Postgres(transaction) => transaction.commit().await,
            }
        })
        .await
    }
}

macro_rules! columns {
    ($($type:ty),*) => {$(
        impl Column for $type {
            fn read(row: &Row, column: &str) -> sqlx::Result<Self> {
                match row {
                    Row::Sqlite(row) => row.try_get(column),
                    Row::Postgres(row) => row.try_get(column),
                }
            }
        }
    )*};
}

columns!(i64, Option<i64>, String, Option<String>);

/// As 0 and 1.
impl Column for bool {
    fn read(row: &Row, column: &str) -> sqlx::Result<Self> {
        Ok(i64::read(row, column)? != 0)
    }
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl From<$type> for Value<'_> {
            fn from(value: $type) -> Self {
                Self::Integer(Some(value.into()))
            }
        }

        impl From<Option<$type>> for Value<'_> {
            fn from(value: Option<$type>) -> Self {
                Self::Integer(value.map(Into::into))
            }
        }
    )*};
}

integers!(i64, u32, u16, bool);

macro_rules! texts {
    ($($type:ty),*) => {$(
        impl<'q> From<$type> for Value<'q> {
            fn from(value: $type) -> Self {
                Self::Text(Some(value.into()))
            }
        }

        impl<'q> From<Option<$type>> for Value<'q> {
            fn from(value: Option<$type>) -> Self {
                Self::Text(value.map(Into::into))
            }
        }
    )*};
}

texts!(&'q str, String, &'q String);

impl<'q> From<&'q Option<String>> for Value<'q> {
    fn from(value: &'q Option<String>) -> Self {
        value.as_deref().into()
    }
}
