//! The text of events, for people.

use jiff::{SignedDuration, Timestamp};

use super::{AlarmData, SchemaChangedData, StoredData, TablesData};
use crate::{
    alarm::Phase,
    alarm_kind::AlarmKind,
    derivation::{Difference, DifferenceKind},
};

/// The text of a test.
pub(super) const TEST: &str = "this is a test of moesync's notifications; nothing is wrong";

/// Number of reports that a text names.
const NAMED_REPORTS: usize = 5;

/// What is wrong, in a few words.
pub(super) fn title(data: &AlarmData) -> String {
    format!("{}: {}", subject(data), kind(data.alarm))
}

/// The title of an alarm about other content.
pub(super) fn other_content(workspace: &str, report: &str) -> String {
    format!("{workspace}/{report}: {}", kind(AlarmKind::OtherContent))
}

/// The text of an alarm.
pub(super) fn alarm(phase: Phase, data: &AlarmData, within: Option<SignedDuration>) -> String {
    let subject = subject(data);
    let kind = kind(data.alarm);
    if phase == Phase::Ended {
        return format!("{subject}: resolved: {kind}");
    }
    if let Some(cause) = &data.cause {
        return format!("{subject}: {cause}");
    }
    let count = counted(data.partitions, "partition");
    // The other partitions may have more time.
    let nearest = if data.partitions == 1 { "" } else { "the nearest " };
    let time = match within {
        Some(within) if within.is_zero() => format!(", {nearest}past its expiry"),
        Some(within) => format!(", {nearest}less than {within:#} to expiry"),
        None => String::new(),
    };
    format!("{subject}: {kind}: {count}{time}{}", example(data, within))
}

/// A number and its noun: `1 alarm`, `2 alarms`.
pub fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn subject(data: &AlarmData) -> String {
    match (&data.workspace, &data.destination) {
        (_, Some(destination)) => format!("destination {destination}"),
        (Some(workspace), None) if data.reports.is_empty() || !data.is_of_reports => format!("workspace {workspace}"),
        (Some(workspace), None) => {
            let mut names: Vec<_> =
                data.reports.iter().take(NAMED_REPORTS).map(|report| report.report.as_str()).collect();
            let others = data.reports.len() - names.len();
            let others = (others > 0).then(|| format!("{others} more"));
            names.extend(others.as_deref());
            format!("{workspace}/{}", names.join(", "))
        }
        (None, None) => "moesync".to_owned(),
    }
}

/// The partition that expires first, and its last attempt.
fn example(data: &AlarmData, within: Option<SignedDuration>) -> String {
    let Some(nearest) = &data.nearest else { return String::new() };
    let expiry = nearest.expires_at.map_or(String::new(), |at| format!(", expires {at}"));
    let attempt = match (&nearest.outcome, &nearest.message) {
        (Some(outcome), Some(message)) => format!("; {outcome}: {message}"),
        (Some(outcome), None) => format!("; {outcome}"),
        (None, _) => String::new(),
    };
    let which = if data.partitions > 1 && within.is_none() { "the nearest: " } else { "" };
    format!(" ({which}{} {}{expiry}{attempt})", nearest.report, nearest.date)
}

pub(super) fn stored(data: &StoredData) -> String {
    format!("{}/{} {} is stored at {}", data.workspace, data.report, data.date, data.key)
}

pub(super) fn tables(data: &TablesData) -> String {
    let TablesData { workspace, report, date, rows, tables, .. } = data;
    format!("the tables of {workspace}/{report} {date} are ready: {rows} rows in {}", counted(tables.len(), "object"))
}

pub(super) fn schema_changed(data: &SchemaChangedData) -> String {
    let each: Vec<_> = data.changes.iter().map(difference).collect();
    format!("table {} of {}/{} from {}: {}", data.table, data.workspace, data.report, data.date, each.join(", "))
}

pub(super) fn difference(difference: &Difference) -> String {
    let column = &difference.column;
    match difference.change {
        DifferenceKind::Added => format!("new column {column}"),
        DifferenceKind::Vanished => format!("column {column} is gone"),
        DifferenceKind::Retyped => format!("column {column} has another type"),
    }
}

pub(super) fn summary(since: Timestamp, (stored, bytes): (u64, u64), pending: usize, alarms: usize) -> String {
    let (size, objects) = (bytesize::ByteSize(bytes), if stored == 1 { "object" } else { "objects" });
    let alarms = counted(alarms, "alarm");
    format!("{stored} {objects} ({size}) stored since {since}; {pending} due and not stored; {alarms}")
}

fn kind(alarm: AlarmKind) -> &'static str {
    match alarm {
        AlarmKind::Lost => "lost: expired at MoEngage before it was stored",
        AlarmKind::Expiring => "not stored, expires soon",
        AlarmKind::Late => "late",
        AlarmKind::Unauthorized => "MoEngage refuses the credentials",
        AlarmKind::Rejected => "MoEngage refuses the request",
        AlarmKind::Corrupt => "corrupt download, repeatedly",
        AlarmKind::Unsupported => "a format that cannot be verified",
        AlarmKind::StoreFailed => "the destination fails",
        AlarmKind::TablesFailed => "tables cannot be made",
        AlarmKind::OtherContent => "different content at its key",
        AlarmKind::Ledger => "the ledger was damaged or replaced",
        AlarmKind::Configuration => "the new configuration is not used",
        AlarmKind::Clock => "the local clock is wrong",
        AlarmKind::Panic => "a bug in moesync",
    }
}
