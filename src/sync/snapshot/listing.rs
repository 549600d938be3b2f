//! The listing of campaigns: which page comes next, and where the listing ends.

use std::collections::{BTreeSet, HashSet};

use tracing::info;

use super::{
    MOST_NAMED,
    reader::Reader,
    reading::{Acceptance, Reading, Readings, RepairCounts},
};
use crate::{
    config::CampaignsQuery,
    moengage::{self, Page, Question, Record},
    ndjson,
    outcome::Failure,
};

/// How many empty pages in a row end a listing without a total. A single one may be a gap.
const EMPTY_PAGES_AT_END: u32 = 2;

impl Reader<'_> {
    pub(super) async fn campaigns(&mut self, query: &CampaignsQuery) -> Result<(), Failure> {
        let mut readings = Readings::of("the listing of campaigns");
        loop {
            self.restart();
            let mut pages = CampaignPages::new(query);
            while let Some(page) = pages.next(self).await? {
                self.keep(page, |Record { id, json }| Ok((id, ndjson::record(&json)))).await?;
            }
            let CampaignPages { reading, repairs, .. } = pages;
            match readings.judge(reading)? {
                Acceptance::Accepted(warnings) => {
                    self.accept(warnings, repairs);
                    return Ok(());
                }
                Acceptance::Again(why) => info!("{why}; reading it again"),
            }
        }
    }

    /// The ids of all campaigns that can have executions.
    pub(super) async fn parents(&mut self) -> Result<BTreeSet<String>, Failure> {
        let query = CampaignsQuery::default();
        let mut readings = Readings::of("the listing of campaigns");
        loop {
            self.id_bytes = 0;
            let mut parents = BTreeSet::new();
            let mut pages = CampaignPages::new(&query);
            while let Some(page) = pages.next(self).await? {
                parents.extend(page.records.iter().filter_map(|record| moengage::executions_parent(&record.json)));
            }
            match readings.judge(pages.reading)? {
                Acceptance::Accepted(warnings) => {
                    // This listing is not stored, so its repairs do not matter.
                    self.accept(warnings, RepairCounts::default());
                    return Ok(parents);
                }
                Acceptance::Again(why) => info!("{why}; reading it again"),
            }
        }
    }
}

/// The pages of a listing of campaigns. It has no total and ends with empty pages. A short page does not end it, because
/// a server may leave rows out of a page.
struct CampaignPages<'a> {
    query: &'a CampaignsQuery,
    page: u64,
    /// Number and ids of the last page with a new campaign.
    last: Option<(u64, Vec<String>)>,
    seen: HashSet<String>,
    /// Number of pages in a row without a new campaign.
    barren: u32,
    is_over: bool,
    reading: Reading,
    repairs: RepairCounts,
}

impl<'a> CampaignPages<'a> {
    fn new(query: &'a CampaignsQuery) -> Self {
        Self {
            query,
            page: 0,
            last: None,
            seen: HashSet::new(),
            barren: 0,
            is_over: false,
            reading: Reading::default(),
            repairs: RepairCounts::default(),
        }
    }

    /// The next page with a new campaign; `None` after the last one.
    async fn next(&mut self, reader: &mut Reader<'_>) -> Result<Option<Page>, Failure> {
        while !self.is_over {
            self.page += 1;
            let question = Question::Campaigns { query: self.query, page: self.page };
            let page = reader.ask(&question).await?;
            let present = ids(&page);
            if present.iter().all(|id| self.seen.contains(id)) {
                self.barren += 1;
                if page.items >= question.limit() {
                    self.is_over = true;
                    self.reading.changed = Some(format!("page {} has only campaigns of other pages", self.page));
                } else if self.barren >= EMPTY_PAGES_AT_END {
                    self.is_over = true;
                    return self.look_back(reader).await;
                }
                continue;
            }
            if self.barren > 0 && self.reading.doubts.len() < MOST_NAMED {
                self.reading.doubts.push(format!(
                    "page {} of the listing of campaigns has nothing new, and page {} has",
                    self.page - 1,
                    self.page
                ));
            }
            self.barren = 0;
            self.repairs.add(&page, &question);
            self.seen.extend(present.iter().cloned());
            self.last = Some((self.page, present));
            return Ok(Some(page));
        }
        Ok(None)
    }

    /// Reads the last page again. If it has changed, campaigns were removed, and others moved to pages that were read before.
    async fn look_back(&mut self, reader: &mut Reader<'_>) -> Result<Option<Page>, Failure> {
        // From the first page, none can move up.
        let Some((number, before)) = self.last.as_ref().filter(|(number, _)| *number > 1) else { return Ok(None) };
        let page = reader.ask(&Question::Campaigns { query: self.query, page: *number }).await?;
        if ids(&page) != *before {
            self.reading.changed = Some("the listing of campaigns became shorter".into());
        }
        Ok(Some(page))
    }
}

fn ids(page: &Page) -> Vec<String> {
    page.records.iter().map(|record| record.id.clone()).collect()
}
