//! The daemon: supervised tasks around the loop, signals, the service manager, shutdown.
//!
//! This file owns the lifetime of the process. It must not know what the loop does when it wakes: that follows from the
//! plan alone, so a missed, late or repeated wake-up changes nothing.

mod changes;

use std::{collections::HashSet, convert::Infallible, future::Future, sync::Arc, time::Duration};

use sd_notify::NotifyState;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
    time::interval,
};
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tracing::{error, info, warn};

use crate::{
    alarm_kind::AlarmKind,
    config::{Config, Mistakes},
    dispatch,
    ledger::LedgerError,
    sync::{self, Clock, Context, LoopCommand, Progress, Pulse, StartError},
    telemetry::Chain,
    web::{self, WebError},
};

/// The scheduler wakes the loop each minute, in UTC: in another zone a job would be an hour off after a clock change.
const WAKES: &str = "0 * * * * *";

/// A scheduler that has not woken the loop for this long is restarted.
const LONGEST_SILENCE: Duration = Duration::from_secs(180);

/// Pause before a retry of a step that the daemon cannot run without.
const RETRY_PAUSE: Duration = Duration::from_secs(30);

/// Why the daemon could not start or continue.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration is invalid; nothing was started.
    #[error(transparent)]
    Configuration(#[from] Mistakes),
    /// The ledger or a destination cannot be opened.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The status page cannot be served; nothing was started.
    #[error(transparent)]
    Web(#[from] WebError),
    /// A system call failed.
    #[error("could not {what}: {reason}")]
    System {
        /// The operation.
        what: &'static str,
        /// The system's error.
        reason: String,
    },
}

/// Runs until SIGTERM or SIGINT. SIGHUP reads the configuration again; an invalid one leaves the old one in force.
///
/// # Errors
///
/// Before the daemon is ready: anything that keeps it from starting. After that, only a ledger that cannot be opened
/// again.
pub async fn run(
    load: impl Fn() -> Result<Config, Mistakes>,
    clock: Arc<dyn Clock>,
    progress: Arc<dyn Progress>,
) -> Result<(), DaemonError> {
    let mut signals = Signals::listen()?;
    let config = Arc::new(load()?);
    let listener = web::Listener::bind(&config.web).await?;
    dispatch::check(&config).map_err(StartError::Configuration)?;
    // Another process may hold the ledger for a while.
    let ctx = tokio::select! {
        started = sync::start(config, Arc::clone(&clock), Arc::clone(&progress)) => Arc::new(started?),
        () = signals.stop.received() => return Ok(()),
    };
    ctx.status.note_configuration(clock.now());
    dispatch::register_targets(&ctx).await.map_err(StartError::from)?;

    let (commands, mut inbox) = mpsc::channel(8);
    let mut daemon = Daemon { contexts: watch::Sender::new(Arc::clone(&ctx)), ctx, commands, load, clock, progress };
    let url = listener.as_ref().map(web::Listener::url);
    let tasks = daemon.spawn_tasks(listener);
    notify(&[NotifyState::Ready]);
    info!(
        version = env!("CARGO_PKG_VERSION"),
        reports = daemon.ctx.config.reports.len(),
        workspaces = daemon.ctx.config.workspaces.len(),
        url,
        "running"
    );
    while let Err(error) = daemon.work(&mut inbox, &mut signals).await {
        if !error.needs_reopening() {
            return Err(StartError::from(error).into());
        }
        let Signals { hangup, stop } = &mut signals;
        tokio::select! {
            reopened = daemon.reopen(&error, hangup) => reopened?,
            () = stop.received() => break,
        }
    }
    tasks.end().await;
    daemon.ctx.ledger.close().await;
    info!("stopped");
    Ok(())
}

/// The signals that the daemon handles.
struct Signals {
    hangup: Signal,
    stop: StopSignals,
}

struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> Result<Self, DaemonError> {
        let listen = |kind| {
            signal(kind).map_err(|error| DaemonError::System { what: "listen for signals", reason: error.to_string() })
        };
        let stop =
            StopSignals { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? };
        Ok(Signals { hangup: listen(SignalKind::hangup())?, stop })
    }
}

impl StopSignals {
    async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Runs the loop and replaces its context.
struct Daemon<Load> {
    /// The context in force.
    ctx: Arc<Context>,
    /// Gives the context in force to the tasks.
    contexts: watch::Sender<Arc<Context>>,
    /// To the loop.
    commands: mpsc::Sender<LoopCommand>,
    load: Load,
    clock: Arc<dyn Clock>,
    progress: Arc<dyn Progress>,
}

impl<Load: Fn() -> Result<Config, Mistakes>> Daemon<Load> {
    fn spawn_tasks(&self, listener: Option<web::Listener>) -> Tasks {
        let mut abortable = Supervised::new(&self.contexts);
        if let Some(listener) = listener.map(Arc::new) {
            abortable.spawn("the status page", move |contexts| {
                let listener = Arc::clone(&listener);
                async move { listener.serve(contexts).await }
            });
        }
        if let Some(period) = sd_notify::watchdog_enabled() {
            abortable.spawn("the watchdog task", move |contexts| feed_watchdog(contexts, period / 3));
        }
        let commands = self.commands.clone();
        abortable.spawn("the scheduler", move |_| wake_each_minute(commands.clone()));
        let commands = self.commands.clone();
        // Recovery runs beside the loop, so a partition close to its expiry does not wait for it.
        abortable.spawn("the recovery", move |contexts| sync::recover_continuously(contexts, commands.clone()));
        let commands = self.commands.clone();
        abortable.spawn("the making of tables", move |contexts| sync::derive_continuously(contexts, commands.clone()));
        let (stop_dispatcher, stopping) = watch::channel(false);
        let mut dispatcher = Supervised::new(&self.contexts);
        dispatcher.spawn("the dispatcher", move |contexts| {
            let mut stopping = stopping.clone();
            // An error means that the sender is gone: stop as well.
            dispatch::continuously(contexts, async move { drop(stopping.wait_for(|stopping| *stopping).await) })
        });
        Tasks { abortable, dispatcher, stop_dispatcher }
    }

    /// Runs the loop until a signal stops it or it fails. Reloads on SIGHUP.
    async fn work(
        &mut self,
        inbox: &mut mpsc::Receiver<LoopCommand>,
        signals: &mut Signals,
    ) -> Result<(), LedgerError> {
        let Signals { hangup, stop } = signals;
        let status = Arc::clone(&self.ctx.status);
        let shutdown = async {
            stop.received().await;
            status.note_stopping();
            notify(&[NotifyState::Stopping]);
        };
        let working = sync::continuously(Arc::clone(&self.ctx), inbox, shutdown);
        tokio::select! {
            ended = working => ended,
            never = self.reload_on(hangup) => match never {},
        }
    }

    async fn reload_on(&mut self, hangup: &mut Signal) -> Infallible {
        while hangup.recv().await.is_some() {
            if let Some(new) = reload(&self.load, &self.ctx).await {
                self.put_in_force(new);
                // Fails only when the loop has ended, which drops this future too.
                let _ = self.commands.send(LoopCommand::Reload(Arc::clone(&self.ctx))).await;
            }
        }
        std::future::pending().await
    }

    fn put_in_force(&mut self, new: Context) {
        self.ctx = Arc::new(new);
        self.contexts.send_replace(Arc::clone(&self.ctx));
    }

    /// Opens the ledger again after `error`.
    async fn reopen(&mut self, error: &LedgerError, hangup: &mut Signal) -> Result<(), DaemonError> {
        error!(alarm = "ledger", "{}; reopening it", Chain(error));
        // First the old connections are closed: SQLite removes its journal by name, which may be that of a new file.
        self.ctx.ledger.close().await;
        let new = self.ctx.pulse.beat_during(self.start_again(hangup)).await?;
        // For a damaged ledger, opening it has raised the alarm, which names where it is kept.
        if matches!(error, LedgerError::Reopen { .. }) {
            new.status.raise(AlarmKind::Ledger, "the file", Chain(error).to_string());
        }
        dispatch::register_targets(&new).await.map_err(StartError::from)?;
        self.put_in_force(new);
        Ok(())
    }

    /// Starts again under the configuration in force. Retries while something that it names cannot be used; SIGHUP reads
    /// the configuration again.
    async fn start_again(&self, hangup: &mut Signal) -> Result<Context, StartError> {
        let mut config = Arc::clone(&self.ctx.config);
        let mut reported = String::new();
        loop {
            match sync::start(Arc::clone(&config), Arc::clone(&self.clock), Arc::clone(&self.progress)).await {
                Err(StartError::Configuration(reason)) if reason == reported => {}
                Err(StartError::Configuration(reason)) => {
                    error!(alarm = "configuration", "could not start again, retrying in {RETRY_PAUSE:?}: {reason}");
                    reported = reason;
                }
                ended => return ended,
            }
            tokio::select! {
                () = self.clock.sleep(RETRY_PAUSE) => {}
                Some(()) = hangup.recv() => match (self.load)() {
                    Ok(new) => config = Arc::new(until_restart(new, &config)),
                    Err(problem) => error!(
                        alarm = "configuration",
                        "the new configuration is not used, retrying with the old one: {problem}"
                    ),
                },
            }
        }
    }
}

/// The tasks beside the loop.
struct Tasks {
    /// May be stopped at any point.
    abortable: Supervised,
    dispatcher: Supervised,
    stop_dispatcher: watch::Sender<bool>,
}

impl Tasks {
    /// Ends the tasks. The ledger is closed after them: the last connection to close leaves a single file.
    async fn end(mut self) {
        self.stop_dispatcher.send_replace(true);
        self.dispatcher.tasks.join_all().await;
        self.abortable.tasks.shutdown().await;
    }
}

/// Tasks that are restarted after a panic, which is an alarm.
struct Supervised {
    tasks: JoinSet<()>,
    contexts: watch::Receiver<Arc<Context>>,
}

impl Supervised {
    fn new(contexts: &watch::Sender<Arc<Context>>) -> Self {
        Supervised { tasks: JoinSet::new(), contexts: contexts.subscribe() }
    }

    fn spawn<F>(
        &mut self,
        name: &'static str,
        task: impl Fn(watch::Receiver<Arc<Context>>) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let contexts = self.contexts.clone();
        self.tasks.spawn(async move {
            let status = || Arc::clone(&contexts.borrow().status);
            sync::supervised(name, status, || task(contexts.clone())).await;
        });
    }
}

/// Wakes the loop by the scheduler's clock. The loop has a timer of its own, so nothing depends on this one.
async fn wake_each_minute(commands: mpsc::Sender<LoopCommand>) {
    loop {
        let (wake, mut wakes) = mpsc::channel(1);
        match schedule(wake).await {
            Ok(mut scheduler) => {
                while let Ok(Some(())) = tokio::time::timeout(LONGEST_SILENCE, wakes.recv()).await {
                    // A full inbox holds a wake-up already.
                    let _ = commands.try_send(LoopCommand::Wake);
                }
                warn!("the scheduler has not woken the loop for {LONGEST_SILENCE:?}; restarting it");
                if let Err(error) = scheduler.shutdown().await {
                    warn!("could not stop the scheduler: {error}");
                }
            }
            Err(error) => {
                error!("could not start the scheduler, retrying in {RETRY_PAUSE:?}: {error}");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

async fn schedule(wake: mpsc::Sender<()>) -> Result<JobScheduler, JobSchedulerError> {
    let scheduler = JobScheduler::new().await?;
    let job = Job::new(WAKES, move |_, _| {
        let _ = wake.try_send(());
    })?;
    scheduler.add(job).await?;
    scheduler.start().await?;
    Ok(scheduler)
}

/// A context for the configuration as it is now; `None`, after an alarm with the reason, when it cannot be used.
async fn reload(load: impl Fn() -> Result<Config, Mistakes>, old: &Context) -> Option<Context> {
    let started = NotifyState::monotonic_usec_now().ok();
    notify(&[Some(NotifyState::Reloading), started].into_iter().flatten().collect::<Vec<_>>());
    let loaded = async {
        let new = load()?;
        let differing = need_restart(&new, &old.config);
        let config = Arc::new(until_restart(new, &old.config));
        dispatch::check(&config).map_err(StartError::Configuration)?;
        Ok::<_, DaemonError>((sync::reload(old, config).await?, differing))
    }
    .await;
    notify(&[NotifyState::Ready]);
    match loaded {
        Ok((new, differing)) => {
            for table in differing {
                warn!("[{table}] has changed; restart moesync to apply it");
            }
            new.status.clear(AlarmKind::Configuration, "reload");
            new.status.note_configuration(new.clock.now());
            describe(&new, old).await;
            Some(new)
        }
        Err(error) => {
            let reason = match error {
                DaemonError::Configuration(mistakes) => mistakes.summary(),
                other => other.to_string(),
            };
            let message = format!("the new configuration is not used, the old one stays in force: {reason}");
            error!(alarm = "configuration", "{message}");
            old.status.raise(AlarmKind::Configuration, "reload", message);
            old.status.note_refused_configuration();
            None
        }
    }
}

/// The `new` configuration, with what the process runs with until it is restarted.
fn until_restart(new: Config, running: &Config) -> Config {
    Config { ledger: running.ledger.clone(), web: running.web.clone(), ..new }
}

/// The tables in which the `new` configuration differs from what the process runs with until it is restarted.
fn need_restart(new: &Config, running: &Config) -> Vec<&'static str> {
    let tables = [("ledger", new.ledger != running.ledger), ("web", new.web != running.web)];
    tables.into_iter().filter(|(_, differs)| *differs).map(|(table, _)| table).collect()
}

async fn describe(new: &Context, old: &Context) {
    let unconfigured = match new.ledger.report_figures(None, new.clock.now()).await {
        Ok(figures) => {
            let configured: HashSet<_> = new.config.reports.iter().map(|report| &report.id).collect();
            let removed = figures.iter().filter(|figures| !configured.contains(&figures.id));
            removed.map(|figures| figures.scheduled + figures.pending).sum()
        }
        Err(error) => {
            warn!("could not count the partitions of reports that are no longer configured: {}", Chain(&error));
            0
        }
    };
    let changes = changes::changes(&old.config, &new.config);
    let changes = if changes.is_empty() { "nothing that is compared has changed" } else { &changes };
    let left = match unconfigured {
        0 => String::new(),
        1 => "; 1 open partition belongs to a report that is no longer in it".to_owned(),
        several => format!("; {several} open partitions belong to reports that are no longer in it"),
    };
    info!(reports = new.config.reports.len(), unconfigured, "configuration reloaded: {changes}{left}");
}

/// Notifies the service manager while the loop runs. If the loop hangs, the service manager restarts the process.
async fn feed_watchdog(contexts: watch::Receiver<Arc<Context>>, period: Duration) {
    let mut ticks = interval(period);
    let mut watch = LoopWatch::default();
    loop {
        ticks.tick().await;
        let pulse = contexts.borrow().pulse.clone();
        if watch.is_running(&pulse) {
            notify(&[NotifyState::Watchdog]);
        }
    }
}

/// Whether the loop hung at the last look: a hang is logged when it begins and when it ends.
#[derive(Default)]
struct LoopWatch {
    is_hung: bool,
}

impl LoopWatch {
    fn is_running(&mut self, pulse: &Pulse) -> bool {
        let was_hung = std::mem::replace(&mut self.is_hung, !pulse.is_alive());
        match (was_hung, self.is_hung) {
            (false, true) => {
                error!("the loop has not run for {} s; the watchdog is not notified", pulse.age().as_secs());
            }
            (true, false) => info!("the loop runs again"),
            _ => {}
        }
        !self.is_hung
    }
}

/// Notifies the service manager, if there is one.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!("could not notify the service manager: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;
    use crate::lock::lock;

    /// Collects the log of one thread.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        fn lines(&self) -> Vec<String> {
            String::from_utf8_lossy(&lock(&self.0)).lines().map(str::to_owned).collect()
        }
    }

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            lock(&self.0).write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Log {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_hangs_is_logged_once_when_it_begins_and_once_when_it_ends() {
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).without_time().finish();
        let _default = tracing::subscriber::set_default(subscriber);
        let (pulse, mut watch) = (Pulse::new(), LoopWatch::default());
        let mut ticks = async |count| {
            let mut fed = 0;
            for _ in 0..count {
                tokio::time::advance(Duration::from_secs(10)).await;
                fed += usize::from(watch.is_running(&pulse));
            }
            fed
        };
        assert_eq!((ticks(11).await, log.lines().len()), (11, 0));
        assert_eq!((ticks(100).await, log.lines().len()), (0, 1));
        assert!(
            log.lines()[0].contains("ERROR") && log.lines()[0].contains("has not run for 120 s"),
            "{:?}",
            log.lines()
        );
        pulse.beat();
        assert_eq!((ticks(5).await, log.lines().len()), (5, 2));
        assert!(log.lines()[1].contains("the loop runs again"), "{:?}", log.lines());
    }
}
