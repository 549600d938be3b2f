//! The daily summary of stored objects, sent even if there are none.

use std::collections::BTreeSet;

use jiff::SignedDuration;

use super::{deliver::event, evaluate::Evaluation};
use crate::{
    config::{Events, Target},
    event::Content,
    ledger::{LedgerError, Summarized},
    sync::Context,
};

const INTERVAL: SignedDuration = SignedDuration::from_hours(24);

/// A last summary that is this far in the future was written before the clock was set back.
const CLOCK_SET_BACK: SignedDuration = SignedDuration::from_mins(-1);

/// Writes the summary of `target` if it is time.
pub(super) async fn write(
    ctx: &Context,
    target: &Target,
    events: &Events,
    evaluation: &Evaluation,
) -> Result<(), LedgerError> {
    let Some(last) = ctx.ledger.last_summary(&target.name).await? else { return Ok(()) };
    let age = evaluation.now.duration_since(last.at);
    if !events.summary || (CLOCK_SET_BACK..INTERVAL).contains(&age) {
        return Ok(());
    }
    let news = ctx.ledger.stored_after(&target.name, last.through).await?;
    let next = Summarized { at: evaluation.now, through: news.through };
    // An alarm whose attempt is in progress has not ended.
    let notified = ctx.ledger.notified(&target.name).await?;
    let alarms = evaluation.active().chain(notified.keys()).collect::<BTreeSet<_>>().len();
    let content = Content::of_summary(last.at, (news.stored, news.bytes), evaluation.pending, alarms);
    ctx.ledger.summarize(&target.name, last, next, &event(content, evaluation.now, &ctx.config.instance)).await
}
