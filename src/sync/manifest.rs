//! The contents of manifests: of content that was just fetched, and of an object that is read again.
//!
//! This file must not know when a manifest is written.

use futures::StreamExt;

use super::{context::Context, incoming::Incoming, spool::LineCount, work::Work};
use crate::{
    archive::{ArchiveFormat, ArchiveLimits, Pass, Verdict, Verified},
    config::{self, Report, SnapshotSource, Source, SourceKind},
    moengage,
    partition::{self, Entry},
    store::{Destination, Manifest, ManifestEntry, ObjectFormat, StoreError, Window},
};

/// The manifest of content that was just fetched and is stored at `key`.
pub(super) fn of_incoming(work: &Work<'_>, key: &str, verified: &Verified, incoming: &Incoming) -> Manifest {
    let mut manifest = describe(work.report, work.entry(), key, verified);
    manifest.fetched_at = Some(work.ctx.clock.now());
    manifest.content_type = incoming.content_type().map(str::to_owned);
    let (partition, vendor_date) = (&work.entry().partition, incoming.evidence().vendor_date);
    // Stored so early only because the archive expires soon: see `ServerClocks::check`.
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

/// The manifest of the object at `key`, made from its bytes; `None` if they do not verify.
pub(super) async fn of_object(work: &Work<'_>, key: &str) -> Result<Option<Manifest>, StoreError> {
    describe_again(work.ctx, work.report, work.entry(), work.destination, key, || work.frame.note_progress()).await
}

/// The manifest of a verified object at `key`, as far as the object itself shows.
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

/// Warning in a manifest that was made from its object alone.
const MADE_AGAIN: &str =
    "this manifest was made again from the object; the details and warnings of its download are not known";

/// The manifest of the object at `key`, made from its bytes; `None` if they do not verify. `note_progress` is called for
/// each chunk.
pub(super) async fn describe_again(
    ctx: &Context,
    report: &Report,
    entry: &Entry,
    destination: &Destination,
    key: &str,
    note_progress: impl Fn(),
) -> Result<Option<Manifest>, StoreError> {
    let Some(mut bytes) = destination.read(key).await? else { return Ok(None) };
    let mut pass = Pass::start(archive_limits(&ctx.config.limits, report.source.kind()));
    let mut lines = (!report.source.kind().is_archive()).then(LineCount::default);
    while let Some(chunk) = bytes.next().await {
        let chunk = chunk?;
        note_progress();
        if lines.as_mut().is_some_and(|lines| lines.feed(&chunk).is_err()) || pass.feed(chunk).await.is_err() {
            return Ok(None);
        }
    }
    let Verdict::Verified(verified) = pass.finish().await else { return Ok(None) };
    let mut manifest = describe(report, entry, key, &verified);
    // The verifier has decoded the same bytes, so counting does not fail.
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
