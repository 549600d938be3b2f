//! One pass of the real binary: faults of the vendor, kills at any moment, disks that fail.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::PathBuf,
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
    emulator::Fault,
    ledger,
    outcome::Outcome,
    partition::Settled,
    report::{PartitionId, ReportId},
    sync::{self, Selection},
    web::Overview,
};
use rand::{RngExt as _, SeedableRng as _, rngs::Xoshiro256PlusPlus};
use serde_json::Value;
use tokio::{net::TcpListener, process::Command};

use crate::support::{
    Bench, Daemon, PATIENCE, Ran, Series,
    oracle::{hash, manifest_key},
    small_disk::SmallDisk,
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
async fn trace_logs_of_a_failing_run_with_both_sources_contain_no_secret() {
    let bench = Bench::new(&[Series::campaign("Report test", 2), Series::dump(2)]).await;
    bench.fault("unauthorized,path=campaign_reports");
    bench.fault("redirect=storage,path=dailyCampaignReportDump,times=1");
    bench.fault("status=404,path=dailyCampaignReportDump");
    bench.run(&["-vv", "sync"]).await.expect(1);
    // The same with a filter that names every library.
    let mut traced = bench.command(&["sync"]);
    traced.env("RUST_LOG", "trace,object_store=trace,h2=trace,hyper=trace,hyper_util=trace,reqwest=trace,sqlx=trace");
    let logged = bench.finish(traced).await.expect(1).stderr;
    assert!(logged.contains("\"TRACE\"") && !logged.contains("\"target\":\"object_store"), "{logged}");
    bench.check_secrets();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_arguments_that_other_users_see_hold_no_secret() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    bench.fault("stall");
    let syncing = Daemon::spawn(bench.command(&["-vv", "sync"]));
    assert!(wait_until(async || bench.requests() > 0).await);
    bench.note_printed(&fs::read_to_string(format!("/proc/{}/cmdline", syncing.pid())).unwrap());
    syncing.kill(&bench).await;
    bench.check_secrets();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_200_times_it_leaves_no_wrong_object_and_no_stored_row_without_one() {
    // Four chains run concurrently.
    futures::future::join_all((0..4).map(fifty_deaths)).await;
}

/// Each run continues from what the previous one left.
async fn fifty_deaths(seed: u64) {
    let bench = Bench::new(&[Series::campaign("Report test", 5), Series::dump(30)]).await;
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    for death in 0..50 {
        let objects = || bench.stored_files().keys().filter(|key| !key.ends_with(".manifest.json")).count();
        // Start again once nothing is left to download.
        if objects() == bench.due().len() {
            fs::remove_dir_all(bench.path("reports")).unwrap();
            fs::remove_dir_all(bench.path("ledger")).unwrap();
        }
        let (stored_files, requests) = (bench.stored_files().len(), bench.requests());
        let left = bench.due().len() - objects();
        bench.vendor.clear_faults();
        let dies_downloading = death % 2 == 0;
        if dies_downloading {
            bench.fault(&format!("stall,times=1,skip={}", random.random_range(0..left.min(8))));
        }
        // A download takes about a tenth of a second, so that several are in progress.
        bench.fault("slow=40000");
        let syncing = Daemon::spawn(bench.command(&["-vv", "sync"]));
        let status = if dies_downloading {
            let stalls = || bench.vendor.requests()[requests..].iter().any(|request| request.fault == Some("stall"));
            assert!(wait_until(async || stalls()).await);
            let status = syncing.kill(&bench).await;
            assert_eq!(status.code(), None, "it ended during a download");
            status
        } else {
            let enough = stored_files + random.random_range(1..8);
            assert!(wait_until(async || bench.stored_files().len() >= enough || syncing.has_ended()).await);
            syncing.kill(&bench).await
        };
        bench.check_stored_files().await;
        assert!(
            !status.success() || bench.stored_files().len() == 2 * bench.due().len(),
            "it ended before all was stored"
        );
    }
    bench.vendor.clear_faults();
    bench.sync(0).await;
    bench.oracle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_each_fsync_rename_and_link_it_harms_nothing() {
    need_strace().await;
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    for step in ["fsync", "rename", "linkat"] {
        let mut deaths = 0;
        loop {
            for folder in ["reports", "ledger"] {
                let _ = fs::remove_dir_all(bench.path(folder));
            }
            let (trace, inject) =
                (format!("trace={step}"), format!("inject={step}:signal=SIGKILL:when={}", deaths + 1));
            let arguments = ["-f", "-o", "/dev/null", "-e", &trace, "-e", &inject];
            let ran = bench.finish(bench.command_under("strace", &arguments, &["-vv", "sync"])).await;
            bench.check_stored_files().await;
            bench.sync(0).await;
            bench.check_stored_files().await;
            assert_eq!(bench.kept_in("_staging"), [""; 0], "leftovers of death {deaths} at {step}");
            if ran.code == Some(0) {
                break;
            }
            deaths += 1;
            assert!(deaths < 100, "it never survives {step}");
        }
        bench.oracle().await;
        assert!(deaths > 0, "there is no {step} to be killed at");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_copying_to_another_device_it_leaves_no_partial_object() {
    need_strace().await;
    let bench = Bench::new(&[Series::campaign("Report test", 1).bytes(1024 * 1024)]).await;
    fs::create_dir_all(bench.path("reports/_staging")).unwrap();
    let _device = SmallDisk::mount_at(bench.path("reports/_staging"), "32m");
    let mut left_behind = 0;
    for step in ["linkat", "copy_file_range", "rename"] {
        let mut deaths = 0;
        loop {
            let _ = fs::remove_dir_all(bench.path("reports/acme"));
            let _ = fs::remove_dir_all(bench.path("ledger"));
            let (trace, inject) =
                (format!("trace={step}"), format!("inject={step}:signal=SIGKILL:when={}", deaths + 1));
            let arguments = ["-f", "-o", "/dev/null", "-e", &trace, "-e", &inject];
            let ran = bench.finish(bench.command_under("strace", &arguments, &["sync"])).await;
            bench.check_stored_files().await;
            left_behind += hidden(&bench);
            bench.sync(0).await;
            bench.check_stored_files().await;
            assert_eq!(bench.kept_in("_staging"), [""; 0], "leftovers of death {deaths} at {step}");
            assert_eq!(hidden(&bench), 0, "a copy of death {deaths} at {step}");
            if ran.code == Some(0) {
                break;
            }
            deaths += 1;
            assert!(deaths < 100, "it never survives {step}");
        }
        bench.oracle().await;
    }
    assert!(left_behind > 0, "no death fell into a copy");
}

/// The number of copies beside their targets.
fn hidden(bench: &Bench) -> usize {
    let names = bench.kept_in("acme");
    names.iter().filter(|name| name.contains("/.moesync-")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_at_fsync_is_never_a_success() {
    need_strace().await;
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let (series, date) = bench.due()[0];
    // Only the destination's disk fails here: a ledger that other processes have open is not synced.
    let _held = ledger::open(&bench.ledger(), "other", bench.clock.read()).await.unwrap();
    bench.fault("status=404,times=1");
    bench.sync(1).await;
    let arguments = ["-f", "-o", "/dev/null", "-e", "trace=fsync", "-e", "inject=fsync:error=EIO"];
    let failing = Daemon::spawn(bench.command_under("strace", &arguments, &["sync"]));
    // Twice, because a repeated fsync may succeed without effect.
    let failed_twice = async || {
        let status = &bench.status().await[0];
        status["outcome"] == "store_failed" && status["attempts"].as_u64() >= Some(3)
    };
    assert!(wait_until(failed_twice).await, "{:?} {}", bench.status().await, failing.log().join("\n"));
    // Killed, not strace, which would let it continue with a working disk.
    let children = format!("/proc/{0}/task/{0}/children", failing.pid());
    let traced = fs::read_to_string(children).unwrap();
    assert!(Command::new("kill").args(["-KILL", traced.trim()]).status().await.unwrap().success());
    failing.end(&bench).await;
    assert!(!bench.object(&series.key(date)).exists());
    assert_eq!(bench.status().await[0]["state"], "pending");

    bench.sync(0).await;
    bench.oracle().await;
}

/// The arguments with which `strace` fails each call of `syscalls`, restricted to `paths` if there are any.
fn failing(syscalls: &str, error: &str, paths: &[PathBuf]) -> Vec<String> {
    let (trace, inject) = (format!("trace={syscalls}"), format!("inject={syscalls}:error={error}"));
    let mut arguments = ["-f", "-o", "/dev/null", "-e", &trace, "-e", &inject].map(str::to_owned).to_vec();
    for path in paths {
        arguments.extend(["-P".to_owned(), path.display().to_string()]);
    }
    arguments
}

async fn run_failing(bench: &Bench, strace: &[String], arguments: &[&str]) -> Ran {
    let strace: Vec<_> = strace.iter().map(String::as_str).collect();
    bench.finish(bench.command_under("strace", &strace, arguments)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_without_hard_links_serves_ledger_and_destination() {
    need_strace().await;
    for error in ["EPERM", "EOPNOTSUPP", "ENOSYS", "EXDEV", "EIO", "EMLINK"] {
        let bench = Bench::new(&[Series::campaign("Report test", 2)]).await;
        let strace = failing("linkat", error, &[]);
        let ran = run_failing(&bench, &strace, &["sync"]).await;
        assert_eq!(ran.code, Some(0), "{error}: {}", ran.stderr);
        assert_eq!(bench.requests(), 2, "{error}");
        bench.oracle().await;
        let checked = run_failing(&bench, &strace, &["check", "--online"]).await.expect(0).stdout;
        assert!(
            checked.contains("cannot link a file to its final name") && !checked.contains("refuses to overwrite"),
            "{error}: {checked}"
        );
        assert_eq!(bench.kept_in("_staging"), [""; 0], "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_that_cannot_fsync_folders_serves_with_one_warning() {
    need_strace().await;
    for error in ["EINVAL", "EOPNOTSUPP", "ENOSYS"] {
        let bench = Bench::new(&[Series::campaign("Report test", 2)]).await;
        let strace = failing("fsync", error, &folders(&bench));
        let ran = run_failing(&bench, &strace, &["sync"]).await;
        assert_eq!(ran.code, Some(0), "{error}: {}", ran.stderr);
        assert_eq!(ran.stderr.matches("cannot force the names of new files to disk").count(), 1, "{}", ran.stderr);
        assert!(ran.stderr.contains("`fsync = false`"), "{}", ran.stderr);
        bench.oracle().await;
        let checked = run_failing(&bench, &strace, &["check", "--online"]).await.expect(0).stdout;
        assert!(checked.contains("a power cut may lose the newest (`fsync = false` accepts that)"), "{checked}");
    }
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let checked =
        run_failing(&bench, &failing("fsync", "EIO", &folders(&bench)), &["check", "--online"]).await.expect(1);
    assert!(checked.stdout.contains("Input/output error"), "{}", checked.stdout);
}

/// All folders of the destination that hold objects, and their parents.
fn folders(bench: &Bench) -> Vec<PathBuf> {
    let mut folders = vec![bench.folder.path().to_owned(), bench.path("reports"), bench.object("acme")];
    for (series, date) in bench.due() {
        let date = bench.object(&series.key(date)).parent().unwrap().to_owned();
        folders.extend([date.parent().unwrap().to_owned(), date]);
    }
    folders
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_credentials_for_a_store_are_named() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let folder = format!("file://{}/reports", bench.folder.path().display());
    bench.write_config(&bench.config().replace(&folder, "s3://reports"));
    // Without a network, so that no metadata server of a cloud answers.
    let mut command = bench.command_under("unshare", &["--net"], &["check", "--online"]);
    command.env("AWS_PROFILE", "reports").env("HOME", bench.folder.path());
    let checked = bench.finish(command).await.expect(1).stdout;
    let line = checked.lines().find(|line| line.contains("destination disk")).unwrap();
    assert!(
        line.contains("no credentials") && line.contains("AWS_ACCESS_KEY_ID") && line.contains("~/.aws are not read"),
        "{line}"
    );
}

async fn need_strace() {
    let found = Command::new("strace").arg("-V").output().await;
    assert!(found.is_ok_and(|output| output.status.success()), "strace is missing: apt-get install strace");
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
    assert_eq!(partition["stored_at"], partition["due_at"]);
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
    sync::recover(&ctx).await.unwrap();
    let message = &ctx.status.incidents()[&AlarmKind::Ledger];
    assert!(message.contains(dump) && !message.contains(report), "{message}");
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

/// The entry of the newest partition that the first series had at the start.
async fn only_entry(bench: &Bench, ctx: &sync::Context) -> moesync::partition::Entry {
    let id = PartitionId { report: ReportId::new("acme", &bench.series[0].id), date: bench.newest };
    ctx.ledger.entry_of(&id).await.unwrap().unwrap()
}

async fn once(ctx: &Arc<sync::Context>) -> sync::Summary {
    sync::once(ctx, &Selection::default(), std::future::pending()).await.unwrap()
}

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
    let dangers = Overview::gather(&ctx).await.unwrap().dangers;
    assert!(dangers.iter().any(|danger| danger.alarm == "expiring"), "{dangers:?}");
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
