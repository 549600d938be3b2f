//! Stored objects, re-read against their manifests, and their repair.
//!
//! This file owns what counts as damage. It must not fetch: a partition whose object is damaged is opened again, and the
//! next pass fetches it.

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
    words::DamageCode,
};

/// What is wrong with a stored object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// There is no object.
    Missing,
    /// Its bytes are not those that were stored.
    Altered {
        /// Hash of the present bytes.
        sha256: String,
    },
    /// The object is complete, but its manifest is missing or does not describe it.
    Manifest,
    /// The destination could not be read.
    Unreadable(String),
}

impl Damage {
    /// The kind of damage, for programs.
    pub fn code(&self) -> DamageCode {
        match self {
            Damage::Missing => DamageCode::Missing,
            Damage::Altered { .. } => DamageCode::Altered,
            Damage::Manifest => DamageCode::Manifest,
            Damage::Unreadable(_) => DamageCode::Unreadable,
        }
    }
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Damage::Missing => f.write_str("the object is missing"),
            Damage::Altered { sha256 } => write!(f, "the object was altered: its sha256 is now {sha256}"),
            Damage::Manifest => {
                f.write_str("the object is complete, but its manifest is missing or does not describe it")
            }
            Damage::Unreadable(reason) => f.write_str(reason),
        }
    }
}

/// A stored partition and the result of re-reading it.
#[derive(Debug, Clone)]
pub struct Inspected {
    /// The partition.
    pub entry: Entry,
    /// The damage, if there is any.
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
        // Statistics may have been fetched again since the ledger was read or backed up. Then their manifest describes them.
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

/// The result of repairing one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectRepair {
    /// It is complete again.
    Done,
    /// It is open again; the next pass fetches it.
    Opened,
    /// It cannot be repaired, or that was refused. Nothing was changed.
    Impossible,
}

impl From<Result<bool, StoreError>> for ObjectRepair {
    fn from(result: Result<bool, StoreError>) -> Self {
        match result {
            Ok(true) => ObjectRepair::Done,
            Ok(false) => ObjectRepair::Impossible,
            Err(error) => {
                warn!("could not repair: {error}");
                ObjectRepair::Impossible
            }
        }
    }
}

/// Repairs a damaged partition: a wrong manifest is written again; an altered object is moved to quarantine and the
/// partition opened again. A partition that has expired is left unchanged.
///
/// # Errors
///
/// When the ledger cannot be read or written.
pub async fn repair(
    ctx: &Context,
    OpenReport { report, destination }: &OpenReport,
    inspected: &Inspected,
) -> Result<ObjectRepair, LedgerError> {
    let id = &inspected.entry.partition.id;
    // It may have been refreshed since it was inspected.
    let stored = ctx.ledger.entry_of(id).await?.filter(|entry| entry.settled == Settled::Stored);
    let claimed = match &stored {
        Some(entry) => ctx.ledger.claim(entry).await?,
        None => Claimed::Changed,
    };
    let Claimed::Ours(claim) = claimed else {
        warn!("another process works on {id}, or {id} is no longer stored; verify it again later");
        return Ok(ObjectRepair::Impossible);
    };
    // Inspected again under the claim, so that no other process changes it meanwhile.
    let repaired = match inspect(destination, claim.entry).await {
        Inspected { entry, damage: Some(damage) } => repair_claimed(ctx, report, destination, &entry, &damage).await,
        Inspected { damage: None, .. } => Ok(ObjectRepair::Done),
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
) -> Result<ObjectRepair, LedgerError> {
    let Some(object) = entry.object.as_ref() else { return Ok(ObjectRepair::Impossible) };
    let is_expired = entry.partition.expires_at.is_some_and(|expiry| expiry <= ctx.clock.now());
    let keys = report.keys(entry.partition.id.date);
    match damage {
        Damage::Unreadable(_) => return Ok(ObjectRepair::Impossible),
        Damage::Missing | Damage::Altered { .. } if is_expired => return Ok(ObjectRepair::Impossible),
        Damage::Missing | Damage::Altered { .. } => {}
        Damage::Manifest => {
            return Ok(ObjectRepair::from(restore_manifest(ctx, report, entry, object, destination).await));
        }
    }
    // First: a process that dies here leaves no partition stored whose object is gone.
    ctx.ledger.reopen_damaged(&entry.partition.id, &damage.to_string()).await?;
    if let Damage::Altered { sha256 } = damage
        && let Err(error) = destination.move_if_absent(&object.key, &keys.quarantine(sha256)).await
    {
        // The next attempt does it.
        warn!("could not move the altered object to quarantine: {error}");
    }
    Ok(ObjectRepair::Opened)
}

/// Writes the manifest of an object from its bytes; `false` if they do not verify.
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
