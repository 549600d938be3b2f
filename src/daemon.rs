//! The loop that never ends: wakes, reloads and stops.
//!
//! This file owns signals and the service manager. It must not know what is to be done on waking: what a missed, late or
//! repeated wake leads to follows from the plan alone.

use std::{future::Future, sync::Arc, time::Duration};

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
    config::{Config, Problem},
    dispatch,
    ledger::LedgerError,
    partition::Settled,
    sync::{self, Clock, Command, Context, Progress, StartError},
    telemetry::Chain,
    web::{self, WebError},
};

/// When the scheduler wakes the loop: each minute, in UTC. Only a wake-up; a schedule in a zone of its own would be an
/// hour off after a clock change.
const WAKES: &str = "0 * * * * *";

/// A scheduler that has not woken the loop for this long is started again.
const LONGEST_SILENCE: Duration = Duration::from_secs(180);

/// How long the daemon waits before it tries again what it needs to go on.
const PAUSE: Duration = Duration::from_secs(30);

/// Why the daemon could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Nothing was started.
    #[error(transparent)]
    Configuration(#[from] Problem),
    /// Nothing was started, or the ledger refuses for good.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Nothing was started: the status page cannot be served.
    #[error(transparent)]
    Web(#[from] WebError),
    /// The system refuses what a daemon needs.
    #[error("could not {what}: {reason}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// What came back.
        reason: String,
    },
}

/// Runs until SIGTERM or SIGINT. SIGHUP reads the configuration again; one that is wrong leaves the old one in force.
///
/// # Errors
///
/// Before it is ready: whatever is wrong. After that, only a ledger that cannot be opened again.
pub async fn run(
    load: impl Fn() -> Result<Config, Problem>,
    clock: Arc<dyn Clock>,
    progress: Arc<dyn Progress>,
) -> Result<(), DaemonError> {
    let mut hangups = listen(SignalKind::hangup())?;
    let mut interrupts = listen(SignalKind::interrupt())?;
    let mut terminations = listen(SignalKind::terminate())?;

    let config = Arc::new(load()?);
    let listener = web::Listener::bind(&config.web).await?;
    dispatch::check(&config).map_err(StartError::Configuration)?;
    // Another process may take its time with the ledger.
    let started = tokio::select! {
        started = sync::start(config, Arc::clone(&clock), Arc::clone(&progress)) => started?,
        () = told_to_stop(&mut interrupts, &mut terminations) => return Ok(()),
    };
    let mut ctx = Arc::new(started);
    dispatch::register_targets(&ctx).await.map_err(StartError::from)?;
    let current = watch::Sender::new(Arc::clone(&ctx));
    let url = listener.as_ref().map(web::Listener::url);
    let (commands, mut inbox) = mpsc::channel(8);
    let (stop_dispatcher, stopping) = watch::channel(false);
    let mut beside = Beside { tasks: JoinSet::new(), contexts: current.subscribe() };
    if let Some(listener) = listener.map(Arc::new) {
        beside.spawn("the status page", move |contexts| {
            let listener = Arc::clone(&listener);
            async move { listener.serve(contexts).await }
        });
    }
    if let Some(period) = sd_notify::watchdog_enabled() {
        beside.spawn("the watchdog's feeder", move |contexts| feed_watchdog(contexts, period / 3));
    }
    let waker = commands.clone();
    beside.spawn("the scheduler", move |_| wake_each_minute(waker.clone()));
    let looping = commands.clone();
    // Beside the loop: what is near its expiry does not wait for it.
    beside.spawn("the recovery", move |contexts| sync::recover_continuously(contexts, looping.clone()));
    let mut notifying = Beside { tasks: JoinSet::new(), contexts: current.subscribe() };
    notifying.spawn("the dispatcher", move |contexts| {
        let mut stopping = stopping.clone();
        // Also once the sender is gone.
        dispatch::continuously(contexts, async move { drop(stopping.wait_for(|stopping| *stopping).await) })
    });
    tell(&[NotifyState::Ready]);
    info!(
        version = env!("CARGO_PKG_VERSION"),
        reports = ctx.config.reports.len(),
        workspaces = ctx.config.workspaces.len(),
        url,
        "running"
    );

    loop {
        let ended = {
            let working_with = Arc::clone(&ctx);
            let stop = async {
                told_to_stop(&mut interrupts, &mut terminations).await;
                tell(&[NotifyState::Stopping]);
            };
            let reloads = async {
                while hangups.recv().await.is_some() {
                    if let Some(new) = reload(&load, &ctx).await {
                        ctx = Arc::new(new);
                        current.send_replace(Arc::clone(&ctx));
                        // The loop is gone only when this future is dropped.
                        let _ = commands.send(Command::Reload(Arc::clone(&ctx))).await;
                    }
                }
                std::future::pending::<()>().await;
            };
            let working = sync::continuously(working_with, &mut inbox, stop);
            tokio::select! {
                ended = working => ended,
                () = reloads => Ok(()),
            }
        };
        match ended {
            Ok(()) => break,
            Err(error) if error.needs_reopening() => {
                error!(alarm = "ledger", "{}; it is opened anew", Chain(&error));
                let replaced = matches!(error, LedgerError::Replaced { .. }).then(|| Chain(&error).to_string());
                // Before there is another under the same name: SQLite removes its journal by name.
                ctx.ledger.close().await;
                let open = async |config| sync::start(config, Arc::clone(&clock), Arc::clone(&progress)).await;
                let hangup = async || hangups.recv().await.is_some();
                let opened = tokio::select! {
                    opened = ctx.pulse.beat_during(reopened(&ctx, open, &load, hangup)) => opened?,
                    () = told_to_stop(&mut interrupts, &mut terminations) => break,
                };
                ctx = Arc::new(opened);
                // Of a damaged one it has been said already, and where that is now.
                if let Some(message) = replaced {
                    ctx.bulletin.raise(AlarmKind::Ledger, "the file", message);
                }
                dispatch::register_targets(&ctx).await.map_err(StartError::from)?;
                current.send_replace(Arc::clone(&ctx));
            }
            Err(error) => return Err(StartError::from(error).into()),
        }
    }
    // It ends by itself when told to; should it have failed, there is nothing left to wait for.
    stop_dispatcher.send_replace(true);
    notifying.tasks.join_all().await;
    // Before the ledger is closed: the last one to do so leaves a single file.
    beside.tasks.shutdown().await;
    ctx.ledger.close().await;
    info!("stopped");
    Ok(())
}

/// Opens everything again under the configuration in force. A file that it names and that is away for a moment is
/// waited for; a SIGHUP meanwhile has the configuration read again.
async fn reopened(
    old: &Context,
    open: impl AsyncFn(Arc<Config>) -> Result<Context, StartError>,
    load: impl Fn() -> Result<Config, Problem>,
    mut hangup: impl AsyncFnMut() -> bool,
) -> Result<Context, StartError> {
    let mut config = Arc::clone(&old.config);
    loop {
        match open(Arc::clone(&config)).await {
            Err(StartError::Configuration(reason)) => {
                error!(alarm = "configuration", "could not go on; it is tried again: {reason}");
            }
            ended => return ended,
        }
        tokio::select! {
            () = old.clock.sleep(PAUSE) => {}
            true = hangup() => match load() {
                // Where the ledger is stays as it was until a restart.
                Ok(new) => config = Arc::new(Config { ledger: old.config.ledger.clone(), ..new }),
                Err(problem) => {
                    error!(alarm = "configuration", "the new configuration is not used, the old one is tried again: {problem}");
                }
            },
        }
    }
}

async fn told_to_stop(interrupts: &mut Signal, terminations: &mut Signal) {
    tokio::select! {
        _ = interrupts.recv() => {}
        _ = terminations.recv() => {}
    }
}

fn listen(kind: SignalKind) -> Result<Signal, DaemonError> {
    signal(kind).map_err(|error| DaemonError::System { what: "listen for signals", reason: error.to_string() })
}

/// The tasks beside the loop. One that panics is an alarm, and is started again.
struct Beside {
    tasks: JoinSet<()>,
    contexts: watch::Receiver<Arc<Context>>,
}

impl Beside {
    fn spawn<F>(
        &mut self,
        name: &'static str,
        task: impl Fn(watch::Receiver<Arc<Context>>) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let contexts = self.contexts.clone();
        self.tasks.spawn(async move {
            let bulletin = || Arc::clone(&contexts.borrow().bulletin);
            sync::supervised(name, bulletin, || task(contexts.clone())).await;
        });
    }
}

/// Wakes the loop by the scheduler's clock. The loop also wakes by itself, so this is a second clock and no condition.
async fn wake_each_minute(commands: mpsc::Sender<Command>) {
    loop {
        let (wake, mut wakes) = mpsc::channel(1);
        match schedule(wake).await {
            Ok(mut scheduler) => {
                while let Ok(Some(())) = tokio::time::timeout(LONGEST_SILENCE, wakes.recv()).await {
                    // A full inbox means that a wake is waiting already.
                    let _ = commands.try_send(Command::Wake);
                }
                warn!("the scheduler has not woken the loop for {LONGEST_SILENCE:?}; it is started again");
                if let Err(error) = scheduler.shutdown().await {
                    warn!("could not stop the scheduler: {error}");
                }
            }
            Err(error) => {
                error!("could not start the scheduler, retries in {PAUSE:?}: {error}");
                tokio::time::sleep(PAUSE).await;
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

/// The context for the configuration as it is now; `None`, with the reason told, when that cannot be used.
async fn reload(load: impl Fn() -> Result<Config, Problem>, old: &Context) -> Option<Context> {
    let started = NotifyState::monotonic_usec_now().ok();
    tell(&[Some(NotifyState::Reloading), started].into_iter().flatten().collect::<Vec<_>>());
    let loaded = async {
        let config = Arc::new(load()?);
        dispatch::check(&config).map_err(StartError::Configuration)?;
        Ok::<_, DaemonError>(sync::reload(old, config).await?)
    }
    .await;
    tell(&[NotifyState::Ready]);
    match loaded {
        Ok(new) => {
            new.bulletin.clear(AlarmKind::Configuration, "reload");
            describe(&new, old).await;
            Some(new)
        }
        Err(error) => {
            let message = format!("the new configuration is not used, the old one stays in force: {error}");
            error!(alarm = "configuration", "{message}");
            old.bulletin.raise(AlarmKind::Configuration, "reload", message);
            None
        }
    }
}

async fn describe(new: &Context, old: &Context) {
    if new.config.ledger != old.config.ledger {
        warn!("[ledger] has changed; that needs a restart");
    }
    if new.config.web != old.config.web {
        warn!("[web] has changed; that needs a restart");
    }
    let unconfigured = match new.ledger.entries().await {
        Ok(entries) => {
            let is_configured = |id| new.config.reports.iter().any(|report| report.report_id() == id);
            entries
                .iter()
                .filter(|entry| entry.settled == Settled::Open && !is_configured(entry.partition.id.report_id()))
                .count()
        }
        Err(error) => {
            warn!("could not count what is no longer configured: {}", Chain(&error));
            0
        }
    };
    info!(
        reports = new.config.reports.len(),
        unconfigured,
        "configuration reloaded; {unconfigured} open partitions belong to reports that are no longer in it"
    );
}

/// Tells the service manager now and then that the loop turns, and no more once it does not: a hung loop is restarted.
async fn feed_watchdog(contexts: watch::Receiver<Arc<Context>>, period: Duration) {
    let mut ticks = interval(period);
    loop {
        ticks.tick().await;
        let pulse = contexts.borrow().pulse.clone();
        if pulse.is_alive() {
            tell(&[NotifyState::Watchdog]);
        } else {
            error!(alarm = "hung", "the loop hangs, for {} s now; the watchdog is not fed", pulse.age().as_secs());
        }
    }
}

/// Tells the service manager, if there is one.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!("could not notify the service manager: {error}");
    }
}
