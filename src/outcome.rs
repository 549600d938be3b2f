//! One attempt: its outcome, the object or the failure, and the evidence in MoEngage's answers.
//!
//! This file owns the outcomes and what an attempt proves. It must not know what follows from an attempt
//! (`partition/after.rs`).

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
    /// Archives: MoEngage denies the file.
    NotPublished,
    /// JSON sources: MoEngage refuses the request itself.
    Rejected,
    /// MoEngage refuses the credentials.
    Unauthorized,
    /// MoEngage limits the rate of requests.
    RateLimited,
    /// MoEngage could not be reached or could not answer.
    Unavailable,
    /// The download is not a complete, intact archive.
    Corrupt,
    /// The download has a format that cannot be verified.
    Unsupported,
    /// The object could not be written to the destination.
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

/// Distinguishes attempts with the same outcome. Decisions depend on it, never on a message.
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
    /// Corrupt: the gzip that the server put around the archive is damaged.
    DamagedWrapper,
    /// Absent: it was first requested after its end.
    RequestedLate,
    /// Lost: MoEngage did not deny it in the last day before its end.
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
        Remark::RequestedLate,
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
            Remark::RequestedLate => "asked_late",
            Remark::Unwatched => "unwatched",
            Remark::Unproven => "unproven",
        }
    }

    /// The remark that `word` names.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|remark| remark.as_str() == word)
    }
}

/// For people: the beginning of a message.
impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Remark::Found => "found at the destination",
            Remark::OtherContent => "other content",
            Remark::Unchanged => "unchanged",
            Remark::Restated => "restated",
            Remark::Missing => "its object was missing",
            Remark::DamagedWrapper => "the gzip that the server put around the archive is damaged",
            Remark::RequestedLate => "it was first requested after its end",
            Remark::Unwatched => "MoEngage did not deny it in the 24 hours before its end, so it may have existed",
            Remark::Unproven => {
                "no archive of this workspace was received since this one was due, so MoEngage may refuse all its requests: \
                 compare app_id and the report's name with the dashboard, and check MoEngage's API firewall and the \
                 key's scopes"
            }
        })
    }
}

/// The remark and message of an attempt that found the partition's object at `key`: a process stored it and did not
/// record it.
pub fn found_at(key: &str) -> (Remark, String) {
    match report::is_version(key) {
        true => (Remark::OtherContent, format!("{} is at its key; found as a version of it", Remark::OtherContent)),
        false => (Remark::Found, Remark::Found.to_string()),
    }
}

/// A stored object.
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

/// What MoEngage's answers show, for any outcome of the attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Status of the last answer; `None` without one.
    pub http_status: Option<u16>,
    /// The `Date` of MoEngage's own last answer; never that of a redirect's target.
    pub vendor_date: Option<Timestamp>,
    /// MoEngage's id of the request, for its support.
    pub request_id: Option<String>,
    /// The wait that MoEngage requests.
    pub retry_after: Option<RetryAfter>,
    /// Whether an answer was 2xx, so that the content existed.
    pub seen: bool,
}

impl Evidence {
    /// The wait that MoEngage requests, from `now` on. May be negative or absurdly long.
    pub fn wait(&self, now: Timestamp) -> Option<SignedDuration> {
        self.retry_after.map(|retry_after| match retry_after {
            RetryAfter::Seconds(seconds) => SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX)),
            // The instant is one of MoEngage's clock.
            RetryAfter::At(at) => at.duration_since(self.vendor_date.unwrap_or(now)),
        })
    }
}

/// The two forms of the `Retry-After` header (RFC 9110, section 10.2.3), unchecked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    /// Seconds after the answer. A date is turned into this form by the answer's own `Date`; 0 if it is past.
    Seconds(u64),
    /// At this instant by MoEngage's clock, from an answer without a `Date`.
    At(Timestamp),
}

/// Content that was received and not stored.
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
    /// `None` if it was fetched and stored under its own key.
    pub remark: Option<Remark>,
    /// For people; empty without a remark.
    pub message: String,
    /// Empty if the object was found at the destination.
    pub evidence: Evidence,
}

/// Nothing was stored. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// How the attempt ended.
    pub outcome: Outcome,
    /// For people: the operation, the answer, and what to do.
    pub message: String,
    /// See [`Remark`].
    pub remark: Option<Remark>,
    /// What MoEngage's answers show.
    pub evidence: Evidence,
    /// The content, if all of it was received.
    pub received: Option<Box<Received>>,
}

impl Failure {
    /// A failure without an answer from MoEngage.
    pub fn new(outcome: Outcome, message: String) -> Self {
        Self { outcome, message, remark: None, evidence: Evidence::default(), received: None }
    }

    /// A failure after answers that show `evidence`.
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
    /// Its result.
    pub result: Result<Success, Failure>,
}

impl Attempt {
    /// Its outcome.
    pub fn outcome(&self) -> Outcome {
        self.result.as_ref().map_or_else(|failure| failure.outcome, |_| Outcome::Stored)
    }

    /// What MoEngage's answers show.
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

    /// Bytes received from MoEngage; `None` unless all were received.
    pub fn received_bytes(&self) -> Option<u64> {
        match &self.result {
            Ok(success) => success.evidence.seen.then_some(success.object.size),
            Err(failure) => failure.received.as_ref().map(|received| received.size),
        }
    }

    /// Hash of the object, or of the content that was not stored, in lower-case hex.
    pub fn sha256(&self) -> Option<&str> {
        match &self.result {
            Ok(success) => Some(&success.object.sha256),
            Err(failure) => failure.received.as_ref().map(|received| received.sha256.as_str()),
        }
    }

    /// Whether MoEngage answered and accepted the credentials. An error of a proxy or a server shows neither.
    pub fn is_authenticated(&self) -> bool {
        let is_about_the_file =
            !matches!(self.outcome(), Outcome::Unauthorized | Outcome::RateLimited | Outcome::Unavailable);
        self.evidence().http_status.is_some() && is_about_the_file
    }

    /// Whether MoEngage's `Date` is within the attempt, give or take [`CLOCK_TOLERANCE`]. Without a `Date` its clock is
    /// unknown, so they do not agree.
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

    /// The time, by MoEngage's clock, of the proof that it serves archives of the workspace: a verified archive. An HTML page
    /// with status 200 may be a firewall's.
    pub fn archive_seen_at(&self, source: SourceKind) -> Option<Timestamp> {
        let evidence = self.evidence();
        let is_archive_from_vendor = source.is_archive() && self.result.is_ok() && evidence.http_status == Some(200);
        evidence.vendor_date.filter(|_| is_archive_from_vendor && self.clocks_agree())
    }
}

/// An attempt in the ledger.
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

/// Clocks that differ by more than this disagree. A wait that began later than this after the present was written by a
/// clock that has since been set back, and is void.
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
