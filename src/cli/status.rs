//! `moesync status`: shows the partitions and their state.

use std::collections::BTreeSet;

use clap::Args;
use jiff::civil::Date;

use super::{
    Completion, Result,
    shell::Shell,
    table,
    which::{Which, ambiguous, date, entries, known},
};
use crate::{
    config::Config,
    partition::{Entry, State},
    plan::{self, LedgerView, Reach},
    report::ReportId,
    words::{PartitionStatus, Partitions},
};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    which: Which,
    /// Only partitions in this state.
    #[arg(long, value_parser = state, value_name = "STATE")]
    state: Option<State>,
    /// Only partitions of this date and later.
    #[arg(long, value_name = "DATE", value_parser = date)]
    since: Option<Date>,
    /// Exits with 1 if anything is pending past due, or lost.
    #[arg(long)]
    check: bool,
}

fn state(word: &str) -> std::result::Result<State, String> {
    State::ALL.into_iter().find(|state| state.as_str() == word).ok_or_else(|| {
        let words: Vec<_> = State::ALL.iter().map(|state| state.as_str()).collect();
        format!("expected one of {}", words.join(", "))
    })
}

pub(super) async fn run(shell: &Shell, options: Options) -> Result {
    let config = shell.config()?;
    let ledger = shell.ledger(&config).await?;
    let entries = entries(ledger.as_ref()).await?;
    check_names(&options.which, &config, &entries)?;
    let now = shell.clock.now();
    let mut partitions = Partitions::all(&config, &entries, now).partitions;
    if options.check {
        // Partitions that a running daemon would have planned by now. If it is down, they are not in the ledger.
        let view = match &ledger {
            Some(ledger) => ledger.view(&Reach::of(&config.reports, now, now)).await?,
            None => LedgerView::default(),
        };
        let unplanned = plan::plan(&config.reports, &view, now).new;
        partitions.extend(unplanned.iter().map(|entry| PartitionStatus::new(entry, true, now)));
    }
    partitions.retain(|partition| {
        options.which.workspace.as_ref().is_none_or(|name| *name == partition.workspace)
            && options.which.report.as_ref().is_none_or(|id| *id == partition.report)
            && options.state.is_none_or(|state| state == partition.state)
            && options.since.is_none_or(|since| since <= partition.date)
    });
    partitions.sort_by(|a, b| (&a.workspace, &a.report, a.date).cmp(&(&b.workspace, &b.report, b.date)));
    let is_alarming = partitions
        .iter()
        .any(|partition| partition.configured && matches!(partition.state, State::Pending | State::Lost));
    shell.print(&Partitions { partitions }, |status| {
        format!("{}\n{}", table::partitions(&status.partitions, now), table::count(&status.partitions))
    })?;
    Ok(if options.check && is_alarming { Completion::Incomplete } else { Completion::Done })
}

/// Refuses a report or workspace that is neither configured nor recorded, and a report that is in several workspaces.
fn check_names(which: &Which, config: &Config, entries: &[Entry]) -> Result<()> {
    let recorded = entries.iter().map(|entry| &entry.partition.id.report);
    let ids: BTreeSet<&ReportId> = config.reports.iter().map(|report| &report.id).chain(recorded).collect();
    if let Some(workspace) = &which.workspace {
        let configured = config.workspaces.iter().map(|workspace| workspace.name.as_str());
        known("workspace", workspace, configured.chain(ids.iter().map(|id| id.workspace())))?;
    }
    let Some(report) = &which.report else { return Ok(()) };
    let in_workspace: Vec<_> =
        ids.iter().filter(|id| which.workspace.as_ref().is_none_or(|name| *name == id.workspace())).collect();
    known("report", report, in_workspace.iter().map(|id| id.name()))?;
    let workspaces: Vec<_> = in_workspace.iter().filter(|id| id.name() == *report).map(|id| id.workspace()).collect();
    if workspaces.len() > 1 {
        return Err(ambiguous(report, &workspaces));
    }
    Ok(())
}
