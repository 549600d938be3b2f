//! A PostgreSQL server: one for all tests of the process, with a database for each that asks.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

/// The server. It ends with the test process, which closes its input.
struct Server {
    /// The URL without a database.
    url: String,
    _child: Child,
}

static SERVER: OnceLock<Server> = OnceLock::new();
static DATABASES: AtomicUsize = AtomicUsize::new(0);

fn start() -> Server {
    // A server of its own in a temporary folder, also as root. Tests need no durability.
    let mut child = Command::new("pg_virtualenv")
        .args(["-t", "-o", "fsync=off", "-o", "max_connections=300", "sh", "-c"])
        .arg("echo \"postgres://$PGUSER:$PGPASSWORD@127.0.0.1:$PGPORT\"; cat > /dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("pg_virtualenv");
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let url = lines.map_while(Result::ok).find(|line| line.starts_with("postgres://")).expect("a server");
    Server { url, _child: child }
}

/// The URL of an empty database.
pub async fn database() -> String {
    let server = tokio::task::spawn_blocking(|| SERVER.get_or_init(start)).await.unwrap();
    let name = format!("moesync_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    execute(&format!("{}/postgres", server.url), &format!("CREATE DATABASE {name}")).await;
    format!("{}/{name}", server.url)
}

/// Runs a statement, beside the processes that use the database.
pub async fn execute(url: &str, statement: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await.unwrap();
}

/// Makes a process of the ledger look dead until it renews its row again.
pub async fn bury(url: &str, holder: &str) {
    execute(url, &format!("UPDATE holders SET renewed_at = 0 WHERE name LIKE '{holder}'")).await;
}
