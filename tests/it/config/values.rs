//! Quantities, schedules, time zones, and the settings of the sources.

use std::{fs, time::Duration};

use jiff::{
    SignedDuration,
    civil::{Weekday, date, time},
};
use moesync::{
    config::{MonthDay, Schedule, SnapshotSource, Source},
    table_words::{ColumnType, TableFormat},
};

use super::{
    GOOD, changed, errors_in, errors_of, load, load_bytes, warnings, with_report_lines, with_source, with_table,
};

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
fn tables_and_the_types_of_their_columns_are_checked() {
    let with = |lines: &str| with_source("campaign_report", lines);
    let mistakes = [
        with("tables = \"parquett\""),
        with("tables = \"csv\""),
        with("column_types = { sent = \"int\" }"),
        with("column_types = { \"All Platform Sent\" = \"int64\" }"),
        with("column_types = { _entry = \"string\" }"),
        with("table = \"parquet\""),
    ];
    insta::assert_snapshot!(errors_in(&mistakes), @r#"
    moesync.toml:16: reports[0].tables: expected "none", "parquet" or "csv.gz", found "parquett"; did you mean "parquet"?
    moesync.toml:16: reports[0].tables: expected "none", "parquet" or "csv.gz", found "csv"; did you mean "csv.gz"?
    moesync.toml:16: reports[0].column_types.sent: expected "string", "int64", "double", "date", "timestamp" or "boolean", found "int"; did you mean "int64"?
    moesync.toml:16: reports[0].column_types.All Platform Sent: not the name of a column; it is the heading in lower-case words, such as "all_platform_sent"
    moesync.toml:16: reports[0].column_types._entry: not the name of a column; it is the heading in lower-case words, such as "all_platform_sent"
    moesync.toml:16: reports[0].table: unknown key; did you mean "tables"?
    "#);
    let given = load(&with("tables = \"csv.gz\"\ncolumn_types = { sent = \"double\" }")).unwrap();
    assert_eq!(given.reports[0].tables, Some(TableFormat::CsvGz));
    assert_eq!(given.reports[0].column_types.get("sent"), Some(&ColumnType::Double));
    assert_eq!(load(&with("tables = \"none\"")).unwrap().reports[0].tables, None);
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
