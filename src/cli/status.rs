//! `moesync status`: the partitions and their state.

use std::collections::HashSet;

use clap::Args;
use jiff::{Timestamp, civil::Date};

use super::{
    Ended, Result, Shell, Which, configured, date, entries, table,
    words::{PartitionStatus, Partitions},
};
use crate::{config::Config, outcome::Entry, outcome::State, schedule};

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
    let now = shell.clock.now();
    let mut partitions = all(&config, &entries, now);
    partitions.retain(|partition| {
        options.which.workspace.as_ref().is_none_or(|name| *name == partition.workspace)
            && options.which.report.as_ref().is_none_or(|id| *id == partition.report)
            && options.state.is_none_or(|state| state == partition.state)
            && options.since.is_none_or(|since| since <= partition.date)
    });
    let is_alarming = partitions
        .iter()
        .any(|partition| partition.configured && matches!(partition.state, State::Pending | State::Lost));
    shell.print(&Partitions { partitions }, |status| {
        format!("{}\n{}", table::partitions(&status.partitions, now), table::count(&status.partitions))
    })?;
    Ok(if options.check && is_alarming { Ended::Incomplete } else { Ended::Done })
}

/// All of the ledger, plus the next scheduled partition of each report.
fn all(config: &Config, entries: &[Entry], now: Timestamp) -> Vec<PartitionStatus> {
    let configured = configured(config);
    let known: HashSet<_> = entries.iter().map(|entry| &entry.partition.id).collect();
    let recorded = entries
        .iter()
        .map(|entry| PartitionStatus::new(entry, configured.contains_key(&entry.partition.id.report_id()), now));
    let next = config.reports.iter().filter_map(|report| {
        let partition = report.partition(schedule::next(report, now)?);
        (!known.contains(&partition.id)).then(|| PartitionStatus::upcoming(partition, now))
    });
    let mut partitions: Vec<_> = recorded.chain(next).collect();
    partitions.sort_by(|a, b| (&a.workspace, &a.report, a.date).cmp(&(&b.workspace, &b.report, b.date)));
    partitions
}
