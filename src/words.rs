//! The JSON that commands print and the web API serves, and times, durations and sizes as text. Other programs rely on this
//! JSON; its schemas are in `docs/schemas/`.
//!
//! This file owns that JSON. It must not know where the values come from.

use jiff::{
    SignedDuration, Timestamp, Unit,
    civil::Date,
    tz::{AmbiguousOffset, TimeZone},
};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    config::{Report, Schedule, SourceKind},
    derivation::{PartitionTables, TableObject},
    outcome::{Outcome, RecordedAttempt},
    partition::{Entry, Settled, State},
    plan::{self, Decision, Item},
    report::{Partition, manifest_key},
    retry::Hold,
    schedule,
    table_words::{ColumnType, TableFormat, TablesState},
};

/// One partition and its state.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PartitionStatus {
    /// Name of the workspace.
    pub workspace: String,
    /// Id of the report.
    pub report: String,
    /// The API that serves it.
    pub source: SourceKind,
    /// Civil date of generation in the report's zone.
    #[schemars(with = "String", extend("format" = "date"))]
    pub date: Date,
    /// Its state.
    pub state: State,
    /// Outcome of the last attempt; null before the first.
    pub outcome: Option<Outcome>,
    /// Number of attempts.
    pub attempts: u32,
    /// When MoEngage generates it.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub generated_at: Timestamp,
    /// When it becomes due, and is fetched.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub due_at: Timestamp,
    /// When it expires; null if it does not.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub expires_at: Option<Timestamp>,
    /// Earliest time of the next attempt; null before the first attempt and after the last.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub next_attempt_at: Option<Timestamp>,
    /// When it was stored.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub stored_at: Option<Timestamp>,
    /// Key of the stored object at its destination.
    pub key: Option<String>,
    /// Size of the stored object in bytes.
    pub size: Option<u64>,
    /// SHA-256 of the stored object, lower-case hex.
    pub sha256: Option<String>,
    /// Message of the last attempt.
    pub message: Option<String>,
    /// Whether the report is in the configuration.
    pub configured: bool,
    /// Whether a person has seen that it is lost: no alarm.
    pub acknowledged: bool,
    /// State of its tables; absent unless tables are made of the report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tables: Option<TablesState>,
}

impl PartitionStatus {
    /// The status of `entry` at `now`.
    pub fn new(entry: &Entry, is_configured: bool, now: Timestamp) -> Self {
        let Entry { partition, object, .. } = entry;
        Self {
            workspace: partition.id.workspace().to_owned(),
            report: partition.id.report.name().to_owned(),
            source: partition.source,
            date: partition.id.date,
            state: entry.state(now),
            outcome: entry.outcome,
            attempts: entry.attempts,
            generated_at: partition.generated_at,
            due_at: partition.due_at,
            expires_at: partition.expires_at,
            next_attempt_at: entry.next_attempt_at,
            stored_at: object.as_ref().map(|object| object.stored_at),
            key: object.as_ref().map(|object| object.key.clone()),
            size: object.as_ref().map(|object| object.size),
            sha256: object.as_ref().map(|object| object.sha256.clone()),
            message: entry.message.clone(),
            configured: is_configured,
            acknowledged: entry.acknowledged,
            tables: entry.tables,
        }
    }

    /// The status of a partition that is not in the ledger yet.
    pub fn upcoming(partition: Partition, now: Timestamp) -> Self {
        Self::new(&Entry::new(partition), true, now)
    }
}

/// One report in numbers.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ReportStatus {
    /// Name of the workspace.
    pub workspace: String,
    /// Id of the report.
    pub report: String,
    /// The API that serves it.
    pub source: SourceKind,
    /// Whether it is in the configuration.
    pub configured: bool,
    /// Date of the newest stored partition.
    #[schemars(with = "Option<String>", extend("format" = "date"))]
    pub newest_stored: Option<Date>,
    /// Number of partitions that are generated and not due yet.
    pub scheduled: u64,
    /// Number of partitions that are due and not stored.
    pub pending: u64,
    /// Number of pending partitions with an alarm.
    pub at_risk: u64,
    /// Number of stored partitions.
    pub stored: u64,
    /// Number of partitions that were never published.
    pub absent: u64,
    /// Number of lost partitions.
    pub lost: u64,
    /// Number of lost partitions that are acknowledged.
    pub acknowledged: u64,
    /// Number of stored partitions whose tables cannot be made.
    pub tables_failed: u64,
    /// When the next partition is due; null if there is none.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub next_due_at: Option<Timestamp>,
}

impl ReportStatus {
    /// The number of partitions in each state.
    pub fn by_state(&self) -> [(State, u64); 5] {
        [
            (State::Scheduled, self.scheduled),
            (State::Pending, self.pending),
            (State::Stored, self.stored),
            (State::Absent, self.absent),
            (State::Lost, self.lost),
        ]
    }
}

/// What `status` prints first: everything but the partitions.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct StatusHead {
    /// When `run` or `sync` last planned; null before the first time.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub planned_at: Option<Timestamp>,
    /// The reports, by workspace and id.
    pub reports: Vec<ReportStatus>,
}

/// What `status` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Status {
    /// When it was planned, and the reports.
    #[serde(flatten)]
    pub head: StatusHead,
    /// Partitions by workspace, report and date: those in the ledger, those that are due and not planned yet, and the next
    /// one of each report.
    pub partitions: Vec<PartitionStatus>,
}

/// What `acknowledge` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Acknowledged {
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// The lost partitions that were not acknowledged before, by workspace, report and date.
    pub partitions: Vec<PartitionStatus>,
}

/// What `forget` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Forgotten {
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// The partitions whose rows go, by workspace, report and date. Their objects stay.
    pub partitions: Vec<PartitionStatus>,
}

/// What `sync` and `backfill` print.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Partitions {
    /// The partitions, by workspace, report and date.
    pub partitions: Vec<PartitionStatus>,
}

/// Writes a JSON object whose last field is a list, item by item and as `to_string_pretty` writes the whole, so that memory
/// is bounded for a list of any length.
#[derive(Debug)]
pub struct ListText {
    /// The object up to the list's bracket.
    head: String,
    is_empty: bool,
}

impl ListText {
    /// The text of a list called `name`, of which nothing is written yet.
    pub fn new(name: &'static str) -> Self {
        Self { head: format!("{{\n  \"{name}\": ["), is_empty: true }
    }

    /// The same after the fields of `head`, which is an object with at least one.
    pub fn after<T: Serialize>(head: &T, name: &'static str) -> Self {
        let written = serde_json::to_string_pretty(head).unwrap_or_default();
        let fields = written.strip_suffix("\n}").unwrap_or_default();
        Self { head: format!("{fields},\n  \"{name}\": ["), is_empty: true }
    }

    /// Appends `item` to the text.
    pub fn push<T: Serialize>(&mut self, text: &mut String, item: &T) {
        if self.is_empty {
            *text += &self.head;
        }
        // Words, numbers and instants can always be written. JSON has no line breaks within texts.
        let written = serde_json::to_string_pretty(item).unwrap_or_default().replace('\n', "\n    ");
        *text += if self.is_empty { "\n    " } else { ",\n    " };
        *text += &written;
        self.is_empty = false;
    }

    /// Appends the end of the object and a line break.
    pub fn end(self, text: &mut String) {
        match self.is_empty {
            true => *text += &format!("{}]\n}}\n", self.head),
            false => *text += "\n  ]\n}\n",
        }
    }
}

/// The plan's decision about a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is fetched now.
    Fetch,
    /// It is stored, and fetched again because MoEngage may have restated its numbers.
    Refresh,
    /// It waits until its buffer has passed.
    NotDue,
    /// It waits for its next attempt.
    Backoff,
    /// Its workspace is held.
    Held,
    /// Its report is not configured, so it is not fetched.
    Unconfigured,
}

impl Action {
    /// The word in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Fetch => "fetch",
            Action::Refresh => "refresh",
            Action::NotDue => "not_due",
            Action::Backoff => "backoff",
            Action::Held => "held",
            Action::Unconfigured => "unconfigured",
        }
    }
}

impl From<Decision> for Action {
    fn from(decision: Decision) -> Self {
        match decision {
            Decision::Fetch => Action::Fetch,
            Decision::Refresh => Action::Refresh,
            Decision::NotDue { .. } => Action::NotDue,
            Decision::Backoff { .. } => Action::Backoff,
            Decision::Held { .. } => Action::Held,
            Decision::Unconfigured => Action::Unconfigured,
        }
    }
}

/// One partition and the plan's decision about it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PlannedPartition {
    /// The partition.
    #[serde(flatten)]
    pub status: PartitionStatus,
    /// The decision.
    pub action: Action,
    /// When that changes; null if time alone does not change it.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub until: Option<Timestamp>,
    /// The reason as text.
    pub reason: String,
}

impl PlannedPartition {
    /// The `item` of a plan at `now`.
    pub fn new(item: &Item, now: Timestamp) -> Self {
        Self {
            status: PartitionStatus::new(&item.entry, item.report.is_some(), now),
            action: item.decision.into(),
            until: item.decision.until(),
            reason: reason(item.decision, item.entry.message.as_deref()),
        }
    }

    /// A partition that is scheduled after those of the plan.
    pub fn upcoming(partition: Partition, now: Timestamp) -> Self {
        let decision = Decision::NotDue { until: partition.due_at };
        Self {
            status: PartitionStatus::upcoming(partition, now),
            action: decision.into(),
            until: decision.until(),
            reason: reason(decision, None),
        }
    }
}

fn reason(decision: Decision, message: Option<&str>) -> String {
    match decision {
        Decision::Fetch => "due and not stored".into(),
        Decision::Refresh => "stored; MoEngage may have restated its numbers".into(),
        Decision::NotDue { until } => format!("due {}", instant(until)),
        Decision::Backoff { until } => {
            format!("retries {}{}", instant(until), message.map(|m| format!(": {m}")).unwrap_or_default())
        }
        Decision::Held { outcome, until } => {
            format!("workspace held until {} ({outcome})", instant(until))
        }
        Decision::Unconfigured => "its report is no longer configured".into(),
    }
}

/// What `plan` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "Planned")]
pub struct PlannedPartitions {
    /// First the partitions to fetch, by expiry; then the others by time.
    pub partitions: Vec<PlannedPartition>,
}

/// One date of a backfill, and whether it is requested.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct BackfillPartition {
    /// The partition.
    #[serde(flatten)]
    pub status: PartitionStatus,
    /// Whether it is requested: a stored partition is not.
    pub asked: bool,
    /// The reason as text.
    pub reason: String,
}

impl BackfillPartition {
    /// The line of a backfill at `now` for `requested`, whose entry in the ledger is `known`.
    pub fn new(requested: Entry, known: Option<Entry>, now: Timestamp) -> Self {
        let has_ended = requested.requested_late;
        let entry = known.unwrap_or(requested);
        let status = PartitionStatus::new(&entry, true, now);
        let reason = match status.state {
            State::Stored => "stored already",
            State::Absent | State::Lost if has_ended => "opened again; MoEngage has probably deleted it",
            State::Absent | State::Lost => "opened again",
            State::Scheduled => "not due yet; requested once it is",
            State::Pending if has_ended => "MoEngage has probably deleted it; absent if MoEngage denies it",
            State::Pending => "due and not stored",
        };
        Self { asked: status.state != State::Stored, reason: reason.into(), status }
    }
}

/// What `backfill --dry-run` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct BackfillPreview {
    /// Every date of the backfill, in order.
    pub partitions: Vec<BackfillPartition>,
}

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
        let Recorded { entry, history, tables, hold } = recorded;
        let is_planned = entry.is_some();
        let scheduled = schedule::on(&report.schedule, &report.timezone, date);
        let generated = || scheduled.or_else(|| schedule::on_any_day(&report.schedule, &report.timezone, date));
        let entry = match entry {
            Some(entry) => entry,
            None => Entry::new(report.partition(generated()?)),
        };
        let object_key = report.keys(date).object();
        let generated_local = entry.partition.generated_at.to_zoned(report.timezone.clone());
        let waits = match is_planned {
            true => waiting(&entry, hold.as_ref(), now),
            false => Some(unplanned(report, &entry.partition, scheduled.is_some(), now)),
        };
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

/// What the ledger has of one partition.
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

/// A partition that is due for longer is not waiting for the next plan.
const ONE_DAY: SignedDuration = SignedDuration::from_hours(24);

/// Why a partition that is not in the ledger is not requested.
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
        None if now.duration_since(partition.due_at) < ONE_DAY => {
            "not planned yet; `moesync run` plans each minute".to_owned()
        }
        None => format!("not planned: before the report's first plan, or while nothing planned{past}"),
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

/// What is wrong with a stored object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DamageCode {
    /// There is no object.
    Missing,
    /// Its bytes are not those that were stored.
    Altered,
    /// Its manifest is missing or does not describe it.
    Manifest,
    /// It could not be read.
    Unreadable,
    /// It is whole, but an object of its tables, or the manifest of one, is not.
    Tables,
}

/// A stored partition and the result of reading it again.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct VerifiedPartition {
    /// The partition after the command.
    #[serde(flatten)]
    pub status: PartitionStatus,
    /// The kind of damage; null without damage.
    pub damage_code: Option<DamageCode>,
    /// The damage of its object, of its tables, or of their manifests as text; null without damage.
    pub damage: Option<String>,
    /// Whether it was repaired.
    pub repaired: bool,
}

/// What `verify` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Verification {
    /// Every stored partition that was read.
    pub partitions: Vec<VerifiedPartition>,
}

/// One check and its result.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Check {
    /// The subject of the check.
    pub subject: String,
    /// Whether the check passed.
    pub ok: bool,
    /// The result as text.
    pub message: String,
}

/// The response of `/livez` and `/readyz`, and what `health` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Health {
    /// Whether all checks passed.
    pub ok: bool,
    /// The checks, in order.
    pub checks: Vec<Check>,
}

/// The result of one check of `check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckResult {
    /// It is as it should be.
    Ok,
    /// It works, or may work for the service; worth a look.
    Note,
    /// `run` refuses it, or it fails.
    Error,
}

impl CheckResult {
    /// The word that is printed.
    pub fn as_str(self) -> &'static str {
        match self {
            CheckResult::Ok => "ok",
            CheckResult::Note => "note",
            CheckResult::Error => "error",
        }
    }
}

/// One check of `check`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct CheckedSubject {
    /// The subject of the check.
    pub subject: String,
    /// The result.
    pub result: CheckResult,
    /// The result as text.
    pub message: String,
}

/// What `check` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Checked {
    /// Whether there is no error.
    pub ok: bool,
    /// The checks, in order.
    pub checks: Vec<CheckedSubject>,
}

/// What `config show` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Settings {
    /// The settings in force, by key. Keys without a value are left out.
    pub settings: Vec<SettingInForce>,
}

/// A setting in force.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SettingInForce {
    /// The key, such as `limits.concurrency` or `reports[0].buffer`.
    pub key: String,
    /// The value. Secrets are replaced by `[redacted]`.
    pub value: serde_json::Value,
    /// Where the value comes from.
    pub from: SettingOrigin,
    /// The file, if it comes from one.
    pub file: Option<String>,
    /// The line in the file.
    pub line: Option<usize>,
    /// The environment variable, if it comes from one.
    pub variable: Option<String>,
}

/// Where the value of a setting comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SettingOrigin {
    /// A file.
    File,
    /// An environment variable `MOESYNC__TABLE__KEY`.
    Environment,
    /// The key is not given.
    Default,
}

/// What `sign` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Signed {
    /// The signature, lower-case hex. It allows to download this one file.
    pub signature: String,
    /// A shell command that downloads the file.
    pub curl: String,
}

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

/// A stored object, as its manifest describes it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct StoredObject {
    /// Name of the workspace.
    pub workspace: String,
    /// Id of the report.
    pub report: String,
    /// The API that served it.
    pub source: SourceKind,
    /// The partition's date.
    #[schemars(with = "String", extend("format" = "date"))]
    pub date: Date,
    /// Key of the object at its destination.
    pub key: String,
    /// Whether it is other content than that of the partition's own key.
    pub version: bool,
    /// `zip`, `gzip`, `tar` or `ndjson.gz`.
    pub format: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256, lower-case hex.
    pub sha256: String,
    /// When it was stored.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub stored_at: Timestamp,
    /// Entries of the archive, in order.
    pub entries: Vec<StoredEntry>,
    /// Number of records of a snapshot; null for archives.
    pub records: Option<u64>,
    /// The damage that its size shows; null without one. `moesync verify` reads the bytes.
    pub damage: Option<String>,
}

/// One entry of a stored archive.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct StoredEntry {
    /// Name in the archive; empty for a gzip member without a name. Not safe as a path.
    pub name: String,
    /// Size of its contents in bytes.
    pub size: u64,
    /// CRC-32 of its contents, 8 lower-case hex digits; null in tar, which has none.
    pub crc32: Option<String>,
}

/// What `ls` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct StoredObjects {
    /// The objects, by report in the configuration's order, then by date.
    pub objects: Vec<StoredObject>,
}

/// What `get` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct CopiedObject {
    /// Key of the object.
    pub key: String,
    /// Name of the entry; null if all of the object was copied.
    pub entry: Option<String>,
    /// The file that was written.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
}

/// A table made of a report's archives or snapshots.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct TableDescription {
    /// Name of the workspace.
    pub workspace: String,
    /// Id of the report.
    pub report: String,
    /// Name of the table.
    pub table: String,
    /// Name of the destination.
    pub destination: String,
    /// The folder of all its objects, as a key at the destination.
    pub key: String,
    /// Formats of its objects. More than one while a changed format is not applied to all dates.
    pub formats: Vec<TableFormat>,
    /// Number of rows of the listed dates.
    pub rows: u64,
    /// Columns, in the order in which they were added. Objects also have `_entry` and `_rescued`.
    pub columns: Vec<TableColumn>,
    /// Dates of partitions that have objects.
    pub dates: Vec<TableDate>,
}

/// One column of a table.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct TableColumn {
    /// Its name.
    pub name: String,
    /// The heading that it was named after.
    pub heading: String,
    /// Its type; null while it never had a value.
    #[serde(rename = "type")]
    pub column_type: Option<ColumnType>,
    /// The first date of which a file has it.
    #[schemars(with = "String", extend("format" = "date"))]
    pub first_date: Date,
    /// The last one.
    #[schemars(with = "String", extend("format" = "date"))]
    pub last_date: Date,
}

/// One date of a table.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct TableDate {
    /// The partition's date.
    #[schemars(with = "String", extend("format" = "date"))]
    pub date: Date,
    /// Number of objects.
    pub parts: u64,
    /// Number of rows; null if an object has no valid manifest.
    pub rows: Option<u64>,
}

/// What `tables` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct TableDescriptions {
    /// The tables, by report in the configuration's order, then by name.
    pub tables: Vec<TableDescription>,
}

/// How the counts of a campaign on one day compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReconciliationResult {
    /// All counts that both have are equal.
    Equal,
    /// Some count differs.
    Different,
    /// The statistics do not have the campaign on that day.
    OnlyInReport,
    /// The archive does not have it.
    OnlyInStats,
}

/// One count of a campaign on one day.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ReconciledCount {
    /// `sent`, `delivered`, `impression` or `click`, as in the statistics.
    pub name: String,
    /// The number in the archive.
    pub in_report: Option<i64>,
    /// The number in the statistics.
    pub in_stats: Option<i64>,
    /// By how much the statistics have more; null if only one has it.
    pub difference: Option<i64>,
}

/// A campaign on one day.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ReconciledCampaign {
    /// The day of the numbers, not the partition's date.
    #[schemars(with = "String", extend("format" = "date"))]
    pub date: Date,
    /// Id of the campaign.
    pub campaign_id: String,
    /// How they compare.
    pub result: ReconciliationResult,
    /// The counts that both have; those of the only one.
    pub counts: Vec<ReconciledCount>,
}

/// What `reconcile` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Reconciliation {
    /// Name of the workspace.
    pub workspace: String,
    /// Id of the report of archives.
    pub report: String,
    /// Id of the report of statistics.
    pub with: String,
    /// Number of equal campaigns, each day by itself.
    pub equal: u64,
    /// Number of different ones.
    pub different: u64,
    /// Number of those that the archive alone has.
    pub only_in_report: u64,
    /// Number of those that the statistics alone have.
    pub only_in_stats: u64,
    /// Days in the archives whose statistics are not stored. They are not compared.
    #[schemars(with = "Vec<String>")]
    pub days_without_stats: Vec<Date>,
    /// Every campaign, by day and id.
    pub campaigns: Vec<ReconciledCampaign>,
}

/// A partition whose tables could not be made.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct UnmadeTables {
    /// Name of the workspace.
    pub workspace: String,
    /// Id of the report.
    pub report: String,
    /// The partition's date.
    #[schemars(with = "String", extend("format" = "date"))]
    pub date: Date,
    /// The reason.
    pub message: String,
}

/// What `tables rebuild` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RebuiltTables {
    /// Number of partitions whose tables were made.
    pub partitions: u64,
    /// Number of their objects.
    pub objects: u64,
    /// Number of their rows.
    pub rows: u64,
    /// Those whose tables could not be made.
    pub failed: Vec<UnmadeTables>,
    /// Whether all were tried; otherwise the command was stopped.
    pub complete: bool,
}
