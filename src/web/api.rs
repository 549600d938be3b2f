//! `/api/v1/…`: the content of the pages as JSON, in the form that the commands print.
//!
//! This file owns the routes of the API and their parameters; `openapi.rs` describes them.

use std::sync::Arc;

use axum::{
    Router,
    extract::{self, Query},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::{
    Shared,
    all_reports::ReportPages,
    openapi,
    partitions::{PartitionFilter, PartitionPages},
    reader::read_ledger,
    stream,
};
use crate::{
    config::Report,
    ledger::LedgerError,
    moengage, plan,
    report::{PartitionId, ReportId},
    sync::Context,
    telemetry::Chain,
    words::{Explanation, PlannedPartition, PlannedPartitions, Recorded},
};

/// Every path of the API, health and metrics included.
pub const ROUTES: [&str; 8] = [
    "/api/v1/overview",
    "/api/v1/partitions",
    "/api/v1/partition",
    "/api/v1/plan",
    "/api/v1/openapi.json",
    "/livez",
    "/readyz",
    "/metrics",
];

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/api/v1/overview", get(overview))
        .route("/api/v1/partitions", get(all_partitions))
        .route("/api/v1/partition", get(partition))
        .route("/api/v1/plan", get(plan))
        .route("/api/v1/openapi.json", get(async || json(StatusCode::OK, &openapi::description())))
}

/// The partition that is requested.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PartitionQuery {
    workspace: String,
    report: String,
    date: Date,
}

/// Why a request fails.
enum ApiError {
    /// The report or date does not exist.
    Unknown(String),
    /// The ledger cannot be read.
    Ledger(LedgerError),
    /// The daemon has not planned since it started.
    NotPlanned,
}

impl From<LedgerError> for ApiError {
    fn from(error: LedgerError) -> Self {
        ApiError::Ledger(error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        match self {
            ApiError::Unknown(what) => error(StatusCode::NOT_FOUND, &what),
            ApiError::NotPlanned => error(StatusCode::SERVICE_UNAVAILABLE, "not planned yet; retry in a few seconds"),
            ApiError::Ledger(reason) => error(StatusCode::SERVICE_UNAVAILABLE, &Chain(&reason).to_string()),
        }
    }
}

/// The answer to an unknown path of the API.
pub(super) fn not_found(path: &str) -> Response {
    error(StatusCode::NOT_FOUND, &format!("there is no {path}; /api/v1/openapi.json lists all paths"))
}

/// `{"error": …}` with a message.
fn error(status: StatusCode, message: &str) -> Response {
    json(status, &serde_json::json!({"error": message}))
}

/// The parameter that is wrong, and what it may be.
fn bad_query(rejection: &extract::rejection::QueryRejection) -> Response {
    let text = rejection.body_text();
    let reason = text.rsplit_once("query string: ").map_or(text.as_str(), |(_, reason)| reason);
    error(StatusCode::BAD_REQUEST, &format!("query parameters: {reason}"))
}

/// `value` as an answer.
pub(super) fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_string_pretty(value) {
        Ok(text) => (status, [(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("could not write JSON: {error}\n")).into_response(),
    }
}

async fn overview(extract::State(shared): extract::State<Arc<Shared>>) -> Result<Response, ApiError> {
    Ok(stream::answer(ReportPages::new(shared).await?).await?)
}

async fn all_partitions(
    extract::State(shared): extract::State<Arc<Shared>>,
    filter: Result<Query<PartitionFilter>, extract::rejection::QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(filter) = match filter {
        Ok(filter) => filter,
        Err(rejection) => return Ok(bad_query(&rejection)),
    };
    Ok(stream::answer(PartitionPages::new(shared, filter)).await?)
}

async fn partition(
    extract::State(shared): extract::State<Arc<Shared>>,
    query: Result<Query<PartitionQuery>, extract::rejection::QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(PartitionQuery { workspace, report, date }) = match query {
        Ok(query) => query,
        Err(rejection) => return Ok(bad_query(&rejection)),
    };
    let ctx = shared.context();
    let Some(found) = find(&ctx, &workspace, &report) else {
        return Err(ApiError::Unknown(format!("no report is called `{report}` in a workspace `{workspace}`")));
    };
    let id = PartitionId { report: ReportId::new(&workspace, &report), date };
    let ledger = read_ledger(&ctx).await?;
    let now = ctx.clock.now();
    let mut recorded = Recorded {
        entry: ledger.entry_of(&id).await?,
        history: ledger.attempts(&id).await?,
        tables: ledger.tables_of(&id).await?,
        hold: ledger.hold_of(&workspace).await?,
        new: None,
    };
    if recorded.entry.is_none() {
        let view = ctx.view(&ledger, now).await?;
        recorded.new = plan::unplanned_on(found, &view, date, now);
    }
    let source_url = moengage::source_url(found, date).to_string();
    let explanation = Explanation::new(found, date, recorded, source_url, now);
    let explanation = explanation.ok_or_else(|| ApiError::Unknown(format!("the report's time zone has no {date}")))?;
    Ok(json(StatusCode::OK, &explanation))
}

async fn plan(extract::State(shared): extract::State<Arc<Shared>>) -> Result<Response, ApiError> {
    let ctx = shared.context();
    let planned = ctx.planned.latest().ok_or(ApiError::NotPlanned)?;
    let now = ctx.clock.now();
    let partitions = planned.plan.items.iter().map(|item| PlannedPartition::new(item, now)).collect();
    Ok(json(StatusCode::OK, &PlannedPartitions { partitions }))
}

/// The configured report of that name.
pub(super) fn find<'a>(ctx: &'a Context, workspace: &str, report: &str) -> Option<&'a Arc<Report>> {
    ctx.config.reports.iter().find(|known| known.id.workspace() == workspace && known.id.name() == report)
}
