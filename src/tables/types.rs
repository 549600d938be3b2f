//! Types of columns.
//!
//! This file owns which type the values of a column have, and what a value is in a column of a given type. A type is a
//! promise for all later files, so it is inferred from all values of a file, and a value that does not fit is never
//! changed to fit. It must not know formats, names of tables or schemas.

use std::str::FromStr;

use jiff::civil::{Date, Time};

use super::{Cell, CellKind};
use crate::table_words::ColumnType;

fn bit(column: ColumnType) -> u8 {
    1 << column as u8
}

/// A cell in a typed column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// No value.
    Null,
    /// Text, as it is in the file.
    String(&'a str),
    /// A whole number.
    Int64(i64),
    /// A number with decimals, finite.
    Double(f64),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since 1970-01-01 00:00:00, without a zone.
    Timestamp(i64),
    /// True or false.
    Boolean(bool),
}

/// The value of `cell` in a column of type `column`; `None` if it does not fit.
pub fn convert(cell: Cell<'_>, column: ColumnType) -> Option<Value<'_>> {
    if cell.is_empty() {
        return Some(Value::Null);
    }
    if cell.kind == CellKind::Bytes {
        return None;
    }
    let text = cell.text.trim_ascii();
    let is_text = matches!(cell.kind, CellKind::Text | CellKind::String | CellKind::Day);
    match column {
        ColumnType::String => Some(Value::String(cell.text)),
        ColumnType::Boolean => boolean(cell).map(Value::Boolean),
        ColumnType::Int64 => Number::of(cell)?.int64().map(Value::Int64),
        ColumnType::Double => Number::of(cell)?.double().map(Value::Double),
        ColumnType::Date => date(text).filter(|_| is_text).map(|date| Value::Date(days(date))),
        ColumnType::Timestamp if cell.kind == CellKind::Day => {
            date(text).map(|date| Value::Timestamp(i64::from(days(date)) * MICROS_OF_A_DAY))
        }
        ColumnType::Timestamp => timestamp(text).filter(|_| is_text).map(Value::Timestamp),
    }
}

/// Microseconds of a day.
const MICROS_OF_A_DAY: i64 = 86_400_000_000;

/// What the values of a column have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// The types that all values so far have, as bits.
    common: u8,
    has_values: bool,
}

impl Default for Observed {
    fn default() -> Self {
        Self { common: ColumnType::ALL.into_iter().map(bit).sum(), has_values: false }
    }
}

impl Observed {
    /// Takes one more cell into account. White space alone is no value.
    pub fn observe(&mut self, cell: Cell<'_>) {
        if self.common == bit(ColumnType::String) && self.has_values {
            return;
        }
        if !cell.tells_type() {
            return;
        }
        self.has_values = true;
        let number = match self.common & (bit(ColumnType::Int64) | bit(ColumnType::Double)) {
            0 => None,
            _ => Number::of(cell),
        };
        let common = self.common;
        for column in ColumnType::ALL.into_iter().filter(|column| common & bit(*column) != 0) {
            let fits = match column {
                ColumnType::Int64 => number.as_ref().is_some_and(|number| number.int64().is_some()),
                ColumnType::Double => number.as_ref().is_some_and(|number| number.double().is_some()),
                ColumnType::String => true,
                ColumnType::Boolean | ColumnType::Date | ColumnType::Timestamp => convert(cell, column).is_some(),
            };
            if !fits {
                self.common &= !bit(column);
            }
        }
    }

    /// Takes the values of another part of the same column into account.
    pub fn join(&mut self, other: &Observed) {
        self.common &= other.common;
        self.has_values |= other.has_values;
    }

    /// The type of a column with this name; `None` without a value. Identifiers are strings, even if all of a file are
    /// numbers: those of MoEngage are hexadecimal.
    pub fn column_type(&self, name: &str) -> Option<ColumnType> {
        let is_identifier = name.split('_').any(|word| word == "id" || word == "ids");
        match (self.has_values, is_identifier) {
            (false, _) => None,
            (true, true) => Some(ColumnType::String),
            (true, false) => ColumnType::ALL.into_iter().find(|column| self.common & bit(*column) != 0),
        }
    }
}

fn boolean(cell: Cell<'_>) -> Option<bool> {
    let text = cell.text.trim_ascii();
    match cell.kind {
        CellKind::Text | CellKind::Boolean if text.eq_ignore_ascii_case("true") => Some(true),
        CellKind::Text | CellKind::Boolean if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// Most digits of a whole number. Identifiers have more, and 19 digits may exceed 64 bits.
const MOST_DIGITS: usize = 18;

/// Most digits, without leading zeros, that a double keeps. Programs print up to 17.
const MOST_DECIMALS: usize = 17;

/// The largest whole number up to which a double holds every whole number.
const MOST_EXACT: i64 = 1 << 53;

/// A text that is a number.
struct Number<'a> {
    /// Without a percent sign; may have separators of thousands.
    text: &'a str,
    is_whole: bool,
    is_grouped: bool,
    /// All digits before an exponent.
    digits: usize,
    /// Digits from the first one that is not 0.
    significant: usize,
}

impl<'a> Number<'a> {
    /// The number in `cell`; `None` if it is none, or has the form of an identifier. Leading zeros and an explicit `+` are
    /// forms of identifiers, and so is an exponent without a sign: `12e4567` may be hexadecimal.
    fn of(cell: Cell<'a>) -> Option<Self> {
        let is_json = match cell.kind {
            CellKind::Text => false,
            CellKind::Number => true,
            CellKind::String | CellKind::Day | CellKind::Boolean | CellKind::Nested | CellKind::Bytes => return None,
        };
        let trimmed = cell.text.trim_ascii();
        if let Some(number) = Self::plain(trimmed) {
            return Some(number);
        }
        let text = trimmed.strip_suffix('%').map_or(trimmed, str::trim_ascii_end);
        let is_percentage = text.len() < trimmed.len();
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
            Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
            None => (unsigned, None),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (mantissa, None),
        };
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let is_grouped = whole.contains(',');
        let is_valid_whole = match is_grouped {
            true => is_grouped_by_thousands(whole),
            false => is_number(whole),
        };
        let has_leading_zero = whole.starts_with('0') && whole.len() > 1;
        let is_exponent = |text: &str| match text.strip_prefix(['-', '+']) {
            Some(digits) => is_number(digits),
            None => is_json && is_number(text),
        };
        let is_valid = is_valid_whole
            && !has_leading_zero
            && fraction.is_none_or(is_number)
            && exponent.is_none_or(is_exponent)
            && !(is_percentage && exponent.is_some());
        let digits = || mantissa.bytes().filter(u8::is_ascii_digit);
        is_valid.then(|| Number {
            text,
            is_whole: fraction.is_none() && exponent.is_none() && !is_percentage,
            is_grouped,
            digits: digits().count(),
            significant: digits().skip_while(|digit| *digit == b'0').count(),
        })
    }

    /// The number, if it has digits and a decimal point only, as nearly all have.
    fn plain(text: &'a str) -> Option<Self> {
        let unsigned = text.strip_prefix('-').unwrap_or(text).as_bytes();
        let whole = unsigned.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let zeros = unsigned.iter().take_while(|byte| matches!(byte, b'0' | b'.')).count();
        let digits = match unsigned.get(whole..)? {
            [] => whole,
            [b'.', fraction @ ..] if !fraction.is_empty() && fraction.iter().all(u8::is_ascii_digit) => {
                whole + fraction.len()
            }
            _ => return None,
        };
        let is_plain = whole == 1 || (whole > 1 && unsigned[0] != b'0');
        let zeros = if zeros > whole { zeros - 1 } else { zeros };
        let is_whole = digits == whole;
        is_plain.then(|| Number { text, is_whole, is_grouped: false, digits, significant: digits - zeros.min(digits) })
    }

    fn int64(&self) -> Option<i64> {
        let is_int64 = self.is_whole && self.digits <= MOST_DIGITS && self.text != "-0";
        is_int64.then(|| self.parse())?
    }

    fn double(&self) -> Option<f64> {
        if self.is_whole && self.text != "-0" {
            let number = self.int64().filter(|number| number.abs() <= MOST_EXACT)?;
            #[expect(clippy::cast_precision_loss, reason = "a double holds every whole number up to this one")]
            return Some(number as f64);
        }
        let number = (self.significant <= MOST_DECIMALS).then(|| self.parse::<f64>())??;
        // An exponent can be too large, or so small that nothing is left of the digits.
        (number.is_finite() && (number != 0.0 || self.significant == 0)).then_some(number)
    }

    fn parse<T: FromStr>(&self) -> Option<T> {
        match self.is_grouped {
            true => self.text.replace(',', "").parse().ok(),
            false => self.text.parse().ok(),
        }
    }
}

/// Digits with a comma before each three from the right.
fn is_grouped_by_thousands(text: &str) -> bool {
    let mut groups = text.split(',');
    let is_group = |group: &str| group.bytes().all(|byte| byte.is_ascii_digit());
    let first = groups.next().is_some_and(|first| (1..=3).contains(&first.len()) && is_group(first));
    first && groups.all(|group| group.len() == 3 && is_group(group))
}

/// Two-digit or four-digit numbers.
fn digits<T: FromStr>(text: &str, length: usize) -> Option<T> {
    let is_number = text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

/// `YYYY-MM-DD`, from the year 1.
fn date(text: &str) -> Option<Date> {
    if text.len() != 10 || text.as_bytes()[4] != b'-' || text.as_bytes()[7] != b'-' {
        return None;
    }
    let year = digits(text.get(..4)?, 4).filter(|year| *year > 0)?;
    Date::new(year, digits(text.get(5..7)?, 2)?, digits(text.get(8..)?, 2)?).ok()
}

/// `YYYY-MM-DD HH:MM:SS`, or with a `T`, and up to six decimals of a second. Not with a zone, which the type does not keep.
fn timestamp(text: &str) -> Option<i64> {
    let date = date(text.get(..10)?)?;
    let time = text.get(10..)?.strip_prefix([' ', 'T'])?;
    let (time, fraction) = match time.split_once('.') {
        Some((time, fraction)) => (time, Some(fraction)),
        None => (time, None),
    };
    let micros = match fraction {
        None => 0,
        Some(fraction) if (1..=6).contains(&fraction.len()) => digits::<i64>(&format!("{fraction:0<6}"), 6)?,
        Some(_) => return None,
    };
    if time.len() != 8 || time.as_bytes()[2] != b':' || time.as_bytes()[5] != b':' {
        return None;
    }
    let [hour, minute, second] = [time.get(..2)?, time.get(3..5)?, time.get(6..)?].map(|part| digits::<i8>(part, 2));
    let time = Time::new(hour?, minute?, second?, 0).ok()?;
    let seconds = i64::from(time.hour()) * 3600 + i64::from(time.minute()) * 60 + i64::from(time.second());
    Some(i64::from(days(date)) * MICROS_OF_A_DAY + seconds * 1_000_000 + micros)
}

/// Days since 1970-01-01.
fn days(date: Date) -> i32 {
    let days = date.duration_since(jiff::civil::date(1970, 1, 1)).as_hours() / 24;
    i32::try_from(days).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: CellKind, values: &[&str]) -> Option<ColumnType> {
        let mut observed = Observed::default();
        values.iter().for_each(|text| observed.observe(Cell { kind, text }));
        observed.column_type("column")
    }

    fn inferred(values: &[&str]) -> Option<ColumnType> {
        of(CellKind::Text, values)
    }

    fn value(text: &str, column: ColumnType) -> Option<Value<'_>> {
        convert(Cell { kind: CellKind::Text, text }, column)
    }

    #[test]
    fn a_type_is_what_all_values_have_in_common() {
        use ColumnType::{Boolean, Date, Double, Int64, String, Timestamp};
        let cases: [(&[&str], Option<ColumnType>); 20] = [
            (&[], None),
            (&["", "  "], None),
            (&["1", "", "-20", "12,345", "1,234,567", "999999999999999999", " 7 "], Some(Int64)),
            (&["1", "8.4"], Some(Double)),
            (&["12.5%", "8%", "1,234.5", "1e-05", "1.5e+16"], Some(Double)),
            (&["8%"], Some(Double)),
            (&["1234567890123456789"], Some(String)),
            (&["64fa31c09b1f2a7d3c8e0b52"], Some(String)),
            (&["123456789012345678901e23"], Some(String)),
            (&["1e5"], Some(String)),
            (&["007"], Some(String)),
            (&["+49"], Some(String)),
            (&["['UPI']"], Some(String)),
            (&["1,2,3", "12,34"], Some(String)),
            (&["0.123456789012345678"], Some(String)),
            (&["9007199254740993", "0.5"], Some(String)),
            (&["2026-11-21", "2024-02-29"], Some(Date)),
            (&["2026-11-21 09:30:00", "2026-11-21T09:30:00.5"], Some(Timestamp)),
            (&["2026-11-21", "2026-11-21 09:30:00"], Some(String)),
            (&["true", "FALSE"], Some(Boolean)),
        ];
        for (values, expected) in cases {
            assert_eq!(inferred(values), expected, "{values:?}");
        }
        let not_dates = ["2026-02-30", "0000-01-01", "21/11/2026", "2026-1-1", "2026-11-21 24:00:00"];
        let not_times =
            ["2026-11-21 09:30", "2026-11-21 09:30:60", "2026-11-21T09:30:00Z", "2026-11-21 09:30:00.1234567"];
        let not_numbers =
            ["-", ".5", "5.", "1.2.3", "NaN", "inf", "0x10", "1_000", ",123", "1234,567", "٣", "5%%", "-%"];
        for text in not_dates.iter().chain(&not_times).chain(&not_numbers) {
            assert_eq!(inferred(&[text]), Some(String), "{text}");
        }
    }

    #[test]
    fn identifiers_are_strings_by_the_name_of_their_column() {
        let mut observed = Observed::default();
        observed.observe(Cell { kind: CellKind::Text, text: "12345" });
        for (name, expected) in [
            ("campaign_id", ColumnType::String),
            ("campaign_id_2", ColumnType::String),
            ("campaign_ids", ColumnType::String),
            ("paid", ColumnType::Int64),
        ] {
            assert_eq!(observed.column_type(name), Some(expected), "{name}");
        }
    }

    #[test]
    fn values_have_the_meaning_of_their_text() {
        assert_eq!(value("12,345", ColumnType::Int64), Some(Value::Int64(12_345)));
        assert_eq!(value("12.5%", ColumnType::Double), Some(Value::Double(12.5)));
        assert_eq!(value("12.5 %", ColumnType::Double), Some(Value::Double(12.5)));
        assert_eq!(value("7", ColumnType::Double), Some(Value::Double(7.0)));
        assert_eq!(value(" a ", ColumnType::String), Some(Value::String(" a ")));
        assert_eq!(value("1969-12-31", ColumnType::Date), Some(Value::Date(-1)));
        assert_eq!(value("0001-01-01", ColumnType::Date), Some(Value::Date(-719_162)));
        assert_eq!(value("1970-01-02 00:00:01.5", ColumnType::Timestamp), Some(Value::Timestamp(86_401_500_000)));
        assert_eq!(value("True", ColumnType::Boolean), Some(Value::Boolean(true)));
        assert_eq!(value("", ColumnType::Int64), Some(Value::Null));
    }

    #[test]
    fn what_does_not_fit_is_not_changed_to_fit() {
        for (text, column) in [
            ("8.4", ColumnType::Int64),
            ("8%", ColumnType::Int64),
            ("-0", ColumnType::Int64),
            ("n/a", ColumnType::Double),
            ("9007199254740993", ColumnType::Double),
            ("1e+999", ColumnType::Double),
            ("1e-999", ColumnType::Double),
            ("2026-11-21", ColumnType::Timestamp),
            ("1", ColumnType::Boolean),
            (" ", ColumnType::Int64),
        ] {
            assert_eq!(value(text, column), None, "{text} as {column}");
        }
    }

    #[test]
    fn cells_that_have_a_type_themselves_keep_it() {
        assert_eq!(of(CellKind::Number, &["1", "20"]), Some(ColumnType::Int64));
        assert_eq!(of(CellKind::Number, &["1e5", "0.10"]), Some(ColumnType::Double));
        assert_eq!(of(CellKind::Number, &["12345678901234567890"]), Some(ColumnType::String));
        assert_eq!(of(CellKind::Boolean, &["true"]), Some(ColumnType::Boolean));
        assert_eq!(of(CellKind::String, &["12"]), Some(ColumnType::String));
        assert_eq!(of(CellKind::String, &["true"]), Some(ColumnType::String));
        assert_eq!(of(CellKind::String, &["2026-11-21"]), Some(ColumnType::Date));
        assert_eq!(of(CellKind::Day, &["2026-11-21"]), Some(ColumnType::Date));
        assert_eq!(of(CellKind::Nested, &["[1]"]), Some(ColumnType::String));
        assert_eq!(of(CellKind::Bytes, &["\\xff"]), None);
        assert_eq!(convert(Cell { kind: CellKind::Bytes, text: "\\xff" }, ColumnType::String), None);
    }

    #[test]
    fn a_day_of_a_workbook_is_also_a_time_in_a_column_of_times() {
        let mut observed = Observed::default();
        observed.observe(Cell { kind: CellKind::Day, text: "2026-11-21" });
        observed.observe(Cell { kind: CellKind::Text, text: "2026-11-21 09:30:00" });
        assert_eq!(observed.column_type("column"), Some(ColumnType::Timestamp));
        let day = Cell { kind: CellKind::Day, text: "1970-01-02" };
        assert_eq!(convert(day, ColumnType::Timestamp), Some(Value::Timestamp(86_400_000_000)));
        assert_eq!(convert(day, ColumnType::Date), Some(Value::Date(1)));
        assert_eq!(convert(Cell { kind: CellKind::Day, text: "1900-02-29" }, ColumnType::Timestamp), None);
    }

    #[test]
    fn leading_zeros_of_a_decimal_are_no_digits_of_it() {
        for (text, significant) in
            [("0", 0), ("0.0", 0), ("7", 1), ("-70", 2), ("0.07", 1), ("10.07", 4), ("0.00012345678901234567", 17)]
        {
            let cell = Cell { kind: CellKind::Text, text };
            assert_eq!(Number::of(cell).map(|number| number.significant), Some(significant), "{text}");
            assert!(value(text, ColumnType::Double).is_some(), "{text}");
        }
    }
}
