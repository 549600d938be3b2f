//! What is told to others: one event each, as JSON and as a line of text.
//!
//! This file owns the words that receivers rely on; docs/schemas/event.json is made from it. It must not know who
//! receives an event, nor how it gets there.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp, civil::Date};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    alarm::{AlarmKey, Change, Phase},
    alarm_kind::AlarmKind,
    config::SourceKind,
    outcome::{Attempt, OTHER_CONTENT, Outcome},
    partition::Entry,
};

/// One thing that is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// The same each time that the event is sent: a receiver that knows it already has had it.
    pub id: String,
    /// When it was noticed.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub timestamp: Timestamp,
    /// What it is.
    #[serde(flatten)]
    pub content: Content,
}

/// What an event says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data")]
pub enum Content {
    /// Something is wrong that was not.
    #[serde(rename = "alarm.began")]
    AlarmBegan(AlarmData),
    /// Less time is left than when it was last told.
    #[serde(rename = "alarm.worsened")]
    AlarmWorsened(AlarmData),
    /// It is over.
    #[serde(rename = "alarm.ended")]
    AlarmEnded(AlarmData),
    /// An object and its manifest are at the destination.
    #[serde(rename = "stored")]
    Stored(StoredData),
    /// What a day has brought, though it be nothing.
    #[serde(rename = "summary")]
    Summary(SummaryData),
    /// Nothing: somebody tries whether events arrive.
    #[serde(rename = "test")]
    Test(TestData),
}

/// An alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AlarmData {
    /// Which one.
    pub alarm: AlarmKind,
    /// When it was first told.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub since: Timestamp,
    /// The workspace, where it is of one.
    pub workspace: Option<String>,
    /// The destination, where it is of one.
    pub destination: Option<String>,
    /// The configured time that less than is left to the nearest expiry, in seconds; 0 once it has passed, null while
    /// there is more time, or no expiry.
    pub within_seconds: Option<i64>,
    /// How many partitions are in it.
    pub partitions: usize,
    /// Whose partitions they are.
    pub reports: Vec<ReportData>,
    /// The partition that is the first to be lost.
    pub nearest: Option<NearestData>,
    /// All of it in a line, for people.
    pub message: String,
}

/// A report that an alarm is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReportData {
    /// Name of the workspace.
    pub workspace: String,
    /// The report's id.
    pub report: String,
    /// How many of its partitions are in it.
    pub partitions: usize,
}

/// One partition that an alarm is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NearestData {
    /// Name of the workspace.
    pub workspace: String,
    /// The report's id.
    pub report: String,
    /// Its date.
    #[schemars(with = "String", extend("format" = "date"))]
    pub date: Date,
    /// Since when it is due.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub due_at: Timestamp,
    /// From when on it may be gone.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub expires_at: Option<Timestamp>,
    /// How the last attempt ended.
    pub outcome: Option<Outcome>,
    /// What it met, for people.
    pub message: Option<String>,
}

/// An object that was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoredData {
    /// Name of the workspace.
    pub workspace: String,
    /// The report's id.
    pub report: String,
    /// Which API it came from.
    pub source: SourceKind,
    /// The partition's date.
    #[schemars(with = "String", extend("format" = "date"))]
    pub date: Date,
    /// Name of the destination; null when the report is no longer configured.
    pub destination: Option<String>,
    /// The object's key there.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Lower-case hex.
    pub sha256: String,
    /// When it was fetched.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub stored_at: Timestamp,
}

/// What a day has brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SummaryData {
    /// From when on it counts: the time of the last summary.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub since: Timestamp,
    /// How many objects were stored since then.
    pub stored: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// How many partitions are due and not stored.
    pub pending: usize,
    /// How many alarms are not over.
    pub alarms: usize,
    /// All of it in a line, for people.
    pub message: String,
}

/// What a test says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TestData {
    /// For people.
    pub message: String,
}

impl Event {
    /// An event that says `content`, with a name drawn by the shell.
    pub fn new(number: u128, timestamp: Timestamp, content: Content) -> Self {
        Event { id: format!("evt_{number:032x}"), timestamp, content }
    }
}

impl Content {
    /// Whether it tells of an alarm, and so is more urgent than anything else.
    pub fn is_alarm(&self) -> bool {
        matches!(self, Content::AlarmBegan(_) | Content::AlarmWorsened(_) | Content::AlarmEnded(_))
    }

    /// Nothing but that it arrives.
    pub fn test() -> Self {
        Content::Test(TestData { message: "moesync was asked whether its messages arrive; nothing is wrong".into() })
    }

    /// What is to be said of alarms that changed: those of one kind, in one workspace, in the same way, together. With
    /// each the alarms that are known by it.
    pub fn of_changes(changes: &[Change], now: Timestamp) -> Vec<(Self, Vec<AlarmKey>)> {
        let mut groups: BTreeMap<_, Vec<&Change>> = BTreeMap::new();
        for change in changes {
            let Some(phase) = change.phase else { continue };
            let subject = &change.key.1;
            let within = change.alarm.as_ref().and_then(|alarm| alarm.within);
            groups
                .entry((
                    phase,
                    kind(change),
                    &subject.workspace,
                    &subject.destination,
                    subject.report.is_some(),
                    within,
                ))
                .or_default()
                .push(change);
        }
        groups
            .into_iter()
            .map(|((phase, alarm, workspace, destination, is_of_reports, within), changes)| {
                let mut data = AlarmData {
                    alarm,
                    since: changes.iter().filter_map(|change| Some(change.before.as_ref()?.since)).min().unwrap_or(now),
                    workspace: workspace.clone(),
                    destination: destination.clone(),
                    within_seconds: within.map(|within| within.as_secs()),
                    partitions: changes.iter().filter_map(|c| Some(c.alarm.as_ref()?.partitions)).sum(),
                    reports: reports(&changes),
                    nearest: nearest(&changes).map(NearestData::new),
                    message: String::new(),
                };
                let said = changes.iter().find_map(|change| change.alarm.as_ref()?.message.clone());
                data.message = sentence(phase, &data, is_of_reports, within, said);
                let keys = changes.iter().map(|change| change.key.clone()).collect();
                match phase {
                    Phase::Began => (Content::AlarmBegan(data), keys),
                    Phase::Worsened => (Content::AlarmWorsened(data), keys),
                    Phase::Ended => (Content::AlarmEnded(data), keys),
                }
            })
            .collect()
    }

    /// That the object of `entry` was stored by `attempt`.
    pub fn of_stored(entry: &Entry, destination: Option<&str>) -> Option<Self> {
        let object = entry.object.as_ref()?;
        let id = &entry.partition.id;
        Some(Content::Stored(StoredData {
            workspace: id.workspace.clone(),
            report: id.report.clone(),
            source: entry.partition.source,
            date: id.date,
            destination: destination.map(str::to_owned),
            key: object.key.clone(),
            size: object.size,
            sha256: object.sha256.clone(),
            stored_at: object.stored_at,
        }))
    }

    /// That other content was at the place of what `attempt` has stored, as its message says (see [`OTHER_CONTENT`]). It
    /// is told once, and never over.
    pub fn of_other_content(entry: &Entry, attempt: &Attempt, destination: Option<&str>) -> Option<Self> {
        let key = entry.object.as_ref().map_or("", |object| &object.key);
        if !attempt.message.starts_with(OTHER_CONTENT) {
            return None;
        }
        let id = &entry.partition.id;
        Some(Content::AlarmBegan(AlarmData {
            alarm: AlarmKind::OtherContent,
            since: attempt.finished_at,
            workspace: Some(id.workspace.clone()),
            destination: destination.map(str::to_owned),
            within_seconds: None,
            partitions: 1,
            reports: vec![ReportData { workspace: id.workspace.clone(), report: id.report.clone(), partitions: 1 }],
            nearest: Some(NearestData::new(entry)),
            message: format!("{id} is stored at {key}: {}", attempt.message),
        }))
    }

    /// What was stored since `since`.
    pub fn of_summary(since: Timestamp, (stored, bytes): (u64, u64), pending: usize, alarms: usize) -> Self {
        let message = format!(
            "{stored} objects ({}) stored since {since}; {pending} due and not stored; {alarms} alarms",
            bytesize::ByteSize(bytes)
        );
        Content::Summary(SummaryData { since, stored, bytes, pending, alarms, message })
    }

    /// All of it in a line, for people.
    pub fn message(&self) -> String {
        match self {
            Content::AlarmBegan(data) | Content::AlarmWorsened(data) | Content::AlarmEnded(data) => {
                data.message.clone()
            }
            Content::Stored(data) => {
                format!("{}/{} {} is stored at {}", data.workspace, data.report, data.date, data.key)
            }
            Content::Summary(data) => data.message.clone(),
            Content::Test(data) => data.message.clone(),
        }
    }
}

impl NearestData {
    fn new(entry: &Entry) -> Self {
        let partition = &entry.partition;
        NearestData {
            workspace: partition.id.workspace.clone(),
            report: partition.id.report.clone(),
            date: partition.id.date,
            due_at: partition.due_at,
            expires_at: partition.expires_at,
            outcome: entry.outcome,
            message: entry.message.clone(),
        }
    }
}

/// What an alarm is called, or was when it was last told.
fn kind(change: &Change) -> AlarmKind {
    let now = change.alarm.as_ref().map(|alarm| alarm.kind);
    now.or_else(|| change.before.as_ref().map(|before| before.kind)).unwrap_or(change.key.0)
}

fn reports(changes: &[&Change]) -> Vec<ReportData> {
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    for change in changes {
        let subject = &change.key.1;
        match (&change.alarm, &subject.workspace, &subject.report) {
            (Some(alarm), ..) => {
                for (id, partitions) in &alarm.reports {
                    *counts.entry((id.workspace.clone(), id.report.clone())).or_default() += partitions;
                }
            }
            // It is over: none of them is in it any more.
            (None, Some(workspace), Some(report)) => {
                counts.entry((workspace.clone(), report.clone())).or_default();
            }
            (None, ..) => {}
        }
    }
    let report = |((workspace, report), partitions)| ReportData { workspace, report, partitions };
    counts.into_iter().map(report).collect()
}

fn nearest<'a>(changes: &[&'a Change]) -> Option<&'a Entry> {
    let entries = changes.iter().filter_map(|change| change.alarm.as_ref()?.nearest.as_ref());
    entries.min_by_key(|entry| (entry.partition.expires_at.unwrap_or(Timestamp::MAX), &entry.partition.id))
}

/// The longest list of reports in a sentence.
const NAMED: usize = 5;

fn sentence(
    phase: Phase,
    data: &AlarmData,
    is_of_reports: bool,
    within: Option<SignedDuration>,
    said: Option<String>,
) -> String {
    let whose = match (&data.workspace, &data.destination) {
        (_, Some(destination)) => format!("destination {destination}"),
        (Some(workspace), None) => match data.reports.as_slice() {
            reports if reports.is_empty() || !is_of_reports => format!("workspace {workspace}"),
            reports => {
                let mut names: Vec<_> = reports.iter().take(NAMED).map(|report| report.report.as_str()).collect();
                let others = (reports.len() > NAMED).then(|| format!("{} more", reports.len() - NAMED));
                names.extend(others.as_deref());
                format!("{workspace}/{}", names.join(", "))
            }
        },
        (None, None) => "moesync".to_owned(),
    };
    if phase == Phase::Ended {
        return format!("{whose}: over: {}", word(data.alarm));
    }
    if let Some(said) = said {
        return format!("{whose}: {said}");
    }
    let count = match data.partitions {
        1 => "1 partition".to_owned(),
        several => format!("{several} partitions"),
    };
    // Others of them may have more time.
    let whose_time = if data.partitions == 1 { "" } else { "the nearest " };
    let time = match within {
        Some(within) if within.is_zero() => format!(", {whose_time}past its expiry"),
        Some(within) => format!(", {whose_time}less than {within:#} to expiry"),
        None => String::new(),
    };
    let nearest = data.nearest.as_ref().map(|nearest| {
        let expiry = nearest.expires_at.map_or(String::new(), |at| format!(", expires {at}"));
        let met = match (&nearest.outcome, &nearest.message) {
            (Some(outcome), Some(message)) => format!("; {outcome}: {message}"),
            (Some(outcome), None) => format!("; {outcome}"),
            (None, _) => String::new(),
        };
        let which = if data.partitions > 1 && within.is_none() { "the nearest: " } else { "" };
        format!(" ({which}{} {}{expiry}{met})", nearest.report, nearest.date)
    });
    format!("{whose}: {}: {count}{time}{}", word(data.alarm), nearest.unwrap_or_default())
}

fn word(alarm: AlarmKind) -> &'static str {
    match alarm {
        AlarmKind::Lost => "lost, MoEngage has it no more",
        AlarmKind::Expiring => "not stored and soon deleted by MoEngage",
        AlarmKind::Late => "late",
        AlarmKind::Unauthorized => "MoEngage refuses the credentials",
        AlarmKind::Rejected => "MoEngage refuses the request",
        AlarmKind::Corrupt => "came broken again",
        AlarmKind::Unsupported => "came in a format that cannot be verified",
        AlarmKind::StoreFailed => "the destination refuses",
        AlarmKind::OtherContent => "other content was there",
        AlarmKind::Ledger => "the ledger was damaged or taken away",
        AlarmKind::Configuration => "the new configuration is not used",
        AlarmKind::Clock => "the local clock is wrong",
        AlarmKind::Panic => "a fault of moesync itself",
    }
}
