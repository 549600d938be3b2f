//! `moesync acknowledge` and `moesync forget`.

use jiff::SignedDuration;
use moesync::{
    emulator::Fault,
    sync::{self, Selection},
};
use serde_json::Value;

use crate::support::{Bench, Series};

fn dates(partitions: &[Value]) -> Vec<&str> {
    partitions.iter().map(|partition| partition["date"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_loss_is_no_alarm_and_stays_in_sight() {
    let bench = Bench::at("2025-11-21T12:00:00Z", &[Series::campaign("Report test", 1)]).await;
    bench.write_config(&bench.config().replace("every = \"day\"", &format!("once = \"{}\"", bench.newest)));
    bench.fault_at(&bench.series[0].file_name(bench.newest), Fault::Html, 6);
    bench.fault("not-yet,path=Report_test");
    let ctx = bench.context().await;
    for _ in 0..9 {
        sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
        bench.clock.advance(SignedDuration::from_hours(24));
    }
    ctx.ledger.close().await;
    bench.run(&["status", "--check"]).await.expect(1);
    bench.run(&["acknowledge"]).await.expect(2);
    let newest = bench.newest.to_string();
    let acknowledge = ["acknowledge", "--report", "report-test", "--json"];
    let shown = bench.run(&[&acknowledge[..], &["--dry-run"]].concat()).await.expect(0).partitions();
    assert_eq!((dates(&shown), &shown[0]["acknowledged"]), (vec![&newest[..]], &false.into()));
    bench.run(&["status", "--check"]).await.expect(1);
    let other = bench.run(&[&acknowledge[..], &["--date", "2025-01-01"]].concat()).await.expect(0).partitions();
    assert_eq!(other.len(), 0);
    let done = bench.run(&acknowledge).await.expect(0).partitions();
    assert_eq!((dates(&done), &done[0]["acknowledged"]), (vec![&newest[..]], &true.into()));
    let status = bench.run(&["status", "--check"]).await.expect(0).stdout;
    assert!(status.contains("1 lost (1 acknowledged); "), "{status}");
    let status = bench.run(&["status", "--json"]).await.expect(0).json();
    let lost: Vec<_> = status["partitions"].as_array().unwrap().iter().filter(|p| p["state"] == "lost").collect();
    assert_eq!((lost.len(), &lost[0]["acknowledged"]), (1, &true.into()));
    assert_eq!(bench.run(&acknowledge).await.expect(0).partitions().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn forgotten_rows_go_and_their_objects_stay() {
    let bench = Bench::new(&[Series::campaign("Report test", 2), Series::dump(2)]).await;
    bench.sync(0).await;
    let stored = bench.stored_files();
    let dump = bench.report(&bench.series[1]);
    let newest = bench.newest.to_string();
    for refused in
        [&["forget"][..], &["forget", "--report", "dump"], &["forget", "--report", "dmup", "--date", &newest]]
    {
        bench.run(refused).await.expect(2);
    }
    bench.write_config(&bench.config().replace(&dump, ""));
    let status = bench.run(&["status"]).await.expect(0).stdout;
    assert!(status.contains("(unconfigured)"), "{status}");
    let forget = ["forget", "--unconfigured", "--json"];
    let shown = bench.run(&[&forget[..], &["--dry-run"]].concat()).await.expect(0).partitions();
    assert_eq!(shown.len(), 2);
    assert_eq!(bench.run(&forget).await.expect(0).partitions().len(), 2);
    let status = bench.run(&["status"]).await.expect(0).stdout;
    assert!(!status.contains("dump"), "{status}");
    assert_eq!(bench.stored_files(), stored);

    // A date of a configured report is learned again from its manifest.
    let of_date = ["forget", "--report", "report-test", "--date", &newest, "--json"];
    assert_eq!(dates(&bench.run(&of_date).await.expect(0).partitions()), [&newest]);
    assert_eq!(bench.run(&["status", "--state", "stored", "--json"]).await.expect(0).partitions().len(), 1);
    let requests = bench.requests();
    bench.sync(0).await;
    assert_eq!(bench.run(&["status", "--state", "stored", "--json"]).await.expect(0).partitions().len(), 2);
    assert_eq!(bench.requests(), requests);
}
