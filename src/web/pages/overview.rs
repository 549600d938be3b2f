//! The overview page: partitions in danger, all reports, and the next fetches.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use axum::{
    extract::{self, Query, rejection::QueryRejection},
    response::{IntoResponse, Response},
};
use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};
use serde::Deserialize;
use url::form_urlencoded;

use super::layout::{Html, glyph, layout, legend, partition_link, report_link, strip, unreadable};
use crate::{
    alarm_kind::AlarmKind,
    config::Report,
    outcome::Outcome,
    partition::State as PartitionState,
    sync::Context,
    web::{
        Shared,
        health::MAX_PLAN_AGE,
        overview::{Danger, HeldWorkspace, Overview, ReportOverview, Standing},
    },
    words::{self, Action, PlannedPartition},
};

/// Maximum number of reports in danger that are listed.
const MAX_IN_DANGER: usize = 20;
/// Number of reports on one page.
const REPORTS: usize = 50;

/// Which reports are listed; all by default.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ReportFilter {
    /// Only those with this text in their id, name or workspace.
    #[serde(default)]
    text: String,
    /// Only those of this workspace, unless it is empty.
    #[serde(default)]
    workspace: String,
    /// Which page of them, from 1 on.
    #[serde(default)]
    page: usize,
}

/// The reports that are listed.
struct Listed {
    filter: ReportFilter,
    /// Number of reports that the filter selects.
    matching: usize,
    /// All workspaces, by name.
    workspaces: Vec<String>,
}

impl ReportFilter {
    /// The configured reports that are listed: those in danger first, the most urgent in front.
    fn choose<'a>(self, ctx: &'a Context, standing: &Standing) -> (Vec<&'a Arc<Report>>, Listed) {
        let text = self.text.trim().to_lowercase();
        let has_text = |name: &str| name.to_lowercase().contains(&text);
        let mut matching: Vec<_> = ctx.config.reports.iter().collect();
        matching.retain(|report| self.workspace.is_empty() || report.workspace.name == self.workspace);
        matching.retain(|report| [report.id.name(), &report.name, &report.workspace.name].into_iter().any(has_text));
        let mut places = HashMap::new();
        for (place, (entry, _)) in standing.dangers(ctx).enumerate() {
            places.entry(entry.partition.id.report.clone()).or_insert(place);
        }
        matching.sort_by_key(|report| places.get(&report.id).copied().unwrap_or(usize::MAX));
        let mut workspaces: Vec<_> = ctx.config.workspaces.iter().map(|workspace| workspace.name.clone()).collect();
        workspaces.sort();
        let page = self.page.clamp(1, matching.len().div_ceil(REPORTS).max(1));
        let listed = Listed { filter: ReportFilter { page, ..self }, matching: matching.len(), workspaces };
        (matching.into_iter().skip((page - 1) * REPORTS).take(REPORTS).collect(), listed)
    }
}

impl Listed {
    fn pages(&self) -> usize {
        self.matching.div_ceil(REPORTS).max(1)
    }

    /// The address of a page of these reports.
    fn link(&self, page: usize) -> String {
        let mut query = form_urlencoded::Serializer::new(String::from("/?"));
        for (name, value) in [("text", &self.filter.text), ("workspace", &self.filter.workspace)] {
            if !value.is_empty() {
                query.append_pair(name, value);
            }
        }
        query.append_pair("page", &page.to_string()).finish()
    }
}

pub(super) async fn page(
    extract::State(shared): extract::State<Arc<Shared>>,
    filter: Result<Query<ReportFilter>, QueryRejection>,
) -> Response {
    let Query(filter) = filter.unwrap_or_default();
    let ctx = shared.context();
    match Overview::of(&ctx, |standing| filter.choose(&ctx, standing)).await {
        Ok((overview, listed)) => show(&overview, &listed).into_response(),
        Err(error) => unreadable(&error),
    }
}

fn show(overview: &Overview, listed: &Listed) -> Html {
    let now = overview.head.now;
    let held: HashSet<&str> = overview.head.held.iter().map(|held| held.name.as_str()).collect();
    // One cause is one line: what waits for a workspace on hold is not requested.
    let is_held = |danger: &&Danger| {
        danger.status.state == PartitionState::Pending && held.contains(danger.status.workspace.as_str())
    };
    let dangers = by_report(overview.head.dangers.iter().filter(|danger| !is_held(danger)));
    let more = dangers.len().saturating_sub(MAX_IN_DANGER);
    let content = html! {
        (verdict(overview))
        @if !overview.head.incidents.is_empty() {
            section aria-labelledby="incidents" {
                h2 #incidents { "Problems of moesync itself" }
                ul.incidents {
                    @for incident in &overview.head.incidents { li { strong { (incident.alarm) } " " (incident.message) } }
                }
            }
        }
        @if !dangers.is_empty() || !overview.head.held.is_empty() {
            section aria-labelledby="danger" {
                h2 #danger { "In danger" }
                ul.dangers {
                    @for held in &overview.head.held {
                        li { (on_hold(held, overview.head.dangers.iter().find(|danger| is_held(danger) && danger.status.workspace == held.name))) }
                    }
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
        @if !overview.head.stored_alarms.is_empty() {
            section aria-labelledby="stored" {
                h2 #stored { "Problems of stored reports" }
                ul.incidents {
                    @for alarm in &overview.head.stored_alarms {
                        li {
                            strong { (alarm.alarm) } " "
                            a href=(report_link(&alarm.workspace, &alarm.report)) { (alarm.workspace) "/" (alarm.report) }
                            ": " (alarm.message)
                        }
                    }
                }
            }
        }
        section aria-labelledby="reports" {
            div.head {
                h2 #reports { "Reports" }
                (legend())
            }
            (search(listed))
            ul.reports { @for report in &overview.reports { li.report { (row(report, now)) } } }
            (pager(listed))
            @if overview.head.unconfigured > 0 {
                p.note {
                    (overview.head.unconfigured) " recorded partitions belong to reports that are no longer configured. "
                    "They are not fetched."
                }
            }
        }
        section aria-labelledby="next" {
            h2 #next { "Next" }
            @if let Some(age) = overview.head.planned_at.map(|at| now.duration_since(at)).filter(|age| *age > MAX_PLAN_AGE) {
                p.note { "Last planned " (words::duration(age)) " ago; see the log for the reason." }
            }
            @if overview.head.planned_at.is_none() {
                p.quiet { "Not planned yet." }
            } @else if overview.head.next.is_empty() {
                p.quiet { "Nothing is scheduled." }
            } @else {
                ol.next { @for planned in &overview.head.next { li { (next_fetch(planned, now)) } } }
            }
        }
    };
    layout(sentence(overview).1.trim_end_matches('.'), Some(now), content)
}

/// The state in one sentence, and whether it is well.
fn sentence(overview: &Overview) -> (&'static str, String) {
    let lost = overview.head.dangers.iter().filter(|danger| danger.alarm == "lost").count();
    let endangered = overview.head.dangers.len() - lost;
    match (endangered, lost) {
        (0, 0) if overview.head.partitions.pending == 0 => ("well", "Every report that is due is stored.".to_owned()),
        (0, 0) => ("well", "Nothing is in danger.".to_owned()),
        (0, lost) => ("bad", format!("{} lost in the last 30 days.", count(lost, "partition was", "partitions were"))),
        (_, 0) => ("bad", format!("{} in danger.", count(endangered, "partition is", "partitions are"))),
        (_, lost) => {
            ("bad", format!("{} in danger, {lost} lost.", count(endangered, "partition is", "partitions are")))
        }
    }
}

/// The state in one sentence, and its figures.
fn verdict(overview: &Overview) -> Markup {
    let counts = &overview.head.partitions;
    let figures = [
        ("stored", counts.stored, words::size(overview.head.stored_bytes)),
        ("pending", counts.pending, "due, not stored yet".to_owned()),
        ("absent", counts.absent, "never published".to_owned()),
        ("lost", counts.lost, "expired before stored".to_owned()),
    ];
    let (class, sentence) = sentence(overview);
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
fn by_report<'a>(dangers: impl Iterator<Item = &'a Danger>) -> Vec<(&'a Danger, usize)> {
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

/// One row for all reports of a workspace on hold; `nearest` is what expires first of it.
fn on_hold(held: &HeldWorkspace, nearest: Option<&Danger>) -> Markup {
    let why = match held.outcome {
        Outcome::RateLimited => "MoEngage limits the rate of requests",
        _ => "MoEngage refuses the key",
    };
    html! {
        a.danger.(held.outcome.as_str()) href={ "/?" (workspace_query(&held.name)) } {
            span.mark aria-hidden="true" { (glyph(PartitionState::Pending, true)) }
            span.what { strong { (held.name) } span.quiet { "workspace" } }
            span.left { strong { (count(held.reports, "report waits", "reports wait")) } }
            span.why {
                (why) "; next probe " time datetime=(held.until) { (words::instant(held.until)) }
                @if let Some(nearest) = nearest {
                    "; first to expire: " (nearest.status.report) " " (nearest.status.date)
                    @match nearest.seconds_left.map(SignedDuration::from_secs) {
                        Some(left) if left.is_positive() => { ", " (words::duration(left)) " left" }
                        Some(_) => { ", expired" }
                        None => {}
                    }
                }
            }
        }
    }
}

fn workspace_query(workspace: &str) -> String {
    form_urlencoded::Serializer::new(String::new()).append_pair("workspace", workspace).finish()
}

/// The form that filters the reports, where there are several pages of them or a filter is set.
fn search(listed: &Listed) -> Markup {
    let ReportFilter { text, workspace, .. } = &listed.filter;
    let is_needed = listed.pages() > 1 || !text.is_empty() || !workspace.is_empty();
    html! {
        @if is_needed {
            form.search method="get" action="/" role="search" {
                input type="search" name="text" value=(text) placeholder="Report" aria-label="Report";
                select name="workspace" aria-label="Workspace" {
                    option value="" { "All workspaces" }
                    @for name in &listed.workspaces { option value=(name) selected[name == workspace] { (name) } }
                }
                button { "Filter" }
                span.quiet { (count(listed.matching, "report", "reports")) }
            }
        }
    }
}

/// Links to the neighbouring pages of the reports.
fn pager(listed: &Listed) -> Markup {
    let (page, pages) = (listed.filter.page, listed.pages());
    html! {
        @if pages > 1 {
            nav.pager aria-label="Pages of reports" {
                @if page > 1 { a rel="prev" href=(listed.link(page - 1)) { "Previous" } }
                span.quiet { "Page " (page) " of " (pages) }
                @if page < pages { a rel="next" href=(listed.link(page + 1)) { "Next" } }
            }
        }
    }
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
                @if left.is_some_and(|left| !left.is_positive()) { "Not stored yet, and its expiry has passed" }
                @else { (why(&danger.alarm)) }
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
            AlarmKind::TablesFailed
            | AlarmKind::OtherContent
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
                    "newest stored "
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
