//! Which requests make up a snapshot, and listings that change or fail while they are read.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::SignedDuration;
use moesync::{config::SourceKind, emulator::Campaigns, outcome::Outcome, partition::Settled};
use serde_json::Value;
use tokio::process::Command;

use super::{
    EXECUTIONS, LISTING, NOW, STATS, bench, bytes, configure, evergreen, ids, lines, manifest, pass, requests, store,
};
use crate::support::{APP, Bench, CANARY, Series};

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_campaigns_are_a_thousand_lines_in_the_fewest_requests() {
    let bench = bench(evergreen(1000), &["\"campaigns\"", "\"campaign_stats\""]).await;
    store(&bench).await;
    // 67 pages, two empty ones at the end, and the last one again, in case campaigns were removed meanwhile. Of statistics
    // 100 full pages and an empty one, because their total may be too small.
    for (key, source, pages) in [(LISTING, SourceKind::Campaigns, 70), (STATS, SourceKind::CampaignStats, 101)] {
        let lines = lines(&bench, key);
        assert_eq!((lines.len(), ids(&lines).len()), (1000, 1000));
        let traffic = bench.vendor.traffic(source);
        assert_eq!((traffic.requests, traffic.rate_limited), (pages, 0));
        let manifest = manifest(&bench, key);
        let counted = ["records", "pages", "requests"].map(|name| manifest[name].as_u64().unwrap());
        assert_eq!(counted, [1000, pages as u64, pages as u64]);
    }
    assert_eq!(manifest(&bench, STATS)["window"]["from"], "2026-11-20");
    assert_eq!(manifest(&bench, LISTING)["window"], Value::Null);
    let before = bench.requests();
    store(&bench).await;
    assert_eq!(bench.requests(), before, "a second pass asks for nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_limit_holds_over_all_reports_of_a_workspace_and_a_restart() {
    let reports: Vec<_> = (1..=3).map(|number| format!("\"campaign_stats\"\nid = \"stats-{number}\"")).collect();
    let reports: Vec<_> = reports.iter().map(String::as_str).collect();
    let bench = bench(evergreen(500), &reports[..2]).await;
    store(&bench).await;
    configure(&bench, &reports);
    store(&bench).await;
    let traffic = bench.vendor.traffic(SourceKind::CampaignStats);
    assert_eq!((traffic.requests, traffic.rate_limited), (153, 0));
    let at: Vec<_> = bench.vendor.requests().iter().map(|request| request.at).collect();
    let window = SignedDuration::from_secs(60);
    let most = at.iter().map(|first| at.iter().filter(|at| (*first..*first + window).contains(at)).count()).max();
    assert!(most.is_some_and(|most| most <= 100), "{most:?} in a minute");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_500_a_429_and_a_repeated_campaign_change_no_byte() {
    let reports = ["\"campaigns\"", "\"campaign_stats\""];
    let calm = bench(evergreen(1000), &reports).await;
    store(&calm).await;
    let troubled = bench(evergreen(1000), &reports).await;
    for api in ["campaigns", "campaign_stats"] {
        troubled.fault(&format!("repeat,api={api},page=30,times=1"));
        troubled.fault(&format!("status=500,api={api},page=40,times=1"));
        troubled.fault(&format!("rate-limited=7,api={api},page=50,times=1"));
    }
    store(&troubled).await;
    let struck: BTreeSet<_> = troubled.vendor.requests().iter().filter_map(|request| request.fault).collect();
    assert_eq!(struck.len(), 3, "{struck:?}");
    for key in [LISTING, STATS] {
        assert!(bytes(&calm, key) == bytes(&troubled, key), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_shrinks_while_it_is_read_is_read_again() {
    let bench = bench(evergreen(31), &["\"campaigns\"", "\"campaign_stats\""]).await;
    bench.fault("shrink,api=campaigns,page=3,times=1");
    bench.fault("shrink,api=campaign_stats,page=3,times=1");
    store(&bench).await;
    assert_eq!(ids(&lines(&bench, LISTING)).len(), 31);
    assert_eq!(ids(&lines(&bench, STATS)).len(), 31);
    assert!(requests(&bench, SourceKind::Campaigns) > 3 && requests(&bench, SourceKind::CampaignStats) > 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_keeps_changing_fails_with_the_reason() {
    let bench = bench(evergreen(31), &["\"campaign_stats\""]).await;
    bench.fault("shrink,api=campaign_stats,page=3");
    let summary = pass(&bench).await;
    let message = summary.entries[0].message.as_deref().unwrap();
    assert_eq!(summary.entries[0].outcome, Some(Outcome::Corrupt));
    assert!(message.contains("5 readings") && message.contains("changed between 30 and 31"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_page_of_statistics_that_says_there_are_more_is_not_the_last() {
    let bench = bench(evergreen(15), &["\"campaign_stats\""]).await;
    let page = r#"{"current_page":1\,"total_pages":2\,"data":{"another":[{}]}}"#;
    bench.fault(&format!("status=200,api=campaign_stats,page=1,times=1,body={page}"));
    store(&bench).await;
    let ids = ids(&lines(&bench, STATS));
    assert!(ids.len() == 15 && !ids.contains("another"), "{ids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_rate_limited_on_its_first_page_delays_the_others_of_its_line() {
    let reports = ["\"campaign_stats\"\nid = \"one\"", "\"campaign_stats\"\nid = \"other\""];
    let bench = bench(evergreen(100), &reports).await;
    bench.fault("rate-limited=3600,api=campaign_stats,page=1,skip=1,times=1");
    pass(&bench).await;
    let requests = bench.vendor.requests();
    let refused = requests.iter().position(|request| request.fault.is_some()).unwrap();
    // A listing in progress continues after the longest break that it tolerates.
    let until = requests[refused].at + SignedDuration::from_mins(5);
    let later = &requests[refused + 1..];
    let early = later.iter().filter(|request| request.at < until).count();
    // One may have been in progress.
    assert!(early <= 1 && later.len() >= 8, "{early} of {}", later.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn executions_are_those_of_recurring_email_and_push_campaigns_with_their_parent() {
    let bench = bench(Campaigns { count: 20, ..Campaigns::default() }, &["\"executions\"", "\"campaigns\""]).await;
    store(&bench).await;
    let recurring: BTreeSet<_> = lines(&bench, LISTING)
        .into_iter()
        .filter(|campaign| {
            let is = |name: &str, words: [&str; 2]| campaign[name].as_str().is_some_and(|word| words.contains(&word));
            is("campaign_delivery_type", ["PERIODIC", "BUSINESS_EVENT_TRIGGERED"]) && is("channel", ["EMAIL", "PUSH"])
        })
        .map(|campaign| campaign["campaign_id"].as_str().unwrap().to_owned())
        .collect();
    let executions = lines(&bench, EXECUTIONS);
    let parents: BTreeSet<_> =
        executions.iter().map(|line| line["parent_campaign_id"].as_str().unwrap().to_owned()).collect();
    assert!(!recurring.is_empty() && parents == recurring, "{parents:?}");
    for line in &executions {
        let fields: Vec<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(BTreeSet::from_iter(fields).len(), 4, "{line}");
    }
    assert_eq!(manifest(&bench, EXECUTIONS)["records"], executions.len());
    assert_eq!(bench.vendor.traffic(SourceKind::Executions).rate_limited, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_of_named_campaigns_are_asked_for_in_tens_with_one_window() {
    let all = bench(evergreen(40), &["\"campaigns\""]).await;
    store(&all).await;
    let wanted: Vec<_> = ids(&lines(&all, LISTING)).into_iter().take(25).collect();
    let report = format!("\"campaign_stats\"\nwindow_days = 31\nshape = \"rows\"\ncampaign_ids = {wanted:?}");
    let bench = bench(evergreen(40), &[&report]).await;
    store(&bench).await;
    assert_eq!(requests(&bench, SourceKind::CampaignStats), 3);
    let rows = lines(&bench, STATS);
    assert_eq!(ids(&rows), BTreeSet::from_iter(wanted));
    for row in &rows {
        let named = ["platform", "locale", "variation"].iter().all(|name| row[name].is_string());
        let is_flat = row.as_object().unwrap().values().all(|value| !value.is_object());
        assert!(named && is_flat && row.as_object().unwrap().len() > 6, "{row}");
    }
    let window = &manifest(&bench, STATS)["window"];
    assert_eq!((&window["from"], &window["to"]), (&"2026-10-21".into(), &"2026-11-20".into()));
    assert!(manifest(&bench, STATS)["records"].as_u64() == Some(rows.len() as u64) && rows.len() > 25);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_keeps_failing_leaves_nothing_and_the_next_attempt_restarts() {
    let bench = bench(evergreen(40), &["\"campaigns\""]).await;
    bench.fault("status=500,api=campaigns,page=2");
    let summary = pass(&bench).await;
    assert_eq!((summary.entries[0].settled, summary.entries[0].outcome), (Settled::Open, Some(Outcome::Unavailable)));
    assert!(!bench.object(LISTING).exists() && crate::support::files(&bench.path("reports")).is_empty());
    bench.vendor.clear_faults();
    store(&bench).await;
    assert_eq!(lines(&bench, LISTING).len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_no_page_is_corrupt_and_a_refusal_is_rejected() {
    for (fault, outcome) in [
        ("html", Outcome::Corrupt),
        ("empty", Outcome::Corrupt),
        ("json-error", Outcome::Corrupt),
        ("truncate=50%", Outcome::Corrupt),
        ("not-yet", Outcome::Rejected),
        ("status=404", Outcome::Rejected),
        ("unauthorized", Outcome::Unauthorized),
    ] {
        let bench = bench(evergreen(5), &["\"campaign_stats\""]).await;
        bench.fault(fault);
        let summary = pass(&bench).await;
        assert_eq!(summary.entries[0].outcome, Some(outcome), "{fault}: {:?}", summary.entries[0].message);
        assert!(!bench.object(STATS).exists(), "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_feature_is_named_and_delays_nothing_else() {
    let bench = bench(evergreen(5), &["\"campaign_stats\"", "\"campaigns\""]).await;
    bench.fault("status=403,api=campaign_stats");
    let summary = pass(&bench).await;
    let entry = summary.entries.iter().find(|entry| entry.partition.source == SourceKind::CampaignStats).unwrap();
    assert_eq!(entry.outcome, Some(Outcome::Unauthorized));
    assert!(entry.message.as_ref().unwrap().contains("this feature is off"), "{:?}", entry.message);
    assert_eq!(lines(&bench, LISTING).len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_api_key_delays_no_archive_of_repeated_commands() {
    let bench = Bench::at(NOW, &[Series::campaign("Report test", 1)]).await;
    fs::write(bench.path("api-key"), "not-the-key").unwrap();
    fs::set_permissions(bench.path("api-key"), fs::Permissions::from_mode(0o600)).unwrap();
    let with_key = format!("timezone = \"UTC\"\napi_key_file = \"{}\"", bench.path("api-key").display());
    let measured = "metric_type = \"TOTAL\"\nattribution_type = \"CLICK_THROUGH\"";
    let statistics = format!(
        "\n[[reports]]\nworkspace = \"acme\"\nsource = \"campaign_stats\"\ndestination = \"disk\"\nstart = \"2026-11-19\"\n\
         schedule = {{ every = \"day\", at = \"{}\" }}\n{measured}\n",
        bench.generated_at_time()
    );
    let alone = bench.config().replacen("timezone = \"UTC\"", &with_key, 1);
    let (before, archives) = alone.split_at(alone.find("\n[[reports]]").unwrap());
    bench.write_config(&format!("{before}{statistics}"));
    assert!(!pass(&bench).await.is_complete());
    // Added while the other key is refused: never requested, and due long after the statistics.
    bench.write_config(&format!("{before}{statistics}{archives}"));
    for _ in 0..4 {
        pass(&bench).await;
        bench.clock.advance(SignedDuration::from_mins(10));
    }
    let (series, date) = bench.due()[0];
    assert!(bench.object(&series.key(date)).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_the_api_key_nor_its_basic_form_is_in_trace_logs() {
    let bench = bench(evergreen(5), &["\"campaign_stats\"", "\"executions\""]).await;
    bench.fault("unauthorized,api=campaign_stats");
    let ran = bench.run(&["-vv", "sync"]).await;
    let token = BASE64_STANDARD.encode(format!("{APP}:{CANARY}"));
    for text in [&ran.stdout, &ran.stderr] {
        assert!(!text.contains(&token));
    }
    bench.check_secrets();
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_may_be_backfilled_and_live_listings_not() {
    let bench = bench(evergreen(5), &["\"campaign_stats\"", "\"campaigns\""]).await;
    let dates = ["--from", "2026-11-01", "--to", "2026-11-03"];
    let listing = bench.run(&[&["backfill", "--report", "campaigns"], &dates[..]].concat()).await.expect(2);
    assert!(listing.stderr.contains("live listing"), "{}", listing.stderr);
    bench.run(&[&["backfill", "--report", "campaign_stats"], &dates[..]].concat()).await.expect(0);
    for day in 1..=3 {
        let key = format!("acme/campaign_stats/date=2026-11-0{day}/campaign_stats_2026110{day}.ndjson.gz");
        assert!(Path::new(&bench.object(&key)).exists(), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_of_statistics_in_rows_is_read_by_the_python_of_the_documents() {
    let report = "\"campaign_stats\"\nid = \"stats\"\nshape = \"rows\"\nstart = \"2026-11-01\"";
    let raw = "\"campaign_stats\"\nid = \"raw\"\nstart = \"2026-11-01\"";
    let bench = bench(evergreen(5), &[report, raw]).await;
    store(&bench).await;
    std::os::unix::fs::symlink(bench.path("reports"), bench.path("archive")).unwrap();
    let script = crate::docs::blocks("docs/snapshots.md", "python").concat();
    let python = Command::new("python3").args(["-c", &script]).current_dir(bench.folder.path()).output();
    let output = python.await.unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (rows, sent) = printed.trim().split_once(" rows, ").unwrap();
    let keys = |id| (1..=21).map(move |day| format!("acme/{id}/date=2026-11-{day:02}/{id}_202611{day:02}.ndjson.gz"));
    let counted: u64 = keys("stats").map(|key| manifest(&bench, &key)["records"].as_u64().unwrap()).sum();
    assert_eq!(rows.parse(), Ok(counted));
    // The vendor's own numbers of each campaign as a whole.
    let total = |line: &Value| {
        let all = &line["platforms"]["ALL_PLATFORMS"]["locales"]["all_locale"]["variations"]["all_variations"];
        all["performance_stats"]["sent"].as_u64().unwrap()
    };
    let totals: u64 = keys("raw").flat_map(|key| lines(&bench, &key)).map(|line| total(&line)).sum();
    assert_eq!(sent.trim_end_matches(" sent").parse(), Ok(totals), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_killed_leaves_nothing_and_starts_again() {
    let bench = Bench::new(&[]).await;
    configure(&bench, &["\"campaigns\"\nbuffer = \"0s\""]);
    // Of today, at any hour.
    let config = fs::read_to_string(bench.path("moesync.toml")).unwrap();
    bench.write_config(&config.replace(&bench.generated_at_time(), "00:00"));
    bench.fault("stall,api=campaigns,page=2");
    let mut killed = bench.command(&["sync"]).spawn().unwrap();
    assert!(crate::support::wait_until(async || requests(&bench, SourceKind::Campaigns) == 2).await);
    killed.kill().await.unwrap();
    assert!(crate::support::files(&bench.path("reports")).is_empty());
    let beside: Vec<_> = crate::support::files(&bench.path("ledger"));
    assert!(beside.iter().all(|path| path.to_str().unwrap().contains("moesync.db")), "{beside:?}");
    bench.vendor.clear_faults();
    bench.sync(0).await;
    let key = crate::support::files(&bench.path("reports"))
        .into_iter()
        .find(|path| path.extension().is_some_and(|extension| extension == "gz"))
        .unwrap();
    let key = key.strip_prefix(bench.path("reports")).unwrap().to_str().unwrap().to_owned();
    assert_eq!(lines(&bench, &key).len(), 40);
}
