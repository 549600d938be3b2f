//! From what an attempt met to what comes next.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
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
    /// The destination refused.
    StoreFailed,
}

impl Outcome {
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
            Outcome::StoreFailed => "store_failed",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
