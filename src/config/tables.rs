//! The whole file: its tables, its JSON Schema, and the rules that concern several tables.

use std::sync::Arc;

use schemars::{JsonSchema, generate::SchemaSettings, transform::RecursiveTransform};
use serde::Deserialize;

use super::{
    Config, Mistakes, Problem, alarms, destination,
    document::{ENV_PREFIX, KeyPath},
    form::Form,
    instance, ledger, limits,
    mistakes::{each, unique},
    network, notify, oddities,
    report::{self, Known},
    variables::Env,
    web, workspace,
    zones::Zones,
};

/// The configuration of moesync: a TOML file, or a folder whose `*.toml` files are read in the order of their names. The
/// workspaces, destinations, reports and notify targets of these files add up; any other key may be in one file alone.
///
/// Any key of the tables `instance`, `ledger`, `web`, `limits`, `network` and `alarms` can be overridden by an
/// environment variable named `MOESYNC__TABLE__KEY`, for example `MOESYNC__LEDGER__URL`; there, items of a list are
/// separated by commas.
///
/// `${VAR}` in any string stands for that environment variable's value, and `$${` for a literal `${`. Relative paths start
/// at the working directory.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
#[schemars(title = "moesync configuration")]
pub(super) struct Raw {
    /// How notifications name this moesync, and where they link to.
    #[serde(default)]
    instance: instance::Raw,
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

/// Checks every table, as far as mistakes in its form permit.
pub(super) fn check(form: Form<'_, Raw>, root: &KeyPath<'_>, env: &Env, zones: &Zones) -> Result<Config, Mistakes> {
    let Some(raw) = &form.raw else { return form.mistakes.finish(|| None) };
    let mut mistakes = form.mistakes.clone();
    let [workspaces_at, destinations_at, reports_at, notify_at] =
        ["workspaces", "destinations", "reports", "notify"].map(|key| root.key(key));
    let [instance_at, network_at, ledger_at, web_at, limits_at, alarms_at] =
        ["instance", "network", "ledger", "web", "limits", "alarms"].map(|key| root.key(key));
    let network = mistakes.keep(form.check_each(&network_at, &[], |at| raw.network.check(at)));
    // Unknown if the table has mistakes; then no address is rejected for it.
    let allow_http = raw.network.allow_http || !form.is_sound(&network_at);
    let ca_file = network.as_ref().and_then(|network| network.ca_file.as_ref());
    let workspaces = each(&raw.workspaces, &workspaces_at, |raw, at| {
        form.check_each(at, &[], |at| raw.check(at, allow_http, env, zones).map(Arc::new))
    });
    let names = unique(raw.workspaces.iter().map(|raw| raw.name.as_str()), &workspaces_at);
    let workspaces = complete(&mut mistakes, workspaces, names).filter(|_| !form.may_lack("workspaces"));
    let destinations = each(&raw.destinations, &destinations_at, |raw, at| {
        form.check_each(at, &["url"], |at| raw.check(at, ca_file).map(Arc::new))
    });
    let names = unique(raw.destinations.iter().map(|raw| raw.name.as_str()), &destinations_at);
    let destinations = complete(&mut mistakes, destinations, names).filter(|_| !form.may_lack("destinations"));
    if raw.reports.is_empty() && !form.may_lack("reports") {
        mistakes.add(root.problem("no report is configured; add at least one [[reports]] table"));
    }
    let known = Known { workspaces: workspaces.as_deref(), destinations: destinations.as_deref(), allow_http, zones };
    let reports =
        each(&raw.reports, &reports_at, |raw, at| form.check_each(at, &["source"], |at| raw.check(at, &known)));
    let reports: Option<Vec<_>> = mistakes.keep(reports).and_then(|reports| reports.into_iter().collect());
    if let Some(reports) = &reports {
        mistakes.keep(report::check_distinct(reports, &reports_at));
    }
    let notify = each(&raw.notify, &notify_at, |raw, at| form.check(at, |at| raw.check(at, allow_http, env)));
    let names = unique(raw.notify.iter().map(|raw| raw.name.as_str()), &notify_at);
    let notify = complete(&mut mistakes, notify, names);
    let instance = mistakes.keep(form.check_each(&instance_at, &[], |at| raw.instance.check(at)));
    let ledger = mistakes.keep(form.check_each(&ledger_at, &[], |at| raw.ledger.check(at)));
    let web = mistakes.keep(form.check(&web_at, |at| raw.web.check(at)));
    let limits = mistakes.keep(form.check_each(&limits_at, &[], |at| raw.limits.check(at)));
    let alarms = mistakes.keep(form.check_each(&alarms_at, &[], |at| raw.alarms.check(at)));
    mistakes.finish(|| {
        let (ledger, keep_attempts) = ledger?;
        Some(Config {
            instance: instance?,
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
            warnings: raw.warnings(root, env),
            placeholders: raw.placeholders(root),
        })
    })
}

/// The list, if all its elements are valid and have distinct names.
fn complete<T>(mistakes: &mut Mistakes, list: Result<Vec<T>, Mistakes>, names: Result<(), Mistakes>) -> Option<Vec<T>> {
    let list = mistakes.keep(list);
    mistakes.keep(names).and(list)
}

impl Raw {
    fn warnings(&self, root: &KeyPath<'_>, env: &Env) -> Vec<Problem> {
        let reports = root.key("reports");
        let names = self.reports.iter().enumerate().filter_map(|(index, report)| {
            oddities::report_name(report.name.as_deref()?, &reports.index(index).key("name"))
        });
        names.chain(oddities::proxies(env)).collect()
    }

    fn placeholders(&self, root: &KeyPath<'_>) -> Vec<Problem> {
        let workspaces = root.key("workspaces");
        let app_ids = self.workspaces.iter().enumerate();
        app_ids
            .filter_map(|(index, workspace)| {
                oddities::app_id(&workspace.app_id, &workspaces.index(index).key("app_id"))
            })
            .collect()
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

/// Removes null from types: TOML has none, and an optional key is left out.
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
                    // The key's own description takes precedence over that of its type.
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

/// What the schema says about keys.
pub(super) struct Keys {
    /// The names of all environment variables that override a key.
    pub(super) overridable: Vec<String>,
    /// The keys of lists that hold a secret, with the list before each.
    pub(super) secrets: Vec<(String, String)>,
}

pub(super) fn keys() -> Keys {
    let schema = schema();
    let properties = |schema: &serde_json::Value| schema.get("properties").and_then(|p| p.as_object().cloned());
    let (mut overridable, mut secrets) = (Vec::new(), Vec::new());
    for (table, schema) in properties(&schema).unwrap_or_default() {
        for (key, _) in properties(&schema).unwrap_or_default() {
            overridable.push(format!("{}{table}__{key}", ENV_PREFIX).to_uppercase());
        }
        for (key, schema) in schema.get("items").and_then(properties).unwrap_or_default() {
            if schema.get("writeOnly").is_some() {
                secrets.push((table.clone(), key));
            }
        }
    }
    Keys { overridable, secrets }
}
