//! `/metrics`, in Prometheus' text format, computed from the ledger at each scrape, so that the counts survive a restart.
//!
//! This file owns the names of the metrics. The number of series is proportional to that of configured
//! reports and targets.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    convert::Infallible,
    fmt::{Display, Write},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use futures::stream;
use jiff::{Timestamp, tz::TimeZone};
use tokio::{sync::Mutex, time::Instant};

use super::{Shared, overview::Standing, reader::read_ledger};
use crate::{
    alarm_kind::AlarmKind,
    config::SourceKind,
    ledger::{AttemptFigures, DURATION_BOUNDS, LedgerError, ReportFigures},
    outcome::Outcome,
    report::ReportId,
    sync::Context,
    telemetry::Chain,
};

/// The text format that every Prometheus understands.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How long an answer is reused.
const MAX_SCRAPE_AGE: Duration = Duration::from_secs(5);

/// The alarms of the process and its surroundings.
const INCIDENTS: [AlarmKind; 5] =
    [AlarmKind::StoreFailed, AlarmKind::Ledger, AlarmKind::Configuration, AlarmKind::Clock, AlarmKind::Panic];

/// Size of the pieces of an answer in bytes. An answer of thousands of reports has megabytes, and is never one block of
/// memory.
const PIECE: usize = 64 * 1024;

/// An answer, its context and its time.
type CachedScrape = (Arc<Context>, Instant, Arc<[Bytes]>);

/// The last answer.
#[derive(Default)]
pub(super) struct Scrape {
    last: Mutex<Option<CachedScrape>>,
}

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/metrics", get(metrics))
}

async fn metrics(extract::State(shared): extract::State<Arc<Shared>>) -> Response {
    let ctx = shared.context();
    // Held while gathering: concurrent scrapes share one answer.
    let mut last = shared.scrape.last.lock().await;
    if let Some((under, at, pieces)) = &*last
        && Arc::ptr_eq(under, &ctx)
        && at.elapsed() < MAX_SCRAPE_AGE
    {
        return answer(pieces);
    }
    *last = None;
    match gather(&ctx, shared.planned_at(&ctx)).await {
        Ok(pieces) => {
            let answer = answer(&pieces);
            *last = Some((ctx, Instant::now(), pieces));
            answer
        }
        // Prometheus alerts on a failed scrape.
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", Chain(&error))).into_response(),
    }
}

fn answer(pieces: &Arc<[Bytes]>) -> Response {
    let pieces = Arc::clone(pieces);
    let numbers = 0..pieces.len();
    let body = stream::iter(numbers.map(move |number| Ok::<_, Infallible>(pieces[number].clone())));
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], Body::from_stream(body)).into_response()
}

async fn gather(ctx: &Context, planned_at: Timestamp) -> Result<Arc<[Bytes]>, LedgerError> {
    let ledger = read_ledger(ctx).await?;
    let attempts = ledger.attempt_figures().await?;
    let waiting = ledger.all_waiting().await?;
    let tables = ledger.table_figures().await?;
    let standing = Standing::gather(ctx, &ledger).await?;
    let Standing { now, figures: reports, planned, .. } = &standing;
    let now = *now;
    let configured: HashSet<&ReportId> = reports.iter().map(|report| &report.id).collect();
    let attempts: Vec<_> = attempts.into_iter().filter(|figures| configured.contains(&figures.id)).collect();
    let mut alarms: HashMap<(ReportId, &str), u64> = HashMap::new();
    for (entry, alarm) in standing.dangers(ctx) {
        *alarms.entry((entry.partition.id.report.clone(), alarm.as_str())).or_default() += 1;
    }

    let mut text = Exposition::default();
    text.family("moesync_build_info", "gauge", "The running version of moesync, as a label; always 1.");
    text.sample("moesync_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    text.family("moesync_loop_turn_age_seconds", "gauge", "Time since the last turn of the loop.");
    text.sample("moesync_loop_turn_age_seconds", &[], ctx.pulse.age().as_secs_f64());
    text.family(
        "moesync_last_plan_timestamp_seconds",
        "gauge",
        "When the loop last wrote a plan to the ledger; before the first one, when the server started.",
    );
    text.sample("moesync_last_plan_timestamp_seconds", &[], planned_at.as_second());
    text.family("moesync_incident", "gauge", "1 while an alarm about the process itself is on, by alarm.");
    let incidents = ctx.incidents();
    for kind in INCIDENTS {
        let is_active = matches!(incidents.get(&kind), Some(Some(_)));
        text.sample("moesync_incident", &[("alarm", kind.as_str())], u8::from(is_active));
    }
    let loaded = ctx.status.configuration();
    text.family("moesync_config_last_reload_successful", "gauge", "0 from a refused reload until one succeeds.");
    text.sample("moesync_config_last_reload_successful", &[], u8::from(!loaded.is_refused));
    if let Some(since) = loaded.in_force_since {
        let name = "moesync_config_last_reload_success_timestamp_seconds";
        text.family(name, "gauge", "When the configuration in force was loaded.");
        text.sample(name, &[], since.as_second());
    }
    text.family(
        "moesync_attempts_in_flight",
        "gauge",
        "Attempts that run: downloads, with what precedes and follows each.",
    );
    text.sample("moesync_attempts_in_flight", &[], ctx.attempts_in_flight());
    process(&mut text);
    text.family("moesync_workspace_held", "gauge", "1 while a workspace is on hold, by MoEngage's answer.");
    for workspace in &ctx.config.workspaces {
        let hold = planned.as_ref().and_then(|planned| planned.view.holds.get(&workspace.name));
        for outcome in [Outcome::Unauthorized, Outcome::RateLimited] {
            let is_held = hold.is_some_and(|hold| hold.outcome == outcome && now < hold.until);
            let labels = [("workspace", workspace.name.as_str()), ("outcome", outcome.as_str())];
            text.sample("moesync_workspace_held", &labels, u8::from(is_held));
        }
    }

    let targets = ctx.config.notify.iter().filter(|target| target.events().is_some());
    let targets: Vec<_> = targets.map(|target| (target.name.as_str(), waiting.get(&target.name))).collect();
    text.family("moesync_notify_waiting", "gauge", "Events that have not arrived yet, by target.");
    for (target, waiting) in &targets {
        text.sample("moesync_notify_waiting", &[("target", target)], waiting.map_or(0, |waiting| waiting.events));
    }
    text.family(
        "moesync_notify_oldest_seconds",
        "gauge",
        "Age of the oldest event that has not arrived yet, by target; 0 without one.",
    );
    for (target, waiting) in &targets {
        let age = waiting.map_or(0.0, |waiting| seconds_between(waiting.since, now).max(0.0));
        text.sample("moesync_notify_oldest_seconds", &[("target", target)], age);
    }

    text.family("moesync_partitions", "gauge", "Partitions in each state.");
    for report in reports {
        let counts = [
            ("scheduled", report.scheduled),
            ("pending", report.pending),
            ("stored", report.stored),
            ("absent", report.absent),
            ("lost", report.lost),
        ];
        for (state, count) in counts {
            text.sample("moesync_partitions", &and(of(&report.id, report.source), ("state", state)), count);
        }
    }
    text.family(
        "moesync_alarms",
        "gauge",
        "Partitions in danger, or lost in the last 30 days and not acknowledged, by the most severe alarm of each.",
    );
    for report in reports {
        for alarm in AlarmKind::OF_PARTITIONS.map(AlarmKind::as_str) {
            let count = alarms.get(&(report.id.clone(), alarm)).copied().unwrap_or(0);
            text.sample("moesync_alarms", &and(of(&report.id, report.source), ("alarm", alarm)), count);
        }
    }
    text.each(
        (
            "moesync_nearest_expiry_seconds",
            "Time until the first expiry of a partition that is due and not stored; negative after it.",
        ),
        reports,
        |report| report.nearest_expiry.map(|expiry| seconds_between(now, expiry)),
    );
    text.each(
        (
            "moesync_oldest_pending_due_timestamp_seconds",
            "When the oldest partition that is due and not stored became due.",
        ),
        reports,
        |report| report.oldest_pending_due.map(Timestamp::as_second),
    );
    text.each(
        ("moesync_newest_lost_timestamp_seconds", "When the newest loss that is not acknowledged was recorded."),
        reports,
        |report| report.newest_lost.map(Timestamp::as_second),
    );
    text.each(
        ("moesync_newest_stored_timestamp_seconds", "When the newest stored partition was generated."),
        reports,
        |report| report.newest_stored.map(Timestamp::as_second),
    );
    text.each(
        ("moesync_newest_stored_age_seconds", "Time since the newest stored partition was generated."),
        reports,
        |report| report.newest_stored.map(|newest| seconds_between(newest, now)),
    );
    text.each(("moesync_stored_bytes", "Size of all stored objects."), reports, |report| Some(report.stored_bytes));
    let tables: Vec<_> =
        reports.iter().filter_map(|report| Some((of(&report.id, report.source), tables.get(&report.id)?))).collect();
    // Without tables there is no such family.
    if !tables.is_empty() {
        text.family(
            "moesync_tables",
            "gauge",
            "Stored partitions whose tables are still to be made, or cannot be made.",
        );
        for (labels, figures) in &tables {
            for (state, count) in [("pending", figures.pending), ("failed", figures.failed)] {
                text.sample("moesync_tables", &and(*labels, ("state", state)), count);
            }
        }
        text.family("moesync_table_rows", "gauge", "Rows of all tables.");
        for (labels, figures) in &tables {
            text.sample("moesync_table_rows", labels, figures.rows);
        }
        text.family(
            "moesync_newest_table_timestamp_seconds",
            "gauge",
            "The newest date that has tables, at 00:00 UTC.",
        );
        for (labels, figures) in &tables {
            let midnight = figures.newest.and_then(|date| date.to_zoned(TimeZone::UTC).ok());
            if let Some(midnight) = midnight {
                text.sample("moesync_newest_table_timestamp_seconds", labels, midnight.timestamp().as_second());
            }
        }
        text.family(
            "moesync_schema_changes_total",
            "counter",
            "Columns that were added to tables, vanished, or changed their type.",
        );
        for (labels, figures) in &tables {
            text.sample("moesync_schema_changes_total", labels, figures.schema_changes);
        }
    }
    text.family("moesync_attempts_total", "counter", "Attempts by outcome.");
    for figures in &attempts {
        let labels = and(of(&figures.id, figures.source), ("outcome", figures.outcome.as_str()));
        text.sample("moesync_attempts_total", &labels, figures.count);
    }
    text.family("moesync_fetched_bytes_total", "counter", "Bytes of complete downloads, stored or not.");
    let sums = by_report(reports, &attempts);
    for (labels, sums) in &sums {
        text.sample("moesync_fetched_bytes_total", labels, sums.bytes);
    }
    text.family(
        "moesync_other_content_total",
        "counter",
        "Attempts that found other content at the key of a partition, which was left there (alarm other_content).",
    );
    for (labels, sums) in &sums {
        text.sample("moesync_other_content_total", labels, sums.other_content);
    }
    durations(&mut text, &attempts);
    Ok(text.into_pieces())
}

/// Sums of the attempts at one report, of all outcomes.
#[derive(Default)]
struct Sums {
    bytes: u64,
    other_content: u64,
}

/// The sums of each report; zero for one without attempts, so that a first increase is seen.
fn by_report<'a>(reports: &'a [ReportFigures], attempts: &[AttemptFigures]) -> Vec<([Label<'a>; 3], Sums)> {
    let mut all: HashMap<&ReportId, Sums> = HashMap::new();
    for figures in attempts {
        let sums = all.entry(&figures.id).or_default();
        sums.bytes += figures.bytes;
        sums.other_content += figures.other_content;
    }
    let of_report =
        |report: &'a ReportFigures| (of(&report.id, report.source), all.remove(&report.id).unwrap_or_default());
    reports.iter().map(of_report).collect()
}

/// The process itself, under the names that Prometheus' client libraries use.
fn process(text: &mut Exposition) {
    let metrics_process::collector::Metrics {
        cpu_seconds_total,
        open_fds,
        max_fds,
        virtual_memory_bytes,
        resident_memory_bytes,
        start_time_seconds,
        threads,
        ..
    } = metrics_process::collector::collect();
    let mut value = |name, kind, help, value: Option<f64>| {
        if let Some(value) = value {
            text.family(name, kind, help);
            text.sample(name, &[], value);
        }
    };
    let whole = |number: Option<u64>| number.map(|number| number as f64);
    value("process_cpu_seconds_total", "counter", "CPU time, of user and system.", cpu_seconds_total);
    value("process_resident_memory_bytes", "gauge", "Resident memory.", whole(resident_memory_bytes));
    value("process_virtual_memory_bytes", "gauge", "Virtual memory.", whole(virtual_memory_bytes));
    value("process_open_fds", "gauge", "Open file descriptors.", whole(open_fds));
    value("process_max_fds", "gauge", "Maximum number of open file descriptors.", whole(max_fds));
    value("process_threads", "gauge", "Threads.", whole(threads));
    value("process_start_time_seconds", "gauge", "When the process started.", whole(start_time_seconds));
}

/// How long attempts took, of all outcomes.
fn durations(text: &mut Exposition, attempts: &[AttemptFigures]) {
    const NAME: &str = "moesync_attempt_duration_seconds";
    text.family(NAME, "histogram", "Duration of attempts, from claim to record.");
    let mut by_report: BTreeMap<(&ReportId, SourceKind), (u64, f64, [u64; DURATION_BOUNDS.len()])> = BTreeMap::new();
    for figures in attempts {
        let (count, seconds, within) = by_report.entry((&figures.id, figures.source)).or_default();
        *count += figures.count;
        *seconds += figures.seconds;
        for (sum, more) in within.iter_mut().zip(figures.within) {
            *sum += more;
        }
    }
    for ((id, source), (count, seconds, within)) in by_report {
        let labels = of(id, source);
        let bounds = DURATION_BOUNDS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(within.into_iter().chain([count])) {
            text.sample(&format!("{NAME}_bucket"), &and(labels, ("le", &bound)), count);
        }
        text.sample(&format!("{NAME}_sum"), &labels, seconds);
        text.sample(&format!("{NAME}_count"), &labels, count);
    }
}

/// A label and its value.
type Label<'a> = (&'a str, &'a str);

fn of(id: &ReportId, source: SourceKind) -> [Label<'_>; 3] {
    [("workspace", id.workspace()), ("report", id.name()), ("source", source.as_str())]
}

fn and<'a>([workspace, report, source]: [Label<'a>; 3], label: Label<'a>) -> [Label<'a>; 4] {
    [workspace, report, source, label]
}

fn seconds_between(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

/// Text in Prometheus' format.
#[derive(Default)]
struct Exposition {
    pieces: Vec<Bytes>,
    last: String,
}

impl Exposition {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.last, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// A gauge with one sample for each report that has a value.
    fn each<T: Display>(
        &mut self,
        (name, help): (&str, &str),
        reports: &[ReportFigures],
        value: impl Fn(&ReportFigures) -> Option<T>,
    ) {
        self.family(name, "gauge", help);
        for report in reports {
            if let Some(value) = value(report) {
                self.sample(name, &of(&report.id, report.source), value);
            }
        }
    }

    fn sample(&mut self, name: &str, labels: &[Label<'_>], value: impl Display) {
        self.last.push_str(name);
        for (number, (label, value)) in labels.iter().enumerate() {
            let _ = write!(self.last, "{}{label}=\"", if number == 0 { '{' } else { ',' });
            for c in value.chars() {
                match c {
                    '\\' => self.last.push_str("\\\\"),
                    '"' => self.last.push_str("\\\""),
                    '\n' => self.last.push_str("\\n"),
                    c => self.last.push(c),
                }
            }
            self.last.push('"');
        }
        let _ = writeln!(self.last, "{} {value}", if labels.is_empty() { "" } else { "}" });
        if self.last.len() >= PIECE {
            self.pieces.push(Bytes::copy_from_slice(self.last.as_bytes()));
            self.last.clear();
        }
    }

    fn into_pieces(mut self) -> Arc<[Bytes]> {
        self.pieces.push(self.last.into());
        self.pieces.into()
    }
}
