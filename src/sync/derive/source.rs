//! The object that tables are made of, as a file to be read in any order.
//!
//! This file owns the proof that the file is the recorded object: its SHA-256 is computed before anything is read from it. It
//! must not know what is in it.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use futures::TryStreamExt;
use sha2::{Digest, Sha256};

use super::{Derive, DeriveError, threads::Stoppable};
use crate::{
    outcome::StoredObject,
    store::{Manifest, hash_of_reader},
    temporary::temporary_file,
};

/// The object and its manifest.
pub(super) struct ObjectFile {
    pub(super) file: Arc<File>,
    /// `None` if it is missing or does not describe the object.
    pub(super) manifest: Option<Manifest>,
}

/// The file of an object, of which nothing may be read but its hash.
pub(super) struct Unproven {
    file: Arc<File>,
    manifest: Option<Manifest>,
    /// Computed while the object was copied; `None` if it was not.
    sha256: Option<String>,
    object: StoredObject,
}

/// Opens the object in a directory; reads it from an object store into a file without a name.
pub(super) async fn open(derive: &Derive<'_>, object: &StoredObject) -> Result<Unproven, DeriveError> {
    let key = object.key.as_str();
    let manifest = derive.destination.manifest(key).await?;
    let (file, sha256) = match derive.destination.file(key).await? {
        Some(file) => (Arc::new(file), None),
        None => spool(derive, key).await.map(|(file, sha256)| (file, Some(sha256)))?,
    };
    Ok(Unproven { file, manifest, sha256, object: object.clone() })
}

impl Unproven {
    /// The file, if it is that of the recorded object. Blocks.
    pub(super) fn prove(self, stop: &Arc<AtomicBool>) -> Result<ObjectFile, DeriveError> {
        let Unproven { file, manifest, sha256, object: StoredObject { key, sha256: recorded, .. } } = self;
        let sha256 = match sha256 {
            Some(sha256) => sha256,
            None => {
                let reader = Stoppable { reader: &*file, stop: Arc::clone(stop) };
                hash_of_reader(reader).map_err(unreadable)?.1
            }
        };
        if sha256 != recorded {
            return Err(DeriveError::passing(format!(
                "the object `{key}` is not the recorded one: its sha256 is {sha256}, recorded is {recorded}; `moesync verify` shows what is damaged"
            )));
        }
        Ok(ObjectFile { file, manifest: manifest.filter(|manifest| manifest.sha256 == recorded) })
    }
}

/// Copies the object to a file in the folder of the ledger, where there is room for data, or in the system's folder for
/// temporary files. Returns it with its SHA-256.
async fn spool(derive: &Derive<'_>, key: &str) -> Result<(Arc<File>, String), DeriveError> {
    let missing =
        || DeriveError::passing(format!("the object `{key}` is missing; `moesync verify --repair` fetches it again"));
    let mut chunks = derive.destination.read(key).await?.ok_or_else(missing)?;
    let ledger = derive.ctx.ledger.file().map(Path::to_owned);
    let (mut file, mut hash) =
        derive.blocking(move || Ok((temporary_file(ledger.as_deref()).map_err(unspooled)?, Sha256::new()))).await?;
    while let Some(chunk) = chunks.try_next().await? {
        (file, hash) = derive
            .blocking(move || {
                hash.update(&chunk);
                file.write_all(&chunk).map_err(unspooled)?;
                Ok((file, hash))
            })
            .await?;
    }
    Ok((Arc::new(file), hex::encode(hash.finalize())))
}

fn unspooled(error: io::Error) -> DeriveError {
    DeriveError::passing(format!("could not write the temporary file for an object: {error}"))
}

fn unreadable(error: io::Error) -> DeriveError {
    DeriveError::passing(format!("could not read the object: {error}"))
}
