//! A `[[reports]]` table: one series of partitions. The keys of its source are in `source.rs`.

use std::{collections::BTreeMap, fmt, sync::Arc};

use jiff::{SignedDuration, civil, tz::TimeZone};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{
    Mistakes, Problem,
    destination::DestinationSettings,
    document::{KeyPath, alternatives, did_you_mean},
    key::key_part,
    schedule::{self, Schedule},
    source::{
        ApiVersion, ArchiveSource, AttributionType, CampaignsQuery, CreatedDate, Listing, MetricType, Shape,
        SnapshotSource, Source, SourceKind, StatsQuery,
    },
    values::{self, DAY, Date, Duration, SECOND, YEAR, integer, name, words},
    workspace::{Workspace, base_url},
    zones::Zones,
};
use crate::table_words::{ColumnType, TableFormat};

/// With the longest name this still fits into the 255 bytes of file systems.
const LONGEST_SUFFIX: usize = 16;
/// The day on which clocks go forward.
const SHORTEST_DAY: SignedDuration = SignedDuration::from_hours(23);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct Raw {
    /// Name of the workspace it belongs to; not needed if there is only one.
    workspace: Option<String>,
    /// The API it is fetched from.
    source: SourceKind,
    /// Name in keys and commands, unique in the workspace; default: `name`.
    id: Option<String>,
    /// For `campaign_report` the name in MoEngage's dashboard, and required. Otherwise a label; default: the source.
    pub(super) name: Option<String>,
    /// Name of the destination of its objects; not needed if there is only one.
    destination: Option<String>,
    /// When MoEngage generates it, as chosen in the dashboard: `{ every = "day", at = "09:30" }`,
    /// `{ every = "week", on = "monday", at = "09:30" }` (or a list of days, `["monday", "thursday"]`),
    /// `{ every = "month", on = 1, at = "09:30" }` or `{ once = "2026-11-21", at = "09:30" }`.
    schedule: schedule::Raw,
    /// How long after its generation it is first requested.
    #[serde(default = "default_buffer")]
    buffer: Duration,
    /// First date that is fetched; default: seven days before moesync first sees the report (`campaign_report`), the
    /// day on which it does (other sources).
    start: Option<Date>,
    /// Its own time zone; default: the workspace's.
    timezone: Option<String>,
    /// Its own API address; default: the workspace's.
    base_url: Option<String>,
    /// What follows the date in the name of the file. Only `campaign_report`.
    #[schemars(extend("default" = SUFFIX))]
    suffix: Option<String>,
    /// How long after its generation an archive that never appeared is given up. Only `daily_dump`.
    #[schemars(extend("default" = GIVE_UP_AFTER))]
    give_up_after: Option<Duration>,
    /// How events are counted. Only `campaign_stats`, and required there.
    metric_type: Option<MetricType>,
    /// How conversions are attributed. Only `campaign_stats`, and required there.
    attribution_type: Option<AttributionType>,
    /// Only these campaigns (`campaign_stats`) or the executions of only these (`executions`); default: all.
    campaign_ids: Option<Vec<String>>,
    /// Days that the statistics cover, up to the day before the report's date. Only `campaign_stats`.
    #[schemars(range(min = 1, max = 31), extend("default" = WINDOW_DAYS))]
    window_days: Option<i64>,
    /// How many of the newest reports are fetched again each day, because counts grow for days; 0: none. Use 11 to cover the
    /// ten days in which conversions of e-mail, SMS, WhatsApp and flows arrive. Only `campaign_stats`.
    #[schemars(range(min = 0, max = 366), extend("default" = REFRESH_DAYS))]
    refresh_days: Option<i64>,
    /// How statistics are written: as received, or one line for each campaign, platform, locale and variation. Only
    /// `campaign_stats`.
    #[schemars(extend("default" = "raw"))]
    shape: Option<Shape>,
    /// Version of MoEngage's API that is requested. Only `campaigns` and `campaign_meta`.
    #[schemars(extend("default" = "v1"))]
    api: Option<ApiVersion>,
    /// Only campaigns of these channels, such as `EMAIL`. Only `campaigns` and `campaign_meta`.
    channels: Option<Vec<String>>,
    /// Only campaigns created by these e-mail addresses. Only `campaigns` and `campaign_meta`.
    created_by: Option<Vec<String>>,
    /// Only campaigns created between two dates. Only `campaigns` and `campaign_meta`.
    created_date: Option<CreatedDate>,
    /// Only campaigns of these delivery types, such as `ONE_TIME`. Only `campaigns` and `campaign_meta`.
    delivery_type: Option<Vec<String>>,
    /// Only campaigns with these statuses, such as `Active`. Only `campaigns` and `campaign_meta`.
    status: Option<Vec<String>>,
    /// Only campaigns with these tags. Only `campaigns` and `campaign_meta`.
    tags: Option<Vec<String>>,
    /// Whether child campaigns are listed too; default: MoEngage's. Only `campaigns` and `campaign_meta`.
    include_child_campaigns: Option<bool>,
    /// Whether archived campaigns are listed too; default: MoEngage's. Only `campaigns` and `campaign_meta`.
    #[serde(alias = "include_archived_campaigns")]
    include_archive_campaigns: Option<bool>,
    /// The format of the tables that are made of its objects; "none": no tables.
    #[serde(default)]
    tables: TablesWord,
    /// Types of columns in its tables, by the column's name, such as `{ campaign_id = "string" }`; default: as the values are.
    #[serde(default)]
    column_types: BTreeMap<String, ColumnType>,
}

/// Whether tables are made, and in which format.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
enum TablesWord {
    /// No tables.
    #[default]
    #[serde(rename = "none")]
    None,
    /// Parquet.
    #[serde(rename = "parquet")]
    Parquet,
    /// Gzipped CSV.
    #[serde(rename = "csv.gz")]
    CsvGz,
}

fn default_buffer() -> Duration {
    Duration::new("30m")
}

// Defaults of keys that one source alone has: for other sources the key is refused, so `Raw` keeps whether it is given.
const SUFFIX: &str = ".zip";
const GIVE_UP_AFTER: &str = "7d";
const WINDOW_DAYS: i64 = 1;
const REFRESH_DAYS: i64 = 3;
const SHAPE: Shape = Shape::Raw;
const API: ApiVersion = ApiVersion::V1;

/// A series of partitions: source, workspace, schedule and destination.
#[derive(Debug, Clone)]
pub struct Report {
    /// The account it belongs to.
    pub workspace: Arc<Workspace>,
    /// The API it is fetched from, with its settings.
    pub source: Source,
    /// Its workspace, and its name in keys and commands.
    pub id: ReportId,
    /// Its name in MoEngage's dashboard (`campaign_report`); otherwise a label.
    pub name: String,
    /// Where its objects are stored.
    pub destination: Arc<DestinationSettings>,
    /// When MoEngage generates it.
    pub schedule: Schedule,
    /// How long after generation it is first requested.
    pub buffer: SignedDuration,
    /// First date that is fetched.
    pub start: Option<civil::Date>,
    /// The report's own zone, or its workspace's.
    pub timezone: TimeZone,
    /// The report's own base URL, or its workspace's.
    pub base_url: Url,
    /// The format of its tables; `None`: no tables are made.
    pub tables: Option<TableFormat>,
    /// Types that columns have whatever their values are, by the column's name.
    pub column_types: BTreeMap<String, ColumnType>,
}

/// Identifies one report. Cheap to clone.
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

/// What reports refer to. Workspaces and destinations are `None` if one of them has a mistake.
pub(super) struct Known<'a> {
    pub(super) workspaces: Option<&'a [Arc<Workspace>]>,
    pub(super) destinations: Option<&'a [Arc<DestinationSettings>]>,
    pub(super) allow_http: bool,
    pub(super) zones: &'a Zones,
}

impl Raw {
    /// The report; `None` if it is valid as far as it can be checked without the workspaces or destinations.
    pub(super) fn check(&self, at: &KeyPath<'_>, known: &Known<'_>) -> Result<Option<Arc<Report>>, Mistakes> {
        let mut mistakes = Mistakes::default();
        let has_only_keys_of_its_source = mistakes.keep(self.check_keys_of_source(at)).is_some();
        let workspace = known.workspaces.and_then(|all| {
            mistakes.keep(named(all, self.workspace.as_deref(), |one| &one.name, &at.key("workspace")))
        });
        let destination = known.destinations.and_then(|all| {
            mistakes.keep(named(all, self.destination.as_deref(), |one| &one.name, &at.key("destination")))
        });
        let name = mistakes.keep(match &self.name {
            Some(given) => name(given, &at.key("name")),
            None if self.source == SourceKind::CampaignReport => {
                Err(at.key("name").problem("missing, but required: the report's name in MoEngage's dashboard"))
            }
            None => Ok(self.source.to_string()),
        });
        let id = match &self.id {
            Some(given) => mistakes.keep(values::name(given, &at.key("id"))),
            None => name.clone(),
        };
        let timezone = self.timezone.as_deref().map(|text| known.zones.check(text, &at.key("timezone"))).transpose();
        let timezone = mistakes.keep(timezone);
        let base_url = self.base_url.as_deref().map(|text| base_url(text, &at.key("base_url"), known.allow_http));
        let base_url = mistakes.keep(base_url.transpose());
        let schedule = mistakes.keep(self.schedule.check(&at.key("schedule")));
        let buffer = mistakes.keep(self.buffer.check(SignedDuration::ZERO..=DAY * 6, &at.key("buffer")));
        let is_daily = matches!(schedule, Some(Schedule::Daily { .. } | Schedule::Once { .. }));
        if self.source.is_live_listing() && is_daily && buffer.is_some_and(|buffer| buffer >= SHORTEST_DAY) {
            mistakes.add(
                at.key("buffer").problem(
                    "a live listing can only be read until the next one; a daily one needs less than 23 hours",
                ),
            );
        }
        // A key of another source may be a mistake in `source`; then the keys of that source are not checked.
        let source = if has_only_keys_of_its_source { mistakes.keep(self.check_source(at)) } else { None };
        let start = mistakes.keep(self.start.as_ref().map(|text| text.check(&at.key("start"))).transpose());
        let column_types = mistakes.keep(self.check_column_types(&at.key("column_types")));
        let report = || {
            let workspace = workspace?;
            Some(Arc::new(Report {
                source: source?,
                id: ReportId::new(&workspace.name, &id?),
                name: name?,
                destination: destination?.clone(),
                schedule: schedule?,
                buffer: buffer?,
                start: start?,
                timezone: timezone?.unwrap_or_else(|| workspace.timezone.clone()),
                base_url: base_url?.unwrap_or_else(|| workspace.base_url.clone()),
                workspace: workspace.clone(),
                tables: match self.tables {
                    TablesWord::None => None,
                    TablesWord::Parquet => Some(TableFormat::Parquet),
                    TablesWord::CsvGz => Some(TableFormat::CsvGz),
                },
                column_types: column_types?,
            }))
        };
        mistakes.finish(|| Some(report()))
    }

    /// Rejects keys that have no effect for the report's source.
    fn check_keys_of_source(&self, at: &KeyPath<'_>) -> Result<(), Problem> {
        use SourceKind::{CampaignMeta, CampaignReport, CampaignStats, Campaigns, DailyDump, Executions};
        let rules: [(&str, bool, &[SourceKind]); 17] = [
            ("suffix", self.suffix.is_some(), &[CampaignReport]),
            ("give_up_after", self.give_up_after.is_some(), &[DailyDump]),
            ("metric_type", self.metric_type.is_some(), &[CampaignStats]),
            ("attribution_type", self.attribution_type.is_some(), &[CampaignStats]),
            ("campaign_ids", self.campaign_ids.is_some(), &[CampaignStats, Executions]),
            ("window_days", self.window_days.is_some(), &[CampaignStats]),
            ("refresh_days", self.refresh_days.is_some(), &[CampaignStats]),
            ("shape", self.shape.is_some(), &[CampaignStats]),
            ("api", self.api.is_some(), &[Campaigns, CampaignMeta]),
            ("channels", self.channels.is_some(), &[Campaigns, CampaignMeta]),
            ("created_by", self.created_by.is_some(), &[Campaigns, CampaignMeta]),
            ("created_date", self.created_date.is_some(), &[Campaigns, CampaignMeta]),
            ("delivery_type", self.delivery_type.is_some(), &[Campaigns, CampaignMeta]),
            ("status", self.status.is_some(), &[Campaigns, CampaignMeta]),
            ("tags", self.tags.is_some(), &[Campaigns, CampaignMeta]),
            ("include_child_campaigns", self.include_child_campaigns.is_some(), &[Campaigns, CampaignMeta]),
            ("include_archive_campaigns", self.include_archive_campaigns.is_some(), &[Campaigns, CampaignMeta]),
        ];
        match rules.into_iter().find(|(_, given, sources)| *given && !sources.contains(&self.source)) {
            None => Ok(()),
            Some((key, _, sources)) => Err(at.key(key).problem(format_args!(
                "only for the source {}; this report's is {:?}",
                alternatives(sources.iter().map(|source| source.as_str())),
                self.source.as_str()
            ))),
        }
    }

    /// Checks that each name can be that of a column: another one would have no effect.
    fn check_column_types(&self, at: &KeyPath<'_>) -> Result<BTreeMap<String, ColumnType>, Mistakes> {
        let mut mistakes = Mistakes::default();
        for name in self.column_types.keys() {
            let is_name = name.starts_with(|first: char| first.is_ascii_lowercase())
                && name.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_'));
            if !is_name {
                mistakes.add(at.key(name.clone()).problem(
                    "not the name of a column; it is the heading in lower-case words, such as \"all_platform_sent\"",
                ));
            }
        }
        mistakes.finish(|| Some(self.column_types.clone()))
    }

    fn check_source(&self, at: &KeyPath<'_>) -> Result<Source, Mistakes> {
        let snapshot = match self.source {
            SourceKind::CampaignReport => {
                let suffix = self.suffix.clone().unwrap_or_else(|| SUFFIX.to_owned());
                if suffix.len() > LONGEST_SUFFIX || suffix.contains(|c: char| c.is_control()) {
                    let rule = format!("must have at most {LONGEST_SUFFIX} bytes and no control characters");
                    return Err(at.key("suffix").problem(rule).into());
                }
                return Ok(Source::Archive(ArchiveSource::CampaignReport { suffix }));
            }
            SourceKind::DailyDump => {
                let text = self.give_up_after.clone().unwrap_or_else(|| Duration::new(GIVE_UP_AFTER));
                let give_up_after = text.check(SECOND..=YEAR, &at.key("give_up_after"))?;
                return Ok(Source::Archive(ArchiveSource::DailyDump { give_up_after }));
            }
            SourceKind::CampaignStats => SnapshotSource::CampaignStats(self.check_stats(at)?),
            SourceKind::Campaigns => SnapshotSource::Campaigns(self.check_campaigns(Listing::Search, at)?),
            SourceKind::CampaignMeta => SnapshotSource::Campaigns(self.check_campaigns(Listing::Meta, at)?),
            SourceKind::Executions => {
                let campaign_ids = optional_words(self.campaign_ids.as_ref(), &at.key("campaign_ids"))?;
                SnapshotSource::Executions { campaign_ids }
            }
        };
        Ok(Source::Snapshot(snapshot))
    }

    fn check_stats(&self, at: &KeyPath<'_>) -> Result<StatsQuery, Mistakes> {
        let mut mistakes = Mistakes::default();
        let required = |key| at.key(key).problem("missing, but required for the source \"campaign_stats\"");
        let metric_type = mistakes.keep(self.metric_type.ok_or_else(|| required("metric_type")));
        let attribution_type = mistakes.keep(self.attribution_type.ok_or_else(|| required("attribution_type")));
        let campaign_ids = mistakes.keep(optional_words(self.campaign_ids.as_ref(), &at.key("campaign_ids")));
        let window_days = integer(self.window_days.unwrap_or(WINDOW_DAYS), 1..=31, &at.key("window_days"));
        let window_days = mistakes.keep(window_days);
        let refresh_days = integer(self.refresh_days.unwrap_or(REFRESH_DAYS), 0..=366, &at.key("refresh_days"));
        let refresh_days = mistakes.keep(refresh_days);
        mistakes.finish(|| {
            Some(StatsQuery {
                metric_type: metric_type?.as_str().to_owned(),
                attribution_type: attribution_type?.as_str().to_owned(),
                campaign_ids: campaign_ids?,
                window_days: window_days?,
                refresh_days: refresh_days?,
                shape: self.shape.unwrap_or(SHAPE),
            })
        })
    }

    fn check_campaigns(&self, listing: Listing, at: &KeyPath<'_>) -> Result<CampaignsQuery, Mistakes> {
        let mut mistakes = Mistakes::default();
        let mut list = |key, list: &Option<Vec<String>>| mistakes.keep(optional_words(list.as_ref(), &at.key(key)));
        let channels = list("channels", &self.channels);
        let created_by = list("created_by", &self.created_by);
        let delivery_type = list("delivery_type", &self.delivery_type);
        let status = list("status", &self.status);
        let tags = list("tags", &self.tags);
        let created_date = self.created_date.as_ref().map(|raw| raw.check(&at.key("created_date"))).transpose();
        let created_date = mistakes.keep(created_date);
        mistakes.finish(|| {
            Some(CampaignsQuery {
                listing,
                api: self.api.unwrap_or(API),
                channels: channels?,
                created_by: created_by?,
                created_date: created_date?,
                delivery_type: delivery_type?,
                status: status?,
                tags: tags?,
                include_child_campaigns: self.include_child_campaigns,
                include_archive_campaigns: self.include_archive_campaigns,
            })
        })
    }
}

fn optional_words(list: Option<&Vec<String>>, at: &KeyPath<'_>) -> Result<Vec<String>, Mistakes> {
    list.map_or(Ok(Vec::new()), |list| words(list, at))
}

/// The workspace or destination called `name`; without a name, the only one.
fn named<'t, T>(
    all: &'t [T],
    name: Option<&str>,
    name_of: impl Fn(&T) -> &String,
    at: &KeyPath<'_>,
) -> Result<&'t T, Problem> {
    let kind = at.last_key();
    let names = || all.iter().map(|one| name_of(one).as_str());
    match (name, all) {
        (_, []) => Err(at.problem(format_args!("no {kind} is configured; add a [[{kind}s]] table"))),
        (None, [only]) => Ok(only),
        (None, _) => {
            Err(at.problem(format_args!("missing, but required where there are several: {}", alternatives(names()))))
        }
        (Some(name), _) => all.iter().find(|one| name_of(one) == name).ok_or_else(|| {
            let nearest = match did_you_mean(name, names()) {
                none if none.is_empty() => format!("; there is {}", alternatives(names())),
                nearest => nearest,
            };
            at.problem(format_args!("no {kind} is called {name:?}{nearest}"))
        }),
    }
}

/// Checks that no two reports have one id or one folder. Case is ignored, as some file systems do.
pub(super) fn check_distinct(reports: &[Arc<Report>], at: &KeyPath<'_>) -> Result<(), Mistakes> {
    let mut mistakes = Mistakes::default();
    let mut ids = BTreeMap::new();
    let mut folders = BTreeMap::new();
    for (index, report) in reports.iter().enumerate() {
        let at = at.index(index);
        let (workspace, id) = (report.id.workspace(), report.id.name());
        if let Some(first) = ids.insert(&report.id, at.clone()) {
            mistakes.add(at.problem(format_args!(
                "the workspace {workspace:?} has a report with the id {id:?} already, at {}; give one of them another id",
                first.locus()
            )));
            continue;
        }
        let key = format!("{}/{}", key_part(workspace), key_part(id));
        if let Some((first, other)) =
            folders.insert((key.to_lowercase(), &report.destination.location), (at.clone(), report))
        {
            mistakes.add(at.problem(format_args!(
                "the objects of {workspace:?}, {id:?} would be stored in {key}, the folder of {:?}, {:?} at {}; give one \
                 of them another id",
                other.id.workspace(),
                other.id.name(),
                first.locus()
            )));
        }
    }
    mistakes.finish(|| Some(()))
}
