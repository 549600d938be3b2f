//! Content that does not verify is kept as evidence under `_quarantine/`.
//!
//! This file owns when: an unsupported format at first sight; anything else when the same bytes have come twice, or may
//! not come again before the partition expires.

use std::collections::HashSet;

use bytes::Bytes;

use super::{frame::Step, incoming::Incoming, work::Work};
use crate::{
    archive::{self, Rejected, RejectedKind},
    ledger::LedgerError,
    outcome::{Failure, Outcome, Received},
    partition,
    store::{Destination, Route, StoreError, Upload},
};

/// What decides whether content of one attempt is kept.
pub(super) struct Quarantine<'a> {
    work: &'a Work<'a>,
    is_last_chance: bool,
    /// Hashes of content of this partition that did not verify in earlier attempts.
    rejected_before: HashSet<String>,
}

impl<'a> Quarantine<'a> {
    pub(super) async fn of(work: &'a Work<'_>) -> Result<Self, LedgerError> {
        let entry = work.entry();
        // The first attempt has no history to read.
        let attempts = match entry.attempts {
            0 => Vec::new(),
            _ => work.ctx.ledger.attempts(&entry.partition.id).await?,
        };
        let is_rejected = |outcome| matches!(outcome, Outcome::Corrupt | Outcome::Unsupported | Outcome::StoreFailed);
        let rejected = attempts.into_iter().filter(|attempt| is_rejected(attempt.outcome));
        Ok(Self {
            work,
            is_last_chance: partition::is_last_chance(&entry.partition, work.started_at),
            rejected_before: rejected.filter_map(|attempt| attempt.sha256).collect(),
        })
    }

    /// Whether content that begins with `first` may have to be kept.
    pub(super) fn may_keep(&self, first: Option<&Bytes>) -> bool {
        self.is_last_chance
            || !self.rejected_before.is_empty()
            || first.is_some_and(|first| archive::is_unsupported(first))
    }

    fn keeps(&self, sha256: &str) -> bool {
        self.is_last_chance || self.rejected_before.contains(sha256)
    }

    /// Keeps or removes the upload of an archive that was `rejected`. Returns how the attempt fails.
    pub(super) async fn reject(&self, rejected: Rejected, upload: Upload, incoming: &Incoming) -> Failure {
        let mut message = incoming.redact(&rejected.message);
        let is_unsupported = rejected.kind == RejectedKind::Unsupported;
        let mut outcome = Outcome::Corrupt;
        if is_unsupported && upload.is_bound() {
            // The first bytes did not show it. The next attempt stages its upload, so that it can be kept.
            self.work.abandon(upload).await;
            message = format!("{message}; it is fetched again to be kept");
        } else if rejected.size > 0 && (is_unsupported || self.keeps(&rejected.sha256)) {
            let key = self.work.keys.quarantine(&rejected.sha256);
            match self.work.frame.at(Step::Keep, upload.quarantine(&rejected.sha256, &key)).await {
                Ok(_) => {
                    message = format!("{message}; all {} bytes are kept at `{key}`", rejected.size);
                    outcome = if is_unsupported { Outcome::Unsupported } else { Outcome::Corrupt };
                }
                Err(error) => {
                    message = format!("{message}; and they could not be kept: {error}");
                    // `unsupported` is retried daily, which is too late as long as nothing is kept.
                    outcome = if is_unsupported { Outcome::StoreFailed } else { Outcome::Corrupt };
                }
            }
        } else {
            self.work.abandon(upload).await;
        }
        let received = Some(Box::new(Received { size: rejected.size, sha256: rejected.sha256 }));
        Failure { received, ..Failure::after(incoming.evidence(), outcome, message) }
    }

    /// Keeps a page that could not be read, where `failure` describes why. Returns how the attempt fails.
    pub(super) async fn keep_page(&self, page: Bytes, failure: Failure) -> Failure {
        let Some(Received { size, sha256 }) = failure.received.as_deref().filter(|page| self.keeps(&page.sha256))
        else {
            return failure;
        };
        let key = self.work.keys.quarantined_page(sha256);
        let kept = self.work.frame.at(Step::Keep, put_page(self.work.destination, page, sha256, &key)).await;
        let message = match kept {
            Ok(()) => format!("{}; all {size} bytes of the page are kept at `{key}`", failure.message),
            Err(error) => format!("{}; and the page could not be kept: {error}", failure.message),
        };
        Failure { message, ..failure }
    }
}

async fn put_page(destination: &Destination, page: Bytes, sha256: &str, key: &str) -> Result<(), StoreError> {
    let mut upload = destination.stage(Route::Staged, Some(page.len() as u64))?;
    upload.write(page).await?;
    upload.quarantine(sha256, key).await?;
    Ok(())
}
