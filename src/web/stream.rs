//! JSON answers that are written page by page, so that memory is bounded for answers of any length.
//!
//! While a client reads, neither the ledger nor a slot is held.

use axum::{
    body::Body,
    http::header,
    response::{IntoResponse, Response},
};
use futures::stream::try_unfold;
use tokio::sync::Semaphore;

use crate::ledger::LedgerError;

/// Number of pages that are made concurrently; others wait.
const MAX_PAGES: usize = 2;

/// Bounds the pages that are made concurrently.
pub(super) struct PageSlots(pub(super) Semaphore);

impl Default for PageSlots {
    fn default() -> Self {
        PageSlots(Semaphore::new(MAX_PAGES))
    }
}

/// An answer that is being written.
pub(super) trait Pages: Send + 'static {
    /// The next part of the answer; `None` after the last one.
    fn page(&mut self) -> impl Future<Output = Result<Option<String>, LedgerError>> + Send;
}

/// Answers with all `pages`. An error later than in the first page breaks the answer off.
pub(super) async fn answer(mut pages: impl Pages) -> Result<Response, LedgerError> {
    // The first page is read before the answer begins, so that an unreadable ledger is an error status.
    let first = pages.page().await?;
    let rest = try_unfold((first, pages), async |(ready, mut pages)| {
        let page = match ready {
            Some(page) => Some(page),
            None => pages.page().await?,
        };
        Ok::<_, LedgerError>(page.map(|page| (page, (None, pages))))
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(rest)).into_response())
}
