//! What the process itself has to say to whoever listens: that something came of an attempt, that the loop goes on, what
//! is wrong with the process.
//!
//! This file owns no decision. It must not know who listens.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::alarm_kind::AlarmKind;

/// Shared by everything that works with the same ledger.
#[derive(Debug, Default)]
pub struct Bulletin {
    /// By kind and subject.
    incidents: Mutex<BTreeMap<(AlarmKind, String), String>>,
    planned_at: Mutex<Option<Timestamp>>,
    refusal: Mutex<Option<String>>,
    news: Notify,
    alarm: Notify,
}

impl Bulletin {
    /// Something is wrong with `subject` until it is cleared, or the process ends.
    pub fn raise(&self, kind: AlarmKind, subject: &str, message: String) {
        self.with_incidents(|incidents| incidents.insert((kind, subject.to_owned()), message));
        self.alarm.notify_one();
    }

    /// It is no longer wrong.
    pub fn clear(&self, kind: AlarmKind, subject: &str) {
        self.with_incidents(|incidents| incidents.remove(&(kind, subject.to_owned())));
        self.news.notify_one();
    }

    /// What is wrong: one message a kind, of all its subjects.
    pub fn incidents(&self) -> BTreeMap<AlarmKind, String> {
        let mut all: BTreeMap<AlarmKind, String> = BTreeMap::new();
        self.with_incidents(|incidents| {
            for ((kind, _), message) in incidents.iter() {
                let text = all.entry(*kind).or_default();
                let separator = if text.is_empty() { "" } else { "; " };
                text.push_str(separator);
                text.push_str(message);
            }
        });
        all
    }

    fn with_incidents<T>(&self, act: impl FnOnce(&mut BTreeMap<(AlarmKind, String), String>) -> T) -> T {
        act(&mut self.incidents.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// An attempt was recorded.
    pub(super) fn note_attempt(&self) {
        self.news.notify_one();
    }

    /// The ledger refused something, which was not written.
    pub(super) fn note_refusal(&self, message: String) {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).replace(message);
    }

    /// What the ledger last refused, until a plan could be written again.
    pub fn refusal(&self) -> Option<String> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An attempt was recorded that is an alarm by itself; the next one may end it at once.
    pub(super) fn note_alarm(&self) {
        self.alarm.notify_one();
    }

    /// The loop has planned, and the ledger has taken it.
    pub(super) fn note_plan(&self, now: Timestamp) {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.planned_at.lock().unwrap_or_else(PoisonError::into_inner).replace(now);
    }

    /// When the loop last planned.
    pub fn planned_at(&self) -> Option<Timestamp> {
        *self.planned_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when something is new since the last time that it returned.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// Returns when something calls for attention since the last time that it returned.
    pub async fn alarm(&self) {
        self.alarm.notified().await;
    }
}
