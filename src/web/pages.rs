//! The pages for people.
//!
//! This folder owns HTML. Every text goes through `maud`, which escapes it; nothing here is script or style.

mod layout;
mod overview;
mod report;

use std::sync::Arc;

use axum::{Router, http::StatusCode, response::Response, routing::get};

use super::Shared;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/", get(overview::page)).route("/report", get(report::page))
}

/// The answer to an unknown path.
pub(super) async fn not_found() -> Response {
    layout::plain(StatusCode::NOT_FOUND, "Not found", "There is no such page.")
}
