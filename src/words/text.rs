//! Instants, durations and sizes as text.

use jiff::{SignedDuration, Timestamp, Unit, tz::TimeZone};

/// An instant as text, to the minute, in UTC.
pub fn instant(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%MZ").to_string()
}

/// A time zone's name in the time zone database.
pub fn zone(timezone: &TimeZone) -> &str {
    timezone.iana_name().unwrap_or("UTC")
}

/// The time left to an instant as text, in one unit or two.
pub fn left(at: Timestamp, now: Timestamp) -> String {
    let left = at.duration_since(now);
    if left.is_negative() { "passed".into() } else { duration(left) }
}

/// A duration as text, in one unit or two.
pub fn duration(duration: SignedDuration) -> String {
    let minutes = duration.round(Unit::Minute).unwrap_or(duration).as_mins();
    match (minutes / 1440, minutes / 60 % 24, minutes % 60) {
        (0, 0, 0) => "less than a minute".into(),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// A size as text, in binary units.
pub fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}
