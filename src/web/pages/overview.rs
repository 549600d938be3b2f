//! The overview page: partitions in danger, all reports, and the next fetches.

use std::{collections::HashMap, sync::Arc};

use axum::{
    extract,
    response::{IntoResponse, Response},
};
use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use super::layout::{Html, glyph, layout, legend, partition_link, report_link, strip, unreadable};
use crate::{
    alarm_kind::AlarmKind,
    partition::State as PartitionState,
    web::{
        Shared,
        health::MAX_PLAN_AGE,
        overview::{Danger, Overview, ReportOverview},
    },
    words::{self, Action, PlannedPartition},
};

/// Number of reports in danger that are shown; of more, only their number.
const MAX_IN_DANGER: usize = 20;

pub(super) async fn page(extract::State(shared): extract::State<Arc<Shared>>) -> Response {
    match Overview::gather(&shared.context()).await {
        Ok(overview) => show(&overview).into_response(),
        Err(error) => unreadable(&error),
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
                    "They are not fetched."
                }
            }
        }
        section aria-labelledby="next" {
            h2 #next { "Next" }
            @if let Some(age) = overview.planned_at.map(|at| now.duration_since(at)).filter(|age| *age > MAX_PLAN_AGE) {
                p.note { "Last planned " (words::duration(age)) " ago; see the log for the reason." }
            }
            @if overview.planned_at.is_none() {
                p.quiet { "Not planned yet." }
            } @else if overview.next.is_empty() {
                p.quiet { "Nothing is scheduled." }
            } @else {
                ol.next { @for planned in &overview.next { li { (next_fetch(planned, now)) } } }
            }
        }
    };
    let title = match overview.dangers.len() {
        0 => "No danger".to_owned(),
        number => format!("{number} in danger"),
    };
    layout(&title, Some(now), content)
}

/// The summary in one sentence, and its figures.
fn verdict(overview: &Overview) -> Markup {
    let lost = overview.dangers.iter().filter(|danger| danger.alarm == "lost").count();
    let endangered = overview.dangers.len() - lost;
    let counts = &overview.partitions;
    let figures = [
        ("stored", counts.stored, words::size(overview.stored_bytes)),
        ("pending", counts.pending, "due, not stored yet".to_owned()),
        ("absent", counts.absent, "never published".to_owned()),
        ("lost", counts.lost, "expired before stored".to_owned()),
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

/// An alarm as text.
fn why(alarm: &str) -> &'static str {
    match AlarmKind::parse(alarm) {
        Some(AlarmKind::Lost) => "It existed, or may have existed, and expired before it was stored",
        Some(AlarmKind::Expiring) => "Not stored yet, and MoEngage deletes it soon",
        Some(AlarmKind::Late) => "Not stored long after it was due",
        Some(AlarmKind::Unauthorized) => "MoEngage refuses the key",
        Some(AlarmKind::Rejected) => "MoEngage refuses the request",
        Some(AlarmKind::Corrupt) => "Corrupt download, repeatedly",
        Some(AlarmKind::Unsupported) => "The format cannot be verified",
        Some(AlarmKind::StoreFailed) => "Storing fails, repeatedly",
        Some(
            AlarmKind::OtherContent
            | AlarmKind::Ledger
            | AlarmKind::Configuration
            | AlarmKind::Clock
            | AlarmKind::Panic,
        )
        | None => "",
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

fn next_fetch(planned: &PlannedPartition, now: Timestamp) -> Markup {
    let status = &planned.status;
    let doing = match planned.action {
        Action::Fetch => "fetched now",
        Action::Refresh => "fetched again",
        Action::NotDue => "due",
        Action::Backoff => "retried",
        Action::Held => "retried when its workspace resumes",
        Action::Unconfigured => "not fetched",
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
