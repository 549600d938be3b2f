//! `moesync verify`: reads stored objects again and compares them with their manifests.

use std::collections::{HashMap, HashSet};

use clap::Args;
use comfy_table::Cell;
use futures::{StreamExt, stream};

use super::{
    Completion, Result,
    shell::{Shell, stop_signal},
    table,
    which::Which,
};
use crate::{
    partition::{Entry, Settled},
    report::PartitionId,
    sync::{self, Inspected, Repair, Selection},
    words::{PartitionStatus, Verification, VerifiedPartition},
};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    which: Which,
    /// Fetches damaged objects again, where MoEngage still has them. The damaged bytes are kept under _quarantine/.
    #[arg(long)]
    repair: bool,
}

/// Number of objects that are read concurrently.
const CONCURRENCY: usize = 4;

pub(super) async fn run(shell: &Shell, options: Options) -> Result {
    let config = shell.config()?;
    let selection = options.which.selection(&config)?;

    // Only a repair contacts MoEngage and writes.
    let ctx = match options.repair {
        true => Some(shell.context(std::sync::Arc::clone(&config)).await?),
        false => None,
    };
    let (recorded, reports) = match &ctx {
        Some(ctx) => (ctx.ledger.entries().await?, ctx.reports.clone()),
        None => {
            let reports = sync::open_reports(&config)?;
            let Some(ledger) = shell.ledger(&config).await? else {
                return Err(super::Failure::Usage(
                    "there is no ledger yet; `moesync sync` creates one from the manifests".into(),
                ));
            };
            (ledger.entries().await?, reports)
        }
    };
    let stored = recorded
        .into_iter()
        .filter(|entry| entry.settled == Settled::Stored && selection.covers(&entry.partition.id))
        .filter_map(|entry| {
            let destination = reports.get(&entry.partition.id.report)?.destination.clone();
            Some((entry, destination))
        });
    let inspected: Vec<Inspected> = stream::iter(stored)
        .map(|(entry, destination)| async move { sync::inspect(&destination, entry).await })
        .buffered(CONCURRENCY)
        .collect()
        .await;

    let mut after: HashMap<PartitionId, Entry> = HashMap::new();
    let mut repaired_ids = HashSet::new();
    if let Some(ctx) = &ctx {
        let mut opened = HashSet::new();
        for inspected in inspected.iter().filter(|inspected| inspected.damage.is_some()) {
            let id = &inspected.entry.partition.id;
            if let Some(report) = reports.get(&id.report) {
                match sync::repair(ctx, report, inspected).await? {
                    Repair::Done => drop(repaired_ids.insert(id.clone())),
                    Repair::Opened => drop(opened.insert(id.clone())),
                    Repair::Impossible => {}
                }
            }
        }
        if !opened.is_empty() {
            let selection = Selection { partitions: Some(opened), ..Selection::default() };
            let summary = sync::once(ctx, &selection, stop_signal()).await?;
            after.extend(summary.entries.into_iter().map(|entry| (entry.partition.id.clone(), entry)));
        }
        ctx.ledger.close().await;
    }

    let now = shell.clock.now();
    let partitions: Vec<_> = inspected
        .into_iter()
        .map(|Inspected { entry, damage }| {
            let (entry, was_opened) = match after.remove(&entry.partition.id) {
                Some(entry) => (entry, true),
                None => (entry, false),
            };
            let repaired = repaired_ids.contains(&entry.partition.id) || was_opened && entry.settled == Settled::Stored;
            VerifiedPartition {
                status: PartitionStatus::new(&entry, true, now),
                damage: damage.map(|damage| damage.to_string()),
                repaired,
            }
        })
        .collect();
    let is_sound = partitions.iter().all(|partition| partition.damage.is_none() || partition.repaired);
    shell.print(&Verification { partitions }, show)?;
    Ok(if is_sound { Completion::Done } else { Completion::Incomplete })
}

fn show(verification: &Verification) -> String {
    let damaged: Vec<_> = verification.partitions.iter().filter(|partition| partition.damage.is_some()).collect();
    let sound = verification.partitions.len() - damaged.len();
    let bytes: u64 = verification.partitions.iter().filter_map(|partition| partition.status.size).sum();
    let summary = format!("{sound} whole, {} damaged ({} read)\n", damaged.len(), table::size(bytes));
    if damaged.is_empty() {
        return summary;
    }
    let mut rows = table::table(["WORKSPACE", "REPORT", "DATE", "DAMAGE", "NOW"]);
    for partition in damaged {
        let status = &partition.status;
        let now = match (partition.repaired, &status.message) {
            (true, _) => "repaired".to_owned(),
            (false, Some(message)) => format!("{}: {message}", status.state),
            (false, None) => "not repaired".to_owned(),
        };
        rows.add_row([
            Cell::new(&status.workspace),
            Cell::new(&status.report),
            Cell::new(status.date),
            Cell::new(partition.damage.as_deref().unwrap_or_default()),
            Cell::new(now),
        ]);
    }
    format!("{}\n{summary}", table::text(&rows))
}
