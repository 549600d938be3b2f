//! What one attempt came to: its outcome, the object or the failure, and what MoEngage's answers showed.
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

/// What distinguishes an attempt from others with the same outcome. Decisions go by it, never by a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Remark {
    /// Stored: the object was at the destination already.
    Found,
    /// Stored, while other content has, or had, the partition's own key.
    OtherContent,
    /// Fetched again: the same content.
    Unchanged,
    /// Fetched again: other content, which replaced the old.
    Restated,
    /// Fetched again: the object had been deleted from the destination.
    Missing,
    /// Corrupt: a gzip that the server put around the archive cannot be taken off.
    DamagedWrapper,
    /// Absent: the end had passed when a person first asked for it.
    AskedLate,
    /// Lost: no denial came in the last day before the end.
    Unwatched,
    /// Lost: nothing shows that the workspace works.
    Unproven,
}

impl Remark {
    /// Every remark.
    pub const ALL: [Remark; 9] = [
        Remark::Found,
        Remark::OtherContent,
        Remark::Unchanged,
        Remark::Restated,
        Remark::Missing,
        Remark::DamagedWrapper,
        Remark::AskedLate,
        Remark::Unwatched,
        Remark::Unproven,
    ];

    /// The word used in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Remark::Found => "found",
            Remark::OtherContent => "other_content",
            Remark::Unchanged => "unchanged",
            Remark::Restated => "restated",
            Remark::Missing => "missing",
            Remark::DamagedWrapper => "damaged_wrapper",
            Remark::AskedLate => "asked_late",
            Remark::Unwatched => "unwatched",
            Remark::Unproven => "unproven",
        }
    }

    /// The remark that `word` names.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|remark| remark.as_str() == word)
    }
}

/// For people; begins a message, which may go on with details.
impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Remark::Found => "found at the destination",
            Remark::OtherContent => "other content",
            Remark::Unchanged => "unchanged",
            Remark::Restated => "restated",
            Remark::Missing => "its object was gone",
            Remark::DamagedWrapper => "the gzip that the server packed the archive into is damaged",
            Remark::AskedLate => "its end had passed when it was first asked for",
            Remark::Unwatched => "MoEngage did not deny it in the 24 hours before its end, so it may have been there",
            Remark::Unproven => {
                "no archive of this workspace has come since this one was due, so all its requests may be refused: \
                 compare app_id and the report's name with the dashboard, and look at MoEngage's API firewall and the \
                 key's scopes"
            }
        })
    }
}

/// The remark and message of an attempt that found the partition's object at `key`, stored by a process that could not
/// record it.
pub fn found_at(key: &str) -> (Remark, String) {
    match report::is_version(key) {
        true => (Remark::OtherContent, format!("{} has its place; found beside it", Remark::OtherContent)),
        false => (Remark::Found, Remark::Found.to_string()),
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

/// What MoEngage's answers showed, for any outcome of the attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Status of the last answer; `None` when none came.
    pub http_status: Option<u16>,
    /// The `Date` of MoEngage's own last answer; never that of a redirect's target.
    pub vendor_date: Option<Timestamp>,
    /// MoEngage's name for the request, for its support.
    pub request_id: Option<String>,
    /// When MoEngage wants to be asked again.
    pub retry_after: Option<RetryAfter>,
    /// Whether an answer was 2xx, so that the content existed.
    pub seen: bool,
}

impl Evidence {
    /// How long MoEngage asks to wait from `now` on. Not checked for being sensible.
    pub fn wait(&self, now: Timestamp) -> Option<SignedDuration> {
        self.retry_after.map(|retry_after| match retry_after {
            RetryAfter::Seconds(seconds) => SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX)),
            // The date is meant by MoEngage's clock.
            RetryAfter::At(at) => at.duration_since(self.vendor_date.unwrap_or(now)),
        })
    }
}

/// The two forms of the `Retry-After` header (RFC 9110, section 10.2.3). Neither is checked for being sensible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    /// Seconds after the answer. A date is turned into this form by the answer's own `Date`; 0 if it is past.
    Seconds(u64),
    /// At this instant by MoEngage's clock, from an answer without a `Date`.
    At(Timestamp),
}

/// Content that came and was not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Bytes.
    pub size: u64,
    /// Lower-case hex, of all bytes.
    pub sha256: String,
}

/// Object and manifest are at the destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Success {
    /// The object.
    pub object: StoredObject,
    /// `None` where it was fetched and stored under its own key.
    pub remark: Option<Remark>,
    /// For people; empty without a remark.
    pub message: String,
    /// Empty where the object was found at the destination.
    pub evidence: Evidence,
}

/// Nothing was stored. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// How the attempt ended.
    pub outcome: Outcome,
    /// What was being done, what came back and what to do about it; for people.
    pub message: String,
    /// What decisions go by besides the outcome.
    pub remark: Option<Remark>,
    /// What MoEngage showed.
    pub evidence: Evidence,
    /// What came, where all of it came.
    pub received: Option<Box<Received>>,
}

impl Failure {
    /// One with nothing known of MoEngage.
    pub fn new(outcome: Outcome, message: String) -> Self {
        Self { outcome, message, remark: None, evidence: Evidence::default(), received: None }
    }

    /// One after MoEngage had shown `evidence`.
    pub fn after(evidence: &Evidence, outcome: Outcome, message: String) -> Self {
        Self { evidence: evidence.clone(), ..Self::new(outcome, message) }
    }
}

/// One attempt, from claim to record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// What it came to.
    pub result: Result<Success, Failure>,
}

impl Attempt {
    /// How it ended.
    pub fn outcome(&self) -> Outcome {
        self.result.as_ref().map_or_else(|failure| failure.outcome, |_| Outcome::Stored)
    }

    /// What MoEngage showed.
    pub fn evidence(&self) -> &Evidence {
        match &self.result {
            Ok(success) => &success.evidence,
            Err(failure) => &failure.evidence,
        }
    }

    /// For people; empty when stored without remark.
    pub fn message(&self) -> &str {
        match &self.result {
            Ok(success) => &success.message,
            Err(failure) => &failure.message,
        }
    }

    /// See [`Remark`].
    pub fn remark(&self) -> Option<Remark> {
        match &self.result {
            Ok(success) => success.remark,
            Err(failure) => failure.remark,
        }
    }

    /// Bytes that came from MoEngage, where all of them came.
    pub fn received_bytes(&self) -> Option<u64> {
        match &self.result {
            Ok(success) => success.evidence.seen.then_some(success.object.size),
            Err(failure) => failure.received.as_ref().map(|received| received.size),
        }
    }

    /// Hash of the object, or of what came instead, in lower-case hex.
    pub fn sha256(&self) -> Option<&str> {
        match &self.result {
            Ok(success) => Some(&success.object.sha256),
            Err(failure) => failure.received.as_ref().map(|received| received.sha256.as_str()),
        }
    }

    /// Whether MoEngage itself answered, and accepted the credentials: an answer by a proxy or of a server in trouble
    /// says nothing about them.
    pub fn is_authenticated(&self) -> bool {
        let is_about_the_file =
            !matches!(self.outcome(), Outcome::Unauthorized | Outcome::RateLimited | Outcome::Unavailable);
        self.evidence().http_status.is_some() && is_about_the_file
    }

    /// Whether MoEngage's `Date` falls into the attempt, give or take [`CLOCK_TOLERANCE`]. Without a `Date` nothing is
    /// known of its clock, so they do not agree.
    pub fn clocks_agree(&self) -> bool {
        self.evidence().vendor_date.is_some_and(|date| {
            self.started_at.duration_since(date) <= CLOCK_TOLERANCE
                && date.duration_since(self.finished_at) <= CLOCK_TOLERANCE
        })
    }

    /// Whether both clocks are past `end`, and agree.
    pub fn is_past(&self, end: Timestamp) -> bool {
        let date = self.evidence().vendor_date;
        self.finished_at >= end && date.is_some_and(|date| date >= end) && self.clocks_agree()
    }

    /// When MoEngage's clock showed that it serves archives of the workspace: a verified one came. A page of HTML with
    /// status 200 may come from a firewall and proves nothing.
    pub fn archive_seen_at(&self, source: SourceKind) -> Option<Timestamp> {
        let evidence = self.evidence();
        let is_archive_from_vendor = source.is_archive() && self.result.is_ok() && evidence.http_status == Some(200);
        evidence.vendor_date.filter(|_| is_archive_from_vendor && self.clocks_agree())
    }
}

/// An attempt as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedAttempt {
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
    /// See [`Remark`].
    pub remark: Option<Remark>,
    /// For people; empty when stored without remark.
    pub message: String,
    /// See [`Evidence::http_status`].
    pub http_status: Option<u16>,
    /// See [`Evidence::request_id`].
    pub request_id: Option<String>,
    /// See [`Attempt::received_bytes`].
    pub size: Option<u64>,
    /// See [`Attempt::sha256`].
    pub sha256: Option<String>,
}

/// Two clocks that differ by more than this disagree. A wait that begins later than this from now was written by a clock
/// that has since been set back, and is void.
pub const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_names_its_remark() {
        for remark in Remark::ALL {
            assert_eq!(Remark::parse(remark.as_str()), Some(remark));
        }
    }
}
