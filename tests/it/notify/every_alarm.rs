//! Each kind of alarm, produced once: on the page, in the metrics, in the log, and at a target of each kind.

use std::{any::Any, fs, sync::Arc};

use moesync::{
    alarm_kind::AlarmKind,
    config,
    dispatch::{self, Dispatcher},
    sync::{self, Progress, Selection},
    web,
};
use serde_json::Value;
use tokio::sync::watch;

use super::{NOW, alarms::Broken, hours, pass};
use crate::support::{Bench, Daemon, Log, MailServer, Receiver, Series, wait_until};

/// Real listeners for a target of each kind.
struct Listeners {
    http: Receiver,
    mail: MailServer,
}

impl Listeners {
    /// The configuration with a page and a target of each kind. The name of the instance is the alarm that is produced.
    fn configure(&self, bench: &Bench, kind: AlarmKind) -> String {
        let target = |name: &str| {
            format!("\n[[notify]]\nname = \"{name}\"\nkind = \"{name}\"\nurl = \"{}/{name}\"\n", self.http.url)
        };
        let mail = format!(
            "\n[[notify]]\nname = \"mail\"\nkind = \"email\"\nurl = \"smtp://127.0.0.1:{}\"\nstarttls = false\n\
             from = \"moesync@acme.example\"\nto = [\"ops@acme.example\"]\n",
            self.mail.port
        );
        let instance = format!("\n[instance]\nname = \"{kind}\"\npage_url = \"https://moesync.example.com\"\n");
        let config = bench.config().replace("listen = \"\"", "listen = \"127.0.0.1:0\"");
        config + &instance + &self.http.webhook() + &target("slack") + &target("teams") + &mail
    }

    /// The event of the alarm that the webhook received, which must be one.
    fn event(&self, kind: AlarmKind) -> Value {
        let of_kind = |event: &Value| {
            event["instance"] == kind.as_str()
                && event["data"]["alarm"] == kind.as_str()
                && event["type"] != "alarm.ended"
        };
        let [event] = <[Value; 1]>::try_from(self.http.events().into_iter().filter(of_kind).collect::<Vec<_>>())
            .unwrap_or_else(|events| panic!("{kind}: {events:#?}"));
        event
    }

    /// Whether `title` arrived in a message of this instance: in Slack, in Teams, by e-mail.
    fn have_read(&self, kind: AlarmKind, title: &str) -> [bool; 3] {
        let posted = |path: &str| {
            let received = self.http.received();
            let mut of_path = received.iter().filter(|received| received.path == path);
            of_path.any(|received| received.body.contains(title) && received.body.contains(kind.as_str()))
        };
        let subject = format!("[{kind}] ALARM: {title}");
        let mails = self.mail.messages();
        let unfolded = |mail: &Value| mail["message"].as_str().unwrap().replace("\r\n ", " ");
        [posted("/slack"), posted("/teams"), mails.iter().any(|mail| unfolded(mail).contains(&subject))]
    }
}

/// A process with an alarm.
struct Scene {
    url: String,
    log: Vec<String>,
    _parts: Vec<Box<dyn Any>>,
}

/// A pass with its tables, its notifications and its page, in this process.
async fn in_this_process(bench: &Bench, progress: Arc<dyn Progress>, log: &Log) -> Scene {
    let config = config::load(&bench.path("moesync.toml"), std::iter::empty()).unwrap();
    let ctx = Arc::new(sync::start(Arc::new(config), Arc::new(bench.clock.clone()), progress).await.unwrap());
    let dispatcher = Dispatcher::new(&ctx.config, ctx.clock.now()).unwrap();
    dispatch::register_targets(&ctx).await.unwrap();
    sync::recover(&ctx, &Selection::default()).await.unwrap();
    sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
    sync::derive_once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
    dispatcher.round(&ctx).await.unwrap();
    let listener = web::Listener::bind(&ctx.config.web).await.unwrap().unwrap();
    let url = listener.url().trim_end_matches('/').to_owned();
    let contexts = watch::Sender::new(Arc::clone(&ctx));
    let shown = contexts.subscribe();
    crate::support::spawn(async move { listener.serve(shown).await });
    Scene { url, log: log.text().lines().map(str::to_owned).collect(), _parts: vec![Box::new(contexts)] }
}

/// Produces an alarm.
async fn produce(kind: AlarmKind, listeners: &Listeners, log: &Log) -> (Bench, Scene) {
    let series = [Series::campaign("Report test", 1)];
    let bench = match kind {
        AlarmKind::Configuration => Bench::new(&series).await,
        _ => Bench::at(NOW, &series).await,
    };
    let config = listeners.configure(&bench, kind);
    bench.write_config(&config);
    let mut progress: Arc<dyn Progress> = Arc::new(());
    match kind {
        AlarmKind::Lost => {
            bench.fault("truncate=50%,times=1");
            bench.fault("not-yet");
            pass(&bench).await;
            bench.clock.advance(hours(7 * 24));
            pass(&bench).await;
        }
        AlarmKind::Expiring => {
            bench.fault("not-yet");
            bench.clock.advance(hours(97));
        }
        AlarmKind::Late => {
            bench.fault("not-yet");
            bench.clock.advance(hours(1));
        }
        AlarmKind::Unauthorized => bench.fault("unauthorized"),
        AlarmKind::Rejected => {
            let statistics = format!(
                "\n[[reports]]\nworkspace = \"acme\"\ndestination = \"disk\"\nsource = \"campaign_stats\"\n\
                 metric_type = \"TOTAL\"\nattribution_type = \"CLICK_THROUGH\"\n\
                 schedule = {{ every = \"day\", at = \"{}\" }}\n",
                bench.generated_at_time()
            );
            bench.write_config(&(config + &statistics));
            bench.fault("status=400,api=campaign_stats");
        }
        AlarmKind::Corrupt => bench.fault("truncate=50%"),
        AlarmKind::Unsupported => {
            bench.answer_with([b"Rar!\x1a\x07\x01\x00".as_slice(), &[7; 1000]].concat()).await;
        }
        AlarmKind::StoreFailed => {
            fs::remove_dir_all(bench.path("reports")).unwrap_or_default();
            fs::write(bench.path("reports"), "no folder").unwrap();
            // A first failure is no alarm.
            pass(&bench).await;
            bench.clock.advance(hours(1));
        }
        AlarmKind::TablesFailed => {
            let tables = "destination = \"disk\"\ntables = \"parquet\"\n";
            bench.write_config(&config.replace("destination = \"disk\"\n", tables));
            fs::create_dir_all(bench.path("reports")).unwrap();
            fs::write(bench.object("tables"), "in the way").unwrap();
            drop(in_this_process(&bench, Arc::new(()), log).await);
            bench.clock.advance(hours(1));
        }
        AlarmKind::OtherContent => {
            let (series, date) = bench.due()[0];
            let object = bench.object(&series.key(date));
            fs::create_dir_all(object.parent().unwrap()).unwrap();
            fs::write(object, "foreign content").unwrap();
        }
        AlarmKind::Ledger => {
            fs::create_dir_all(bench.ledger().parent().unwrap()).unwrap();
            fs::write(bench.ledger(), "this is a shopping list\n".repeat(100)).unwrap();
        }
        AlarmKind::Clock => bench.fault("wrong-date=-2h"),
        AlarmKind::Panic => progress = Arc::new(Broken),
        AlarmKind::Configuration => {
            let daemon = Daemon::start(&bench).await;
            bench.write_config(&config.replace("campaign_report", "campaign_retort"));
            daemon.signal("HUP").await;
            let title = "moesync: the new configuration is not used";
            let arrived = async || listeners.have_read(kind, title) == [true; 3];
            assert!(wait_until(arrived).await);
            let (url, log) = (daemon.url(), daemon.log());
            return (bench, Scene { url, log, _parts: vec![Box::new(daemon)] });
        }
    }
    let scene = in_this_process(&bench, progress, log).await;
    (bench, scene)
}

#[tokio::test]
async fn each_alarm_is_on_the_page_in_the_metrics_in_the_log_and_at_every_target() {
    let folder = tempfile::tempdir().unwrap();
    let mail = MailServer::start(folder.path(), &["--tls", "none"]).await;
    let listeners = Listeners { http: Receiver::start().await, mail };
    let log = Log::default();
    let _logging = Log::listen(tracing_subscriber::fmt().json().with_writer(log.clone()).finish());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for kind in AlarmKind::ALL {
        log.clear();
        let (_bench, scene) = produce(kind, &listeners, &log).await;
        let get = async |path: &str| {
            let response = client.get(format!("{}{path}", scene.url)).send().await.unwrap();
            response.text().await.unwrap()
        };
        let begins = format!("\"alarm\":\"{kind}\"");
        let errors = scene.log.iter().filter(|line| line.contains("\"ERROR\"") && line.contains(&begins));
        assert!(errors.count() >= 1, "{kind} is not in the log:\n{}", scene.log.join("\n"));

        let overview: Value = serde_json::from_str(&get("/api/v1/overview").await).unwrap();
        let lists = ["dangers", "incidents", "stored_alarms"].map(|list| overview[list].as_array().unwrap().clone());
        assert!(lists.iter().flatten().any(|alarm| alarm["alarm"] == kind.as_str()), "{kind}: {overview:#}");
        let page = get("/").await;
        let marks = [format!("danger {kind}"), format!("<strong>{kind}</strong>")];
        assert!(marks.iter().any(|mark| page.contains(mark)), "{kind} is not on the page: {page}");

        let metrics = get("/metrics").await;
        let value = |name: &str, label: &str| -> f64 {
            let samples = metrics.lines().filter(|line| line.starts_with(name) && line.contains(label));
            samples.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
        };
        let of_alarm = format!("alarm=\"{kind}\"");
        let count = match kind {
            AlarmKind::TablesFailed => value("moesync_tables{", "state=\"failed\""),
            AlarmKind::OtherContent => value("moesync_other_content_total{", ""),
            _ => value("moesync_alarms{", &of_alarm) + value("moesync_incident{", &of_alarm),
        };
        assert!(count >= 1.0, "{kind} is not in the metrics");

        let event = listeners.event(kind);
        let title = event["data"]["title"].as_str().unwrap();
        assert_eq!(listeners.have_read(kind, title), [true; 3], "{kind}: Slack, Teams, e-mail");
        assert!(event["page"].as_str().unwrap().starts_with("https://moesync.example.com/"), "{event}");
    }
}
