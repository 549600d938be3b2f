//! A snapshot: a listing, read page by page until it is whole.
//!
//! This file owns the order of the steps; the parts:
//!
//! | file | subject |
//! |---|---|
//! | `listing`, `executions`, `statistics` | which page comes next, and where each listing ends |
//! | `reader` | requests, their repetition, and the records that are kept |
//! | `reading` | when a reading counts, and what is odd about it |
//!
//! A snapshot is whole or absent: a page that fails for good fails the attempt, and the next one starts from the first
//! page. What is odd and stored all the same becomes a warning in the manifest. It must not know what a request looks
//! like, nor where the snapshot goes.

mod executions;
mod listing;
mod reader;
mod reading;
mod statistics;

use std::{io, path::Path};

use bytes::Bytes;
use secrecy::SecretString;
use tokio::sync::mpsc;
use tracing::warn;

use self::{
    reader::{Reader, blocking, spool_failure},
    reading::RepairCounts,
};
use super::{context::Context, frame::Frame, spool::Spool};
use crate::{
    config::{Report, SnapshotSource},
    moengage::Unread,
    outcome::{Evidence, Failure, Outcome},
    report::Partition,
};

/// Most warnings of one snapshot.
const MOST_WARNINGS: usize = 100;

/// How many refused parents a manifest names.
const MOST_NAMED: usize = 50;

/// A whole listing, on its way out as compressed lines.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// Lines.
    pub(super) records: u64,
    /// Pages of which it was made.
    pub(super) pages: u64,
    /// Number of requests, with those that failed.
    pub(super) requests: u64,
    /// What was odd about it.
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

/// Reads the listing that `partition` consists of. `answered` is called when the vendor has accepted the credentials.
///
/// # Errors
///
/// Why it did not become whole. [`Outcome::NotPublished`] for a live listing whose time is over.
pub(super) async fn gather(
    ctx: &Context,
    report: &Report,
    source: &SnapshotSource,
    partition: &Partition,
    api_key: SecretString,
    frame: &Frame,
    answered: &(dyn Fn() + Send + Sync),
) -> Result<Snapshot, Unread> {
    // Beside the ledger's file, where a data folder has its room.
    let folder = match ctx.ledger.file() {
        Some(file) => {
            file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
        }
        None => std::env::temp_dir(),
    };
    let spool = blocking(move || Spool::create(&folder)).await.map_err(|error| spool_failure("make", &error))?;
    let mut reader = Reader {
        ctx,
        report,
        partition,
        api_key,
        frame,
        answered,
        spool: Some(spool),
        is_answered: false,
        pages: 0,
        requests: 0,
        id_bytes: 0,
        warnings: Vec::new(),
        repairs: RepairCounts::default(),
        vendor_date: None,
        unread: None,
    };
    let read = match source {
        SnapshotSource::Campaigns(query) => reader.campaigns(query).await,
        SnapshotSource::Executions { campaign_ids } => reader.executions(campaign_ids).await,
        SnapshotSource::CampaignStats(query) => reader.statistics(query).await,
    };
    if let Err(failure) = read {
        return Err(Unread { failure, page: reader.unread.take() });
    }
    let Reader { pages, requests, vendor_date, spool, mut warnings, repairs, .. } = reader;
    if warnings.len() > MOST_WARNINGS {
        let more = warnings.len() - MOST_WARNINGS;
        warnings.truncate(MOST_WARNINGS);
        warnings.push(format!("{more} more warnings are left out"));
    }
    warnings.extend(repairs.warnings());
    for warning in &warnings {
        warn!("{warning}");
    }
    let spool = spool.ok_or_else(|| Failure::new(Outcome::StoreFailed, "the spool was lost".into()))?;
    let name = report.file_name(partition.id.date);
    let name = name.strip_suffix(".gz").unwrap_or(&name).to_owned();
    let evidence = Evidence { http_status: Some(200), vendor_date, seen: true, ..Evidence::default() };
    Ok(Snapshot { records: spool.lines(), pages, requests, warnings, evidence, chunks: spool.into_gzip(name) })
}
