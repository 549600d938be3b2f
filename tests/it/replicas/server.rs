//! The server itself: every command works with it, it can be lost, stop, or be verified.

use std::{fs, time::Duration};

use jiff::Timestamp;
use moesync::{config::SourceKind, ledger};
use sqlx::{Connection as _, PgConnection, Row as _};

use super::{are_stored, bench, bench_on, on_server, password};
use crate::support::{
    Bench, Daemon, Series,
    postgres::{self, Route},
    wait_until,
};

on_each_route! {
    every_command_works_with_a_ledger_on_a_server_and_none_shows_its_password,
    a_lost_database_is_learned_again_from_the_manifests_without_a_download,
    a_lost_connection_is_a_pause_and_never_the_end_of_the_daemon,
    a_server_that_is_stopped_for_a_while_pauses_the_daemon_and_raises_an_alarm,
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
    assert!(checked.stdout.contains("error  ledger: could not open the ledger postgres://"), "{}", checked.stdout);
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
    assert!(checked.stdout.contains("error  ledger"), "{}", checked.stdout);
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

/// A ledger that its owner has made, and the URL of another user, `worker`, who may read and write its tables. Statements of
/// the owner follow; `:user` in them is that user.
async fn with_worker(bench: &Bench, url: &str) -> impl AsyncFn(&str) {
    ledger::open_server(url, "place", |_| "me".to_owned()).await.unwrap().0.close().await;
    let (_, database) = url.rsplit_once('/').unwrap();
    let (_, server) = url.split_once('@').unwrap();
    bench.write_config(&on_server(bench, &format!("postgres://{database}:worker@{server}")));
    let owner = async move |statement: &str| postgres::execute(url, &statement.replace(":user", database)).await;
    owner("CREATE ROLE :user LOGIN PASSWORD 'worker'").await;
    owner("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO :user").await;
    owner
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_not_create_tables_works_with_those_that_are_there() {
    let url = postgres::database(Route::Direct).await;
    let bench = bench_on(&url, &[Series::dump(2)]).await;
    let owner = with_worker(&bench, &url).await;
    owner("REVOKE CREATE ON SCHEMA public FROM PUBLIC").await;
    let checked = bench.run(&["check"]).await.expect(0).stdout;
    let expected = "may not create tables in the schema public, which a new version can need; up to 5 connections";
    assert!(checked.contains(expected), "{checked}");
    bench.run(&["sync"]).await.expect(0);
    assert!(are_stored(&bench, 2).await);

    // What another version left is refused as it is for a user who may create tables.
    let refused = async |statement: &str, expected: &str| {
        owner(statement).await;
        let ran = bench.run(&["sync"]).await.expect(1).stderr;
        assert!(ran.contains(expected), "{statement}: {ran}");
    };
    let newer = "INSERT INTO _sqlx_migrations SELECT 9999, '', now(), true, '', 0";
    refused(newer, "was made by a newer version of moesync (migration 9999); use that one").await;
    owner("DELETE FROM _sqlx_migrations WHERE version = 9999").await;
    let other = "UPDATE _sqlx_migrations SET checksum = checksum || '\\x00' WHERE version = 2";
    refused(other, "migration 2 was previously applied but has been modified").await;
    let older = "DELETE FROM _sqlx_migrations WHERE version >= 2";
    refused(older, "permission denied for schema public").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_the_rights_on_tables_that_the_servers_user_lacks() {
    let url = postgres::database(Route::Direct).await;
    let bench = bench_on(&url, &[Series::dump(1)]).await;
    let owner = with_worker(&bench, &url).await;
    owner("GRANT CREATE ON SCHEMA public TO :user").await;
    // Tables of others do not count.
    owner("CREATE TABLE other (number BIGINT)").await;
    bench.run(&["check"]).await.expect(0);
    owner("REVOKE INSERT ON claims FROM :user").await;
    owner("REVOKE DELETE ON claims, holds FROM :user").await;
    owner("REVOKE UPDATE ON ALL TABLES IN SCHEMA public FROM :user").await;
    let checked = bench.run(&["check"]).await.expect(1).stdout;
    let lacks =
        "may create tables in the schema public; lacks DELETE on claims and 1 more table, INSERT on claims, UPDATE on ";
    assert!(checked.contains("error  ledger: PostgreSQL") && checked.contains(lacks), "{checked}");
    assert!(checked.contains(" more tables; up to 5 connections"), "{checked}");
}

/// Keeps all writers of a ledger waiting.
const LOCK: &str = "SELECT pg_advisory_lock(7881696101)";
const UNLOCK: &str = "SELECT pg_advisory_unlock(7881696101)";
const AWAITED: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'";

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_could_not_begin_does_not_make_later_ones_fail() {
    let url = postgres::database(Route::Direct).await;
    let ledger = ledger::open_server(&url, "place", |_| "me".to_owned()).await.unwrap().0;
    let write = || ledger.rest("app", SourceKind::Campaigns, Duration::from_secs(60), Timestamp::UNIX_EPOCH);
    let mut other = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(LOCK).execute(&mut other).await.unwrap();
    let cancel = async {
        assert!(wait_until(async || postgres::number(&url, AWAITED).await == 2).await);
        let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity
                      WHERE datname = current_database() AND wait_event = 'advisory'";
        postgres::execute(&url, cancel).await;
    };
    let (first, second, ()) = tokio::join!(write(), write(), cancel);
    assert!(first.is_err() && second.is_err());
    sqlx::raw_sql(UNLOCK).execute(&mut other).await.unwrap();
    for _ in 0..10 {
        write().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_do_not_wait_for_the_writes_of_other_processes() {
    let url = postgres::database(Route::Direct).await;
    let ledger = ledger::open_server(&url, "place", |_| "me".to_owned()).await.unwrap().0;
    let mut other = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(LOCK).execute(&mut other).await.unwrap();
    let writes = futures::future::join_all(
        (0..10).map(|_| ledger.rest("app", SourceKind::Campaigns, Duration::from_secs(60), Timestamp::UNIX_EPOCH)),
    );
    let reads = async {
        assert!(wait_until(async || postgres::number(&url, AWAITED).await > 0).await);
        for _ in 0..10 {
            ledger.rest_left("app", SourceKind::Campaigns, Timestamp::UNIX_EPOCH).await.unwrap();
        }
        let waiting = postgres::number(&url, AWAITED).await;
        assert!(waiting <= 2, "a process that is stopped now keeps the others waiting {waiting} times");
        assert!(sqlx::raw_sql(UNLOCK).fetch_one(&mut other).await.unwrap().get::<bool, _>(0));
    };
    let (writes, ()) = tokio::join!(writes, reads);
    assert!(writes.iter().all(Result::is_ok), "{writes:?}");
}
