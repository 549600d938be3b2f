//! The whole file: its tables, its JSON Schema, and the rules that concern several tables.

use std::sync::Arc;

use schemars::{JsonSchema, generate::SchemaSettings, transform::RecursiveTransform};
use serde::Deserialize;

use super::{
    Config, Mistakes, Problem, alarms, destination,
    document::{ENV_PREFIX, KeyPath},
    files::Env,
    ledger, limits,
    mistakes::{each, unique},
    network, notify, oddities,
    report::{self, Known},
    web, workspace,
    zones::Zones,
};

/// The configuration of moesync: one TOML file. Any key of the tables `ledger`, `web`, `limits`, `network` and `alarms`
/// can be overridden by an environment variable named `MOESYNC__TABLE__KEY`, for example `MOESYNC__LEDGER__URL`; there,
/// items of a list are separated by commas.
///
/// `${VAR}` in a file path, including the paths of `sqlite:` and `file://` URLs, stands for that environment variable's
/// value. Relative paths start at the working directory.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
#[schemars(title = "moesync configuration")]
pub(super) struct Raw {
    /// Where partitions and attempts are recorded.
    #[serde(default)]
    ledger: ledger::Raw,
    /// The status page.
    #[serde(default)]
    web: web::Raw,
    /// Limits on concurrency, size and time.
    #[serde(default)]
    limits: limits::Raw,
    /// How MoEngage and other servers are reached.
    #[serde(default)]
    network: network::Raw,
    /// When alarms are raised.
    #[serde(default)]
    alarms: alarms::Raw,
    /// The MoEngage accounts.
    #[serde(default)]
    workspaces: Vec<workspace::Raw>,
    /// Where objects are stored.
    #[serde(default)]
    destinations: Vec<destination::Raw>,
    /// The reports to store; at least one.
    #[serde(default)]
    reports: Vec<report::Raw>,
    /// Targets that are notified of alarms and of stored objects.
    #[serde(default)]
    notify: Vec<notify::Raw>,
}

impl Raw {
    pub(super) fn check(&self, root: &KeyPath<'_>, env: &Env, zones: &Zones) -> Result<Config, Mistakes> {
        let mut mistakes = Mistakes::default();
        let [workspaces_at, destinations_at, reports_at, notify_at] =
            ["workspaces", "destinations", "reports", "notify"].map(|key| root.key(key));
        let network = mistakes.keep(self.network.check(&root.key("network"), env));
        let allow_http = self.network.allow_http;
        let ca_file = network.as_ref().and_then(|network| network.ca_file.as_ref());
        let workspaces =
            each(&self.workspaces, &workspaces_at, |raw, at| raw.check(at, allow_http, env, zones).map(Arc::new));
        let workspaces = mistakes.keep(workspaces);
        let names = unique(self.workspaces.iter().map(|raw| raw.name.as_str()), &workspaces_at);
        let workspaces = mistakes.keep(names).and(workspaces);
        let destinations =
            each(&self.destinations, &destinations_at, |raw, at| raw.check(at, ca_file, env).map(Arc::new));
        let destinations = mistakes.keep(destinations);
        let names = unique(self.destinations.iter().map(|raw| raw.name.as_str()), &destinations_at);
        let destinations = mistakes.keep(names).and(destinations);
        if self.reports.is_empty() {
            mistakes.add(root.problem("there is nothing to keep; add at least one [[reports]] table"));
        }
        let known =
            Known { workspaces: workspaces.as_deref(), destinations: destinations.as_deref(), allow_http, zones };
        let reports = mistakes.keep(each(&self.reports, &reports_at, |raw, at| raw.check(at, &known)));
        let reports: Option<Vec<_>> = reports.and_then(|reports| reports.into_iter().collect());
        if let Some(reports) = &reports {
            mistakes.keep(report::check_distinct(reports, &reports_at));
        }
        let notify = mistakes.keep(each(&self.notify, &notify_at, |raw, at| raw.check(at, allow_http, env)));
        mistakes.keep(unique(self.notify.iter().map(|raw| raw.name.as_str()), &notify_at));
        let ledger = mistakes.keep(self.ledger.check(&root.key("ledger"), env));
        let web = mistakes.keep(self.web.check(&root.key("web"), env));
        let limits = mistakes.keep(self.limits.check(&root.key("limits")));
        let alarms = mistakes.keep(self.alarms.check(&root.key("alarms")));
        mistakes.finish(|| {
            let (ledger, keep_attempts) = ledger?;
            Some(Config {
                ledger,
                keep_attempts,
                web: web?,
                limits: limits?,
                alarms: alarms?,
                network: network?,
                workspaces: workspaces?,
                destinations: destinations?,
                reports: reports?,
                notify: notify?,
                tzdata: zones.name().to_owned(),
                warnings: self.warnings(root, env),
            })
        })
    }

    fn warnings(&self, root: &KeyPath<'_>, env: &Env) -> Vec<Problem> {
        let (reports, workspaces) = (root.key("reports"), root.key("workspaces"));
        let names = self.reports.iter().enumerate().filter_map(|(index, report)| {
            oddities::report_name(report.name.as_deref()?, &reports.index(index).key("name"))
        });
        let app_ids = self.workspaces.iter().enumerate().filter_map(|(index, workspace)| {
            oddities::app_id(&workspace.app_id, &workspaces.index(index).key("app_id"))
        });
        names.chain(app_ids).chain(oddities::proxies(env)).collect()
    }
}

/// JSON Schema (2020-12) of the configuration file, with every key's meaning and default.
pub fn schema() -> serde_json::Value {
    SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .with_transform(RecursiveTransform(without_null))
        .into_generator()
        .into_root_schema_for::<Raw>()
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
