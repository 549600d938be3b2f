//! A `[[workspaces]]` table: one MoEngage account.

use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use super::{
    Mistakes, Problem, address,
    document::{KeyPath, alternatives},
    key::key_part,
    secret::{self, Given, SecretSource},
    values::{name, written},
    variables::Env,
    zones::Zones,
};

/// MoEngage's data centres (https://api-{dc}.moengage.com).
const DATA_CENTERS: [&str; 7] = ["01", "02", "03", "04", "05", "06", "101"];

/// How the paths of MoEngage's APIs begin, as its documents print them.
const ENDPOINTS: [&str; 3] = ["campaign_reports", "dailyCampaignReportDump", "core-services"];

written!(DataCenter, "a data centre in quotes, such as \"01\"", integer: false, schema: {
    "type": "string", "enum": DATA_CENTERS
});

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct Raw {
    /// Name in this file, in the keys of objects and in every message.
    pub(super) name: String,
    /// MoEngage's workspace id, also called APP ID, API ID and MOE-APPKEY.
    pub(super) app_id: String,
    /// The workspace's data centre. Either this or `base_url` is required.
    data_center: Option<DataCenter>,
    /// The API's address, where it is not a data centre's own: a proxy, a test server, a data centre added later.
    /// Without the path of an endpoint.
    base_url: Option<String>,
    /// IANA time zone of schedules and of the dates in file names, such as `Europe/Berlin`. It is taken from the
    /// system's database (`TZDIR`, else `/usr/share/zoneinfo`) if that is newer than the one in moesync.
    timezone: String,
    /// File with the key that signs archive requests. Exactly one of `secret_key_file`, `secret_key_env`,
    /// `secret_key_command` and `secret_key` is required.
    secret_key_file: Option<String>,
    /// Environment variable with the key that signs archive requests.
    secret_key_env: Option<String>,
    /// Program and arguments that print the key that signs archive requests, such as
    /// `["vault", "kv", "get", "-field=key", "secret/moengage"]`. It is run without a shell, has ten seconds, and is run
    /// again when MoEngage refuses the key.
    secret_key_command: Option<Vec<String>>,
    /// The key itself that signs archive requests.
    secret_key: Option<secret::Raw>,
    /// File with the password of the JSON APIs. At most one of `api_key_file`, `api_key_env`, `api_key_command` and
    /// `api_key`; default: the secret key.
    api_key_file: Option<String>,
    /// Environment variable with the password of the JSON APIs.
    api_key_env: Option<String>,
    /// Program and arguments that print the password of the JSON APIs.
    api_key_command: Option<Vec<String>>,
    /// The password itself of the JSON APIs.
    api_key: Option<secret::Raw>,
    /// Whether secret files that every user of the machine may read are accepted.
    #[serde(default)]
    allow_world_readable: bool,
}

/// The folder of all tables at a destination, which is not that of a workspace.
const TABLES: &str = "tables";

/// One MoEngage account.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// Name in the configuration, in keys and in every message.
    pub name: String,
    /// MoEngage's workspace id, also called APP ID, API ID and MOE-APPKEY.
    pub app_id: String,
    /// Scheme, host and optional path prefix of MoEngage's API.
    pub base_url: Url,
    /// The zone of schedules and of the dates in file names.
    pub timezone: TimeZone,
    /// Key that signs archive requests.
    pub secret_key: SecretSource,
    /// Basic password of the JSON APIs; the secret key if not given.
    pub api_key: SecretSource,
}

impl Raw {
    pub(super) fn check(
        &self,
        at: &KeyPath<'_>,
        allow_http: bool,
        env: &Env,
        zones: &Zones,
    ) -> Result<Workspace, Mistakes> {
        let mut mistakes = Mistakes::default();
        let name = mistakes.keep(name(&self.name, &at.key("name")));
        if key_part(&self.name).eq_ignore_ascii_case(TABLES) {
            mistakes.add(at.key("name").problem(format_args!(
                "the folder {TABLES}/ of a destination is that of all tables; choose another name"
            )));
        }
        let app_id = mistakes.keep(app_id(&self.app_id, &at.key("app_id")));
        let base_url = mistakes.keep(match (&self.data_center, &self.base_url) {
            (Some(data_center), None) => data_center_url(&data_center.0, &at.key("data_center")),
            (None, Some(url)) => base_url(url, &at.key("base_url"), allow_http),
            (None, None) => Err(at.problem("data_center or base_url is missing; exactly one is required")),
            (Some(_), Some(_)) => {
                Err(at.key("base_url").problem("data_center is given too; exactly one of the two is required"))
            }
        });
        let secret_key = Given::new("secret_key", &self.secret_key_file, &self.secret_key_env, &self.secret_key)
            .or_command(&self.secret_key_command);
        let secret_key = secret_key.check(self.allow_world_readable, at, env).and_then(|secret| {
            secret.ok_or_else(|| {
                at.problem(
                    "no secret key; give exactly one of secret_key_file, secret_key_env, secret_key_command and secret_key",
                )
            })
        });
        let secret_key = mistakes.keep(secret_key);
        let api_key = Given::new("api_key", &self.api_key_file, &self.api_key_env, &self.api_key)
            .or_command(&self.api_key_command);
        let api_key = mistakes.keep(api_key.check(self.allow_world_readable, at, env));
        let timezone = mistakes.keep(zones.check(&self.timezone, &at.key("timezone")));
        mistakes.finish(|| {
            let secret_key = secret_key?;
            Some(Workspace {
                name: name?,
                app_id: app_id?,
                base_url: base_url?,
                timezone: timezone?,
                api_key: api_key?.unwrap_or_else(|| secret_key.clone()),
                secret_key,
            })
        })
    }
}

fn app_id(text: &str, at: &KeyPath<'_>) -> Result<String, Problem> {
    // A Basic user name ends at the first colon (RFC 7617).
    match text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control() || c == ':') {
        true => Err(at.problem("expected MoEngage's workspace id, without spaces or colons")),
        false => Ok(text.to_owned()),
    }
}

fn data_center_url(data_center: &str, at: &KeyPath<'_>) -> Result<Url, Problem> {
    let url = DATA_CENTERS
        .contains(&data_center)
        .then(|| Url::parse(&format!("https://api-{data_center}.moengage.com")).ok())
        .flatten();
    url.ok_or_else(|| {
        let padded = format!("{data_center:0>2}");
        let nearest = match DATA_CENTERS.contains(&padded.as_str()) {
            true => format!("; did you mean {padded:?}?"),
            false => "; a data centre added later can be given as base_url".to_owned(),
        };
        at.problem(format_args!("expected {}, found {data_center:?}{nearest}", alternatives(DATA_CENTERS)))
    })
}

/// MoEngage's address, without a slash at the end of its path.
pub(super) fn base_url(text: &str, at: &KeyPath<'_>, allow_http: bool) -> Result<Url, Problem> {
    let mut url = address::parse(text)
        .ok_or_else(|| at.problem("expected an address such as \"https://api-01.moengage.com\""))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(at.problem("an address with a user or password in it; credentials have keys of their own"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(at.problem("an address ends before \"?\" and \"#\"; remove them and what follows"));
    }
    if !address::is_permitted(&url, allow_http) {
        return Err(at.problem(address::UNENCRYPTED));
    }
    let is_endpoint = |segment: &&str| ENDPOINTS.contains(segment);
    if let Some(endpoint) = url.path_segments().into_iter().flatten().find(is_endpoint) {
        return Err(at.problem(format_args!(
            "the address ends before \"/{endpoint}\": moesync adds the path of each API itself"
        )));
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}
