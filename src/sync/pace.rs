//! When the next request to a JSON API may be sent, so that MoEngage never has to answer 429.
//!
//! This file owns MoEngage's published rates. The requests of an account to an API keep an even distance, over all its
//! reports and all processes of the ledger: no window of a second, a minute or an hour holds too many, whenever it
//! begins, and neither does one in which a process was started again.

use std::time::Duration;

use jiff::SignedDuration;
use tracing::debug;

use super::clock::Clock;
use crate::{
    config::SourceKind,
    ledger::{Ledger, Rate},
    telemetry::Chain,
};

/// 100 requests a minute for statistics (Campaign Stats and Reports API) and for each other JSON API, which also allow
/// 10 a second and 6,000 an hour (MoEngage's current documentation). A little less, because the network moves requests
/// together.
const RATE: Rate = Rate { distance: Duration::from_millis(610), longest_wait: Duration::from_secs(6 * 60) };

/// How often, and after which pause, a request asks for its turn again while the ledger cannot be reached or answers late.
/// After that it is sent: once a minute is far below the rate.
const TRIES: u32 = 12;
const PAUSE: Duration = Duration::from_secs(5);

/// A turn that is further past is not used: while a server or this process stands still, the turns of several requests
/// pass, and used together they exceed the rate.
const LATEST: Duration = Duration::from_secs(2);

/// Returns when it is the caller's turn.
pub(super) async fn turn(ledger: &Ledger, clock: &dyn Clock, app_id: &str, source: SourceKind) {
    let mut failures = 0;
    while failures < TRIES {
        let asked_at = clock.now();
        match ledger.take_turn(app_id, source, RATE, asked_at).await {
            Ok(wait) => {
                let is_free = wait.is_zero() || {
                    clock.sleep(wait).await;
                    // Another request may have been refused meanwhile.
                    let left = ledger.rest_left(app_id, source, clock.now()).await;
                    left.is_ok_and(|left| left.is_zero())
                };
                let passed = Duration::try_from(clock.now().duration_since(asked_at));
                if passed.is_ok_and(|passed| passed > wait + LATEST) {
                    failures += 1;
                } else if is_free {
                    return;
                }
            }
            Err(error) => {
                // The loop meets the same error, and reports it.
                debug!("no turn for a request: {}", Chain(&error));
                failures += 1;
                clock.sleep(PAUSE).await;
            }
        }
    }
}

/// Lets no request be sent for `wait`, because MoEngage asked for that.
pub(super) async fn rest(ledger: &Ledger, clock: &dyn Clock, app_id: &str, source: SourceKind, wait: SignedDuration) {
    let wait = Duration::try_from(wait).unwrap_or(Duration::ZERO);
    if let Err(error) = ledger.rest(app_id, source, wait, clock.now()).await {
        debug!("could not record a pause of requests: {}", Chain(&error));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::future::BoxFuture;
    use jiff::Timestamp;

    use super::*;
    use crate::{ledger::Memory, lock::lock};

    /// A clock of a process that stands still in each of its first naps, for so long each.
    struct Halting {
        now: Mutex<Timestamp>,
        halts: Mutex<Vec<Duration>>,
    }

    impl Clock for Halting {
        fn now(&self) -> Timestamp {
            *lock(&self.now)
        }

        fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
            *lock(&self.now) += duration + lock(&self.halts).pop().unwrap_or_default();
            Box::pin(std::future::ready(()))
        }
    }

    #[tokio::test]
    async fn a_turn_that_passed_while_the_process_stood_still_is_not_used() {
        let memory = Memory::new().await.unwrap();
        let ledger = memory.open("one");
        let (app, source) = ("APP", SourceKind::CampaignStats);
        let began = Timestamp::UNIX_EPOCH;
        let halts = vec![Duration::from_secs(1), Duration::from_secs(10), Duration::from_secs(3)];
        let clock = Halting { now: Mutex::new(began), halts: Mutex::new(halts) };
        turn(&ledger, &clock, app, source).await;
        // A turn at 0.61 s was missed by 3 s; the next began at once and has no nap.
        assert_eq!(clock.now(), began + RATE.distance + Duration::from_secs(3));
        let next = ledger.take_turn(app, source, RATE, clock.now()).await.unwrap();
        assert_eq!(next, RATE.distance, "the turn that was used is the last one that was taken");
        // This one waits for the second distance, misses its turn by 10 s, and takes another.
        turn(&ledger, &clock, app, source).await;
        assert_eq!(ledger.take_turn(app, source, RATE, clock.now()).await.unwrap(), RATE.distance);
        // A second late is used.
        turn(&ledger, &clock, app, source).await;
        assert_eq!(ledger.take_turn(app, source, RATE, clock.now()).await.unwrap(), Duration::ZERO);
    }
}
