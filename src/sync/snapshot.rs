//! A listing, read page by page until it is whole.
//!
//! This file owns which page comes next and when a listing is complete. A snapshot is whole or absent: a page that
//! fails for good fails the attempt, and the next one begins anew. It must not know what a request looks like, nor where
//! the snapshot goes.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tracing::{debug, info};

use super::{Context, jitter, spool::Spool};
use crate::{
    config::{CampaignsQuery, Query, Report, StatsQuery},
    moengage::{self, Failure, Page, Question, Record},
    ndjson::{self, Lines},
    outcome::{self, Outcome, QUICK_TRIES},
    report::Partition,
};

/// No snapshot has more: a million and a half campaigns.
const MOST_PAGES: u64 = 100_000;

/// How often a listing that changes while it is read is begun anew.
const MOST_READINGS: usize = 5;

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
    /// `Date` of the last answer.
    pub(super) vendor_date: Option<Timestamp>,
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
/// Whatever kept it from becoming whole. [`Outcome::NotPublished`] for a live listing whose time is over.
pub(super) async fn gather(
    ctx: &Context,
    report: &Report,
    partition: &Partition,
    api_key: &SecretString,
    answered: &(dyn Fn() + Send + Sync),
) -> Result<Snapshot, Failure> {
    let expires_at = partition.expires_at.filter(|_| partition.source.is_live_listing());
    let folder = ctx.ledger.path().parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.map_or_else(|| ".".into(), |folder| folder.to_owned());
    let spool = blocking(move || Spool::create(&folder)).await.map_err(|error| spool_failure("make", &error))?;
    let mut reader = Reader {
        ctx,
        report,
        partition,
        expires_at,
        api_key,
        answered,
        spool: Some(spool),
        is_answered: false,
        pages: 0,
        requests: 0,
        vendor_date: None,
    };
    match &report.query {
        Query::Campaigns(query) => reader.campaigns(query).await?,
        Query::Executions { campaign_ids } => reader.executions(campaign_ids).await?,
        Query::Stats(query) => reader.statistics(query).await?,
        Query::Archive => return Err(Failure::new(Outcome::Rejected, format!("{} is no listing", report.source))),
    }
    let Reader { pages, requests, vendor_date, spool, .. } = reader;
    let spool = spool.ok_or_else(|| Failure::new(Outcome::StoreFailed, "the spool was lost".into()))?;
    let name = report.file_name(partition.id.date);
    let name = name.strip_suffix(".gz").unwrap_or(&name).to_owned();
    Ok(Snapshot { records: spool.lines(), pages, requests, vendor_date, chunks: spool.into_gzip(name) })
}

struct Reader<'a> {
    ctx: &'a Context,
    report: &'a Report,
    partition: &'a Partition,
    /// Of a live listing.
    expires_at: Option<Timestamp>,
    api_key: &'a SecretString,
    answered: &'a (dyn Fn() + Send + Sync),
    /// Lent to the thread that writes.
    spool: Option<Spool>,
    is_answered: bool,
    pages: u64,
    requests: u64,
    vendor_date: Option<Timestamp>,
}

/// Whether a listing stood still while it was read.
enum Reading {
    Whole,
    Changed(String),
}

impl Reader<'_> {
    async fn campaigns(&mut self, query: &CampaignsQuery) -> Result<(), Failure> {
        let mut changed = String::new();
        for _ in 0..MOST_READINGS {
            self.begin_anew();
            let mut listing = Listing::new(query);
            while let Some(page) = listing.next(self).await? {
                self.keep(page, |Record { id, json }| Ok((id, ndjson::record(&json)))).await?;
            }
            match listing.reading() {
                Reading::Whole => return Ok(()),
                Reading::Changed(how) => changed = self.say_again(how),
            }
        }
        Err(restless("the listing of campaigns", &changed))
    }

    async fn executions(&mut self, campaign_ids: &[String]) -> Result<(), Failure> {
        let parents = match campaign_ids {
            [] => self.parents().await?,
            ids => ids.iter().cloned().collect(),
        };
        for parent in &parents {
            let (mut found, mut changed) = (None, String::new());
            for _ in 0..MOST_READINGS {
                match self.executions_of(parent).await {
                    Ok((Reading::Whole, records)) => {
                        found = Some(records);
                        break;
                    }
                    Ok((Reading::Changed(how), _)) => changed = self.say_again(how),
                    // Removed since the listing was read? Then there is nothing to ask for.
                    Err(refused) if refused.outcome == Outcome::Rejected && campaign_ids.is_empty() => {
                        match self.parents().await?.contains(parent) {
                            true => return Err(refused),
                            false => found = Some(BTreeMap::new()),
                        }
                        break;
                    }
                    Err(failure) => return Err(failure),
                }
            }
            let what = format!("the listing of executions of {parent}");
            let found = found.ok_or_else(|| restless(&what, &changed))?;
            let parent = parent.clone();
            self.write(move || {
                let line = |json| ndjson::record_with("parent_campaign_id", &parent, json);
                Ok(found.iter().map(|(id, json)| (format!("{parent}\n{id}"), line(json))).collect())
            })
            .await?;
        }
        Ok(())
    }

    /// The campaigns of a fresh listing that have executions.
    async fn parents(&mut self) -> Result<BTreeSet<String>, Failure> {
        let query = CampaignsQuery::default();
        let mut changed = String::new();
        for _ in 0..MOST_READINGS {
            let mut parents = BTreeSet::new();
            let mut listing = Listing::new(&query);
            while let Some(page) = listing.next(self).await? {
                let recurring = page.records.into_iter().filter(|record| moengage::has_executions(&record.json));
                parents.extend(recurring.map(|record| record.id));
            }
            match listing.reading() {
                Reading::Whole => return Ok(parents),
                Reading::Changed(how) => changed = self.say_again(how),
            }
        }
        Err(restless("the listing of campaigns", &changed))
    }

    async fn executions_of(&mut self, parent: &str) -> Result<(Reading, BTreeMap<String, Box<RawValue>>), Failure> {
        let mut found = BTreeMap::new();
        let mut totals = Totals::default();
        let (mut number, mut received) = (0, 0);
        loop {
            number += 1;
            let question = Question::Executions { parent, page: number };
            let page = self.ask(&question).await?;
            totals.add(page.total);
            received += page.items;
            let is_last = match page.total {
                Some(total) => received >= total || page.items == 0,
                None => page.items < question.limit(),
            };
            let before = found.len();
            found.extend(page.records.into_iter().map(|record| (record.id, record.json)));
            let what = format!("executions of {parent}");
            if page.total.is_none() && page.items > 0 && found.len() == before {
                return Ok((Reading::Changed(format!("page {number} of the {what} brought nothing new")), found));
            }
            if is_last || found.len() == before {
                return Ok((totals.judge(found.len() as u64, &what), found));
            }
        }
    }

    async fn statistics(&mut self, query: &StatsQuery) -> Result<(), Failure> {
        let ids: BTreeSet<_> = query.campaign_ids.iter().cloned().collect();
        let ids = Vec::from_iter(ids);
        let batches: Vec<&[String]> = match ids.as_slice() {
            [] => vec![&[]],
            ids => ids.chunks(Question::CAMPAIGN_IDS).collect(),
        };
        for batch in batches {
            let (mut is_whole, mut changed) = (false, String::new());
            for _ in 0..MOST_READINGS {
                // A campaign that has gone meanwhile must not stay from the reading before. Batches are never that large.
                if ids.is_empty() {
                    self.begin_anew();
                }
                match self.statistics_of(query, batch).await? {
                    Reading::Whole => {
                        is_whole = true;
                        break;
                    }
                    Reading::Changed(how) => changed = self.say_again(how),
                }
            }
            if !is_whole {
                return Err(restless("the list of campaigns with statistics", &changed));
            }
        }
        Ok(())
    }

    async fn statistics_of(&mut self, query: &StatsQuery, campaign_ids: &[String]) -> Result<Reading, Failure> {
        let window = query.window(self.partition.id.date);
        let mut seen = HashSet::new();
        let mut totals = Totals::default();
        let mut offset = 0;
        loop {
            let question = Question::Stats { query, window, campaign_ids, offset };
            let page = self.ask(&question).await?;
            totals.add(page.total);
            offset += question.limit();
            let is_last = match page.total {
                Some(total) => offset >= total || page.items == 0,
                None => page.items < question.limit() && !page.is_followed,
            };
            let is_promised = page.total.is_none() && page.is_followed;
            let before = seen.len();
            seen.extend(page.records.iter().map(|record| record.id.clone()));
            let shape = query.shape;
            let lines = move |Record { id, json }| match ndjson::statistics(&id, &json, shape) {
                Ok(lines) => Ok((id, lines)),
                Err(too_much) => Err(Failure::new(Outcome::Corrupt, too_much.to_string())),
            };
            self.keep(page, lines).await?;
            if is_promised && seen.len() == before {
                let how = "a page of statistics says that more follow, and brought nothing new";
                return Ok(Reading::Changed(how.into()));
            }
            if is_last || seen.len() == before {
                return Ok(totals.judge(seen.len() as u64, "campaigns with statistics"));
            }
        }
    }

    /// Asks for one page, again where that may help: what was read so far is worth some patience.
    async fn ask(&mut self, question: &Question<'_>) -> Result<Page, Failure> {
        let (ctx, workspace, source) = (self.ctx, &self.report.workspace.name, question.source());
        let clock = ctx.clock.as_ref();
        if self.pages >= MOST_PAGES {
            let message = format!("{source} has no end: {MOST_PAGES} pages came, and more are to come");
            return Err(Failure::new(Outcome::Corrupt, message));
        }
        let mut number = 0;
        loop {
            number += 1;
            ctx.pace.turn(clock, &self.report.workspace.app_id, source).await;
            self.requests += 1;
            let asked = ctx.vendor.page(self.report, question, self.api_key, &request_id()).await;
            let failure = match asked {
                Ok(page) => {
                    self.pages += 1;
                    self.arrived(&page)?;
                    return Ok(page);
                }
                Err(failure) => failure,
            };
            ctx.note_vendor_date(self.report, failure.vendor_date);
            let is_patient = self.is_answered && number < QUICK_TRIES;
            if failure.outcome == Outcome::RateLimited {
                let asked = failure.wait(ctx.clock.now()).filter(SignedDuration::is_positive);
                let wait = asked.unwrap_or(USUAL_BREAK);
                // Others may be in the middle of a listing, whatever becomes of this one.
                ctx.pace.rest(clock, &self.report.workspace.app_id, source, wait.min(LONGEST_BREAK));
                if !is_patient || wait > LONGEST_BREAK {
                    return Err(failure);
                }
                info!(workspace, report = self.report.id, wait_seconds = wait.as_secs(), "{}", failure.message);
            } else if let Some(wait) =
                outcome::quick_retry(number, jitter()).filter(|_| is_patient && failure.outcome.is_retried_quickly())
            {
                debug!(workspace, report = self.report.id, "asking again: {}", failure.message);
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
            match (page.vendor_date, self.expires_at) {
                (Some(date), Some(expires_at)) if date >= expires_at => return Err(over(expires_at, date)),
                // Neither to be stored under a date that may be over, nor to be given up by the local clock alone.
                (None, Some(expires_at)) if self.ctx.clock.now() >= expires_at => {
                    let message = "MoEngage's answer has no Date, which would tell whether this listing's time is over";
                    return Err(Failure::new(Outcome::Unavailable, message.into()));
                }
                _ => {}
            }
        }
        self.vendor_date = page.vendor_date.or(self.vendor_date);
        Ok(())
    }

    /// Forgets what was read.
    fn begin_anew(&mut self) {
        if let Some(spool) = &mut self.spool {
            spool.clear();
        }
        self.pages = 0;
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
        self.spool = Some(written.await.map_err(|error| spool_failure("write", &error))??);
        Ok(())
    }

    /// Says that the listing is read again, and hands on why.
    fn say_again(&self, how: String) -> String {
        info!(workspace = self.report.workspace.name, report = self.report.id, "{how}; reading it again");
        how
    }
}

/// The pages of the listing of campaigns, which says no total.
struct Listing<'a> {
    query: &'a CampaignsQuery,
    page: u64,
    before: Vec<String>,
    seen: HashSet<String>,
    is_over: bool,
    changed: Option<String>,
}

impl<'a> Listing<'a> {
    fn new(query: &'a CampaignsQuery) -> Self {
        Self { query, page: 1, before: Vec::new(), seen: HashSet::new(), is_over: false, changed: None }
    }

    /// The next page; `None` after the last.
    async fn next(&mut self, reader: &mut Reader<'_>) -> Result<Option<Page>, Failure> {
        if self.is_over {
            return Ok(None);
        }
        let question = Question::Campaigns { query: self.query, page: self.page };
        let page = reader.ask(&question).await?;
        let present = ids(&page);
        if page.items == 0 && self.page > 1 {
            // A full page and then nothing: either that was the last, or campaigns have gone, and others moved up into
            // pages that were read before.
            self.is_over = true;
            let question = Question::Campaigns { query: self.query, page: self.page - 1 };
            let before = reader.ask(&question).await?;
            if ids(&before) != self.before {
                self.changed = Some("the listing of campaigns became shorter".into());
            }
            return Ok(Some(before));
        }
        if page.items < question.limit() {
            self.is_over = true;
        } else if present.iter().all(|id| self.seen.contains(id)) {
            self.is_over = true;
            self.changed = Some(format!("page {} holds nothing that was not on another", self.page));
        }
        self.seen.extend(present.iter().cloned());
        self.before = present;
        self.page += 1;
        Ok(Some(page))
    }

    fn reading(self) -> Reading {
        self.changed.map_or(Reading::Whole, Reading::Changed)
    }
}

fn ids(page: &Page) -> Vec<String> {
    page.records.iter().map(|record| record.id.clone()).collect()
}

/// What the pages of one reading say of how many there are.
#[derive(Default)]
struct Totals {
    said: BTreeSet<u64>,
}

impl Totals {
    fn add(&mut self, total: Option<u64>) {
        self.said.extend(total);
    }

    fn judge(&self, found: u64, what: &str) -> Reading {
        match (self.said.first(), self.said.last()) {
            (Some(least), Some(most)) if least != most => Reading::Changed(format!(
                "the number of {what} changed between {least} and {most} while they were read"
            )),
            (Some(total), _) if *total != found => Reading::Changed(format!("{found} of {total} {what} came")),
            _ => Reading::Whole,
        }
    }
}

fn over(expires_at: Timestamp, vendor_date: Timestamp) -> Failure {
    let message = format!(
        "a live listing shows only the present, and this one was to be read before {expires_at}; it can't be had any more"
    );
    Failure { vendor_date: Some(vendor_date), ..Failure::new(Outcome::NotPublished, message) }
}

fn restless(what: &str, changed: &str) -> Failure {
    let message = format!("{what} was never whole in {MOST_READINGS} readings; at the last, {changed}");
    Failure::new(Outcome::Corrupt, message)
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
fn request_id() -> String {
    format!("moesync-{:016x}", rand::random::<u64>())
}
