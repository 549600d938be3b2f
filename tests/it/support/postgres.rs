//! PostgreSQL servers: one for all tests of the process, with a database for each that asks, and others that a test may stop.

use std::{
    io::{BufRead as _, BufReader, Lines, Write as _},
    net::TcpListener,
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU16, AtomicUsize, Ordering},
    },
};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

/// What `pg_virtualenv` runs: it prints the URL, and hands each line to `pg_ctlcluster`. pg_virtualenv ends the server and
/// removes its folder when this ends, and fails to if it cannot print then: what is printed has a descriptor of its own.
///
/// PgBouncer gives a connection to a client for one transaction, and has few of them. It does not run as root.
const SCRIPT: &str = r#"
    cat > "$PGSYSCONFDIR/pgbouncer.ini" <<END
[databases]
* = host=127.0.0.1 port=$PGPORT user=$PGUSER password=$PGPASSWORD
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $1
auth_type = any
pool_mode = transaction
default_pool_size = 3
server_login_retry = 1
max_client_conn = 1000
ignore_startup_parameters = extra_float_digits
END
    as_postgres=
    if [ "$(id -u)" = 0 ]; then as_postgres="setpriv --reuid=postgres --regid=postgres --clear-groups"; fi
    PATH="$PATH:/usr/sbin" $as_postgres pgbouncer -q "$PGSYSCONFDIR/pgbouncer.ini" < /dev/null 3>&- &
    trap 'kill $!' EXIT
    echo "postgres://$PGUSER:$PGPASSWORD@127.0.0.1:$PGPORT" >&3
    while read -r action; do
        pg_ctlcluster $PGVERSION regress $action < /dev/null 3>&-
        echo done >&3
    done
"#;

/// How a client reaches the server.
#[derive(Debug, Clone, Copy)]
pub enum Route {
    Direct,
    /// Through PgBouncer in transaction mode.
    Pooled,
}

/// A server. It ends with its owner, and with the test process however that ends: its input is closed then.
pub struct Server {
    /// The URL without a database.
    url: String,
    /// The same through PgBouncer.
    pooled_url: String,
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
        let port = free_port();
        // In a temporary folder, also as root. Tests need no durability. It has a process group of its own, so that a signal
        // to that of the tests does not keep it from removing the folder.
        let mut child = Command::new("sh")
            .args([
                "-c",
                "exec pg_virtualenv -t -o fsync=off -o max_connections=300 sh -c \"$0\" sh $1 3>&1 > /dev/null 2>&1",
            ])
            .args([SCRIPT, &port.to_string()])
            .env("PGPORT", free_port().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("pg_virtualenv");
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = output.by_ref().map_while(Result::ok).find(|line| line.starts_with("postgres://")).expect("a server");
        let pooled_url = format!("{}:{port}", url.rsplit_once(':').unwrap().0);
        Self { url, pooled_url, input: child.stdin.take(), output, child }
    }

    /// The URL of an empty database.
    pub async fn database(&self, route: Route) -> String {
        let name = format!("moesync_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        execute(&format!("{}/postgres", self.url), &format!("CREATE DATABASE {name}")).await;
        match route {
            Route::Direct => format!("{}/{name}", self.url),
            Route::Pooled => format!("{}/{name}", self.pooled_url),
        }
    }

    /// The URL without a database, past PgBouncer.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Ends the server immediately, with all connections.
    pub fn stop(&mut self) {
        self.command("stop --mode immediate");
    }

    /// Starts it again, on the same port.
    pub fn start_again(&mut self) {
        self.command("start");
    }

    /// Has the server use TLS with this certificate and key, in PEM.
    pub async fn use_certificate(&mut self, certificate: &str, key: &str) {
        let url = format!("{}/postgres", self.url);
        // In its own folder, with its own rights.
        for (name, pem) in [("server.crt", certificate), ("server.key", key)] {
            let lines: Vec<_> = pem.lines().map(|line| format!("('{line}')")).collect();
            execute(
                &url,
                &format!(
                    "COPY (SELECT column1 FROM (VALUES {}) AS lines) TO PROGRAM 'umask 077; cat > {name}'",
                    lines.join(", ")
                ),
            )
            .await;
        }
        execute(&url, "ALTER SYSTEM SET ssl_cert_file = 'server.crt'").await;
        execute(&url, "ALTER SYSTEM SET ssl_key_file = 'server.key'").await;
        execute(&url, "ALTER SYSTEM SET ssl = on").await;
        self.stop();
        self.start_again();
    }

    fn command(&mut self, action: &str) {
        tokio::task::block_in_place(|| {
            writeln!(self.input.as_mut().unwrap(), "{action}").unwrap();
            assert_eq!(self.output.next().unwrap().unwrap(), "done");
        });
    }
}

/// A port that nothing listens on, and that is given to no outgoing connection. While a server is stopped, pg_virtualenv would
/// give the port that it chooses to the next server.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (0..100).map(|_| first + NEXT.fetch_add(1, Ordering::Relaxed)).find(is_free).expect("a free port")
}

impl Drop for Server {
    fn drop(&mut self) {
        // The script ends, and pg_virtualenv after it.
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// The URL of an empty database.
pub async fn database(route: Route) -> String {
    tokio::task::spawn_blocking(|| SHARED.get_or_init(Server::run)).await.unwrap().database(route).await
}

/// The first column of the first row that a query returns.
pub async fn number(url: &str, query: &str) -> i64 {
    let mut connection = PgConnection::connect(url).await.unwrap();
    // A statement that is prepared and then run would need a transaction behind PgBouncer.
    sqlx::raw_sql(AssertSqlSafe(query.to_owned())).fetch_one(&mut connection).await.unwrap().get(0)
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
