//! The running attempts, and which queued items may start.
//!
//! This file owns the limits of concurrency: in total, per workspace, per destination. It must not know why a partition
//! is attempted, nor the steps of an attempt.
//!
//! A destination that does not answer delays only partitions that are stored there. An attempt that is stuck there takes a
//! slot of that destination alone, and further attempts for it start last, one at a time until that one is stuck as well.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::{sync::mpsc, task::JoinSet};
use tracing::{debug, error, info, warn};

use super::{
    attempt::{AttemptError, Attempted, sync_one},
    context::{Context, OpenReport},
    frame::Frame,
    queue::{Lane, Queue},
    work::Milestone,
};
use crate::{
    alarm,
    alarm_kind::AlarmKind,
    config::Limits,
    outcome::Outcome,
    plan::{Item, Plan},
    report::PartitionId,
    retry,
};

/// How often slots are counted again while items are queued: an attempt that gets stuck frees one.
pub(super) const SLOTS_INTERVAL: Duration = Duration::from_secs(1);

/// How often a partition is tried that another process has claimed.
pub(super) const OTHERS_INTERVAL: SignedDuration = SignedDuration::from_secs(1);

/// How long running attempts may take to end when the process stops.
pub const DRAINING: Duration = Duration::from_secs(20);

/// Upper bound of the pauses after panics.
const LONGEST_PANIC_PAUSE: SignedDuration = SignedDuration::from_mins(75);

/// An item whose attempt has ended.
pub(super) struct Finished {
    pub(super) item: Item,
    pub(super) result: Result<Attempted, AttemptError>,
}

/// A partition whose last attempts panicked.
struct Panicked {
    /// Number of these attempts.
    times: u32,
    retried_at: Timestamp,
}

impl Panicked {
    /// Retried at the intervals of any failure, without the first ones of seconds: the panic is likely to repeat.
    fn next(before: Option<&Panicked>, now: Timestamp, jitter: f64) -> Self {
        let times = before.map_or(1, |before| before.times.saturating_add(1));
        let pause = retry::delay(times.saturating_add(retry::QUICK_TRIES - 1), jitter);
        Self { times, retried_at: now.checked_add(pause).unwrap_or(now) }
    }

    /// A longer wait than any pause means that the clock was set back.
    fn waits(&self, now: Timestamp) -> bool {
        now < self.retried_at && self.retried_at.duration_since(now) <= LONGEST_PANIC_PAUSE
    }
}

/// A running attempt.
struct Running {
    workspace: String,
    destination: String,
    frame: Arc<Frame>,
    /// It needs nothing more from MoEngage.
    is_downloaded: bool,
}

/// An attempt and what it has just reached.
type Reached = (PartitionId, Milestone);

/// The running attempts and the queue.
pub(super) struct Workers {
    pub(super) ctx: Arc<Context>,
    queue: Queue,
    running: HashMap<PartitionId, Running>,
    /// Partitions whose last attempt panicked.
    panicked: HashMap<PartitionId, Panicked>,
    tasks: JoinSet<Finished>,
    /// Workspaces whose credentials MoEngage has accepted. In any other workspace one attempt runs at a time, so that a
    /// wrong key causes one refused request, not many.
    accepted: HashSet<String>,
    /// Destinations for which the last attempt to end waited until its time was over.
    unanswering: HashSet<String>,
    /// Destinations with an alarm.
    reported: BTreeSet<String>,
    /// What running attempts have just reached.
    milestones: (mpsc::UnboundedSender<Reached>, mpsc::UnboundedReceiver<Reached>),
    /// Whether MoEngage has answered, and so shown its time, since this was last reset.
    pub(super) has_answered: bool,
    /// Number of attempts that began an alarm.
    pub(super) alarms_begun: usize,
}

/// The slots that running attempts take.
#[derive(Default)]
struct TakenSlots {
    all: usize,
    /// By attempts that are not downloaded yet.
    workspaces: HashMap<String, usize>,
    /// By all attempts, those that are stuck included.
    destinations: HashMap<String, usize>,
    /// By attempts that are not stuck.
    progressing: HashMap<String, usize>,
    /// Destinations where an attempt is stuck, or was until its time was over.
    suspects: HashSet<String>,
}

impl TakenSlots {
    /// Whether one more attempt may start. `accepted` are the workspaces whose credentials MoEngage has accepted.
    fn has_one(&self, Lane { workspace, destination }: &Lane, limits: &Limits, accepted: &HashSet<String>) -> bool {
        let most = if accepted.contains(workspace) { limits.concurrency_per_workspace } else { 1 };
        let is_first = count(&self.progressing, destination) == 0;
        self.all < limits.concurrency
            && count(&self.workspaces, workspace) < most
            && count(&self.destinations, destination) < limits.concurrency_per_destination
            && (is_first || !self.suspects.contains(destination))
    }

    fn add(&mut self, workspace: &str, destination: &str, is_downloaded: bool) {
        self.all += 1;
        if !is_downloaded {
            *self.workspaces.entry(workspace.to_owned()).or_default() += 1;
        }
        *self.destinations.entry(destination.to_owned()).or_default() += 1;
        *self.progressing.entry(destination.to_owned()).or_default() += 1;
    }
}

fn count(slots: &HashMap<String, usize>, name: &str) -> usize {
    slots.get(name).copied().unwrap_or(0)
}

impl Workers {
    pub(super) fn new(ctx: Arc<Context>) -> Self {
        Self {
            ctx,
            queue: Queue::default(),
            running: HashMap::new(),
            panicked: HashMap::new(),
            tasks: JoinSet::new(),
            accepted: HashSet::new(),
            unanswering: HashSet::new(),
            reported: BTreeSet::new(),
            milestones: mpsc::unbounded_channel(),
            has_answered: false,
            alarms_begun: 0,
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// Whether the next plan has to wait for an answer of MoEngage, which shows the time.
    pub(super) fn awaits_answer(&self) -> bool {
        !self.has_answered || self.ctx.server_clocks.are_in_doubt()
    }

    /// Whether queued items wait for running attempts.
    pub(super) fn has_waiting(&self) -> bool {
        self.is_busy() && self.has_queued()
    }

    /// Whether a partition must not be started now: an attempt is running, or pauses after a panic.
    pub(super) fn has(&self, id: &PartitionId) -> bool {
        let waits = |panicked: &Panicked| panicked.waits(self.ctx.clock.now());
        self.running.contains_key(id) || self.panicked.get(id).is_some_and(waits)
    }

    /// When a partition whose last attempt panicked is retried.
    pub(super) fn retried_at(&self, id: &PartitionId) -> Option<Timestamp> {
        self.panicked.get(id).map(|panicked| panicked.retried_at)
    }

    fn taken_slots(&self) -> TakenSlots {
        let mut slots = TakenSlots { suspects: self.unanswering.clone(), ..TakenSlots::default() };
        for Running { workspace, destination, frame, is_downloaded } in self.running.values() {
            if frame.is_stuck() {
                *slots.destinations.entry(destination.clone()).or_default() += 1;
                slots.suspects.insert(destination.clone());
            } else {
                slots.add(workspace, destination, *is_downloaded);
            }
        }
        slots
    }

    /// Puts items at the end of the queue, in order.
    pub(super) fn enqueue(&mut self, items: impl IntoIterator<Item = Item>) {
        for item in items {
            if let Some(lane) = self.lane_of(&item) {
                self.queue.push(lane, item);
            }
        }
    }

    /// Puts an item before all others.
    pub(super) fn enqueue_first(&mut self, item: Item) {
        if let Some(lane) = self.lane_of(&item) {
            self.queue.push_front(lane, item);
        }
    }

    /// The lane of an item; `None` if its report is not configured.
    fn lane_of(&self, item: &Item) -> Option<Lane> {
        let open = self.ctx.reports.get(&item.entry.partition.id.report)?;
        let (workspace, destination) = (open.report.id.workspace().to_owned(), open.destination.name().to_owned());
        Some(Lane { workspace, destination })
    }

    /// Whether items wait in the queue.
    pub(super) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Empties the queue.
    pub(super) fn clear_queue(&mut self) {
        self.queue = Queue::default();
    }

    /// Starts queued items as far as the limits allow, in order. Items for a suspect destination come last, those whose last
    /// attempt is oldest first, so that retries of one partition do not delay another's first attempt.
    pub(super) fn start_ready(&mut self) {
        let mut slots = self.taken_slots();
        let ctx = Arc::clone(&self.ctx);
        for starts_suspects in [false, true] {
            loop {
                let may_start = |lane: &Lane| {
                    slots.suspects.contains(&lane.destination) == starts_suspects
                        && slots.has_one(lane, &ctx.config.limits, &self.accepted)
                };
                let next = match starts_suspects {
                    false => self.queue.take_first(may_start),
                    true => self.queue.take_oldest(may_start),
                };
                let Some(item) = next else { break };
                if let Some(open) = ctx.reports.get(&item.entry.partition.id.report).cloned() {
                    slots.add(open.report.id.workspace(), open.destination.name(), false);
                    self.start(item, open);
                }
            }
        }
        self.note_load();
    }

    fn note_load(&self) {
        self.ctx.load.set(self.running.len(), self.queue.len());
    }

    fn start(&mut self, item: Item, open: OpenReport) {
        let id = item.entry.partition.id.clone();
        let frame = Arc::new(Frame::new(self.ctx.config.limits.attempt_timeout));
        let running = Running {
            workspace: id.workspace().to_owned(),
            destination: open.destination.name().to_owned(),
            frame: Arc::clone(&frame),
            is_downloaded: false,
        };
        self.running.insert(id.clone(), running);
        let ctx = Arc::clone(&self.ctx);
        let milestones = self.milestones.0.clone();
        self.tasks.spawn(async move {
            // The receiver is gone once the pass is over.
            let reached = |milestone| drop(milestones.send((id.clone(), milestone)));
            let result = sync_one(&ctx, &open, &item.entry, &frame, &reached).await;
            Finished { item, result }
        });
    }

    /// The next item to finish; `None` after another change that may allow more to start. May be dropped at any time.
    pub(super) async fn next(&mut self) -> Option<Finished> {
        tokio::select! {
            biased;
            Some((id, milestone)) = self.milestones.1.recv() => {
                match milestone {
                    Milestone::Accepted => {
                        self.accepted.insert(id.workspace().to_owned());
                        self.has_answered = true;
                    }
                    Milestone::Downloaded => {
                        self.running.entry(id).and_modify(|running| running.is_downloaded = true);
                    }
                }
                None
            }
            Some(joined) = self.tasks.join_next() => match joined {
                Ok(finished) => self.finished(finished),
                Err(error) => {
                    debug!("an attempt was aborted: {error}");
                    None
                }
            },
            else => None,
        }
    }

    fn finished(&mut self, finished: Finished) -> Option<Finished> {
        let id = &finished.item.entry.partition.id;
        let running = self.running.remove(id);
        self.note_load();
        match &finished.result {
            Err(AttemptError::Panic) => {
                let panicked = Panicked::next(self.panicked.get(id), self.ctx.clock.now(), self.ctx.clock.jitter());
                let at = panicked.retried_at;
                let message = format!("an attempt at {id} panicked, a bug in moesync; please report it, with the log");
                error!(alarm = "panic", partition = id.to_string(), next_attempt_at = %at, "{message}");
                self.ctx.status.raise(AlarmKind::Panic, "attempts", message);
                self.panicked.insert(id.clone(), panicked);
            }
            Ok(Attempted::Done(done)) => {
                self.forget_panics(|panicked| panicked == id);
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
            Ok(Attempted::Changed) => self.forget_panics(|panicked| panicked == id),
            Ok(Attempted::Theirs) | Err(AttemptError::Ledger(_)) => {}
        }
        Some(finished)
    }

    /// Works with a new context. Running attempts end with theirs.
    pub(super) fn reload(&mut self, ctx: Arc<Context>) {
        self.forget_panics(|panicked| !ctx.reports.contains_key(&panicked.report));
        self.ctx = ctx;
        let queued = self.queue.take_all();
        self.enqueue(queued);
    }

    /// Forgets the panics of partitions that `plan` does not have: another process or a command has settled them.
    pub(super) fn forget_panics_unless_planned(&mut self, plan: &Plan) {
        if !self.panicked.is_empty() {
            let planned: HashSet<_> = plan.items.iter().map(|item| &item.entry.partition.id).collect();
            self.forget_panics(|panicked| !planned.contains(panicked));
        }
    }

    /// Forgets the panics of partitions that are settled, or attempted without another. The alarm ends with the last one.
    fn forget_panics(&mut self, is_over: impl Fn(&PartitionId) -> bool) {
        let before = self.panicked.len();
        self.panicked.retain(|id, _| !is_over(id));
        if before > 0 && self.panicked.is_empty() {
            self.ctx.status.clear(AlarmKind::Panic, "attempts");
        }
    }

    /// Raises the alarm for each destination that has not answered for minutes, and ends it when the destination answers.
    pub(super) fn report_unanswered(&mut self) {
        let unanswered: BTreeMap<_, _> = self
            .running
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
        self.queue.take_workspace(workspace)
    }

    /// Empties the queue, waits for the running attempts, and aborts those that exceed the grace period. Staged uploads
    /// clean up after themselves, or are swept by the next start; claims end with the process.
    pub(super) async fn drain(&mut self) {
        self.clear_queue();
        if self.tasks.is_empty() {
            return;
        }
        info!(downloads = self.tasks.len(), "stopping; running downloads may finish within {DRAINING:?}");
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAINING, all).await.is_err() {
            warn!(downloads = self.tasks.len(), "aborting downloads that did not finish; the next start repeats them");
            self.tasks.shutdown().await;
        }
    }
}

/// Nothing runs or waits any more.
impl Drop for Workers {
    fn drop(&mut self) {
        self.ctx.load.set(0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_downloaded_takes_no_slot_of_its_workspace_but_one_of_its_destination() {
        let limits = Limits {
            concurrency: 16,
            concurrency_per_workspace: 2,
            concurrency_per_destination: 5,
            archive_bytes: 1,
            inflated_bytes: 1,
            inflate_ratio: 1,
            attempt_timeout: Duration::from_secs(3600),
            connect_timeout: Duration::from_secs(10),
            min_rate: 1024,
            bandwidth: None,
        };
        let lane = Lane { workspace: "acme".to_owned(), destination: "lake".to_owned() };
        let accepted = HashSet::from(["acme".to_owned()]);
        let mut slots = TakenSlots::default();
        let mut start = |is_downloaded| {
            let may_start = slots.has_one(&lane, &limits, &accepted);
            slots.add("acme", "lake", is_downloaded);
            may_start
        };
        assert!([true, true, true, false, false].map(&mut start).iter().all(|may_start| *may_start));
        assert!(!start(false), "the destination has five");

        let mut slots = TakenSlots::default();
        slots.add("acme", "lake", false);
        slots.add("acme", "lake", false);
        assert!(!slots.has_one(&lane, &limits, &accepted), "the workspace has two");
    }
}
