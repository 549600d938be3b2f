//! Prints what a configuration plans at a given time, from an empty ledger: no network, no database, no clock.
//!
//!     cargo run --example plan -- config/moesync.example.toml 2026-11-21T12:00:00Z

use std::path::PathBuf;

use anyhow::Context as _;
use jiff::Timestamp;
use moesync::{
    config,
    plan::{self, LedgerView},
};

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let path: PathBuf = args.next().context("usage: plan CONFIG NOW")?.into();
    let now: Timestamp = args.next().context("usage: plan CONFIG NOW")?.parse()?;
    let config = config::load(&path, std::env::vars())?;
    for item in plan::plan(&config.reports, &LedgerView::default(), now).items {
        println!("{}: {:?}", item.entry.partition.id, item.decision);
    }
    Ok(())
}
