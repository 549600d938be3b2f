//! MoEngage's six APIs, and the settings that a report has for each.

use std::fmt;

use jiff::{SignedDuration, civil};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Problem, document::KeyPath, values::Date};

/// One of MoEngage's six APIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", expecting = "a source such as \"campaign_report\"")]
#[schemars(rename = "Source")]
pub enum SourceKind {
    /// Named report archives, signed in a header, deleted seven days after generation.
    CampaignReport,
    /// The deprecated account-wide daily archive, signed in the query, never deleted.
    DailyDump,
    /// Campaign statistics of a window of days.
    CampaignStats,
    /// The live listing of campaigns.
    Campaigns,
    /// The live listing of campaigns of every channel, with little about each.
    CampaignMeta,
    /// The live listing of executions of recurring campaigns.
    Executions,
}

impl SourceKind {
    /// Every source.
    pub const ALL: [SourceKind; 6] = [
        SourceKind::CampaignReport,
        SourceKind::DailyDump,
        SourceKind::CampaignStats,
        SourceKind::Campaigns,
        SourceKind::CampaignMeta,
        SourceKind::Executions,
    ];

    /// The word used in the configuration, the ledger and manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            SourceKind::CampaignReport => "campaign_report",
            SourceKind::DailyDump => "daily_dump",
            SourceKind::CampaignStats => "campaign_stats",
            SourceKind::Campaigns => "campaigns",
            SourceKind::CampaignMeta => "campaign_meta",
            SourceKind::Executions => "executions",
        }
    }

    /// The source that `word` names.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.as_str() == word)
    }

    /// Whether it is an archive, not pages of JSON.
    pub fn is_archive(self) -> bool {
        matches!(self, SourceKind::CampaignReport | SourceKind::DailyDump)
    }

    /// Whether MoEngage serves only the present state, so that a missed date cannot be fetched later.
    pub fn is_live_listing(self) -> bool {
        matches!(self, SourceKind::Campaigns | SourceKind::CampaignMeta | SourceKind::Executions)
    }
}

impl fmt::Display for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The source of a report, with the settings of that source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A finished archive.
    Archive(ArchiveSource),
    /// Pages of JSON, collected into one object.
    Snapshot(SnapshotSource),
}

/// A source of archives, with its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArchiveSource {
    /// `campaign_report`.
    CampaignReport {
        /// What follows the date in the file name, normally `.zip`.
        suffix: String,
    },
    /// `daily_dump`.
    DailyDump {
        /// How long after its generation an unpublished archive is given up.
        give_up_after: SignedDuration,
    },
}

/// A source of snapshots, with its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotSource {
    /// `campaign_stats`.
    CampaignStats(StatsQuery),
    /// `campaigns` or `campaign_meta`, by the query's listing.
    Campaigns(CampaignsQuery),
    /// `executions`.
    Executions {
        /// Parent campaigns whose executions are fetched; empty: all recurring campaigns.
        campaign_ids: Vec<String>,
    },
}

impl Source {
    /// The word for it.
    pub fn kind(&self) -> SourceKind {
        match self {
            Source::Archive(ArchiveSource::CampaignReport { .. }) => SourceKind::CampaignReport,
            Source::Archive(ArchiveSource::DailyDump { .. }) => SourceKind::DailyDump,
            Source::Snapshot(SnapshotSource::CampaignStats(_)) => SourceKind::CampaignStats,
            Source::Snapshot(SnapshotSource::Campaigns(query)) => match query.listing {
                Listing::Search => SourceKind::Campaigns,
                Listing::Meta => SourceKind::CampaignMeta,
            },
            Source::Snapshot(SnapshotSource::Executions { .. }) => SourceKind::Executions,
        }
    }
}

/// Settings of a `campaign_stats` report, in the API's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatsQuery {
    /// `TOTAL` or `UNIQUE`.
    pub metric_type: String,
    /// One of the API's five attribution types.
    pub attribution_type: String,
    /// Only these campaigns; empty: all.
    pub campaign_ids: Vec<String>,
    /// Days covered, ending on the day before the partition's date; 1 to 31.
    pub window_days: i16,
    /// How many of the newest partitions are fetched again each day.
    pub refresh_days: u16,
    /// How the statistics are written.
    pub shape: Shape,
}

/// How statistics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", expecting = "\"raw\" or \"rows\"")]
pub enum Shape {
    /// As received, one campaign a line.
    Raw,
    /// One line for each campaign, platform, locale and variation.
    Rows,
}

/// Which listing of campaigns is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Listing {
    /// `campaigns`: Push, Email and SMS, with all settings of a campaign.
    #[default]
    Search,
    /// `campaign_meta`: every channel, with name, team, tags, status and number of children.
    Meta,
}

/// A version of MoEngage's API. The versions differ in paths, names of filters and responses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", expecting = "\"v1\" or \"v5\"")]
pub enum ApiVersion {
    /// Called legacy by MoEngage, which has announced no end of it.
    #[default]
    V1,
    /// The current version.
    V5,
}

/// Settings of a `campaigns` or `campaign_meta` report, in the API's words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CampaignsQuery {
    /// The listing that is read.
    pub listing: Listing,
    /// The version that is requested.
    pub api: ApiVersion,
    /// Channels, such as `EMAIL`.
    pub channels: Vec<String>,
    /// E-mail addresses of creators.
    pub created_by: Vec<String>,
    /// First and last date of creation.
    pub created_date: Option<(civil::Date, civil::Date)>,
    /// Delivery types, such as `ONE_TIME`.
    pub delivery_type: Vec<String>,
    /// Statuses, such as `Active`.
    pub status: Vec<String>,
    /// Tags.
    pub tags: Vec<String>,
    /// Whether child campaigns are listed too.
    pub include_child_campaigns: Option<bool>,
    /// Whether archived campaigns are listed too.
    pub include_archive_campaigns: Option<bool>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "dates such as { from_date = \"2026-01-01\", to_date = \"2026-12-31\" }")]
pub(super) struct CreatedDate {
    /// The first date.
    from_date: Date,
    /// The last date.
    to_date: Date,
}

impl CreatedDate {
    pub(super) fn check(&self, at: &KeyPath<'_>) -> Result<(civil::Date, civil::Date), Problem> {
        // MoEngage's API writes these dates as day-month-year.
        let formats = ["%Y-%m-%d", "%d-%m-%Y"];
        let from = self.from_date.check_as(&formats, &at.key("from_date"))?;
        let to = self.to_date.check_as(&formats, &at.key("to_date"))?;
        match from <= to {
            true => Ok((from, to)),
            false => Err(at.key("to_date").problem(format_args!("{to} is before from_date, {from}"))),
        }
    }
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", expecting = "\"TOTAL\" or \"UNIQUE\"")]
pub(super) enum MetricType {
    Total,
    Unique,
}

impl MetricType {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            MetricType::Total => "TOTAL",
            MetricType::Unique => "UNIQUE",
        }
    }
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", expecting = "an attribution type such as \"CLICK_THROUGH\"")]
pub(super) enum AttributionType {
    ViewThrough,
    ClickThrough,
    InSession,
    TotalConversions,
    ClickConversions,
}

impl AttributionType {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            AttributionType::ViewThrough => "VIEW_THROUGH",
            AttributionType::ClickThrough => "CLICK_THROUGH",
            AttributionType::InSession => "IN_SESSION",
            AttributionType::TotalConversions => "TOTAL_CONVERSIONS",
            AttributionType::ClickConversions => "CLICK_CONVERSIONS",
        }
    }
}
