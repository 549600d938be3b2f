//! What the configuration promises: every key and default, one clear error for each mistake, and no secret shown.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::{
    SignedDuration,
    civil::{Weekday, date, time},
};
use moesync::{
    alarm_kind::AlarmKind,
    config::{
        self, BucketLocation, Channel, Config, Events, Ledger, Location, MonthDay, Open, Provider, Schedule,
        SecretSource, Shape, SnapshotSource, Source, SourceKind, StatsQuery,
    },
};
use proptest::prelude::*;
use secrecy::ExposeSecret as _;

const CANARY: &str = "canary-5d41402a";

const EXAMPLE: &str = include_str!("../../config/moesync.example.toml");

const GOOD: &str = r#"[[workspaces]]
name = "acme"
app_id = "APP-1"
data_center = "01"
timezone = "Europe/Berlin"
secret_key = "canary-5d41402a"

[[destinations]]
name = "archive"
url = "file:///archive"

[[reports]]
source = "campaign_report"
name = "Report test"
schedule = { every = "day", at = "09:30" }
"#;

/// Loads `bytes` as `moesync.toml`; messages name the file without its folder.
fn load_bytes(bytes: &[u8], env: &[(&str, &str)]) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("moesync.toml");
    fs::write(&path, bytes).unwrap();
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    config::load(&path, env).map_err(|problem| {
        assert!(!format!("{problem} {problem:?}").contains(CANARY), "a secret is shown: {problem}");
        problem.to_string().replace(&format!("{}/", folder.path().display()), "")
    })
}

fn load(text: &str) -> Result<Config, String> {
    load_bytes(text.as_bytes(), &[])
}

/// The good configuration, with one piece of its text replaced.
fn changed(old: &str, new: &str) -> String {
    assert!(GOOD.contains(old), "{old}");
    GOOD.replacen(old, new, 1)
}

/// The errors of these mistakes, one line each.
fn errors_of(mistakes: &[(&str, &str)]) -> String {
    let texts: Vec<_> = mistakes.iter().map(|(old, new)| changed(old, new)).collect();
    errors_in(&texts)
}

fn errors_in(texts: &[String]) -> String {
    let lines: Vec<_> = texts.iter().map(|text| load(text).expect_err(text)).collect();
    assert!(lines.iter().all(|line| line.lines().count() == 1), "{lines:#?}");
    lines.join("\n")
}

/// The good configuration, with a table before it.
fn with_table(table: &str) -> String {
    format!("{table}\n{GOOD}")
}

/// The good configuration, with these lines in its report.
fn with_report_lines(lines: &str) -> String {
    format!("{GOOD}{lines}\n")
}

/// The good configuration, with another source in its report and these lines.
fn with_source(source: &str, lines: &str) -> String {
    format!("{}{lines}\n", changed("campaign_report", source))
}

fn env_error(name: &str, value: &str) -> String {
    load_bytes(GOOD.as_bytes(), &[(name, value)]).unwrap_err()
}

/// The example with every setting in it switched on.
fn uncommented(example: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(setting) if !setting.is_empty() && !setting.starts_with(' ') => setting.to_owned(),
        _ => line.to_owned(),
    };
    example.lines().map(|text| line(text) + "\n").collect()
}

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
        .filter(|line| !["token_file", "proxy", "ca_file"].iter().any(|key| line.starts_with(key)))
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
            toml::Value::Table(_) if path.ends_with(".options") => {}
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
    let tables: String = ["ledger", "web", "limits", "network", "alarms"]
        .map(|table| format!("[{table}]\n{}", defaults(&schema["properties"][table]["properties"], &[])))
        .concat();
    let report = &schema["properties"]["reports"]["items"]["properties"];
    let written = load(&format!("{tables}{GOOD}{}", defaults(report, &["buffer", "suffix"]))).unwrap();
    assert_eq!(without_lines(&written), without_lines(&load(GOOD).unwrap()));

    let dump = with_source("daily_dump", "");
    let written = load(&format!("{dump}{}", defaults(report, &["give_up_after"]))).unwrap();
    assert_eq!(without_lines(&written), without_lines(&load(&dump).unwrap()));

    let stats = with_source("campaign_stats", "metric_type = \"TOTAL\"\nattribution_type = \"IN_SESSION\"");
    let written = load(&format!("{stats}{}", defaults(report, &["window_days", "refresh_days", "shape"]))).unwrap();
    assert_eq!(without_lines(&written), without_lines(&load(&stats).unwrap()));
}

#[test]
fn the_environment_overrides_any_key_of_a_table_in_the_type_it_needs() {
    let file = with_table("[ledger]\nurl = \"sqlite://a.db\"\n[limits]\nconcurrency = 8");
    let env = [
        ("MOESYNC__LEDGER__URL", "postgres://moesync@db/moesync"),
        ("MOESYNC__LIMITS__CONCURRENCY_PER_WORKSPACE", "2"),
        ("MOESYNC__LIMITS__ARCHIVE_BYTES", "1000000"),
        ("MOESYNC__NETWORK__ALLOW_HTTP", "true"),
        ("MOESYNC__WEB__LISTEN", ""),
        ("MOESYNC__WEB__OPEN", "health,metrics"),
        ("MOESYNC__ALARMS__EXPIRY", "48h, 12h"),
        ("MOESYNC_LOG", "not ours"),
        ("PATH", "/bin"),
    ];
    let config = load_bytes(file.as_bytes(), &env).unwrap();
    assert_eq!(config.ledger, Ledger::Postgres("postgres://moesync@db/moesync".into()));
    assert_eq!((config.limits.concurrency, config.limits.concurrency_per_workspace), (8, 2));
    assert_eq!(config.limits.archive_bytes, 1_000_000);
    assert!(config.network.allow_http && config.web.listen.is_none());
    assert_eq!(config.web.open, [Open::Health, Open::Metrics]);
    assert_eq!(config.alarms.expiry, [48, 12].map(SignedDuration::from_hours));
}

#[test]
fn a_mistake_in_the_environment_names_the_variable() {
    let errors = [
        env_error("MOESYNC__LEDGR__URL", "sqlite://x.db"),
        env_error("MOESYNC__LEDGER", CANARY),
        env_error("MOESYNC__WORKSPACES__0__SECRET_KEY", CANARY),
        env_error("MOESYNC__LIMITS__CONCURRENCY", "many"),
        env_error("MOESYNC__LIMITS__CONCURRENCY", "0"),
        env_error("MOESYNC__ALARMS__EXPIRY", "48h,soon"),
        env_error("MOESYNC__LEDGER__URL", "mysql://user:canary-5d41402a@db/x"),
    ];
    insta::assert_snapshot!(errors.join("\n"), @r#"
    environment variable MOESYNC__LEDGR__URL: unknown setting; did you mean "MOESYNC__LEDGER__URL"?
    environment variable MOESYNC__LEDGER: unknown setting; did you mean "MOESYNC__LEDGER__URL"?
    environment variable MOESYNC__WORKSPACES__0__SECRET_KEY: workspaces, destinations, reports and notify targets are set in the file alone
    environment variable MOESYNC__LIMITS__CONCURRENCY: limits.concurrency: expected an integer, found a string
    environment variable MOESYNC__LIMITS__CONCURRENCY: limits.concurrency: must be from 1 to 1024, found 0
    environment variable MOESYNC__ALARMS__EXPIRY: alarms.expiry[1]: expected a duration such as "30m", "1h30m" or "7d" (w, d, h, m, s), found "soon"
    environment variable MOESYNC__LEDGER__URL: ledger.url: expected sqlite://PATH or postgres://USER:PASSWORD@HOST/DATABASE
    "#);
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
    insta::assert_snapshot!(errors_of(&[
        ("timezone =", "timezoen ="),
        ("secret_key =", "secret ="),
        ("every =", "evry ="),
        ("[[destinations]]", "[[destination]]"),
        ("[[workspaces]]", "[ledger]\nurll = \"sqlite://x\"\n[[workspaces]]"),
        ("[[workspaces]]", "ledger.url = \"sqlite://x\"\nlegder = 1\n[[workspaces]]"),
        ("[[workspaces]]", "\"ledger.url\" = \"sqlite://x\"\n[[workspaces]]"),
        ("name = \"acme\"", "name = \"acme\"\nxyz = \"canary-5d41402a\""),
    ]), @r#"
    moesync.toml:5: workspaces[0].timezoen: unknown key; did you mean "timezone"?
    moesync.toml:6: workspaces[0].secret: unknown key; did you mean "secret_key"?
    moesync.toml:15: reports[0].schedule.evry: unknown key; did you mean "every"?
    moesync.toml:8: destination: unknown key; did you mean "destinations"?
    moesync.toml:2: ledger.urll: unknown key; did you mean "url"?
    moesync.toml:2: legder: unknown key; did you mean "ledger"?
    moesync.toml:1: ledger.url: unknown key
    moesync.toml:3: workspaces[0].xyz: unknown key; known here: name, app_id, data_center, base_url, timezone, secret_key_file, secret_key_env, secret_key, api_key_file, api_key_env, api_key, allow_world_readable
    "#);
}

#[test]
fn a_wrong_type_is_reported_with_the_expected_and_the_found_one() {
    insta::assert_snapshot!(errors_of(&[
        ("schedule =", "buffer = 30\nschedule ="),
        ("\"APP-1\"", "5"),
        ("\"01\"", "1"),
        ("\"canary-5d41402a\"", "[\"canary-5d41402a\"]"),
        ("secret_key =", "allow_world_readable = \"canary-5d41402a\"\nsecret_key ="),
        ("{ every = \"day\", at = \"09:30\" }", "\"canary-5d41402a\""),
        ("\"day\"", "1"),
        ("\"09:30\"", "930"),
        ("\"campaign_report\"", "true"),
        ("[[workspaces]]", "[limits]\nconcurrency = 1.5\n[[workspaces]]"),
        ("[[workspaces]]", "[alarms]\nexpiry = \"6h\"\n[[workspaces]]"),
        ("[[workspaces]]", "ledger = \"canary-5d41402a\"\n[[workspaces]]"),
        ("[[workspaces]]", "[workspaces]"),
        ("url =", "options = { aws_secret_access_key = 5 }\nurl ="),
    ]), @r#"
    moesync.toml:15: reports[0].buffer: expected a duration such as "30m", found an integer
    moesync.toml:3: workspaces[0].app_id: expected a string, found an integer
    moesync.toml:4: workspaces[0].data_center: expected a data centre in quotes, such as "01", found an integer
    moesync.toml:6: workspaces[0].secret_key: expected a string, found a list
    moesync.toml:6: workspaces[0].allow_world_readable: expected a boolean, found a string
    moesync.toml:15: reports[0].schedule: expected a schedule such as { every = "day", at = "09:30" }, found a string
    moesync.toml:15: reports[0].schedule.every: expected "day", "week" or "month", found an integer
    moesync.toml:15: reports[0].schedule.at: expected a time such as "09:30", found an integer
    moesync.toml:13: reports[0].source: expected a source such as "campaign_report", found a boolean
    moesync.toml:2: limits.concurrency: expected an integer, found a decimal number
    moesync.toml:2: alarms.expiry: expected a list, found a string
    moesync.toml:1: ledger: expected a table, found a string
    moesync.toml:1: workspaces: expected a list, found a table; each table of a list has two brackets, such as [[reports]]
    moesync.toml:10: destinations[0].options.aws_secret_access_key: expected a string, found an integer
    "#);
}

#[test]
fn text_that_is_not_toml_is_reported_with_line_and_column_and_not_quoted() {
    insta::assert_snapshot!(errors_of(&[
        ("\"canary-5d41402a\"", "\"canary-5d41402a"),
        ("\"canary-5d41402a\"", "canary-5d41402a"),
        ("secret_key = ", ""),
        ("\"canary-5d41402a\"", "\"canary-5d41402a\" \"canary-5d41402a\""),
        ("timezone", "secret_key = \"canary-5d41402a\"\ntimezone"),
        ("[[workspaces]]", "[[workspaces]"),
        ("\"canary-5d41402a\"", "99999999999999999999"),
    ]), @r#"
    moesync.toml:6:30: not valid TOML: invalid basic string, expected `"`
    moesync.toml:6:14: not valid TOML: string values must be quoted, expected literal string
    moesync.toml:6:18: not valid TOML: key with no value, expected `=`
    moesync.toml:6:32: not valid TOML: unexpected key or value, expected newline, `#`
    moesync.toml:7:1: not valid TOML: duplicate key
    moesync.toml:1:14: not valid TOML: unclosed array table, expected `]`
    moesync.toml:6:14: not valid TOML: a number is out of range
    "#);
}

#[test]
fn a_file_that_is_missing_or_not_text_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = config::load(&folder.path().join("moesync.toml"), []).unwrap_err().to_string();
    let missing = missing.replace(&folder.path().display().to_string(), "/folder");
    let not_text = load_bytes(b"# a\n# \xff\n", &[]).unwrap_err();
    insta::assert_snapshot!(format!("{missing}\n{not_text}"), @r#"
    cannot read the configuration /folder/moesync.toml: No such file or directory (os error 2); name another file with --config FILE
    moesync.toml:2: not UTF-8 text; save the file in that encoding
    "#);
}

#[test]
fn a_named_file_is_used_even_if_it_does_not_exist() {
    assert_eq!(config::locate(Some(Path::new("elsewhere.toml"))).unwrap(), PathBuf::from("elsewhere.toml"));
}

#[test]
fn a_missing_key_is_named_with_the_line_of_its_table() {
    insta::assert_snapshot!(errors_of(&[
        ("name = \"acme\"\n", ""),
        ("timezone = \"Europe/Berlin\"\n", ""),
        ("data_center = \"01\"\n", ""),
        ("url = \"file:///archive\"\n", ""),
        ("source = \"campaign_report\"\n", ""),
        ("name = \"Report test\"\n", ""),
        ("schedule = { every = \"day\", at = \"09:30\" }\n", ""),
        ("[[reports]]\nsource = \"campaign_report\"\nname = \"Report test\"\nschedule = { every = \"day\", at = \"09:30\" }\n", ""),
        ("[[destinations]]\nname = \"archive\"\nurl = \"file:///archive\"\n", ""),
    ]), @r#"
    moesync.toml:1: workspaces[0].name: missing, but required
    moesync.toml:1: workspaces[0].timezone: missing, but required
    moesync.toml:1: workspaces[0]: data_center or base_url is missing; exactly one is required
    moesync.toml:8: destinations[0].url: missing, but required
    moesync.toml:12: reports[0].source: missing, but required
    moesync.toml:12: reports[0].name: missing, but required: the report's name in MoEngage's dashboard
    moesync.toml:12: reports[0].schedule: missing, but required
    moesync.toml: no report is configured; add at least one [[reports]] table
    moesync.toml:9: reports[0].destination: no destination is configured; add a [[destinations]] table
    "#);
}

#[test]
fn a_workspace_has_exactly_one_valid_address() {
    let address = |url: &str| format!("base_url = \"{url}\"");
    let mistakes = [
        "data_center = \"1\"".to_owned(),
        "data_center = \"07\"".to_owned(),
        format!("data_center = \"01\"\n{}", address("https://x.example")),
        address("api-01.moengage.com"),
        address("ftp://x.example"),
        address("https://x.example/?key=canary-5d41402a"),
        address("https://x.example/#part"),
        address("https://user:canary-5d41402a@x.example"),
        address("http://x.example"),
    ];
    let mistakes: Vec<_> = mistakes.iter().map(|line| changed("data_center = \"01\"", line)).collect();
    insta::assert_snapshot!(errors_in(&mistakes), @r##"
    moesync.toml:4: workspaces[0].data_center: expected "01", "02", "03", "04", "05", "06" or "101", found "1"; did you mean "01"?
    moesync.toml:4: workspaces[0].data_center: expected "01", "02", "03", "04", "05", "06" or "101", found "07"; a data centre added later can be given as base_url
    moesync.toml:5: workspaces[0].base_url: data_center is given too; exactly one of the two is required
    moesync.toml:4: workspaces[0].base_url: expected an address such as "https://api-01.moengage.com"
    moesync.toml:4: workspaces[0].base_url: expected an address such as "https://api-01.moengage.com"
    moesync.toml:4: workspaces[0].base_url: an address ends before "?" and "#"; remove them and what follows
    moesync.toml:4: workspaces[0].base_url: an address ends before "?" and "#"; remove them and what follows
    moesync.toml:4: workspaces[0].base_url: an address with a user or password in it; credentials have keys of their own
    moesync.toml:4: workspaces[0].base_url: http:// is not encrypted and only allowed for loopback addresses; use https://, or set allow_http = true in [network]
    "##);
}

#[test]
fn a_base_url_may_be_http_on_loopback_or_where_allowed_and_loses_its_last_slash() {
    let url = |url: &str| changed("data_center = \"01\"", &format!("base_url = \"{url}\""));
    let base_url = |text: &str| load(text).unwrap().workspaces[0].base_url.to_string();
    assert_eq!(base_url(&url("https://gateway.example/moengage/")), "https://gateway.example/moengage");
    for loopback in ["http://127.0.0.1:8080/", "http://127.8.8.8/", "http://[::1]:8080/", "http://localhost:1/"] {
        assert_eq!(base_url(&url(loopback)), loopback);
    }
    let allowed = format!("[network]\nallow_http = true\n{}", url("http://x.example"));
    assert_eq!(base_url(&allowed), "http://x.example/");
    let report =
        load(&with_report_lines("base_url = \"https://other.example/\"\ntimezone = \"Asia/Kolkata\"")).unwrap();
    assert_eq!(report.reports[0].base_url.as_str(), "https://other.example/");
    assert_eq!(report.reports[0].timezone.iana_name(), Some("Asia/Kolkata"));
}

#[test]
fn an_unknown_zone_is_reported_with_the_nearest() {
    let zone = |zone: &str| ("\"Europe/Berlin\"", format!("\"{zone}\""));
    let mistakes = ["Europe/Berln", "Berlin", "kolkata", "+05:30", "", "Etc/Unknown"].map(zone);
    let mistakes: Vec<_> = mistakes.iter().map(|(old, new)| changed(old, new)).collect();
    let report = with_report_lines("timezone = \"Asia/Calcuta\"");
    insta::assert_snapshot!(errors_in(&[mistakes, vec![report]].concat()), @r#"
    moesync.toml:5: workspaces[0].timezone: no zone is called "Europe/Berln"; did you mean "Europe/Berlin"?
    moesync.toml:5: workspaces[0].timezone: no zone is called "Berlin"; did you mean "Europe/Berlin"?
    moesync.toml:5: workspaces[0].timezone: no zone is called "kolkata"; did you mean "Asia/Kolkata"?
    moesync.toml:5: workspaces[0].timezone: "+05:30" is an offset, without the rules for clock changes; expected an IANA name such as "Europe/Berlin" or "Asia/Kolkata"
    moesync.toml:5: workspaces[0].timezone: no zone is called ""; expected an IANA name such as "Europe/Berlin"
    moesync.toml:5: workspaces[0].timezone: no zone is called "Etc/Unknown"; did you mean "Etc/UTC"?
    moesync.toml:16: reports[0].timezone: no zone is called "Asia/Calcuta"; did you mean "Asia/Calcutta"?
    "#);
}

#[test]
fn a_secret_has_exactly_one_source() {
    insta::assert_snapshot!(errors_of(&[
        ("secret_key = \"canary-5d41402a\"\n", ""),
        ("secret_key =", "secret_key_file = \"/key\"\nsecret_key ="),
        ("secret_key =", "secret_key_file = \"/key\"\nsecret_key_env = \"KEY\"\nsecret_key ="),
        ("secret_key =", "api_key_file = \"/key\"\napi_key_env = \"KEY\"\nsecret_key ="),
        ("\"canary-5d41402a\"", "\"\""),
        ("secret_key =", "secret_key_env ="),
        ("secret_key = \"canary-5d41402a\"", "secret_key_file = \"${UNSET\""),
    ]), @r#"
    moesync.toml:1: workspaces[0]: no secret key; give exactly one of secret_key_file, secret_key_env and secret_key
    moesync.toml:7: workspaces[0].secret_key: only one of secret_key_file, secret_key may be given; remove the others
    moesync.toml:8: workspaces[0].secret_key: only one of secret_key_file, secret_key_env, secret_key may be given; remove the others
    moesync.toml:7: workspaces[0].api_key_env: only one of api_key_file, api_key_env may be given; remove the others
    moesync.toml:6: workspaces[0].secret_key: must not be empty
    moesync.toml:6: workspaces[0].secret_key_env: expected the name of an environment variable: letters, digits and "_"
    moesync.toml:6: workspaces[0].secret_key_file: a "${" has no closing "}"
    "#);
}

#[test]
fn a_secret_file_is_read_at_each_use_without_its_line_ends() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("acme.key");
    let text = changed("secret_key = \"canary-5d41402a\"", "secret_key_file = \"${KEYS}/acme.key\"");
    let keys = folder.path().display().to_string();
    let config = load_bytes(text.as_bytes(), &[("KEYS", &keys)]).expect("the file is not looked at yet");
    let secret = || config.workspaces[0].secret_key.resolve().map(|secret| secret.expose_secret().to_owned());
    let write = |bytes: &[u8], mode: u32| {
        fs::write(&key, bytes).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
    };
    let error = || {
        let error = secret().unwrap_err().to_string().replace(&keys, "/keys");
        let (_, at_home) = error.split_once("moesync.toml").unwrap();
        format!("moesync.toml{at_home}")
    };

    let mut errors = vec![error()];
    write(b"canary-5d41402a\r\n\n", 0o640);
    assert_eq!(secret().unwrap(), CANARY);
    write(b" new key ", 0o600);
    assert_eq!(secret().unwrap(), " new key ", "it takes effect without a restart, and only line ends are trimmed");
    for (bytes, mode) in [
        (&b"canary-5d41402a"[..], 0o644),
        (b"\n", 0o600),
        (b"canary-5d41402a\nkey = 2", 0o600),
        (b"canary-5d41402a\xff", 0o600),
        (&[b'x'; 70_000], 0o600),
    ] {
        write(bytes, mode);
        errors.push(error());
    }
    assert!(!errors.concat().contains(CANARY));
    insta::assert_snapshot!(errors.join("\n"), @r#"
    moesync.toml:6: workspaces[0].secret_key_file: cannot read the secret file /keys/acme.key: No such file or directory (os error 2)
    moesync.toml:6: workspaces[0].secret_key_file: every user of this machine may read the secret file /keys/acme.key (mode 0644); run `chmod o-r` on it (or, for a workspace's key or a notify target's, set allow_world_readable = true there)
    moesync.toml:6: workspaces[0].secret_key_file: the secret in the file /keys/acme.key is empty
    moesync.toml:6: workspaces[0].secret_key_file: the secret in the file /keys/acme.key has several lines; a key has one
    moesync.toml:6: workspaces[0].secret_key_file: the secret file /keys/acme.key is not UTF-8 text
    moesync.toml:6: workspaces[0].secret_key_file: the secret file /keys/acme.key is larger than 64 KiB, so it is not a key
    "#);

    write(b"canary-5d41402a", 0o644);
    let allowed = text.replace("secret_key_file", "allow_world_readable = true\nsecret_key_file");
    let config = load_bytes(allowed.as_bytes(), &[("KEYS", &keys)]).unwrap();
    assert_eq!(config.workspaces[0].secret_key.resolve().unwrap().expose_secret(), CANARY);
}

#[test]
fn a_secret_in_the_environment_is_read_when_it_is_needed() {
    // Cargo sets the first for every test; nothing sets the second.
    let source = |name: &str| {
        load(&changed("secret_key = \"canary-5d41402a\"", &format!("secret_key_env = \"{name}\""))).unwrap().workspaces
            [0]
        .secret_key
        .clone()
    };
    assert_eq!(source("CARGO_PKG_NAME").resolve().unwrap().expose_secret(), "moesync");
    let problem = source("MOESYNC_TEST_UNSET").resolve().unwrap_err().to_string();
    let (_, problem) = problem.rsplit_once('/').unwrap();
    insta::assert_snapshot!(problem, @r#"moesync.toml:6: workspaces[0].secret_key_env: the environment variable MOESYNC_TEST_UNSET is not set; it should hold a secret"#);
}

#[test]
fn an_unset_variable_in_the_path_of_a_secret_is_reported_when_it_is_needed() {
    let file = changed("secret_key = \"canary-5d41402a\"", "secret_key_file = \"${UNSET}/key\"");
    let config = load(&file).unwrap();
    let problem = config.workspaces[0].secret_key.resolve().unwrap_err().to_string();
    let (_, problem) = problem.rsplit_once('/').unwrap();
    insta::assert_snapshot!(problem, @r#"moesync.toml:6: workspaces[0].secret_key_file: the environment variable "UNSET" in this path is not set"#);
}

#[test]
fn a_destination_is_a_folder_or_a_bucket() {
    let url = |new: &str| changed("file:///archive", new);
    let loaded = |new: &str| load(&url(new)).unwrap().destinations[0].location.clone();
    let bucket = |provider, prefix: &str| {
        Location::Bucket(BucketLocation { provider, bucket: "bucket".to_owned(), prefix: prefix.to_owned() })
    };
    assert_eq!(loaded("s3://bucket/prefix/"), bucket(Provider::S3, "prefix"));
    assert_eq!(loaded("gs://bucket"), bucket(Provider::GoogleCloud, ""));
    assert_eq!(loaded("az://bucket/my%20reports/x"), bucket(Provider::Azure, "my reports/x"));
    assert_eq!(loaded("file:///var/lib/my reports"), Location::Directory("/var/lib/my reports".into()));
    assert_eq!(loaded("file:///var/lib/my%20reports/"), Location::Directory("/var/lib/my reports".into()));
    let here = std::env::current_dir().unwrap();
    assert_eq!(loaded("file://./archive"), Location::Directory(here.join("archive")));
    let config = load_bytes(url("file://${HOME}/archive").as_bytes(), &[("HOME", "/home/me")]).unwrap();
    assert_eq!(config.destinations[0].location, Location::Directory("/home/me/archive".into()));
    let options = changed("url =", "options = { AWS_Region = \"eu\", aws_secret_access_key = \"5\" }\nurl =");
    let config = load(&options).unwrap();
    let options: Vec<_> = config.destinations[0].options.iter().map(|(k, v)| (k.as_str(), v.expose_secret())).collect();
    assert_eq!(options, [("AWS_Region", "eu"), ("aws_secret_access_key", "5")]);

    let mistakes = [
        "/var/lib/archive",
        "file://archive",
        "ftp://x/y",
        "s3:///prefix",
        "s3://user:canary-5d41402a@bucket",
        "s3://bucket?secret=canary-5d41402a",
        "file://${UNSET}/archive",
    ];
    let mut mistakes: Vec<_> = mistakes.iter().map(|new| url(new)).collect();
    mistakes.push(changed("url = \"file:///archive\"", "url = \"s3://bucket\"\nfsync = false"));
    insta::assert_snapshot!(errors_in(&mistakes), @r##"
    moesync.toml:10: destinations[0].url: expected file:///PATH, file://./PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX
    moesync.toml:10: destinations[0].url: a path after file:// begins with "/", or with "./" when it is relative
    moesync.toml:10: destinations[0].url: expected file:///PATH, file://./PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX
    moesync.toml:10: destinations[0].url: expected file:///PATH, file://./PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX
    moesync.toml:10: destinations[0].url: only a bucket and a prefix are expected here; credentials and endpoints are options
    moesync.toml:10: destinations[0].url: a destination's URL ends before "?" and "#"; write them as %3F and %23 within a path
    moesync.toml:10: destinations[0].url: the environment variable "UNSET" in this path is not set
    moesync.toml:11: destinations[0].fsync: only for file:// destinations, not s3://
    "##);
}

#[test]
fn a_ledger_is_a_file_or_a_postgres_database() {
    let ledger = |url: &str| with_table(&format!("[ledger]\nurl = \"{url}\""));
    let loaded = |url: &str| load(&ledger(url)).unwrap().ledger;
    assert_eq!(loaded("sqlite:///var/lib/moesync.db"), Ledger::Sqlite("/var/lib/moesync.db".into()));
    assert_eq!(loaded("sqlite:moesync.db"), Ledger::Sqlite("moesync.db".into()));
    assert_eq!(loaded("postgresql://db/x"), Ledger::Postgres("postgresql://db/x".into()));
    let config = load_bytes(ledger("sqlite://${STATE}/x.db").as_bytes(), &[("STATE", "/state")]).unwrap();
    assert_eq!(config.ledger, Ledger::Sqlite("/state/x.db".into()));
    let mistakes = ["sqlite::memory:", "sqlite://", "sqlite://x.db?mode=ro", "mysql://u:canary-5d41402a@db/x", ""];
    insta::assert_snapshot!(errors_in(&mistakes.map(ledger)), @r#"
    moesync.toml:2: ledger.url: expected the path of a file after sqlite://, and nothing else
    moesync.toml:2: ledger.url: expected the path of a file after sqlite://, and nothing else
    moesync.toml:2: ledger.url: expected the path of a file after sqlite://, and nothing else
    moesync.toml:2: ledger.url: expected sqlite://PATH or postgres://USER:PASSWORD@HOST/DATABASE
    moesync.toml:2: ledger.url: expected sqlite://PATH or postgres://USER:PASSWORD@HOST/DATABASE
    "#);
}

#[test]
fn a_quantity_out_of_range_is_reported_with_the_range() {
    let mistakes = [
        "[web]\nlisten = \"localhost:8787\"",
        "[web]\ntoken_file = \"\"",
        "[limits]\nconcurrency = 0",
        "[limits]\nconcurrency_per_workspace = -1",
        "[limits]\nconcurrency_per_destination = 1025",
        "[limits]\ninflate_ratio = 0",
        "[limits]\narchive_bytes = 0",
        "[limits]\narchive_bytes = -5",
        "[limits]\narchive_bytes = \"20 gigs\"",
        "[limits]\ninflated_bytes = \"999999999999 TiB\"",
        "[limits]\nattempt_timeout = \"0s\"",
        "[limits]\nattempt_timeout = \"an hour\"",
        "[limits]\nattempt_timeout = \"99999999999999h\"",
        "[limits]\nconnect_timeout = \"1mo\"",
        "[limits]\nmin_rate = \"1 KiB\"",
        "[limits]\nmin_rate = \"0 B/s\"",
        "[alarms]\nlate_after = \"-1h\"",
        "[alarms]\nexpiry = [\"72h\", \"0s\"]",
        "[network]\nproxy = \"socks5://user:canary-5d41402a@proxy\"",
    ];
    let mut mistakes: Vec<_> = mistakes.iter().map(|table| with_table(table)).collect();
    mistakes.push(with_report_lines("buffer = \"7d\""));
    insta::assert_snapshot!(errors_in(&mistakes), @r#"
    moesync.toml:2: web.listen: expected an IP address and a port, such as "127.0.0.1:8787", or "" for none, found "localhost:8787"
    moesync.toml:2: web.token_file: expected the path of a file, found nothing
    moesync.toml:2: limits.concurrency: must be from 1 to 1024, found 0
    moesync.toml:2: limits.concurrency_per_workspace: must be from 1 to 1024, found -1
    moesync.toml:2: limits.concurrency_per_destination: must be from 1 to 1024, found 1025
    moesync.toml:2: limits.inflate_ratio: must be from 1 to 1000000, found 0
    moesync.toml:2: limits.archive_bytes: must be from 1 B to 1 PiB, found "0"
    moesync.toml:2: limits.archive_bytes: expected a size such as "20 GiB", "500 MB" or a number of bytes, found "-5"
    moesync.toml:2: limits.archive_bytes: expected a size such as "20 GiB", "500 MB" or a number of bytes, found "20 gigs"
    moesync.toml:2: limits.inflated_bytes: must be from 1 B to 1 PiB, found "999999999999 TiB"
    moesync.toml:2: limits.attempt_timeout: must be from 1s to 1d, found "0s"
    moesync.toml:2: limits.attempt_timeout: expected a duration such as "30m", "1h30m" or "7d" (w, d, h, m, s), found "an hour"
    moesync.toml:2: limits.attempt_timeout: expected a duration such as "30m", "1h30m" or "7d" (w, d, h, m, s), found "99999999999999h"
    moesync.toml:2: limits.connect_timeout: expected a duration such as "30m", "1h30m" or "7d" (w, d, h, m, s), found "1mo"
    moesync.toml:2: limits.min_rate: expected a rate such as "1 KiB/s", found "1 KiB"
    moesync.toml:2: limits.min_rate: must be from 1 B/s to 1 PiB/s, found "0 B/s"
    moesync.toml:2: alarms.late_after: must be from 0s to 366d, found "-1h"
    moesync.toml:2: alarms.expiry[1]: must be from 1s to 366d, found "0s"
    moesync.toml:2: network.proxy: expected an address such as "http://proxy.example:3128"
    moesync.toml:16: reports[0].buffer: must be from 0s to 6d, found "7d"
    "#);
}

#[test]
fn quantities_have_units() {
    let config = load(&with_table(
        "[limits]\narchive_bytes = \"500 MB\"\ninflated_bytes = 1048576\nattempt_timeout = \"1h30m\"\nmin_rate = \"2KiB/s\"\n\
         [alarms]\nlate_after = \"0s\"\nexpiry = [\"45s\", \"1w\", \"7d\"]",
    ))
    .unwrap();
    assert_eq!((config.limits.archive_bytes, config.limits.inflated_bytes), (500_000_000, 1_048_576));
    assert_eq!((config.limits.attempt_timeout, config.limits.min_rate), (Duration::from_secs(5400), 2048));
    assert_eq!(config.alarms.late_after, SignedDuration::ZERO);
    let expiry = [SignedDuration::from_hours(7 * 24), SignedDuration::from_secs(45)];
    assert_eq!(config.alarms.expiry, expiry, "longest first, each once");
}

#[test]
fn a_schedule_is_daily_weekly_monthly_or_once() {
    let schedule = |written: &str| {
        let text = changed("{ every = \"day\", at = \"09:30\" }", written);
        load(&text).unwrap().reports[0].schedule.clone()
    };
    let at = time(9, 30, 15, 0);
    let weekly = |on: &[Weekday]| Schedule::Weekly { on: on.to_vec(), at };
    let friday = weekly(&[Weekday::Friday]);
    assert_eq!(schedule("{ every = \"week\", on = \"Friday\", at = \"09:30:15\" }"), friday);
    assert_eq!(schedule("{ every = \"week\", on = [\"friday\"], at = \"09:30:15\" }"), friday);
    let two = weekly(&[Weekday::Monday, Weekday::Thursday]);
    assert_eq!(schedule("{ every = \"week\", on = [\"thursday\", \"monday\"], at = \"09:30:15\" }"), two);
    let third = Schedule::Monthly { on: MonthDay::Day(3), at };
    assert_eq!(schedule("{ every = \"month\", on = 3, at = 09:30:15 }"), third);
    let last = Schedule::Monthly { on: MonthDay::Last, at };
    assert_eq!(schedule("{ every = \"month\", on = \"last\", at = \"09:30:15\" }"), last);
    let once = |at| Schedule::Once { date: date(2026, 11, 21), at };
    assert_eq!(schedule("{ once = \"2026-11-21\", at = \"09:30:15\" }"), once(Some(at)));
    assert_eq!(schedule("{ once = 2026-11-21 }"), once(None));
}

#[test]
fn an_invalid_schedule_is_reported_with_the_reason() {
    let mistakes = [
        "{ }",
        "{ at = \"09:30\" }",
        "{ every = \"day\", once = \"2026-11-21\", at = \"09:30\" }",
        "{ every = \"day\" }",
        "{ every = \"daily\", at = \"09:30\" }",
        "{ every = \"day\", on = \"monday\", at = \"09:30\" }",
        "{ every = \"week\", at = \"09:30\" }",
        "{ every = \"week\", on = \"mondya\", at = \"09:30\" }",
        "{ every = \"week\", on = [], at = \"09:30\" }",
        "{ every = \"week\", on = [\"monday\", \"friday\", \"Monday\"], at = \"09:30\" }",
        "{ every = \"week\", on = [\"monday\", \"fryday\"], at = \"09:30\" }",
        "{ every = \"week\", on = [1], at = \"09:30\" }",
        "{ every = \"month\", on = [\"last\"], at = \"09:30\" }",
        "{ every = \"month\", at = \"09:30\" }",
        "{ every = \"month\", on = 32, at = \"09:30\" }",
        "{ every = \"month\", on = \"first\", at = \"09:30\" }",
        "{ every = \"day\", at = \"25:00\" }",
        "{ every = \"day\", at = \"9.30 am\" }",
        "{ once = \"2026-02-30\" }",
        "{ once = \"2026-11-21\", on = 1 }",
    ];
    let mistakes = mistakes.map(|written| changed("{ every = \"day\", at = \"09:30\" }", written));
    insta::assert_snapshot!(errors_in(&mistakes), @r#"
    moesync.toml:15: reports[0].schedule: every or once is missing; exactly one is required
    moesync.toml:15: reports[0].schedule: every or once is missing; exactly one is required
    moesync.toml:15: reports[0].schedule: every and once are both given; exactly one is required
    moesync.toml:15: reports[0].schedule.at: missing, but required with every
    moesync.toml:15: reports[0].schedule.every: expected "day", "week" or "month", found "daily"
    moesync.toml:15: reports[0].schedule.on: only with every = "week" or "month"
    moesync.toml:15: reports[0].schedule.on: missing, but required with every = "week", such as on = "monday"
    moesync.toml:15: reports[0].schedule.on: expected a day of the week such as "monday", found "mondya"; did you mean "monday"?
    moesync.toml:15: reports[0].schedule.on: must name at least one day
    moesync.toml:15: reports[0].schedule.on[2]: "Monday" is in the list already
    moesync.toml:15: reports[0].schedule.on[1]: expected a day of the week such as "monday", found "fryday"; did you mean "friday"?
    moesync.toml:15: reports[0].schedule.on[0]: expected a string, found an integer
    moesync.toml:15: reports[0].schedule.on: expected one day; with every = "week" it may be a list
    moesync.toml:15: reports[0].schedule.on: missing, but required with every = "month", such as on = 1 or on = "last"
    moesync.toml:15: reports[0].schedule.on: expected a day of the month from 1 to 31, or "last", found "32"
    moesync.toml:15: reports[0].schedule.on: expected a day of the month from 1 to 31, or "last", found "first"
    moesync.toml:15: reports[0].schedule.at: expected a time such as "09:30", found "25:00"
    moesync.toml:15: reports[0].schedule.at: expected a time such as "09:30", found "9.30 am"
    moesync.toml:15: reports[0].schedule.once: expected a date such as "2026-11-21", found "2026-02-30"
    moesync.toml:15: reports[0].schedule.on: only with every = "week" or "month"
    "#);
}

#[test]
fn a_report_refers_to_existing_workspaces_and_destinations() {
    let second_workspace = changed(
        "[[destinations]]",
        &format!("{}[[destinations]]", GOOD.split("[[dest").next().unwrap()),
    )
    .replacen("\"acme\"", "\"other\"", 1);
    let second_destination =
        changed("[[reports]]", "[[destinations]]\nname = \"lake\"\nurl = \"s3://lake\"\n\n[[reports]]");
    let mistakes = [
        with_report_lines("workspace = \"acmee\""),
        with_report_lines("destination = \"somewhere\""),
        second_workspace,
        second_destination,
        with_report_lines("\n[[destinations]]\nname = \"archive\"\nurl = \"s3://lake\""),
        changed("\"campaign_report\"", "\"campain_report\""),
        changed("\"Report test\"", "\"\""),
        changed("\"Report test\"", "\"Report\\ttest\""),
        changed("\"Report test\"", &format!("\"{}\"", "long ".repeat(50))),
        with_report_lines("suffix = \".a.very.long.suffix\""),
        changed("\"APP-1\"", "\"APP 1\""),
        with_report_lines("start = \"21.11.2026\""),
    ];
    insta::assert_snapshot!(errors_in(&mistakes), @r#"
    moesync.toml:16: reports[0].workspace: no workspace is called "acmee"; did you mean "acme"?
    moesync.toml:16: reports[0].destination: no destination is called "somewhere"; there is "archive"
    moesync.toml:19: reports[0].workspace: missing, but required where there are several: "other" or "acme"
    moesync.toml:16: reports[0].destination: missing, but required where there are several: "archive" or "lake"
    moesync.toml:18: destinations[1].name: "archive" is already used, at moesync.toml:9
    moesync.toml:13: reports[0].source: expected "campaign_report", "daily_dump", "campaign_stats", "campaigns", "campaign_meta" or "executions", found "campain_report"; did you mean "campaign_report"?
    moesync.toml:14: reports[0].name: must not be empty
    moesync.toml:14: reports[0].name: must not contain control characters, found "Report\ttest"
    moesync.toml:14: reports[0].name: must have at most 200 bytes, has 250
    moesync.toml:16: reports[0].suffix: must have at most 16 bytes and no control characters
    moesync.toml:3: workspaces[0].app_id: expected MoEngage's workspace id, without spaces or colons
    moesync.toml:16: reports[0].start: expected a date such as "2026-11-21", found "21.11.2026"
    "#);
}

#[test]
fn a_key_without_effect_for_its_source_is_refused() {
    let mistakes = [
        with_source("daily_dump", "suffix = \".zip\""),
        with_report_lines("give_up_after = \"7d\""),
        with_report_lines("window_days = 2"),
        with_source("executions", "channels = [\"EMAIL\"]"),
        with_source("campaigns", "campaign_ids = [\"1\"]"),
    ];
    insta::assert_snapshot!(errors_in(&mistakes), @r#"
    moesync.toml:16: reports[0].suffix: only for the source "campaign_report"; this report's is "daily_dump"
    moesync.toml:16: reports[0].give_up_after: only for the source "daily_dump"; this report's is "campaign_report"
    moesync.toml:16: reports[0].window_days: only for the source "campaign_stats"; this report's is "campaign_report"
    moesync.toml:16: reports[0].channels: only for the source "campaigns" or "campaign_meta"; this report's is "executions"
    moesync.toml:16: reports[0].campaign_ids: only for the source "campaign_stats" or "executions"; this report's is "campaigns"
    "#);
}

#[test]
fn the_settings_of_the_json_sources_are_checked() {
    let stats = |lines: &str| with_source("campaign_stats", lines);
    let both = "metric_type = \"TOTAL\"\nattribution_type = \"IN_SESSION\"";
    let created = |dates: &str| with_source("campaigns", &format!("created_date = {dates}"));
    let mistakes = [
        stats("metric_type = \"TOTAL\""),
        stats("attribution_type = \"IN_SESSION\""),
        stats("metric_type = \"TOTALS\""),
        stats("attribution_type = \"CLICK\""),
        stats(&format!("{both}\nwindow_days = 32")),
        stats(&format!("{both}\nrefresh_days = -1")),
        stats(&format!("{both}\nshape = \"row\"")),
        stats(&format!("{both}\ncampaign_ids = [\"1\", \"\"]")),
        stats(&format!("{both}\ncampaign_ids = [1]")),
        created("{ from_date = \"2026-01-01\" }"),
        created("{ from_date = \"2026-01-02\", to_date = \"01-01-2026\" }"),
    ];
    insta::assert_snapshot!(errors_in(&mistakes), @r#"
    moesync.toml:12: reports[0].attribution_type: missing, but required for the source "campaign_stats"
    moesync.toml:12: reports[0].metric_type: missing, but required for the source "campaign_stats"
    moesync.toml:16: reports[0].metric_type: expected "TOTAL" or "UNIQUE", found "TOTALS"; did you mean "TOTAL"?
    moesync.toml:16: reports[0].attribution_type: expected "VIEW_THROUGH", "CLICK_THROUGH", "IN_SESSION", "TOTAL_CONVERSIONS" or "CLICK_CONVERSIONS", found "CLICK"; did you mean "CLICK_THROUGH"?
    moesync.toml:18: reports[0].window_days: must be from 1 to 31, found 32
    moesync.toml:18: reports[0].refresh_days: must be from 0 to 366, found -1
    moesync.toml:18: reports[0].shape: expected "raw" or "rows", found "row"; did you mean "rows"?
    moesync.toml:18: reports[0].campaign_ids[1]: must not be empty or contain control characters
    moesync.toml:18: reports[0].campaign_ids[0]: expected a string, found an integer
    moesync.toml:16: reports[0].created_date.to_date: missing, but required
    moesync.toml:16: reports[0].created_date.to_date: 2026-01-01 is before from_date, 2026-01-02
    "#);
    let config = load(&created("{ from_date = \"01-12-2026\", to_date = 2026-12-02 }")).unwrap();
    let Source::Snapshot(SnapshotSource::Campaigns(query)) = &config.reports[0].source else { panic!("{config:?}") };
    assert_eq!(query.created_date, Some((date(2026, 12, 1), date(2026, 12, 2))));
}

#[test]
fn two_reports_with_one_key_are_reported_with_both_lines() {
    let report = |lines: &str| {
        format!(
            "{GOOD}destination = \"archive\"\n\n[[destinations]]\nname = \"same\"\nurl = \"file:///archive/\"\n\n\
             [[destinations]]\nname = \"lake\"\nurl = \"s3://lake\"\n\n\
             [[reports]]\nsource = \"daily_dump\"\nschedule = {{ every = \"day\", at = \"06:00\" }}\n{lines}\n"
        )
    };
    let mistakes = [
        report("id = \"Report test\"\ndestination = \"lake\""),
        report("id = \"report_TEST\"\ndestination = \"archive\""),
        report("id = \"Report/test\"\ndestination = \"same\""),
    ];
    insta::assert_snapshot!(errors_in(&mistakes), @r#"
    moesync.toml:26: reports[1]: the workspace "acme" has a report with the id "Report test" already, at moesync.toml:12; give one of them another id
    moesync.toml:26: reports[1]: the objects of "acme", "report_TEST" would be stored in acme/report_TEST, the folder of "acme", "Report test" at moesync.toml:12; give one of them another id
    moesync.toml:26: reports[1]: the objects of "acme", "Report/test" would be stored in acme/Report_test, the folder of "acme", "Report test" at moesync.toml:12; give one of them another id
    "#);
    load(&report("id = \"report_TEST\"\ndestination = \"lake\"")).unwrap();
}

#[test]
fn no_secret_is_shown_by_a_valid_configuration() {
    let text = changed("secret_key =", "api_key = \"canary-5d41402a\"\nsecret_key =")
        .replace("url =", "options = { aws_secret_access_key = \"canary-5d41402a\" }\nurl =");
    let text = format!(
        "[ledger]\nurl = \"postgres://moesync:canary-5d41402a@db/moesync?password=canary-5d41402a\"\n\
         [network]\nproxy = \"http://user:canary-5d41402a@proxy:3128\"\n{text}"
    );
    let config = load(&text).unwrap();
    assert!(!format!("{config:?} {config:#?}").contains(CANARY), "{config:?}");
}

/// A typing error at every position of a configuration: a character too many, one too few, the end cut off. The result
/// may be valid; if not, [`load_bytes`] checks the error for the secret.
#[test]
fn no_typing_error_brings_a_secret_into_an_error() {
    let mut refused = 0;
    for at in 0..GOOD.len() {
        let (before, after) = GOOD.split_at(at);
        refused += usize::from(load(&format!("{before}{}", &after[1..])).is_err());
        refused += usize::from(load(before).is_err());
        for slip in ['"', '=', '\n', '[', '}', '#', '.'] {
            refused += usize::from(load(&format!("{before}{slip}{after}")).is_err());
        }
    }
    assert!(refused > GOOD.len(), "most slips are noticed: {refused}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_text_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[\\PC\\n]{0,200}") {
        let _ = load_bytes(&bytes, &[]);
        let _ = load(&text);
    }

    #[test]
    fn no_change_of_the_example_makes_it_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), "[\\PC]{0,3}|\n|\"|= 0\n|= -9\n"), 1..4)
    ) {
        let mut text: Vec<char> = uncommented(EXAMPLE).chars().collect();
        for (index, insert) in changes {
            let at = index.index(text.len());
            text.splice(at..at + 1, insert.chars());
        }
        let _ = load(&text.into_iter().collect::<String>());
    }
}

/// The good configuration, with a target of these lines.
fn with_target(lines: &str) -> String {
    format!("{GOOD}\n[[notify]]\nname = \"hook\"\n{lines}\n")
}

#[test]
fn the_default_events_of_a_target_depend_on_its_kind() {
    let secret = "secret = \"whsec_bW9lc3luYy1leGFtcGxlLW1vZXN5bmMtZXhhbXBsZQ==\"";
    let target = |lines: &str| load(&with_target(lines)).unwrap().notify.remove(0);
    let events = |lines: &str| target(lines).events().cloned().unwrap();
    let all = Events { stored: true, summary: true, ..Events::alarms() };
    assert_eq!(events(&format!("kind = \"webhook\"\nurl = \"https://hooks.example/\"\n{secret}")), all);
    assert_eq!(events("kind = \"slack\"\nurl_env = \"SLACK\""), Events::alarms());
    let some = Events { alarms: [AlarmKind::Late].into(), stored: true, summary: false };
    assert_eq!(events("kind = \"slack\"\nurl_env = \"SLACK\"\nevents = [\"late\", \"stored\"]"), some);
    let Channel::Ping { every } = target("kind = \"ping\"\nurl = \"http://127.0.0.1/x\"").channel else { panic!() };
    assert_eq!(every, SignedDuration::from_mins(5));
}

#[test]
fn an_invalid_target_is_refused_and_its_address_not_shown() {
    let slack = "kind = \"slack\"\n";
    let hook = "kind = \"webhook\"\nurl = \"https://hooks.example/\"\n";
    let texts = [
        with_target("kind = \"email\""),
        with_target("kind = \"slack\""),
        with_target(&format!("{slack}url = \"hooks.example/canary-5d41402a\"")),
        with_target(&format!("{slack}url = \"http://hooks.example/canary-5d41402a\"")),
        with_target(&format!("{slack}url = \"https://hooks.example/\"\nurl_env = \"SLACK\"")),
        with_target(&format!("{slack}url_env = \"SLACK\"\nsecret_env = \"SECRET\"")),
        with_target(&format!("{slack}url_env = \"SLACK\"\nevents = []")),
        with_target(&format!("{slack}url_env = \"SLACK\"\nevents = [\"lots\"]")),
        with_target(&format!("{slack}url_env = \"SLACK\"\nevery = \"5m\"")),
        with_target(hook),
        with_target(&format!("{hook}secret = \"canary-5d41402a\"")),
        with_target("kind = \"ping\"\nurl_env = \"PING\"\nevery = \"5s\""),
        with_target("kind = \"ping\"\nurl_env = \"PING\"\nevents = [\"alarms\"]"),
        with_target(&format!("{slack}url_env = \"SLACK\"\nchannel = \"#ops\"")),
        with_target(&format!("{slack}url_env = \"A\"\n[[notify]]\nname = \"hook\"\n{slack}url_env = \"B\"")),
    ];
    insta::assert_snapshot!(errors_in(&texts), @r#"
    moesync.toml:19: notify[0].kind: expected "webhook", "slack" or "ping", found "email"
    moesync.toml:17: notify[0]: no address; give exactly one of url_file, url_env and url
    moesync.toml:20: notify[0].url: expected an address that begins with https://
    moesync.toml:20: notify[0].url: http:// is not encrypted and only allowed for loopback addresses; use https://, or set allow_http = true in [network]
    moesync.toml:20: notify[0].url: only one of url_env, url may be given; remove the others
    moesync.toml:21: notify[0].secret_env: a target of kind "slack" does not have this key; remove it
    moesync.toml:21: notify[0].events: must not be empty; leave it out for the default
    moesync.toml:21: notify[0].events[0]: expected "alarms", "stored", "summary", "lost", "expiring", "late", "unauthorized", "rejected", "corrupt", "unsupported", "store_failed", "other_content", "ledger", "configuration", "clock" or "panic", found "lots"; did you mean "lost"?
    moesync.toml:21: notify[0].every: a target of kind "slack" does not have this key; remove it
    moesync.toml:17: notify[0]: no secret; give exactly one of secret_file, secret_env and secret
    moesync.toml:21: notify[0].secret: expected "whsec_" and 24 to 64 bytes in base64; `echo whsec_$(openssl rand -base64 32)` makes one
    moesync.toml:21: notify[0].every: must be from 1m to 1d, found "5s"
    moesync.toml:21: notify[0].events: a target of kind "ping" does not have this key; remove it
    moesync.toml:21: notify[0].channel: unknown key; known here: name, kind, url_file, url_env, url, secret_file, secret_env, secret, events, every, allow_world_readable
    moesync.toml:22: notify[1].name: "hook" is already used, at moesync.toml:18
    "#);
}

/// A time zone database of this version that has one zone, at UTC+5:30.
fn zone_database(version: &str, zone: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tzdata.zi"), format!("# version {version}\n# more\n")).unwrap();
    let block = [
        b"TZif2".as_slice(),
        &[0; 15],
        // Counts: UT and standard indicators, leap seconds, transitions, types, bytes of names.
        &[0_u32, 0, 0, 0, 1, 4].map(u32::to_be_bytes).concat(),
        &19_800_i32.to_be_bytes(),
        &[0, 0],
        b"XST\0",
    ]
    .concat();
    let file = folder.path().join(zone);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, [&block, &block, b"\nXST-5:30\n".as_slice()].concat()).unwrap();
    folder
}

#[test]
fn the_newer_time_zone_database_is_used_and_completed_from_the_other() {
    let havana = changed("Europe/Berlin", "America/Havana");
    let offset = |version: &str, text: &str| {
        let database = zone_database(version, "America/Havana");
        let config = load_bytes(text.as_bytes(), &[("TZDIR", database.path().to_str().unwrap())]).unwrap();
        let instant = "2026-01-15T12:00:00Z".parse().unwrap();
        (config.workspaces[0].timezone.to_offset(instant).seconds(), config.tzdata)
    };
    let (seconds, name) = offset("2099a", &havana);
    assert_eq!(seconds, 19_800);
    assert!(name.starts_with("2099a, of /"), "{name}");
    assert_eq!(offset("2099a", GOOD).0, 3600, "Berlin is not in that database");
    for old in ["2020a", "local", ""] {
        let (seconds, name) = offset(old, &havana);
        assert_eq!(seconds, -5 * 3600, "{old}");
        assert!(name.ends_with(", of this program"), "{name}");
    }
}

#[test]
fn an_offset_instead_of_a_zone_is_refused_without_a_guess() {
    insta::assert_snapshot!(errors_of(&[("Europe/Berlin", "GMT+5:30"), ("Europe/Berlin", "UTC-3")]), @r#"
    moesync.toml:5: workspaces[0].timezone: "GMT+5:30" is an offset, without the rules for clock changes; expected an IANA name such as "Europe/Berlin" or "Asia/Kolkata"
    moesync.toml:5: workspaces[0].timezone: "UTC-3" is an offset, without the rules for clock changes; expected an IANA name such as "Europe/Berlin" or "Asia/Kolkata"
    "#);
}

#[test]
fn a_base_url_with_the_path_of_an_endpoint_is_refused() {
    let base_url = |path: &str| {
        let url = format!("base_url = \"https://api-01.moengage.com/{path}\"");
        load(&changed("data_center = \"01\"", &url))
    };
    let refusals = ["campaign_reports/rest_api/APP-1", "dailyCampaignReportDump", "core-services/v1/campaigns"]
        .map(|path| base_url(path).unwrap_err());
    insta::assert_snapshot!(refusals.join("\n"), @r#"
    moesync.toml:4: workspaces[0].base_url: the address ends before "/campaign_reports": moesync adds the path of each API itself
    moesync.toml:4: workspaces[0].base_url: the address ends before "/dailyCampaignReportDump": moesync adds the path of each API itself
    moesync.toml:4: workspaces[0].base_url: the address ends before "/core-services": moesync adds the path of each API itself
    "#);
    assert!(base_url("moengage").is_ok(), "a proxy may have a path of its own");
}

fn warnings(text: &str, env: &[(&str, &str)]) -> String {
    let config = load_bytes(text.as_bytes(), env).unwrap();
    let lines: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
    lines
        .iter()
        .map(|line| line.rsplit_once("/moesync.toml").map_or(line.as_str(), |(_, rest)| rest))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn an_invisible_character_in_a_report_name_is_a_warning() {
    assert_eq!(warnings(GOOD, &[]), "");
    for plain in ["Año nuevo 50% off", "日報 🎉", "کمپین\u{200c}ها"] {
        assert_eq!(warnings(&changed("Report test", plain), &[]), "", "{plain}");
    }
    insta::assert_snapshot!(warnings(&changed("Report test", "Report\u{a0}test"), &[]), @r#":14: reports[0].name: "Report\u{a0}test" has U+00A0 as its character 7, which is invisible or looks like a space and often comes from a web page; MoEngage finds the report only if its name in the dashboard has it too"#);
    assert!(warnings(&changed("Report test", "Report test\u{200b}"), &[]).contains("U+200B as its character 12"));
    let placeholder = warnings(&changed("APP-1", "YOUR-APP-ID"), &[]);
    assert!(placeholder.contains("workspaces[0].app_id: \"YOUR-APP-ID\" is the placeholder"), "{placeholder}");
}

#[test]
fn proxy_variables_without_effect_are_a_warning() {
    let good = [
        ("HTTP_PROXY", "proxy.example:3128"),
        ("HTTPS_PROXY", "http://user:canary-5d41402a@proxy.example"),
        ("https_proxy", ""),
        ("NO_PROXY", "localhost, .example.com,10.0.0.0/8,::1,*"),
    ];
    assert_eq!(warnings(GOOD, &good), "");
    let bad = [
        ("HTTP_PROXY", "not an address canary-5d41402a"),
        ("https_proxy", "http://"),
        ("no_proxy", "minio:9000,*.internal.test,[::1]:80,fine.test"),
    ];
    let shown = warnings(GOOD, &bad);
    assert!(!shown.contains(CANARY), "{shown}");
    insta::assert_snapshot!(shown, @r#"
    environment variable HTTP_PROXY: not an address such as "http://proxy.example:3128", so no proxy is used for it
    environment variable https_proxy: not an address such as "http://proxy.example:3128", so no proxy is used for it
    environment variable no_proxy: "minio:9000" has no effect; write "minio"
    environment variable no_proxy: "*.internal.test" has no effect; write ".internal.test"
    environment variable no_proxy: "[::1]:80" has no effect; write "::1"
    "#);
}

#[test]
fn a_key_file_may_begin_with_a_byte_order_mark_and_odd_keys_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (key, config) = (folder.path().join("key"), folder.path().join("moesync.toml"));
    fs::write(
        &config,
        changed("secret_key = \"canary-5d41402a\"", "secret_key_file = \"KEY\"").replace("KEY", key.to_str().unwrap()),
    )
    .unwrap();
    fs::write(&key, "").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let config = config::load(&config, []).unwrap();
    let secret = |bytes: &[u8]| {
        fs::write(&key, bytes).unwrap();
        let source = &config.workspaces[0].secret_key;
        let text =
            source.resolve().map(|secret| secret.expose_secret().to_owned()).map_err(|problem| problem.to_string());
        (text, source.oddity().map(|problem| problem.to_string()))
    };
    assert_eq!(secret(b"\xef\xbb\xbfcanary-5d41402a\r\n"), (Ok(CANARY.to_owned()), None));
    for (bytes, odd) in
        [("canary-5d41402a \n", "a space"), ("\"canary-5d41402a\"\n", "quotes"), ("'canary-5d41402a'", "quotes")]
    {
        let (text, oddity) = secret(bytes.as_bytes());
        assert_eq!(text.unwrap(), bytes.trim_end_matches('\n'), "it is taken as it is");
        let oddity = oddity.expect(bytes);
        assert!(oddity.contains("secret_key_file") && oddity.contains(odd) && !oddity.contains(CANARY), "{oddity}");
    }
    let (_, oddity) = secret(b"YOUR-SECRET-KEY\n");
    assert!(oddity.is_some_and(|oddity| oddity.to_string().contains("placeholder")));
    for utf_16 in [b"k\0e\0y\0".as_slice(), b"\xff\xfek\0e\0y\0"] {
        let (text, _) = secret(utf_16);
        assert!(text.clone().unwrap_err().contains("UTF-"), "{text:?}");
    }
}

#[test]
fn all_mistakes_are_reported_together_in_the_order_of_the_file() {
    let text = format!(
        "[limits]\nconcurrency = 0\nmin_rate = \"fast\"\n\n{}buffer = \"7d\"\nstart = \"soon\"\n\n[[notify]]\nname = \"\"\nkind = \"slack\"\n",
        changed("Europe/Berlin", "Berlin")
            .replace("\"APP-1\"", "\"APP 1\"")
            .replace("file:///archive", "ftp://archive")
    );
    let mistakes = load(&text).unwrap_err();
    let places: Vec<_> = mistakes.lines().map(|line| line.splitn(4, ':').take(3).collect::<String>()).collect();
    assert_eq!(
        places,
        [
            "moesync.toml2 limits.concurrency",
            "moesync.toml3 limits.min_rate",
            "moesync.toml7 workspaces[0].app_id",
            "moesync.toml9 workspaces[0].timezone",
            "moesync.toml14 destinations[0].url",
            "moesync.toml20 reports[0].buffer",
            "moesync.toml21 reports[0].start",
            "moesync.toml23 notify[0]",
            "moesync.toml24 notify[0].name",
        ],
        "{mistakes}"
    );
}

#[test]
fn a_mistake_that_follows_from_another_is_not_reported() {
    for (old, new, place) in [
        ("\"01\"", "\"99\"", "workspaces[0].data_center"),
        ("file:///archive", "ftp://archive", "destinations[0].url"),
        ("\"Report test\"", "\"\"", "reports[0].name"),
    ] {
        let mistakes = load(&changed(old, new)).unwrap_err();
        assert_eq!(mistakes.lines().count(), 1, "{mistakes}");
        assert!(mistakes.contains(place), "{mistakes}");
    }
}

#[test]
fn every_unknown_missing_and_mistyped_key_is_reported_and_hides_no_other_table() {
    let text = r#"colour = "red"

[web]
listen = 8787
open = ["health", "metric", 5]
host = "moesync.example.com"

[limits]
concurrency = 0

[[workspaces]]
namr = "acme"
app_id = 1
data_center = 1
secret_key = "canary-5d41402a"

[[workspaces]]
name = "other"
app_id = "APP 2"
data_center = "01"
timezone = "Europe/Berlin"
secret_key = "canary-5d41402a"

[[destinations]]
name = "archive"
url = "/archive"

[[reports]]
source = "campaign_report"
name = "Report test"
schedule = { every = "dya", at = 9 }

[[reports]]
source = "campaign_stats"
schedule = { every = "day", at = "09:30" }
metric_type = "total"
attribution_type = true

[[reports]]
source = "campaign_report"
name = "Another"
schedule = { every = "day", at = "9.30" }
"#;
    insta::assert_snapshot!(load(text).unwrap_err(), @r#"
    moesync.toml:1: colour: unknown key; known here: ledger, web, limits, network, alarms, workspaces, destinations, reports, notify
    moesync.toml:4: web.listen: expected a string, found an integer
    moesync.toml:5: web.open[1]: expected "health" or "metrics", found "metric"; did you mean "metrics"?
    moesync.toml:5: web.open[2]: expected "health" or "metrics", found an integer
    moesync.toml:6: web.host: unknown key; did you mean "hosts"?
    moesync.toml:9: limits.concurrency: must be from 1 to 1024, found 0
    moesync.toml:11: workspaces[0].timezone: missing, but required
    moesync.toml:12: workspaces[0].namr: unknown key; did you mean "name"?
    moesync.toml:13: workspaces[0].app_id: expected a string, found an integer
    moesync.toml:14: workspaces[0].data_center: expected a data centre in quotes, such as "01", found an integer
    moesync.toml:19: workspaces[1].app_id: expected MoEngage's workspace id, without spaces or colons
    moesync.toml:26: destinations[0].url: expected file:///PATH, file://./PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX
    moesync.toml:31: reports[0].schedule.every: expected "day", "week" or "month", found "dya"; did you mean "day"?
    moesync.toml:31: reports[0].schedule.at: expected a time such as "09:30", found an integer
    moesync.toml:36: reports[1].metric_type: expected "TOTAL" or "UNIQUE", found "total"; did you mean "TOTAL"?
    moesync.toml:37: reports[1].attribution_type: expected an attribution type such as "CLICK_THROUGH", found a boolean
    moesync.toml:42: reports[2].schedule.at: expected a time such as "09:30", found "9.30"
    "#);
}

#[test]
fn a_table_that_cannot_be_read_causes_no_further_mistakes() {
    let misspelt = changed("[[destinations]]", "[[destination]]");
    let unread = changed("url = \"file", "ulr = \"file");
    let named = unread.replace("source = ", "destination = \"archive\"\nsource = ");
    let plain_http = with_table("[network]\nallow_http = 1")
        .replace("data_center = \"01\"", "base_url = \"http://moengage.example\"");
    let single = changed("[[reports]]", "[reports]");
    let lines: Vec<_> =
        [misspelt, unread, named, plain_http, single].iter().map(|text| load(text).unwrap_err()).collect();
    insta::assert_snapshot!(lines.join("\n\n"), @r#"
    moesync.toml:8: destination: unknown key; did you mean "destinations"?

    moesync.toml:10: destinations[0].ulr: unknown key; did you mean "url"?

    moesync.toml:10: destinations[0].ulr: unknown key; did you mean "url"?

    moesync.toml:2: network.allow_http: expected a boolean, found an integer

    moesync.toml:12: reports: expected a list, found a table; each table of a list has two brackets, such as [[reports]]
    "#);
}

#[test]
fn a_key_given_under_both_its_names_hides_no_other_mistake() {
    let twice = with_source("campaigns", "include_archive_campaigns = true\ninclude_archived_campaigns = true");
    let errors = load(&format!("[limits]\nconcurrency = 0\n{twice}")).unwrap_err();
    insta::assert_snapshot!(errors, @r#"
    moesync.toml:2: limits.concurrency: must be from 1 to 1024, found 0
    moesync.toml:14: reports[0]: include_archive_campaigns is given twice, under two names
    "#);
}

#[test]
fn every_variable_that_names_no_setting_is_reported_with_the_mistakes_of_the_file() {
    let text = changed("name = \"archive\"", "name = \"archive\"\ncolour = \"red\"");
    let env =
        [("MOESYNC__LIMITS__CONCURENCY", "1"), ("MOESYNC__WEB__OPEN", "health,meters"), ("MOESYNC__COLOUR", "red")];
    insta::assert_snapshot!(load_bytes(text.as_bytes(), &env).unwrap_err(), @r#"
    moesync.toml:10: destinations[0].colour: unknown key; known here: name, url, options, fsync
    environment variable MOESYNC__COLOUR: unknown setting
    environment variable MOESYNC__LIMITS__CONCURENCY: unknown setting; did you mean "MOESYNC__LIMITS__CONCURRENCY"?
    environment variable MOESYNC__WEB__OPEN: web.open[1]: expected "health" or "metrics", found "meters"; did you mean "metrics"?
    "#);
}
