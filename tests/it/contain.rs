//! A failure delays only what depends on it: destinations that hang, keys that are replaced, tasks that panic.

use std::{
    backtrace::Backtrace,
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use moesync::{
    alarm_kind::AlarmKind,
    config, daemon,
    dispatch::{self, Dispatcher},
    emulator::Campaigns,
    ledger,
    outcome::Outcome,
    partition::Settled,
    sync::{self, Clock, Context, Selection},
    web::Overview,
};
use tokio::{
    net::{TcpListener, TcpStream},
    process::Command,
    sync::{mpsc, oneshot, watch},
};

use crate::support::{Bench, CANARY, Daemon, Receiver, Series, TestClock, wait_until};

const NOW: &str = "2026-11-21T12:00:00Z";

/// A store that accepts every connection and never answers, as a table of the configuration.
async fn hung_store() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    crate::support::spawn(async move {
        let mut connections: Vec<TcpStream> = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            connections.push(connection);
        }
    });
    format!(
        "\n[[destinations]]\nname = \"hung\"\nurl = \"s3://bucket\"\noptions = {{ aws_endpoint = \"http://{address}\", \
         aws_allow_http = \"true\", aws_region = \"x\", aws_access_key_id = \"x\", aws_secret_access_key = \"x\" }}\n"
    )
}

/// A configuration whose first reports go to the destination `hung`, with little time for an attempt.
fn with_hung(bench: &Bench, destination: &str, reports: usize) -> String {
    let mut config = format!("[limits]\nattempt_timeout = \"2s\"\n\n{}{destination}", bench.config());
    for series in &bench.series[..reports] {
        let report = bench.report(series);
        config = config.replace(&report, &report.replace("destination = \"disk\"", "destination = \"hung\""));
    }
    config
}

fn series(count: u32) -> Vec<Series> {
    (0..count).map(|number| Series::campaign(&format!("Report {number}"), 1)).collect()
}

/// How many partitions are stored, and how many failed at their destination.
async fn outcomes(ctx: &Context) -> (usize, usize) {
    let entries = ctx.ledger.entries().await.unwrap();
    let of = |outcome| entries.iter().filter(|entry| entry.outcome == Some(outcome)).count();
    (of(Outcome::Stored), of(Outcome::StoreFailed))
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_reports_of_a_destination_that_never_answers_do_not_delay_two_of_a_disk() {
    let bench = Bench::at(NOW, &series(10)).await;
    let receiver = Receiver::start().await;
    let hung = hung_store().await;
    bench.write_config(&(with_hung(&bench, &hung, 8) + &receiver.webhook()));
    let ctx = bench.context().await;
    let dispatcher = Dispatcher::new(&ctx.config, ctx.clock.now()).unwrap();
    dispatch::register_targets(&ctx).await.unwrap();
    let passing = {
        let ctx = Arc::clone(&ctx);
        crate::support::spawn(async move { sync::once(&ctx, &Selection::default(), std::future::pending()).await })
    };
    assert!(wait_until(async || outcomes(&ctx).await.0 == 2).await);
    assert!(outcomes(&ctx).await.1 <= 2, "the two had to wait: {:?}", outcomes(&ctx).await);
    assert!(!passing.await.unwrap().unwrap().is_complete());
    assert_eq!(outcomes(&ctx).await, (2, 8));
    let entries = ctx.ledger.entries().await.unwrap();
    for entry in entries.iter().filter(|entry| entry.outcome == Some(Outcome::StoreFailed)) {
        let message = entry.message.as_deref().unwrap();
        assert!(
            message.starts_with("looking for the object at destination `hung` did not finish within 2s"),
            "{message}"
        );
    }

    // The second time it is an alarm, which names the destination.
    let selection = Selection { report: Some("report-0".to_owned()), ..Selection::default() };
    sync::once(&ctx, &selection, std::future::pending()).await.unwrap();
    dispatcher.round(&ctx).await.unwrap();
    assert_eq!(receiver.alarms(), ["store_failed began"]);
    assert_eq!(receiver.events()[0]["data"]["destination"], "hung");
    let overview = Overview::gather(&ctx).await.unwrap();
    let danger = &overview.head.dangers[0];
    assert_eq!((danger.alarm.as_str(), danger.status.report.as_str()), ("store_failed", "report-0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_tries_each_report_of_a_hung_destination_before_it_retries_one() {
    let bench = Bench::new(&series(10)).await;
    bench.write_config(&with_hung(&bench, &hung_store().await, 8));
    let daemon = Daemon::start(&bench).await;
    let all_have_failed = async || {
        let status = bench.status().await;
        let of = |outcome: &str| status.iter().filter(|partition| partition["outcome"] == outcome).count();
        (of("stored"), of("store_failed")) == (2, 8)
    };
    assert!(wait_until(all_have_failed).await);
    let attempts: Vec<_> =
        bench.status().await.iter().map(|partition| partition["attempts"].as_u64().unwrap()).collect();
    assert!(attempts.iter().all(|attempts| *attempts <= 3), "{attempts:?}");
    assert!(daemon.stop(&bench).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_disk_fails_its_own_attempts_only() {
    let found = Command::new("strace").arg("-V").output().await;
    assert!(found.is_ok_and(|output| output.status.success()), "strace is missing: apt-get install strace");
    let bench = Bench::new(&series(5)).await;
    let root = bench.path("hung");
    fs::create_dir(&root).unwrap();
    let hung = format!("\n[[destinations]]\nname = \"hung\"\nurl = \"file://{}\"\n", root.display());
    bench.write_config(&with_hung(&bench, &hung, 3));
    // Looking for one of its objects takes 15 seconds.
    let keys = bench.due().into_iter().map(|(series, date)| series.key(date));
    let objects: Vec<_> = keys.map(|key| root.join(key).display().to_string()).collect();
    let mut arguments = vec!["-f", "-o", "/dev/null", "-e", "trace=statx", "-e", "inject=statx:delay_enter=15000000"];
    for object in &objects {
        arguments.extend(["-P", object]);
    }
    let ran = bench.finish(bench.command_under("strace", &arguments, &["sync", "--json"])).await.expect(1);
    let partitions = ran.partitions();
    let of = |outcome: &str| partitions.iter().filter(|partition| partition["outcome"] == outcome).collect::<Vec<_>>();
    assert_eq!((of("stored").len(), of("store_failed").len()), (2, 3), "{partitions:#?}");
    for partition in of("store_failed") {
        let message = partition["message"].as_str().unwrap();
        assert!(
            message.starts_with("looking for the object at destination `hung` did not finish within 2s"),
            "{message}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_made_at_the_start_fails_its_own_attempts_only() {
    let bench = Bench::new(&series(2)).await;
    // Stands in the place of a mount.
    fs::write(bench.path("away"), "").unwrap();
    let away =
        format!("\n[[destinations]]\nname = \"hung\"\nurl = \"file://{}\"\n", bench.path("away/reports").display());
    bench.write_config(&with_hung(&bench, &away, 1));
    let synced = bench.run(&["sync", "--json"]).await.expect(1);
    assert!(synced.stderr.contains("could not open destination `hung`"), "{}", synced.stderr);
    let outcomes = |partitions: Vec<serde_json::Value>| -> Vec<String> {
        partitions.iter().map(|partition| partition["outcome"].as_str().unwrap_or("none").to_owned()).collect()
    };
    assert_eq!(outcomes(synced.partitions()), ["store_failed", "stored"]);
    // The disk comes while the process runs.
    let ctx = bench.context().await;
    fs::remove_file(bench.path("away")).unwrap();
    pass(&ctx).await;
    assert_eq!(self::outcomes(&ctx).await, (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vendor_that_stalls_beyond_the_deadline_is_unavailable_and_was_seen() {
    let bench = Bench::at(NOW, &series(1)).await;
    bench.write_config(&with_hung(&bench, "", 0));
    bench.fault("stall");
    let ctx = bench.context().await;
    sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
    let entry = ctx.ledger.entries().await.unwrap().remove(0);
    assert_eq!((entry.outcome, entry.seen), (Some(Outcome::Unavailable), true), "{:?}", entry.message);
    assert!(entry.message.as_deref().unwrap().contains("within 2s"), "{:?}", entry.message);
    assert_eq!(bench.kept_in("_staging"), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn six_hundred_concurrent_downloads_all_end() {
    let bench = Bench::new(&[Series::dump(600).bytes(200_000)]).await;
    let limits = "[limits]\nconcurrency = 600\nconcurrency_per_workspace = 600\nconcurrency_per_destination = 600\n\n";
    bench.write_config(&(limits.to_owned() + &bench.config()));
    // Half a minute for each, so that the first is not at its end when the last begins.
    bench.fault("slow=2000");
    let daemon = Daemon::start(&bench).await;
    // Each archive occupies a thread, and writing one more: tokio's default limit is 512.
    let threads = || {
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
        let threads = status.lines().find_map(|line| line.strip_prefix("Threads:")).unwrap();
        threads.trim().parse::<usize>().unwrap()
    };
    assert!(wait_until(async || threads() > 560).await, "{} threads", threads());
    let stored = async || {
        let ledger = ledger::open_read_only(&bench.ledger()).await.unwrap().unwrap();
        let entries = ledger.entries().await.unwrap();
        entries.iter().filter(|entry| entry.settled == Settled::Stored).count()
    };
    assert!(wait_until(async || stored().await == 600).await, "{} are stored", stored().await);
    daemon.stop(&bench).await;
}

fn write_key(bench: &Bench, key: &str) {
    fs::write(bench.path("secret-key"), key).unwrap();
}

async fn pass(ctx: &Arc<Context>) {
    sync::once(ctx, &Selection::default(), std::future::pending()).await.unwrap();
}

/// Asserts that everything is stored, without a paused workspace or an alarm.
async fn assert_healed(bench: &Bench, ctx: &Context) {
    let entries = ctx.ledger.entries().await.unwrap();
    assert!(entries.iter().all(|entry| entry.outcome == Some(Outcome::Stored)), "{entries:#?}");
    assert!(ctx.view(&ctx.ledger, bench.clock.read()).await.unwrap().holds.is_empty());
    for entry in &entries {
        for attempt in ctx.ledger.attempts(&entry.partition.id).await.unwrap() {
            assert_ne!(attempt.outcome, Outcome::Unauthorized, "{attempt:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_key_is_used_within_the_same_request_of_an_archive() {
    let bench = Bench::at(NOW, &series(5)).await;
    // The cached key is refused by now, as after a rotation at MoEngage.
    write_key(&bench, "the-key-of-before");
    let ctx = bench.context().await;
    write_key(&bench, CANARY);
    pass(&ctx).await;
    assert_healed(&bench, &ctx).await;
    assert_eq!(bench.requests(), 6, "one is refused, and repeated immediately");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_key_is_used_within_the_same_request_of_a_page() {
    let bench = Bench::of_campaigns(NOW, Campaigns { count: 20, ..Campaigns::default() }).await;
    let report = format!(
        "\n[[reports]]\nworkspace = \"acme\"\nsource = \"campaigns\"\ndestination = \"disk\"\n\
         schedule = {{ every = \"day\", at = \"{}\" }}\n",
        bench.generated_at_time()
    );
    bench.write_config(&(bench.config() + &report));
    write_key(&bench, "the-key-of-before");
    let ctx = bench.context().await;
    write_key(&bench, CANARY);
    pass(&ctx).await;
    assert_healed(&bench, &ctx).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_file_that_is_briefly_missing_is_not_a_refusal() {
    for (broken, says) in [(None, "No such file"), (Some(""), "is empty")] {
        let bench = Bench::at(NOW, &series(5)).await;
        write_key(&bench, "the-key-of-before");
        let ctx = bench.context().await;
        match broken {
            None => fs::remove_file(bench.path("secret-key")).unwrap(),
            Some(text) => write_key(&bench, text),
        }
        pass(&ctx).await;
        let entries = ctx.ledger.entries().await.unwrap();
        for entry in &entries {
            assert_eq!(entry.outcome, Some(Outcome::Unavailable), "{entry:?}");
            let message = entry.message.as_deref().unwrap();
            assert!(message.contains(says) && message.contains("workspace `acme`"), "{message}");
        }
        restore_key(&bench.path("secret-key"));
        pass(&ctx).await;
        assert_healed(&bench, &ctx).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_prints_the_key_is_run_again_after_a_refusal() {
    let bench = Bench::at(NOW, &series(5)).await;
    let key_file = format!("secret_key_file = \"{}\"", bench.path("secret-key").display());
    let command = format!("secret_key_command = [\"cat\", \"{}\"]", bench.path("secret-key").display());
    assert!(bench.config().contains(&key_file));
    bench.write_config(&bench.config().replace(&key_file, &command));
    write_key(&bench, "the-key-of-before");
    let ctx = bench.context().await;
    fs::remove_file(bench.path("secret-key")).unwrap();
    pass(&ctx).await;
    for entry in &ctx.ledger.entries().await.unwrap() {
        assert_eq!(entry.outcome, Some(Outcome::Unavailable), "{entry:?}");
        let message = entry.message.as_deref().unwrap();
        assert!(message.contains("secret_key_command: the command \"cat\" failed: exit status: 1"), "{message}");
    }
    restore_key(&bench.path("secret-key"));
    pass(&ctx).await;
    assert_healed(&bench, &ctx).await;
}

fn restore_key(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, CANARY).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A clock that panics once, when it is read by a function whose name or file contains `victim`.
struct PanickingClock {
    clock: TestClock,
    victim: Mutex<Option<&'static str>>,
    has_panicked: AtomicBool,
}

impl Clock for PanickingClock {
    fn now(&self) -> Timestamp {
        let victim = *self.victim.lock().unwrap();
        if let Some(victim) = victim
            && Backtrace::force_capture().to_string().contains(victim)
        {
            *self.victim.lock().unwrap() = None;
            self.has_panicked.store(true, Ordering::Relaxed);
            panic!("injected by a test");
        }
        self.clock.now()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.clock.sleep(duration)
    }
}

/// The daemon in this process, with a clock of the test's.
struct InProcess {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl InProcess {
    fn start(bench: &Bench, clock: Arc<dyn Clock>) -> Self {
        let path = bench.path("moesync.toml");
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            let load = move || config::load(&path, std::iter::empty());
            runtime.block_on(async {
                tokio::select! {
                    ended = daemon::run(load, clock, Arc::new(())) => panic!("it ended: {ended:?}"),
                    _ = stopped => {}
                }
            });
            runtime.shutdown_timeout(Duration::from_secs(1));
        };
        let thread = thread::Builder::new().name("daemon".into()).spawn(run).unwrap();
        Self { stop: Some(stop), thread: Some(thread) }
    }

    fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

/// A daemon of two reports that panics once in `victim`, when it starts or when `provoke` makes it; an alarm arrives, and
/// everything is stored.
async fn assert_survives(victim: &'static str, provoke: impl AsyncFn(&str)) {
    let bench = Bench::new(&series(2)).await;
    let receiver = Receiver::start().await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listen = format!("listen = \"127.0.0.1:{port}\"");
    bench.write_config(&(bench.config().replace("listen = \"\"", &listen) + &receiver.webhook()));
    let clock = Arc::new(PanickingClock {
        clock: TestClock::machine(),
        victim: Mutex::new(Some(victim)),
        has_panicked: AtomicBool::new(false),
    });
    let daemon = InProcess::start(&bench, Arc::clone(&clock) as _);
    let url = format!("http://127.0.0.1:{port}");
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
    assert!(wait_until(async || client.get(format!("{url}/livez")).send().await.is_ok()).await);
    provoke(&url).await;
    receiver.wait_for_alarms(1).await;
    assert!(clock.has_panicked.load(Ordering::Relaxed));
    assert_eq!(receiver.alarms(), ["panic began"]);
    let stored = async || receiver.events().iter().filter(|event| event["type"] == "stored").count() == 2;
    assert!(wait_until(stored).await, "{:#?}", receiver.events());
    let text = async |path: &str| client.get(format!("{url}{path}")).send().await.unwrap().text().await.unwrap();
    assert!(text("/").await.contains("panicked, a bug in moesync, and was restarted"));
    assert!(text("/metrics").await.contains("moesync_incident{alarm=\"panic\"} 1"));
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_the_loop_is_an_alarm_and_the_loop_continues() {
    assert_survives("sync::daemon_loop::turn", async |_| {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_that_another_process_reported_does_not_end_by_an_older_plan() {
    let bench = Bench::at(NOW, &series(1)).await;
    let receiver = Receiver::start().await;
    bench.write_config(&(bench.config() + &receiver.webhook()));
    bench.fault("not-yet");
    let ctx = bench.context().await;
    pass(&ctx).await;
    let (_configured, contexts) = watch::channel(Arc::clone(&ctx));
    let (stop, stopped) = oneshot::channel::<()>();
    let dispatching = crate::support::spawn(dispatch::continuously(contexts, async { drop(stopped.await) }));

    bench.vendor.clear_faults();
    bench.fault("html");
    let other = bench.context().await;
    let dispatcher = Dispatcher::new(&other.config, other.clock.now()).unwrap();
    dispatcher.evaluate_during(&other, pass(&other)).await;
    dispatcher.finish(&other, None).await;
    // The dispatcher evaluates every 15 s.
    let reported_at = bench.clock.read();
    assert!(wait_until(async || bench.clock.read() > reported_at + SignedDuration::from_mins(2)).await);
    stop.send(()).unwrap();
    dispatching.await.unwrap();
    let alarms: Vec<_> = receiver.alarms().into_iter().filter(|alarm| alarm.starts_with("corrupt")).collect();
    assert_eq!(alarms, ["corrupt began"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_the_dispatcher_is_an_alarm_and_the_dispatcher_continues() {
    assert_survives("dispatch::continuously", async |_| {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_the_page_is_an_alarm_and_the_page_continues() {
    assert_survives("web::overview", async |url| {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.get(format!("{url}/")).send().await.unwrap_err();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_an_attempt_is_an_alarm_and_the_attempt_is_retried() {
    let bench = Bench::at(NOW, &series(1)).await;
    bench.clock.stand_still();
    let clock = Arc::new(PanickingClock {
        clock: bench.clock.clone(),
        victim: Mutex::new(Some("src/sync/attempt.rs")),
        has_panicked: AtomicBool::new(false),
    });
    let config = Arc::new(config::load(&bench.path("moesync.toml"), std::iter::empty()).unwrap());
    let ctx = Arc::new(sync::start(config, Arc::clone(&clock) as _, Arc::new(())).await.unwrap());
    let (_commands, mut inbox) = mpsc::channel(1);
    let (stop, stopped) = oneshot::channel::<()>();
    let working = {
        let ctx = Arc::clone(&ctx);
        crate::support::spawn(
            async move { sync::continuously(ctx, &mut inbox, async { stopped.await.unwrap() }).await },
        )
    };
    let alarm = || ctx.status.incidents().remove(&AlarmKind::Panic);
    assert!(wait_until(async || alarm().is_some_and(|text| text.contains("an attempt at acme/report-0"))).await);
    assert!(clock.has_panicked.load(Ordering::Relaxed));
    bench.clock.advance(SignedDuration::from_mins(2));
    assert!(wait_until(async || outcomes(&ctx).await.0 >= 1).await);
    assert!(wait_until(async || alarm().is_none()).await, "the alarm outlives the panic");
    stop.send(()).unwrap();
    working.await.unwrap().unwrap();
    let first = ctx.ledger.entries().await.unwrap().remove(0);
    let waited = first.last_attempt_at.unwrap().duration_since(bench.clock.read_at_start());
    assert!(waited >= SignedDuration::from_secs(45), "it is retried within seconds: {waited:#}");
}
