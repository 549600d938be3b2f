//! The difference between a survey and the last report.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{ActiveAlarm, AlarmKey, AlarmStatus};
use crate::alarm_kind::AlarmKind;

/// The last report of an alarm that is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notified {
    /// When it was first reported.
    pub since: Timestamp,
    /// The kind reported: a report that was late may be expiring now.
    pub kind: AlarmKind,
    /// The threshold to expiry reported.
    pub within: Option<SignedDuration>,
}

/// How an alarm changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It was not on before.
    Began,
    /// A smaller threshold to expiry was passed.
    Worsened,
    /// It is off.
    Ended,
}

/// One alarm that differs from its last report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which alarm.
    pub key: AlarmKey,
    /// The change to report; `None` if only the record changes.
    pub phase: Option<Phase>,
    /// The last report.
    pub before: Option<Notified>,
    /// The alarm as it is now; `None` once it is off.
    pub alarm: Option<ActiveAlarm>,
}

impl Change {
    /// The record after this change was reported; `None` if the alarm is off.
    pub fn notified(&self, now: Timestamp) -> Option<Notified> {
        let since = self.before.as_ref().map_or(now, |before| before.since);
        self.alarm.as_ref().map(|alarm| Notified { since, kind: alarm.kind, within: alarm.within })
    }
}

/// The changes from `notified`, the last report, to `found`, a survey.
pub fn compare(notified: &BTreeMap<AlarmKey, Notified>, found: &BTreeMap<AlarmKey, AlarmStatus>) -> Vec<Change> {
    let ended = notified.iter().filter(|(key, _)| !found.contains_key(key)).map(|(key, before)| Change {
        key: key.clone(),
        phase: Some(Phase::Ended),
        before: Some(before.clone()),
        alarm: None,
    });
    let active = found.iter().filter_map(|(key, status)| {
        let AlarmStatus::Active(alarm) = status else { return None };
        let before = notified.get(key);
        let phase = match before {
            None => Some(Phase::Began),
            Some(before) if is_nearer(alarm.within, before.within) => Some(Phase::Worsened),
            // The nearest partition is stored and others remain: from here on the alarm can worsen again.
            Some(before) if before.within != alarm.within => None,
            Some(_) => return None,
        };
        Some(Change { key: key.clone(), phase, before: before.cloned(), alarm: Some((**alarm).clone()) })
    });
    ended.chain(active).collect()
}

/// Whether `within` is the smaller threshold; none is the largest.
pub(super) fn is_nearer(within: Option<SignedDuration>, other: Option<SignedDuration>) -> bool {
    match (within, other) {
        (Some(within), Some(other)) => within < other,
        (within, None) => within.is_some(),
        (None, Some(_)) => false,
    }
}
