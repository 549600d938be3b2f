//! One pass of an archive through the verifier.
//!
//! This file owns the threads of each pass: one hashes, one inflates and checks. It must not know the formats.

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{ArchiveLimits, Contents, Rejected, Rejection, TooLarge, Verdict, Verified, tap::Tap, verifier::Verifier};

/// Size of a block for the verifying thread. A smaller archive needs no such thread.
const BLOCK_BYTES: usize = 96 * 1024;

/// Blocks that may wait for the verifying thread. With the one being filled and the one being inflated, a pass holds
/// at most 384 KiB of archive; more make it no faster.
const BLOCKS_WAITING: usize = 2;

/// One pass of an archive: hashed on the caller's thread, inflated and verified on another.
///
/// Hash and inflate take about equally long, so two threads nearly halve the time. The second begins with
/// the second block: a shorter archive is verified by one short task on the thread pool. Large entries of a zip may get a
/// third. Dropping a pass ends its threads after the blocks that they have.
pub struct Pass {
    limits: ArchiveLimits,
    size: u64,
    hash: Sha256,
    /// Chunks copied together: a small chunk may keep a large buffer alive, so a limit on chunks would not bound memory.
    block: Vec<u8>,
    thread: Option<Thread>,
    /// Until the verifier is started.
    tap: Option<Tap>,
    too_large: Option<TooLarge>,
}

/// The verifier on another thread.
struct Thread {
    blocks: mpsc::Sender<Vec<u8>>,
    /// Blocks for reuse, which is cheaper than new ones.
    emptied: mpsc::Receiver<Vec<u8>>,
    judgement: JoinHandle<Result<Contents, Rejection>>,
}

impl Pass {
    /// Starts before the first byte of an archive. [`Pass::feed`] and [`Pass::finish`] need a tokio runtime.
    pub fn start(limits: ArchiveLimits) -> Pass {
        Pass::new(limits, None)
    }

    /// As [`Pass::start`], and `tap` takes the contents of the entries. While it waits, the pass waits.
    pub fn with_tap(limits: ArchiveLimits, tap: Tap) -> Pass {
        Pass::new(limits, Some(tap))
    }

    fn new(limits: ArchiveLimits, tap: Option<Tap>) -> Pass {
        Pass { limits, size: 0, hash: Sha256::new(), block: Vec::new(), thread: None, tap, too_large: None }
    }

    /// Takes the next bytes, and waits while the verifying thread is behind. [`Pass::finish`] reports errors in them; after
    /// an error, bytes are still hashed and counted.
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
                let (block, tap) = (std::mem::take(&mut self.block), self.tap.take().unwrap_or_default());
                let mut verifier = Verifier::with_tap(self.limits, tap);
                tokio::task::spawn_blocking(move || {
                    verifier.write(&block)?;
                    verifier.finish()
                })
            }
        };
        let contents = match (self.too_large, judgement.await) {
            (Some(too_large), _) => Err(Rejection::unverifiable(too_large.to_string())),
            (None, Ok(contents)) => contents,
            // An archive that makes the verifier panic is rejected, and the process continues.
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
        let (limits, tap) = (self.limits, &mut self.tap);
        let thread = self.thread.get_or_insert_with(|| {
            let (blocks, mut receiver) = mpsc::channel::<Vec<u8>>(BLOCKS_WAITING);
            let (empty, emptied) = mpsc::channel(BLOCKS_WAITING);
            let tap = tap.take();
            let judgement = tokio::task::spawn_blocking(move || {
                let mut verifier = match tap {
                    Some(tap) => Verifier::with_tap(limits, tap),
                    None => Verifier::on_two_threads(limits),
                };
                while let Some(mut block) = receiver.blocking_recv() {
                    verifier.write(&block)?;
                    block.clear();
                    // Fails if there are enough blocks, or no more are needed.
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
