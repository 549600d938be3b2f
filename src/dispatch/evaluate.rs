//! The present alarms, and the events that follow for each target.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;

use super::deliver::{event, subscribers};
use crate::{
    alarm::{self, AlarmKey, AlarmStatus, Change, Facts, Notified, Phase, Subject},
    alarm_kind::AlarmKind,
    config::{Channel, Events, Target},
    event::{Content, Event},
    ledger::{Duty, FailedTables, LedgerError},
    plan::{LedgerView, Plan},
    sync::{Context, Planned},
};

/// The name of the log among the targets in the ledger. A configured target cannot have an empty name.
pub(super) const LOG: &str = "";

/// What a process evaluates.
#[derive(Debug, Clone)]
pub(super) enum Role {
    /// A command: its plan, beside the process on duty.
    Command(Option<Arc<Planned>>),
    /// The daemon on duty: this plan.
    OnDuty(Option<Arc<Planned>>),
    /// Any other daemon: its own alarms only, which no other process knows.
    OffDuty,
}

impl Role {
    pub(super) fn command(ctx: &Context) -> Self {
        Self::Command(ctx.planned.latest())
    }

    pub(super) fn is_off_duty(&self) -> bool {
        matches!(self, Self::OffDuty)
    }

    fn planned(&self) -> Option<&Planned> {
        match self {
            Self::Command(planned) | Self::OnDuty(planned) => planned.as_deref(),
            Self::OffDuty => None,
        }
    }

    /// Without which nothing of the evaluation is recorded.
    fn duty(&self) -> Option<Duty> {
        matches!(self, Self::OnDuty(_)).then_some(Duty::Notifying)
    }
}

/// The alarms at one time.
pub(super) struct Evaluation {
    pub(super) all: BTreeMap<AlarmKey, AlarmStatus>,
    /// The same for each target that receives events, by its name: an alarm that it does not receive covers no other.
    by_target: BTreeMap<String, BTreeMap<AlarmKey, AlarmStatus>>,
    /// The alarms that have not ended, for each dead man's switch, by its name.
    pub(super) unresolved: BTreeMap<String, BTreeMap<AlarmKey, Notified>>,
    /// Number of configured partitions that are due and not stored.
    pub(super) pending: usize,
    pub(super) now: Timestamp,
    duty: Option<Duty>,
}

impl Evaluation {
    /// The alarms that are certainly on.
    pub(super) fn active(&self) -> impl Iterator<Item = &AlarmKey> {
        self.all.iter().filter(|(_, status)| matches!(status, AlarmStatus::Active(_))).map(|(key, _)| key)
    }
}

/// Evaluates the alarms from the plan of `role`, the lost partitions and the state of the process. Without the plan if this
/// process is not on duty: another evaluates its own, which may be newer.
pub(super) async fn evaluate(ctx: &Context, role: &Role) -> Result<Evaluation, LedgerError> {
    let now = ctx.clock.now();
    let planned = role.planned();
    let nothing = (Plan::default(), LedgerView::default());
    let (plan, view) = planned.map_or((&nothing.0, &nothing.1), |planned| (&planned.plan, &planned.view));
    let mut lost = ctx.ledger.lost().await?;
    lost.retain(|entry| ctx.reports.contains_key(&entry.partition.id.report));
    let failed = ctx.ledger.failed_tables().await?;
    let failed = failed.into_iter().filter(|failed| ctx.reports.contains_key(&failed.newest.partition.id.report));
    let without_tables: Vec<_> =
        failed.map(|FailedTables { newest, partitions, message }| (newest, partitions, message)).collect();
    let mut fetching_since = BTreeMap::new();
    // Without a plan it is unknown whether a reported alarm has ended. An alarm about a process has ended if no live process
    // has it; which they are, the process on duty finds last.
    let mut unplanned: BTreeSet<AlarmKey> = BTreeSet::new();
    if planned.is_some() {
        let fetched = alarm::reports_being_fetched(plan, &ctx.config.alarms, now);
        fetching_since = ctx.ledger.note_fetching(&fetched, now).await?;
    } else {
        for target in ctx.config.notify.iter().map(|target| target.name.as_str()).chain([LOG]) {
            let notified = ctx.ledger.notified(target).await?.into_keys();
            unplanned.extend(notified.filter(|(_, subject)| role.is_off_duty() || *subject != Subject::default()));
        }
    }
    let incidents = shared_incidents(ctx).await?;
    let survey = |kinds: &BTreeSet<AlarmKind>| {
        let mut all = alarm::survey(&Facts {
            plan,
            view,
            lost: &lost,
            without_tables: &without_tables,
            incidents: &incidents,
            alarms: &ctx.config.alarms,
            kinds,
            fetching_since: &fetching_since,
            now,
        });
        for key in &unplanned {
            all.entry(key.clone()).or_insert(AlarmStatus::Undetermined);
        }
        all
    };
    let by_target = subscribers(&ctx.config).map(|(target, events)| (target.name.clone(), survey(&events.alarms)));
    let mut evaluation = Evaluation {
        all: survey(&BTreeSet::from(AlarmKind::ALL)),
        by_target: by_target.collect(),
        unresolved: BTreeMap::new(),
        pending: plan.items.iter().filter(|item| alarm::is_pending(item, now)).count(),
        now,
        duty: role.duty(),
    };
    for target in ctx.config.notify.iter().filter(|target| matches!(target.channel, Channel::Ping { .. })) {
        let unresolved = record_for_heartbeat(ctx, target, &evaluation).await?;
        evaluation.unresolved.insert(target.name.clone(), unresolved);
    }
    Ok(evaluation)
}

/// The alarms about all processes of the ledger, as [`Context::incidents`] has those about this one.
async fn shared_incidents(ctx: &Context) -> Result<BTreeMap<AlarmKind, Option<String>>, LedgerError> {
    let mut incidents = ctx.incidents();
    let own = incidents.iter().filter_map(|(kind, message)| Some((*kind, message.clone()?))).collect();
    for (kind, message) in ctx.ledger.share_incidents(&own).await? {
        let known = incidents.entry(kind).or_insert(None);
        *known = Some(match known.take() {
            Some(own) => format!("{own}; {message}"),
            None => message,
        });
    }
    Ok(incidents)
}

/// Records the alarms of a dead man's switch, as [`write_alarms`] does for targets that receive events. An undetermined
/// alarm stays as it was. Returns those that have not ended.
async fn record_for_heartbeat(
    ctx: &Context,
    target: &Target,
    evaluation: &Evaluation,
) -> Result<BTreeMap<AlarmKey, Notified>, LedgerError> {
    record_changes(ctx, &target.name, &evaluation.all, evaluation, |_| Vec::new()).await?;
    ctx.ledger.notified(&target.name).await
}

/// Writes an event for each alarm of `target` that began, worsened or ended.
pub(super) async fn write_alarms(
    ctx: &Context,
    target: &Target,
    events: &Events,
    evaluation: &Evaluation,
) -> Result<(), LedgerError> {
    let alarms = evaluation.by_target.get(&target.name).into_iter().flatten();
    let received: BTreeMap<AlarmKey, AlarmStatus> = alarms
        .map(|(key, status)| match status {
            // An alarm that the target does not receive neither begins nor ends for it.
            AlarmStatus::Active(alarm) if !events.alarms.contains(&alarm.kind) => {
                (key.clone(), AlarmStatus::Undetermined)
            }
            status => (key.clone(), status.clone()),
        })
        .collect();
    let now = evaluation.now;
    record_changes(ctx, &target.name, &received, evaluation, |changes| {
        let is_received = |change: &Change| {
            let before = change.before.as_ref().map_or(change.key.0, |before| before.kind);
            change.phase != Some(Phase::Ended) || events.alarms.contains(&before)
        };
        let changes: Vec<_> = changes.into_iter().filter(is_received).collect();
        let contents = Content::of_changes(&changes, now).into_iter();
        contents.map(|(content, keys)| (event(content, now, &ctx.config.instance), keys)).collect()
    })
    .await
}

/// Records for `target` that its alarms are `alarms` now, together with the events that `events` makes of the changes.
/// Without a change, nothing is written; nor if this process has lost the duty to which the evaluation belongs.
pub(super) async fn record_changes(
    ctx: &Context,
    target: &str,
    alarms: &BTreeMap<AlarmKey, AlarmStatus>,
    &Evaluation { now, duty, .. }: &Evaluation,
    events: impl FnOnce(Vec<Change>) -> Vec<(Event, Vec<AlarmKey>)>,
) -> Result<(), LedgerError> {
    if alarm::compare(&ctx.ledger.notified(target).await?, alarms).is_empty() {
        return Ok(());
    }
    let decide = |notified: &BTreeMap<AlarmKey, Notified>| {
        let changes = alarm::compare(notified, alarms);
        let records = changes.iter().map(|change| (change.key.clone(), change.notified(now))).collect();
        (records, events(changes))
    };
    ctx.ledger.record_notified(duty, target, now, decide).await
}
