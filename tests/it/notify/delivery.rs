//! Delivery: each event once and in order, with retries, to receivers that refuse, delay or fail.

use std::{collections::BTreeSet, fs};

use jiff::SignedDuration;
use moesync::{
    dispatch::{self, Dispatcher},
    ledger,
    sync::{self, Selection},
};

use super::{hours, look, pass, plan_only, with_webhook};
use crate::support::{Bench, Daemon, Receiver, Series, ledger_file, oracle::manifest_key, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_object_is_sent_once_also_if_its_process_died_before_recording_it() {
    let (bench, receiver) = with_webhook(&[Series::campaign("Report test", 3)]).await;
    // One partition is open in the ledger; a process stores it, and the record of that is lost.
    bench.fault_at(
        &bench.series[0].file_name(bench.newest),
        "not-yet".parse::<moesync::emulator::Rule>().unwrap().fault,
        1,
    );
    pass(&bench).await;
    let ledger = fs::read(bench.ledger()).unwrap();
    pass(&bench).await;
    fs::write(bench.ledger(), ledger).unwrap();
    let before = receiver.events().len();
    assert_eq!(before, 3);
    look_after_recovery(&bench).await;

    let events = receiver.events();
    assert_eq!(events.len(), 4, "{events:#?}");
    for event in &events {
        let data = &event["data"];
        assert_eq!(event["type"], "stored");
        let object = fs::read(bench.object(data["key"].as_str().unwrap())).unwrap();
        assert_eq!(data["sha256"], crate::support::oracle::hash(&object));
        assert_eq!((&data["size"], &data["destination"]), (&object.len().into(), &"disk".into()));
    }
    assert_eq!(events[2]["data"], events[3]["data"]);
}

async fn look_after_recovery(bench: &Bench) {
    let ctx = bench.context().await;
    sync::recover(&ctx, &sync::Selection::default()).await.unwrap();
    plan_only(&ctx).await;
    Dispatcher::new(&ctx.config, ctx.clock.now()).unwrap().round(&ctx).await.unwrap();
    ctx.ledger.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_neither_forgets_nor_repeats_an_alarm() {
    let (bench, receiver) = (Bench::new(&[Series::campaign("Report test", 2)]).await, Receiver::start().await);
    bench.write_config(&(bench.config() + &receiver.webhook()));
    bench.fault("unauthorized");
    receiver.answer(503, "closed");
    let daemon = Daemon::start(&bench).await;
    assert!(wait_until(async || !receiver.received().is_empty()).await);
    daemon.kill(&bench).await;
    let id = receiver.received()[0].header("webhook-id").to_owned();
    assert_eq!(receiver.alarms(), [""; 0]);

    receiver.answer(200, "ok");
    let daemon = Daemon::start(&bench).await;
    receiver.wait_for_alarms(1).await;
    // A process that is killed before it records the arrival keeps the event from the others for a minute.
    let ledger = ledger::open_read_only(&bench.ledger()).await.unwrap().unwrap();
    assert!(wait_until(async || ledger.all_waiting().await.unwrap().is_empty()).await);
    ledger.close().await;
    daemon.kill(&bench).await;
    assert_eq!(receiver.events()[0]["id"], id, "the id must not change");
    // An alarm that lasts is not sent again by another process.
    bench.run(&["sync"]).await.expect(1);
    bench.run(&["sync"]).await.expect(1);
    assert_eq!(receiver.alarms(), ["unauthorized began"]);
    // Its end is sent by `moesync sync`.
    bench.vendor.clear_faults();
    bench.run(&["sync"]).await.expect(0);
    let alarms = receiver.alarms();
    assert_eq!(alarms, ["unauthorized began", "unauthorized ended"]);
    assert_eq!(receiver.events().iter().filter(|event| event["type"] == "stored").count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_given_up_after_three_days_and_later_ones_are_sent() {
    let (bench, receiver) = with_webhook(&[Series::campaign("Report test", 1)]).await;
    pass(&bench).await;
    receiver.answer(500, "broken");
    bench.fault("not-yet");
    bench.clock.advance(hours(31));
    pass(&bench).await;
    assert_eq!(receiver.alarms(), [""; 0]);
    bench.clock.advance(hours(85));
    pass(&bench).await;
    look(&bench).await;
    receiver.answer(200, "ok");
    bench.clock.advance(hours(1));
    look(&bench).await;
    assert_eq!(receiver.alarms(), ["expiring worsened"], "the beginning was given up");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_that_lasts_is_sent_again_after_its_event_was_given_up() {
    let (bench, receiver) = with_webhook(&[Series::campaign("Report test", 1)]).await;
    receiver.answer(503, "closed");
    bench.fault("unauthorized");
    pass(&bench).await;
    bench.clock.advance(hours(1));
    look(&bench).await;
    bench.clock.advance(hours(73));
    look(&bench).await;
    receiver.answer(200, "ok");
    bench.clock.advance(hours(73));
    look(&bench).await;
    bench.clock.advance(hours(2));
    look(&bench).await;
    look(&bench).await;
    let alarms = receiver.alarms();
    assert_eq!(alarms.iter().filter(|alarm| *alarm == "unauthorized began").count(), 1, "{alarms:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_event_delays_only_events_of_its_alarm_and_is_given_up() {
    for status in [400, 413, 422] {
        let (bench, receiver) = with_webhook(&[Series::campaign("Report test", 1)]).await;
        receiver.answer_to("alarm.began", status, None);
        bench.fault("unauthorized");
        pass(&bench).await;
        bench.vendor.clear_faults();
        bench.clock.advance(hours(2));
        pass(&bench).await;
        let types = || receiver.events().iter().map(|event| event["type"].clone()).collect::<Vec<_>>();
        assert_eq!(types(), ["stored"], "{status}");
        for _ in 2..=moesync::retry::QUICK_TRIES {
            bench.clock.advance(hours(1));
            look(&bench).await;
        }
        assert_eq!(types(), ["stored", "alarm.ended"], "{status}");
    }
}

/// Two reports that are late one after the other, and a receiver that refuses all events of the first.
async fn refused_first(status: u16, retry_after: Option<u32>) -> (Bench, Receiver) {
    let (bench, receiver) = with_webhook(&[Series::campaign("First", 1), Series::campaign("Second", 1)]).await;
    receiver.answer_to("acme/first", status, retry_after);
    bench.fault("not-yet,path=First");
    bench.clock.advance(hours(1));
    pass(&bench).await;
    (bench, receiver)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_always_fails_delays_later_alarms_for_its_quick_tries_only() {
    let (bench, receiver) = refused_first(500, None).await;
    assert_eq!(receiver.alarms(), [""; 0]);
    // Another alarm begins and a summary is due meanwhile.
    bench.fault("not-yet,path=Second");
    bench.clock.advance(hours(24));
    pass(&bench).await;
    for _ in 0..moesync::retry::QUICK_TRIES {
        bench.clock.advance(SignedDuration::from_secs(70));
        look(&bench).await;
    }
    let second = |event: &serde_json::Value| event["data"]["message"].as_str().unwrap().contains("acme/second");
    let alarms = || receiver.events().into_iter().filter(|event| event["data"]["alarm"] == "late").collect::<Vec<_>>();
    assert!(alarms().len() == 1 && second(&alarms()[0]), "{:#?}", receiver.events());
    assert!(receiver.events().iter().any(|event| event["type"] == "summary"), "{:#?}", receiver.events());

    // The receiver gets the beginning before the end.
    bench.vendor.clear_faults();
    pass(&bench).await;
    receiver.relent();
    bench.clock.advance(hours(2));
    look(&bench).await;
    let phases: Vec<_> =
        receiver.events().iter().filter(|event| event["data"]["alarm"] == "late" && !second(event)).cloned().collect();
    let phases: Vec<_> = phases.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(phases, ["alarm.began", "alarm.ended"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_asks_to_wait_a_day_gets_alarms_after_15_minutes() {
    let (bench, receiver) = refused_first(429, Some(86_400)).await;
    bench.fault("not-yet,path=Second");
    bench.clock.advance(SignedDuration::from_mins(10));
    pass(&bench).await;
    let asked = receiver.received().len();
    receiver.relent();
    bench.clock.advance(SignedDuration::from_mins(4));
    look(&bench).await;
    assert_eq!(receiver.received().len(), asked, "its Retry-After was ignored");
    bench.clock.advance(SignedDuration::from_mins(2));
    look(&bench).await;
    assert_eq!(receiver.alarms(), ["late began"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_that_lasts_reaches_a_receiver_that_refused_it_for_hours() {
    let (bench, receiver) = with_webhook(&[Series::campaign("Report test", 1)]).await;
    receiver.answer(400, "what is this");
    bench.fault("unauthorized");
    pass(&bench).await;
    let minutes = async |minutes: i64| {
        bench.clock.advance(SignedDuration::from_mins(minutes));
        look(&bench).await;
    };
    // More than the quick tries, in less than an hour.
    for _ in 0..10 {
        minutes(5).await;
    }
    let ids = || receiver.received().iter().map(|it| it.json()["id"].to_string()).collect::<BTreeSet<_>>().len();
    assert_eq!(ids(), 1, "it was given up within the hour");
    for _ in 0..18 {
        minutes(10).await;
    }
    assert!((3..=5).contains(&ids()), "{} events in four hours", ids());
    receiver.answer(200, "ok");
    for _ in 0..3 {
        minutes(60).await;
    }
    assert_eq!(receiver.alarms(), ["unauthorized began"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_content_is_sent_also_if_its_process_died_before_recording_it() {
    let (bench, receiver) = with_webhook(&[Series::campaign("Report test", 1)]).await;
    let (series, date) = bench.due()[0];
    let object = bench.object(&series.key(date));
    fs::create_dir_all(object.parent().unwrap()).unwrap();
    fs::write(&object, "foreign content").unwrap();
    // The ledger as it is before an object is stored: the partition is open, and nothing was sent yet.
    let attempt = async || {
        let ctx = bench.context().await;
        dispatch::register_targets(&ctx).await.unwrap();
        sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
        ctx.ledger.close().await;
    };
    bench.fault("status=404,times=1");
    attempt().await;
    let open = fs::read(bench.ledger()).unwrap();
    bench.clock.advance(hours(2));
    attempt().await;
    let requests = bench.requests();
    fs::write(bench.ledger(), open).unwrap();

    pass(&bench).await;
    assert_eq!(receiver.alarms(), ["other_content began"]);
    assert_eq!(bench.requests(), requests, "it was fetched again");
}

/// Finds this many stored objects by their attempts, after the loss of the ledger, and notifies. Without recovery, as if the
/// destination did not answer.
async fn find_after_a_loss(bench: &Bench, objects: usize) {
    fs::remove_file(bench.ledger()).unwrap();
    bench.clock.advance(SignedDuration::from_mins(1));
    let ctx = bench.context().await;
    let dispatcher = Dispatcher::new(&ctx.config, ctx.clock.now()).unwrap();
    dispatch::register_targets(&ctx).await.unwrap();
    let summary = sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
    assert!(summary.is_complete() && summary.entries.len() == objects, "{summary:?}");
    dispatcher.round(&ctx).await.unwrap();
    ctx.ledger.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_adopted_after_a_lost_ledger_are_not_sent() {
    let (bench, receiver) = with_webhook(&[Series::campaign("Report test", 3)]).await;
    pass(&bench).await;
    assert_eq!(receiver.events().len(), 3);
    find_after_a_loss(&bench, 3).await;
    let stored = receiver.events().iter().filter(|event| event["type"] == "stored").count();
    assert_eq!(stored, 3, "{:#?}", receiver.events());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_whose_manifest_was_missing_is_news_once_it_has_one() {
    let (bench, receiver) = with_webhook(&[Series::campaign("Report test", 2)]).await;
    pass(&bench).await;
    // As a process leaves it that is killed between the two, and the target is new.
    let (series, date) = bench.due()[0];
    fs::remove_file(bench.object(&manifest_key(&series.key(date)))).unwrap();
    find_after_a_loss(&bench, 2).await;
    let stored = receiver.events().into_iter().filter(|event| event["type"] == "stored");
    let dates: Vec<_> = stored.skip(2).map(|event| event["data"]["date"].clone()).collect();
    assert_eq!(dates, [date.to_string()], "{:#?}", receiver.events());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_back_delays_no_event() {
    let (bench, receiver) = with_webhook(&[Series::campaign("Report test", 1)]).await;
    bench.clock.advance(hours(48));
    receiver.answer(503, "closed");
    bench.fault("unauthorized");
    pass(&bench).await;
    assert_eq!(receiver.received().len(), 1);
    receiver.answer(200, "ok");
    bench.clock.advance(-hours(46));
    look(&bench).await;
    assert_eq!(receiver.alarms(), ["unauthorized began"]);
    let summaries = || receiver.events().iter().filter(|event| event["type"] == "summary").count();
    assert_eq!(summaries(), 1, "the next would be two days off");
    bench.vendor.clear_faults();
    bench.clock.advance(hours(2));
    pass(&bench).await;
    let stored = receiver.events().iter().filter(|event| event["type"] == "stored").count();
    assert!(stored > 0, "{:#?}", receiver.events());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_event_delays_no_other() {
    let (bench, receiver) = with_webhook(&[Series::campaign("Report test", 1)]).await;
    receiver.answer(503, "closed");
    pass(&bench).await;
    ledger_file::make_events_unreadable(&bench.ledger()).await;
    receiver.answer(200, "ok");
    bench.fault("unauthorized");
    bench.clock.advance(hours(25));
    pass(&bench).await;
    look(&bench).await;
    assert_eq!(receiver.alarms(), ["unauthorized began"]);
}
