//! The JSON of `explain`: a partition, its attempts, its tables, and why it waits.

use jiff::{Timestamp, civil::Date, tz::AmbiguousOffset};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    status::PartitionStatus,
    text::{duration, instant, left, zone},
};
use crate::{
    config::{Report, Schedule},
    derivation::{PartitionTables, TableObject},
    outcome::{Outcome, RecordedAttempt},
    partition::{Entry, Settled},
    plan::{self, Decision},
    report::{Partition, manifest_key},
    retry::Hold,
    schedule,
};

/// One past attempt.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PastAttempt {
    /// When it began.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub started_at: Timestamp,
    /// When it ended.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub finished_at: Timestamp,
    /// Its outcome.
    pub outcome: Outcome,
    /// HTTP status of MoEngage's response; null without a response.
    pub http_status: Option<u16>,
    /// Number of bytes received.
    pub size: Option<u64>,
    /// SHA-256 of the bytes received.
    pub sha256: Option<String>,
    /// The request id to give to MoEngage's support.
    pub request_id: Option<String>,
    /// The result, as text.
    pub message: Option<String>,
}

impl From<RecordedAttempt> for PastAttempt {
    fn from(attempt: RecordedAttempt) -> Self {
        Self {
            started_at: attempt.started_at,
            finished_at: attempt.finished_at,
            outcome: attempt.outcome,
            http_status: attempt.http_status,
            size: attempt.size,
            sha256: attempt.sha256,
            request_id: attempt.request_id,
            message: Some(attempt.message).filter(|message| !message.is_empty()),
        }
    }
}

/// The effect of a clock change on a generation time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClockChange {
    /// The local time does not exist on that day; it was moved forward.
    Gap,
    /// The local time occurs twice on that day; the first is used.
    Overlap,
}

/// What `explain` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Explanation {
    /// The partition.
    #[serde(flatten)]
    pub status: PartitionStatus,
    /// Why it is not requested now; null if it has ended, or is requested next.
    pub waits: Option<String>,
    /// Name of MoEngage's file, unescaped, as it is signed.
    pub file_name: String,
    /// URL of the request, without secrets.
    pub source_url: String,
    /// Name of the destination.
    pub destination: String,
    /// Key that its object has or will have.
    pub object_key: String,
    /// Key of the manifest beside it.
    pub manifest_key: String,
    /// The report's time zone.
    pub timezone: String,
    /// The generation time in that zone.
    pub generated_local: String,
    /// The effect of a clock change on it; null on other days.
    pub clock_change: Option<ClockChange>,
    /// Whether the schedule has a generation on that date.
    pub scheduled: bool,
    /// Its attempts, oldest first.
    pub history: Vec<PastAttempt>,
    /// The tables made of it; absent unless tables are made of the report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub derived: Option<ExplainedTables>,
}

/// The tables of one partition.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ExplainedTables {
    /// Number of rows of all tables.
    pub rows: u64,
    /// All objects.
    pub objects: Vec<TableObject>,
    /// Entries of the archive that become no table.
    pub left_alone: Vec<String>,
    /// When the last attempt to make them ended; null before the first.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub finished_at: Option<Timestamp>,
    /// Earliest time of the next attempt, if the last one failed.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub next_attempt_at: Option<Timestamp>,
    /// Why the last attempt failed.
    pub message: Option<String>,
}

impl From<PartitionTables> for ExplainedTables {
    fn from(tables: PartitionTables) -> Self {
        Self {
            rows: tables.derived.rows(),
            objects: tables.derived.objects,
            left_alone: tables.derived.left_alone,
            finished_at: tables.finished_at,
            next_attempt_at: tables.next_attempt_at,
            message: tables.message,
        }
    }
}

impl Explanation {
    /// The partition of `date`, as it is `recorded` in the ledger, and the URL of its request. `None` if the date does not
    /// exist in the report's time zone.
    pub fn new(report: &Report, date: Date, recorded: Recorded, source_url: String, now: Timestamp) -> Option<Self> {
        let Recorded { entry, history, tables, hold, new } = recorded;
        let scheduled = schedule::on(&report.schedule, &report.timezone, date);
        let generated = || scheduled.or_else(|| schedule::on_any_day(&report.schedule, &report.timezone, date));
        let (entry, waits) = match (entry, new) {
            (Some(entry), _) => {
                let waits = waiting(&entry, hold.as_ref(), now);
                (entry, waits)
            }
            (None, Some(new)) => {
                let then = waiting(&new, hold.as_ref(), now);
                let then = then.map_or_else(|| " and requests it".to_owned(), |waits| format!("; {waits}"));
                (new, Some(format!("not planned yet: the next pass of `moesync sync` or `moesync run` plans it{then}")))
            }
            (None, None) => {
                let entry = Entry::new(report.partition(generated()?));
                let waits = unplanned(report, &entry.partition, scheduled.is_some(), now);
                (entry, Some(waits))
            }
        };
        let object_key = report.keys(date).object();
        let generated_local = entry.partition.generated_at.to_zoned(report.timezone.clone());
        Some(Self {
            status: PartitionStatus::new(&entry, true, now),
            waits,
            file_name: report.file_name(date),
            source_url,
            destination: report.destination.name.clone(),
            manifest_key: manifest_key(&object_key),
            object_key,
            timezone: zone(&report.timezone).to_owned(),
            generated_local: generated_local.strftime("%Y-%m-%d %H:%M:%S %:z").to_string(),
            clock_change: clock_change(report, date),
            scheduled: scheduled.is_some(),
            history: history.into_iter().map(Into::into).collect(),
            derived: tables.map(Into::into),
        })
    }
}

/// What the ledger has of one partition, or what planning adds to it.
#[derive(Debug)]
pub struct Recorded {
    /// The partition.
    pub entry: Option<Entry>,
    /// Its attempts, oldest first.
    pub history: Vec<RecordedAttempt>,
    /// Its tables.
    pub tables: Option<PartitionTables>,
    /// The hold of its workspace.
    pub hold: Option<Hold>,
    /// As it is planned next, if it is not in the ledger.
    pub new: Option<Entry>,
}

/// Why a partition of the ledger is not requested now.
fn waiting(entry: &Entry, hold: Option<&Hold>, now: Timestamp) -> Option<String> {
    if entry.settled != Settled::Open {
        return None;
    }
    let expired = entry.partition.expires_at.is_some_and(|expiry| expiry <= now);
    let waits = match plan::decide(entry, hold, now) {
        Decision::NotDue { until } => format!("due {}, in {}", instant(until), left(until, now)),
        Decision::Held { outcome, until } => {
            format!("the whole workspace waits until {}, for {} ({outcome})", instant(until), left(until, now))
        }
        Decision::Backoff { until } => format!("the next attempt is {}, in {}", instant(until), left(until, now)),
        Decision::Fetch | Decision::Refresh | Decision::Unconfigured if expired => {
            return Some("it has expired; the next attempt decides whether it is absent or lost".to_owned());
        }
        Decision::Fetch | Decision::Refresh | Decision::Unconfigured => return None,
    };
    Some(waits)
}

/// Why a partition that is not in the ledger is not planned now.
fn unplanned(report: &Report, partition: &Partition, is_scheduled: bool, now: Timestamp) -> String {
    let past = match partition.expires_at.filter(|expiry| *expiry <= now) {
        Some(expiry) if partition.source.is_live_listing() => {
            format!("; a later listing replaced it {} ago", duration(now.duration_since(expiry)))
        }
        Some(expiry) => format!("; MoEngage deleted it {} ago", duration(now.duration_since(expiry))),
        None if partition.due_at <= now => "; `moesync backfill` requests it".to_owned(),
        None => String::new(),
    };
    match report.start.filter(|start| partition.id.date < *start) {
        Some(start) => format!("not planned: before the report's start, {start}{past}"),
        None if !is_scheduled => format!("not planned: no date of the schedule{past}"),
        None if partition.generated_at > now => {
            format!("due {}, in {}", instant(partition.due_at), left(partition.due_at, now))
        }
        None => format!("not planned: before the report's first plan, not in its schedule then, or forgotten{past}"),
    }
}

fn clock_change(report: &Report, date: Date) -> Option<ClockChange> {
    let at = match report.schedule {
        Schedule::Daily { at } | Schedule::Weekly { at, .. } | Schedule::Monthly { at, .. } => at,
        Schedule::Once { at, .. } => at?,
    };
    match report.timezone.to_ambiguous_timestamp(date.to_datetime(at)).offset() {
        AmbiguousOffset::Unambiguous { .. } => None,
        AmbiguousOffset::Gap { .. } => Some(ClockChange::Gap),
        AmbiguousOffset::Fold { .. } => Some(ClockChange::Overlap),
    }
}
