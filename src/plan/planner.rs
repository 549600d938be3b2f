//! The plan: open partitions from the ledger, new ones from the schedules, and those to fetch again.

use std::{
    collections::{HashMap, HashSet},
    slice,
    sync::Arc,
};

use jiff::{Timestamp, civil::Date};

use super::{
    Decision, Item, LedgerView, Plan,
    decide::decide,
    horizon::{Horizon, Look, MARK_LAG, kept_since},
    order::sort,
    refresh::refreshes,
};
use crate::{
    config::Report,
    partition::{Entry, Settled},
    report::{Partition, PartitionId, ReportId},
    schedule,
};

/// The number of marks that a plan moves only because they lag: with many idle reports, each plan writes some of them.
const MOST_LAGGING: usize = 200;

/// Decides about every partition of `reports` at `now`.
pub fn plan(reports: &[Arc<Report>], ledger: &LedgerView, now: Timestamp) -> Plan {
    let mut plan = Plan { items: open(reports, ledger, now), ..Plan::default() };
    let horizons: Vec<_> = reports.iter().map(|report| Horizon::of(report, ledger, now)).collect();
    let known = KnownPartitions::of(&ledger.entries, reports.iter().zip(&horizons));
    let mut lagging = Vec::new();
    for (report, horizon) in reports.iter().zip(&horizons) {
        plan.items.extend(refreshes(report, ledger, now));
        let is_scheduled = add_scheduled(&mut plan, report, horizon, ledger, &known, now);
        plan.is_partial |= horizon.is_cut;
        let Some(through) = horizon.new_mark() else { continue };
        match horizon.mark {
            Some(mark) if !is_scheduled && !horizon.needs_mark() => lagging.push((mark, &report.id, through)),
            _ => plan.planned_through.push((report.id.clone(), through)),
        }
    }
    lagging.sort_unstable();
    let overdue = lagging.iter().take_while(|(mark, _, through)| through.duration_since(*mark) > MARK_LAG).count();
    // One of them always: the newest mark says when the last plan was made.
    let oldest = lagging.into_iter().take(overdue.clamp(1, MOST_LAGGING));
    plan.planned_through.extend(oldest.map(|(_, id, through)| (id.clone(), through)));
    sort(&mut plan.items, ledger, now);
    plan
}

/// Every partition that is generated and not in the ledger, by report and date, however many steps planning takes to find
/// them.
pub fn unplanned(reports: &[Arc<Report>], ledger: &LedgerView, now: Timestamp) -> Vec<Entry> {
    let mut view = LedgerView { awaits_answer: false, ..ledger.clone() };
    let mut found = Vec::new();
    loop {
        let step = plan(reports, &view, now);
        let is_last = !step.is_partial || step.planned_through.is_empty();
        view.planned_through.extend(step.planned_through);
        // Each step has the recent ones, which are after its mark.
        let is_after_mark = |entry: &&Entry| {
            let Partition { id, generated_at, .. } = &entry.partition;
            view.planned_through.get(&id.report).is_none_or(|mark| generated_at > mark)
        };
        view.entries.extend(step.new.iter().filter(is_after_mark).cloned());
        found.extend(step.new);
        if is_last {
            break;
        }
    }
    found.sort_by(|a, b| a.partition.id.cmp(&b.partition.id));
    found
}

/// The partition of `date` as a plan will add it; `None` if none does, or the ledger has it.
pub fn unplanned_on(report: &Arc<Report>, ledger: &LedgerView, date: Date, now: Timestamp) -> Option<Entry> {
    let new = unplanned(slice::from_ref(report), ledger, now);
    new.into_iter().find(|entry| entry.partition.id.date == date)
}

/// The open partitions of the ledger.
fn open(reports: &[Arc<Report>], ledger: &LedgerView, now: Timestamp) -> Vec<Item> {
    let by_id: HashMap<&ReportId, &Arc<Report>> = reports.iter().map(|report| (&report.id, report)).collect();
    let open = ledger.entries.iter().filter(|entry| entry.settled == Settled::Open);
    let item = |entry: &Entry| {
        let report = by_id.get(&entry.partition.id.report).map(|report| Arc::clone(report));
        let decision = match report {
            Some(_) => decide(entry, ledger.holds.get(entry.partition.id.workspace()), now),
            None => Decision::Unconfigured,
        };
        Item { entry: entry.clone(), report, decision }
    };
    open.map(item).collect()
}

/// The partitions that a view contains.
struct KnownPartitions<'a> {
    ids: HashSet<&'a PartitionId>,
    /// When the newest partition of each report in its first look was generated that MoEngage does not have any more, without
    /// those that were requested after their end. Later ones may be of the same first look.
    newest: HashMap<&'a ReportId, Timestamp>,
}

impl<'a> KnownPartitions<'a> {
    fn of<'h>(entries: &'a [Entry], horizons: impl Iterator<Item = (&'h Arc<Report>, &'h Horizon)>) -> Self {
        let first_looks = horizons.filter(|(_, horizon)| horizon.look == Look::First);
        let kept_since: HashMap<&ReportId, Timestamp> =
            first_looks.map(|(report, horizon)| (&report.id, kept_since(horizon.present))).collect();
        let mut newest: HashMap<&ReportId, Timestamp> = HashMap::new();
        for Partition { id, generated_at, .. } in
            entries.iter().filter(|entry| !entry.requested_late).map(|entry| &entry.partition)
        {
            if kept_since.get(&id.report).is_some_and(|kept_since| generated_at <= kept_since) {
                newest.entry(&id.report).and_modify(|at| *at = (*at).max(*generated_at)).or_insert(*generated_at);
            }
        }
        Self { ids: entries.iter().map(|entry| &entry.partition.id).collect(), newest }
    }
}

/// Adds the unknown partitions of `report` up to its horizon, and the first one after the present. Returns whether the report
/// is scheduled within the horizon.
fn add_scheduled(
    plan: &mut Plan,
    report: &Arc<Report>,
    horizon: &Horizon,
    ledger: &LedgerView,
    known: &KnownPartitions<'_>,
    now: Timestamp,
) -> bool {
    let mut is_scheduled = false;
    let mut add = |occurrence, is_new| {
        let partition = report.partition(occurrence);
        if known.ids.contains(&partition.id) || is_gone_at_first_look(report, &partition, horizon) {
            return;
        }
        let entry = entry(report, partition, horizon, known);
        let decision = match is_new {
            true => decide(&entry, ledger.holds.get(entry.partition.id.workspace()), now),
            // The loop waits by the local clock.
            false => Decision::NotDue { until: horizon.by_local_clock(entry.partition.due_at) },
        };
        if is_new {
            plan.new.push(entry.clone());
        }
        plan.items.push(Item { entry, report: Some(Arc::clone(report)), decision });
    };
    for occurrence in schedule::after(&report.schedule, &report.timezone, horizon.from) {
        let is_new = occurrence.generated_at <= horizon.through;
        if !is_new && occurrence.generated_at <= horizon.present {
            break;
        }
        is_scheduled |= is_new;
        add(occurrence, is_new);
        if !is_new {
            break;
        }
    }
    if let Some(from) = horizon.recent() {
        schedule::after(&report.schedule, &report.timezone, from)
            .take_while(|occurrence| occurrence.generated_at <= horizon.present)
            .for_each(|occurrence| add(occurrence, true));
    }
    is_scheduled
}

/// Whether the partition had expired before the report was first planned: not lost, and not planned. A `start` requests
/// expired partitions too, except live listings, which have no past.
fn is_gone_at_first_look(report: &Report, partition: &Partition, horizon: &Horizon) -> bool {
    let skips_expired = report.start.is_none() || partition.source.is_live_listing();
    let is_first = horizon.mark.is_none() || horizon.look == Look::First;
    is_first && skips_expired && partition.expires_at.is_some_and(|expiry| expiry <= horizon.present)
}

/// The first entry of a partition. One that ended before `start` was configured was requested after its end; one that is
/// newer than a known partition of the report was left by an earlier process.
fn entry(report: &Report, partition: Partition, horizon: &Horizon, known: &KnownPartitions<'_>) -> Entry {
    let has_ended = partition.end(report.give_up_after()).is_some_and(|end| end <= horizon.present);
    let precedes_known = known.newest.get(&report.id).is_none_or(|newest| partition.generated_at < *newest);
    match horizon.look == Look::First && precedes_known && has_ended {
        true => Entry::requested_late(partition),
        false => Entry::new(partition),
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;
    use crate::{
        config::{Schedule, SourceKind},
        plan::fixtures::{daily, dates_to_fetch, late_dates, recorded, report, utc},
    };

    #[test]
    fn a_report_without_a_mark_is_planned_as_far_back_as_moengage_keeps_it() {
        let reports = [Arc::new(report(SourceKind::CampaignReport, daily(9, 30), "UTC"))];
        let plan = plan(&reports, &LedgerView::default(), utc("2026-11-21T12:00:00Z"));
        assert_eq!(dates_to_fetch(&plan), (15..=21).map(|day| date(2026, 11, day)).collect::<Vec<_>>());
        let next = plan.items.last().unwrap();
        assert_eq!(next.decision, Decision::NotDue { until: utc("2026-11-22T10:00:00Z") });
        assert_eq!(plan.new.len(), 7);
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
    fn a_second_plan_adds_no_partition() {
        let reports = [Arc::new(report(SourceKind::CampaignReport, daily(9, 30), "UTC"))];
        let now = utc("2026-11-21T12:00:00Z");
        let first = plan(&reports, &LedgerView::default(), now);
        let second = plan(&reports, &recorded(LedgerView::default(), &first), now);
        assert_eq!((second.new.len(), second.items.len()), (0, first.items.len()));
    }

    #[test]
    fn what_is_not_planned_is_found_over_all_steps() {
        let mut dump = report(SourceKind::DailyDump, daily(8, 0), "UTC");
        dump.start = Some(date(2026, 1, 1));
        let reports = [Arc::new(dump)];
        let now = utc("2026-11-21T12:00:00Z");
        let found = unplanned(&reports, &LedgerView::default(), now);
        assert_eq!((found.len(), found[324].partition.id.date), (325, date(2026, 11, 21)));
        let mut view = LedgerView::default();
        for _ in 0..20 {
            view = recorded(view.clone(), &plan(&reports, &view, now));
        }
        assert_eq!(unplanned(&reports, &view, now), []);
    }

    #[test]
    fn a_mark_moves_with_each_partition_and_otherwise_once_an_hour_a_few_at_a_time() {
        let start = utc("2026-11-21T12:00:00Z");
        let named = |number| Report {
            id: ReportId::new("acme", &format!("daily-{number}")),
            ..report(SourceKind::CampaignReport, daily(9, 30), "UTC")
        };
        let reports: Vec<_> = (0..500).map(|number| Arc::new(named(number))).collect();
        let mut view = LedgerView::default();
        let mut moved = |now: &str| {
            let plan = plan(&reports, &view, utc(now));
            let count = (plan.planned_through.len(), plan.new.len());
            view = recorded(std::mem::take(&mut view), &plan);
            count
        };
        assert_eq!(moved("2026-11-21T12:00:00Z"), (500, 3500));
        assert_eq!(moved("2026-11-21T13:00:00Z"), (1, 0));
        let hourly = ["13:01", "13:02", "13:03", "13:04"].map(|time| moved(&format!("2026-11-21T{time}:00Z")).0);
        assert_eq!(hourly, [200, 200, 99, 1]);
        assert_eq!(moved("2026-11-22T09:31:00Z"), (500, 500));
        assert_eq!(moved("2026-11-22T09:32:00Z"), (1, 0));
        assert!(view.planned_through.values().all(|mark| *mark > start));
    }

    #[test]
    fn a_changed_schedule_applies_after_the_mark_and_changes_no_known_partition() {
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

    #[test]
    fn partitions_that_expired_before_a_new_start_are_marked() {
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
    fn after_a_lost_ledger_only_partitions_before_the_newest_stored_one_are_marked() {
        let mut wanted = report(SourceKind::CampaignReport, daily(9, 30), "UTC");
        wanted.start = Some(date(2026, 11, 1));
        let adopted = wanted.partition(schedule::on(&wanted.schedule, &wanted.timezone, date(2026, 11, 3)).unwrap());
        let view = LedgerView { entries: vec![Entry::new(adopted)], ..LedgerView::default() };
        let plan = plan(&[Arc::new(wanted)], &view, utc("2026-11-21T12:00:00Z"));
        assert_eq!(late_dates(&plan.new), [date(2026, 11, 1), date(2026, 11, 2)]);
    }

    #[test]
    fn after_a_lost_ledger_no_step_marks_what_is_newer_than_the_newest_stored_one() {
        let mut wanted = report(SourceKind::CampaignReport, daily(9, 30), "UTC");
        wanted.start = Some(date(2026, 8, 1));
        let adopted = [date(2026, 8, 3), date(2026, 11, 1)]
            .map(|date| wanted.partition(schedule::on(&wanted.schedule, &wanted.timezone, date).unwrap()));
        let mut view = LedgerView { entries: adopted.map(Entry::new).into(), ..LedgerView::default() };
        let reports = [Arc::new(wanted)];
        let mut late = Vec::new();
        for _ in 0..4 {
            let step = plan(&reports, &view, utc("2026-11-21T12:00:00Z"));
            late.extend(late_dates(&step.new));
            view = recorded(view, &step);
        }
        late.sort_unstable();
        assert_eq!((late.len(), late.last()), (91, Some(&date(2026, 10, 31))), "{late:?}");
    }

    #[test]
    fn partitions_of_a_removed_report_stay_and_are_not_fetched() {
        let now = utc("2026-11-21T12:00:00Z");
        let before = [Arc::new(report(SourceKind::CampaignReport, daily(9, 30), "UTC"))];
        let view = recorded(LedgerView::default(), &plan(&before, &LedgerView::default(), now));
        let plan = plan(&[], &view, now);
        assert_eq!(plan.items.len(), 7);
        assert!(plan.items.iter().all(|item| item.decision == Decision::Unconfigured));
    }

    #[test]
    fn a_report_as_soon_as_possible_is_due_from_midnight_and_expires_after_its_day() {
        let once = Schedule::Once { date: date(2026, 11, 14), at: None };
        let reports = [Arc::new(report(SourceKind::CampaignReport, once, "UTC"))];
        let plan = plan(&reports, &LedgerView::default(), utc("2026-11-21T12:00:00Z"));
        let partition = &plan.items[0].entry.partition;
        assert_eq!(plan.items[0].decision, Decision::Fetch);
        assert_eq!(partition.due_at, utc("2026-11-14T00:30:00Z"));
        assert_eq!(partition.expires_at, Some(utc("2026-11-22T00:00:00Z")));
    }
}
