//! The last step: what follows from an attempt is recorded and logged.
//!
//! This file owns what a recorded attempt changes besides its partition. What changes of the partition is decided in
//! [`crate::partition`].

use super::{context::Context, log};
use crate::{
    config::Report,
    ledger::{Claim, LedgerError},
    outcome::{Attempt, Outcome},
    partition::{Entry, Grounds},
    retry::Hold,
};

/// An attempt that was recorded.
#[derive(Debug, Clone)]
pub(super) struct Done {
    /// The partition after it.
    pub(super) entry: Entry,
    /// How it ended.
    pub(super) outcome: Outcome,
    /// The hold that is now on the workspace, if the attempt requires one.
    pub(super) hold: Option<Hold>,
    /// See [`Attempt::is_authenticated`].
    pub(super) is_authenticated: bool,
    /// Whether its time ended while it waited for the destination.
    pub(super) is_unanswered: bool,
}

/// Records `attempt`, made under `claim`, and ends the claim.
pub(super) async fn record(
    ctx: &Context,
    report: &Report,
    claim: &Claim,
    attempt: &Attempt,
    is_unanswered: bool,
) -> Result<Done, LedgerError> {
    if attempt.outcome() == Outcome::Unauthorized {
        // The next attempt reads the key again: it may have been replaced.
        ctx.secrets.forget(report.id.workspace());
    }
    let grounds = Grounds { give_up_after: report.give_up_after(), archive_seen_at: claim.archive_seen_at };
    let (entry, hold) = claim.entry.clone().after(attempt, grounds, ctx.clock.jitter());
    let hold = ctx.ledger.record(claim, attempt, &entry, hold).await?;
    ctx.status.note_attempt();
    let is_known = ctx.status.note_destination(&report.destination.name, attempt.outcome());
    log::attempt_ended(&entry, attempt, is_known);
    Ok(Done { entry, outcome: attempt.outcome(), hold, is_authenticated: attempt.is_authenticated(), is_unanswered })
}
