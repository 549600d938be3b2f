//! Work that one process of a ledger does at a time.

use std::{future::Future, time::Duration};

use tracing::{debug, info};

use super::context::Context;
use crate::{
    ledger::{Duty, LedgerError},
    telemetry::Chain,
};

/// How often a process asks whether a duty is free, and whether it is still its own.
const INTERVAL: Duration = Duration::from_secs(10);

/// Does `work` once this process has `duty`, and again if another process took the duty over meanwhile and gave it back.
///
/// # Errors
///
/// Those of `work`; also when the ledger has to be opened again.
pub(super) async fn on_duty<F>(ctx: &Context, duty: Duty, work: impl Fn() -> F) -> Result<(), LedgerError>
where
    F: Future<Output = Result<(), LedgerError>>,
{
    loop {
        while ask(ctx, duty).await? != Some(true) {
            ctx.clock.sleep(INTERVAL).await;
        }
        let taken_over = async {
            loop {
                ctx.clock.sleep(INTERVAL).await;
                if ask(ctx, duty).await? == Some(false) {
                    return Ok(());
                }
            }
        };
        tokio::select! {
            done = work() => return done,
            taken_over = taken_over => taken_over?,
        }
        info!("another process has taken over the duty `{}`", duty.as_str());
    }
}

/// Whether this process has `duty`; `None` while the ledger cannot be asked.
async fn ask(ctx: &Context, duty: Duty) -> Result<Option<bool>, LedgerError> {
    match ctx.ledger.take_duty(duty).await {
        Err(error) if error.needs_reopening() => Err(error),
        Err(error) => {
            // The loop meets the same error, and reports it.
            debug!("could not ask for the duty `{}`: {}", duty.as_str(), Chain(&error));
            Ok(None)
        }
        Ok(taken) => Ok(Some(taken.is_ours())),
    }
}
