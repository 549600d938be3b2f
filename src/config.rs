//! The configuration: raw TOML and environment in, one validated [`Config`] out, once.
//!
//! This file owns the words of the configuration and the rules that make one valid. It must not know what is done
//! with them: no schedule arithmetic, no network, no database. Secrets stay unresolved here until asked for, so that
//! commands that never speak to the vendor work in a shell that cannot read the keys.

mod address;
mod check;
mod key;
mod load;
mod mistakes;
mod oddities;
mod place;
mod raw;
mod secret;
mod target;
mod zones;

pub use self::{
    address::{is_loopback, is_loopback_host, is_permitted},
    key::key_part,
    load::{load, locate},
    mistakes::Mistakes,
    place::Problem,
    raw::schema,
    target::{Channel, Events, Target},
};

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use jiff::{SignedDuration, civil, tz::TimeZone};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use url::Url;

/// A configuration in which every name resolves, every value is in range and no two reports share a key.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where partitions and attempts are recorded.
    pub ledger: Ledger,
    /// How long attempts are kept; partitions and figures are kept for good.
    pub keep_attempts: SignedDuration,
    /// The status page.
    pub web: Web,
    /// What bounds the work.
    pub limits: Limits,
    /// How to reach the vendor.
    pub network: Network,
    /// When to raise alarms.
    pub alarms: Alarms,
    /// The MoEngage accounts, in the file's order.
    pub workspaces: Vec<Arc<Workspace>>,
    /// The places where objects go, in the file's order.
    pub destinations: Vec<Arc<Destination>>,
    /// The series to keep, in the file's order.
    pub reports: Vec<Arc<Report>>,
    /// Whom to tell what, in the file's order.
    pub notify: Vec<Target>,
    /// Version and place of the time zone database that gave the zones.
    pub tzdata: String,
    /// What is valid and most likely not meant, in the configuration and the environment.
    pub warnings: Vec<Problem>,
}

/// Which database holds the ledger.
#[derive(Clone, PartialEq, Eq)]
pub enum Ledger {
    /// A SQLite file, given as `sqlite://PATH`.
    Sqlite(PathBuf),
    /// A PostgreSQL database, given as `postgres://…`. The URL may hold a password.
    Postgres(String),
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ledger::Sqlite(path) => f.debug_tuple("Sqlite").field(path).finish(),
            // The password stands in the URL or in its query.
            Ledger::Postgres(_) => f.debug_tuple("Postgres").finish_non_exhaustive(),
        }
    }
}

/// A file that the configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// The file.
    pub path: PathBuf,
    /// Its key and line in the configuration, for error messages.
    pub place: String,
}

impl NamedFile {
    /// Says of what the configuration names that something is wrong with it.
    pub fn problem(&self, what: impl fmt::Display) -> Problem {
        Problem::new(format!("{}: {what}", self.place))
    }

    /// That it is not there, as far as can be seen from here.
    pub fn missing(&self) -> Option<Problem> {
        let is_missing = matches!(self.path.try_exists(), Ok(false));
        is_missing.then(|| self.problem(format_args!("there is no file {}", self.path.display())))
    }
}

/// The `[web]` table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Web {
    /// Address of the status page; `None` when switched off with `""`.
    pub listen: Option<std::net::SocketAddr>,
    /// File with the token that a caller must present; always there where `listen` is not a loopback address.
    pub token_file: Option<NamedFile>,
    /// What may be had without the token.
    pub open: Vec<Open>,
    /// Host names that requests may be for, in lower case; `localhost` and addresses aside.
    pub hosts: Vec<String>,
}

impl Web {
    /// The token as it is now, if callers must present one.
    ///
    /// # Errors
    /// As of [`SecretSource::resolve`], and when it is short enough to be guessed.
    pub fn token(&self) -> Result<Option<SecretString>, Problem> {
        let of = |file: &NamedFile| secret::token(&file.path).map_err(|problem| file.problem(problem));
        self.token_file.as_ref().map(of).transpose()
    }
}

/// A part of the web server that can be open without the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", expecting = "\"health\" or \"metrics\"")]
pub enum Open {
    /// `/livez` and `/readyz`.
    Health,
    /// `/metrics`.
    Metrics,
}

/// The `[limits]` table.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Downloads at once, over all workspaces; at least 1.
    pub concurrency: usize,
    /// Downloads at once from one workspace; at least 1.
    pub concurrency_per_workspace: usize,
    /// Attempts at once at one destination, those that it lets wait included; at least 1.
    pub concurrency_per_destination: usize,
    /// Largest archive accepted, in bytes as received.
    pub archive_bytes: u64,
    /// Most bytes inflated from one archive.
    pub inflated_bytes: u64,
    /// Most inflated bytes for each byte of archive.
    pub inflate_ratio: u64,
    /// Longest time for one attempt, from claim to record. Of a snapshot, from one page to the next, without the time spent
    /// waiting for a turn under MoEngage's rates.
    pub attempt_timeout: Duration,
    /// Longest time for TCP and TLS to connect.
    pub connect_timeout: Duration,
    /// Slowest acceptable download, in bytes a second spent waiting for the vendor.
    pub min_rate: u64,
}

/// The `[network]` table.
#[derive(Clone)]
pub struct Network {
    /// HTTP proxy for requests to the vendor. May hold credentials.
    pub proxy: Option<Url>,
    /// PEM file with extra certificate authorities.
    pub ca_file: Option<NamedFile>,
    /// Whether `http://` base URLs are allowed for hosts other than loopback.
    pub allow_http: bool,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            // Not the whole URL: it may hold credentials.
            .field("proxy_host", &self.proxy.as_ref().and_then(Url::host_str))
            .field("ca_file", &self.ca_file.as_ref().map(|file| &file.path))
            .field("allow_http", &self.allow_http)
            .finish()
    }
}

/// The `[alarms]` table.
#[derive(Debug, Clone)]
pub struct Alarms {
    /// How long after due a partition may be unpublished before it is an alarm.
    pub late_after: SignedDuration,
    /// Times left to expiry at which an unstored partition raises an alarm again, longest first.
    pub expiry: Vec<SignedDuration>,
}

/// One MoEngage account.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// Name in the configuration, in keys and in every message.
    pub name: String,
    /// MoEngage's workspace id, also called APP ID, API ID and MOE-APPKEY.
    pub app_id: String,
    /// Scheme, host and optional path prefix of the vendor's API.
    pub base_url: Url,
    /// The zone in which schedules are meant and files are dated.
    pub timezone: TimeZone,
    /// Key that signs archive requests.
    pub secret_key: SecretSource,
    /// Basic password of the JSON APIs; the secret key where not given.
    pub api_key: SecretSource,
}

/// Where a secret is to be found. Resolved by [`SecretSource::resolve`] only when the vendor is spoken to.
#[derive(Debug, Clone)]
pub enum SecretSource {
    /// The file's text, less a byte order mark and trailing line ends.
    File {
        /// The file.
        file: NamedFile,
        /// Whether a file that everybody may read is accepted.
        allow_world_readable: bool,
    },
    /// A file whose path names an environment variable that is not set here.
    Unset(Problem),
    /// An environment variable's value.
    Env {
        /// The variable.
        name: String,
        /// Its key and line in the configuration, for error messages.
        place: String,
    },
    /// Written in the configuration itself.
    Value(SecretString),
}

/// A place where objects go.
#[derive(Debug, Clone)]
pub struct Destination {
    /// Name by which reports refer to it.
    pub name: String,
    /// A `file://`, `s3://`, `gs://` or `az://` URL.
    pub url: Url,
    /// object_store's own option names and values; may hold credentials.
    pub options: BTreeMap<String, SecretString>,
    /// Whether files are forced to disk before they count as stored (`file://` only).
    pub fsync: bool,
    /// PEM file with extra certificate authorities, as of [`Network::ca_file`].
    pub ca_file: Option<NamedFile>,
    /// Its key and line in the configuration, for error messages.
    pub place: String,
}

impl Destination {
    /// Whether it is a directory of this machine.
    pub fn is_directory(&self) -> bool {
        self.url.scheme() == "file"
    }

    /// Whether `other` is the same directory under the same name, wherever it is written.
    pub fn is_same_directory(&self, other: &Self) -> bool {
        self.is_directory() && (&self.name, &self.url, self.fsync) == (&other.name, &other.url, other.fsync)
    }
}

/// One of MoEngage's six APIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
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

    /// Whether MoEngage serves a finished archive, rather than JSON pages.
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

/// What a report is fetched from, with the settings that this source alone has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A finished archive.
    Archive(ArchiveSource),
    /// Pages of JSON, gathered into one object.
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

/// A source of snapshots, with what it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotSource {
    /// `campaign_stats`.
    CampaignStats(StatsQuery),
    /// `campaigns` or `campaign_meta`, by the query's listing.
    Campaigns(CampaignsQuery),
    /// `executions`.
    Executions {
        /// Only those of these parent campaigns; of all recurring campaigns of a fresh listing when empty.
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

/// Names one report everywhere. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReportId(Arc<(Box<str>, Box<str>)>);

impl ReportId {
    /// The report `name` of `workspace`.
    pub fn new(workspace: &str, name: &str) -> Self {
        ReportId(Arc::new((workspace.into(), name.into())))
    }

    /// Name of the workspace.
    pub fn workspace(&self) -> &str {
        &self.0.0
    }

    /// The report's `id` in the configuration, unique in the workspace.
    pub fn name(&self) -> &str {
        &self.0.1
    }
}

impl fmt::Display for ReportId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.workspace(), self.name())
    }
}

impl fmt::Debug for ReportId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReportId({self})")
    }
}

/// A configured series: source, workspace, schedule and destination.
#[derive(Debug, Clone)]
pub struct Report {
    /// The account it belongs to.
    pub workspace: Arc<Workspace>,
    /// What it is fetched from.
    pub source: Source,
    /// Its workspace, and its name in keys and commands.
    pub id: ReportId,
    /// Its name in MoEngage's dashboard (`campaign_report`); elsewhere a label.
    pub name: String,
    /// Where its objects go.
    pub destination: Arc<Destination>,
    /// When MoEngage generates it.
    pub schedule: Schedule,
    /// How long after generation it is first asked for.
    pub buffer: SignedDuration,
    /// First date that is wanted.
    pub start: Option<civil::Date>,
    /// The report's own zone, or its workspace's.
    pub timezone: TimeZone,
    /// The report's own base URL, or its workspace's.
    pub base_url: Url,
}

/// When MoEngage generates a report, in civil time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// Every day at a time.
    Daily {
        /// Local time of generation.
        at: civil::Time,
    },
    /// Some days of each week.
    Weekly {
        /// The days, each once and at least one, from Monday on.
        on: Vec<civil::Weekday>,
        /// Local time of generation.
        at: civil::Time,
    },
    /// One day a month.
    Monthly {
        /// Day of the month.
        on: MonthDay,
        /// Local time of generation.
        at: civil::Time,
    },
    /// A single time.
    Once {
        /// The day.
        date: civil::Date,
        /// Local time of generation; `None` is the dashboard's "as soon as possible".
        at: Option<civil::Time>,
    },
}

/// A day of the month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MonthDay {
    /// 1 to 31; months without that day are skipped.
    Day(i8),
    /// The last day, whichever that is.
    Last,
}

/// Settings of a `campaign_stats` report, in the API's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatsQuery {
    /// `TOTAL` or `UNIQUE`.
    pub metric_type: String,
    /// One of the API's five attribution types.
    pub attribution_type: String,
    /// Only these campaigns; all when empty.
    pub campaign_ids: Vec<String>,
    /// Days covered, ending on the day before the partition's date; 1 to 31.
    pub window_days: i16,
    /// How many of the newest partitions are fetched again each day.
    pub refresh_days: u16,
    /// How the answer is written.
    pub shape: Shape,
}

/// How statistics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
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
    /// `campaigns`: Push, Email and SMS, with all that MoEngage says of a campaign.
    #[default]
    Search,
    /// `campaign_meta`: every channel, with name, team, tags, status and number of children.
    Meta,
}

/// Which version of an API is asked. They differ in paths, names of filters, and the form of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", expecting = "\"v1\" or \"v5\"")]
pub enum ApiVersion {
    /// What MoEngage calls legacy. No end is announced.
    #[default]
    V1,
    /// The present one.
    V5,
}

/// Settings of a `campaigns` or `campaign_meta` report, in the API's words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CampaignsQuery {
    /// Which listing.
    pub listing: Listing,
    /// Of which version.
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
