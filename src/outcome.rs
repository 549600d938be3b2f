//! How one attempt ended, and what was seen of MoEngage while it was made.
//!
//! This file owns the outcomes and what an attempt proves. It must not know what follows from an attempt: that is
//! `partition`'s.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{config::SourceKind, report};

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The object and its manifest are at the destination.
    Stored,
    /// Archives: the vendor says it has no such file.
    NotPublished,
    /// JSON sources: the vendor refuses the request itself.
    Rejected,
    /// The vendor refuses the credentials.
    Unauthorized,
    /// The vendor asks to come back later.
    RateLimited,
    /// The vendor could not be reached or could not answer.
    Unavailable,
    /// What came is not the whole, intact archive.
    Corrupt,
    /// What came is of a format that cannot be verified.
    Unsupported,
    /// The destination refused.
    StoreFailed,
}

impl Outcome {
    /// Every outcome, in the table's order.
    pub const ALL: [Outcome; 9] = [
        Outcome::Stored,
        Outcome::NotPublished,
        Outcome::Rejected,
        Outcome::Unauthorized,
        Outcome::RateLimited,
        Outcome::Unavailable,
        Outcome::Corrupt,
        Outcome::Unsupported,
        Outcome::StoreFailed,
    ];

    /// The word used in the ledger, in JSON and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Stored => "stored",
            Outcome::NotPublished => "not_published",
            Outcome::Rejected => "rejected",
            Outcome::Unauthorized => "unauthorized",
            Outcome::RateLimited => "rate_limited",
            Outcome::Unavailable => "unavailable",
            Outcome::Corrupt => "corrupt",
            Outcome::Unsupported => "unsupported",
            Outcome::StoreFailed => "store_failed",
        }
    }

    /// The outcome that `word` names.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == word)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The object that a stored partition consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    /// Its key at the destination.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Lower-case hex.
    pub sha256: String,
    /// When it was fetched.
    pub stored_at: Timestamp,
}

/// What one attempt met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
    /// The vendor's status, if it answered.
    pub http_status: Option<u16>,
    /// For people; no secrets. Empty when stored without remark.
    pub message: String,
    /// Whether the vendor answered with content.
    pub seen: bool,
    /// The `Date` of the vendor's answer.
    pub vendor_date: Option<Timestamp>,
    /// How long the vendor asks to wait, if it said something usable.
    pub retry_after: Option<SignedDuration>,
    /// Bytes received.
    pub size: Option<u64>,
    /// Hash of all bytes received.
    pub sha256: Option<String>,
    /// What to name to MoEngage's support.
    pub request_id: Option<String>,
}

impl Attempt {
    /// Whether the vendor itself answered, and accepted who was asking: an answer by a proxy or of a server in trouble
    /// says nothing about credentials.
    pub fn was_admitted(&self) -> bool {
        let is_about_the_file =
            !matches!(self.outcome, Outcome::Unauthorized | Outcome::RateLimited | Outcome::Unavailable);
        self.http_status.is_some() && is_about_the_file
    }

    /// Whether the vendor's `Date` falls into the attempt, give or take [`CLOCK_TOLERANCE`]. Without a `Date` nothing is
    /// known of the vendor's clock, so they do not agree.
    pub fn clocks_agree(&self) -> bool {
        self.vendor_date.is_some_and(|date| {
            self.started_at.duration_since(date) <= CLOCK_TOLERANCE
                && date.duration_since(self.finished_at) <= CLOCK_TOLERANCE
        })
    }

    /// Whether both clocks are past `end`, and agree.
    pub(crate) fn is_past(&self, end: Timestamp) -> bool {
        self.finished_at >= end && self.vendor_date.is_some_and(|date| date >= end) && self.clocks_agree()
    }

    /// When the vendor's clock showed that it serves archives of the workspace: a verified one came. A page of HTML with
    /// status 200 may come from a firewall and proves nothing.
    pub fn archive_seen_at(&self, source: SourceKind) -> Option<Timestamp> {
        let is_archive_from_vendor =
            source.is_archive() && self.outcome == Outcome::Stored && self.http_status == Some(200);
        self.vendor_date.filter(|_| is_archive_from_vendor && self.clocks_agree())
    }
}

/// How the message of an attempt begins that stored something although other content was, or had been, in its place.
pub const OTHER_CONTENT: &str = "other content";

/// The message of an attempt that found the partition's object at `key`, stored by a process that could not record it.
pub fn found_at(key: &str) -> String {
    match report::is_version(key) {
        true => format!("{OTHER_CONTENT} has its place; found beside it"),
        false => "found at the destination".to_owned(),
    }
}

/// Two clocks that differ by more than this disagree. A wait that begins later than this from now was written by a clock
/// that has since been set back, and is void.
pub const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(1);
