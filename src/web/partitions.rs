//! `/api/v1/partitions`: the output of `moesync status --json`, written page by page, so that memory is bounded for a ledger
//! of any length.
//!
//! This file owns how that answer is made.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use jiff::{Timestamp, civil::Date};
use serde::Deserialize;

use super::{Shared, reader::read_ledger, stream::Pages};
use crate::{
    ledger::{Choice, LedgerError},
    partition::State as PartitionState,
    plan,
    report::{Partition, PartitionId, ReportId},
    sync::Context,
    words::{ListText, PartitionStatus},
};

/// Number of partitions that are read and written together.
const PAGE_LENGTH: u32 = 500;

/// The partitions that are requested; all by default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PartitionFilter {
    workspace: Option<String>,
    report: Option<String>,
    state: Option<PartitionState>,
    since: Option<Date>,
}

/// An answer that is being written.
pub(super) struct PartitionPages {
    shared: Arc<Shared>,
    ctx: Arc<Context>,
    filter: PartitionFilter,
    choice: Choice,
    configured: HashSet<ReportId>,
    now: Timestamp,
    /// The next scheduled partition of each report, in order, as far as it is not written yet.
    upcoming: VecDeque<Partition>,
    /// The last one read.
    after: Option<PartitionId>,
    /// `None` once it is written.
    list: Option<ListText>,
}

impl PartitionPages {
    pub(super) fn new(shared: Arc<Shared>, filter: PartitionFilter) -> Self {
        let ctx = shared.context();
        let now = ctx.clock.now();
        let mut upcoming: Vec<_> = ctx.config.reports.iter().filter_map(|report| plan::next(report, now)).collect();
        upcoming.sort_by(|a, b| a.id.cmp(&b.id));
        Self {
            choice: Choice { workspace: filter.workspace.clone(), report: filter.report.clone(), since: filter.since },
            configured: ctx.config.reports.iter().map(|report| report.id.clone()).collect(),
            upcoming: upcoming.into(),
            shared,
            ctx,
            filter,
            now,
            after: None,
            list: Some(ListText::new("partitions")),
        }
    }

    fn write(&mut self, text: &mut String, partition: &PartitionStatus) {
        let PartitionFilter { workspace, report, state, since } = &self.filter;
        let is_chosen = workspace.as_ref().is_none_or(|name| *name == partition.workspace)
            && report.as_ref().is_none_or(|id| *id == partition.report)
            && state.is_none_or(|state| state == partition.state)
            && since.is_none_or(|date| date <= partition.date);
        if !is_chosen {
            return;
        }
        if let Some(list) = &mut self.list {
            list.push(text, partition);
        }
    }
}

impl Pages for PartitionPages {
    async fn page(&mut self) -> Result<Option<String>, LedgerError> {
        if self.list.is_none() {
            return Ok(None);
        }
        let shared = Arc::clone(&self.shared);
        // The semaphore is never closed.
        let _slot = shared.page_slots.0.acquire().await;
        let ledger = read_ledger(&self.ctx).await?;
        let entries = ledger.page(&self.choice, self.after.as_ref(), PAGE_LENGTH).await?;
        let mut text = String::new();
        for entry in &entries {
            let id = &entry.partition.id;
            while let Some(partition) = self.upcoming.pop_front_if(|partition| partition.id < *id) {
                self.write(&mut text, &PartitionStatus::upcoming(partition, self.now));
            }
            self.upcoming.pop_front_if(|partition| partition.id == *id);
            let is_configured = self.configured.contains(&id.report);
            self.write(&mut text, &PartitionStatus::new(entry, is_configured, self.now));
        }
        self.after = entries.last().map(|entry| entry.partition.id.clone());
        if entries.len() < usize::try_from(PAGE_LENGTH).unwrap_or(usize::MAX) {
            for partition in std::mem::take(&mut self.upcoming) {
                self.write(&mut text, &PartitionStatus::upcoming(partition, self.now));
            }
            if let Some(list) = self.list.take() {
                list.end(&mut text);
            }
        }
        Ok(Some(text))
    }
}
