//! Copies of stored objects, checked while they are copied.
//!
//! This file owns when a copy is complete. It must not know where it goes: what it writes before the end is not checked yet.

use std::io::{self, Write};

use futures::TryStreamExt;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::stored::Stored;
use crate::{
    archive::{ArchiveEntry, ArchiveLimits, Pass, Tap, Verdict},
    store::{Destination, Manifest, ManifestEntry, StoreError},
};

/// The limits that the archive was stored with may be other ones than the present; its bytes are compared with the manifest.
const NO_LIMITS: ArchiveLimits =
    ArchiveLimits { archive_bytes: u64::MAX, inflated_bytes: u64::MAX, inflate_ratio: u64::MAX };

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
    let key = &stored.manifest.key;
    let Some(bytes) = destination.read(key).await? else { return Err(CopyError::Missing { key: key.clone() }) };
    let damaged = |problem: String| CopyError::Damaged { key: key.clone(), problem };
    let (size, sha256, entry) = match part {
        Part::Whole => {
            let (mut bytes, mut hash, mut size) = (bytes, Sha256::new(), 0);
            while let Some(chunk) = bytes.try_next().await? {
                hash.update(&chunk);
                size += chunk.len() as u64;
                to.write_all(&chunk).map_err(CopyError::Write)?;
            }
            (size, hex::encode(hash.finalize()), None)
        }
        Part::Entry(position) => {
            let (pieces, mut waiting) = mpsc::channel::<Vec<u8>>(PIECES_WAITING);
            let tap = Tap::new(move |entry, bytes| {
                if entry == position {
                    // Fails if the copy cannot be written; then the pass is dropped.
                    let _ = pieces.blocking_send(bytes.to_vec());
                }
            });
            let feed = async {
                let (mut bytes, mut pass) = (bytes, Pass::with_tap(NO_LIMITS, tap));
                while let Some(chunk) = bytes.try_next().await? {
                    // There is no limit to exceed.
                    let _ = pass.feed(chunk).await;
                }
                Ok(pass.finish().await)
            };
            let write = async {
                let mut size = 0;
                while let Some(piece) = waiting.recv().await {
                    size += piece.len() as u64;
                    to.write_all(&piece).map_err(CopyError::Write)?;
                }
                Ok::<_, CopyError>(size)
            };
            match tokio::try_join!(feed, write)? {
                (Verdict::Rejected(rejected), _) => return Err(damaged(rejected.message)),
                (Verdict::Verified(verified), size) => {
                    let entry = verified.entries().get(position).cloned();
                    (size, verified.sha256().to_owned(), Some(entry))
                }
            }
        }
    };
    // Statistics are replaced when they are fetched again, perhaps since their manifest was read.
    let manifest = match sha256 == stored.manifest.sha256 {
        true => None,
        false => destination.manifest(key).await?.filter(|manifest| manifest.sha256 == sha256),
    };
    let manifest = manifest.as_ref().unwrap_or(&stored.manifest);
    if sha256 != manifest.sha256 {
        return Err(damaged(format!("its sha256 is {sha256}, and {} in its manifest", manifest.sha256)));
    }
    match (part, entry) {
        (Part::Entry(position), Some(entry)) if !is_described(manifest, position, entry.as_ref(), size) => {
            Err(damaged("the entry is not the one in its manifest".to_owned()))
        }
        _ => Ok(Copied { size }),
    }
}

/// Whether the manifest has this entry at this position, with as many bytes as were copied.
fn is_described(manifest: &Manifest, position: usize, entry: Option<&ArchiveEntry>, size: u64) -> bool {
    let described = manifest.entries.as_ref().and_then(|entries| entries.get(position));
    described.zip(entry).is_some_and(|(ManifestEntry { name, size: described_size, crc32 }, entry)| {
        *name == entry.name && *crc32 == entry.crc32 && *described_size == entry.size && entry.size == size
    })
}
