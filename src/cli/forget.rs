//! `moesync forget`: deletes rows of the ledger. Stored objects stay.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use clap::Args;
use jiff::Timestamp;

use super::{
    CommandError, Completion, Result,
    dates::{DateRange, today},
    results::counted,
    scope::{Scope, configured},
    shell::Shell,
    table::Look,
};
use crate::{
    config::Report,
    ledger::{Choice, Ledger},
    reading::Dates,
    report::{PartitionId, ReportId},
    words::{Forgotten, PartitionStatus},
};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    dates: DateRange,
    /// Every report that is no longer configured.
    #[arg(long, conflicts_with_all = ["report", "date", "from", "to"])]
    unconfigured: bool,
    /// Shows which rows would go; changes nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Number of partitions that are read together.
const READ_TOGETHER: u32 = 500;

pub(super) async fn run(shell: &Shell, options: Options) -> Result {
    let config = shell.config()?;
    let Options { scope, dates, unconfigured, dry_run } = options;
    if !unconfigured && scope.report.is_none() {
        return Err(CommandError::Usage(
            "name what is forgotten: --unconfigured, or --report with --date or --from and --to".into(),
        ));
    }
    let whole_reports = dates.is_all();
    let dates = dates.dates(today(&scope, &config, shell.clock.now()))?;
    let now = shell.clock.now();
    let ledger = shell.ledger_to_change(&config, dry_run).await?;
    let recorded = match &ledger {
        Some(ledger) => ledger.recorded_reports(None).await?,
        None => Vec::new(),
    };
    scope.check_recorded(&config, &recorded)?;
    let mut partitions = Vec::new();
    if let Some(ledger) = &ledger {
        let configured = configured(&config);
        let mut reports: Vec<ReportId> = recorded.into_iter().filter(|id| scope.covers(id)).collect();
        match unconfigured {
            true => reports.retain(|id| !configured.contains_key(id)),
            false => refuse_configured(&configured, &reports, whole_reports)?,
        }
        for id in &reports {
            let chosen = read(ledger, id, &dates, configured.contains_key(id), now).await?;
            match (dry_run, whole_reports) {
                (true, _) => {}
                (false, true) => drop(ledger.forget_report(id).await?),
                (false, false) => drop(ledger.forget(&ids(&chosen)).await?),
            }
            partitions.extend(chosen);
        }
        ledger.close().await;
    }
    shell.print(&Forgotten { dry_run, partitions }, |result| show(result, shell.look(&config), now))?;
    Ok(Completion::Done)
}

/// A configured report would be planned and fetched again from the beginning.
fn refuse_configured(
    configured: &HashMap<ReportId, Arc<Report>>,
    reports: &[ReportId],
    whole_reports: bool,
) -> Result<()> {
    match reports.iter().find(|id| configured.contains_key(id)) {
        Some(id) if whole_reports => Err(CommandError::Usage(format!(
            "report `{}` is configured; name the dates to forget with --date, or --from and --to",
            id.name()
        ))),
        _ => Ok(()),
    }
}

async fn read(
    ledger: &Ledger,
    id: &ReportId,
    dates: &Dates,
    is_configured: bool,
    now: Timestamp,
) -> Result<Vec<PartitionStatus>> {
    let choice =
        Choice { workspace: Some(id.workspace().to_owned()), report: Some(id.name().to_owned()), since: dates.from };
    let (mut found, mut last): (_, Option<PartitionId>) = (Vec::new(), None);
    loop {
        let entries = ledger.page(&choice, last.as_ref(), READ_TOGETHER).await?;
        let Some(entry) = entries.last() else { return Ok(found) };
        last = Some(entry.partition.id.clone());
        let chosen = entries.iter().filter(|entry| dates.contain(entry.partition.id.date));
        found.extend(chosen.map(|entry| PartitionStatus::new(entry, is_configured, now)));
    }
}

fn ids(partitions: &[PartitionStatus]) -> Vec<PartitionId> {
    let of = |status: &PartitionStatus| PartitionId {
        report: ReportId::new(&status.workspace, &status.report),
        date: status.date,
    };
    partitions.iter().map(of).collect()
}

fn show(result: &Forgotten, look: Look, now: Timestamp) -> String {
    let Forgotten { dry_run, partitions } = result;
    let reports: BTreeSet<_> = partitions.iter().map(|status| (&status.workspace, &status.report)).collect();
    let count = format!("{} of {}", counted(partitions.len(), "partition"), counted(reports.len(), "report"));
    match (partitions.is_empty(), dry_run) {
        (true, _) => "nothing to forget\n".to_owned(),
        (false, true) => {
            format!("{}\nthe rows of {count} would go; objects stay\n", look.partitions(partitions, now))
        }
        (false, false) => format!("{}\nforgot the rows of {count}; objects stay\n", look.partitions(partitions, now)),
    }
}
