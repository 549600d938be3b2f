//! Requests a partition from MoEngage: an archive, or all pages of a listing.
//!
//! This file owns the key of the request, its repetition with a key that was replaced, and the check of the answer's
//! time. It must not know what becomes of the bytes.

use std::time::Duration;

use secrecy::SecretString;

use super::{
    incoming::Incoming,
    quarantine::Quarantine,
    secrets::{self, Purpose},
    snapshot,
    work::{Milestone, StepError, Work},
};
use crate::{
    config::{ArchiveSource, SnapshotSource, Source},
    ledger::LedgerError,
    moengage::{AnnouncedGzip, Download, Unread},
    outcome::{Failure, Outcome, Remark},
};

/// All pages of a snapshot have to come within this, at MoEngage's request rates.
const LONGEST_GATHERING: Duration = Duration::from_secs(24 * 60 * 60);

/// How often one request is repeated with a key that has just been replaced.
const MOST_RENEWALS: usize = 3;

/// How many attempts in a row end at a damaged gzip around the archive before the next one fetches the bytes as they are.
const DAMAGED_WRAPPERS: usize = 2;

/// Requests the partition. The answer is there, its content is still to be read.
pub(super) async fn open(work: &Work<'_>) -> Result<Incoming, StepError> {
    let source = &work.report.source;
    let key = work.ctx.secrets.key(&work.report.workspace, Purpose::of(source.kind())).await;
    // Not a refusal: a key file may be missing for a moment while it is replaced.
    let key = key.map_err(|problem| Failure::new(Outcome::Unavailable, problem))?;
    let incoming = match source {
        Source::Archive(archive) => Incoming::Archive(Box::new(open_archive(work, archive, key).await?)),
        Source::Snapshot(source) => Incoming::Snapshot(gather(work, source, key).await?),
    };
    work.frame.note_evidence(incoming.evidence().clone());
    Ok(incoming)
}

async fn open_archive(work: &Work<'_>, archive: &ArchiveSource, key: SecretString) -> Result<Download, StepError> {
    let (clocks, report, partition) = (&work.ctx.server_clocks, work.report, &work.entry().partition);
    let asked = ask(work, archive, key).await?;
    let evidence = asked.as_ref().map_or_else(|failure| &failure.evidence, |download| &download.evidence);
    clocks.note(report, evidence.vendor_date);
    let download = asked?;
    (work.reached)(Milestone::Accepted);
    clocks.check(report, partition, &download.evidence)?;
    work.ctx.progress.begin(&partition.id, download.content_length);
    Ok(download)
}

/// Sends the request, again if MoEngage refuses a key that was replaced meanwhile.
async fn ask(
    work: &Work<'_>,
    archive: &ArchiveSource,
    mut key: SecretString,
) -> Result<Result<Download, Failure>, LedgerError> {
    let (vendor, report, date) = (&work.ctx.vendor, work.report, work.entry().partition.id.date);
    let gzip = match has_damaged_wrapper(work).await? {
        true => AnnouncedGzip::Archive,
        false => AnnouncedGzip::Transport,
    };
    let mut renewals = 0;
    loop {
        let refusal = match vendor.open(report, archive, date, &key, gzip).await {
            Err(failure) if failure.outcome == Outcome::Unauthorized && renewals < MOST_RENEWALS => failure,
            opened => return Ok(opened),
        };
        renewals += 1;
        match work.ctx.secrets.renewed(&report.workspace, Purpose::Archives, &key).await {
            Ok(Some(renewed)) => key = renewed,
            Ok(None) => return Ok(Err(refusal)),
            Err(problem) => return Ok(Err(secrets::unreadable(refusal, &problem))),
        }
    }
}

/// Whether the last attempts ended at a damaged gzip around the archive. Decoding loses bytes then, so the next attempt
/// fetches them as they are: those can be kept as evidence.
async fn has_damaged_wrapper(work: &Work<'_>) -> Result<bool, LedgerError> {
    if work.entry().outcome != Some(Outcome::Corrupt) {
        return Ok(false);
    }
    let attempts = work.ctx.ledger.attempts(&work.entry().partition.id).await?;
    let last = attempts.iter().rev().take(DAMAGED_WRAPPERS);
    Ok(last.filter(|attempt| attempt.remark == Some(Remark::DamagedWrapper)).count() == DAMAGED_WRAPPERS)
}

/// Reads a whole listing.
async fn gather(work: &Work<'_>, source: &SnapshotSource, key: SecretString) -> Result<snapshot::Snapshot, StepError> {
    let partition = &work.entry().partition;
    work.ctx.progress.begin(&partition.id, None);
    let gathering = Box::pin(snapshot::gather(work, source, key));
    match tokio::time::timeout(LONGEST_GATHERING, gathering).await {
        Ok(Ok(snapshot)) => Ok(snapshot),
        Ok(Err(Unread { failure, page: None })) => Err(failure.into()),
        Ok(Err(Unread { failure, page: Some(page) })) => {
            Err(Quarantine::of(work).await?.keep_page(page, failure).await.into())
        }
        Err(_) => {
            let message = format!("MoEngage's pages did not all arrive within {LONGEST_GATHERING:?}");
            Err(Failure::new(Outcome::Unavailable, message).into())
        }
    }
}
