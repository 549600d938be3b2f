//! A clock that tests set.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use moesync::sync::Clock;
use tokio::sync::watch;

/// The machine's clock, or one that stands still until it is advanced. Clones share it.
#[derive(Debug, Clone)]
pub struct TestClock {
    set: Option<Arc<watch::Sender<Timestamp>>>,
    start: Timestamp,
    by_hand: Arc<AtomicBool>,
}

impl TestClock {
    #[expect(clippy::disallowed_methods, reason = "the binary has the machine's clock, and its vendor must agree")]
    pub fn machine() -> Self {
        Self { set: None, start: Timestamp::now(), by_hand: Arc::default() }
    }

    pub fn set_to(now: Timestamp) -> Self {
        Self { set: Some(Arc::new(watch::Sender::new(now))), start: now, by_hand: Arc::default() }
    }

    #[expect(clippy::disallowed_methods, reason = "the binary has the machine's clock, and its vendor must agree")]
    pub fn read(&self) -> Timestamp {
        self.set.as_ref().map_or_else(Timestamp::now, |set| *set.borrow())
    }

    /// The time at which the bench was created.
    pub fn read_at_start(&self) -> Timestamp {
        self.start
    }

    /// From now on only [`TestClock::advance`] moves the clock; sleeping does not.
    pub fn stand_still(&self) {
        self.by_hand.store(true, Ordering::Relaxed);
    }

    /// Moves the clock forward and wakes those that sleep until then.
    pub fn advance(&self, by: SignedDuration) {
        if let Some(set) = &self.set {
            set.send_modify(|now| *now += by);
        }
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        self.read()
    }

    /// Sleeping moves the clock, unless it stands still: no test waits for real.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let clock = self.clone();
        let until = self.read() + SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
        Box::pin(async move {
            let Some(set) = &clock.set else { return tokio::time::sleep(duration).await };
            if clock.by_hand.load(Ordering::Relaxed) {
                // The clock itself keeps its sender.
                let _ = set.subscribe().wait_for(|now| *now >= until).await;
                return;
            }
            // Requests in progress go first.
            tokio::time::sleep(Duration::from_millis(2)).await;
            set.send_modify(|now| *now = until.max(*now));
        })
    }
}
