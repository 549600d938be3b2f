//! The deadline of one attempt, from claim to record, and what the attempt waits for.
//!
//! This file must not know the order of the steps. What an attempt waits for decides how it fails at the deadline, and
//! whether it takes a slot of other destinations (`workers`). Time here is monotonic: setting the clock neither ends nor
//! prolongs an attempt.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tracing::trace;

use crate::{
    lock::lock,
    outcome::{Evidence, Failure, Outcome},
};

/// An attempt that has waited for its destination for this long in one step is stuck: it takes a slot of that destination
/// alone. At most a quarter of the time for an attempt.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// A destination for which an attempt has waited for this long in one step is an alarm.
const UNANSWERED_AFTER: Duration = Duration::from_secs(5 * 60);

/// How often the deadline is checked while no time is counted.
const PAUSED_INTERVAL: Duration = Duration::from_millis(100);

/// A step at a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Looks for stored objects, and reads them.
    Look,
    /// Writes bytes as they arrive.
    Write,
    /// Keeps stored content as a version, or unverified content in quarantine.
    Keep,
    /// Gives the upload its final name.
    Store,
    /// Writes the manifest.
    Manifest,
    /// Removes an unfinished upload.
    Remove,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Look => "looking for the object",
            Step::Write => "writing the object",
            Step::Keep => "keeping a copy of the content",
            Step::Store => "storing the object",
            Step::Manifest => "writing the manifest",
            Step::Remove => "removing an unfinished upload",
        })
    }
}

/// What an attempt waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitsFor {
    /// MoEngage, or this machine.
    MoEngage,
    /// Its destination.
    Destination(Step),
}

/// An attempt at its deadline.
#[derive(Debug, Clone)]
pub(super) struct Overdue {
    pub(super) waits_for: WaitsFor,
    /// Whether it waits for memory that other uploads to the same destination take.
    pub(super) is_short_of_memory: bool,
    /// What MoEngage has shown in this attempt.
    pub(super) evidence: Evidence,
}

impl Overdue {
    /// How the attempt fails that may take no longer than `limit`.
    pub(super) fn failure(self, limit: Duration, destination: &str) -> Failure {
        let (outcome, what) = match self.waits_for {
            WaitsFor::MoEngage if self.evidence.seen => (Outcome::Unavailable, "the download from MoEngage".to_owned()),
            WaitsFor::MoEngage => (Outcome::Unavailable, "the request to MoEngage".to_owned()),
            WaitsFor::Destination(_) if self.is_short_of_memory => (
                Outcome::StoreFailed,
                format!("waiting for memory that other uploads to destination `{destination}` take"),
            ),
            WaitsFor::Destination(step) => (Outcome::StoreFailed, format!("{step} at destination `{destination}`")),
        };
        let message =
            format!("{what} did not finish within {limit:?}, the time for an attempt; see limits.attempt_timeout");
        Failure::after(&self.evidence, outcome, message)
    }

    /// Whether it waits for its destination.
    pub(super) fn is_unanswered(&self) -> bool {
        matches!(self.waits_for, WaitsFor::Destination(_))
    }
}

/// The deadline of one attempt.
#[derive(Debug)]
pub(super) struct Frame {
    /// How long it may take.
    limit: Duration,
    state: Mutex<FrameState>,
}

#[derive(Debug)]
struct FrameState {
    waits_for: WaitsFor,
    /// Since when it waits for that without progress.
    since: Instant,
    /// Time counted before `counted_from`.
    spent: Duration,
    /// `None` while no time is counted.
    counted_from: Option<Instant>,
    waits_for_memory: Option<Arc<AtomicBool>>,
    evidence: Evidence,
}

impl FrameState {
    fn is_short_of_memory(&self) -> bool {
        self.waits_for_memory.as_ref().is_some_and(|waits| waits.load(Ordering::Relaxed))
    }

    /// How long it has waited for its destination without progress.
    fn waited(&self) -> Option<(Step, Duration)> {
        match self.waits_for {
            WaitsFor::Destination(step) if !self.is_short_of_memory() => Some((step, self.since.elapsed())),
            _ => None,
        }
    }
}

impl Frame {
    /// The frame of an attempt that begins now and may take `limit`.
    pub(super) fn new(limit: Duration) -> Self {
        let now = Instant::now();
        let state = FrameState {
            waits_for: WaitsFor::MoEngage,
            since: now,
            spent: Duration::ZERO,
            counted_from: Some(now),
            waits_for_memory: None,
            evidence: Evidence::default(),
        };
        Self { limit, state: Mutex::new(state) }
    }

    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    fn with<T>(&self, act: impl FnOnce(&mut FrameState) -> T) -> T {
        act(&mut lock(&self.state))
    }

    /// Does `work`, which waits for the destination.
    pub(super) async fn at<T>(&self, step: Step, work: impl Future<Output = T>) -> T {
        let enter = |waits_for| {
            self.with(|state| {
                state.since = Instant::now();
                std::mem::replace(&mut state.waits_for, waits_for)
            })
        };
        // Once for each chunk of a download.
        if step != Step::Write {
            trace!("{step}");
        }
        let before = enter(WaitsFor::Destination(step));
        let done = work.await;
        enter(before);
        done
    }

    /// The destination has made progress in the present step.
    pub(super) fn note_progress(&self) {
        self.with(|state| state.since = Instant::now());
    }

    /// Does `work` without counting its time.
    pub(super) async fn uncounted<T>(&self, work: impl Future<Output = T>) -> T {
        self.with(|state| {
            let ran = state.counted_from.take().map_or(Duration::ZERO, |from| from.elapsed());
            state.spent += ran;
        });
        let done = work.await;
        self.with(|state| state.counted_from = Some(Instant::now()));
        done
    }

    /// Restarts the count: the limit applies to each page of a snapshot.
    pub(super) fn restart(&self) {
        self.with(|state| {
            state.spent = Duration::ZERO;
            state.counted_from = Some(Instant::now());
        });
    }

    /// MoEngage has answered.
    pub(super) fn note_evidence(&self, evidence: Evidence) {
        self.with(|state| state.evidence = evidence);
    }

    /// While `flag` is set, the attempt waits for memory, not for the destination.
    pub(super) fn note_memory(&self, flag: Arc<AtomicBool>) {
        self.with(|state| state.waits_for_memory = Some(flag));
    }

    /// Returns at the deadline.
    pub(super) async fn deadline(&self) -> Overdue {
        loop {
            let (left, is_counting) = self.with(|state| {
                let ran = state.counted_from.map_or(Duration::ZERO, |from| from.elapsed());
                (self.limit.saturating_sub(state.spent + ran), state.counted_from.is_some())
            });
            match (left, is_counting) {
                (Duration::ZERO, true) => break,
                (left, true) => sleep(left).await,
                (left, false) => sleep(left.max(PAUSED_INTERVAL)).await,
            }
        }
        self.with(|state| Overdue {
            waits_for: state.waits_for,
            is_short_of_memory: state.is_short_of_memory(),
            evidence: state.evidence.clone(),
        })
    }

    /// Whether it has waited for its destination for so long that it takes no slot of other destinations.
    pub(super) fn is_stuck(&self) -> bool {
        self.with(|state| state.waited()).is_some_and(|(_, waited)| waited >= STUCK_AFTER.min(self.limit / 4))
    }

    /// In which step and how long it has waited for its destination, if that is an alarm.
    pub(super) fn unanswered(&self) -> Option<(Step, Duration)> {
        self.with(|state| state.waited()).filter(|(_, waited)| *waited >= UNANSWERED_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn the_deadline_counts_all_time_except_uncounted_work() {
        let frame = Frame::new(LIMIT);
        let work = async {
            frame.at(Step::Look, sleep(LIMIT / 4)).await;
            frame.uncounted(sleep(10 * LIMIT)).await;
            frame.at(Step::Store, sleep(LIMIT)).await;
        };
        let began = Instant::now();
        let overdue = tokio::select! {
            () = work => None,
            overdue = frame.deadline() => Some(overdue),
        };
        assert_eq!(overdue.unwrap().waits_for, WaitsFor::Destination(Step::Store));
        assert!(began.elapsed().abs_diff(11 * LIMIT) < Duration::from_secs(1), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn each_page_restarts_the_count() {
        let frame = Frame::new(LIMIT);
        let work = async {
            for _ in 0..10 {
                sleep(LIMIT / 2).await;
                frame.restart();
            }
            sleep(2 * LIMIT).await;
        };
        let began = Instant::now();
        tokio::select! {
            () = work => panic!("the deadline did not pass"),
            overdue = frame.deadline() => assert_eq!(overdue.waits_for, WaitsFor::MoEngage),
        }
        assert_eq!(began.elapsed().as_secs(), 6 * LIMIT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_is_stuck_while_its_destination_makes_no_progress() {
        let frame = Frame::new(LIMIT);
        let waiting = async {
            sleep(2 * STUCK_AFTER).await;
            assert!(!frame.is_stuck(), "it waits for MoEngage");
            frame
                .at(Step::Look, async {
                    sleep(STUCK_AFTER).await;
                    assert!(frame.is_stuck());
                    frame.note_progress();
                    assert!(!frame.is_stuck());
                    sleep(UNANSWERED_AFTER).await;
                    assert_eq!(frame.unanswered(), Some((Step::Look, UNANSWERED_AFTER)));
                })
                .await;
            assert!(!frame.is_stuck());
            let short = Arc::new(AtomicBool::new(true));
            frame.note_memory(Arc::clone(&short));
            frame
                .at(Step::Write, async {
                    sleep(STUCK_AFTER).await;
                    assert!(!frame.is_stuck(), "it waits for memory");
                    short.store(false, Ordering::Relaxed);
                    assert!(frame.is_stuck());
                })
                .await;
        };
        waiting.await;
    }
}
