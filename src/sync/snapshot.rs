//! A snapshot: a listing, read page by page until it is complete.
//!
//! This file owns what a snapshot is; the parts:
//!
//! | file | subject |
//! |---|---|
//! | `listing`, `executions`, `statistics` | which page comes next, and where each listing ends |
//! | `reader` | requests, their repetition, and the records that are kept |
//! | `reading` | when a reading counts, and its warnings |
//!
//! A page that fails for good fails the attempt, and the next attempt starts from the first page. Irregularities of a
//! snapshot that is stored become warnings in its manifest. It must not know what a request looks like, nor where the
//! snapshot is stored.

mod executions;
mod listing;
mod reader;
mod reading;
mod statistics;

use std::io;

use bytes::Bytes;
use secrecy::SecretString;
use tokio::sync::mpsc;

use self::reader::Reader;
use super::{
    spool::{Spool, spool_failure},
    work::Work,
};
use crate::{
    config::SnapshotSource,
    moengage::Unread,
    outcome::{Evidence, Failure},
};

/// How many refused parents or doubtful pages are named.
const MOST_NAMED: usize = 50;

/// A complete listing, compressed as it is read.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// Number of lines.
    pub(super) records: u64,
    /// Number of pages it was made of.
    pub(super) pages: u64,
    /// Number of requests, failed ones included.
    pub(super) requests: u64,
    /// For the manifest.
    pub(super) warnings: Vec<String>,
    /// Of the last answer.
    pub(super) evidence: Evidence,
    chunks: mpsc::Receiver<io::Result<Bytes>>,
}

impl Snapshot {
    /// The next bytes; `None` at the end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        self.chunks.recv().await.transpose().map_err(|error| spool_failure("read", &error))
    }
}

/// Reads the listing of `source`.
///
/// # Errors
///
/// Why it is not complete. [`NotPublished`](crate::outcome::Outcome::NotPublished) for a live listing whose time is over.
pub(super) async fn gather(
    work: &Work<'_>,
    source: &SnapshotSource,
    api_key: SecretString,
) -> Result<Snapshot, Unread> {
    let spool = Spool::create(work.ctx.ledger.file()).await.map_err(|error| spool_failure("create", &error))?;
    let mut reader = Reader::new(work, api_key, spool);
    let read = match source {
        SnapshotSource::Campaigns(query) => reader.campaigns(query).await,
        SnapshotSource::Executions { campaign_ids } => reader.executions(campaign_ids).await,
        SnapshotSource::CampaignStats(query) => reader.statistics(query).await,
    };
    match read {
        Ok(()) => Ok(reader.finish()),
        Err(failure) => Err(reader.unread(failure)),
    }
}
