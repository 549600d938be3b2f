//! One pass: faults of the vendor, kills at any moment, disks that fail, and how partitions end.

mod content;
mod expiry;
mod file_systems;
mod kills;
mod quarantine;
mod retries;
mod secrets;

use std::sync::Arc;

use moesync::{
    report::{PartitionId, ReportId},
    sync::{self, Selection},
};
use tokio::process::Command;

use crate::support::Bench;

async fn need_strace() {
    let found = Command::new("strace").arg("-V").output().await;
    assert!(found.is_ok_and(|output| output.status.success()), "strace is missing: apt-get install strace");
}

/// The entry of the newest partition that the first series had at the start.
async fn only_entry(bench: &Bench, ctx: &sync::Context) -> moesync::partition::Entry {
    let id = PartitionId { report: ReportId::new("acme", &bench.series[0].id), date: bench.newest };
    ctx.ledger.entry_of(&id).await.unwrap().unwrap()
}

async fn once(ctx: &Arc<sync::Context>) -> sync::Summary {
    sync::once(ctx, &Selection::default(), std::future::pending()).await.unwrap()
}
