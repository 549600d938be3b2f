//! How partitions end: `absent`, `lost` or still pending, by both clocks.

use std::fs;

use jiff::SignedDuration;
use moesync::{
    alarm_kind::AlarmKind,
    emulator::Fault,
    outcome::Outcome,
    partition::Settled,
    sync::{self, Selection},
    web::Overview,
};
use serde_json::Value;

use super::{once, only_entry};
use crate::support::{Bench, Series, oracle::manifest_key};

#[tokio::test(flavor = "multi_thread")]
async fn a_report_denied_before_and_after_expiry_while_others_come_is_absent() {
    let bench = Bench::at("2026-11-21T12:00:00Z", &[Series::campaign("Report test", 1), Series::dump(1)]).await;
    bench.fault("not-yet,path=Report_test");
    let ctx = bench.context().await;
    let mut settled = Vec::new();
    // Six hours old at first; requested once a day, and once after seven days.
    for _ in 0..8 {
        once(&ctx).await;
        settled.push(only_entry(&bench, &ctx).await.settled);
        bench.clock.advance(SignedDuration::from_hours(24));
    }
    assert_eq!(settled[..7], [Settled::Open; 7]);
    assert_eq!(settled[7], Settled::Absent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_that_is_denied_everything_ends_as_lost_with_the_causes() {
    for status in ["400", "404", "403"] {
        let bench = Bench::at("2026-11-21T12:00:00Z", &[Series::campaign("Report test", 1), Series::dump(1)]).await;
        bench.fault(&format!("status={status}"));
        let ctx = bench.context().await;
        for _ in 0..9 {
            once(&ctx).await;
            bench.clock.advance(SignedDuration::from_hours(24));
        }
        let entries = ctx.ledger.entries().await.unwrap();
        assert!(!entries.is_empty() && entries.iter().all(|entry| entry.settled != Settled::Absent), "{entries:#?}");
        let ended: Vec<_> = entries.iter().filter(|entry| entry.settled == Settled::Lost).collect();
        assert_eq!(ended.len(), if status == "403" { 0 } else { 4 }, "{status}: of two days, a report and a dump each");
        for cause in ["app_id", "the report's name", "API firewall", "scopes"] {
            assert!(ended.iter().all(|entry| entry.message.as_ref().unwrap().contains(cause)), "{cause}: {ended:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_archive_is_final_while_the_vendors_clock_is_two_days_behind() {
    let bench = Bench::at("2026-11-21T12:00:00Z", &[Series::campaign("Report test", 1), Series::dump(1)]).await;
    bench.fault("wrong-date=-2d");
    let ctx = bench.context().await;
    let summary = once(&ctx).await;
    assert_eq!(summary.entries.len(), 2);
    for entry in &summary.entries {
        assert_eq!((entry.settled, entry.outcome), (Settled::Open, Some(Outcome::Unavailable)), "{entry:#?}");
        assert!(entry.message.as_ref().unwrap().contains("has not reached the generation time"), "{entry:#?}");
    }
    assert!(bench.stored_files().is_empty());
    bench.vendor.clear_faults();
    assert!(once(&ctx).await.is_complete());
}

#[tokio::test(flavor = "multi_thread")]
async fn in_its_last_day_an_archive_is_stored_despite_the_vendors_clock() {
    let bench = Bench::at("2026-11-21T12:00:00Z", &[Series::campaign("Report test", 1)]).await;
    let (series, date) = bench.due()[0];
    bench.clock.advance(SignedDuration::from_hours(6 * 24 + 1));
    bench.fault("wrong-date=-8d");
    let ctx = bench.context().await;
    once(&ctx).await;
    assert_eq!(only_entry(&bench, &ctx).await.settled, Settled::Stored);
    assert_eq!(bench.stored_files().len(), 2, "the others have time");
    let manifest = fs::read(bench.object(&manifest_key(&series.key(date)))).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert!(manifest["warnings"][0].as_str().unwrap().contains("has not reached the generation time"), "{manifest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_404_dated_ten_days_ahead_ends_nothing_and_the_next_archive_is_stored() {
    for series in [Series::campaign("Report test", 1), Series::dump(1)] {
        let bench = Bench::at("2026-11-21T12:00:00Z", &[series]).await;
        bench.fault("status=404,times=1");
        bench.fault("wrong-date=10d,times=1");
        let ctx = bench.context().await;
        once(&ctx).await;
        let entry = only_entry(&bench, &ctx).await;
        assert_eq!((entry.settled, entry.outcome), (Settled::Open, Some(Outcome::NotPublished)));
        assert!(ctx.incidents()[&AlarmKind::Clock].is_some());
        assert!(once(&ctx).await.is_complete());
        assert_eq!(only_entry(&bench, &ctx).await.settled, Settled::Stored);
        assert!(!ctx.incidents().contains_key(&AlarmKind::Clock));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_odd_date_neither_plans_a_past_nor_stops_planning() {
    let bench = Bench::at("2026-11-21T12:00:00Z", &[Series::campaign("Report test", 1)]).await;
    let ctx = bench.context().await;
    once(&ctx).await;
    for offset in ["-10d", "10d"] {
        bench.clock.advance(SignedDuration::from_hours(24));
        bench.fault(&format!("status=404,times=1,path=Report_test_{}", bench.clock.read().strftime("%Y%m%d")));
        bench.fault(&format!("wrong-date={offset},times=1"));
        once(&ctx).await;
        bench.clock.advance(SignedDuration::from_secs(30));
        let known = ctx.ledger.entries().await.unwrap().len();
        let view = ctx.view(&ctx.ledger, bench.clock.read()).await.unwrap();
        let plan = moesync::plan::plan(&ctx.config.reports, &view, bench.clock.read() + SignedDuration::from_hours(24));
        assert_eq!(plan.new.len(), 1, "{offset}: tomorrow's");
        assert!(once(&ctx).await.is_complete());
        assert_eq!(ctx.ledger.entries().await.unwrap().len(), known, "{offset}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_in_the_past_is_absent_where_it_had_expired_and_downtime_is_no_excuse() {
    let bench = Bench::at("2026-11-21T12:00:00Z", &[Series::campaign("Report test", 12)]).await;
    bench.fault("status=503,path=Report_test_20261121");
    let ctx = bench.context().await;
    let states = async || {
        let entries = ctx.ledger.entries().await.unwrap();
        let of = |settled| entries.iter().filter(|entry| entry.settled == settled).count();
        [Settled::Absent, Settled::Stored, Settled::Open, Settled::Lost].map(of)
    };
    once(&ctx).await;
    assert_eq!(states().await, [5, 6, 1, 0]);
    bench.vendor.clear_faults();
    bench.clock.advance(SignedDuration::from_hours(10 * 24));
    once(&ctx).await;
    // The open one, and those of the first three days of the downtime.
    assert_eq!(states().await, [5, 13, 0, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_seen_once_and_gone_is_lost_and_the_pass_reports_it() {
    let bench = Bench::at("2026-11-21T12:00:00Z", &[Series::campaign("Report test", 1)]).await;
    let (series, date) = bench.due()[0];
    bench.fault_at(&series.file_name(date), Fault::Html, 6);
    let ctx = bench.context().await;
    sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
    assert_eq!(only_entry(&bench, &ctx).await.settled, Settled::Open);
    bench.clock.advance(SignedDuration::from_hours(8 * 24));
    let summary = sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
    assert_eq!(only_entry(&bench, &ctx).await.settled, Settled::Lost);
    assert!(!summary.is_complete());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_never_requested_before_expiry_stays_pending_with_an_alarm() {
    let bench = Bench::at("2026-11-21T12:00:00Z", &[Series::campaign("Report test", 1)]).await;
    bench.fault("status=503");
    let ctx = bench.context().await;
    sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
    bench.clock.advance(SignedDuration::from_hours(30 * 24));
    sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
    let entry = only_entry(&bench, &ctx).await;
    assert_eq!((entry.settled, entry.outcome), (Settled::Open, Some(Outcome::Unavailable)));
    let dangers = Overview::gather(&ctx).await.unwrap().head.dangers;
    assert!(dangers.iter().any(|danger| danger.alarm == "expiring"), "{dangers:?}");
}
