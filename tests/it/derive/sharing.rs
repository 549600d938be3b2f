//! Several processes that make tables, with one ledger.

use std::sync::Arc;

use moesync::sync::{self, Selection};

use super::{bench, check_all_made, tables, with_tables};
use crate::support::Series;

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
