//! `moesync plan`: shows what would be fetched, when and why.

use std::collections::HashSet;

use clap::Args;
use comfy_table::Cell;
use jiff::{SignedDuration, Timestamp};

use super::{Completion, Result, scope::Scope, shell::Shell, table};
use crate::{
    plan::{self, LedgerView, Reach},
    words::{Action, PartitionStatus, PlannedPartition, PlannedPartitions},
};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    scope: Scope,
    /// Also shows what is scheduled within this many days.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=3660))]
    days: Option<u16>,
}

pub(super) async fn run(shell: &Shell, options: Options) -> Result {
    let config = shell.config()?;
    let selection = options.scope.selection(&config)?;
    let now = shell.clock.now();
    let view = match shell.ledger(&config).await? {
        Some(ledger) => ledger.view(&Reach::of(&config.reports, now, now)).await?,
        None => LedgerView::default(),
    };
    let items = plan::plan(&config.reports, &view, now).items;
    let planned: HashSet<_> = items.iter().map(|item| &item.entry.partition.id).collect();
    let mut partitions: Vec<_> = items.iter().map(|item| PlannedPartition::new(item, now)).collect();
    if let Some(days) = options.days {
        let until = now.checked_add(SignedDuration::from_hours(24 * i64::from(days))).unwrap_or(Timestamp::MAX);
        let upcoming = plan::upcoming(&config.reports, now, until).into_iter();
        let further = upcoming.filter(|partition| !planned.contains(&partition.id));
        partitions.extend(further.map(|partition| PlannedPartition::upcoming(partition, now)));
    }
    partitions.retain(|partition| {
        let PartitionStatus { workspace, report, .. } = &partition.status;
        selection.workspace.as_ref().is_none_or(|name| name == workspace)
            && selection.report.as_ref().is_none_or(|id| id == report)
    });
    shell.print(&PlannedPartitions { partitions }, |plan| show(plan, now))?;
    Ok(Completion::Done)
}

fn show(plan: &PlannedPartitions, now: Timestamp) -> String {
    let mut rows = table::table(["WORKSPACE", "REPORT", "DATE", "ACTION", "EXPIRES IN", "WHY"]);
    for partition in &plan.partitions {
        let status = &partition.status;
        rows.add_row([
            Cell::new(&status.workspace),
            Cell::new(&status.report),
            Cell::new(status.date),
            Cell::new(partition.action.as_str()),
            Cell::new(table::left(status.expires_at, now)),
            Cell::new(&partition.reason),
        ]);
    }
    let to_fetch =
        plan.partitions.iter().filter(|partition| matches!(partition.action, Action::Fetch | Action::Refresh)).count();
    format!("{}\n{to_fetch} to fetch now\n", table::text(&rows))
}
