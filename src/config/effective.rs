//! The configuration in force: every setting with its value and where the value comes from, without secrets.

use std::path::Path;

use config::{Value as Node, ValueKind};
use serde_json::{Map, Value, json};
use url::Url;

use super::{
    Config, Mistakes,
    document::{KeyPath, Origin},
    load::{check, with_tree},
    tables,
    variables::Env,
};

/// What is shown instead of a secret.
const REDACTED: &str = "[redacted]";

/// A setting in force.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Its key, such as `limits.concurrency` or `reports[0].buffer`.
    pub key: String,
    /// Its value, with variables replaced. A secret, or a text that may contain one, is redacted.
    pub value: Value,
    /// Where the value comes from.
    pub origin: Origin,
}

/// The settings of the configuration that [`load`](super::load) reads, with the defaults of keys that are not given. Keys
/// without a value are left out.
///
/// # Errors
/// As of [`load`](super::load).
pub fn effective(path: &Path, env: impl Into<Env>) -> Result<Vec<Setting>, Mistakes> {
    let env = env.into();
    with_tree(path, &env, |tree, root, mistakes, broken| {
        let config = check(tree.clone(), root, mistakes, broken, &env)?;
        let mut settings = Vec::new();
        let schema = tables::schema();
        for (name, schema) in properties(&schema) {
            let (at, value) = (root.key(name.clone()), inner(&tree, name));
            match schema.get("items") {
                None => add_table(&mut settings, schema, value, &at, &|_| None),
                Some(item) => {
                    let list = value.and_then(items).unwrap_or_default();
                    for (index, value) in list.iter().enumerate() {
                        let default = |key: &str| implied(&config, name, index, key);
                        add_table(&mut settings, item, Some(value), &at.index(index), &default);
                    }
                }
            }
        }
        Ok(settings)
    })?
}

/// The properties of an object in a schema, in the order of the schema.
fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
}

fn inner<'t>(table: &'t Node, key: &str) -> Option<&'t Node> {
    match &table.kind {
        ValueKind::Table(table) => table.get(key),
        _ => None,
    }
}

fn items(list: &Node) -> Option<&[Node]> {
    match &list.kind {
        ValueKind::Array(list) => Some(list),
        _ => None,
    }
}

/// Adds the settings of the table at `at`. A key that is not given has the default in its schema, else `default`.
fn add_table(
    settings: &mut Vec<Setting>,
    schema: &Value,
    table: Option<&Node>,
    at: &KeyPath<'_>,
    default: &dyn Fn(&str) -> Option<Value>,
) {
    for (key, schema) in properties(schema) {
        let here = at.key(key.clone());
        let given = table.and_then(|table| inner(table, key));
        let setting = match given {
            Some(given) => Some((redacted(key, plain(given, schema), schema), here.origin())),
            None => {
                let of_schema = schema.get("default").filter(|_| applies(key, table)).cloned();
                of_schema.or_else(|| default(key)).map(|value| (value, Origin::Default))
            }
        };
        settings.extend(setting.map(|(value, origin)| Setting { key: here.to_string(), value, origin }));
    }
}

/// Whether the default of a key that only some kinds of tables have applies to `table`.
fn applies(key: &str, table: Option<&Node>) -> bool {
    let is = |of: &str, words: &[&str]| {
        let word = table.and_then(|table| inner(table, of)).map(|word| word.kind.to_string()).unwrap_or_default();
        words.iter().any(|start| word.starts_with(start))
    };
    match key {
        "suffix" => is("source", &["campaign_report"]),
        "give_up_after" => is("source", &["daily_dump"]),
        "window_days" | "refresh_days" | "shape" => is("source", &["campaign_stats"]),
        "api" => is("source", &["campaigns", "campaign_meta"]),
        "fsync" => is("url", &["file:"]),
        "every" => is("kind", &["ping"]),
        "starttls" => is("kind", &["email"]),
        _ => true,
    }
}

/// The value that a report has from its workspace or because there is only one choice.
fn implied(config: &Config, list: &str, index: usize, key: &str) -> Option<Value> {
    let report = config.reports.get(index).filter(|_| list == "reports")?;
    Some(match key {
        "workspace" => json!(report.workspace.name),
        "destination" => json!(report.destination.name),
        "id" => json!(report.id.name()),
        "name" => json!(report.name),
        "timezone" => json!(report.timezone.iana_name()),
        "base_url" => json!(report.base_url.as_str().trim_end_matches('/')),
        _ => return None,
    })
}

/// A value as JSON. Texts of the environment get the type of the schema.
fn plain(node: &Node, schema: &Value) -> Value {
    let is = |kind: &str| schema.get("type").is_some_and(|types| types == kind);
    match &node.kind {
        ValueKind::String(text) if node.origin() == Some("the environment") => match text.trim() {
            number if is("integer") => number.parse::<i64>().map_or(json!(text), Value::from),
            truth if is("boolean") => truth.to_lowercase().parse::<bool>().map_or(json!(text), Value::from),
            list if is("array") => list.split(',').map(str::trim).filter(|item| !item.is_empty()).collect(),
            _ => json!(text),
        },
        ValueKind::String(text) => json!(text),
        ValueKind::Boolean(truth) => json!(truth),
        ValueKind::I64(number) => json!(number),
        ValueKind::Float(number) => json!(number),
        ValueKind::Array(items) => items.iter().map(|item| plain(item, &Value::Null)).collect(),
        ValueKind::Table(table) => {
            let sorted: std::collections::BTreeMap<_, _> = table.iter().collect();
            sorted
                .into_iter()
                .map(|(key, value)| (key.clone(), plain(value, &Value::Null)))
                .collect::<Map<_, _>>()
                .into()
        }
        _ => Value::Null,
    }
}

/// The value without secrets.
fn redacted(key: &str, value: Value, schema: &Value) -> Value {
    let is_secret = |schema: &Value| schema.get("writeOnly").is_some();
    match value {
        _ if is_secret(schema) => json!(REDACTED),
        // The arguments of a command.
        Value::Array(words) if key.ends_with("_command") => {
            words.into_iter().enumerate().map(|(at, word)| if at == 0 { word } else { json!(REDACTED) }).collect()
        }
        Value::Object(options) if schema.get("additionalProperties").is_some_and(is_secret) => {
            let shown = |(name, value): (String, Value)| match is_harmless(&name) {
                true => (name, value),
                false => (name, json!(REDACTED)),
            };
            options.into_iter().map(shown).collect::<Map<_, _>>().into()
        }
        Value::String(text) if text.contains("://") => json!(without_password(&text)),
        other => other,
    }
}

/// Whether an option of an object store holds no credential.
fn is_harmless(option: &str) -> bool {
    let name = option.to_lowercase();
    ["region", "allow_http", "bucket", "bucket_name", "virtual_hosted_style_request"]
        .iter()
        .any(|end| name.ends_with(end))
}

/// A URL without the parts that may hold a password: user and query.
fn without_password(text: &str) -> String {
    let Ok(mut url) = Url::parse(text) else { return text.to_owned() };
    let is_open = url.password().is_none() && url.query().is_none();
    if is_open {
        return text.to_owned();
    }
    let has_password = url.password().is_some();
    // Neither fails: a URL with a password or query has a host or is of a scheme without one.
    if has_password && url.set_password(Some("redacted")).is_err() {
        return REDACTED.to_owned();
    }
    if url.query().is_some() {
        url.set_query(Some("redacted"));
    }
    url.to_string()
}
