//! The log lines of attempts and of held workspaces.
//!
//! A failed attempt is a WARN, or an INFO if that is expected; of the same that is tried again within seconds, and of a
//! destination that fails, only the first. Alarms are logged by `dispatch`, except `other_content`: it is an event without an
//! end.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use tracing::{debug, error, info, warn};

use crate::{
    outcome::{Attempt, Outcome, Remark, StoredObject},
    partition::{Entry, Settled},
    plan::{Decision, Item, Plan},
    report::PartitionId,
};

/// What happens within this time is not announced: it is logged when it happens. Longer than the quick tries are apart.
const SOON: SignedDuration = SignedDuration::from_secs(20);

/// Logs the end of an attempt after which the partition is `entry`. `is_known`: the failure of its destination was logged.
pub(super) fn attempt_ended(entry: &Entry, attempt: &Attempt, is_known: bool) {
    let id = &entry.partition.id;
    let (workspace, report, date) = (id.workspace(), id.report.name(), id.date);
    let (outcome, message) = (attempt.outcome().as_str(), entry.message.as_deref().unwrap_or_default());
    if let Ok(success) = &attempt.result {
        let StoredObject { key, size, sha256, .. } = &success.object;
        if success.remark == Some(Remark::OtherContent) {
            error!(
                alarm = "other_content", workspace, report, %date, key, size_bytes = size, sha256,
                "{message}; stored {id} at `{key}`"
            );
        } else if message.is_empty() {
            info!(workspace, report, %date, key, size_bytes = size, sha256, "stored {id}");
        } else {
            // Found at the destination, or refreshed.
            info!(workspace, report, %date, key, size_bytes = size, sha256, "{message}: {id}");
        }
        return;
    }
    let http_status = attempt.evidence().http_status;
    let request_id = attempt.evidence().request_id.as_deref();
    let next_attempt_at = entry.next_attempt_at.map(|at| at.to_string());
    let next_attempt_at = next_attempt_at.as_deref();
    match (entry.settled, attempt.outcome()) {
        (Settled::Absent, _) => info!(workspace, report, %date, outcome, "{message}; {id} was never published"),
        (Settled::Open, Outcome::NotPublished) => info!(
            workspace, report, %date, outcome, http_status, request_id, next_attempt_at,
            "{message}; {id} is not published yet"
        ),
        (settled, _) => {
            let consequence = match settled {
                Settled::Lost => "is lost",
                Settled::Stored => "was not refreshed",
                Settled::Open | Settled::Absent => "is not stored",
            };
            let next = entry.next_attempt_at.map(|at| at.duration_since(attempt.finished_at));
            if is_known || (entry.repeats > 1 && next.is_some_and(|next| next < SOON)) {
                debug!(
                    workspace, report, %date, outcome, http_status, request_id, next_attempt_at,
                    "{message}; {id} {consequence}"
                );
            } else {
                warn!(
                    workspace, report, %date, outcome, http_status, request_id, next_attempt_at,
                    "{message}; {id} {consequence}"
                );
            }
        }
    }
}

/// What comes next, as it was last logged.
#[derive(Debug, Default)]
pub(super) struct NextStep {
    logged: Option<(PartitionId, Timestamp)>,
}

impl NextStep {
    /// Logs what the loop waits for while nothing is attempted, once, unless it waits for seconds.
    pub(super) fn log(&mut self, plan: &Plan, now: Timestamp) {
        let waits = plan.items.iter().filter_map(|item| Some((item.decision.until()?, item)));
        let Some((until, item)) = waits.min_by_key(|(until, item)| (*until, &item.entry.partition.id)) else { return };
        let id = &item.entry.partition.id;
        if until.duration_since(now) < SOON {
            return;
        }
        if self.logged.as_ref().is_some_and(|(logged, at)| logged == id && *at == until) {
            return;
        }
        self.logged = Some((id.clone(), until));
        let what = match item.decision {
            Decision::NotDue { .. } => "due",
            Decision::Held { .. } => "requested again, as a probe of its workspace",
            _ => "requested again",
        };
        info!(next_at = %until, "nothing to do until {until}: then {id} is {what}");
    }
}

/// The held workspaces that were logged.
#[derive(Debug, Default)]
pub(super) struct HeldWorkspaces {
    logged: BTreeSet<String>,
}

impl HeldWorkspaces {
    /// Logs each workspace once when its hold begins. Its partitions are not attempted, so no other line is about them.
    pub(super) fn log<'a>(&mut self, items: impl IntoIterator<Item = &'a Item>) {
        let mut held: BTreeMap<&str, Vec<&Item>> = BTreeMap::new();
        for item in items.into_iter().filter(|item| matches!(item.decision, Decision::Held { .. })) {
            held.entry(item.entry.partition.id.workspace()).or_default().push(item);
        }
        self.logged.retain(|workspace| held.contains_key(workspace.as_str()));
        for (workspace, items) in held {
            if self.logged.insert(workspace.to_owned()) {
                let partitions = items.len();
                let nearest_expiry = items.iter().filter_map(|item| item.entry.partition.expires_at).min();
                let nearest_expiry = nearest_expiry.map(|at| at.to_string());
                warn!(
                    workspace,
                    partitions, nearest_expiry, "workspace {workspace} paused: {partitions} partitions waiting"
                );
            }
        }
    }
}
