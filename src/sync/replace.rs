//! Replaces a stored object whose numbers have restated.
//!
//! This file owns the one exception to "stored content is not overwritten": the old content is copied to a version first.
//! A process that dies between two steps leaves complete objects. The next attempt goes by the object that it finds, not
//! by the ledger.

use tracing::warn;

use super::{
    fetch::Fetched,
    frame::Step,
    manifest,
    place::commit_version,
    work::{StepError, Work, store_failed, success},
};
use crate::{
    outcome::{Remark, StoredObject, Success},
    store::Manifest,
};

/// Replaces `object` with what was fetched, if its content has changed.
pub(super) async fn replace(
    work: &Work<'_>,
    Fetched { incoming, verified, upload }: Fetched,
    object: &StoredObject,
) -> Result<Success, StepError> {
    let (destination, key, evidence) = (work.destination, &object.key, incoming.evidence());
    let id = &work.entry().partition.id;
    let fail = |error| store_failed(&error, evidence);
    let present = work.frame.at(Step::Look, destination.sha256_of(key)).await.map_err(fail)?;
    let described = work.frame.at(Step::Look, destination.manifest(key)).await.map_err(fail)?;
    let new = manifest::of_incoming(work, key, &verified, &incoming);
    let done = |manifest: &Manifest, remark, message| Ok(success(manifest, Some(remark), message, evidence.clone()));

    if present.as_deref() == Some(verified.sha256()) {
        work.abandon(upload).await;
        let is_right = |manifest: &Manifest| manifest.names(id, key) && manifest.sha256 == verified.sha256();
        let manifest = match described.filter(is_right) {
            Some(manifest) => manifest,
            None => {
                work.put_manifest(&new, evidence).await?;
                new
            }
        };
        return done(&manifest, Remark::Unchanged, Remark::Unchanged.to_string());
    }
    if *key != work.keys.object() {
        // Other content has the partition's own name, and `object` is a version: what was fetched becomes another one.
        let key = commit_version(work, &incoming, &verified, upload).await?;
        let manifest = Manifest { key, ..new };
        work.put_manifest(&manifest, evidence).await?;
        return done(&manifest, Remark::Restated, Remark::Restated.to_string());
    }
    let (remark, message) = match &present {
        Some(sha256) => {
            let version = work.keys.version(sha256);
            work.frame.at(Step::Keep, destination.copy_if_absent(key, &version)).await.map_err(fail)?;
            let manifest = match described.filter(|manifest| manifest.sha256 == *sha256) {
                Some(manifest) => Some(Manifest { key: version.clone(), ..manifest }),
                // A process died after it had replaced the object and before it replaced the manifest.
                None => work.frame.at(Step::Keep, manifest::of_object(work, &version)).await.map_err(fail)?,
            };
            if let Some(manifest) = manifest {
                work.put_manifest(&manifest, evidence).await?;
            }
            (Remark::Restated, format!("{}; the previous content is kept at `{version}`", Remark::Restated))
        }
        None => {
            warn!(key, "the object of {id} is missing at the destination; storing it again");
            (Remark::Missing, Remark::Missing.to_string())
        }
    };
    if !work.ctx.ledger.begin_replacing(work.claim).await? {
        work.abandon(upload).await;
        return Err(work.fenced().into());
    }
    work.frame.at(Step::Store, upload.replace(&verified, key)).await.map_err(fail)?;
    work.put_manifest(&new, evidence).await?;
    done(&new, remark, message)
}
