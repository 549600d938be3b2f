//! Values that are written as text: durations, sizes, rates, dates, times, names. Each type contains the text, and its
//! `check` parses it.

use std::{fmt, ops::RangeInclusive};

use jiff::{SignedDuration, Span, SpanRelativeTo, civil};
use serde::de::{Error, Unexpected, Visitor};

use super::{Mistakes, Problem, document::KeyPath, mistakes::each};

/// No report is older: MoEngage was founded in 2014. An earlier year is a mistake, and each of its dates would be requested.
pub const FIRST_YEAR: i16 = 2010;

pub(super) const SECOND: SignedDuration = SignedDuration::from_secs(1);
pub(super) const DAY: SignedDuration = SignedDuration::from_hours(24);
pub(super) const YEAR: SignedDuration = SignedDuration::from_hours(366 * 24);
const PEBIBYTE: u64 = 1 << 50;

/// File systems allow 255 bytes; this leaves room for what moesync adds to a name (date, hash, manifest).
const LONGEST_NAME: usize = 200;

/// A type that is written as a string; some accept an integer too.
macro_rules! written {
    ($name:ident, $expecting:literal, integer: $integer:literal, schema: $schema:tt) => {
        #[derive(Debug, Clone, serde::Serialize)]
        pub(super) struct $name(pub(super) String);

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let written = $crate::config::values::Written { expecting: $expecting, integer: $integer };
                deserializer.deserialize_any(written).map($name)
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!($schema)
            }
        }
    };
}
pub(super) use written;

pub(super) struct Written {
    pub(super) expecting: &'static str,
    pub(super) integer: bool,
}

impl Visitor<'_> for Written {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<String, E> {
        match self.integer {
            true => Ok(number.to_string()),
            false => Err(E::invalid_type(Unexpected::Signed(number), &self)),
        }
    }
}

written!(Duration, "a duration such as \"30m\"", integer: false, schema: {
    "description": "Weeks, days, hours, minutes and seconds, such as `7d`, `1h30m` or `45s`.",
    "type": "string", "examples": ["7d", "1h30m", "45s"]
});
written!(ByteSize, "a size such as \"20 GiB\"", integer: true, schema: {
    "description": "Bytes as a number, or with a unit such as `GiB` (1024³) or `GB` (1000³).",
    "type": ["string", "integer"], "examples": ["20 GiB", "500 MB", 1048576]
});
written!(Rate, "a rate such as \"1 KiB/s\"", integer: false, schema: {
    "description": "Bytes a second.", "type": "string", "examples": ["1 KiB/s"]
});
written!(Date, "a date such as \"2026-11-21\"", integer: false, schema: { "type": "string", "format": "date" });
written!(Time, "a time such as \"09:30\"", integer: false, schema: {
    "type": "string", "pattern": "^([01]?[0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?$", "examples": ["09:30"]
});

impl Duration {
    pub(super) fn new(text: &str) -> Self {
        Duration(text.to_owned())
    }

    pub(super) fn check(
        &self,
        range: RangeInclusive<SignedDuration>,
        at: &KeyPath<'_>,
    ) -> Result<SignedDuration, Problem> {
        let text = &self.0;
        let span: Option<Span> = text.parse().ok();
        // A month has no fixed length, so months and years are rejected.
        let duration =
            span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()).ok_or_else(|| {
                at.problem(format_args!(
                    "expected a duration such as \"30m\", \"1h30m\" or \"7d\" (w, d, h, m, s), found {text:?}"
                ))
            })?;
        match range.contains(&duration) {
            true => Ok(duration),
            false => Err(at.problem(format_args!(
                "must be from {} to {}, found {text:?}",
                Days(*range.start()),
                Days(*range.end())
            ))),
        }
    }
}

/// A duration as it is written in the configuration.
struct Days(SignedDuration);

impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            seconds if seconds > 0 && seconds % DAY.as_secs() == 0 => write!(f, "{}d", seconds / DAY.as_secs()),
            _ => write!(f, "{:#}", self.0),
        }
    }
}

impl ByteSize {
    pub(super) fn new(text: &str) -> Self {
        ByteSize(text.to_owned())
    }

    /// In bytes.
    pub(super) fn check(&self, at: &KeyPath<'_>) -> Result<u64, Problem> {
        let text = &self.0;
        let size: bytesize::ByteSize = text.parse().map_err(|_| {
            at.problem(format_args!(
                "expected a size such as \"20 GiB\", \"500 MB\" or a number of bytes, found {text:?}"
            ))
        })?;
        match size.as_u64() {
            bytes @ 1..=PEBIBYTE => Ok(bytes),
            _ => Err(at.problem(format_args!("must be from 1 B to 1 PiB, found {text:?}"))),
        }
    }
}

impl Rate {
    pub(super) fn new(text: &str) -> Self {
        Rate(text.to_owned())
    }

    /// In bytes a second.
    pub(super) fn check(&self, at: &KeyPath<'_>) -> Result<u64, Problem> {
        let text = &self.0;
        let size: Option<bytesize::ByteSize> = text.strip_suffix("/s").and_then(|size| size.trim_end().parse().ok());
        match size.map(|size| size.as_u64()) {
            Some(bytes @ 1..=PEBIBYTE) => Ok(bytes),
            Some(_) => Err(at.problem(format_args!("must be from 1 B/s to 1 PiB/s, found {text:?}"))),
            None => Err(at.problem(format_args!("expected a rate such as \"1 KiB/s\", found {text:?}"))),
        }
    }
}

impl Date {
    pub(super) fn check(&self, at: &KeyPath<'_>) -> Result<civil::Date, Problem> {
        self.check_as(&["%Y-%m-%d"], at)
    }

    /// The date in the first of `formats` that it is written in.
    pub(super) fn check_as(&self, formats: &[&str], at: &KeyPath<'_>) -> Result<civil::Date, Problem> {
        let text = &self.0;
        let date = formats.iter().find_map(|format| civil::Date::strptime(format, text).ok());
        match date {
            None => Err(at.problem(format_args!("expected a date such as \"2026-11-21\", found {text:?}"))),
            Some(date) if date.year() < FIRST_YEAR => {
                Err(at.problem(format_args!("no report is older than the year {FIRST_YEAR}, found {text:?}")))
            }
            Some(date) => Ok(date),
        }
    }
}

impl Time {
    pub(super) fn check(&self, at: &KeyPath<'_>) -> Result<civil::Time, Problem> {
        let text = &self.0;
        ["%H:%M", "%H:%M:%S"]
            .iter()
            .find_map(|format| civil::Time::strptime(format, text).ok())
            .ok_or_else(|| at.problem(format_args!("expected a time such as \"09:30\", found {text:?}")))
    }
}

pub(super) fn integer<T: TryFrom<i64>>(value: i64, range: RangeInclusive<i64>, at: &KeyPath<'_>) -> Result<T, Problem> {
    Some(value)
        .filter(|value| range.contains(value))
        .and_then(|value| T::try_from(value).ok())
        .ok_or_else(|| at.problem(format_args!("must be from {} to {}, found {value}", range.start(), range.end())))
}

/// A name that can be part of an object key and of a line of text.
pub(super) fn name(text: &str, at: &KeyPath<'_>) -> Result<String, Problem> {
    if text.trim().is_empty() {
        return Err(at.problem("must not be empty"));
    }
    if text.contains(|c: char| c.is_control()) {
        return Err(at.problem(format_args!("must not contain control characters, found {text:?}")));
    }
    if text.len() > LONGEST_NAME {
        return Err(at.problem(format_args!("must have at most {LONGEST_NAME} bytes, has {}", text.len())));
    }
    Ok(text.to_owned())
}

/// A list of words, such as tags.
pub(super) fn words(list: &[String], at: &KeyPath<'_>) -> Result<Vec<String>, Mistakes> {
    each(list, at, |word, at| match word.trim().is_empty() || word.contains(|c: char| c.is_control()) {
        true => Err(at.problem("must not be empty or contain control characters")),
        false => Ok(word.clone()),
    })
}
