//! All alarms: those of partitions, grouped so that one cause is one alarm, and those of the process.
//!
//! The alarm of one partition is decided in `partition.rs`, for the page and the metrics too. Only this file defers the alarm
//! of a partition that is being fetched, and lets the alarm of a cause cover those of its consequences.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use jiff::{SignedDuration, Timestamp};

use super::{
    ActiveAlarm, AlarmKey, AlarmStatus, Subject,
    change::is_nearer,
    partition::{failure, is_at_risk, is_pending, threshold},
};
use crate::{
    alarm_kind::AlarmKind,
    config::Alarms,
    outcome::Outcome,
    partition::{Entry, Settled},
    plan::{Decision, Item, LedgerView, Plan},
    report::ReportId,
};

/// The facts that alarms follow from.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The open partitions, and the decisions about them.
    pub plan: &'a Plan,
    /// The holds of the workspaces.
    pub view: &'a LedgerView,
    /// The lost partitions.
    pub lost: &'a [Entry],
    /// For each report with partitions whose tables cannot be made: the newest of them, their number, and the reason.
    pub without_tables: &'a [(Entry, usize, String)],
    /// The alarms about the process, with messages; `None` where that is not known at present.
    pub incidents: &'a BTreeMap<AlarmKind, Option<String>>,
    /// The thresholds.
    pub alarms: &'a Alarms,
    /// The alarms to report. Only a cause among them covers its consequences.
    pub kinds: &'a BTreeSet<AlarmKind>,
    /// Since when a report at risk is being fetched: see [`reports_being_fetched`].
    pub fetching_since: &'a BTreeMap<ReportId, Timestamp>,
    /// The present.
    pub now: Timestamp,
}

/// How long an alarm waits for an attempt that is planned or in progress.
const FETCH_GRACE: SignedDuration = SignedDuration::from_mins(30);

/// The same within the smallest threshold to expiry, and past expiry.
const FETCH_GRACE_NEAR_EXPIRY: SignedDuration = SignedDuration::from_mins(5);

/// The reports with a partition at risk that is being fetched now. The caller records since when: a process that restarts
/// again and again would otherwise wait each time.
pub fn reports_being_fetched(plan: &Plan, alarms: &Alarms, now: Timestamp) -> BTreeSet<ReportId> {
    let at_risk = plan.items.iter().filter(|item| is_pending(item, now) && is_at_risk(&item.entry, alarms, now));
    let fetched = at_risk.filter(|item| item.decision.is_fetch(now));
    fetched.map(|item| item.entry.partition.id.report.clone()).collect()
}

/// Every alarm that is on or undetermined.
pub fn survey(facts: &Facts<'_>) -> BTreeMap<AlarmKey, AlarmStatus> {
    let mut survey = Survey::new(facts);
    for item in pending(facts) {
        survey.add_pending(item);
    }
    for item in facts.plan.items.iter().filter(|item| item.entry.settled == Settled::Stored) {
        survey.add_refresh(item);
    }
    for entry in facts.lost {
        let date = Some(entry.partition.id.date);
        survey.add(AlarmKind::Lost, Subject { date, ..of_report(entry) }, entry, None);
    }
    for (entry, partitions, reason) in facts.without_tables {
        let report = &entry.partition.id.report;
        let dates = if *partitions == 1 { "1 date".to_owned() } else { format!("{partitions} dates") };
        let newest = entry.partition.id.date;
        let alarm = ActiveAlarm {
            partitions: *partitions,
            reports: BTreeMap::from([(report.clone(), *partitions)]),
            nearest: Some(entry.clone()),
            message: Some(format!("the tables of {dates} cannot be made; {newest}: {reason}")),
            ..empty(AlarmKind::TablesFailed)
        };
        survey.found.insert((AlarmKind::TablesFailed, of_report(entry)), AlarmStatus::Active(Box::new(alarm)));
    }
    for (kind, message) in facts.incidents {
        let status = message.as_ref().map_or(AlarmStatus::Undetermined, |message| {
            AlarmStatus::Active(Box::new(ActiveAlarm { message: Some(message.clone()), ..empty(*kind) }))
        });
        survey.found.insert((*kind, Subject::default()), status);
    }
    survey.found
}

fn pending<'a>(facts: &Facts<'a>) -> impl Iterator<Item = &'a Item> + use<'a> {
    let (plan, now) = (facts.plan, facts.now);
    plan.items.iter().filter(move |item| is_pending(item, now))
}

struct Survey<'a> {
    facts: &'a Facts<'a>,
    /// The workspaces held because MoEngage refuses their credentials.
    refused_workspaces: HashSet<&'a str>,
    failing_destinations: HashSet<&'a str>,
    found: BTreeMap<AlarmKey, AlarmStatus>,
}

impl<'a> Survey<'a> {
    fn new(facts: &'a Facts<'a>) -> Self {
        let refused = facts.view.holds.iter().filter(|(_, hold)| hold.outcome == Outcome::Unauthorized);
        let failing = pending(facts).filter(|item| failure(&item.entry) == Some(AlarmKind::StoreFailed));
        Self {
            facts,
            refused_workspaces: refused.map(|(name, _)| name.as_str()).collect(),
            failing_destinations: failing.filter_map(destination).collect(),
            found: BTreeMap::new(),
        }
    }

    fn add_pending(&mut self, item: &'a Item) {
        let entry = &item.entry;
        let within = threshold(entry, self.facts.alarms, self.facts.now);
        // Only the last attempt's outcome is known: another failure neither proves nor ends the alarm before it.
        let is_failing = !matches!(entry.outcome, None | Some(Outcome::Stored | Outcome::NotPublished));
        if is_failing {
            for kind in [AlarmKind::Unauthorized, AlarmKind::Rejected, AlarmKind::Corrupt, AlarmKind::Unsupported] {
                self.leave_undetermined(kind, of_report(entry));
            }
            self.leave_undetermined(AlarmKind::StoreFailed, of_destination(item));
        }
        let Facts { now, .. } = *self.facts;
        if matches!(item.decision, Decision::Held { outcome: Outcome::RateLimited, until } if until > now) {
            self.leave_undetermined(AlarmKind::Unauthorized, of_workspace(entry));
        }
        let is_refused = self.is_workspace_refused(entry);
        match failure(entry) {
            Some(kind @ (AlarmKind::Rejected | AlarmKind::Corrupt | AlarmKind::Unsupported)) => {
                self.add(kind, of_report(entry), entry, within);
            }
            Some(AlarmKind::Unauthorized) if !is_refused => self.add_refused_report(entry, within),
            _ => {}
        }
        // One cause is one alarm: partitions of a refused workspace or a failing destination are part of it.
        let cause = if is_refused {
            self.add(AlarmKind::Unauthorized, of_workspace(entry), entry, within);
            Some(AlarmKind::Unauthorized)
        } else if entry.outcome == Some(Outcome::StoreFailed)
            && destination(item).is_some_and(|name| self.failing_destinations.contains(name))
        {
            self.add(AlarmKind::StoreFailed, of_destination(item), entry, within);
            Some(AlarmKind::StoreFailed)
        } else {
            None
        };
        if is_at_risk(entry, self.facts.alarms, self.facts.now) {
            let is_covered = cause.is_some_and(|cause| self.facts.kinds.contains(&cause));
            if is_covered || self.is_being_fetched(item, within) {
                self.leave_undetermined(AlarmKind::Expiring, of_report(entry));
            } else {
                self.add(AlarmKind::Expiring, of_report(entry), entry, within);
            }
        }
    }

    /// A stored partition is not at risk, but fetching it again can fail.
    fn add_refresh(&mut self, item: &'a Item) {
        let entry = &item.entry;
        match failure(entry) {
            Some(AlarmKind::Unauthorized) if self.is_workspace_refused(entry) => {
                self.add(AlarmKind::Unauthorized, of_workspace(entry), entry, None);
            }
            Some(AlarmKind::Unauthorized) => self.add_refused_report(entry, None),
            Some(AlarmKind::StoreFailed) => self.add(AlarmKind::StoreFailed, of_destination(item), entry, None),
            Some(kind) => self.add(kind, of_report(entry), entry, None),
            None => {}
        }
    }

    /// A refusal without a hold of the workspace: of one JSON API, which is switched off for the account. An archive's
    /// refusal holds the workspace, so here that hold has ended and the next attempt decides.
    fn add_refused_report(&mut self, entry: &Entry, within: Option<SignedDuration>) {
        if entry.partition.source.is_archive() {
            self.leave_undetermined(AlarmKind::Unauthorized, of_workspace(entry));
        } else {
            self.add(AlarmKind::Unauthorized, of_report(entry), entry, within);
        }
    }

    fn is_workspace_refused(&self, entry: &Entry) -> bool {
        self.refused_workspaces.contains(entry.partition.id.workspace())
    }

    fn is_being_fetched(&self, item: &Item, within: Option<SignedDuration>) -> bool {
        let since = self.facts.fetching_since.get(&item.entry.partition.id.report);
        let age = since.map_or(SignedDuration::ZERO, |since| self.facts.now.duration_since(*since));
        // The thresholds are sorted, longest first.
        let is_last = within.is_some_and(|within| self.facts.alarms.expiry.last().is_none_or(|last| within <= *last));
        item.decision.is_fetch(self.facts.now) && age < if is_last { FETCH_GRACE_NEAR_EXPIRY } else { FETCH_GRACE }
    }

    fn leave_undetermined(&mut self, kind: AlarmKind, subject: Subject) {
        self.found.entry((kind, subject)).or_insert(AlarmStatus::Undetermined);
    }

    fn add(&mut self, kind: AlarmKind, subject: Subject, entry: &Entry, within: Option<SignedDuration>) {
        let status = self.found.entry((kind, subject)).or_insert(AlarmStatus::Undetermined);
        if *status == AlarmStatus::Undetermined {
            *status = AlarmStatus::Active(Box::new(empty(kind)));
        }
        let AlarmStatus::Active(alarm) = status else { return };
        alarm.partitions += 1;
        *alarm.reports.entry(entry.partition.id.report.clone()).or_default() += 1;
        alarm.within = if is_nearer(within, alarm.within) { within } else { alarm.within };
        // A report is late until the first of its partitions passes a threshold.
        if kind == AlarmKind::Expiring {
            alarm.kind = if alarm.within.is_some() { AlarmKind::Expiring } else { AlarmKind::Late };
        }
        let urgency =
            |entry: &Entry| (entry.partition.expires_at.unwrap_or(Timestamp::MAX), entry.partition.id.clone());
        if alarm.nearest.as_ref().is_none_or(|nearest| urgency(entry) < urgency(nearest)) {
            alarm.nearest = Some(entry.clone());
        }
    }
}

fn empty(kind: AlarmKind) -> ActiveAlarm {
    ActiveAlarm { kind, within: None, partitions: 0, reports: BTreeMap::new(), nearest: None, message: None }
}

fn of_report(entry: &Entry) -> Subject {
    let id = &entry.partition.id;
    let (workspace, report) = (id.workspace().to_owned(), id.report.name().to_owned());
    Subject { workspace: Some(workspace), report: Some(report), ..Subject::default() }
}

fn of_workspace(entry: &Entry) -> Subject {
    Subject { workspace: Some(entry.partition.id.workspace().to_owned()), ..Subject::default() }
}

fn of_destination(item: &Item) -> Subject {
    Subject { destination: destination(item).map(str::to_owned), ..Subject::default() }
}

fn destination(item: &Item) -> Option<&str> {
    item.report.as_ref().map(|report| report.destination.name.as_str())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        alarm::{
            change::{Phase, compare},
            fixtures::{alarms, entry, report, utc},
        },
        retry::Hold,
    };

    /// The changes reported of these entries, at each step.
    fn phases(steps: &[(&str, Vec<Entry>, &[Outcome])]) -> Vec<Vec<(Phase, AlarmKind, Option<i64>)>> {
        let mut notified = BTreeMap::new();
        steps
            .iter()
            .map(|(now, entries, holds)| {
                let now = utc(now);
                let hold = |outcome| Hold { outcome, since: now, until: now, is_requested: false };
                let view = LedgerView {
                    holds: holds.iter().map(|outcome| ("acme".to_owned(), hold(*outcome))).collect(),
                    ..LedgerView::default()
                };
                let until = now + SignedDuration::from_mins(1);
                let report = Arc::new(report());
                let item = |entry: &Entry| Item {
                    entry: entry.clone(),
                    report: Some(Arc::clone(&report)),
                    decision: if entry.next_attempt_at.is_some() {
                        Decision::Fetch
                    } else {
                        Decision::Backoff { until }
                    },
                };
                let plan = Plan { items: entries.iter().map(item).collect(), ..Plan::default() };
                let facts = Facts {
                    plan: &plan,
                    view: &view,
                    lost: &[],
                    without_tables: &[],
                    incidents: &BTreeMap::new(),
                    alarms: &alarms(),
                    kinds: &BTreeSet::from(AlarmKind::ALL),
                    fetching_since: &BTreeMap::new(),
                    now,
                };
                let mut reported = Vec::new();
                for change in compare(&notified, &survey(&facts)) {
                    let within = change.alarm.as_ref().and_then(|alarm| alarm.within).map(|within| within.as_hours());
                    let kind = change.alarm.as_ref().map_or(change.key.0, |alarm| alarm.kind);
                    reported.extend(change.phase.map(|phase| (phase, kind, within)));
                    match change.notified(now) {
                        Some(record) => drop(notified.insert(change.key, record)),
                        None => drop(notified.remove(&change.key)),
                    }
                }
                reported
            })
            .collect()
    }

    const NO_HOLDS: &[Outcome] = &[];

    #[test]
    fn an_alarm_is_reported_when_it_begins_worsens_and_ends() {
        let waits = || vec![entry(Outcome::NotPublished, 1)];
        let reported = phases(&[
            ("2026-11-10T16:29:00Z", waits(), NO_HOLDS),
            ("2026-11-10T16:30:00Z", waits(), NO_HOLDS),
            ("2026-11-12T00:00:00Z", waits(), NO_HOLDS),
            ("2026-11-14T10:00:00Z", waits(), NO_HOLDS),
            ("2026-11-15T10:00:00Z", waits(), NO_HOLDS),
            ("2026-11-16T10:00:00Z", waits(), NO_HOLDS),
            ("2026-11-17T04:00:00Z", waits(), NO_HOLDS),
            ("2026-11-17T10:00:00Z", waits(), NO_HOLDS),
            ("2026-11-17T11:00:00Z", Vec::new(), NO_HOLDS),
            ("2026-11-17T12:00:00Z", Vec::new(), NO_HOLDS),
        ]);
        let expiring = |hours| vec![(Phase::Worsened, AlarmKind::Expiring, Some(hours))];
        assert_eq!(
            reported,
            [
                vec![],
                vec![(Phase::Began, AlarmKind::Late, None)],
                vec![],
                expiring(72),
                vec![],
                expiring(24),
                expiring(6),
                expiring(0),
                vec![(Phase::Ended, AlarmKind::Expiring, None)],
                vec![],
            ]
        );
    }

    #[test]
    fn alternating_failures_are_one_alarm_that_ends_once() {
        let at = "2026-11-10T11:00:00Z";
        let reported = phases(&[
            (at, vec![entry(Outcome::Corrupt, 2)], NO_HOLDS),
            (at, vec![entry(Outcome::Unavailable, 1)], NO_HOLDS),
            (at, vec![entry(Outcome::Corrupt, 1)], NO_HOLDS),
            (at, vec![entry(Outcome::Corrupt, 2)], NO_HOLDS),
            (at, vec![], NO_HOLDS),
        ]);
        let corrupt = |phase| vec![(phase, AlarmKind::Corrupt, None)];
        assert_eq!(reported, [corrupt(Phase::Began), vec![], vec![], vec![], corrupt(Phase::Ended)]);
    }

    #[test]
    fn a_refused_workspace_is_one_alarm_that_covers_its_partitions() {
        let waits = || vec![entry(Outcome::Unauthorized, 1), entry(Outcome::NotPublished, 1)];
        let fetched =
            || vec![Entry { next_attempt_at: Some(utc("2026-11-16T11:00:00Z")), ..entry(Outcome::NotPublished, 1) }];
        let reported = phases(&[
            ("2026-11-10T11:00:00Z", waits(), &[Outcome::Unauthorized]),
            ("2026-11-14T11:00:00Z", waits(), &[Outcome::Unauthorized]),
            ("2026-11-16T11:00:00Z", waits(), &[Outcome::Unauthorized]),
            ("2026-11-16T11:00:00Z", fetched(), NO_HOLDS),
            ("2026-11-16T11:00:00Z", vec![], NO_HOLDS),
        ]);
        let refused = |phase, within| vec![(phase, AlarmKind::Unauthorized, within)];
        assert_eq!(
            reported,
            [
                refused(Phase::Began, None),
                refused(Phase::Worsened, Some(72)),
                refused(Phase::Worsened, Some(24)),
                refused(Phase::Ended, None),
                vec![],
            ]
        );
    }
}
