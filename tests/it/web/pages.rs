//! The pages: what they show, in which order, how many rows.

use std::{collections::BTreeSet, sync::Arc};

use moesync::{
    emulator::Fault,
    sync::{self, Selection},
};

use super::{InProcess, Served, all_stored, client};
use crate::support::{Bench, Series, wait_until};

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
    // The oldest of the dates is near its expiry.
    let bench = Bench::new(&[Series::campaign("Report test", 7), Series::dump(1)]).await;
    bench.fault("unauthorized");
    let (server, ctx) = InProcess::start(&bench).await;
    sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
    let page = client().get(&server.url).send().await.unwrap().text().await.unwrap();
    let rows: Vec<_> = page.split("<a class=\"danger ").skip(1).map(|row| row.split("</a>").next().unwrap()).collect();
    let [row] = rows[..] else { panic!("{page}") };
    for part in ["acme", "2 reports wait", "MoEngage refuses the key; next probe", "first to expire: report-test "] {
        assert!(row.contains(part), "{row}");
    }
}
