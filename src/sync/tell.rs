//! What is said when an attempt is over, and of partitions that wait without one.
//!
//! This file owns the log lines of the pipeline: one where something is settled or fails, loud if it calls for attention.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tracing::{error, info, warn};

use super::Context;
use crate::{
    alarm,
    alarm_kind::AlarmKind,
    outcome::{Attempt, OTHER_CONTENT, Outcome, StoredObject},
    partition::{Entry, Settled},
    plan::{Decision, Item},
    report::PartitionId,
};

/// One line where an attempt is over: loud if the partition calls for attention. Whoever tells others is woken by what is an
/// alarm by itself.
pub(super) fn tell(
    ctx: &Context,
    entry: &Entry,
    attempt: &Attempt,
    next_attempt_at: Option<Timestamp>,
    object: Option<&StoredObject>,
) {
    if alarm::begins(entry) {
        ctx.bulletin.note_alarm();
    }
    let PartitionId { workspace, report, date } = &entry.partition.id;
    let (outcome, message) = (attempt.outcome.as_str(), attempt.message.as_str());
    if let Some(object) = object {
        let StoredObject { key, size, sha256, .. } = object;
        if message.starts_with(OTHER_CONTENT) {
            error!(
                alarm = "other_content", workspace, report, %date, key, size_bytes = size, sha256,
                "stored {workspace}/{report} {date} at `{key}`: {message}"
            );
        } else if message.is_empty() {
            info!(workspace, report, %date, key, size_bytes = size, sha256, "stored {workspace}/{report} {date}");
        } else {
            // Found at the destination, or fetched again.
            info!(workspace, report, %date, key, size_bytes = size, sha256, "{workspace}/{report} {date}: {message}");
        }
        return;
    }
    let http_status = attempt.http_status;
    let request_id = attempt.request_id.as_deref();
    let next = next_attempt_at.map(|at| at.to_string());
    let next_attempt_at = next.as_deref();
    match alarm::of_planned(entry, &ctx.config.alarms, attempt.finished_at) {
        Some(alarm) => error!(
            alarm = alarm.as_str(), workspace, report, %date, outcome, http_status, request_id, next_attempt_at,
            "{workspace}/{report} {date} {}: {message}", headline(alarm)
        ),
        None if entry.settled == Settled::Absent => {
            info!(workspace, report, %date, outcome, "{workspace}/{report} {date} was never published");
        }
        None if attempt.outcome == Outcome::NotPublished => {
            info!(
                workspace, report, %date, outcome, http_status, request_id, next_attempt_at,
                "{workspace}/{report} {date} is not published yet"
            );
        }
        None => warn!(
            workspace, report, %date, outcome, http_status, request_id, next_attempt_at,
            "{workspace}/{report} {date}: {message}"
        ),
    }
}

fn headline(alarm: AlarmKind) -> &'static str {
    match alarm {
        AlarmKind::Lost => "is lost",
        AlarmKind::Expiring => "is not stored and expires soon",
        AlarmKind::Unauthorized => "cannot be fetched, the vendor refuses the credentials",
        AlarmKind::Rejected => "cannot be fetched, the vendor refuses the request",
        AlarmKind::Corrupt => "came broken again",
        AlarmKind::Unsupported => "came in a format that cannot be verified",
        AlarmKind::StoreFailed => "could not be stored again",
        AlarmKind::Late => "is late",
        kind => kind.as_str(),
    }
}

/// What was last said of the workspaces that wait.
#[derive(Debug, Default)]
pub(super) struct Held {
    said: BTreeMap<String, Option<AlarmKind>>,
}

impl Held {
    /// One line for each workspace that waits as a whole, when that begins and each time the danger grows: its
    /// partitions are not attempted, and so would not be heard of.
    pub(super) fn tell(&mut self, ctx: &Context, items: &[Item], now: Timestamp) {
        let mut held: BTreeMap<&str, Vec<&Item>> = BTreeMap::new();
        for item in items.iter().filter(|item| matches!(item.decision, Decision::Held { .. })) {
            held.entry(&item.entry.partition.id.workspace).or_default().push(item);
        }
        self.said.retain(|workspace, _| held.contains_key(workspace.as_str()));
        for (workspace, items) in held {
            let nearest = items.iter().min_by_key(|item| item.entry.partition.expires_at.unwrap_or(Timestamp::MAX));
            let alarm = nearest.and_then(|item| alarm::of_planned(&item.entry, &ctx.config.alarms, now));
            if self.said.insert(workspace.to_owned(), alarm) == Some(alarm) {
                continue;
            }
            let (partitions, expires_at) = (items.len(), nearest.and_then(|item| item.entry.partition.expires_at));
            let expires_at = expires_at.map(|at| at.to_string());
            match alarm {
                Some(alarm) => error!(
                    alarm = alarm.as_str(),
                    workspace,
                    partitions,
                    nearest_expiry = expires_at,
                    "{partitions} partitions of workspace {workspace} wait as a whole; the nearest to expiry {}",
                    headline(alarm)
                ),
                None => warn!(
                    workspace,
                    partitions,
                    nearest_expiry = expires_at,
                    "{partitions} partitions of workspace {workspace} wait as a whole"
                ),
            }
        }
    }
}
