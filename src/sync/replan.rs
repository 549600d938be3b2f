//! Makes plans for passes and the loop: reads the ledger, records new partitions, publishes the plan.
//!
//! This file must not know when a plan is made.

use std::{sync::Arc, time::Duration};

use tracing::{info, trace};

use super::{context::Context, planned::Planned, workers::Workers};
use crate::{
    ledger::LedgerError,
    plan::{Decision, LedgerView},
};

/// How long after an attempt a new plan is published, so that many attempts cause one plan. Shorter than the pause after
/// an attempt that begins an alarm, so that readers see the alarm before the next attempt can end it.
pub(super) const PUBLISHING_DELAY: Duration = Duration::from_millis(250);

/// Makes a plan, records its new partitions, and publishes it.
pub(super) async fn replan(workers: &Workers, is_first: bool) -> Result<Arc<Planned>, LedgerError> {
    let ctx = &workers.ctx;
    ctx.ledger.check_in_place()?;
    let mut planned = plan_of(ctx, !is_first && workers.awaits_answer(), workers.alarms_begun).await?;
    let recorded = ctx.ledger.extend(&planned.plan, &planned.view).await;
    if recorded.is_ok() {
        planned.plan.new.clear();
    }
    // Published even if it could not be recorded: the page shows what is due.
    let planned = ctx.planned.publish(planned);
    recorded?;
    ctx.status.note_plan(planned.at);
    for item in &planned.plan.items {
        trace!("planned {}: {:?}", item.entry.partition.id, item.decision);
    }
    let unconfigured = planned.plan.items.iter().filter(|item| item.decision == Decision::Unconfigured).count();
    if is_first && unconfigured > 0 {
        info!(partitions = unconfigured, "{unconfigured} open partitions belong to reports that are not configured");
    }
    Ok(planned)
}

/// Makes a plan and publishes it, without recording its new partitions.
pub(super) async fn publish_plan(workers: &Workers) -> Result<(), LedgerError> {
    let planned = plan_of(&workers.ctx, workers.awaits_answer(), workers.alarms_begun).await?;
    workers.ctx.planned.publish(planned);
    Ok(())
}

/// The published plan of `ctx`, made and published again if attempts were recorded since: other processes may have done
/// that. `None` before the first plan.
///
/// # Errors
///
/// When the ledger cannot be read.
pub async fn refreshed_plan(ctx: &Context) -> Result<Option<Arc<Planned>>, LedgerError> {
    let Some(latest) = ctx.planned.latest() else { return Ok(None) };
    if latest.view.newest_attempt == ctx.ledger.newest_attempt().await? {
        return Ok(Some(latest));
    }
    let planned = Arc::new(plan_of(ctx, latest.view.awaits_answer, latest.alarms_begun).await?);
    ctx.planned.replace(&latest, &planned);
    Ok(Some(planned))
}

/// A plan for now. After a long downtime it covers no more than the last one while it `awaits_answer`.
async fn plan_of(ctx: &Context, awaits_answer: bool, alarms_begun: usize) -> Result<Planned, LedgerError> {
    let now = ctx.clock.now();
    let view = LedgerView { awaits_answer, ..ctx.view(&ctx.ledger, now).await? };
    Ok(Planned::new(&ctx.config.reports, view, now, alarms_begun))
}
