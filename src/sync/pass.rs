//! Many partitions at once: who goes first, how many at a time, and when to come back.
//!
//! This file owns concurrency and waiting. It acts on a [`Plan`] and must not decide what one says.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    future::Future,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::mpsc,
    task::{self, JoinSet},
};
use tracing::{debug, error, info, warn};

use super::{Context, Done, jitter, sync_one, tell::Held};
use crate::{
    config::{AlarmKind, Report},
    ledger::{Claimed, LedgerError},
    outcome::{self, Entry, Outcome, QUICK_TRIES, Settled, State},
    plan::{self, Decision, Item, Plan},
    report::PartitionId,
    telemetry::Chain,
};

/// Which partitions a command is about; everything by default.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only this workspace.
    pub workspace: Option<String>,
    /// Only the report with this id.
    pub report: Option<String>,
    /// Only these.
    pub partitions: Option<HashSet<PartitionId>>,
}

impl Selection {
    /// Whether the selection covers a partition.
    pub fn covers(&self, id: &PartitionId) -> bool {
        self.workspace.as_ref().is_none_or(|workspace| *workspace == id.workspace)
            && self.report.as_ref().is_none_or(|report| *report == id.report)
            && self.partitions.as_ref().is_none_or(|partitions| partitions.contains(id))
    }
}

/// What one pass did.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// The selected partitions that were due in this pass, as they stand now.
    pub entries: Vec<Entry>,
    /// Whether the pass came to its end, rather than being told to stop.
    pub is_whole: bool,
}

impl Summary {
    /// Whether every selected partition that is due is stored or was never published, and what was to be fetched again was.
    pub fn is_complete(&self) -> bool {
        let is_done = |entry: &Entry| match entry.settled {
            Settled::Stored => entry.outcome == Some(Outcome::Stored),
            Settled::Absent => true,
            Settled::Open | Settled::Lost => false,
        };
        self.is_whole && self.entries.iter().all(is_done)
    }
}

/// What the daemon is told from outside.
pub enum Command {
    /// Look again.
    Wake,
    /// Go on with this context; downloads under way end with the one they have.
    Reload(Arc<Context>),
    /// End with this error, for which the ledger has to be opened again. Void under another context than `of`.
    Reopen {
        /// The context whose ledger it is.
        of: Arc<Context>,
        /// What the ledger said.
        error: LedgerError,
    },
}

/// How long one pass waits for a vendor that asks for patience; longer waits are left to the next pass.
const LONGEST_PATIENCE: SignedDuration = SignedDuration::from_secs(30);

/// Waits are slept through in pieces, so that a clock that is set back does not prolong them, and so that the loop
/// shows that it turns.
const LONGEST_NAP: Duration = Duration::from_secs(5);

/// How often a partition that another process works on is looked at.
const OTHERS_INTERVAL: SignedDuration = SignedDuration::from_secs(1);

/// The loop looks again at least this often, whatever it was told.
const LONGEST_SLEEP: SignedDuration = SignedDuration::from_mins(5);

/// Nor does it look again sooner, whatever the plan says: a fault in there must not cost a processor.
const SHORTEST_SLEEP: SignedDuration = SignedDuration::from_millis(100);

/// How many steps of a long absence one pass catches up with; each is five weeks.
const MOST_STEPS: usize = 100;

/// How long the daemon waits after the ledger refused.
const LEDGER_PAUSE: SignedDuration = SignedDuration::from_secs(30);

/// How long downloads under way may take to end once the daemon is told to stop.
const GRACE: Duration = Duration::from_secs(20);

/// One pass: every selected partition that is due and not stored gets its quick tries, whatever its backoff; only what
/// the vendor asked to wait for is waited for. Ends early, leaving nothing half done, when `shutdown` does.
///
/// # Errors
///
/// When the ledger refuses.
pub async fn once(
    ctx: &Arc<Context>,
    selection: &Selection,
    shutdown: impl Future<Output = ()>,
) -> Result<Summary, LedgerError> {
    let mut shutdown = pin!(shutdown);
    let mut crew = Crew::new(Arc::clone(ctx));
    let mut summary = Summary::default();
    let mut selected: HashSet<PartitionId> = HashSet::new();
    let mut tries: HashMap<PartitionId, u32> = HashMap::new();
    let mut later: BTreeMap<(Timestamp, PartitionId), Item> = BTreeMap::new();
    let mut waited_for: HashSet<PartitionId> = HashSet::new();

    let mut held = Held::default();
    'planning: for step in 0..MOST_STEPS {
        let plan = replan(&crew, step == 0).await?;
        let now = ctx.clock.now();
        let before = selected.len();
        held.tell(ctx, &only_held(&plan.items, |item| selection.covers(&item.entry.partition.id)), now);
        crew.has_answered = false;
        // Only a command asks for what a refused key holds, and each time it ends with the first refusal: what it asked for
        // longest ago comes first, so that none waits for ever behind another key's.
        let mut refused: Vec<Item> = Vec::new();
        for item in plan.items {
            let id = item.entry.partition.id.clone();
            if item.report.is_none() || !selection.covers(&id) || !selected.insert(id.clone()) {
                continue;
            }
            match item.decision {
                Decision::Fetch | Decision::Refresh | Decision::Backoff { .. } => crew.queue.push_back(item),
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
        crew.queue.extend(refused);
        loop {
            let now = ctx.clock.now();
            while let Some(first) = later.first_entry().filter(|first| first.key().0 <= now) {
                crew.queue.push_front(first.remove());
            }
            crew.start_what_may();
            let next = later.first_key_value().map(|((at, _), _)| *at);
            let nothing_left = !crew.is_busy() && next.is_none();
            if nothing_left {
                break;
            }
            let finished = tokio::select! {
                () = &mut shutdown => {
                    crew.drain().await;
                    break 'planning;
                }
                finished = crew.next(), if crew.is_busy() => finished,
                () = ctx.clock.sleep(until(next.unwrap_or(now), now).min(LONGEST_NAP)), if next.is_some() => continue,
            };
            let Some(Finished { item, ended }) = finished else { continue };
            let id = item.entry.partition.id.clone();
            let now = ctx.clock.now();
            match ended {
                Ended::Settled => {}
                Ended::Theirs => {
                    if waited_for.insert(id.clone()) {
                        info!("another process works on {id}; waiting for it");
                    }
                    later.insert((now + OTHERS_INTERVAL, id), item);
                }
                Ended::Done(done) => {
                    let number = tries.entry(id.clone()).and_modify(|tries| *tries += 1).or_insert(1);
                    if let Some(hold) = &done.hold {
                        let until = hold.until_for(item.entry.partition.expires_at);
                        let is_worth_waiting =
                            hold.outcome == Outcome::RateLimited && until.duration_since(now) <= LONGEST_PATIENCE;
                        let mut held = crew.unqueue(&id.workspace);
                        // What was to be tried again sooner waits as well.
                        held.extend(
                            later.extract_if(.., |(_, other), _| other.workspace == id.workspace).map(|(_, item)| item),
                        );
                        if is_worth_waiting {
                            later.extend(held.into_iter().map(|item| ((until, item.entry.partition.id.clone()), item)));
                            if *number < QUICK_TRIES {
                                later.insert((until, id), item);
                            }
                        }
                    } else if done.outcome.is_retried_quickly()
                        && (done.settled == Settled::Open || item.entry.settled == Settled::Stored)
                        && let Some(delay) = outcome::quick_retry(*number, jitter())
                    {
                        let delay = SignedDuration::try_from(delay).unwrap_or(SignedDuration::ZERO);
                        later.insert((now + delay, id), item);
                    }
                }
                Ended::Failed(LedgerError::Fenced { what }) => {
                    debug!("{what} was taken over by another process");
                    later.insert((now + OTHERS_INTERVAL, id), item);
                }
                Ended::Failed(error) => {
                    crew.drain().await;
                    return Err(error);
                }
            }
        }
        // A long absence is caught up with in steps, each once the vendor has confirmed the time; a step that had nothing
        // to ask for is none.
        crew.has_answered |= selected.len() == before;
        if !plan.is_partial || !crew.has_answered || ctx.is_present_in_doubt() {
            summary.is_whole = !plan.is_partial;
            break;
        }
    }

    let now = ctx.clock.now();
    summary.entries = ctx.ledger.entries().await?;
    summary.entries.retain(|entry| selected.contains(&entry.partition.id) && entry.state(now) != State::Scheduled);
    Ok(summary)
}

/// The daemon's loop: plans, works, sleeps until something changes, and again, until `shutdown`.
///
/// # Errors
///
/// [`LedgerError::Replaced`] and [`LedgerError::Damaged`], for which a new context is needed. Whatever else the ledger
/// refuses is tried again.
pub async fn continuously(
    ctx: Arc<Context>,
    commands: &mut mpsc::Receiver<Command>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), LedgerError> {
    let mut shutdown = pin!(shutdown);
    let mut crew = Crew::new(ctx);
    let mut held = Held::default();
    let mut wake_at: Option<Timestamp> = None;
    let mut is_first = true;
    let mut is_partial = false;
    loop {
        let now = crew.ctx.clock.now();
        let may_go_on = is_partial && crew.has_answered;
        if may_go_on || wake_at.is_none_or(|at| at <= now) {
            match replan(&crew, is_first).await {
                Ok(plan) => {
                    wake_at = plan.next_change();
                    is_first = false;
                    held.tell(&crew.ctx, &only_held(&plan.items, |_| true), now);
                    is_partial = plan.is_partial;
                    // A step that has nothing to ask for needs no answer.
                    crew.has_answered = if is_partial { plan.is_idle() && !crew.is_busy() } else { crew.has_answered };
                    crew.queue = plan
                        .items
                        .into_iter()
                        .filter(|item| matches!(item.decision, Decision::Fetch | Decision::Refresh))
                        .filter(|item| !crew.in_flight.contains(&item.entry.partition.id))
                        .collect();
                }
                Err(error @ (LedgerError::Replaced { .. } | LedgerError::Damaged { .. })) => {
                    crew.drain().await;
                    return Err(error);
                }
                Err(error) => {
                    error!(alarm = "ledger", "the ledger refuses; it is tried again: {}", Chain(&error));
                    crew.ctx.bulletin.note_refusal(Chain(&error).to_string());
                    wake_at = Some(now + LEDGER_PAUSE);
                }
            }
        }
        crew.start_what_may();
        let wake = wake_at.unwrap_or(Timestamp::MAX).clamp(now + SHORTEST_SLEEP, now + LONGEST_SLEEP);
        // Kept, because it is slept towards in pieces.
        wake_at = Some(wake);
        crew.ctx.pulse.beat();
        let sleep = crew.ctx.clock.sleep(until(wake, now).min(LONGEST_NAP));
        let finished = tokio::select! {
            () = &mut shutdown => {
                crew.drain().await;
                return Ok(());
            }
            command = commands.recv() => {
                match command {
                    Some(Command::Reload(context)) => crew.ctx = context,
                    Some(Command::Wake) => {}
                    Some(Command::Reopen { of, error }) if Arc::ptr_eq(&of, &crew.ctx) => {
                        crew.drain().await;
                        return Err(error);
                    }
                    Some(Command::Reopen { .. }) => continue,
                    // Whoever could wake us is gone, and so is our reason to run.
                    None => {
                        crew.drain().await;
                        return Ok(());
                    }
                }
                wake_at = None;
                continue;
            }
            finished = crew.next(), if crew.is_busy() => finished,
            () = sleep => continue,
        };
        let Some(Finished { item, ended }) = finished else { continue };
        let now = crew.ctx.clock.now();
        let soon = match ended {
            Ended::Settled => None,
            Ended::Theirs => Some(now + OTHERS_INTERVAL),
            Ended::Done(done) => {
                if done.hold.is_some() {
                    crew.unqueue(&item.entry.partition.id.workspace);
                }
                done.next_attempt_at
            }
            Ended::Failed(LedgerError::Fenced { what }) => {
                debug!("{what} was taken over by another process");
                Some(now + OTHERS_INTERVAL)
            }
            Ended::Failed(error @ (LedgerError::Replaced { .. } | LedgerError::Damaged { .. })) => {
                crew.drain().await;
                return Err(error);
            }
            Ended::Failed(error) => {
                error!(alarm = "ledger", "the ledger refuses; what was under way is repeated: {}", Chain(&error));
                crew.ctx.bulletin.note_refusal(Chain(&error).to_string());
                crew.queue.clear();
                Some(now + LEDGER_PAUSE)
            }
        };
        wake_at = wake_at.min_some(soon);
    }
}

/// Plans at the present and records what the plan found.
async fn replan(crew: &Crew, is_first: bool) -> Result<Plan, LedgerError> {
    let ctx = &crew.ctx;
    ctx.ledger.check_in_place()?;
    let now = ctx.clock.now();
    let mut view = ctx.view(&ctx.ledger, now).await?;
    view.awaits_answer = !is_first && (!crew.has_answered || ctx.is_present_in_doubt());
    let plan = plan::plan(&ctx.config.reports, &view, now);
    ctx.ledger.extend(&plan, &view).await?;
    ctx.bulletin.note_plan(now);
    let unconfigured = plan.items.iter().filter(|item| item.decision == Decision::Unconfigured).count();
    if is_first && unconfigured > 0 {
        info!(partitions = unconfigured, "{unconfigured} open partitions belong to reports that are not configured");
    }
    Ok(plan)
}

fn only_held(items: &[Item], is_meant: impl Fn(&Item) -> bool) -> Vec<Item> {
    let is_held = |item: &&Item| matches!(item.decision, Decision::Held { .. }) && is_meant(item);
    items.iter().filter(is_held).cloned().collect()
}

fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO)
}

trait MinSome {
    /// The earlier of two instants, where no instant is no limit.
    fn min_some(self, other: Self) -> Self;
}

impl MinSome for Option<Timestamp> {
    fn min_some(self, other: Self) -> Self {
        match (self, other) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

/// What became of one item that was started.
struct Finished {
    item: Item,
    ended: Ended,
}

enum Ended {
    /// Another process had it and settled it, or it never was.
    Settled,
    /// Another process has it.
    Theirs,
    Done(Done),
    Failed(LedgerError),
}

/// The work under way and the work that waits for a place.
struct Crew {
    ctx: Arc<Context>,
    queue: VecDeque<Item>,
    /// What is worked on; also, for as long as the process lives, what ended in a panic.
    in_flight: HashSet<PartitionId>,
    tasks: HashMap<task::Id, PartitionId>,
    busy: HashMap<String, usize>,
    running: JoinSet<Finished>,
    /// Workspaces whose credentials the vendor has accepted. The first request of all others goes alone, so that a
    /// wrong key is one refused request and not many.
    accepted: HashSet<String>,
    answers: (mpsc::UnboundedSender<String>, mpsc::UnboundedReceiver<String>),
    /// Whether the vendor has answered since that was last reset, and so shown its time.
    has_answered: bool,
}

impl Crew {
    fn new(ctx: Arc<Context>) -> Self {
        Self {
            ctx,
            queue: VecDeque::new(),
            in_flight: HashSet::new(),
            tasks: HashMap::new(),
            busy: HashMap::new(),
            running: JoinSet::new(),
            accepted: HashSet::new(),
            answers: mpsc::unbounded_channel(),
            has_answered: false,
        }
    }

    fn is_busy(&self) -> bool {
        !self.running.is_empty()
    }

    /// Starts queued items, in order, as far as the limits allow.
    fn start_what_may(&mut self) {
        let limits = &self.ctx.config.limits;
        let (all, each) = (limits.concurrency, limits.concurrency_per_workspace);
        let mut waiting = VecDeque::new();
        while self.running.len() < all
            && let Some(item) = self.queue.pop_front()
        {
            let workspace = &item.entry.partition.id.workspace;
            let busy = self.busy.get(workspace).copied().unwrap_or(0);
            let limit = if self.accepted.contains(workspace) { each } else { 1 };
            match &item.report {
                Some(report) if busy < limit => {
                    let report = Arc::clone(report);
                    self.start(item, report);
                }
                Some(_) => waiting.push_back(item),
                None => {}
            }
        }
        waiting.append(&mut self.queue);
        self.queue = waiting;
    }

    fn start(&mut self, item: Item, report: Arc<Report>) {
        let id = item.entry.partition.id.clone();
        *self.busy.entry(id.workspace.clone()).or_default() += 1;
        self.in_flight.insert(id.clone());
        let ctx = Arc::clone(&self.ctx);
        let answers = self.answers.0.clone();
        let claimed = id.clone();
        let task = self.running.spawn(async move {
            let id = claimed;
            let workspace = id.workspace.clone();
            let ended = match ctx.ledger.claim(&id, item.entry.settled).await {
                Ok(Claimed::Settled) => Ended::Settled,
                Ok(Claimed::Theirs) => Ended::Theirs,
                // Another process was quicker to fetch it again.
                Ok(Claimed::Ours(claim))
                    if claim.entry.settled == Settled::Stored
                        && claim.entry.outcome == Some(Outcome::Stored)
                        && claim.entry.last_attempt_at != item.entry.last_attempt_at =>
                {
                    match ctx.ledger.release(&id).await {
                        Ok(()) => Ended::Settled,
                        Err(error) => Ended::Failed(error),
                    }
                }
                Ok(Claimed::Ours(claim)) => {
                    // Nobody listens any more only when the pass is over.
                    let answered = || drop(answers.send(workspace.clone()));
                    match sync_one(&ctx, &report, *claim, answered).await {
                        Ok(done) => Ended::Done(done),
                        Err(error) => Ended::Failed(error),
                    }
                }
                Err(error) => Ended::Failed(error),
            };
            if matches!(ended, Ended::Failed(_))
                && let Err(error) = ctx.ledger.release(&id).await
            {
                // This process may claim it again; others have to wait until it has.
                debug!("the claim on {id} could not be given back: {}", Chain(&error));
            }
            Finished { item, ended }
        });
        self.tasks.insert(task.id(), id);
    }

    /// The next item to finish; `None` when something else changed that may let more start.
    async fn next(&mut self) -> Option<Finished> {
        tokio::select! {
            biased;
            Some(workspace) = self.answers.1.recv() => {
                self.accepted.insert(workspace);
                self.has_answered = true;
                None
            }
            Some(joined) = self.running.join_next_with_id() => match joined {
                Ok((task, finished)) => {
                    self.leave(task);
                    self.in_flight.remove(&finished.item.entry.partition.id);
                    self.note(&finished);
                    Some(finished)
                }
                Err(panic) => {
                    // It stays in flight: left alone until a restart, rather than driven into the same panic again.
                    let id = self.leave(panic.id());
                    let subject = id.as_ref().map_or("an attempt".to_owned(), |id| format!("an attempt at {id}"));
                    let message = format!("{subject} ended by a fault of moesync; please report it");
                    self.ctx.bulletin.raise(AlarmKind::Panic, message);
                    error!(
                        alarm = "panic", partition = id.as_ref().map(|id| id.to_string()), error = %panic,
                        "an attempt ended by a fault of moesync; please report it"
                    );
                    // Last, since whoever waits for us may not wait for the ledger.
                    if let Some(id) = &id {
                        let _ = self.ctx.ledger.release(id).await;
                    }
                    None
                }
            },
            else => None,
        }
    }

    /// Gives the place of a task that is over to the next one.
    fn leave(&mut self, task: task::Id) -> Option<PartitionId> {
        let id = self.tasks.remove(&task)?;
        if let Some(busy) = self.busy.get_mut(&id.workspace) {
            *busy = busy.saturating_sub(1);
        }
        Some(id)
    }

    fn note(&mut self, finished: &Finished) {
        let id = &finished.item.entry.partition.id;
        if let Ended::Done(done) = &finished.ended {
            if done.outcome == Outcome::Unauthorized {
                self.accepted.remove(&id.workspace);
            } else if done.was_admitted {
                self.accepted.insert(id.workspace.clone());
            }
            self.has_answered |= done.was_admitted;
        }
    }

    /// Takes a workspace's items out of the queue.
    fn unqueue(&mut self, workspace: &str) -> Vec<Item> {
        let (held, kept) = self.queue.drain(..).partition(|item| item.entry.partition.id.workspace == workspace);
        self.queue = kept;
        Vec::from_iter::<VecDeque<Item>>(held)
    }

    /// Lets what is under way end, and ends what does not within the grace period. Staged uploads clean up after
    /// themselves; claims end with the process.
    async fn drain(&mut self) {
        self.queue.clear();
        if self.running.is_empty() {
            return;
        }
        info!(downloads = self.running.len(), "stopping; downloads under way may end within {GRACE:?}");
        let all = async { while self.running.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, all).await.is_err() {
            warn!(downloads = self.running.len(), "downloads that did not end are given up; they begin anew next time");
            self.running.shutdown().await;
        }
    }
}
