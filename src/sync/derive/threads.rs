//! Threads that may block, and their end: a thread cannot be aborted, so it asks.

use std::{
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Semaphore;

use super::{Derive, DeriveError};

/// Threads that read or write objects at a time, in the whole process. Each takes a processor, and memory for a group of
/// rows; where an object is large, a second thread encodes what one writes.
const THREADS: usize = 2;

/// The threads that may run. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Threads(Arc<Semaphore>);

impl Default for Threads {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(THREADS)))
    }
}

/// Ends the threads of an attempt once this is dropped: they cannot be aborted.
#[derive(Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(super) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Derive<'_> {
    /// Does `step` on a thread that may block, once one is free.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        step: impl FnOnce() -> Result<T, DeriveError> + Send + 'static,
    ) -> Result<T, DeriveError> {
        let threads = Arc::clone(&self.threads.0);
        // A task of its own: it gets a free thread to work also while this future is not polled.
        #[expect(clippy::disallowed_methods, reason = "it ends with its step, which no abort would stop")]
        let done = tokio::spawn(async move {
            let thread = threads.acquire_owned().await;
            tokio::task::spawn_blocking(move || {
                let done = step();
                drop(thread);
                done
            })
            .await
        });
        let bug = |failure| Err(DeriveError::of_content(format!("a bug in moesync: {failure}")));
        done.await.flatten().unwrap_or_else(bug)
    }
}

/// # Errors
///
/// Once `stop` is set.
pub(super) fn check(stop: &AtomicBool) -> io::Result<()> {
    match stop.load(Ordering::Relaxed) {
        true => Err(io::Error::other("stopped")),
        false => Ok(()),
    }
}

/// A reader that fails once `stop` is set.
pub(super) struct Stoppable<R> {
    pub(super) reader: R,
    pub(super) stop: Arc<AtomicBool>,
}

impl<R: Read> Read for Stoppable<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        check(&self.stop)?;
        self.reader.read(buffer)
    }
}
