//! The daemon: concurrent commands, signals, and files that are deleted or changed while it runs.

use std::{fs, sync::Arc, time::Duration};

use jiff::{SignedDuration, ToSpan as _};
use moesync::{ledger, partition::Settled, sync};
use tokio::sync::{mpsc, oneshot};

use crate::support::{Bench, Daemon, Series, ledger_file::FullDisk, wait_until};

/// How long downloads may take to end after SIGTERM, as docs/troubleshooting.md says.
const GRACE: Duration = Duration::from_secs(20);
/// The allowance for a busy machine.
const MARGIN: Duration = Duration::from_secs(15);

/// Whether everything that is due is stored.
async fn all_stored(bench: &Bench) -> bool {
    let stored = bench.status().await.iter().filter(|partition| partition["state"] == "stored").count();
    stored == bench.due().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_status_and_backfill_work_beside_it_and_nothing_is_downloaded_twice() {
    let bench = Bench::new(&[Series::campaign("Report test", 5), Series::dump(10)]).await;
    bench.fault("slow=20000");
    let daemon = Daemon::start(&bench).await;
    let (from, to) = (bench.newest.checked_sub(14.days()).unwrap(), bench.newest.checked_sub(10.days()).unwrap());
    let (from, to) = (from.to_string(), to.to_string());
    let backfill = ["backfill", "--report", "dump", "--from", &from, "--to", &to, "--json"];
    let (synced, backfilled, status) =
        tokio::join!(bench.run(&["sync", "--json"]), bench.run(&backfill), bench.run(&["status", "--json"]));
    let synced = synced.expect(0).partitions();
    assert!(synced.iter().all(|partition| partition["state"] == "stored"));
    let backfilled = backfilled.expect(0).partitions();
    assert_eq!(backfilled.len(), 5);
    assert!(backfilled.iter().all(|partition| partition["state"] == "stored"));
    status.expect(0);
    assert_eq!(bench.requests(), 20);
    assert_eq!(daemon.stop(&bench).await.code(), Some(0));
    bench.sync(0).await;
    assert_eq!(bench.requests(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_ends_within_the_grace_period_is_stored() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    bench.fault("slow=4000");
    let daemon = Daemon::start(&bench).await;
    assert!(wait_until(async || bench.requests() > 0).await);
    assert_eq!(daemon.stop(&bench).await.code(), Some(0));
    bench.vendor.clear_faults();
    assert!(all_stored(&bench).await);
    bench.oracle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_never_ends_is_aborted_after_the_grace_period() {
    // It would take ten minutes, at a rate above the minimum.
    let bench = Bench::new(&[Series::campaign("Report test", 1).bytes(1_200_000)]).await;
    bench.fault("slow=2000,times=1");
    let daemon = Daemon::start(&bench).await;
    assert!(wait_until(async || bench.requests() > 0).await);
    let stopped = tokio::time::timeout(GRACE + MARGIN, daemon.stop(&bench)).await;
    assert_eq!(stopped.expect("it ends within its grace").code(), Some(0));
    assert!(bench.stored_files().is_empty());
    assert_eq!(bench.kept_in("_staging"), [""; 0]);
    bench.sync(0).await;
    bench.oracle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_new_configuration_leaves_the_old_one_in_force_and_a_good_one_applies() {
    let both = [Series::campaign("Report test", 2), Series::dump(2)];
    let bench = Bench::new(&both).await;
    let whole = bench.config();
    let without_dump = whole.replace(&bench.report(&both[1]), "");
    bench.write_config(&without_dump);
    let daemon = Daemon::start(&bench).await;

    bench.write_config(&whole.replace("source = \"daily_dump\"", "source = \"daily_dumb\""));
    daemon.signal("HUP").await;
    daemon.wait_for_log("the old one stays in force").await;
    assert!(daemon.log().iter().any(|line| line.contains("daily_dumb")), "the log does not say why");
    // The daemon keeps its valid configuration; a read-only command refuses the new one.
    bench.write_config(&without_dump);
    let stored = async || bench.status().await.iter().filter(|partition| partition["state"] == "stored").count() == 2;
    assert!(wait_until(stored).await, "the old configuration is not in force");
    assert_eq!(daemon.alarms(), ["configuration"]);

    bench.write_config(&whole);
    daemon.signal("HUP").await;
    assert!(wait_until(async || all_stored(&bench).await).await, "{}", daemon.log().join("\n"));
    daemon.stop(&bench).await;
    bench.oracle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_reads_the_folder_again_with_new_files_in_it() {
    let both = [Series::campaign("Report test", 2), Series::dump(2)];
    let bench = Bench::new(&both).await;
    let dump = bench.report(&both[1]);
    let main = bench.config().replace(&dump, "");
    let folder = bench.path("moesync.toml");
    fs::remove_file(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("10-main.toml"), main).unwrap();
    let daemon = Daemon::start(&bench).await;
    assert!(wait_until(async || bench.requests() >= 2).await);
    fs::write(folder.join("20-dump.toml"), dump).unwrap();
    daemon.signal("HUP").await;
    assert!(wait_until(async || all_stored(&bench).await).await, "{}", daemon.log().join("\n"));
    daemon.stop(&bench).await;
    bench.oracle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_report_stays_unconfigured_and_the_reload_logs_the_number() {
    let both = [Series::campaign("Report test", 2), Series::dump(3)];
    let bench = Bench::new(&both).await;
    bench.fault("not-yet,path=dailyCampaignReportDump");
    let daemon = Daemon::start(&bench).await;
    assert!(wait_until(async || bench.requests() >= 5).await);
    bench.write_config(&bench.config().replace(&bench.report(&both[1]), ""));
    daemon.signal("HUP").await;
    daemon.wait_for_log("3 open partitions belong to reports that are no longer in it").await;
    let asked = bench.requests();
    daemon.stop(&bench).await;

    let status = bench.status().await;
    let dump: Vec<_> = status.iter().filter(|partition| partition["report"] == "dump").collect();
    assert_eq!(dump.len(), 3);
    for partition in dump {
        assert_eq!((&partition["configured"], &partition["state"]), (&false.into(), &"pending".into()));
    }
    assert!(status.iter().filter(|partition| partition["report"] != "dump").all(|p| p["configured"] == true));
    // Neither fetched nor alarmed.
    bench.sync(0).await;
    assert_eq!(bench.requests(), asked);
    bench.run(&["status", "--check"]).await.expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_deleted_while_it_runs_is_rebuilt_without_a_download() {
    let bench = Bench::new(&[Series::campaign("Report test", 3), Series::dump(3)]).await;
    let daemon = Daemon::start(&bench).await;
    assert!(wait_until(async || all_stored(&bench).await).await);
    let asked = bench.requests();
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(bench.path(&format!("ledger/moesync.db{suffix}")));
    }
    // It checks once a minute, and at a reload.
    daemon.signal("HUP").await;
    assert!(wait_until(async || daemon.alarms() == ["ledger"]).await, "{}", daemon.log().join("\n"));
    assert!(wait_until(async || all_stored(&bench).await).await, "{}", daemon.log().join("\n"));
    assert_eq!(bench.requests(), asked);
    daemon.stop(&bench).await;
    bench.oracle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_briefly_fails_does_not_end_the_daemon() {
    let bench = Bench::new(&[Series::dump(2)]).await;
    bench.sync(0).await;
    // Everything must be read from the manifests, and nothing can be written.
    fs::remove_file(bench.ledger()).unwrap();
    ledger::open(&bench.ledger(), "me", bench.clock.read()).await.unwrap().0.close().await;
    let disk = FullDisk::begin(&bench.ledger()).await;
    let daemon = Daemon::start(&bench).await;
    daemon.wait_for_log("ledger write failed, retrying").await;
    assert!(!daemon.has_ended(), "{}", daemon.log().join("\n"));
    disk.end().await;
    assert!(wait_until(async || all_stored(&bench).await).await, "{}", daemon.log().join("\n"));
    assert_eq!((bench.requests(), daemon.stop(&bench).await.code()), (2, Some(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_probed_hourly_until_its_file_is_corrected() {
    let series: Vec<_> = (0..100).map(|number| Series::campaign(&format!("Report {number}"), 5).bytes(500)).collect();
    let bench = Bench::at("2026-11-21T12:00:00Z", &series).await;
    bench.clock.stand_still();
    let key = fs::read(bench.path("secret-key")).unwrap();
    fs::write(bench.path("secret-key"), "not-the-key").unwrap();
    let ctx = bench.context().await;
    let (_commands, mut inbox) = mpsc::channel(1);
    let (stop, stopped) = oneshot::channel::<()>();
    let working = {
        let ctx = Arc::clone(&ctx);
        crate::support::spawn(async move { sync::continuously(ctx, &mut inbox, async { drop(stopped.await) }).await })
    };
    assert!(wait_until(async || bench.requests() == 1).await);
    for hour in 1..=3 {
        // An hour plus jitter.
        let held = async || {
            let holds = ctx.view(&ctx.ledger, bench.clock.read()).await.unwrap().holds;
            holds.values().any(|hold| hold.since == bench.clock.read())
        };
        assert!(wait_until(held).await, "no hold in hour {hour}");
        bench.clock.advance(SignedDuration::from_mins(80));
        assert!(wait_until(async || bench.requests() > hour).await, "no probe in hour {hour}");
    }
    assert_eq!(bench.requests(), 4, "more than one probe an hour");

    let held = async || {
        ctx.view(&ctx.ledger, bench.clock.read())
            .await
            .unwrap()
            .holds
            .values()
            .any(|hold| hold.since == bench.clock.read())
    };
    assert!(wait_until(held).await);
    fs::write(bench.path("secret-key"), key).unwrap();
    bench.clock.advance(SignedDuration::from_mins(80));
    let healed = async || {
        let entries = ctx.ledger.entries().await.unwrap();
        entries.iter().all(|entry| entry.settled == Settled::Stored)
    };
    assert!(wait_until(healed).await, "{} requests", bench.requests());
    assert_eq!(bench.requests(), 504);
    stop.send(()).unwrap();
    working.await.unwrap().unwrap();
}
