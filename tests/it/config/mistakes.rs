//! Mistakes in the structure: unknown, missing, mistyped and repeated keys, all reported together.

use super::{GOOD, changed, errors_in, errors_of, load, with_report_lines, with_source, with_table};

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
    moesync.toml:3: workspaces[0].xyz: unknown key; known here: name, app_id, data_center, base_url, timezone, secret_key_file, secret_key_env, secret_key_command, secret_key, api_key_file, api_key_env, api_key_command, api_key, allow_world_readable
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
fn an_unknown_or_mistyped_key_hides_no_mistake_in_the_other_keys_of_its_table() {
    let text = r#"[limits]
concurrenzy = 8
concurrency_per_workspace = 0
attempt_timeout = 3600
min_rate = "fast"

[[workspaces]]
name = "acme"
app_id = "APP 1"
data_centre = "01"
timezone = "Berlin"
secret_key_flie = "key"

[[workspaces]]
name = "other"
app_id = "APP-2"
data_center = "01"
timezone = "Europe/Berlin"
secret_key = "canary-5d41402a"

[[destinations]]
name = "archive"
url = "file:///archive"

[[reports]]
source = "campaign_report"
tablez = "parquet"
workspace = "none"
destination = "nowhere"
schedule = { every = "week", on = 3, at = "9:99" }
buffer = "-1m"
metric_type = "TOTAL"
start = "2026-02-30"

[[reports]]
source = "campaign_raport"
name = ""
metric_type = "TOTAL"
schedule = { every = "day", at = "09:30" }
"#;
    insta::assert_snapshot!(load(text).unwrap_err(), @r#"
    moesync.toml:2: limits.concurrenzy: unknown key; did you mean "concurrency"?
    moesync.toml:3: limits.concurrency_per_workspace: must be from 1 to 1024, found 0
    moesync.toml:4: limits.attempt_timeout: expected a duration such as "30m", found an integer
    moesync.toml:5: limits.min_rate: expected a rate such as "1 KiB/s", found "fast"
    moesync.toml:9: workspaces[0].app_id: expected MoEngage's workspace id, without spaces or colons
    moesync.toml:10: workspaces[0].data_centre: unknown key; did you mean "data_center"?
    moesync.toml:11: workspaces[0].timezone: no zone is called "Berlin"; did you mean "Europe/Berlin"?
    moesync.toml:12: workspaces[0].secret_key_flie: unknown key; did you mean "secret_key_file"?
    moesync.toml:27: reports[0].tablez: unknown key; did you mean "tables"?
    moesync.toml:29: reports[0].destination: no destination is called "nowhere"; there is "archive"
    moesync.toml:30: reports[0].schedule.at: expected a time such as "09:30", found "9:99"
    moesync.toml:31: reports[0].buffer: must be from 0s to 6d, found "-1m"
    moesync.toml:32: reports[0].metric_type: only for the source "campaign_stats"; this report's is "campaign_report"
    moesync.toml:33: reports[0].start: expected a date such as "2026-11-21", found "2026-02-30"
    moesync.toml:36: reports[1].source: expected "campaign_report", "daily_dump", "campaign_stats", "campaigns", "campaign_meta" or "executions", found "campaign_raport"; did you mean "campaign_report"?
    "#);
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
    moesync.toml:1: colour: unknown key; known here: instance, ledger, web, limits, network, alarms, workspaces, destinations, reports, notify
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
