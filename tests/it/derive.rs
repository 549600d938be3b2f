//! The tables of stored partitions, made by the binary and the library: when, where, and whatever happens meanwhile.

use std::{collections::BTreeMap, fs};

use serde_json::Value;

use crate::support::{Bench, Series};

/// A bench whose reports have tables.
async fn bench(series: &[Series]) -> Bench {
    let bench = Bench::new(series).await;
    with_tables(&bench, "parquet");
    bench
}

/// Switches tables on for every report of the bench.
fn with_tables(bench: &Bench, format: &str) {
    bench.write_config(
        &bench
            .config()
            .replace("\ndestination = \"disk\"\n", &format!("\ndestination = \"disk\"\ntables = \"{format}\"\n")),
    );
}

/// All objects, manifests and schemas of tables, by key.
fn tables(bench: &Bench) -> BTreeMap<String, Vec<u8>> {
    bench.kept_in("tables").into_iter().map(|key| (key.clone(), fs::read(bench.object(&key)).unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_makes_the_tables_of_each_stored_partition() {
    let bench = bench(&[Series::campaign("Report test", 3)]).await;
    let ran = bench.run(&["-v", "sync"]).await.expect(0);
    println!("{}\n{}", ran.stdout, ran.stderr);
    for (key, bytes) in tables(&bench) {
        println!("{key} {}", bytes.len());
        if key.ends_with(".json") {
            println!("{}", String::from_utf8(bytes).unwrap());
        }
    }
    let _: Value = bench.sync(0).await.json();
}
