//! `moesync plan`: what would be done, when and why.

use clap::Args;
use comfy_table::Cell;
use jiff::{SignedDuration, Timestamp};

use super::{
    Ended, Result, Shell, Which, table,
    words::{Action, PartitionStatus, Planned, PlannedPartition},
};
use crate::plan::{self, Decision, Item, LedgerView};

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
        plan::plan(&config.reports, &view, now).items.iter().map(|item| planned(item, now)).collect();
    if let Some(days) = options.days {
        let until = now.checked_add(SignedDuration::from_hours(24 * i64::from(days))).unwrap_or(Timestamp::MAX);
        for partition in plan::upcoming(&config.reports, now, until) {
            let is_shown = partitions.iter().any(|shown: &PlannedPartition| {
                let PartitionStatus { workspace, report, date, .. } = &shown.status;
                (workspace, report, date) == (&partition.id.workspace, &partition.id.report, &partition.id.date)
            });
            if !is_shown {
                let decision = Decision::NotDue { until: partition.due_at };
                partitions.push(PlannedPartition {
                    status: PartitionStatus::upcoming(partition, now),
                    action: decision.into(),
                    until: decision.until(),
                    reason: reason(decision, None),
                });
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

fn planned(item: &Item, now: Timestamp) -> PlannedPartition {
    PlannedPartition {
        status: PartitionStatus::new(&item.entry, item.report.is_some(), now),
        action: item.decision.into(),
        until: item.decision.until(),
        reason: reason(item.decision, item.entry.message.as_deref()),
    }
}

fn reason(decision: Decision, message: Option<&str>) -> String {
    match decision {
        Decision::Fetch => "due and not stored".into(),
        Decision::Refresh => "stored; its numbers may have been restated".into(),
        Decision::NotDue { until } => format!("due {}", table::instant(until)),
        Decision::Backoff { until } => {
            format!("tried again {}{}", table::instant(until), message.map(|m| format!(": {m}")).unwrap_or_default())
        }
        Decision::Held { outcome, until } => {
            format!("the whole workspace waits until {} ({outcome})", table::instant(until))
        }
        Decision::Unconfigured => "its report is not configured any more".into(),
    }
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
