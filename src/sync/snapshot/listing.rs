//! The listing of campaigns: which page comes next, and where the listing ends.

use std::collections::{BTreeSet, HashSet};

use tracing::info;

use super::{
    MOST_NAMED,
    reader::Reader,
    reading::{Judgement, Reading, Readings, RepairCounts},
};
use crate::{
    config::CampaignsQuery,
    moengage::{self, Page, Question, Record},
    ndjson,
    outcome::Failure,
};

/// How many empty pages in a row end a listing without a total: one alone may be a hole in it.
const EMPTY_PAGES_AT_END: u32 = 2;

impl Reader<'_> {
    pub(super) async fn campaigns(&mut self, query: &CampaignsQuery) -> Result<(), Failure> {
        let mut readings = Readings::of("the listing of campaigns");
        loop {
            self.restart();
            let mut listing = Listing::new(query);
            while let Some(page) = listing.next(self).await? {
                self.keep(page, |Record { id, json }| Ok((id, ndjson::record(&json)))).await?;
            }
            let Listing { reading, repairs, .. } = listing;
            match readings.judge(reading)? {
                Judgement::Accepted(warnings) => {
                    self.accept(warnings, repairs);
                    return Ok(());
                }
                Judgement::Again(why) => info!("{why}; reading it again"),
            }
        }
    }

    /// The campaigns of a fresh listing that have executions.
    pub(super) async fn parents(&mut self) -> Result<BTreeSet<String>, Failure> {
        let query = CampaignsQuery::default();
        let mut readings = Readings::of("the listing of campaigns");
        loop {
            self.id_bytes = 0;
            let mut parents = BTreeSet::new();
            let mut listing = Listing::new(&query);
            while let Some(page) = listing.next(self).await? {
                parents.extend(page.records.iter().filter_map(|record| moengage::executions_parent(&record.json)));
            }
            match readings.judge(listing.reading)? {
                Judgement::Accepted(warnings) => {
                    // What was repaired in the listing is stored nowhere.
                    self.accept(warnings, RepairCounts::default());
                    return Ok(parents);
                }
                Judgement::Again(why) => info!("{why}; reading it again"),
            }
        }
    }
}

/// The pages of a listing of campaigns, which says no total: it ends with empty pages. A short page ends nothing, because
/// a server may leave rows out of a page.
struct Listing<'a> {
    query: &'a CampaignsQuery,
    page: u64,
    /// Number and ids of the last page that brought something new.
    last: Option<(u64, Vec<String>)>,
    seen: HashSet<String>,
    /// How many pages in a row brought nothing new.
    barren: u32,
    is_over: bool,
    reading: Reading,
    repairs: RepairCounts,
}

impl<'a> Listing<'a> {
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

    /// The next page with anything on it; `None` after the last.
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
                    self.reading.changed = Some(format!("page {} holds nothing that was not on another", self.page));
                } else if self.barren >= EMPTY_PAGES_AT_END {
                    self.is_over = true;
                    return self.look_back(reader).await;
                }
                continue;
            }
            if self.barren > 0 && self.reading.doubts.len() < MOST_NAMED {
                self.reading.doubts.push(format!(
                    "page {} of the listing of campaigns brought nothing and page {} did",
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

    /// The last page once more: if campaigns have gone, others moved up into pages that were read before.
    async fn look_back(&mut self, reader: &mut Reader<'_>) -> Result<Option<Page>, Failure> {
        // Before the first page there is none to move to.
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
