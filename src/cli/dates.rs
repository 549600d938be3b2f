//! Dates on the command line: absolute, or counted from today.

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _, civil::Date};

use clap::Args;

use super::{CommandError, Result, scope::Scope};
use crate::{
    config::{Config, FIRST_YEAR},
    reading::Dates,
};

/// What a date may look like, for help texts and errors.
pub(super) const FORMS: &str = "2026-11-21, 20261121, today, yesterday or -7d (seven days ago)";

/// A date as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WrittenDate {
    On(Date),
    DaysAgo(u32),
}

impl WrittenDate {
    /// The date, if today is `today`.
    pub(super) fn on(self, today: Date) -> Date {
        match self {
            WrittenDate::On(date) => date,
            WrittenDate::DaysAgo(days) => today.saturating_sub(i64::from(days).days()),
        }
    }
}

/// Parses a date of the command line.
pub(super) fn date(text: &str) -> Result<WrittenDate, String> {
    let written = match text {
        "today" => Some(WrittenDate::DaysAgo(0)),
        "yesterday" => Some(WrittenDate::DaysAgo(1)),
        _ => match text.strip_prefix('-').and_then(|days| days.strip_suffix('d')) {
            Some(days) => days.parse().ok().filter(|days| *days <= MOST_DAYS).map(WrittenDate::DaysAgo),
            None => {
                let is = |format| Date::strptime(format, text).ok();
                is("%Y-%m-%d").or_else(|| is("%Y%m%d")).map(WrittenDate::On)
            }
        },
    };
    match written {
        Some(WrittenDate::On(date)) if date.year() < FIRST_YEAR => {
            Err(format!("no report is older than the year {FIRST_YEAR}"))
        }
        written => written.ok_or_else(|| format!("expected a date: {FORMS}")),
    }
}

/// Most days ago: twenty years.
const MOST_DAYS: u32 = 7_305;

/// Today's date where the report that `scope` names is generated; in UTC if it names none.
pub(super) fn today(scope: &Scope, config: &Config, now: Timestamp) -> Date {
    let zone = scope.report.as_ref().and_then(|_| scope.one(config).ok()).map(|report| report.timezone.clone());
    now.to_zoned(zone.unwrap_or(TimeZone::UTC)).date()
}

/// The partitions' dates that a command is limited to; all by default.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct DateRange {
    /// Only this date.
    #[arg(long, value_name = "DATE", value_parser = date, allow_hyphen_values = true, conflicts_with_all = ["from", "to"])]
    date: Option<WrittenDate>,
    /// The first date.
    #[arg(long, value_name = "DATE", value_parser = date, allow_hyphen_values = true)]
    from: Option<WrittenDate>,
    /// The last date.
    #[arg(long, value_name = "DATE", value_parser = date, allow_hyphen_values = true)]
    to: Option<WrittenDate>,
}

impl DateRange {
    /// Whether all dates are meant.
    pub(super) fn is_all(&self) -> bool {
        self.date.is_none() && self.from.is_none() && self.to.is_none()
    }

    /// The dates, if today is `today`. Fails if the first one is after the last one.
    pub(super) fn dates(&self, today: Date) -> Result<Dates> {
        let on = |date: Option<WrittenDate>| date.map(|date| date.on(today));
        match (on(self.date), on(self.from), on(self.to)) {
            (Some(date), ..) => Ok(Dates::only(date)),
            (None, Some(from), Some(to)) if from > to => {
                Err(CommandError::Usage(format!("--from {from} is after --to {to}")))
            }
            (None, from, to) => Ok(Dates { from, to }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_absolute_or_counted_from_today() {
        let today = jiff::civil::date(2026, 3, 1);
        let on = |text| date(text).map(|date| date.on(today).to_string());
        for text in ["2026-02-22", "20260222", "-7d"] {
            assert_eq!(on(text).as_deref(), Ok("2026-02-22"));
        }
        assert_eq!([on("today"), on("yesterday")], [Ok("2026-03-01".to_owned()), Ok("2026-02-28".to_owned())]);
        for wrong in
            ["", "21/11/2026", "2026-02-30", "-7", "7d", "-d", "--7d", "-99999d", "-99999999999d", "2026-11-21T10:00"]
        {
            assert_eq!(on(wrong), Err(format!("expected a date: {FORMS}")), "{wrong}");
        }
    }
}
