//! Which alarms begin, worsen and end, and when: one event for each change.

use std::{collections::BTreeSet, fs, sync::Arc};

use jiff::SignedDuration;
use moesync::{
    alarm_kind::AlarmKind,
    config,
    dispatch::Dispatcher,
    ledger::{self, Claimed},
    outcome::{Attempt, Evidence, Failure, Outcome},
    partition::Grounds,
    report::PartitionId,
    sync::{self, Context, Progress, Selection},
};

use super::{NOW, hours, look, pass, plan_only, with_webhook};
use crate::support::{Bench, Daemon, Receiver, Series, wait_until};

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
        // Each of these is a new process, and none sends it again.
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

/// Panics in each download.
pub(super) struct Broken;

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

    // Seen once, never complete, and denied after its expiry.
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
        // An archive API never answers `rejected`: the attempt is recorded as one of a JSON API would be.
        bench.fault("not-yet");
        sync::once(ctx, &Selection::default(), std::future::pending()).await.unwrap();
        let entry = ctx.ledger.entries().await.unwrap().remove(0);
        let Claimed::Ours(claim) = ctx.ledger.claim(&entry).await.unwrap() else {
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

    seen.extend([AlarmKind::TablesFailed]); // by derive::an_object_that_makes_no_table_is_stored_all_the_same_and_an_alarm
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
