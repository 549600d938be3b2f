//! `moesync status`.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
};

use jiff::{SignedDuration, Timestamp};
use moesync::{
    emulator::Fault,
    sync::{self, Selection},
};
use serde_json::Value;
use tokio::process::Command;

use crate::support::{Bench, Daemon, Series, oracle::hash};

/// The fields of a partition, in their order.
const FIELDS: [&str; 18] = [
    "workspace",
    "report",
    "source",
    "date",
    "state",
    "outcome",
    "attempts",
    "generated_at",
    "due_at",
    "expires_at",
    "next_attempt_at",
    "stored_at",
    "key",
    "size",
    "sha256",
    "message",
    "configured",
    "acknowledged",
];

#[tokio::test(flavor = "multi_thread")]
async fn status_has_every_field_and_null_for_unknown_values() {
    let bench = Bench::new(&[Series::campaign("Report test", 2), Series::dump(1)]).await;
    bench.fault("not-yet,path=dailyCampaignReportDump");
    bench.sync(1).await;
    let all = bench.run(&["status", "--json"]).await.expect(0).partitions();
    for partition in &all {
        let mut fields: Vec<_> = partition.as_object().unwrap().keys().map(String::as_str).collect();
        let mut expected = FIELDS;
        fields.sort_unstable();
        expected.sort_unstable();
        assert_eq!(fields, expected);
        for instant in ["generated_at", "due_at"] {
            let text = partition[instant].as_str().unwrap();
            assert!(text.ends_with('Z') && text.parse::<Timestamp>().is_ok(), "{text}");
        }
    }
    // In the order of workspace, report and date: recorded partitions, and the next scheduled one of each report.
    let states: Vec<_> = all.iter().map(|p| (p["report"].as_str().unwrap(), p["state"].as_str().unwrap())).collect();
    assert_eq!(
        states,
        [
            ("dump", "pending"),
            ("dump", "scheduled"),
            ("report-test", "stored"),
            ("report-test", "stored"),
            ("report-test", "scheduled"),
        ]
    );
    let nulls =
        |partition: &Value| FIELDS.iter().copied().filter(|field| partition[field].is_null()).collect::<Vec<_>>();
    assert_eq!(nulls(&all[0]), ["expires_at", "stored_at", "key", "size", "sha256"]);
    assert_eq!((&all[0]["outcome"], &all[0]["attempts"]), (&"not_published".into(), &1.into()));
    let unknown = ["outcome", "next_attempt_at", "stored_at", "key", "size", "sha256", "message"];
    assert_eq!(nulls(&all[4]), unknown);
    assert_eq!(all[4]["attempts"], 0);
    assert_eq!(nulls(&all[2]), ["next_attempt_at", "message"]);

    let (series, date) = bench.due()[0];
    let object = fs::read(bench.object(&series.key(date))).unwrap();
    assert_eq!(all[2]["key"], series.key(date));
    assert_eq!((&all[2]["size"], &all[2]["sha256"]), (&object.len().into(), &hash(&object).into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn status_selects_by_state_date_and_report() {
    let bench = Bench::new(&[Series::campaign("Report test", 3), Series::dump(3)]).await;
    bench.run(&["sync", "--report", "dump"]).await.expect(0);
    let count = async |arguments: &[&str]| {
        let arguments = [&["status", "--json"], arguments].concat();
        bench.run(&arguments).await.expect(0).partitions().len()
    };
    let newest = bench.newest.to_string();
    assert_eq!(count(&["--state", "stored"]).await, 3);
    assert_eq!(count(&["--state", "pending"]).await, 3);
    assert_eq!(count(&["--report", "dump"]).await, 4);
    assert_eq!(count(&["--since", &newest, "--report", "dump"]).await, 2);
    bench.run(&["status", "--state", "late"]).await.expect(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_is_a_line_for_each_report_and_with_all_for_each_partition() {
    let bench = Bench::new(&[Series::campaign("Report test", 3), Series::dump(2)]).await;
    // Partitions that a daemon would have planned by now are pending.
    let before = bench.run(&["status"]).await.expect(0).stdout;
    assert!(before.contains("\n5 pending; never planned: "), "{before}");
    bench.fault("not-yet,path=dailyCampaignReportDump");
    bench.sync(1).await;
    let of = |text: &str, report: &str| -> Vec<Vec<String>> {
        let lines = text.lines().filter(|line| line.split_whitespace().next() == Some(report));
        lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    };
    let text = bench.run(&["status"]).await.expect(0).stdout;
    let newest = bench.newest.to_string();
    let [report] = of(&text, "report-test").try_into().unwrap();
    assert_eq!(report[..5], ["report-test", &newest, "0", "0", "0"], "{text}");
    let [dump] = of(&text, "dump").try_into().unwrap();
    assert_eq!((&dump[..2], &dump[3]), (&["dump".to_owned(), "2".to_owned()][..], &"0".to_owned()), "{text}");
    assert!(text.contains("\n2 pending, 3 stored; last planned "), "{text}");
    let all = bench.run(&["status", "--all"]).await.expect(0).stdout;
    assert_eq!((of(&all, "report-test").len(), of(&all, "dump").len()), (4, 3), "{all}");
    assert!(all.contains("\n2 scheduled, 2 pending, 3 stored; last planned "), "{all}");
    let of_workspace = bench.run(&["status", "--workspace", "acme"]).await.expect(0).stdout;
    assert_eq!(of_workspace, text);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_due_and_not_planned_is_in_every_list_of_status() {
    let bench = Bench::new(&[Series::campaign("Report test", 3)]).await;
    let status = async |arguments: &[&str]| bench.run(&[&["status", "--json"], arguments].concat()).await.expect(0);
    let before = status(&[]).await;
    let states: Vec<_> = before.partitions().iter().map(|p| p["state"].as_str().unwrap().to_owned()).collect();
    assert_eq!(states, ["pending", "pending", "pending", "scheduled"]);
    let before = before.json();
    assert_eq!((&before["planned_at"], &before["reports"][0]["pending"]), (&Value::Null, &3.into()));
    assert_eq!(status(&["--state", "pending"]).await.partitions().len(), 3);
    bench.sync(0).await;
    let after = status(&[]).await.json();
    assert!(after["planned_at"].as_str().unwrap().parse::<Timestamp>().unwrap() > Timestamp::UNIX_EPOCH);
    let report = &after["reports"][0];
    assert_eq!((&report["stored"], &report["pending"]), (&3.into(), &0.into()), "{report}");
    assert_eq!(report["newest_stored"], bench.newest.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn status_says_that_nothing_was_planned_for_long() {
    let bench = Bench::at("2025-11-21T12:00:00Z", &[Series::campaign("Report test", 1)]).await;
    let ctx = bench.context().await;
    sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
    ctx.ledger.close().await;
    let text = bench.run(&["status"]).await.expect(0).stdout;
    assert!(text.contains("last planned ") && text.contains(" ago; does the daemon run?\n"), "{text}");
    assert!(!text.contains("\n1 stored; "), "a year is due and not planned: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_partition_of_a_report_that_has_not_started_is_its_first() {
    let bench = Bench::at("2026-11-21T12:00:00Z", &[Series::dump(1)]).await;
    bench.write_config(&bench.config().replace("start = \"2026-11-21\"", "start = \"2127-01-15\""));
    let status = bench.run(&["status", "--json"]).await.expect(0).partitions();
    assert_eq!((status.len(), &status[0]["date"]), (1, &"2127-01-15".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn status_check_fails_while_anything_is_pending_past_due() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    bench.fault("not-yet,times=1");
    bench.sync(1).await;
    bench.run(&["status", "--check"]).await.expect(1);
    bench.run(&["status"]).await.expect(0);
    bench.sync(0).await;
    bench.run(&["status", "--check"]).await.expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_check_fails_for_what_is_lost_and_not_for_what_is_absent() {
    for (fault, state, code) in [(Fault::Html, "lost", 1), (Fault::NotYet, "absent", 0)] {
        let bench = Bench::at("2025-11-21T12:00:00Z", &[Series::campaign("Report test", 1), Series::dump(1)]).await;
        let once = bench.config().replace("every = \"day\"", &format!("once = \"{}\"", bench.newest));
        bench.write_config(&once);
        // The dump arrives, which shows that the workspace works.
        bench.fault_at(&bench.series[0].file_name(bench.newest), fault, 6);
        bench.fault("not-yet,path=Report_test");
        let ctx = bench.context().await;
        for _ in 0..9 {
            sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
            bench.clock.advance(SignedDuration::from_hours(24));
        }
        let status = bench.run(&["status", "--json", "--check"]).await.expect(code).partitions();
        let of_report = status.iter().find(|partition| partition["report"] == "report-test").unwrap();
        assert_eq!((&of_report["state"], &of_report["next_attempt_at"]), (&state.into(), &Value::Null));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn status_works_for_a_read_only_user_with_and_without_a_daemon() {
    let bench = Bench::new(&[Series::campaign("Report test", 2)]).await;
    bench.sync(0).await;
    let binary = bench.path("moesync");
    fs::copy(env!("CARGO_BIN_EXE_moesync"), &binary).unwrap();
    fs::set_permissions(bench.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for (name, mode) in [("ledger", 0o555), ("ledger/moesync.db", 0o444), ("moesync.toml", 0o644), ("moesync", 0o755)] {
        fs::set_permissions(bench.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    // Root may write everywhere, so the command runs as another user.
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let status = async || {
        let mut command = match is_root {
            true => Command::new("runuser"),
            false => Command::new(&binary),
        };
        if is_root {
            command.args(["-u", "nobody", "--"]).arg(&binary);
        }
        command.current_dir(bench.folder.path()).args(["status", "--json"]);
        bench.finish(command).await.expect(0).partitions()
    };
    assert_eq!(status().await.len(), 3);
    fs::set_permissions(bench.path("ledger"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(bench.ledger(), fs::Permissions::from_mode(0o644)).unwrap();
    let daemon = Daemon::start(&bench).await;
    assert_eq!(status().await.len(), 3);
    daemon.stop(&bench).await;
}
