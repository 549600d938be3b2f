//! Whether the daemon's loop still turns: stamped by the loop, read by health checks and the watchdog.
//!
//! This file owns the one fact that a process which looks alive may not be. Time here is the runtime's monotonic clock:
//! neither a clock that is set nor the machine's sleep counts as hanging.

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::{Instant, interval};

use crate::lock::lock;

/// A loop that has not turned for so long hangs. Waiting for a busy ledger and letting downloads end take less.
const LONGEST_TURN: Duration = Duration::from_secs(120);

/// How often work outside the loop shows that the runtime comes round to it.
const TICK: Duration = Duration::from_secs(5);

/// When the loop last turned. Clones share it.
#[derive(Debug, Clone)]
pub struct Pulse {
    turned_at: Arc<Mutex<Instant>>,
}

impl Pulse {
    /// Of a loop that turns just now.
    pub fn new() -> Self {
        Self { turned_at: Arc::new(Mutex::new(Instant::now())) }
    }

    /// The loop turns.
    pub fn beat(&self) {
        self.beat_at(Instant::now());
    }

    /// The loop turned at this instant.
    pub fn beat_at(&self, at: Instant) {
        *lock(&self.turned_at) = at;
    }

    /// How long ago the loop turned.
    pub fn age(&self) -> Duration {
        lock(&self.turned_at).elapsed()
    }

    /// Whether the loop turned within two minutes.
    pub fn is_alive(&self) -> bool {
        self.age() < LONGEST_TURN
    }

    /// Waits for work that is not part of the loop and may take long. As long as the runtime comes round to it, that
    /// counts as turning.
    pub async fn beat_during<T>(&self, work: impl Future<Output = T>) -> T {
        let mut ticks = interval(TICK);
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = ticks.tick() => self.beat(),
            }
        }
    }
}

impl Default for Pulse {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_turns_lives_and_one_that_does_not_is_dead_after_its_time() {
        let pulse = Pulse::new();
        tokio::time::sleep(LONGEST_TURN / 2).await;
        pulse.beat();
        tokio::time::sleep(LONGEST_TURN - Duration::from_secs(1)).await;
        assert!(pulse.is_alive());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!pulse.is_alive());
        pulse.beat();
        assert!(pulse.is_alive());
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_takes_long_is_no_hang() {
        let pulse = Pulse::new();
        pulse.beat_during(tokio::time::sleep(10 * LONGEST_TURN)).await;
        assert!(pulse.is_alive());
    }
}
