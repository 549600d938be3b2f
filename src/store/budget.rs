//! Memory for bytes on their way to a destination.
//!
//! This file owns its amount and the waiting for it. It must not know what the bytes are or how they are sent.
//!
//! The memory is divided among the destinations when they are opened, so that a destination that hangs holds only its own
//! share. Within a share, a part takes memory in blocks as its bytes arrive. When all of a share is in use, one upload at a
//! time may fill the reserve, which has room for one whole part. An upload that does not fill it in time while others wait
//! has to end ([`Part::overstays`]), so every wait ends.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use object_store::PutPayload;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, sleep_until},
};

use super::MIB;
use crate::{config, lock::lock};

/// Size of a block in bytes: a part takes memory in blocks, and a file is written in them.
pub(super) const BLOCK_BYTES: u64 = MIB / 4;

/// Size of the largest part, and of the reserve.
pub(super) const LARGE_PART_BYTES: u64 = 8 * MIB;

/// Memory of all destinations together, in bytes, without that of copies.
const PARTS_BYTES: u64 = 32 * MIB - LARGE_PART_BYTES;

/// Memory of one directory, in bytes. When it is in use, bytes for further files are written as they arrive.
const DIRECTORY_BYTES: u64 = 2 * MIB;

/// How long an upload may take to fill the reserve while others wait for it.
const RESERVE_TIME: Duration = Duration::from_secs(30);

/// How often an upload that has exceeded that time checks whether others wait.
const RESERVE_INTERVAL: Duration = Duration::from_secs(1);

/// The process's memory for uploads: 32 MiB. With more than three object stores, 8 MiB for each of them, and 8 MiB for
/// copies.
#[derive(Debug, Clone)]
pub struct Budget {
    /// Bytes of one object store.
    store_bytes: u64,
    copying: Arc<Semaphore>,
}

impl Budget {
    /// The budget of a process with one destination.
    pub fn new() -> Self {
        Self::of(0, 1)
    }

    /// The budget of a process with these destinations.
    pub fn for_destinations(destinations: &[Arc<config::DestinationSettings>]) -> Self {
        let directories = destinations.iter().filter(|destination| destination.is_directory()).count();
        Self::of(directories as u64, (destinations.len() - directories) as u64)
    }

    fn of(directories: u64, stores: u64) -> Self {
        let rest = PARTS_BYTES.saturating_sub(directories * DIRECTORY_BYTES);
        let store_bytes = (rest / stores.max(1)).max(LARGE_PART_BYTES);
        Budget { store_bytes, copying: Arc::new(Semaphore::new(1)) }
    }

    /// The budget of the same process after a reload, with these destinations. Uploads in progress keep their old share.
    pub fn redivided(&self, destinations: &[Arc<config::DestinationSettings>]) -> Self {
        Budget { copying: Arc::clone(&self.copying), ..Self::for_destinations(destinations) }
    }

    /// The share of a directory.
    pub(super) fn of_directory(&self) -> Share {
        self.share(DIRECTORY_BYTES)
    }

    /// The share of an object store.
    pub(super) fn of_store(&self) -> Share {
        self.share(self.store_bytes - LARGE_PART_BYTES)
    }

    fn share(&self, common_bytes: u64) -> Share {
        Share {
            pool: Arc::new(Pool {
                common: Arc::new(Semaphore::new(common_bytes as usize)),
                reserve: Arc::new(Semaphore::new(1)),
                waiting: AtomicUsize::new(0),
                idle: Mutex::default(),
            }),
            copying: Arc::clone(&self.copying),
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new()
    }
}

/// One destination's share of the budget. Clones are the same share.
#[derive(Debug, Clone)]
pub(super) struct Share {
    pool: Arc<Pool>,
    copying: Arc<Semaphore>,
}

#[derive(Debug)]
struct Pool {
    /// A permit a byte.
    common: Arc<Semaphore>,
    /// One permit, for one whole part.
    reserve: Arc<Semaphore>,
    /// How many uploads wait for memory.
    waiting: AtomicUsize,
    /// Empty blocks for reuse: an allocator to which many threads return large buffers keeps half as much again as is in
    /// use. Together with the blocks in use they never exceed the share.
    idle: Mutex<Vec<BytesMut>>,
}

impl Share {
    /// An empty part that will hold up to `capacity` bytes, at most [`LARGE_PART_BYTES`].
    pub(super) fn part(&self, capacity: u64) -> Part {
        Part::new(self, capacity, None)
    }

    /// An empty part for a copy. There is one at a time in the process, with memory of its own, so that a copy never waits
    /// for the upload that waits for it.
    pub(super) async fn copying(&self, capacity: u64) -> Part {
        Part::new(self, capacity, Some(Reserve { since: None, _permit: acquire(&self.copying, 1).await }))
    }
}

impl Pool {
    fn buffer(&self, capacity: usize) -> BytesMut {
        let mut idle = lock(&self.idle);
        let known = if capacity as u64 == BLOCK_BYTES { idle.pop() } else { None };
        let room = self.common.available_permits();
        while idle.len() * BLOCK_BYTES as usize > room {
            idle.pop();
        }
        known.unwrap_or_else(|| BytesMut::with_capacity(capacity))
    }

    fn recycle(&self, mut buffer: BytesMut) {
        buffer.clear();
        if buffer.capacity() as u64 == BLOCK_BYTES {
            lock(&self.idle).push(buffer);
        }
    }
}

async fn acquire(semaphore: &Arc<Semaphore>, permits: u32) -> OwnedSemaphorePermit {
    #[expect(clippy::expect_used, reason = "the budget's semaphores are never closed")]
    Arc::clone(semaphore).acquire_many_owned(permits).await.expect("the budget is open")
}

/// Permission to fill one part when all other memory is in use.
#[derive(Debug)]
struct Reserve {
    /// Since when; `None` for a copy, for which no upload waits.
    since: Option<Instant>,
    _permit: OwnedSemaphorePermit,
}

/// Counts an upload as waiting for as long as it lives.
struct WaitingUpload<'a>(&'a AtomicUsize);

impl<'a> WaitingUpload<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        WaitingUpload(count)
    }
}

impl Drop for WaitingUpload<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes on their way, with the memory that they take.
pub(super) struct Part {
    pool: Arc<Pool>,
    /// All but the last are full.
    blocks: Vec<BytesMut>,
    capacity: usize,
    length: usize,
    memory: Memory,
}

/// Free again when dropped.
struct Memory {
    /// Of the blocks that the common memory has given.
    common: Option<OwnedSemaphorePermit>,
    /// For all further blocks.
    reserve: Option<Reserve>,
}

impl Part {
    fn new(share: &Share, capacity: u64, reserve: Option<Reserve>) -> Self {
        Part {
            pool: Arc::clone(&share.pool),
            blocks: Vec::new(),
            capacity: capacity as usize,
            length: 0,
            memory: Memory { common: None, reserve },
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.length >= self.capacity
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Moves bytes from the front of `chunk` into the part, as far as its memory and the free memory allow. If bytes remain,
    /// the part is full or no memory is free.
    pub(super) fn fill(&mut self, chunk: &mut Bytes) {
        while !chunk.is_empty() && !self.is_full() {
            if self.room() == 0 && !self.take_now() {
                return;
            }
            let length = self.room().min(chunk.len());
            let Some(block) = self.blocks.last_mut() else { return };
            block.extend_from_slice(&chunk.split_to(length));
            self.length += length;
        }
    }

    /// Waits for memory for at least one byte more.
    pub(super) async fn grow(&mut self) {
        if self.room() > 0 || self.is_full() || self.take_now() {
            return;
        }
        let pool = Arc::clone(&self.pool);
        let _waiting = WaitingUpload::new(&pool.waiting);
        let bytes = self.next_block();
        tokio::select! {
            permit = acquire(&pool.common, bytes as u32) => self.add(Some(permit)),
            permit = acquire(&pool.reserve, 1) => {
                self.memory.reserve = Some(Reserve { since: Some(Instant::now()), _permit: permit });
                self.add(None);
            }
        }
    }

    /// Returns once the part has held the reserve for [`RESERVE_TIME`], is not full, and other uploads wait.
    pub(super) async fn overstays(&self) {
        let Some(since) = self.memory.reserve.as_ref().and_then(|reserve| reserve.since) else {
            return std::future::pending().await;
        };
        sleep_until(since + RESERVE_TIME).await;
        while self.pool.waiting.load(Ordering::Relaxed) == 0 {
            sleep(RESERVE_INTERVAL).await;
        }
    }

    /// Its size in bytes.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// All bytes, of a part that is no larger than a block.
    pub(super) fn bytes(&self) -> &[u8] {
        self.blocks.first().map_or(&[], |block| block)
    }

    /// All bytes, in their order.
    pub(super) fn blocks(&self) -> impl Iterator<Item = &[u8]> {
        self.blocks.iter().map(|block| &block[..])
    }

    /// Returns the memory for reuse.
    pub(super) fn recycle(self) {
        let Part { pool, blocks, memory, .. } = self;
        recycle(&pool, blocks, memory);
    }

    pub(super) fn freeze(self) -> Frozen {
        let Part { pool, blocks, memory, .. } = self;
        Frozen { blocks: blocks.into_iter().map(BytesMut::freeze).collect(), pool, memory }
    }

    /// Room in the last block.
    fn room(&self) -> usize {
        let allotted: usize = self.blocks.iter().map(BytesMut::capacity).sum();
        allotted.min(self.capacity) - self.length
    }

    fn next_block(&self) -> usize {
        (BLOCK_BYTES as usize).min(self.capacity - self.length)
    }

    fn take_now(&mut self) -> bool {
        if self.memory.reserve.is_some() {
            self.add(None);
            return true;
        }
        let permit = Arc::clone(&self.pool.common).try_acquire_many_owned(self.next_block() as u32);
        match permit {
            Ok(permit) => self.add(Some(permit)),
            Err(_) => return false,
        }
        true
    }

    fn add(&mut self, permit: Option<OwnedSemaphorePermit>) {
        self.blocks.push(self.pool.buffer(self.next_block()));
        match (&mut self.memory.common, permit) {
            (Some(common), Some(permit)) => common.merge(permit),
            (common @ None, permit) => *common = permit,
            (Some(_), None) => {}
        }
    }
}

fn recycle(pool: &Pool, blocks: Vec<BytesMut>, memory: Memory) {
    // Blocks of the reserve are not counted as idle.
    let counted = memory.common.as_ref().map_or(0, OwnedSemaphorePermit::num_permits) / BLOCK_BYTES as usize;
    for block in blocks.into_iter().take(counted) {
        pool.recycle(block);
    }
    drop(memory);
}

/// A part whose bytes no longer change.
pub(super) struct Frozen {
    blocks: Vec<Bytes>,
    pool: Arc<Pool>,
    memory: Memory,
}

impl Frozen {
    /// The bytes to send. They stay in memory until both are dropped.
    pub(super) fn payload(&self) -> PutPayload {
        self.blocks.iter().cloned().collect()
    }

    /// Returns the memory for reuse. Blocks that the sender still holds are freed instead.
    pub(super) fn recycle(self) {
        let blocks = self.blocks.into_iter().map_while(|block| block.try_into_mut().ok()).collect();
        recycle(&self.pool, blocks, self.memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART_BYTES: u64 = 5 * MIB;

    fn filled(share: &Share, bytes: u64) -> Part {
        let mut part = share.part(PART_BYTES);
        part.fill(&mut Bytes::from(vec![7; bytes as usize]));
        part
    }

    #[test]
    fn idle_blocks_are_part_of_the_budget() {
        let share = Budget::new().of_store();
        let idle = |share: &Share| share.pool.idle.lock().unwrap().len() as u64 * BLOCK_BYTES;
        let free = |share: &Share| share.pool.common.available_permits() as u64;
        let all = free(&share);
        let parts: Vec<_> = (0..all / PART_BYTES).map(|_| filled(&share, PART_BYTES)).collect();
        for part in parts {
            part.freeze().recycle();
            assert!(idle(&share) <= free(&share));
        }
        assert_eq!(free(&share), all);
        let mut odd = share.part(all);
        odd.fill(&mut Bytes::from(vec![7; all as usize]));
        assert_eq!((free(&share), idle(&share)), (0, 0));
    }

    #[test]
    fn a_part_takes_memory_as_its_bytes_arrive() {
        let share = Budget::new().of_store();
        let all = share.pool.common.available_permits() as u64;
        let crawling: Vec<_> = (0..4).map(|_| filled(&share, 1)).collect();
        assert_eq!(all - share.pool.common.available_permits() as u64, 4 * BLOCK_BYTES);
        drop(crawling);
        assert_eq!(share.pool.common.available_permits() as u64, all);
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_memory_is_taken_one_part_at_a_time_fills_the_reserve() {
        let share = Budget::of(0, 3).of_store();
        let mut crawling = Vec::new();
        while share.pool.common.available_permits() > 0 {
            let mut part = share.part(PART_BYTES);
            let before = share.pool.common.available_permits();
            part.fill(&mut Bytes::from(vec![7; BLOCK_BYTES as usize]));
            assert!(share.pool.common.available_permits() < before);
            crawling.push(part);
        }
        let mut first = share.part(PART_BYTES);
        first.grow().await;
        first.fill(&mut Bytes::from(vec![7; PART_BYTES as usize]));
        assert!(first.is_full());

        let mut second = share.part(PART_BYTES);
        {
            let waiting = second.grow();
            let mut waiting = std::pin::pin!(waiting);
            assert!(futures::poll!(waiting.as_mut()).is_pending());
            // An upload has to end only after its time, and only if others wait.
            tokio::time::timeout(RESERVE_TIME - Duration::from_secs(1), first.overstays()).await.unwrap_err();
            tokio::time::timeout(Duration::from_secs(2), first.overstays()).await.unwrap();
            first.freeze().recycle();
            waiting.await;
        }
        tokio::time::timeout(10 * RESERVE_TIME, second.overstays()).await.unwrap_err();
    }

    #[test]
    fn all_destinations_together_have_what_the_process_has() {
        for (directories, stores) in [(0, 1), (1, 1), (4, 2), (0, 3), (12, 0)] {
            let budget = Budget::of(directories, stores);
            let all = directories * DIRECTORY_BYTES + stores * budget.store_bytes + LARGE_PART_BYTES;
            assert!(all <= 32 * MIB, "{directories} directories and {stores} stores have {all} bytes");
        }
    }
}
