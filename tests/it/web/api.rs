//! `/api/v1`: its answers, its refusals and its description.

use std::{collections::BTreeSet, fs};

use moesync::web;
use serde_json::Value;

use super::{InProcess, Served, all_stored, client, paths, root};
use crate::support::{Bench, Series, ledger_file, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn the_api_answers_with_the_output_of_the_commands() {
    let bench = Bench::new(&[Series::campaign("Report test", 4), Series::dump(3)]).await;
    let served = Served::start(&bench).await;
    assert!(wait_until(async || all_stored(&bench).await).await);
    let status = bench.run(&["status", "--json"]).await.expect(0).json();
    assert_eq!(served.json("/api/v1/partitions").await["partitions"], status["partitions"]);
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
    let list = |text: &str| text.split_once("\"partitions\": [").unwrap().1.to_owned();
    assert!(list(&answered) == list(&status.stdout), "{} bytes for {}", answered.len(), status.stdout.len());
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
