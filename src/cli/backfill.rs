//! `moesync backfill`: fetches past partitions of a report.

use clap::Args;
use comfy_table::Cell;
use jiff::Timestamp;

use super::{
    CommandError, Completion, Result,
    dates::{WrittenDate, date, today},
    scope::Scope,
    shell::Shell,
    sync::pass,
    table::{self, Look},
};
use crate::{
    config::Config,
    partition::Entry,
    plan,
    sync::{self, Selection},
    words::{BackfillPartition, BackfillPreview},
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
    /// Also requests dates that MoEngage has probably deleted. Dates that it denies become absent, without an alert.
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
    let requested = plan::backfill(&report, from, to, every_day, now);
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
        return preview(shell, &config, requested, now).await;
    }
    let ctx = shell.context(config).await?;
    ctx.ledger.reopen(&requested).await?;
    let partitions = requested.into_iter().map(|entry| entry.partition.id).collect();
    let selection = Selection { partitions: Some(partitions), ..Selection::default() };
    let nothing = "every date that was named is stored already";
    pass(shell, &ctx, &selection, nothing, sync::once(&ctx, &selection, shell.stopped())).await
}

/// Dates that an error names one by one.
const NAMED: usize = 7;

/// Fails if MoEngage has deleted any of the dates by now, and names them.
fn refuse_expired(report: &str, requested: &[Entry], now: Timestamp) -> Result<()> {
    let is_expired = |entry: &&Entry| entry.partition.expires_at.is_some_and(|expiry| expiry <= now);
    let dates: Vec<_> = requested.iter().filter(is_expired).map(|entry| entry.partition.id.date.to_string()).collect();
    let named = match &dates[..] {
        [] => return Ok(()),
        [first, .., last] if dates.len() > NAMED => format!("{} dates from {first} to {last}", dates.len()),
        few => few.join(", "),
    };
    let first_kept = requested.iter().find(|entry| !is_expired(entry)).map(|entry| entry.partition.id.date);
    let advice = first_kept.map(|date| format!("use --from {date}, or ")).unwrap_or_default();
    Err(CommandError::Usage(format!(
        "MoEngage keeps a campaign report for seven days, so these dates of report `{report}` are past its retention: \
         {named}; {advice}request them with --ask-anyway (a date that MoEngage denies becomes absent)"
    )))
}

async fn preview(shell: &Shell, config: &Config, requested: Vec<Entry>, now: Timestamp) -> Result {
    let ledger = shell.ledger(config).await?;
    let mut partitions = Vec::new();
    for entry in requested {
        let known = match &ledger {
            Some(ledger) => ledger.entry_of(&entry.partition.id).await?,
            None => None,
        };
        partitions.push(BackfillPartition::new(entry, known, now));
    }
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
