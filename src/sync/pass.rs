//! One pass over the due partitions, and the daemon's loop.
//!
//! This file owns when the plan is made, and the waiting between plans. It acts on a [`Plan`](crate::plan::Plan) and
//! decides nothing that one contains.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    future::Future,
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use futures::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tracing::{debug, info};

use super::{
    attempt::{AttemptError, Attempted},
    clock::{jitter, until},
    context::Context,
    log::HeldWorkspaces,
    planned::Planned,
    supervise::{self, Pauses},
    workers::{Finished, Workers},
};
use crate::{
    ledger::LedgerError,
    outcome::Outcome,
    partition::{Entry, Settled, State},
    plan::{Decision, Item, LedgerView},
    report::PartitionId,
    retry::{self, QUICK_TRIES},
    telemetry::Chain,
};

/// The partitions that a command is about; all by default.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only this workspace.
    pub workspace: Option<String>,
    /// Only the report with this id.
    pub report: Option<String>,
    /// Only these partitions.
    pub partitions: Option<HashSet<PartitionId>>,
}

impl Selection {
    /// Whether the selection covers a partition.
    pub fn covers(&self, id: &PartitionId) -> bool {
        self.workspace.as_ref().is_none_or(|workspace| *workspace == id.workspace())
            && self.report.as_ref().is_none_or(|report| report == id.report.name())
            && self.partitions.as_ref().is_none_or(|partitions| partitions.contains(id))
    }
}

/// The result of one pass.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// The selected partitions that were due in this pass, as they are after it.
    pub entries: Vec<Entry>,
    /// Whether the pass finished. If not, it was stopped.
    pub is_whole: bool,
}

impl Summary {
    /// Whether every selected partition that is due is stored or was never published, and every refresh succeeded.
    pub fn is_complete(&self) -> bool {
        let is_done = |entry: &Entry| match entry.settled {
            Settled::Stored => entry.outcome == Some(Outcome::Stored),
            Settled::Absent => true,
            Settled::Open | Settled::Lost => false,
        };
        self.is_whole && self.entries.iter().all(is_done)
    }
}

/// Commands to the daemon's loop.
pub enum LoopCommand {
    /// Plan now.
    Wake,
    /// Continue with this context. Running attempts end with theirs.
    Reload(Arc<Context>),
    /// End with this error, after which the ledger has to be opened again. Ignored if it was since.
    Reopen {
        /// A context with the ledger that failed.
        of: Arc<Context>,
        /// How the ledger failed.
        error: LedgerError,
    },
}

/// The longest hold that a pass waits for. Longer ones are left to the next pass.
const LONGEST_PATIENCE: SignedDuration = SignedDuration::from_secs(30);

/// How often slots are counted again while items are queued: an attempt that gets stuck frees one.
const SLOTS_INTERVAL: Duration = Duration::from_secs(1);

/// Longer sleeps are divided, so that a clock that is set back does not prolong them, and the loop shows that it runs.
const LONGEST_NAP: Duration = Duration::from_secs(5);

/// How often a partition is tried that another process has claimed.
const OTHERS_INTERVAL: SignedDuration = SignedDuration::from_secs(1);

/// The loop plans at least this often.
const LONGEST_SLEEP: SignedDuration = SignedDuration::from_mins(5);

/// The loop plans at most this often, so that a bug in the plan does not occupy a processor.
const SHORTEST_SLEEP: SignedDuration = SignedDuration::from_millis(100);

/// Most plans of one pass. After a long downtime each plan covers five weeks.
const MOST_STEPS: usize = 100;

/// How long after an attempt a new plan is published, so that many attempts cause one plan. Shorter than the pause after
/// an attempt that begins an alarm, so that readers see the alarm before the next attempt can end it.
const PUBLISHING_DELAY: Duration = Duration::from_millis(250);

/// How long the loop waits after a failure of the ledger.
const LEDGER_PAUSE: SignedDuration = SignedDuration::from_secs(30);

/// One pass: attempts every selected partition that is due and not stored, with the quick retries. Backoffs are ignored,
/// holds of workspaces are not. Ends early when `shutdown` does.
///
/// # Errors
///
/// When the ledger cannot be read or written.
pub async fn once(
    ctx: &Arc<Context>,
    selection: &Selection,
    shutdown: impl Future<Output = ()>,
) -> Result<Summary, LedgerError> {
    let mut shutdown = pin!(shutdown);
    let mut workers = Workers::new(Arc::clone(ctx));
    let mut summary = Summary::default();
    let mut selected: HashSet<PartitionId> = HashSet::new();
    let mut tries: HashMap<PartitionId, u32> = HashMap::new();
    let mut later: BTreeMap<(Timestamp, PartitionId), Item> = BTreeMap::new();
    let mut waited_for: HashSet<PartitionId> = HashSet::new();

    let mut held = HeldWorkspaces::default();
    let mut next_publication = Instant::now();
    'planning: for step in 0..MOST_STEPS {
        let planned = replan(&workers, step == 0).await?;
        let plan = &planned.plan;
        let now = ctx.clock.now();
        let before = selected.len();
        held.log(&only_held(&plan.items, |item| selection.covers(&item.entry.partition.id)));
        workers.has_answered = false;
        // A command probes workspaces that are held after a refusal, and the first refusal ends the probe: the partition whose
        // last attempt is oldest comes first, so that each one is attempted at some time.
        let mut refused: Vec<Item> = Vec::new();
        for item in &plan.items {
            let id = item.entry.partition.id.clone();
            if item.report.is_none() || !selection.covers(&id) || !selected.insert(id.clone()) {
                continue;
            }
            let item = item.clone();
            match item.decision {
                Decision::Fetch | Decision::Refresh | Decision::Backoff { .. } => workers.queue.push_back(item),
                Decision::Held { outcome: Outcome::Unauthorized, .. } => refused.push(item),
                Decision::Held { until, .. } if until.duration_since(now) <= LONGEST_PATIENCE => {
                    later.insert((until, id), item);
                }
                Decision::Held { .. } => {}
                Decision::NotDue { .. } | Decision::Unconfigured => {
                    selected.remove(&id);
                }
            }
        }
        refused.sort_by_key(|item| item.entry.last_attempt_at);
        workers.queue.extend(refused);
        loop {
            let now = ctx.clock.now();
            // An alarm is published before the next attempt can end it. Several that begin together cause one plan; those of
            // the last attempts are in the plan that ends the pass.
            let has_more = workers.is_busy() || !workers.queue.is_empty() || !later.is_empty();
            let mut is_unpublished = has_more && ctx.planned.alarms_begun() != Some(workers.alarms_begun);
            if is_unpublished && next_publication <= Instant::now() {
                ctx.planned.publish(plan_now(&workers, awaits_answer(&workers)).await?);
                next_publication = Instant::now() + PUBLISHING_DELAY;
                is_unpublished = false;
            }
            while let Some(first) = later.first_entry().filter(|first| first.key().0 <= now) {
                workers.queue.push_front(first.remove());
            }
            workers.start_ready();
            let next = later.first_key_value().map(|((at, _), _)| *at);
            if !workers.is_busy() && next.is_none() {
                break;
            }
            let finished = tokio::select! {
                () = &mut shutdown => {
                    workers.drain().await;
                    break 'planning;
                }
                finished = workers.next(), if workers.is_busy() => finished,
                () = ctx.clock.sleep(until(next.unwrap_or(now), now).min(LONGEST_NAP)), if next.is_some() => continue,
                () = tokio::time::sleep(SLOTS_INTERVAL), if workers.has_waiting() => continue,
                () = sleep_until(next_publication), if is_unpublished => continue,
            };
            let Some(Finished { item, result }) = finished else { continue };
            let id = item.entry.partition.id.clone();
            let now = ctx.clock.now();
            match result {
                Ok(Attempted::Settled) | Err(AttemptError::Panic) => {}
                Ok(Attempted::Theirs) => {
                    if waited_for.insert(id.clone()) {
                        info!("another process works on {id}; waiting for it");
                    }
                    later.insert((now + OTHERS_INTERVAL, id), item);
                }
                Ok(Attempted::Done(done)) => {
                    let number = tries.entry(id.clone()).and_modify(|tries| *tries += 1).or_insert(1);
                    if let Some(hold) = &done.hold {
                        let until = hold.until_for(item.entry.partition.expires_at);
                        let is_worth_waiting =
                            hold.outcome == Outcome::RateLimited && until.duration_since(now) <= LONGEST_PATIENCE;
                        let mut held = workers.unqueue(id.workspace());
                        // Retries that were planned for earlier wait as well.
                        held.extend(
                            later
                                .extract_if(.., |(_, other), _| other.workspace() == id.workspace())
                                .map(|(_, item)| item),
                        );
                        if is_worth_waiting {
                            later.extend(held.into_iter().map(|item| ((until, item.entry.partition.id.clone()), item)));
                            if *number < QUICK_TRIES {
                                later.insert((until, id), item);
                            }
                        }
                    } else if done.outcome.is_retried_quickly()
                        // A destination that has not answered for a whole attempt is left to the next pass.
                        && !done.is_unanswered
                        && (done.entry.settled == Settled::Open || item.entry.settled == Settled::Stored)
                        && let Some(delay) = retry::quick(*number, jitter())
                    {
                        let delay = SignedDuration::try_from(delay).unwrap_or(SignedDuration::ZERO);
                        later.insert((now + delay, id), item);
                    }
                }
                Err(AttemptError::Ledger(LedgerError::Fenced { partition })) => {
                    debug!("{partition} was taken over by another process");
                    later.insert((now + OTHERS_INTERVAL, id), item);
                }
                Err(AttemptError::Ledger(error)) => {
                    workers.drain().await;
                    return Err(error);
                }
            }
        }
        // After a long downtime, the next plan is made once MoEngage has confirmed the time. A plan with nothing to request
        // needs no answer.
        workers.has_answered |= selected.len() == before;
        if !plan.is_partial || !workers.has_answered || ctx.server_clocks.are_in_doubt() {
            summary.is_whole = !plan.is_partial;
            break;
        }
    }

    ctx.planned.publish(plan_now(&workers, awaits_answer(&workers)).await?);
    let now = ctx.clock.now();
    let mut selected: Vec<_> = selected.into_iter().collect();
    selected.sort();
    for id in &selected {
        let entry = ctx.ledger.entry_of(id).await?;
        summary.entries.extend(entry.filter(|entry| entry.state(now) != State::Scheduled));
    }
    Ok(summary)
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
        workers.queue.clear();
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
    let mut wake_at: Option<Timestamp> = None;
    let mut is_first = true;
    let mut is_partial = false;
    let mut publish_at: Option<Instant> = None;
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
                    held.log(&only_held(&plan.items, |_| true));
                    is_partial = plan.is_partial;
                    // A plan with nothing to request needs no answer.
                    workers.has_answered =
                        if is_partial { plan.is_idle() && !workers.is_busy() } else { workers.has_answered };
                    workers.queue = plan
                        .items
                        .iter()
                        .filter(|item| matches!(item.decision, Decision::Fetch | Decision::Refresh))
                        .filter(|item| !workers.has(&item.entry.partition.id))
                        .cloned()
                        .collect();
                }
                Err(error) if error.needs_reopening() => {
                    workers.drain().await;
                    return Err(error);
                }
                Err(error) => {
                    workers.ctx.status.note_ledger_failure(&error);
                    wake_at = Some(now + LEDGER_PAUSE);
                }
            }
        }
        if publish_at.take_if(|at| *at <= Instant::now()).is_some() {
            match plan_now(workers, awaits_answer(workers)).await {
                Ok(planned) => drop(workers.ctx.planned.publish(planned)),
                // The next plan fails as well, and raises the alarm.
                Err(error) => debug!("could not publish the plan: {}", Chain(&error)),
            }
        }
        workers.start_ready();
        let wake = wake_at.unwrap_or(Timestamp::MAX).clamp(now + SHORTEST_SLEEP, now + LONGEST_SLEEP);
        // Kept, because the sleep is divided.
        wake_at = Some(wake);
        workers.ctx.pulse.beat();
        workers.report_unanswered();
        let sleep = workers.ctx.clock.sleep(until(wake, now).min(LONGEST_NAP));
        let finished = tokio::select! {
            () = &mut shutdown => {
                workers.drain().await;
                return Ok(());
            }
            command = commands.recv() => {
                match command {
                    Some(LoopCommand::Reload(context)) => workers.reload(context),
                    Some(LoopCommand::Wake) => {}
                    Some(LoopCommand::Reopen { of, error }) if of.has_ledger_of(&workers.ctx) => {
                        workers.drain().await;
                        return Err(error);
                    }
                    Some(LoopCommand::Reopen { .. }) => continue,
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
            Ok(Attempted::Settled) => None,
            Err(AttemptError::Panic) => workers.retried_at(&item.entry.partition.id),
            Ok(Attempted::Theirs) => Some(now + OTHERS_INTERVAL),
            Ok(Attempted::Done(done)) => {
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
                workers.queue.clear();
                Some(now + LEDGER_PAUSE)
            }
        };
        wake_at = wake_at.into_iter().chain(soon).min();
    }
}

/// Makes a plan, records its new partitions, and publishes it.
async fn replan(workers: &Workers, is_first: bool) -> Result<Arc<Planned>, LedgerError> {
    let ctx = &workers.ctx;
    ctx.ledger.check_in_place()?;
    let mut planned = plan_now(workers, !is_first && awaits_answer(workers)).await?;
    let recorded = ctx.ledger.extend(&planned.plan, &planned.view).await;
    if recorded.is_ok() {
        planned.plan.new.clear();
    }
    // Published even if it could not be recorded: the page shows what is due.
    let planned = ctx.planned.publish(planned);
    recorded?;
    ctx.status.note_plan(planned.at);
    let unconfigured = planned.plan.items.iter().filter(|item| item.decision == Decision::Unconfigured).count();
    if is_first && unconfigured > 0 {
        info!(partitions = unconfigured, "{unconfigured} open partitions belong to reports that are not configured");
    }
    Ok(planned)
}

/// A plan for now. After a long downtime it covers no more than the last one while it `awaits_answer`.
async fn plan_now(workers: &Workers, awaits_answer: bool) -> Result<Planned, LedgerError> {
    let ctx = &workers.ctx;
    let now = ctx.clock.now();
    let view = LedgerView { awaits_answer, ..ctx.view(&ctx.ledger, now).await? };
    Ok(Planned::new(&ctx.config.reports, view, now, workers.alarms_begun))
}

fn awaits_answer(workers: &Workers) -> bool {
    !workers.has_answered || workers.ctx.server_clocks.are_in_doubt()
}

fn only_held(items: &[Item], is_meant: impl Fn(&Item) -> bool) -> Vec<Item> {
    let is_held = |item: &&Item| matches!(item.decision, Decision::Held { .. }) && is_meant(item);
    items.iter().filter(is_held).cloned().collect()
}
