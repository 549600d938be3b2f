//! The output and the exit code of each command.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
};

use jiff::{SignedDuration, Timestamp, ToSpan as _};
use moesync::{
    emulator::Fault,
    sync::{self, Selection},
};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{Bench, Daemon, Series, files, oracle::hash, oracle::manifest_key};

/// The fields of a partition, in their order.
const FIELDS: [&str; 17] = [
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
];

/// Every path below the bench's folder.
fn listing(bench: &Bench) -> Vec<(std::path::PathBuf, u64)> {
    let of = |path: std::path::PathBuf| {
        let size = fs::metadata(&path).unwrap().size();
        (path, size)
    };
    files(bench.folder.path()).into_iter().map(of).collect()
}

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
    // What a daemon should have planned by now is pending.
    let before = bench.run(&["status"]).await.expect(0).stdout;
    assert!(before.ends_with("5 pending\n"), "{before}");
    bench.fault("not-yet,path=dailyCampaignReportDump");
    bench.sync(1).await;
    let of = |text: &str, report: &str| -> Vec<Vec<String>> {
        let lines = text.lines().filter(|line| line.split_whitespace().nth(1) == Some(report));
        lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    };
    let text = bench.run(&["status"]).await.expect(0).stdout;
    let newest = bench.newest.to_string();
    let [report] = of(&text, "report-test").try_into().unwrap();
    assert_eq!(report[..6], ["acme", "report-test", &newest, "0", "0", "0"], "{text}");
    let [dump] = of(&text, "dump").try_into().unwrap();
    assert_eq!(
        (&dump[..3], &dump[4]),
        (&["acme".to_owned(), "dump".to_owned(), "2".to_owned()][..], &"0".to_owned()),
        "{text}"
    );
    assert!(text.ends_with("2 pending, 3 stored\n"), "{text}");
    let all = bench.run(&["status", "--all"]).await.expect(0).stdout;
    assert_eq!((of(&all, "report-test").len(), of(&all, "dump").len()), (4, 3), "{all}");
    assert!(all.ends_with("2 scheduled, 2 pending, 3 stored\n"), "{all}");
    let of_workspace = bench.run(&["status", "--workspace", "acme"]).await.expect(0).stdout;
    assert_eq!(of_workspace, text);
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
async fn an_unknown_or_ambiguous_report_is_refused_with_suggestions() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let report = bench.report(&bench.series[0]).replace("\"acme\"", "\"other\"");
    let workspace = "\n[[workspaces]]\nname = \"other\"\napp_id = \"OTHER\"\ndata_center = \"01\"\ntimezone = \"UTC\"\n\
                     secret_key = \"k\"\n";
    let (before, reports) =
        bench.config().split_once("\n[[destinations]]").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    bench.write_config(&format!("{before}{workspace}\n[[destinations]]{reports}{report}"));
    let date = bench.newest.to_string();
    let commands: [&[&str]; 6] = [
        &["sync"],
        &["status"],
        &["plan"],
        &["verify"],
        &["explain", "--date", &date],
        &["backfill", "--from", &date, "--to", &date],
    ];
    let before = listing(&bench);
    for command in commands {
        let unknown = bench.run(&[command, &["--report", "report-tset"]].concat()).await.expect(2);
        assert!(unknown.stderr.contains("did you mean `report-test`?"), "{}", unknown.stderr);
        let unknown =
            bench.run(&[command, &["--workspace", "acne", "--report", "report-test"]].concat()).await.expect(2);
        assert!(unknown.stderr.contains("`ac"), "{}", unknown.stderr);
        let ambiguous = bench.run(&[command, &["--report", "report-test"]].concat()).await.expect(2);
        assert!(ambiguous.stderr.contains("acme, other"), "{}", ambiguous.stderr);
    }
    assert_eq!(listing(&bench), before);
    bench.run(&["sync", "--workspace", "acme", "--report", "report-test"]).await.expect(0);
    assert_eq!(bench.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_refuses_a_ledger_that_run_cannot_open() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let sqlite = format!("sqlite://{}", bench.ledger().display());
    bench.write_config(&bench.config().replace(&sqlite, "postgres://db/moesync"));
    for command in ["check", "sync"] {
        let refused = bench.run(&[command]).await.expect(2);
        assert!(refused.stderr.contains("use sqlite://PATH"), "{command}: {}", refused.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_command_is_refused() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    for arguments in [&["synch"] as &[&str], &["sync", "--all"], &["backfill", "--report", "report-test"], &[]] {
        bench.run(arguments).await.expect(2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn backfill_of_a_live_listing_is_refused_and_of_an_archive_ignores_start() {
    let bench = Bench::new(&[Series::dump(1)]).await;
    let listing_report = "\n[[reports]]\nworkspace = \"acme\"\nsource = \"campaigns\"\ndestination = \"disk\"\n\
                          schedule = { every = \"day\", at = \"09:30\" }\n";
    bench.write_config(&format!("{}{listing_report}", bench.config()));
    let from = bench.newest.checked_sub(3.days()).unwrap().to_string();
    let to = bench.newest.checked_sub(1.days()).unwrap().to_string();
    let refused = bench.run(&["backfill", "--report", "campaigns", "--from", &from, "--to", &to]).await.expect(2);
    assert!(refused.stderr.contains("live listing"), "{}", refused.stderr);
    assert!(!bench.ledger().exists());

    let filled = bench.run(&["backfill", "--report", "dump", "--from", &from, "--to", &to, "--json"]).await.expect(0);
    let stored = filled.partitions();
    assert_eq!(stored.len(), 3);
    assert!(stored.iter().all(|partition| partition["state"] == "stored"));
    // A second run changes nothing.
    bench.run(&["backfill", "--report", "dump", "--from", &from, "--to", &to]).await.expect(0);
    assert_eq!(bench.requests(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_past_the_retention_is_refused_unless_asked_anyway() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let date = |ago: i64| bench.newest.checked_sub(ago.days()).unwrap().to_string();
    let (from, to) = (date(9), date(5));
    let backfill = ["backfill", "--report", "report-test", "--from", &from, "--to", &to, "--json"];
    let before = listing(&bench);
    for dry_run in [&["--dry-run"][..], &[]] {
        let refused = bench.run(&[&backfill[..], dry_run].concat()).await.expect(2);
        for named in [&date(9), &date(8), &date(7), &format!("--from {}", date(6)), "--ask-anyway"] {
            assert!(refused.stderr.contains(named), "{named}: {}", refused.stderr);
        }
        assert!(!refused.stderr.contains(&date(5)), "{}", refused.stderr);
    }
    let shown = bench.run(&[&backfill[..], &["--dry-run", "--ask-anyway"]].concat()).await.expect(0).partitions();
    let dates: Vec<_> = shown.iter().map(|partition| partition["date"].as_str().unwrap().to_owned()).collect();
    assert_eq!(dates, [9, 8, 7, 6, 5].map(date));
    assert!(shown.iter().all(|partition| partition["asked"] == true && partition["state"] == "pending"));
    assert_eq!((listing(&bench), bench.requests()), (before, 0), "something was touched");

    let ran = bench.run(&[&backfill[..], &["--ask-anyway"]].concat()).await.expect(0);
    let states: Vec<_> = ran.partitions().iter().map(|p| p["state"].as_str().unwrap().to_owned()).collect();
    assert_eq!(states, ["absent", "absent", "absent", "stored", "stored"]);
    assert_eq!(ran.alarms(), [""; 0], "{}", ran.stderr);
    bench.sync(0).await;
    bench.run(&["status", "--check"]).await.expect(0);
    let (from, to) = (date(7), date(6));
    let again = ["backfill", "--report", "report-test", "--from", &from, "--to", &to, "--ask-anyway", "--dry-run"];
    let again = bench.run(&[&again[..], &["--json"]].concat()).await.expect(0).partitions();
    let asked: Vec<_> = again.iter().map(|p| (p["state"].as_str().unwrap(), p["asked"].as_bool().unwrap())).collect();
    assert_eq!(asked, [("absent", true), ("stored", false)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_without_expiry_is_backfilled_at_any_age() {
    let bench = Bench::new(&[Series::dump(1)]).await;
    let date = bench.newest.checked_sub(400.days()).unwrap().to_string();
    let backfill = ["backfill", "--report", "dump", "--from", &date, "--to", &date, "--json"];
    let states = async |code| bench.run(&backfill).await.expect(code).partitions()[0]["state"].clone();
    bench.fault("not-yet,times=1");
    assert_eq!(states(0).await, "absent", "it was never seen, and past the time to give it up");
    assert_eq!(states(0).await, "stored", "and it can be asked for again");
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_shows_names_and_what_a_clock_change_does() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let berlin = bench.config().replace(
        &format!("at = \"{}\" }}", bench.generated_at_time()),
        "at = \"02:30\" }\ntimezone = \"Europe/Berlin\"",
    );
    bench.write_config(&berlin);
    let explain = async |date: &str| {
        let ran = bench.run(&["explain", "--report", "report-test", "--date", date, "--json"]).await;
        ran.expect(0).json()
    };
    let gap = explain("2026-03-29").await;
    assert_eq!(gap["clock_change"], "gap");
    assert_eq!(gap["generated_at"], "2026-03-29T01:30:00Z");
    assert_eq!(gap["due_at"], "2026-03-29T02:00:00Z");
    assert_eq!(gap["expires_at"], "2026-04-05T01:30:00Z");
    assert_eq!(gap["file_name"], "Report_test_20260329.zip");
    assert_eq!(gap["object_key"], "acme/report-test/date=2026-03-29/Report_test_20260329.zip");
    assert_eq!(gap["manifest_key"], "acme/report-test/date=2026-03-29/_Report_test_20260329.zip.manifest.json");
    assert_eq!((&gap["outcome"], &gap["history"]), (&Value::Null, &Value::Array(Vec::new())));
    let overlap = explain("2026-10-25").await;
    assert_eq!(overlap["clock_change"], "overlap");
    assert_eq!(overlap["generated_at"], "2026-10-25T00:30:00Z", "not the first of two");
    assert_eq!(explain("2026-07-01").await["clock_change"], Value::Null);
    assert!(!bench.ledger().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_shows_the_history_of_a_partition() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    bench.fault("status=503,times=1");
    bench.sync(0).await;
    let date = bench.newest.to_string();
    let explained =
        bench.run(&["explain", "--report", "report-test", "--date", &date, "--json"]).await.expect(0).json();
    let history = explained["history"].as_array().unwrap();
    let recorded: Vec<_> = history.iter().map(|attempt| (&attempt["outcome"], &attempt["http_status"])).collect();
    assert_eq!(recorded, [(&"unavailable".into(), &503.into()), (&"stored".into(), &200.into())]);
    bench.run(&["explain", "--report", "report-test", "--date", &date]).await.expect(0);
    bench.check_secrets();
}

#[tokio::test(flavor = "multi_thread")]
async fn plan_shows_what_and_why_and_changes_nothing() {
    let bench = Bench::new(&[Series::campaign("Report test", 3)]).await;
    let before = listing(&bench);
    let plan = bench.run(&["plan", "--json"]).await.expect(0).partitions();
    let actions: Vec<_> = plan.iter().map(|partition| partition["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["fetch", "fetch", "fetch", "not_due"]);
    let dates: Vec<_> = plan.iter().map(|partition| partition["date"].as_str().unwrap()).collect();
    assert!(dates.is_sorted(), "not in the order of expiry: {dates:?}");
    assert!(plan.iter().all(|partition| !partition["reason"].as_str().unwrap().is_empty()));
    bench.run(&["plan", "--days", "30"]).await.expect(0);
    assert_eq!(listing(&bench), before);

    bench.sync(0).await;
    let (before, asked) = (listing(&bench), bench.requests());
    let plan = bench.run(&["plan", "--json"]).await.expect(0).partitions();
    assert_eq!(plan.len(), 1, "what is stored needs nothing");
    bench.run(&["status"]).await.expect(0);
    bench.run(&["verify"]).await.expect(0);
    assert_eq!((listing(&bench), bench.requests()), (before, asked));
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_do_not_contact_moengage_work_without_the_keys() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    bench.sync(0).await;
    fs::remove_file(bench.path("secret-key")).unwrap();
    let date = bench.newest.to_string();
    for arguments in [
        &["status"] as &[&str],
        &["plan"],
        &["verify"],
        &["check"],
        &["explain", "--report", "report-test", "--date", &date],
    ] {
        bench.run(arguments).await.expect(0);
    }
    let checked = bench.run(&["check"]).await.expect(0).stdout;
    assert!(checked.contains("secret_key_file: there is no file"), "{checked}");
    let refused = bench.run(&["sync"]).await.expect(2);
    assert!(refused.stderr.contains("secret-key"), "{}", refused.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_configuration_is_one_clear_error_before_anything_starts() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let good = bench.config();
    let folder = bench.folder.path().display().to_string();
    let twin = bench.report(&bench.series[0]).replace("id = \"report-test\"", "id = \"Report-Test\"");
    let line = |text: &str, part: &str| {
        let at = text.lines().position(|line| line.contains(part)).unwrap() + 1;
        format!("{at}")
    };
    // Each with the text that its error must contain.
    let mut bad = vec![
        (good.replace("app_id =", "ap_id ="), vec!["ap_id".to_owned(), "app_id".to_owned(), line(&good, "app_id")]),
        (good.replace("listen = \"\"", "listen = 8787"), vec!["listen".to_owned(), line(&good, "listen")]),
        (good.replace("\"UTC\"", "\"Europe/Atlantis\""), vec!["Europe/Atlantis".to_owned(), line(&good, "timezone")]),
        (
            good.replace("/secret-key\"", "/no-such-key\""),
            vec!["no-such-key".to_owned(), "acme".to_owned(), line(&good, "secret_key_file")],
        ),
        (
            good.replace("[web]", "[network]\nca_file = \"/no-such-ca.pem\"\n\n[web]"),
            vec!["no-such-ca.pem".to_owned(), "network.ca_file".to_owned(), "moesync.toml:5".to_owned()],
        ),
        (format!("{good}{twin}"), vec!["Report-Test".to_owned(), "report-test".to_owned()]),
        (good.replace("[ledger]", "[ledger"), vec!["moesync.toml".to_owned(), "1".to_owned()]),
    ];
    let world_readable = bench.path("readable-by-all");
    fs::write(&world_readable, "k").unwrap();
    fs::set_permissions(&world_readable, fs::Permissions::from_mode(0o644)).unwrap();
    bad.push((
        good.replace("/secret-key\"", "/readable-by-all\""),
        vec!["readable-by-all".to_owned(), "chmod".to_owned()],
    ));

    for (text, names) in bad {
        assert_ne!(text, good);
        bench.write_config(&text);
        for command in ["sync", "run"] {
            let refused = bench.run(&[command]).await.expect(2);
            let error = refused.stderr.trim_end();
            assert!(error.starts_with("error: ") && error.lines().count() == 1, "not one clear error: {error}");
            let shown = error.replace(&folder, "");
            assert!(names.iter().all(|name| shown.contains(name)), "{shown} does not name {names:?}");
            assert_eq!(refused.stdout, "");
        }
        assert!(!bench.path("ledger").exists() && !bench.path("reports").exists(), "something was started");
    }
    fs::remove_file(bench.path("moesync.toml")).unwrap();
    let refused = bench.run(&["sync"]).await.expect(2);
    assert!(refused.stderr.contains("moesync.toml"), "{}", refused.stderr);
    assert_eq!(bench.requests(), 0);
    bench.check_secrets();
}

/// Everything stored, then the object and manifest of the oldest partition harmed by `harm`.
async fn harmed(harm: impl Fn(&Bench, &str)) -> Bench {
    let bench = Bench::new(&[Series::campaign("Report test", 3)]).await;
    bench.sync(0).await;
    let (series, date) = bench.due()[0];
    harm(&bench, &series.key(date));
    bench
}

/// `verify` finds the damage, and `verify --repair` repairs it with this many downloads.
async fn is_found_and_repaired(bench: &Bench, says: &str, downloads: usize) {
    let asked = bench.requests();
    let found = bench.run(&["verify", "--json"]).await.expect(1).partitions();
    let damages: Vec<_> = found.iter().filter_map(|partition| partition["damage"].as_str()).collect();
    assert!(damages.len() == 1 && damages[0].contains(says), "{damages:?}");
    assert_eq!(bench.requests(), asked, "only a repair speaks to the vendor");

    let repaired = bench.run(&["verify", "--repair", "--json"]).await.expect(0).partitions();
    assert_eq!(repaired.iter().filter(|partition| partition["repaired"] == true).count(), 1);
    assert_eq!(bench.requests(), asked + downloads);
    bench.run(&["verify"]).await.expect(0);
    bench.oracle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_object_is_found_kept_aside_and_fetched_again() {
    let bench = harmed(|bench, key| fs::write(bench.object(key), "altered").unwrap()).await;
    is_found_and_repaired(&bench, "altered", 1).await;
    let kept = bench.kept_in("_quarantine");
    let is_kept = kept.iter().any(|key| fs::read(bench.object(key)).unwrap() == b"altered");
    assert!(is_kept, "the altered bytes are thrown away: {kept:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_object_is_found_and_fetched_again() {
    let bench = harmed(|bench, key| fs::remove_file(bench.object(key)).unwrap()).await;
    is_found_and_repaired(&bench, "missing", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_manifest_is_found_and_written_again_without_a_download() {
    let bench = harmed(|bench, key| fs::remove_file(bench.object(&manifest_key(key))).unwrap()).await;
    is_found_and_repaired(&bench, "manifest", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_manifest_is_found_and_written_again_without_a_download() {
    let bench = harmed(|bench, key| fs::write(bench.object(&manifest_key(key)), "{]").unwrap()).await;
    is_found_and_repaired(&bench, "manifest", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn altered_bytes_are_kept_even_if_the_report_cannot_be_fetched_again() {
    let bench = harmed(|bench, key| fs::write(bench.object(key), "altered").unwrap()).await;
    let (series, date) = bench.due()[0];
    bench.fault("not-yet");
    let ran = bench.run(&["verify", "--repair", "--json"]).await.expect(1);
    let damaged = ran.partitions().into_iter().find(|partition| partition["damage"].is_string()).unwrap();
    assert_eq!((&damaged["repaired"], &damaged["state"]), (&false.into(), &"pending".into()));
    assert!(!bench.object(&series.key(date)).exists());
    let kept = bench.kept_in("_quarantine");
    assert!(kept.iter().any(|key| fs::read(bench.object(key)).unwrap() == b"altered"), "{kept:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_leaves_expired_partitions_unchanged() {
    // A year ago, for the binary.
    let bench = Bench::at("2025-11-21T12:00:00Z", &[Series::campaign("Report test", 1)]).await;
    bench.write_config(&bench.config().replace("every = \"day\"", &format!("once = \"{}\"", bench.newest)));
    let ctx = bench.context().await;
    assert!(sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap().is_complete());
    ctx.ledger.close().await;
    let (series, date) = bench.due()[0];
    let (object, asked) = (bench.object(&series.key(date)), bench.requests());
    fs::write(&object, "altered").unwrap();
    let repair = async |damage: &str| {
        let before = bench.stored_files();
        let ran = bench.run(&["verify", "--repair", "--json"]).await.expect(1);
        let [damaged] = ran.partitions().try_into().unwrap();
        assert!(damaged["damage"].as_str().unwrap().contains(damage), "{damaged}");
        assert_eq!((&damaged["repaired"], &damaged["state"]), (&false.into(), &"stored".into()));
        assert!(bench.stored_files() == before, "the destination was changed");
        assert_eq!(bench.kept_in("_quarantine"), [""; 0]);
        assert_eq!(bench.requests(), asked, "what the vendor has deleted was asked for");
    };
    repair("altered").await;
    fs::remove_file(&object).unwrap();
    repair("missing").await;
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
}

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
