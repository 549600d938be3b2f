//! Retries within a pass, `Retry-After`, concurrent passes, and the stop signal.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use crate::support::{
    Bench, Daemon, PATIENCE, Series,
    oracle::{hash, manifest_key},
    wait_until,
};

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reset_a_503_a_truncated_body_and_html_the_true_archives_are_stored() {
    let bench = Bench::new(&[Series::campaign("Report test", 5), Series::dump(5)]).await;
    for fault in ["reset", "status=503", "truncate=50%", "html"] {
        bench.fault(&format!("{fault},times=1"));
    }
    let ran = bench.run(&["-vv", "sync", "--json"]).await.expect(0);
    let struck: BTreeSet<_> = bench.vendor.requests().iter().filter_map(|request| request.fault).collect();
    assert_eq!(struck, BTreeSet::from(["reset", "status", "truncate", "html"]));

    let partitions = ran.partitions();
    assert_eq!(partitions.len(), 10);
    for (series, date) in bench.due() {
        let key = series.key(date);
        let object = fs::read(bench.object(&key)).unwrap();
        assert!(object == bench.truth(series, date).await, "{key}");
        let manifest = fs::read(bench.object(&manifest_key(&key))).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        assert_eq!(manifest["sha256"], hash(&object));
    }
    bench.oracle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_concurrent_passes_store_everything_and_download_nothing_twice() {
    let bench = Bench::new(&[Series::campaign("Report test", 5), Series::dump(5)]).await;
    bench.fault("slow=20000");
    let (one, other) = tokio::join!(bench.run(&["sync", "--json"]), bench.run(&["sync", "--json"]));
    assert_eq!((one.expect(0).partitions().len(), other.expect(0).code), (10, Some(0)));
    assert_eq!(bench.requests(), 10);
    bench.vendor.clear_faults();
    bench.oracle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_retry_after_is_waited_for_within_one_pass() {
    let bench = Bench::new(&[Series::campaign("Report test", 3)]).await;
    bench.fault("rate-limited=1,times=1");
    bench.sync(0).await;
    assert_eq!(bench.requests(), 4);
    bench.oracle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_retry_after_ends_the_pass_and_holds_the_next_one() {
    let bench = Bench::new(&[Series::campaign("Report test", 3)]).await;
    bench.fault("rate-limited=3600");
    bench.sync(1).await;
    let asked = bench.requests();
    assert_eq!(asked, 1);
    let held = bench.sync(1).await.partitions();
    assert_eq!(bench.requests(), asked, "the wait that the vendor asked for was not kept");
    assert!(held.iter().all(|partition| partition["state"] == "pending"));
    let states: Vec<_> = held.iter().map(|partition| partition["outcome"].clone()).collect();
    assert!(states.contains(&"rate_limited".into()), "{states:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_for_500_partitions_is_a_few_requests_and_one_alarm() {
    let series: Vec<_> = (0..100).map(|number| Series::campaign(&format!("Report {number}"), 5)).collect();
    let bench = Bench::new(&series).await;
    fs::write(bench.path("secret-key"), "not-the-key").unwrap();
    let ran = bench.sync(1).await;
    assert!(bench.requests() <= 4, "{} requests", bench.requests());
    assert_eq!(ran.alarms().len(), 1, "{}", ran.stderr);
    assert_eq!(ran.partitions().len(), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_signal_ends_a_pass_without_partial_work() {
    let bench = Bench::new(&[Series::campaign("Report test", 5)]).await;
    bench.fault("slow=4000,times=2");
    let syncing = Daemon::spawn(bench.command(&["-vv", "sync"]));
    assert!(wait_until(async || bench.requests() > 0).await);
    syncing.signal("TERM").await;
    let status = tokio::time::timeout(PATIENCE, syncing.end(&bench)).await.unwrap();
    assert_eq!(status.code(), Some(1), "not everything was stored");
    bench.check_stored_files().await;
    assert_eq!(bench.kept_in("_staging"), [""; 0]);
    bench.sync(0).await;
    bench.oracle().await;
}
