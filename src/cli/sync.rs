//! `moesync sync`: makes one pass.

use std::sync::Arc;

use clap::{Args, builder::UnknownArgumentValueParser};

use super::{
    CommandError, Completion, Result,
    scope::{Scope, configured},
    shell::{Shell, stop_signal},
    table,
};
use crate::{
    config::Config,
    dispatch::{self, Dispatcher},
    ledger::LedgerError,
    sync::{self, Context, Selection, Summary, TablesSummary},
    telemetry::Chain,
    words::{PartitionStatus, Partitions},
};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    scope: Scope,
    /// Refused, with a tip: other tools have it.
    #[arg(long, hide = true, num_args = 0, default_missing_value = "",
          value_parser = UnknownArgumentValueParser::suggest("`moesync plan` shows what would be fetched"))]
    dry_run: Option<String>,
}

pub(super) async fn run(shell: &Shell, options: Options) -> Result {
    let config = shell.config()?;
    let selection = options.scope.selection(&config)?;
    let ctx = shell.start(config).await?;
    let beside = Beside { nothing: "nothing was due", ..Beside::default() };
    pass(shell, &ctx, &selection, beside, sync::recover_and_pass(&ctx, &selection, shell.stopped())).await
}

/// What is printed beside the partitions of a pass.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// Instead of them, if there are none.
    pub(super) nothing: &'static str,
    /// Lines after them.
    pub(super) note: String,
    /// Partitions that are not part of the pass, which the note is about.
    pub(super) partitions: Vec<PartitionStatus>,
}

/// Makes a pass, then the tables of the selected partitions, and prints the state of the pass's partitions.
pub(super) async fn pass(
    shell: &Shell,
    ctx: &Arc<Context>,
    selection: &Selection,
    beside: Beside,
    pass: impl Future<Output = Result<Summary, LedgerError>>,
) -> Result {
    let dispatcher = Dispatcher::new(&ctx.config, ctx.clock.now()).map_err(CommandError::Usage)?;
    dispatch::register_targets(ctx).await?;
    let started = dispatcher.announce_start(ctx);
    let pass = async {
        sync::note_table_reports(ctx).await?;
        let mut summary = pass.await?;
        let tables = match summary.is_whole {
            true => sync::derive_once(ctx, selection, shell.stopped()).await?,
            false => TablesSummary::default(),
        };
        for entry in summary.entries.iter_mut().filter(|entry| entry.tables.is_some()) {
            // They were made since.
            entry.tables = ctx.ledger.tables_of(&entry.partition.id).await?.map(|tables| tables.state);
        }
        Ok::<_, LedgerError>((summary, tables))
    };
    let (summary, tables) = match dispatcher.evaluate_during(ctx, pass).await {
        Ok((summary, tables)) => (Ok(summary), tables),
        Err(error) => (Err(error), TablesSummary::default()),
    };
    // Print before notifying.
    let shown = summary.as_ref().map_or(Ok(()), |summary| show(shell, &ctx.config, summary, &tables, beside));
    let fault = match &summary {
        Ok(summary) if summary.is_complete() => None,
        Ok(_) => Some("the pass did not store every due partition".to_owned()),
        Err(error) => Some(format!("the pass failed: {}", Chain(error))),
    };
    tokio::select! {
        () = async {
            started.join_all().await;
            dispatcher.finish(ctx, fault.as_deref()).await;
        } => {}
        () = stop_signal() => {}
    }
    ctx.ledger.close().await;
    let summary = summary?;
    shown?;
    Ok(if summary.is_complete() { Completion::Done } else { Completion::Incomplete })
}

fn show(shell: &Shell, config: &Config, summary: &Summary, tables: &TablesSummary, beside: Beside) -> Result<()> {
    let Beside { nothing, note, partitions: others } = beside;
    let now = shell.clock.now();
    let configured = configured(config);
    let is_configured = |id: &crate::report::PartitionId| configured.contains_key(&id.report);
    let partitions = summary
        .entries
        .iter()
        .map(|entry| PartitionStatus::new(entry, is_configured(&entry.partition.id), now))
        .chain(others)
        .collect();
    shell.print(&Partitions { partitions }, |result| {
        let made = made(tables);
        let passed = result.partitions.get(..summary.entries.len()).unwrap_or_default();
        if passed.is_empty() {
            return format!("{nothing}\n{note}{made}");
        }
        format!("{}\n{}\n{note}{made}", shell.look(config).partitions(passed, now), table::count(passed))
    })
}

/// A line about the tables that were made, and one for each partition whose tables could not be.
fn made(tables: &TablesSummary) -> String {
    let TablesSummary { partitions, objects, rows, failed, .. } = tables;
    let failed: String = failed.iter().map(|(id, message)| format!("no tables of {id}: {message}\n")).collect();
    match partitions {
        0 => failed,
        _ => format!("{failed}tables of {partitions} partitions: {rows} rows in {objects} objects\n"),
    }
}
