//! Mistakes in the usage and the configuration, and commands without keys.

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::listing;
use crate::support::{Bench, CANARY, Daemon, Series};

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
    let commands: [&[&str]; 12] = [
        &["sync"],
        &["status"],
        &["plan"],
        &["verify"],
        &["acknowledge"],
        &["ls"],
        &["tables"],
        &["reconcile", "--with", "report-test"],
        &["get", "--date", &date],
        &["cat", "--date", &date],
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
async fn a_standard_error_that_takes_nothing_changes_no_exit_code() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for (arguments, code) in [(&["sync"][..], 0), (&["sync", "--report", "none"], 2), (&["status", "--nonsense"], 2)] {
        let mut command = bench.command(arguments).into_std();
        let status = command.stdout(std::process::Stdio::null()).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
    assert_eq!(bench.stored_files().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_has_no_dry_run_and_names_the_command_that_shows_it() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let refused = bench.run(&["sync", "--dry-run"]).await.expect(2);
    assert!(refused.stderr.contains("unexpected argument '--dry-run'"), "{}", refused.stderr);
    assert!(refused.stderr.contains("`moesync plan`"), "{}", refused.stderr);
    assert_eq!(bench.requests(), 0);
    assert!(!bench.run(&["sync", "--help"]).await.expect(0).stdout.contains("--dry-run"));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_refuses_a_ledger_that_run_cannot_open() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let sqlite = format!("sqlite://{}", bench.ledger().display());
    bench.write_config(&bench.config().replace(&sqlite, "mysql://db/moesync"));
    for command in ["check", "sync"] {
        let refused = bench.run(&[command]).await.expect(2);
        assert!(refused.stderr.contains("expected sqlite://PATH or postgres://"), "{command}: {}", refused.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_finds_what_run_cannot_open_and_names_all_of_it() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let sqlite = format!("sqlite://{}", bench.ledger().display());
    // A file where the ledger's folder should be.
    fs::write(bench.path("occupied"), "").unwrap();
    let ledger = format!("sqlite://{}", bench.path("occupied/moesync.db").display());
    let good = bench.config();
    let app_id = good.lines().find_map(|line| line.strip_prefix("app_id = ")).unwrap();
    let bucket = "\n[[destinations]]\nname = \"lake\"\nurl = \"s3://lake\"\noptions = { aws_regoin = \"x\" }\n";
    let bad = good
        .replace("listen = \"\"", &format!("listen = \"{address}\""))
        .replace(&sqlite, &ledger)
        .replace(app_id, "\"YOUR-APP-ID\"");
    bench.write_config(&format!("{bad}{bucket}"));
    fs::write(bench.path("secret-key"), "").unwrap();
    let checked = bench.run(&["check", "--json"]).await.expect(2).json();
    assert_eq!(checked["ok"], false);
    let errors = checked["checks"].as_array().unwrap().iter().filter(|check| check["result"] == "error");
    let subjects: Vec<_> = errors.map(|check| check["subject"].as_str().unwrap().to_owned()).collect();
    assert_eq!(subjects, ["configuration", "secret key of acme", "destination lake", "ledger", "web"], "{checked:#}");
    let text = bench.run(&["check"]).await.expect(2).stdout;
    for part in [
        "aws_regoin",
        "placeholder",
        "cannot listen on",
        "placeholder of an example; replace it with MoEngage's workspace id",
        "0 notes, 5 errors",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    drop(taken);
    bench.run(&["run"]).await.expect(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_makes_no_folder_and_refuses_a_file_in_its_place() {
    let mut bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    bench.store_in(&bench.path("new/deep"));
    bench.run(&["check"]).await.expect(0);
    assert!(!bench.path("new").exists(), "check made the folder");
    fs::write(bench.path("new"), "").unwrap();
    for root in ["new", "new/deep"] {
        bench.store_in(&bench.path(root));
        let refused = bench.run(&["check"]).await.expect(2);
        assert!(refused.stdout.contains("is not a folder"), "{}", refused.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_of_the_daemon_that_runs_is_a_note_and_a_taken_one_is_tried_again() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    bench.write_config(&bench.config().replace("listen = \"\"", &format!("listen = \"{free}\"")));
    let daemon = Daemon::start(&bench).await;
    let checked = bench.run(&["check", "--json"]).await.expect(0).json();
    let web = checked["checks"].as_array().unwrap().iter().find(|check| check["subject"] == "web").unwrap();
    assert_eq!(web["result"], "note", "{web}");
    // Exit code 2 would keep systemd from trying again.
    let refused = bench.run(&["run"]).await.expect(1);
    assert!(refused.stderr.contains("Address already in use"), "{}", refused.stderr);
    daemon.stop(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_names_the_configuration_and_the_option_takes_precedence() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    fs::create_dir(bench.path("conf.d")).unwrap();
    fs::rename(bench.path("moesync.toml"), bench.path("conf.d/moesync.toml")).unwrap();
    let run = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_moesync"));
        command.args(arguments).env("MOESYNC_CONFIG", "conf.d").current_dir(bench.folder.path());
        bench.finish(command).await
    };
    assert!(run(&["check"]).await.expect(0).stdout.contains("1 report"));
    let refused = run(&["check", "--config", "elsewhere"]).await.expect(2);
    assert!(refused.stderr.contains("cannot read the configuration elsewhere"), "{}", refused.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_command_is_refused() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    for arguments in [&["synch"] as &[&str], &["sync", "--all"], &["backfill", "--report", "report-test"], &[]] {
        bench.run(arguments).await.expect(2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_do_not_contact_moengage_work_without_the_keys() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    bench.sync(0).await;
    fs::remove_file(bench.path("secret-key")).unwrap();
    let date = bench.newest.to_string();
    let entry = format!("Report_test_SMS_{}.csv", bench.newest.strftime("%Y%m%d"));
    for arguments in [
        &["status"] as &[&str],
        &["plan"],
        &["verify"],
        &["ls"],
        &["tables"],
        &["cat", "--report", "report-test", "--date", &date, "--entry", &entry],
        &["explain", "--report", "report-test", "--date", &date],
    ] {
        bench.run(arguments).await.expect(0);
    }
    let checked = bench.run(&["check"]).await.expect(2).stdout;
    let line = checked.lines().find(|line| line.contains("secret_key_file: cannot read the secret file"));
    assert!(line.is_some_and(|line| line.starts_with("error ")), "{checked}");
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

/// A configuration whose key is what a script of this text prints.
fn with_key_of(bench: &Bench, script: &str) {
    let path = bench.path("key.sh");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    let config = bench.config();
    let key = config.lines().find(|line| line.starts_with("secret_key_file")).unwrap();
    bench.write_config(&config.replace(key, &format!("secret_key_command = [\"/bin/sh\", \"{}\"]", path.display())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_without_a_key_is_refused_by_check_as_by_run() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    with_key_of(&bench, "exit 3");
    for command in ["check", "run"] {
        let refused = bench.run(&[command]).await.expect(2);
        assert!((refused.stdout + &refused.stderr).contains("failed: exit status: 3"), "{command}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_a_command_writes_to_its_standard_error_is_shown_nowhere() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let (key, used) = (bench.path("secret-key"), bench.path("used"));
    let (key, used) = (key.display(), used.display());
    with_key_of(
        &bench,
        &format!("if [ -e {used} ]; then echo \"expired: $(cat {key})\" >&2; exit 1; fi; touch {used}; cat {key}"),
    );
    bench.fault("unauthorized");
    let ran = bench.run(&["sync"]).await.expect(1);
    let explained = bench.run(&["explain", "--report", "report-test", "--date", &bench.newest.to_string()]).await;
    for text in [ran.stdout, ran.stderr, explained.stdout] {
        assert!(!text.contains(CANARY), "{text}");
        assert!(text.is_empty() || text.contains("expired: …"), "{text}");
    }
    let ledger = fs::read(bench.ledger()).unwrap();
    assert!(!ledger.windows(CANARY.len()).any(|bytes| bytes == CANARY.as_bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_of_another_program_is_no_ledger_and_stays_as_it_is() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    fs::create_dir_all(bench.ledger().parent().unwrap()).unwrap();
    let made = std::process::Command::new("python3")
        .args(["-c", "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('CREATE TABLE customers (name)')"])
        .arg(bench.ledger())
        .status();
    assert!(made.unwrap().success());
    let before = fs::read(bench.ledger()).unwrap();
    for command in ["check", "sync", "status"] {
        let refused = bench.run(&[command]).await.expect(2);
        assert!((refused.stdout + &refused.stderr).contains("has the table `customers`"), "{command}");
    }
    assert!(fs::read(bench.ledger()).unwrap() == before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_of_a_bucket_or_server_that_is_none_is_refused_by_all() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let config = bench.config();
    let key = "aws_access_key_id = \"a\", aws_secret_access_key = \"b\"";
    for endpoint in ["127.0.0.1:9", "", "not a url", "https://ho st"] {
        let options = format!("url = \"s3://bucket/prefix\"\noptions = {{ {key}, aws_endpoint = \"{endpoint}\" }}");
        let url = config.lines().find(|line| line.starts_with("url = \"file:")).unwrap();
        bench.write_config(&config.replace(url, &options));
        for command in ["check", "sync"] {
            let refused = bench.run(&[command]).await.expect(2);
            let text = refused.stdout + &refused.stderr;
            assert!(text.contains("aws_endpoint is not an address"), "{command} {endpoint:?}: {text}");
        }
    }
    let sqlite = format!("sqlite://{}", bench.ledger().display());
    let canary = "canary-4e17";
    let parameters = [
        ("sslmode", "ledger.url: sslmode: expected disable, allow, prefer, "),
        (
            "passwort",
            "ledger.url: unknown parameter \"passwort\" after the \"?\"; the known ones are application_name, ",
        ),
        ("port", "ledger.url: it is not the URL of a PostgreSQL database: "),
    ];
    for (parameter, problem) in parameters {
        bench.write_config(&config.replace(&sqlite, &format!("postgres://u:p@127.0.0.1:9/db?{parameter}={canary}")));
        for command in ["check", "sync", "status"] {
            let refused = bench.run(&["-vv", command]).await.expect(2);
            let text = refused.stdout + &refused.stderr;
            assert!(text.contains(problem) && !text.contains(canary), "{command} {parameter}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_reports_one_mistake_once_where_several_parts_meet_it() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let config = bench.config();
    let hook = "\n[[notify]]\nname = \"hook\"\nkind = \"slack\"\nurl = \"https://hooks.example/x\"\n";
    let bucket =
        "\n[[destinations]]\nname = \"bucket\"\nurl = \"s3://bucket\"\noptions = { aws_region = \"eu-west-1\" }\n";
    let token = config.replace("listen = \"\"", "listen = \"127.0.0.1:0\"\ntoken_file = \"/nowhere\"");
    let authority = format!("{config}{hook}{bucket}\n[network]\nca_file = \"/nowhere\"\n");
    for (config, subject) in [(token, "web"), (authority, "network")] {
        bench.write_config(&config);
        let checked = bench.run(&["check"]).await.expect(2).stdout;
        let errors: Vec<_> = checked.lines().filter(|line| line.starts_with("error")).collect();
        assert_eq!(errors.len(), 1, "{checked}");
        assert!(errors[0].starts_with(&format!("error  {subject}: ")) && errors[0].contains("/nowhere"), "{checked}");
    }
}
