//! Copies of stored objects, checked while they are copied.
//!
//! This file owns when a copy is complete. It must not know where it goes: what it writes before the end is not checked yet.

use std::{
    borrow::Cow,
    collections::HashMap,
    fs::File,
    io::{self, BufWriter, Write},
};

use bytes::Bytes;
use futures::{TryStreamExt, stream::BoxStream};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::stored::Stored;
use crate::{
    archive::{ArchiveEntry, ArchiveLimits, Pass, Tap, Verdict},
    store::{Destination, Manifest, ManifestEntry, StoreError},
    temporary::temporary_file,
};

/// Pieces of an entry that may wait to be written. A piece has at most 96 KiB.
const PIECES_WAITING: usize = 8;

/// What is copied of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it, unchanged.
    Whole,
    /// The contents of one entry, by its position in the manifest.
    Entry(usize),
}

/// A complete copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// Bytes written.
    pub size: u64,
}

/// Why a copy is not complete. What was written so far must not be used.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The object cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no object.
    #[error(
        "`{key}` is missing, and only its manifest is left; `moesync verify --repair` fetches it again where MoEngage still has it"
    )]
    Missing {
        /// Key of the object.
        key: String,
    },
    /// The object is not the one that was stored.
    #[error(
        "`{key}` is damaged: {problem}. What was copied must not be used; `moesync verify --repair` fetches the object again \
         where MoEngage still has it"
    )]
    Damaged {
        /// Key of the object.
        key: String,
        /// The difference.
        problem: String,
    },
    /// The copy cannot be written.
    #[error("{0}")]
    Write(#[source] io::Error),
}

/// Copies an object, or one entry of it, to `to`. The object is read to its end and its hash compared with the manifest. An
/// entry passes through the verifier of archives, which compares length and CRC-32.
///
/// # Errors
///
/// The object is missing, damaged or cannot be read, or `to` cannot be written.
pub async fn copy(
    destination: &Destination,
    stored: &Stored,
    part: Part,
    to: &mut impl Write,
) -> Result<Copied, CopyError> {
    let size = match part {
        Part::Whole => whole(destination, stored, to).await?,
        Part::Entry(position) => {
            let sizes = entries(destination, stored, vec![position], &mut |_, bytes| to.write_all(bytes)).await?;
            sizes.get(&position).copied().unwrap_or(0)
        }
    };
    Ok(Copied { size })
}

/// The contents of the entries at these positions, checked as by [`copy`], in files without a name.
///
/// # Errors
///
/// As of [`copy`].
pub async fn unpack(destination: &Destination, stored: &Stored, positions: Vec<usize>) -> Result<Vec<File>, CopyError> {
    let files: io::Result<Vec<_>> = positions.iter().map(|_| temporary_file(None).map(BufWriter::new)).collect();
    let mut files = files.map_err(CopyError::Write)?;
    let order = positions.clone();
    let mut take = |entry: usize, bytes: &[u8]| match order.iter().position(|wanted| *wanted == entry) {
        Some(at) => files[at].write_all(bytes),
        None => Ok(()),
    };
    entries(destination, stored, positions, &mut take).await?;
    let files = files.into_iter().map(|file| file.into_inner().map_err(io::IntoInnerError::into_error));
    files.collect::<io::Result<_>>().map_err(CopyError::Write)
}

async fn whole(destination: &Destination, stored: &Stored, to: &mut impl Write) -> Result<u64, CopyError> {
    let (mut bytes, mut hash, mut size) = (open(destination, stored).await?, Sha256::new(), 0);
    while let Some(chunk) = bytes.try_next().await? {
        hash.update(&chunk);
        size += chunk.len() as u64;
        to.write_all(&chunk).map_err(CopyError::Write)?;
    }
    described(destination, stored, &hex::encode(hash.finalize())).await?;
    Ok(size)
}

/// Passes the contents of the entries at these positions to `take`, and returns their sizes.
async fn entries(
    destination: &Destination,
    stored: &Stored,
    positions: Vec<usize>,
    take: &mut impl FnMut(usize, &[u8]) -> io::Result<()>,
) -> Result<HashMap<usize, u64>, CopyError> {
    let damaged = |problem: String| CopyError::Damaged { key: stored.manifest.key.clone(), problem };
    let (pieces, mut waiting) = mpsc::channel::<(usize, Vec<u8>)>(PIECES_WAITING);
    let wanted = positions.clone();
    let tap = Tap::new(move |entry, bytes| {
        if wanted.contains(&entry) {
            // Fails if the copy cannot be written; then the pass is dropped.
            let _ = pieces.blocking_send((entry, bytes.to_vec()));
        }
    });
    let feed = async {
        // Its bytes are compared with the manifest.
        let (mut bytes, mut pass) = (open(destination, stored).await?, Pass::with_tap(ArchiveLimits::NONE, tap));
        while let Some(chunk) = bytes.try_next().await? {
            // There is no limit to exceed.
            let _ = pass.feed(chunk).await;
        }
        Ok(pass.finish().await)
    };
    let write = async {
        let mut sizes = HashMap::new();
        while let Some((entry, piece)) = waiting.recv().await {
            *sizes.entry(entry).or_default() += piece.len() as u64;
            take(entry, &piece).map_err(CopyError::Write)?;
        }
        Ok::<_, CopyError>(sizes)
    };
    let (verdict, sizes) = tokio::try_join!(feed, write)?;
    let verified = match verdict {
        Verdict::Verified(verified) => verified,
        Verdict::Rejected(rejected) => return Err(damaged(rejected.message)),
    };
    let manifest = described(destination, stored, verified.sha256()).await?;
    for position in positions {
        let size = sizes.get(&position).copied().unwrap_or(0);
        if !is_described(&manifest, position, verified.entries().get(position), size) {
            return Err(damaged("an entry is not the one in its manifest".to_owned()));
        }
    }
    Ok(sizes)
}

async fn open(
    destination: &Destination,
    stored: &Stored,
) -> Result<BoxStream<'static, Result<Bytes, StoreError>>, CopyError> {
    let key = &stored.manifest.key;
    destination.read(key).await?.ok_or_else(|| CopyError::Missing { key: key.clone() })
}

/// The manifest of an object with this hash.
async fn described<'a>(
    destination: &Destination,
    stored: &'a Stored,
    sha256: &str,
) -> Result<Cow<'a, Manifest>, CopyError> {
    let manifest = &stored.manifest;
    if sha256 == manifest.sha256 {
        return Ok(Cow::Borrowed(manifest));
    }
    // Statistics are replaced when they are fetched again, perhaps since their manifest was read.
    match destination.manifest(&manifest.key).await? {
        Some(newer) if newer.sha256 == sha256 => Ok(Cow::Owned(newer)),
        _ => Err(CopyError::Damaged {
            key: manifest.key.clone(),
            problem: format!("its sha256 is {sha256}, and {} in its manifest", manifest.sha256),
        }),
    }
}

/// Whether the manifest has this entry at this position, with as many bytes as were copied.
fn is_described(manifest: &Manifest, position: usize, entry: Option<&ArchiveEntry>, size: u64) -> bool {
    let described = manifest.entries.as_ref().and_then(|entries| entries.get(position));
    described.zip(entry).is_some_and(|(ManifestEntry { name, size: described_size, crc32 }, entry)| {
        *name == entry.name && *crc32 == entry.crc32 && *described_size == entry.size && entry.size == size
    })
}
