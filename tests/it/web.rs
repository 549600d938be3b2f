//! The status page, its API, health and metrics over real HTTP, mostly of the real daemon.

mod api;
mod attack;
mod browser;
mod monitoring;
mod pages;

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use moesync::{config, sync::Context, web};
use reqwest::{Client, Response, StatusCode};
use serde_json::Value;
use tokio::{net::UnixDatagram, sync::watch, task::JoinHandle};

use crate::support::{Bench, Daemon, PATIENCE, Series, wait_until};

/// A token as a careful operator makes it.
const TOKEN: &str = "6f1c9e0d2b7a48e5-of-a-careful-operator";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The bench's configuration with these lines in its `[web]` table.
fn with_web(bench: &Bench, lines: &str) -> String {
    bench.config().replace("listen = \"\"", lines)
}

/// A running daemon and the URL of its page.
struct Served {
    daemon: Daemon,
    url: String,
}

impl Served {
    /// With a page on any free port of loopback.
    async fn start(bench: &Bench) -> Self {
        Self::with(bench, "listen = \"127.0.0.1:0\"").await
    }

    async fn with(bench: &Bench, lines: &str) -> Self {
        bench.write_config(&with_web(bench, lines));
        Self::over(Daemon::start(bench).await)
    }

    /// With the configuration that it was started with.
    fn over(daemon: Daemon) -> Self {
        let line = daemon.log().into_iter().find(|line| line.contains("\"message\":\"running\"")).unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        let url = line["url"].as_str().unwrap().trim_end_matches('/').to_owned();
        Self { daemon, url }
    }

    fn address(&self) -> SocketAddr {
        self.url.strip_prefix("http://").unwrap().parse().unwrap()
    }

    async fn get(&self, path: &str) -> Response {
        client().get(format!("{}{path}", self.url)).send().await.unwrap()
    }

    async fn text(&self, path: &str) -> String {
        let response = self.get(path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.text().await.unwrap()
    }

    async fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.text(path).await).unwrap()
    }
}

fn client() -> Client {
    Client::builder().no_proxy().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

/// A server in this process, with a context whose loop does not run.
struct InProcess {
    url: String,
    address: SocketAddr,
    _contexts: watch::Sender<Arc<Context>>,
    serving: JoinHandle<()>,
}

impl InProcess {
    async fn start(bench: &Bench) -> (Self, Arc<Context>) {
        Self::of(bench, &bench.config()).await
    }

    /// With another configuration than the bench's.
    async fn of(bench: &Bench, config: &str) -> (Self, Arc<Context>) {
        bench.write_config(&config.replace("listen = \"\"", "listen = \"127.0.0.1:0\""));
        let ctx = bench.context().await;
        let listener = web::Listener::bind(&ctx.config.web).await.unwrap().unwrap();
        let url = listener.url().trim_end_matches('/').to_owned();
        let address = url.strip_prefix("http://").unwrap().parse().unwrap();
        let contexts = watch::Sender::new(Arc::clone(&ctx));
        let shown = contexts.subscribe();
        let serving = crate::support::spawn(async move { listener.serve(shown).await });
        (Self { url, address, _contexts: contexts, serving }, ctx)
    }

    async fn health(&self, path: &str) -> (StatusCode, Value) {
        let response = client().get(format!("{}{path}", self.url)).send().await.unwrap();
        let status = response.status();
        (status, serde_json::from_str(&response.text().await.unwrap()).unwrap())
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// All paths that are served, for a report that exists.
fn paths(bench: &Bench) -> Vec<String> {
    let report = format!("workspace=acme&report={}", bench.series[0].id);
    let date = bench.newest;
    vec![
        "/".to_owned(),
        format!("/report?{report}"),
        "/api/v1/overview".to_owned(),
        "/api/v1/partitions".to_owned(),
        format!("/api/v1/partition?{report}&date={date}"),
        "/api/v1/plan".to_owned(),
        "/api/v1/openapi.json".to_owned(),
        "/livez".to_owned(),
        "/readyz".to_owned(),
        "/metrics".to_owned(),
    ]
}

/// The addresses of style, script and icon in a page.
fn assets(page: &str) -> Vec<String> {
    let found = page.match_indices("\"/assets/").map(|(at, _)| page[at + 1..].split('"').next().unwrap().to_owned());
    found.collect::<BTreeSet<_>>().into_iter().collect()
}

async fn all_stored(bench: &Bench) -> bool {
    let stored = bench.status().await.iter().filter(|partition| partition["state"] == "stored").count();
    stored == bench.due().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_shows_the_new_reports_and_a_change_of_the_address_needs_a_restart() {
    let both = [Series::campaign("Report test", 1), Series::dump(1)];
    let bench = Bench::new(&both).await;
    let whole = with_web(&bench, "listen = \"127.0.0.1:0\"");
    let served = Served::start(&bench).await;
    assert!(served.text("/").await.contains(">dump</a>"));
    bench.write_config(&whole.replace(&bench.report(&both[1]), "").replace("127.0.0.1:0", "127.0.0.2:0"));
    served.daemon.signal("HUP").await;
    assert!(wait_until(async || !served.text("/").await.contains(">dump</a>")).await);
    assert!(served.text("/").await.contains("1 recorded partitions belong to reports that are no longer configured"));
    served.daemon.wait_for_log("[web] has changed; restart moesync to apply it").await;
    served.daemon.wait_for_log("configuration reloaded: reports: - acme/dump").await;
    served.daemon.wait_for_log("nothing to do until").await;
    served.daemon.stop(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_reload_says_what_differs_from_what_the_process_runs_with() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let served = Served::start(&bench).await;
    let config = with_web(&bench, "listen = \"127.0.0.1:0\"");
    let other_ledger = config.replace("moesync.db", "other.db");
    assert_ne!(other_ledger, config);
    let count = |text: &str| served.daemon.log().iter().filter(|line| line.contains(text)).count();
    let reloaded = async |number: usize, config: &str| {
        bench.write_config(config);
        served.daemon.signal("HUP").await;
        assert!(wait_until(async || count("configuration reloaded: ") == number).await);
        (count("[ledger] has changed; restart"), count("[web] has changed; restart"))
    };
    let other_web = config.replace("127.0.0.1:0", "127.0.0.2:0");
    assert_eq!(reloaded(1, &other_web).await, (0, 1));
    assert_eq!(reloaded(2, &other_web).await, (0, 2), "it is pending still");
    assert_eq!(reloaded(3, &config).await, (0, 2), "it was taken back");
    assert_eq!(reloaded(4, &other_ledger).await, (1, 2));
    // What is opened again is the ledger that the process runs with.
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(bench.path(&format!("ledger/moesync.db{suffix}")));
    }
    assert!(wait_until(async || bench.ledger().exists()).await);
    assert_eq!(reloaded(5, &config).await, (1, 2));
    assert!(!bench.path("ledger/other.db").exists());
    served.daemon.stop(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_survives_a_ledger_deleted_under_the_daemon() {
    let bench = Bench::new(&[Series::dump(2)]).await;
    let served = Served::start(&bench).await;
    assert!(wait_until(async || all_stored(&bench).await).await);
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(bench.path(&format!("ledger/moesync.db{suffix}")));
    }
    assert!(served.text("/").await.contains("Every report that is due is stored."));
    served.daemon.signal("HUP").await;
    assert!(wait_until(async || served.daemon.alarms() == ["ledger"]).await);
    // It may be missing for a moment.
    let is_back = async || served.get("/").await.text().await.unwrap().contains("Every report that is due is stored.");
    assert!(wait_until(is_back).await);
    served.daemon.stop(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readyz_names_a_reload_that_was_refused_and_stays_ready_until_a_stop() {
    let bench = Bench::new(&[Series::dump(1)]).await;
    bench.fault("slow=100");
    let served = Served::start(&bench).await;
    assert!(wait_until(async || bench.requests() > 0).await);
    let path = bench.path("moesync.toml");
    let good = fs::read_to_string(&path).unwrap();
    fs::write(&path, good.replace("app_id", "ap_id")).unwrap();
    served.daemon.signal("HUP").await;
    let refused = async || served.json("/readyz").await.to_string().contains("the new configuration is not used");
    assert!(wait_until(refused).await);
    assert_eq!(served.get("/readyz").await.status(), StatusCode::OK);
    served.daemon.signal("TERM").await;
    let is_stopping = async || served.get("/readyz").await.status() == StatusCode::SERVICE_UNAVAILABLE;
    assert!(wait_until(is_stopping).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_is_reported_before_anything_is_started() {
    let bench = Bench::new(&[Series::dump(1)]).await;
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    bench.write_config(&with_web(&bench, &format!("listen = \"{address}\"")));
    let ran = bench.run(&["run"]).await.expect(1);
    assert!(ran.stderr.contains(&format!("could not listen on {address}")), "{}", ran.stderr);
    assert!(!bench.ledger().exists());
    // Only the daemon needs it.
    bench.sync(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_is_notified_of_the_start_and_of_each_turn() {
    let bench = Bench::new(&[Series::dump(1)]).await;
    let socket = bench.path("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    let mut command = bench.command(&["run"]);
    command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "300000");
    let daemon = Daemon::spawn(command);
    let mut received = Vec::new();
    let listening = async {
        while received.iter().filter(|state| *state == "WATCHDOG=1").count() < 3 {
            let mut buffer = [0; 256];
            let length = manager.recv(&mut buffer).await.unwrap();
            received.extend(String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned));
        }
    };
    tokio::time::timeout(PATIENCE, listening).await.unwrap();
    assert!(received.contains(&"READY=1".to_owned()), "{received:?}");
    daemon.stop(&bench).await;
}

/// A free port of loopback, for a configuration.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A file that its owner alone may read.
fn secret_file(bench: &Bench, name: &str, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let path = bench.path(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn health_asks_the_daemon_and_prints_failed_checks() {
    let bench = Bench::new(&[Series::dump(1)]).await;
    let off = bench.run(&["health"]).await.expect(2);
    assert!(off.stderr.contains("listen is \"\""), "{}", off.stderr);

    let token = secret_file(&bench, "web-token", TOKEN);
    let lines = format!("listen = \"0.0.0.0:{}\"\ntoken_file = \"{}\"", free_port(), token.display());
    bench.write_config(&with_web(&bench, &lines));
    let dead = bench.run(&["health", "--json"]).await.expect(1).json();
    assert!(dead["checks"][0]["message"].as_str().unwrap().contains("is the daemon running?"), "{dead}");

    let served = Served::with(&bench, &lines).await;
    let alive = bench.run(&["health", "--json"]).await.expect(0).json();
    let subjects: Vec<_> = alive["checks"].as_array().unwrap().iter().map(|check| check["subject"].clone()).collect();
    assert_eq!(subjects, ["loop", "ledger", "plan", "destination disk", "configuration"]);
    let schema = fs::read_to_string(root().join("docs/schemas/health.json")).unwrap();
    let validator = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    assert!([&dead, &alive].into_iter().all(|health| validator.is_valid(health)), "{alive}");
    fs::write(&token, "another-token-than-the-daemon-has").unwrap();
    let refused = bench.run(&["health"]).await.expect(1);
    assert!(refused.stdout.contains("refuses the token"), "{}", refused.stdout);
    served.daemon.stop(&bench).await;
}

#[test]
fn the_configuration_of_the_page_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("moesync.toml");
    let example = fs::read_to_string(root().join("config/moesync.example.toml")).unwrap();
    let complaint = |lines: &str| {
        fs::write(&path, example.replace("[web]\n", &format!("[web]\n{lines}\n"))).unwrap();
        config::load(&path, []).map(|_| ()).map_err(|problem| problem.to_string()).unwrap_err()
    };
    for (lines, reason) in [
        ("listen = \"0.0.0.0:8787\"", "can be reached by others, so it needs a token_file"),
        ("listen = \"[::]:8787\"", "can be reached by others, so it needs a token_file"),
        ("open = [\"everything\"]", "everything"),
        ("hosts = [\"moesync.example.com:8787\"]", "expected a host name without a port"),
        ("hosts = [\"10.0.0.1\"]", "expected a host name without a port"),
    ] {
        let said = complaint(lines);
        assert!(said.contains(reason), "{lines}: {said}");
    }
}
