//! What replicas divide among them: partitions, rates, duties, events.

use std::collections::BTreeSet;

use super::{are_stored, bench, on_server};
use crate::support::{
    Daemon, Receiver, Series,
    postgres::{self, Route},
    wait_until,
};

on_each_route! {
    three_daemons_share_the_work_and_each_event_arrives_once,
    the_partitions_of_a_killed_replica_pass_to_another_when_its_row_is_old,
    a_replica_whose_claim_was_taken_over_while_it_stood_still_records_nothing,
    the_replicas_share_the_rate_of_requests,
    an_alarm_about_a_replica_reaches_the_target_and_ends_after_it_was_killed,
    each_duty_is_done_by_one_replica_and_passes_on_when_it_is_killed,
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

async fn each_duty_is_done_by_one_replica_and_passes_on_when_it_is_killed(route: Route) {
    let (bench, url) = bench(route, &[Series::dump(1)]).await;
    let holders =
        async || postgres::number(&url, "SELECT count(DISTINCT holder) FROM duties WHERE name <> 'tables'").await;
    let duties = async || postgres::number(&url, "SELECT count(*) FROM duties WHERE name <> 'tables'").await;
    let first = Daemon::start(&bench).await;
    assert!(wait_until(async || duties().await == 2 && are_stored(&bench, 1).await).await);
    let second = Daemon::start(&bench).await;
    assert_eq!(holders().await, 1);
    let of_second = "SELECT count(*) FROM duties WHERE name <> 'tables' AND holder = (SELECT name FROM holders ORDER BY renewed_at DESC LIMIT 1)";
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

async fn an_alarm_about_a_replica_reaches_the_target_and_ends_after_it_was_killed(route: Route) {
    let (bench, url) = bench(route, &[Series::dump(1)]).await;
    let receiver = Receiver::start().await;
    let config = on_server(&bench, &url) + &receiver.webhook();
    bench.write_config(&config);
    let on_duty = Daemon::start(&bench).await;
    let holders = async || postgres::number(&url, "SELECT count(*) FROM duties WHERE name = 'notifying'").await;
    assert!(wait_until(async || holders().await == 1).await);
    let other = Daemon::start(&bench).await;
    // A third one lives, and has no alarm.
    postgres::execute(&url, "INSERT INTO holders (name, renewed_at) VALUES ('third', 9000000000000)").await;
    let phases = || {
        let of_configuration = |event: &serde_json::Value| event["data"]["alarm"] == "configuration";
        let events = receiver.events().into_iter().filter(of_configuration);
        events.map(|event| event["type"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // Only this one reads it.
    bench.write_config("nonsense");
    other.signal("HUP").await;
    assert!(wait_until(async || phases() == ["alarm.began"]).await, "{:?}", receiver.events());
    bench.write_config(&config);
    other.kill(&bench).await;
    let rows = async || postgres::number(&url, "SELECT count(*) FROM incidents").await;
    assert_eq!(rows().await, 1, "it could not clear up");
    // Half a minute later.
    postgres::execute(
        &url,
        "UPDATE holders SET renewed_at = renewed_at - 60000 WHERE name IN (SELECT holder FROM incidents)",
    )
    .await;
    assert!(wait_until(async || phases() == ["alarm.began", "alarm.ended"]).await, "{:?}", receiver.events());
    assert_eq!(rows().await, 0);
    on_duty.stop(&bench).await;
    bench.oracle().await;
}
