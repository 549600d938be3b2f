//! `moesync tables rebuild`: makes the tables of stored partitions again.

use std::sync::Arc;

use clap::Args;

use super::{
    CommandError, Completion, Result,
    dates::{DateRange, today},
    scope::Scope,
    shell::Shell,
};
use crate::{
    ledger::Choice,
    sync::{self, Progress, TablesSummary},
    words::{RebuiltTables, UnmadeTables},
};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    dates: DateRange,
}

pub(super) async fn run(shell: &Shell, options: Options) -> Result {
    let config = shell.config()?;
    let selection = options.scope.selection(&config)?;
    let dates = options.dates.dates(today(&options.scope, &config, shell.clock.now()))?;
    let mut covered = config.reports.iter().filter(|report| selection.covers_report(&report.id));
    if covered.all(|report| report.tables.is_none()) {
        return Err(CommandError::Usage(
            "no report that is selected has the key `tables`, which makes tables of what is stored".to_owned(),
        ));
    }
    let progress: Arc<dyn Progress> = Arc::new(shell.bars.clone());
    let ctx = Arc::new(sync::start_offline(config, Arc::clone(&shell.clock), progress).await?);
    // The ledger may be new.
    sync::recover(&ctx, &selection).await?;
    let choice = Choice { workspace: selection.workspace, report: selection.report, since: dates.from };
    let made = sync::tables_again(&ctx, &choice, dates.to, shell.stopped()).await;
    ctx.ledger.close().await;
    let TablesSummary { partitions, objects, rows, failed, is_whole } = made?;
    let failed = failed.into_iter().map(|(id, message)| UnmadeTables {
        workspace: id.workspace().to_owned(),
        report: id.report.name().to_owned(),
        date: id.date,
        message,
    });
    let rebuilt = RebuiltTables { partitions, objects, rows, failed: failed.collect(), complete: is_whole };
    shell.print(&rebuilt, show)?;
    Ok(if is_whole && rebuilt.failed.is_empty() { Completion::Done } else { Completion::Incomplete })
}

fn show(rebuilt: &RebuiltTables) -> String {
    let RebuiltTables { partitions, objects, rows, failed, complete } = rebuilt;
    let failures: String = failed
        .iter()
        .map(|failed| format!("{}/{} {}: {}\n", failed.workspace, failed.report, failed.date, failed.message))
        .collect();
    let rest =
        if *complete { "" } else { "; stopped before the end, the rest is made by `moesync sync` or the daemon" };
    format!("{failures}tables of {partitions} partitions made again: {objects} objects, {rows} rows{rest}\n")
}
