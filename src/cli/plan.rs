//! `moesync plan`: what would be done, when and why.

use clap::Args;
use comfy_table::Cell;
use jiff::{SignedDuration, Timestamp};

use super::{
    Ended, Result, Shell, Which, table,
    words::{Action, PartitionStatus, Planned, PlannedPartition},
};
use crate::plan::{self, LedgerView};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    which: Which,
    /// Also shows what is scheduled within so many days.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=3660))]
    days: Option<u16>,
}

pub(super) async fn run(shell: &Shell, options: Options) -> Result {
    let config = shell.config()?;
    let selection = options.which.selection(&config)?;
    let now = shell.clock.now();
    let view = match shell.ledger(&config).await? {
        Some(ledger) => ledger.view(now).await?,
        None => LedgerView::default(),
    };
    let mut partitions: Vec<_> =
        plan::plan(&config.reports, &view, now).items.iter().map(|item| PlannedPartition::new(item, now)).collect();
    if let Some(days) = options.days {
        let until = now.checked_add(SignedDuration::from_hours(24 * i64::from(days))).unwrap_or(Timestamp::MAX);
        for partition in plan::upcoming(&config.reports, now, until) {
            let is_shown = partitions.iter().any(|shown: &PlannedPartition| {
                let PartitionStatus { workspace, report, date, .. } = &shown.status;
                (workspace, report, date) == (&partition.id.workspace, &partition.id.report, &partition.id.date)
            });
            if !is_shown {
                partitions.push(PlannedPartition::upcoming(partition, now));
            }
        }
    }
    partitions.retain(|partition| {
        let PartitionStatus { workspace, report, .. } = &partition.status;
        selection.workspace.as_ref().is_none_or(|name| name == workspace)
            && selection.report.as_ref().is_none_or(|id| id == report)
    });
    shell.print(&Planned { partitions }, |plan| show(plan, now))?;
    Ok(Ended::Done)
}

fn show(plan: &Planned, now: Timestamp) -> String {
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
