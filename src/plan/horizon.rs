//! Up to which generation time a report is planned, and from which on.

use jiff::{SignedDuration, Timestamp, civil};

use super::LedgerView;
use crate::config::{Report, SourceKind};

/// The longest time that one plan advances a mark. The next plan continues after MoEngage has answered and so shown its
/// time: a wrong local clock must not fill the ledger with decades of partitions.
pub const LONGEST_STEP: SignedDuration = SignedDuration::from_hours(35 * 24);

/// A mark further than this after the present was made by a clock that has since been set back, and is ignored. A smaller
/// lead leaves no gap that matters.
pub const MARK_TOLERANCE: SignedDuration = SignedDuration::from_hours(1);

/// A mark that is no further than this behind the present may stay there while the report is not scheduled in between: a
/// schedule that is changed meanwhile applies from the mark on.
pub(super) const MARK_LAG: SignedDuration = SignedDuration::from_hours(1);

/// MoEngage's retention, and a day of up to 25 hours for "as soon as possible", whose retention begins at the day's end.
const RETENTION: SignedDuration = SignedDuration::from_hours(8 * 24 + 1);

/// What one plan covers of one report.
#[derive(Debug)]
pub(super) struct Horizon {
    /// The present at the report's server.
    pub present: Timestamp,
    /// The report's mark, unless it is in the future.
    pub mark: Option<Timestamp>,
    /// The plan covers generation times after this.
    pub from: Timestamp,
    /// The last generation time that the plan covers.
    pub through: Timestamp,
    /// Whether the step, not the present, ends the plan.
    pub is_cut: bool,
    /// Whether the report is planned for the first time.
    pub look: Look,
    ahead: SignedDuration,
}

/// Whether a report is planned for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// For the first time, which takes several steps if `start` is long ago.
    First,
    /// It was planned up to the present before.
    Later,
}

impl Horizon {
    /// The horizon of `report` at `now` by the local clock.
    pub fn of(report: &Report, ledger: &LedgerView, now: Timestamp) -> Self {
        let present = ledger.present(report, now);
        let recorded = ledger.planned_through.get(&report.id).copied();
        let mark = recorded.filter(|mark| mark.duration_since(present) <= MARK_TOLERANCE);
        let from = mark.unwrap_or_else(|| first_sight(report, present));
        let step_end = step_end(from);
        let is_cut = step_end < present;
        let through = if is_cut && ledger.awaits_answer { from } else { present.min(step_end) };
        let ahead = now.duration_since(present);
        Self { present, mark, from, through, is_cut, look: Look::of(report, recorded), ahead }
    }

    /// After which generation time the plan covers the report besides its step: a `start` that is long ago takes many steps,
    /// and must not delay what MoEngage still has.
    pub fn recent(&self) -> Option<Timestamp> {
        (self.is_cut && self.look == Look::First).then(|| kept_since(self.present).max(self.through))
    }

    /// The mark after this plan, if the plan moves it.
    pub fn new_mark(&self) -> Option<Timestamp> {
        let is_moved = self.mark.is_none_or(|mark| mark < self.through) && self.from < self.through;
        is_moved.then_some(self.through)
    }

    /// Whether the next plan needs the new mark, whatever the schedule: this one is a step of the first look, or does not
    /// reach the present.
    pub fn needs_mark(&self) -> bool {
        self.mark.is_none() || self.look == Look::First || self.is_cut
    }

    /// The local clock's time when the server's clock shows `at`.
    pub fn by_local_clock(&self, at: Timestamp) -> Timestamp {
        at.checked_add(self.ahead).unwrap_or(Timestamp::MAX)
    }
}

impl Look {
    /// The ledger has the mark alone. Only a first look from `start` leaves one that is a whole number of steps later, to
    /// the millisecond, which is the ledger's precision; any other mark is at the time of a plan.
    fn of(report: &Report, recorded: Option<Timestamp>) -> Self {
        let Some(mark) = recorded else { return Look::First };
        let since_start = mark.as_millisecond() - before_start(report).as_millisecond();
        let is_on_step = since_start > 0 && i128::from(since_start) % LONGEST_STEP.as_millis() == 0;
        if report.start.is_some() && is_on_step { Look::First } else { Look::Later }
    }
}

/// After which generation time MoEngage may still have archives at `present`.
pub(super) fn kept_since(present: Timestamp) -> Timestamp {
    present.checked_sub(RETENTION).unwrap_or(Timestamp::MIN)
}

/// The last generation time that one step from `from` covers.
pub(super) fn step_end(from: Timestamp) -> Timestamp {
    from.checked_add(LONGEST_STEP).unwrap_or(Timestamp::MAX)
}

/// From when on a report without a mark is planned: from `start`; else as far back as MoEngage may still have its
/// partitions (`campaign_report`), or from today (others).
pub(super) fn first_sight(report: &Report, present: Timestamp) -> Timestamp {
    if report.start.is_some() {
        return before_start(report);
    }
    match report.source.kind() {
        SourceKind::CampaignReport => kept_since(present),
        _ => before_day(report, report.timezone.to_datetime(present).date()),
    }
}

/// The last instant before the report's `start`; without one, the earliest of all.
pub(super) fn before_start(report: &Report) -> Timestamp {
    report.start.map_or(Timestamp::MIN, |start| before_day(report, start))
}

/// The last instant before the day begins: a generation time after it is on that day or later.
fn before_day(report: &Report, date: civil::Date) -> Timestamp {
    date.to_zoned(report.timezone.clone())
        .ok()
        .and_then(|midnight| midnight.timestamp().checked_sub(SignedDuration::from_nanos(1)).ok())
        .unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, sync::Arc};

    use jiff::civil::date;

    use super::*;
    use crate::plan::{
        fixtures::{daily, dates_to_fetch, late_dates, recorded, report, utc},
        plan,
    };

    #[test]
    fn a_daily_dump_without_a_mark_is_planned_from_today_or_from_its_start() {
        let now = utc("2026-11-21T12:00:00Z");
        let mut dump = report(SourceKind::DailyDump, daily(8, 0), "UTC");
        let first = plan(&[Arc::new(dump.clone())], &LedgerView::default(), now);
        assert_eq!(dates_to_fetch(&first), [date(2026, 11, 21)]);
        dump.start = Some(date(2026, 11, 19));
        let first = plan(&[Arc::new(dump)], &LedgerView::default(), now);
        assert_eq!(dates_to_fetch(&first), [19, 20, 21].map(|day| date(2026, 11, day)));
    }

    #[test]
    fn every_step_from_a_start_long_ago_belongs_to_the_first_look() {
        let now = utc("2026-11-21T12:00:00Z");
        let mut wanted = report(SourceKind::CampaignReport, daily(9, 30), "UTC");
        wanted.start = Some(date(2026, 8, 1));
        let reports = [Arc::new(wanted)];
        let (mut view, mut new, mut late) = (LedgerView::default(), 0, 0);
        let recent: Vec<_> = (15..=21).map(|day| date(2026, 11, day)).collect();
        for number in 0..4 {
            let step = plan(&reports, &view, now);
            assert_eq!(dates_to_fetch(&step)[..7], recent, "what MoEngage still has comes first, in step {number}");
            new += step.new.len();
            late += late_dates(&step.new).len();
            view = recorded(view, &step);
            // As the ledger has it: in milliseconds; the first partitions are open, later ones have ended.
            view.entries.retain(|entry| number == 0 || entry.partition.generated_at > kept_since(now));
            for through in view.planned_through.values_mut() {
                *through = Timestamp::from_millisecond(through.as_millisecond()).unwrap();
            }
        }
        assert_eq!((new, late), (113, 106));
        let later = plan(&reports, &view, utc("2026-12-05T12:00:00Z"));
        assert_eq!((later.new.len(), late_dates(&later.new).len()), (14, 0), "two weeks of downtime");
    }

    fn ahead(report: &Report, by: SignedDuration) -> HashMap<String, SignedDuration> {
        [(report.server(), by)].into()
    }

    #[test]
    fn the_clock_of_another_server_does_not_affect_a_report() {
        let reports = [Arc::new(report(SourceKind::Campaigns, daily(9, 30), "UTC"))];
        let before = plan(&reports, &LedgerView::default(), utc("2026-11-21T12:00:00Z"));
        let mut view = recorded(LedgerView::default(), &before);
        view.clock_ahead = [("https://api-99.moengage.com".to_owned(), SignedDuration::from_hours(48))].into();
        let next_day = plan(&reports, &view, utc("2026-11-22T10:00:00Z"));
        let new: Vec<_> = next_day.new.iter().map(|entry| entry.partition.id.date).collect();
        assert_eq!(new, [date(2026, 11, 22)]);
    }

    #[test]
    fn a_local_clock_in_2106_adds_one_step_until_moengage_answers() {
        let reports = [Arc::new(report(SourceKind::CampaignReport, daily(9, 30), "UTC"))];
        let view =
            recorded(LedgerView::default(), &plan(&reports, &LedgerView::default(), utc("2026-11-21T12:00:00Z")));
        let wild = utc("2106-01-01T00:00:00Z");
        let first = plan(&reports, &view, wild);
        assert_eq!((first.new.len(), first.is_partial), (35, true));
        assert!(first.next_change().is_none_or(|at| at > wild), "no wake-up");
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
    fn a_mark_made_by_a_clock_far_ahead_is_ignored() {
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
            assert!(dates_to_fetch(&still_ahead).contains(&date(2026, 11, 15)), "the clock is known to be ahead");
        }
    }

    #[test]
    fn the_next_change_is_a_time_of_the_local_clock() {
        let reports = [Arc::new(report(SourceKind::CampaignReport, daily(9, 30), "UTC"))];
        let mut view =
            recorded(LedgerView::default(), &plan(&reports, &LedgerView::default(), utc("2026-11-21T12:00:00Z")));
        view.entries.clear();
        view.clock_ahead = ahead(&reports[0], SignedDuration::from_hours(1));
        // By the local clock the report of the 22nd was due three minutes ago; by the vendor's it is not yet made.
        let now = utc("2026-11-22T10:03:00Z");
        assert_eq!(plan(&reports, &view, now).next_change(), Some(utc("2026-11-22T11:00:00Z")));
    }
}
