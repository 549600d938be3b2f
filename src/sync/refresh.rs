//! A stored partition whose numbers restate, fetched again.
//!
//! This file owns the one exception to "the first content under a key stays": the old content is kept under another name
//! first, then replaced. A process that dies between two steps leaves whole objects, and the next attempt goes by the
//! object that it finds, not by what the ledger says of it.

use tracing::warn;

use super::{
    frame::Step,
    manifest,
    steps::{StepError, Work, store_failed, success},
};
use crate::{
    ledger::LedgerError,
    outcome::{Remark, StoredObject, Success},
    store::Manifest,
};

/// Fetches the object again and replaces it where its content has changed.
pub(super) async fn run(work: &Work<'_>, object: &StoredObject) -> Result<Success, StepError> {
    let (destination, key) = (work.destination, &object.key);
    let mut incoming = work.open().await?;
    let (verified, upload) = work.fetch(&mut incoming, false).await?;
    let evidence = incoming.evidence();
    let fail = |error| store_failed(&error, evidence);
    let present = work.frame.at(Step::Look, destination.sha256_of(key)).await.map_err(fail)?;
    let described = work.frame.at(Step::Look, destination.manifest(key)).await.map_err(fail)?;
    let new = manifest::of_incoming(work.ctx, work.report, &work.claim.entry, key, &verified, &incoming);
    let is_right = |manifest: &Manifest| {
        manifest.names(&work.claim.entry.partition.id, key) && manifest.sha256 == verified.sha256()
    };

    if present.as_deref() == Some(verified.sha256()) {
        work.abandon(upload).await;
        let manifest = match described.filter(is_right) {
            Some(manifest) => manifest,
            None => {
                work.frame.at(Step::Manifest, destination.put_manifest(&new)).await.map_err(fail)?;
                new
            }
        };
        return Ok(success(&manifest, Some(Remark::Unchanged), Remark::Unchanged.to_string(), evidence.clone()));
    }
    if *key != work.keys.object() {
        // Something else has the partition's own name, and ours is among the versions already: one more of them.
        let key = work.place(&incoming, &verified, upload, true).await?;
        let manifest = Manifest { key, ..new };
        work.frame.at(Step::Manifest, destination.put_manifest(&manifest)).await.map_err(fail)?;
        return Ok(success(&manifest, Some(Remark::Restated), Remark::Restated.to_string(), evidence.clone()));
    }
    let (remark, message) = match &present {
        Some(sha256) => {
            let version = work.keys.version(sha256);
            work.frame.at(Step::Keep, destination.copy_if_absent(key, &version)).await.map_err(fail)?;
            let manifest = match described.filter(|manifest| manifest.sha256 == *sha256) {
                Some(manifest) => Some(Manifest { key: version.clone(), ..manifest }),
                // A process died when it had replaced the object and not yet the manifest.
                None => work.frame.at(Step::Keep, work.described_again(&version)).await.map_err(fail)?,
            };
            if let Some(manifest) = manifest {
                work.frame.at(Step::Manifest, destination.put_manifest(&manifest)).await.map_err(fail)?;
            }
            (Remark::Restated, format!("{}; what was there is kept at `{version}`", Remark::Restated))
        }
        None => {
            warn!(
                key,
                "the object of {} is missing at the destination; storing it again", work.claim.entry.partition.id
            );
            (Remark::Missing, Remark::Missing.to_string())
        }
    };
    if !work.ctx.ledger.begin_replacing(work.claim).await? {
        work.abandon(upload).await;
        return Err(LedgerError::Fenced { partition: work.claim.entry.partition.id.to_string() }.into());
    }
    work.frame.at(Step::Store, upload.replace(&verified, key)).await.map_err(fail)?;
    work.frame.at(Step::Manifest, destination.put_manifest(&new)).await.map_err(fail)?;
    Ok(success(&new, Some(remark), message, evidence.clone()))
}
