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

use crate::config::AlarmKind;

/// Shared by everything that works with the same ledger.
#[derive(Debug, Default)]
pub struct Bulletin {
    incidents: Mutex<BTreeMap<AlarmKind, String>>,
    planned_at: Mutex<Option<Timestamp>>,
    refusal: Mutex<Option<String>>,
    news: Notify,
    alarm: Notify,
}

impl Bulletin {
    /// Something is wrong until it is cleared, or the process ends.
    pub fn raise(&self, kind: AlarmKind, message: String) {
        self.incidents.lock().unwrap_or_else(PoisonError::into_inner).insert(kind, message);
        self.alarm.notify_one();
    }

    /// It is no longer wrong.
    pub fn clear(&self, kind: AlarmKind) {
        self.incidents.lock().unwrap_or_else(PoisonError::into_inner).remove(&kind);
        self.news.notify_one();
    }

    /// It is no longer wrong, if it was raised with this message.
    pub fn clear_if(&self, kind: AlarmKind, message: &str) {
        if self.incidents().get(&kind).is_some_and(|raised| raised == message) {
            self.clear(kind);
        }
    }

    /// What is wrong.
    pub fn incidents(&self) -> BTreeMap<AlarmKind, String> {
        self.incidents.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
