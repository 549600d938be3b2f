//! Kills of the real binary while it makes tables.

use std::fs;

use rand::{RngExt as _, SeedableRng as _, rngs::Xoshiro256PlusPlus};

use super::{bench, check_all_made, check_tables};
use crate::support::{Bench, Daemon, Series, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn killed_200_times_it_leaves_no_half_object_and_makes_the_same_bytes() {
    // Four chains run concurrently.
    futures::future::join_all((0..4).map(fifty_deaths)).await;
}

fn forget_tables(bench: &Bench) {
    for folder in ["reports/tables", "ledger"] {
        let _ = fs::remove_dir_all(bench.path(folder));
    }
}

/// Each run continues from what the previous one left.
async fn fifty_deaths(seed: u64) {
    let bench = bench(&[Series::campaign("Report test", 3)]).await;
    bench.sync(0).await;
    // Made of what is stored, in one order: newest first.
    forget_tables(&bench);
    bench.sync(0).await;
    let whole = check_all_made(&bench, &bench.status().await);
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut deaths = 0;
    for _ in 0..200 {
        let present = bench.kept_in("tables").len();
        if present == whole.len() {
            bench.sync(0).await;
            assert!(check_all_made(&bench, &bench.status().await) == whole, "other bytes after {deaths} deaths");
            forget_tables(&bench);
        }
        let enough = bench.kept_in("tables").len() + random.random_range(0..12);
        let syncing = Daemon::spawn(bench.command(&["-vv", "sync"]));
        let is_time = async || bench.kept_in("tables").len() >= enough || syncing.has_ended();
        assert!(wait_until(is_time).await);
        let status = syncing.kill(&bench).await;
        deaths += u32::from(status.code().is_none());
        check_tables(&bench);
        if deaths == 50 {
            break;
        }
    }
    assert_eq!(deaths, 50, "too few of them fell into its work");
    bench.sync(0).await;
    assert!(check_all_made(&bench, &bench.status().await) == whole);
    assert_eq!(bench.kept_in("_staging"), [""; 0]);
}
