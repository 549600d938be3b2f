//! Sleep, restarts, reloads, renames and second processes change no result.

use std::{fs, path::PathBuf};

use jiff::SignedDuration;
use moesync::{
    emulator::{Campaigns, DeliveryType},
    ledger,
    outcome::{Outcome, RecordedAttempt},
    partition::Settled,
    report::{PartitionId, ReportId},
    sync::{self, Selection},
};
use tokio::process::Command;

use crate::support::{Bench, Daemon, Series, files, wait_until};

const NOW: &str = "2026-11-21T12:00:00Z";

/// The attempts at the oldest partition, in the ledger.
async fn attempts(bench: &Bench, ledger: &str) -> Vec<RecordedAttempt> {
    let (series, date) = bench.due()[0];
    let id = PartitionId { report: ReportId::new("acme", &series.id), date };
    ledger::open_read_only(&bench.path(ledger)).await.unwrap().unwrap().attempts(&id).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_6_days_23_hours_asleep_all_is_stored_nearest_to_expiry_first() {
    let campaigns = Campaigns { count: 5, delivery_types: vec![DeliveryType::EventTriggered], ..Campaigns::default() };
    let series = [Series::dump(1), Series::campaign("Report test", 1)];
    let bench = Bench::at_with_campaigns(NOW, &series, campaigns).await;
    bench.write_config(&(bench.config() + "\n[limits]\nconcurrency = 1\n"));
    let pass = async || {
        let ctx = bench.context().await;
        sync::recover(&ctx, &sync::Selection::default()).await.unwrap();
        let summary = sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
        ctx.ledger.close().await;
        assert!(summary.is_complete(), "{:#?}", summary.entries);
        summary.entries
    };
    pass().await;
    let asked = bench.requests();

    // The next archive is generated in 18 hours; at the end of the sleep, an hour is left.
    bench.clock.advance(SignedDuration::from_hours(18 + 6 * 24 + 23));
    // A listing of two hours ago expires in 22: before all archives but the oldest, though it is the newest of all.
    let listing = "\n[[reports]]\nworkspace = \"acme\"\ndestination = \"disk\"\nsource = \"campaigns\"\n\
                   schedule = { every = \"day\", at = \"03:00\" }\nbuffer = \"5m\"\n";
    bench.write_config(&(bench.config() + listing + "\n[limits]\nconcurrency = 1\n"));
    let entries = pass().await;
    let waking = bench.clock.read();

    let mut fetched: Vec<String> = bench.vendor.requests()[asked..]
        .iter()
        .map(|request| match request.path.rsplit('/').next().unwrap() {
            name if name.ends_with(".zip") => name.trim_end_matches(".zip").to_owned(),
            _ => "listing".to_owned(),
        })
        .collect();
    // A listing takes several requests.
    fetched.dedup();
    let day = |number: u32| format!("202611{number}");
    let mut expected = vec![format!("Report_test_{}", day(22)), "listing".to_owned()];
    expected.extend((23..=28).map(|number| format!("Report_test_{}", day(number))));
    expected.extend((22..=28).map(day));
    assert_eq!(fetched, expected);
    assert_eq!(entries.len(), 15);
    for entry in entries {
        assert_eq!(entry.settled, Settled::Stored);
        assert!(entry.partition.expires_at.is_none_or(|expiry| waking < expiry), "{entry:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_report_keeps_its_objects_and_continues_under_the_new_name() {
    let old = Series::campaign("Report test", 2);
    let new = Series { id: old.id.clone(), ..Series::campaign("Renamed", 2) };
    let bench = Bench::at(NOW, &[old.clone(), new.clone()]).await;
    let both = bench.config();
    let pass = async || {
        let ctx = bench.context().await;
        sync::recover(&ctx, &sync::Selection::default()).await.unwrap();
        let summary = sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
        let entries = ctx.ledger.entries().await.unwrap();
        let report = ctx.config.reports[0].clone();
        let mut damages = Vec::new();
        for entry in &entries {
            damages.push(sync::inspect(&ctx.reports[&report.id].destination, entry.clone()).await.damage);
        }
        ctx.ledger.close().await;
        assert!(summary.is_complete(), "{:#?}", summary.entries);
        assert!(damages.iter().all(Option::is_none), "{damages:?}");
        entries.into_iter().map(|entry| entry.object.unwrap().key).collect::<Vec<_>>()
    };
    let yesterday = bench.newest.yesterday().unwrap();
    let before = [old.key(yesterday), old.key(bench.newest)];
    bench.write_config(&both.replace(&bench.report(&new), ""));
    assert_eq!(pass().await, before);

    bench.write_config(&both.replace(&bench.report(&old), ""));
    assert_eq!(pass().await, before, "renamed, with its ledger");
    fs::remove_dir_all(bench.path("ledger")).unwrap();
    assert_eq!(pass().await, before, "renamed, and known by its manifests alone");
    assert_eq!(bench.requests(), 2);

    bench.clock.advance(SignedDuration::from_hours(24));
    let after = [before.to_vec(), vec![new.key(bench.newest.tomorrow().unwrap())]].concat();
    assert_eq!(pass().await, after);
    assert_eq!(bench.requests(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tables_of_a_renamed_report_keep_their_names_when_made_again() {
    let old = Series::campaign("Report test", 2);
    let new = Series { id: old.id.clone(), ..Series::campaign("Renamed", 2) };
    let bench = Bench::new(&[old.clone(), new.clone()]).await;
    let both = bench.config().replace("\ndestination = ", "\ntables = \"parquet\"\ndestination = ");
    let [of_old, of_new] = [&old, &new]
        .map(|series| bench.report(series).replace("\ndestination = ", "\ntables = \"parquet\"\ndestination = "));
    bench.write_config(&both.replace(&of_new, ""));
    bench.sync(0).await;
    let tables = bench.kept_in("tables");
    assert!(!tables.is_empty());
    bench.write_config(&both.replace(&of_old, ""));
    bench.run(&["tables", "rebuild"]).await.expect(0);
    assert_eq!(bench.kept_in("tables"), tables);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_in_progress_at_a_reload_ends_at_its_old_destination() {
    let both = [Series::campaign("Report test", 1), Series::dump(1)];
    let bench = Bench::new(&both).await;
    let whole = bench.config();
    bench.write_config(&whole.replace(&bench.report(&both[1]), ""));
    bench.fault("slow=2000,times=1");
    let daemon = Daemon::start(&bench).await;
    assert!(wait_until(async || bench.requests() > 0).await);
    // All reports get another destination, and one report is added.
    let elsewhere = bench.path("elsewhere");
    let (before, after) = (bench.path("reports"), elsewhere.display().to_string());
    bench.write_config(&whole.replace(&format!("file://{}", before.display()), &format!("file://{after}")));
    daemon.signal("HUP").await;
    let (dump, report) = (both[1].key(bench.newest), both[0].key(bench.newest));
    assert!(wait_until(async || elsewhere.join(&dump).exists()).await, "{}", daemon.log().join("\n"));
    assert!(!bench.object(&report).exists(), "it had ended before the reload");
    let stored = async || bench.status().await.iter().all(|partition| partition["state"] == "stored");
    assert!(wait_until(stored).await, "{}", daemon.log().join("\n"));
    daemon.stop(&bench).await;
    assert_eq!(fs::read(bench.object(&report)).unwrap(), bench.truth(&both[0], bench.newest).await);
    assert!(!elsewhere.join(&report).exists());
    assert_eq!((bench.requests(), attempts(&bench, "ledger/moesync.db").await.len()), (2, 1));
    assert_eq!(bench.kept_in("_staging"), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn backoff_continues_after_a_restart() {
    let both = [Series::campaign("Report test", 1), Series::dump(1)];
    let bench = Bench::new(&both).await;
    bench.write_config(&bench.config().replace(&bench.report(&both[1]), ""));
    // The next request is a minute away.
    bench.fault("not-yet,path=campaign_reports");
    let daemon = Daemon::start(&bench).await;
    let is_recorded = async || bench.status().await.iter().any(|partition| partition["outcome"] == "not_published");
    assert!(wait_until(is_recorded).await);
    daemon.stop(&bench).await;
    assert_eq!(bench.requests(), 1);

    // This one is fetched after those that expire, which shows that it has planned.
    bench.write_config(&bench.config());
    let daemon = Daemon::start(&bench).await;
    let is_stored = async || bench.status().await.iter().any(|partition| partition["state"] == "stored");
    assert!(wait_until(is_stored).await, "{}", daemon.log().join("\n"));
    daemon.stop(&bench).await;
    let asked = bench.vendor.requests().iter().filter(|request| request.path.contains("campaign_reports")).count();
    assert_eq!(asked, 1, "the restart has forgotten the backoff");
}

/// The files by which processes show that they are alive.
fn holders(bench: &Bench) -> Vec<PathBuf> {
    files(&bench.path("ledger/moesync.db.holders"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_wakes_after_it_lost_its_claim_records_nothing() {
    let bench = Bench::new(&[Series::campaign("Report test", 1).bytes(1_000_000)]).await;
    bench.fault("slow=500000,times=1");
    let late = Daemon::spawn(bench.command(&["-vv", "sync"]));
    let is_fetching = async || !bench.kept_in("_staging").is_empty();
    assert!(wait_until(is_fetching).await, "{}", late.log().join("\n"));
    late.signal("STOP").await;
    // As on a file system that loses a lock: the process is alive, and others see no lock.
    for holder in holders(&bench) {
        fs::remove_file(holder).unwrap();
    }
    bench.sync(0).await;
    let recorded = attempts(&bench, "ledger/moesync.db").await;
    assert_eq!((recorded.len(), recorded[0].outcome, bench.requests()), (1, Outcome::Stored, 2));

    late.signal("CONT").await;
    late.end(&bench).await;
    assert_eq!(attempts(&bench, "ledger/moesync.db").await, recorded, "the late writer was not fenced");
    bench.check_stored_files().await;
    bench.sync(0).await;
    bench.oracle().await;
    assert_eq!(bench.requests(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_of_another_ledger_in_progress_is_not_swept() {
    let bench = Bench::new(&[Series::campaign("Report test", 1).bytes(1_000_000)]).await;
    bench.fault("slow=400000,times=1");
    let other = |mut command: Command| {
        let url = format!("sqlite://{}", bench.path("other/moesync.db").display());
        command.env("MOESYNC__LEDGER__URL", url);
        command
    };
    let slow = Daemon::spawn(other(bench.command(&["-vv", "sync"])));
    assert!(wait_until(async || !bench.kept_in("_staging").is_empty()).await, "{}", slow.log().join("\n"));
    let staged = bench.kept_in("_staging");
    bench.sync(0).await;
    assert!(!slow.has_ended(), "the upload was not under way any more");
    assert_eq!(bench.kept_in("_staging"), staged, "it was swept");
    assert_eq!(slow.end(&bench).await.code(), Some(0));
    for ledger in ["ledger/moesync.db", "other/moesync.db"] {
        let outcomes: Vec<_> = attempts(&bench, ledger).await.iter().map(|attempt| attempt.outcome).collect();
        assert_eq!(outcomes, [Outcome::Stored], "{ledger}");
    }
    assert_eq!(bench.requests(), 2);
    bench.oracle().await;
}
