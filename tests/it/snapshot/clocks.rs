//! Live listings and the clocks: sleep, wrong dates, and the vendor's clock behind or ahead.

use std::fs;

use jiff::{SignedDuration, civil::date};
use moesync::{
    alarm_kind::AlarmKind,
    config::SourceKind,
    outcome::Outcome,
    partition::Settled,
    sync::{self, Selection, Summary},
};

use super::{LISTING, bench, evergreen, manifest, pass, requests, store};

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
async fn an_unreachable_vendor_loses_no_listing_at_any_local_time() {
    let bench = bench(evergreen(5), &["\"campaigns\""]).await;
    store(&bench).await;
    bench.clock.advance(SignedDuration::from_hours(3 * 24));
    bench.fault("reset");
    let summary = pass(&bench).await;
    assert_eq!(summary.entries.len(), 3, "{:#?}", summary.entries);
    assert!(summary.entries.iter().all(|entry| entry.settled == Settled::Open), "{:#?}", summary.entries);
}
