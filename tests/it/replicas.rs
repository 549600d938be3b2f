//! Several processes that share a ledger on a PostgreSQL server, directly and through PgBouncer.

use std::{collections::BTreeSet, fs};

use crate::support::{
    Bench, Daemon, Receiver, Series,
    postgres::{self, Route},
    wait_until,
};

macro_rules! on_each_route {
    ($($name:ident),* $(,)?) => {
        mod direct {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Route::Direct).await;
            })*
        }

        mod pooled {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Route::Pooled).await;
            })*
        }
    };
}

on_each_route! {
    every_command_works_with_a_ledger_on_a_server_and_none_shows_its_password,
    a_lost_database_is_learned_again_from_the_manifests_without_a_download,
    three_daemons_share_the_work_and_each_event_arrives_once,
    the_partitions_of_a_killed_replica_pass_to_another_when_its_row_is_old,
    a_replica_whose_claim_was_taken_over_while_it_stood_still_records_nothing,
    a_lost_connection_is_a_pause_and_never_the_end_of_the_daemon,
    a_server_that_is_stopped_for_a_while_pauses_the_daemon_and_raises_an_alarm,
    the_replicas_share_the_rate_of_requests,
    each_duty_is_done_by_one_replica_and_passes_on_when_it_is_killed,
}

/// A bench whose ledger is on a server, and the URL of that.
async fn bench(route: Route, series: &[Series]) -> (Bench, String) {
    let url = postgres::database(route).await;
    (bench_on(&url, series).await, url)
}

async fn bench_on(url: &str, series: &[Series]) -> Bench {
    let bench = Bench::new(series).await;
    bench.write_config(&on_server(&bench, url));
    bench
}

fn on_server(bench: &Bench, url: &str) -> String {
    bench.config().replace(&format!("sqlite://{}", bench.ledger().display()), url)
}

fn password(url: &str) -> &str {
    url.split(['@', ':']).nth(2).unwrap()
}

async fn are_stored(bench: &Bench, count: usize) -> bool {
    let status = bench.status().await;
    status.len() == count && status.iter().all(|partition| partition["state"] == "stored")
}

async fn every_command_works_with_a_ledger_on_a_server_and_none_shows_its_password(route: Route) {
    let (bench, url) = bench(route, &[Series::dump(2), Series::campaign("Report test", 2)]).await;
    bench.run(&["check"]).await.expect(0);
    bench.run(&["status"]).await.expect(0);
    bench.sync(0).await;
    let date = bench.newest.to_string();
    for command in [
        &["status", "--all"][..],
        &["plan"],
        &["explain", "--report", "report-test", "--date", &date],
        &["verify"],
        &["backfill", "--report", "report-test", "--from", &date, "--to", &date],
    ] {
        let ran = bench.run(&[&["-vv"], command].concat()).await.expect(0);
        assert!(!ran.stdout.contains(password(&url)) && !ran.stderr.contains(password(&url)), "{command:?}");
    }
    bench.oracle().await;
    // The tests' PgBouncer asks for none.
    if matches!(route, Route::Pooled) {
        return;
    }
    let wrong = url.replace(password(&url), "wrong-password");
    bench.write_config(&on_server(&bench, &wrong));
    let ran = bench.run(&["-vv", "sync"]).await;
    assert_ne!(ran.code, Some(0));
    let checked = bench.run(&["check"]).await.expect(1);
    assert!(checked.stdout.contains("FAILED ledger: could not open the ledger postgres://"), "{}", checked.stdout);
    assert!(ran.stderr.contains("could not open the ledger postgres://") && !ran.stderr.contains("wrong-password"));
    bench.write_config(&on_server(&bench, &url));
}

async fn a_lost_database_is_learned_again_from_the_manifests_without_a_download(route: Route) {
    let (bench, _) = bench(route, &[Series::dump(3), Series::campaign("Report test", 3)]).await;
    bench.sync(0).await;
    let (requests, stored) = (bench.requests(), bench.stored_files());
    bench.write_config(&on_server(&bench, &postgres::database(route).await));
    bench.sync(0).await;
    assert_eq!(bench.requests(), requests, "something was downloaded");
    assert!(bench.stored_files() == stored, "the destination was changed");
    assert!(are_stored(&bench, 6).await);
}

async fn three_daemons_share_the_work_and_each_event_arrives_once(route: Route) {
    let series: Vec<_> = (0..6).map(|number| Series::campaign(&format!("Report {number}"), 5)).collect();
    let (bench, url) = bench(route, &series).await;
    let receiver = Receiver::start().await;
    bench.write_config(&(on_server(&bench, &url) + &receiver.webhook()));
    bench.fault("slow=20000");
    let daemons = [Daemon::start(&bench).await, Daemon::start(&bench).await, Daemon::start(&bench).await];
    assert!(wait_until(async || are_stored(&bench, 30).await).await, "{:?}", bench.status().await);
    assert_eq!(bench.requests(), 30, "something was downloaded twice");
    let stored = || receiver.events().into_iter().filter(|event| event["type"] == "stored").collect::<Vec<_>>();
    assert!(wait_until(async || stored().len() >= 30).await, "{}", stored().len());
    for daemon in daemons {
        daemon.stop(&bench).await;
    }
    let keys: BTreeSet<_> = stored().iter().map(|event| event["data"]["key"].to_string()).collect();
    assert_eq!((stored().len(), keys.len()), (30, 30), "an event arrived twice or not at all");
    bench.oracle().await;
}

async fn the_partitions_of_a_killed_replica_pass_to_another_when_its_row_is_old(route: Route) {
    let (bench, url) = bench(route, &[Series::dump(3)]).await;
    bench.fault("stall,times=3");
    let killed = Daemon::start(&bench).await;
    assert!(wait_until(async || bench.requests() == 3).await);
    killed.kill(&bench).await;
    let heir = Daemon::start(&bench).await;
    assert_eq!(bench.requests(), 3, "the claims of a process that may live were taken over");
    // Half a minute later.
    postgres::execute(
        &url,
        "UPDATE holders SET renewed_at = renewed_at - 60000 WHERE name = (SELECT max(holder) FROM claims)",
    )
    .await;
    assert!(wait_until(async || are_stored(&bench, 3).await).await, "{:?}", bench.status().await);
    heir.stop(&bench).await;
    bench.oracle().await;
}

async fn a_replica_whose_claim_was_taken_over_while_it_stood_still_records_nothing(route: Route) {
    let (bench, url) = bench(route, &[Series::dump(1)]).await;
    bench.fault("slow=4000,times=1");
    let stopped = Daemon::start(&bench).await;
    assert!(wait_until(async || bench.requests() == 1).await);
    stopped.signal("STOP").await;
    postgres::execute(&url, "UPDATE holders SET renewed_at = 0").await;
    bench.sync(0).await;
    let (requests, stored) = (bench.requests(), bench.stored_files());
    stopped.signal("CONT").await;
    stopped.wait_for_log("taken over by another process").await;
    assert!(!stopped.has_ended());
    stopped.stop(&bench).await;
    assert_eq!(bench.requests(), requests);
    assert_eq!(bench.stored_files().keys().collect::<Vec<_>>(), stored.keys().collect::<Vec<_>>());
    // The manifest may have been written again; it describes the same object.
    for (key, bytes) in stored.iter().filter(|(key, _)| !key.ends_with(".manifest.json")) {
        assert!(bench.stored_files()[key] == *bytes, "`{key}` was overwritten");
    }
    let date = bench.newest.to_string();
    let explained = bench.run(&["explain", "--report", "dump", "--date", &date, "--json"]).await.expect(0);
    assert_eq!(explained.json()["history"].as_array().unwrap().len(), 1, "a late attempt was recorded");
    bench.oracle().await;
}

async fn a_lost_connection_is_a_pause_and_never_the_end_of_the_daemon(route: Route) {
    let (bench, url) = bench(route, &[Series::dump(5), Series::campaign("Report test", 5)]).await;
    bench.fault("slow=4000");
    let daemon = Daemon::start(&bench).await;
    for _ in 0..10 {
        postgres::execute(
            &url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'moesync'",
        )
        .await;
    }
    daemon.signal("HUP").await;
    assert!(wait_until(async || are_stored(&bench, 10).await).await, "{}", daemon.log().join("\n"));
    assert!(!daemon.has_ended());
    daemon.stop(&bench).await;
    bench.oracle().await;
}

async fn a_server_that_is_stopped_for_a_while_pauses_the_daemon_and_raises_an_alarm(route: Route) {
    let mut server = postgres::Server::start().await;
    let url = server.database(route).await;
    let bench = bench_on(&url, &[Series::dump(5), Series::campaign("Report test", 5)]).await;
    bench.write_config(&on_server(&bench, &url).replace("listen = \"\"", "listen = \"127.0.0.1:0\""));
    bench.fault("slow=4000");
    let daemon = Daemon::start(&bench).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let readiness = async || client.get(daemon.url() + "/readyz").send().await.unwrap().status();
    assert!(wait_until(async || bench.requests() > 0 && readiness().await == 200).await);
    server.stop();
    assert!(wait_until(async || daemon.alarms().contains(&"ledger".to_owned())).await, "{:?}", daemon.log());
    assert_eq!(readiness().await, 503);
    let checked = bench.run(&["check"]).await.expect(1);
    assert!(checked.stdout.contains("FAILED ledger"), "{}", checked.stdout);
    if matches!(route, Route::Direct) {
        assert!(checked.stdout.contains("Connection refused"), "{}", checked.stdout);
    }
    assert!(!daemon.has_ended());
    server.start_again();
    assert!(wait_until(async || readiness().await == 200).await);
    assert!(wait_until(async || are_stored(&bench, 10).await).await, "{}", daemon.log().join("\n"));
    daemon.wait_for_log("the ledger is written again").await;
    daemon.stop(&bench).await;
    bench.oracle().await;
}

async fn the_replicas_share_the_rate_of_requests(route: Route) {
    let (bench, url) = bench(route, &[]).await;
    let report = |number| {
        format!(
            "\n[[reports]]\nworkspace = \"acme\"\ndestination = \"disk\"\nsource = \"campaign_stats\"\nid = \"stats-{number}\"\n\
             metric_type = \"TOTAL\"\nattribution_type = \"CLICK_THROUGH\"\n\
             schedule = {{ every = \"day\", at = \"{}\" }}\nstart = \"{}\"\n",
            bench.generated_at_time(),
            bench.newest
        )
    };
    let reports: String = (0..4).map(report).collect();
    bench.write_config(&(on_server(&bench, &url) + &reports));
    let before = postgres::number(&url, "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)").await;
    let daemons = [Daemon::start(&bench).await, Daemon::start(&bench).await];
    assert!(wait_until(async || bench.requests() >= 4).await, "{}\n{:#?}", bench.requests(), daemons[0].log());
    for daemon in daemons {
        daemon.stop(&bench).await;
    }
    let requests = i64::try_from(bench.requests()).unwrap();
    let free_at = postgres::number(&url, "SELECT free_at FROM rates WHERE source = 'campaign_stats'").await;
    assert!(free_at - before >= requests * 610, "{requests} requests took {} ms of turns", free_at - before);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_to_the_server_verifies_its_certificate_and_its_name() {
    let mut server = postgres::Server::start().await;
    let url = server.database(Route::Direct).await;
    let bench = bench_on(&url, &[Series::dump(1)]).await;
    let make = |name: &str| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(bench.path(name), made.cert.pem()).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    };
    let (certificate, key) = make("server.pem");
    make("other.pem");
    server.use_certificate(&certificate, &key).await;
    let by_name = url.replace("127.0.0.1", "localhost");
    let root = |name| format!("sslmode=verify-full&sslrootcert={}", bench.path(name).display());
    let works = [format!("{by_name}?sslmode=require"), format!("{by_name}?{}", root("server.pem"))];
    let fails = [
        // The certificate has the name, not the address.
        format!("{url}?{}", root("server.pem")),
        format!("{by_name}?{}", root("other.pem")),
        format!("{by_name}?sslmode=verify-full"),
    ];
    for (url, code) in works.iter().map(|url| (url, 0)).chain(fails.iter().map(|url| (url, 1))) {
        bench.write_config(&on_server(&bench, url));
        let checked = bench.run(&["-vv", "check"]).await.expect(code);
        assert!(!checked.stdout.contains(password(url)) && !checked.stderr.contains(password(url)));
        assert_eq!(checked.stdout.contains("ok     ledger: PostgreSQL 1"), code == 0, "{url}: {}", checked.stdout);
    }
    bench.write_config(&on_server(&bench, &works[1]));
    bench.sync(0).await;
    bench.oracle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_reports_the_servers_version_and_what_its_user_may_do() {
    let url = postgres::database(Route::Direct).await;
    let bench = bench_on(&url, &[Series::dump(1)]).await;
    let checked = bench.run(&["check"]).await.expect(0);
    let expected = "may create tables in the schema public; up to 5 connections for each process, of the server's 300";
    assert!(checked.stdout.contains(expected), "{}", checked.stdout);
    postgres::execute(
        &url,
        "ALTER DATABASE :database SET search_path = nowhere"
            .replace(":database", url.rsplit('/').next().unwrap())
            .as_str(),
    )
    .await;
    let checked = bench.run(&["check"]).await.expect(1);
    assert!(checked.stdout.contains("no schema in the user's search_path"), "{}", checked.stdout);
}

async fn each_duty_is_done_by_one_replica_and_passes_on_when_it_is_killed(route: Route) {
    let (bench, url) = bench(route, &[Series::dump(1)]).await;
    let holders = async || postgres::number(&url, "SELECT count(DISTINCT holder) FROM duties").await;
    let duties = async || postgres::number(&url, "SELECT count(*) FROM duties").await;
    let first = Daemon::start(&bench).await;
    assert!(wait_until(async || duties().await == 2 && are_stored(&bench, 1).await).await);
    let second = Daemon::start(&bench).await;
    assert_eq!(holders().await, 1);
    let of_second =
        "SELECT count(*) FROM duties WHERE holder = (SELECT name FROM holders ORDER BY renewed_at DESC LIMIT 1)";
    first.kill(&bench).await;
    // Half a minute later.
    postgres::execute(
        &url,
        "UPDATE holders SET renewed_at = renewed_at - 60000 WHERE name IN (SELECT holder FROM duties)",
    )
    .await;
    assert!(
        wait_until(async || postgres::number(&url, of_second).await == 2).await,
        "a duty stays with a dead process"
    );
    // A replica that ends leaves them at once.
    second.stop(&bench).await;
    let third = Daemon::start(&bench).await;
    assert!(wait_until(async || postgres::number(&url, of_second).await == 2).await);
    third.stop(&bench).await;
    bench.oracle().await;
}
