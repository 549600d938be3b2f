//! Reads one page after another into the spool, within the limits of a snapshot.
//!
//! This file owns requests, their repetition, and what of their pages is kept. It must not know which page comes next.

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use tracing::{debug, info, warn};

use super::{Snapshot, reading::RepairCounts};
use crate::{
    moengage::{Page, Question, Record, RequestId, Unread},
    ndjson::Lines,
    outcome::{Evidence, Failure, Outcome},
    report::Partition,
    retry::{self, ABSURD_RETRY_AFTER, QUICK_TRIES},
    sync::{
        pace,
        secrets::{self, Purpose},
        spool::Spool,
        work::{Milestone, Work},
    },
};

/// Most pages of one snapshot: a million and a half campaigns.
const MOST_PAGES: u64 = 100_000;

/// Most warnings of one snapshot.
const MOST_WARNINGS: usize = 100;

/// Most bytes of the ids of one snapshot, which are kept in memory: a million ids of MoEngage's.
const MOST_ID_BYTES: u64 = 32 * 1024 * 1024;

/// The longest pause within a listing after a 429. A longer one ends the attempt.
const LONGEST_BREAK: SignedDuration = SignedDuration::from_mins(5);

/// The pause after a 429 that states none: MoEngage limits requests by the minute.
const USUAL_BREAK: SignedDuration = SignedDuration::from_mins(1);

pub(super) struct Reader<'a> {
    work: &'a Work<'a>,
    api_key: SecretString,
    spool: Spool,
    is_answered: bool,
    pages: u64,
    requests: u64,
    /// Bytes of the ids on all pages that count.
    pub(super) id_bytes: u64,
    pub(super) warnings: Vec<String>,
    /// Of the readings that count.
    repairs: RepairCounts,
    vendor_date: Option<Timestamp>,
    /// The last page that could not be read.
    unread: Option<Bytes>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(work: &'a Work<'a>, api_key: SecretString, spool: Spool) -> Self {
        Self {
            work,
            api_key,
            spool,
            is_answered: false,
            pages: 0,
            requests: 0,
            id_bytes: 0,
            warnings: Vec::new(),
            repairs: RepairCounts::default(),
            vendor_date: None,
            unread: None,
        }
    }

    pub(super) fn partition(&self) -> &'a Partition {
        &self.work.claim.entry.partition
    }

    /// The snapshot, once the whole listing was read.
    pub(super) fn finish(self) -> Snapshot {
        let mut warnings = self.warnings;
        if warnings.len() > MOST_WARNINGS {
            let more = warnings.len() - MOST_WARNINGS;
            warnings.truncate(MOST_WARNINGS);
            warnings.push(format!("{more} more warnings are left out"));
        }
        warnings.extend(self.repairs.warnings());
        for warning in &warnings {
            warn!("{warning}");
        }
        let name = self.work.report.file_name(self.work.claim.entry.partition.id.date);
        let name = name.strip_suffix(".gz").unwrap_or(&name).to_owned();
        Snapshot {
            records: self.spool.lines(),
            pages: self.pages,
            requests: self.requests,
            warnings,
            evidence: Evidence {
                http_status: Some(200),
                vendor_date: self.vendor_date,
                seen: true,
                ..Evidence::default()
            },
            chunks: self.spool.into_gzip(name),
        }
    }

    /// How reading ended that did not complete.
    pub(super) fn unread(self, failure: Failure) -> Unread {
        Unread { failure, page: self.unread }
    }

    /// Requests one page, and repeats the request where that may succeed: a failure costs all pages read so far.
    pub(super) async fn ask(&mut self, question: &Question<'_>) -> Result<Page, Failure> {
        let (Work { ctx, report, frame, .. }, source) = (self.work, question.source());
        let (clock, app_id) = (ctx.clock.as_ref(), &report.workspace.app_id);
        if self.pages >= MOST_PAGES {
            let message = format!("{source} has more than {MOST_PAGES} pages, or no end");
            return Err(Failure::new(Outcome::Corrupt, message));
        }
        let mut number = 0;
        loop {
            number += 1;
            frame.uncounted(pace::turn(&ctx.ledger, clock, app_id, source)).await;
            self.requests += 1;
            let asked = ctx.vendor.page(report, question, &self.api_key, &request_id()).await;
            let failure = match asked {
                Ok(page) => {
                    self.pages += 1;
                    frame.restart();
                    self.arrived(&page)?;
                    self.count_ids(&page)?;
                    return Ok(page);
                }
                Err(Unread { failure, page }) => {
                    self.unread = page;
                    failure
                }
            };
            ctx.server_clocks.note(report, failure.evidence.vendor_date);
            if failure.outcome == Outcome::Unauthorized && number < QUICK_TRIES {
                match ctx.secrets.renewed(&report.workspace, Purpose::Apis, &self.api_key).await {
                    Ok(Some(key)) => {
                        self.api_key = key;
                        continue;
                    }
                    Ok(None) => {}
                    Err(problem) => return Err(secrets::unreadable(failure, &problem)),
                }
            }
            let may_repeat = self.is_answered && number < QUICK_TRIES;
            if failure.outcome == Outcome::RateLimited {
                let requested = failure.evidence.wait(clock.now());
                let requested = requested.filter(|wait| wait.is_positive() && *wait <= ABSURD_RETRY_AFTER);
                let wait = requested.unwrap_or(USUAL_BREAK);
                // Other attempts may be reading a listing of the same account.
                pace::rest(&ctx.ledger, clock, app_id, source, wait.min(LONGEST_BREAK)).await;
                if !may_repeat || wait > LONGEST_BREAK {
                    return Err(failure);
                }
                info!(wait_seconds = wait.as_secs(), "{}", failure.message);
            } else if let Some(wait) =
                retry::quick(number, clock.jitter()).filter(|_| may_repeat && failure.outcome.is_retried_quickly())
            {
                debug!("repeating the request: {}", failure.message);
                clock.sleep(wait).await;
            } else {
                return Err(failure);
            }
        }
    }

    /// Records the arrival of a page. The first one is checked by the clocks; the pages after it were read later.
    fn arrived(&mut self, page: &Page) -> Result<(), Failure> {
        let Work { ctx, report, .. } = self.work;
        ctx.server_clocks.note(report, page.vendor_date);
        ctx.progress.advance(&self.partition().id, page.bytes);
        if !self.is_answered {
            self.is_answered = true;
            (self.work.reached)(Milestone::Accepted);
            let evidence = Evidence { vendor_date: page.vendor_date, ..Evidence::default() };
            ctx.server_clocks.check(report, self.partition(), &evidence)?;
        }
        self.vendor_date = page.vendor_date.or(self.vendor_date);
        Ok(())
    }

    /// Discards all records.
    pub(super) fn restart(&mut self) {
        self.spool.clear();
        self.pages = 0;
        self.id_bytes = 0;
    }

    /// Adds the warnings of a reading that counts.
    pub(super) fn accept(&mut self, warnings: Vec<String>, repairs: RepairCounts) {
        self.warnings.extend(warnings);
        self.repairs.merge(repairs);
    }

    /// Limits the memory that the ids take.
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

    /// Keeps the records of a page, each as the lines that `lines` makes of it.
    pub(super) async fn keep(
        &mut self,
        page: Page,
        lines: impl Fn(Record) -> Result<(String, Lines), Failure> + Send + 'static,
    ) -> Result<(), Failure> {
        self.write(move || page.records.into_iter().map(lines).collect()).await
    }

    /// Keeps records, which are made on a thread that may block.
    pub(super) async fn write(
        &mut self,
        records: impl FnOnce() -> Result<Vec<(String, Lines)>, Failure> + Send + 'static,
    ) -> Result<(), Failure> {
        self.spool.put(records).await?;
        let limit = self.work.ctx.config.limits.inflated_bytes;
        match self.spool.bytes() <= limit {
            true => Ok(()),
            false => {
                let message = format!("its records are more than {limit} bytes; see limits.inflated_bytes");
                Err(Failure::new(Outcome::Corrupt, message))
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the shell draws the random numbers")]
fn request_id() -> RequestId {
    RequestId::new(rand::random())
}
