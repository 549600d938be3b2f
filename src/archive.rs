//! Is this byte stream a complete, intact archive, and what is in it?
//!
//! This file owns the verdict on a zip, gzip or tar archive, found in one forward pass with bounded memory while the bytes
//! travel on elsewhere. It must not know where bytes come from or go to, and it never makes a path of an entry's name.
//!
//! Seeking readers trust the central directory and streaming readers the local headers; either alone accepts archives
//! that the other finds broken. Here both are read and must agree, no byte may belong to nothing, and every checksum
//! is computed. Tar has no checksum of its data, only structure; a gzip around it has one. What a forward pass cannot see
//! is a gzip archive cut exactly between two members: only the length announced by the sender shows that.

mod gzip;
mod names;
mod tar;
mod verifier;
mod zip;

use std::fmt;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::{sync::mpsc, task::JoinHandle};

use verifier::{Contents, Rejection, Verifier};

/// What bounds the work on one archive.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest archive accepted, in bytes as received.
    pub archive_bytes: u64,
    /// Most bytes inflated from one archive.
    pub inflated_bytes: u64,
    /// Most inflated bytes for each byte of archive; not looked at below 16 MiB inflated, where small tables that
    /// compress well would stand out and no bomb would hurt.
    pub inflate_ratio: u64,
}

/// The kinds of archive that are verified, of those that MoEngage delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A zip archive (PKWARE's APPNOTE.TXT), stored or deflated.
    Zip,
    /// One or more gzip members (RFC 1952), which may hold a tar together.
    Gzip,
    /// A tar archive (POSIX ustar and pax, GNU, historic).
    Tar,
}

impl Format {
    /// The word used in manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Zip => "zip",
            Format::Gzip => "gzip",
            Format::Tar => "tar",
        }
    }
}

/// Whether `beginning` is enough to know that the archive cannot be verified, as with rar or an encrypted first entry.
/// Looks at little, so that it may be called where nothing must block; an entry further on is found by a [`Pass`].
pub fn is_unsupported(beginning: &[u8]) -> bool {
    let beginning = &beginning[..beginning.len().min(16 * 1024)];
    let limits = Limits { archive_bytes: u64::MAX, inflated_bytes: 256 * 1024, inflate_ratio: u64::MAX };
    let judged = Verifier::new(limits).write(beginning);
    judged.is_err_and(|rejection| rejection.kind == RejectedKind::Unsupported)
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One file in an archive: a zip or tar entry, or a gzip member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name it carries, which may be anything at all, so it must not become a path. Empty for a gzip member
    /// without a name. Bytes that are not UTF-8 are replaced.
    pub name: String,
    /// Bytes after inflating.
    pub size: u64,
    /// CRC-32 of those bytes, as computed and as recorded in the archive; `None` in tar, which records none.
    pub crc32: Option<u32>,
}

/// Proof that every byte of an archive was read and found right. Only a [`Pass`] makes one.
#[derive(Debug)]
pub struct Verified {
    contents: Contents,
    size: u64,
    sha256: String,
}

impl Verified {
    /// Zip, gzip or tar, as its first bytes say: a tar within a gzip is a gzip.
    pub fn format(&self) -> Format {
        self.contents.format
    }

    /// Bytes of the archive as received.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// SHA-256 of the archive as received, in lower-case hex.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The entries in the order of their data. A gzip archive has one for each member, or those of the tar in it.
    pub fn entries(&self) -> &[Entry] {
        &self.contents.entries
    }

    /// What is odd about an archive that is otherwise intact, one sentence each: names that would be dangerous as
    /// paths, duplicate names, links (at most 100 of these and a count of the rest), headers that disagree in what says
    /// nothing of the data, zeros after the end.
    pub fn warnings(&self) -> &[String] {
        &self.contents.warnings
    }
}

/// An archive that must not be stored under its final name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// What to make of it.
    pub kind: RejectedKind,
    /// What was found, and where.
    pub message: String,
    /// Bytes received.
    pub size: u64,
    /// SHA-256 of all bytes received, in lower-case hex.
    pub sha256: String,
}

/// As fine as a caller acts on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectedKind {
    /// Something else altogether, such as an HTML page or nothing: worth asking for again.
    NotAnArchive,
    /// An archive that is cut short or damaged, or whose parts contradict each other: worth asking for again.
    Corrupt,
    /// An archive on which programs disagree: ambiguous, followed by other data, or beyond a limit.
    Unverifiable,
    /// A format that cannot be verified: rar, 7z and others, encrypted, split, a method other than stored or deflate,
    /// sparse. Asking again does not help until the report's settings change.
    Unsupported,
}

/// How a [`Pass`] ends.
#[derive(Debug)]
pub enum Verdict {
    /// Complete and intact.
    Verified(Verified),
    /// Anything else.
    Rejected(Rejected),
}

/// What the fuzz targets compare.
#[cfg(fuzzing)]
pub type Judgement = Result<(Format, Vec<Entry>, Vec<String>), (RejectedKind, String)>;

/// Judges bytes that come in these pieces, as they are, without hash, threads and the blocks that a [`Pass`] makes of
/// them: for the fuzz targets.
#[cfg(fuzzing)]
pub fn judge_pieces(limits: Limits, pieces: &[&[u8]]) -> Judgement {
    let mut verifier = Verifier::new(limits);
    let judged = pieces.iter().try_for_each(|piece| verifier.write(piece)).and_then(|()| verifier.finish());
    judged
        .map(|Contents { format, entries, warnings }| (format, entries, warnings))
        .map_err(|Rejection { kind, message }| (kind, message))
}

/// More bytes came than `limits.archive_bytes` allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the archive is larger than limits.archive_bytes ({limit} bytes); raise that limit if the archive is genuine")]
pub struct TooLarge {
    /// The limit, in bytes.
    pub limit: u64,
}

/// Bytes handed to the verifying thread at once, and the largest archive that needs no thread of its own for as long
/// as it arrives.
const BLOCK_BYTES: usize = 96 * 1024;

/// Blocks that may wait for the verifying thread. With the one being filled and the one being inflated, a pass holds
/// at most 384 KiB of archive; more make it no faster.
const BLOCKS_WAITING: usize = 2;

/// One archive on its way through: hashed by whoever feeds it, inflated and checked on a thread beside.
///
/// Hash and inflate take about equally long, so two threads nearly halve the time. The first block is only gathered:
/// an archive that ends within it is judged in one short errand to the thread pool. Dropping a pass ends its thread
/// after the block at hand.
pub struct Pass {
    limits: Limits,
    size: u64,
    hash: Sha256,
    /// Copied together, since a small chunk may keep a large buffer alive, and counting chunks would bound nothing.
    block: Vec<u8>,
    thread: Option<Thread>,
    too_large: Option<TooLarge>,
}

/// The verifier at work elsewhere.
struct Thread {
    blocks: mpsc::Sender<Vec<u8>>,
    /// Blocks that are read and can be filled again, which is cheaper than new ones.
    emptied: mpsc::Receiver<Vec<u8>>,
    judgement: JoinHandle<Result<Contents, Rejection>>,
}

impl Pass {
    /// Begins with the first byte of an archive yet to come. [`Pass::feed`] and [`Pass::finish`] need a tokio runtime.
    pub fn start(limits: Limits) -> Pass {
        Pass { limits, size: 0, hash: Sha256::new(), block: Vec::new(), thread: None, too_large: None }
    }

    /// Takes the next bytes, and waits while the verifying thread is behind. What is wrong with them is told by
    /// [`Pass::finish`]; after an error in the archive, bytes are still hashed and counted.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] if this chunk exceeds `archive_bytes`. The chunk is not counted, and the archive can no longer be
    /// verified.
    pub async fn feed(&mut self, chunk: Bytes) -> Result<(), TooLarge> {
        if self.too_large.is_none() && self.size.saturating_add(chunk.len() as u64) > self.limits.archive_bytes {
            self.too_large = Some(TooLarge { limit: self.limits.archive_bytes });
        }
        if let Some(too_large) = self.too_large {
            return Err(too_large);
        }
        let mut rest = &chunk[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(BLOCK_BYTES - self.block.len()));
            self.hash.update(now);
            self.size += now.len() as u64;
            self.block.extend_from_slice(now);
            if self.block.len() == BLOCK_BYTES {
                self.hand_over().await;
            }
            rest = later;
        }
        Ok(())
    }

    /// Ends the archive and waits for the verdict.
    pub async fn finish(mut self) -> Verdict {
        let judgement = match self.thread.take() {
            Some(thread) => {
                // Fails only if the verifier has already rejected the archive.
                let _ = thread.blocks.send(std::mem::take(&mut self.block)).await;
                drop(thread.blocks);
                thread.judgement
            }
            None => {
                let (block, mut verifier) = (std::mem::take(&mut self.block), Verifier::new(self.limits));
                tokio::task::spawn_blocking(move || {
                    verifier.write(&block)?;
                    verifier.finish()
                })
            }
        };
        let contents = match (self.too_large, judgement.await) {
            (Some(too_large), _) => Err(Rejection::unverifiable(too_large.to_string())),
            (None, Ok(contents)) => contents,
            // Bytes that make the verifier itself fail must neither be stored nor stop anything else.
            (None, Err(failure)) => Err(Rejection::unverifiable(format!(
                "the verifier failed on this archive, please report it: {failure}"
            ))),
        };
        let (size, sha256) = (self.size, hex::encode(self.hash.finalize()));
        match contents {
            Ok(contents) => Verdict::Verified(Verified { contents, size, sha256 }),
            Err(Rejection { kind, message }) => Verdict::Rejected(Rejected { kind, message, size, sha256 }),
        }
    }

    async fn hand_over(&mut self) {
        let limits = self.limits;
        let thread = self.thread.get_or_insert_with(|| {
            let (blocks, mut receiver) = mpsc::channel::<Vec<u8>>(BLOCKS_WAITING);
            let (empty, emptied) = mpsc::channel(BLOCKS_WAITING);
            let judgement = tokio::task::spawn_blocking(move || {
                let mut verifier = Verifier::new(limits);
                while let Some(mut block) = receiver.blocking_recv() {
                    verifier.write(&block)?;
                    block.clear();
                    // No room means that there are enough; nobody there, that no more are wanted.
                    let _ = empty.try_send(block);
                }
                verifier.finish()
            });
            Thread { blocks, emptied, judgement }
        });
        let empty = thread.emptied.try_recv().unwrap_or_else(|_| Vec::with_capacity(BLOCK_BYTES));
        let block = std::mem::replace(&mut self.block, empty);
        // Fails only if the verifier has already rejected the archive: the rest need only be hashed.
        let _ = thread.blocks.send(block).await;
    }
}
