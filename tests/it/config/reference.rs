//! The example, the schema and the defaults agree.

use std::{collections::BTreeSet, path::Path, time::Duration};

use jiff::{SignedDuration, civil::time};
use moesync::config::{
    self, Config, Ledger, Schedule, SecretSource, Shape, SnapshotSource, Source, SourceKind, StatsQuery,
};
use secrecy::ExposeSecret as _;

use super::{CANARY, EXAMPLE, GOOD, changed, load, load_bytes, uncommented, with_source};

#[test]
fn missing_keys_have_the_documented_defaults() {
    let config = load(GOOD).unwrap();
    assert_eq!(config.ledger, Ledger::Sqlite("./moesync.db".into()));
    assert_eq!(config.web.listen, Some("127.0.0.1:8787".parse().unwrap()));
    assert_eq!(config.web.token_file, None);
    assert!(config.web.open.is_empty() && config.web.hosts.is_empty());
    let limits = &config.limits;
    assert_eq!((limits.concurrency, limits.concurrency_per_workspace), (16, 4));
    assert_eq!(limits.concurrency_per_destination, 8);
    assert_eq!((limits.archive_bytes, limits.inflated_bytes, limits.inflate_ratio), (20 << 30, 200 << 30, 500));
    assert_eq!(limits.attempt_timeout, Duration::from_secs(3600));
    assert_eq!((limits.connect_timeout, limits.min_rate), (Duration::from_secs(10), 1024));
    assert_eq!(limits.bandwidth, None);
    assert!(config.network.proxy.is_none() && config.network.ca_file.is_none() && !config.network.allow_http);
    assert_eq!(config.alarms.late_after, SignedDuration::from_hours(6));
    assert_eq!(config.alarms.expiry, [72, 24, 6].map(SignedDuration::from_hours));

    let workspace = &config.workspaces[0];
    assert_eq!((workspace.name.as_str(), workspace.app_id.as_str()), ("acme", "APP-1"));
    assert_eq!(workspace.base_url.as_str(), "https://api-01.moengage.com/");
    assert_eq!(workspace.timezone.iana_name(), Some("Europe/Berlin"));
    assert_eq!(workspace.api_key.resolve().unwrap().expose_secret(), CANARY, "the secret key serves as API key");
    assert!(config.destinations[0].fsync && config.destinations[0].options.is_empty());

    let report = &config.reports[0];
    assert_eq!(
        (report.source.kind(), report.id.name(), report.suffix()),
        (SourceKind::CampaignReport, "Report test", ".zip")
    );
    assert_eq!(
        (report.workspace.name.as_str(), report.destination.name.as_str()),
        ("acme", "archive"),
        "the only ones"
    );
    assert_eq!(report.schedule, Schedule::Daily { at: time(9, 30, 0, 0) });
    assert_eq!((report.buffer, report.start), (SignedDuration::from_mins(30), None));
    assert_eq!((report.tables, report.column_types.len()), (None, 0));
    assert_eq!(report.give_up_after(), SignedDuration::from_hours(7 * 24));
    assert_eq!((&report.timezone, &report.base_url), (&workspace.timezone, &workspace.base_url));

    let stats =
        load(&with_source("campaign_stats", "metric_type = \"TOTAL\"\nattribution_type = \"IN_SESSION\"")).unwrap();
    let expected = StatsQuery {
        metric_type: "TOTAL".into(),
        attribution_type: "IN_SESSION".into(),
        campaign_ids: vec![],
        window_days: 1,
        refresh_days: 3,
        shape: Shape::Raw,
    };
    assert_eq!(stats.reports[0].source, Source::Snapshot(SnapshotSource::CampaignStats(expected)));
    let unnamed = load(&changed("campaign_report", "executions").replace("name = \"Report test\"\n", "")).unwrap();
    assert_eq!((unnamed.reports[0].name.as_str(), unnamed.reports[0].id.name()), ("executions", "executions"));
}

#[test]
fn the_example_is_valid_and_so_is_every_setting_in_it() {
    let env = [("CREDENTIALS_DIRECTORY", "/run/credentials")];
    let config = load_bytes(EXAMPLE.as_bytes(), &env).unwrap();
    assert_eq!(config.reports.len(), 1);
    let SecretSource::File { file, .. } = &config.workspaces[0].secret_key else { panic!("{config:?}") };
    assert_eq!(file.path, Path::new("/run/credentials/acme.key"));

    let everything = load_bytes(uncommented(EXAMPLE).as_bytes(), &env).unwrap();
    let sources: BTreeSet<_> = everything.reports.iter().map(|report| report.source.kind()).collect();
    assert_eq!(sources.len(), 6, "an example of every source");
}

#[test]
fn the_example_shows_the_defaults() {
    let env = [("CREDENTIALS_DIRECTORY", "/run/credentials")];
    let tables = uncommented(EXAMPLE);
    let tables: String = tables
        .lines()
        .take_while(|line| !line.starts_with("[[workspaces]]"))
        .filter(|line| {
            !["page_url", "token_file", "proxy", "ca_file", "bandwidth"].iter().any(|key| line.starts_with(key))
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let shown = load_bytes(format!("{tables}{GOOD}").as_bytes(), &env).unwrap();
    assert_eq!(without_lines(&shown), without_lines(&load(GOOD).unwrap()));
}

#[test]
fn the_example_and_the_schema_have_the_same_keys() {
    fn of_schema(schema: &serde_json::Value, path: &str, keys: &mut BTreeSet<String>) {
        if let Some(items) = schema.get("items") {
            of_schema(items, path, keys);
        }
        for (key, property) in schema.get("properties").and_then(|p| p.as_object()).into_iter().flatten() {
            let path = format!("{path}.{key}");
            assert!(property.get("description").is_some(), "{path} is not described");
            of_schema(property, &path, keys);
            keys.insert(path);
        }
    }
    fn of_example(value: &toml::Value, path: &str, keys: &mut BTreeSet<String>) {
        match value {
            toml::Value::Table(_) if path.ends_with(".options") || path.ends_with(".column_types") => {}
            toml::Value::Table(table) => {
                for (key, value) in table {
                    let path = format!("{path}.{key}");
                    of_example(value, &path, keys);
                    keys.insert(path);
                }
            }
            toml::Value::Array(items) => items.iter().for_each(|item| of_example(item, path, keys)),
            _ => {}
        }
    }
    let (mut schema, mut example) = (BTreeSet::new(), BTreeSet::new());
    of_schema(&config::schema(), "", &mut schema);
    of_example(&toml::Value::Table(uncommented(EXAMPLE).parse().unwrap()), "", &mut example);
    // The example shows it in a comment, among the forms of a schedule.
    assert!(EXAMPLE.contains("{ once = \"2026-11-21\", at = \"09:30\" }"));
    example.insert(".reports.schedule.once".to_owned());
    assert_eq!(schema, example);
}

#[test]
fn the_schema_has_type_meaning_default_and_choices() {
    let schema = config::schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    insta::assert_snapshot!(serde_json::to_string_pretty(&serde_json::json!([
        schema["properties"]["limits"]["properties"]["archive_bytes"],
        schema["properties"]["workspaces"]["items"]["properties"]["data_center"],
        schema["properties"]["workspaces"]["items"]["properties"]["secret_key"],
        schema["properties"]["reports"]["items"]["properties"]["metric_type"],
        schema["properties"]["reports"]["items"]["properties"]["window_days"],
        schema["properties"]["reports"]["items"]["required"],
        schema["properties"]["reports"]["items"]["additionalProperties"],
    ])).unwrap(), @r#"
    [
      {
        "default": "20 GiB",
        "description": "Largest archive accepted, as received, and largest snapshot, as stored.",
        "examples": [
          "20 GiB",
          "500 MB",
          1048576
        ],
        "type": [
          "string",
          "integer"
        ]
      },
      {
        "description": "The workspace's data centre. Either this or `base_url` is required.",
        "enum": [
          "01",
          "02",
          "03",
          "04",
          "05",
          "06",
          "101"
        ],
        "type": "string"
      },
      {
        "description": "The key itself that signs archive requests.",
        "type": "string",
        "writeOnly": true
      },
      {
        "description": "How events are counted. Only `campaign_stats`, and required there.",
        "enum": [
          "TOTAL",
          "UNIQUE"
        ],
        "type": "string"
      },
      {
        "default": 1,
        "description": "Days that the statistics cover, up to the day before the report's date. Only `campaign_stats`.",
        "format": "int64",
        "maximum": 31,
        "minimum": 1,
        "type": "integer"
      },
      [
        "source",
        "schedule"
      ],
      false
    ]
    "#);
}

/// The values of a configuration, without their lines.
fn without_lines(config: &Config) -> String {
    let shown = format!("{config:?}");
    let mut parts = shown.split("place: \"");
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |text, part| text + part.split_once('"').unwrap().1)
}

#[test]
fn the_defaults_of_the_schema_are_the_real_ones() {
    let schema = config::schema();
    let defaults = |properties: &serde_json::Value, wanted: &[&str]| -> String {
        let given = properties.as_object().unwrap().iter().filter_map(|(key, property)| {
            let wanted = wanted.is_empty() || wanted.contains(&key.as_str());
            property.get("default").filter(|_| wanted).map(|value| format!("{key} = {value}\n"))
        });
        given.collect()
    };
    let tables: String = ["instance", "ledger", "web", "limits", "network", "alarms"]
        .map(|table| format!("[{table}]\n{}", defaults(&schema["properties"][table]["properties"], &[])))
        .concat();
    let report = &schema["properties"]["reports"]["items"]["properties"];
    let written =
        load(&format!("{tables}{GOOD}{}", defaults(report, &["buffer", "suffix", "tables", "column_types"]))).unwrap();
    assert_eq!(without_lines(&written), without_lines(&load(GOOD).unwrap()));

    let dump = with_source("daily_dump", "");
    let written = load(&format!("{dump}{}", defaults(report, &["give_up_after"]))).unwrap();
    assert_eq!(without_lines(&written), without_lines(&load(&dump).unwrap()));

    let stats = with_source("campaign_stats", "metric_type = \"TOTAL\"\nattribution_type = \"IN_SESSION\"");
    let written = load(&format!("{stats}{}", defaults(report, &["window_days", "refresh_days", "shape"]))).unwrap();
    assert_eq!(without_lines(&written), without_lines(&load(&stats).unwrap()));
}
