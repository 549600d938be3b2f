//! When a reading of a listing counts, and what is odd about one that does.
//!
//! This file owns the decision to read a listing again. It must not know how a page is requested.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    moengage::{Oddity, Page, Question},
    outcome::{Failure, Outcome},
};

/// How often a listing that changes while it is read is restarted.
const MOST_READINGS: usize = 5;

/// What one reading of a listing shows about itself.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// How the listing changed while it was read: it is to be read again.
    pub(super) changed: Option<String>,
    /// What is odd and may be due to a change: two readings in a row that agree on it make it a fact.
    pub(super) doubts: Vec<String>,
    /// What is odd and documented by MoEngage.
    pub(super) remarks: Vec<String>,
}

/// The readings of one listing, until one counts.
pub(super) struct Readings {
    what: String,
    number: usize,
    doubts: Vec<String>,
}

pub(super) enum Judgement {
    /// The reading counts, with these warnings.
    Accepted(Vec<String>),
    /// It does not, for this reason.
    Again(String),
}

impl Readings {
    pub(super) fn of(what: impl Into<String>) -> Self {
        Self { what: what.into(), number: 0, doubts: Vec::new() }
    }

    /// # Errors
    ///
    /// When the listing changed in each of [`MOST_READINGS`] readings.
    pub(super) fn judge(&mut self, reading: Reading) -> Result<Judgement, Failure> {
        self.number += 1;
        let Reading { changed, doubts, remarks } = reading;
        let why = match changed {
            None if doubts == self.doubts => {
                return Ok(Judgement::Accepted(doubts.into_iter().chain(remarks).collect()));
            }
            None if doubts.is_empty() => return Ok(Judgement::Accepted(remarks)),
            None => doubts.join("; "),
            Some(changed) => changed,
        };
        self.doubts = doubts;
        match self.number < MOST_READINGS {
            true => Ok(Judgement::Again(why)),
            false => {
                let message = format!("{} was never whole in {MOST_READINGS} readings; at the last, {why}", self.what);
                Err(Failure::new(Outcome::Corrupt, message))
            }
        }
    }
}

/// The totals on the pages of one reading.
#[derive(Default)]
pub(super) struct Totals {
    said: BTreeSet<u64>,
    pages: u64,
    /// Pages whose total is the number of their own items.
    own: u64,
}

impl Totals {
    pub(super) fn add(&mut self, page: &Page) {
        self.said.extend(page.total);
        self.pages += 1;
        self.own += u64::from(page.total == Some(page.items));
    }

    /// Whether `count` reaches the largest total of any page.
    pub(super) fn is_reached(&self, count: u64) -> bool {
        self.said.last().is_some_and(|most| count >= *most)
    }

    /// What is odd about the totals after `found` records. The error is how the totals changed meanwhile.
    pub(super) fn judge(&self, found: u64, what: &str) -> Result<Option<String>, String> {
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
