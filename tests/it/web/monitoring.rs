//! Health, metrics, alert rules and the dashboard.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use jiff::SignedDuration;
use moesync::sync;
use reqwest::StatusCode;
use serde_json::Value;
use tokio::time::Instant;

use super::{InProcess, Served, all_stored, client, root, with_web};
use crate::support::{Bench, Daemon, Receiver, Series, ledger_file::FullDisk, wait_until};

/// Longer than a turn of the loop may take.
fn two_minutes_ago() -> Instant {
    Instant::now().checked_sub(Duration::from_secs(121)).unwrap()
}

#[tokio::test]
async fn livez_fails_once_the_loop_stops() {
    let bench = Bench::at("2026-11-21T12:00:00Z", &[Series::dump(1)]).await;
    let (server, ctx) = InProcess::start(&bench).await;
    assert_eq!(server.health("/livez").await.0, StatusCode::OK);
    ctx.pulse.beat_at(two_minutes_ago());
    let (status, health) = server.health("/livez").await;
    assert_eq!((status, &health["ok"]), (StatusCode::SERVICE_UNAVAILABLE, &false.into()));
    assert!(health["checks"][0]["message"].as_str().unwrap().contains("121 s ago"), "{health}");
    assert_eq!(server.health("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    ctx.pulse.beat();
    assert_eq!(server.health("/livez").await.0, StatusCode::OK);
}

#[tokio::test]
async fn livez_is_ok_while_the_loop_works() {
    let bench = Bench::at("2026-11-21T12:00:00Z", &[Series::dump(1)]).await;
    let (server, ctx) = InProcess::start(&bench).await;
    let pulse = ctx.pulse.clone();
    let (_commands, mut inbox) = tokio::sync::mpsc::channel(1);
    let working =
        crate::support::spawn(async move { sync::continuously(ctx, &mut inbox, std::future::pending()).await });
    for _ in 0..3 {
        pulse.beat_at(two_minutes_ago());
        assert!(wait_until(async || server.health("/livez").await.0 == StatusCode::OK).await);
    }
    working.abort();
}

#[tokio::test]
async fn readyz_probes_an_unwritable_destination_each_minute_and_has_the_reason() {
    let bench = Bench::at("2026-11-21T12:00:00Z", &[Series::dump(1)]).await;
    bench.clock.stand_still();
    let (server, _ctx) = InProcess::start(&bench).await;
    assert_eq!(server.health("/readyz").await.0, StatusCode::OK);
    fs::remove_dir_all(bench.path("reports")).unwrap();
    fs::write(bench.path("reports"), "no folder").unwrap();
    assert_eq!(server.health("/readyz").await.0, StatusCode::OK, "probed at each request");
    bench.clock.advance(SignedDuration::from_secs(61));
    let (status, health) = server.health("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let failed: Vec<_> = health["checks"].as_array().unwrap().iter().filter(|check| check["ok"] == false).collect();
    assert_eq!((failed.len(), &failed[0]["subject"]), (1, &"destination disk".into()), "{health}");
    fs::remove_file(bench.path("reports")).unwrap();
    fs::create_dir(bench.path("reports")).unwrap();
    bench.clock.advance(SignedDuration::from_secs(61));
    assert_eq!(server.health("/readyz").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_hung_destination_has_one_probe_for_all_requests() {
    let bench = Bench::at("2026-11-21T12:00:00Z", &[Series::dump(1)]).await;
    let store = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = format!(
        "url = \"s3://bucket\"\noptions = {{ aws_endpoint = \"http://{}\", aws_allow_http = \"true\", aws_region = \"x\", \
         aws_access_key_id = \"x\", aws_secret_access_key = \"x\" }}",
        store.local_addr().unwrap()
    );
    let local = format!("url = \"file://{}/reports\"", bench.folder.path().display());
    let (server, _ctx) = InProcess::of(&bench, &bench.config().replace(&local, &options)).await;
    bench.clock.stand_still();
    let url = format!("{}/readyz", server.url);
    for _ in 0..3 {
        let leaves = client().get(&url).timeout(Duration::from_millis(300)).send().await;
        assert!(leaves.unwrap_err().is_timeout());
    }
    bench.clock.advance(SignedDuration::from_secs(11));
    let (status, health) = server.health("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(health["checks"][3]["message"].as_str().unwrap().starts_with("no answer for 1"), "{health}");
    let mut asked = Vec::new();
    while let Ok(connection) = tokio::time::timeout(Duration::from_millis(100), store.accept()).await {
        asked.push(connection.unwrap());
    }
    assert_eq!(asked.len(), 1);
}

#[tokio::test]
async fn readyz_and_the_pages_report_an_unreadable_ledger() {
    let bench = Bench::at("2026-11-21T12:00:00Z", &[Series::dump(1)]).await;
    let (server, _ctx) = InProcess::start(&bench).await;
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(bench.path(&format!("ledger/moesync.db{suffix}")));
    }
    fs::write(bench.ledger(), vec![0x55; 8192]).unwrap();
    let (status, health) = server.health("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(health["checks"][1]["message"].as_str().unwrap().contains("damaged"), "{health}");
    for path in ["/", "/report?workspace=acme&report=dump", "/api/v1/overview", "/api/v1/partitions", "/metrics"] {
        let response = client().get(format!("{}{path}", server.url)).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert!(response.text().await.unwrap().contains("damaged"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readyz_fails_if_plans_cannot_be_written_though_loop_and_ledger_respond() {
    let bench = Bench::at("2026-11-21T12:00:00Z", &[Series::dump(1)]).await;
    let (server, ctx) = InProcess::start(&bench).await;
    let (_commands, mut inbox) = tokio::sync::mpsc::channel(1);
    let status = Arc::clone(&ctx.status);
    let working =
        crate::support::spawn(async move { sync::continuously(ctx, &mut inbox, std::future::pending()).await });
    assert!(wait_until(async || status.planned_at().is_some()).await);
    let disk = FullDisk::begin(&bench.ledger()).await;
    let failed = async || {
        let (_, health) = server.health("/readyz").await;
        let checks = health["checks"].as_array().unwrap().clone();
        checks.iter().filter(|check| check["ok"] == false).map(|check| check["subject"].clone()).collect::<Vec<_>>()
    };
    assert!(wait_until(async || failed().await == ["plan"]).await, "{:?}", failed().await);
    assert_eq!(server.health("/livez").await.0, StatusCode::OK, "a restart does not make a disk larger");
    disk.end().await;
    assert!(wait_until(async || failed().await.is_empty()).await, "{:?}", failed().await);
    working.abort();
}

/// The samples of a scrape: name and labels verbatim, and value.
fn samples(metrics: &str) -> BTreeMap<String, f64> {
    let lines = metrics.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').map(|(name, value)| (name.to_owned(), value.parse().unwrap())).unwrap())
        .collect()
}

/// Passes `input` to promtool, which must accept it.
fn promtool(arguments: &[&str], input: &str) -> String {
    let mut child = Command::new("promtool")
        .args(arguments)
        .current_dir(root().join("deploy/prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("promtool: {error}; install the Debian package prometheus"));
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{said}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_show_the_state_of_reports_and_survive_a_restart() {
    let bench = Bench::new(&[Series::campaign("Report test", 7), Series::dump(3)]).await;
    bench.fault("status=503,times=1");
    let served = Served::start(&bench).await;
    assert!(wait_until(async || all_stored(&bench).await).await);
    let scrape = served.text("/metrics").await;
    assert_eq!(promtool(&["check", "metrics"], &scrape), "");
    let values = samples(&scrape);
    let of = |name: &str, labels: &str| {
        let report = "workspace=\"acme\",report=\"report-test\",source=\"campaign_report\"";
        values.get(&format!("{name}{{{report}{labels}}}")).copied()
    };
    assert_eq!(of("moesync_partitions", ",state=\"stored\""), Some(7.0));
    assert_eq!(of("moesync_partitions", ",state=\"lost\""), Some(0.0));
    assert_eq!(of("moesync_attempts_total", ",outcome=\"stored\""), Some(7.0));
    assert_eq!(of("moesync_nearest_expiry_seconds", ""), None);
    let age = of("moesync_newest_stored_age_seconds", "").unwrap();
    assert!((6.0 * 3600.0..7.0 * 3600.0).contains(&age), "{age}");
    let bytes: u64 =
        bench.status().await.iter().filter(|p| p["report"] == "report-test").map(|p| p["size"].as_u64().unwrap()).sum();
    assert_eq!(of("moesync_stored_bytes", ""), Some(bytes as f64));
    assert_eq!(of("moesync_fetched_bytes_total", ""), Some(bytes as f64));
    assert_eq!(of("moesync_other_content_total", ""), Some(0.0));
    assert_eq!(values["moesync_config_last_reload_successful"], 1.0);
    assert!(values["process_resident_memory_bytes"] > 1e6 && values["process_open_fds"] > 3.0);
    let total = of("moesync_attempt_duration_seconds_count", "").unwrap();
    assert_eq!(of("moesync_attempt_duration_seconds_bucket", ",le=\"+Inf\""), Some(total));
    assert_eq!(values["moesync_workspace_held{workspace=\"acme\",outcome=\"unauthorized\"}"], 0.0);
    assert_eq!(values[&format!("moesync_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))], 1.0);

    served.daemon.stop(&bench).await;
    let again = Served::start(&bench).await;
    let restarted = samples(&again.text("/metrics").await);
    let of_process = ["process_", "moesync_last_plan_", "moesync_config_last_reload_success_"];
    let passes = |name: &str| name.contains("age_seconds") || of_process.iter().any(|start| name.starts_with(start));
    for (name, value) in values.iter().filter(|(name, _)| !passes(name)) {
        assert_eq!(restarted.get(name), Some(value), "{name}");
    }
    again.daemon.stop(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_show_a_download_in_flight_and_a_refused_configuration() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    bench.fault("stall");
    let served = Served::start(&bench).await;
    let of = async |name: &str| samples(&served.text("/metrics").await)[name];
    assert!(wait_until(async || of("moesync_attempts_in_flight").await == 1.0).await);
    let loaded_at = of("moesync_config_last_reload_success_timestamp_seconds").await;
    let good = fs::read_to_string(bench.path("moesync.toml")).unwrap();
    bench.write_config(&good.replace("campaign_report", "campaign_retort"));
    served.daemon.signal("HUP").await;
    assert!(wait_until(async || of("moesync_config_last_reload_successful").await == 0.0).await);
    assert_eq!(of("moesync_config_last_reload_success_timestamp_seconds").await, loaded_at);
    assert_eq!(of("moesync_incident{alarm=\"configuration\"}").await, 1.0);
    bench.write_config(&good);
    served.daemon.signal("HUP").await;
    assert!(wait_until(async || of("moesync_config_last_reload_successful").await == 1.0).await);
    assert!(of("moesync_config_last_reload_success_timestamp_seconds").await >= loaded_at);
    served.daemon.kill(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_show_danger_and_a_workspace_on_hold() {
    let bench = Bench::new(&[Series::campaign("Report test", 7)]).await;
    bench.fault("unauthorized");
    let served = Served::start(&bench).await;
    let held = "moesync_workspace_held{workspace=\"acme\",outcome=\"unauthorized\"}";
    assert!(wait_until(async || samples(&served.text("/metrics").await).get(held) == Some(&1.0)).await);
    let values = samples(&served.text("/metrics").await);
    let report = "workspace=\"acme\",report=\"report-test\",source=\"campaign_report\"";
    let expiry = values[&format!("moesync_nearest_expiry_seconds{{{report}}}")];
    assert!((17.0 * 3600.0..=18.0 * 3600.0).contains(&expiry), "{expiry}");
    assert!(values[&format!("moesync_alarms{{{report},alarm=\"expiring\"}}")] >= 3.0);
    served.daemon.stop(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_show_a_target_that_cannot_be_reached() {
    let (bench, receiver) = (Bench::new(&[Series::campaign("Report test", 3)]).await, Receiver::start().await);
    receiver.answer(503, "closed");
    bench.write_config(&(with_web(&bench, "listen = \"127.0.0.1:0\"") + &receiver.webhook()));
    let served = Served::over(Daemon::start(&bench).await);
    let of = async |name: &str| samples(&served.text("/metrics").await)[&format!("{name}{{target=\"hook\"}}")];
    assert!(wait_until(async || of("moesync_notify_waiting").await == 3.0).await);
    assert_eq!(promtool(&["check", "metrics"], &served.text("/metrics").await), "");
    assert!(wait_until(async || of("moesync_notify_oldest_seconds").await > 1.0).await);
    receiver.answer(200, "ok");
    assert!(wait_until(async || of("moesync_notify_waiting").await == 0.0).await);
    assert_eq!(of("moesync_notify_oldest_seconds").await, 0.0);
    served.daemon.stop(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn overdue_partitions_are_in_danger_while_the_vendor_is_unreachable() {
    let bench = Bench::new(&[Series::dump(3)]).await;
    bench.fault("status=503");
    let served = Served::start(&bench).await;
    let dangers = async || served.json("/api/v1/overview").await["dangers"].as_array().unwrap().clone();
    // The newest became due less than six hours ago.
    let is_told = async || dangers().await.iter().filter(|danger| danger["outcome"] == "unavailable").count() == 2;
    assert!(wait_until(is_told).await, "{:#?}", dangers().await);
    assert!(dangers().await.iter().all(|danger| danger["alarm"] == "late"));
    let page = served.text("/").await;
    assert!(
        page.contains("2 partitions are in danger.") && page.contains("Not stored long after it was due"),
        "{page}"
    );
    assert!(served.daemon.alarms().iter().all(|alarm| alarm == "late"));
    served.daemon.stop(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_due_and_not_in_the_ledger_are_pending_and_in_danger() {
    let bench = Bench::at("2026-11-21T12:00:00Z", &[Series::dump(3)]).await;
    let (server, ctx) = InProcess::start(&bench).await;
    let get = async |path: &str| {
        let response = client().get(format!("{}{path}", server.url)).send().await.unwrap();
        response.text().await.unwrap()
    };
    assert!(get("/").await.contains("Not planned yet."));
    assert!(get("/api/v1/plan").await.contains("not planned yet"));
    let _disk = FullDisk::begin(&bench.ledger()).await;
    bench.clock.stand_still();
    let (_commands, mut inbox) = tokio::sync::mpsc::channel(1);
    let working = crate::support::spawn({
        let ctx = Arc::clone(&ctx);
        async move { sync::continuously(ctx, &mut inbox, std::future::pending()).await }
    });
    assert!(wait_until(async || ctx.planned.latest().is_some()).await);
    assert!(ctx.ledger.entries().await.unwrap().is_empty(), "the plan was recorded");
    let overview: Value = serde_json::from_str(&get("/api/v1/overview").await).unwrap();
    assert_eq!((&overview["partitions"]["pending"], overview["dangers"].as_array().unwrap().len()), (&3.into(), 2));
    let dates = overview["reports"][0]["dates"].as_array().unwrap();
    let pending = dates.iter().filter(|day| day["state"] == "pending").count();
    assert_eq!(pending, 3, "{dates:#?}");
    assert!(get("/report?workspace=acme&report=dump").await.contains("2026-11-20: pending, in danger (late)"));
    let values = samples(&get("/metrics").await);
    let of = |name: &str, labels: &str| {
        values[&format!("{name}{{workspace=\"acme\",report=\"dump\",source=\"daily_dump\"{labels}}}")]
    };
    assert_eq!(of("moesync_partitions", ",state=\"pending\""), 3.0);
    assert_eq!(of("moesync_alarms", ",alarm=\"late\""), 2.0);
    let oldest = "2026-11-19T06:30:00Z".parse::<jiff::Timestamp>().unwrap();
    assert_eq!(of("moesync_oldest_pending_due_timestamp_seconds", ""), oldest.as_second() as f64);
    working.abort();
}

/// The names of metrics in a text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("moesync_") || word.starts_with("process_")).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_dashboard_and_document_have_the_existing_metrics() {
    let bench = Bench::new(&[Series::campaign("Report test", 7)]).await;
    bench.fault("unauthorized,times=1");
    let config = with_web(&bench, "listen = \"127.0.0.1:0\"");
    // Without tables there are no metrics of them.
    bench.write_config(
        &config.replace("\ndestination = \"disk\"\n", "\ndestination = \"disk\"\ntables = \"parquet\"\n"),
    );
    let served = Served::over(Daemon::start(&bench).await);
    let nearest = async || {
        let there = names(&served.text("/metrics").await);
        there.contains("moesync_nearest_expiry_seconds")
    };
    assert!(wait_until(nearest).await);
    let expiring = served.text("/metrics").await;
    bench.sync(0).await;
    // An answer is reused for some seconds.
    let last = ["moesync_newest_stored_age_seconds", "moesync_newest_table_timestamp_seconds"];
    let are_there = async || {
        let there = names(&served.text("/metrics").await);
        last.iter().all(|name| there.contains(*name))
    };
    assert!(wait_until(are_there).await);
    let complete = served.text("/metrics").await;
    let there: BTreeSet<_> = names(&expiring).union(&names(&complete)).cloned().collect();
    served.daemon.stop(&bench).await;
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    for path in ["deploy/prometheus/alerts.yaml", "deploy/grafana/moesync.json"] {
        let asked = names(&read(path));
        assert!(asked.len() > 4, "{path}: {asked:?}");
        assert_eq!(asked.difference(&there).collect::<Vec<_>>(), [] as [&String; 0], "{path}");
    }
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/moesync.json")).unwrap();
    let shown = names(&dashboard.to_string());
    let unseen: Vec<_> = there.iter().filter(|name| !shown.contains(*name)).collect();
    // Parts of the histogram, and the timestamp that the age is computed from.
    let is_part =
        |name: &&&String| name.ends_with("_sum") || name.ends_with("_count") || name.ends_with("_timestamp_seconds");
    assert_eq!(
        unseen.iter().filter(|name| !is_part(name) && **name != "moesync_attempt_duration_seconds").count(),
        0,
        "{unseen:?}"
    );
    let described = described(&[&expiring, &complete]);
    let path = root().join("docs/monitoring.md");
    let document = fs::read_to_string(&path).unwrap();
    let head = "| metric | type | meaning |\n|---|---|---|\n";
    let (before, rest) = document.split_once(head).unwrap();
    let (shown, after) = rest.split_at(rest.find("\n\n").unwrap() + 1);
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        fs::write(&path, format!("{before}{head}{described}{after}")).unwrap();
    } else {
        let hint = "docs/monitoring.md; if the change is meant: UPDATE_SCHEMAS=1 cargo test --test it web::";
        assert_eq!(shown, described, "{hint}");
    }
}

/// The metrics of these answers as rows of a table in Markdown.
fn described(scrapes: &[&str]) -> String {
    let about = |keyword: &str| -> BTreeMap<String, String> {
        let lines = scrapes.iter().flat_map(|scrape| scrape.lines());
        let pairs = lines.filter_map(|line| line.strip_prefix(keyword)?.split_once(' '));
        pairs.map(|(name, text)| (name.to_owned(), text.to_owned())).collect()
    };
    let types = about("# TYPE ");
    about("# HELP ").iter().fold(String::new(), |mut rows, (name, help)| {
        writeln!(rows, "| `{name}` | {} | {help} |", types[name]).unwrap();
        rows
    })
}

#[test]
fn the_dashboard_shows_no_value_when_moesync_does_not_answer() {
    let dashboard = fs::read_to_string(root().join("deploy/grafana/moesync.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let asked: Vec<_> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
    assert!(asked.len() > 4, "{asked:?}");
    for expression in asked {
        assert!(!expression.contains("vector("), "{expression}");
    }
}

#[test]
fn the_alert_rules_fire_only_when_they_should() {
    assert!(promtool(&["check", "rules", "alerts.yaml"], "").contains("rules found"));
    assert!(promtool(&["test", "rules", "alerts_test.yaml"], "").contains("SUCCESS"));
}
