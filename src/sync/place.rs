//! Places a verified upload: the object gets its final name, then its manifest is written.
//!
//! This file owns which name that is. It overwrites nothing; `replace` does.

use std::sync::Mutex;

use super::{
    fetch::Fetched,
    frame::Step,
    incoming::Incoming,
    look::Left,
    manifest,
    work::{StepError, Work, store_failed, success},
};
use crate::{
    archive::Verified,
    ledger::LedgerError,
    lock::lock,
    outcome::{Failure, Outcome, Remark, Success},
    report::manifest_key,
    store::{Commit, Upload},
};

/// Stores under the partition's own name, or as a version if other content has taken that name meanwhile. `left` is what
/// an object has left that is gone.
pub(super) async fn place(
    work: &Work<'_>,
    Fetched { incoming, verified, upload }: Fetched,
    left: Option<Left>,
) -> Result<Success, StepError> {
    let own = work.keys.object();
    if left.is_some() {
        retire_manifest(work, &own, &incoming).await?;
    }
    let key = commit(work, &incoming, &verified, upload, &own).await?;
    let other = Remark::OtherContent;
    let gone = left.and_then(|Left(manifest)| manifest);
    let warning = match gone.filter(|gone| gone.sha256 != verified.sha256()) {
        Some(gone) => {
            Some(format!("{other} than the object of {} that is gone (sha256 {})", gone.generated_at, gone.sha256))
        }
        None => (key != own).then(|| left_alone(&own)),
    };
    describe(work, &incoming, &verified, &key, warning).await
}

/// Stores as a version: other content has the partition's own name.
pub(super) async fn place_version(
    work: &Work<'_>,
    Fetched { incoming, verified, upload }: Fetched,
) -> Result<Success, StepError> {
    let key = commit_version(work, &incoming, &verified, upload).await?;
    describe(work, &incoming, &verified, &key, Some(left_alone(&work.keys.object()))).await
}

/// Moves a manifest without an object to quarantine: it would be taken for that of the next object. Not before that one is
/// there to be named, because what differs from the object that is gone is known by it alone.
async fn retire_manifest(work: &Work<'_>, key: &str, incoming: &Incoming) -> Result<(), StepError> {
    let manifest = manifest_key(key);
    let unique = format!("{:012x}", work.started_at.as_millisecond());
    let retired = manifest_key(&work.keys.quarantine(&unique));
    let moved = work.frame.at(Step::Store, work.destination.move_if_absent(&manifest, &retired)).await;
    moved.map_err(|error| store_failed(&error, incoming.evidence()).into())
}

fn left_alone(key: &str) -> String {
    format!("{} is at `{key}` and was left alone", Remark::OtherContent)
}

/// Writes the manifest of the object at `key`.
async fn describe(
    work: &Work<'_>,
    incoming: &Incoming,
    verified: &Verified,
    key: &str,
    warning: Option<String>,
) -> Result<Success, StepError> {
    let mut manifest = manifest::of_incoming(work, key, verified, incoming);
    manifest.warnings.extend(warning.clone());
    work.put_manifest(&manifest, incoming.evidence()).await?;
    let remark = warning.as_ref().map(|_| Remark::OtherContent);
    Ok(success(&manifest, remark, warning.unwrap_or_default(), incoming.evidence().clone()))
}

/// Gives the upload the name of a version. Returns that key.
pub(super) async fn commit_version(
    work: &Work<'_>,
    incoming: &Incoming,
    verified: &Verified,
    upload: Upload,
) -> Result<String, StepError> {
    commit(work, incoming, verified, upload, &work.keys.version(verified.sha256())).await
}

/// Gives the upload the name `key`, or that of a version if other content has appeared at the partition's own key.
/// Returns its key.
async fn commit(
    work: &Work<'_>,
    incoming: &Incoming,
    verified: &Verified,
    mut upload: Upload,
    key: &str,
) -> Result<String, StepError> {
    let (own, version) = (work.keys.object(), work.keys.version(verified.sha256()));
    // A claim that cannot be checked counts as lost; the error is kept for the result.
    let unchecked: Mutex<Option<LedgerError>> = Mutex::new(None);
    let still_ours = || async {
        work.ctx.ledger.is_ours(work.claim).await.unwrap_or_else(|error| {
            lock(&unchecked).replace(error);
            false
        })
    };
    let mut target = key;
    loop {
        let committed = work.frame.at(Step::Store, upload.commit(verified, target, still_ours())).await;
        match committed.map_err(|error| store_failed(&error, incoming.evidence()))? {
            Commit::Stored | Commit::AlreadyThere => return Ok(target.to_owned()),
            Commit::Taken { kept: true } if *target == own => target = &version,
            Commit::Taken { .. } => {
                work.abandon(upload).await;
                let message = format!("other content appeared at `{target}` during the download");
                return Err(Failure::after(incoming.evidence(), Outcome::StoreFailed, message).into());
            }
            Commit::NotOurs => {
                work.abandon(upload).await;
                return Err(lock(&unchecked).take().unwrap_or_else(|| work.fenced()).into());
            }
        }
    }
}
