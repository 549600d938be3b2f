//! Recovery of a lost ledger from destinations that are down, slow or damaged.

use std::{collections::HashSet, fs};

use jiff::{SignedDuration, ToSpan as _};
use moesync::{
    emulator::Campaigns,
    partition::Settled,
    sync::{self, Selection},
};
use tokio::net::TcpListener;

use crate::support::{Bench, Daemon, Series, wait_until};

/// The configuration without `start`: planned from the first start on.
fn without_start(bench: &Bench) -> String {
    bench.config().lines().filter(|line| !line.starts_with("start")).map(|line| format!("{line}\n")).collect()
}

fn lose_ledger(bench: &Bench) {
    fs::remove_dir_all(bench.path("ledger")).unwrap();
}

/// The destination while its disk is not mounted.
fn take_away(bench: &Bench) {
    fs::rename(bench.path("reports"), bench.path("reports-away")).unwrap();
    fs::write(bench.path("reports"), "no folder").unwrap();
}

fn bring_back(bench: &Bench) {
    fs::remove_file(bench.path("reports")).unwrap();
    fs::rename(bench.path("reports-away"), bench.path("reports")).unwrap();
}

/// One process that recovers and makes a pass.
async fn process(bench: &Bench) {
    let ctx = bench.context().await;
    sync::recover(&ctx, &sync::Selection::default()).await.unwrap();
    sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
    ctx.ledger.close().await;
}

fn requests_for(bench: &Bench, text: &str) -> usize {
    bench.vendor.requests().iter().filter(|request| request.path.contains(text)).count()
}

const NOW: &str = "2026-11-21T12:00:00Z";

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_down_at_the_start_of_a_new_ledger_leaves_no_gap_of_dumps() {
    let bench = Bench::at(NOW, &[Series::dump(1)]).await;
    bench.write_config(&without_start(&bench));
    survives_a_first_start_without_destination(&bench).await;
    for date in ["20261121", "20261122"] {
        assert_eq!(requests_for(&bench, date), 1, "{date} was downloaded again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_down_at_the_start_of_a_ledger_leaves_no_gap_of_statistics() {
    let bench = Bench::of_campaigns(NOW, Campaigns { count: 3, ..Campaigns::default() }).await;
    let statistics = format!(
        "\n[[reports]]\nworkspace = \"acme\"\nsource = \"campaign_stats\"\ndestination = \"disk\"\nmetric_type = \"TOTAL\"\n\
         attribution_type = \"CLICK_THROUGH\"\nrefresh_days = 0\nschedule = {{ every = \"day\", at = \"{}\" }}\n",
        bench.generated_at_time()
    );
    bench.write_config(&(bench.config() + &statistics));
    survives_a_first_start_without_destination(&bench).await;
}

/// Two days are stored; then the ledger is lost, and three days later the destination is down at the first start.
async fn survives_a_first_start_without_destination(bench: &Bench) {
    let day = SignedDuration::from_hours(24);
    process(bench).await;
    bench.clock.advance(day);
    process(bench).await;
    let before = bench.stored_files();

    lose_ledger(bench);
    take_away(bench);
    bench.clock.advance(day * 3);
    process(bench).await;
    // Partitions planned while the destination was down are kept as well.
    bench.clock.advance(day * 2);
    bring_back(bench);
    process(bench).await;

    let ctx = bench.context().await;
    let entries = ctx.ledger.entries().await.unwrap();
    let dates: Vec<_> = entries.iter().map(|entry| entry.partition.id.date.day()).collect();
    assert_eq!(dates, [21, 22, 23, 24, 25, 26, 27]);
    assert!(entries.iter().all(|entry| entry.object.is_some()), "{entries:#?}");
    let after = bench.stored_files();
    assert!(
        before.iter().all(|(key, stored_files)| after.get(key) == Some(stored_files)),
        "what was stored was replaced"
    );
    ctx.ledger.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_expired_in_downtime_are_lost_also_if_planned_before_recovery() {
    // As in the daemon, whose loop plans and works during recovery.
    let planned_only = Selection { partitions: Some(HashSet::new()), ..Selection::default() };
    for before in [Selection::default(), planned_only] {
        let bench = Bench::at(NOW, &[Series::campaign("Report test", 3)]).await;
        process(&bench).await;
        lose_ledger(&bench);
        bench.clock.advance(SignedDuration::from_hours(10 * 24));
        let ctx = bench.context().await;
        sync::once(&ctx, &before, std::future::pending()).await.unwrap();
        sync::recover(&ctx, &sync::Selection::default()).await.unwrap();
        sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
        let entries = ctx.ledger.entries().await.unwrap();
        let settled: Vec<_> = entries.iter().map(|entry| entry.settled).collect();
        let (known, rest) = settled.split_at(3);
        assert_eq!(known, [Settled::Stored; 3]);
        assert_eq!(rest[..3], [Settled::Lost; 3], "{entries:#?}");
        assert!(!rest.contains(&Settled::Absent));
        ctx.ledger.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_recovers_from_a_destination_as_soon_as_it_is_back() {
    let bench = Bench::new(&[Series::dump(4)]).await;
    bench.sync(0).await;
    bench.write_config(&without_start(&bench));
    lose_ledger(&bench);
    take_away(&bench);
    let daemon = Daemon::start(&bench).await;
    daemon.wait_for_log("could not list stored objects").await;
    bring_back(&bench);
    let is_whole = async || {
        let status = bench.status().await;
        status.len() == 4 && status.iter().all(|partition| partition["state"] == "stored")
    };
    assert!(wait_until(is_whole).await, "{:#?}\n{}", bench.status().await, daemon.log().join("\n"));
    for ago in 1..4 {
        let date = bench.newest.checked_sub(ago.days()).unwrap().strftime("%Y%m%d").to_string();
        assert_eq!(requests_for(&bench, &date), 1, "{date} was downloaded again");
    }
    daemon.stop(&bench).await;
    bench.oracle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_destination_delays_no_download_or_recovery_of_others() {
    let bench = Bench::new(&[Series::dump(5), Series::campaign("Report test", 3)]).await;
    bench.run(&["sync", "--report", "dump"]).await.expect(0);
    lose_ledger(&bench);
    let asked = bench.requests();
    // It accepts connections and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    crate::support::spawn(async move {
        let mut held = Vec::new();
        while let Ok(connection) = listener.accept().await {
            held.push(connection);
        }
    });
    let hanging = format!(
        "\n[[destinations]]\nname = \"hanging\"\nurl = \"s3://bucket\"\n[destinations.options]\n\
         aws_endpoint = \"http://{address}\"\naws_region = \"us-east-1\"\naws_access_key_id = \"user\"\n\
         aws_secret_access_key = \"something\"\nallow_http = \"true\"\n\n[[reports]]\nworkspace = \"acme\"\n\
         source = \"daily_dump\"\nid = \"far\"\ndestination = \"hanging\"\n\
         schedule = {{ every = \"day\", at = \"00:00\" }}\n"
    );
    bench.write_config(&(bench.config() + &hanging));
    let daemon = Daemon::start(&bench).await;
    let are_stored = async || {
        let status = bench.status().await;
        status.iter().filter(|partition| partition["report"] != "far" && partition["state"] == "stored").count() == 8
    };
    assert!(wait_until(are_stored).await, "{}", daemon.log().join("\n"));
    let downloads = requests_for(&bench, "Report_test");
    assert_eq!((bench.requests() - asked - downloads, downloads), (0, 3), "a stored dump was downloaded again");
    daemon.kill(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_object_is_a_warning_and_all_others_are_adopted() {
    let bench = Bench::new(&[Series::dump(5)]).await;
    bench.sync(0).await;
    bench.write_config(&without_start(&bench));
    lose_ledger(&bench);
    let (series, oldest) = bench.due()[0];
    let (object, aside) = (bench.object(&series.key(oldest)), bench.path("aside"));
    fs::rename(&object, &aside).unwrap();
    fs::create_dir(&object).unwrap();
    let asked = bench.requests();
    let ran = bench.sync(1).await;
    assert!(ran.stderr.contains("could not read a manifest"), "{}", ran.stderr);
    let states: Vec<_> = bench.status().await.iter().map(|partition| partition["state"].clone()).collect();
    // The oldest is planned again by its key.
    assert_eq!(states, ["pending", "stored", "stored", "stored", "stored"]);
    assert_eq!(bench.requests(), asked);
    fs::remove_dir(&object).unwrap();
    fs::rename(&aside, &object).unwrap();
    bench.sync(0).await;
    assert_eq!(bench.requests(), asked);
    bench.oracle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_waits_for_its_ledger_reloads_on_sighup() {
    let both = [Series::dump(2), Series::campaign("Report test", 2)];
    let bench = Bench::new(&both).await;
    let whole = bench.config();
    bench.write_config(&whole.replace(&bench.report(&both[1]), ""));
    let daemon = Daemon::start(&bench).await;
    let stored = async |count| bench.status().await.iter().filter(|it| it["state"] == "stored").count() == count;
    assert!(wait_until(async || stored(2).await).await, "{}", daemon.log().join("\n"));
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(bench.path(&format!("ledger/moesync.db{suffix}")));
    }
    fs::create_dir(bench.ledger()).unwrap();
    daemon.signal("HUP").await;
    daemon.wait_for_log("could not start again").await;
    fs::remove_dir(bench.ledger()).unwrap();
    bench.write_config(&whole);
    daemon.signal("HUP").await;
    assert!(wait_until(async || stored(4).await).await, "{}", daemon.log().join("\n"));
    assert_eq!(bench.requests(), 4);
    daemon.stop(&bench).await;
    bench.oracle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_cannot_start_again_logs_the_reason_once() {
    let bench = Bench::new(&[Series::dump(1)]).await;
    let daemon = Daemon::start(&bench).await;
    let count = |text| daemon.log().iter().filter(|line| line.contains(text)).count();
    let is_stored = async || bench.status().await.iter().filter(|it| it["state"] == "stored").count() == 1;
    assert!(wait_until(&is_stored).await, "{}", daemon.log().join("\n"));
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(bench.path(&format!("ledger/moesync.db{suffix}")));
    }
    fs::create_dir(bench.ledger()).unwrap();
    daemon.signal("HUP").await;
    daemon.wait_for_log("could not start again").await;
    let valid = bench.config();
    bench.write_config("nonsense");
    // Each SIGHUP starts a try. An invalid configuration is logged before that try, so at the third line two have failed.
    for tries in 1..=3 {
        daemon.signal("HUP").await;
        let is_read = async || count("the new configuration is not used") == tries;
        assert!(wait_until(is_read).await, "{}", daemon.log().join("\n"));
    }
    assert_eq!(count("could not start again"), 1, "{}", daemon.log().join("\n"));
    fs::remove_dir(bench.ledger()).unwrap();
    bench.write_config(&valid);
    daemon.signal("HUP").await;
    assert!(wait_until(&is_stored).await, "{}", daemon.log().join("\n"));
    daemon.stop(&bench).await;
    bench.oracle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_and_run_refuse_a_ledger_with_the_same_message() {
    let bench = Bench::new(&[Series::dump(1)]).await;
    let folder = bench.folder.path().display().to_string();
    bench.write_config(&bench.config().replace(&bench.ledger().display().to_string(), &folder));
    let checked = bench.run(&["check", "--json"]).await.expect(2).json();
    let refused = bench.run(&["run"]).await.expect(2).stderr;
    let ledger = checked["checks"].as_array().unwrap().iter().find(|check| check["subject"] == "ledger").unwrap();
    assert!(refused.ends_with(&format!("error: {}\n", ledger["message"].as_str().unwrap())), "{refused}: {ledger}");
}
