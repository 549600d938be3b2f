//! Entries that a second thread inflates, while the thread that reads the archive continues with the next entry.
//!
//! This file owns which entries these are, and how much of them waits in memory. An archive gets the same verdict with
//! and without a second thread.

use std::{
    panic,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
};

use super::{deflated::Deflated, entry::LocalEntry};
use crate::archive::{Rejection, inflate::Inflater, meter::Meter};

/// Compressed bytes from which an entry is worth a second thread.
const WORTHWHILE: u64 = 512 * 1024;

/// Most compressed bytes that wait for the second thread. One entry of an archive has to fit for a gain.
const MOST_WAITING: u64 = 24 * 1024 * 1024;

/// Whether a second thread runs: one in the process bounds the memory. Several archives use all processors without it.
static RUNS: AtomicBool = AtomicBool::new(false);

/// The second thread of an archive, which runs only while it has work.
pub(in crate::archive) struct Second {
    /// Compressed bytes from which an entry is given to it.
    least: u64,
    running: Option<Running>,
}

struct Running {
    work: mpsc::Sender<Work>,
    /// Bytes that wait for it.
    waiting: Arc<AtomicU64>,
    /// Ends with the first rejection, or when there is no more work.
    thread: JoinHandle<Result<(), Rejection>>,
}

enum Work {
    Entry(Box<LocalEntry>, Meter),
    Bytes(Vec<u8>),
}

/// Held by the second thread that runs.
struct Only;

impl Drop for Only {
    fn drop(&mut self) {
        RUNS.store(false, Ordering::Release);
    }
}

impl Second {
    /// For large entries.
    pub(in crate::archive) fn of_large_entries() -> Second {
        Second { least: WORTHWHILE, running: None }
    }

    /// A second thread that is never used.
    pub(in crate::archive) fn unused() -> Second {
        Second { least: u64::MAX, running: None }
    }

    /// For entries of any size.
    #[cfg(any(test, fuzzing))]
    pub(in crate::archive) fn of_all_entries() -> Second {
        Second { least: 0, running: None }
    }

    /// Gives an entry to the second thread, if its size is known and there is memory and a thread for it. `meter` is that
    /// before its data. Returns whether its data is to be passed to [`Second::write`].
    ///
    /// # Errors
    ///
    /// An earlier entry was rejected.
    pub(super) fn begin(&mut self, local: &LocalEntry, meter: &Meter) -> Result<bool, Rejection> {
        if self.running.as_ref().is_some_and(Running::is_idle) {
            self.finish()?;
        }
        let waiting = self.running.as_ref().map_or(0, |running| running.waiting.load(Ordering::Acquire));
        let is_suitable = local.compressed_size > 0
            && local.compressed_size >= self.least
            && local.compressed_size <= MOST_WAITING.saturating_sub(waiting);
        if is_suitable && self.running.is_none() {
            self.running = Running::start();
        }
        let Some(running) = self.running.as_ref().filter(|_| is_suitable) else { return Ok(false) };
        // Fails only after a rejection, which `finish` returns.
        let _ = running.work.send(Work::Entry(Box::new(local.clone()), meter.clone()));
        Ok(true)
    }

    /// Passes on the next bytes of the entry that was given last.
    pub(super) fn write(&self, bytes: &[u8]) {
        if let Some(running) = &self.running {
            running.waiting.fetch_add(bytes.len() as u64, Ordering::AcqRel);
            // Fails only after a rejection, which `finish` returns.
            let _ = running.work.send(Work::Bytes(bytes.to_vec()));
        }
    }

    /// Waits for the end of the work.
    ///
    /// # Errors
    ///
    /// The first entry that is rejected.
    pub(super) fn finish(&mut self) -> Result<(), Rejection> {
        let Some(running) = self.running.take() else { return Ok(()) };
        drop(running.work);
        // A panic is one of the thread that reads the archive.
        running.thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
    }
}

impl Running {
    /// A thread without work; `None` if another archive has one, or the system refuses it.
    fn start() -> Option<Running> {
        RUNS.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).ok()?;
        let only = Only;
        let (work, receiver) = mpsc::channel();
        let waiting = Arc::new(AtomicU64::new(0));
        let left = Arc::clone(&waiting);
        let inflate = move || {
            let _only = only;
            inflate(&receiver, &left)
        };
        let thread = thread::Builder::new().name("inflate".to_owned()).spawn(inflate).ok()?;
        Some(Running { work, waiting, thread })
    }

    /// Whether all its work is done, or it has rejected an entry.
    fn is_idle(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0 || self.thread.is_finished()
    }
}

fn inflate(work: &mpsc::Receiver<Work>, waiting: &AtomicU64) -> Result<(), Rejection> {
    let mut inflater = Inflater::new();
    let mut current = None;
    for work in work {
        match work {
            Work::Entry(local, meter) => {
                inflater.restart();
                current = Some((Deflated::of_size(local.compressed_size), local, meter));
            }
            Work::Bytes(bytes) => {
                if let Some((deflated, local, meter)) = &mut current {
                    let ended =
                        deflated.read(&mut inflater, &mut &bytes[..], meter, |_| ()).and_then(|ended| match ended {
                            true => LocalEntry::clone(local).with_data(inflater.taken(), inflater.checksum()).map(drop),
                            false => Ok(()),
                        });
                    ended.map_err(|rejection| rejection.within(&local.entry()))?;
                }
                waiting.fetch_sub(bytes.len() as u64, Ordering::AcqRel);
            }
        }
    }
    Ok(())
}
