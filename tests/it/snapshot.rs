//! Snapshots of what MoEngage serves only live: complete listings, page by page, despite faults of the vendor.

use std::{
    collections::BTreeSet,
    fs,
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use flate2::read::MultiGzDecoder;
use jiff::{SignedDuration, civil::date};
use moesync::{
    alarm_kind::AlarmKind,
    config::SourceKind,
    emulator::{Campaigns, DeliveryType},
    ledger::{self, Claimed},
    outcome::Outcome,
    partition::Settled,
    report::{PartitionId, ReportId},
    sync::{self, Selection, Summary},
    web::Overview,
};
use serde_json::Value;
use tokio::process::Command;

use crate::support::{APP, Bench, CANARY, Series, oracle::hash, oracle::manifest_key};

const NOW: &str = "2026-11-21T12:00:00Z";
const LISTING: &str = "acme/campaigns/date=2026-11-21/campaigns_20261121.ndjson.gz";
const STATS: &str = "acme/campaign_stats/date=2026-11-21/campaign_stats_20261121.ndjson.gz";
const EXECUTIONS: &str = "acme/executions/date=2026-11-21/executions_20261121.ndjson.gz";

/// This many campaigns, all of which have statistics in every window.
fn evergreen(count: u32) -> Campaigns {
    Campaigns { count, delivery_types: vec![DeliveryType::EventTriggered], ..Campaigns::default() }
}

/// A vendor with these campaigns, and these reports of them, each made six hours ago.
async fn bench(campaigns: Campaigns, reports: &[&str]) -> Bench {
    let bench = Bench::of_campaigns(NOW, campaigns).await;
    configure(&bench, reports);
    bench
}

fn configure(bench: &Bench, reports: &[&str]) {
    let mut config = bench.config();
    for report in reports {
        let measured = "\"campaign_stats\"\nmetric_type = \"TOTAL\"\nattribution_type = \"CLICK_THROUGH\"";
        let report = report.replace("\"campaign_stats\"", measured);
        config += &format!(
            "\n[[reports]]\nworkspace = \"acme\"\ndestination = \"disk\"\n\
             schedule = {{ every = \"day\", at = \"{}\" }}\nsource = {report}\n",
            bench.generated_at_time()
        );
    }
    bench.write_config(&config);
}

async fn pass(bench: &Bench) -> Summary {
    let ctx = bench.context().await;
    let summary = sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
    ctx.ledger.close().await;
    summary
}

/// A pass that stores all that is due.
async fn store(bench: &Bench) -> Summary {
    let summary = pass(bench).await;
    assert!(summary.is_complete(), "{:#?}", summary.entries);
    summary
}

fn bytes(bench: &Bench, key: &str) -> Vec<u8> {
    fs::read(bench.object(key)).unwrap_or_else(|error| panic!("{key}: {error}"))
}

fn lines(bench: &Bench, key: &str) -> Vec<Value> {
    let mut text = String::new();
    MultiGzDecoder::new(&bytes(bench, key)[..]).read_to_string(&mut text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The manifest, which must describe the object.
fn manifest(bench: &Bench, key: &str) -> Value {
    let manifest: Value = serde_json::from_slice(&bytes(bench, &manifest_key(key))).unwrap();
    let object = bytes(bench, key);
    assert_eq!((&manifest["sha256"], &manifest["size"]), (&hash(&object).into(), &object.len().into()), "{key}");
    assert_eq!((&manifest["key"], &manifest["format"]), (&key.into(), &"ndjson.gz".into()));
    manifest
}

fn ids(lines: &[Value]) -> BTreeSet<String> {
    lines.iter().map(|line| line["campaign_id"].as_str().unwrap().to_owned()).collect()
}

fn versions(bench: &Bench) -> Vec<PathBuf> {
    let folder = bench.object("acme/campaign_stats/_versions");
    let is_object = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "gz");
    crate::support::files(&folder).into_iter().filter(is_object).collect()
}

fn requests(bench: &Bench, api: SourceKind) -> usize {
    bench.vendor.traffic(api).requests
}

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
async fn after_a_week_asleep_one_listing_has_its_own_date_and_missed_ones_are_lost() {
    let bench = bench(evergreen(5), &["\"campaigns\""]).await;
    store(&bench).await;
    bench.clock.advance(SignedDuration::from_hours(7 * 24));
    let before = requests(&bench, SourceKind::Campaigns);
    let summary = pass(&bench).await;
    let stored: Vec<_> = summary
        .entries
        .iter()
        .filter(|entry| entry.settled == Settled::Stored)
        .map(|entry| entry.partition.id.date)
        .collect();
    assert_eq!(stored, [date(2026, 11, 28)]);
    let lost = summary.entries.iter().filter(|entry| entry.settled == Settled::Lost).count();
    assert_eq!((lost, summary.entries.len()), (6, 7));
    let folders = fs::read_dir(bench.object("acme/campaigns")).unwrap().count();
    // Each missed one ends after an answer; the other takes a page and two empty ones.
    assert_eq!((folders, requests(&bench, SourceKind::Campaigns) - before), (2, 9));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_date_in_an_answer_about_something_else_loses_no_listing() {
    let bench = bench(evergreen(5), &["\"campaign_stats\"", "\"campaigns\""]).await;
    bench.fault("wrong-date=2d,api=campaign_stats,times=1");
    let ctx = bench.context().await;
    for report in ["campaign_stats", "campaigns"] {
        let selection = Selection { report: Some(report.into()), ..Selection::default() };
        sync::once(&ctx, &selection, std::future::pending()).await.unwrap();
    }
    let entries = ctx.ledger.entries().await.unwrap();
    assert_eq!(entries.len(), 2, "{entries:#?}");
    assert!(entries.iter().all(|entry| entry.settled == Settled::Stored), "{entries:#?}");
    manifest(&bench, LISTING);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_final_while_the_vendors_clock_is_two_days_behind() {
    let bench = bench(evergreen(5), &["\"campaign_stats\"", "\"campaigns\"", "\"executions\""]).await;
    bench.fault("wrong-date=-2d");
    let summary = pass(&bench).await;
    assert_eq!(summary.entries.len(), 3);
    for entry in &summary.entries {
        assert_eq!((entry.settled, entry.outcome), (Settled::Open, Some(Outcome::Unavailable)), "{entry:#?}");
        let message = entry.message.as_ref().unwrap();
        assert!(message.contains("MoEngage's clock has not reached the generation time"), "{message}");
    }
    assert_eq!(bench.stored_files().len(), 0);
    bench.vendor.clear_faults();
    store(&bench).await;
    assert_eq!(bench.stored_files().len(), 6, "three objects with their manifests");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_complete_listing_is_kept_despite_one_odd_date_which_is_an_alarm() {
    let bench = bench(evergreen(5), &["\"campaigns\""]).await;
    bench.fault("wrong-date=10d");
    let ctx = bench.context().await;
    let summary = sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
    assert!(summary.is_complete(), "{:#?}", summary.entries);
    manifest(&bench, LISTING);
    let incident = ctx.incidents().remove(&AlarmKind::Clock).unwrap();
    assert!(incident.is_some_and(|message| message.contains("behind")));
    // The measured clocks survive a new configuration.
    let reloaded = sync::reload(&ctx, std::sync::Arc::clone(&ctx.config)).await.unwrap();
    assert!(reloaded.incidents()[&AlarmKind::Clock].is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_past_its_time_by_the_local_clock_alone_is_neither_stored_nor_lost() {
    let bench = bench(evergreen(5), &["\"campaigns\""]).await;
    bench.fault("status=503");
    pass(&bench).await;
    bench.vendor.clear_faults();
    bench.clock.advance(SignedDuration::from_hours(24));
    // Ten hours before the next listing is made: within the time of the first.
    bench.fault("wrong-date=-16h");
    let of_first_day = |summary: &Summary| {
        let entry = summary.entries.iter().find(|entry| entry.partition.id.date == date(2026, 11, 21)).unwrap();
        (entry.settled, entry.outcome.unwrap())
    };
    assert_eq!(of_first_day(&pass(&bench).await), (Settled::Open, Outcome::Unavailable));
    assert_eq!(bench.stored_files().len(), 0);
    bench.vendor.clear_faults();
    let summary = pass(&bench).await;
    assert_eq!(of_first_day(&summary), (Settled::Lost, Outcome::NotPublished), "both clocks are past it");
    assert_eq!(bench.stored_files().len(), 2, "the listing of the second day");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_clock_ahead_that_later_answers_confirm_loses_no_listing() {
    let bench = bench(evergreen(5), &["\"campaigns\""]).await;
    bench.fault("status=503");
    pass(&bench).await;
    bench.vendor.clear_faults();
    bench.clock.advance(SignedDuration::from_hours(24));
    bench.fault("wrong-date=-16h");
    let ctx = bench.context().await;
    sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
    assert_eq!(bench.stored_files().len(), 0, "one moment's answers confirm nothing");
    bench.clock.advance(SignedDuration::from_mins(2));
    sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
    manifest(&bench, LISTING);
    assert_eq!(bench.stored_files().len(), 2, "and none under the date that is yet to come");
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_whose_replacement_was_interrupted_are_fetched_again() {
    let bench = bench(evergreen(5), &["\"campaign_stats\""]).await;
    store(&bench).await;
    for replaces in [false, true] {
        let dead = ledger::open(&bench.ledger(), "dead", bench.clock.read()).await.unwrap().0;
        let claimed = dead.claim(&partition_of("2026-11-21"), Settled::Stored).await.unwrap();
        let Claimed::Ours(claim) = claimed else { panic!("{claimed:?}") };
        assert!(!replaces || dead.begin_replacing(&claim).await.unwrap());
        fs::remove_file(bench.path("ledger/moesync.db.holders/dead")).unwrap();
        dead.close().await;
        let ctx = bench.context().await;
        assert_eq!(ctx.ledger.note_interrupted().await.unwrap(), u64::from(replaces));
        let entry = ctx.ledger.entry_of(&partition_of("2026-11-21")).await.unwrap().unwrap();
        let expected = if replaces { Outcome::StoreFailed } else { Outcome::Stored };
        assert_eq!((entry.settled, entry.outcome), (Settled::Stored, Some(expected)));
        ctx.ledger.close().await;
    }
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
async fn restated_numbers_replace_the_old_which_are_kept_and_equal_ones_do_not() {
    let bench = bench(evergreen(5), &["\"campaign_stats\"\nrefresh_days = 2"]).await;
    store(&bench).await;
    let (first, first_manifest) = (bytes(&bench, STATS), bytes(&bench, &manifest_key(STATS)));
    let asked = requests(&bench, SourceKind::CampaignStats);
    store(&bench).await;
    assert_eq!(requests(&bench, SourceKind::CampaignStats), asked, "not before the next day's time");

    let next_day = SignedDuration::from_hours(24);
    bench.clock.advance(next_day);
    store(&bench).await;
    assert_eq!(requests(&bench, SourceKind::CampaignStats), asked + 2, "the new one, and the old one again");
    assert!(bytes(&bench, STATS) == first && bytes(&bench, &manifest_key(STATS)) == first_manifest);
    assert!(versions(&bench).is_empty());

    bench.vendor.restate();
    bench.clock.advance(next_day);
    store(&bench).await;
    assert_eq!(requests(&bench, SourceKind::CampaignStats), asked + 5);
    assert!(bytes(&bench, STATS) != first);
    manifest(&bench, STATS);
    let versions_now = versions(&bench);
    assert_eq!(versions_now.len(), 2, "of the last two: {versions_now:?}");
    assert!(versions_now.iter().any(|path| fs::read(path).unwrap() == first));
    for version in &versions_now {
        let key = version.strip_prefix(bench.path("reports")).unwrap().to_str().unwrap();
        manifest(&bench, key);
    }

    bench.vendor.restate();
    let restated = bytes(&bench, STATS);
    bench.clock.advance(next_day);
    store(&bench).await;
    assert!(bytes(&bench, STATS) == restated, "three days old: it is left alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_fails_loses_nothing_and_is_retried() {
    let bench = bench(evergreen(5), &["\"campaign_stats\"\nrefresh_days = 1"]).await;
    store(&bench).await;
    let first = bytes(&bench, STATS);
    bench.clock.advance(SignedDuration::from_hours(24));
    bench.vendor.restate();
    bench.fault("status=503,api=campaign_stats");
    let summary = pass(&bench).await;
    assert_eq!(summary.entries.iter().filter(|entry| entry.settled == Settled::Stored).count(), 1);
    assert!(bytes(&bench, STATS) == first);
    manifest(&bench, STATS);
    bench.vendor.clear_faults();
    store(&bench).await;
    assert!(bytes(&bench, STATS) != first);
    assert_eq!(versions(&bench).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_refresh_is_an_alarm_until_its_date_is_no_longer_refreshed() {
    let bench = bench(evergreen(5), &["\"campaign_stats\"\nrefresh_days = 1"]).await;
    let dangers = async || {
        let ctx = bench.context().await;
        // The overview reads the published plan: a pass over no partition makes one.
        let nothing = Selection { partitions: Some([].into()), ..Selection::default() };
        sync::once(&ctx, &nothing, std::future::pending()).await.unwrap();
        let overview = Overview::gather(&ctx).await.unwrap();
        ctx.ledger.close().await;
        overview.dangers.iter().map(|danger| format!("{} {}", danger.status.date, danger.alarm)).collect::<Vec<_>>()
    };
    store(&bench).await;
    assert_eq!(dangers().await, [""; 0]);
    bench.clock.advance(SignedDuration::from_hours(24));
    bench.fault("status=400,api=campaign_stats");
    pass(&bench).await;
    assert_eq!(dangers().await, ["2026-11-21 rejected", "2026-11-22 rejected"]);
    bench.vendor.clear_faults();
    // A newer date has replaced it, and it is not requested any more.
    let ctx = bench.context().await;
    let only_new = Selection { partitions: Some([partition_of("2026-11-22")].into()), ..Selection::default() };
    sync::once(&ctx, &only_new, std::future::pending()).await.unwrap();
    ctx.ledger.close().await;
    bench.clock.advance(SignedDuration::from_hours(24));
    store(&bench).await;
    assert_eq!(dangers().await, [""; 0]);
    let ctx = bench.context().await;
    let old = ctx.ledger.entry_of(&partition_of("2026-11-21")).await.unwrap().unwrap();
    assert_eq!((old.settled, old.outcome), (Settled::Stored, Some(Outcome::Rejected)), "it was fetched again");
}

fn partition_of(date: &str) -> PartitionId {
    PartitionId { report: ReportId::new("acme", "campaign_stats"), date: date.parse().unwrap() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_ledger_learns_snapshots_from_their_manifests() {
    let bench = bench(evergreen(5), &["\"campaign_stats\"", "\"campaigns\"", "\"executions\""]).await;
    let stored = store(&bench).await.entries;
    delete_ledger(&bench);
    let before = bench.requests();
    store(&bench).await;
    assert_eq!((bench.requests(), stored.len()), (before, 3));
    let status = bench.run(&["status", "--json"]).await.expect(0).partitions();
    for entry in stored {
        let object = entry.object.unwrap();
        let is_known = |partition: &Value| partition["sha256"] == object.sha256 && partition["key"] == object.key;
        assert!(status.iter().any(is_known), "{}", object.key);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_without_a_manifest_gets_one_with_its_lines_counted() {
    let bench = bench(evergreen(5), &["\"campaigns\""]).await;
    store(&bench).await;
    fs::remove_file(bench.object(&manifest_key(LISTING))).unwrap();
    delete_ledger(&bench);
    let before = bench.requests();
    store(&bench).await;
    assert_eq!(bench.requests(), before);
    let manifest = manifest(&bench, LISTING);
    assert_eq!(manifest["records"], 5);
    let warning = manifest["warnings"][0].as_str().unwrap();
    assert!(warning.contains("made again from the object"), "what its download warned of is lost: {warning}");
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

/// A vendor whose statistics were restated after the first day, with the object and manifest stored before.
async fn restated() -> (Bench, Vec<u8>, Vec<u8>) {
    let bench = bench(evergreen(5), &["\"campaign_stats\"\nrefresh_days = 1"]).await;
    store(&bench).await;
    let before = (bytes(&bench, STATS), bytes(&bench, &manifest_key(STATS)));
    bench.clock.advance(SignedDuration::from_hours(24));
    bench.vendor.restate();
    (bench, before.0, before.1)
}

fn delete_ledger(bench: &Bench) {
    for file in crate::support::files(&bench.path("ledger")) {
        fs::remove_file(file).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_died_before_its_manifest_gets_one_even_without_the_ledger() {
    for is_ledger_kept in [true, false] {
        let (bench, old, old_manifest) = restated().await;
        let old_ledger = fs::read(bench.ledger()).unwrap();
        store(&bench).await;
        let new = bytes(&bench, STATS);
        fs::write(bench.object(&manifest_key(STATS)), &old_manifest).unwrap();
        delete_ledger(&bench);
        if is_ledger_kept {
            fs::write(bench.ledger(), &old_ledger).unwrap();
        }
        let ctx = bench.context().await;
        sync::recover(&ctx).await.unwrap();
        ctx.ledger.close().await;
        store(&bench).await;
        assert!(bytes(&bench, STATS) == new && new != old);
        manifest(&bench, STATS);
        let versions = versions(&bench);
        assert!(versions.len() == 1 && fs::read(&versions[0]).unwrap() == old, "{versions:?}");
        bench.run(&["verify"]).await.expect(0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_a_dead_refresh_gets_a_manifest_among_the_versions() {
    let (bench, _, old_manifest) = restated().await;
    let old_ledger = fs::read(bench.ledger()).unwrap();
    store(&bench).await;
    let undescribed = bytes(&bench, STATS);
    fs::write(bench.object(&manifest_key(STATS)), &old_manifest).unwrap();
    delete_ledger(&bench);
    fs::write(bench.ledger(), &old_ledger).unwrap();
    bench.vendor.restate();
    store(&bench).await;
    let versions = versions(&bench);
    assert!(versions.len() == 2 && versions.iter().any(|path| fs::read(path).unwrap() == undescribed), "{versions:?}");
    for version in &versions {
        let manifest = manifest(&bench, version.strip_prefix(bench.path("reports")).unwrap().to_str().unwrap());
        assert!(manifest["records"].as_u64() == Some(5), "{manifest}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_older_than_a_refresh_reports_no_damage() {
    let (bench, ..) = restated().await;
    let old_ledger = fs::read(bench.ledger()).unwrap();
    store(&bench).await;
    delete_ledger(&bench);
    fs::write(bench.ledger(), &old_ledger).unwrap();
    bench.run(&["verify", "--repair"]).await.expect(0);
    manifest(&bench, STATS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_of_a_dead_process_is_finished_for_any_date() {
    let (bench, ..) = restated().await;
    let ctx = bench.context().await;
    let id = ctx.ledger.entries().await.unwrap()[0].partition.id.clone();
    ctx.ledger.close().await;
    let (dying, _) = ledger::open(&bench.ledger(), "dying", bench.clock.read()).await.unwrap();
    assert!(matches!(dying.claim(&id, Settled::Stored).await.unwrap(), Claimed::Ours(_)));
    dying.close().await;
    drop(dying);
    bench.clock.advance(SignedDuration::from_hours(5 * 24));
    let before = bytes(&bench, STATS);
    let ctx = bench.context().await;
    sync::recover(&ctx).await.unwrap();
    ctx.ledger.close().await;
    store(&bench).await;
    assert!(bytes(&bench, STATS) != before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restated_partition_whose_name_is_taken_gets_a_version_and_loses_none() {
    let bench = bench(evergreen(5), &["\"campaign_stats\"\nrefresh_days = 1"]).await;
    fs::create_dir_all(bench.object(STATS).parent().unwrap()).unwrap();
    fs::write(bench.object(STATS), "foreign content").unwrap();
    store(&bench).await;
    let first = versions(&bench);
    bench.clock.advance(SignedDuration::from_hours(24));
    bench.vendor.restate();
    store(&bench).await;
    assert_eq!(bytes(&bench, STATS), b"foreign content");
    let both = versions(&bench);
    assert!(first.len() == 1 && both.len() == 2 && both.contains(&first[0]), "{both:?}");
    for version in &both {
        manifest(&bench, version.strip_prefix(bench.path("reports")).unwrap().to_str().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_vendor_loses_no_listing_at_any_local_time() {
    let bench = bench(evergreen(5), &["\"campaigns\""]).await;
    store(&bench).await;
    bench.clock.advance(SignedDuration::from_hours(3 * 24));
    bench.fault("reset");
    let summary = pass(&bench).await;
    assert_eq!(summary.entries.len(), 3, "{:#?}", summary.entries);
    assert!(summary.entries.iter().all(|entry| entry.settled == Settled::Open), "{:#?}", summary.entries);
}
