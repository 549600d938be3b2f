//! A partition's entry in the ledger, what an attempt does to it, and whether content may be stored.
//!
//! This folder owns the outcome table. It must not know how an attempt is made or where the entry is recorded; the present
//! and the jitter are arguments.

mod after;
mod timing;

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use self::timing::{LAST_CHANCE, Timing, is_last_chance, not_reached, timing};
use crate::{
    outcome::{Outcome, Remark, StoredObject},
    report::Partition,
    table_words::TablesState,
};

/// The position of a partition in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not due yet.
    Scheduled,
    /// Due and not stored.
    Pending,
    /// Object and manifest are at the destination.
    Stored,
    /// Never published.
    Absent,
    /// Existed at MoEngage, or may have existed, and can no longer be fetched.
    Lost,
}

impl State {
    /// Every state, in the order of a partition's life.
    pub const ALL: [State; 5] = [State::Scheduled, State::Pending, State::Stored, State::Absent, State::Lost];

    /// The word used everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Scheduled => "scheduled",
            State::Pending => "pending",
            State::Stored => "stored",
            State::Absent => "absent",
            State::Lost => "lost",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The end of a partition's life, as the ledger records it. [`State`] depends on the present too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Not ended: still to be stored.
    Open,
    /// See [`State::Stored`].
    Stored,
    /// See [`State::Absent`].
    Absent,
    /// See [`State::Lost`].
    Lost,
}

impl Settled {
    /// The state at any time; `None` while it is open.
    pub fn state(self) -> Option<State> {
        match self {
            Settled::Open => None,
            Settled::Stored => Some(State::Stored),
            Settled::Absent => Some(State::Absent),
            Settled::Lost => Some(State::Lost),
        }
    }
}

/// One partition in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name and its instants.
    pub partition: Partition,
    /// Whether and how its life ended.
    pub settled: Settled,
    /// Outcome of the last attempt.
    pub outcome: Option<Outcome>,
    /// Number of attempts.
    pub attempts: u32,
    /// Number of attempts since the last change of the series of retries.
    pub streak: u32,
    /// Number of attempts since the last change of the outcome.
    pub repeats: u32,
    /// When the last attempt ended.
    pub last_attempt_at: Option<Timestamp>,
    /// Earliest time of the next attempt.
    pub next_attempt_at: Option<Timestamp>,
    /// Whether MoEngage ever sent content.
    pub seen: bool,
    /// MoEngage's `Date` of its last denial before the end.
    pub denied_at: Option<Timestamp>,
    /// Whether it was first requested after its end: a denial then does not mean that it was lost by waiting.
    pub requested_late: bool,
    /// Remark of the last attempt.
    pub remark: Option<Remark>,
    /// Message of the last attempt, for people.
    pub message: Option<String>,
    /// The stored object.
    pub object: Option<StoredObject>,
    /// The state of its tables; `None` if none are made of its report.
    pub tables: Option<TablesState>,
    /// Whether a person has seen that it is lost.
    pub acknowledged: bool,
}

impl Entry {
    /// A partition without attempts.
    pub fn new(partition: Partition) -> Self {
        Self {
            partition,
            settled: Settled::Open,
            outcome: None,
            attempts: 0,
            streak: 0,
            repeats: 0,
            last_attempt_at: None,
            next_attempt_at: None,
            seen: false,
            denied_at: None,
            requested_late: false,
            remark: None,
            message: None,
            object: None,
            tables: None,
            acknowledged: false,
        }
    }

    /// A partition that is first requested after its end.
    pub fn requested_late(partition: Partition) -> Self {
        Self { requested_late: true, ..Self::new(partition) }
    }

    /// The state at `now`.
    pub fn state(&self, now: Timestamp) -> State {
        match self.settled.state() {
            Some(state) => state,
            None if now < self.partition.due_at => State::Scheduled,
            None => State::Pending,
        }
    }
}

/// Facts besides its own attempts that decide how a partition ends.
#[derive(Debug, Clone, Copy)]
pub struct Grounds {
    /// Setting of the report: how long after its generation an unpublished `daily_dump` is given up.
    pub give_up_after: SignedDuration,
    /// When a complete archive of the workspace was last received, by MoEngage's clock.
    pub archive_seen_at: Option<Timestamp>,
}
