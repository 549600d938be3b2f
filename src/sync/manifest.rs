//! Manifests: of content that was just fetched, and of an object that is read again.
//!
//! This file owns what a manifest says. It must not know when one is written.

use futures::StreamExt;

use super::{context::Context, incoming::Incoming, spool::LineCount};
use crate::{
    archive::{ArchiveFormat, ArchiveLimits, Pass, Verdict, Verified},
    config::{self, Report, SnapshotSource, Source, SourceKind},
    moengage,
    partition::{self, Entry},
    store::{Destination, Manifest, ManifestEntry, ObjectFormat, StoreError, Window},
};

/// The manifest of what has just been fetched and put at `key`.
pub(super) fn of_incoming(
    ctx: &Context,
    report: &Report,
    entry: &Entry,
    key: &str,
    verified: &Verified,
    incoming: &Incoming,
) -> Manifest {
    let mut manifest = describe(report, entry, key, verified);
    manifest.fetched_at = Some(ctx.clock.now());
    manifest.content_type = incoming.content_type().map(str::to_owned);
    let (partition, vendor_date) = (&entry.partition, incoming.evidence().vendor_date);
    // Nothing else of that time comes as far as here: see `Work::open`.
    if vendor_date.is_some_and(|date| date < partition.generated_at) {
        manifest.warnings.push(partition::not_reached(partition, vendor_date));
    }
    if let Incoming::Snapshot(snapshot) = incoming {
        manifest.records = Some(snapshot.records);
        manifest.pages = Some(snapshot.pages);
        manifest.requests = Some(snapshot.requests);
        manifest.warnings.extend(snapshot.warnings.iter().cloned());
    }
    manifest
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
pub(super) async fn describe_again(
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
pub fn archive_limits(limits: &config::Limits, source: SourceKind) -> ArchiveLimits {
    ArchiveLimits {
        archive_bytes: limits.archive_bytes,
        inflated_bytes: limits.inflated_bytes,
        inflate_ratio: if source.is_archive() { limits.inflate_ratio } else { u64::MAX },
    }
}
