//! The page of a report: its last thirty dates, and each partition with attempts, messages, sizes, hashes and keys.

use std::{collections::HashMap, sync::Arc};

use axum::{
    extract::{self, Query, rejection::QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use jiff::{Timestamp, civil::Date};
use maud::{Markup, html};
use serde::Deserialize;

use super::layout::{glyph, layout, legend, plain, report_link, strip, unreadable};
use crate::{
    config::Report,
    ledger::{LedgerError, ReportFigures},
    outcome::RecordedAttempt,
    partition::{Entry, State as PartitionState},
    sync::Context,
    web::{
        Shared, api,
        overview::{ReportOverview, Standing},
        reader::read_ledger,
    },
    words,
};

/// Partitions on one page.
const PARTITIONS: u32 = 60;
/// Attempts shown of each partition.
const ATTEMPTS: u32 = 25;

/// The report that is requested, and the date before which its partitions are shown.
#[derive(Debug, Deserialize)]
pub(super) struct ReportQuery {
    workspace: String,
    report: String,
    before: Option<Date>,
}

struct History {
    overview: ReportOverview,
    standing: Standing,
    /// Newest first.
    entries: Vec<Entry>,
    attempts: HashMap<Date, Vec<RecordedAttempt>>,
    has_older: bool,
}

pub(super) async fn page(
    extract::State(shared): extract::State<Arc<Shared>>,
    query: Result<Query<ReportQuery>, QueryRejection>,
) -> Response {
    let Ok(Query(query)) = query else {
        return plain(
            StatusCode::BAD_REQUEST,
            "Which report?",
            "This address lacks a workspace or report, or has an invalid date.",
        );
    };
    let ctx = shared.context();
    let Some(report) = api::find(&ctx, &query.workspace, &query.report) else {
        let text = format!("No report is called “{}” in a workspace “{}”.", query.report, query.workspace);
        return plain(StatusCode::NOT_FOUND, "No such report", &text);
    };
    match gather(&ctx, report, query.before).await {
        Ok(history) => layout(&history.overview.report, Some(history.standing.now), show(&ctx, &history, query.before))
            .into_response(),
        Err(error) => unreadable(&error),
    }
}

async fn gather(ctx: &Context, report: &Report, before: Option<Date>) -> Result<History, LedgerError> {
    let id = report.id.clone();
    let ledger = read_ledger(ctx).await?;
    let mut entries = ledger.history(&id, before.unwrap_or(Date::MAX), PARTITIONS + 1).await?;
    let has_older = entries.len() > PARTITIONS as usize;
    entries.truncate(PARTITIONS as usize);
    let attempts = match (entries.last(), entries.first()) {
        (Some(first), Some(last)) => {
            ledger.latest_attempts(&id, first.partition.id.date, last.partition.id.date, ATTEMPTS).await?
        }
        _ => HashMap::new(),
    };
    let standing = Standing::gather(ctx, &ledger).await?;
    let dates = standing.dates(&ledger, &id).await?;
    let nothing = ReportFigures::nothing(id.clone(), report.source.kind());
    let figures = standing.figures.iter().find(|figures| figures.id == id).unwrap_or(&nothing);
    let overview = ReportOverview::new(ctx, report, figures, &standing, &dates);
    Ok(History { overview, standing, entries, attempts, has_older })
}

fn show(ctx: &Context, history: &History, before: Option<Date>) -> Markup {
    let History { overview: report, entries, has_older, .. } = history;
    let link = report_link(&report.workspace, &report.report);
    html! {
        p.crumbs { a href="/" { "Overview" } " / " (report.workspace) }
        section.about {
            h1 { (report.report) }
            dl.facts {
                div { dt { "Name" } dd { (report.name) } }
                div { dt { "Source" } dd { (report.source) } }
                div { dt { "Schedule" } dd { (report.schedule) ", " (report.timezone) } }
                div { dt { "Destination" } dd { (report.destination) } }
                div { dt { "Stored" } dd { (report.partitions.stored) " partitions, " (words::size(report.stored_bytes)) } }
            }
            div.wide { (strip(report)) (legend()) }
        }
        section aria-labelledby="partitions" {
            h2 #partitions { "Partitions" @if let Some(before) = before { " before " (before) } }
            @if entries.is_empty() {
                p.quiet { "No partition is recorded yet." }
            } @else {
                div.partitions {
                    @for entry in entries { (partition(ctx, history, entry)) }
                }
            }
            p.pages {
                @if before.is_some() { a href=(link) { "Newest" } }
                @if let Some(last) = entries.last().filter(|_| *has_older) {
                    a href={ (link) "&before=" (last.partition.id.date) } { "Older" }
                }
            }
        }
    }
}

fn partition(ctx: &Context, history: &History, entry: &Entry) -> Markup {
    let date = entry.partition.id.date;
    let now = history.standing.now;
    let state = entry.state(now);
    let alarm = history.standing.alarm(ctx, entry);
    let attempts = history.attempts.get(&date).map_or(&[][..], Vec::as_slice);
    html! {
        details.partition data-key=(date) {
            summary {
                span.cell.(state).alarmed[alarm.is_some()] aria-hidden="true" { (glyph(state, alarm.is_some())) }
                time.date datetime=(date) { (date) }
                span.state {
                    (state)
                    @if entry.acknowledged { span.quiet { " acknowledged" } }
                    @if let Some(outcome) = entry.outcome.filter(|_| state == PartitionState::Pending) {
                        span.quiet { " " (outcome) }
                    }
                }
                span.size { @if let Some(object) = &entry.object { (words::size(object.size)) } }
                span.quiet.tries { (tries(entry.attempts)) }
                span.when {
                    @match (&entry.object, entry.partition.expires_at) {
                        (Some(object), _) => { span.word { "stored " } (words::instant(object.stored_at)) },
                        (None, Some(expiry)) if state == PartitionState::Pending => {
                            @if expiry > now { strong { (words::left(expiry, now)) } " left" } @else { strong { "expired" } }
                        },
                        _ => {},
                    }
                }
            }
            // Browsers open the details that hold a link's fragment.
            div.body id={ "d" (date) } {
                @if let Some(message) = &entry.message { p.message { (message) } }
                dl.facts {
                    @if let Some(object) = &entry.object {
                        div.long { dt { "Key" } dd { code { (object.key) } } }
                        div.long { dt { "SHA-256" } dd { code { (object.sha256) } } }
                        div { dt { "Size" } dd { (object.size) " bytes" } }
                    }
                    @if let Some(tables) = entry.tables { div { dt { "Tables" } dd { (tables) } } }
                    div { dt { "Generated" } dd { (moment(entry.partition.generated_at)) } }
                    div { dt { "Due" } dd { (moment(entry.partition.due_at)) } }
                    @if let Some(expiry) = entry.partition.expires_at { div { dt { "Expires" } dd { (moment(expiry)) } } }
                    @if let Some(next) = entry.next_attempt_at { div { dt { "Next attempt" } dd { (moment(next)) } } }
                }
                @if !attempts.is_empty() { (table(attempts, entry.attempts)) }
            }
        }
    }
}

fn table(attempts: &[RecordedAttempt], all: u32) -> Markup {
    let earlier = (all as usize).saturating_sub(attempts.len());
    html! {
        div.scroll {
            table {
                caption { "Attempts" @if earlier > 0 { span.quiet { " (" (earlier) " earlier ones are not shown)" } } }
                thead { tr { th { "Ended" } th { "Outcome" } th { "HTTP" } th { "Took" } th { "Bytes" } th { "Message" } } }
                tbody {
                    @for attempt in attempts.iter().rev() {
                        tr {
                            td { (attempt.finished_at.strftime("%Y-%m-%d %H:%M:%S")) }
                            td { span.outcome.(attempt.outcome) { (attempt.outcome) } }
                            td { @if let Some(status) = attempt.http_status { (status) } }
                            td { (took(attempt)) }
                            td { @if let Some(size) = attempt.size { (size) } }
                            td.text {
                                (attempt.message)
                                @if let Some(id) = &attempt.request_id { span.quiet { " request " (id) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn tries(attempts: u32) -> String {
    match attempts {
        0 => "no attempt yet".to_owned(),
        1 => "1 attempt".to_owned(),
        several => format!("{several} attempts"),
    }
}

fn took(attempt: &RecordedAttempt) -> String {
    let took = attempt.finished_at.duration_since(attempt.started_at);
    match took.as_secs() {
        60.. => words::duration(took),
        1.. => format!("{:.1} s", took.as_secs_f64()),
        _ => format!("{} ms", took.as_millis().max(0)),
    }
}

fn moment(at: Timestamp) -> Markup {
    html! { time datetime=(at) { (at.strftime("%Y-%m-%d %H:%M:%S")) " UTC" } }
}
