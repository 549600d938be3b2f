//! The steps of an attempt: looking at what is stored, asking MoEngage, fetching, verifying, placing.
//!
//! This file owns each step alone and how it fails. It must not know in which order they come.

use std::{collections::HashSet, sync::Mutex, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;
use secrecy::SecretString;

use super::{
    context::{self, Context, Purpose},
    frame::{Frame, Overdue, Step, WaitsOn},
    incoming::Incoming,
    manifest, snapshot,
};
use crate::{
    archive::{self, Pass, RejectedKind, Verdict, Verified},
    config::{ArchiveSource, Report, Source},
    ledger::{Claim, LedgerError},
    lock::lock,
    moengage::{AnnouncedGzip, Download, Unread},
    outcome::{Evidence, Failure, Outcome, Received, Remark, StoredObject, Success},
    partition::{self, Timing},
    report::{Keys, manifest_key},
    store::{Commit, Destination, Lookup, Manifest, Route, StoreError, Upload},
};

/// All pages of a snapshot come within this, at MoEngage's rates: what takes longer is not the listing of one day.
const LONGEST_GATHERING: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the removal of an unfinished upload is waited for; it goes on without that.
const LONGEST_REMOVAL: Duration = Duration::from_secs(10);

/// How often one request is repeated with a key that has just been replaced.
const MOST_RENEWALS: usize = 3;

/// Why an attempt ends at a step.
#[derive(Debug, thiserror::Error)]
pub(super) enum StepError {
    /// It is recorded.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// It cannot be recorded.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// What is at the partition's key before anything is fetched.
pub(super) enum AtKey {
    /// This partition, whole, with its manifest.
    Ours(Box<Manifest>),
    /// Nothing; perhaps the manifest of an object that is gone.
    Vacant { gone: Option<Box<Manifest>> },
    /// An object that is not this partition's. It is left alone.
    Foreign,
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
    /// Called when MoEngage has accepted the credentials.
    pub(super) answered: &'a (dyn Fn() + Send + Sync),
}

impl Work<'_> {
    /// Reads what is at the partition's key already, and adopts what is whole.
    pub(super) async fn look(&self) -> Result<AtKey, Failure> {
        let destination = self.destination;
        let id = &self.claim.entry.partition.id;
        let key = self.keys.object();
        let Lookup { size, manifest, has_manifest } = destination.look(&key).await?;
        let Some(size) = size else {
            if has_manifest {
                self.retire_manifest(&key).await?;
            }
            return Ok(AtKey::Vacant { gone: manifest.filter(|gone| gone.names(id, &key)).map(Box::new) });
        };
        match manifest {
            Some(manifest) if manifest.names(id, &key) && manifest.size == size => {
                return Ok(AtKey::Ours(Box::new(manifest)));
            }
            // A process died between object and manifest: what verifies is given one. Of what restates there was one before.
            Some(manifest) if self.report.source.kind().is_archive() || !manifest.names(id, &key) => {}
            _ => {
                if let Some(manifest) = self.described_again(&key).await? {
                    destination.put_manifest(&manifest).await?;
                    return Ok(AtKey::Ours(Box::new(manifest)));
                }
            }
        }
        // A foreign object has the name; ours may be among the versions already.
        for version in destination.manifest_keys(&self.keys.versions()).await? {
            let Lookup { size, manifest, .. } = destination.look(&version).await?;
            if let Some(manifest) = manifest.filter(|m| m.names(id, &version) && size == Some(m.size)) {
                return Ok(AtKey::Ours(Box::new(manifest)));
            }
        }
        Ok(AtKey::Foreign)
    }

    pub(super) async fn described_again(&self, key: &str) -> Result<Option<Manifest>, StoreError> {
        let went_on = || self.frame.note_progress();
        manifest::describe_again(self.ctx, self.report, &self.claim.entry, self.destination, key, went_on).await
    }

    /// A manifest without its object must not be there when the next object comes: it would be taken for that one's.
    async fn retire_manifest(&self, key: &str) -> Result<(), StoreError> {
        let manifest = manifest_key(key);
        let unique = format!("{:012x}", self.started_at.as_millisecond());
        self.destination.move_if_absent(&manifest, &manifest_key(&self.keys.quarantine(&unique))).await
    }

    /// Asks for an archive, or reads a whole listing.
    pub(super) async fn open(&self) -> Result<Incoming, StepError> {
        let (secrets, partition) = (&self.ctx.secrets, &self.claim.entry.partition);
        let (workspace, purpose) = (&self.report.workspace, Purpose::of(self.report.source.kind()));
        // A key that is away for a moment is no refusal.
        let key = secrets.key(workspace, purpose).await;
        let key = key.map_err(|problem| Failure::new(Outcome::Unavailable, problem))?;
        let archive = match &self.report.source {
            Source::Archive(archive) => archive,
            Source::Snapshot(source) => {
                self.ctx.progress.begin(&partition.id, None);
                let gathering = Box::pin(snapshot::gather(
                    self.ctx,
                    self.report,
                    source,
                    partition,
                    key,
                    self.frame,
                    self.answered,
                ));
                let gathered = match tokio::time::timeout(LONGEST_GATHERING, gathering).await {
                    Ok(Ok(snapshot)) => snapshot,
                    Ok(Err(unread)) => return Err(self.keep_unread(unread).await?.into()),
                    Err(_) => {
                        let message = format!("MoEngage's pages did not all come within {LONGEST_GATHERING:?}");
                        return Err(Failure::new(Outcome::Unavailable, message).into());
                    }
                };
                return Ok(self.note(Incoming::Snapshot(gathered)));
            }
        };
        match self.ask(archive, key).await? {
            Ok(download) => {
                self.ctx.note_vendor_date(self.report, download.evidence.vendor_date);
                (self.answered)();
                let is_skew_confirmed = self.ctx.is_skew_confirmed(self.report);
                let now = self.ctx.clock.now();
                match partition::timing(partition, now, download.evidence.vendor_date, is_skew_confirmed) {
                    Timing::Timely | Timing::LastChance => {}
                    Timing::TooEarly | Timing::Over | Timing::Unclear => {
                        let message = partition::not_reached(partition, download.evidence.vendor_date);
                        return Err(Failure::after(&download.evidence, Outcome::Unavailable, message).into());
                    }
                }
                self.ctx.progress.begin(&partition.id, download.content_length);
                Ok(self.note(Incoming::Archive(Box::new(download))))
            }
            Err(failure) => {
                self.ctx.note_vendor_date(self.report, failure.evidence.vendor_date);
                Err(failure.into())
            }
        }
    }

    /// Asks for an archive, again with another key where `key` was replaced meanwhile.
    async fn ask(
        &self,
        archive: &ArchiveSource,
        mut key: SecretString,
    ) -> Result<Result<Download, Failure>, LedgerError> {
        let (vendor, workspace) = (&self.ctx.vendor, &self.report.workspace);
        let date = self.claim.entry.partition.id.date;
        let gzip = match self.has_damaged_wrapper().await? {
            true => AnnouncedGzip::Archive,
            false => AnnouncedGzip::Transport,
        };
        let mut renewals = 0;
        loop {
            let refusal = match vendor.open(self.report, archive, date, &key, gzip).await {
                Err(failure) if failure.outcome == Outcome::Unauthorized && renewals < MOST_RENEWALS => failure,
                opened => return Ok(opened),
            };
            renewals += 1;
            match self.ctx.secrets.renewed(workspace, Purpose::Archives, &key).await {
                Ok(Some(renewed)) => key = renewed,
                Ok(None) => return Ok(Err(refusal)),
                Err(problem) => return Ok(Err(context::unreadable(refusal, &problem))),
            }
        }
    }

    /// Records what MoEngage has shown, for any outcome of the attempt.
    fn note(&self, incoming: Incoming) -> Incoming {
        self.frame.note_evidence(incoming.evidence().clone());
        incoming
    }

    /// The time was over.
    pub(super) fn overdue(&self, Overdue { waits_on, is_short_of_memory, evidence }: Overdue) -> Failure {
        let (limit, destination) = (self.frame.limit(), &self.report.destination.name);
        let (outcome, what) = match waits_on {
            WaitsOn::MoEngage if evidence.seen => (Outcome::Unavailable, "the download from MoEngage".to_owned()),
            WaitsOn::MoEngage => (Outcome::Unavailable, "the request to MoEngage".to_owned()),
            WaitsOn::Destination(_) if is_short_of_memory => (
                Outcome::StoreFailed,
                format!("waiting for memory that other uploads to destination `{destination}` take"),
            ),
            WaitsOn::Destination(step) => (Outcome::StoreFailed, format!("{step} at destination `{destination}`")),
        };
        let message =
            format!("{what} did not finish within {limit:?}, the time for an attempt; see limits.attempt_timeout");
        Failure::after(&evidence, outcome, message)
    }

    /// Removes an unfinished upload. A destination that hangs is not waited for, nor does the time it takes change what
    /// becomes of the attempt.
    pub(super) async fn abandon(&self, upload: Upload) {
        #[expect(clippy::disallowed_methods, reason = "a destination that hangs may outlive the attempt")]
        let removal = tokio::spawn(upload.abort());
        let removal = self.frame.at(Step::Remove, tokio::time::timeout(LONGEST_REMOVAL, removal));
        let _ = self.frame.uncounted(removal).await;
    }

    /// A listing that did not become whole. A page of it that could not be read is evidence, as an archive is that cannot
    /// be verified.
    async fn keep_unread(&self, unread: Unread) -> Result<Failure, LedgerError> {
        let Unread { mut failure, page } = unread;
        let (Some(page), Some(Received { size, sha256 })) = (page, failure.received.as_deref()) else {
            return Ok(failure);
        };
        if self.is_last_chance() || self.broken_before().await?.contains(sha256) {
            let key = self.keys.quarantined_page(sha256);
            failure.message = match self.frame.at(Step::Keep, keep_page(self.destination, page, sha256, &key)).await {
                Ok(()) => format!("{}; all {size} bytes of the page are kept at `{key}`", failure.message),
                Err(error) => format!("{}; and the page could not be kept: {error}", failure.message),
            };
        }
        Ok(failure)
    }

    /// Streams what was had through the verifier into a staged upload, and places what is whole.
    pub(super) async fn fetch(
        &self,
        incoming: &mut Incoming,
        is_settled_place: bool,
    ) -> Result<(Verified, Upload), StepError> {
        let id = &self.claim.entry.partition.id;
        let key = self.keys.object();
        // What may have to go elsewhere gathers where it still can.
        let broken_before = self.broken_before().await?;
        let mut next = incoming.chunk().await;
        let may_be_kept = self.is_last_chance()
            || !broken_before.is_empty()
            || next.as_ref().is_ok_and(|first| first.as_deref().is_some_and(archive::is_unsupported));
        let placement = if is_settled_place && !may_be_kept { Route::Direct(&key) } else { Route::Staged };
        let mut upload = self
            .destination
            .stage(placement, incoming.content_length())
            .map_err(|error| store_failed(&error, incoming.evidence()))?;
        self.frame.note_memory(upload.waits_for_memory());
        let mut pass = Pass::start(manifest::archive_limits(&self.ctx.config.limits, self.report.source.kind()));
        loop {
            let chunk = match next {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(failure) => {
                    self.abandon(upload).await;
                    return Err(failure.into());
                }
            };
            if let Incoming::Archive(_) = incoming {
                self.ctx.progress.advance(id, chunk.len() as u64);
            }
            if let Err(too_large) = pass.feed(chunk.clone()).await {
                self.abandon(upload).await;
                return Err(Failure::after(incoming.evidence(), Outcome::Corrupt, too_large.to_string()).into());
            }
            let written = self.frame.at(Step::Write, upload.write(chunk)).await;
            written.map_err(|error| store_failed(&error, incoming.evidence()))?;
            next = tokio::select! {
                biased;
                chunk = incoming.chunk() => chunk,
                () = upload.overstays() => {
                    self.abandon(upload).await;
                    let message = format!(
                        "MoEngage sends too slowly for the memory that uploads to destination `{}` share, and others wait for it",
                        self.destination.name()
                    );
                    return Err(Failure::after(incoming.evidence(), Outcome::Unavailable, message).into());
                }
            };
        }
        match pass.finish().await {
            Verdict::Verified(_) if incoming.is_packed() => {
                self.abandon(upload).await;
                let message = "the gzip around the archive came whole this time; it is taken off at the next attempt";
                Err(Failure::after(incoming.evidence(), Outcome::Corrupt, message.into()).into())
            }
            Verdict::Verified(verified) => Ok((verified, upload)),
            Verdict::Rejected(rejected) => Err(self.reject(rejected, upload, incoming, &broken_before).await.into()),
        }
    }

    /// Gives a verified upload its final name, or that of a version where other content has it. Returns its key.
    pub(super) async fn place(
        &self,
        incoming: &Incoming,
        verified: &Verified,
        mut upload: Upload,
        is_taken: bool,
    ) -> Result<String, StepError> {
        let key = self.keys.object();
        let unknown: Mutex<Option<LedgerError>> = Mutex::new(None);
        let still_ours = || async {
            self.ctx.ledger.is_ours(self.claim).await.unwrap_or_else(|error| {
                lock(&unknown).replace(error);
                false
            })
        };
        let version = self.keys.version(verified.sha256());
        let mut target = if is_taken { &version } else { &key };
        loop {
            let committed = self.frame.at(Step::Store, upload.commit(verified, target, still_ours())).await;
            match committed.map_err(|error| store_failed(&error, incoming.evidence()))? {
                Commit::Stored | Commit::AlreadyThere => break,
                Commit::Taken { kept: true } if *target == key => target = &version,
                Commit::Taken { .. } => {
                    self.abandon(upload).await;
                    let message = format!("other content appeared at `{target}` during the download");
                    return Err(Failure::after(incoming.evidence(), Outcome::StoreFailed, message).into());
                }
                Commit::NotOurs => {
                    self.abandon(upload).await;
                    let error = lock(&unknown).take();
                    let partition = self.claim.entry.partition.id.to_string();
                    return Err(error.unwrap_or(LedgerError::Fenced { partition }).into());
                }
            }
        }
        Ok(target.clone())
    }

    /// What cannot be verified is evidence. An unsupported format is kept whole at first sight; anything else
    /// once it has come twice alike, or when it may not come again.
    async fn reject(
        &self,
        rejected: archive::Rejected,
        upload: Upload,
        incoming: &Incoming,
        broken_before: &HashSet<String>,
    ) -> Failure {
        let mut message = incoming.redact(&rejected.message);
        let is_unsupported = rejected.kind == RejectedKind::Unsupported;
        let is_repeated = broken_before.contains(&rejected.sha256);
        let mut outcome = Outcome::Corrupt;
        if is_unsupported && upload.is_bound() {
            // The first bytes did not show it. Those of the next attempt can go anywhere.
            self.abandon(upload).await;
            message = format!("{message}; it is fetched again to be kept");
        } else if rejected.size > 0 && (is_unsupported || self.is_last_chance() || is_repeated) {
            let key = self.keys.quarantine(&rejected.sha256);
            match self.frame.at(Step::Keep, upload.quarantine(&rejected.sha256, &key)).await {
                Ok(_) => {
                    message = format!("{message}; all {} bytes are kept at `{key}`", rejected.size);
                    outcome = if is_unsupported { Outcome::Unsupported } else { Outcome::Corrupt };
                }
                Err(error) => {
                    message = format!("{message}; and they could not be kept: {error}");
                    // Until they are kept the next attempt must not be a day away.
                    outcome = if is_unsupported { Outcome::StoreFailed } else { Outcome::Corrupt };
                }
            }
        } else {
            self.abandon(upload).await;
        }
        let received = Some(Box::new(Received { size: rejected.size, sha256: rejected.sha256 }));
        Failure { received, ..Failure::after(incoming.evidence(), outcome, message) }
    }

    /// Whether the last two attempts ended at a damaged gzip around the archive. What was inside is then not all that
    /// came, so this one looks at the bytes as they are: those can be kept as evidence.
    async fn has_damaged_wrapper(&self) -> Result<bool, LedgerError> {
        if self.claim.entry.outcome != Some(Outcome::Corrupt) {
            return Ok(false);
        }
        let attempts = self.ctx.ledger.attempts(&self.claim.entry.partition.id).await?;
        let last = attempts.iter().rev().take(2);
        Ok(last.filter(|attempt| attempt.remark == Some(Remark::DamagedWrapper)).count() == 2)
    }

    /// Hashes of what came for this partition before and could not be verified.
    async fn broken_before(&self) -> Result<HashSet<String>, LedgerError> {
        if self.claim.entry.attempts == 0 {
            return Ok(HashSet::new());
        }
        let attempts = self.ctx.ledger.attempts(&self.claim.entry.partition.id).await?;
        let is_broken = |outcome| matches!(outcome, Outcome::Corrupt | Outcome::Unsupported | Outcome::StoreFailed);
        let broken = attempts.into_iter().filter(|attempt| is_broken(attempt.outcome));
        Ok(broken.filter_map(|attempt| attempt.sha256).collect())
    }

    fn is_last_chance(&self) -> bool {
        partition::is_last_chance(&self.claim.entry.partition, self.started_at)
    }
}

async fn keep_page(destination: &Destination, page: Bytes, sha256: &str, key: &str) -> Result<(), StoreError> {
    let mut upload = destination.stage(Route::Staged, Some(page.len() as u64))?;
    upload.write(page).await?;
    upload.quarantine(sha256, key).await?;
    Ok(())
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
