//! Where a listing ends: short and empty pages, and totals that are wrong.

use std::sync::Mutex;

use moesync::outcome::Outcome;
use serde_json::{Value, json};

use super::{Desk, STATS, ok, page_of, reply, statistics};

#[tokio::test(flavor = "multi_thread")]
async fn a_short_page_of_a_listing_is_not_the_last() {
    let desk = Desk::new("\"campaigns\"", |asked| {
        let mut page = page_of(45, asked.page());
        page.retain(|campaign| campaign["campaign_id"] != "c00020");
        ok(&page.into())
    })
    .await;
    desk.store().await;
    assert_eq!((desk.lines().len(), desk.warnings()), (44, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_page_of_statistics_without_a_total_is_not_the_last() {
    let desk = Desk::new(STATS, |asked| {
        let (from, to) = ((asked.page() - 1) * 10, (asked.page() * 10).min(24));
        let data: serde_json::Map<_, _> =
            (from..to).filter(|number| *number != 14).map(|number| (format!("c{number}"), json!([{}]))).collect();
        ok(&json!({ "data": if data.is_empty() { Value::Null } else { data.into() } }))
    })
    .await;
    desk.store().await;
    assert_eq!(desk.lines().len(), 23);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_page_within_a_listing_is_passed_and_named_once_two_readings_agree() {
    let desk = Desk::new("\"campaigns\"", |asked| match asked.page() {
        2 => ok(&json!([])),
        page => ok(&page_of(45, page).into()),
    })
    .await;
    desk.store().await;
    assert_eq!(desk.lines().len(), 30);
    assert!(
        desk.warning().contains("page 2 of the listing of campaigns has nothing new, and page 3 has"),
        "{}",
        desk.warning()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_page_that_fills_on_the_second_reading_leaves_no_warning() {
    let glitches = Mutex::new(1);
    let desk = Desk::new("\"campaigns\"", move |asked| match asked.page() {
        2 if std::mem::take(&mut *glitches.lock().unwrap()) == 1 => ok(&json!([])),
        page => ok(&page_of(45, page).into()),
    })
    .await;
    desk.store().await;
    assert_eq!((desk.lines().len(), desk.warnings()), (45, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_total_of_statistics_above_what_is_listed_is_a_warning() {
    let desk = Desk::new(STATS, |asked| {
        let (from, to) = ((asked.page() - 1) * 10, (asked.page() * 10).min(25));
        let data: serde_json::Map<_, _> =
            (from..to).filter(|number| *number != 7).map(|number| (format!("c{number}"), json!([{}]))).collect();
        ok(&json!({ "total_campaigns": 25, "data": data }))
    })
    .await;
    desk.store().await;
    assert_eq!(desk.lines().len(), 24);
    assert!(desk.warning().contains("24 of 25"), "{}", desk.warning());
    assert_eq!(desk.requests(), 6, "two readings that agree");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_too_small_total_of_statistics_does_not_end_the_listing() {
    for total in [10, 20] {
        let desk = statistics(total, "").await;
        desk.store().await;
        assert_eq!(desk.lines().len(), 25, "{total}");
        assert!(desk.warning().contains(&format!("25 of {total} ")), "{}", desk.warning());
    }
    let desk = statistics(25, "").await;
    desk.store().await;
    assert_eq!((desk.lines().len(), desk.requests()), (25, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_of_pages_above_what_is_listed_is_a_warning() {
    let desk = statistics(0, "pages").await;
    desk.store().await;
    assert_eq!(desk.lines().len(), 25);
    assert!(desk.warning().contains("announces another page"), "{}", desk.warning());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_after_the_counted_total_may_be_refused_or_fail() {
    for (status, warnings) in [(400, 0), (404, 0), (500, 1)] {
        let desk = Desk::new(STATS, move |asked| match asked.page() {
            1 | 2 => {
                let from = (asked.page() - 1) * 10;
                let data: serde_json::Map<_, _> =
                    (from..from + 10).map(|number| (format!("c{number}"), json!([{}]))).collect();
                ok(&json!({ "total_campaigns": 20, "data": data }))
            }
            _ => reply(status, ""),
        })
        .await;
        desk.store().await;
        assert_eq!((desk.lines().len(), desk.warnings().len()), (20, warnings), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_campaign_without_statistics_is_a_warning_that_names_it() {
    let desk = Desk::new(&format!("{STATS}\ncampaign_ids = [\"a\", \"b\", \"c\"]"), |_| {
        ok(&json!({ "total_campaigns": 3, "data": { "a": [{}], "c": [{}] } }))
    })
    .await;
    desk.store().await;
    assert_eq!((desk.lines().len(), desk.requests()), (2, 1));
    let warning = desk.warning();
    assert!(warning.contains("2 of 3") && warning.ends_with(": b"), "{warning}");
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_that_are_null_without_a_total_are_no_empty_list() {
    let desk = Desk::new(STATS, |_| reply(200, "{\"data\": null}")).await;
    let message = desk.miss(Outcome::Corrupt).await;
    assert!(message.contains("there is no map `data`, nor a total of 0"), "{message}");
    let desk = Desk::new(STATS, |_| reply(200, "{\"data\": null, \"total_campaigns\": 0}")).await;
    desk.store().await;
    assert_eq!(desk.text(), "");
    Desk::new("\"campaigns\"", |_| reply(204, "")).await.miss(Outcome::Corrupt).await;
}
