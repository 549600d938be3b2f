//! What changed between a survey and what was last reported.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{ActiveAlarm, AlarmKey, AlarmStatus};
use crate::alarm_kind::AlarmKind;

/// What was last reported of an alarm that is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notified {
    /// When it was first reported.
    pub since: Timestamp,
    /// The kind reported: a report that was late may be expiring now.
    pub kind: AlarmKind,
    /// The threshold to expiry reported.
    pub within: Option<SignedDuration>,
}

/// What happened to an alarm.
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

/// One alarm that differs from what was last reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which alarm.
    pub key: AlarmKey,
    /// What to report; `None` where only the record of it changes.
    pub phase: Option<Phase>,
    /// What was reported before.
    pub before: Option<Notified>,
    /// The alarm as it is now; `None` once it is off.
    pub alarm: Option<ActiveAlarm>,
}

impl Change {
    /// What is on record once this change was reported; `None` once the alarm is off.
    pub fn notified(&self, now: Timestamp) -> Option<Notified> {
        let since = self.before.as_ref().map_or(now, |before| before.since);
        self.alarm.as_ref().map(|alarm| Notified { since, kind: alarm.kind, within: alarm.within })
    }
}

/// What changed between `notified`, the last report, and `found`, a survey.
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
