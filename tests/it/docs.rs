//! The documents: schemas describe the printed JSON, and commands, configurations and links in the pages work.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use clap::Parser as _;
use moesync::{
    alarm_kind::AlarmKind,
    cli::Arguments,
    event::Event,
    words::{
        Acknowledged, BackfillPreview, Checked, CopiedObject, Explanation, Forgotten, Health, Partitions,
        PlannedPartitions, RebuiltTables, Reconciliation, Settings, Signed, Status, StoredObjects, TableDescriptions,
        Verification,
    },
};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::Value;
use tempfile::TempDir;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn schema_of<T: JsonSchema>() -> Value {
    let schema = SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>();
    serde_json::to_value(schema).unwrap()
}

/// The published schema of what `command` prints with `--json`.
fn published(command: &str) -> Value {
    serde_json::from_str(&read(format!("docs/schemas/{command}.json"))).unwrap()
}

#[test]
fn the_published_schemas_are_those_of_the_printed_types() {
    let schemas = [
        ("acknowledge", schema_of::<Acknowledged>()),
        ("backfill", schema_of::<Partitions>()),
        ("backfill-dry-run", schema_of::<BackfillPreview>()),
        ("check", schema_of::<Checked>()),
        ("config-show", schema_of::<Settings>()),
        ("demo", schema_of::<Partitions>()),
        ("event", schema_of::<Event>()),
        ("explain", schema_of::<Explanation>()),
        ("forget", schema_of::<Forgotten>()),
        ("get", schema_of::<CopiedObject>()),
        ("health", schema_of::<Health>()),
        ("ls", schema_of::<StoredObjects>()),
        ("plan", schema_of::<PlannedPartitions>()),
        ("reconcile", schema_of::<Reconciliation>()),
        ("sign", schema_of::<Signed>()),
        ("status", schema_of::<Status>()),
        ("sync", schema_of::<Partitions>()),
        ("tables-rebuild", schema_of::<RebuiltTables>()),
        ("tables", schema_of::<TableDescriptions>()),
        ("verify", schema_of::<Verification>()),
    ];
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        for (command, schema) in &schemas {
            let text = serde_json::to_string_pretty(schema).unwrap() + "\n";
            fs::write(root().join(format!("docs/schemas/{command}.json")), text).unwrap();
        }
    }
    for (command, schema) in &schemas {
        let hint = "if the change is meant: UPDATE_SCHEMAS=1 cargo test --test it docs::";
        assert_eq!(published(command), *schema, "docs/schemas/{command}.json; {hint}");
    }
    let files = fs::read_dir(root().join("docs/schemas")).unwrap().count();
    assert_eq!(files, schemas.len(), "docs/schemas has a schema that no command prints");
}

/// Runs a command in `folder`, which must succeed; returns its output as JSON.
#[track_caller]
fn printed(folder: &TempDir, arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_moesync"))
        .args(arguments)
        .arg("--json")
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_output_of_commands_matches_its_schema() {
    let folder = tempfile::tempdir().unwrap();
    let demo = printed(&folder, &["demo"]);
    // The dates depend on the hour.
    let of_report = demo["partitions"].as_array().unwrap().iter().filter(|p| p["report"] == "daily-campaigns");
    let dates: BTreeSet<_> = of_report.map(|p| p["date"].as_str().unwrap()).collect();
    let (first, last) = (*dates.first().unwrap(), *dates.last().unwrap());
    let config = ["--config", "moesync-demo/moesync.toml"];
    let with = |arguments: &[&str]| printed(&folder, &[&config[..], arguments].concat());

    let results = [
        ("demo", demo.clone()),
        ("status", with(&["status"])),
        ("plan", with(&["plan", "--days", "8"])),
        ("explain", with(&["explain", "--report", "daily-campaigns", "--date", last])),
        ("backfill", with(&["backfill", "--report", "daily-campaigns", "--from", first, "--to", last])),
        (
            "backfill-dry-run",
            with(&["backfill", "--dry-run", "--report", "daily-campaigns", "--from", first, "--to", last]),
        ),
        ("sync", with(&["sync"])),
        ("acknowledge", with(&["acknowledge", "--all"])),
        ("forget", with(&["forget", "--report", "daily-campaigns", "--date", last, "--dry-run"])),
        ("verify", with(&["verify"])),
        ("check", with(&["check"])),
        ("config-show", with(&["config", "show"])),
        ("ls", with(&["ls"])),
        ("tables-rebuild", with(&["tables", "rebuild", "--report", "daily-campaigns"])),
        ("tables", with(&["tables"])),
        ("reconcile", with(&["reconcile", "--report", "daily-campaigns", "--with", "campaign_stats", "--date", last])),
        ("get", with(&["get", "--report", "daily-campaigns", "--date", last])),
        ("sign", with(&["sign", "--workspace", "demo", "--filename", "Daily_campaigns_20261121.zip"])),
    ];
    for (command, result) in &results {
        let validator = jsonschema::options().should_validate_formats(true).build(&published(command)).unwrap();
        let complaints: Vec<_> =
            validator.iter_errors(result).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert_eq!(complaints, [] as [String; 0], "{command}");
        let is_empty = result.as_object().unwrap().values().any(|value| value.as_array().is_some_and(Vec::is_empty));
        // After the demo nothing is due; otherwise the first two print what the demo does. The other two
        // have empty lists of failures.
        assert!(
            !is_empty || ["acknowledge", "backfill", "sync", "reconcile", "tables-rebuild"].contains(command),
            "{command} printed nothing to judge: {result}"
        );
    }
}

/// The fenced blocks of a document in `language`.
pub fn blocks(document: &str, language: &str) -> Vec<String> {
    let text = read(document);
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// The tables of the configuration, in the order in which one is written.
const TABLES: [&str; 10] =
    ["workspaces", "destinations", "reports", "notify", "instance", "alarms", "limits", "network", "ledger", "web"];

/// docs/configuration.md, made from the schema that `moesync schema` prints.
fn configuration_reference() -> String {
    let schema = moesync::config::schema();
    let schema = serde_json::to_value(&schema).unwrap();
    let mut text = format!(
        "# Configuration\n\n<!-- Made from `moesync schema` by UPDATE_SCHEMAS=1 cargo test --test it docs:: -->\n\n{}\n\n\
         A complete file with comments: [config/moesync.example.toml](../config/moesync.example.toml). `moesync check` \
         reports\nevery mistake in yours, one a line, in the order of the file.\n",
        schema["description"].as_str().unwrap()
    );
    let tables: BTreeSet<_> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(tables, BTreeSet::from(TABLES), "a table is missing in the reference, or gone");
    for name in TABLES {
        let table = &schema["properties"][name];
        let (heading, keys) = match table["items"].is_object() {
            true => (format!("[[{name}]]"), &table["items"]),
            false => (format!("[{name}]"), table),
        };
        let about = table["description"].as_str().unwrap();
        text += &format!("\n## `{heading}`\n\n{about}\n\n| key | value | default | meaning |\n|---|---|---|---|\n");
        let required = keys["required"].as_array().cloned().unwrap_or_default();
        for (key, value) in keys["properties"].as_object().unwrap() {
            text += &row(key, value, required.contains(&key.as_str().into()));
            for (inner, value) in value["properties"].as_object().into_iter().flatten() {
                text += &row(&format!("{key}.{inner}"), value, false);
            }
        }
    }
    text
}

fn row(key: &str, value: &Value, is_required: bool) -> String {
    let default = match (&value["default"], is_required) {
        (_, true) => "required".to_owned(),
        (Value::Null, false) => String::new(),
        (default, false) => format!("`{default}`"),
    };
    let meaning = value["description"].as_str().unwrap().replace('\n', " ").replace('|', "\\|");
    format!("| `{key}` | {} | {default} | {meaning} |\n", kind(value))
}

/// The permitted values, in few words.
fn kind(value: &Value) -> String {
    let words = |list: &Value| {
        let quoted = list.as_array().unwrap().iter().map(|word| format!("`{word}`"));
        quoted.collect::<Vec<_>>().join(", ")
    };
    if value["enum"].is_array() {
        return words(&value["enum"]);
    }
    if let Some(choices) = value["oneOf"].as_array().or(value["anyOf"].as_array()) {
        let kinds = choices.iter().map(|choice| match &choice["const"] {
            Value::Null => kind(choice),
            word => format!("`{word}`"),
        });
        return kinds.collect::<Vec<_>>().join(", ");
    }
    let range = match (&value["minimum"], &value["maximum"]) {
        (Value::Number(least), Value::Number(most)) => format!(", {least} to {most}"),
        _ => String::new(),
    };
    match &value["type"] {
        Value::String(kind) if kind == "array" => match self::kind(&value["items"]) {
            item if item.starts_with('`') => format!("list of {item}"),
            item => format!("list of {item}s"),
        },
        Value::String(kind) if kind == "object" => "table".to_owned(),
        Value::String(kind) => format!("{kind}{range}"),
        kinds => kinds.as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect::<Vec<_>>().join(" or "),
    }
}

#[test]
fn the_configuration_reference_is_generated_from_the_schema() {
    let path = root().join("docs/configuration.md");
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        fs::write(&path, configuration_reference()).unwrap();
    }
    let hint = "if the change is meant: UPDATE_SCHEMAS=1 cargo test --test it docs::";
    assert!(fs::read_to_string(path).unwrap_or_default() == configuration_reference(), "docs/configuration.md; {hint}");
}

#[test]
fn the_configuration_in_the_documents_is_accepted() {
    let documents = ["README.md", "docs/snapshots.md", "docs/monitoring.md"];
    let text = documents.map(|document| blocks(document, "toml").concat()).concat();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("moesync.toml");
    fs::write(&path, text).unwrap();
    let config = moesync::config::load(&path, []).unwrap();
    assert_eq!(config.reports.len(), 5);
}

#[test]
fn every_command_line_in_the_documents_parses() {
    let documents = ["README.md", "docs/operations.md", "docs/reference.md", "docs/troubleshooting.md"];
    let lines: Vec<_> = documents
        .iter()
        .flat_map(|document| blocks(document, "sh"))
        .flat_map(|block| block.lines().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|line| {
            let line = line.split(" #").next().unwrap().trim().to_owned();
            line.strip_prefix("moesync ").map(str::to_owned)
        })
        .collect();
    assert!(lines.len() > 4, "{lines:?}");
    for line in lines {
        let arguments = ["moesync"].into_iter().chain(line.split_whitespace());
        Arguments::try_parse_from(arguments).unwrap_or_else(|error| panic!("moesync {line}: {error}"));
    }
}

#[test]
fn every_link_between_documents_has_a_target() {
    let pages = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    let pages = pages.filter_map(|name| name.into_string().ok()).filter(|name| name.ends_with(".md"));
    let pages = pages.map(|name| format!("docs/{name}"));
    let documents =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "docs/decisions/README.md"];
    let engines = fs::read_dir(root().join("docs/tables")).unwrap().map(|entry| entry.unwrap().file_name());
    let pages = pages.chain(engines.map(|name| format!("docs/tables/{}", name.display())));
    for document in &pages.chain(documents.map(str::to_owned)).collect::<Vec<_>>() {
        let text = read(document);
        let folder = root().join(document);
        let folder = folder.parent().unwrap();
        for target in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            let file = target.split('#').next().unwrap();
            let is_elsewhere = target.starts_with("https://") || file.is_empty();
            assert!(is_elsewhere || folder.join(file).exists(), "{document} links to {target}");
        }
    }
}

#[test]
fn the_operations_page_explains_exactly_the_existing_alarms() {
    let text = read("docs/operations.md");
    let section = text.split("\n## Alarms\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let explained: Vec<_> = section.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).collect();
    assert_eq!(explained, AlarmKind::ALL.map(AlarmKind::as_str).to_vec());
}

#[test]
fn the_events_in_the_operations_page_match_their_schema() {
    let examples = blocks("docs/operations.md", "json");
    assert_eq!(examples.len(), 2);
    let validator = jsonschema::options().should_validate_formats(true).build(&published("event")).unwrap();
    for example in examples {
        let example: Value = serde_json::from_str(&example).unwrap();
        let complaints: Vec<_> = validator.iter_errors(&example).map(|error| error.to_string()).collect();
        assert_eq!(complaints, [] as [String; 0]);
        let event: Event = serde_json::from_value(example.clone()).unwrap();
        assert_eq!(serde_json::to_value(event).unwrap(), example, "a key is missing, or one too many");
    }
}
