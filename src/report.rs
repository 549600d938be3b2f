//! Partitions, MoEngage's file names, and the keys of all objects.
//!
//! This file owns all naming, except the rule for one part of a key, which the configuration needs too
//! (`config/key.rs`). It must not know where objects are; a key is the same at every destination.

use std::fmt;

use jiff::{SignedDuration, Timestamp, ToSpan, civil::Date};

use crate::{
    config::{ArchiveSource, Report, Schedule, Source, SourceKind, StatsQuery, key_part},
    schedule::{self, Occurrence},
};

pub use crate::config::ReportId;

/// How long MoEngage keeps a generated campaign report (Campaign Report API: "Generated report expires within seven
/// days of generation").
pub const RETENTION: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Identifies one partition. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId {
    /// The report it belongs to.
    pub report: ReportId,
    /// Civil date of generation in the report's zone.
    pub date: Date,
}

impl PartitionId {
    /// Name of the workspace.
    pub fn workspace(&self) -> &str {
        self.report.workspace()
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.report, self.date)
    }
}

/// One dated instance of a report. Its instants do not change after it was first planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Workspace, report and date.
    pub id: PartitionId,
    /// The API that serves it.
    pub source: SourceKind,
    /// The scheduled instant at which MoEngage generates it.
    pub generated_at: Timestamp,
    /// From then on it is fetched.
    pub due_at: Timestamp,
    /// From then on MoEngage may have deleted it; `None` if it never does.
    pub expires_at: Option<Timestamp>,
}

impl Partition {
    /// When a denial by MoEngage is final: at the expiry; for a `daily_dump`, `give_up_after` its generation.
    pub fn end(&self, give_up_after: SignedDuration) -> Option<Timestamp> {
        match self.source {
            SourceKind::DailyDump => self.generated_at.checked_add(give_up_after).ok(),
            _ => self.expires_at,
        }
    }
}

impl Report {
    /// How long after its generation an unpublished partition is requested.
    pub fn give_up_after(&self) -> SignedDuration {
        match self.source {
            Source::Archive(ArchiveSource::DailyDump { give_up_after }) => give_up_after,
            Source::Archive(ArchiveSource::CampaignReport { .. }) | Source::Snapshot(_) => RETENTION,
        }
    }

    /// The partition of one scheduled generation, with its instants.
    pub fn partition(&self, occurrence: Occurrence) -> Partition {
        let Occurrence { date, generated_at } = occurrence;
        let source = self.source.kind();
        let expires_at = match source {
            SourceKind::CampaignReport => self.retention_end(generated_at),
            // A live listing shows the present: from the next generation on, this one cannot be fetched.
            SourceKind::Campaigns | SourceKind::CampaignMeta | SourceKind::Executions => {
                match schedule::next(self, generated_at) {
                    Some(next) => Some(next.generated_at),
                    // A listing that is scheduled once: one day, so that it is not stored under a date long past.
                    None => generated_at.checked_add(SignedDuration::from_hours(24)).ok(),
                }
            }
            SourceKind::DailyDump | SourceKind::CampaignStats => None,
        };
        Partition {
            id: PartitionId { report: self.id.clone(), date },
            source,
            generated_at,
            due_at: generated_at.checked_add(self.buffer).unwrap_or(Timestamp::MAX),
            expires_at,
        }
    }

    /// MoEngage's file name for the partition of `date`.
    ///
    /// `campaign_report`: the dashboard's name with every space replaced by `_`, `_`, the date, the suffix (Campaign
    /// Report API). `daily_dump`: the date and `.zip` (Daily Campaign Report API). JSON sources have no file at
    /// MoEngage; this is the name of the stored one.
    pub fn file_name(&self, date: Date) -> String {
        let day = date.strftime("%Y%m%d");
        let suffix = self.suffix();
        match self.source {
            Source::Archive(ArchiveSource::CampaignReport { .. }) => {
                format!("{}_{day}{suffix}", self.name.replace(' ', "_"))
            }
            Source::Archive(ArchiveSource::DailyDump { .. }) => format!("{day}{suffix}"),
            Source::Snapshot(_) => format!("{}_{day}{suffix}", key_part(self.id.name())),
        }
    }

    /// What follows the date in the file name.
    pub fn suffix(&self) -> &str {
        match &self.source {
            Source::Archive(ArchiveSource::CampaignReport { suffix }) => suffix,
            Source::Archive(ArchiveSource::DailyDump { .. }) => ".zip",
            Source::Snapshot(_) => ".ndjson.gz",
        }
    }

    /// The names of all objects of the partition of `date`.
    pub fn keys(&self, date: Date) -> Keys {
        let file = key_part(&self.file_name(date));
        // `key_part` keeps the number of characters.
        let stem_chars = file.chars().count() - self.suffix().chars().count();
        let split = file.char_indices().nth(stem_chars).map_or(file.len(), |(at, _)| at);
        let (stem, suffix) = file.split_at(split);
        Keys {
            prefix: self.key_prefix(),
            date: format!("date={date}"),
            stem: stem.to_owned(),
            suffix: suffix.to_owned(),
        }
    }

    /// The server of the report, as a URL without a path. Clocks are compared for each server alone.
    pub fn server(&self) -> String {
        self.base_url.origin().ascii_serialization()
    }

    /// The folder of all objects of this report: `{workspace}/{report}`.
    pub fn key_prefix(&self) -> String {
        format!("{}/{}", key_part(self.id.workspace()), key_part(self.id.name()))
    }

    fn retention_end(&self, generated_at: Timestamp) -> Option<Timestamp> {
        // "As soon as possible" is some time of the day: count from its end.
        let generated_by = match self.schedule {
            Schedule::Once { date, at: None } => {
                date.tomorrow().ok()?.to_zoned(self.timezone.clone()).ok()?.timestamp()
            }
            _ => generated_at,
        };
        generated_by.checked_add(RETENTION).ok()
    }
}

impl StatsQuery {
    /// First and last day that the statistics of the partition of `date` cover. The last is the day before `date`, the
    /// last complete one.
    pub fn window(&self, date: Date) -> (Date, Date) {
        let from = date.checked_sub(i64::from(self.window_days).days()).unwrap_or(Date::MIN);
        (from, date.yesterday().unwrap_or(Date::MIN))
    }
}

/// The folder of all derived objects. No workspace has this name.
const DERIVED: &str = "tables/";

/// The file in a table's folder with its schema.
pub const SCHEMA: &str = "_schema.json";

/// Whether `key` is that of a derived object, which may be replaced and removed.
pub fn is_derived(key: &str) -> bool {
    key.strip_prefix(DERIVED).is_some_and(|rest| !rest.is_empty())
}

impl Report {
    /// The folder of all tables of this report: `tables/{workspace}/{report}`.
    pub fn tables_prefix(&self) -> String {
        format!("{DERIVED}{}", self.key_prefix())
    }

    /// Key of the schema of a table.
    pub fn schema_key(&self, table: &str) -> String {
        format!("{}/{table}/{SCHEMA}", self.tables_prefix())
    }

    /// The folder of a table's objects of `date`, without a final slash.
    pub fn table_folder(&self, table: &str, date: Date) -> String {
        format!("{}/{table}/date={date}", self.tables_prefix())
    }
}

/// Whether the object at `key` is a version: other content has its partition's own key.
pub fn is_version(key: &str) -> bool {
    key.contains("/_versions/")
}

/// The keys of a partition's objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
    date: String,
    stem: String,
    suffix: String,
}

impl Keys {
    /// Key of the partition's object.
    pub fn object(&self) -> String {
        format!("{}/{}/{}{}", self.prefix, self.date, self.stem, self.suffix)
    }

    /// Key of other content for the same partition.
    pub fn version(&self, sha256: &str) -> String {
        format!("{}{}.{}{}", self.versions(), self.stem, short(sha256), self.suffix)
    }

    /// The folder of [`Keys::version`], with its final slash.
    pub fn versions(&self) -> String {
        format!("{}/_versions/{}/", self.prefix, self.date)
    }

    /// Key of a page of a JSON API that cannot be read.
    pub fn quarantined_page(&self, sha256: &str) -> String {
        format!("_quarantine/{}/{}/{}.{}.json", self.prefix, self.date, self.stem, short(sha256))
    }

    /// Key of bytes that cannot be verified.
    pub fn quarantine(&self, sha256: &str) -> String {
        format!("_quarantine/{}/{}/{}.{}{}", self.prefix, self.date, self.stem, short(sha256), self.suffix)
    }
}

/// The key of the manifest beside the object at `key`.
pub fn manifest_key(key: &str) -> String {
    let (folder, file) = key.rsplit_once('/').unwrap_or(("", key));
    format!("{folder}/_{file}.manifest.json")
}

/// The key of the object that the manifest at `key` describes; `None` if `key` is not that of a manifest.
pub fn manifest_subject(key: &str) -> Option<String> {
    let (folder, file) = key.rsplit_once('/')?;
    let file = file.strip_prefix('_')?.strip_suffix(".manifest.json")?;
    Some(format!("{folder}/{file}"))
}

fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_manifest_and_that_of_its_object_follow_from_each_other() {
        let key = "acme/daily/date=2026-11-21/Report_test_20261121.zip";
        let manifest = "acme/daily/date=2026-11-21/_Report_test_20261121.zip.manifest.json";
        assert_eq!(manifest_key(key), manifest);
        assert_eq!(manifest_subject(manifest).as_deref(), Some(key));
        assert_eq!(manifest_subject(key), None);
    }
}
