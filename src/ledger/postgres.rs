//! The ledger on a PostgreSQL server: several processes on several machines work with it.
//!
//! This file owns what only a server has: how it is opened, which processes live, and what its errors mean. It must not know
//! what the tables are for.
//!
//! The server's clock alone decides which processes are alive: each renews its row in `holders`, and one whose row is older than
//! [`LIFETIME`] is dead to the others. Where it is only stopped, what it records later is fenced.

use std::{cmp::Ordering, str::FromStr as _, sync::Arc, time::Duration};

use sqlx::{
    Connection as _, PgConnection, PgPool, Row as _,
    migrate::{Migrate as _, MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
};
use tokio::{task::JoinSet, time::MissedTickBehavior};
use tracing::debug;
use url::Url;

use super::{
    Found, Ledger, LedgerError,
    database::{BEGIN_WRITING, Column, Database, Pools, Row, query},
};
use crate::telemetry::Chain;

/// How long a process counts as alive after it last renewed its row, in milliseconds.
const LIFETIME: i64 = 30_000;

/// How often it does so.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The most connections of one process: one writer commits while the next one begins.
const READERS: u32 = 3;
const WRITERS: u32 = 2;

/// How long a process that ends waits until its row is removed.
const FAREWELL: Duration = Duration::from_secs(2);

/// How long a read waits for a connection, and a write, which waits for the writes before it.
const PATIENCE: Duration = Duration::from_secs(10);
const WRITERS_PATIENCE: Duration = Duration::from_secs(30);

/// The server's clock, in milliseconds since 1970-01-01 UTC.
macro_rules! server_now {
    () => {
        "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)"
    };
}

/// Asks for it.
pub(super) const CLOCK: &str = concat!("SELECT ", server_now!(), " AS now");

/// The oldest version that moesync works with.
const OLDEST: i64 = 13;

/// The parameters of a URL that sqlx reads. It logs any other with its value, which may be a password.
const PARAMETERS: [&str; 18] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

/// The table in which sqlx records the migrations.
const MIGRATIONS: &str = "_sqlx_migrations";

/// What a server is, and what its user may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// Its version, as it names it.
    pub version: String,
    /// Whether moesync works with that version.
    pub is_supported: bool,
    /// The schema that the tables are in, or will be.
    pub schema: Option<String>,
    /// Whether the user may create tables in it.
    pub can_create: bool,
    /// The rights on the tables in it that the user lacks, such as "INSERT on claims".
    pub missing_rights: Vec<String>,
    /// The most connections of one process.
    pub connections: u32,
    /// The most connections of the server, from all clients together.
    pub all_connections: u64,
}

/// The server of an open ledger.
#[derive(Debug, Clone)]
pub(super) struct Home {
    shown: Arc<str>,
    holder: Arc<str>,
    /// Renews the row in `holders` until the last clone is dropped.
    _heartbeat: Arc<JoinSet<()>>,
}

/// Opens the ledger at the `url` of a server: creates it, or brings an older one up to date.
///
/// `candidate` names the ledger if it has no name yet; `holder` turns that name into the name of this process, which must be
/// unique for as long as the process lives. Returns both names.
///
/// # Errors
///
/// [`LedgerError::TooNew`] when a newer version of moesync made the ledger, which is then left as it is; also when the
/// server cannot be reached or refuses.
pub async fn open(
    url: &str,
    candidate: &str,
    holder: impl FnOnce(&str) -> String,
) -> Result<(Ledger, Found, String, String), LedgerError> {
    let (pools, shown) = connect(url).await?;
    let failed = |error| LedgerError::database("open", &shown, error);
    let found = migrate(&pools.writers, &shown).await?;
    let database = Database::Postgres(pools.clone());
    let place = name(&database, candidate).await.map_err(failed)?;
    let holder = holder(&place);
    renew(&pools, &holder).await.map_err(failed)?;
    query(concat!("DELETE FROM holders WHERE renewed_at < ", server_now!(), " - $1"))
        .bind(2880 * LIFETIME)
        .change(&database)
        .await
        .map_err(failed)?;
    let mut heartbeat = JoinSet::new();
    heartbeat.spawn(renew_continuously(pools, holder.clone()));
    let home = Home { shown: shown.into(), holder: holder.as_str().into(), _heartbeat: Arc::new(heartbeat) };
    Ok((Ledger { database, home: super::Home::Server(home) }, found, place, holder))
}

/// Opens the ledger at the `url` of a server for reading only; `None` when there is none yet. Never creates or changes it.
///
/// # Errors
///
/// When the server cannot be reached, or another version of moesync made the ledger.
pub async fn open_read_only(url: &str) -> Result<Option<Ledger>, LedgerError> {
    let (pools, shown) = connect(url).await?;
    let failed = |error| LedgerError::database("read", &shown, error);
    let database = Database::Postgres(pools);
    let exists =
        query("SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'partitions'");
    if exists.read_one(&database).await.map_err(failed)?.is_none() {
        return Ok(None);
    }
    let version = query("SELECT max(version) AS version FROM _sqlx_migrations").read_one(&database).await;
    let version = version.and_then(|row| row.map(|row| Column::read(&row, "version")).transpose()).map_err(failed)?;
    let newest = migrations().iter().map(|migration| migration.version).max();
    match version.flatten().cmp(&newest) {
        Ordering::Equal => {}
        Ordering::Greater => {
            let found = format!("migration {}", version.flatten().unwrap_or_default());
            return Err(LedgerError::TooNew { ledger: shown, found });
        }
        Ordering::Less => {
            return Err(LedgerError::Unavailable {
                message: format!(
                    "the ledger {shown} was made by an older version of moesync; `moesync sync` or `moesync run` bring it \
                     up to date"
                ),
                source: None,
            });
        }
    }
    let home = Home { shown: shown.into(), holder: "".into(), _heartbeat: Arc::default() };
    Ok(Some(Ledger { database, home: super::Home::Server(home) }))
}

/// Describes the server at `url`.
///
/// # Errors
///
/// [`LedgerError::Unavailable`] when it cannot be reached, or refuses.
pub async fn facts(url: &str) -> Result<ServerFacts, LedgerError> {
    let (pools, shown) = connect(url).await?;
    let database = Database::Postgres(pools);
    let asked = query(
        "SELECT current_setting('server_version') AS version,
                CAST(current_setting('server_version_num') AS BIGINT) / 10000 AS major,
                CAST(current_schema() AS TEXT) AS schema,
                CAST(CAST(coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS INTEGER) AS BIGINT) AS can_create,
                CAST(current_setting('max_connections') AS BIGINT) AS all_connections",
    )
    .read_one(&database)
    .await;
    let rights = query(
        "SELECT wanted.privilege AS privilege, CAST(min(tablename) AS TEXT) AS first, count(*) AS tables
         FROM pg_tables, (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE')) AS wanted (privilege)
         WHERE schemaname = current_schema() AND CAST(tablename AS TEXT) = ANY (string_to_array($1, ' '))
           AND NOT has_table_privilege(format('%I.%I', schemaname, tablename), wanted.privilege)
         GROUP BY wanted.privilege ORDER BY wanted.privilege",
    )
    .bind(tables().join(" "))
    .read(&database)
    .await;
    database.close().await;
    let right = |row: &Row| {
        let (privilege, first) = (String::read(row, "privilege")?, String::read(row, "first")?);
        let more = match i64::read(row, "tables")? {
            1 => String::new(),
            2 => " and 1 more table".to_owned(),
            tables => format!(" and {} more tables", tables - 1),
        };
        Ok(format!("{privilege} on {first}{more}"))
    };
    let facts = asked.and_then(|row| {
        let row = row.ok_or(sqlx::Error::RowNotFound)?;
        Ok(ServerFacts {
            missing_rights: rights?.iter().map(right).collect::<sqlx::Result<_>>()?,
            version: Column::read(&row, "version")?,
            is_supported: i64::read(&row, "major")? >= OLDEST,
            schema: Column::read(&row, "schema")?,
            can_create: Column::read(&row, "can_create")?,
            connections: READERS + WRITERS,
            all_connections: u64::try_from(i64::read(&row, "all_connections")?).unwrap_or_default(),
        })
    });
    facts.map_err(|error| LedgerError::database("read", &shown, error))
}

/// What is wrong with the URL of a server, if anything is.
///
/// # Errors
///
/// It cannot be parsed, has a parameter that is unknown, or one with a value that is not one of it. No value is shown.
pub fn check_url(url: &str) -> Result<(), String> {
    options(url).map(drop)
}

fn options(url: &str) -> Result<PgConnectOptions, String> {
    let parsed = Url::parse(url).map_err(|error| not_a_url(&error))?;
    for (name, value) in parsed.query_pairs() {
        let is_option = name.starts_with("options[") && name.ends_with(']');
        if !is_option && !PARAMETERS.contains(&&*name) {
            // Where the query has an "@", it may be the rest of a password.
            let is_name = name.chars().all(|char| char.is_ascii_alphanumeric() || "_-".contains(char));
            let is_shown = is_name && parsed.query().is_some_and(|query| !query.contains('@'));
            let named = if is_shown { format!(" {name:?}") } else { String::new() };
            return Err(format!(
                "unknown parameter{named} after the \"?\"; the known ones are {}; write a \"?\" within a password as %3F",
                PARAMETERS.join(", ")
            ));
        }
        if matches!(&*name, "sslmode" | "ssl-mode") && value.parse::<PgSslMode>().is_err() {
            return Err(format!("{name}: expected disable, allow, prefer, require, verify-ca or verify-full"));
        }
    }
    PgConnectOptions::from_str(url)
        .map_err(|error| std::error::Error::source(&error).map_or_else(|| not_a_url(&error), |cause| not_a_url(&cause)))
}

fn not_a_url(cause: &dyn std::fmt::Display) -> String {
    format!("it is not the URL of a PostgreSQL database: {cause}")
}

async fn connect(url: &str) -> Result<(Pools, String), LedgerError> {
    let options = options(url)
        .map_err(|problem| LedgerError::Unavailable { message: format!("ledger.url: {problem}"), source: None })?;
    let shown = shown(&options);
    // Behind PgBouncer, neither a prepared statement nor a setting of the connection lasts beyond a transaction.
    let options = options.statement_cache_capacity(0).extra_float_digits(None).application_name("moesync");
    let pool = |connections, patience| {
        PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(patience)
            .after_release(|connection, _| Box::pin(async move { Ok(has_no_transaction(connection).await) }))
    };
    let writers = pool(WRITERS, WRITERS_PATIENCE).connect_lazy_with(options.clone());
    match pool(READERS, PATIENCE).connect_with(options.clone()).await {
        Ok(readers) => Ok((Pools { readers, writers }, shown)),
        Err(error) => Err(LedgerError::database("open", &shown, reason(error, &options).await)),
    }
}

/// Whether a connection can be used again. Where the statements that begin a transaction failed, or their caller was
/// cancelled, one is open that sqlx does not end: it would fail whatever comes next, or keep the lock of writers.
async fn has_no_transaction(connection: &mut PgConnection) -> bool {
    // A transaction of its own begins with the statement.
    let asked = sqlx::raw_sql("SELECT now() = statement_timestamp()").fetch_one(connection).await;
    asked.and_then(|row| row.try_get(0)).unwrap_or(false)
}

/// Why the pool got no connection: it retries, and in the end reports only that its time was up.
async fn reason(error: sqlx::Error, options: &PgConnectOptions) -> sqlx::Error {
    if !matches!(error, sqlx::Error::PoolTimedOut) {
        return error;
    }
    match tokio::time::timeout(PATIENCE, PgConnection::connect_with(options)).await {
        Ok(Err(reason)) => reason,
        Ok(Ok(_)) | Err(_) => error,
    }
}

fn migrations() -> Migrator {
    let mut migrations = sqlx::migrate!("src/ledger/postgres/migrations");
    // Its lock belongs to a connection, which does not last behind PgBouncer.
    migrations.set_locking(false);
    migrations
}

/// Creates the tables or brings them up to date. One process at a time does so; the others wait and find it done.
async fn migrate(pool: &PgPool, shown: &str) -> Result<Found, LedgerError> {
    let failed = |error| LedgerError::database("bring up to date", shown, error);
    // Its lock keeps the other processes out.
    let mut transaction = pool.begin_with(BEGIN_WRITING).await.map_err(failed)?;
    let found: Option<i64> = sqlx::query_scalar(
        "SELECT CAST(count(*) AS BIGINT) FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'partitions'",
    )
    .persistent(false)
    .fetch_one(&mut *transaction)
    .await
    .map_err(failed)?;
    let forget = async |connection: &mut PgConnection| {
        // Behind PgBouncer the statements that sqlx prepares for migrations stay with the server's connection, under names
        // that the next process uses too.
        sqlx::raw_sql("DEALLOCATE ALL").execute(connection).await.map(drop).map_err(failed)
    };
    forget(&mut transaction).await?;
    let migrations = migrations();
    let migrated = match is_outdated(&mut transaction, &migrations).await {
        Ok(true) => migrations.run_direct(None, &mut *transaction, false).await,
        Ok(false) => Ok(()),
        Err(error) => Err(error),
    };
    migrated.map_err(|error| match error {
        MigrateError::VersionMissing(version) | MigrateError::VersionTooNew(version, _) => {
            LedgerError::TooNew { ledger: shown.to_owned(), found: format!("migration {version}") }
        }
        MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => failed(source),
        other => LedgerError::unavailable(format!("could not bring the ledger {shown} up to date"), other),
    })?;
    forget(&mut transaction).await?;
    transaction.commit().await.map_err(failed)?;
    Ok(if found == Some(0) { Found::Nothing } else { Found::Existing })
}

/// Whether a migration of this version is not recorded. The migrator itself first creates the table that records them, even
/// if it is there: a user who may not create tables could never run.
async fn is_outdated(connection: &mut PgConnection, migrations: &Migrator) -> Result<bool, MigrateError> {
    let has_table = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = current_schema() AND tablename = $1)",
    );
    if !has_table.bind(MIGRATIONS).persistent(false).fetch_one(&mut *connection).await? {
        return Ok(true);
    }
    if let Some(version) = connection.dirty_version(MIGRATIONS).await? {
        return Err(MigrateError::Dirty(version));
    }
    let recorded = connection.list_applied_migrations(MIGRATIONS).await?;
    for recorded in &recorded {
        match migrations.iter().find(|known| known.version == recorded.version) {
            None => return Err(MigrateError::VersionMissing(recorded.version)),
            Some(known) if known.checksum != recorded.checksum => {
                return Err(MigrateError::VersionMismatch(recorded.version));
            }
            Some(_) => {}
        }
    }
    Ok(recorded.len() < migrations.iter().len())
}

/// The names of the tables that the migrations create.
fn tables() -> Vec<String> {
    let migrations = migrations();
    let statements = migrations.iter().flat_map(|migration| migration.sql.as_str().lines());
    let created = statements.filter_map(|line| line.strip_prefix("CREATE TABLE ")?.strip_suffix(" ("));
    created.map(str::to_owned).collect()
}

/// The ledger's name: `candidate` if it has none yet.
async fn name(database: &Database, candidate: &str) -> sqlx::Result<String> {
    let mut transaction = database.begin().await?;
    query("INSERT INTO ledger (number, name) VALUES (1, $1) ON CONFLICT (number) DO NOTHING")
        .bind(candidate)
        .execute(&mut transaction)
        .await?;
    let row = query("SELECT name FROM ledger").row(&mut transaction).await?;
    transaction.commit().await?;
    row.map_or_else(|| Ok(candidate.to_owned()), |row| Column::read(&row, "name"))
}

/// Behind no other writer: one that writes for longer than [`LIFETIME`] would make every process look dead.
async fn renew(pools: &Pools, holder: &str) -> sqlx::Result<()> {
    query(concat!(
        "INSERT INTO holders (name, renewed_at) VALUES ($1, ",
        server_now!(),
        ") ON CONFLICT (name) DO UPDATE SET renewed_at = excluded.renewed_at",
    ))
    .bind(holder)
    .change_own(pools)
    .await
}

async fn renew_continuously(pools: Pools, holder: String) {
    let mut ticks = tokio::time::interval(HEARTBEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match renew(&pools, &holder).await {
            Ok(()) => {}
            Err(sqlx::Error::PoolClosed) => return,
            // The next write to the ledger meets the same error, and that one is reported.
            Err(error) => debug!("could not renew this process's row in the ledger: {}", Chain(&error)),
        }
    }
}

/// The server and its database, without a password.
fn shown(options: &PgConnectOptions) -> String {
    let (user, host, port) = (options.get_username(), options.get_host(), options.get_port());
    let host = options.get_socket().map_or_else(|| host.to_owned(), |socket| socket.display().to_string());
    format!("postgres://{user}@{host}:{port}/{}", options.get_database().unwrap_or(user))
}

impl Home {
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    pub(super) fn holder_name(&self) -> &str {
        &self.holder
    }

    /// Removes this process's row: its claims and duties are free at once. A server that does not answer finds out by the
    /// row's age.
    pub(super) async fn leave(&self, database: &Database) {
        let removed = query("DELETE FROM holders WHERE name = $1").bind(&*self.holder).change(database);
        if !self.holder.is_empty() && !matches!(tokio::time::timeout(FAREWELL, removed).await, Ok(Ok(_))) {
            debug!("could not remove this process's row from the ledger");
        }
    }

    pub(super) async fn is_alive(&self, database: &Database, name: &str) -> bool {
        let alive =
            query(concat!("SELECT name FROM holders WHERE name = $1 AND renewed_at >= ", server_now!(), " - $2"));
        alive.bind(name).bind(LIFETIME).read_one(database).await.map_or(true, |row| row.is_some())
    }

    pub(super) fn error(&self, action: &'static str, source: sqlx::Error) -> LedgerError {
        LedgerError::database(action, &self.shown, source)
    }

    /// That the database holds what no version writes. It is neither renamed nor rebuilt by moesync, as a file is.
    pub(super) fn unsound(&self, reason: &str) -> LedgerError {
        LedgerError::Unavailable {
            message: format!(
                "the ledger {} is damaged ({reason}); restore the database, or start on an empty one, which learns what is \
                 stored from the manifests",
                self.shown
            ),
            source: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tracing_subscriber::{Layer, layer::SubscriberExt as _};

    use super::*;

    /// Counts what the parser of URLs logs.
    #[derive(Clone, Default)]
    struct Logged(Arc<AtomicUsize>);

    impl<S: tracing::Subscriber> Layer<S> for Logged {
        fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
            if event.metadata().target() == "sqlx_postgres::options::parse" {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    #[test]
    fn every_known_parameter_is_read_by_sqlx_and_no_other_reaches_it() {
        let logged = Logged::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(logged.clone()), || {
            for name in PARAMETERS {
                let value = match name {
                    "sslmode" | "ssl-mode" => "Verify-Full",
                    "port" | "statement-cache-capacity" => "1",
                    "hostaddr" => "127.0.0.1",
                    _ => "value",
                };
                check_url(&format!("postgres://me@db/x?{name}={value}&options[a]=b")).unwrap();
            }
            for query in ["passwort=canary", "options[a=canary", "=canary", "sslMode=disable"] {
                check_url(&format!("postgres://me@db/x?{query}")).unwrap_err();
            }
        });
        assert_eq!(logged.0.load(Ordering::Relaxed), 0, "sqlx does not know a parameter");
    }

    #[test]
    fn a_mistake_in_a_url_is_named_without_a_value() {
        let problem = |rest: &str| {
            let problem = check_url(&format!("postgres://{rest}")).unwrap_err();
            assert!(!problem.to_lowercase().contains("canary"), "{problem}");
            problem
        };
        let unknown = problem("me@db/x?sslmode=require&passwort=canary");
        let known = "unknown parameter \"passwort\" after the \"?\"; the known ones are application_name, dbname, ";
        assert!(unknown.starts_with(known), "{unknown}");
        for rest in ["me:1?canary@db/x", "me:1?canary=1@db/x", "me@db/x?canary%20=1", "me:canary@pass@db:port/x"] {
            problem(rest);
        }
        let modes = "expected disable, allow, prefer, require, verify-ca or verify-full";
        assert_eq!(problem("me@db/x?sslmode=canary"), format!("sslmode: {modes}"));
        assert_eq!(problem("me@db/x?ssl-mode="), format!("ssl-mode: {modes}"));
        for parameter in ["port", "hostaddr", "statement-cache-capacity"] {
            problem(&format!("me@db/x?{parameter}=canary"));
        }
    }

    #[test]
    fn the_tables_are_those_of_the_migrations() {
        let tables = tables();
        let is_known = |name: &&str| tables.iter().any(|table| table == name);
        assert!(["ledger", "claims", "partition_tables", "incidents"].iter().all(is_known), "{tables:?}");
        let migrations = migrations();
        let created = migrations.iter().flat_map(|migration| migration.sql.as_str().matches("CREATE TABLE"));
        assert_eq!(tables.len(), created.count());
    }
}
