//! Stored objects, re-read against their manifests.
//!
//! This file owns what counts as damage and how a damaged object makes way. It must not fetch: a partition whose object
//! was set aside is open again, and goes the ordinary way.

use futures::StreamExt;
use sha2::{Digest, Sha256};

use tracing::warn;

use super::Context;
use crate::{
    config::Report,
    ledger::LedgerError,
    outcome::{Entry, StoredObject},
    report::manifest_key,
    store::{Destination, StoreError},
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
    let Some(mut bytes) = destination.read(&object.key).await? else { return Ok(Some(Damage::Missing)) };
    let mut hash = Sha256::new();
    while let Some(chunk) = bytes.next().await {
        hash.update(&chunk?);
    }
    let sha256 = hex::encode(hash.finalize());
    if sha256 != object.sha256 {
        return Ok(Some(Damage::Altered { sha256 }));
    }
    let manifest = destination.manifest(&object.key).await?;
    let is_described = manifest.is_some_and(|manifest| {
        manifest.names(&entry.partition.id, &object.key)
            && manifest.sha256 == object.sha256
            && manifest.size == object.size
    });
    Ok((!is_described).then_some(Damage::Manifest))
}

/// Makes way for a repair: what is wrong is moved to quarantine, and the partition opened again, so that the next pass
/// stores it anew. Nothing is thrown away. Returns whether a repair is possible.
///
/// A partition that the vendor has deleted by now keeps what it has.
///
/// # Errors
///
/// When the ledger refuses.
pub async fn set_aside(ctx: &Context, report: &Report, inspected: &Inspected) -> Result<bool, LedgerError> {
    let Inspected { entry, damage: Some(damage) } = inspected else { return Ok(false) };
    let Some((object, destination)) = entry.object.as_ref().zip(ctx.destinations.get(&report.destination)) else {
        return Ok(false);
    };
    let is_expired = entry.partition.expires_at.is_some_and(|expiry| expiry <= ctx.clock.now());
    let keys = report.keys(entry.partition.id.date);
    let moved = match damage {
        Damage::Unreadable(_) => return Ok(false),
        Damage::Missing | Damage::Altered { .. } if is_expired => return Ok(false),
        Damage::Missing => Ok(()),
        Damage::Altered { sha256 } => destination.move_aside(&object.key, &keys.quarantine(sha256)).await,
        // The object stays; without a manifest it is read through the verifier and given one.
        Damage::Manifest => {
            let manifest = manifest_key(&object.key);
            match destination.size(&manifest).await {
                Ok(None) => Ok(()),
                Ok(Some(_)) => destination.move_aside(&manifest, &manifest_key(&keys.quarantine(&object.sha256))).await,
                Err(error) => Err(error),
            }
        }
    };
    if let Err(error) = moved {
        warn!("could not make way for a repair: {error}");
        return Ok(false);
    }
    ctx.ledger.reopen_damaged(&entry.partition.id, &damage.to_string()).await?;
    Ok(true)
}
