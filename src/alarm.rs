//! What calls for attention: of one partition, and of all of them put together so that nobody is flooded.
//!
//! This file owns what a danger is, when it begins, grows and ends. It must not know who is told, or how: it compares
//! what is the case with what was said before. All of it follows from state and not from moments, so that a restart
//! neither repeats nor forgets anything.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp, civil::Date};
use serde::{Deserialize, Serialize};

use crate::{
    config::{AlarmKind, Alarms},
    outcome::Outcome,
    partition::{Entry, Settled, State},
    plan::{Decision, Item, LedgerView, Plan},
    report::ReportId,
};

/// Why a partition calls for attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alarm {
    /// It was or may have been there, and is gone.
    Lost,
    /// It may be gone soon: less than this configured time is left to expiry, or none.
    Expiring {
        /// The configured threshold that was passed; zero once expiry has passed.
        within: SignedDuration,
    },
    /// The vendor refuses the credentials.
    Unauthorized,
    /// The vendor refuses the request.
    Rejected,
    /// What comes is broken, again.
    Corrupt,
    /// What comes is of a format that cannot be verified.
    Unsupported,
    /// The destination refuses, again.
    StoreFailed,
    /// It is not stored long after it was due, whatever its attempts met.
    Late,
}

impl Alarm {
    /// The words of all alarms of partitions, the worst first.
    pub const WORDS: [&str; 8] =
        ["lost", "expiring", "unauthorized", "rejected", "corrupt", "unsupported", "store_failed", "late"];

    /// The same without particulars.
    pub fn kind(self) -> AlarmKind {
        match self {
            Alarm::Lost => AlarmKind::Lost,
            Alarm::Expiring { .. } => AlarmKind::Expiring,
            Alarm::Unauthorized => AlarmKind::Unauthorized,
            Alarm::Rejected => AlarmKind::Rejected,
            Alarm::Corrupt => AlarmKind::Corrupt,
            Alarm::Unsupported => AlarmKind::Unsupported,
            Alarm::StoreFailed => AlarmKind::StoreFailed,
            Alarm::Late => AlarmKind::Late,
        }
    }

    /// The word used in logs and metrics.
    pub fn as_str(self) -> &'static str {
        self.kind().as_str()
    }
}

/// The worst that is to be said of a partition at `now`; `None` when all is as it should be.
pub fn of(entry: &Entry, alarms: &Alarms, now: Timestamp) -> Option<Alarm> {
    match entry.state(now) {
        State::Lost => return Some(Alarm::Lost),
        State::Pending => {}
        State::Stored | State::Scheduled | State::Absent => return None,
    }
    let failing = failure(entry).or_else(|| is_late(entry, alarms, now).then_some(Alarm::Late));
    within(entry, alarms, now).map(|within| Alarm::Expiring { within }).or(failing)
}

/// The same of a partition that a plan names or that was attempted just now: what is stored is fetched again where it
/// restates, and that may fail as well. Once no plan names it any more, nobody waits for that.
pub fn of_planned(entry: &Entry, alarms: &Alarms, now: Timestamp) -> Option<Alarm> {
    match entry.settled {
        Settled::Stored => failure(entry),
        _ => of(entry, alarms, now),
    }
}

/// The smallest configured time that is left to the expiry of a pending partition; zero once that has passed. Nothing is
/// left to lose of what a person first asked for after its end.
fn within(entry: &Entry, alarms: &Alarms, now: Timestamp) -> Option<SignedDuration> {
    let expires_at = entry.partition.expires_at.filter(|_| !entry.asked_late)?;
    let left = expires_at.duration_since(now);
    // A live listing lasts a day: what is longer than a partition's whole life says nothing of it.
    let life = expires_at.duration_since(entry.partition.generated_at);
    // The thresholds are sorted longest first; the smallest one passed is the one to name.
    match left.is_positive() {
        true => alarms.expiry.iter().copied().rfind(|threshold| left <= *threshold && *threshold < life),
        false => Some(SignedDuration::ZERO),
    }
}

fn is_late(entry: &Entry, alarms: &Alarms, now: Timestamp) -> bool {
    !entry.asked_late && now.duration_since(entry.partition.due_at) >= alarms.late_after
}

/// What the last attempt met, if that is an alarm by itself.
fn failure(entry: &Entry) -> Option<Alarm> {
    match entry.outcome? {
        Outcome::Unauthorized => Some(Alarm::Unauthorized),
        Outcome::Rejected => Some(Alarm::Rejected),
        Outcome::Corrupt if entry.repeats >= 2 => Some(Alarm::Corrupt),
        Outcome::Unsupported => Some(Alarm::Unsupported),
        Outcome::StoreFailed if entry.repeats >= 2 => Some(Alarm::StoreFailed),
        _ => None,
    }
}

/// Whether the last attempt has just brought about an alarm by what it met. The next one may end it within a second.
pub fn begins(entry: &Entry) -> bool {
    match failure(entry) {
        Some(Alarm::Corrupt | Alarm::StoreFailed) => entry.repeats == 2,
        Some(_) => entry.repeats == 1,
        None => entry.settled == Settled::Lost,
    }
}

/// What one alarm is about. Two dangers with the same subject are one alarm.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Subject {
    /// Of which workspace, where it is of one.
    pub workspace: Option<String>,
    /// Of which report, where it is of one.
    pub report: Option<String>,
    /// Of which date, where it is of one.
    pub date: Option<Date>,
    /// Of which destination, where it is of one.
    pub destination: Option<String>,
}

/// An alarm's name: two with the same are the same. A report that is late and then expiring is in one danger, which
/// grows; both are kept as [`AlarmKind::Expiring`].
pub type Key = (AlarmKind, Subject);

/// One alarm, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Danger {
    /// What is wrong.
    pub kind: AlarmKind,
    /// Whose partitions it is about.
    pub subject: Subject,
    /// The smallest configured time left to the nearest expiry; zero once it has passed.
    pub within: Option<SignedDuration>,
    /// How many partitions are in it.
    pub partitions: usize,
    /// Of which reports, and how many of each.
    pub reports: BTreeMap<ReportId, usize>,
    /// The one that is the first to be lost.
    pub nearest: Option<Entry>,
    /// Where there is no partition: what happened, for people.
    pub message: Option<String>,
}

/// What is known of one alarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is so.
    Active(Box<Danger>),
    /// Work is under way that will tell. It neither begins nor ends.
    Open,
}

/// Everything that an alarm can follow from.
#[derive(Debug)]
pub struct Facts<'a> {
    /// What is open, and what is being done about it.
    pub plan: &'a Plan,
    /// The holds of the workspaces.
    pub view: &'a LedgerView,
    /// What is lost for good.
    pub lost: &'a [Entry],
    /// What is wrong with the process itself, or nothing where that is not known at present.
    pub incidents: &'a BTreeMap<AlarmKind, Option<String>>,
    /// The thresholds.
    pub alarms: &'a Alarms,
    /// The alarms that are told. A cause stands for the dangers that it brings only where it is one of them.
    pub told: &'a BTreeSet<AlarmKind>,
    /// Since when what is in danger is being fetched, by report: see [`being_fetched`].
    pub fetching_since: &'a BTreeMap<ReportId, Timestamp>,
    /// The present.
    pub now: Timestamp,
}

/// How long something that can be fetched counts as being fetched, rather than as in danger.
const UNDER_WAY: SignedDuration = SignedDuration::from_mins(30);

/// The same for what is nearest to its expiry, or past it.
const UNDER_WAY_AT_LAST: SignedDuration = SignedDuration::from_mins(5);

/// The reports of which something that is in danger is being fetched, or will be in a moment. Since when is to be
/// remembered beyond the process: one that dies again and again would find everything to be just begun.
pub fn being_fetched(plan: &Plan, alarms: &Alarms, now: Timestamp) -> BTreeSet<ReportId> {
    let is_meant = |item: &&Item| is_pending(item, now) && is_in_danger(&item.entry, alarms, now);
    let meant = plan.items.iter().filter(is_meant).filter(|item| item.decision == Decision::Fetch);
    meant.map(|item| item.entry.partition.id.report_id()).collect()
}

/// Whether it is due and not stored, and of a report that is configured.
pub fn is_pending(item: &Item, now: Timestamp) -> bool {
    item.report.is_some() && item.entry.settled == Settled::Open && item.entry.partition.due_at <= now
}

fn is_in_danger(entry: &Entry, alarms: &Alarms, now: Timestamp) -> bool {
    within(entry, alarms, now).is_some() || is_late(entry, alarms, now)
}

/// Every alarm there is. What is not in the result is as it should be.
pub fn survey(facts: &Facts<'_>) -> BTreeMap<Key, Standing> {
    let mut survey = Survey { facts, found: BTreeMap::new() };
    let refused = survey.refused();
    let full = survey.full();
    for item in survey.pending() {
        survey.look(item, &refused, &full);
    }
    for item in facts.plan.items.iter().filter(|item| item.entry.settled == Settled::Stored) {
        survey.look_at_refresh(item, &refused);
    }
    for entry in facts.lost {
        let id = &entry.partition.id;
        survey.add(AlarmKind::Lost, Subject { date: Some(id.date), ..of_report(entry) }, entry, None);
    }
    for (kind, message) in facts.incidents {
        let key = (*kind, Subject::default());
        let danger = |message: &String| Danger {
            kind: *kind,
            subject: Subject::default(),
            within: None,
            partitions: 0,
            reports: BTreeMap::new(),
            nearest: None,
            message: Some(message.clone()),
        };
        survey.found.insert(
            key,
            message.as_ref().map_or(Standing::Open, |message| Standing::Active(Box::new(danger(message)))),
        );
    }
    survey.found
}

struct Survey<'a> {
    facts: &'a Facts<'a>,
    found: BTreeMap<Key, Standing>,
}

impl<'a> Survey<'a> {
    fn pending(&self) -> impl Iterator<Item = &'a Item> + use<'a> {
        let facts = self.facts;
        facts.plan.items.iter().filter(move |item| is_pending(item, facts.now))
    }

    /// The workspaces whose credentials the vendor refuses. A refusal that holds nothing back says nothing of others.
    fn refused(&self) -> Vec<&'a str> {
        let held = self.facts.view.holds.iter().filter(|(_, hold)| hold.outcome == Outcome::Unauthorized);
        held.map(|(name, _)| name.as_str()).collect()
    }

    /// The destinations that refuse.
    fn full(&self) -> Vec<&'a str> {
        let refusing = self.pending().filter(|item| failure(&item.entry) == Some(Alarm::StoreFailed));
        refusing.filter_map(destination).collect()
    }

    fn look(&mut self, item: &'a Item, refused: &[&str], full: &[&str]) {
        let entry = &item.entry;
        let id = &entry.partition.id;
        let within = within(entry, self.facts.alarms, self.facts.now);
        let of_destination = || Subject { destination: destination(item).map(str::to_owned), ..Subject::default() };
        // What is known of a cause is what the last attempt met: another failure neither proves nor ends it.
        let is_failing = !matches!(entry.outcome, None | Some(Outcome::Stored | Outcome::NotPublished));
        if is_failing {
            self.leave_open(AlarmKind::Unauthorized, of_report(entry));
            self.leave_open(AlarmKind::Rejected, of_report(entry));
            self.leave_open(AlarmKind::Corrupt, of_report(entry));
            self.leave_open(AlarmKind::Unsupported, of_report(entry));
            self.leave_open(AlarmKind::StoreFailed, of_destination());
        }
        if matches!(item.decision, Decision::Held { outcome: Outcome::RateLimited, .. }) {
            self.leave_open(AlarmKind::Unauthorized, of_workspace(entry));
        }
        match failure(entry) {
            Some(Alarm::Rejected) => self.add(AlarmKind::Rejected, of_report(entry), entry, within),
            Some(Alarm::Corrupt) => self.add(AlarmKind::Corrupt, of_report(entry), entry, within),
            Some(Alarm::Unsupported) => self.add(AlarmKind::Unsupported, of_report(entry), entry, within),
            Some(Alarm::Unauthorized) if !refused.contains(&id.workspace.as_str()) => {
                self.add_refused(entry, within);
            }
            _ => {}
        }
        // One alarm for all that has the same cause: what is said of a workspace is not said again of its reports.
        let told = self.facts.told;
        let is_stuck_with_others = if refused.contains(&id.workspace.as_str()) {
            self.add(AlarmKind::Unauthorized, of_workspace(entry), entry, within);
            told.contains(&AlarmKind::Unauthorized)
        } else if entry.outcome == Some(Outcome::StoreFailed) && destination(item).is_some_and(|it| full.contains(&it))
        {
            self.add(AlarmKind::StoreFailed, of_destination(), entry, within);
            told.contains(&AlarmKind::StoreFailed)
        } else {
            false
        };
        let is_in_danger = is_in_danger(entry, self.facts.alarms, self.facts.now);
        if is_in_danger && (is_stuck_with_others || self.is_under_way(item, within)) {
            self.leave_open(AlarmKind::Expiring, of_report(entry));
        } else if is_in_danger {
            self.add(AlarmKind::Expiring, of_report(entry), entry, within);
        }
    }

    /// What is stored is in no danger, but may fail to be fetched again where it restates.
    fn look_at_refresh(&mut self, item: &'a Item, refused: &[&str]) {
        let entry = &item.entry;
        let workspace = of_workspace(entry);
        let destination = Subject { destination: destination(item).map(str::to_owned), ..Subject::default() };
        match failure(entry) {
            Some(Alarm::Unauthorized) if refused.contains(&entry.partition.id.workspace.as_str()) => {
                self.add(AlarmKind::Unauthorized, workspace, entry, None);
            }
            Some(Alarm::Unauthorized) => self.add_refused(entry, None),
            Some(Alarm::Rejected) => self.add(AlarmKind::Rejected, of_report(entry), entry, None),
            Some(Alarm::Corrupt) => self.add(AlarmKind::Corrupt, of_report(entry), entry, None),
            Some(Alarm::Unsupported) => self.add(AlarmKind::Unsupported, of_report(entry), entry, None),
            Some(Alarm::StoreFailed) => self.add(AlarmKind::StoreFailed, destination, entry, None),
            _ => {}
        }
    }

    /// Refused, while the credentials are good for others: an API that is switched off for the account. An archive was
    /// refused with the whole workspace, and is about to be asked for again now that this is over.
    fn add_refused(&mut self, entry: &Entry, within: Option<SignedDuration>) {
        if entry.partition.source.is_archive() {
            self.leave_open(AlarmKind::Unauthorized, of_workspace(entry));
        } else {
            self.add(AlarmKind::Unauthorized, of_report(entry), entry, within);
        }
    }

    /// Whether it is fetched now, or will be in a moment: then what comes of it is waited for.
    fn is_under_way(&self, item: &Item, within: Option<SignedDuration>) -> bool {
        let since = self.facts.fetching_since.get(&item.entry.partition.id.report_id());
        let age = since.map_or(SignedDuration::ZERO, |since| self.facts.now.duration_since(*since));
        // The thresholds are sorted longest first.
        let is_last = within.is_some_and(|within| self.facts.alarms.expiry.last().is_none_or(|last| within <= *last));
        item.decision == Decision::Fetch && age < if is_last { UNDER_WAY_AT_LAST } else { UNDER_WAY }
    }

    fn leave_open(&mut self, kind: AlarmKind, subject: Subject) {
        self.found.entry((kind, subject)).or_insert(Standing::Open);
    }

    fn add(&mut self, kind: AlarmKind, subject: Subject, entry: &Entry, within: Option<SignedDuration>) {
        let fresh = || Danger {
            kind,
            subject: subject.clone(),
            within: None,
            partitions: 0,
            reports: BTreeMap::new(),
            nearest: None,
            message: None,
        };
        let standing = self.found.entry((kind, subject.clone())).or_insert(Standing::Open);
        if *standing == Standing::Open {
            *standing = Standing::Active(Box::new(fresh()));
        }
        let Standing::Active(danger) = standing else { return };
        danger.partitions += 1;
        *danger.reports.entry(entry.partition.id.report_id()).or_default() += 1;
        danger.within = if is_nearer(within, danger.within) { within } else { danger.within };
        // A report is late until the first of its partitions is near its expiry.
        if kind == AlarmKind::Expiring {
            danger.kind = if danger.within.is_some() { AlarmKind::Expiring } else { AlarmKind::Late };
        }
        let urgency =
            |entry: &Entry| (entry.partition.expires_at.unwrap_or(Timestamp::MAX), entry.partition.id.clone());
        if danger.nearest.as_ref().is_none_or(|nearest| urgency(entry) < urgency(nearest)) {
            danger.nearest = Some(entry.clone());
        }
    }
}

fn of_report(entry: &Entry) -> Subject {
    let id = &entry.partition.id;
    Subject { workspace: Some(id.workspace.clone()), report: Some(id.report.clone()), ..Subject::default() }
}

fn of_workspace(entry: &Entry) -> Subject {
    Subject { workspace: Some(entry.partition.id.workspace.clone()), ..Subject::default() }
}

fn destination(item: &Item) -> Option<&str> {
    item.report.as_ref().map(|report| report.destination.as_str())
}

/// Whether less time is left: nothing said of the time is the most.
fn is_nearer(within: Option<SignedDuration>, other: Option<SignedDuration>) -> bool {
    match (within, other) {
        (Some(within), Some(other)) => within < other,
        (within, None) => within.is_some(),
        (None, Some(_)) => false,
    }
}

/// What was last said of an alarm that is not over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// When it was first said.
    pub since: Timestamp,
    /// As what: a report that was late may be expiring now.
    pub kind: AlarmKind,
    /// At which time left to expiry.
    pub within: Option<SignedDuration>,
}

/// What is to be said of an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It was not so before.
    Began,
    /// Less time is left than when it was last spoken of.
    Worsened,
    /// It is over.
    Ended,
}

/// One thing to say, and what to remember of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which alarm.
    pub key: Key,
    /// What is to be said; `None` where something is only to be remembered.
    pub phase: Option<Phase>,
    /// What was said before.
    pub before: Option<Told>,
    /// The alarm as it stands; `None` where it is over.
    pub danger: Option<Danger>,
}

impl Change {
    /// What is to be remembered; nothing where it is over.
    pub fn told(&self, now: Timestamp) -> Option<Told> {
        let since = self.before.as_ref().map_or(now, |before| before.since);
        self.danger.as_ref().map(|danger| Told { since, kind: danger.kind, within: danger.within })
    }
}

/// What is to be said, given what was said before.
pub fn compare(told: &BTreeMap<Key, Told>, found: &BTreeMap<Key, Standing>) -> Vec<Change> {
    let ended = told.iter().filter(|(key, _)| !found.contains_key(key)).map(|(key, before)| Change {
        key: key.clone(),
        phase: Some(Phase::Ended),
        before: Some(before.clone()),
        danger: None,
    });
    let standing = found.iter().filter_map(|(key, standing)| {
        let Standing::Active(danger) = standing else { return None };
        let before = told.get(key);
        let phase = match before {
            None => Some(Phase::Began),
            Some(before) if is_nearer(danger.within, before.within) => Some(Phase::Worsened),
            // The nearest is stored, others are still in danger: from here on it may worsen again.
            Some(before) if before.within != danger.within => None,
            Some(_) => return None,
        };
        Some(Change { key: key.clone(), phase, before: before.cloned(), danger: Some((**danger).clone()) })
    });
    ended.chain(standing).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        config::SourceKind,
        report::{Partition, PartitionId},
        retry::Hold,
    };

    fn utc(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn alarms() -> Alarms {
        Alarms {
            late_after: SignedDuration::from_hours(6),
            expiry: [72, 24, 6].map(SignedDuration::from_hours).to_vec(),
        }
    }

    /// Generated at 10:00 on the 10th, due half an hour later, gone on the 17th.
    fn entry(outcome: Outcome, repeats: u32) -> Entry {
        let generated_at = utc("2026-11-10T10:00:00Z");
        let id = PartitionId { workspace: "acme".into(), report: "daily".into(), date: "2026-11-10".parse().unwrap() };
        let partition = Partition {
            id,
            source: SourceKind::CampaignReport,
            generated_at,
            due_at: utc("2026-11-10T10:30:00Z"),
            expires_at: Some(utc("2026-11-17T10:00:00Z")),
        };
        Entry { outcome: Some(outcome), repeats, ..Entry::new(partition) }
    }

    #[test]
    fn a_broken_archive_alarms_when_it_comes_broken_again_and_not_before() {
        let at = |entry: Entry| of(&entry, &alarms(), utc("2026-11-10T10:31:00Z"));
        assert_eq!(at(entry(Outcome::Unavailable, 5)), None);
        assert_eq!(at(entry(Outcome::Corrupt, 1)), None);
        assert_eq!(at(entry(Outcome::Corrupt, 2)), Some(Alarm::Corrupt));
        assert_eq!(at(entry(Outcome::Unsupported, 1)), Some(Alarm::Unsupported));
    }

    #[test]
    fn what_a_person_asked_for_after_its_end_is_neither_late_nor_expiring() {
        let at = |entry: &Entry| of(entry, &alarms(), utc("2026-11-20T00:00:00Z"));
        let late = Entry { asked_late: true, ..entry(Outcome::Unavailable, 9) };
        assert_eq!(at(&late), None);
        assert_eq!(
            at(&Entry { asked_late: false, ..late.clone() }),
            Some(Alarm::Expiring { within: SignedDuration::ZERO })
        );
        assert_eq!(at(&Entry { outcome: Some(Outcome::StoreFailed), ..late }), Some(Alarm::StoreFailed));
    }

    #[test]
    fn what_is_not_stored_long_after_it_was_due_is_late_whatever_its_attempts_met() {
        let at = |entry: Entry, now| of(&entry, &alarms(), utc(now));
        let untried = Entry { outcome: None, ..entry(Outcome::Unavailable, 0) };
        for pending in
            [untried, entry(Outcome::Unavailable, 9), entry(Outcome::RateLimited, 1), entry(Outcome::Corrupt, 1)]
        {
            assert_eq!(at(pending.clone(), "2026-11-10T16:29:00Z"), None);
            assert_eq!(at(pending, "2026-11-10T16:30:00Z"), Some(Alarm::Late));
        }
        assert_eq!(
            at(entry(Outcome::Corrupt, 2), "2026-11-10T16:30:00Z"),
            Some(Alarm::Corrupt),
            "the cause comes first"
        );
    }

    #[test]
    fn what_is_stored_is_an_alarm_only_as_long_as_it_is_to_be_fetched_again() {
        let stored = Entry { settled: Settled::Stored, ..entry(Outcome::Rejected, 1) };
        let now = utc("2026-11-10T16:30:00Z");
        assert_eq!(of(&stored, &alarms(), now), None);
        assert_eq!(of_planned(&stored, &alarms(), now), Some(Alarm::Rejected));
        let fresh = Entry { outcome: Some(Outcome::Stored), ..stored };
        assert_eq!(of_planned(&fresh, &alarms(), now), None);
    }

    #[test]
    fn an_alarm_names_the_nearest_threshold_to_expiry() {
        let at = |now| of(&entry(Outcome::NotPublished, 1), &alarms(), utc(now));
        assert_eq!(at("2026-11-10T10:31:00Z"), None);
        assert_eq!(at("2026-11-10T16:30:00Z"), Some(Alarm::Late));
        let within = |hours| Some(Alarm::Expiring { within: SignedDuration::from_hours(hours) });
        assert_eq!(at("2026-11-14T12:00:00Z"), within(72));
        assert_eq!(at("2026-11-17T08:00:00Z"), within(6));
        assert_eq!(at("2026-11-17T10:00:00Z"), within(0));
    }

    /// What there is to say of these entries, one after the other, by what was said before.
    fn phases(steps: &[(&str, Vec<Entry>, &[Outcome])]) -> Vec<Vec<(Phase, AlarmKind, Option<i64>)>> {
        let mut told = BTreeMap::new();
        steps
            .iter()
            .map(|(now, entries, holds)| {
                let now = utc(now);
                let hold = |outcome| Hold { outcome, since: now, until: now, is_asked: false };
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
                    incidents: &BTreeMap::new(),
                    alarms: &alarms(),
                    told: &BTreeSet::from(AlarmKind::ALL),
                    fetching_since: &BTreeMap::new(),
                    now,
                };
                let changes = compare(&told, &survey(&facts));
                let mut said = Vec::new();
                for change in changes {
                    let within =
                        change.danger.as_ref().and_then(|danger| danger.within).map(|within| within.as_hours());
                    let kind = change.danger.as_ref().map_or(change.key.0, |danger| danger.kind);
                    said.extend(change.phase.map(|phase| (phase, kind, within)));
                    match change.told(now) {
                        Some(memory) => drop(told.insert(change.key, memory)),
                        None => drop(told.remove(&change.key)),
                    }
                }
                said
            })
            .collect()
    }

    fn report() -> crate::config::Report {
        let text = "[[workspaces]]\nname = \"acme\"\napp_id = \"A\"\ndata_center = \"01\"\ntimezone = \"UTC\"\n\
                    secret_key = \"x\"\n[[destinations]]\nname = \"disk\"\nurl = \"file:///x\"\n[[reports]]\n\
                    source = \"campaign_report\"\nname = \"daily\"\nschedule = { every = \"day\", at = \"10:00\" }\n";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("moesync.toml");
        std::fs::write(&path, text).unwrap();
        (*crate::config::load(&path, []).unwrap().reports[0]).clone()
    }

    const NOBODY: &[Outcome] = &[];

    #[test]
    fn a_danger_is_told_when_it_begins_as_it_worsens_and_when_it_is_over() {
        let waits = || vec![entry(Outcome::NotPublished, 1)];
        let said = phases(&[
            ("2026-11-10T16:29:00Z", waits(), NOBODY),
            ("2026-11-10T16:30:00Z", waits(), NOBODY),
            ("2026-11-12T00:00:00Z", waits(), NOBODY),
            ("2026-11-14T10:00:00Z", waits(), NOBODY),
            ("2026-11-15T10:00:00Z", waits(), NOBODY),
            ("2026-11-16T10:00:00Z", waits(), NOBODY),
            ("2026-11-17T04:00:00Z", waits(), NOBODY),
            ("2026-11-17T10:00:00Z", waits(), NOBODY),
            ("2026-11-17T11:00:00Z", Vec::new(), NOBODY),
            ("2026-11-17T12:00:00Z", Vec::new(), NOBODY),
        ]);
        let expiring = |hours| vec![(Phase::Worsened, AlarmKind::Expiring, Some(hours))];
        assert_eq!(
            said,
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
    fn failures_that_take_turns_are_one_danger_that_ends_once() {
        let at = "2026-11-10T11:00:00Z";
        let said = phases(&[
            (at, vec![entry(Outcome::Corrupt, 2)], NOBODY),
            (at, vec![entry(Outcome::Unavailable, 1)], NOBODY),
            (at, vec![entry(Outcome::Corrupt, 1)], NOBODY),
            (at, vec![entry(Outcome::Corrupt, 2)], NOBODY),
            (at, vec![], NOBODY),
        ]);
        let corrupt = |phase| vec![(phase, AlarmKind::Corrupt, None)];
        assert_eq!(said, [corrupt(Phase::Began), vec![], vec![], vec![], corrupt(Phase::Ended)]);
    }

    #[test]
    fn a_refused_workspace_is_one_alarm_that_worsens_and_what_is_fetched_afterwards_is_none() {
        let waits = || vec![entry(Outcome::Unauthorized, 1), entry(Outcome::NotPublished, 1)];
        let fetched =
            || vec![Entry { next_attempt_at: Some(utc("2026-11-16T11:00:00Z")), ..entry(Outcome::NotPublished, 1) }];
        let said = phases(&[
            ("2026-11-10T11:00:00Z", waits(), &[Outcome::Unauthorized]),
            ("2026-11-14T11:00:00Z", waits(), &[Outcome::Unauthorized]),
            ("2026-11-16T11:00:00Z", waits(), &[Outcome::Unauthorized]),
            ("2026-11-16T11:00:00Z", fetched(), NOBODY),
            ("2026-11-16T11:00:00Z", vec![], NOBODY),
        ]);
        let refused = |phase, within| vec![(phase, AlarmKind::Unauthorized, within)];
        assert_eq!(
            said,
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
