//! Stored objects, re-read against their manifests.
//!
//! This file owns what counts as damage and how a damaged object makes way. It must not fetch: a partition whose object
//! was set aside is open again, and goes the ordinary way.

use tracing::warn;

use super::{
    context::{Context, OpenReport},
    manifest::describe_again,
};
use crate::{
    config::{Report, SourceKind},
    ledger::{Claimed, LedgerError},
    outcome::StoredObject,
    partition::{Entry, Settled},
    store::{Destination, Manifest, StoreError},
};

/// What is wrong with a stored object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// The object is gone.
    Missing,
    /// Its bytes are not those that were stored.
    Altered {
        /// Hash of what is there now.
        sha256: String,
    },
    /// The bytes are right, the manifest is missing or says otherwise.
    Manifest,
    /// The destination could not be read.
    Unreadable(String),
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Damage::Missing => f.write_str("the object is missing"),
            Damage::Altered { sha256 } => write!(f, "the object was altered: its sha256 is now {sha256}"),
            Damage::Manifest => f.write_str("the object is whole, but its manifest is missing or does not describe it"),
            Damage::Unreadable(reason) => f.write_str(reason),
        }
    }
}

/// A stored partition and what re-reading it showed.
#[derive(Debug, Clone)]
pub struct Inspected {
    /// The partition.
    pub entry: Entry,
    /// What is wrong; `None` when nothing is.
    pub damage: Option<Damage>,
}

/// Re-reads the object of a stored partition at its destination.
pub async fn inspect(destination: &Destination, entry: Entry) -> Inspected {
    let damage = match &entry.object {
        Some(object) => damage(destination, &entry, object)
            .await
            .unwrap_or_else(|error| Some(Damage::Unreadable(error.to_string()))),
        None => Some(Damage::Missing),
    };
    Inspected { entry, damage }
}

async fn damage(destination: &Destination, entry: &Entry, object: &StoredObject) -> Result<Option<Damage>, StoreError> {
    let Some(sha256) = destination.sha256_of(&object.key).await? else { return Ok(Some(Damage::Missing)) };
    let manifest = destination.manifest(&object.key).await?;
    if sha256 != object.sha256 {
        // What restates may have been fetched again since the ledger was read, or was backed up: then its manifest says so.
        let is_newer = |manifest: Manifest| {
            entry.partition.source == SourceKind::CampaignStats
                && manifest.names(&entry.partition.id, &object.key)
                && manifest.sha256 == sha256
        };
        return Ok((!manifest.is_some_and(is_newer)).then_some(Damage::Altered { sha256 }));
    }
    let is_described = manifest.is_some_and(|manifest| {
        manifest.names(&entry.partition.id, &object.key)
            && manifest.sha256 == object.sha256
            && manifest.size == object.size
    });
    Ok((!is_described).then_some(Damage::Manifest))
}

/// What a repair of one partition has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// It is whole again.
    Done,
    /// It is open again; the next pass fetches it again.
    Opened,
    /// Nothing can be done, or it was refused; everything is as it was.
    Impossible,
}

impl From<Result<bool, StoreError>> for Repair {
    fn from(result: Result<bool, StoreError>) -> Self {
        match result {
            Ok(true) => Repair::Done,
            Ok(false) => Repair::Impossible,
            Err(error) => {
                warn!("could not repair: {error}");
                Repair::Impossible
            }
        }
    }
}

/// Repairs, or makes way for it: an altered object is moved to quarantine and the partition opened again. Nothing is
/// thrown away.
///
/// A partition that the vendor has deleted by now keeps what it has.
///
/// # Errors
///
/// When the ledger cannot be read or written.
pub async fn repair(
    ctx: &Context,
    OpenReport { report, destination }: &OpenReport,
    inspected: &Inspected,
) -> Result<Repair, LedgerError> {
    let id = &inspected.entry.partition.id;
    // It may have been refreshed since it was inspected.
    let stored = ctx.ledger.entry_of(id).await?.filter(|entry| entry.settled == Settled::Stored);
    let claimed = match &stored {
        Some(entry) => ctx.ledger.claim(entry).await?,
        None => Claimed::Settled,
    };
    let Claimed::Ours(claim) = claimed else {
        warn!("another process works on {id}, or {id} is no longer stored; verify it again later");
        return Ok(Repair::Impossible);
    };
    // Inspected again under the claim: no other process works on it now.
    let repaired = match inspect(destination, claim.entry).await {
        Inspected { entry, damage: Some(damage) } => repair_claimed(ctx, report, destination, &entry, &damage).await,
        Inspected { damage: None, .. } => Ok(Repair::Done),
    };
    ctx.ledger.release(id).await?;
    repaired
}

async fn repair_claimed(
    ctx: &Context,
    report: &Report,
    destination: &Destination,
    entry: &Entry,
    damage: &Damage,
) -> Result<Repair, LedgerError> {
    let Some(object) = entry.object.as_ref() else { return Ok(Repair::Impossible) };
    let is_expired = entry.partition.expires_at.is_some_and(|expiry| expiry <= ctx.clock.now());
    let keys = report.keys(entry.partition.id.date);
    let moved = match damage {
        Damage::Unreadable(_) => return Ok(Repair::Impossible),
        Damage::Missing | Damage::Altered { .. } if is_expired => return Ok(Repair::Impossible),
        Damage::Missing => Ok(()),
        Damage::Altered { sha256 } => destination.move_if_absent(&object.key, &keys.quarantine(sha256)).await,
        Damage::Manifest => return Ok(Repair::from(restore_manifest(ctx, report, entry, object, destination).await)),
    };
    if let Err(error) = moved {
        warn!("could not make way for a repair: {error}");
        return Ok(Repair::Impossible);
    }
    ctx.ledger.reopen_damaged(&entry.partition.id, &damage.to_string()).await?;
    Ok(Repair::Opened)
}

/// Writes the manifest of a whole object again; says whether the verifier agrees that it is one.
async fn restore_manifest(
    ctx: &Context,
    report: &Report,
    entry: &Entry,
    object: &StoredObject,
    destination: &Destination,
) -> Result<bool, StoreError> {
    let Some(manifest) = describe_again(ctx, report, entry, destination, &object.key, || ()).await? else {
        return Ok(false);
    };
    let manifest = Manifest { fetched_at: Some(object.stored_at), attempts: entry.attempts, ..manifest };
    destination.put_manifest(&manifest).await?;
    Ok(true)
}
