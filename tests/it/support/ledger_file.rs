//! Changes to the ledger's file that the library does not make: those of another version, a full disk or a person.
//!
//! This file owns the SQL of the tests, and with it their knowledge of tables and columns. A test that needs a state uses
//! the library's calls.

use std::{fs, path::Path};

use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};

/// Opens a ledger's file, and creates it if it is missing.
async fn database(path: &Path) -> SqlitePool {
    // Without time limits the pool has no task, which can loop without end after the pool is closed (sqlx 0.9.0). One
    // connection, because a PRAGMA applies to a connection.
    let pool = SqlitePoolOptions::new().idle_timeout(None).max_lifetime(None).max_connections(1);
    pool.connect_with(SqliteConnectOptions::new().filename(path).create_if_missing(true)).await.unwrap()
}

/// Runs statements on a ledger without its CHECK constraints, for values that moesync does not write.
pub async fn edit(path: &Path, statements: &[&str]) {
    let pool = database(path).await;
    for statement in ["PRAGMA ignore_check_constraints = ON"].iter().chain(statements) {
        sqlx::query(sqlx::AssertSqlSafe((*statement).to_owned())).execute(&pool).await.unwrap();
    }
    pool.close().await;
}

/// Creates a ledger of an older version: its schema after the first `migrations`, with the rows of `statements`.
pub async fn of_older_version(path: &Path, migrations: usize, statements: &[&str]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ledger/sqlite/migrations");
    let mut files: Vec<_> = fs::read_dir(all).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let folder = tempfile::tempdir().unwrap();
    for file in &files[..migrations] {
        fs::copy(file, folder.path().join(file.file_name().unwrap())).unwrap();
    }
    let pool = database(path).await;
    sqlx::migrate::Migrator::new(folder.path()).await.unwrap().run(&pool).await.unwrap();
    pool.close().await;
    edit(path, statements).await;
}

/// Creates a ledger of the first version, with one partition of a report `gone` that is no longer configured.
pub async fn of_first_version(path: &Path) {
    let gone = "INSERT INTO partitions (workspace, report, date, source, generated_at, due_at, settled)
                VALUES ('acme', 'gone', '2026-01-01', 'daily_dump', 0, 0, 'absent')";
    of_older_version(path, 1, &[gone]).await;
}

/// Replaces the text of all waiting events, as a later version with another format leaves them.
pub async fn make_events_unreadable(path: &Path) {
    edit(path, &["UPDATE outbox SET event = 'of a later version'"]).await;
}

/// Adds 20,000 partitions of four old reports. The library's calls would take minutes to settle them one by one.
pub async fn add_long_history(path: &Path) {
    edit(
        path,
        &["WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < 4999)
           INSERT INTO partitions (workspace, report, date, source, generated_at, due_at, settled, message)
           SELECT 'acme', report, date('2005-01-01', n || ' days'), 'campaign_report', 0, 0,
                  iif(n % 2, 'lost', 'absent'), 'a \"quoted\"' || char(10) || 'line'
           FROM numbers, (SELECT 'a' AS report UNION SELECT 'b' UNION SELECT 'y' UNION SELECT 'z')",
          "INSERT INTO report_figures (workspace, report, source, absent, lost)
           SELECT workspace, report, source, count(*) FILTER (WHERE settled = 'absent'), count(*) FILTER (WHERE settled = 'lost')
           FROM partitions WHERE report IN ('a', 'b', 'y', 'z') GROUP BY workspace, report, source"],
    )
    .await;
}

/// Adds that many megabytes of old partitions of one report.
pub async fn add_megabytes(path: &Path, megabytes: u32) {
    let statement = format!(
        "WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < {megabytes} * 100)
         INSERT INTO partitions (workspace, report, date, source, generated_at, due_at, settled, message)
         SELECT 'acme', 'old', date('2005-01-01', n || ' days'), 'campaign_report', 0, 0, 'absent', hex(zeroblob(5000))
         FROM numbers"
    );
    edit(path, &[&statement]).await;
}

/// The number of rows about notifications. The library lists them by target only, and there is none.
pub async fn rows_of_notifications(path: &Path) -> i64 {
    let pool = database(path).await;
    let count = "SELECT (SELECT count(*) FROM targets) + (SELECT count(*) FROM told) + (SELECT count(*) FROM outbox)";
    let count = sqlx::query_scalar(count).fetch_one(&pool).await.unwrap();
    pool.close().await;
    count
}

/// The targets that the ledger has rows for.
pub async fn targets(path: &Path) -> Vec<String> {
    let pool = database(path).await;
    let names = sqlx::query_scalar("SELECT name FROM targets").fetch_all(&pool).await.unwrap();
    pool.close().await;
    names
}

/// A full disk for the ledger: each change of partitions and reports fails and its transaction is rolled back, as by
/// SQLite.
#[derive(Debug)]
pub struct FullDisk(SqlitePool);

const FULL: [(&str, &str, &str); 4] = [
    ("full_1", "INSERT", "partitions"),
    ("full_2", "UPDATE", "partitions"),
    ("full_3", "INSERT", "reports"),
    ("full_4", "UPDATE", "reports"),
];

impl FullDisk {
    /// Fills the disk.
    pub async fn begin(path: &Path) -> FullDisk {
        let pool = database(path).await;
        for (name, event, table) in FULL {
            let refuse = "BEGIN SELECT RAISE(ROLLBACK, 'the disk is full'); END";
            let trigger = format!("CREATE TRIGGER {name} BEFORE {event} ON {table} {refuse}");
            sqlx::query(sqlx::AssertSqlSafe(trigger)).execute(&pool).await.unwrap();
        }
        FullDisk(pool)
    }

    /// Frees the disk.
    pub async fn end(self) {
        for (name, ..) in FULL {
            sqlx::query(sqlx::AssertSqlSafe(format!("DROP TRIGGER {name}"))).execute(&self.0).await.unwrap();
        }
        self.0.close().await;
    }
}
