//! Threads for steps that block.
//!
//! This file owns how many of a destination's steps block at the same time. It must not know what a step does.

use std::{io, sync::Arc};

use tokio::sync::Semaphore;

use super::error::{Reporter, StoreError};

/// Most blocking steps of one destination at the same time. Each takes a thread, which a mount that hangs keeps.
const MOST_STEPS: usize = 16;

/// The blocking steps of one destination. Clones share the limit.
#[derive(Clone)]
pub(super) struct Threads {
    slots: Arc<Semaphore>,
    reporter: Arc<Reporter>,
}

impl Threads {
    pub(super) fn new(reporter: Arc<Reporter>) -> Self {
        Threads { slots: Arc::new(Semaphore::new(MOST_STEPS)), reporter }
    }

    /// Runs a step where blocking is allowed.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        key: &str,
        step: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        // The thread keeps its slot even when the caller has stopped waiting: a mount that hangs blocks these threads, and
        // retries take no more.
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        let step = move || {
            let result = step();
            drop(slot);
            result
        };
        let result = tokio::task::spawn_blocking(step).await.unwrap_or_else(|failure| Err(io::Error::other(failure)));
        result.map_err(|error| self.reporter.io(operation, key, &error))
    }
}
