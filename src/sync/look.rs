//! The first step: what is at the partition's key already.
//!
//! This file owns when an object counts as the partition's own, and gives it a manifest where that is missing. It must
//! not know what is fetched otherwise.

use super::{
    frame::Step,
    manifest,
    work::{StepError, Work},
};
use crate::{
    outcome::{Failure, Outcome, StoredObject},
    store::{Lookup, Manifest},
};

/// What is at the partition's key before anything is fetched.
pub(super) enum AtKey<'a> {
    /// This partition, complete, with its manifest.
    Ours(Box<Manifest>),
    /// This partition, with a manifest that was missing until now.
    Completed(Box<Manifest>),
    /// This partition, recorded as stored, with numbers that may restate.
    Restatable(&'a StoredObject),
    /// No object; perhaps what is left of one that is gone.
    Vacant(Option<Left>),
    /// An object of other content, which is left alone.
    Foreign,
}

/// A manifest without its object: `None` if it cannot be read, or is that of another.
pub(super) struct Left(pub(super) Option<Box<Manifest>>);

/// Looks for the partition at its destination, and adopts a complete object.
pub(super) async fn look<'a>(work: &Work<'a>) -> Result<AtKey<'a>, StepError> {
    if let Some(object) = &work.claim.entry.object {
        return Ok(AtKey::Restatable(object));
    }
    Ok(work.frame.at(Step::Look, look_at_key(work)).await?)
}

async fn look_at_key<'a>(work: &Work<'a>) -> Result<AtKey<'a>, Failure> {
    let destination = work.destination;
    let id = &work.entry().partition.id;
    let key = work.keys.object();
    let Lookup { size, manifest, has_manifest } = destination.look(&key).await?;
    let Some(size) = size else {
        let left = || Left(manifest.filter(|gone| gone.names(id, &key)).map(Box::new));
        return Ok(AtKey::Vacant(has_manifest.then(left)));
    };
    match manifest {
        Some(manifest) if manifest.names(id, &key) && manifest.size == size => {
            return match altered(work, &manifest).await? {
                None => Ok(AtKey::Ours(Box::new(manifest))),
                Some(sha256) => {
                    destination.move_if_absent(&key, &work.keys.quarantine(&sha256)).await?;
                    Ok(AtKey::Vacant(Some(Left(Some(Box::new(manifest))))))
                }
            };
        }
        Some(manifest) if work.report.source.kind().is_archive() || !manifest.names(id, &key) => {}
        // A process died between object and manifest. Where numbers restate, the manifest may be that of the content before.
        _ => {
            if let Some(manifest) = manifest::of_object(work, &key).await? {
                destination.put_manifest(&manifest).await?;
                return Ok(AtKey::Completed(Box::new(manifest)));
            }
        }
    }
    // Other content has the name; ours may be stored as a version.
    for version in destination.described_objects(&work.keys.versions()).await? {
        let Lookup { size, manifest, .. } = destination.look_at(&version).await?;
        if let Some(manifest) = manifest.filter(|m| m.names(id, &version.key) && size == Some(m.size)) {
            return Ok(AtKey::Ours(Box::new(manifest)));
        }
    }
    Ok(AtKey::Foreign)
}

/// The SHA-256 of the object where it is not what its manifest says. Only a partition that is open because of such damage is
/// read for that: its repair may have ended before the object was moved away.
async fn altered(work: &Work<'_>, manifest: &Manifest) -> Result<Option<String>, Failure> {
    if work.entry().outcome != Some(Outcome::Corrupt) {
        return Ok(None);
    }
    let sha256 = work.destination.sha256_of(&manifest.key).await?;
    Ok(sha256.filter(|sha256| *sha256 != manifest.sha256))
}
