//! One run: a machine whose daemon is started and stopped by the weather, between a vendor and two stores.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, sync::Arc, time::Duration};

use futures::future::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use moesync::{
    config::{self, Config},
    dispatch::Dispatcher,
    ledger::{LedgerError, Memory},
    moengage,
    store::{Budget, Destination},
    sync::{self, Context},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

use super::{
    chance::Chance,
    clock::{self, Ledgers, SimulatedClock},
    oracle::Oracle,
    store::Store,
    trace::Trace,
    vendor::{KEY, Vendor},
    weather::{HOUR, Stop, WEEK, Weather},
};
use crate::support::spawn;

/// Names of the ledgers' place, of workspaces and of destinations.
const PLACE: &str = "sim";
const WORKSPACES: [&str; 2] = ["acme", "beta"];
const STORES: [&str; 2] = ["lake", "vault"];

/// After the faults, a time in which everything that is still open ends.
const CALM: Duration = Duration::from_secs(9 * 24 * 3600);

/// How often the oracle looks. The alarms have just been evaluated.
const PROBE_INTERVAL: Duration = Duration::from_secs(3 * 3600);

/// How long before that it looks for alarms: longer than an alarm waits for an attempt in progress.
const EARLIER: Duration = Duration::from_secs(31 * 60);

/// The result of one run.
pub struct Run {
    pub trace: Vec<String>,
    pub violations: Vec<String>,
    pub requests: usize,
    pub objects: usize,
}

/// Runs `weeks` weeks with faults, and the calm after them.
pub fn run(seed: u64, weeks: u32) -> Run {
    clock::run(move |ledgers| async move { World::new(seed, weeks, ledgers).await.live().await }.boxed())
}

pub struct World {
    pub clock: SimulatedClock,
    pub weather: Arc<Weather>,
    pub vendor: Arc<Vendor>,
    pub stores: BTreeMap<&'static str, Arc<Store>>,
    pub config: Arc<Config>,
    pub epoch: Timestamp,
    /// When the faults are over.
    pub calm_from: Timestamp,
    trace: Trace,
    ledgers: Ledgers,
    memory: Memory,
    pub process: Option<Process>,
    dispatcher: Dispatcher,
    started: u32,
}

/// The daemon while it runs.
pub struct Process {
    pub ctx: Arc<Context>,
    pub started_at: Timestamp,
    holder: String,
    loop_: JoinHandle<Result<(), LedgerError>>,
    shutdown: oneshot::Sender<()>,
    recovery: Option<JoinHandle<()>>,
    _contexts: watch::Sender<Arc<Context>>,
}

enum Event {
    Stop(Stop),
    Start,
    SetClock(SignedDuration),
    Look,
    Probe,
}

impl World {
    async fn new(seed: u64, weeks: u32, ledgers: Ledgers) -> Self {
        let chance = Chance::of_seed(seed);
        let first: Timestamp = "2026-01-05T04:00:00Z".parse().unwrap();
        let epoch = first + (WEEK / 7) * chance.of("epoch").below(364) as u32;
        let weather = Arc::new(Weather::of(chance.of("weather"), epoch, weeks, &WORKSPACES, &STORES));
        let config = Arc::new(configuration(chance.of("configuration")));
        let clock = SimulatedClock::new(epoch, chance.of("jitter"));
        let trace = Trace::default();
        let vendor = Vendor::new(
            clock.clone(),
            chance.of("vendor"),
            Arc::clone(&weather),
            config.reports.clone(),
            trace.clone(),
        );
        let store = |name: &'static str| {
            let chance = chance.of("store").of(name);
            (name, Arc::new(Store::new(name, clock.clone(), chance, Arc::clone(&weather), trace.clone())))
        };
        let memory = ledgers.create().await;
        Self {
            vendor: Arc::new(vendor),
            stores: STORES.map(store).into(),
            calm_from: epoch + WEEK * weeks,
            clock,
            weather,
            dispatcher: Dispatcher::new(&config, epoch).unwrap(),
            config,
            epoch,
            trace,
            ledgers,
            memory,
            process: None,
            started: 0,
        }
    }

    /// Everything that happens, in order.
    fn events(&self) -> Vec<(Timestamp, Event)> {
        let mut events = vec![(self.epoch, Event::Start)];
        for stop in &self.weather.stops {
            events.push((stop.from, Event::Stop(stop.what)));
            events.push((stop.to, Event::Start));
        }
        for error in &self.weather.clock {
            events.push((error.from, Event::SetClock(error.what)));
            events.push((error.to, Event::SetClock(SignedDuration::ZERO)));
        }
        let end = self.calm_from + CALM;
        let mut probe = self.epoch + PROBE_INTERVAL + Duration::from_millis(17_123);
        while probe < end {
            events.push((probe - EARLIER, Event::Look));
            events.push((probe, Event::Probe));
            probe += PROBE_INTERVAL;
        }
        events.sort_by_key(|(at, _)| *at);
        events
    }

    async fn live(mut self) -> Run {
        let mut oracle = Oracle::new(&self);
        for (at, event) in self.events() {
            self.clock.reach(at).await;
            match event {
                Event::Start => self.start(),
                Event::Stop(stop) => self.stop(stop, &mut oracle).await,
                Event::SetClock(ahead) => {
                    self.trace.add(at, format!("the local clock is set {ahead:#} ahead"));
                    self.clock.set_ahead(ahead);
                }
                Event::Look => {
                    self.evaluate_alarms(&mut oracle).await;
                    oracle.look(&self).await;
                }
                Event::Probe => self.probe(&mut oracle).await,
            }
        }
        oracle.check_end(&self).await;
        for loses_ledger in [false, true] {
            self.stop(Stop { is_kill: true, loses_ledger }, &mut oracle).await;
            let requests = self.vendor.received().len();
            let objects = oracle.objects(&self).await;
            self.start();
            self.clock.reach(self.clock.true_now() + 2 * HOUR).await;
            oracle.check_restart(&self, requests, &objects).await;
        }
        oracle.violations.extend(self.vendor.violations());
        for store in self.stores.values() {
            oracle.violations.extend(store.violations());
        }
        Run {
            trace: self.trace.lines(),
            requests: self.vendor.received().len(),
            objects: oracle.objects(&self).await.len(),
            violations: oracle.violations,
        }
    }

    fn start(&mut self) {
        self.started += 1;
        let holder = format!("{PLACE}-{}", self.started);
        let budget = Budget::for_destinations(&self.config.destinations);
        let open = |settings: &Arc<config::DestinationSettings>| {
            let (name, store) = self.stores.get_key_value(settings.name.as_str()).unwrap();
            (name.to_string(), Destination::in_store(settings, Arc::clone(store), &budget, &holder).unwrap())
        };
        let edges = sync::Edges {
            ledger: self.memory.open(&holder),
            vendor: moengage::Client::over(Arc::clone(&self.vendor) as _, &self.config.network, &self.config.limits),
            destinations: self.config.destinations.iter().map(open).collect(),
            budget: budget.clone(),
            holder: holder.clone(),
            place: PLACE.to_owned(),
        };
        let ctx = Arc::new(sync::assemble(Arc::clone(&self.config), edges, Arc::new(self.clock.clone()), Arc::new(())));
        let (contexts, changes) = watch::channel(Arc::clone(&ctx));
        let (commands, mut inbox) = mpsc::channel(8);
        let (shutdown, stopped) = oneshot::channel();
        let working = Arc::clone(&ctx);
        let own_commands = commands.clone();
        let loop_ = spawn(async move {
            // The loop ends when nothing can send it commands.
            let _commands = own_commands;
            sync::continuously(working, &mut inbox, stopped.map(drop)).await
        });
        self.trace.add(self.clock.true_now(), format!("started as {holder}"));
        self.process = Some(Process {
            started_at: self.clock.true_now(),
            ctx,
            holder,
            loop_,
            shutdown,
            recovery: Some(spawn(sync::recover_continuously(changes, commands))),
            _contexts: contexts,
        });
    }

    async fn stop(&mut self, stop: Stop, oracle: &mut Oracle) {
        let Some(process) = self.process.take() else { return };
        self.trace.add(self.clock.true_now(), format!("{stop:?}"));
        if let Some(recovery) = process.recovery {
            recovery.abort();
            let _ = recovery.await;
        }
        if stop.is_kill {
            process.loop_.abort();
        } else {
            let _ = process.shutdown.send(());
        }
        match process.loop_.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => oracle.violations.push(format!("the loop ended: {error}")),
            Err(error) if error.is_panic() => oracle.violations.push(format!("the loop panicked: {error}")),
            Err(_) => {}
        }
        self.memory.kill(&process.holder);
        if stop.loses_ledger {
            self.memory = self.ledgers.create().await;
        }
    }

    async fn probe(&mut self, oracle: &mut Oracle) {
        let Some(process) = &mut self.process else { return };
        // Its questions for the duty would cost most of the time of a run.
        if process.recovery.is_some() {
            let recovered = process.ctx.ledger.recovered().await.unwrap();
            if recovered.len() == self.config.reports.len()
                && let Some(recovery) = process.recovery.take()
            {
                recovery.abort();
            }
        }
        self.evaluate_alarms(oracle).await;
        oracle.check(self).await;
    }

    async fn evaluate_alarms(&self, oracle: &mut Oracle) {
        let Some(process) = &self.process else { return };
        if let Err(error) = self.dispatcher.round(&process.ctx).await {
            oracle.violations.push(format!("the alarms could not be evaluated: {error}"));
        }
    }

    pub fn trace(&self, line: String) {
        self.trace.add(self.clock.true_now(), line);
    }
}

fn configuration(chance: Chance) -> Config {
    let zone =
        chance.of("zone").pick(&["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]);
    let hour = |name: &str| format!("{:02}:{:02}", chance.of(name).below(24), chance.of(name).nth(1).below(60));
    let (daily, weekly, other, dump) = (hour("daily"), hour("weekly"), hour("other"), hour("dump"));
    let text = format!(
        r#"
        [[workspaces]]
        name = "acme"
        app_id = "ACME"
        base_url = "https://api.vendor.example"
        timezone = "{zone}"
        secret_key = "{KEY}"

        [[workspaces]]
        name = "beta"
        app_id = "BETA"
        base_url = "https://api-2.vendor.example"
        timezone = "UTC"
        secret_key = "{KEY}"

        [[destinations]]
        name = "lake"
        url = "s3://lake"

        [[destinations]]
        name = "vault"
        url = "s3://vault"

        [[reports]]
        workspace = "acme"
        source = "campaign_report"
        name = "Daily report"
        id = "daily"
        destination = "lake"
        schedule = {{ every = "day", at = "{daily}" }}

        [[reports]]
        workspace = "acme"
        source = "campaign_report"
        name = "Weekly report"
        id = "weekly"
        destination = "vault"
        schedule = {{ every = "week", on = "monday", at = "{weekly}" }}

        [[reports]]
        workspace = "beta"
        source = "campaign_report"
        name = "Other"
        id = "other"
        destination = "lake"
        schedule = {{ every = "week", on = ["tuesday", "friday"], at = "{other}" }}

        [[reports]]
        workspace = "beta"
        source = "daily_dump"
        id = "dump"
        destination = "vault"
        schedule = {{ every = "week", on = ["wednesday", "sunday"], at = "{dump}" }}
        "#
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("moesync.toml");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    config::load(&path, std::iter::empty()).map_err(|mistakes| mistakes.to_string()).unwrap()
}
