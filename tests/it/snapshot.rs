//! Snapshots of what MoEngage serves only live: complete listings, page by page, despite faults of the vendor.

mod clocks;
mod listings;
mod refresh;

use std::{collections::BTreeSet, fs, io::Read as _, path::PathBuf};

use flate2::read::MultiGzDecoder;
use moesync::{
    config::SourceKind,
    emulator::{Campaigns, DeliveryType},
    sync::{self, Selection, Summary},
};
use serde_json::Value;

use crate::support::{
    Bench,
    oracle::{hash, manifest_key},
};

const NOW: &str = "2026-11-21T12:00:00Z";
const LISTING: &str = "acme/campaigns/date=2026-11-21/campaigns_20261121.ndjson.gz";
const STATS: &str = "acme/campaign_stats/date=2026-11-21/campaign_stats_20261121.ndjson.gz";
const EXECUTIONS: &str = "acme/executions/date=2026-11-21/executions_20261121.ndjson.gz";

/// This many campaigns, all of which have statistics in every window.
fn evergreen(count: u32) -> Campaigns {
    Campaigns { count, delivery_types: vec![DeliveryType::EventTriggered], ..Campaigns::default() }
}

/// A vendor with these campaigns, and these reports of them, each made six hours ago.
async fn bench(campaigns: Campaigns, reports: &[&str]) -> Bench {
    let bench = Bench::of_campaigns(NOW, campaigns).await;
    configure(&bench, reports);
    bench
}

fn configure(bench: &Bench, reports: &[&str]) {
    let mut config = bench.config();
    for report in reports {
        let measured = "\"campaign_stats\"\nmetric_type = \"TOTAL\"\nattribution_type = \"CLICK_THROUGH\"";
        let report = report.replace("\"campaign_stats\"", measured);
        config += &format!(
            "\n[[reports]]\nworkspace = \"acme\"\ndestination = \"disk\"\n\
             schedule = {{ every = \"day\", at = \"{}\" }}\nsource = {report}\n",
            bench.generated_at_time()
        );
    }
    bench.write_config(&config);
}

async fn pass(bench: &Bench) -> Summary {
    let ctx = bench.context().await;
    let summary = sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
    ctx.ledger.close().await;
    summary
}

/// A pass that stores all that is due.
async fn store(bench: &Bench) -> Summary {
    let summary = pass(bench).await;
    assert!(summary.is_complete(), "{:#?}", summary.entries);
    summary
}

fn bytes(bench: &Bench, key: &str) -> Vec<u8> {
    fs::read(bench.object(key)).unwrap_or_else(|error| panic!("{key}: {error}"))
}

fn lines(bench: &Bench, key: &str) -> Vec<Value> {
    let mut text = String::new();
    MultiGzDecoder::new(&bytes(bench, key)[..]).read_to_string(&mut text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The manifest, which must describe the object.
fn manifest(bench: &Bench, key: &str) -> Value {
    let manifest: Value = serde_json::from_slice(&bytes(bench, &manifest_key(key))).unwrap();
    let object = bytes(bench, key);
    assert_eq!((&manifest["sha256"], &manifest["size"]), (&hash(&object).into(), &object.len().into()), "{key}");
    assert_eq!((&manifest["key"], &manifest["format"]), (&key.into(), &"ndjson.gz".into()));
    manifest
}

fn ids(lines: &[Value]) -> BTreeSet<String> {
    lines.iter().map(|line| line["campaign_id"].as_str().unwrap().to_owned()).collect()
}

fn versions(bench: &Bench) -> Vec<PathBuf> {
    let folder = bench.object("acme/campaign_stats/_versions");
    let is_object = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "gz");
    crate::support::files(&folder).into_iter().filter(is_object).collect()
}

fn requests(bench: &Bench, api: SourceKind) -> usize {
    bench.vendor.traffic(api).requests
}
