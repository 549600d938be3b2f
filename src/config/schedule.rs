//! The `schedule` of a report.

use std::{collections::BTreeSet, fmt};

use jiff::civil::{self, Weekday};
use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};

use super::{
    Mistakes, Problem,
    document::{KeyPath, did_you_mean},
    mistakes::each,
    values::{Date, Time},
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a schedule such as { every = \"day\", at = \"09:30\" }")]
pub(super) struct Raw {
    /// How often it is generated. Either this or `once` is required.
    every: Option<Every>,
    /// With `every = "week"` the day's English name or a list of names, with `every = "month"` a number from 1 to 31 or
    /// `"last"`. Months without that day are skipped.
    on: Option<On>,
    /// Time of generation, in the report's time zone. Required with `every`; `once` without it means "as soon as
    /// possible".
    at: Option<Time>,
    /// The only date of generation.
    once: Option<Date>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", expecting = "\"day\", \"week\" or \"month\"")]
enum Every {
    Day,
    Week,
    Month,
}

/// One day or a list of days, as written.
#[derive(Debug)]
enum On {
    Day(String),
    Days(Vec<String>),
}

impl<'de> Deserialize<'de> for On {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WrittenOn)
    }
}

impl JsonSchema for On {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "On".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let days = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
        schemars::json_schema!({
            "anyOf": [
                { "enum": days.into_iter().chain(["last"]).collect::<Vec<_>>() },
                { "type": "integer", "minimum": 1, "maximum": 31 },
                { "type": "array", "items": { "enum": days }, "minItems": 1, "uniqueItems": true }
            ]
        })
    }
}

struct WrittenOn;

impl<'de> Visitor<'de> for WrittenOn {
    type Value = On;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a day such as \"monday\", 1 or \"last\", or a list of days")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<On, E> {
        Ok(On::Day(text.to_owned()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<On, E> {
        Ok(On::Day(number.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<On, A::Error> {
        let mut days = Vec::new();
        while let Some(day) = list.next_element()? {
            days.push(day);
        }
        Ok(On::Days(days))
    }
}

/// When MoEngage generates a report, in civil time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// Every day at a time.
    Daily {
        /// Local time of generation.
        at: civil::Time,
    },
    /// Some days of each week.
    Weekly {
        /// The days, each once and at least one, from Monday on.
        on: Vec<civil::Weekday>,
        /// Local time of generation.
        at: civil::Time,
    },
    /// One day of each month.
    Monthly {
        /// Day of the month.
        on: MonthDay,
        /// Local time of generation.
        at: civil::Time,
    },
    /// Once.
    Once {
        /// The day.
        date: civil::Date,
        /// Local time of generation; `None` is the dashboard's "as soon as possible".
        at: Option<civil::Time>,
    },
}

/// A day of the month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MonthDay {
    /// 1 to 31; months without that day are skipped.
    Day(i8),
    /// The last day of the month.
    Last,
}

impl Raw {
    pub(super) fn check(&self, at: &KeyPath<'_>) -> Result<Schedule, Mistakes> {
        let time = self.at.as_ref().map(|text| text.check(&at.key("at"))).transpose()?;
        let every = match (self.every, &self.once) {
            (Some(every), None) => every,
            (None, Some(_)) if self.on.is_some() => {
                return Err(at.key("on").problem("only with every = \"week\" or \"month\"").into());
            }
            (None, Some(text)) => {
                return Ok(Schedule::Once { date: text.check(&at.key("once"))?, at: time });
            }
            (None, None) => return Err(at.problem("every or once is missing; exactly one is required").into()),
            (Some(_), Some(_)) => {
                return Err(at.problem("every and once are both given; exactly one is required").into());
            }
        };
        let time = time.ok_or_else(|| at.key("at").problem("missing, but required with every"))?;
        let on = at.key("on");
        Ok(match (every, &self.on) {
            (Every::Day, None) => Schedule::Daily { at: time },
            (Every::Day, Some(_)) => return Err(on.problem("only with every = \"week\" or \"month\"").into()),
            (Every::Week, None) => {
                return Err(on.problem("missing, but required with every = \"week\", such as on = \"monday\"").into());
            }
            (Every::Week, Some(days)) => Schedule::Weekly { on: weekdays(days, &on)?, at: time },
            (Every::Month, None) => {
                return Err(on
                    .problem("missing, but required with every = \"month\", such as on = 1 or on = \"last\"")
                    .into());
            }
            (Every::Month, Some(On::Day(day))) => Schedule::Monthly { on: month_day(day, &on)?, at: time },
            (Every::Month, Some(On::Days(_))) => {
                return Err(on.problem("expected one day; with every = \"week\" it may be a list").into());
            }
        })
    }
}

/// The days in the order of the week, each once.
fn weekdays(raw: &On, at: &KeyPath<'_>) -> Result<Vec<Weekday>, Mistakes> {
    let list = match raw {
        On::Day(day) => return Ok(vec![weekday(day, at)?]),
        On::Days(list) if list.is_empty() => return Err(at.problem("must name at least one day").into()),
        On::Days(list) => list,
    };
    let mut named = BTreeSet::new();
    let days = each(list, at, |name, at| {
        let day = weekday(name, at)?;
        match named.insert(day.to_monday_one_offset()) {
            true => Ok(day),
            false => Err(at.problem(format_args!("{name:?} is in the list already"))),
        }
    });
    days.map(|mut days| {
        days.sort_by_key(|day| day.to_monday_one_offset());
        days
    })
}

fn weekday(text: &str, at: &KeyPath<'_>) -> Result<Weekday, Problem> {
    const DAYS: [(&str, Weekday); 7] = [
        ("monday", Weekday::Monday),
        ("tuesday", Weekday::Tuesday),
        ("wednesday", Weekday::Wednesday),
        ("thursday", Weekday::Thursday),
        ("friday", Weekday::Friday),
        ("saturday", Weekday::Saturday),
        ("sunday", Weekday::Sunday),
    ];
    DAYS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, day)| *day).ok_or_else(|| {
        let nearest = did_you_mean(text, DAYS.iter().map(|(name, _)| *name));
        at.problem(format_args!("expected a day of the week such as \"monday\", found {text:?}{nearest}"))
    })
}

fn month_day(text: &str, at: &KeyPath<'_>) -> Result<MonthDay, Problem> {
    match (text, text.parse()) {
        ("last", _) => Ok(MonthDay::Last),
        (_, Ok(day @ 1..=31)) => Ok(MonthDay::Day(day)),
        _ => Err(at.problem(format_args!("expected a day of the month from 1 to 31, or \"last\", found {text:?}"))),
    }
}
