//! The clock and the random numbers, which the core takes as arguments. `sync` reads them only here.

use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;

/// Longer naps are divided, so that a clock that is set back does not prolong them, and the loop shows that it runs.
const LONGEST_NAP: Duration = Duration::from_secs(5);

/// A clock, and the random numbers. Tests have their own.
pub trait Clock: Send + Sync {
    /// The present instant.
    fn now(&self) -> Timestamp;

    /// Returns after `duration`.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;

    /// Returns once the clock shows `at`, or earlier: after a few seconds, because the clock may be set meanwhile. The caller
    /// looks at it again. A clock that knows when it is set returns then.
    fn nap_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        self.sleep(until(at, self.now()).min(LONGEST_NAP))
    }

    /// A random number in `[0, 1)`, for the core's delays.
    #[expect(clippy::disallowed_methods, reason = "the shell draws the random numbers that the core is given")]
    fn jitter(&self) -> f64 {
        rand::random()
    }
}

/// The time from `now` to `at`; zero if `at` is past.
pub fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO)
}

/// The machine's clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one clock that the shell passes in")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}
