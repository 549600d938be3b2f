//! Content: objects that exist already, unverifiable bytes, and their manifests.

use std::{
    fs,
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use flate2::{Compression, write::GzEncoder};
use jiff::SignedDuration;
use moesync::{
    alarm,
    alarm_kind::AlarmKind,
    config::SourceKind,
    outcome::Outcome,
    partition::Settled,
    sync::{self, Selection},
};
use serde_json::Value;
use tokio::net::TcpListener;

use super::only_entry;
use crate::support::{
    Bench, Series,
    oracle::{hash, manifest_key},
};

#[tokio::test(flavor = "multi_thread")]
async fn other_content_at_the_final_key_stays_and_ours_is_a_version() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let (series, date) = bench.due()[0];
    let key = series.key(date);
    fs::create_dir_all(bench.object(&key).parent().unwrap()).unwrap();
    fs::write(bench.object(&key), "foreign content").unwrap();

    let ran = bench.sync(0).await;
    assert_eq!(ran.alarms(), ["other_content"], "{}", ran.stderr);
    assert_eq!(fs::read(bench.object(&key)).unwrap(), b"foreign content");
    let truth = bench.truth(series, date).await;
    let sha256 = hash(&truth);
    let stem = series.file_name(date).replace(".zip", "");
    let version = format!("acme/report-test/_versions/date={date}/{stem}.{}.zip", &sha256[..12]);
    let is_ours = |partition: &Value| {
        (&partition["state"], &partition["key"], &partition["sha256"])
            == (&"stored".into(), &version.clone().into(), &sha256.clone().into())
    };
    assert!(is_ours(&ran.partitions()[0]), "{}", ran.stdout);
    assert!(fs::read(bench.object(&version)).unwrap() == truth);

    let asked = bench.requests();
    bench.sync(0).await;
    fs::remove_dir_all(bench.path("ledger")).unwrap();
    bench.sync(0).await;
    assert_eq!(bench.requests(), asked, "it was downloaded again");
    assert!(is_ours(&bench.status().await[0]));
    assert_eq!(fs::read(bench.object(&key)).unwrap(), b"foreign content");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_object_without_a_manifest_gets_one_without_a_download() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let (series, date) = bench.due()[0];
    let key = series.key(date);
    fs::create_dir_all(bench.object(&key).parent().unwrap()).unwrap();
    fs::write(bench.object(&key), bench.truth(series, date).await).unwrap();
    let ran = bench.sync(0).await;
    assert_eq!(bench.requests(), 0);
    bench.oracle().await;
    let manifest = fs::read(bench.object(&manifest_key(&key))).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&manifest).unwrap()["fetched_at"], Value::Null, "nothing was fetched");
    let partition = &ran.partitions()[0];
    let [stored_at, due_at] = ["stored_at", "due_at"].map(|name| partition[name].as_str().unwrap());
    assert!(stored_at > due_at, "it counts as stored once it has its manifest: {partition}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_ledger_alerts_about_an_object_with_only_a_manifest_unless_refetched() {
    let bench = Bench::new(&[Series::dump(3), Series::campaign("Report test", 3)]).await;
    bench.sync(0).await;
    let keys: Vec<_> = bench.due().into_iter().map(|(series, date)| (series.source, series.key(date))).collect();
    let oldest = |source| keys.iter().find(|(of, _)| *of == source).unwrap().1.as_str();
    let (dump, report) = (oldest(SourceKind::DailyDump), oldest(SourceKind::CampaignReport));
    for key in [dump, report] {
        fs::remove_file(bench.object(key)).unwrap();
    }
    fs::remove_dir_all(bench.path("ledger")).unwrap();
    // From today on, or from the oldest stored dump.
    let config: Vec<_> = bench.config().lines().filter(|line| !line.starts_with("start")).map(str::to_owned).collect();
    bench.write_config(&config.join("\n"));
    let ran = bench.sync(0).await;
    assert_eq!(ran.alarms(), ["ledger"], "{}", ran.stderr);
    assert!(bench.object(report).exists() && !bench.object(dump).exists());
    let ctx = bench.context().await;
    sync::recover(&ctx, &sync::Selection::default()).await.unwrap();
    let message = &ctx.status.incidents()[&AlarmKind::Ledger];
    assert!(message.contains(dump) && !message.contains(report), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_content_than_of_a_gone_object_alerts_also_after_failed_attempts() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    bench.sync(0).await;
    let (series, date) = bench.due()[0];
    let key = series.key(date);
    let manifest = bench.object(&manifest_key(&key));
    let mut described: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    described["sha256"] = "ab".repeat(32).into();
    fs::write(&manifest, described.to_string()).unwrap();
    fs::remove_file(bench.object(&key)).unwrap();
    fs::remove_dir_all(bench.path("ledger")).unwrap();
    bench.fault("status=503");
    bench.sync(1).await;
    bench.vendor.clear_faults();
    let ran = bench.sync(0).await;
    assert!(ran.alarms().contains(&"other_content".to_owned()), "{}", ran.stderr);
    assert_eq!(bench.kept_in("_quarantine").len(), 1, "the manifest of what is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn unverifiable_bytes_are_quarantined_once_they_came_twice() {
    let bench = Bench::at("2026-11-21T12:00:00Z", &[Series::campaign("Report test", 1)]).await;
    let (series, date) = bench.due()[0];
    bench.fault("bit-flip");
    let ctx = bench.context().await;
    let summary = sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
    assert!(!summary.is_complete());
    let [entry] = summary.entries.as_slice() else { panic!("{:?}", summary.entries) };
    assert_eq!((entry.settled, entry.outcome), (Settled::Open, Some(Outcome::Corrupt)));
    let [kept] = bench.kept_in("_quarantine").try_into().unwrap();
    let bytes = fs::read(bench.object(&kept)).unwrap();
    assert_eq!(bytes.len(), bench.truth(series, date).await.len(), "not all of it");
    assert!(kept.contains(&hash(&bytes)[..12]), "{kept}");
    assert!(bench.stored_files().is_empty(), "{:?}", bench.stored_files().keys());
}

/// A vendor that sends this partition in a transfer gzip, the first `damaged` times a damaged one.
async fn packed(bench: &Bench, damaged: usize) -> Vec<u8> {
    let (series, date) = bench.due()[0];
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&bench.truth(series, date).await).unwrap();
    let (whole, asked) = (encoder.finish().unwrap(), AtomicUsize::new(0));
    let followed = [&whole[..], b"zz"].concat();
    let evidence = followed.clone();
    let answer = move || {
        let is_damaged = asked.fetch_add(1, Ordering::Relaxed) < damaged;
        let body = if is_damaged { followed.clone() } else { whole.clone() };
        let headers = [("content-encoding", "gzip"), ("date", "Sat, 21 Nov 2026 12:00:00 GMT")];
        std::future::ready((headers, body))
    };
    let answer = Arc::new(answer);
    let app = axum::Router::new().fallback(move || answer());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    crate::support::spawn(async move { axum::serve(listener, app).await });
    bench.write_config(&bench.config().replace(bench.vendor.url().as_str().trim_end_matches('/'), &url));
    evidence
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_gzip_around_the_archive_is_kept_and_a_whole_one_is_removed() {
    // For all tries of a pass; until the third attempt, which reads the bytes without decoding; and once.
    for (damaged, attempts, kept_after) in [(6, 6, 1), (2, 4, 0), (1, 2, 0)] {
        let bench = Bench::at("2026-11-21T12:00:00Z", &[Series::campaign("Report test", 1)]).await;
        let (series, date) = bench.due()[0];
        let evidence = packed(&bench, damaged).await;
        let ctx = bench.context().await;
        let first = sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
        assert_eq!((first.is_complete(), first.entries[0].attempts), (damaged < 6, attempts), "{:#?}", first.entries);
        let kept = bench.kept_in("_quarantine");
        assert_eq!(kept.len(), kept_after, "{kept:?}");
        assert!(kept.iter().all(|key| fs::read(bench.object(key)).unwrap() == evidence), "not what came");
        sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
        assert!(fs::read(bench.object(&series.key(date))).unwrap() == bench.truth(series, date).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsupported_format_is_kept_immediately_and_retried_daily() {
    let bench = Bench::at("2026-11-21T12:00:00Z", &[Series::campaign("Report test", 1)]).await;
    let (series, date) = bench.due()[0];
    let rar = [b"Rar!\x1a\x07\x01\x00".as_slice(), &vec![7; 300_000]].concat();
    let body = bench.answer_with(rar.clone()).await;
    let ctx = bench.context().await;
    for attempts in [1, 2] {
        sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
        let entry = only_entry(&bench, &ctx).await;
        assert_eq!((entry.settled, entry.outcome), (Settled::Open, Some(Outcome::Unsupported)));
        assert_eq!(entry.attempts, attempts);
        assert_eq!(entry.next_attempt_at.unwrap(), bench.clock.read() + SignedDuration::from_hours(24));
        let message = entry.message.as_deref().unwrap();
        assert!(message.contains("rar") && message.contains("choose zip in the report's settings"), "{message}");
        assert_eq!(alarm::of(&entry, &ctx.config.alarms, bench.clock.read()), Some(AlarmKind::Unsupported));
        assert!(alarm::begins(&entry) == (attempts == 1), "one alert");
        // By the second time, the next date is due as well.
        let kept = bench.kept_in("_quarantine");
        let [kept] = kept.iter().filter(|key| key.contains(&date.to_string())).collect::<Vec<_>>().try_into().unwrap();
        assert!(fs::read(bench.object(kept)).unwrap() == rar, "not whole");
        assert!(message.contains(kept.as_str()), "{message}");
        bench.clock.advance(SignedDuration::from_hours(25));
    }
    *body.lock().unwrap() = bench.truth(series, date).await;
    let summary = sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
    assert!(summary.is_complete(), "{:?}", summary.entries);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tar_is_stored_and_its_manifest_has_format_entries_and_warnings() {
    let bench = Bench::at("2026-11-21T12:00:00Z", &[Series::campaign("Report test", 1)]).await;
    let (series, date) = bench.due()[0];
    let script = r#"
import io, sys, tarfile
with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive:
    for name in ["push.csv", "../evil.csv"]:
        entry = tarfile.TarInfo(name)
        entry.size = 9
        archive.addfile(entry, io.BytesIO(b"day,sent\n"))
"#;
    let made = std::process::Command::new("python3").args(["-c", script]).output().unwrap();
    let _body = bench.answer_with(made.stdout.clone()).await;
    let ctx = bench.context().await;
    sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
    let key = series.key(date);
    assert!(fs::read(bench.object(&key)).unwrap() == made.stdout);
    let manifest: Value = serde_json::from_slice(&fs::read(bench.object(&manifest_key(&key))).unwrap()).unwrap();
    assert_eq!(manifest["format"], "tar");
    assert_eq!(manifest["entries"][0], serde_json::json!({ "name": "push.csv", "size": 9, "crc32": null }));
    let warnings = manifest["warnings"].as_array().unwrap();
    assert!(warnings[0].as_str().unwrap().contains("\"..\" component"), "{warnings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_binary_quarantines_unverifiable_bytes() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    bench.fault("bit-flip,times=2");
    // The third answer is intact, after the evidence was kept.
    let ran = bench.sync(0).await;
    assert_eq!(ran.alarms(), ["corrupt"], "{}", ran.stderr);
    assert_eq!(bench.kept_in("_quarantine").len(), 1);
    bench.oracle().await;
}
