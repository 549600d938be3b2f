//! Reads one page after another into the spool, within the limits of a snapshot.
//!
//! This file owns requests, their repetition, and what of their pages is kept. It must not know which page comes next.

use std::io;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use tracing::{debug, info};

use super::reading::RepairCounts;
use crate::{
    config::Report,
    moengage::{Page, Question, Record, RequestId, Unread},
    ndjson::Lines,
    outcome::{Evidence, Failure, Outcome},
    partition::{self, Timing},
    report::Partition,
    retry::{self, ABSURD_RETRY_AFTER, QUICK_TRIES},
    sync::{
        clock::jitter,
        context::{self, Context, Purpose},
        frame::Frame,
        spool::Spool,
    },
};

/// No snapshot has more: a million and a half campaigns.
const MOST_PAGES: u64 = 100_000;

/// Most bytes of the ids of one snapshot, which are kept in memory: a million ids of MoEngage's.
const MOST_ID_BYTES: u64 = 32 * 1024 * 1024;

/// The longest break that is waited for within a listing. A longer one ends the attempt.
const LONGEST_BREAK: SignedDuration = SignedDuration::from_mins(5);

/// The break after a 429 that names none: the rates are counted by the minute.
const USUAL_BREAK: SignedDuration = SignedDuration::from_mins(1);

pub(super) struct Reader<'a> {
    pub(super) ctx: &'a Context,
    pub(super) report: &'a Report,
    pub(super) partition: &'a Partition,
    pub(super) api_key: SecretString,
    /// Waiting for the request rate does not count.
    pub(super) frame: &'a Frame,
    pub(super) answered: &'a (dyn Fn() + Send + Sync),
    /// With the thread that writes, while that writes.
    pub(super) spool: Option<Spool>,
    pub(super) is_answered: bool,
    pub(super) pages: u64,
    pub(super) requests: u64,
    /// Of the records of all pages that count.
    pub(super) id_bytes: u64,
    pub(super) warnings: Vec<String>,
    /// Of the readings that count.
    pub(super) repairs: RepairCounts,
    pub(super) vendor_date: Option<Timestamp>,
    /// The last page that could not be read; the failure that it belongs to describes it.
    pub(super) unread: Option<Bytes>,
}

impl Reader<'_> {
    /// Requests one page, again if a retry may succeed: what was read so far would be lost.
    pub(super) async fn ask(&mut self, question: &Question<'_>) -> Result<Page, Failure> {
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

    /// Records the arrival of a page.
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

    /// Discards what was read.
    pub(super) fn restart(&mut self) {
        if let Some(spool) = &mut self.spool {
            spool.clear();
        }
        self.pages = 0;
        self.id_bytes = 0;
    }

    /// Adds the warnings of a reading that counts.
    pub(super) fn accept(&mut self, warnings: Vec<String>, repairs: RepairCounts) {
        self.warnings.extend(warnings);
        self.repairs.merge(repairs);
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

    pub(super) async fn keep(
        &mut self,
        page: Page,
        lines: impl Fn(Record) -> Result<(String, Lines), Failure> + Send + 'static,
    ) -> Result<(), Failure> {
        self.write(move || page.records.into_iter().map(lines).collect()).await
    }

    /// Writes records to the spool, where blocking is allowed.
    pub(super) async fn write(
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

fn expiry(partition: &Partition) -> String {
    partition.expires_at.map_or("its expiry".to_owned(), |expiry| expiry.to_string())
}

fn over(partition: &Partition) -> String {
    let expiry = expiry(partition);
    format!(
        "a live listing shows only the present, and this one was to be read before {expiry}; it can no longer be read"
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

pub(super) fn spool_failure(action: &str, error: &io::Error) -> Failure {
    Failure::new(
        Outcome::StoreFailed,
        format!("could not {action} the file beside the ledger in which pages are gathered: {error}"),
    )
}

pub(super) async fn blocking<T: Send + 'static>(
    step: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(step).await.unwrap_or_else(|failure| Err(io::Error::other(failure)))
}

#[expect(clippy::disallowed_methods, reason = "the shell draws the random numbers")]
fn request_id() -> RequestId {
    RequestId::new(rand::random())
}
