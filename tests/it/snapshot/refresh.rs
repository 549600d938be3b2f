//! Statistics that are fetched again after they were stored, also across kills and lost ledgers.

use std::{
    collections::BTreeSet,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use jiff::SignedDuration;
use moesync::{
    config::SourceKind,
    ledger::{self, Claimed},
    outcome::Outcome,
    partition::Settled,
    report::{PartitionId, ReportId},
    sync::{self, Selection},
    web::Overview,
};
use serde_json::Value;

use super::{LISTING, STATS, bench, bytes, evergreen, manifest, pass, requests, store, versions};
use crate::support::{Bench, oracle::manifest_key};

#[tokio::test(flavor = "multi_thread")]
async fn statistics_whose_replacement_was_interrupted_are_fetched_again() {
    let bench = bench(evergreen(5), &["\"campaign_stats\""]).await;
    store(&bench).await;
    for replaces in [false, true] {
        let dead = ledger::open(&bench.ledger(), "dead", bench.clock.read()).await.unwrap().0;
        let entry = dead.entry_of(&partition_of("2026-11-21")).await.unwrap().unwrap();
        let claimed = dead.claim(&entry).await.unwrap();
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
async fn restated_numbers_replace_their_tables_and_a_reader_sees_old_or_new() {
    let bench = bench(evergreen(5), &["\"campaign_stats\"\nrefresh_days = 2\ntables = \"parquet\""]).await;
    let derived = async || {
        let ctx = bench.context().await;
        sync::note_table_reports(&ctx).await.unwrap();
        assert!(sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap().is_complete());
        let made = sync::derive_once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
        ctx.ledger.close().await;
        made.partitions
    };
    assert_eq!(derived().await, 1);
    let key = "tables/acme/campaign_stats/stats/date=2026-11-21/part-0.parquet";
    let old = bytes(&bench, key);
    let (path, is_over) = (bench.object(key), Arc::new(AtomicBool::new(false)));
    let is_read_for = Arc::clone(&is_over);
    let reading = tokio::task::spawn_blocking(move || {
        let mut seen = BTreeSet::new();
        while !is_read_for.load(Ordering::Relaxed) {
            seen.insert(fs::read(&path).expect("an object at any moment"));
        }
        seen
    });
    bench.vendor.restate();
    bench.clock.advance(SignedDuration::from_hours(24));
    assert_eq!(derived().await, 2, "the new date's, and those of the restated one again");
    is_over.store(true, Ordering::Relaxed);
    let new = bytes(&bench, key);
    assert!(new != old);
    let seen = reading.await.unwrap();
    assert!(seen.iter().all(|bytes| *bytes == old || *bytes == new), "neither old nor new");
    let table: Value = serde_json::from_slice(&bytes(&bench, &manifest_key(key))).unwrap();
    assert_eq!(table["source_sha256"], manifest(&bench, STATS)["sha256"]);
    assert_eq!(derived().await, 0);
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
        overview
            .head
            .dangers
            .iter()
            .map(|danger| format!("{} {}", danger.status.date, danger.alarm))
            .collect::<Vec<_>>()
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
        sync::recover(&ctx, &sync::Selection::default()).await.unwrap();
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
    let entry = ctx.ledger.entries().await.unwrap().remove(0);
    ctx.ledger.close().await;
    let (dying, _) = ledger::open(&bench.ledger(), "dying", bench.clock.read()).await.unwrap();
    assert!(matches!(dying.claim(&entry).await.unwrap(), Claimed::Ours(_)));
    dying.close().await;
    drop(dying);
    bench.clock.advance(SignedDuration::from_hours(5 * 24));
    let before = bytes(&bench, STATS);
    let ctx = bench.context().await;
    sync::recover(&ctx, &sync::Selection::default()).await.unwrap();
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
