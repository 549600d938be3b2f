//! The status of the process: what is wrong with it, when it last planned, and signals that something happened.
//!
//! This file owns no decision. It must not know who waits for the signals.

use std::{collections::BTreeMap, sync::Mutex};

use jiff::Timestamp;
use tokio::sync::Notify;
use tracing::{error, info, warn};

use crate::{alarm_kind::AlarmKind, ledger::LedgerError, lock::lock, telemetry::Chain};

/// Shared by everything that works with the same ledger.
#[derive(Debug, Default)]
pub struct ProcessStatus {
    /// Messages by kind and subject.
    incidents: Mutex<BTreeMap<(AlarmKind, String), String>>,
    planned_at: Mutex<Option<Timestamp>>,
    ledger_failure: Mutex<Option<String>>,
    attempt_recorded: Notify,
    alarm_raised: Notify,
}

impl ProcessStatus {
    /// Raises an alarm about `subject`, until it is cleared or the process ends. The caller logs it.
    pub fn raise(&self, kind: AlarmKind, subject: &str, message: String) {
        lock(&self.incidents).insert((kind, subject.to_owned()), message);
        self.alarm_raised.notify_one();
    }

    /// Ends the alarm about `subject`, if there is one, and logs that.
    pub fn clear(&self, kind: AlarmKind, subject: &str) {
        if lock(&self.incidents).remove(&(kind, subject.to_owned())).is_some() {
            info!(alarm = kind.as_str(), phase = "ended", "{subject}: resolved: {kind}");
        }
        self.attempt_recorded.notify_one();
    }

    /// The alarms about the process: for each kind the messages of all its subjects.
    pub fn incidents(&self) -> BTreeMap<AlarmKind, String> {
        let mut all: BTreeMap<AlarmKind, String> = BTreeMap::new();
        for ((kind, _), message) in lock(&self.incidents).iter() {
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
    }

    /// The ledger could not be read or written. The alarm is logged once, until a plan is recorded.
    pub(super) fn note_ledger_failure(&self, error: &LedgerError) {
        let message = Chain(error).to_string();
        if lock(&self.ledger_failure).replace(message.clone()).is_some() {
            warn!("ledger write failed again, retrying: {message}");
        } else {
            error!(alarm = AlarmKind::Ledger.as_str(), phase = "began", "ledger write failed, retrying: {message}");
        }
    }

    /// The last failure to write the ledger; `None` once a plan was recorded after it.
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

    /// When the loop last planned.
    pub fn planned_at(&self) -> Option<Timestamp> {
        *lock(&self.planned_at)
    }

    /// Returns once an attempt was recorded, or an alarm ended, since it last returned.
    pub async fn attempt_recorded(&self) {
        self.attempt_recorded.notified().await;
    }

    /// Returns once an alarm about the process was raised since it last returned.
    pub async fn alarm_raised(&self) {
        self.alarm_raised.notified().await;
    }
}
