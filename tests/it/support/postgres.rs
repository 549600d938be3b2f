//! PostgreSQL servers: one for all tests of the process, with a database for each that asks, and others that a test may stop.

use std::{
    io::{BufRead as _, BufReader, Lines, Write as _},
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

/// What `pg_virtualenv` runs: it prints the URL, and hands each line to `pg_ctlcluster`. pg_virtualenv ends the server and
/// removes its folder when this ends, and fails to if it cannot print then: what is printed has a descriptor of its own.
const SCRIPT: &str = r#"
    echo "postgres://$PGUSER:$PGPASSWORD@127.0.0.1:$PGPORT" >&3
    while read -r action; do
        pg_ctlcluster $PGVERSION regress $action < /dev/null 3>&-
        echo done >&3
    done
"#;

/// A server. It ends with its owner, and with the test process however that ends: its input is closed then.
pub struct Server {
    /// The URL without a database.
    url: String,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
    child: Child,
}

static SHARED: OnceLock<Server> = OnceLock::new();
static DATABASES: AtomicUsize = AtomicUsize::new(0);

impl Server {
    /// A server for one test.
    pub async fn start() -> Self {
        tokio::task::spawn_blocking(Self::run).await.unwrap()
    }

    fn run() -> Self {
        // In a temporary folder, also as root. Tests need no durability. It has a process group of its own, so that a signal
        // to that of the tests does not keep it from removing the folder.
        let mut child = Command::new("sh")
            .args([
                "-c",
                "exec pg_virtualenv -t -o fsync=off -o max_connections=300 sh -c \"$0\" 3>&1 > /dev/null 2>&1",
            ])
            .arg(SCRIPT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("pg_virtualenv");
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = output.by_ref().map_while(Result::ok).find(|line| line.starts_with("postgres://")).expect("a server");
        Self { url, input: child.stdin.take(), output, child }
    }

    /// The URL of an empty database.
    pub async fn database(&self) -> String {
        let name = format!("moesync_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        execute(&format!("{}/postgres", self.url), &format!("CREATE DATABASE {name}")).await;
        format!("{}/{name}", self.url)
    }

    /// Ends the server immediately, with all connections.
    pub fn stop(&mut self) {
        self.command("stop --mode immediate");
    }

    /// Starts it again, on the same port.
    pub fn start_again(&mut self) {
        self.command("start");
    }

    fn command(&mut self, action: &str) {
        tokio::task::block_in_place(|| {
            writeln!(self.input.as_mut().unwrap(), "{action}").unwrap();
            assert_eq!(self.output.next().unwrap().unwrap(), "done");
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The script ends, and pg_virtualenv after it.
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// The URL of an empty database.
pub async fn database() -> String {
    tokio::task::spawn_blocking(|| SHARED.get_or_init(Server::run)).await.unwrap().database().await
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
