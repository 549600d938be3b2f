//! The status page, its API, health and metrics over real HTTP, mostly of the real daemon.

mod attack;
mod browser;
mod monitoring;

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use moesync::{
    config,
    emulator::Fault,
    sync::{self, Context, Selection},
    web,
};
use reqwest::{Client, Response, StatusCode};
use serde_json::Value;
use tokio::{net::UnixDatagram, sync::watch, task::JoinHandle};

use crate::support::{Bench, Daemon, PATIENCE, Series, ledger_file, wait_until};

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

/// A server in this process, with a context whose loop does not run. The time of its runtime can be moved.
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
async fn the_api_answers_with_the_output_of_the_commands() {
    let bench = Bench::new(&[Series::campaign("Report test", 4), Series::dump(3)]).await;
    let served = Served::start(&bench).await;
    assert!(wait_until(async || all_stored(&bench).await).await);
    let status = bench.run(&["status", "--json"]).await.expect(0).json();
    assert_eq!(served.json("/api/v1/partitions").await, status);
    let dump = served.json("/api/v1/partitions?report=dump&state=stored").await;
    assert_eq!(dump["partitions"].as_array().unwrap().len(), 3);
    let plan = bench.run(&["plan", "--json"]).await.expect(0).json();
    // It is published a moment after the last attempt.
    wait_until(async || served.json("/api/v1/plan").await == plan).await;
    assert_eq!(served.json("/api/v1/plan").await, plan);
    let date = bench.newest.to_string();
    let explained = bench.run(&["explain", "--report", "dump", "--date", &date, "--json"]).await.expect(0).json();
    let path = format!("/api/v1/partition?workspace=acme&report=dump&date={date}");
    assert_eq!(served.json(&path).await, explained);

    let overview = served.json("/api/v1/overview").await;
    assert_eq!(overview["partitions"]["stored"], 7);
    let report = &overview["reports"][0];
    assert_eq!((report["report"].as_str(), report["dates"].as_array().unwrap().len()), (Some("report-test"), 30));
    served.daemon.stop(&bench).await;
    bench.oracle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_partitions_of_a_long_ledger_are_streamed_as_status_prints_them() {
    let bench = Bench::new(&[Series::campaign("Report test", 2)]).await;
    let served = Served::start(&bench).await;
    assert!(wait_until(async || all_stored(&bench).await).await);
    let peak = || -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", served.daemon.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    // Reports before and after the configured one, which has a scheduled partition.
    ledger_file::add_long_history(&bench.ledger()).await;

    let status = bench.run(&["status", "--json"]).await.expect(0);
    served.text("/metrics").await;
    let before = peak();
    let answered = served.text("/api/v1/partitions").await;
    let grown = (peak() - before) / 1024;
    assert!(answered == status.stdout, "{} bytes for {}", answered.len(), status.stdout.len());
    assert!(grown < 24, "{grown} MiB for an answer of {} MiB", answered.len() >> 20);

    let all = status.json()["partitions"].as_array().unwrap().clone();
    assert_eq!(all.len(), 20_003);
    for (filter, is_chosen) in [
        ("report=z&state=lost", &(|p: &Value| p["report"] == "z" && p["state"] == "lost") as &dyn Fn(&Value) -> bool),
        ("since=2018-09-01", &|p| p["date"].as_str().unwrap() >= "2018-09-01"),
        ("workspace=acme&state=scheduled", &|p| p["state"] == "scheduled"),
        ("workspace=other", &|_| false),
    ] {
        let expected: Vec<_> = all.iter().filter(|partition| is_chosen(partition)).cloned().collect();
        let answered = served.json(&format!("/api/v1/partitions?{filter}")).await;
        assert!(answered == serde_json::json!({ "partitions": expected }), "{filter}");
    }
    served.daemon.stop(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_at_risk_are_at_most_twenty_rows_the_nearest_to_expiry_first() {
    let ages = (0..25).map(|number| Series::campaign(&format!("Report {number}"), 2 + number % 5));
    let bench = Bench::at("2026-11-21T12:00:00Z", &ages.collect::<Vec<_>>()).await;
    bench.clock.stand_still();
    bench.fault("stall");
    let (server, ctx) = InProcess::start(&bench).await;
    let (_commands, mut inbox) = tokio::sync::mpsc::channel(1);
    let working = crate::support::spawn({
        let ctx = Arc::clone(&ctx);
        async move { sync::continuously(ctx, &mut inbox, std::future::pending()).await }
    });
    assert!(wait_until(async || ctx.planned.latest().is_some()).await);
    let page = client().get(&server.url).send().await.unwrap().text().await.unwrap();
    let rows: Vec<_> = page.split("<a class=\"danger ").skip(1).map(|row| row.split("</a>").next().unwrap()).collect();
    assert_eq!(rows.len(), 20, "{page}");
    let is_nearest =
        |row: &str, day: u32| row.contains(&format!("dates, the nearest <time datetime=\"2026-11-{day}\">"));
    // Generated at 06:00, each for seven days.
    for (rows, day) in [(&rows[..5], 16), (&rows[5..10], 17), (&rows[10..15], 18), (&rows[15..], 19)] {
        assert!(
            rows.iter().all(|row| is_nearest(row, day) && row.contains(&format!("{} dates", 21 - day))),
            "{rows:#?}"
        );
    }
    assert!(rows[0].contains("<strong>1 d 18 h</strong> left"), "{}", rows[0]);
    assert!(page.contains("And 5 more reports: <a href=\"/api/v1/overview\">"), "{page}");
    assert!(page.contains("75 partitions are in danger."), "{page}");
    working.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_request_is_refused_with_the_reason() {
    let bench = Bench::new(&[Series::dump(1)]).await;
    let served = Served::start(&bench).await;
    for (path, status, reason) in [
        ("/api/v1/partitions?sate=stored", 400, "sate"),
        ("/api/v1/partitions?state=lots", 400, "lots"),
        ("/api/v1/partition?workspace=acme&report=dump", 400, "date"),
        ("/api/v1/partition?workspace=acme&report=dumb&date=2026-11-21", 404, "dumb"),
        ("/report?workspace=acme", 400, "Which report?"),
        ("/report?workspace=acme&report=dumb", 404, "dumb"),
        ("/api/v1/partition/", 404, "there is no /api/v1/partition/"),
        ("/api/v2/overview", 404, "there is no /api/v2/overview"),
        ("/nothing", 404, "no such page"),
        ("/assets/style.css", 404, "no such page"),
    ] {
        let response = served.get(path).await;
        assert_eq!(response.status().as_u16(), status, "{path}");
        let text = response.text().await.unwrap();
        assert!(text.contains(reason), "{path}: {text}");
        let is_json = serde_json::from_str::<Value>(&text).is_ok_and(|answer| answer["error"].is_string());
        assert_eq!(is_json, path.starts_with("/api/"), "{path}: {text}");
    }
    served.daemon.stop(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_of_the_api_is_served_cached_and_names_all_routes_and_responses() {
    let published = root().join("docs/openapi.json");
    let described = web::description();
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        fs::write(&published, serde_json::to_string_pretty(&described).unwrap() + "\n").unwrap();
    }
    let kept: Value = serde_json::from_str(&fs::read_to_string(published).unwrap()).unwrap();
    assert_eq!(kept, described, "if the change is meant: UPDATE_SCHEMAS=1 cargo test --test it web::");
    let paths_of = |value: &Value| value["paths"].as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(paths_of(&described), web::ROUTES.map(str::to_owned).into());

    let bench = Bench::new(&[Series::campaign("Report test", 2)]).await;
    let served = Served::start(&bench).await;
    assert_eq!(served.json("/api/v1/openapi.json").await, described);
    let mut judged = 0;
    for path in paths(&bench).iter().filter(|path| !path.starts_with("/report") && *path != "/") {
        let route = path.split('?').next().unwrap();
        let content = &described["paths"][route]["get"]["responses"]["200"]["content"];
        let response = served.get(path).await;
        let kind = response.headers()["content-type"].to_str().unwrap().split(';').next().unwrap().to_owned();
        assert!(content[&kind].is_object(), "{path} is {kind}");
        if kind == "application/json" {
            let schema = serde_json::json!({
                "$ref": "#/components/answer",
                "components": {"schemas": described["components"]["schemas"], "answer": content[&kind]["schema"]},
            });
            let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
            let answer: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
            let complaints: Vec<_> = validator.iter_errors(&answer).map(|error| error.to_string()).collect();
            assert_eq!(complaints, [] as [String; 0], "{path}");
            judged += 1;
        }
    }
    assert!(judged >= 7, "{judged}");
    served.daemon.stop(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_a_report_shows_attempts_messages_sizes_hashes_and_keys() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    bench.fault("status=503,times=1");
    let served = Served::start(&bench).await;
    assert!(wait_until(async || all_stored(&bench).await).await);
    let stored = bench.status().await[0].clone();
    let page = served.text("/report?workspace=acme&report=report-test").await;
    for shown in [
        stored["key"].as_str().unwrap(),
        stored["sha256"].as_str().unwrap(),
        &format!("{} bytes", stored["size"]),
        "2 attempts",
        "503",
        "unavailable",
    ] {
        assert!(page.contains(shown), "no {shown} in {page}");
    }
    served.daemon.stop(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_history_is_shown_page_by_page() {
    let bench = Bench::new(&[Series::dump(100)]).await;
    let served = Served::start(&bench).await;
    assert!(wait_until(async || all_stored(&bench).await).await);
    let mut path = "/report?workspace=acme&report=dump".to_owned();
    let mut dates = BTreeSet::new();
    for _ in 0..2 {
        let page = served.text(&path).await;
        let keys = page.split("data-key=\"").skip(1).map(|rest| rest[..10].to_owned());
        dates.extend(keys);
        let older =
            page.split("href=\"").map(|rest| rest.split('"').next().unwrap()).find(|href| href.contains("before="));
        path = older.map(|href| href.replace("&amp;", "&")).unwrap_or_default();
    }
    assert_eq!((dates.len(), path.as_str()), (100, ""));
    served.daemon.stop(&bench).await;
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
    served.daemon.wait_for_log("[web] has changed; that needs a restart").await;
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
async fn an_address_in_use_is_reported_before_anything_is_started() {
    let bench = Bench::new(&[Series::dump(1)]).await;
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    bench.write_config(&with_web(&bench, &format!("listen = \"{address}\"")));
    let ran = bench.run(&["run"]).await.expect(2);
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
    assert_eq!(subjects, ["loop", "ledger", "plan", "destination disk"]);
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

#[tokio::test(flavor = "multi_thread")]
async fn the_page_lists_fifty_reports_at_a_time_those_in_danger_first_and_filters_them() {
    let series: Vec<_> = (0..60).map(|number| Series::campaign(&format!("Report {number:02}"), 1)).collect();
    let bench = Bench::new(&series).await;
    bench.fault_at(&bench.series[55].file_name(bench.newest), Fault::Html, 99);
    let (server, ctx) = InProcess::start(&bench).await;
    sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
    let reports = async |query: &str| -> Vec<String> {
        let page = client().get(format!("{}{query}", server.url)).send().await.unwrap().text().await.unwrap();
        let rows = page.split("<li class=\"report\">").skip(1);
        rows.map(|row| row.split("</a>").next().unwrap().rsplit('>').next().unwrap().to_owned()).collect()
    };
    let first = reports("").await;
    assert_eq!((first.len(), first[0].as_str(), first[1].as_str()), (50, "report-55", "report-00"));
    assert_eq!(
        reports("?page=2").await,
        [
            "report-49",
            "report-50",
            "report-51",
            "report-52",
            "report-53",
            "report-54",
            "report-56",
            "report-57",
            "report-58",
            "report-59"
        ]
    );
    assert_eq!(reports("?page=9").await, reports("?page=2").await);
    assert_eq!(reports("?text=PORT-3&workspace=acme").await.len(), 10);
    assert_eq!(reports("?workspace=other").await, [""; 0]);
    // What is counted is not only what is listed.
    let page = client().get(format!("{}?text=report-00", server.url)).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("<strong>59</strong>"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_is_one_line_for_all_reports_of_its_workspace() {
    let bench = Bench::new(&[Series::campaign("Report test", 2), Series::dump(1)]).await;
    bench.fault("unauthorized");
    let (server, ctx) = InProcess::start(&bench).await;
    sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
    let page = client().get(&server.url).send().await.unwrap().text().await.unwrap();
    let rows: Vec<_> = page.split("<a class=\"danger ").skip(1).map(|row| row.split("</a>").next().unwrap()).collect();
    let [row] = rows[..] else { panic!("{page}") };
    for part in ["acme", "2 reports wait", "MoEngage refuses the key; requested again"] {
        assert!(row.contains(part), "{row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_compressed_for_clients_that_ask_for_it() {
    let bench = Bench::new(&[Series::campaign("Report test", 2)]).await;
    let (server, _ctx) = InProcess::start(&bench).await;
    for path in ["/", "/metrics", "/api/v1/overview"] {
        let get = async |encoding: &'static str| {
            let request = client().get(format!("{}{path}", server.url)).header("accept-encoding", encoding);
            let answer = request.send().await.unwrap();
            let encoding = answer.headers().get("content-encoding").map(|value| value.to_str().unwrap().to_owned());
            (encoding, answer.bytes().await.unwrap().len())
        };
        let (plain, compressed) = (get("identity").await, get("gzip").await);
        assert_eq!((plain.0, compressed.0.as_deref()), (None, Some("gzip")), "{path}");
        assert!(compressed.1 * 2 < plain.1, "{path}: {} of {}", compressed.1, plain.1);
    }
}
