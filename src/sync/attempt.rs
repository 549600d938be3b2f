//! One partition from claim to record.
//!
//! This is the only file that knows the order of the steps:
//!
//! | step | file |
//! |---|---|
//! | claim | `crate::ledger` |
//! | look: what is stored already | `look` |
//! | open: the request to MoEngage | `open`, `snapshot` |
//! | fetch and verify, in one forward pass | `fetch`, `quarantine` |
//! | place: the object, then its manifest | `place`, or `replace` where numbers restate |
//! | record | `record` |
//! | derive: tables from the stored archive, later and beside the attempts | `derive` |
//!
//! Each step can be repeated: what a process that dies between two of them leaves is found or swept by the next attempt.
//! The consequences of an outcome are decided in [`crate::partition`], the partitions to attempt in [`crate::plan`].

use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use jiff::Timestamp;
use tracing::{Instrument as _, debug, error_span};

use super::{
    context::{Context, OpenReport},
    fetch::{Fetched, fetch},
    frame::Frame,
    look::{AtKey, look},
    open::open,
    place::{place, place_version},
    record::{Done, record},
    replace::replace,
    work::{Milestone, StepError, Work, success},
};
use crate::{
    ledger::{Claimed, LedgerError},
    outcome::{self, Attempt, Evidence, StoredObject, Success},
    partition::Entry,
    store::Manifest,
    telemetry::Chain,
};

/// The result for a partition that was to be attempted.
pub(super) enum Attempted {
    /// It has changed since it was planned: there is nothing to do before the next plan.
    Changed,
    /// Another process has the claim.
    Theirs,
    /// The attempt was made and recorded.
    Done(Box<Done>),
}

/// Why an attempt was not recorded.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttemptError {
    /// The ledger could not be read or written, or the claim was lost.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A bug in moesync.
    #[error("the attempt panicked")]
    Panic,
}

/// Makes one attempt at the partition that was `planned`, within the time of `frame`. `reached` is called at each
/// milestone.
pub(super) async fn sync_one(
    ctx: &Context,
    report: &OpenReport,
    planned: &Entry,
    frame: &Frame,
    reached: &(dyn Fn(Milestone) + Send + Sync),
) -> Result<Attempted, AttemptError> {
    let attempt = AssertUnwindSafe(from_claim_to_record(ctx, report, planned, frame, reached)).catch_unwind().await;
    let attempted = match attempt {
        Ok(attempted) => attempted.map_err(AttemptError::Ledger),
        Err(_) => Err(AttemptError::Panic),
    };
    let id = &planned.partition.id;
    if attempted.is_err()
        && let Err(error) = ctx.ledger.release(id).await
    {
        // This process can claim it again; others wait for its next attempt.
        debug!("could not release the claim on {id}: {}", Chain(&error));
    }
    attempted
}

async fn from_claim_to_record(
    ctx: &Context,
    OpenReport { report, destination }: &OpenReport,
    planned: &Entry,
    frame: &Frame,
    reached: &(dyn Fn(Milestone) + Send + Sync),
) -> Result<Attempted, LedgerError> {
    let id = &planned.partition.id;
    let claim = match ctx.ledger.claim(planned).await? {
        Claimed::Ours(claim) => *claim,
        Claimed::Theirs => return Ok(Attempted::Theirs),
        Claimed::Changed => return Ok(Attempted::Changed),
    };
    let started_at = ctx.clock.now();
    let keys = report.keys(id.date);
    let work = Work { ctx, report, destination, claim: &claim, keys, started_at, frame, reached };
    // Of the highest level, so that no filter removes it from the lines within.
    let span = error_span!("attempt", workspace = id.workspace(), report = id.report.name(), date = %id.date);
    let ended = async {
        tokio::select! {
            biased;
            // Boxed: the steps of a snapshot are too large for the stack of a thread.
            ended = Box::pin(steps(&work)) => (ended, false),
            overdue = frame.deadline() => {
                let is_unanswered = overdue.is_unanswered();
                (Err(overdue.failure(frame.limit(), &report.destination.name).into()), is_unanswered)
            }
        }
    };
    let (ended, is_unanswered) = ended.instrument(span).await;
    ctx.progress.end(id);
    let result = match ended {
        Ok(success) => Ok(success),
        Err(StepError::Failed(failure)) => Err(failure),
        Err(StepError::Ledger(error)) => return Err(error),
    };
    let attempt = Attempt { started_at, finished_at: ctx.clock.now(), result };
    let done = record(ctx, report, &claim, &attempt, is_unanswered).await?;
    Ok(Attempted::Done(Box::new(done)))
}

/// The steps between claim and record.
async fn steps(work: &Work<'_>) -> Result<Success, StepError> {
    match look(work).await? {
        AtKey::Ours(manifest) => Ok(found(&manifest, manifest.stored_at())),
        // It counts as stored once it has its manifest, so that is news to the targets.
        AtKey::Completed(manifest) => Ok(found(&manifest, work.started_at)),
        AtKey::Restatable(object) => replace(work, get(work, false).await?, object).await,
        AtKey::Vacant(left) => place(work, get(work, true).await?, left).await,
        AtKey::Foreign => place_version(work, get(work, false).await?).await,
    }
}

/// Gets the content from MoEngage, verified and staged.
async fn get(work: &Work<'_>, is_key_free: bool) -> Result<Fetched, StepError> {
    let incoming = open(work).await?;
    fetch(work, incoming, is_key_free).await
}

/// The partition is complete at the destination, since `stored_at`.
fn found(manifest: &Manifest, stored_at: Timestamp) -> Success {
    let (remark, message) = outcome::found_at(&manifest.key);
    let found = success(manifest, Some(remark), message, Evidence::default());
    Success { object: StoredObject { stored_at, ..found.object }, ..found }
}
