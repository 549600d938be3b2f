//! `moesync backfill`: past partitions, asked for by hand.

use clap::Args;
use jiff::civil::Date;

use super::{Failure, Result, Shell, Which, date, sync};
use crate::{plan, sync::Selection};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    which: Which,
    /// First date.
    #[arg(long, value_name = "DATE", value_parser = date)]
    from: Date,
    /// Last date.
    #[arg(long, value_name = "DATE", value_parser = date)]
    to: Date,
    /// Every day, rather than the schedule's dates.
    #[arg(long)]
    every_day: bool,
}

pub(super) async fn run(shell: &Shell, options: Options) -> Result {
    let config = shell.config()?;
    let report = options.which.one(&config)?;
    let Options { from, to, every_day, .. } = options;
    if report.source.is_live_listing() {
        return Err(Failure::Usage(format!(
            "report `{}` is a live listing ({}): MoEngage shows only its present state, so a past one cannot be had",
            report.id, report.source
        )));
    }
    if from > to {
        return Err(Failure::Usage(format!("--from {from} is after --to {to}")));
    }
    let now = shell.clock.now();
    let partitions = plan::backfill(&report, from, to, every_day, now);
    if partitions.is_empty() {
        return Err(Failure::Usage(format!(
            "report `{}` has no scheduled date from {from} to {to} that has come yet{}",
            report.id,
            if every_day { "" } else { "; --every-day asks for every date" }
        )));
    }
    let ctx = shell.context(config).await?;
    ctx.ledger.reopen(&partitions).await?;
    let partitions = partitions.into_iter().map(|partition| partition.id).collect();
    let selection = Selection { partitions: Some(partitions), ..Selection::default() };
    sync::pass(shell, &ctx, &selection).await
}
