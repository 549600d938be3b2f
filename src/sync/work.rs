//! One attempt as its steps see it, and how a step ends.
//!
//! This file owns what all steps share. It must not know their order.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    context::Context,
    frame::{Frame, Step},
};
use crate::{
    config::Report,
    ledger::{Claim, LedgerError},
    outcome::{Evidence, Failure, Outcome, Remark, StoredObject, Success},
    partition::Entry,
    report::Keys,
    store::{Destination, Manifest, StoreError, Upload},
};

/// How long the removal of an unfinished upload is waited for. The removal continues after that.
const LONGEST_REMOVAL: Duration = Duration::from_secs(10);

/// Why an attempt ends at a step.
#[derive(Debug, thiserror::Error)]
pub(super) enum StepError {
    /// The attempt failed, and that is recorded.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The ledger failed, so nothing can be recorded.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// How far an attempt has come, which may allow others to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Milestone {
    /// MoEngage has accepted the workspace's credentials.
    Accepted,
    /// All bytes are here: MoEngage is not needed any more.
    Downloaded,
}

/// One attempt at one partition.
pub(super) struct Work<'a> {
    pub(super) ctx: &'a Context,
    pub(super) report: &'a Report,
    pub(super) destination: &'a Destination,
    pub(super) claim: &'a Claim,
    pub(super) keys: Keys,
    pub(super) started_at: Timestamp,
    pub(super) frame: &'a Frame,
    /// Called at each milestone.
    pub(super) reached: &'a (dyn Fn(Milestone) + Send + Sync),
}

impl Work<'_> {
    /// The partition as recorded when it was claimed.
    pub(super) fn entry(&self) -> &Entry {
        &self.claim.entry
    }

    /// The claim has passed to another process.
    pub(super) fn fenced(&self) -> LedgerError {
        LedgerError::Fenced { partition: self.entry().partition.id.to_string() }
    }

    /// Writes a manifest beside its object, for an attempt to which MoEngage has shown `evidence`.
    pub(super) async fn put_manifest(&self, manifest: &Manifest, evidence: &Evidence) -> Result<(), Failure> {
        let put = self.frame.at(Step::Manifest, self.destination.put_manifest(manifest)).await;
        put.map_err(|error| store_failed(&error, evidence))
    }

    /// Removes an unfinished upload. The attempt neither waits for a destination that hangs, nor does the time count.
    pub(super) async fn abandon(&self, upload: Upload) {
        #[expect(clippy::disallowed_methods, reason = "a destination that hangs may outlive the attempt")]
        let removal = tokio::spawn(upload.abort());
        let removal = self.frame.at(Step::Remove, tokio::time::timeout(LONGEST_REMOVAL, removal));
        let _ = self.frame.uncounted(removal).await;
    }
}

/// The destination failed before any request to MoEngage.
impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        store_failed(&error, &Evidence::default())
    }
}

/// The destination failed after MoEngage had shown `evidence`.
pub(super) fn store_failed(error: &StoreError, evidence: &Evidence) -> Failure {
    Failure::after(evidence, Outcome::StoreFailed, error.to_string())
}

/// The object that `manifest` describes is at the destination.
pub(super) fn success(manifest: &Manifest, remark: Option<Remark>, message: String, evidence: Evidence) -> Success {
    let object = StoredObject {
        key: manifest.key.clone(),
        size: manifest.size,
        sha256: manifest.sha256.clone(),
        stored_at: manifest.stored_at(),
    };
    Success { object, remark, message, evidence }
}
