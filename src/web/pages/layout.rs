//! The parts that pages share: the frame of a page, error pages, the strip of dates, and links.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use jiff::{Timestamp, civil::Date};
use maud::{DOCTYPE, Markup, html};
use url::form_urlencoded;

use crate::{
    ledger::LedgerError,
    partition::State as PartitionState,
    telemetry::Chain,
    web::{
        assets::{ICON, SCRIPT, STYLE},
        overview::{Day, ReportOverview},
    },
    words,
};

/// How often browsers without scripts reload the page, in seconds.
const RELOAD: u32 = 60;

/// Shown when the ledger cannot be read.
pub(super) fn unreadable(error: &LedgerError) -> Response {
    plain(StatusCode::SERVICE_UNAVAILABLE, "The ledger cannot be read", &Chain(error).to_string())
}

pub(super) fn plain(status: StatusCode, title: &str, text: &str) -> Response {
    let content = html! {
        section.verdict { h1 { (title) } p { (text) } p { a href="/" { "Overview" } } }
    };
    (status, layout(title, None, content)).into_response()
}

/// A page around `content`, which scripts update.
pub(super) fn layout(title: &str, now: Option<Timestamp>, content: Markup) -> Html {
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
pub(super) struct Html(Markup);

impl IntoResponse for Html {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], self.0.into_string()).into_response()
    }
}

/// The last dates of a report, one cell each.
pub(super) fn strip(report: &ReportOverview) -> Markup {
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

/// The sign of a state, so that states differ in more than colour.
pub(super) fn glyph(state: PartitionState, is_alarmed: bool) -> &'static str {
    match state {
        PartitionState::Lost => "×",
        PartitionState::Absent => "–",
        _ if is_alarmed => "!",
        PartitionState::Pending => "…",
        PartitionState::Stored | PartitionState::Scheduled => "",
    }
}

pub(super) fn legend() -> Markup {
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

pub(super) fn report_link(workspace: &str, report: &str) -> String {
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("workspace", workspace)
        .append_pair("report", report)
        .finish();
    format!("/report?{query}")
}

pub(super) fn partition_link(workspace: &str, report: &str, date: Date) -> String {
    format!("{}#d{date}", report_link(workspace, report))
}
