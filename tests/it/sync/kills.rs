//! Kills of the real binary at any moment.

use std::fs;

use rand::{RngExt as _, SeedableRng as _, rngs::Xoshiro256PlusPlus};

use super::need_strace;
use crate::support::{Bench, Daemon, Series, small_disk::SmallDisk, wait_until};

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
