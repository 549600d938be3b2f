//! Targets: their kinds, their secrets, their test, and what the ledger keeps for each.

use std::fs;

use tokio::process::Command;

use crate::{
    docs::blocks,
    support::{Bench, Daemon, Receiver, Series, ledger_file, receiver::KEY, wait_until},
};

#[tokio::test(flavor = "multi_thread")]
async fn addresses_and_keys_of_targets_are_in_no_log_error_ledger_or_output() {
    let (bench, receiver) = (Bench::new(&[Series::campaign("Report test", 1)]).await, Receiver::start().await);
    let secrets = ["T0000CANARYPATH", "canaryquery", "Y2FuYXJ5LXdlYmhvb2sta2V5LWNhbmFyeS13ZWJob29r"];
    let target = |name: &str, rest: &str| {
        let address = format!("{}/services/{}?token={}", receiver.url, secrets[0], secrets[1]);
        format!("\n[[notify]]\nname = \"{name}\"\nurl = \"{address}\"\n{rest}\n")
    };
    let targets = target("slack", "kind = \"slack\"")
        + &target("teams", "kind = \"teams\"")
        + &target("ping", "kind = \"ping\"")
        + &target("hook", &format!("kind = \"webhook\"\nsecret = \"{}\"", secrets[2]))
        + &target("gone", "kind = \"slack\"").replace("127.0.0.1", "127.0.0.2");
    bench.write_config(&(bench.config() + &targets));
    bench.fault("unauthorized");
    receiver.answer(404, &format!("no route to /services/{}?token={}", secrets[0], secrets[1]));
    let mut printed = String::new();
    for arguments in [&["-vv", "sync"][..], &["check", "--online"], &["status", "--json"]] {
        let ran = bench.run(arguments).await;
        printed += &format!("{}{}", ran.stdout, ran.stderr);
    }
    assert!(printed.contains("notify target hook did not arrive") || printed.contains("answered 404"), "{printed}");
    assert!(printed.contains("could not reach http://127.0.0.2"), "{printed}");
    let ledger = String::from_utf8_lossy(&fs::read(bench.ledger()).unwrap()).into_owned();
    for secret in secrets {
        assert!(!printed.contains(secret), "{printed}");
        assert!(!ledger.contains(secret), "{secret} is in the ledger");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_online_sends_each_target_a_test_and_reports_whether_it_arrived() {
    let (bench, receiver) = (Bench::new(&[Series::campaign("Report test", 1)]).await, Receiver::start().await);
    let config = bench.config() + &receiver.webhook();
    bench.write_config(&config);
    bench.run(&["check"]).await.expect(0);
    assert!(receiver.received().is_empty(), "without --online nothing is sent");
    bench.run(&["check", "--online"]).await.expect(0);
    assert_eq!(receiver.events()[0]["type"], "test");
    receiver.answer(403, "invalid_token");
    let ran = bench.run(&["check", "--online"]).await.expect(1);
    assert!(ran.stdout.contains("answered 403: invalid_token"), "{}", ran.stdout);
    // A missing secret of a target is found before work begins.
    bench.write_config(&config.replace(&format!("url = \"{}/hook\"", receiver.url), "url_env = \"NOWHERE\""));
    let ran = bench.run(&["sync"]).await.expect(2);
    assert!(ran.stderr.contains("notify target `hook`") && ran.stderr.contains("NOWHERE is not set"), "{}", ran.stderr);
    assert_eq!(bench.requests(), 14, "a pass began");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_targets_and_alarms_the_ledger_holds_no_notifications() {
    let bench = Bench::new(&[Series::campaign("Report test", 2)]).await;
    bench.fault("unauthorized,times=1");
    bench.sync(1).await;
    bench.vendor.clear_faults();
    bench.sync(0).await;
    assert_eq!(ledger_file::rows_of_notifications(&bench.ledger()).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_of_the_first_version_is_migrated_by_writers_and_refused_by_readers() {
    let bench = Bench::new(&[Series::campaign("Report test", 2)]).await;
    ledger_file::of_first_version(&bench.ledger()).await;

    let ran = bench.run(&["status"]).await.expect(1);
    assert!(ran.stderr.contains("an older version of moesync; `moesync sync` or `moesync run`"), "{}", ran.stderr);
    bench.sync(0).await;
    let status = bench.status().await;
    let known: Vec<_> = status.iter().map(|p| (p["report"].as_str().unwrap(), p["state"].as_str().unwrap())).collect();
    assert_eq!(known, [("gone", "absent"), ("report-test", "stored"), ("report-test", "stored")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_signature_checks_accept_only_genuine_events() {
    let (bench, receiver) = (Bench::new(&[Series::campaign("Report test", 1)]).await, Receiver::start().await);
    bench.write_config(&(bench.config() + &receiver.webhook()));
    bench.run(&["check", "--online"]).await.expect(0);
    let [received] = receiver.received().try_into().unwrap();
    let python = blocks("docs/operations.md", "python").remove(0)
        + "\nimport os\nnames = {'webhook-id': 'ID', 'webhook-timestamp': 'TIMESTAMP', 'webhook-signature': 'SIGNATURE'}\n\
           headers = {name: os.environ[variable] for name, variable in names.items()}\n\
           if is_genuine(os.environ['SECRET'], headers, open('body.json', 'rb').read()): print('genuine')\n";
    let shell = blocks("docs/operations.md", "sh").into_iter().find(|block| block.contains("openssl")).unwrap();
    for (body, said) in [(received.body.clone(), "genuine\n"), (received.body.replace("test", "rest"), "")] {
        fs::write(bench.path("body.json"), body).unwrap();
        for (program, script) in [("python3", &python), ("sh", &shell)] {
            let output = Command::new(program)
                .args(["-c", script])
                .current_dir(bench.folder.path())
                .env("SECRET", format!("whsec_{KEY}"))
                .env("ID", received.header("webhook-id"))
                .env("TIMESTAMP", received.header("webhook-timestamp"))
                .env("SIGNATURE", received.header("webhook-signature"))
                .output()
                .await
                .unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(String::from_utf8_lossy(&output.stdout), said, "{program}: {stderr}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_daemon_forgets_targets_that_are_no_longer_configured() {
    let (bench, receiver) = (Bench::new(&[Series::campaign("Report test", 1)]).await, Receiver::start().await);
    let quiet = bench.config();
    bench.write_config(&(quiet.clone() + &receiver.webhook()));
    bench.fault("unauthorized");
    bench.sync(1).await;
    assert_eq!(receiver.alarms(), ["unauthorized began"]);
    bench.write_config(&(quiet.clone() + &receiver.webhook().replace("\"hook\"", "\"other\"")));
    bench.sync(1).await;
    bench.write_config(&quiet);
    bench.sync(1).await;
    assert_eq!(receiver.alarms().len(), 2, "the other target receives it as well");
    bench.write_config(&(quiet + &receiver.webhook()));
    bench.sync(1).await;
    assert_eq!(receiver.alarms().len(), 2, "{:?}", receiver.alarms());

    let daemon = Daemon::start(&bench).await;
    let known = async || ledger_file::targets(&bench.ledger()).await;
    assert!(wait_until(async || known().await == ["hook"]).await, "{:?}", known().await);
    daemon.stop(&bench).await;
}
