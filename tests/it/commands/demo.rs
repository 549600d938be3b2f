//! `moesync demo`.

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

#[tokio::test]
async fn a_second_demo_leaves_the_first_alone() {
    let folder = tempfile::tempdir().unwrap();
    let demo = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moesync"));
        command.args(arguments).current_dir(folder.path()).kill_on_drop(true);
        command
    };
    let mut first = demo(&["demo", "--keep-running"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(first.stdout.take().unwrap()).lines();
    while !lines.next_line().await.unwrap().expect("it ended").starts_with("Running as a daemon") {}
    let second = demo(&["demo"]).output().await.unwrap();
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(second.status.code() == Some(1) && said.contains("another `moesync demo` runs"), "{said}");
    first.kill().await.unwrap();
}

#[tokio::test]
async fn the_demo_stores_seven_dates_of_each_daily_report_at_any_hour() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_moesync"));
    command.args(["demo", "--json"]).current_dir(folder.path()).kill_on_drop(true);
    let ran = tokio::time::timeout(std::time::Duration::from_secs(120), command.output()).await.unwrap().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let printed: Value = serde_json::from_slice(&ran.stdout).unwrap();
    let stored = |report: &str| {
        let partitions = printed["partitions"].as_array().unwrap().iter();
        partitions.filter(|partition| partition["report"] == report && partition["state"] == "stored").count()
    };
    for report in ["daily-campaigns", "daily-conversions", "daily-dump", "campaign_stats"] {
        assert_eq!(stored(report), 7, "{report}");
    }
    for report in ["weekly-summary", "campaigns", "campaign_meta", "executions"] {
        assert_eq!(stored(report), 1, "{report}");
    }
    let made = |report: &str| {
        let partitions = printed["partitions"].as_array().unwrap().iter();
        partitions.filter(|partition| partition["report"] == report && partition["tables"] == "made").count()
    };
    assert_eq!(["daily-campaigns", "campaign_stats", "daily-dump"].map(made), [7, 7, 0]);
}
