//! The configuration as it is written: which keys there are, of what type, with which default, and what each means.
//!
//! This file owns the keys; its doc comments become the JSON Schema and, through it, the configuration reference. It
//! must not know what makes a value valid.

use std::{collections::BTreeMap, fmt};

use schemars::{JsonSchema, generate::SchemaSettings, transform::RecursiveTransform};
use secrecy::SecretString;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, SeqAccess, Visitor},
};

use super::{ApiVersion, Open, Shape, SourceKind};
use crate::alarm_kind::AlarmKind;

/// What every environment variable that overrides a setting begins with.
pub(super) const ENV_PREFIX: &str = "MOESYNC__";

/// MoEngage's data centres (https://api-{dc}.moengage.com).
pub(super) const DATA_CENTERS: [&str; 7] = ["01", "02", "03", "04", "05", "06", "101"];

pub(super) const SUFFIX: &str = ".zip";
pub(super) const GIVE_UP_AFTER: &str = "7d";
pub(super) const WINDOW_DAYS: i64 = 1;
pub(super) const REFRESH_DAYS: i64 = 3;
pub(super) const PING_EVERY: &str = "5m";

/// JSON Schema (2020-12) of the configuration file, with every key's meaning and default.
pub fn schema() -> serde_json::Value {
    SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .with_transform(RecursiveTransform(without_null))
        .into_generator()
        .into_root_schema_for::<Config>()
        .to_value()
}

/// TOML has no null: a key that need not be there is left out.
fn without_null(schema: &mut schemars::Schema) {
    let is_null = |value: &serde_json::Value| value == "null" || value.get("type").is_some_and(|t| t == "null");
    if schema.get("default").is_some_and(serde_json::Value::is_null) {
        schema.remove("default");
    }
    if let Some(serde_json::Value::Array(values)) = schema.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    for key in ["type", "anyOf"] {
        let Some(serde_json::Value::Array(kinds)) = schema.get_mut(key) else { continue };
        kinds.retain(|kind| !is_null(kind));
        let [only] = kinds.as_slice() else { continue };
        let only = only.clone();
        match only {
            serde_json::Value::Object(inner) => {
                schema.remove(key);
                for (name, value) in inner {
                    // What is said of the key itself comes before what is said of its type.
                    if schema.get(&name).is_none() {
                        schema.insert(name, value);
                    }
                }
            }
            kind => {
                schema.insert(key.to_owned(), kind);
            }
        }
    }
}

/// The names of the environment variables that override a key of a table.
pub(super) fn overridable() -> Vec<String> {
    let schema = schema();
    let properties = |schema: &serde_json::Value| schema.get("properties").and_then(|p| p.as_object().cloned());
    let mut names = Vec::new();
    for (table, schema) in properties(&schema).unwrap_or_default() {
        for (key, _) in properties(&schema).unwrap_or_default() {
            names.push(format!("{}{table}__{key}", ENV_PREFIX).to_uppercase());
        }
    }
    names
}

/// The configuration of moesync: one TOML file. Any key of the tables `ledger`, `web`, `limits`, `network` and `alarms`
/// can be overridden by an environment variable named `MOESYNC__TABLE__KEY`, for example `MOESYNC__LEDGER__URL`; there,
/// items of a list are separated by commas.
///
/// `${VAR}` in a file path, including the paths of `sqlite:` and `file://` URLs, stands for that environment variable's
/// value. Relative paths start at the working directory.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
#[schemars(title = "moesync configuration")]
pub(super) struct Config {
    /// Where partitions and attempts are recorded.
    #[serde(default)]
    pub(super) ledger: Ledger,
    /// The status page.
    #[serde(default)]
    pub(super) web: Web,
    /// What bounds the work.
    #[serde(default)]
    pub(super) limits: Limits,
    /// How to reach MoEngage.
    #[serde(default)]
    pub(super) network: Network,
    /// When to raise alarms.
    #[serde(default)]
    pub(super) alarms: Alarms,
    /// The MoEngage accounts.
    #[serde(default)]
    pub(super) workspaces: Vec<Workspace>,
    /// The places where objects go.
    #[serde(default)]
    pub(super) destinations: Vec<Destination>,
    /// The series of reports to keep; at least one.
    #[serde(default)]
    pub(super) reports: Vec<Report>,
    /// Whom to tell of alarms and of what was stored.
    #[serde(default)]
    pub(super) notify: Vec<Notify>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct Ledger {
    /// The database: `sqlite://PATH` or `postgres://USER:PASSWORD@HOST/DATABASE`. A change needs a restart.
    pub(super) url: String,
    /// How long attempts are kept. Partitions and what metrics count are kept for good.
    pub(super) keep_attempts: Duration,
}

impl Default for Ledger {
    fn default() -> Self {
        Ledger { url: "sqlite://./moesync.db".to_owned(), keep_attempts: Duration("400d".to_owned()) }
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct Web {
    /// IP address and port of the status page, health and metrics; `""` switches it off. A change needs a restart.
    pub(super) listen: String,
    /// File with a token that every caller must then present, as a Bearer token or, in a browser, as the password.
    /// Required unless `listen` is a loopback address.
    pub(super) token_file: Option<String>,
    /// What may be had without the token: `"health"` (`/livez` and `/readyz`) and `"metrics"`.
    pub(super) open: Vec<Open>,
    /// Names of this host in browsers and behind a proxy, such as `moesync.example.com`. `localhost` and the address need
    /// not be named. Requests to other names are refused, because they come from a page that guesses.
    pub(super) hosts: Vec<String>,
}

impl Default for Web {
    fn default() -> Self {
        Web { listen: "127.0.0.1:8787".to_owned(), token_file: None, open: Vec::new(), hosts: Vec::new() }
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct Limits {
    /// Downloads at once, over all workspaces.
    #[schemars(range(min = 1, max = 1024))]
    pub(super) concurrency: i64,
    /// Downloads at once from one workspace.
    #[schemars(range(min = 1, max = 1024))]
    pub(super) concurrency_per_workspace: i64,
    /// Downloads at once to one destination. One that does not answer takes no other places than these.
    #[schemars(range(min = 1, max = 1024))]
    pub(super) concurrency_per_destination: i64,
    /// Largest archive accepted, as received, and largest snapshot, as stored.
    pub(super) archive_bytes: ByteSize,
    /// Most bytes inflated from one archive, and most bytes of the lines of one snapshot.
    pub(super) inflated_bytes: ByteSize,
    /// Most inflated bytes for each byte of archive.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) inflate_ratio: i64,
    /// Longest time for one attempt: looking, fetching, verifying, storing. Of the JSON sources, from one page to the next
    /// without the time spent waiting for a turn under MoEngage's rates; all pages have 24 hours.
    pub(super) attempt_timeout: Duration,
    /// Longest time to connect.
    pub(super) connect_timeout: Duration,
    /// Slowest download accepted. Only the time spent waiting for MoEngage counts.
    pub(super) min_rate: Rate,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            concurrency: 16,
            concurrency_per_workspace: 4,
            concurrency_per_destination: 8,
            archive_bytes: ByteSize("20 GiB".to_owned()),
            inflated_bytes: ByteSize("200 GiB".to_owned()),
            inflate_ratio: 500,
            attempt_timeout: Duration("1h".to_owned()),
            connect_timeout: Duration("10s".to_owned()),
            min_rate: Rate("1 KiB/s".to_owned()),
        }
    }
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct Network {
    /// HTTP proxy for requests to MoEngage, such as `http://proxy.example:3128`; default: what `HTTPS_PROXY` says.
    pub(super) proxy: Option<String>,
    /// PEM file with certificate authorities to trust besides the usual ones: at MoEngage, notify targets and
    /// destinations.
    pub(super) ca_file: Option<String>,
    /// Whether a `base_url` may begin with `http://`. For loopback addresses it always may.
    pub(super) allow_http: bool,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct Alarms {
    /// How long after it is due a report may remain unpublished before that is an alarm.
    pub(super) late_after: Duration,
    /// A report that is not stored raises an alarm again whenever this much time is left to its expiry.
    pub(super) expiry: Vec<Duration>,
}

impl Default for Alarms {
    fn default() -> Self {
        Alarms {
            late_after: Duration("6h".to_owned()),
            expiry: ["72h", "24h", "6h"].map(|text| Duration(text.to_owned())).into(),
        }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct Workspace {
    /// Name in this file, in the keys of objects and in every message.
    pub(super) name: String,
    /// MoEngage's workspace id, also called APP ID, API ID and MOE-APPKEY.
    pub(super) app_id: String,
    /// The workspace's data centre. Either this or `base_url` is required.
    pub(super) data_center: Option<DataCenter>,
    /// The API's address, where it is not a data centre's own: a proxy, a test server, a data centre added later.
    /// Without the path of an endpoint.
    pub(super) base_url: Option<String>,
    /// IANA time zone in which schedules are meant and files are dated, such as `Europe/Berlin`. It is taken from the
    /// system's database (`TZDIR`, else `/usr/share/zoneinfo`) if that is newer than the one in moesync.
    pub(super) timezone: String,
    /// File that holds the key by which archive requests are signed. Exactly one of `secret_key_file`, `secret_key_env`
    /// and `secret_key` is required.
    pub(super) secret_key_file: Option<String>,
    /// Environment variable that holds the key by which archive requests are signed.
    pub(super) secret_key_env: Option<String>,
    /// The key itself by which archive requests are signed.
    pub(super) secret_key: Option<Secret>,
    /// File that holds the password of the JSON APIs. At most one of `api_key_file`, `api_key_env` and `api_key`;
    /// default: the secret key.
    pub(super) api_key_file: Option<String>,
    /// Environment variable that holds the password of the JSON APIs.
    pub(super) api_key_env: Option<String>,
    /// The password itself of the JSON APIs.
    pub(super) api_key: Option<Secret>,
    /// Whether secret files that every user of the machine may read are accepted.
    #[serde(default)]
    pub(super) allow_world_readable: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct Destination {
    /// Name by which reports refer to it.
    pub(super) name: String,
    /// `file:///PATH`, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or `az://CONTAINER/PREFIX`. A relative path is
    /// written `file://./PATH`.
    pub(super) url: String,
    /// Options of the object store, by object_store's own names, such as `aws_region`. All values are strings. What is
    /// not given here is taken from the environment (`AWS_REGION`).
    #[serde(default)]
    pub(super) options: BTreeMap<String, Secret>,
    /// Whether files are forced to disk before they count as stored. Only for `file://`. Where a file system cannot do
    /// that to the names of files, a warning says so.
    #[schemars(extend("default" = true))]
    pub(super) fsync: Option<bool>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct Report {
    /// Name of the workspace it belongs to; may be left out where there is only one.
    pub(super) workspace: Option<String>,
    /// The API it is fetched from.
    pub(super) source: SourceKind,
    /// Name in keys and commands, unique in the workspace; default: `name`.
    pub(super) id: Option<String>,
    /// For `campaign_report` the name in MoEngage's dashboard, and required. Else a label; default: the source.
    pub(super) name: Option<String>,
    /// Name of the destination its objects go to; may be left out where there is only one.
    pub(super) destination: Option<String>,
    /// When MoEngage generates it, as chosen in the dashboard: `{ every = "day", at = "09:30" }`,
    /// `{ every = "week", on = "monday", at = "09:30" }` (or a list of days, `["monday", "thursday"]`),
    /// `{ every = "month", on = 1, at = "09:30" }` or `{ once = "2026-11-21", at = "09:30" }`.
    pub(super) schedule: Schedule,
    /// How long after its generation it is first asked for.
    #[serde(default = "default_buffer")]
    pub(super) buffer: Duration,
    /// First date that is wanted; default: seven days before it is first seen (`campaign_report`), that day (others).
    pub(super) start: Option<Date>,
    /// Its own time zone; default: the workspace's.
    pub(super) timezone: Option<String>,
    /// Its own API address; default: the workspace's.
    pub(super) base_url: Option<String>,
    /// What follows the date in the name of the file. Only `campaign_report`.
    #[schemars(extend("default" = SUFFIX))]
    pub(super) suffix: Option<String>,
    /// How long after its generation an archive that never appeared is given up. Only `daily_dump`.
    #[schemars(extend("default" = GIVE_UP_AFTER))]
    pub(super) give_up_after: Option<Duration>,
    /// How events are counted. Only `campaign_stats`, and required there.
    pub(super) metric_type: Option<MetricType>,
    /// How conversions are attributed. Only `campaign_stats`, and required there.
    pub(super) attribution_type: Option<AttributionType>,
    /// Only these campaigns (`campaign_stats`) or the executions of only these (`executions`); default: all.
    pub(super) campaign_ids: Option<Vec<String>>,
    /// Days that the statistics cover, up to the day before the report's date. Only `campaign_stats`.
    #[schemars(range(min = 1, max = 31), extend("default" = WINDOW_DAYS))]
    pub(super) window_days: Option<i64>,
    /// How many of the newest reports are fetched again each day, because counts grow for days; 0: none. Use 11 to cover the
    /// ten days in which conversions of e-mail, SMS, WhatsApp and flows arrive. Only `campaign_stats`.
    #[schemars(range(min = 0, max = 366), extend("default" = REFRESH_DAYS))]
    pub(super) refresh_days: Option<i64>,
    /// How statistics are written: as received, or one line for each campaign, platform, locale and variation. Only
    /// `campaign_stats`.
    #[schemars(extend("default" = "raw"))]
    pub(super) shape: Option<Shape>,
    /// Which version of MoEngage's API is asked. Only `campaigns` and `campaign_meta`.
    #[schemars(extend("default" = "v1"))]
    pub(super) api: Option<ApiVersion>,
    /// Only campaigns of these channels, such as `EMAIL`. Only `campaigns` and `campaign_meta`.
    pub(super) channels: Option<Vec<String>>,
    /// Only campaigns created by these e-mail addresses. Only `campaigns` and `campaign_meta`.
    pub(super) created_by: Option<Vec<String>>,
    /// Only campaigns created between two dates. Only `campaigns` and `campaign_meta`.
    pub(super) created_date: Option<CreatedDate>,
    /// Only campaigns of these delivery types, such as `ONE_TIME`. Only `campaigns` and `campaign_meta`.
    pub(super) delivery_type: Option<Vec<String>>,
    /// Only campaigns with these statuses, such as `Active`. Only `campaigns` and `campaign_meta`.
    pub(super) status: Option<Vec<String>>,
    /// Only campaigns with these tags. Only `campaigns` and `campaign_meta`.
    pub(super) tags: Option<Vec<String>>,
    /// Whether child campaigns are listed too; default: as MoEngage decides. Only `campaigns` and `campaign_meta`.
    pub(super) include_child_campaigns: Option<bool>,
    /// Whether archived campaigns are listed too; default: as MoEngage decides. Only `campaigns` and `campaign_meta`.
    #[serde(alias = "include_archived_campaigns")]
    pub(super) include_archive_campaigns: Option<bool>,
}

fn default_buffer() -> Duration {
    Duration("30m".to_owned())
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a schedule such as { every = \"day\", at = \"09:30\" }")]
pub(super) struct Schedule {
    /// How often it is generated. Either this or `once` is required.
    pub(super) every: Option<Every>,
    /// With `every = "week"` the day's English name or a list of names, with `every = "month"` a number from 1 to 31 or
    /// `"last"`. Months without that day are skipped.
    pub(super) on: Option<On>,
    /// Time of generation, in the report's time zone. Only with `once` it may be left out, for "as soon as possible".
    pub(super) at: Option<Time>,
    /// The only date of generation.
    pub(super) once: Option<Date>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", expecting = "\"day\", \"week\" or \"month\"")]
pub(super) enum Every {
    Day,
    Week,
    Month,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "dates such as { from_date = \"2026-01-01\", to_date = \"2026-12-31\" }")]
pub(super) struct CreatedDate {
    /// The first date.
    pub(super) from_date: Date,
    /// The last date.
    pub(super) to_date: Date,
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

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct Notify {
    /// Name in every message about it; what was told is remembered under it.
    pub(super) name: String,
    /// `webhook`: signed JSON. `slack`: text for an incoming webhook of Slack, or of what understands the same, such as
    /// Mattermost. `ping`: a dead man's switch in the manner of healthchecks.io.
    pub(super) kind: NotifyKind,
    /// File that holds the address. Exactly one of `url_file`, `url_env` and `url` is required.
    pub(super) url_file: Option<String>,
    /// Environment variable that holds the address.
    pub(super) url_env: Option<String>,
    /// The address itself. It is a credential: anyone who has it can post there.
    pub(super) url: Option<Secret>,
    /// File that holds the secret by which messages are signed. Only `webhook`, where exactly one of `secret_file`,
    /// `secret_env` and `secret` is required.
    pub(super) secret_file: Option<String>,
    /// Environment variable that holds the secret by which messages are signed. Only `webhook`.
    pub(super) secret_env: Option<String>,
    /// The secret itself by which messages are signed: `whsec_` and 24 to 64 bytes in base64. Only `webhook`.
    pub(super) secret: Option<Secret>,
    /// What is told: `alarms` (all of them) or some by their names, `stored` (every object), `summary` (once a day how
    /// many were stored). Default: all three (`webhook`), `alarms` (`slack`). Not for `ping`.
    pub(super) events: Option<Vec<EventWord>>,
    /// How often it is pinged, from `1m` to `1d`. Only `ping`.
    #[schemars(extend("default" = PING_EVERY))]
    pub(super) every: Option<Duration>,
    /// Whether files with the address or the secret that every user of the machine may read are accepted.
    #[serde(default)]
    pub(super) allow_world_readable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", expecting = "\"webhook\", \"slack\" or \"ping\"")]
pub(super) enum NotifyKind {
    Webhook,
    Slack,
    Ping,
}

/// A type that is written as a string, and read by `check`; some accept a plain integer too.
macro_rules! written {
    ($name:ident, $expecting:literal, integer: $integer:literal, schema: $schema:tt) => {
        #[derive(Debug, Clone, Serialize)]
        pub(super) struct $name(pub(super) String);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Written { expecting: $expecting, integer: $integer }).map($name)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!($schema)
            }
        }
    };
}

written!(Duration, "a duration such as \"30m\"", integer: false, schema: {
    "description": "Weeks, days, hours, minutes and seconds, such as `7d`, `1h30m` or `45s`.",
    "type": "string", "examples": ["7d", "1h30m", "45s"]
});
written!(ByteSize, "a size such as \"20 GiB\"", integer: true, schema: {
    "description": "Bytes as a number, or with a unit such as `GiB` (1024³) or `GB` (1000³).",
    "type": ["string", "integer"], "examples": ["20 GiB", "500 MB", 1048576]
});
written!(Rate, "a rate such as \"1 KiB/s\"", integer: false, schema: {
    "description": "Bytes a second.", "type": "string", "examples": ["1 KiB/s"]
});
written!(Date, "a date such as \"2026-11-21\"", integer: false, schema: { "type": "string", "format": "date" });
written!(Time, "a time such as \"09:30\"", integer: false, schema: {
    "type": "string", "pattern": "^([01]?[0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?$", "examples": ["09:30"]
});
written!(DataCenter, "a data centre in quotes, such as \"01\"", integer: false, schema: {
    "type": "string", "enum": DATA_CENTERS
});

written!(EventWord, "an event such as \"alarms\"", integer: false, schema: {
    "type": "string", "enum": event_words()
});

/// What can be told: all alarms together, what is no alarm, each alarm.
pub(super) fn event_words() -> Vec<&'static str> {
    ["alarms", "stored", "summary"].into_iter().chain(AlarmKind::ALL.map(AlarmKind::as_str)).collect()
}

/// On which day, or on which days, as written.
#[derive(Debug)]
pub(super) enum On {
    Day(String),
    Days(Vec<String>),
}

impl<'de> Deserialize<'de> for On {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WrittenOn)
    }
}

impl JsonSchema for On {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "On".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let days = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
        schemars::json_schema!({
            "anyOf": [
                { "enum": days.into_iter().chain(["last"]).collect::<Vec<_>>() },
                { "type": "integer", "minimum": 1, "maximum": 31 },
                { "type": "array", "items": { "enum": days }, "minItems": 1, "uniqueItems": true }
            ]
        })
    }
}

struct WrittenOn;

impl<'de> Visitor<'de> for WrittenOn {
    type Value = On;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a day such as \"monday\", 1 or \"last\", or a list of days")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<On, E> {
        Ok(On::Day(text.to_owned()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<On, E> {
        Ok(On::Day(number.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<On, A::Error> {
        let mut days = Vec::new();
        while let Some(day) = list.next_element()? {
            days.push(day);
        }
        Ok(On::Days(days))
    }
}

struct Written {
    expecting: &'static str,
    integer: bool,
}

impl Visitor<'_> for Written {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<String, E> {
        if self.integer {
            Ok(number.to_string())
        } else {
            Err(E::invalid_type(serde::de::Unexpected::Signed(number), &self))
        }
    }
}

/// A string that is never shown.
#[derive(Debug)]
pub(super) struct Secret(pub(super) SecretString);

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Secret(text.into()))
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "writeOnly": true })
    }
}
