//! Every setting in force is shown with its origin and without secrets.

use std::fs;

use moesync::config::{self, Setting};

use super::{CANARY, EXAMPLE, GOOD, load, uncommented};

/// The settings of the files in a folder, as lines; origins name the files without the folder.
fn settings(files: &[(&str, &str)], env: &[(&str, &str)]) -> Vec<Setting> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    config::effective(folder.path(), env).unwrap()
}

fn lines(settings: &[Setting]) -> String {
    let line = |setting: &Setting| {
        let origin = setting.origin.to_string();
        let origin = origin.rsplit('/').next().unwrap();
        format!("{} = {}  # {origin}\n", setting.key, setting.value)
    };
    settings.iter().map(line).collect()
}

#[test]
fn each_setting_has_its_value_and_the_file_variable_or_default_that_it_comes_from() {
    let more = r#"
[limits]
min_rate = "${RATE}"

[[reports]]
source = "campaign_stats"
metric_type = "TOTAL"
attribution_type = "CLICK_THROUGH"
schedule = { every = "day", at = "06:00" }
"#;
    let env = [
        ("RATE", "2 KiB/s"),
        ("MOESYNC__LIMITS__CONCURRENCY", "8"),
        ("MOESYNC__WEB__OPEN", "health, metrics"),
        ("MOESYNC__NETWORK__ALLOW_HTTP", "TRUE"),
    ];
    let shown = settings(&[("10-main.toml", GOOD), ("20-more.toml", more)], &env);
    insta::assert_snapshot!(lines(&shown), @r#"
    alarms.expiry = ["72h","24h","6h"]  # default
    alarms.late_after = "6h"  # default
    destinations[0].fsync = true  # default
    destinations[0].name = "archive"  # 10-main.toml:9
    destinations[0].url = "file:///archive"  # 10-main.toml:10
    instance.name = "moesync"  # default
    ledger.keep_attempts = "400d"  # default
    ledger.url = "sqlite://./moesync.db"  # default
    limits.archive_bytes = "20 GiB"  # default
    limits.attempt_timeout = "1h"  # default
    limits.concurrency = 8  # environment variable MOESYNC__LIMITS__CONCURRENCY
    limits.concurrency_per_destination = 8  # default
    limits.concurrency_per_workspace = 4  # default
    limits.connect_timeout = "10s"  # default
    limits.inflate_ratio = 500  # default
    limits.inflated_bytes = "200 GiB"  # default
    limits.min_rate = "2 KiB/s"  # 20-more.toml:3
    network.allow_http = true  # environment variable MOESYNC__NETWORK__ALLOW_HTTP
    reports[0].base_url = "https://api-01.moengage.com"  # default
    reports[0].buffer = "30m"  # default
    reports[0].column_types = {}  # default
    reports[0].destination = "archive"  # default
    reports[0].id = "Report test"  # default
    reports[0].name = "Report test"  # 10-main.toml:14
    reports[0].schedule = {"at":"09:30","every":"day"}  # 10-main.toml:15
    reports[0].source = "campaign_report"  # 10-main.toml:13
    reports[0].suffix = ".zip"  # default
    reports[0].tables = "none"  # default
    reports[0].timezone = "Europe/Berlin"  # default
    reports[0].workspace = "acme"  # default
    reports[1].attribution_type = "CLICK_THROUGH"  # 20-more.toml:8
    reports[1].base_url = "https://api-01.moengage.com"  # default
    reports[1].buffer = "30m"  # default
    reports[1].column_types = {}  # default
    reports[1].destination = "archive"  # default
    reports[1].id = "campaign_stats"  # default
    reports[1].metric_type = "TOTAL"  # 20-more.toml:7
    reports[1].name = "campaign_stats"  # default
    reports[1].refresh_days = 3  # default
    reports[1].schedule = {"at":"06:00","every":"day"}  # 20-more.toml:9
    reports[1].shape = "raw"  # default
    reports[1].source = "campaign_stats"  # 20-more.toml:6
    reports[1].tables = "none"  # default
    reports[1].timezone = "Europe/Berlin"  # default
    reports[1].window_days = 1  # default
    reports[1].workspace = "acme"  # default
    web.hosts = []  # default
    web.listen = "127.0.0.1:8787"  # default
    web.open = ["health","metrics"]  # environment variable MOESYNC__WEB__OPEN
    workspaces[0].allow_world_readable = false  # default
    workspaces[0].app_id = "APP-1"  # 10-main.toml:3
    workspaces[0].data_center = "01"  # 10-main.toml:4
    workspaces[0].name = "acme"  # 10-main.toml:2
    workspaces[0].secret_key = "[redacted]"  # 10-main.toml:6
    workspaces[0].timezone = "Europe/Berlin"  # 10-main.toml:5
    "#);
}

#[test]
fn no_secret_is_among_the_settings() {
    let text = format!(
        r#"
[ledger]
url = "postgres://moesync:{CANARY}@db/moesync?password={CANARY}"
[network]
proxy = "http://user:{CANARY}@proxy:3128"
[[workspaces]]
name = "second"
app_id = "APP-2"
data_center = "01"
timezone = "UTC"
secret_key_command = ["vault", "--token={CANARY}", "read"]
api_key_file = "${{KEYS}}/api"
[[destinations]]
name = "lake"
url = "s3://lake"
options = {{ aws_region = "eu-central-1", aws_secret_access_key = "{CANARY}", aws_endpoint = "http://u:{CANARY}@host" }}
[[notify]]
name = "on-call"
kind = "slack"
url = "https://hooks.example/{CANARY}"
"#
    );
    let main = GOOD.replace("[[reports]]", "[[reports]]\ndestination = \"archive\"\nworkspace = \"acme\"");
    let shown = lines(&settings(&[("a.toml", &text), ("b.toml", &main)], &[("KEYS", "/keys")]));
    assert!(!shown.contains(CANARY), "{shown}");
    let secret: String =
        shown.lines().filter(|line| line.contains("redacted")).map(|line| format!("{line}\n")).collect();
    insta::assert_snapshot!(secret, @r#"
    destinations[0].options = {"aws_endpoint":"[redacted]","aws_region":"eu-central-1","aws_secret_access_key":"[redacted]"}  # a.toml:16
    ledger.url = "postgres://moesync:redacted@db/moesync?redacted"  # a.toml:3
    network.proxy = "http://user:redacted@proxy:3128/"  # a.toml:5
    notify[0].url = "[redacted]"  # a.toml:20
    workspaces[0].secret_key_command = ["vault","[redacted]","[redacted]"]  # a.toml:11
    workspaces[1].secret_key = "[redacted]"  # b.toml:6
    "#);
    assert!(shown.contains(r#"api_key_file = "${KEYS}/api""#), "a path of a secret may have variables: {shown}");
}

#[test]
fn the_settings_of_the_example_are_a_configuration_with_the_same_settings() {
    // An address that is redacted is none.
    let example = uncommented(EXAMPLE);
    let example = example.split("\n[[notify]]").next().unwrap();
    let settings = |text: &str| settings(&[("moesync.toml", text)], &[("CREDENTIALS_DIRECTORY", "/run/credentials")]);
    let first = settings(example);
    let mut text = String::new();
    let mut current = String::new();
    for Setting { key, value, .. } in &first {
        let (table, name) = key.rsplit_once('.').unwrap();
        if table != current {
            text += &match table.split_once('[') {
                Some((list, _)) => format!("[[{list}]]\n"),
                None => format!("[{table}]\n"),
            };
            current = table.to_owned();
        }
        text += &format!("{name} = {}\n", toml::Value::try_from(value).unwrap());
    }
    load(&text.replace("${CREDENTIALS_DIRECTORY}", "/run")).unwrap();
    let values = |settings: &[Setting]| -> Vec<_> {
        settings.iter().map(|setting| (setting.key.clone(), setting.value.clone())).collect()
    };
    assert_eq!(values(&settings(&text)), values(&first));
}
