//! The daemon's loop: plans, attempts what is due, and sleeps until something changes.
//!
//! This file owns when the loop plans, and what wakes it. It acts on a [`Plan`](crate::plan::Plan) and decides nothing that
//! one contains.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::Arc,
};

use futures::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tracing::debug;

use super::{
    attempt::{AttemptError, Attempted},
    context::Context,
    log::{HeldWorkspaces, NextStep},
    replan::{PUBLISHING_DELAY, publish_plan, replan},
    supervise::{self, Pauses},
    workers::{Finished, OTHERS_INTERVAL, SLOTS_INTERVAL, Workers},
};
use crate::{
    ledger::LedgerError,
    plan::{Decision, Item},
    telemetry::Chain,
};

/// Commands to the daemon's loop.
pub enum LoopCommand {
    /// Plan now.
    Wake,
    /// Continue with this context. Running attempts end with theirs. Ignored if the ledger was opened again since.
    Reload(Arc<Context>),
    /// End with this error, after which the ledger has to be opened again. Ignored if it was since.
    Reopen {
        /// A context with the ledger that failed.
        of: Arc<Context>,
        /// How the ledger failed.
        error: LedgerError,
    },
}

/// The loop plans at least this often, also if the scheduler does not wake it. A plan that is older than 15 minutes counts
/// as a failure of the ledger.
const LONGEST_SLEEP: SignedDuration = SignedDuration::from_mins(12);

/// The loop plans at most this often, so that a bug in the plan does not occupy a processor.
const SHORTEST_SLEEP: SignedDuration = SignedDuration::from_millis(100);

/// How long the loop waits after a failure of the ledger: a connection may only have been cut. The pause doubles while
/// no attempt is recorded.
const FIRST_LEDGER_PAUSE: SignedDuration = SignedDuration::from_secs(1);
const LONGEST_LEDGER_PAUSE: SignedDuration = SignedDuration::from_secs(30);

/// The pauses after failures of the ledger.
#[derive(Debug)]
struct LedgerPauses {
    next: SignedDuration,
    until: Timestamp,
}

impl Default for LedgerPauses {
    fn default() -> Self {
        Self { next: FIRST_LEDGER_PAUSE, until: Timestamp::MIN }
    }
}

impl LedgerPauses {
    /// When the loop continues after a failure at `now`. Failures during a pause do not prolong it.
    fn after(&mut self, now: Timestamp) -> Timestamp {
        let is_over = now >= self.until || self.until.duration_since(now) > LONGEST_LEDGER_PAUSE;
        if is_over {
            self.until = now.checked_add(self.next).unwrap_or(now);
            self.next = (self.next * 2).min(LONGEST_LEDGER_PAUSE);
        }
        self.until
    }
}

/// The daemon's loop: plans, attempts, and sleeps until something changes, until `shutdown`.
///
/// # Errors
///
/// Those for which the ledger has to be opened again. After any other failure of the ledger the loop retries.
pub async fn continuously(
    ctx: Arc<Context>,
    commands: &mut mpsc::Receiver<LoopCommand>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), LedgerError> {
    let mut shutdown = pin!(shutdown);
    let mut workers = Workers::new(ctx);
    let mut pauses = Pauses::default();
    loop {
        let began = Instant::now();
        let turning = turn(&mut workers, commands, shutdown.as_mut());
        if let Ok(ended) = AssertUnwindSafe(turning).catch_unwind().await {
            return ended;
        }
        supervise::report(&workers.ctx.status, "the loop");
        workers.clear_queue();
        tokio::select! {
            () = &mut shutdown => {
                workers.drain().await;
                return Ok(());
            }
            () = tokio::time::sleep(pauses.next(began)) => {}
        }
    }
}

/// The loop itself. Running attempts belong to the caller, and continue when this panics.
async fn turn(
    workers: &mut Workers,
    commands: &mut mpsc::Receiver<LoopCommand>,
    mut shutdown: Pin<&mut impl Future<Output = ()>>,
) -> Result<(), LedgerError> {
    let mut held = HeldWorkspaces::default();
    let mut next_step = NextStep::default();
    let mut wake_at: Option<Timestamp> = None;
    let mut is_first = true;
    let mut is_partial = false;
    let mut publish_at: Option<Instant> = None;
    let mut ledger_pauses = LedgerPauses::default();
    loop {
        let now = workers.ctx.clock.now();
        let may_continue = is_partial && workers.has_answered;
        if may_continue || wake_at.is_none_or(|at| at <= now) {
            match replan(workers, is_first).await {
                Ok(planned) => {
                    let plan = &planned.plan;
                    publish_at = None;
                    wake_at = plan.next_change();
                    is_first = false;
                    held.log(&plan.items);
                    workers.forget_panics_unless_planned(plan);
                    is_partial = plan.is_partial;
                    // A plan with nothing to request needs no answer.
                    workers.has_answered =
                        if is_partial { plan.is_idle() && !workers.is_busy() } else { workers.has_answered };
                    workers.clear_queue();
                    let is_next = |item: &&Item| matches!(item.decision, Decision::Fetch | Decision::Refresh);
                    let is_free = |item: &&Item| !workers.has(&item.entry.partition.id);
                    let next: Vec<_> = plan.items.iter().filter(is_next).filter(is_free).cloned().collect();
                    workers.enqueue(next);
                    if !workers.has_queued() && !workers.is_busy() {
                        next_step.log(plan, now);
                    }
                }
                Err(error) if error.needs_reopening() => {
                    workers.drain().await;
                    return Err(error);
                }
                Err(error) => {
                    workers.ctx.status.note_ledger_failure(&error);
                    wake_at = Some(ledger_pauses.after(now));
                }
            }
        }
        if publish_at.take_if(|at| *at <= Instant::now()).is_some() {
            match publish_plan(workers).await {
                Ok(()) => {
                    let planned = workers.ctx.planned.latest();
                    let planned = planned.filter(|_| !workers.has_queued() && !workers.is_busy());
                    if let Some(planned) = planned {
                        next_step.log(&planned.plan, now);
                    }
                }
                // The next plan fails as well, and raises the alarm.
                Err(error) => debug!("could not publish the plan: {}", Chain(&error)),
            }
        }
        workers.start_ready();
        let wake = wake_at.unwrap_or(Timestamp::MAX).clamp(now + SHORTEST_SLEEP, now + LONGEST_SLEEP);
        // Kept, because a nap may end earlier.
        wake_at = Some(wake);
        workers.ctx.pulse.beat();
        workers.report_unanswered();
        let sleep = workers.ctx.clock.nap_until(wake);
        let finished = tokio::select! {
            // The order decides between what is ready at the same moment, so that it is the same each time.
            biased;
            () = &mut shutdown => {
                workers.drain().await;
                return Ok(());
            }
            command = commands.recv() => {
                match command {
                    Some(LoopCommand::Reload(context)) if context.has_ledger_of(&workers.ctx) => workers.reload(context),
                    Some(LoopCommand::Wake) => {}
                    Some(LoopCommand::Reopen { of, error }) if of.has_ledger_of(&workers.ctx) => {
                        workers.drain().await;
                        return Err(error);
                    }
                    // Sent before the ledger was opened again, which took over what they are about.
                    Some(LoopCommand::Reload(_) | LoopCommand::Reopen { .. }) => continue,
                    // All senders are gone: shut down.
                    None => {
                        workers.drain().await;
                        return Ok(());
                    }
                }
                wake_at = None;
                continue;
            }
            finished = workers.next(), if workers.is_busy() => finished,
            () = tokio::time::sleep(SLOTS_INTERVAL), if workers.has_waiting() => continue,
            () = sleep_until(publish_at.unwrap_or_else(Instant::now)), if publish_at.is_some() => continue,
            () = sleep => continue,
        };
        let Some(Finished { item, result }) = finished else { continue };
        let now = workers.ctx.clock.now();
        let soon = match result {
            Err(AttemptError::Panic) => workers.retried_at(&item.entry.partition.id),
            // Other processes work on what this plan has.
            Ok(Attempted::Changed | Attempted::Theirs) => Some(now + OTHERS_INTERVAL),
            Ok(Attempted::Done(done)) => {
                ledger_pauses = LedgerPauses::default();
                if done.hold.is_some() {
                    workers.unqueue(item.entry.partition.id.workspace());
                }
                publish_at.get_or_insert_with(|| Instant::now() + PUBLISHING_DELAY);
                done.entry.next_attempt_at
            }
            Err(AttemptError::Ledger(LedgerError::Fenced { partition })) => {
                debug!("{partition} was taken over by another process");
                Some(now + OTHERS_INTERVAL)
            }
            Err(AttemptError::Ledger(error)) if error.needs_reopening() => {
                workers.drain().await;
                return Err(error);
            }
            Err(AttemptError::Ledger(error)) => {
                workers.ctx.status.note_ledger_failure(&error);
                workers.clear_queue();
                Some(ledger_pauses.after(now))
            }
        };
        wake_at = wake_at.into_iter().chain(soon).min();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_after_failures_of_the_ledger_grow_and_failures_within_one_share_it() {
        let mut pauses = LedgerPauses::default();
        let start: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let mut now = start;
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            let until = pauses.after(now);
            assert_eq!(until.duration_since(now), SignedDuration::from_secs(seconds));
            assert_eq!(pauses.after(now + SignedDuration::from_millis(500)), until);
            now = until;
        }
        // The clock was set back.
        assert_eq!(pauses.after(start).duration_since(start), SignedDuration::from_secs(30));
    }
}
