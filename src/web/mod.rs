//! The status page, its API, health and metrics over HTTP. All of it is read-only and has its own connections to the ledger,
//! so that requests do not slow the loop down.

mod all_reports;
mod api;
mod assets;
mod guard;
mod health;
mod metrics;
mod openapi;
mod overview;
mod pages;
mod partitions;
mod reader;
mod server;
mod stream;

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;

pub use self::{
    api::ROUTES,
    openapi::description,
    overview::Overview,
    server::{Listener, WebError},
};
use self::{health::Probes, metrics::Scrape, stream::PageSlots};
use crate::sync::Context;

/// Shared by all requests.
struct Shared {
    contexts: watch::Receiver<Arc<Context>>,
    /// When the server started.
    started_at: Timestamp,
    probes: Probes,
    scrape: Scrape,
    page_slots: PageSlots,
}

impl Shared {
    /// The context in force.
    fn context(&self) -> Arc<Context> {
        Arc::clone(&self.contexts.borrow())
    }

    /// When the loop last wrote a plan to the ledger; before the first one, when the server started.
    fn planned_at(&self, ctx: &Context) -> Timestamp {
        ctx.status.planned_at().unwrap_or(self.started_at)
    }
}
