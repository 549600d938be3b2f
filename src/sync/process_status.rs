//! The status of the process: its alarms, when it last planned, and signals for the dispatcher.
//!
//! This file owns when an alarm about the process ends. It must not know who waits for the signals.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use tokio::{sync::Notify, time::Instant};
use tracing::{error, info, warn};

use crate::{alarm_kind::AlarmKind, ledger::LedgerError, lock::lock, outcome::Outcome, telemetry::Chain};

/// Shared by everything that works with the same ledger.
#[derive(Debug, Default)]
pub struct ProcessStatus {
    /// By kind and subject.
    incidents: Mutex<BTreeMap<(AlarmKind, String), ProcessAlarm>>,
    planned_at: Mutex<Option<Timestamp>>,
    ledger_failure: Mutex<Option<String>>,
    /// The destinations that failed the last attempt that reached them.
    failing_destinations: Mutex<BTreeSet<String>>,
    configuration: Mutex<LoadedConfiguration>,
    attempt_recorded: Notify,
    tables_due: Notify,
    alarm_raised: Notify,
    is_stopping: AtomicBool,
}

/// How the configuration was last loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadedConfiguration {
    /// Whether the last one was refused, so that an older one is in force.
    pub is_refused: bool,
    /// When the one in force was loaded; `None` for a process that is no daemon.
    pub in_force_since: Option<Timestamp>,
}

/// An alarm about the process.
#[derive(Debug)]
struct ProcessAlarm {
    message: String,
    /// By the monotonic clock; `None` if it has to be cleared.
    ends_at: Option<Instant>,
}

impl ProcessStatus {
    /// Raises an alarm about `subject`, until it is cleared or the process ends. The caller logs it.
    pub fn raise(&self, kind: AlarmKind, subject: &str, message: String) {
        self.insert(kind, subject, ProcessAlarm { message, ends_at: None });
    }

    /// Raises an alarm about `subject` that ends if it is not raised again within `duration`. The caller logs it.
    pub(super) fn raise_for(&self, kind: AlarmKind, subject: &str, message: String, duration: Duration) {
        self.insert(kind, subject, ProcessAlarm { message, ends_at: Some(Instant::now() + duration) });
    }

    fn insert(&self, kind: AlarmKind, subject: &str, incident: ProcessAlarm) {
        lock(&self.incidents).insert((kind, subject.to_owned()), incident);
        self.alarm_raised.notify_one();
    }

    /// Ends the alarm about `subject`, if there is one, and logs that.
    pub fn clear(&self, kind: AlarmKind, subject: &str) {
        if lock(&self.incidents).remove(&(kind, subject.to_owned())).is_some() {
            log_end(kind, subject);
        }
        self.attempt_recorded.notify_one();
    }

    /// The message of one alarm about the process, if it is on.
    pub fn incident(&self, kind: AlarmKind) -> Option<String> {
        self.incidents().remove(&kind)
    }

    /// The process is stopping: it begins nothing new.
    pub fn note_stopping(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    /// Whether the process is stopping.
    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    /// The alarms about the process: for each kind the messages of all its subjects.
    pub fn incidents(&self) -> BTreeMap<AlarmKind, String> {
        let mut incidents = lock(&self.incidents);
        let now = Instant::now();
        for ((kind, subject), _) in incidents.extract_if(.., |_, incident| incident.ends_at.is_some_and(|at| at <= now))
        {
            log_end(kind, &subject);
        }
        let mut all: BTreeMap<AlarmKind, String> = BTreeMap::new();
        for ((kind, _), ProcessAlarm { message, .. }) in incidents.iter() {
            let text = all.entry(*kind).or_default();
            let separator = if text.is_empty() { "" } else { "; " };
            text.push_str(separator);
            text.push_str(message);
        }
        all
    }

    /// An attempt was recorded.
    pub(super) fn note_attempt(&self) {
        self.attempt_recorded.notify_one();
        self.tables_due.notify_one();
    }

    /// An attempt to store at this destination ended. Returns whether the destination failed it, and the one before, too.
    pub(super) fn note_destination(&self, name: &str, outcome: Outcome) -> bool {
        let mut failing = lock(&self.failing_destinations);
        match outcome {
            Outcome::StoreFailed => !failing.insert(name.to_owned()),
            Outcome::Stored => {
                failing.remove(name);
                false
            }
            // Other attempts end before they reach it.
            _ => false,
        }
    }

    /// The ledger could not be read or written. The alarm is logged once, and ends when a plan is recorded.
    pub(super) fn note_ledger_failure(&self, error: &LedgerError) {
        let message = Chain(error).to_string();
        if lock(&self.ledger_failure).replace(message.clone()).is_some() {
            warn!("ledger write failed again, retrying: {message}");
        } else {
            error!(alarm = AlarmKind::Ledger.as_str(), phase = "began", "ledger write failed, retrying: {message}");
        }
    }

    /// The last failure of the ledger; `None` once a plan was recorded after it.
    pub fn ledger_failure(&self) -> Option<String> {
        lock(&self.ledger_failure).clone()
    }

    /// The loop has planned, and the plan was recorded.
    pub(super) fn note_plan(&self, now: Timestamp) {
        if lock(&self.ledger_failure).take().is_some() {
            info!(alarm = AlarmKind::Ledger.as_str(), phase = "ended", "the ledger is written again");
        }
        lock(&self.planned_at).replace(now);
    }

    /// A configuration was loaded at `now`.
    pub fn note_configuration(&self, now: Timestamp) {
        *lock(&self.configuration) = LoadedConfiguration { is_refused: false, in_force_since: Some(now) };
    }

    /// A new configuration was refused.
    pub fn note_refused_configuration(&self) {
        lock(&self.configuration).is_refused = true;
    }

    /// How the configuration was last loaded.
    pub fn configuration(&self) -> LoadedConfiguration {
        *lock(&self.configuration)
    }

    /// When the loop last planned.
    pub fn planned_at(&self) -> Option<Timestamp> {
        *lock(&self.planned_at)
    }

    /// Returns once an attempt was recorded, or an alarm ended, since it last returned.
    pub async fn attempt_recorded(&self) {
        self.attempt_recorded.notified().await;
    }

    /// Returns once an attempt was recorded since it last returned: there may be tables to make.
    pub(super) async fn tables_due(&self) {
        self.tables_due.notified().await;
    }

    /// Returns once an alarm about the process was raised since it last returned.
    pub async fn alarm_raised(&self) {
        self.alarm_raised.notified().await;
    }
}

fn log_end(kind: AlarmKind, subject: &str) {
    info!(alarm = kind.as_str(), phase = "ended", "{subject}: resolved: {kind}");
}
