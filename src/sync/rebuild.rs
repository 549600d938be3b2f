//! A ledger that knows less than a destination learns from the manifests there.
//!
//! This file owns what makes a manifest believable. It runs at every start, because an empty ledger, one restored from
//! an old backup, and a sound one look alike from within; only the manifests of objects that the ledger does not know
//! are read. The loop works meanwhile: what it holds a claim on is left to it.

use std::{
    collections::HashSet,
    mem, slice,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::{FutureExt, StreamExt, stream};
use jiff::{SignedDuration, Timestamp, civil::Date};
use tokio::sync::{Notify, Semaphore};
use tracing::{error, info, warn};

use super::{context::Context, manifest::describe_again};
use crate::{
    alarm_kind::AlarmKind,
    config::{Report, SourceKind},
    ledger::{Claimed, LedgerError},
    outcome::StoredObject,
    partition::{Entry, Settled},
    plan::{self, Reach},
    report::{Partition, PartitionId},
    schedule,
    store::{Destination, Lookup, Manifest, StoreError},
};

/// How many keys of objects that are gone are named.
const NAMED: usize = 10;

/// Most requests to one destination at a time, and most manifests of it in memory.
const AT_ONCE: usize = 32;

/// How many failed reads in a row mean that the destination is away, rather than that objects are damaged.
const AWAY_AFTER: usize = AT_ONCE;

/// What came of looking through one destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rebuilt {
    /// Whether there is more to plan, or less to fetch, than before.
    pub(super) has_changed: bool,
    /// Whether everything there could be read.
    pub(super) is_whole: bool,
}

/// Adopts every object of a configured report at `destination` that has its manifest and is not in the ledger.
///
/// What only a manifest is left of, and no plan will fetch again, raises an alarm: the ledger has no row of it. What
/// cannot be read is logged and left for the next time: until then the report may miss objects, but no date, because
/// the keys alone show from when on it was planned. `answered` is notified of each answer of the destination.
///
/// # Errors
///
/// When the ledger cannot be read or written.
pub(super) async fn rebuild(
    ctx: &Context,
    destination: &Destination,
    answered: &Notify,
) -> Result<Rebuilt, LedgerError> {
    let recovered = ctx.ledger.recovered().await?;
    let search = Search { ctx, destination, answered, places: Semaphore::new(AT_ONCE), failures: AtomicUsize::new(0) };
    let mut reports = Vec::new();
    for report in ctx.config.reports.iter().filter(|report| report.destination.name == destination.name()) {
        reports.push((Arc::clone(report), !recovered.contains(&report.id)));
    }
    let mut learned = stream::iter(reports)
        .map(|(report, is_first)| search.learn(report, is_first).boxed())
        .buffer_unordered(AT_ONCE);

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
            adopted, "the ledger did not know {adopted} stored objects; it learned them from their manifests"
        );
    }
    if unread > 0 {
        warn!(destination, unread, "{unread} manifests could not be read; they are read again later");
    }
    if !gone.is_empty() {
        raise_gone(ctx, destination, gone).await?;
    }
    Ok(Rebuilt { has_changed: adopted > 0 || has_resumed, is_whole: is_listed && unread == 0 })
}

/// One look through one destination.
struct Search<'a> {
    ctx: &'a Context,
    destination: &'a Destination,
    /// Notified of each answer.
    answered: &'a Notify,
    places: Semaphore,
    /// How many reads have failed since the last one that did not.
    failures: AtomicUsize,
}

/// What the manifests of one report have shown.
#[derive(Default)]
struct Learned {
    adopted: usize,
    unread: usize,
    /// Whether the report is now planned from an earlier time on than before, or something of it is open again.
    has_resumed: bool,
    /// What only a manifest shows.
    gone: Vec<(Partition, String)>,
    /// Restated objects whose manifests are of other content.
    undescribed: Vec<(Partition, String)>,
    /// The dates that are stored.
    settled: HashSet<Date>,
    /// What shows from when on the report was planned.
    planned: Vec<Timestamp>,
}

/// What one manifest has shown.
enum Examined {
    Whole(Box<(Partition, StoredObject, u32)>),
    /// Only the manifest is left.
    Gone(Partition, String),
    /// The object was restated, and its manifest is of other content.
    Undescribed(Partition, String),
    /// It is no manifest of this report, or the partition is being worked on.
    Nothing,
    /// It is to be read again.
    Unread(String),
}

impl Search<'_> {
    /// Adopts what can be adopted of `report`; `None` when it could not be listed.
    ///
    /// Where `is_first`, it goes on being planned from where its objects say that it was planned before.
    async fn learn(&self, report: Arc<Report>, is_first: bool) -> Result<Option<Learned>, LedgerError> {
        let report = &*report;
        let mut stored = self.ctx.ledger.history(&report.id, Date::MAX, u32::MAX).await?;
        stored.retain(|entry| entry.settled == Settled::Stored);
        let keys = match self.ask(self.destination.manifest_keys(&format!("{}/", report.key_prefix()))).await {
            Some(Ok(keys)) => keys,
            Some(Err(error)) => {
                warn!(
                    workspace = report.workspace.name,
                    report = report.id.name(),
                    "could not look for stored objects; it is tried again: {error}"
                );
                return Ok(None);
            }
            None => return Ok(None),
        };
        let known: HashSet<&str> =
            stored.iter().filter_map(|entry| Some(entry.object.as_ref()?.key.as_str())).collect();
        let settled: HashSet<Date> = stored.iter().map(|entry| entry.partition.id.date).collect();
        let versions = format!("{}/_versions/", report.key_prefix());
        let (beside, own): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| key.starts_with(&versions));
        let restated: HashSet<Date> = beside.iter().filter_map(|key| date_in(key)).collect();

        // What says from when on the report was planned.
        let planned = stored.iter().filter(|entry| was_planned(report, entry)).map(at).collect();
        let mut learned = Learned { settled, planned, ..Learned::default() };
        // The object under the partition's own key comes before any other version of it. Versions of what is stored are
        // not read: there may be one for each day that restated.
        for keys in [own, beside] {
            let unknown: Vec<_> = keys
                .into_iter()
                .filter(|key| !known.contains(key.as_str()))
                .filter(|key| date_in(key).is_none_or(|date| !learned.settled.contains(&date)))
                .collect();
            let mut examined =
                stream::iter(unknown).map(|key| self.examine(report, key, &restated).boxed()).buffered(AT_ONCE);
            // Examining must not use the ledger: it is not polled while the ledger's connection is waited for here.
            while let Some(examined) = examined.next().await {
                self.take(&mut learned, report, examined).await?;
            }
            for (partition, key) in mem::take(&mut learned.undescribed) {
                let examined = self.describe(report, partition, key).boxed().await?;
                self.take(&mut learned, report, examined).await?;
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

    /// Reads the manifest of the object at `key`.
    async fn examine(&self, report: &Report, key: String, restated: &HashSet<Date>) -> Examined {
        let destination = self.destination;
        let (size, manifest) = match self.ask(destination.look(&key)).await {
            Some(Ok(Lookup { size, manifest: Some(manifest), .. })) => (size, manifest),
            Some(Ok(_)) => return Examined::Nothing,
            Some(Err(error)) => {
                warn!(key, "a manifest could not be read; it is read again later: {error}");
                return Examined::Unread(key);
            }
            None => return Examined::Unread(key),
        };
        let Some(partition) = believable(report, &key, &manifest) else {
            warn!(key, "a manifest that is not of this report or not of this object is ignored");
            return Examined::Nothing;
        };
        let is_version = key.starts_with(&format!("{}/_versions/", report.key_prefix()));
        let is_restated = !report.source.kind().is_archive() && restated.contains(&manifest.date) && !is_version;
        if is_restated {
            // A process can die when it has replaced the object and not yet the manifest.
            match self.ask(destination.sha256_of(&key)).await {
                Some(Ok(sha256)) if sha256.as_ref() == Some(&manifest.sha256) => {}
                Some(Ok(_)) => return Examined::Undescribed(partition, key),
                Some(Err(error)) => return unread(key, &error),
                None => return Examined::Unread(key),
            }
        } else if size != Some(manifest.size) {
            warn!(key, "a manifest whose object is missing or of another size is ignored");
            return Examined::Gone(partition, key);
        }
        Examined::whole(partition, key, manifest)
    }

    /// Writes the manifest of a restated object, under a claim, because the loop replaces such objects.
    async fn describe(&self, report: &Report, partition: Partition, key: String) -> Result<Examined, LedgerError> {
        let (ledger, id) = (&self.ctx.ledger, &partition.id);
        let entry = Entry::new(partition.clone());
        ledger.reopen(slice::from_ref(&entry)).await?;
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
            Some(Ok(Some(manifest))) => Examined::whole(partition, key, manifest),
            Some(Ok(None)) => Examined::Gone(partition, key),
            Some(Err(error)) => unread(key, &error),
            None => Examined::Unread(key),
        })
    }

    /// Adopts what was found, and adds it to what the report has `learned`.
    async fn take(&self, learned: &mut Learned, report: &Report, examined: Examined) -> Result<(), LedgerError> {
        match examined {
            Examined::Whole(whole) => {
                let (partition, object, attempts) = *whole;
                if !learned.settled.insert(partition.id.date) {
                    return Ok(());
                }
                learned.adopted += usize::from(self.ctx.ledger.adopt(&partition, &object, attempts).await?);
                let entry = Entry { object: Some(object), ..Entry::new(partition) };
                learned.planned.extend(was_planned(report, &entry).then(|| at(&entry)));
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
        Ok(())
    }

    /// One request to the destination, in its turn; `None` when the destination has turned out to be away.
    async fn ask<T>(&self, request: impl Future<Output = Result<T, StoreError>>) -> Option<Result<T, StoreError>> {
        let _place = self.places.acquire().await.ok()?;
        if self.failures.load(Ordering::Relaxed) >= AWAY_AFTER {
            return None;
        }
        let answer = request.await;
        self.answered.notify_one();
        match &answer {
            Ok(_) => self.failures.store(0, Ordering::Relaxed),
            Err(_) => drop(self.failures.fetch_add(1, Ordering::Relaxed)),
        }
        Some(answer)
    }
}

impl Examined {
    fn whole(partition: Partition, key: String, manifest: Manifest) -> Self {
        let object =
            StoredObject { key, stored_at: manifest.stored_at(), size: manifest.size, sha256: manifest.sha256 };
        Self::Whole(Box::new((partition, object, manifest.attempts)))
    }
}

fn unread(key: String, error: &StoreError) -> Examined {
    warn!(key, "a stored object could not be read; it is read again later: {error}");
    Examined::Unread(key)
}

fn at(entry: &Entry) -> Timestamp {
    entry.partition.generated_at
}

/// Whether a stored partition came from the schedule: what was fetched long after it was due was asked for by hand.
fn was_planned(report: &Report, entry: &Entry) -> bool {
    let age = entry.object.as_ref().map(|object| object.stored_at.duration_since(entry.partition.due_at));
    age.is_some_and(|age| age <= report.give_up_after())
}

/// Where a report that was never planned is looked at from today on, one that has objects was planned before: it goes on
/// from them, as far back as something unpublished would still be asked for. `None` where the first plan goes back anyway.
fn resumes_at(report: &Report, planned: &[Timestamp], now: Timestamp) -> Option<Timestamp> {
    if report.source.kind() == SourceKind::CampaignReport || report.start.is_some() {
        return None;
    }
    let planned = planned.iter().copied();
    // What lies between two listings cannot be had.
    let from = if report.source.kind().is_live_listing() { planned.max()? } else { planned.min()? };
    let earliest = now.checked_sub(report.give_up_after()).unwrap_or(Timestamp::MIN);
    Some(from.checked_sub(SignedDuration::from_millis(1)).unwrap_or(from).max(earliest))
}

/// Raises an alarm about objects that exist only in a manifest, except those of partitions in the ledger or the plan.
async fn raise_gone(ctx: &Context, destination: &str, gone: Vec<(Partition, String)>) -> Result<(), LedgerError> {
    let now = ctx.clock.now();
    let plan = plan::plan(&ctx.config.reports, &ctx.ledger.view(&Reach::of(&ctx.config.reports, now, now)).await?, now);
    let planned: HashSet<&PartitionId> = plan.items.iter().map(|item| &item.entry.partition.id).collect();
    // A long absence is caught up with in steps.
    let is_to_be_planned = |partition: &Partition| {
        let mut through = plan.planned_through.iter();
        through.any(|(id, through)| *id == partition.id.report && partition.generated_at > *through)
    };
    let mut keys = Vec::new();
    for (partition, key) in gone {
        let is_cared_for = planned.contains(&partition.id) || is_to_be_planned(&partition);
        if !is_cared_for && ctx.ledger.entry_of(&partition.id).await?.is_none() {
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
        "{objects} objects that the ledger does not know are missing or not whole, though their manifests are there: \
         {}{more}; put them back from a copy, or run `moesync backfill` for what MoEngage still has",
        named.join(", ")
    );
    error!(alarm = "ledger", destination, objects, "{message}");
    ctx.status.raise(AlarmKind::Ledger, &format!("objects at {destination}"), message);
    Ok(())
}

fn date_in(key: &str) -> Option<Date> {
    key.split('/').find_map(|part| part.strip_prefix("date=")?.parse().ok())
}

/// The partition that a manifest proves; `None` when it names another or lies at another's key.
fn believable(report: &Report, key: &str, manifest: &Manifest) -> Option<Partition> {
    let id = PartitionId { report: report.id.clone(), date: manifest.date };
    // The file's own name may be of an earlier time: a report can be renamed in the dashboard and keep its id.
    let keys = report.keys(manifest.date);
    let object = keys.object();
    let folder = object.rsplit_once('/').map_or("", |(folder, _)| folder);
    let is_at_home = key.rsplit_once('/').is_some_and(|(at, _)| at == folder || format!("{at}/") == keys.versions());
    (manifest.names(&id, key) && manifest.source == report.source.kind() && is_at_home).then_some(Partition {
        id,
        source: manifest.source,
        generated_at: manifest.generated_at,
        due_at: manifest.due_at,
        expires_at: manifest.expires_at,
    })
}
