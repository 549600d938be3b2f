//! One partition from claim to record: look, fetch, verify, store, record.
//!
//! This file is the only place that knows the order of the steps, except for what is fetched again (`refresh`). Each step
//! can be repeated: a process that dies between two of them leaves nothing that the next attempt does not find or sweep.
//! What follows from an outcome is decided by [`crate::partition`], and which partitions are worked on by `pass`.

use tracing::{Instrument as _, error_span};

use super::{
    clock::jitter,
    context::{Context, OpenReport},
    frame::{Frame, Step},
    log, manifest, refresh,
    steps::{AtKey, StepError, Work, store_failed, success},
};
use crate::{
    ledger::{Claim, LedgerError},
    outcome::{self, Attempt, Evidence, Outcome, Remark, Success},
    partition::{Entry, Grounds},
    retry::Hold,
};

/// An attempt that was made and recorded.
#[derive(Debug, Clone)]
pub struct Done {
    /// The partition after it.
    pub entry: Entry,
    /// How it ended.
    pub outcome: Outcome,
    /// The hold that is now on the workspace, if the attempt called for one.
    pub hold: Option<Hold>,
    /// See [`Attempt::is_authenticated`].
    pub is_authenticated: bool,
    /// Whether the destination did not answer before the attempt's time was over.
    pub is_unanswered: bool,
}

/// Works on one claimed partition, once, within the time of `frame`. `answered` is called as soon as MoEngage's answer
/// shows that the workspace's credentials are good.
///
/// # Errors
///
/// Only the ledger's: everything else is an outcome.
pub async fn sync_one(
    ctx: &Context,
    OpenReport { report, destination }: &OpenReport,
    claim: Claim,
    frame: &Frame,
    answered: impl Fn() + Send + Sync,
) -> Result<Done, LedgerError> {
    let started_at = ctx.clock.now();
    let id = claim.entry.partition.id.clone();
    let keys = report.keys(id.date);
    let work = Work { ctx, report, destination, claim: &claim, keys, started_at, frame, answered: &answered };
    let mut is_unanswered = false;
    // Of the highest level, so that no filter takes it from the lines within.
    let span = error_span!("attempt", workspace = id.workspace(), report = id.report.name(), date = %id.date);
    let ended = async {
        tokio::select! {
            biased;
            // Boxed: the pipeline of a snapshot is too large for the stack of a thread.
            ended = Box::pin(run(&work)) => ended,
            overdue = frame.deadline() => {
                is_unanswered = overdue.is_unanswered();
                Err(work.overdue(overdue).into())
            }
        }
    };
    let ended = ended.instrument(span).await;
    ctx.progress.end(&id);
    let result = match ended {
        Ok(success) => Ok(success),
        Err(StepError::Failed(failure)) => Err(failure),
        Err(StepError::Ledger(error)) => return Err(error),
    };
    let attempt = Attempt { started_at, finished_at: ctx.clock.now(), result };
    if attempt.outcome() == Outcome::Unauthorized {
        ctx.secrets.forget(id.workspace());
    }
    let grounds = Grounds { give_up_after: report.give_up_after(), archive_seen_at: claim.archive_seen_at };
    let (entry, hold) = claim.entry.clone().after(&attempt, grounds, jitter());
    let hold = ctx.ledger.record(&claim, &attempt, &entry, hold).await?;
    ctx.status.note_attempt();
    log::attempt_ended(&entry, &attempt);
    let (outcome, is_authenticated) = (attempt.outcome(), attempt.is_authenticated());
    Ok(Done { entry, outcome, hold, is_authenticated, is_unanswered })
}

/// The steps between claim and record.
async fn run(work: &Work<'_>) -> Result<Success, StepError> {
    if let Some(object) = &work.claim.entry.object {
        return refresh::run(work, object).await;
    }
    let (is_taken, gone) = match work.frame.at(Step::Look, work.look()).await? {
        AtKey::Ours(manifest) => {
            let (remark, message) = outcome::found_at(&manifest.key);
            return Ok(success(&manifest, Some(remark), message, Evidence::default()));
        }
        AtKey::Vacant { gone } => (false, gone),
        AtKey::Foreign => (true, None),
    };
    let mut incoming = work.open().await?;
    let (verified, upload) = work.fetch(&mut incoming, !is_taken).await?;
    let key = work.place(&incoming, &verified, upload, is_taken).await?;

    let mut manifest = manifest::of_incoming(work.ctx, work.report, &work.claim.entry, &key, &verified, &incoming);
    let other = Remark::OtherContent;
    let warning = match gone.filter(|gone| gone.sha256 != verified.sha256()) {
        Some(gone) => {
            Some(format!("{other} than the object of {} that is gone (sha256 {})", gone.generated_at, gone.sha256))
        }
        None if key != work.keys.object() => Some(format!("{other} is at `{}` and was left alone", work.keys.object())),
        None => None,
    };
    manifest.warnings.extend(warning.clone());
    let put = work.frame.at(Step::Manifest, work.destination.put_manifest(&manifest)).await;
    put.map_err(|error| store_failed(&error, incoming.evidence()))?;
    Ok(success(&manifest, warning.as_ref().map(|_| other), warning.unwrap_or_default(), incoming.evidence().clone()))
}
