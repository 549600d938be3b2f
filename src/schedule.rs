//! When MoEngage generates a report: civil times to instants, in any time zone and across clock changes.
//!
//! This file owns calendar arithmetic. It must not know the present: ranges are arguments.

use jiff::{Timestamp, ToSpan, civil, civil::Date, tz::TimeZone};

use crate::config::{MonthDay, Report, Schedule};

/// One scheduled generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occurrence {
    /// The civil date that names the partition.
    pub date: Date,
    /// The instant of generation.
    pub generated_at: Timestamp,
}

/// The generation scheduled on `date`; `None` if the schedule has none, or the zone skipped that day.
pub fn on(schedule: &Schedule, timezone: &TimeZone, date: Date) -> Option<Occurrence> {
    let is_on = match schedule {
        Schedule::Daily { .. } => true,
        Schedule::Weekly { on, .. } => on.contains(&date.weekday()),
        Schedule::Monthly { on: MonthDay::Day(day), .. } => date.day() == *day,
        Schedule::Monthly { on: MonthDay::Last, .. } => date == date.last_of_month(),
        Schedule::Once { date: only, .. } => date == *only,
    };
    is_on.then(|| on_any_day(schedule, timezone, date))?
}

/// The same for a schedule with a generation every day at its time: for a backfill of days that the schedule omits.
pub fn on_any_day(schedule: &Schedule, timezone: &TimeZone, date: Date) -> Option<Occurrence> {
    let at = match *schedule {
        Schedule::Daily { at } | Schedule::Weekly { at, .. } | Schedule::Monthly { at, .. } => at,
        Schedule::Once { at, .. } => at.unwrap_or(civil::Time::midnight()),
    };
    at_time(timezone, date, at)
}

/// A generation time in a gap moves forward, in an overlap it is the first.
fn at_time(timezone: &TimeZone, date: Date, at: civil::Time) -> Option<Occurrence> {
    let start_of_day = timezone.to_ambiguous_zoned(date.to_datetime(civil::Time::midnight())).compatible().ok()?;
    // Samoa had no 30 December 2011.
    if start_of_day.date() != date {
        return None;
    }
    let zoned = timezone.to_ambiguous_zoned(date.to_datetime(at)).compatible().ok()?;
    Some(Occurrence { date, generated_at: zoned.timestamp() })
}

/// All generations after `after`, in order, to the end of the calendar.
pub fn after<'a>(
    schedule: &'a Schedule,
    timezone: &'a TimeZone,
    after: Timestamp,
) -> impl Iterator<Item = Occurrence> + 'a {
    let civil_date = timezone.to_datetime(after).date();
    // Two days cover every change of a zone's offset.
    let from = match *schedule {
        Schedule::Once { date, .. } => date,
        _ => civil_date.checked_sub(2.days()).unwrap_or(civil_date),
    };
    let limit = match *schedule {
        Schedule::Once { .. } => 1,
        _ => usize::MAX,
    };
    from.series(1.day())
        .take(limit)
        .filter_map(move |date| on(schedule, timezone, date))
        .filter(move |occurrence| occurrence.generated_at > after)
}

/// The first generation after `after`; `None` after the last.
pub fn next(report: &Report, after: Timestamp) -> Option<Occurrence> {
    self::after(&report.schedule, &report.timezone, after).next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::{SignedDuration, civil::date, civil::time};
    use proptest::prelude::*;

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    fn utc(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_time_in_a_gap_moves_forward_and_in_an_overlap_is_the_first() {
        let berlin = zone("Europe/Berlin");
        let daily = Schedule::Daily { at: time(2, 30, 0, 0) };
        assert_eq!(on(&daily, &berlin, date(2026, 3, 29)).unwrap().generated_at, utc("2026-03-29T01:30:00Z"));
        assert_eq!(on(&daily, &berlin, date(2026, 10, 25)).unwrap().generated_at, utc("2026-10-25T00:30:00Z"));
    }

    #[test]
    fn a_zone_may_have_an_offset_of_half_an_hour() {
        let daily = Schedule::Daily { at: time(9, 30, 0, 0) };
        let occurrence = on(&daily, &zone("Asia/Kolkata"), date(2026, 11, 21)).unwrap();
        assert_eq!(occurrence.generated_at, utc("2026-11-21T04:00:00Z"));
    }

    #[test]
    fn a_day_that_the_zone_skipped_has_no_generation() {
        let daily = Schedule::Daily { at: time(9, 0, 0, 0) };
        let apia = zone("Pacific/Apia");
        assert_eq!(on(&daily, &apia, date(2011, 12, 30)), None);
        let dates: Vec<_> = after(&daily, &apia, utc("2011-12-28T00:00:00Z")).take(3).map(|o| o.date).collect();
        assert_eq!(dates, [date(2011, 12, 28), date(2011, 12, 29), date(2011, 12, 31)]);
    }

    #[test]
    fn months_without_the_day_are_skipped_and_last_is_the_last() {
        let schedule = |on| Schedule::Monthly { on, at: time(6, 0, 0, 0) };
        let dates = |schedule: &Schedule| {
            after(schedule, &TimeZone::UTC, utc("2027-12-31T12:00:00Z")).take(4).map(|o| o.date).collect::<Vec<_>>()
        };
        assert_eq!(
            dates(&schedule(MonthDay::Day(30))),
            [date(2028, 1, 30), date(2028, 3, 30), date(2028, 4, 30), date(2028, 5, 30)]
        );
        assert_eq!(
            dates(&schedule(MonthDay::Last)),
            [date(2028, 1, 31), date(2028, 2, 29), date(2028, 3, 31), date(2028, 4, 30)]
        );
    }

    #[test]
    fn a_schedule_of_one_date_has_one_generation() {
        let once = Schedule::Once { date: date(2026, 11, 21), at: Some(time(9, 30, 0, 0)) };
        let all = |from| after(&once, &TimeZone::UTC, utc(from)).map(|o| o.date).collect::<Vec<_>>();
        assert_eq!(all("2020-01-01T00:00:00Z"), [date(2026, 11, 21)]);
        assert_eq!(all("2026-11-21T09:30:00Z"), []);
    }

    fn weekday(number: i8) -> civil::Weekday {
        civil::Weekday::from_monday_one_offset(number).unwrap()
    }

    #[test]
    fn a_week_can_have_several_days() {
        let schedule = Schedule::Weekly { on: vec![weekday(1), weekday(4)], at: time(9, 30, 0, 0) };
        let dates: Vec<_> =
            after(&schedule, &TimeZone::UTC, utc("2026-11-21T12:00:00Z")).take(3).map(|o| o.date).collect();
        assert_eq!(dates, [date(2026, 11, 23), date(2026, 11, 26), date(2026, 11, 30)]);
    }

    fn any_schedule() -> impl Strategy<Value = Schedule> {
        let at = (0i8..24, 0i8..60).prop_map(|(hour, minute)| time(hour, minute, 0, 0));
        prop_oneof![
            at.clone().prop_map(|at| Schedule::Daily { at }),
            (proptest::sample::subsequence((1i8..=7).collect::<Vec<_>>(), 1..=7), at.clone())
                .prop_map(|(on, at)| Schedule::Weekly { on: on.into_iter().map(weekday).collect(), at }),
            (1i8..=31, at.clone()).prop_map(|(on, at)| Schedule::Monthly { on: MonthDay::Day(on), at }),
            at.prop_map(|at| Schedule::Monthly { on: MonthDay::Last, at }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        /// In every zone of the database, over three years.
        #[test]
        fn in_every_zone_each_scheduled_date_has_one_generation_in_order(schedule in any_schedule(), year in 2005i16..2037) {
            for name in jiff::tz::db().available() {
                let zone = zone(name.as_str());
                let (first, last) = (date(year, 1, 1), date(year + 3, 1, 1));
                let from = zone.to_ambiguous_zoned(first.at(0, 0, 0, 0)).compatible().unwrap().timestamp()
                    - SignedDuration::from_secs(1);
                let found: Vec<_> = after(&schedule, &zone, from)
                    .skip_while(|o| o.date < first)
                    .take_while(|o| o.date < last)
                    .collect();
                let expected: Vec<_> = first
                    .series(1.day())
                    .take_while(|d| *d < last)
                    .filter(|d| on(&schedule, &TimeZone::UTC, *d).is_some())
                    .filter(|d| zone.to_ambiguous_zoned(d.at(12, 0, 0, 0)).compatible().unwrap().date() == *d)
                    .collect();
                prop_assert_eq!(found.iter().map(|o| o.date).collect::<Vec<_>>(), expected, "{}", name);
                prop_assert!(found.windows(2).all(|w| w[0].generated_at < w[1].generated_at), "{}", name);
            }
        }
    }
}
