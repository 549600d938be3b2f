//! When the next request to a JSON API may be sent, so that MoEngage never has to answer 429.
//!
//! This file owns MoEngage's published rates. The requests of an account to an API keep an even distance, over all its
//! reports and all processes of the ledger: no window of a second, a minute or an hour holds too many, whenever it
//! begins, and neither does one in which a process was started again.

use std::time::Duration;

use jiff::SignedDuration;
use tracing::debug;

use super::context::Context;
use crate::{config::SourceKind, ledger::Rate, telemetry::Chain};

/// 100 requests a minute for statistics (Campaign Stats and Reports API) and for each other JSON API, which also allow
/// 10 a second and 6,000 an hour (MoEngage's current documentation). A little less, because the network moves requests
/// together.
const RATE: Rate = Rate { distance: Duration::from_millis(610), longest_wait: Duration::from_secs(6 * 60) };

/// How often, and after which pause, a request asks for its turn again while the ledger cannot be reached. After that
/// it is sent: once a minute is far below the rate.
const TRIES: u32 = 12;
const PAUSE: Duration = Duration::from_secs(5);

/// Returns when it is the caller's turn.
pub(super) async fn turn(ctx: &Context, app_id: &str, source: SourceKind) {
    let clock = ctx.clock.as_ref();
    let mut failures = 0;
    while failures < TRIES {
        match ctx.ledger.take_turn(app_id, source, RATE, clock.now()).await {
            Ok(wait) if wait.is_zero() => return,
            Ok(wait) => {
                clock.sleep(wait).await;
                // Another request may have been refused meanwhile.
                if ctx.ledger.rest_left(app_id, source, clock.now()).await.is_ok_and(|left| left.is_zero()) {
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
pub(super) async fn rest(ctx: &Context, app_id: &str, source: SourceKind, wait: SignedDuration) {
    let wait = Duration::try_from(wait).unwrap_or(Duration::ZERO);
    if let Err(error) = ctx.ledger.rest(app_id, source, wait, ctx.clock.now()).await {
        debug!("could not record a pause of requests: {}", Chain(&error));
    }
}
