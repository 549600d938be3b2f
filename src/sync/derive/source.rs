//! The object that tables are made of, as a file to be read in any order.
//!
//! This file owns the proof that the file is the recorded object: its SHA-256 is computed before anything is read from it. It
//! must not know what is in it.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use futures::TryStreamExt;
use sha2::{Digest, Sha256};

use super::{
    Derive, DeriveError,
    threads::{Stoppable, blocking},
};
use crate::{
    outcome::StoredObject,
    store::{Manifest, hash_of_reader},
};

/// The object and its manifest.
pub(super) struct ObjectFile {
    pub(super) file: Arc<File>,
    /// `None` if it is missing or does not describe the object.
    pub(super) manifest: Option<Manifest>,
}

/// Opens the object in a directory; reads it from an object store into a file without a name.
pub(super) async fn open(derive: &Derive<'_>, object: &StoredObject) -> Result<ObjectFile, DeriveError> {
    let key = object.key.as_str();
    let manifest = derive.destination.manifest(key).await?;
    let (file, sha256) = match derive.destination.file(key).await? {
        Some(file) => {
            let file = Arc::new(file);
            let (read, stop) = (Arc::clone(&file), derive.stop.flag());
            let hashing = move || hash_of_reader(Stoppable { reader: &*read, stop }).map_err(unreadable);
            let (_, sha256) = blocking(hashing).await?;
            (file, sha256)
        }
        None => spool(derive, key).await?,
    };
    if sha256 != object.sha256 {
        return Err(DeriveError::passing(format!(
            "the object `{key}` is not the recorded one: its sha256 is {sha256}, recorded is {}; `moesync verify` shows what is damaged",
            object.sha256
        )));
    }
    Ok(ObjectFile { file, manifest: manifest.filter(|manifest| manifest.sha256 == object.sha256) })
}

/// Copies the object to a file in the folder of the ledger, where there is room for data, or in the system's folder for
/// temporary files. Returns it with its SHA-256.
async fn spool(derive: &Derive<'_>, key: &str) -> Result<(Arc<File>, String), DeriveError> {
    let missing =
        || DeriveError::passing(format!("the object `{key}` is missing; `moesync verify --repair` fetches it again"));
    let mut chunks = derive.destination.read(key).await?.ok_or_else(missing)?;
    let folder = match derive.ctx.ledger.file() {
        Some(ledger) => ledger.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned(),
        None => std::env::temp_dir(),
    };
    let (mut file, mut hash) =
        blocking(move || Ok((tempfile::tempfile_in(folder).map_err(unspooled)?, Sha256::new()))).await?;
    while let Some(chunk) = chunks.try_next().await? {
        (file, hash) = blocking(move || {
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
