//! Where a partition is requested: its URL without secrets, and a signed line for curl.

use jiff::civil;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::{campaign_report, campaign_stats, campaigns, daily_dump, endpoint};
use crate::{
    config::{ArchiveSource, Report, SnapshotSource, Source, SourceKind},
    shell_word::quoted,
    signature,
};

/// The URL at which the partition of `date` is requested, without signature; for several URLs, their common beginning.
pub fn source_url(report: &Report, date: civil::Date) -> Url {
    match &report.source {
        Source::Archive(archive) => archive_url(report, archive, date),
        Source::Snapshot(SnapshotSource::CampaignStats(_)) => campaign_stats::url(&report.base_url),
        Source::Snapshot(SnapshotSource::Campaigns(query)) => campaigns::url(&report.base_url, query),
        Source::Snapshot(SnapshotSource::Executions { .. }) => {
            endpoint::below(&report.base_url, &["core-services", "v1", "campaigns"])
        }
    }
}

pub(super) fn archive_url(report: &Report, archive: &ArchiveSource, date: civil::Date) -> Url {
    let (app_id, file_name) = (&report.workspace.app_id, &report.file_name(date));
    match archive {
        ArchiveSource::CampaignReport { .. } => campaign_report::url(&report.base_url, app_id, file_name),
        ArchiveSource::DailyDump { .. } => daily_dump::url(&report.base_url, app_id, file_name),
    }
}

/// A line for a POSIX shell that downloads one archive; `None` for sources that serve none. It contains the
/// signature, so it is a secret until the file expires.
pub fn curl_line(
    source: SourceKind,
    base_url: &Url,
    app_id: &str,
    file_name: &str,
    secret: &SecretString,
) -> Option<SecretString> {
    let signature = signature::sign(app_id, file_name, secret);
    let arguments = match source {
        SourceKind::CampaignReport => {
            let header = format!("Signature: {}", signature.expose_secret());
            let url = campaign_report::url(base_url, app_id, file_name);
            format!("--header {} {}", quoted(&header), quoted(url.as_str()))
        }
        SourceKind::DailyDump => {
            quoted(daily_dump::signed(daily_dump::url(base_url, app_id, file_name), &signature).as_str())
        }
        SourceKind::CampaignStats | SourceKind::Campaigns | SourceKind::CampaignMeta | SourceKind::Executions => {
            return None;
        }
    };
    Some(format!("curl --fail --remote-name {arguments}").into())
}
