//! `moesync sync`: makes one pass.

use clap::Args;

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
    sync::{self, Context, Summary},
    telemetry::Chain,
    words::{PartitionStatus, Partitions},
};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    scope: Scope,
}

pub(super) async fn run(shell: &Shell, options: Options) -> Result {
    let config = shell.config()?;
    let selection = options.scope.selection(&config)?;
    let ctx = shell.start(config).await?;
    pass(shell, &ctx, sync::recover_and_pass(&ctx, &selection, stop_signal())).await
}

/// Makes a pass and prints the state of its partitions.
pub(super) async fn pass(
    shell: &Shell,
    ctx: &Context,
    pass: impl Future<Output = Result<Summary, LedgerError>>,
) -> Result {
    let dispatcher = Dispatcher::new(&ctx.config, ctx.clock.now()).map_err(CommandError::Usage)?;
    dispatch::register_targets(ctx).await?;
    let started = dispatcher.announce_start(ctx);
    let summary = dispatcher.evaluate_during(ctx, pass).await;
    // Print before notifying.
    let shown = summary.as_ref().map_or(Ok(()), |summary| show(shell, &ctx.config, summary));
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

fn show(shell: &Shell, config: &Config, summary: &Summary) -> Result<()> {
    let now = shell.clock.now();
    let configured = configured(config);
    let is_configured = |id: &crate::report::PartitionId| configured.contains_key(&id.report);
    let partitions = summary
        .entries
        .iter()
        .map(|entry| PartitionStatus::new(entry, is_configured(&entry.partition.id), now))
        .collect();
    shell.print(&Partitions { partitions }, |result| {
        if result.partitions.is_empty() {
            return "nothing was due\n".into();
        }
        format!("{}\n{}", table::partitions(&result.partitions, now), table::count(&result.partitions))
    })
}
