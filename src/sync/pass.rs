//! One pass, as `moesync sync` makes it.
//!
//! This file owns the retries and waits within a pass. It acts on a [`Plan`](crate::plan::Plan) and decides nothing that one
//! contains.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    future::Future,
    pin::pin,
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info};

use super::{
    attempt::{AttemptError, Attempted},
    context::Context,
    log::HeldWorkspaces,
    replan::{PUBLISHING_DELAY, publish_plan, replan},
    workers::{Finished, OTHERS_INTERVAL, SLOTS_INTERVAL, Workers},
};
use crate::{
    ledger::LedgerError,
    outcome::Outcome,
    partition::{Entry, Settled, State},
    plan::{Decision, Item},
    report::{PartitionId, ReportId},
    retry::{self, QUICK_TRIES},
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
        self.covers_report(&id.report) && self.partitions.as_ref().is_none_or(|partitions| partitions.contains(id))
    }

    /// Whether the selection covers partitions of a report.
    pub fn covers_report(&self, id: &ReportId) -> bool {
        self.workspace.as_ref().is_none_or(|workspace| *workspace == id.workspace())
            && self.report.as_ref().is_none_or(|report| report == id.name())
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
    /// Adds what a later pass did, which plans all that this one has left.
    pub(super) fn extend(&mut self, later: Summary) {
        let ids: HashSet<_> = later.entries.iter().map(|entry| entry.partition.id.clone()).collect();
        self.entries.retain(|entry| !ids.contains(&entry.partition.id));
        self.entries.extend(later.entries);
        self.entries.sort_by(|a, b| a.partition.id.cmp(&b.partition.id));
        self.is_whole = later.is_whole;
    }

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

/// The longest hold that a pass waits for. Longer ones are left to the next pass.
const LONGEST_PATIENCE: SignedDuration = SignedDuration::from_secs(30);

/// Most plans of one pass. After a long downtime each plan covers five weeks.
const MOST_STEPS: usize = 100;

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
        held.log(plan.items.iter().filter(|item| selection.covers(&item.entry.partition.id)));
        workers.has_answered = false;
        let mut found = 0;
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
                Decision::Fetch | Decision::Refresh | Decision::Backoff { .. } => workers.enqueue([item]),
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
        workers.enqueue(refused);
        ctx.progress.expect(selected.len());
        loop {
            let now = ctx.clock.now();
            // An alarm is published before the next attempt can end it. Several that begin together cause one plan; those of
            // the last attempts are in the plan that ends the pass.
            let has_more = workers.is_busy() || workers.has_queued() || !later.is_empty();
            let mut is_unpublished = has_more && ctx.planned.alarms_begun() != Some(workers.alarms_begun);
            if is_unpublished && next_publication <= Instant::now() {
                publish_plan(&workers).await?;
                next_publication = Instant::now() + PUBLISHING_DELAY;
                is_unpublished = false;
            }
            while let Some(first) = later.first_entry().filter(|first| first.key().0 <= now) {
                workers.enqueue_first(first.remove());
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
                () = ctx.clock.nap_until(next.unwrap_or(now)), if next.is_some() => continue,
                () = tokio::time::sleep(SLOTS_INTERVAL), if workers.has_waiting() => continue,
                () = sleep_until(next_publication), if is_unpublished => continue,
            };
            let Some(Finished { item, result }) = finished else { continue };
            let id = item.entry.partition.id.clone();
            let now = ctx.clock.now();
            match result {
                Err(AttemptError::Panic) => {}
                Ok(Attempted::Changed) => {
                    // The process that this pass waited for may have failed.
                    let entry = ctx.ledger.entry_of(&id).await?.filter(|entry| entry.settled == item.entry.settled);
                    if let Some(entry) = entry.filter(|_| waited_for.remove(&id)) {
                        later.insert((now, id), Item { entry, ..item });
                    }
                }
                Ok(Attempted::Theirs) => {
                    if waited_for.insert(id.clone()) {
                        info!("another process works on {id}; waiting for it");
                    }
                    later.insert((now + OTHERS_INTERVAL, id), item);
                }
                Ok(Attempted::Done(done)) => {
                    found += usize::from(done.outcome == Outcome::Stored && !done.is_authenticated);
                    let item = Item { entry: done.entry.clone(), ..item };
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
                        && matches!(done.entry.settled, Settled::Open | Settled::Stored)
                        && let Some(delay) = retry::quick(*number, ctx.clock.jitter())
                    {
                        let delay = SignedDuration::try_from(delay).unwrap_or(SignedDuration::ZERO);
                        later.insert((now + delay, id), item);
                    }
                }
                Err(AttemptError::Ledger(LedgerError::Fenced { partition })) => {
                    debug!("{partition} was taken over by another process");
                    waited_for.insert(id.clone());
                    later.insert((now + OTHERS_INTERVAL, id), item);
                }
                Err(AttemptError::Ledger(error)) => {
                    workers.drain().await;
                    return Err(error);
                }
            }
        }
        // After a long downtime, the next plan is made once MoEngage has confirmed the time. A plan with nothing to request
        // needs no answer, nor one whose objects are all at the destination already.
        workers.has_answered |= selected.len() == before + found;
        if !plan.is_partial || !workers.has_answered || ctx.server_clocks.are_in_doubt() {
            summary.is_whole = !plan.is_partial;
            break;
        }
    }

    publish_plan(&workers).await?;
    let now = ctx.clock.now();
    let mut selected: Vec<_> = selected.into_iter().collect();
    selected.sort();
    let entries = ctx.ledger.entries_of(&selected).await?;
    summary.entries.extend(entries.into_iter().filter(|entry| entry.state(now) != State::Scheduled));
    Ok(summary)
}
