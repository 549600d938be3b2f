//! Log lines of commands: their fields, format and filter.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Bench, Series};

#[tokio::test(flavor = "multi_thread")]
async fn a_line_logged_during_an_attempt_names_its_partition() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let log = bench.run(&["--log-format", "json", "-v", "sync"]).await.expect(0).stderr;
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let during: Vec<_> = lines.filter(|line| line["span"]["name"] == "attempt").collect();
    assert!(!during.is_empty(), "{log}");
    for line in during {
        let date = bench.newest.to_string();
        let expected = json!({ "name": "attempt", "workspace": "acme", "report": "report-test", "date": date });
        assert_eq!(line["span"], expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_sets_format_and_filter_of_the_log_and_flags_win() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let logged = async |arguments: &[&str], environment: &[(&str, &str)], code| {
        // Each run makes an attempt that fails and one that stores.
        for folder in ["ledger", "reports"] {
            let _ = fs::remove_dir_all(bench.path(folder));
        }
        bench.fault("status=503,times=1");
        let mut command = bench.command(&[arguments, &["sync"]].concat());
        command.envs(environment.iter().copied());
        bench.finish(command).await.expect(code).stderr
    };
    let is_json = |log: &str| log.lines().all(|line| line.starts_with('{') && line.ends_with('}'));
    let log = logged(&[], &[("MOESYNC_LOG", "json"), ("RUST_LOG", "")], 0).await;
    assert!(is_json(&log) && log.contains("WARN") && !log.contains("DEBUG"), "{log}");
    let log = logged(&[], &[("MOESYNC_LOG", "pretty"), ("RUST_LOG", "moesync=debug")], 0).await;
    assert!(!is_json(&log) && log.contains("WARN"), "{log}");
    assert!(logged(&[], &[("RUST_LOG", "off")], 0).await.is_empty());
    let log = logged(&["--log-format", "json", "-v"], &[("MOESYNC_LOG", "pretty"), ("RUST_LOG", "off")], 0).await;
    assert!(is_json(&log) && log.contains("DEBUG"), "{log}");
    let refused = logged(&[], &[("RUST_LOG", "moesync=everything")], 2).await;
    assert!(refused.starts_with("error: RUST_LOG: \"moesync=everything\" is not a log filter"), "{refused}");
    let refused = logged(&[], &[("MOESYNC_LOG", "xml")], 2).await;
    assert!(refused.contains("xml") && refused.contains("journald"), "{refused}");
}

/// Number of JSON lines of this level about attempts that stored nothing.
fn of_attempts(log: &str, level: &str) -> usize {
    let level = format!("\"{level}\"");
    log.lines().filter(|line| line.contains("is not stored") && line.contains(&level)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_is_tried_again_within_seconds_is_a_warning_once_and_more_is_said_at_each_level() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    bench.fault("status=500");
    let mut lines = Vec::new();
    for (arguments, filter) in [(&["sync"][..], "info"), (&["-v", "sync"], ""), (&["-vv", "sync"], "")] {
        let _ = fs::remove_dir_all(bench.path("ledger"));
        let mut command = bench.command(arguments);
        command.envs([("RUST_LOG", filter), ("MOESYNC_LOG", "json")]);
        let log = bench.finish(command).await.expect(1).stderr;
        // The last of the quick tries is followed by a longer wait.
        assert_eq!((of_attempts(&log, "WARN"), of_attempts(&log, "ERROR")), (2, 0), "{log}");
        lines.push(log.lines().count());
    }
    assert!(lines.is_sorted_by(|fewer, more| fewer < more), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_fails_is_one_warning_for_all_partitions_until_it_works() {
    let bench = Bench::new(&[Series::campaign("Report test", 7)]).await;
    let warnings = async |code| {
        let log = bench.run(&["--log-format", "json", "-v", "sync"]).await.expect(code).stderr;
        (of_attempts(&log, "WARN"), of_attempts(&log, "DEBUG") > 6)
    };
    // A file where the workspace's folder should be.
    fs::create_dir_all(bench.path("reports")).unwrap();
    fs::write(bench.path("reports/acme"), "").unwrap();
    assert_eq!(warnings(1).await, (1, true));
    fs::remove_file(bench.path("reports/acme")).unwrap();
    let _ = fs::remove_dir_all(bench.path("ledger"));
    assert_eq!(warnings(0).await, (0, false));
}
