//! When a reading of a listing counts, and its warnings.
//!
//! A listing that may have changed while it was read is read again. This file must not know how a page is requested.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    moengage::{Oddity, Page, Question},
    outcome::{Failure, Outcome},
};

/// Most readings of a listing that changes while it is read.
const MOST_READINGS: usize = 5;

/// The irregularities of one reading of a listing.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// How the listing changed while it was read: it has to be read again.
    pub(super) changed: Option<String>,
    /// Irregularities that may be due to a change. If the next reading has the same ones, they count as warnings.
    pub(super) doubts: Vec<String>,
    /// Irregularities that MoEngage documents. They count as warnings.
    pub(super) remarks: Vec<String>,
}

/// The readings of one listing, until one counts.
pub(super) struct Readings {
    /// Which listing, for messages.
    what: String,
    number: usize,
    /// Of the last reading.
    doubts: Vec<String>,
}

/// Whether a reading counts.
pub(super) enum Acceptance {
    /// It counts, with these warnings.
    Accepted(Vec<String>),
    /// The listing has to be read again, for this reason.
    Again(String),
}

impl Readings {
    pub(super) fn of(what: impl Into<String>) -> Self {
        Self { what: what.into(), number: 0, doubts: Vec::new() }
    }

    /// Decides whether `reading` counts.
    ///
    /// # Errors
    ///
    /// If none of [`MOST_READINGS`] readings counts.
    pub(super) fn judge(&mut self, reading: Reading) -> Result<Acceptance, Failure> {
        self.number += 1;
        let Reading { changed, doubts, remarks } = reading;
        let why = match changed {
            None if doubts == self.doubts => {
                return Ok(Acceptance::Accepted(doubts.into_iter().chain(remarks).collect()));
            }
            None if doubts.is_empty() => return Ok(Acceptance::Accepted(remarks)),
            None => doubts.join("; "),
            Some(changed) => changed,
        };
        self.doubts = doubts;
        match self.number < MOST_READINGS {
            true => Ok(Acceptance::Again(why)),
            false => {
                let message = format!(
                    "{} was inconsistent in each of {MOST_READINGS} readings; in the last one, {why}",
                    self.what
                );
                Err(Failure::new(Outcome::Corrupt, message))
            }
        }
    }
}

/// The totals on the pages of one reading.
#[derive(Default)]
pub(super) struct Totals {
    values: BTreeSet<u64>,
    pages: u64,
    /// Number of pages whose total is the number of their own items.
    own: u64,
}

impl Totals {
    pub(super) fn add(&mut self, page: &Page) {
        self.values.extend(page.total);
        self.pages += 1;
        self.own += u64::from(page.total == Some(page.items));
    }

    /// Whether `count` reaches the largest total of any page.
    pub(super) fn is_reached(&self, count: u64) -> bool {
        self.values.last().is_some_and(|most| count >= *most)
    }

    /// Compares the totals with `found` records: the difference, if there is one.
    ///
    /// # Errors
    ///
    /// How the totals changed during the reading.
    pub(super) fn judge(&self, found: u64, what: &str) -> Result<Option<String>, String> {
        // The totals are of the pages, not of the listing.
        if self.pages > 1 && self.own == self.pages {
            return Ok(None);
        }
        match (self.values.first(), self.values.last()) {
            (Some(least), Some(most)) if least != most => {
                Err(format!("the number of {what} changed between {least} and {most} during the reading"))
            }
            (Some(total), _) if *total != found => {
                Ok(Some(format!("{found} of {total} {what} came, by MoEngage's own count")))
            }
            _ => Ok(None),
        }
    }
}

/// Repairs of invalid JSON on the pages of a snapshot: how many of each kind, and where the first was.
#[derive(Debug, Default)]
pub(super) struct RepairCounts(BTreeMap<Oddity, (u64, String)>);

impl RepairCounts {
    pub(super) fn add(&mut self, page: &Page, question: &Question<'_>) {
        for repair in &page.repairs {
            let record = repair.record.as_ref().map(|id| format!(", in the record {id}")).unwrap_or_default();
            let place = || format!("{}, line {} column {}{record}", question.place(), repair.line, repair.column);
            self.0.entry(repair.oddity).or_insert_with(|| (0, place())).0 += repair.count;
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        for (oddity, (count, place)) in other.0 {
            self.0.entry(oddity).or_insert((0, place)).0 += count;
        }
    }

    pub(super) fn warnings(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(oddity, (count, place))| {
            format!("MoEngage's JSON held {oddity}: {count} in all, the first on {place}")
        })
    }
}
