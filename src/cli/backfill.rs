//! `moesync backfill`: fetches past partitions of a report.

use clap::Args;
use comfy_table::Cell;
use jiff::{Timestamp, ToSpan as _};

use super::{
    CommandError, Completion, Result,
    dates::{WrittenDate, date, today},
    scope::Scope,
    shell::Shell,
    sync::{Beside, pass},
    table::{self, Look},
};
use crate::{
    config::Config,
    partition::Entry,
    plan::{self, Backfill},
    report::Partition,
    sync::{self, Selection},
    words::{BackfillPartition, BackfillPreview, PartitionStatus},
};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    scope: Scope,
    /// First date.
    #[arg(long, value_name = "DATE", value_parser = date, allow_hyphen_values = true)]
    from: WrittenDate,
    /// Last date.
    #[arg(long, value_name = "DATE", value_parser = date, allow_hyphen_values = true)]
    to: WrittenDate,
    /// Every date, not only those of the schedule.
    #[arg(long)]
    every_day: bool,
    /// Shows what would be requested; changes nothing.
    #[arg(long)]
    dry_run: bool,
    /// Also requests dates that MoEngage has probably deleted. Dates that it denies become absent, without an alarm.
    #[arg(long)]
    ask_anyway: bool,
}

pub(super) async fn run(shell: &Shell, options: Options) -> Result {
    let config = shell.config()?;
    let report = options.scope.one(&config)?;
    let today = today(&options.scope, &config, shell.clock.now());
    let (from, to) = (options.from.on(today), options.to.on(today));
    let Options { every_day, dry_run, ask_anyway, .. } = options;
    if report.source.kind().is_live_listing() {
        return Err(CommandError::Usage(format!(
            "report `{}` is a live listing ({}): MoEngage serves only its present state, so past dates cannot be fetched",
            report.id.name(),
            report.source.kind()
        )));
    }
    if from > to {
        return Err(CommandError::Usage(format!("--from {from} is after --to {to}")));
    }
    let now = shell.clock.now();
    // Dates after the next year need not be named.
    let to = to.min(today.saturating_add(1.year()).max(from));
    let Backfill { requested, future } = plan::backfill(&report, from, to, every_day, now);
    if requested.is_empty() {
        return Err(CommandError::Usage(format!(
            "report `{}` has no scheduled date from {from} to {to} that is in the past{}",
            report.id.name(),
            if every_day { "" } else { "; --every-day selects every date" }
        )));
    }
    if !ask_anyway {
        refuse_expired(report.id.name(), &requested, now)?;
    }
    if dry_run {
        return preview(shell, &config, Backfill { requested, future }, now).await;
    }
    let ctx = shell.context(config).await?;
    ctx.ledger.reopen(&requested).await?;
    let partitions = requested.into_iter().map(|entry| entry.partition.id).collect();
    let selection = Selection { partitions: Some(partitions), ..Selection::default() };
    let beside = match named(&dates(future.iter())) {
        None => Beside { nothing: "every date that was named is stored already", ..Beside::default() },
        Some(dates) => Beside {
            nothing: "every date that was named and is generated is stored already",
            note: format!("not generated yet, so not requested: {dates}\n"),
            partitions: future.into_iter().map(|partition| PartitionStatus::upcoming(partition, now)).collect(),
        },
    };
    pass(shell, &ctx, &selection, beside, sync::once(&ctx, &selection, shell.stopped())).await
}

/// Dates that are named one by one.
const NAMED: usize = 7;

fn dates<'p>(partitions: impl Iterator<Item = &'p Partition>) -> Vec<String> {
    partitions.map(|partition| partition.id.date.to_string()).collect()
}

/// The dates as text: many by their number and their ends. `None` without any.
fn named(dates: &[String]) -> Option<String> {
    match dates {
        [] => None,
        [first, .., last] if dates.len() > NAMED => Some(format!("{} dates from {first} to {last}", dates.len())),
        few => Some(few.join(", ")),
    }
}

/// Fails if MoEngage has deleted any of the dates by now, and names them.
fn refuse_expired(report: &str, requested: &[Entry], now: Timestamp) -> Result<()> {
    let is_expired = |entry: &&Entry| entry.partition.expires_at.is_some_and(|expiry| expiry <= now);
    let expired = requested.iter().filter(is_expired).map(|entry| &entry.partition);
    let Some(named) = named(&dates(expired)) else { return Ok(()) };
    let first_kept = requested.iter().find(|entry| !is_expired(entry)).map(|entry| entry.partition.id.date);
    let advice = first_kept.map(|date| format!("use --from {date}, or ")).unwrap_or_default();
    Err(CommandError::Usage(format!(
        "MoEngage keeps a campaign report for seven days, so these dates of report `{report}` are past its retention: \
         {named}; {advice}request them with --ask-anyway (a date that MoEngage denies becomes absent)"
    )))
}

async fn preview(shell: &Shell, config: &Config, backfill: Backfill, now: Timestamp) -> Result {
    let Backfill { requested, future } = backfill;
    let ledger = shell.ledger(config).await?;
    let mut partitions = Vec::new();
    for entry in requested {
        let known = match &ledger {
            Some(ledger) => ledger.entry_of(&entry.partition.id).await?,
            None => None,
        };
        partitions.push(BackfillPartition::new(entry, known, now));
    }
    partitions.extend(future.into_iter().map(|partition| BackfillPartition::future(partition, now)));
    shell.print(&BackfillPreview { partitions }, |preview| show(preview, shell.look(config), now))?;
    Ok(Completion::Done)
}

fn show(preview: &BackfillPreview, look: Look, now: Timestamp) -> String {
    let mut rows = look.table(["WORKSPACE", "REPORT", "DATE", "STATE", "EXPIRES IN", "WHY"]);
    for BackfillPartition { status, reason, .. } in &preview.partitions {
        rows.add_row([
            Cell::new(&status.workspace),
            Cell::new(&status.report),
            Cell::new(status.date),
            Cell::new(status.state.as_str()),
            Cell::new(table::left(status.expires_at, now)),
            Cell::new(reason),
        ]);
    }
    let requested = preview.partitions.iter().filter(|partition| partition.asked).count();
    format!("{}\n{requested} would be requested\n", rows.text())
}
