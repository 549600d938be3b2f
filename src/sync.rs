//! One partition from claim to record: look, fetch, verify, store, record.
//!
//! This file is the only place that knows the order of the steps. Each step is an edge's business, what follows from an
//! outcome is [`crate::outcome`]'s, and which partitions are worked on is `pass`'s. Every step can be repeated: a
//! process that dies between two of them leaves nothing that the next attempt does not find or sweep.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};

use crate::{
    alarm,
    archive::{self, ArchiveFormat, Limits, Pass, RejectedKind, Verdict, Verified},
    config::{self, ArchiveSource, Report, SnapshotSource, Source},
    ledger::{Claim, LedgerError},
    moengage::{self, Download, Failure},
    outcome::{self, Attempt, OTHER_CONTENT, Outcome, StoredObject},
    partition::{self, Entry, Grounds, Settled, Timing},
    report::{Keys, Partition, PartitionId, manifest_key},
    retry,
    store::{Commit, Destination, Lookup, Manifest, ManifestEntry, ObjectFormat, Route, StoreError, Upload, Window},
};

mod context;
mod delivery;
mod frame;
mod inspect;
mod log;
mod pace;
mod pass;
mod planned;
mod process_status;
mod pulse;
mod rebuild;
mod recover;
mod refresh;
mod snapshot;
mod spool;
mod start;
mod supervise;
mod workers;

use context::Purpose;
pub use context::{Clock, Context, OpenReport, Progress, Secrets, SystemClock};
use delivery::Delivery;
pub use frame::Frame;
use frame::{Overdue, Shown, Step, WaitsOn};
pub use inspect::{Damage, Inspected, Repair, inspect, repair};
pub(crate) use pass::until;
pub use pass::{Command, Selection, Summary, continuously, once};
pub use planned::{Planned, Publication};
pub use process_status::ProcessStatus;
pub use pulse::Pulse;
pub use recover::{recover, recover_continuously};
use spool::LineCount;
pub use start::{StartError, ledger_file, open_reports, reload, start};
pub use supervise::{report as report_panic, supervised};

/// How work on one partition ended.
#[derive(Debug, Clone)]
pub struct Done {
    /// Which partition.
    pub id: PartitionId,
    /// How the attempt ended.
    pub outcome: Outcome,
    /// Whether the partition's life ended with it.
    pub settled: Settled,
    /// When the next attempt may begin.
    pub next_attempt_at: Option<Timestamp>,
    /// Whether the whole workspace waits now.
    pub hold: Option<retry::Hold>,
    /// See [`Attempt::was_admitted`].
    pub was_admitted: bool,
    /// Whether the destination did not answer before the attempt's time was over.
    pub is_unanswered: bool,
}

/// All pages of a snapshot come within this, at MoEngage's rates: what takes longer is not the listing of one day.
const LONGEST_GATHERING: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the removal of an unfinished upload is waited for; it goes on without that.
const LONGEST_REMOVAL: Duration = Duration::from_secs(10);

/// How often one request is repeated with a key that has just been replaced.
const MOST_RENEWALS: usize = 3;

/// Works on one claimed partition, once, within the time of `frame`. `answered` is called as soon as the vendor's answer
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
    let ended = tokio::select! {
        biased;
        ended = work.attempt() => ended,
        overdue = frame.deadline() => {
            is_unanswered = matches!(overdue.waits_on, WaitsOn::Destination(_));
            Err(work.overdue(overdue).into())
        }
    };

    ctx.progress.end(&id);
    let (mut attempt, object) = match ended {
        Ok(landed) => (landed.attempt(started_at, ctx.clock.now()), Some(landed.object())),
        Err(Ended::Missed(missed)) => (missed.attempt(started_at, ctx.clock.now()), None),
        Err(Ended::Ledger(error)) => return Err(error),
    };
    if attempt.outcome == Outcome::Unauthorized {
        ctx.secrets.forget(id.workspace());
    }
    let grounds = Grounds { give_up_after: report.give_up_after(), archive_seen_at: claim.archive_seen_at };
    let settlement = partition::settle(&claim.entry, grounds, &attempt, jitter());
    if let Some(remark) = settlement.remark {
        attempt.message = format!("{}; {remark}", attempt.message);
    }
    let entry = Entry {
        settled: settlement.settled,
        outcome: Some(attempt.outcome),
        streak: settlement.streak,
        repeats: settlement.repeats,
        next_attempt_at: settlement.next_attempt_at,
        ..claim.entry.clone()
    };
    // What is stored stays so, though fetching it again may have failed.
    let kept = object.as_ref().or(claim.entry.object.as_ref()).cloned();
    let hold = ctx.ledger.record(claim, &attempt, &settlement, kept.as_ref()).await?;
    ctx.status.note_attempt();
    if alarm::begins(&entry) {
        ctx.status.note_alarm();
    }
    log::attempt_ended(&entry, &attempt, object.as_ref());
    Ok(Done {
        id,
        outcome: attempt.outcome,
        settled: settlement.settled,
        next_attempt_at: settlement.next_attempt_at,
        hold,
        was_admitted: attempt.was_admitted(),
        is_unanswered,
    })
}

#[expect(clippy::disallowed_methods, reason = "the shell draws the random numbers that the core is given")]
pub(crate) fn jitter() -> f64 {
    rand::random()
}

/// Object and manifest are at the destination.
struct Landed {
    manifest: Manifest,
    remark: String,
    http_status: Option<u16>,
    vendor_date: Option<Timestamp>,
    request_id: Option<String>,
    fetched: bool,
}

impl Landed {
    fn fetched(manifest: Manifest, remark: String, delivery: &Delivery) -> Self {
        Self {
            manifest,
            remark,
            http_status: Some(200),
            vendor_date: delivery.vendor_date(),
            request_id: delivery.request_id().map(str::to_owned),
            fetched: true,
        }
    }

    fn object(&self) -> StoredObject {
        let manifest = &self.manifest;
        StoredObject {
            key: manifest.key.clone(),
            size: manifest.size,
            sha256: manifest.sha256.clone(),
            stored_at: manifest.stored_at(),
        }
    }

    fn attempt(&self, started_at: Timestamp, finished_at: Timestamp) -> Attempt {
        Attempt {
            started_at,
            finished_at,
            outcome: Outcome::Stored,
            http_status: self.http_status,
            message: self.remark.clone(),
            seen: true,
            vendor_date: self.vendor_date,
            retry_after: None,
            size: self.fetched.then_some(self.manifest.size),
            sha256: Some(self.manifest.sha256.clone()),
            request_id: self.request_id.clone(),
        }
    }
}

/// Nothing was stored.
#[derive(Debug)]
struct Missed {
    outcome: Outcome,
    message: String,
    http_status: Option<u16>,
    seen: bool,
    vendor_date: Option<Timestamp>,
    retry_after: Option<SignedDuration>,
    size: Option<u64>,
    sha256: Option<String>,
    request_id: Option<String>,
}

impl Missed {
    fn new(outcome: Outcome, message: String) -> Self {
        Self {
            outcome,
            message,
            http_status: None,
            seen: false,
            vendor_date: None,
            retry_after: None,
            size: None,
            sha256: None,
            request_id: None,
        }
    }

    /// After the vendor answered 200.
    fn seen(outcome: Outcome, message: String, delivery: &Delivery) -> Self {
        Self {
            http_status: Some(200),
            seen: true,
            vendor_date: delivery.vendor_date(),
            request_id: delivery.request_id().map(str::to_owned),
            ..Self::new(outcome, message)
        }
    }

    fn attempt(self, started_at: Timestamp, finished_at: Timestamp) -> Attempt {
        Attempt {
            started_at,
            finished_at,
            outcome: self.outcome,
            http_status: self.http_status,
            message: self.message,
            seen: self.seen,
            vendor_date: self.vendor_date,
            retry_after: self.retry_after,
            size: self.size,
            sha256: self.sha256,
            request_id: self.request_id,
        }
    }
}

impl From<StoreError> for Missed {
    fn from(error: StoreError) -> Self {
        Self::new(Outcome::StoreFailed, error.to_string())
    }
}

enum Ended {
    Missed(Missed),
    Ledger(LedgerError),
}

impl From<Missed> for Ended {
    fn from(missed: Missed) -> Self {
        Ended::Missed(missed)
    }
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Self {
        Ended::Missed(error.into())
    }
}

impl From<LedgerError> for Ended {
    fn from(error: LedgerError) -> Self {
        Ended::Ledger(error)
    }
}

/// What is at the partition's key before anything is fetched.
enum Occupant {
    /// This partition, whole, with its manifest.
    Ours(Box<Manifest>),
    /// Nothing; perhaps the manifest of an object that is gone.
    Nobody { gone: Option<Box<Manifest>> },
    /// Something that is not this partition's archive. It is left alone.
    Somebody,
}

/// One attempt at one partition.
struct Work<'a> {
    ctx: &'a Context,
    report: &'a Report,
    destination: &'a Destination,
    claim: &'a Claim,
    keys: Keys,
    started_at: Timestamp,
    frame: &'a Frame,
    answered: &'a (dyn Fn() + Send + Sync),
}

impl Work<'_> {
    async fn attempt(&self) -> Result<Landed, Ended> {
        let destination = self.destination;
        if let Some(object) = &self.claim.entry.object {
            return self.refresh(destination, object).await;
        }
        let (is_taken, gone) = match self.frame.at(Step::Look, self.look(destination)).await? {
            Occupant::Ours(manifest) => {
                return Ok(Landed {
                    remark: outcome::found_at(&manifest.key),
                    manifest: *manifest,
                    http_status: None,
                    vendor_date: None,
                    request_id: None,
                    fetched: false,
                });
            }
            Occupant::Nobody { gone } => (false, gone),
            Occupant::Somebody => (true, None),
        };
        let mut delivery = self.open(destination).await?;
        let (verified, upload) = self.fetch(destination, &mut delivery, !is_taken).await?;
        let placed = self.place(&delivery, &verified, upload, is_taken).await?;
        let mut remark = placed.remark;
        if let Some(gone) = gone.filter(|gone| gone.sha256 != verified.sha256()) {
            remark = format!(
                "{OTHER_CONTENT} than the object of {} that is gone (sha256 {})",
                gone.generated_at, gone.sha256
            );
        }
        let mut manifest = self.manifest_of(&delivery, &placed.key, &verified);
        if !remark.is_empty() {
            manifest.warnings.push(remark.clone());
        }
        let put = self.frame.at(Step::Manifest, destination.put_manifest(&manifest)).await;
        put.map_err(|error| store_failed(error, &delivery))?;
        Ok(Landed::fetched(manifest, remark, &delivery))
    }

    /// Reads what is at the partition's key already, and adopts what is whole.
    async fn look(&self, destination: &Destination) -> Result<Occupant, Ended> {
        let id = &self.claim.entry.partition.id;
        let key = self.keys.object();
        let Lookup { size, manifest, has_manifest } = destination.look(&key).await?;
        let Some(size) = size else {
            if has_manifest {
                self.retire_manifest(destination, &key).await?;
            }
            return Ok(Occupant::Nobody { gone: manifest.filter(|gone| gone.names(id, &key)).map(Box::new) });
        };
        match manifest {
            Some(manifest) if manifest.names(id, &key) && manifest.size == size => {
                return Ok(Occupant::Ours(Box::new(manifest)));
            }
            // A process died between object and manifest: what verifies is given one. Of what restates there was one before.
            Some(manifest) if self.report.source.kind().is_archive() || !manifest.names(id, &key) => {}
            _ => {
                if let Some(manifest) = self.described_again(destination, &key).await? {
                    destination.put_manifest(&manifest).await?;
                    return Ok(Occupant::Ours(Box::new(manifest)));
                }
            }
        }
        // Somebody else's object has the name; ours may be among the versions already.
        for version in destination.manifest_keys(&self.keys.versions()).await? {
            let Lookup { size, manifest, .. } = destination.look(&version).await?;
            if let Some(manifest) = manifest.filter(|m| m.names(id, &version) && size == Some(m.size)) {
                return Ok(Occupant::Ours(Box::new(manifest)));
            }
        }
        Ok(Occupant::Somebody)
    }

    async fn described_again(&self, destination: &Destination, key: &str) -> Result<Option<Manifest>, StoreError> {
        let went_on = || self.frame.note_progress();
        describe_again(self.ctx, self.report, &self.claim.entry, destination, key, went_on).await
    }

    /// A manifest without its object must not be there when the next object comes: it would be taken for that one's.
    async fn retire_manifest(&self, destination: &Destination, key: &str) -> Result<(), StoreError> {
        let manifest = manifest_key(key);
        let unique = format!("{:012x}", self.started_at.as_millisecond());
        destination.move_if_absent(&manifest, &manifest_key(&self.keys.quarantine(&unique))).await
    }

    /// Asks for an archive, or reads a whole listing.
    async fn open(&self, destination: &Destination) -> Result<Delivery, Ended> {
        let (secrets, partition) = (&self.ctx.secrets, &self.claim.entry.partition);
        let (workspace, purpose) = (&self.report.workspace, Purpose::of(self.report.source.kind()));
        // A key that is away for a moment is no refusal.
        let key = secrets.key(workspace, purpose).await;
        let key = key.map_err(|problem| Missed::new(Outcome::Unavailable, problem))?;
        let archive = match &self.report.source {
            Source::Archive(archive) => archive,
            Source::Snapshot(source) => {
                self.ctx.progress.begin(&partition.id, None);
                let gathering =
                    snapshot::gather(self.ctx, self.report, source, partition, key, self.frame, self.answered);
                let gathered = match tokio::time::timeout(LONGEST_GATHERING, gathering).await {
                    Ok(Ok(snapshot)) => snapshot,
                    Ok(Err(failure)) => return Err(self.unread(destination, failure).await?.into()),
                    Err(_) => {
                        let message = format!("MoEngage's pages did not all come within {LONGEST_GATHERING:?}");
                        return Err(Missed::new(Outcome::Unavailable, message).into());
                    }
                };
                return Ok(self.shown(Delivery::Snapshot(gathered)));
            }
        };
        match self.ask(archive, key).await? {
            Ok(download) => {
                self.ctx.note_vendor_date(self.report, download.vendor_date);
                (self.answered)();
                let is_skew_confirmed = self.ctx.is_skew_confirmed(self.report);
                match partition::timing(partition, self.ctx.clock.now(), download.vendor_date, is_skew_confirmed) {
                    Timing::Timely | Timing::LastChance => {}
                    Timing::TooEarly | Timing::Over | Timing::Unclear => {
                        let message = not_reached(partition, download.vendor_date);
                        let delivery = Delivery::Archive(Box::new(download));
                        return Err(Missed::seen(Outcome::Unavailable, message, &delivery).into());
                    }
                }
                self.ctx.progress.begin(&partition.id, download.content_length);
                Ok(self.shown(Delivery::Archive(Box::new(download))))
            }
            Err(failure) => {
                self.ctx.note_vendor_date(self.report, failure.vendor_date);
                Err(self.missed(failure).into())
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
        let is_packed = self.was_badly_packed().await?;
        let mut renewals = 0;
        loop {
            let opened = match is_packed {
                true => vendor.open_packed(self.report, archive, date, &key).await,
                false => vendor.open(self.report, archive, date, &key).await,
            };
            let refusal = match opened {
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

    /// Remembers what MoEngage has shown, whatever becomes of the attempt.
    fn shown(&self, delivery: Delivery) -> Delivery {
        let request_id = delivery.request_id().map(str::to_owned);
        self.frame.note_shown(Shown { seen: true, vendor_date: delivery.vendor_date(), request_id });
        delivery
    }

    /// The time was over.
    fn overdue(&self, Overdue { waits_on, is_short_of_memory, shown }: Overdue) -> Missed {
        let (limit, destination) = (self.frame.limit(), &self.report.destination.name);
        let (outcome, what) = match waits_on {
            WaitsOn::MoEngage if shown.seen => (Outcome::Unavailable, "the download from MoEngage".to_owned()),
            WaitsOn::MoEngage => (Outcome::Unavailable, "the request to MoEngage".to_owned()),
            WaitsOn::Destination(_) if is_short_of_memory => (
                Outcome::StoreFailed,
                format!("waiting for memory that other uploads to destination `{destination}` take"),
            ),
            WaitsOn::Destination(step) => (Outcome::StoreFailed, format!("{step} at destination `{destination}`")),
        };
        let message =
            format!("{what} did not finish within {limit:?}, the time for an attempt; see limits.attempt_timeout");
        Missed {
            http_status: shown.seen.then_some(200),
            seen: shown.seen,
            vendor_date: shown.vendor_date,
            request_id: shown.request_id,
            ..Missed::new(outcome, message)
        }
    }

    /// Removes an unfinished upload. A destination that hangs is not waited for, nor does the time it takes change what
    /// becomes of the attempt.
    async fn abandon(&self, upload: Upload) {
        let removal = tokio::spawn(upload.abort());
        let removal = self.frame.at(Step::Remove, tokio::time::timeout(LONGEST_REMOVAL, removal));
        let _ = self.frame.uncounted(removal).await;
    }

    fn missed(&self, failure: Failure) -> Missed {
        Missed {
            http_status: failure.http_status,
            seen: failure.seen,
            vendor_date: failure.vendor_date,
            retry_after: failure.wait(self.ctx.clock.now()),
            request_id: failure.request_id,
            ..Missed::new(failure.outcome, failure.message)
        }
    }

    /// A listing that did not become whole. A page of it that could not be read is evidence, as an archive is that cannot
    /// be verified.
    async fn unread(&self, destination: &Destination, mut failure: Failure) -> Result<Missed, LedgerError> {
        let Some(page) = failure.page.take() else { return Ok(self.missed(failure)) };
        let (size, sha256) = (page.len() as u64, hex::encode(Sha256::digest(&*page)));
        let mut missed = self.missed(failure);
        if self.is_last_chance() || self.broken_before().await?.contains(&sha256) {
            let key = self.keys.quarantined_page(&sha256);
            missed.message = match self.frame.at(Step::Keep, keep_page(destination, *page, &sha256, &key)).await {
                Ok(()) => format!("{}; all {size} bytes of the page are kept at `{key}`", missed.message),
                Err(error) => format!("{}; and the page could not be kept: {error}", missed.message),
            };
        }
        Ok(Missed { size: Some(size), sha256: Some(sha256), ..missed })
    }

    /// Streams what was had through the verifier into a staged upload, and places what is whole.
    async fn fetch(
        &self,
        destination: &Destination,
        delivery: &mut Delivery,
        is_settled_place: bool,
    ) -> Result<(Verified, Upload), Ended> {
        let id = &self.claim.entry.partition.id;
        let key = self.keys.object();
        // What may have to go elsewhere gathers where it still can.
        let broken_before = self.broken_before().await?;
        let mut next = delivery.chunk().await;
        let may_be_kept = self.is_last_chance()
            || !broken_before.is_empty()
            || next.as_ref().is_ok_and(|first| first.as_deref().is_some_and(archive::is_unsupported));
        let placement = if is_settled_place && !may_be_kept { Route::Direct(&key) } else { Route::Staged };
        let mut upload =
            destination.stage(placement, delivery.content_length()).map_err(|error| store_failed(error, delivery))?;
        self.frame.note_memory(upload.waits_for_memory());
        let mut pass = Pass::start(archive_limits(&self.ctx.config.limits, self.report.source.kind()));
        loop {
            let chunk = match next {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(failure) => {
                    self.abandon(upload).await;
                    return Err(self.missed(failure).into());
                }
            };
            if let Delivery::Archive(_) = delivery {
                self.ctx.progress.advance(id, chunk.len() as u64);
            }
            if let Err(too_large) = pass.feed(chunk.clone()).await {
                self.abandon(upload).await;
                return Err(Missed::seen(Outcome::Corrupt, too_large.to_string(), delivery).into());
            }
            let written = self.frame.at(Step::Write, upload.write(chunk)).await;
            written.map_err(|error| store_failed(error, delivery))?;
            next = tokio::select! {
                biased;
                chunk = delivery.chunk() => chunk,
                () = upload.overstays() => {
                    self.abandon(upload).await;
                    let message = format!(
                        "MoEngage sends too slowly for the memory that uploads to destination `{}` share, and others wait for it",
                        destination.name()
                    );
                    return Err(Missed::seen(Outcome::Unavailable, message, delivery).into());
                }
            };
        }
        match pass.finish().await {
            Verdict::Verified(_) if delivery.is_packed() => {
                self.abandon(upload).await;
                let message = "the gzip around the archive came whole this time; it is taken off at the next attempt";
                Err(Missed::seen(Outcome::Corrupt, message.into(), delivery).into())
            }
            Verdict::Verified(verified) => Ok((verified, upload)),
            Verdict::Rejected(rejected) => Err(self.reject(rejected, upload, delivery, &broken_before).await.into()),
        }
    }

    /// Gives a verified upload its final name, or that of a version where something else has it.
    async fn place(
        &self,
        delivery: &Delivery,
        verified: &Verified,
        mut upload: Upload,
        is_taken: bool,
    ) -> Result<Placed, Ended> {
        let key = self.keys.object();
        let unknown: Mutex<Option<LedgerError>> = Mutex::new(None);
        let still_ours = || async {
            self.ctx.ledger.is_ours(self.claim).await.unwrap_or_else(|error| {
                unknown.lock().unwrap_or_else(PoisonError::into_inner).replace(error);
                false
            })
        };
        let version = self.keys.version(verified.sha256());
        let mut target = if is_taken { &version } else { &key };
        loop {
            let committed = self.frame.at(Step::Store, upload.commit(verified, target, still_ours())).await;
            match committed.map_err(|error| store_failed(error, delivery))? {
                Commit::Stored | Commit::AlreadyThere => break,
                Commit::Taken { kept: true } if *target == key => target = &version,
                Commit::Taken { .. } => {
                    self.abandon(upload).await;
                    let message = format!("other content appeared at `{target}` during the download");
                    return Err(Missed::seen(Outcome::StoreFailed, message, delivery).into());
                }
                Commit::NotOurs => {
                    self.abandon(upload).await;
                    let error = unknown.into_inner().unwrap_or_else(PoisonError::into_inner);
                    let what = self.claim.entry.partition.id.to_string();
                    return Err(error.unwrap_or(LedgerError::Fenced { what }).into());
                }
            }
        }
        let remark = match *target == key {
            true => String::new(),
            false => format!("{OTHER_CONTENT} is at `{key}` and was left alone"),
        };
        Ok(Placed { key: target.clone(), remark })
    }

    /// What cannot be verified is evidence. An unsupported format is kept whole at first sight; anything else
    /// once it has come twice alike, or when it may not come again.
    async fn reject(
        &self,
        rejected: archive::Rejected,
        upload: Upload,
        delivery: &Delivery,
        broken_before: &HashSet<String>,
    ) -> Missed {
        let mut message = delivery.redact(&rejected.message);
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
        Missed { size: Some(rejected.size), sha256: Some(rejected.sha256), ..Missed::seen(outcome, message, delivery) }
    }

    /// Whether the last two attempts ended at a damaged gzip around the archive. What was inside is then not all that
    /// came, so this one looks at the bytes as they are: those can be kept as evidence.
    async fn was_badly_packed(&self) -> Result<bool, LedgerError> {
        if self.claim.entry.outcome != Some(Outcome::Corrupt) {
            return Ok(false);
        }
        let attempts = self.ctx.ledger.attempts(&self.claim.entry.partition.id).await?;
        let last = attempts.iter().rev().take(2);
        Ok(last.filter(|attempt| attempt.message.starts_with(moengage::BADLY_PACKED)).count() == 2)
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

    fn manifest_of(&self, delivery: &Delivery, key: &str, verified: &Verified) -> Manifest {
        let mut manifest = describe(self.report, &self.claim.entry, key, verified);
        manifest.fetched_at = Some(self.ctx.clock.now());
        manifest.content_type = delivery.content_type().map(str::to_owned);
        let partition = &self.claim.entry.partition;
        // Nothing else of that time comes as far as here: see `open`.
        if delivery.vendor_date().is_some_and(|date| date < partition.generated_at) {
            manifest.warnings.push(not_reached(partition, delivery.vendor_date()));
        }
        if let Delivery::Snapshot(snapshot) = delivery {
            manifest.records = Some(snapshot.records);
            manifest.pages = Some(snapshot.pages);
            manifest.requests = Some(snapshot.requests);
            manifest.warnings.extend(snapshot.warnings.iter().cloned());
        }
        manifest
    }
}

async fn keep_page(destination: &Destination, page: Bytes, sha256: &str, key: &str) -> Result<(), StoreError> {
    let mut upload = destination.stage(Route::Staged, Some(page.len() as u64))?;
    upload.write(page).await?;
    upload.quarantine(sha256, key).await?;
    Ok(())
}

fn store_failed(error: StoreError, delivery: &Delivery) -> Missed {
    Missed::seen(Outcome::StoreFailed, error.to_string(), delivery)
}

fn not_reached(partition: &Partition, vendor_date: Option<Timestamp>) -> String {
    let date = vendor_date.map_or("absent".to_owned(), |date| date.to_string());
    format!(
        "MoEngage's clock has not reached the generation time, {}: the Date of its answer is {date}",
        partition.generated_at
    )
}

/// The manifest of a verified object that the next attempt at `entry` has put, or found, at `key`; as found there, not
/// fetched.
fn describe(report: &Report, entry: &Entry, key: &str, verified: &Verified) -> Manifest {
    let partition = &entry.partition;
    let entries = verified.entries().iter();
    Manifest {
        format_version: Manifest::FORMAT_VERSION,
        workspace: partition.id.workspace().to_owned(),
        report: partition.id.report.name().to_owned(),
        source: partition.source,
        date: partition.id.date,
        key: key.to_owned(),
        file_name: report.file_name(partition.id.date),
        format: match verified.format() {
            ArchiveFormat::Zip => ObjectFormat::Zip,
            ArchiveFormat::Tar => ObjectFormat::Tar,
            ArchiveFormat::Gzip if partition.source.is_archive() => ObjectFormat::Gzip,
            ArchiveFormat::Gzip => ObjectFormat::NdjsonGz,
        },
        size: verified.size(),
        sha256: verified.sha256().to_owned(),
        content_type: None,
        entries: Some(
            entries
                .map(|entry| ManifestEntry { name: entry.name.clone(), size: entry.size, crc32: entry.crc32 })
                .collect(),
        ),
        records: None,
        pages: None,
        requests: None,
        window: match &report.source {
            Source::Snapshot(SnapshotSource::CampaignStats(query)) => Some(query.window(partition.id.date)),
            _ => None,
        }
        .map(|(from, to)| Window { from, to }),
        generated_at: partition.generated_at,
        due_at: partition.due_at,
        fetched_at: None,
        expires_at: partition.expires_at,
        attempts: entry.attempts.saturating_add(1),
        source_url: Some(moengage::source_url(report, partition.id.date).to_string()),
        warnings: verified.warnings().to_vec(),
        moesync_version: env!("CARGO_PKG_VERSION").into(),
    }
}

/// In the warnings of a manifest that was made from its object alone.
const MADE_AGAIN: &str =
    "this manifest was made again from the object: how its download went, and what that warned of, is not known";

/// The manifest of the object at `key`, read through the verifier again, as far as the object itself shows; `None` when
/// it is not whole. `went_on` is called with each chunk.
async fn describe_again(
    ctx: &Context,
    report: &Report,
    entry: &Entry,
    destination: &Destination,
    key: &str,
    went_on: impl Fn(),
) -> Result<Option<Manifest>, StoreError> {
    let Some(mut bytes) = destination.read(key).await? else { return Ok(None) };
    let mut pass = Pass::start(archive_limits(&ctx.config.limits, report.source.kind()));
    let mut lines = (!report.source.kind().is_archive()).then(LineCount::default);
    while let Some(chunk) = bytes.next().await {
        let chunk = chunk?;
        went_on();
        if lines.as_mut().is_some_and(|lines| lines.feed(&chunk).is_err()) || pass.feed(chunk).await.is_err() {
            return Ok(None);
        }
    }
    let Verdict::Verified(verified) = pass.finish().await else { return Ok(None) };
    let mut manifest = describe(report, entry, key, &verified);
    // Decoded twice and found whole by the verifier: the count cannot fail.
    manifest.records = lines.and_then(|lines| lines.total().ok());
    manifest.warnings.push(MADE_AGAIN.to_owned());
    Ok(Some(manifest))
}

/// The limits of an archive of `source`. A snapshot is compressed by moesync, so its ratio is not limited.
pub fn archive_limits(limits: &config::Limits, source: config::SourceKind) -> Limits {
    Limits {
        archive_bytes: limits.archive_bytes,
        inflated_bytes: limits.inflated_bytes,
        inflate_ratio: if source.is_archive() { limits.inflate_ratio } else { u64::MAX },
    }
}

/// Where a verified upload ended up.
struct Placed {
    key: String,
    remark: String,
}
