//! Pings to a dead man's switch, and the daily summary.

use jiff::SignedDuration;
use moesync::{
    dispatch::{self, Dispatcher},
    sync::{self, Selection},
};

use super::{NOW, hours, look, pass, with_webhook};
use crate::support::{Bench, Receiver, Series};

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_counts_stored_objects_and_lists_alarms() {
    let (bench, receiver) = (Bench::at(NOW, &[Series::campaign("Report test", 1)]).await, Receiver::start().await);
    let target = format!("\n[[notify]]\nname = \"switch\"\nkind = \"ping\"\nurl = \"{}/ping/uuid\"\n", receiver.url);
    bench.write_config(&(bench.config() + &target));
    let ctx = bench.context().await;
    let dispatcher = Dispatcher::new(&ctx.config, ctx.clock.now()).unwrap();
    let pass = async || {
        sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
        dispatcher.round(&ctx).await.unwrap();
        dispatcher.round(&ctx).await.unwrap();
    };
    pass().await;
    bench.clock.advance(SignedDuration::from_mins(5));
    pass().await;
    bench.fault("unauthorized");
    bench.clock.advance(hours(30));
    pass().await;
    // The machine sleeps: the loop does not hang.
    bench.clock.advance(hours(8));
    dispatcher.round(&ctx).await.unwrap();
    // The loop hangs.
    for _ in 0..20 {
        bench.clock.advance(SignedDuration::from_mins(1));
        dispatcher.round(&ctx).await.unwrap();
    }

    let pings: Vec<_> = receiver.received().into_iter().map(|ping| (ping.path, ping.body)).collect();
    let [first, second, refused, slept, .., hanging] = pings.as_slice() else { panic!("{pings:#?}") };
    assert_eq!(slept.1, refused.1);
    assert_eq!((first.0.as_str(), second.0.as_str()), ("/ping/uuid", "/ping/uuid"));
    assert_eq!(second.1, "moesync: 0 stored since the last ping; 0 due and not stored; 0 alarms");
    assert_eq!(refused.0, "/ping/uuid/fail");
    assert!(refused.1.contains("unauthorized: acme, 1 partition"), "{}", refused.1);
    assert_eq!(hanging.0, "/ping/uuid/fail");
    assert!(hanging.1.contains("the loop has not planned"), "{}", hanging.1);
}

/// The table of a dead man's switch.
fn switch(receiver: &Receiver) -> String {
    format!("\n[[notify]]\nname = \"switch\"\nkind = \"ping\"\nurl = \"{}/ping/uuid\"\n", receiver.url)
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_fail_until_an_alarm_has_ended_across_restarts_and_other_failures() {
    let (bench, receiver) = (Bench::at(NOW, &[Series::campaign("Report test", 1)]).await, Receiver::start().await);
    bench.write_config(&(bench.config() + &switch(&receiver)));
    let last = || receiver.received().pop().unwrap();
    bench.fault("truncate=50%");
    pass(&bench).await;
    assert_eq!(last().path, "/ping/uuid/fail");
    assert!(last().body.contains("corrupt: report-test, 1 partition"), "{}", last().body);
    // Another failure does not end the alarm, and the partition is not late yet.
    bench.vendor.clear_faults();
    bench.fault("status=503");
    bench.clock.advance(SignedDuration::from_mins(5));
    pass(&bench).await;
    assert_eq!(last().path, "/ping/uuid/fail", "{}", last().body);
    assert!(last().body.contains("1 alarm\ncorrupt: report-test, not known to have ended"), "{}", last().body);
    bench.vendor.clear_faults();
    bench.clock.advance(hours(1));
    pass(&bench).await;
    assert_eq!((last().path.as_str(), receiver.received().len()), ("/ping/uuid", 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_and_summaries_count_an_alarm_while_its_attempt_is_in_progress() {
    let (bench, receiver) = (Bench::at(NOW, &[Series::campaign("Report test", 1)]).await, Receiver::start().await);
    bench.write_config(&(bench.config() + &switch(&receiver) + &receiver.webhook()));
    let pings = || receiver.received().into_iter().filter(|ping| ping.path.starts_with("/ping")).collect::<Vec<_>>();
    let ctx = bench.context().await;
    let dispatcher = Dispatcher::new(&ctx.config, ctx.clock.now()).unwrap();
    dispatch::register_targets(&ctx).await.unwrap();
    bench.fault("status=503");
    bench.clock.advance(hours(24));
    sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
    dispatcher.round(&ctx).await.unwrap();
    assert_eq!(receiver.alarms(), ["late began"]);
    // The next attempt, ping and summary are due.
    bench.clock.advance(hours(24));
    dispatcher.round(&ctx).await.unwrap();
    let paths: Vec<_> = pings().into_iter().map(|ping| ping.path).collect();
    assert_eq!(paths, ["/ping/uuid/fail", "/ping/uuid/fail"]);
    assert!(pings()[1].body.contains("late: report-test, not known to have ended"), "{}", pings()[1].body);
    assert_eq!(receiver.alarms(), ["late began"]);
    let summaries: Vec<_> = receiver.events().into_iter().filter(|event| event["type"] == "summary").collect();
    let alarms: Vec<_> = summaries.iter().map(|summary| summary["data"]["alarms"].as_u64()).collect();
    assert_eq!(alarms, [Some(1), Some(1)]);
    ctx.ledger.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_do_not_fail_for_a_clock_that_was_not_compared_since() {
    let (bench, receiver) = (Bench::at(NOW, &[Series::campaign("Report test", 1)]).await, Receiver::start().await);
    let target = format!("\n[[notify]]\nname = \"switch\"\nkind = \"ping\"\nurl = \"{}/ping/uuid\"\n", receiver.url);
    bench.write_config(&(bench.config() + &target));
    let ctx = bench.context().await;
    let dispatcher = Dispatcher::new(&ctx.config, ctx.clock.now()).unwrap();
    bench.fault("wrong-date=-2h");
    sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
    dispatcher.round(&ctx).await.unwrap();
    bench.clock.advance(hours(2));
    dispatcher.round(&ctx).await.unwrap();
    let paths: Vec<_> = receiver.received().into_iter().map(|ping| ping.path).collect();
    assert_eq!(paths, ["/ping/uuid/fail", "/ping/uuid"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_without_stored_objects_has_a_summary() {
    let (bench, receiver) = with_webhook(&[Series::campaign("Report test", 1)]).await;
    pass(&bench).await;
    bench.fault("not-yet");
    for _ in 0..2 {
        bench.clock.advance(hours(25));
        pass(&bench).await;
        look(&bench).await;
    }
    let summaries: Vec<_> = receiver.events().into_iter().filter(|event| event["type"] == "summary").collect();
    let stored: Vec<_> = summaries.iter().map(|summary| summary["data"]["stored"].as_u64()).collect();
    assert_eq!(stored, [Some(1), Some(0)]);
    assert_eq!(summaries[1]["data"]["pending"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_pings_its_start_and_its_result() {
    let (bench, receiver) = (Bench::new(&[Series::campaign("Report test", 2)]).await, Receiver::start().await);
    let target = format!("\n[[notify]]\nname = \"switch\"\nkind = \"ping\"\nurl = \"{}/ping/uuid\"\n", receiver.url);
    bench.write_config(&(bench.config() + &target));
    let newest = bench.series[0].file_name(bench.newest);
    bench.fault_at(&newest, "not-yet".parse::<moesync::emulator::Rule>().unwrap().fault, 1);
    bench.sync(1).await;
    bench.sync(0).await;
    bench.sync(0).await;
    let pings: Vec<_> = receiver.received().into_iter().map(|ping| (ping.path, ping.body)).collect();
    let paths: Vec<_> = pings.iter().map(|(path, _)| path.strip_prefix("/ping/uuid").unwrap()).collect();
    assert_eq!(paths, ["/start", "/fail", "/start", "", "/start", ""]);
    let stored: Vec<_> = [1, 3, 5].map(|number: usize| pings[number].1.split(';').next().unwrap()).to_vec();
    let count = |count: u32| format!("moesync: {count} stored since the last ping");
    assert_eq!(stored, [count(1), count(1), count(0)]);
    assert!(pings[1].1.contains("the pass did not store every due partition"), "{}", pings[1].1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_ping_is_no_sign_of_life_and_uses_no_proxy_for_loopback() {
    let (bench, receiver) = (Bench::new(&[Series::campaign("Report test", 1)]).await, Receiver::start().await);
    let target = format!("\n[[notify]]\nname = \"switch\"\nkind = \"ping\"\nurl = \"{}/ping/uuid\"\n", receiver.url);
    // Nothing listens there.
    let proxy = "\n[network]\nproxy = \"http://127.0.0.1:1\"\n";
    bench.write_config(&(bench.config() + &target + proxy));
    let ran = bench.run(&["check", "--online"]).await;
    let paths: Vec<_> = receiver.received().into_iter().map(|received| received.path).collect();
    assert_eq!(paths, ["/ping/uuid/log"], "{}", ran.stdout);
}
