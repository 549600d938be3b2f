//! Adopts stored objects that are not in the ledger, from their manifests.
//!
//! This file owns which manifests are valid. It runs at every start, because an empty ledger, one restored from an old
//! backup and a current one look alike; only manifests of objects that are not in the ledger are read. The loop runs
//! meanwhile: partitions with a live claim are left to it.

use std::{
    collections::HashSet,
    mem,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::{FutureExt, StreamExt, stream};
use jiff::{SignedDuration, Timestamp, civil::Date};
use tokio::sync::Semaphore;
use tracing::{error, info, warn};

use super::{context::Context, manifest::describe_again};
use crate::{
    alarm_kind::AlarmKind,
    config::{Report, SourceKind},
    ledger::{Adoption, Claimed, LedgerError},
    outcome::StoredObject,
    partition::{Entry, Settled},
    plan::{self, Reach},
    report::{Partition, PartitionId},
    schedule,
    store::{Destination, Listed, Lookup, Manifest, StoreError},
};

/// How many keys of missing objects an alarm names.
const NAMED: usize = 10;

/// Most concurrent requests to one destination, and most manifests of it in memory.
const CONCURRENCY: usize = 32;

/// Number of failed reads in a row after which the destination counts as unreachable, not the objects as damaged.
const UNREACHABLE_AFTER: usize = CONCURRENCY;

/// The result for one destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rebuilt {
    /// Whether the plan changes: objects were adopted, or a report is planned from an earlier date.
    pub(super) has_changed: bool,
    /// Whether everything could be read.
    pub(super) is_whole: bool,
}

/// Adopts every object of a configured report at `destination` that has a manifest and is not in the ledger.
///
/// A manifest without its object raises an alarm, unless a plan fetches the partition again. Manifests that cannot be read
/// are logged and read again the next time; until then the report may lack objects, but no dates, because the keys show
/// since when it was planned. `answered` is called for each answer of the destination.
///
/// # Errors
///
/// When the ledger cannot be read or written.
pub(super) async fn rebuild(
    ctx: &Context,
    destination: &Destination,
    answered: &(dyn Fn() + Sync),
) -> Result<Rebuilt, LedgerError> {
    let recovered = ctx.ledger.recovered().await?;
    let scan =
        Scan { ctx, destination, answered, requests: Semaphore::new(CONCURRENCY), failures: AtomicUsize::new(0) };
    let mut reports = Vec::new();
    for report in ctx.config.reports.iter().filter(|report| report.destination.name == destination.name()) {
        reports.push((Arc::clone(report), !recovered.contains(&report.id)));
    }
    let mut learned = stream::iter(reports)
        .map(|(report, is_first)| scan.learn(report, is_first).boxed())
        .buffer_unordered(CONCURRENCY);

    let (mut adopted, mut unread, mut has_resumed, mut gone) = (0, 0, false, Vec::new());
    let mut is_listed = true;
    while let Some(learned) = learned.next().await {
        let Some(learned) = learned? else {
            is_listed = false;
            continue;
        };
        adopted += learned.adopted;
        unread += learned.unread;
        has_resumed |= learned.has_resumed;
        gone.extend(learned.gone);
    }
    let destination = destination.name();
    if adopted > 0 {
        info!(
            destination,
            adopted, "adopted {adopted} stored objects that were not in the ledger, from their manifests"
        );
    }
    if unread > 0 {
        warn!(destination, unread, "{unread} manifests could not be read, retrying later");
    }
    if !gone.is_empty() {
        raise_gone(ctx, destination, gone).await?;
    }
    Ok(Rebuilt { has_changed: adopted > 0 || has_resumed, is_whole: is_listed && unread == 0 })
}

/// One scan of one destination.
struct Scan<'a> {
    ctx: &'a Context,
    destination: &'a Destination,
    /// Called for each answer.
    answered: &'a (dyn Fn() + Sync),
    requests: Semaphore,
    /// Failed reads since the last successful one.
    failures: AtomicUsize,
}

/// What the manifests of one report show.
#[derive(Default)]
struct Learned {
    adopted: usize,
    unread: usize,
    /// Whether the report is now planned from an earlier time than before, or a partition of it is open again.
    has_resumed: bool,
    /// Manifests without their objects, by key.
    gone: Vec<(Partition, String)>,
    /// Restated objects whose manifests are of other content.
    undescribed: Vec<(Partition, String)>,
    /// Dates that are stored.
    settled: HashSet<Date>,
    /// Generation times that show since when the report was planned.
    planned: Vec<Timestamp>,
}

/// What one manifest shows.
enum Examined {
    /// An object that is complete.
    Complete(Box<Adoption>),
    /// The object is missing, or of another size.
    Gone(Partition, String),
    /// The object was restated, and its manifest is of other content.
    Undescribed(Partition, String),
    /// Not a manifest of this report, or an attempt at the partition is running.
    Nothing,
    /// It could not be read.
    Unread(String),
}

impl Scan<'_> {
    /// Adopts the objects of `report`; `None` if they could not be listed. If `is_first`, the report is planned from the time
    /// on that its objects show.
    async fn learn(&self, report: Arc<Report>, is_first: bool) -> Result<Option<Learned>, LedgerError> {
        let report = &*report;
        let mut stored = self.ctx.ledger.history(&report.id, Date::MAX, u32::MAX).await?;
        stored.retain(|entry| entry.settled == Settled::Stored);
        let listed = match self.ask(self.destination.described_objects(&format!("{}/", report.key_prefix()))).await {
            Some(Ok(listed)) => listed,
            Some(Err(error)) => {
                warn!(
                    workspace = report.workspace.name,
                    report = report.id.name(),
                    "could not list stored objects, retrying: {error}"
                );
                return Ok(None);
            }
            None => return Ok(None),
        };
        let known: HashSet<&str> =
            stored.iter().filter_map(|entry| Some(entry.object.as_ref()?.key.as_str())).collect();
        let settled: HashSet<Date> = stored.iter().map(|entry| entry.partition.id.date).collect();
        let versions = format!("{}/_versions/", report.key_prefix());
        let (beside, own): (Vec<_>, Vec<_>) = listed.into_iter().partition(|listed| listed.key.starts_with(&versions));
        let restated: HashSet<Date> = beside.iter().filter_map(|listed| date_in(&listed.key)).collect();

        let planned = stored.iter().filter(|entry| was_planned(report, entry)).map(at).collect();
        let mut learned = Learned { settled, planned, ..Learned::default() };
        // The object at the partition's own key comes before its versions. Versions of a stored partition are not read: there
        // may be one for each day on which it restated.
        for listed in [own, beside] {
            let unknown: Vec<_> = listed
                .into_iter()
                .filter(|listed| !known.contains(listed.key.as_str()))
                .filter(|listed| date_in(&listed.key).is_none_or(|date| !learned.settled.contains(&date)))
                .collect();
            // What has been read by then is adopted in one transaction.
            let mut examined = stream::iter(unknown)
                .map(|listed| self.examine(report, listed, &restated).boxed())
                .buffered(CONCURRENCY)
                .ready_chunks(CONCURRENCY);
            // `examine` must not use the ledger: while this loop waits for the ledger's connection, it is not polled.
            while let Some(examined) = examined.next().await {
                self.take(&mut learned, report, examined).await?;
            }
            for (partition, key) in mem::take(&mut learned.undescribed) {
                let examined = self.describe(report, partition, key).boxed().await?;
                self.take(&mut learned, report, vec![examined]).await?;
            }
        }
        let Learned { settled, gone, .. } = &mut learned;
        gone.retain(|(partition, _)| !settled.contains(&partition.id.date));
        if is_first {
            let mark = resumes_at(report, &learned.planned, self.ctx.clock.now());
            let corrected = self.ctx.ledger.note_recovered(&report.id, mark).await?;
            learned.has_resumed = mark.is_some() || corrected > 0;
        }
        Ok(Some(learned))
    }

    /// Reads the manifest of a listed object.
    async fn examine(&self, report: &Report, listed: Listed, restated: &HashSet<Date>) -> Examined {
        let destination = self.destination;
        let looked = self.ask(destination.look_at(&listed)).await;
        let key = listed.key;
        let (size, manifest) = match looked {
            Some(Ok(Lookup { size, manifest: Some(manifest), .. })) => (size, manifest),
            Some(Ok(_)) => return Examined::Nothing,
            Some(Err(error)) => {
                warn!(key, "could not read a manifest, retrying later: {error}");
                return Examined::Unread(key);
            }
            None => return Examined::Unread(key),
        };
        let Some(partition) = valid(report, &key, &manifest) else {
            warn!(key, "ignoring a manifest of another report or object");
            return Examined::Nothing;
        };
        let is_version = key.starts_with(&format!("{}/_versions/", report.key_prefix()));
        let is_restated = !report.source.kind().is_archive() && restated.contains(&manifest.date) && !is_version;
        if is_restated {
            // A process may have died after it replaced the object and before it replaced the manifest.
            match self.ask(destination.sha256_of(&key)).await {
                Some(Ok(sha256)) if sha256.as_ref() == Some(&manifest.sha256) => {}
                Some(Ok(_)) => return Examined::Undescribed(partition, key),
                Some(Err(error)) => return unread(key, &error),
                None => return Examined::Unread(key),
            }
        } else if size != Some(manifest.size) {
            warn!(key, "ignoring a manifest whose object is missing or of another size");
            return Examined::Gone(partition, key);
        }
        Examined::complete(partition, key, manifest)
    }

    /// Writes the manifest of a restated object, under a claim: the loop may be replacing the object.
    async fn describe(&self, report: &Report, partition: Partition, key: String) -> Result<Examined, LedgerError> {
        let (ledger, id) = (&self.ctx.ledger, &partition.id);
        ledger.reopen(&[Entry::new(partition.clone())]).await?;
        let Some(entry) = ledger.entry_of(id).await? else { return Ok(Examined::Nothing) };
        let Claimed::Ours(_) = ledger.claim(&entry).await? else { return Ok(Examined::Nothing) };
        let described = async {
            let Some(manifest) = describe_again(self.ctx, report, &entry, self.destination, &key, || ()).await? else {
                return Ok(None);
            };
            self.destination.put_manifest(&manifest).await?;
            Ok(Some(manifest))
        };
        let described = self.ask(described).await;
        ledger.release(id).await?;
        Ok(match described {
            Some(Ok(Some(manifest))) => Examined::complete(partition, key, manifest),
            Some(Ok(None)) => Examined::Gone(partition, key),
            Some(Err(error)) => unread(key, &error),
            None => Examined::Unread(key),
        })
    }

    /// Adopts the complete objects, and adds what was examined to what is `learned` of the report.
    async fn take(&self, learned: &mut Learned, report: &Report, examined: Vec<Examined>) -> Result<(), LedgerError> {
        let mut complete = Vec::new();
        for examined in examined {
            match examined {
                Examined::Complete(adoption) => {
                    if learned.settled.insert(adoption.partition.id.date) {
                        complete.push(*adoption);
                    }
                }
                Examined::Gone(partition, key) => learned.gone.push((partition, key)),
                Examined::Undescribed(partition, key) => learned.undescribed.push((partition, key)),
                Examined::Nothing => {}
                Examined::Unread(key) => {
                    learned.unread += 1;
                    let day = date_in(&key);
                    let occurrence = day.and_then(|day| schedule::on_any_day(&report.schedule, &report.timezone, day));
                    learned.planned.extend(occurrence.map(|occurrence| occurrence.generated_at));
                }
            }
        }
        learned.adopted += self.ctx.ledger.adopt(&complete).await?;
        for Adoption { partition, object, .. } in complete {
            let entry = Entry { object: Some(object), ..Entry::new(partition) };
            learned.planned.extend(was_planned(report, &entry).then(|| at(&entry)));
        }
        Ok(())
    }

    /// One request to the destination; `None` once the destination counts as unreachable.
    async fn ask<T>(&self, request: impl Future<Output = Result<T, StoreError>>) -> Option<Result<T, StoreError>> {
        let _permit = self.requests.acquire().await.ok()?;
        if self.failures.load(Ordering::Relaxed) >= UNREACHABLE_AFTER {
            return None;
        }
        let answer = request.await;
        (self.answered)();
        match &answer {
            Ok(_) => self.failures.store(0, Ordering::Relaxed),
            Err(_) => drop(self.failures.fetch_add(1, Ordering::Relaxed)),
        }
        Some(answer)
    }
}

impl Examined {
    fn complete(partition: Partition, key: String, manifest: Manifest) -> Self {
        let object =
            StoredObject { key, stored_at: manifest.stored_at(), size: manifest.size, sha256: manifest.sha256 };
        Self::Complete(Box::new(Adoption { partition, object, attempts: manifest.attempts }))
    }
}

fn unread(key: String, error: &StoreError) -> Examined {
    warn!(key, "could not read a stored object, retrying later: {error}");
    Examined::Unread(key)
}

fn at(entry: &Entry) -> Timestamp {
    entry.partition.generated_at
}

/// Whether a stored partition came from the schedule. One that was fetched long after it was due came from a backfill.
fn was_planned(report: &Report, entry: &Entry) -> bool {
    let age = entry.object.as_ref().map(|object| object.stored_at.duration_since(entry.partition.due_at));
    age.is_some_and(|age| age <= report.give_up_after())
}

/// The time from which a report is planned that has stored objects and no plan in the ledger: that of its objects, but no
/// earlier than an unpublished partition is still requested. `None` for sources whose first plan covers the past anyway.
fn resumes_at(report: &Report, planned: &[Timestamp], now: Timestamp) -> Option<Timestamp> {
    if report.source.kind() == SourceKind::CampaignReport || report.start.is_some() {
        return None;
    }
    let planned = planned.iter().copied();
    // A live listing of the past cannot be fetched.
    let from = if report.source.kind().is_live_listing() { planned.max()? } else { planned.min()? };
    let earliest = now.checked_sub(report.give_up_after()).unwrap_or(Timestamp::MIN);
    Some(from.checked_sub(SignedDuration::from_millis(1)).unwrap_or(from).max(earliest))
}

/// Raises an alarm about manifests without their objects, except those of partitions in the ledger or the plan.
async fn raise_gone(ctx: &Context, destination: &str, gone: Vec<(Partition, String)>) -> Result<(), LedgerError> {
    let now = ctx.clock.now();
    let plan = plan::plan(&ctx.config.reports, &ctx.ledger.view(&Reach::of(&ctx.config.reports, now, now)).await?, now);
    let planned: HashSet<&PartitionId> = plan.items.iter().map(|item| &item.entry.partition.id).collect();
    // After a long downtime, a plan covers a part of the past.
    let is_to_be_planned = |partition: &Partition| {
        let mut through = plan.planned_through.iter();
        through.any(|(id, through)| *id == partition.id.report && partition.generated_at > *through)
    };
    let mut keys = Vec::new();
    for (partition, key) in gone {
        let is_planned = planned.contains(&partition.id) || is_to_be_planned(&partition);
        if !is_planned && ctx.ledger.entry_of(&partition.id).await?.is_none() {
            keys.push(key);
        }
    }
    if keys.is_empty() {
        return Ok(());
    }
    let objects = keys.len();
    let named: Vec<_> = keys.iter().take(NAMED).map(|key| format!("`{key}`")).collect();
    let more = if objects > NAMED { format!(" and {} more", objects - NAMED) } else { String::new() };
    let message = format!(
        "{objects} objects are missing or incomplete, and only their manifests are left: {}{more}; restore them from a copy, or \
         run `moesync backfill` for those that MoEngage still has",
        named.join(", ")
    );
    error!(alarm = "ledger", destination, objects, "{message}");
    ctx.status.raise(AlarmKind::Ledger, &format!("objects at {destination}"), message);
    Ok(())
}

fn date_in(key: &str) -> Option<Date> {
    key.split('/').find_map(|part| part.strip_prefix("date=")?.parse().ok())
}

/// The partition of a valid manifest; `None` if it is of another report, or at the key of another partition.
fn valid(report: &Report, key: &str, manifest: &Manifest) -> Option<Partition> {
    let id = PartitionId { report: report.id.clone(), date: manifest.date };
    // Only the folder is compared: a report can be renamed in the dashboard, which changes file names but not its id.
    let keys = report.keys(manifest.date);
    let object = keys.object();
    let folder = object.rsplit_once('/').map_or("", |(folder, _)| folder);
    let is_at_its_key = key.rsplit_once('/').is_some_and(|(at, _)| at == folder || format!("{at}/") == keys.versions());
    (manifest.names(&id, key) && manifest.source == report.source.kind() && is_at_its_key).then_some(Partition {
        id,
        source: manifest.source,
        generated_at: manifest.generated_at,
        due_at: manifest.due_at,
        expires_at: manifest.expires_at,
    })
}
