//! Unverifiable answers in quarantine, warnings in manifests, and waits and refusals near the expiry.

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    io::{Cursor, Write as _},
};

use bytes::Bytes;
use jiff::{SignedDuration, tz::TimeZone};
use moesync::{
    emulator::Fault,
    outcome::Outcome,
    partition::{Entry, Settled},
    report::{PartitionId, ReportId},
    sync::{self, Selection},
};
use serde_json::Value;
use tokio::net::TcpListener;
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::support::{Bench, Daemon, Series, TestClock, files, oracle::hash, oracle::manifest_key, wait_until};

const NOW: &str = "2026-11-21T12:00:00Z";

/// A bench with one campaign report, whose oldest partition expires after this time.
async fn with_left(left: SignedDuration) -> Bench {
    let bench = Bench::at(NOW, &[Series::campaign("Report test", 1)]).await;
    // It was generated six hours ago.
    bench.clock.advance(SignedDuration::from_hours(7 * 24 - 6) - left);
    bench
}

/// A pass over the oldest partition only.
async fn pass(bench: &Bench) -> Entry {
    let (series, date) = bench.due()[0];
    let id = PartitionId { report: ReportId::new("acme", &series.id), date };
    let selection = Selection { partitions: Some(HashSet::from([id.clone()])), ..Selection::default() };
    let ctx = bench.context().await;
    sync::once(&ctx, &selection, std::future::pending()).await.unwrap();
    let entry = ctx.ledger.entry_of(&id).await.unwrap().unwrap();
    ctx.ledger.close().await;
    entry
}

/// A vendor that answers every request with these bytes.
async fn vendor_of(bench: &Bench, body: Bytes) {
    let answer = async |clock: TestClock, body: Bytes| {
        let date = clock.read().to_zoned(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        ([("date", date)], body)
    };
    let clock = bench.clock.clone();
    let app = axum::Router::new().fallback(move || answer(clock.clone(), body.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    crate::support::spawn(async move { axum::serve(listener, app).await });
    bench.write_config(&bench.config().replace(bench.vendor.url().as_str().trim_end_matches('/'), &url));
}

#[tokio::test(flavor = "multi_thread")]
async fn unverifiable_bytes_are_kept_immediately_only_in_the_last_24_hours() {
    for (left, kept) in [(30, 0), (18, 1)] {
        let bench = with_left(SignedDuration::from_hours(left)).await;
        let (series, date) = bench.due()[0];
        bench.fault_at(&series.file_name(date), Fault::BitFlip { offset: None }, 1);
        let entry = pass(&bench).await;
        assert_eq!((entry.settled, entry.attempts), (Settled::Stored, 2), "{left} h left");
        let found = bench.kept_in("_quarantine");
        assert_eq!(found.len(), kept, "{left} h left: {found:?}");
        let truth = bench.truth(series, date).await;
        for key in found {
            let bytes = fs::read(bench.object(&key)).unwrap();
            assert!(bytes.len() == truth.len() && bytes != truth, "`{key}` is not what came");
            assert!(key.contains(&hash(&bytes)[..12]), "{key}");
        }
        assert!(fs::read(bench.object(&series.key(date))).unwrap() == truth);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_the_vendor_asks_for_ends_before_the_expiry() {
    let bench = with_left(SignedDuration::from_hours(10)).await;
    bench.fault("rate-limited=86400,times=1");
    let entry = pass(&bench).await;
    assert_eq!((entry.settled, entry.outcome), (Settled::Open, Some(Outcome::RateLimited)));
    assert_eq!(bench.requests(), 1);
    bench.clock.advance(SignedDuration::from_hours(9));
    let entry = pass(&bench).await;
    assert_eq!(entry.settled, Settled::Stored, "an hour before its expiry it still waits");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_json_error_and_an_empty_body_are_corrupt_and_kept_where_there_is_something() {
    for (fault, kept) in [("json-error", 1), ("html", 1), ("empty", 0)] {
        let bench = Bench::at(NOW, &[Series::campaign("Report test", 1)]).await;
        bench.fault(fault);
        let entry = pass(&bench).await;
        assert_eq!((entry.settled, entry.outcome), (Settled::Open, Some(Outcome::Corrupt)), "{fault}");
        assert!(entry.seen && entry.attempts > 1, "{fault}");
        assert!(bench.stored_files().is_empty(), "{fault}: {:?}", bench.stored_files().keys());
        let found = bench.kept_in("_quarantine");
        assert_eq!(found.len(), kept, "{fault}: {found:?}");
        assert_eq!(bench.kept_in("_staging"), [""; 0], "{fault}");

        bench.vendor.clear_faults();
        assert_eq!(pass(&bench).await.settled, Settled::Stored, "{fault}");
        let (series, date) = bench.due()[0];
        assert!(fs::read(bench.object(&series.key(date))).unwrap() == bench.truth(series, date).await);
    }
}

/// A zip with these entries, which may have one name of a length twice: `?` stands for `a`.
fn zip(entries: &[(&str, &[u8])]) -> Bytes {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in entries {
        archive.start_file(*name, SimpleFileOptions::default()).unwrap();
        archive.write_all(content).unwrap();
    }
    let mut bytes = archive.finish().unwrap().into_inner();
    bytes.iter_mut().filter(|byte| **byte == b'?').for_each(|byte| *byte = b'a');
    bytes.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_leave_their_folder_are_warnings_in_the_manifest() {
    let bench = Bench::at(NOW, &[Series::campaign("Report test", 1)]).await;
    let (series, date) = bench.due()[0];
    let archive = zip(&[("../x", b"1"), ("/etc/x", b"1"), ("a.csv", b"1"), ("?.csv", b"1")]);
    vendor_of(&bench, archive.clone()).await;
    assert_eq!(pass(&bench).await.settled, Settled::Stored);
    let key = series.key(date);
    assert!(fs::read(bench.object(&key)).unwrap() == archive);
    let manifest: Value = serde_json::from_slice(&fs::read(bench.object(&manifest_key(&key))).unwrap()).unwrap();
    let names: Vec<_> = manifest["entries"].as_array().unwrap().iter().map(|entry| entry["name"].clone()).collect();
    assert_eq!(names, ["../x", "/etc/x", "a.csv", "a.csv"]);
    let warnings = manifest["warnings"].as_array().unwrap();
    for (entry, reason) in [("../x", "\"..\" component"), ("/etc/x", "absolute"), ("a.csv", "same name")] {
        let is_there = |warning: &Value| {
            let warning = warning.as_str().unwrap();
            warning.contains(entry) && warning.contains(reason)
        };
        assert!(warnings.iter().any(is_there), "no warning about {entry}: {warnings:?}");
    }
    let stored_files: BTreeSet<_> = bench.stored_files().into_keys().collect();
    assert_eq!(stored_files, BTreeSet::from([manifest_key(&key), key]));
    assert!(!files(bench.folder.path()).iter().any(|path| path.ends_with("x")), "a name became a path");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zip_bomb_is_quarantined_whole_within_bounded_memory() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let bomb = zip(&[("report.csv", &vec![0; 512 * 1024 * 1024])]);
    vendor_of(&bench, bomb.clone()).await;
    let daemon = Daemon::start(&bench).await;
    assert!(wait_until(async || !bench.kept_in("_quarantine").is_empty()).await, "{}", daemon.log().join("\n"));
    let corrupt = async || daemon.alarms().contains(&"corrupt".to_owned());
    assert!(wait_until(corrupt).await, "{}", daemon.log().join("\n"));
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim();
    let peak: u64 = peak.strip_suffix(" kB").unwrap().parse().unwrap();
    daemon.stop(&bench).await;

    assert!(peak < 128 * 1024, "{peak} kB for an archive that inflates to 512 MiB");
    assert!(bench.stored_files().is_empty());
    let [kept] = bench.kept_in("_quarantine").try_into().unwrap();
    assert!(fs::read(bench.object(&kept)).unwrap() == bomb, "not all of it");
    assert_eq!(bench.status().await[0]["state"], "pending");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_refused_to_the_end_of_every_expiry_never_ends_silently() {
    for (rule, is_lost) in [
        ("not-yet", true),
        ("firewall=400", true),
        ("status=404", true),
        ("status=410", true),
        ("firewall=403", false),
        ("unauthorized", false),
    ] {
        let bench = Bench::at(NOW, &[Series::campaign("Report test", 2), Series::dump(1)]).await;
        bench.fault(rule);
        let ctx = bench.context().await;
        for _ in 0..20 {
            sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
            bench.clock.advance(SignedDuration::from_hours(12));
        }
        let now = bench.clock.read();
        let mut entries = ctx.ledger.entries().await.unwrap();
        assert!(entries.iter().all(|entry| entry.settled != Settled::Absent), "{rule}: {entries:#?}");
        let has_ended = |entry: &Entry| {
            entry
                .partition
                .end(SignedDuration::from_hours(7 * 24))
                .is_some_and(|end| end + SignedDuration::from_hours(24) < now)
        };
        entries.retain(has_ended);
        assert!(entries.len() >= 3, "{rule}: {entries:#?}");
        for entry in entries {
            let alarm = moesync::alarm::of(&entry, &ctx.config.alarms, now);
            assert!(alarm.is_some(), "{rule}: {entry:#?}");
            assert_eq!(entry.settled == Settled::Lost, is_lost, "{rule}: {entry:#?}");
            let message = entry.message.unwrap();
            assert!(message.contains("firewall"), "{rule}: {message}");
        }
        ctx.ledger.close().await;
    }
}
