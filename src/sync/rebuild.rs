//! A ledger that knows less than the destinations learns from the manifests.
//!
//! This file owns what makes a manifest believable. It runs at every start, because an empty ledger, one restored from
//! an old backup, and a sound one look alike from within; only the manifests of objects that the ledger does not know
//! are read.

use std::collections::{HashMap, HashSet};

use jiff::{SignedDuration, Timestamp, civil::Date};
use tracing::{error, info, warn};

use super::{Context, describe, inspect::digest, reread};
use crate::{
    config::{AlarmKind, Report, Source},
    ledger::LedgerError,
    outcome::{Entry, Settled, StoredObject},
    plan,
    report::{Partition, PartitionId, ReportId},
    store::{Destination, Found, Manifest, StoreError},
};

/// So many keys of objects that are gone are named.
const NAMED: usize = 10;

/// Adopts every object of a configured report that has its manifest and is not in the ledger. Returns how many.
///
/// What only a manifest is left of, and no plan will fetch again, is told loudly: no row of the ledger speaks for it.
///
/// A destination that cannot be listed is reported and left for the next time: its partitions are looked at one by one
/// before anything is downloaded.
///
/// # Errors
///
/// When the ledger refuses.
pub(super) async fn rebuild(ctx: &Context) -> Result<u64, LedgerError> {
    let entries = ctx.ledger.entries().await?;
    let planned = ctx.ledger.view(ctx.clock.now()).await?.planned_through;
    let stored: HashMap<&PartitionId, &str> = entries
        .iter()
        .filter(|entry| entry.settled == Settled::Stored)
        .filter_map(|entry| Some((&entry.partition.id, entry.object.as_ref()?.key.as_str())))
        .collect();
    let known: HashSet<(ReportId, &str)> = stored.iter().map(|(id, key)| (id.report_id(), *key)).collect();

    let mut adopted = 0;
    let mut gone = Vec::new();
    let mut unreachable = HashSet::new();
    for report in &ctx.config.reports {
        let Some(destination) = ctx.destinations.get(&report.destination) else { continue };
        if unreachable.contains(destination.name()) {
            continue;
        }
        let id = report.report_id();
        let is_known = |key: &str| known.contains(&(id.clone(), key));
        let is_stored = |partition: &PartitionId| stored.contains_key(partition);
        let found = match find(ctx, report, destination, is_known, is_stored, &mut gone).await {
            Ok(found) => found,
            Err(error) => {
                warn!(workspace = id.workspace, report = id.report, "could not look for stored objects: {error}");
                unreachable.insert(destination.name());
                continue;
            }
        };
        let mut from: Option<Timestamp> = None;
        for (partition, object, attempts) in found {
            ctx.ledger.adopt(&partition, &object, attempts).await?;
            let at = partition.generated_at;
            // What lies between two listings cannot be had; and what was fetched long after it was due was asked for by hand.
            let is_late = object.stored_at.duration_since(partition.due_at) > report.give_up_after;
            from = match from {
                _ if is_late => from,
                Some(from) if report.source.is_live_listing() => Some(from.max(at)),
                Some(from) => Some(from.min(at)),
                None => Some(at),
            };
            adopted += 1;
        }
        if let (Some(from), false) = (from, planned.contains_key(&id)) {
            resume(ctx, report, from).await?;
        }
    }
    if adopted > 0 {
        info!(adopted, "the ledger did not know {adopted} stored objects; it learned them from their manifests");
    }
    if !gone.is_empty() {
        tell_gone(ctx, gone).await?;
    }
    Ok(adopted)
}

/// Becomes loud about objects that only a manifest tells of, but for what another copy was adopted of or a pass looks
/// after.
async fn tell_gone(ctx: &Context, gone: Vec<(Partition, String)>) -> Result<(), LedgerError> {
    let now = ctx.clock.now();
    let entries = ctx.ledger.entries().await?;
    let plan = plan::plan(&ctx.config.reports, &ctx.ledger.view(now).await?, now);
    let planned = plan.items.iter().map(|item| &item.entry);
    let cared_for: HashSet<&PartitionId> = entries.iter().chain(planned).map(|entry| &entry.partition.id).collect();
    // A long absence is caught up with in steps.
    let is_to_be_planned = |partition: &Partition| {
        let mut through = plan.planned_through.iter();
        through.any(|(id, through)| *id == partition.id.report_id() && partition.generated_at > *through)
    };
    let is_given_up = |partition: &Partition| !cared_for.contains(&partition.id) && !is_to_be_planned(partition);
    let keys: Vec<_> = gone.into_iter().filter(|(partition, _)| is_given_up(partition)).map(|(_, key)| key).collect();
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
    error!(alarm = "ledger", objects, "{message}");
    match ctx.bulletin.incidents().remove(&AlarmKind::Ledger) {
        Some(known) if known.contains(&message) => {}
        Some(known) => ctx.bulletin.raise(AlarmKind::Ledger, format!("{known}; {message}")),
        None => ctx.bulletin.raise(AlarmKind::Ledger, message),
    }
    Ok(())
}

/// Where a report that was never planned is looked at from today on, one that has objects was planned before: go on
/// from them, as far back as something unpublished would still be asked for.
async fn resume(ctx: &Context, report: &Report, from: Timestamp) -> Result<(), LedgerError> {
    if report.source == Source::CampaignReport || report.start.is_some() {
        return Ok(());
    }
    let earliest = ctx.clock.now().checked_sub(report.give_up_after).unwrap_or(Timestamp::MIN);
    let just_before = from.checked_sub(SignedDuration::from_millis(1)).unwrap_or(from);
    ctx.ledger.planned_through(&report.report_id(), just_before.max(earliest)).await
}

/// What can be adopted. `gone` gets what only a manifest tells of.
async fn find(
    ctx: &Context,
    report: &Report,
    destination: &Destination,
    is_known: impl Fn(&str) -> bool,
    is_stored: impl Fn(&PartitionId) -> bool,
    gone: &mut Vec<(Partition, String)>,
) -> Result<Vec<(Partition, StoredObject, u32)>, StoreError> {
    let mut found: HashMap<PartitionId, (Partition, StoredObject, u32)> = HashMap::new();
    let mut keys = destination.manifest_keys(&format!("{}/", report.key_prefix())).await?;
    let versions = format!("{}/_versions/", report.key_prefix());
    // The object under the partition's own key comes before any other version of it.
    keys.sort_by_key(|key| key.starts_with(&versions));
    let is_of_stored = |key: &str| {
        date_in(key).is_some_and(|date| {
            is_stored(&PartitionId { workspace: report.workspace.name.clone(), report: report.id.clone(), date })
        })
    };
    let restated: HashSet<Date> =
        keys.iter().filter(|key| key.starts_with(&versions)).filter_map(|key| date_in(key)).collect();
    // Versions of what is stored are not read: there may be one for each day that restated.
    for key in keys.into_iter().filter(|key| !is_known(key) && !is_of_stored(key)) {
        let Found { size, manifest, .. } = destination.look(&key).await?;
        let Some(mut manifest) = manifest else { continue };
        let Some(partition) = believable(report, &key, &manifest) else {
            warn!(key, "a manifest that is not of this report or not of this object is ignored");
            continue;
        };
        if is_stored(&partition.id) || found.contains_key(&partition.id) {
            continue;
        }
        let is_replaced =
            !report.source.is_archive() && restated.contains(&manifest.date) && !key.starts_with(&versions);
        if is_replaced && digest(destination, &key).await?.as_ref() != Some(&manifest.sha256) {
            // A process died when it had replaced the object and not yet the manifest.
            let Some((verified, records)) = reread(ctx, report, destination, &key).await? else {
                gone.push((partition, key));
                continue;
            };
            let entry = Entry::new(partition.clone());
            manifest = Manifest { records, ..describe(ctx, report, &entry, &key, &verified) };
            destination.put_manifest(&manifest).await?;
        } else if size != Some(manifest.size) {
            warn!(key, "a manifest whose object is missing or of another size is ignored");
            gone.push((partition, key));
            continue;
        }
        let object = StoredObject {
            key,
            size: manifest.size,
            sha256: manifest.sha256,
            stored_at: manifest.fetched_at.unwrap_or(manifest.generated_at),
        };
        found.insert(partition.id.clone(), (partition, object, manifest.attempts));
    }
    let mut found: Vec<_> = found.into_values().collect();
    found.sort_by(|(a, ..), (b, ..)| a.id.cmp(&b.id));
    Ok(found)
}

fn date_in(key: &str) -> Option<Date> {
    key.split('/').find_map(|part| part.strip_prefix("date=")?.parse().ok())
}

/// The partition that a manifest proves; `None` when it names another or lies at another's key.
fn believable(report: &Report, key: &str, manifest: &Manifest) -> Option<Partition> {
    let id = PartitionId { workspace: report.workspace.name.clone(), report: report.id.clone(), date: manifest.date };
    // The file's own name may be of an earlier time: a report can be renamed in the dashboard and keep its id.
    let keys = report.keys(manifest.date);
    let object = keys.object();
    let folder = object.rsplit_once('/').map_or("", |(folder, _)| folder);
    let is_at_home = key.rsplit_once('/').is_some_and(|(at, _)| at == folder || format!("{at}/") == keys.versions());
    (manifest.names(&id, key) && manifest.source == report.source && is_at_home).then_some(Partition {
        id,
        source: manifest.source,
        generated_at: manifest.generated_at,
        due_at: manifest.due_at,
        expires_at: manifest.expires_at,
    })
}
