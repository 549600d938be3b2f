//! What is to be done: a pure function of the configured reports, what the ledger knows, and the present.
//!
//! This file owns the decision which partitions exist and which of them are fetched now. It must not know how: it
//! touches nothing, so that the daemon acts on the very value that `moesync plan` prints.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp, ToSpan, civil};

use crate::{
    config::{Report, SnapshotSource, Source, SourceKind, StatsQuery},
    outcome::{CLOCK_TOLERANCE, Outcome},
    partition::{Entry, Settled},
    report::{Partition, PartitionId, ReportId},
    retry::Hold,
    schedule,
};

/// What the ledger says that a plan depends on.
#[derive(Debug, Clone, Default)]
pub struct LedgerView {
    /// Up to which generation time each report has been planned.
    pub planned_through: HashMap<ReportId, Timestamp>,
    /// Every open partition, and every other one that planning could come upon again.
    pub entries: Vec<Entry>,
    /// The workspaces that are left alone, by name.
    pub holds: HashMap<String, Hold>,
    /// How far the local clock is ahead of those of the vendor's servers, by [`Report::server`], as far as several answers
    /// have confirmed it lately.
    pub clock_ahead: HashMap<String, SignedDuration>,
    /// Whether a plan that caught up in part has had no answer from the vendor yet that shows the present: then it goes no
    /// further.
    pub awaits_answer: bool,
}

impl LedgerView {
    /// The present, as far as it is known: the local clock's, unless the server that `report` comes from has shown that
    /// to be ahead.
    pub fn present(&self, report: &Report, now: Timestamp) -> Timestamp {
        let ahead = self.clock_ahead.get(&report.server()).copied().unwrap_or_default();
        now.checked_sub(ahead).unwrap_or(now)
    }
}

/// Every partition that calls for something, and what.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// First those to fetch, the nearest to expiry in front; then the others in order of time.
    pub items: Vec<Item>,
    /// Partitions that the ledger does not know yet; part of `items` too.
    pub new: Vec<Entry>,
    /// Up to which generation time each report is now planned.
    pub planned_through: Vec<(ReportId, Timestamp)>,
    /// Whether more would come to light by planning again once the vendor has answered.
    pub is_partial: bool,
}

/// One partition and what is to be done about it.
#[derive(Debug, Clone)]
pub struct Item {
    /// What is known of it.
    pub entry: Entry,
    /// The report it belongs to; `None` when it is no longer configured.
    pub report: Option<Arc<Report>>,
    /// What is to be done.
    pub decision: Decision,
}

/// What is to be done about a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is due: fetch it.
    Fetch,
    /// It is stored, and its numbers may have been restated: fetch it again.
    Refresh,
    /// It is not due before the buffer has passed.
    NotDue {
        /// When it is.
        until: Timestamp,
    },
    /// The last attempt failed; the next one has its time.
    Backoff {
        /// That time.
        until: Timestamp,
    },
    /// Its whole workspace waits.
    Held {
        /// [`Outcome::Unauthorized`] or [`Outcome::RateLimited`].
        outcome: Outcome,
        /// Until then.
        until: Timestamp,
    },
    /// Its report is no longer configured.
    Unconfigured,
}

impl Decision {
    /// Whether the partition is to be fetched at `now`, if it is not stored: also what the plan left for a time that has
    /// passed since.
    pub fn is_fetch(self, now: Timestamp) -> bool {
        self == Decision::Fetch || self.until().is_some_and(|until| until <= now)
    }

    /// When the decision will be another; `None` where time alone does not change it.
    pub fn until(self) -> Option<Timestamp> {
        match self {
            Decision::NotDue { until } | Decision::Backoff { until } | Decision::Held { until, .. } => Some(until),
            Decision::Fetch | Decision::Refresh | Decision::Unconfigured => None,
        }
    }
}

impl Plan {
    /// Whether nothing configured is due.
    pub fn is_idle(&self) -> bool {
        self.items.iter().all(|item| matches!(item.decision, Decision::NotDue { .. } | Decision::Unconfigured))
    }

    /// When the first decision will be another.
    pub fn next_change(&self) -> Option<Timestamp> {
        self.items.iter().filter_map(|item| item.decision.until()).min()
    }
}

/// A plan goes no further than this beyond the last one, and the next goes on only once the vendor has answered, and so
/// shown its time: a clock gone wild must not fill the ledger with decades of partitions.
pub const LONGEST_STEP: SignedDuration = SignedDuration::from_hours(35 * 24);

/// A report that counts as planned beyond this from now was planned by a clock that has since been set back; it is
/// looked at as if for the first time. Shorter excursions leave no gap worth that.
pub const MARK_TOLERANCE: SignedDuration = SignedDuration::from_hours(1);

/// What a plan can meet again of what is no longer open. By it the ledger chooses what a [`LedgerView`] has of its history.
#[derive(Debug, Clone)]
pub struct Reach {
    /// The present, by the clock that is furthest behind.
    pub present: Timestamp,
    /// From when on each report is looked at while it is not planned.
    pub first_sights: HashMap<ReportId, Timestamp>,
    /// How far a plan looks for reports that restate: at each one's last partitions, this many, before this date.
    pub restating: Option<(civil::Date, u32)>,
}

impl Reach {
    /// How far a plan of `reports` at `now` looks back, where `present` is no later than the present of any of them.
    pub fn of(reports: &[Arc<Report>], present: Timestamp, now: Timestamp) -> Self {
        let restating: Vec<_> = reports
            .iter()
            .filter_map(|report| Some((refreshed_before(report, now)?.0, refresh_days(report)?)))
            .collect();
        let last = restating.iter().map(|(day, _)| *day).max();
        // Between the end of one report and the last end there is at most one partition a day.
        let gap =
            |day: civil::Date, last: civil::Date| last.since(day).map_or(u32::MAX, |gap| gap.get_days().unsigned_abs());
        let counts =
            restating.iter().map(|(day, days)| last.map_or(0, |last| gap(*day, last)).saturating_add(u32::from(*days)));
        Self {
            present,
            first_sights: reports.iter().map(|report| (report.id.clone(), first_sight(report, present))).collect(),
            restating: last.zip(counts.max()),
        }
    }

    /// The last generation time, if any, that a plan meets of a report that it plans from `from` on: a long absence
    /// is caught up with in steps.
    pub fn end(&self, from: Timestamp) -> Timestamp {
        let end = from.checked_add(LONGEST_STEP).unwrap_or(Timestamp::MAX);
        if end < self.present { end } else { Timestamp::MAX }
    }
}

/// Decides about every partition of `reports` at `now`.
pub fn plan(reports: &[Arc<Report>], ledger: &LedgerView, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let known: HashSet<&PartitionId> = ledger.entries.iter().map(|entry| &entry.partition.id).collect();
    let newest = newest_known(&ledger.entries);
    let by_id: HashMap<&ReportId, &Arc<Report>> = reports.iter().map(|report| (&report.id, report)).collect();

    for entry in ledger.entries.iter().filter(|entry| entry.settled == Settled::Open) {
        let report = by_id.get(&entry.partition.id.report).map(|report| Arc::clone(report));
        let decision = match report {
            Some(_) => decide(entry, ledger.holds.get(entry.partition.id.workspace()), now),
            None => Decision::Unconfigured,
        };
        plan.items.push(Item { entry: entry.clone(), report, decision });
    }

    for report in reports {
        plan.items.extend(refreshes(report, ledger, now));
        let present = ledger.present(report, now);
        let ahead = now.duration_since(present);
        let id = &report.id;
        let planned = ledger.planned_through.get(id).copied();
        let planned = planned.filter(|planned| planned.duration_since(present) <= MARK_TOLERANCE);
        let from = planned.unwrap_or_else(|| first_sight(report, present));
        let step_end = from.checked_add(LONGEST_STEP).unwrap_or(Timestamp::MAX);
        let is_cut = step_end < present;
        let through = if is_cut && ledger.awaits_answer { from } else { present.min(step_end) };
        plan.is_partial |= is_cut;

        for occurrence in schedule::after(&report.schedule, &report.timezone, from) {
            let is_new = occurrence.generated_at <= through;
            if !is_new && occurrence.generated_at <= present {
                break;
            }
            let partition = report.partition(occurrence);
            // What was gone before anybody wanted it is not lost. No `start` brings back a listing of the past.
            let is_gone_at_first_sight = planned.is_none()
                && (report.start.is_none() || report.source.kind().is_live_listing())
                && partition.expires_at.is_some_and(|expiry| expiry <= present);
            if !known.contains(&partition.id) && !is_gone_at_first_sight {
                // A `start` in the past asks for what had its end before. What comes after a partition that the ledger
                // knows was to be fetched by an earlier process.
                let is_first_asked_for = is_first_look(report, ledger.planned_through.get(id).copied())
                    && newest.get(id).is_none_or(|at| partition.generated_at < *at);
                let has_ended = partition.end(report.give_up_after()).is_some_and(|end| end <= present);
                let entry = match is_first_asked_for && has_ended {
                    true => Entry::late(partition.clone()),
                    false => Entry::new(partition.clone()),
                };
                let decision = match is_new {
                    true => decide(&entry, ledger.holds.get(partition.id.workspace()), now),
                    // By the local clock, which is what will be waited by.
                    false => Decision::NotDue { until: partition.due_at.checked_add(ahead).unwrap_or(Timestamp::MAX) },
                };
                if is_new {
                    plan.new.push(entry.clone());
                }
                plan.items.push(Item { entry, report: Some(Arc::clone(report)), decision });
            }
            // The first one still to come is shown too, and ends the search.
            if !is_new {
                break;
            }
        }
        if planned.is_none_or(|planned| planned < through) && from < through {
            plan.planned_through.push((id.clone(), through));
        }
    }

    sort(&mut plan.items, ledger, now);
    plan
}

/// Whether `report`, planned through `planned`, is being planned from its `start` on for the first time. That may take
/// several steps: only these end a whole number of steps after `start`, to the millisecond.
fn is_first_look(report: &Report, planned: Option<Timestamp>) -> bool {
    planned.is_none_or(|planned| {
        // The ledger keeps milliseconds.
        let since_start = planned.as_millisecond() - before_start(report).as_millisecond();
        report.start.is_some() && since_start > 0 && i128::from(since_start) % LONGEST_STEP.as_millis() == 0
    })
}

/// When the newest partition of each report was generated.
fn newest_known(entries: &[Entry]) -> HashMap<&ReportId, Timestamp> {
    let mut newest: HashMap<&ReportId, Timestamp> = HashMap::new();
    for Partition { id, generated_at, .. } in entries.iter().map(|entry| &entry.partition) {
        newest.entry(&id.report).and_modify(|at| *at = (*at).max(*generated_at)).or_insert(*generated_at);
    }
    newest
}

/// By urgency. In a workspace whose key was refused, the partition that was requested longest ago is the probe and takes the
/// position of the most urgent one: archives and JSON APIs may have different keys, and both are probed in turn.
fn sort(items: &mut [Item], ledger: &LedgerView, now: Timestamp) {
    let urgency = |item: &Item| {
        let expiry = item.entry.partition.expires_at.unwrap_or(Timestamp::MAX);
        match item.decision {
            // What has expired already loses nothing by waiting for what is about to.
            Decision::Fetch if expiry > now => (0, expiry),
            Decision::Fetch | Decision::Refresh => (1, expiry),
            decision => (2, decision.until().unwrap_or(Timestamp::MAX)),
        }
    };
    let mut probes: HashMap<String, (PartitionId, (u8, Timestamp))> = HashMap::new();
    for (workspace, _) in ledger.holds.iter().filter(|(_, hold)| hold.outcome == Outcome::Unauthorized) {
        let is_asked_for = |item: &&Item| {
            item.entry.partition.id.workspace() == *workspace
                && matches!(item.decision, Decision::Fetch | Decision::Refresh)
        };
        let asked_for = || items.iter().filter(is_asked_for);
        let order = |item: &&Item| (item.entry.last_attempt_at, urgency(item), item.entry.partition.generated_at);
        if let (Some(probe), Some(first)) = (asked_for().min_by_key(order), asked_for().map(urgency).min()) {
            probes.insert(workspace.clone(), (probe.entry.partition.id.clone(), first));
        }
    }
    items.sort_by_cached_key(|item| {
        let partition = &item.entry.partition;
        let probe = probes.get(partition.id.workspace()).filter(|(id, _)| *id == partition.id);
        let (is_behind, urgency) = probe.map_or_else(|| (true, urgency(item)), |(_, first)| (false, *first));
        (urgency, is_behind, partition.generated_at, partition.id.clone())
    });
}

/// The next partition of `report` that is generated after `now`, and not before its `start`.
pub fn next(report: &Report, now: Timestamp) -> Option<Partition> {
    schedule::next(report, now.max(before_start(report))).map(|occurrence| report.partition(occurrence))
}

/// The scheduled partitions of `reports` with a generation time after `now` and not after `until`, in order of time.
pub fn upcoming(reports: &[Arc<Report>], now: Timestamp, until: Timestamp) -> Vec<Partition> {
    let mut partitions: Vec<_> = reports
        .iter()
        .flat_map(|report| {
            schedule::after(&report.schedule, &report.timezone, now.max(before_start(report)))
                .take_while(|occurrence| occurrence.generated_at <= until)
                .map(|occurrence| report.partition(occurrence))
        })
        .collect();
    partitions.sort_by(|a, b| (a.due_at, &a.id).cmp(&(b.due_at, &b.id)));
    partitions
}

/// The past partitions of `report` that a backfill of `from..=to` asks for: the schedule's dates, or every day. `start`
/// does not matter. Dates that are not generated yet at `now` are left out; those that have ended at `now` are asked for
/// late.
pub fn backfill(report: &Report, from: civil::Date, to: civil::Date, every_day: bool, now: Timestamp) -> Vec<Entry> {
    let asked = |partition: Partition| match partition.end(report.give_up_after()) {
        Some(end) if end <= now => Entry::late(partition),
        _ => Entry::new(partition),
    };
    let on = if every_day { schedule::on_any_day } else { schedule::on };
    from.series(jiff::Span::new().days(1))
        .take_while(|date| *date <= to)
        .filter_map(|date| on(&report.schedule, &report.timezone, date))
        .filter(|occurrence| occurrence.generated_at <= now)
        .map(|occurrence| asked(report.partition(occurrence)))
        .collect()
}

/// How many partitions of `report` are fetched again each day; `None` where its numbers do not restate.
fn refresh_days(report: &Report) -> Option<u16> {
    match &report.source {
        Source::Snapshot(SnapshotSource::CampaignStats(StatsQuery { refresh_days, .. })) => Some(*refresh_days),
        _ => None,
    }
}

/// The last date whose time has come at `now`, and when it came: the stored partitions before it are fetched again.
fn refreshed_before(report: &Report, now: Timestamp) -> Option<(civil::Date, Timestamp)> {
    refresh_days(report)?;
    let today = report.timezone.to_datetime(now).date();
    let earlier = report.timezone.to_datetime(now.checked_sub(report.buffer).unwrap_or(now)).date();
    let recent = earlier.saturating_sub(2.days()).series(1.day()).take_while(|date| *date <= today);
    let due = |date| {
        let occurrence = schedule::on_any_day(&report.schedule, &report.timezone, date)?;
        Some((date, report.partition(occurrence).due_at))
    };
    recent.filter_map(due).filter(|(_, due_at)| *due_at <= now).last()
}

/// The last stored partitions of a report whose numbers restate, as far as they were not looked at since the day's time
/// for it came: that of the schedule, every day, whichever its dates.
fn refreshes(report: &Arc<Report>, ledger: &LedgerView, now: Timestamp) -> Vec<Item> {
    let Some((refresh_days, (day, since))) = refresh_days(report).zip(refreshed_before(report, now)) else {
        return Vec::new();
    };
    let mut stored: Vec<&Entry> = ledger
        .entries
        .iter()
        .filter(|entry| entry.settled == Settled::Stored && entry.partition.id.report == report.id)
        .filter(|entry| entry.partition.id.date < day)
        .collect();
    stored.sort_by_key(|entry| std::cmp::Reverse(entry.partition.id.date));
    // One that was left half done is finished, however old it has become.
    let is_half_done = |entry: &&Entry| entry.outcome == Some(Outcome::StoreFailed);
    let older = stored.split_off(stored.len().min(usize::from(refresh_days)));
    stored.extend(older.into_iter().filter(is_half_done));
    let is_fresh = |entry: &Entry| {
        let stored_at = entry.object.as_ref().map(|object| object.stored_at);
        let looked_at = entry.last_attempt_at.max(stored_at).filter(|_| entry.outcome == Some(Outcome::Stored));
        // One of the future was written by a clock that has since been set back.
        looked_at.is_some_and(|at| at >= since && at <= now + CLOCK_TOLERANCE)
    };
    let item = |entry: &Entry| {
        let decision = match decide(entry, ledger.holds.get(entry.partition.id.workspace()), now) {
            Decision::Fetch => Decision::Refresh,
            wait => wait,
        };
        Item { entry: entry.clone(), report: Some(Arc::clone(report)), decision }
    };
    stored.into_iter().filter(|entry| !is_fresh(entry)).map(item).collect()
}

fn decide(entry: &Entry, hold: Option<&Hold>, now: Timestamp) -> Decision {
    let is_believable = |written: Timestamp| written <= now + CLOCK_TOLERANCE;
    if now < entry.partition.due_at {
        return Decision::NotDue { until: entry.partition.due_at };
    }
    if let Some(hold) = hold.filter(|hold| is_believable(hold.since)) {
        let until = hold.until_for(entry.partition.expires_at);
        if now < until {
            return Decision::Held { outcome: hold.outcome, until };
        }
    }
    match (entry.next_attempt_at, entry.last_attempt_at) {
        (Some(until), Some(last)) if now < until && is_believable(last) => Decision::Backoff { until },
        _ => Decision::Fetch,
    }
}

/// From when on a report that was never planned is looked at: `start`; else as far back as the vendor may still have
/// it (`campaign_report`), or from today (others).
fn first_sight(report: &Report, now: Timestamp) -> Timestamp {
    if report.start.is_some() {
        return before_start(report);
    }
    match report.source.kind() {
        // A long day more than the retention, for "as soon as possible"; what is gone already is left out.
        SourceKind::CampaignReport => now.checked_sub(SignedDuration::from_hours(8 * 24 + 1)).unwrap_or(Timestamp::MIN),
        _ => start_of_day(report, report.timezone.to_datetime(now).date()),
    }
}

fn before_start(report: &Report) -> Timestamp {
    report.start.map_or(Timestamp::MIN, |start| start_of_day(report, start))
}

/// The instant before the day begins: generation times strictly after it are on that day or later.
fn start_of_day(report: &Report, date: civil::Date) -> Timestamp {
    date.to_zoned(report.timezone.clone())
        .ok()
        .and_then(|midnight| midnight.timestamp().checked_sub(SignedDuration::from_nanos(1)).ok())
        .unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        ArchiveSource, CampaignsQuery, Destination, MonthDay, Schedule, SecretSource, Shape, Workspace,
    };
    use jiff::{civil::date, civil::time, tz::TimeZone};

    fn utc(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn settings(source: SourceKind) -> Source {
        match source {
            SourceKind::CampaignReport => Source::Archive(ArchiveSource::CampaignReport { suffix: ".zip".to_owned() }),
            SourceKind::DailyDump => {
                Source::Archive(ArchiveSource::DailyDump { give_up_after: SignedDuration::from_hours(168) })
            }
            SourceKind::Campaigns => Source::Snapshot(SnapshotSource::Campaigns(CampaignsQuery::default())),
            SourceKind::CampaignStats => Source::Snapshot(SnapshotSource::CampaignStats(StatsQuery {
                metric_type: "TOTAL".to_owned(),
                attribution_type: "CLICK_THROUGH".to_owned(),
                campaign_ids: Vec::new(),
                window_days: 1,
                refresh_days: 0,
                shape: Shape::Raw,
            })),
            other => panic!("no test plans {other}"),
        }
    }

    fn report(source: SourceKind, schedule: Schedule, zone: &str) -> Report {
        let timezone = TimeZone::get(zone).unwrap();
        let base_url: url::Url = "https://api-01.moengage.com".parse().unwrap();
        let key = SecretSource::Env { name: "KEY".into(), place: "here".into() };
        Report {
            workspace: Arc::new(Workspace {
                name: "acme".into(),
                app_id: "APP".into(),
                base_url: base_url.clone(),
                timezone: timezone.clone(),
                secret_key: key.clone(),
                api_key: key,
            }),
            source: settings(source),
            id: ReportId::new("acme", "daily"),
            name: "Report test".into(),
            destination: Arc::new(Destination {
                name: "disk".into(),
                location: "file:///x".parse().unwrap(),
                options: [].into(),
                fsync: true,
                ca_file: None,
                place: "here".into(),
            }),
            schedule,
            buffer: SignedDuration::from_mins(30),
            start: None,
            timezone,
            base_url,
        }
    }

    fn daily(hour: i8, minute: i8) -> Schedule {
        Schedule::Daily { at: time(hour, minute, 0, 0) }
    }

    fn dates_to_fetch(plan: &Plan) -> Vec<civil::Date> {
        plan.items
            .iter()
            .filter(|item| item.decision == Decision::Fetch)
            .map(|item| item.entry.partition.id.date)
            .collect()
    }

    /// What the ledger would hold after `plan` was recorded.
    fn recorded(mut view: LedgerView, plan: &Plan) -> LedgerView {
        view.entries.extend(plan.new.iter().cloned());
        view.planned_through.extend(plan.planned_through.iter().cloned());
        view
    }

    #[test]
    fn a_report_first_seen_starts_with_what_the_vendor_still_has() {
        let reports = [Arc::new(report(SourceKind::CampaignReport, daily(9, 30), "UTC"))];
        let plan = plan(&reports, &LedgerView::default(), utc("2026-11-21T12:00:00Z"));
        assert_eq!(dates_to_fetch(&plan), (15..=21).map(|day| date(2026, 11, day)).collect::<Vec<_>>());
        let next = plan.items.last().unwrap();
        assert_eq!(next.decision, Decision::NotDue { until: utc("2026-11-22T10:00:00Z") });
        assert_eq!(plan.new.len(), 7);
    }

    #[test]
    fn a_daily_dump_first_seen_starts_today_or_where_it_is_told() {
        let now = utc("2026-11-21T12:00:00Z");
        let mut dump = report(SourceKind::DailyDump, daily(8, 0), "UTC");
        let first = plan(&[Arc::new(dump.clone())], &LedgerView::default(), now);
        assert_eq!(dates_to_fetch(&first), [date(2026, 11, 21)]);
        dump.start = Some(date(2026, 11, 19));
        let first = plan(&[Arc::new(dump)], &LedgerView::default(), now);
        assert_eq!(dates_to_fetch(&first), [19, 20, 21].map(|day| date(2026, 11, day)));
    }

    #[test]
    fn a_late_evening_report_is_fetched_the_next_day_under_its_own_date() {
        let reports = [Arc::new(report(SourceKind::CampaignReport, daily(23, 50), "Asia/Kolkata"))];
        let before = plan(&reports, &LedgerView::default(), utc("2026-11-21T18:49:00Z"));
        let view = recorded(LedgerView::default(), &before);
        let item = |now| {
            let plan = plan(&reports, &view, utc(now));
            plan.items.into_iter().find(|item| item.entry.partition.id.date == date(2026, 11, 21)).unwrap()
        };
        // 18:49 UTC is 00:19 on the 22nd in Kolkata: generated at 23:50, due at 00:20.
        assert_eq!(item("2026-11-21T18:49:59Z").decision, Decision::NotDue { until: utc("2026-11-21T18:50:00Z") });
        assert_eq!(item("2026-11-21T18:50:00Z").decision, Decision::Fetch);
    }

    #[test]
    fn after_a_week_asleep_the_nearest_to_expiry_come_first_across_reports() {
        let mut weekly = report(
            SourceKind::CampaignReport,
            Schedule::Weekly { on: vec![civil::Weekday::Monday], at: time(7, 0, 0, 0) },
            "UTC",
        );
        weekly.id = ReportId::new("acme", "weekly");
        let mut listing = report(SourceKind::Campaigns, daily(6, 0), "UTC");
        listing.id = ReportId::new("acme", "listing");
        let daily = report(SourceKind::CampaignReport, daily(9, 30), "UTC");
        let reports = [Arc::new(daily), Arc::new(weekly), Arc::new(listing)];
        let plan = plan(&reports, &LedgerView::default(), utc("2026-11-21T12:00:00Z"));
        let expiries: Vec<_> = plan.items.iter().take(9).map(|item| item.entry.partition.expires_at).collect();
        assert!(expiries.is_sorted());
        let first: Vec<_> = plan.items.iter().take(3).map(|item| item.entry.partition.id.report.name()).collect();
        assert_eq!(first, ["listing", "daily", "weekly"], "the listing was made last and expires first");
    }

    #[test]
    fn planning_twice_invents_nothing() {
        let reports = [Arc::new(report(SourceKind::CampaignReport, daily(9, 30), "UTC"))];
        let now = utc("2026-11-21T12:00:00Z");
        let first = plan(&reports, &LedgerView::default(), now);
        let second = plan(&reports, &recorded(LedgerView::default(), &first), now);
        assert_eq!((second.new.len(), second.items.len()), (0, first.items.len()));
    }

    #[test]
    fn a_changed_schedule_applies_from_now_on_and_leaves_the_past_alone() {
        let now = utc("2026-11-21T12:00:00Z");
        let before = [Arc::new(report(SourceKind::CampaignReport, daily(9, 30), "UTC"))];
        let view = recorded(LedgerView::default(), &plan(&before, &LedgerView::default(), now));
        let changed = [Arc::new(report(SourceKind::CampaignReport, daily(11, 0), "UTC"))];
        let plan = plan(&changed, &view, utc("2026-11-22T12:00:00Z"));
        assert_eq!(plan.new.len(), 1);
        assert_eq!(plan.new[0].partition.generated_at, utc("2026-11-22T11:00:00Z"));
        let old = plan.items.iter().find(|item| item.entry.partition.id.date == date(2026, 11, 20)).unwrap();
        assert_eq!(old.entry.partition.generated_at, utc("2026-11-20T09:30:00Z"));
    }

    fn late_dates(entries: &[Entry]) -> Vec<civil::Date> {
        entries.iter().filter(|entry| entry.asked_late).map(|entry| entry.partition.id.date).collect()
    }

    #[test]
    fn a_start_in_the_past_asks_late_for_what_had_expired() {
        let now = utc("2026-11-21T12:00:00Z");
        let mut wanted = report(SourceKind::CampaignReport, daily(9, 30), "UTC");
        wanted.start = Some(date(2026, 11, 12));
        let reports = [Arc::new(wanted)];
        let first = plan(&reports, &LedgerView::default(), now);
        assert_eq!(
            (first.new.len(), late_dates(&first.new)),
            (10, vec![date(2026, 11, 12), date(2026, 11, 13), date(2026, 11, 14)])
        );
        // Ten days of downtime are not the first look.
        let later = plan(&reports, &recorded(LedgerView::default(), &first), utc("2026-12-01T12:00:00Z"));
        assert_eq!((later.new.len(), late_dates(&later.new)), (10, vec![]));
    }

    #[test]
    fn every_step_from_a_start_long_ago_asks_late_for_what_had_expired() {
        let now = utc("2026-11-21T12:00:00Z");
        let mut wanted = report(SourceKind::CampaignReport, daily(9, 30), "UTC");
        wanted.start = Some(date(2026, 8, 1));
        let reports = [Arc::new(wanted)];
        let (mut view, mut new, mut late) = (LedgerView::default(), 0, 0);
        for _ in 0..4 {
            let step = plan(&reports, &view, now);
            new += step.new.len();
            late += late_dates(&step.new).len();
            // As the ledger holds it: in milliseconds, and without what has ended.
            view = LedgerView { entries: vec![], ..recorded(view, &step) };
            for through in view.planned_through.values_mut() {
                *through = Timestamp::from_millisecond(through.as_millisecond()).unwrap();
            }
        }
        assert_eq!((new, late), (113, 106));
        let later = plan(&reports, &view, utc("2026-12-05T12:00:00Z"));
        assert_eq!((later.new.len(), late_dates(&later.new).len()), (14, 0), "two weeks of downtime");
    }

    #[test]
    fn after_a_lost_ledger_only_what_precedes_the_newest_stored_counts_as_asked_late() {
        let mut wanted = report(SourceKind::CampaignReport, daily(9, 30), "UTC");
        wanted.start = Some(date(2026, 11, 1));
        let adopted = wanted.partition(schedule::on(&wanted.schedule, &wanted.timezone, date(2026, 11, 3)).unwrap());
        let view = LedgerView { entries: vec![Entry::new(adopted)], ..LedgerView::default() };
        let plan = plan(&[Arc::new(wanted)], &view, utc("2026-11-21T12:00:00Z"));
        assert_eq!(late_dates(&plan.new), [date(2026, 11, 1), date(2026, 11, 2)]);
    }

    #[test]
    fn a_backfill_marks_what_had_ended_before_it_was_asked_for() {
        let now = utc("2026-11-21T12:00:00Z");
        for (source, late) in
            [(SourceKind::CampaignReport, 2), (SourceKind::DailyDump, 2), (SourceKind::CampaignStats, 0)]
        {
            let report = report(source, daily(9, 30), "UTC");
            let asked = backfill(&report, date(2026, 11, 13), date(2026, 11, 20), false, now);
            assert_eq!((asked.len(), late_dates(&asked).len()), (8, late), "{source}");
        }
    }

    #[test]
    fn a_removed_report_is_neither_fetched_nor_forgotten() {
        let now = utc("2026-11-21T12:00:00Z");
        let before = [Arc::new(report(SourceKind::CampaignReport, daily(9, 30), "UTC"))];
        let view = recorded(LedgerView::default(), &plan(&before, &LedgerView::default(), now));
        let plan = plan(&[], &view, now);
        assert_eq!(plan.items.len(), 7);
        assert!(plan.items.iter().all(|item| item.decision == Decision::Unconfigured));
    }

    fn ahead(report: &Report, by: SignedDuration) -> HashMap<String, SignedDuration> {
        [(report.server(), by)].into()
    }

    #[test]
    fn the_clock_of_another_server_invents_no_past_and_delays_nothing() {
        let reports = [Arc::new(report(SourceKind::Campaigns, daily(9, 30), "UTC"))];
        let before = plan(&reports, &LedgerView::default(), utc("2026-11-21T12:00:00Z"));
        let mut view = recorded(LedgerView::default(), &before);
        view.clock_ahead = [("https://api-99.moengage.com".to_owned(), SignedDuration::from_hours(48))].into();
        let next_day = plan(&reports, &view, utc("2026-11-22T10:00:00Z"));
        let new: Vec<_> = next_day.new.iter().map(|entry| entry.partition.id.date).collect();
        assert_eq!(new, [date(2026, 11, 22)]);
    }

    #[test]
    fn a_clock_in_2106_fills_no_ledger() {
        let reports = [Arc::new(report(SourceKind::CampaignReport, daily(9, 30), "UTC"))];
        let view =
            recorded(LedgerView::default(), &plan(&reports, &LedgerView::default(), utc("2026-11-21T12:00:00Z")));
        let wild = utc("2106-01-01T00:00:00Z");
        let first = plan(&reports, &view, wild);
        assert_eq!((first.new.len(), first.is_partial), (35, true));
        assert!(first.next_change().is_none_or(|at| at > wild), "nothing to wake up for");
        let mut view = recorded(view, &first);
        view.awaits_answer = true;
        let unanswered = plan(&reports, &view, wild);
        assert_eq!((unanswered.new.len(), unanswered.planned_through.len()), (0, 0));
        view.awaits_answer = false;
        view.clock_ahead = ahead(&reports[0], wild.duration_since(utc("2026-11-21T12:00:10Z")));
        let second = plan(&reports, &view, wild);
        assert_eq!((second.new.len(), second.is_partial), (0, false));
    }

    #[test]
    fn a_report_first_seen_by_a_clock_far_ahead_is_looked_at_again_once_that_is_known() {
        let reports = [Arc::new(report(SourceKind::CampaignReport, daily(9, 30), "UTC"))];
        for (wild, now) in
            [("2026-11-29T12:00:00Z", "2026-11-21T12:00:00Z"), ("2106-01-01T00:00:00Z", "2026-11-21T12:00:00Z")]
        {
            let view = recorded(LedgerView::default(), &plan(&reports, &LedgerView::default(), utc(wild)));
            let set_back = plan(&reports, &view, utc(now));
            assert_eq!(dates_to_fetch(&set_back)[0], date(2026, 11, 15), "the clock was set back");
            let clock_ahead = ahead(&reports[0], utc(wild).duration_since(utc(now)));
            let known = LedgerView { clock_ahead, ..view };
            let still_ahead = plan(&reports, &known, utc(wild));
            assert!(dates_to_fetch(&still_ahead).contains(&date(2026, 11, 15)), "the vendor told the time");
        }
    }

    #[test]
    fn a_clock_an_hour_ahead_wakes_nobody_for_nothing() {
        let reports = [Arc::new(report(SourceKind::CampaignReport, daily(9, 30), "UTC"))];
        let mut view =
            recorded(LedgerView::default(), &plan(&reports, &LedgerView::default(), utc("2026-11-21T12:00:00Z")));
        view.entries.clear();
        view.clock_ahead = ahead(&reports[0], SignedDuration::from_hours(1));
        // By the local clock the report of the 22nd was due three minutes ago; by the vendor's it is not yet made.
        let now = utc("2026-11-22T10:03:00Z");
        assert_eq!(plan(&reports, &view, now).next_change(), Some(utc("2026-11-22T11:00:00Z")));
    }

    #[test]
    fn a_wait_written_by_a_clock_since_set_back_is_void() {
        let reports = [Arc::new(report(SourceKind::CampaignReport, daily(9, 30), "UTC"))];
        let now = utc("2026-11-21T12:00:00Z");
        let mut view = recorded(LedgerView::default(), &plan(&reports, &LedgerView::default(), now));
        let future = utc("2106-01-01T00:00:00Z");
        for entry in &mut view.entries {
            entry.last_attempt_at = Some(future);
            entry.next_attempt_at = Some(future + SignedDuration::from_hours(1));
        }
        view.holds.insert(
            "acme".into(),
            Hold {
                outcome: Outcome::RateLimited,
                since: future,
                until: future + SignedDuration::from_hours(1),
                is_asked: true,
            },
        );
        assert_eq!(dates_to_fetch(&plan(&reports, &view, now)).len(), 7);
    }

    #[test]
    fn a_held_workspace_waits_and_a_failed_partition_backs_off() {
        let reports = [Arc::new(report(SourceKind::DailyDump, daily(8, 0), "UTC"))];
        let now = utc("2026-11-21T12:00:00Z");
        let mut view = recorded(LedgerView::default(), &plan(&reports, &LedgerView::default(), now));
        let until = utc("2026-11-21T12:05:00Z");
        view.entries[0].last_attempt_at = Some(now);
        view.entries[0].next_attempt_at = Some(until);
        assert_eq!(plan(&reports, &view, now).items[0].decision, Decision::Backoff { until });
        let later = utc("2026-11-21T13:00:00Z");
        view.holds
            .insert("acme".into(), Hold { outcome: Outcome::Unauthorized, since: now, until: later, is_asked: false });
        assert_eq!(
            plan(&reports, &view, now).items[0].decision,
            Decision::Held { outcome: Outcome::Unauthorized, until: later }
        );
        assert_eq!(plan(&reports, &view, later).items[0].decision, Decision::Fetch);
    }

    #[test]
    fn after_a_refusal_what_was_asked_for_longest_ago_is_the_probe() {
        let now = utc("2026-11-21T12:00:00Z");
        let mut listing = report(SourceKind::Campaigns, daily(6, 0), "UTC");
        listing.id = ReportId::new("acme", "listing");
        let reports = [Arc::new(listing), Arc::new(report(SourceKind::CampaignReport, daily(9, 30), "UTC"))];
        let mut view = recorded(LedgerView::default(), &plan(&reports, &LedgerView::default(), now));
        assert_eq!(
            plan(&reports, &view, now).items[0].entry.partition.id.report.name(),
            "listing",
            "the first to expire"
        );
        let refused = now - SignedDuration::from_hours(1);
        for entry in view.entries.iter_mut().filter(|entry| entry.partition.id.report.name() == "listing") {
            entry.last_attempt_at = Some(refused);
        }
        let hold = Hold { outcome: Outcome::Unauthorized, since: refused, until: now, is_asked: false };
        view.holds.insert("acme".into(), hold);
        assert_eq!(plan(&reports, &view, now).items[0].entry.partition.id.report.name(), "daily");
    }

    #[test]
    fn a_report_made_as_soon_as_possible_is_due_from_its_morning_and_expires_late() {
        let once = Schedule::Once { date: date(2026, 11, 14), at: None };
        let reports = [Arc::new(report(SourceKind::CampaignReport, once, "UTC"))];
        let plan = plan(&reports, &LedgerView::default(), utc("2026-11-21T12:00:00Z"));
        let partition = &plan.items[0].entry.partition;
        assert_eq!(plan.items[0].decision, Decision::Fetch);
        assert_eq!(partition.due_at, utc("2026-11-14T00:30:00Z"));
        assert_eq!(partition.expires_at, Some(utc("2026-11-22T00:00:00Z")));
    }

    #[test]
    fn a_backfill_keeps_to_the_schedule_unless_told_otherwise() {
        let monthly = Schedule::Monthly { on: MonthDay::Last, at: time(7, 0, 0, 0) };
        let report = report(SourceKind::DailyDump, monthly, "UTC");
        let now = utc("2026-11-21T12:00:00Z");
        let asked = |every_day| {
            backfill(&report, date(2026, 9, 29), date(2026, 12, 31), every_day, now)
                .into_iter()
                .map(|entry| entry.partition.id.date)
                .collect::<Vec<_>>()
        };
        assert_eq!(asked(false), [date(2026, 9, 30), date(2026, 10, 31)]);
        assert_eq!(asked(true).len(), 2 + 31 + 21);
    }
}
