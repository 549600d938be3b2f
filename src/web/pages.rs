//! The HTML pages.
//!
//! This folder owns HTML. `maud` escapes every text; scripts and styles are assets.

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
