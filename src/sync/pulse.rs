//! Whether the daemon's loop still runs: stamped by the loop, read by health checks and the watchdog.
//!
//! Time here is monotonic: neither setting the clock nor the machine's sleep counts as a hang.

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::{Instant, interval};

use crate::lock::lock;

/// A loop that has not turned for this long hangs. Waiting for a busy ledger, or for downloads to finish, takes less.
const LONGEST_TURN: Duration = Duration::from_secs(120);

/// How often long work outside the loop stamps the pulse.
const TICK: Duration = Duration::from_secs(5);

/// When the loop last turned. Clones share it.
#[derive(Debug, Clone)]
pub struct Pulse {
    turned_at: Arc<Mutex<Instant>>,
}

impl Pulse {
    /// The pulse of a loop that has just turned.
    pub fn new() -> Self {
        Self { turned_at: Arc::new(Mutex::new(Instant::now())) }
    }

    /// Notes that the loop turns.
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

    /// Does work that is not part of the loop and may take long. It counts as turning while the runtime polls it.
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
    async fn a_loop_that_has_not_turned_for_two_minutes_is_not_alive() {
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
    async fn long_work_is_not_a_hang() {
        let pulse = Pulse::new();
        pulse.beat_during(tokio::time::sleep(10 * LONGEST_TURN)).await;
        assert!(pulse.is_alive());
    }
}
