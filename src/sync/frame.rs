//! The frame around one attempt: how long it may take, and what it waits on at the moment.
//!
//! This file owns the deadline from claim to record. It must not know the order of the steps. What an attempt waits on
//! decides two things: what a deadline that passes says of it, and whether the attempt still takes the place of another
//! (`workers`). Time here is the runtime's monotonic clock: a clock that is set neither ends nor prolongs an attempt.

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

use crate::{
    lock::lock,
    outcome::{Evidence, Failure, Outcome},
};

/// An attempt that has waited for its destination for this long, in one step, takes no place of attempts at others; where
/// attempts may take less than four times that, a quarter of what they may take.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// A destination that has let an attempt wait for this long, in one step, is reported.
const UNANSWERED_AFTER: Duration = Duration::from_secs(5 * 60);

/// How often a count that stands still is looked at again.
const PAUSED_INTERVAL: Duration = Duration::from_millis(100);

/// What is done at a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// What is there already is looked for, and read again where that is needed.
    Look,
    /// Bytes are written as they arrive.
    Write,
    /// What is there already, and was stored before, is put aside.
    Keep,
    /// The bytes get their final name.
    Store,
    /// The manifest is written.
    Manifest,
    /// What was written for nothing is removed.
    Remove,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Look => "looking for the object",
            Step::Write => "writing the object",
            Step::Keep => "keeping what was there before",
            Step::Store => "storing the object",
            Step::Manifest => "writing the manifest",
            Step::Remove => "removing an unfinished upload",
        })
    }
}

/// What an attempt waits on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitsOn {
    /// MoEngage, or this machine.
    MoEngage,
    /// Its destination.
    Destination(Step),
}

/// What was so when the time was over.
#[derive(Debug, Clone)]
pub(super) struct Overdue {
    pub(super) waits_on: WaitsOn,
    /// Whether it waited for memory that other uploads to the same destination had.
    pub(super) is_short_of_memory: bool,
    /// What MoEngage has shown in this attempt.
    pub(super) evidence: Evidence,
}

impl Overdue {
    /// How the attempt fails that may take no longer than `limit`.
    pub(super) fn failure(self, limit: Duration, destination: &str) -> Failure {
        let (outcome, what) = match self.waits_on {
            WaitsOn::MoEngage if self.evidence.seen => (Outcome::Unavailable, "the download from MoEngage".to_owned()),
            WaitsOn::MoEngage => (Outcome::Unavailable, "the request to MoEngage".to_owned()),
            WaitsOn::Destination(_) if self.is_short_of_memory => (
                Outcome::StoreFailed,
                format!("waiting for memory that other uploads to destination `{destination}` take"),
            ),
            WaitsOn::Destination(step) => (Outcome::StoreFailed, format!("{step} at destination `{destination}`")),
        };
        let message =
            format!("{what} did not finish within {limit:?}, the time for an attempt; see limits.attempt_timeout");
        Failure::after(&self.evidence, outcome, message)
    }

    /// Whether the destination did not answer.
    pub(super) fn is_unanswered(&self) -> bool {
        matches!(self.waits_on, WaitsOn::Destination(_))
    }
}

/// One attempt, from claim to record.
#[derive(Debug)]
pub(super) struct Frame {
    /// How long it may take.
    limit: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    waits_on: WaitsOn,
    /// Since when it waits on that, or when that last went on.
    since: Instant,
    /// Counted before `counted_from`.
    spent: Duration,
    /// `None` while the count stands still.
    counted_from: Option<Instant>,
    waits_for_memory: Option<Arc<AtomicBool>>,
    evidence: Evidence,
}

impl State {
    fn is_short_of_memory(&self) -> bool {
        self.waits_for_memory.as_ref().is_some_and(|waits| waits.load(Ordering::Relaxed))
    }

    /// For how long it has waited for its destination without any progress.
    fn waited(&self) -> Option<(Step, Duration)> {
        match self.waits_on {
            WaitsOn::Destination(step) if !self.is_short_of_memory() => Some((step, self.since.elapsed())),
            _ => None,
        }
    }
}

impl Frame {
    /// Of an attempt that begins now and may take `limit`.
    pub(super) fn new(limit: Duration) -> Self {
        let now = Instant::now();
        let state = State {
            waits_on: WaitsOn::MoEngage,
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

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut lock(&self.state))
    }

    /// Does `work`, which waits on the destination.
    pub(super) async fn at<T>(&self, step: Step, work: impl Future<Output = T>) -> T {
        let enter = |waits_on| {
            self.with(|state| {
                state.since = Instant::now();
                std::mem::replace(&mut state.waits_on, waits_on)
            })
        };
        let before = enter(WaitsOn::Destination(step));
        let done = work.await;
        enter(before);
        done
    }

    /// The destination has gone on with the step at hand.
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

    /// Counts from zero again: one page of many has come.
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

    /// While `flag` is set, it waits for memory rather than for the destination.
    pub(super) fn note_memory(&self, flag: Arc<AtomicBool>) {
        self.with(|state| state.waits_for_memory = Some(flag));
    }

    /// Returns when the time is over.
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
            waits_on: state.waits_on,
            is_short_of_memory: state.is_short_of_memory(),
            evidence: state.evidence.clone(),
        })
    }

    /// Whether it has waited for its destination for so long that it takes no place of attempts at others.
    pub(super) fn is_stuck(&self) -> bool {
        self.with(|state| state.waited()).is_some_and(|(_, waited)| waited >= STUCK_AFTER.min(self.limit / 4))
    }

    /// For how long it has waited for its destination, and in which step, where that is to be reported.
    pub(super) fn unanswered(&self) -> Option<(Step, Duration)> {
        self.with(|state| state.waited()).filter(|(_, waited)| *waited >= UNANSWERED_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn the_deadline_counts_all_but_what_is_not_to_be_counted() {
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
        assert_eq!(overdue.unwrap().waits_on, WaitsOn::Destination(Step::Store));
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
            overdue = frame.deadline() => assert_eq!(overdue.waits_on, WaitsOn::MoEngage),
        }
        assert_eq!(began.elapsed().as_secs(), 6 * LIMIT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_is_stuck_while_its_destination_does_not_go_on() {
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
