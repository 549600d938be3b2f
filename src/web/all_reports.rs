//! `/api/v1/overview`: the state of all reports, as a stream with bounded memory.

use std::sync::Arc;

use super::{
    Shared,
    overview::{OverviewHead, ReportOverview, Standing},
    reader::read_ledger,
    stream::Pages,
};
use crate::{ledger::LedgerError, sync::Context, words::ListText};

/// Number of reports that are read and written together.
const PAGE_LENGTH: usize = 100;

/// The answer that is being written.
pub(super) struct ReportPages {
    shared: Arc<Shared>,
    ctx: Arc<Context>,
    standing: Standing,
    /// Number of reports that are written.
    written: usize,
    /// `None` once it is written.
    list: Option<ListText>,
}

impl ReportPages {
    pub(super) async fn new(shared: Arc<Shared>) -> Result<Self, LedgerError> {
        let ctx = shared.context();
        let ledger = read_ledger(&ctx).await?;
        let standing = Standing::gather(&ctx, &ledger).await?;
        let list = Some(ListText::after(&OverviewHead::read(&ctx, &ledger, &standing).await?, "reports"));
        Ok(Self { shared, ctx, standing, written: 0, list })
    }
}

impl Pages for ReportPages {
    async fn page(&mut self) -> Result<Option<String>, LedgerError> {
        let Some(list) = &mut self.list else { return Ok(None) };
        // The semaphore is never closed.
        let _slot = self.shared.page_slots.0.acquire().await;
        let ledger = read_ledger(&self.ctx).await?;
        let mut text = String::new();
        // The figures are in the order of the configuration.
        let reports = self.ctx.config.reports.iter().zip(&self.standing.figures);
        for (report, figures) in reports.skip(self.written).take(PAGE_LENGTH) {
            let dates = self.standing.dates(&ledger, &report.id).await?;
            list.push(&mut text, &ReportOverview::new(&self.ctx, report, figures, &self.standing, &dates));
        }
        self.written += PAGE_LENGTH;
        if self.written >= self.ctx.config.reports.len()
            && let Some(list) = self.list.take()
        {
            list.end(&mut text);
        }
        Ok(Some(text))
    }
}
