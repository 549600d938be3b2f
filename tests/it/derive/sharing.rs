//! Several processes that make tables, with one ledger.

use std::{fs, sync::Arc};

use moesync::sync::{self, Selection};

use super::{bench, check_all_made, check_tables, tables, with_tables};
use crate::support::{
    Bench, Daemon, Series,
    postgres::{self, Route},
    s3_server, wait_until,
};

#[tokio::test(flavor = "multi_thread")]
async fn of_two_processes_whose_settings_differ_the_later_one_decides_while_it_lives() {
    let bench = bench(&[Series::campaign("Report test", 2)]).await;
    bench.sync(0).await;
    let parquet = check_all_made(&bench, &bench.status().await);
    let old = bench.context().await;
    sync::note_table_reports(&old).await.unwrap();
    bench.write_config(&with_tables(&bench.config(), "csv.gz"));
    let new = bench.context().await;
    sync::note_table_reports(&new).await.unwrap();
    let derive = async |ctx: &Arc<_>| {
        let made = sync::derive_once(ctx, &Selection::default(), std::future::pending()).await.unwrap();
        (made.partitions, made.failed.len())
    };
    // Each looks every minute. The old one finds tables to make that are of another format than its own.
    assert_eq!(derive(&old).await, (0, 0));
    assert_eq!(derive(&new).await, (2, 0));
    let gzipped = check_all_made(&bench, &bench.status().await);
    assert!(gzipped.keys().all(|key| !key.ends_with(".parquet")));
    for ctx in [&old, &new, &old] {
        assert_eq!(derive(ctx).await, (0, 0), "undone");
    }
    assert!(tables(&bench) == gzipped);

    // Without the later one the setting of the other holds again.
    new.ledger.close().await;
    drop(new);
    assert_eq!(derive(&old).await, (2, 0));
    assert_eq!(
        check_all_made(&bench, &bench.status().await).keys().collect::<Vec<_>>(),
        parquet.keys().collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_stands_still_harms_no_table_of_the_others_in_a_bucket() {
    let server = s3_server::Server::start(false).await;
    let bench = Bench::on_s3(&server, &[Series::campaign("Report test", 4), Series::dump(3)]).await;
    let with_ledger = async || {
        let url = postgres::database(Route::Direct).await;
        let config = with_tables(&bench.config(), "parquet");
        bench.write_config(&config.replace(&format!("sqlite://{}", bench.ledger().display()), &url));
        url
    };
    with_ledger().await;
    bench.sync(0).await;
    let whole = check_all_made(&bench, &bench.status().await);
    // At its first object, amid them, and at its last ones.
    for enough in [1, whole.len() / 2, whole.len() - 2] {
        for key in tables(&bench).keys() {
            fs::remove_file(bench.object(key)).unwrap();
        }
        let url = with_ledger().await;
        let stopped = Daemon::spawn(bench.command(&["-vv", "sync"]));
        assert!(wait_until(async || bench.kept_in("tables").len() >= enough || stopped.has_ended()).await);
        stopped.signal("STOP").await;
        check_tables(&bench);
        // Half a minute later.
        postgres::execute(&url, "UPDATE holders SET renewed_at = 0").await;
        tokio::join!(bench.sync(0), bench.sync(0));
        assert!(check_all_made(&bench, &bench.status().await) == whole, "stopped after {enough} objects");
        stopped.signal("CONT").await;
        stopped.end(&bench).await;
        assert!(check_all_made(&bench, &bench.status().await) == whole, "resumed after {enough} objects");
    }
}
