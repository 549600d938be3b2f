//! The pages for people: their common parts and the overview.
//!
//! This file owns HTML. Every text goes through `maud`, which escapes it; nothing here is script or style.

mod report;

use std::{collections::HashMap, sync::Arc};

use axum::{
    Router, extract,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use jiff::{SignedDuration, Timestamp};
use maud::{DOCTYPE, Markup, html};
use url::form_urlencoded;

use super::{
    Overview, Shared,
    assets::{ICON, SCRIPT, STYLE},
    health::MAX_PLAN_AGE,
    overview::{Danger, Day, ReportOverview},
};
use crate::{
    ledger::LedgerError,
    partition::State as PartitionState,
    telemetry::Chain,
    words::{self, Action, PlannedPartition},
};

/// Number of reports in danger that are shown; of more, only their number.
const MAX_IN_DANGER: usize = 20;

/// How often browsers without scripts reload the page, in seconds.
const RELOAD: u32 = 60;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/", get(overview)).route("/report", get(report::page))
}

/// The answer to an unknown path.
pub(super) async fn not_found() -> Response {
    plain(StatusCode::NOT_FOUND, "Not found", "There is no such page.")
}

async fn overview(extract::State(shared): extract::State<Arc<Shared>>) -> Response {
    match Overview::gather(&shared.context()).await {
        Ok(overview) => show(&overview).into_response(),
        Err(error) => unreadable(&error),
    }
}

/// Shown when the ledger cannot be read.
fn unreadable(error: &LedgerError) -> Response {
    plain(StatusCode::SERVICE_UNAVAILABLE, "The ledger cannot be read", &Chain(error).to_string())
}

fn plain(status: StatusCode, title: &str, text: &str) -> Response {
    let content = html! {
        section.verdict { h1 { (title) } p { (text) } p { a href="/" { "To the overview" } } }
    };
    (status, layout(title, None, content)).into_response()
}

/// A page around `content`, which scripts update.
fn layout(title: &str, now: Option<Timestamp>, content: Markup) -> Html {
    Html(html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · moesync" }
                link rel="icon" type="image/svg+xml" href=(ICON.path());
                link rel="stylesheet" href=(STYLE.path());
                script src=(SCRIPT.path()) defer {}
                noscript { meta http-equiv="refresh" content=(RELOAD); }
            }
            body {
                header.top {
                    a.brand href="/" { img src=(ICON.path()) alt="" width="22" height="22"; "moesync" }
                    p.stale role="status" hidden { "Connection lost; data may be stale." }
                    // Also on pages without a time, so that scripts can replace it.
                    p.asof {
                        @if let Some(now) = now {
                            "as of " time datetime=(now) { (now.strftime("%Y-%m-%d %H:%M:%S")) " UTC" }
                        }
                    }
                }
                main { (content) }
                footer {
                    span { "moesync " (env!("CARGO_PKG_VERSION")) }
                    nav aria-label="For programs" {
                        a href="/api/v1/overview" { "API" }
                        a href="/api/v1/openapi.json" { "OpenAPI" }
                        a href="/metrics" { "Metrics" }
                        a href="/readyz" { "Health" }
                    }
                }
            }
        }
    })
}

/// A whole page.
struct Html(Markup);

impl IntoResponse for Html {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], self.0.into_string()).into_response()
    }
}

fn show(overview: &Overview) -> Html {
    let now = overview.now;
    let dangers = by_report(&overview.dangers);
    let more = dangers.len().saturating_sub(MAX_IN_DANGER);
    let content = html! {
        (verdict(overview))
        @if !overview.incidents.is_empty() {
            section aria-labelledby="incidents" {
                h2 #incidents { "Problems of moesync itself" }
                ul.incidents {
                    @for incident in &overview.incidents { li { strong { (incident.alarm) } " " (incident.message) } }
                }
            }
        }
        @if !dangers.is_empty() {
            section aria-labelledby="danger" {
                h2 #danger { "In danger" }
                ul.dangers {
                    @for (danger, dates) in dangers.iter().take(MAX_IN_DANGER) { li { (in_danger(danger, *dates)) } }
                }
                @if more > 0 {
                    p.note {
                        "And " (count(more, "more report", "more reports")) ": "
                        a href="/api/v1/overview" { "all of them as JSON" }
                        ", or with " code { "moesync status" } "."
                    }
                }
            }
        }
        section aria-labelledby="reports" {
            div.head {
                h2 #reports { "Reports" }
                (legend())
            }
            ul.reports { @for report in &overview.reports { li.report { (row(report, now)) } } }
            @if overview.unconfigured > 0 {
                p.note {
                    (overview.unconfigured) " recorded partitions belong to reports that are no longer configured. "
                    "They are left alone."
                }
            }
        }
        section aria-labelledby="next" {
            h2 #next { "What comes next" }
            @if let Some(age) = overview.planned_at.map(|at| now.duration_since(at)).filter(|age| *age > MAX_PLAN_AGE) {
                p.note { "Last planned " (words::duration(age)) " ago; see the log for the reason." }
            }
            @if overview.planned_at.is_none() {
                p.quiet { "Not planned yet." }
            } @else if overview.next.is_empty() {
                p.quiet { "Nothing is scheduled." }
            } @else {
                ol.next { @for planned in &overview.next { li { (to_come(planned, now)) } } }
            }
        }
    };
    let title = match overview.dangers.len() {
        0 => "All is well".to_owned(),
        number => format!("{number} in danger"),
    };
    layout(&title, Some(now), content)
}

/// The whole page in one sentence, and the figures behind it.
fn verdict(overview: &Overview) -> Markup {
    let lost = overview.dangers.iter().filter(|danger| danger.alarm == "lost").count();
    let endangered = overview.dangers.len() - lost;
    let counts = &overview.partitions;
    let figures = [
        ("stored", counts.stored, words::size(overview.stored_bytes)),
        ("pending", counts.pending, "due, not stored yet".to_owned()),
        ("absent", counts.absent, "never published".to_owned()),
        ("lost", counts.lost, "gone for good".to_owned()),
    ];
    let (class, sentence) = match (endangered, lost) {
        (0, 0) if counts.pending == 0 => ("well", "Every report that is due is stored.".to_owned()),
        (0, 0) => ("well", "Nothing is in danger.".to_owned()),
        (0, lost) => ("bad", format!("{} lost in the last 30 days.", count(lost, "partition was", "partitions were"))),
        (_, 0) => ("bad", format!("{} in danger.", count(endangered, "partition is", "partitions are"))),
        (_, lost) => {
            ("bad", format!("{} in danger, {lost} lost.", count(endangered, "partition is", "partitions are")))
        }
    };
    html! {
        section.verdict.(class) {
            h1 { (sentence) }
            dl.figures {
                @for (state, number, note) in figures {
                    div.(state).zero[number == 0] { dt { (state) } dd { strong { (number) } span { (note) } } }
                }
            }
        }
    }
}

fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// The first danger of each report, in the same order, with its number of dates in danger. Lost dates count separately.
fn by_report(dangers: &[Danger]) -> Vec<(&Danger, usize)> {
    let mut places = HashMap::new();
    let mut grouped: Vec<(&Danger, usize)> = Vec::new();
    for danger in dangers {
        let status = &danger.status;
        let place = *places.entry((&status.workspace, &status.report, danger.alarm == "lost")).or_insert(grouped.len());
        match grouped.get_mut(place) {
            Some((_, dates)) => *dates += 1,
            None => grouped.push((danger, 1)),
        }
    }
    grouped
}

/// One row: `danger` is the nearest to its expiry of `dates` dates of a report.
fn in_danger(danger: &Danger, dates: usize) -> Markup {
    let status = &danger.status;
    let left = danger.seconds_left.map(SignedDuration::from_secs);
    html! {
        a.danger.(danger.alarm) href=(partition_link(&status.workspace, &status.report, status.date)) {
            span.mark aria-hidden="true" { (glyph(status.state, true)) }
            span.what {
                strong { (status.report) }
                span.quiet { (status.workspace) }
                span {
                    @if dates > 1 { (dates) " dates, the " (if danger.alarm == "lost" { "first" } else { "nearest" }) " " }
                    time datetime=(status.date) { (status.date) }
                }
            }
            span.left {
                @match left {
                    Some(left) if left.is_positive() => { strong { (words::duration(left)) } " left" }
                    Some(_) => { strong { "expired" } }
                    None if danger.alarm == "lost" => { strong { "lost" } }
                    None if status.state == PartitionState::Stored => { strong { "stored" } "; the refresh fails" }
                    None => { strong { "does not expire" } }
                }
            }
            span.why {
                (why(&danger.alarm))
                @if let Some(message) = &status.message { ": " (message) }
                @else if let Some(outcome) = status.outcome { ": " (outcome) }
            }
        }
    }
}

/// An alarm for people.
fn why(alarm: &str) -> &'static str {
    match alarm {
        "lost" => "It was or may have been there, and is gone",
        "expiring" => "Not stored yet, and MoEngage deletes it soon",
        "unauthorized" => "MoEngage refuses the key",
        "rejected" => "MoEngage refuses the request",
        "corrupt" => "Corrupt download, repeatedly",
        "unsupported" => "The format cannot be verified",
        "store_failed" => "Storing fails, repeatedly",
        _ => "Not stored long after it was due",
    }
}

fn row(report: &ReportOverview, now: Timestamp) -> Markup {
    html! {
        div.name {
            h3 { a href=(report_link(&report.workspace, &report.report)) { (report.report) } }
            p.quiet { (report.workspace) " · " (report.source) }
            p.quiet { (report.schedule) ", " (report.timezone) }
        }
        p.axis {
            @if let Some(first) = report.dates.first() { span { (first.date.strftime("%-d %b")) } }
            @match report.newest_stored_at {
                Some(newest) => span {
                    "newest "
                    time datetime=(newest) title=(words::instant(newest)) { (words::duration(now.duration_since(newest))) " ago" }
                },
                None => span { "nothing stored yet" },
            }
        }
        (strip(report))
    }
}

/// The last dates of a report, one cell each.
fn strip(report: &ReportOverview) -> Markup {
    html! {
        ol.strip aria-label={ "The last " (report.dates.len()) " dates of " (report.report) } {
            @for day in &report.dates { li { (cell(report, day)) } }
        }
    }
}

fn cell(report: &ReportOverview, day: &Day) -> Markup {
    let Some(state) = day.state else {
        return html! { span.cell.none title={ (day.date) ": no report on this date" } {} };
    };
    let mut title = format!("{}: {state}", day.date);
    if let Some(size) = day.size {
        title += &format!(", {}", words::size(size));
    }
    if let Some(alarm) = &day.alarm {
        title += &format!(", in danger ({alarm})");
    }
    html! {
        a.cell.(state).alarmed[day.alarm.is_some()] title=(title) aria-label=(title)
            href=(partition_link(&report.workspace, &report.report, day.date)) { (glyph(state, day.alarm.is_some())) }
    }
}

/// A state's sign, for readers who do not see its colour.
fn glyph(state: PartitionState, is_alarmed: bool) -> &'static str {
    match state {
        PartitionState::Lost => "×",
        PartitionState::Absent => "–",
        _ if is_alarmed => "!",
        PartitionState::Pending => "…",
        PartitionState::Stored | PartitionState::Scheduled => "",
    }
}

fn legend() -> Markup {
    let states = [
        (PartitionState::Stored, false, "stored"),
        (PartitionState::Scheduled, false, "scheduled"),
        (PartitionState::Pending, false, "pending"),
        (PartitionState::Pending, true, "in danger"),
        (PartitionState::Absent, false, "absent"),
        (PartitionState::Lost, true, "lost"),
    ];
    html! {
        ul.legend {
            @for (state, is_alarmed, word) in states {
                li { span.cell.(state).alarmed[is_alarmed] aria-hidden="true" { (glyph(state, is_alarmed)) } (word) }
            }
        }
    }
}

fn to_come(planned: &PlannedPartition, now: Timestamp) -> Markup {
    let status = &planned.status;
    let doing = match planned.action {
        Action::Fetch => "fetched now",
        Action::Refresh => "fetched again",
        Action::NotDue => "due",
        Action::Backoff => "retried",
        Action::Held => "retried when its workspace resumes",
        Action::Unconfigured => "left alone",
    };
    html! {
        @match planned.until.filter(|until| *until > now) {
            Some(until) => time datetime=(until) title=(words::instant(until)) { "in " (words::duration(until.duration_since(now))) },
            None => span { "now" },
        }
        a href=(partition_link(&status.workspace, &status.report, status.date)) { (status.report) }
        span.quiet { (status.workspace) }
        span.date { (status.date) }
        span.quiet { (doing) }
    }
}

fn report_link(workspace: &str, report: &str) -> String {
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("workspace", workspace)
        .append_pair("report", report)
        .finish();
    format!("/report?{query}")
}

fn partition_link(workspace: &str, report: &str, date: jiff::civil::Date) -> String {
    format!("{}#d{date}", report_link(workspace, report))
}
