//! Disks that fail and disks that are full, under the real binary.

use std::{collections::BTreeSet, fs};

use futures::{StreamExt as _, stream};
use moesync::{
    ledger,
    outcome::{Outcome, RecordedAttempt},
    report::{PartitionId, ReportId},
};

use crate::support::{
    Bench, Daemon, Ran, Receiver, Series,
    oracle::manifest_key,
    small_disk::SmallDisk,
    wait_until,
    watch::{self, Call},
};

/// The purpose of a call in a pass over one partition.
fn kind(calls: &[Call], call: &Call) -> &'static str {
    let staged = |call: &&Call| call.path.starts_with("reports/_staging/");
    let first = calls.iter().find(staged);
    match call.path.as_str() {
        path if path.starts_with("ledger") => "ledger",
        path if first.is_some_and(|first| first.path == path) => "object",
        path if path.starts_with("reports/_staging/") => "manifest",
        "reports/acme/report-test" | "reports/acme" | "reports" | "" => "folder above",
        _ => "folder",
    }
}

/// `sync` with the numbered fsync failing, and all its calls.
async fn watched(bench: &Bench, fails: Option<usize>) -> (Ran, Vec<Call>) {
    let log = bench.path("calls");
    let _ = fs::remove_file(&log);
    let mut command = bench.command(&["sync", "--json"]);
    command.env("LD_PRELOAD", watch::library()).env("WATCH_LOG", &log);
    if let Some(number) = fails {
        command.env("WATCH_FAIL", number.to_string());
    }
    let ran = bench.finish(command).await;
    (ran, watch::calls(&log, bench.folder.path()))
}

fn is_forced(calls: &[Call], path: &str) -> bool {
    calls.iter().any(|call| call.name == "fsync" && call.path == path)
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_synced_before_their_name_and_names_before_the_record() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let (series, date) = bench.due()[0];
    let (key, folder) = (series.key(date), format!("reports/acme/report-test/date={date}"));
    let (ran, calls) = watched(&bench, None).await;
    ran.expect(0);
    let begin = calls.iter().position(|call| call.path.contains("_staging/")).unwrap();
    let order: Vec<_> = calls[begin..]
        .iter()
        .filter(|call| call.path.starts_with("reports"))
        .map(|call| {
            let path = if call.path.contains("_staging/") { kind(&calls, call) } else { call.path.as_str() };
            format!("{} {path}{}", call.name, call.to.as_ref().map(|to| format!(" {to}")).unwrap_or_default())
        })
        .collect();
    let expected = [
        "fsync object".to_owned(),
        format!("link object reports/{key}"),
        "fsync manifest".to_owned(),
        format!("rename manifest reports/{}", manifest_key(&key)),
        format!("fsync {folder}"),
        "fsync reports".to_owned(),
        "fsync reports/acme".to_owned(),
        "fsync reports/acme/report-test".to_owned(),
    ];
    assert_eq!(order, expected);

    // An object that is found may have been named by a process that was killed before it synced the name.
    fs::remove_dir_all(bench.path("ledger")).unwrap();
    let (ran, calls) = watched(&bench, None).await;
    ran.expect(0);
    assert!(is_forced(&calls, &folder), "adopted, but its name may go with the power: {calls:#?}");
    assert_eq!(bench.requests(), 1);
    bench.oracle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_object_that_appears_during_a_download_is_synced() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let (series, date) = bench.due()[0];
    let (key, truth) = (series.key(date), bench.truth(series, date).await);
    bench.fault("slow=4000");
    let appear = async {
        assert!(wait_until(async || bench.requests() > 0).await);
        fs::create_dir_all(bench.object(&key).parent().unwrap()).unwrap();
        fs::write(bench.object(&key), truth).unwrap();
    };
    let ((ran, calls), ()) = tokio::join!(watched(&bench, None), appear);
    ran.expect(0);
    assert!(is_forced(&calls, &format!("reports/{key}")), "{calls:#?}");
    bench.vendor.clear_faults();
    bench.oracle().await;
}

/// A pass whose fsync of this number fails; returns the purpose of that call.
async fn one_fails(number: usize) -> Option<&'static str> {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let (ran, calls) = watched(&bench, Some(number)).await;
    bench.check_stored_files().await;
    let failed = calls.iter().find(|call| call.failed)?.clone();
    let linked = calls.iter().find(|call| call.to.is_some() && call.path == failed.path);
    assert_eq!(linked, None, "the bytes of {failed:?} may be lost, yet they got a name");
    let kind = kind(&calls, &failed);
    if kind != "ledger" && ran.code == Some(0) {
        let attempts = attempts(&bench).await;
        assert_eq!(attempts[0].outcome, Outcome::StoreFailed, "{failed:?} was passed over");
        assert!(attempts[0].message.contains("Input/output error"), "{}", attempts[0].message);
        assert_eq!((attempts.len(), attempts[1].outcome), (2, Outcome::Stored), "{failed:?}");
    }
    // The next pass has a working disk.
    bench.sync(0).await;
    bench.oracle().await;
    Some(kind)
}

async fn attempts(bench: &Bench) -> Vec<RecordedAttempt> {
    let (series, date) = bench.due()[0];
    let id = PartitionId { report: ReportId::new("acme", &series.id), date };
    ledger::open_read_only(&bench.ledger()).await.unwrap().unwrap().attempts(&id).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_single_fsync_that_fails_is_ever_a_success() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let (_, calls) = watched(&bench, None).await;
    let forced = calls.iter().filter(|call| call.name == "fsync").count();
    let failed: Vec<_> = stream::iter(1..=forced).map(one_fails).buffer_unordered(4).collect().await;
    let kinds: BTreeSet<_> = failed.into_iter().flatten().collect();
    assert_eq!(kinds, BTreeSet::from(["object", "manifest", "folder", "folder above", "ledger"]));
}

/// A daemon with a page and a receiver of its alarms.
async fn start(bench: &Bench) -> (Daemon, Receiver) {
    let receiver = Receiver::start().await;
    let config = bench.config().replace("listen = \"\"", "listen = \"127.0.0.1:0\"") + &receiver.webhook();
    bench.write_config(&config);
    (Daemon::start(bench).await, receiver)
}

/// The reason why it is not ready, if it is not.
async fn unready(daemon: &Daemon) -> Option<String> {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.get(format!("{}/readyz", daemon.url())).send().await.unwrap();
    let is_ready = answer.status().is_success();
    let text = answer.text().await.unwrap();
    (!is_ready).then_some(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_with_a_full_destination_alerts_is_not_ready_and_resumes() {
    let disk = SmallDisk::mount();
    let mut bench = Bench::new(&[Series::campaign("Report test", 2).bytes(100_000)]).await;
    bench.store_in(&disk.path().join("reports"));
    fs::create_dir(disk.path().join("reports")).unwrap();
    let filler = disk.fill();
    let (daemon, receiver) = start(&bench).await;
    let said = async || unready(&daemon).await.is_some_and(|reason| reason.contains("No space left on device"));
    assert!(wait_until(said).await, "{:?}", unready(&daemon).await);
    let received = async |phase: &str| receiver.alarms().contains(&format!("store_failed {phase}"));
    assert!(wait_until(async || received("began").await).await, "{:?}", receiver.alarms());
    let events = receiver.events();
    let event = events.iter().find(|event| event["data"]["alarm"] == "store_failed").unwrap().to_string();
    assert!(event.contains("No space left on device"), "{event}");
    bench.check_stored_files().await;

    fs::remove_file(filler).unwrap();
    let stored = async || bench.status().await.iter().all(|partition| partition["state"] == "stored");
    assert!(wait_until(stored).await, "{:?}\n{}", bench.status().await, daemon.log().join("\n"));
    assert!(wait_until(async || received("ended").await).await, "{:?}", receiver.alarms());
    // The result of a probe is used for a minute, but not under another configuration.
    daemon.signal("HUP").await;
    assert!(wait_until(async || unready(&daemon).await.is_none()).await, "{:?}", unready(&daemon).await);
    daemon.stop(&bench).await;
    bench.oracle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_whose_ledger_has_no_room_alerts_is_not_ready_and_resumes() {
    let bench = Bench::new(&[Series::dump(3)]).await;
    fs::create_dir(bench.path("ledger")).unwrap();
    let disk = SmallDisk::mount_at(bench.path("ledger"), "4m");
    // The slowest case comes first: a request was answered and cannot be recorded.
    bench.fault("slow=4000,times=1");
    let (daemon, _receiver) = start(&bench).await;
    assert!(wait_until(async || bench.requests() > 0).await);
    let filler = disk.fill();
    assert!(wait_until(async || daemon.alarms().contains(&"ledger".to_owned())).await, "{}", daemon.log().join("\n"));
    assert!(daemon.log().iter().any(|line| line.contains("full")), "{}", daemon.log().join("\n"));
    let said = async || unready(&daemon).await.is_some_and(|reason| reason.contains("full"));
    assert!(wait_until(said).await, "{:?}", unready(&daemon).await);
    assert!(!daemon.has_ended());
    daemon.signal("HUP").await;
    daemon.wait_for_log("ledger write failed again").await;
    assert_eq!(daemon.alarms(), ["ledger"], "an alarm is logged once while it lasts");

    fs::remove_file(filler).unwrap();
    // It retries after half a minute, and at a reload.
    daemon.signal("HUP").await;
    let stored = async || {
        let status = bench.status().await;
        status.len() == 3 && status.iter().all(|partition| partition["state"] == "stored")
    };
    assert!(wait_until(stored).await, "{:?}\n{}", bench.status().await, daemon.log().join("\n"));
    assert_eq!(unready(&daemon).await, None);
    daemon.wait_for_log("the ledger is written again").await;
    daemon.stop(&bench).await;
    bench.oracle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_find_no_room_say_so_and_are_made_once_there_is_some() {
    let disk = SmallDisk::mount();
    let mut bench = Bench::new(&[Series::campaign("Report test", 2).bytes(100_000)]).await;
    bench.store_in(&disk.path().join("reports"));
    fs::create_dir(disk.path().join("reports")).unwrap();
    bench.sync(0).await;
    let filler = disk.fill();
    let config = bench.config();
    let with_tables = config.replace("\ndestination = \"disk\"\n", "\ndestination = \"disk\"\ntables = \"parquet\"\n");
    assert_ne!(with_tables, config);
    bench.write_config(&with_tables);
    let full = bench.run(&["tables", "rebuild"]).await.expect(1);
    assert!(full.stderr.contains("No space left on device"), "{}", full.stderr);
    fs::remove_file(filler).unwrap();
    bench.run(&["tables", "rebuild"]).await.expect(0);
    assert!(bench.status().await.iter().all(|partition| partition["tables"] == "made"));
}
