//! `moesync explain` and `moesync plan`.

use serde_json::Value;

use super::listing;
use crate::support::{Bench, Series};

#[tokio::test(flavor = "multi_thread")]
async fn explain_shows_names_and_what_a_clock_change_does() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let berlin = bench.config().replace(
        &format!("at = \"{}\" }}", bench.generated_at_time()),
        "at = \"02:30\" }\ntimezone = \"Europe/Berlin\"",
    );
    bench.write_config(&berlin);
    let explain = async |date: &str| {
        let ran = bench.run(&["explain", "--report", "report-test", "--date", date, "--json"]).await;
        ran.expect(0).json()
    };
    let gap = explain("2026-03-29").await;
    assert_eq!(gap["clock_change"], "gap");
    assert_eq!(gap["generated_at"], "2026-03-29T01:30:00Z");
    assert_eq!(gap["due_at"], "2026-03-29T02:00:00Z");
    assert_eq!(gap["expires_at"], "2026-04-05T01:30:00Z");
    assert_eq!(gap["file_name"], "Report_test_20260329.zip");
    assert_eq!(gap["object_key"], "acme/report-test/date=2026-03-29/Report_test_20260329.zip");
    assert_eq!(gap["manifest_key"], "acme/report-test/date=2026-03-29/_Report_test_20260329.zip.manifest.json");
    assert_eq!((&gap["outcome"], &gap["history"]), (&Value::Null, &Value::Array(Vec::new())));
    let overlap = explain("2026-10-25").await;
    assert_eq!(overlap["clock_change"], "overlap");
    assert_eq!(overlap["generated_at"], "2026-10-25T00:30:00Z", "not the first of two");
    assert_eq!(explain("2026-07-01").await["clock_change"], Value::Null);
    assert!(!bench.ledger().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_shows_the_history_of_a_partition() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    bench.fault("status=503,times=1");
    bench.sync(0).await;
    let date = bench.newest.to_string();
    let explained =
        bench.run(&["explain", "--report", "report-test", "--date", &date, "--json"]).await.expect(0).json();
    let history = explained["history"].as_array().unwrap();
    let recorded: Vec<_> = history.iter().map(|attempt| (&attempt["outcome"], &attempt["http_status"])).collect();
    assert_eq!(recorded, [(&"unavailable".into(), &503.into()), (&"stored".into(), &200.into())]);
    bench.run(&["explain", "--report", "report-test", "--date", &date]).await.expect(0);
    bench.check_secrets();
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_why_a_partition_waits() {
    let bench = Bench::new(&[Series::campaign("Report test", 2)]).await;
    let waits = async |date: &str| {
        let explain = ["explain", "--report", "report-test", "--date", date];
        let text = bench.run(&explain).await.expect(0).stdout;
        let waits = bench.run(&[&explain[..], &["--json"]].concat()).await.expect(0).json()["waits"].clone();
        assert!(waits.as_str().is_none_or(|waits| text.contains(waits)), "{text}");
        waits.as_str().unwrap_or_default().to_owned()
    };
    let newest = bench.newest.to_string();
    let planned_next = "not planned yet: the next pass of `moesync sync` or `moesync run` plans it and requests it";
    assert_eq!(waits(&newest).await, planned_next);
    // What plan shows is what explain says.
    let older = bench.newest.yesterday().unwrap().to_string();
    assert_eq!(waits(&older).await, planned_next);
    let plan = bench.run(&["plan", "--json"]).await.expect(0).partitions();
    let fetched: Vec<_> = plan.iter().filter(|p| p["action"] == "fetch").map(|p| p["date"].as_str().unwrap()).collect();
    assert_eq!(fetched, [older.as_str(), newest.as_str()]);
    let long_ago = waits("2025-01-01").await;
    assert!(long_ago.contains("before the report's start") && long_ago.contains("MoEngage deleted it"), "{long_ago}");
    bench.fault("unauthorized,times=9");
    bench.sync(1).await;
    assert!(waits(&newest).await.contains("the whole workspace waits until"), "{}", waits(&newest).await);
    assert!(waits("2126-01-01").await.starts_with("due 2126-01-0"));
    bench.run(&["forget", "--report", "report-test", "--from", &newest, "--to", &newest]).await.expect(0);
    assert!(
        waits(&newest).await.starts_with("not planned: before the report's first plan, "),
        "{}",
        waits(&newest).await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn plan_says_how_much_more_there_is_and_shows_local_times() {
    let bench = Bench::new(&[Series::dump(1)]).await;
    let config = bench.config().replace("timezone = \"UTC\"", "timezone = \"Asia/Kolkata\"");
    let start = config.lines().find(|line| line.starts_with("start = ")).unwrap().to_owned();
    bench.write_config(&config.replace(&start, "start = \"2023-01-01\""));
    let plan = bench.run(&["plan"]).await.expect(0).stdout;
    assert!(plan.contains("43 to fetch now, and 1,") && plan.contains(" more after MoEngage has answered"), "{plan}");
    assert!(plan.contains(&bench.newest.to_string()), "what MoEngage still has waits for years of the past: {plan}");
    let next = bench.run(&["plan", "--days", "2"]).await.expect(0).stdout;
    assert!(next.contains("not due") && next.contains(" IST"), "{next}");
}

#[tokio::test(flavor = "multi_thread")]
async fn plan_shows_what_and_why_and_changes_nothing() {
    let bench = Bench::new(&[Series::campaign("Report test", 3)]).await;
    let before = listing(&bench);
    let plan = bench.run(&["plan", "--json"]).await.expect(0).partitions();
    let actions: Vec<_> = plan.iter().map(|partition| partition["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["fetch", "fetch", "fetch", "not_due"]);
    let dates: Vec<_> = plan.iter().map(|partition| partition["date"].as_str().unwrap()).collect();
    assert!(dates.is_sorted(), "not in the order of expiry: {dates:?}");
    assert!(plan.iter().all(|partition| !partition["reason"].as_str().unwrap().is_empty()));
    bench.run(&["plan", "--days", "30"]).await.expect(0);
    assert_eq!(listing(&bench), before);

    bench.sync(0).await;
    let (before, asked) = (listing(&bench), bench.requests());
    let plan = bench.run(&["plan", "--json"]).await.expect(0).partitions();
    assert_eq!(plan.len(), 1, "what is stored needs nothing");
    bench.run(&["status"]).await.expect(0);
    bench.run(&["verify"]).await.expect(0);
    assert_eq!((listing(&bench), bench.requests()), (before, asked));
}
