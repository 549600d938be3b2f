//! `moesync acknowledge`: notes that lost partitions were seen by a person.

use clap::Args;

use super::{
    CommandError, Completion, Result,
    dates::{DateRange, today},
    scope::{Scope, configured},
    shell::Shell,
    table::Look,
};
use crate::{
    report::PartitionId,
    words::{Acknowledged, PartitionStatus},
};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    dates: DateRange,
    /// Every lost partition.
    #[arg(long, conflicts_with_all = ["workspace", "report", "date", "from", "to"])]
    all: bool,
    /// Shows which partitions are meant; changes nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(shell: &Shell, options: Options) -> Result {
    let config = shell.config()?;
    let Options { scope, dates, all, dry_run } = options;
    if !all && dates.is_all() && scope.report.is_none() && scope.workspace.is_none() {
        return Err(CommandError::Usage(
            "name the lost partitions: --report and --workspace, --date or --from and --to, or --all".into(),
        ));
    }
    let dates = dates.dates(today(&scope, &config, shell.clock.now()))?;
    let ledger = shell.ledger_to_change(&config, dry_run).await?;
    let now = shell.clock.now();
    let recorded = match &ledger {
        Some(ledger) => ledger.recorded_reports(None).await?,
        None => Vec::new(),
    };
    scope.check_recorded(&config, &recorded)?;
    let mut partitions = Vec::new();
    if let Some(ledger) = &ledger {
        let mut lost = ledger.lost().await?;
        lost.retain(|entry| scope.covers(&entry.partition.id.report) && dates.contain(entry.partition.id.date));
        lost.sort_by(|a, b| a.partition.id.cmp(&b.partition.id));
        if !dry_run {
            let ids: Vec<PartitionId> = lost.iter().map(|entry| entry.partition.id.clone()).collect();
            ledger.acknowledge(&ids).await?;
        }
        let configured = configured(&config);
        partitions.extend(lost.iter().map(|entry| PartitionStatus {
            acknowledged: !dry_run,
            ..PartitionStatus::new(entry, configured.contains_key(&entry.partition.id.report), now)
        }));
        ledger.close().await;
    }
    shell.print(&Acknowledged { dry_run, partitions }, |result| show(result, shell.look(&config), now))?;
    Ok(Completion::Done)
}

fn show(result: &Acknowledged, look: Look, now: jiff::Timestamp) -> String {
    let Acknowledged { dry_run, partitions } = result;
    match (partitions.len(), dry_run) {
        (0, _) => "no lost partition that is not acknowledged\n".to_owned(),
        (count, true) => format!("{}\n{count} would be acknowledged\n", look.partitions(partitions, now)),
        (count, false) => format!("{}\n{count} acknowledged\n", look.partitions(partitions, now)),
    }
}
