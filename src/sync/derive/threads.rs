//! Threads that may block, and their end: a thread cannot be aborted, so it asks.

use std::{
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::DeriveError;

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

/// Does `step` on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    step: impl FnOnce() -> Result<T, DeriveError> + Send + 'static,
) -> Result<T, DeriveError> {
    let done = tokio::task::spawn_blocking(step).await;
    done.unwrap_or_else(|failure| Err(DeriveError::of_content(format!("a bug in moesync: {failure}"))))
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
