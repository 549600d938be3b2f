//! Fetches and verifies in one forward pass: MoEngage's bytes go through the verifier into a staged upload.
//!
//! This file owns how the pass ends. It must not know which key the upload gets.

use super::{
    frame::Step,
    incoming::Incoming,
    manifest,
    quarantine::Quarantine,
    work::{Milestone, StepError, Work, store_failed},
};
use crate::{
    archive::{Pass, Verdict, Verified},
    outcome::{Failure, Outcome},
    store::{Route, Upload},
};

/// Verified content in a staged upload.
pub(super) struct Fetched {
    pub(super) incoming: Incoming,
    pub(super) verified: Verified,
    pub(super) upload: Upload,
}

/// Reads `incoming` to its end. `is_key_free` says that nothing is at the partition's own key, so that the upload can be
/// made there.
pub(super) async fn fetch(work: &Work<'_>, mut incoming: Incoming, is_key_free: bool) -> Result<Fetched, StepError> {
    let key = work.keys.object();
    let quarantine = Quarantine::of(work).await?;
    let mut next = incoming.chunk().await;
    let may_be_kept = quarantine.may_keep(next.as_ref().ok().and_then(Option::as_ref));
    let route = if is_key_free && !may_be_kept { Route::Direct(&key) } else { Route::Staged };
    let staged = work.destination.stage(route, incoming.content_length());
    let mut upload = staged.map_err(|error| store_failed(&error, incoming.evidence()))?;
    work.frame.note_memory(upload.waits_for_memory());
    let mut pass = Pass::start(manifest::archive_limits(&work.ctx.config.limits, work.report.source.kind()));
    loop {
        let chunk = match next {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break,
            Err(failure) => {
                work.abandon(upload).await;
                return Err(failure.into());
            }
        };
        if let Incoming::Archive(_) = incoming {
            work.ctx.progress.advance(&work.entry().partition.id, chunk.len() as u64);
        }
        if let Err(too_large) = pass.feed(chunk.clone()).await {
            work.abandon(upload).await;
            return Err(Failure::after(incoming.evidence(), Outcome::Corrupt, too_large.to_string()).into());
        }
        let written = work.frame.at(Step::Write, upload.write(chunk)).await;
        written.map_err(|error| store_failed(&error, incoming.evidence()))?;
        next = tokio::select! {
            biased;
            chunk = incoming.chunk() => chunk,
            () = upload.overstays() => {
                work.abandon(upload).await;
                let message = format!(
                    "MoEngage sends too slowly for the memory that uploads to destination `{}` share, and others wait for it",
                    work.destination.name()
                );
                return Err(Failure::after(incoming.evidence(), Outcome::Unavailable, message).into());
            }
        };
    }
    let verdict = pass.finish().await;
    (work.reached)(Milestone::Downloaded);
    match verdict {
        Verdict::Verified(_) if incoming.is_packed() => {
            work.abandon(upload).await;
            let message = "the gzip around the archive came complete this time; the next attempt removes it";
            Err(Failure::after(incoming.evidence(), Outcome::Corrupt, message.into()).into())
        }
        Verdict::Verified(verified) => Ok(Fetched { incoming, verified, upload }),
        Verdict::Rejected(rejected) => Err(quarantine.reject(rejected, upload, &incoming).await.into()),
    }
}
