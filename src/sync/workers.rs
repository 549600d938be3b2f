//! The attempts under way, and which of those that wait may start.
//!
//! This file owns how many there are at once: over all, from one workspace, at one destination. It must not know why a
//! partition is attempted, nor what is done in an attempt.
//!
//! A destination that does not answer delays only what goes there. An attempt that is stuck there counts for that
//! destination alone, and what else goes there starts last, one attempt at a time until it is stuck as well.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::{sync::mpsc, task::JoinSet};
use tracing::{debug, error, info, warn};

use super::{
    attempt::{AttemptError, Attempted, sync_one},
    clock::jitter,
    context::{Context, OpenReport},
    frame::Frame,
};
use crate::{alarm, alarm_kind::AlarmKind, outcome::Outcome, plan::Item, report::PartitionId, retry};

/// How long attempts under way may take to end once the process is to stop.
const GRACE: Duration = Duration::from_secs(20);

/// No pause after a panic is longer.
const LONGEST_PANIC_PAUSE: SignedDuration = SignedDuration::from_mins(75);

/// An item whose attempt has ended.
pub(super) struct Finished {
    pub(super) item: Item,
    pub(super) result: Result<Attempted, AttemptError>,
}

/// A partition whose last attempts ended in a panic.
struct Panicked {
    /// How many did.
    times: u32,
    retried_at: Timestamp,
}

impl Panicked {
    /// Retried like anything else that fails, but never within seconds: the same panic is likely to come again.
    fn next(before: Option<&Panicked>, now: Timestamp) -> Self {
        let times = before.map_or(1, |before| before.times.saturating_add(1));
        let pause = retry::delay(times.saturating_add(retry::QUICK_TRIES - 1), jitter());
        Self { times, retried_at: now.checked_add(pause).unwrap_or(now) }
    }

    /// A wait that is longer than any was written before the clock was set back.
    fn waits(&self, now: Timestamp) -> bool {
        now < self.retried_at && self.retried_at.duration_since(now) <= LONGEST_PANIC_PAUSE
    }
}

/// An attempt under way.
struct Running {
    workspace: String,
    destination: String,
    frame: Arc<Frame>,
}

/// The work under way and the work that waits to start.
pub(super) struct Workers {
    pub(super) ctx: Arc<Context>,
    pub(super) queue: VecDeque<Item>,
    under_way: HashMap<PartitionId, Running>,
    /// What ended in a panic the last time, and when it is retried.
    panicked: HashMap<PartitionId, Panicked>,
    running: JoinSet<Finished>,
    /// Workspaces whose credentials the vendor has accepted. The first request of all others goes alone, so that a
    /// wrong key is one refused request and not many.
    accepted: HashSet<String>,
    /// Destinations that let the last attempt that ended there wait beyond its time.
    unanswering: HashSet<String>,
    /// The destinations for which an alarm is raised.
    reported: BTreeSet<String>,
    answers: (mpsc::UnboundedSender<String>, mpsc::UnboundedReceiver<String>),
    /// Whether the vendor has answered since that was last reset, and so shown its time.
    pub(super) has_answered: bool,
    /// Number of attempts that began an alarm.
    pub(super) alarms_begun: usize,
}

/// How many attempts take a place where.
#[derive(Default)]
struct Places {
    all: usize,
    workspaces: HashMap<String, usize>,
    /// Also those that are stuck.
    destinations: HashMap<String, usize>,
    /// Those that are not stuck.
    going_on: HashMap<String, usize>,
    /// Destinations with an attempt that is stuck, or that was until its time was over.
    suspects: HashSet<String>,
}

impl Places {
    fn add(&mut self, workspace: &str, destination: &str) {
        self.all += 1;
        *self.workspaces.entry(workspace.to_owned()).or_default() += 1;
        *self.destinations.entry(destination.to_owned()).or_default() += 1;
        *self.going_on.entry(destination.to_owned()).or_default() += 1;
    }
}

fn count(places: &HashMap<String, usize>, name: &str) -> usize {
    places.get(name).copied().unwrap_or(0)
}

impl Workers {
    pub(super) fn new(ctx: Arc<Context>) -> Self {
        Self {
            ctx,
            queue: VecDeque::new(),
            under_way: HashMap::new(),
            panicked: HashMap::new(),
            running: JoinSet::new(),
            accepted: HashSet::new(),
            unanswering: HashSet::new(),
            reported: BTreeSet::new(),
            answers: mpsc::unbounded_channel(),
            has_answered: false,
            alarms_begun: 0,
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        !self.running.is_empty()
    }

    /// Whether something waits for what is under way.
    pub(super) fn has_waiting(&self) -> bool {
        self.is_busy() && !self.queue.is_empty()
    }

    /// Whether a partition is not to be started now: it is under way, or waits after a panic.
    pub(super) fn has(&self, id: &PartitionId) -> bool {
        let waits = |panicked: &Panicked| panicked.waits(self.ctx.clock.now());
        self.under_way.contains_key(id) || self.panicked.get(id).is_some_and(waits)
    }

    /// When a partition that ended in a panic is retried.
    pub(super) fn retried_at(&self, id: &PartitionId) -> Option<Timestamp> {
        self.panicked.get(id).map(|panicked| panicked.retried_at)
    }

    fn places(&self) -> Places {
        let mut places = Places { suspects: self.unanswering.clone(), ..Places::default() };
        for Running { workspace, destination, frame } in self.under_way.values() {
            if frame.is_stuck() {
                *places.destinations.entry(destination.clone()).or_default() += 1;
                places.suspects.insert(destination.clone());
            } else {
                places.add(workspace, destination);
            }
        }
        places
    }

    /// Starts queued items as far as the limits allow: in order, but what goes to a suspect destination last, and of that
    /// first what was tried longest ago, so that retries of one partition keep no other from its first attempt.
    pub(super) fn start_ready(&mut self) {
        if self.queue.is_empty() {
            return;
        }
        let mut places = self.places();
        let mut queue: Vec<Option<Item>> = self.queue.drain(..).map(Some).collect();
        for goes_to_suspect in [false, true] {
            if goes_to_suspect {
                queue.sort_by_key(|slot| slot.as_ref().and_then(|item| item.entry.last_attempt_at));
            }
            for slot in &mut queue {
                if places.all >= self.ctx.config.limits.concurrency {
                    break;
                }
                let Some(item) = slot.take() else { continue };
                let Some(open) = self.ctx.reports.get(&item.entry.partition.id.report).cloned() else { continue };
                let is_suspect = places.suspects.contains(open.destination.name());
                if is_suspect == goes_to_suspect && self.has_place(&open, is_suspect, &places) {
                    places.add(open.report.id.workspace(), open.destination.name());
                    self.start(item, open);
                } else {
                    *slot = Some(item);
                }
            }
        }
        self.queue = queue.into_iter().flatten().collect();
    }

    fn has_place(&self, open: &OpenReport, is_suspect: bool, places: &Places) -> bool {
        let limits = &self.ctx.config.limits;
        let (workspace, destination) = (open.report.id.workspace(), open.destination.name());
        let each = if self.accepted.contains(workspace) { limits.concurrency_per_workspace } else { 1 };
        let is_first = count(&places.going_on, destination) == 0;
        count(&places.workspaces, workspace) < each
            && count(&places.destinations, destination) < limits.concurrency_per_destination
            && (is_first || !is_suspect)
    }

    fn start(&mut self, item: Item, open: OpenReport) {
        let id = item.entry.partition.id.clone();
        let frame = Arc::new(Frame::new(self.ctx.config.limits.attempt_timeout));
        let running = Running {
            workspace: id.workspace().to_owned(),
            destination: open.destination.name().to_owned(),
            frame: Arc::clone(&frame),
        };
        self.under_way.insert(id.clone(), running);
        let ctx = Arc::clone(&self.ctx);
        let answers = self.answers.0.clone();
        self.running.spawn(async move {
            // The receiver is gone once the pass is over.
            let answered = || drop(answers.send(id.workspace().to_owned()));
            let result = sync_one(&ctx, &open, &item.entry, &frame, &answered).await;
            Finished { item, result }
        });
    }

    /// The next item to finish; `None` when something else changed that may let more start. May be dropped at any time.
    pub(super) async fn next(&mut self) -> Option<Finished> {
        tokio::select! {
            biased;
            Some(workspace) = self.answers.1.recv() => {
                self.accepted.insert(workspace);
                self.has_answered = true;
                None
            }
            Some(joined) = self.running.join_next() => match joined {
                Ok(finished) => self.finished(finished),
                Err(error) => {
                    debug!("an attempt was ended: {error}");
                    None
                }
            },
            else => None,
        }
    }

    fn finished(&mut self, finished: Finished) -> Option<Finished> {
        let id = &finished.item.entry.partition.id;
        let running = self.under_way.remove(id);
        match &finished.result {
            Err(AttemptError::Panic) => {
                let panicked = Panicked::next(self.panicked.get(id), self.ctx.clock.now());
                let at = panicked.retried_at;
                let message = format!("an attempt at {id} ended by a fault of moesync; please report it, with the log");
                error!(alarm = "panic", partition = id.to_string(), next_attempt_at = %at, "{message}");
                self.ctx.status.raise(AlarmKind::Panic, "attempts", message);
                self.panicked.insert(id.clone(), panicked);
            }
            Ok(Attempted::Done(done)) => {
                self.panicked.remove(id);
                if done.outcome == Outcome::Unauthorized {
                    self.accepted.remove(id.workspace());
                } else if done.is_authenticated {
                    self.accepted.insert(id.workspace().to_owned());
                }
                self.has_answered |= done.is_authenticated;
                self.alarms_begun += usize::from(alarm::begins(&done.entry));
                if let Some(Running { destination, .. }) = running {
                    match done.is_unanswered {
                        true => self.unanswering.insert(destination),
                        false => self.unanswering.remove(&destination),
                    };
                }
            }
            Ok(Attempted::Settled | Attempted::Theirs) | Err(AttemptError::Ledger(_)) => {}
        }
        Some(finished)
    }

    /// Raises the alarm for each destination that has not answered for minutes, and clears it once it answers.
    pub(super) fn report_unanswered(&mut self) {
        let unanswered: BTreeMap<_, _> = self
            .under_way
            .values()
            .filter_map(|running| Some((running.destination.clone(), running.frame.unanswered()?)))
            .collect();
        for (destination, (step, waited)) in &unanswered {
            if self.reported.insert(destination.clone()) {
                let message =
                    format!("destination {destination} has not answered for {} minutes: {step}", waited.as_secs() / 60);
                error!(alarm = "store_failed", destination, "{message}");
                self.ctx.status.raise(AlarmKind::StoreFailed, destination, message);
            }
        }
        for destination in self.reported.extract_if(.., |destination| !unanswered.contains_key(destination)) {
            self.ctx.status.clear(AlarmKind::StoreFailed, &destination);
        }
    }

    /// Takes a workspace's items out of the queue.
    pub(super) fn unqueue(&mut self, workspace: &str) -> Vec<Item> {
        let (held, kept) = self.queue.drain(..).partition(|item| item.entry.partition.id.workspace() == workspace);
        self.queue = kept;
        Vec::from_iter::<VecDeque<Item>>(held)
    }

    /// Lets what is under way end, and ends what does not within the grace period. Staged uploads clean up after
    /// themselves; claims end with the process.
    pub(super) async fn drain(&mut self) {
        self.queue.clear();
        if self.running.is_empty() {
            return;
        }
        info!(downloads = self.running.len(), "stopping; downloads under way may end within {GRACE:?}");
        let all = async { while self.running.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, all).await.is_err() {
            warn!(
                downloads = self.running.len(),
                "downloads that did not end are aborted; the next start repeats them"
            );
            self.running.shutdown().await;
        }
    }
}
