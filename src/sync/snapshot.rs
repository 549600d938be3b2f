//! A listing, read page by page until it is whole.
//!
//! This file owns which page comes next, when a listing is complete, and what of it is odd and stored all the same:
//! that becomes a warning in the manifest. A snapshot is whole or absent: a page that fails for good fails the attempt,
//! and the next one starts from the first page. It must not know what a request looks like, nor where the snapshot
//! goes.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    path::Path,
};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::{
    clock::jitter,
    context::{self, Context, Purpose},
    frame::Frame,
    spool::Spool,
};
use crate::{
    config::{CampaignsQuery, Report, SnapshotSource, StatsQuery},
    moengage::{self, Oddity, Page, Question, Record, RequestId, Unread},
    ndjson::{self, Lines},
    outcome::{Evidence, Failure, Outcome},
    partition::{self, Timing},
    report::Partition,
    retry::{self, ABSURD_RETRY_AFTER, QUICK_TRIES},
};

/// No snapshot has more: a million and a half campaigns.
const MOST_PAGES: u64 = 100_000;

/// How often a listing that changes while it is read is restarted.
const MOST_READINGS: usize = 5;

/// How many empty pages in a row end a listing without a total: one alone may be a hole in it.
const EMPTY_PAGES_AT_END: u32 = 2;

/// How many parents answered with 403, and none otherwise, mean that the API itself is refused.
const TELLING_REFUSALS: usize = 10;

/// How many refused parents a manifest names.
const MOST_NAMED: usize = 50;

/// Why most parents are refused (seed 004).
const ONLY_OF_THE_API: &str = "MoEngage lists executions only of campaigns that were created through its API";

/// Most warnings of one snapshot.
const MOST_WARNINGS: usize = 100;

/// Most bytes of the ids of one snapshot, which are kept in memory: a million ids of MoEngage's.
const MOST_ID_BYTES: u64 = 32 * 1024 * 1024;

/// Most bytes of the executions of one campaign, which are gathered in memory.
const MOST_EXECUTION_BYTES: usize = 32 * 1024 * 1024;

/// A vendor that asks for a longer break than this in the middle of a listing gets it between two attempts.
const LONGEST_BREAK: SignedDuration = SignedDuration::from_mins(5);

/// The break after a 429 that names none: the rates are counted by the minute.
const USUAL_BREAK: SignedDuration = SignedDuration::from_mins(1);

/// A whole listing, on its way out as compressed lines.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// Lines.
    pub(super) records: u64,
    /// Pages of which it was made.
    pub(super) pages: u64,
    /// Requests that it took, those that were repeated or in vain included.
    pub(super) requests: u64,
    /// What was odd about it.
    pub(super) warnings: Vec<String>,
    /// What MoEngage showed; the `Date` is that of its last answer.
    pub(super) evidence: Evidence,
    chunks: mpsc::Receiver<io::Result<Bytes>>,
}

impl Snapshot {
    /// The next bytes; `None` at the end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        self.chunks.recv().await.transpose().map_err(|error| spool_failure("read", &error))
    }
}

/// Reads the listing that `partition` consists of. `answered` is called when the vendor has accepted the credentials.
///
/// # Errors
///
/// Why it did not become whole. [`Outcome::NotPublished`] for a live listing whose time is over.
pub(super) async fn gather(
    ctx: &Context,
    report: &Report,
    source: &SnapshotSource,
    partition: &Partition,
    api_key: SecretString,
    frame: &Frame,
    answered: &(dyn Fn() + Send + Sync),
) -> Result<Snapshot, Unread> {
    let folder = ctx.ledger.file().and_then(Path::parent).filter(|folder| !folder.as_os_str().is_empty());
    let folder = match (folder, ctx.ledger.file()) {
        (Some(folder), _) => folder.to_owned(),
        (None, Some(_)) => ".".into(),
        (None, None) => std::env::temp_dir(),
    };
    let spool = blocking(move || Spool::create(&folder)).await.map_err(|error| spool_failure("make", &error))?;
    let mut reader = Reader {
        ctx,
        report,
        partition,
        api_key,
        frame,
        answered,
        spool: Some(spool),
        is_answered: false,
        pages: 0,
        requests: 0,
        id_bytes: 0,
        warnings: Vec::new(),
        oddities: Oddities::default(),
        vendor_date: None,
        unread: None,
    };
    let read = match source {
        SnapshotSource::Campaigns(query) => reader.campaigns(query).await,
        SnapshotSource::Executions { campaign_ids } => reader.executions(campaign_ids).await,
        SnapshotSource::CampaignStats(query) => reader.statistics(query).await,
    };
    if let Err(failure) = read {
        return Err(Unread { failure, page: reader.unread.take() });
    }
    let Reader { pages, requests, vendor_date, spool, mut warnings, oddities, .. } = reader;
    if warnings.len() > MOST_WARNINGS {
        let more = warnings.len() - MOST_WARNINGS;
        warnings.truncate(MOST_WARNINGS);
        warnings.push(format!("{more} more warnings are left out"));
    }
    warnings.extend(oddities.warnings());
    for warning in &warnings {
        warn!("{warning}");
    }
    let spool = spool.ok_or_else(|| Failure::new(Outcome::StoreFailed, "the spool was lost".into()))?;
    let name = report.file_name(partition.id.date);
    let name = name.strip_suffix(".gz").unwrap_or(&name).to_owned();
    let evidence = Evidence { http_status: Some(200), vendor_date, seen: true, ..Evidence::default() };
    Ok(Snapshot { records: spool.lines(), pages, requests, warnings, evidence, chunks: spool.into_gzip(name) })
}

struct Reader<'a> {
    ctx: &'a Context,
    report: &'a Report,
    partition: &'a Partition,
    api_key: SecretString,
    /// The time for waiting one's turn does not count.
    frame: &'a Frame,
    answered: &'a (dyn Fn() + Send + Sync),
    /// Lent to the thread that writes.
    spool: Option<Spool>,
    is_answered: bool,
    pages: u64,
    requests: u64,
    /// Of the records of all pages that count.
    id_bytes: u64,
    warnings: Vec<String>,
    /// Of the readings that count.
    oddities: Oddities,
    vendor_date: Option<Timestamp>,
    /// The last page that could not be read; the failure that it belongs to describes it.
    unread: Option<Bytes>,
}

impl Reader<'_> {
    async fn campaigns(&mut self, query: &CampaignsQuery) -> Result<(), Failure> {
        let mut readings = Readings::of("the listing of campaigns");
        loop {
            self.restart();
            let mut listing = Listing::new(query);
            while let Some(page) = listing.next(self).await? {
                self.keep(page, |Record { id, json }| Ok((id, ndjson::record(&json)))).await?;
            }
            let Listing { reading, oddities, .. } = listing;
            match readings.judge(reading)? {
                Verdict::Accepted(warnings) => {
                    self.accept(warnings, oddities);
                    return Ok(());
                }
                Verdict::Again(why) => info!("{why}; reading it again"),
            }
        }
    }

    /// The executions of each parent. A parent that is refused is a warning: most campaigns that are made in the dashboard
    /// have no executions that the API shows.
    async fn executions(&mut self, campaign_ids: &[String]) -> Result<(), Failure> {
        let parents = match campaign_ids {
            [] => self.parents().await?,
            ids => ids.iter().cloned().collect(),
        };
        let mut refusals = Refusals::default();
        let mut answered = 0_u64;
        for parent in parents {
            let found = match self.executions_of(&parent).await {
                Ok(found) => found,
                Err(failure) if is_refusal(&failure) => {
                    refusals.add(&parent, failure);
                    if answered == 0
                        && refusals.count >= TELLING_REFUSALS
                        && let Some(failure) = refusals.of_the_api()
                    {
                        return Err(failure);
                    }
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            answered += 1;
            self.write(move || {
                let line = |json| ndjson::record_with("parent_campaign_id", &parent, json);
                Ok(found.iter().map(|(id, json)| (format!("{parent}\n{id}"), line(json))).collect())
            })
            .await?;
        }
        match refusals.of_all().filter(|_| answered == 0) {
            Some(failure) => Err(failure),
            None => {
                self.warnings.extend(refusals.warnings());
                Ok(())
            }
        }
    }

    /// The campaigns of a fresh listing that have executions.
    async fn parents(&mut self) -> Result<BTreeSet<String>, Failure> {
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
                Verdict::Accepted(warnings) => {
                    // What was repaired in the listing is stored nowhere.
                    self.accept(warnings, Oddities::default());
                    return Ok(parents);
                }
                Verdict::Again(why) => info!("{why}; reading it again"),
            }
        }
    }

    async fn executions_of(&mut self, parent: &str) -> Result<BTreeMap<String, Box<RawValue>>, Failure> {
        let what = format!("executions of {}", moengage::shown(parent));
        let mut readings = Readings::of(format!("the listing of {what}"));
        loop {
            let before = self.id_bytes;
            let (found, reading, oddities) = self.read_executions_of(parent, &what).await?;
            match readings.judge(reading)? {
                Verdict::Accepted(warnings) => {
                    self.accept(warnings, oddities);
                    return Ok(found);
                }
                Verdict::Again(why) => {
                    self.id_bytes = before;
                    info!("{why}; reading it again");
                }
            }
        }
    }

    async fn read_executions_of(
        &mut self,
        parent: &str,
        what: &str,
    ) -> Result<(BTreeMap<String, Box<RawValue>>, Reading, Oddities), Failure> {
        let (mut found, mut bytes) = (BTreeMap::new(), 0);
        let (mut reading, mut oddities) = (Reading::default(), Oddities::default());
        let mut totals = Totals::default();
        let (mut number, mut received) = (0, 0);
        loop {
            number += 1;
            let question = Question::Executions { parent, page: number };
            let page = match self.ask(&question).await {
                Ok(page) => page,
                Err(refusal) if received > 0 && is_refusal(&refusal) => {
                    if !totals.is_reached(received) {
                        reading.remarks.push(format!(
                            "page {number} of the {what} was refused; the {received} of the pages before are stored: {refusal}"
                        ));
                        return Ok((found, reading, oddities));
                    }
                    break;
                }
                Err(failure) => return Err(failure),
            };
            oddities.add(&page, &question);
            totals.add(&page);
            received += page.items;
            let before = found.len();
            for Record { id, json } in page.records {
                bytes += id.len() + json.get().len();
                found.insert(id, json);
            }
            if bytes > MOST_EXECUTION_BYTES {
                let message = format!("the {what} are more than {MOST_EXECUTION_BYTES} bytes");
                return Err(Failure::new(Outcome::Corrupt, message));
            }
            let is_full = page.items >= question.limit();
            if page.total.is_none() && is_full && found.len() == before {
                reading.changed = Some(format!("page {number} of the {what} brought nothing new"));
                break;
            }
            // A total that a full page reaches may count that page alone.
            if found.len() == before || (!is_full && totals.is_reached(received)) {
                break;
            }
        }
        // MoEngage counts how often the parent was executed, which may be more than it lists.
        match totals.judge(found.len() as u64, what) {
            Ok(None) => {}
            Ok(Some(remark)) => reading.remarks.push(remark),
            Err(changed) => reading.changed = Some(changed),
        }
        Ok((found, reading, oddities))
    }

    async fn statistics(&mut self, query: &StatsQuery) -> Result<(), Failure> {
        let ids: BTreeSet<_> = query.campaign_ids.iter().cloned().collect();
        let ids = Vec::from_iter(ids);
        let batches: Vec<&[String]> = match ids.as_slice() {
            [] => vec![&[]],
            ids => ids.chunks(Question::CAMPAIGN_IDS).collect(),
        };
        for batch in batches {
            let mut readings = Readings::of("the list of campaigns with statistics");
            loop {
                // A campaign that has gone meanwhile must not stay from the reading before. Batches are never that large.
                if ids.is_empty() {
                    self.restart();
                }
                let (reading, oddities) = self.statistics_of(query, batch).await?;
                match readings.judge(reading)? {
                    Verdict::Accepted(warnings) => {
                        self.accept(warnings, oddities);
                        break;
                    }
                    Verdict::Again(why) => info!("{why}; reading it again"),
                }
            }
        }
        Ok(())
    }

    async fn statistics_of(
        &mut self,
        query: &StatsQuery,
        campaign_ids: &[String],
    ) -> Result<(Reading, Oddities), Failure> {
        let window = query.window(self.partition.id.date);
        let what = "campaigns with statistics";
        let (mut reading, mut oddities) = (Reading::default(), Oddities::default());
        let mut seen = HashSet::new();
        let mut totals = Totals::default();
        let mut offset = 0;
        loop {
            let question = Question::Stats { query, window, campaign_ids, offset };
            let page = match self.ask(&question).await {
                Ok(page) => page,
                // The page after all that MoEngage counts need not exist.
                Err(failure) if totals.is_reached(offset) && says_nothing_of_the_rest(&failure) => {
                    if failure.outcome != Outcome::Rejected {
                        reading.remarks.push(format!(
                            "{}, after all that MoEngage counts, could not be read: {failure}",
                            question.place()
                        ));
                    }
                    break;
                }
                Err(failure) => return Err(failure),
            };
            oddities.add(&page, &question);
            totals.add(&page);
            offset += question.limit();
            let is_full = page.items >= question.limit();
            // A request that names campaigns names no more than fit on one page. A total that a full page reaches may count
            // that page alone, or be too small.
            let is_last = !campaign_ids.is_empty() || (!page.is_followed && !is_full && totals.is_reached(offset));
            let is_promised = page.is_followed && page.total.is_none();
            let (is_empty, before) = (page.items == 0, seen.len());
            seen.extend(page.records.iter().map(|record| record.id.clone()));
            let shape = query.shape;
            let lines = move |Record { id, json }| match ndjson::statistics(&id, &json, shape) {
                Ok(lines) => Ok((id, lines)),
                Err(too_much) => Err(Failure::new(Outcome::Corrupt, too_much.to_string())),
            };
            self.keep(page, lines).await?;
            if is_promised && seen.len() == before {
                let odd = "a page of statistics says that more follow, and brought nothing new".to_owned();
                match is_empty {
                    true => reading.doubts.push(odd),
                    false => reading.changed = Some(odd),
                }
                break;
            }
            if is_last || is_empty || seen.len() == before {
                break;
            }
        }
        match (totals.judge(seen.len() as u64, what), campaign_ids) {
            (Ok(None), _) => {}
            // Read twice: MoEngage's total and its pages agree otherwise.
            (Ok(Some(doubt)), []) => reading.doubts.push(doubt),
            // The total counts the campaigns that were named, those without statistics too.
            (Ok(Some(remark)), named) => {
                let missing: Vec<_> =
                    named.iter().filter(|id| !seen.contains(*id)).map(|id| moengage::shown(id)).collect();
                reading.remarks.push(match missing.is_empty() {
                    true => remark,
                    false => format!("{remark}; without statistics: {}", missing.join(", ")),
                });
            }
            (Err(changed), _) => reading.changed = Some(changed),
        }
        Ok((reading, oddities))
    }

    /// Asks for one page, again where that may help: what was read so far is worth some patience.
    async fn ask(&mut self, question: &Question<'_>) -> Result<Page, Failure> {
        let (ctx, source) = (self.ctx, question.source());
        let clock = ctx.clock.as_ref();
        if self.pages >= MOST_PAGES {
            let message = format!("{source} has no end: {MOST_PAGES} pages came, and more are to come");
            return Err(Failure::new(Outcome::Corrupt, message));
        }
        let mut number = 0;
        loop {
            number += 1;
            self.frame.uncounted(ctx.pace.turn(clock, &self.report.workspace.app_id, source)).await;
            self.requests += 1;
            let asked = ctx.vendor.page(self.report, question, &self.api_key, &request_id()).await;
            let failure = match asked {
                Ok(page) => {
                    self.pages += 1;
                    self.frame.restart();
                    self.arrived(&page)?;
                    self.count_ids(&page)?;
                    return Ok(page);
                }
                Err(Unread { failure, page }) => {
                    self.unread = page;
                    failure
                }
            };
            ctx.note_vendor_date(self.report, failure.evidence.vendor_date);
            if failure.outcome == Outcome::Unauthorized && number < QUICK_TRIES {
                match ctx.secrets.renewed(&self.report.workspace, Purpose::Apis, &self.api_key).await {
                    Ok(Some(key)) => {
                        self.api_key = key;
                        continue;
                    }
                    Ok(None) => {}
                    Err(problem) => return Err(context::unreadable(failure, &problem)),
                }
            }
            let is_patient = self.is_answered && number < QUICK_TRIES;
            if failure.outcome == Outcome::RateLimited {
                let asked = failure
                    .evidence
                    .wait(ctx.clock.now())
                    .filter(|wait| wait.is_positive() && *wait <= ABSURD_RETRY_AFTER);
                let wait = asked.unwrap_or(USUAL_BREAK);
                // Other attempts may be in the middle of a listing.
                ctx.pace.rest(clock, &self.report.workspace.app_id, source, wait.min(LONGEST_BREAK));
                if !is_patient || wait > LONGEST_BREAK {
                    return Err(failure);
                }
                info!(wait_seconds = wait.as_secs(), "{}", failure.message);
            } else if let Some(wait) =
                retry::quick(number, jitter()).filter(|_| is_patient && failure.outcome.is_retried_quickly())
            {
                debug!("asking again: {}", failure.message);
                clock.sleep(wait).await;
            } else {
                return Err(failure);
            }
        }
    }

    /// Takes note of an answer.
    fn arrived(&mut self, page: &Page) -> Result<(), Failure> {
        self.ctx.note_vendor_date(self.report, page.vendor_date);
        self.ctx.progress.advance(&self.partition.id, page.bytes);
        if !self.is_answered {
            self.is_answered = true;
            (self.answered)();
            self.check_time(page.vendor_date)?;
        }
        self.vendor_date = page.vendor_date.or(self.vendor_date);
        Ok(())
    }

    /// Judges the first answer by the clocks; the pages that follow were read after it.
    fn check_time(&self, vendor_date: Option<Timestamp>) -> Result<(), Failure> {
        let (partition, now) = (self.partition, self.ctx.clock.now());
        let (outcome, message) =
            match partition::timing(partition, now, vendor_date, self.ctx.is_skew_confirmed(self.report)) {
                Timing::Timely | Timing::LastChance => return Ok(()),
                Timing::TooEarly => (Outcome::Unavailable, partition::not_reached(partition, vendor_date)),
                Timing::Over => (Outcome::NotPublished, over(partition)),
                Timing::Unclear => (Outcome::Unavailable, unclear(partition, now, vendor_date)),
            };
        Err(Failure::after(&Evidence { vendor_date, ..Evidence::default() }, outcome, message))
    }

    /// Forgets what was read.
    fn restart(&mut self) {
        if let Some(spool) = &mut self.spool {
            spool.clear();
        }
        self.pages = 0;
        self.id_bytes = 0;
    }

    /// Takes over what a reading that counts says of itself.
    fn accept(&mut self, warnings: Vec<String>, oddities: Oddities) {
        self.warnings.extend(warnings);
        self.oddities.merge(oddities);
    }

    fn count_ids(&mut self, page: &Page) -> Result<(), Failure> {
        self.id_bytes += page.records.iter().map(|record| record.id.len() as u64).sum::<u64>();
        match self.id_bytes <= MOST_ID_BYTES {
            true => Ok(()),
            false => {
                let message = format!("the ids of the records are more than {MOST_ID_BYTES} bytes");
                Err(Failure::new(Outcome::Corrupt, message))
            }
        }
    }

    async fn keep(
        &mut self,
        page: Page,
        lines: impl Fn(Record) -> Result<(String, Lines), Failure> + Send + 'static,
    ) -> Result<(), Failure> {
        self.write(move || page.records.into_iter().map(lines).collect()).await
    }

    /// Writes records to the spool, where blocking is allowed.
    async fn write(
        &mut self,
        records: impl FnOnce() -> Result<Vec<(String, Lines)>, Failure> + Send + 'static,
    ) -> Result<(), Failure> {
        let Some(mut spool) = self.spool.take() else {
            return Err(Failure::new(Outcome::StoreFailed, "the records on disk were lost".into()));
        };
        let written = blocking(move || {
            let records = match records() {
                Ok(records) => records,
                Err(failure) => return Ok(Err(failure)),
            };
            spool.put(records)?;
            Ok(Ok(spool))
        });
        let spool = written.await.map_err(|error| spool_failure("write", &error))??;
        let (bytes, limit) = (spool.bytes(), self.ctx.config.limits.inflated_bytes);
        self.spool = Some(spool);
        match bytes <= limit {
            true => Ok(()),
            false => {
                let message = format!("its records are more than {limit} bytes; see limits.inflated_bytes");
                Err(Failure::new(Outcome::Corrupt, message))
            }
        }
    }
}

/// What one reading of a listing says of itself.
#[derive(Debug, Default)]
struct Reading {
    /// How the listing changed while it was read: it is to be read again.
    changed: Option<String>,
    /// What is odd and may be due to a change: two readings in a row that agree on it make it a fact.
    doubts: Vec<String>,
    /// What is odd and the vendor's documented way.
    remarks: Vec<String>,
}

/// The readings of one listing, until one counts.
struct Readings {
    what: String,
    number: usize,
    doubts: Vec<String>,
}

enum Verdict {
    /// The reading counts, with these warnings.
    Accepted(Vec<String>),
    /// It does not, for this reason.
    Again(String),
}

impl Readings {
    fn of(what: impl Into<String>) -> Self {
        Self { what: what.into(), number: 0, doubts: Vec::new() }
    }

    /// # Errors
    ///
    /// When the listing never stood still.
    fn judge(&mut self, reading: Reading) -> Result<Verdict, Failure> {
        self.number += 1;
        let Reading { changed, doubts, remarks } = reading;
        let why = match changed {
            None if doubts == self.doubts => {
                return Ok(Verdict::Accepted(doubts.into_iter().chain(remarks).collect()));
            }
            None if doubts.is_empty() => return Ok(Verdict::Accepted(remarks)),
            None => doubts.join("; "),
            Some(changed) => changed,
        };
        self.doubts = doubts;
        match self.number < MOST_READINGS {
            true => Ok(Verdict::Again(why)),
            false => {
                let message = format!("{} was never whole in {MOST_READINGS} readings; at the last, {why}", self.what);
                Err(Failure::new(Outcome::Corrupt, message))
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
    oddities: Oddities,
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
            oddities: Oddities::default(),
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
            self.oddities.add(&page, &question);
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

/// What the pages of one reading say of how many there are.
#[derive(Default)]
struct Totals {
    said: BTreeSet<u64>,
    pages: u64,
    /// Pages whose total is the number of their own items.
    own: u64,
}

impl Totals {
    fn add(&mut self, page: &Page) {
        self.said.extend(page.total);
        self.pages += 1;
        self.own += u64::from(page.total == Some(page.items));
    }

    /// Whether `count` reaches the largest total of any page.
    fn is_reached(&self, count: u64) -> bool {
        self.said.last().is_some_and(|most| count >= *most)
    }

    /// What is odd about the totals, if `found` came after the listing ended. The error says how they changed meanwhile.
    fn judge(&self, found: u64, what: &str) -> Result<Option<String>, String> {
        // A server that counts each page separately does not count the whole.
        if self.pages > 1 && self.own == self.pages {
            return Ok(None);
        }
        match (self.said.first(), self.said.last()) {
            (Some(least), Some(most)) if least != most => {
                Err(format!("the number of {what} changed between {least} and {most} while they were read"))
            }
            (Some(total), _) if *total != found => {
                Ok(Some(format!("{found} of {total} {what} came, by MoEngage's own count")))
            }
            _ => Ok(None),
        }
    }
}

/// What the pages of a snapshot held that JSON does not allow: how often, and where first.
#[derive(Debug, Default)]
struct Oddities(BTreeMap<Oddity, (u64, String)>);

impl Oddities {
    fn add(&mut self, page: &Page, question: &Question<'_>) {
        for repair in &page.repairs {
            let record = repair.record.as_ref().map(|id| format!(", in the record {id}")).unwrap_or_default();
            let place = || format!("{}, line {} column {}{record}", question.place(), repair.line, repair.column);
            self.0.entry(repair.oddity).or_insert_with(|| (0, place())).0 += repair.count;
        }
    }

    fn merge(&mut self, other: Self) {
        for (oddity, (count, place)) in other.0 {
            self.0.entry(oddity).or_insert((0, place)).0 += count;
        }
    }

    fn warnings(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(oddity, (count, place))| {
            format!("MoEngage's JSON held {oddity}: {count} in all, the first on {place}")
        })
    }
}

/// Whether the vendor refuses what was asked for, or the whole API, rather than who asks.
fn is_refusal(failure: &Failure) -> bool {
    failure.outcome == Outcome::Rejected
        || (failure.outcome == Outcome::Unauthorized && failure.evidence.http_status == Some(403))
}

/// Whether a failure to read one page more than MoEngage counts may be due to there being none.
fn says_nothing_of_the_rest(failure: &Failure) -> bool {
    matches!(failure.outcome, Outcome::Rejected | Outcome::Unavailable | Outcome::Corrupt)
}

/// Parents of executions that were refused.
#[derive(Default)]
struct Refusals {
    count: usize,
    /// The first ones, as far as they are named.
    named: Vec<String>,
    /// The first one that is about its parent alone.
    of_a_parent: Option<Failure>,
    /// The first 403, which may be about the whole API.
    forbidden: Option<Failure>,
}

impl Refusals {
    fn add(&mut self, parent: &str, failure: Failure) {
        self.count += 1;
        if self.named.len() < MOST_NAMED {
            let parent = moengage::shown(parent);
            self.named.push(format!("the executions of {parent} are not here, they were refused: {}", failure.message));
        }
        let kind = match failure.outcome {
            Outcome::Unauthorized => &mut self.forbidden,
            _ => &mut self.of_a_parent,
        };
        kind.get_or_insert(failure);
    }

    /// The refusal of the whole API: every one was a 403.
    fn of_the_api(&self) -> Option<Failure> {
        self.forbidden.clone().filter(|_| self.of_a_parent.is_none())
    }

    /// The failure of an attempt in which no parent was answered.
    fn of_all(&self) -> Option<Failure> {
        let of_a_parent = self.of_a_parent.clone().map(|failure| Failure {
            message: match self.count {
                1 => format!("the only parent of executions was refused ({ONLY_OF_THE_API}): {}", failure.message),
                count => format!(
                    "all {count} parents of executions were refused ({ONLY_OF_THE_API}); the first: {}",
                    failure.message
                ),
            },
            ..failure
        });
        self.of_the_api().or(of_a_parent)
    }

    fn warnings(self) -> Vec<String> {
        let more = self.count - self.named.len();
        let rest = (more > 0).then(|| format!("the executions of {more} more parents are not here, they were refused"));
        self.named.into_iter().chain(rest).collect()
    }
}

fn expiry(partition: &Partition) -> String {
    partition.expires_at.map_or("its expiry".to_owned(), |expiry| expiry.to_string())
}

fn over(partition: &Partition) -> String {
    let expiry = expiry(partition);
    format!(
        "a live listing shows only the present, and this one was to be read before {expiry}; it can't be had any more"
    )
}

fn unclear(partition: &Partition, now: Timestamp, vendor_date: Option<Timestamp>) -> String {
    let expiry = expiry(partition);
    let date = vendor_date.map_or("is absent".to_owned(), |date| format!("says {date}"));
    format!(
        "this listing was to be read before {expiry}; the local clock says {now}, while the Date of MoEngage's answer \
         {date}: it is neither stored nor given up until the two agree"
    )
}

fn spool_failure(action: &str, error: &io::Error) -> Failure {
    Failure::new(
        Outcome::StoreFailed,
        format!("could not {action} the file beside the ledger in which pages are gathered: {error}"),
    )
}

async fn blocking<T: Send + 'static>(step: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(step).await.unwrap_or_else(|failure| Err(io::Error::other(failure)))
}

#[expect(clippy::disallowed_methods, reason = "the shell draws the random numbers")]
fn request_id() -> RequestId {
    RequestId::new(rand::random())
}
