//! Recovery: removes what dead processes left, and adopts stored objects that are not in the ledger.
//!
//! This file owns when that happens: for each destination separately, beside the attempts, and repeatedly until the
//! destination could be read completely. Which manifests are valid is decided in `rebuild`.

use std::{
    collections::HashSet,
    future::{Future, pending},
    sync::Arc,
    time::Duration,
};

use futures::{
    FutureExt,
    future::{join_all, try_join_all},
};
use jiff::Timestamp;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::timeout,
};
use tracing::{info, warn};

use super::{
    context::Context,
    daemon_loop::LoopCommand,
    duty::on_duty,
    pass::{Selection, Summary, once},
    rebuild::{Rebuilt, rebuild},
};
use crate::{
    ledger::{Duty, LedgerError},
    retry,
    store::Destination,
    telemetry::Chain,
};

/// How long a command reads the manifests of one destination. Objects that were adopted by then stay, and each partition
/// is looked for before it is downloaded.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long a command waits for the first answer of a destination: one that hangs must not delay the others.
const LONGEST_SILENCE: Duration = Duration::from_secs(15);

/// Number of attempts that are deleted in one transaction, the pause before the next one, and the time between two runs.
const PRUNED_TOGETHER: u64 = 1000;
const PRUNING_PAUSE: Duration = Duration::from_secs(1);
const PRUNING_INTERVAL: Duration = Duration::from_secs(24 * 3600);

const SWEEPING_INTERVAL: Duration = Duration::from_secs(3600);

/// Recovers the destinations of the selected reports once, concurrently. A destination that cannot be reached is left to
/// the next command or the daemon.
///
/// Returns whether there may be more to plan than before.
///
/// # Errors
///
/// When the ledger cannot be read or written.
pub async fn recover(ctx: &Context, selection: &Selection) -> Result<bool, LedgerError> {
    ctx.ledger.note_interrupted().await?;
    prune(ctx).await?;
    let is_selected = |destination: &&Destination| {
        let mut reports = ctx.config.reports.iter();
        reports.any(|report| report.destination.name == destination.name() && selection.covers_report(&report.id))
    };
    let each = ctx.destinations.values().filter(is_selected).map(|destination| {
        async move {
            let answered = Notify::new();
            let recovering = recover_from(ctx, destination, || answered.notify_one());
            match within_patience(&answered, recovering).await {
                Ok(recovered) => Ok(recovered?.has_changed),
                Err(waited) => {
                    let destination = destination.name();
                    warn!(destination, "stopped reading manifests after {waited:?}; the next start continues");
                    // What was read by then is recorded.
                    Ok(true)
                }
            }
        }
        .boxed()
    });
    let have_changed: Vec<bool> = join_all(each).await.into_iter().collect::<Result<_, _>>()?;
    Ok(have_changed.contains(&true))
}

/// A pass, as [`once`]: beside the recovery, and once more if that has found more to plan. With a new or lost ledger the
/// pass begins after the recovery.
///
/// # Errors
///
/// When the ledger cannot be read or written.
pub async fn recover_and_pass(
    ctx: &Arc<Context>,
    selection: &Selection,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<Summary, LedgerError> {
    let shutdown = shutdown.shared();
    let recovering = async {
        tokio::select! {
            recovered = recover(ctx, selection) => recovered,
            () = shutdown.clone() => Ok(false),
        }
    };
    if ctx.ledger.recovered().await?.is_empty() {
        recovering.await?;
        return once(ctx, selection, shutdown).await;
    }
    let passing = once(ctx, selection, shutdown.clone());
    let (has_changed, mut summary) = tokio::try_join!(recovering.boxed(), passing.boxed())?;
    if has_changed {
        let second = once(ctx, selection, shutdown).boxed().await?;
        summary.extend(second);
    }
    Ok(summary)
}

/// Does `work` at a destination; `answered` is notified of its first answer.
///
/// # Errors
///
/// How long it was waited for, if that was too long.
async fn within_patience<T>(answered: &Notify, work: impl Future<Output = T>) -> Result<T, Duration> {
    let silence = async {
        if timeout(LONGEST_SILENCE, answered.notified()).await.is_ok() {
            pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        done = timeout(PATIENCE, work) => done.map_err(|_| PATIENCE),
        () = silence => Err(LONGEST_SILENCE),
    }
}

/// Recovers beside the daemon's loop, and again for each of the `contexts`. A destination that cannot be read is retried
/// with growing pauses. The loop is woken when there is more to plan, and gets [`LoopCommand::Reopen`] when the ledger has to
/// be opened again.
pub async fn recover_continuously(mut contexts: watch::Receiver<Arc<Context>>, loop_: mpsc::Sender<LoopCommand>) {
    loop {
        let ctx = contexts.borrow_and_update().clone();
        let recovering = async {
            if let Err(error) = on_duty(&ctx, Duty::Recovery, || recover_until_whole(&ctx, &loop_)).await {
                // An error means that the process ends.
                let _ = loop_.send(LoopCommand::Reopen { of: Arc::clone(&ctx), error }).await;
            }
            pending::<()>().await;
        };
        tokio::select! {
            () = recovering => {}
            changed = contexts.changed() => if changed.is_err() { return },
        }
    }
}

async fn recover_until_whole(ctx: &Context, loop_: &mpsc::Sender<LoopCommand>) -> Result<(), LedgerError> {
    let mut number = 0;
    while let Err(error) = ctx.ledger.note_interrupted().await {
        pause(ctx, &mut number, Some(error)).await?;
    }
    let mut each = vec![check_ledger(ctx).boxed(), prune_daily(ctx).boxed(), sweep_continuously(ctx).boxed()];
    for destination in ctx.destinations.values() {
        each.push(recover_from_until_whole(ctx, destination, loop_).boxed());
    }
    try_join_all(each).await.map(drop)
}

/// Deletes attempts older than `ledger.keep_attempts`, daily.
async fn prune_daily(ctx: &Context) -> Result<(), LedgerError> {
    loop {
        match prune(ctx).await {
            Ok(PRUNED_TOGETHER) => ctx.clock.sleep(PRUNING_PAUSE).await,
            Ok(_) => ctx.clock.sleep(PRUNING_INTERVAL).await,
            Err(error) if error.needs_reopening() => return Err(error),
            Err(error) => {
                warn!("could not delete old attempts: {}", Chain(&error));
                ctx.clock.sleep(PRUNING_INTERVAL).await;
            }
        }
    }
}

async fn prune(ctx: &Context) -> Result<u64, LedgerError> {
    let before = ctx.clock.now().checked_sub(ctx.config.keep_attempts).unwrap_or(Timestamp::MIN);
    ctx.ledger.prune_attempts(before, PRUNED_TOGETHER).await
}

/// Checks the whole ledger. Opening it checks only the part that work begins with.
async fn check_ledger(ctx: &Context) -> Result<(), LedgerError> {
    match ctx.ledger.check_whole().await {
        Err(error) if error.needs_reopening() => Err(error),
        Err(error) => {
            warn!("could not check the whole ledger: {}", Chain(&error));
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

async fn recover_from_until_whole(
    ctx: &Context,
    destination: &Destination,
    loop_: &mpsc::Sender<LoopCommand>,
) -> Result<(), LedgerError> {
    let mut number = 0;
    loop {
        let failure = match recover_from(ctx, destination, || ()).await {
            Ok(rebuilt) => {
                if rebuilt.has_changed {
                    // A full inbox means that the loop is about to plan anyway.
                    let _ = loop_.try_send(LoopCommand::Wake);
                }
                if rebuilt.is_whole {
                    return Ok(());
                }
                None
            }
            Err(error) => Some(error),
        };
        pause(ctx, &mut number, failure).await?;
    }
}

/// Pauses before the next try, at the intervals of any retry.
///
/// # Errors
///
/// The `failure` of the ledger, if the ledger has to be opened again.
async fn pause(ctx: &Context, number: &mut u32, failure: Option<LedgerError>) -> Result<(), LedgerError> {
    match failure {
        Some(error) if error.needs_reopening() => return Err(error),
        Some(error) => warn!("ledger write failed during recovery, retrying: {}", Chain(&error)),
        None => {}
    }
    *number += 1;
    ctx.clock.sleep(retry::delay(*number, ctx.clock.jitter()).unsigned_abs()).await;
    Ok(())
}

/// `answered` is called for each answer of the destination.
async fn recover_from(
    ctx: &Context,
    destination: &Destination,
    answered: impl Fn() + Sync,
) -> Result<Rebuilt, LedgerError> {
    let ((), rebuilt) = tokio::join!(sweep(ctx, destination), rebuild(ctx, destination, &answered));
    rebuilt
}

/// Removes, each hour, the staged uploads of processes that died since the start.
async fn sweep_continuously(ctx: &Context) -> Result<(), LedgerError> {
    loop {
        ctx.clock.sleep(SWEEPING_INTERVAL).await;
        for destination in ctx.destinations.values() {
            sweep(ctx, destination).await;
        }
    }
}

/// Removes the staged uploads of dead processes of this ledger.
async fn sweep(ctx: &Context, destination: &Destination) {
    let swept = async {
        let mut dead = HashSet::new();
        for holder in destination.staged_holders().await? {
            // Processes with other ledgers may share the destination. Whether they live is unknown here.
            if holder.starts_with(&ctx.place) && !ctx.ledger.is_alive(&holder).await {
                dead.insert(holder);
            }
        }
        if dead.is_empty() { Ok(0) } else { destination.sweep(&dead).await }
    };
    match swept.await {
        Ok(0) => {}
        Ok(removed) => {
            info!(destination = destination.name(), removed, "removed unfinished uploads of a dead process")
        }
        Err(error) => warn!(destination = destination.name(), "could not list unfinished uploads: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_command_waits_briefly_for_silence_and_longer_for_an_answering_destination() {
        let answered = Notify::new();
        assert_eq!(within_patience(&answered, pending::<()>()).await, Err(LONGEST_SILENCE));
        let answers_then = async |rest| {
            sleep(LONGEST_SILENCE / 2).await;
            answered.notify_one();
            sleep(rest).await;
        };
        assert_eq!(within_patience(&answered, answers_then(PATIENCE / 2)).await, Ok(()));
        assert_eq!(within_patience(&answered, answers_then(PATIENCE)).await, Err(PATIENCE));
    }
}
