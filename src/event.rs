//! Events, as the JSON that other programs receive.
//!
//! This file owns the JSON that receivers rely on; docs/schemas/event.json is generated from it. It must not know who receives an
//! event, or how. What people read is in `notice.rs` and `wording.rs`.

mod notice;
mod wording;

use std::collections::BTreeMap;

use jiff::{Timestamp, civil::Date};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    notice::{Mood, Notice},
    wording::counted,
};
use crate::{
    alarm::{AlarmKey, Change, Phase},
    alarm_kind::AlarmKind,
    config::{Instance, SourceKind},
    derivation::{Derived, Difference, SchemaChange, TableObject},
    outcome::{Outcome, RecordedAttempt, Remark},
    partition::Entry,
    report::ReportId,
};

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Identifies the event. It is the same each time the event is sent, so a receiver can drop repetitions.
    pub id: String,
    /// When it was detected.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub timestamp: Timestamp,
    /// Name of the moesync that detected it.
    #[serde(default)]
    pub instance: String,
    /// Address of the status page, or of the report's own page if the event is about one report; null if none is configured.
    #[serde(default)]
    pub page: Option<String>,
    /// Its type and data.
    #[serde(flatten)]
    pub content: Content,
}

/// Type and data of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data")]
pub enum Content {
    /// An alarm began.
    #[serde(rename = "alarm.began")]
    AlarmBegan(AlarmData),
    /// An alarm worsened: a smaller threshold to expiry was passed.
    #[serde(rename = "alarm.worsened")]
    AlarmWorsened(AlarmData),
    /// An alarm ended.
    #[serde(rename = "alarm.ended")]
    AlarmEnded(AlarmData),
    /// An object and its manifest were stored.
    #[serde(rename = "stored")]
    Stored(StoredData),
    /// The tables of a partition were made, or made again: its date is ready to load.
    #[serde(rename = "tables")]
    Tables(TablesData),
    /// The columns of a table changed.
    #[serde(rename = "schema_changed")]
    SchemaChanged(SchemaChangedData),
    /// The daily summary.
    #[serde(rename = "summary")]
    Summary(SummaryData),
    /// A test of whether events arrive.
    #[serde(rename = "test")]
    Test(TestData),
}

/// An alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AlarmData {
    /// The kind of alarm.
    pub alarm: AlarmKind,
    /// When it was first reported.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub since: Timestamp,
    /// Name of the workspace; null for an alarm that is not about one.
    pub workspace: Option<String>,
    /// Name of the destination; null for an alarm that is not about one.
    pub destination: Option<String>,
    /// The smallest configured threshold to the nearest expiry that was passed, in seconds; 0 once it has expired, null
    /// before the first threshold or without an expiry.
    pub within_seconds: Option<i64>,
    /// Number of partitions.
    pub partitions: usize,
    /// The reports of these partitions.
    pub reports: Vec<ReportData>,
    /// The partition that expires first.
    pub nearest: Option<NearestData>,
    /// Whether it is about reports, and not about a workspace as a whole. Only until the event is made.
    #[serde(skip)]
    is_of_reports: bool,
    /// What is wrong, in a few words.
    #[serde(default)]
    pub title: String,
    /// The reason, of an alarm for which the last attempt of a partition does not give it.
    #[serde(default)]
    pub cause: Option<String>,
    /// The same as one line of text.
    pub message: String,
}

/// A report that an alarm is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReportData {
    /// Name of the workspace.
    pub workspace: String,
    /// The report's id.
    pub report: String,
    /// Number of its partitions.
    pub partitions: usize,
}

/// One partition that an alarm is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NearestData {
    /// Name of the workspace.
    pub workspace: String,
    /// The report's id.
    pub report: String,
    /// Date of the partition.
    #[schemars(with = "String", extend("format" = "date"))]
    pub date: Date,
    /// When it became due.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub due_at: Timestamp,
    /// When it expires; null if it does not.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub expires_at: Option<Timestamp>,
    /// Outcome of the last attempt; null before the first.
    pub outcome: Option<Outcome>,
    /// Message of the last attempt.
    pub message: Option<String>,
}

/// An object that was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoredData {
    /// Name of the workspace.
    pub workspace: String,
    /// The report's id.
    pub report: String,
    /// The API that served it.
    pub source: SourceKind,
    /// Date of the partition.
    #[schemars(with = "String", extend("format" = "date"))]
    pub date: Date,
    /// Name of the destination; null when the report is no longer configured.
    pub destination: Option<String>,
    /// Key of the object at the destination.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256, lower-case hex.
    pub sha256: String,
    /// When it was fetched.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub stored_at: Timestamp,
}

/// Tables of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TablesData {
    /// Name of the workspace.
    pub workspace: String,
    /// The report's id.
    pub report: String,
    /// Date of the partition.
    #[schemars(with = "String", extend("format" = "date"))]
    pub date: Date,
    /// Name of the destination; null when the report is no longer configured.
    pub destination: Option<String>,
    /// Number of rows of all tables.
    pub rows: u64,
    /// All objects.
    pub tables: Vec<TableObject>,
    /// Entries of the archive that become no table.
    pub left_alone: Vec<String>,
    /// SHA-256 of the stored object that they were made of, lower-case hex.
    pub source_sha256: Option<String>,
}

/// Columns of a table that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SchemaChangedData {
    /// Name of the workspace.
    pub workspace: String,
    /// The report's id.
    pub report: String,
    /// Name of the table.
    pub table: String,
    /// The first date of which that is so.
    #[schemars(with = "String", extend("format" = "date"))]
    pub date: Date,
    /// The columns.
    pub changes: Vec<Difference>,
}

/// The objects stored since the last summary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SummaryData {
    /// The time of the last summary.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub since: Timestamp,
    /// Number of objects stored since then.
    pub stored: u64,
    /// Their total size in bytes.
    pub bytes: u64,
    /// Number of partitions that are due and not stored.
    pub pending: usize,
    /// Number of alarms that have not ended.
    pub alarms: usize,
    /// The same as one line of text.
    pub message: String,
}

/// Data of a test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TestData {
    /// A line of text.
    pub message: String,
}

impl Event {
    /// An event with an id made from `number`, which the shell draws at random.
    pub fn new(number: u128, timestamp: Timestamp, content: Content, instance: &Instance) -> Self {
        let page = instance.page(content.report());
        Event { id: format!("evt_{number:032x}"), timestamp, instance: instance.name.clone(), page, content }
    }
}

impl Content {
    /// Whether it is about an alarm. Alarms are sent before other events.
    pub fn is_alarm(&self) -> bool {
        matches!(self, Content::AlarmBegan(_) | Content::AlarmWorsened(_) | Content::AlarmEnded(_))
    }

    /// The report that it is about, by workspace and id; `None` if it is about several or none.
    fn report(&self) -> Option<(&str, &str)> {
        match self {
            Content::AlarmBegan(data) | Content::AlarmWorsened(data) | Content::AlarmEnded(data) => {
                let [report] = data.reports.as_slice() else { return None };
                data.is_of_reports.then_some((&report.workspace, &report.report))
            }
            Content::Stored(StoredData { workspace, report, .. })
            | Content::Tables(TablesData { workspace, report, .. })
            | Content::SchemaChanged(SchemaChangedData { workspace, report, .. }) => Some((workspace, report)),
            Content::Summary(_) | Content::Test(_) => None,
        }
    }

    /// A test.
    pub fn test() -> Self {
        Content::Test(TestData { message: wording::TEST.into() })
    }

    /// The events for alarms that changed, each with the alarms that it covers. Alarms of one kind, one workspace and one
    /// phase share an event.
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
                    is_of_reports,
                    title: String::new(),
                    cause: changes.iter().find_map(|change| change.alarm.as_ref()?.message.clone()),
                    message: String::new(),
                };
                data.title = wording::title(&data);
                data.message = wording::alarm(phase, &data, within);
                let keys = changes.iter().map(|change| change.key.clone()).collect();
                match phase {
                    Phase::Began => (Content::AlarmBegan(data), keys),
                    Phase::Worsened => (Content::AlarmWorsened(data), keys),
                    Phase::Ended => (Content::AlarmEnded(data), keys),
                }
            })
            .collect()
    }

    /// The event for a stored partition; `None` if `entry` has no object.
    pub fn of_stored(entry: &Entry, destination: Option<&str>) -> Option<Self> {
        let object = entry.object.as_ref()?;
        let id = &entry.partition.id;
        Some(Content::Stored(StoredData {
            workspace: id.workspace().to_owned(),
            report: id.report.name().to_owned(),
            source: entry.partition.source,
            date: id.date,
            destination: destination.map(str::to_owned),
            key: object.key.clone(),
            size: object.size,
            sha256: object.sha256.clone(),
            stored_at: object.stored_at,
        }))
    }

    /// The event for the tables of a partition.
    pub fn of_tables(entry: &Entry, derived: &Derived, destination: Option<&str>) -> Self {
        let id = &entry.partition.id;
        Content::Tables(TablesData {
            workspace: id.workspace().to_owned(),
            report: id.report.name().to_owned(),
            date: id.date,
            destination: destination.map(str::to_owned),
            rows: derived.rows(),
            tables: derived.objects.clone(),
            left_alone: derived.left_alone.clone(),
            source_sha256: entry.object.as_ref().map(|object| object.sha256.clone()),
        })
    }

    /// The event for `changes` of one table on one date; `None` if there are none.
    pub fn of_schema_changes(report: &ReportId, changes: &[SchemaChange]) -> Option<Self> {
        let first = changes.first()?;
        Some(Content::SchemaChanged(SchemaChangedData {
            workspace: report.workspace().to_owned(),
            report: report.name().to_owned(),
            table: first.table.clone(),
            date: first.date,
            changes: changes.iter().map(|change| change.difference.clone()).collect(),
        }))
    }

    /// The event for an attempt that found different content at the partition's key. It is sent once and has no end.
    pub fn of_other_content(entry: &Entry, attempt: &RecordedAttempt, destination: Option<&str>) -> Option<Self> {
        let key = entry.object.as_ref().map_or("", |object| &object.key);
        if attempt.remark != Some(Remark::OtherContent) {
            return None;
        }
        let id = &entry.partition.id;
        Some(Content::AlarmBegan(AlarmData {
            alarm: AlarmKind::OtherContent,
            since: attempt.finished_at,
            workspace: Some(id.workspace().to_owned()),
            destination: destination.map(str::to_owned),
            within_seconds: None,
            partitions: 1,
            reports: vec![ReportData {
                workspace: id.workspace().to_owned(),
                report: id.report.name().to_owned(),
                partitions: 1,
            }],
            nearest: Some(NearestData::new(entry)),
            is_of_reports: true,
            title: wording::other_content(id.workspace(), id.report.name()),
            cause: Some(format!("{id} is stored at {key}: {}", attempt.message)),
            message: format!("{id} is stored at {key}: {}", attempt.message),
        }))
    }

    /// The summary of the objects stored since `since`.
    pub fn of_summary(since: Timestamp, (stored, bytes): (u64, u64), pending: usize, alarms: usize) -> Self {
        let message = wording::summary(since, (stored, bytes), pending, alarms);
        Content::Summary(SummaryData { since, stored, bytes, pending, alarms, message })
    }

    /// The event as one line of text.
    pub fn message(&self) -> String {
        match self {
            Content::AlarmBegan(data) | Content::AlarmWorsened(data) | Content::AlarmEnded(data) => {
                data.message.clone()
            }
            Content::Stored(data) => wording::stored(data),
            Content::Tables(data) => wording::tables(data),
            Content::SchemaChanged(data) => wording::schema_changed(data),
            Content::Summary(data) => data.message.clone(),
            Content::Test(data) => data.message.clone(),
        }
    }
}

impl NearestData {
    fn new(entry: &Entry) -> Self {
        let partition = &entry.partition;
        NearestData {
            workspace: partition.id.workspace().to_owned(),
            report: partition.id.report.name().to_owned(),
            date: partition.id.date,
            due_at: partition.due_at,
            expires_at: partition.expires_at,
            outcome: entry.outcome,
            message: entry.message.clone(),
        }
    }
}

/// The kind of an alarm now, or when it was last reported.
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
                    *counts.entry((id.workspace().to_owned(), id.name().to_owned())).or_default() += partitions;
                }
            }
            // The alarm ended, so it has no partitions.
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
