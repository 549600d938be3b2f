//! Notifications: each alarm is sent once when it begins, worsens and ends, also across crashes.

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    sync::Arc,
};

use jiff::SignedDuration;
use moesync::{
    alarm_kind::AlarmKind,
    config,
    dispatch::{self, Dispatcher},
    ledger::{self, Claimed},
    outcome::{Attempt, Evidence, Failure, Outcome},
    partition::{Grounds, Settled},
    report::PartitionId,
    sync::{self, Context, Progress, Selection},
};
use tokio::process::Command;

use crate::{
    docs::blocks,
    support::{Bench, CANARY, Daemon, Receiver, Series, ledger_file, receiver::KEY, wait_until},
};

const NOW: &str = "2026-11-21T12:00:00Z";

/// A bench whose configuration notifies a receiver by webhook.
async fn with_webhook(series: &[Series]) -> (Bench, Receiver) {
    let (bench, receiver) = (Bench::at(NOW, series).await, Receiver::start().await);
    bench.write_config(&(bench.config() + &receiver.webhook()));
    (bench, receiver)
}

/// One pass and its notifications, as a new process.
async fn pass(bench: &Bench) {
    let ctx = bench.context().await;
    let dispatcher = Dispatcher::new(&ctx.config, ctx.clock.now()).unwrap();
    dispatch::register_targets(&ctx).await.unwrap();
    sync::recover(&ctx).await.unwrap();
    sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
    dispatcher.round(&ctx).await.unwrap();
    ctx.ledger.close().await;
}

/// Plans and publishes the plan, as the loop does, without an attempt.
async fn plan_only(ctx: &Arc<Context>) {
    let nothing = Selection { partitions: Some(HashSet::new()), ..Selection::default() };
    sync::once(ctx, &nothing, std::future::pending()).await.unwrap();
}

/// Notifications without a pass, as a new process.
async fn look(bench: &Bench) {
    let ctx = bench.context().await;
    plan_only(&ctx).await;
    Dispatcher::new(&ctx.config, ctx.clock.now()).unwrap().round(&ctx).await.unwrap();
    ctx.ledger.close().await;
}

fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_is_sent_when_it_begins_at_each_threshold_and_when_it_ends() {
    let (bench, receiver) = with_webhook(&[Series::campaign("Report test", 1)]).await;
    bench.fault("not-yet");
    pass(&bench).await;
    assert_eq!(receiver.alarms(), [""; 0], "it is not late yet");
    // It was generated at 06:00 and expires seven days after that.
    let mut expected = Vec::new();
    for (advance, said) in
        [(1, "late began"), (96, "expiring worsened"), (47, "expiring worsened"), (13, "expiring worsened")]
    {
        bench.clock.advance(hours(advance));
        pass(&bench).await;
        expected.push(said);
        assert_eq!(receiver.alarms(), expected);
        // Every process is a new one, and none says it again.
        pass(&bench).await;
        look(&bench).await;
        assert_eq!(receiver.alarms(), expected);
    }
    let mut events = receiver.events();
    events.retain(|event| event["type"].as_str().unwrap().starts_with("alarm."));
    let within: Vec<_> = events.iter().map(|event| event["data"]["within_seconds"].as_i64()).collect();
    assert_eq!(within, [None, Some(72 * 3600), Some(24 * 3600), Some(6 * 3600)]);
    let last = events.pop().unwrap();
    assert_eq!((&last["data"]["nearest"]["report"], &last["data"]["partitions"]), (&"report-test".into(), &7.into()));
    // Only one of them expires that soon.
    let message = last["data"]["message"].as_str().unwrap();
    assert!(message.contains("7 partitions, the nearest less than 6h to expiry (report-test "), "{message}");

    bench.vendor.clear_faults();
    bench.clock.advance(hours(1));
    pass(&bench).await;
    expected.push("expiring ended");
    pass(&bench).await;
    assert_eq!(receiver.alarms(), expected);
    let ids: BTreeSet<_> = receiver.events().iter().map(|event| event["id"].to_string()).collect();
    assert_eq!(ids.len(), receiver.events().len(), "events share an id");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_for_500_partitions_is_one_alarm() {
    let series: Vec<_> = (0..100).map(|number| Series::campaign(&format!("Report {number}"), 5).bytes(500)).collect();
    let (bench, receiver) = with_webhook(&series).await;
    let key = fs::read(bench.path("secret-key")).unwrap();
    fs::write(bench.path("secret-key"), "not-the-key").unwrap();
    for _ in 0..3 {
        pass(&bench).await;
    }
    // The oldest of them has 66 hours left.
    assert_eq!(receiver.alarms(), ["unauthorized began"]);
    let event = receiver.events().pop().unwrap();
    assert_eq!((&event["data"]["workspace"], &event["data"]["partitions"]), (&"acme".into(), &500.into()));
    assert_eq!(event["data"]["within_seconds"], 72 * 3600);
    bench.clock.advance(hours(45));
    pass(&bench).await;
    bench.clock.advance(hours(16));
    pass(&bench).await;
    assert_eq!(receiver.alarms(), ["unauthorized began", "unauthorized worsened", "unauthorized worsened"]);

    fs::write(bench.path("secret-key"), key).unwrap();
    bench.clock.advance(hours(1));
    pass(&bench).await;
    assert_eq!(receiver.alarms()[3..], ["unauthorized ended"]);
    // Including those that became due meanwhile.
    let stored = receiver.events().iter().filter(|event| event["type"] == "stored").count();
    assert!(stored < 700, "{stored}");
    for _ in 0..50 {
        look(&bench).await;
    }
    let stored: Vec<_> = receiver.events().into_iter().filter(|event| event["type"] == "stored").collect();
    let ledger = ledger::open_read_only(&bench.ledger()).await.unwrap().unwrap();
    let objects: BTreeSet<_> =
        ledger.entries().await.unwrap().into_iter().filter_map(|e| Some(e.object?.key)).collect();
    let sent: BTreeSet<_> = stored.iter().map(|event| event["data"]["key"].as_str().unwrap().to_owned()).collect();
    assert_eq!((sent, stored.len()), (objects.clone(), objects.len()));
}

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
    sync::recover(&ctx).await.unwrap();
    plan_only(&ctx).await;
    Dispatcher::new(&ctx.config, ctx.clock.now()).unwrap().round(&ctx).await.unwrap();
    ctx.ledger.close().await;
}

/// Panics in each download.
struct Broken;

impl Progress for Broken {
    fn begin(&self, _: &PartitionId, _: Option<u64>) {
        panic!("a fault of ours");
    }
    fn advance(&self, _: &PartitionId, _: u64) {}
    fn end(&self, _: &PartitionId) {}
}

/// Provokes an alarm and asserts that it alone begins, once.
async fn brought_about(kind: AlarmKind, bring_about: impl AsyncFn(&Bench)) -> (AlarmKind, Bench, Receiver) {
    let (bench, receiver) = with_webhook(&[Series::campaign("Report test", 1)]).await;
    bring_about(&bench).await;
    pass(&bench).await;
    assert_eq!(receiver.alarms(), [format!("{kind} began")], "{:#?}", receiver.events());
    (kind, bench, receiver)
}

async fn in_process(bench: &Bench, progress: Arc<dyn Progress>, work: impl AsyncFn(&Arc<Context>)) {
    let config = config::load(&bench.path("moesync.toml"), std::iter::empty()).unwrap();
    let ctx = Arc::new(sync::start(Arc::new(config), Arc::new(bench.clock.clone()), progress).await.unwrap());
    work(&ctx).await;
    Dispatcher::new(&ctx.config, ctx.clock.now()).unwrap().round(&ctx).await.unwrap();
    ctx.ledger.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_documented_alarm_is_sent_once_with_a_valid_signature() {
    let mut seen = BTreeSet::new();
    for (kind, fault) in [
        (AlarmKind::Unauthorized, "unauthorized"),
        (AlarmKind::Corrupt, "truncate=50%"),
        (AlarmKind::Clock, "wrong-date=-2h"),
    ] {
        seen.extend([brought_about(kind, async |bench: &Bench| bench.fault(fault)).await.0]);
    }
    for (kind, advance) in [(AlarmKind::Late, hours(1)), (AlarmKind::Expiring, hours(97))] {
        let late = async |bench: &Bench| {
            bench.fault("not-yet");
            bench.clock.advance(advance);
        };
        let (bench, receiver) = with_webhook(&[Series::campaign("Report test", 1)]).await;
        late(&bench).await;
        pass(&bench).await;
        assert_eq!(receiver.alarms(), [format!("{kind} began")]);
        seen.extend([kind]);
    }

    let (kind, _, receiver) = brought_about(AlarmKind::Unsupported, async |bench: &Bench| {
        bench.answer_with([b"Rar!\x1a\x07\x01\x00".as_slice(), &[7; 1000]].concat()).await;
    })
    .await;
    let message = receiver.events()[0]["data"]["message"].to_string();
    assert!(message.contains("choose zip in the report's settings"), "{message}");
    seen.extend([kind]);

    // Seen once, never whole, and denied after its expiry.
    let (bench, receiver) = with_webhook(&[Series::campaign("Report test", 1)]).await;
    bench.fault("truncate=50%,times=1");
    bench.fault("not-yet");
    pass(&bench).await;
    bench.clock.advance(hours(7 * 24));
    pass(&bench).await;
    pass(&bench).await;
    let lost = receiver.events().into_iter().filter(|event| event["data"]["alarm"] == "lost").collect::<Vec<_>>();
    assert_eq!(lost.len(), 1, "{:?}", receiver.alarms());
    assert_eq!(lost[0]["data"]["nearest"]["date"], bench.newest.to_string());
    seen.extend([AlarmKind::Lost]);

    let (kind, ..) = brought_about(AlarmKind::OtherContent, async |bench: &Bench| {
        let (series, date) = bench.due()[0];
        let object = bench.object(&series.key(date));
        fs::create_dir_all(object.parent().unwrap()).unwrap();
        fs::write(object, "foreign content").unwrap();
    })
    .await;
    seen.extend([kind]);

    let (kind, bench, receiver) = brought_about(AlarmKind::Ledger, async |bench: &Bench| {
        fs::create_dir_all(bench.ledger().parent().unwrap()).unwrap();
        fs::write(bench.ledger(), "this is a shopping list\n".repeat(100)).unwrap();
    })
    .await;
    look(&bench).await;
    assert_eq!(receiver.alarms(), ["ledger began", "ledger ended"], "the next process found a sound one");
    seen.extend([kind]);

    let (bench, receiver) = with_webhook(&[Series::campaign("Report test", 1)]).await;
    in_process(&bench, Arc::new(()), async |ctx| {
        // No archive's request is refused as such: recorded as one of another source would be.
        bench.fault("not-yet");
        sync::once(ctx, &Selection::default(), std::future::pending()).await.unwrap();
        let id = ctx.ledger.entries().await.unwrap().remove(0).partition.id;
        let Claimed::Ours(claim) = ctx.ledger.claim(&id, Settled::Open).await.unwrap() else {
            panic!("another process has the claim")
        };
        let now = ctx.clock.now();
        let evidence = Evidence { http_status: Some(400), ..Evidence::default() };
        let failure = Failure::after(&evidence, Outcome::Rejected, "refused".into());
        let attempt = Attempt { started_at: now, finished_at: now, result: Err(failure) };
        let grounds = Grounds { give_up_after: hours(24), archive_seen_at: None };
        let (after, hold) = claim.entry.clone().after(&attempt, grounds, 0.5);
        ctx.ledger.record(&claim, &attempt, &after, hold).await.unwrap();
        plan_only(ctx).await;
    })
    .await;
    assert_eq!(receiver.alarms(), ["rejected began"]);
    seen.extend([AlarmKind::Rejected]);

    let (bench, receiver) = with_webhook(&[Series::campaign("Report test", 1)]).await;
    in_process(&bench, Arc::new(()), async |ctx| {
        fs::remove_dir_all(bench.path("reports")).unwrap_or_default();
        fs::write(bench.path("reports"), "no folder").unwrap();
        sync::once(ctx, &Selection::default(), std::future::pending()).await.unwrap();
    })
    .await;
    assert_eq!(receiver.alarms(), ["store_failed began"]);
    assert_eq!(receiver.events()[0]["data"]["destination"], "disk");
    seen.extend([AlarmKind::StoreFailed]);

    let (bench, receiver) = with_webhook(&[Series::campaign("Report test", 1)]).await;
    in_process(&bench, Arc::new(Broken), async |ctx| {
        sync::once(ctx, &Selection::default(), std::future::pending()).await.unwrap();
    })
    .await;
    assert_eq!(receiver.alarms(), ["panic began"]);
    seen.extend([AlarmKind::Panic]);

    seen.extend([AlarmKind::Configuration]); // by a_wrong_new_configuration_is_an_alarm_until_it_is_corrected
    assert_eq!(seen, BTreeSet::from(AlarmKind::ALL));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_new_configuration_is_an_alarm_until_it_is_corrected() {
    let (bench, receiver) = (Bench::new(&[Series::campaign("Report test", 1)]).await, Receiver::start().await);
    let good = bench.config() + &receiver.webhook();
    bench.write_config(&good);
    let daemon = Daemon::start(&bench).await;
    bench.write_config(&good.replace("campaign_report", "campaign_retort"));
    daemon.signal("HUP").await;
    receiver.wait_for_alarms(1).await;
    bench.write_config(&good);
    daemon.signal("HUP").await;
    receiver.wait_for_alarms(2).await;
    daemon.stop(&bench).await;
    assert_eq!(receiver.alarms(), ["configuration began", "configuration ended"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_is_logged_once_when_it_begins_and_once_when_it_ends() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    bench.fault("unauthorized");
    let began = bench.run(&["-v", "sync"]).await.expect(1);
    assert_eq!(began.alarms(), ["unauthorized"], "{}", began.stderr);
    let fields = format!(r#""workspace":"acme","report":"report-test","date":"{}""#, bench.newest);
    assert!(began.stderr.contains(&fields), "{fields}\n{}", began.stderr);
    // Another process knows what the first one logged.
    let lasts = bench.run(&["-v", "sync"]).await.expect(1);
    assert_eq!(lasts.alarms(), [""; 0], "{}", lasts.stderr);
    bench.vendor.clear_faults();
    let ended = bench.run(&["-v", "sync"]).await.expect(0);
    let resolved = |text: &str| text.matches("workspace acme: resolved: MoEngage refuses the credentials").count();
    assert_eq!((ended.alarms().len(), resolved(&ended.stderr)), (0, 1), "{}", ended.stderr);
    let over = bench.run(&["-v", "sync"]).await.expect(0);
    assert_eq!(resolved(&over.stderr), 0, "{}", over.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_ends_before_the_next_evaluation_is_sent() {
    let both = [Series::campaign("Report test", 1), Series::campaign("Daily", 1)];
    let (bench, receiver) = (Bench::new(&both).await, Receiver::start().await);
    let config = bench.config() + &receiver.webhook();
    // Corrupt for some seconds: shorter than the evaluation interval, and long enough for a busy machine.
    bench.fault("truncate=50%,times=4,path=Daily");
    // The second report is added after the daemon's first evaluation.
    bench.write_config(&config.replace(&bench.report(&both[1]), ""));
    let daemon = Daemon::start(&bench).await;
    assert!(wait_until(async || !receiver.events().is_empty()).await);
    bench.write_config(&config);
    daemon.signal("HUP").await;
    receiver.wait_for_alarms(2).await;
    assert_eq!(receiver.alarms(), ["corrupt began", "corrupt ended"]);
    daemon.stop(&bench).await;
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
async fn slack_gets_alarms_as_text_that_mentions_no_one() {
    let (bench, receiver) = (Bench::at(NOW, &[Series::campaign("Report test", 2)]).await, Receiver::start().await);
    let target =
        format!("\n[[notify]]\nname = \"chat\"\nkind = \"slack\"\nurl = \"{}/services/{CANARY}\"\n", receiver.url);
    bench.write_config(&(bench.config() + &target));
    bench.fault("status=401,body=<!channel> & co,times=1");
    pass(&bench).await;
    bench.clock.advance(hours(2));
    pass(&bench).await;
    let texts: Vec<_> = receiver.received().iter().map(|received| received.json()["text"].clone()).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    let (began, ended) = (texts[0].as_str().unwrap(), texts[1].as_str().unwrap());
    assert!(
        began.starts_with(":rotating_light: workspace acme: MoEngage refuses the credentials: 2 partitions"),
        "{began}"
    );
    assert!(!began.contains('<'), "{began}");
    assert_eq!(ended, ":white_check_mark: workspace acme: resolved: MoEngage refuses the credentials");
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
    assert_eq!(second.1, "0 stored since the last ping; 0 due and not stored; 0 alarms");
    assert_eq!(refused.0, "/ping/uuid/fail");
    assert!(refused.1.contains("unauthorized: acme, 1 partitions"), "{}", refused.1);
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
    assert!(last().body.contains("corrupt: report-test, 1 partitions"), "{}", last().body);
    // Another failure does not end the alarm, and the partition is not late yet.
    bench.vendor.clear_faults();
    bench.fault("status=503");
    bench.clock.advance(SignedDuration::from_mins(5));
    pass(&bench).await;
    assert_eq!(last().path, "/ping/uuid/fail", "{}", last().body);
    assert!(last().body.contains("1 alarms\ncorrupt: report-test, not known to be over"), "{}", last().body);
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
    assert!(pings()[1].body.contains("late: report-test, not known to be over"), "{}", pings()[1].body);
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
async fn addresses_and_keys_of_targets_are_in_no_log_error_ledger_or_output() {
    let (bench, receiver) = (Bench::new(&[Series::campaign("Report test", 1)]).await, Receiver::start().await);
    let secrets = ["T0000CANARYPATH", "canaryquery", "Y2FuYXJ5LXdlYmhvb2sta2V5LWNhbmFyeS13ZWJob29r"];
    let target = |name: &str, rest: &str| {
        let address = format!("{}/services/{}?token={}", receiver.url, secrets[0], secrets[1]);
        format!("\n[[notify]]\nname = \"{name}\"\nurl = \"{address}\"\n{rest}\n")
    };
    let targets = target("slack", "kind = \"slack\"")
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
    let gone = "INSERT INTO partitions (workspace, report, date, source, generated_at, due_at, settled)
                VALUES ('acme', 'gone', '2026-01-01', 'daily_dump', 0, 0, 'absent')";
    ledger_file::of_older_version(&bench.ledger(), 1, &[gone]).await;

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
    let shell = blocks("docs/operations.md", "sh").pop().unwrap();
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

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_api_is_an_alarm_of_its_report_and_hides_no_other() {
    let (bench, receiver) = with_webhook(&[Series::campaign("Report test", 1)]).await;
    let statistics = format!(
        "\n[[reports]]\nworkspace = \"acme\"\ndestination = \"disk\"\nsource = \"campaign_stats\"\n\
         metric_type = \"TOTAL\"\nattribution_type = \"CLICK_THROUGH\"\n\
         schedule = {{ every = \"day\", at = \"{}\" }}\n",
        bench.generated_at_time()
    );
    bench.write_config(&(bench.config() + &statistics + &receiver.webhook()));
    bench.fault("status=403,api=campaign_stats");
    bench.fault("not-yet,api=campaign_report");
    bench.clock.advance(hours(1));
    pass(&bench).await;
    assert_eq!(receiver.alarms(), ["late began", "unauthorized began"].map(String::from), "{:#?}", receiver.events());
    let events = receiver.events();
    let refused = events.iter().find(|event| event["data"]["alarm"] == "unauthorized").unwrap();
    let message = refused["data"]["message"].as_str().unwrap();
    assert!(message.starts_with("acme/campaign_stats: MoEngage refuses"), "{message}");
    let late = events.iter().find(|event| event["data"]["alarm"] == "late").unwrap();
    assert_eq!(late["data"]["nearest"]["report"], "report-test");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_does_not_receive_a_cause_receives_its_consequences() {
    let (bench, receiver) = (Bench::at(NOW, &[Series::campaign("Report test", 1)]).await, Receiver::start().await);
    let chosen = receiver.webhook() + "events = [\"expiring\", \"late\"]\n";
    bench.write_config(&(bench.config() + &chosen));
    bench.fault("unauthorized");
    pass(&bench).await;
    assert_eq!(receiver.alarms(), [""; 0]);
    bench.clock.advance(hours(1));
    pass(&bench).await;
    bench.clock.advance(hours(96));
    pass(&bench).await;
    assert_eq!(receiver.alarms(), ["late began", "expiring worsened"]);
    bench.vendor.clear_faults();
    bench.clock.advance(hours(1));
    pass(&bench).await;
    assert_eq!(receiver.alarms()[2..], ["expiring ended"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_in_progress_delays_its_alarm_by_half_an_hour_across_restarts() {
    let (bench, receiver) = with_webhook(&[Series::campaign("Report test", 1)]).await;
    bench.clock.advance(hours(2));
    // None of these processes makes an attempt.
    for _ in 0..4 {
        look(&bench).await;
        assert_eq!(receiver.alarms(), [""; 0]);
        bench.clock.advance(SignedDuration::from_mins(8));
    }
    look(&bench).await;
    assert_eq!(receiver.alarms(), ["late began"]);
    pass(&bench).await;
    assert_eq!(receiver.alarms(), ["late began", "late ended"]);

    // A running process finds new partitions, as after a sleep.
    let ctx = bench.context().await;
    let dispatcher = Dispatcher::new(&ctx.config, ctx.clock.now()).unwrap();
    plan_only(&ctx).await;
    dispatcher.round(&ctx).await.unwrap();
    bench.clock.advance(hours(31));
    plan_only(&ctx).await;
    dispatcher.round(&ctx).await.unwrap();
    assert_eq!(receiver.alarms().len(), 2);
    // Near expiry the delay is shorter.
    bench.clock.advance(hours(5 * 24 + 12));
    plan_only(&ctx).await;
    dispatcher.round(&ctx).await.unwrap();
    assert_eq!(receiver.alarms().len(), 3, "{:?}", receiver.alarms());
    ctx.ledger.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_alarm_begins_or_ends_before_the_first_plan() {
    let (bench, receiver) = with_webhook(&[Series::campaign("Report test", 1)]).await;
    bench.fault("unauthorized");
    pass(&bench).await;
    assert_eq!(receiver.alarms(), ["unauthorized began"]);
    // Another alarm's threshold has passed as well.
    bench.clock.advance(hours(97));
    let ctx = bench.context().await;
    let dispatcher = Dispatcher::new(&ctx.config, ctx.clock.now()).unwrap();
    dispatcher.round(&ctx).await.unwrap();
    assert_eq!(receiver.alarms(), ["unauthorized began"]);
    // An alarm about the process itself needs no plan.
    ctx.status.raise(AlarmKind::Panic, "the loop", "a fault of ours".into());
    dispatcher.round(&ctx).await.unwrap();
    assert_eq!(receiver.alarms(), ["unauthorized began", "panic began"]);
    ctx.ledger.close().await;
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
    let count = |count: u32| format!("{count} stored since the last ping");
    assert_eq!(stored, [count(1), count(1), count(0)]);
    assert!(pings[1].1.contains("the pass did not store all that was due"), "{}", pings[1].1);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_adopted_after_a_lost_ledger_are_not_sent() {
    let (bench, receiver) = with_webhook(&[Series::campaign("Report test", 3)]).await;
    pass(&bench).await;
    assert_eq!(receiver.events().len(), 3);
    bench.clock.advance(SignedDuration::from_mins(1));
    fs::remove_file(bench.ledger()).unwrap();
    let ctx = bench.context().await;
    let dispatcher = Dispatcher::new(&ctx.config, ctx.clock.now()).unwrap();
    dispatch::register_targets(&ctx).await.unwrap();
    // Without recovery, as if the destination did not answer: each object is found by its attempt.
    let summary = sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
    assert!(summary.is_complete() && summary.entries.len() == 3, "{summary:?}");
    dispatcher.round(&ctx).await.unwrap();
    ctx.ledger.close().await;
    let stored = receiver.events().iter().filter(|event| event["type"] == "stored").count();
    assert_eq!(stored, 3, "{:#?}", receiver.events());
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
async fn a_command_does_not_end_alarms_of_the_daemon_beside_it() {
    let (bench, receiver) = with_webhook(&[Series::campaign("Report test", 1)]).await;
    let daemon = bench.context().await;
    daemon.status.raise(AlarmKind::Configuration, "reload", "a comma is missing".into());
    daemon.status.raise(AlarmKind::Ledger, "the file", "it was rebuilt".into());
    daemon.status.raise(AlarmKind::StoreFailed, "disk", "it has not answered".into());
    let dispatcher = Dispatcher::new(&daemon.config, daemon.clock.now()).unwrap();
    dispatcher.round(&daemon).await.unwrap();
    pass(&bench).await;
    let began = ["store_failed began", "ledger began", "configuration began"];
    assert_eq!(receiver.alarms(), began);
    daemon.status.clear(AlarmKind::Configuration, "reload");
    dispatcher.round(&daemon).await.unwrap();
    assert_eq!(receiver.alarms()[3..], ["configuration ended"]);
    daemon.ledger.close().await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_near_the_threshold_neither_begins_nor_ends_an_alarm() {
    let (bench, receiver) = with_webhook(&[Series::campaign("Report test", 1)]).await;
    let clock = || receiver.alarms().into_iter().filter(|alarm| alarm.starts_with("clock")).collect::<Vec<_>>();
    for (skew, said) in [
        (Some("-45s"), &[][..]),
        (Some("-2h"), &["clock began"]),
        (Some("-45s"), &["clock began"]),
        (None, &["clock began", "clock ended"]),
    ] {
        bench.vendor.clear_faults();
        if let Some(skew) = skew {
            bench.fault(&format!("wrong-date={skew}"));
        }
        pass(&bench).await;
        assert_eq!(clock(), said, "{skew:?}");
        bench.clock.advance(hours(24));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_event_delays_no_other() {
    let (bench, receiver) = with_webhook(&[Series::campaign("Report test", 1)]).await;
    receiver.answer(503, "closed");
    pass(&bench).await;
    ledger_file::edit(&bench.ledger(), &["UPDATE outbox SET event = 'of a later version'"]).await;
    receiver.answer(200, "ok");
    bench.fault("unauthorized");
    bench.clock.advance(hours(25));
    pass(&bench).await;
    look(&bench).await;
    assert_eq!(receiver.alarms(), ["unauthorized began"]);
}
