//! Notifications: evaluates the alarms, logs them, writes events into the outbox, and sends these until they arrive.
//!
//! This folder owns when targets are notified. It must not know what an alarm is (`alarm/`), what an event contains
//! (`event.rs`) or how one is sent (`notify/`). It reads the ledger and the published plan, and never delays the work.

mod deliver;
mod evaluate;
mod heartbeat;
mod log;
mod summary;

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use futures::future::{Either, select};
use jiff::{SignedDuration, Timestamp};
use tokio::{sync::watch, task::JoinSet};
use tracing::{debug, error, warn};

use self::{
    evaluate::{Evaluation, Role},
    heartbeat::Heartbeat,
};
use crate::{
    alarm_kind::AlarmKind,
    config::{Config, Problem},
    ledger::{Duty, DutyTaken, LedgerError},
    notify::NotifyClient,
    sync::{self, Context, Planned, until},
    telemetry::Chain,
};
pub use deliver::event;

/// Interval between evaluations: some alarms begin by the passing of time alone.
const EVALUATION_INTERVAL: Duration = Duration::from_secs(15);

/// Minimum interval between evaluations when attempts raise alarms.
const MIN_EVALUATION_INTERVAL: SignedDuration = SignedDuration::from_millis(500);

/// Stored objects are collected for this long, so that many of them are one query.
const BATCH_DELAY: Duration = Duration::from_secs(1);

/// How long the daemon waits before it reads the targets' secrets again.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// How long a command waits for its notifications to arrive, once its work is done.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the daemon waits for them when it stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Notifies the targets of one configuration.
#[derive(Debug)]
pub struct Dispatcher {
    client: NotifyClient,
    heartbeat: Heartbeat,
}

/// Checks that the targets of `config` can be notified: connections can be made, and all secrets can be read.
///
/// # Errors
///
/// A message, if connections cannot be made or a target's secret cannot be read.
pub fn check(config: &Config) -> Result<(), String> {
    connect(config).map(drop)
}

fn connect(config: &Config) -> Result<NotifyClient, String> {
    for target in &config.notify {
        target.check_secrets().map_err(|problem: Problem| problem.to_string())?;
    }
    NotifyClient::new(&config.network).map_err(|refusal| refusal.to_string())
}

/// Adds the targets of the configuration to the ledger. Called before work begins: targets receive events of objects
/// that are stored from then on.
///
/// # Errors
///
/// If the ledger cannot be read or written.
pub async fn register_targets(ctx: &Context) -> Result<(), LedgerError> {
    ctx.ledger.add_targets(&names(&ctx.config), ctx.clock.now()).await
}

fn names(config: &Config) -> Vec<&str> {
    config.notify.iter().map(|target| target.name.as_str()).collect()
}

impl Dispatcher {
    /// A dispatcher for the targets of `config`. `now` is when the process started.
    ///
    /// # Errors
    ///
    /// As [`check`].
    pub fn new(config: &Config, now: Timestamp) -> Result<Self, String> {
        Ok(Self { client: connect(config)?, heartbeat: Heartbeat::new(now) })
    }

    /// Sends dead man's switches the start of a pass, concurrently with the pass. Wait for the tasks before sending more.
    pub fn announce_start(&self, ctx: &Context) -> JoinSet<()> {
        heartbeat::announce_start(&self.client, ctx)
    }

    /// Runs the `work` of a command, and evaluates the alarms when an attempt begins one: the next attempt may end it. The
    /// events are sent by [`Dispatcher::finish`].
    pub async fn evaluate_during<T>(&self, ctx: &Context, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        // Alarms of the first plan may end by its attempts.
        let begun = || ctx.planned.alarms_begun().unwrap_or(0);
        let mut known = begun();
        loop {
            let alarm = async {
                while begun() == known {
                    ctx.planned.alarm_begun(ctx.planned.alarms_begun()).await;
                }
            };
            tokio::select! {
                done = &mut work => return done,
                () = ctx.status.alarm_raised() => {}
                () = alarm => {}
            }
            known = begun();
            let evaluation = pin!(async {
                if let Err(error) = write_events(ctx, &Role::command(ctx)).await {
                    debug!("could not evaluate the alarms: {}", Chain(&error));
                }
            });
            // Both are polled: the evaluation may wait for the ledger's connection, which the work holds.
            match select(work.as_mut(), evaluation).await {
                Either::Left((done, evaluation)) => {
                    evaluation.await;
                    return done;
                }
                Either::Right(((), _)) => {}
            }
        }
    }

    /// Sends all notifications of a command whose work is done, with a few retries. The next process sends what does not
    /// arrive. `fault`: the failure of the pass, if it failed.
    pub async fn finish(&self, ctx: &Context, fault: Option<&str>) {
        let last = ctx.clock.now().checked_add(FLUSH_TIMEOUT).unwrap_or(Timestamp::MAX);
        let flushed = async {
            loop {
                match self.evaluate_and_deliver(ctx, &Role::command(ctx), fault).await {
                    Ok(None) => break,
                    // Too late for this process.
                    Ok(Some(next)) if next > last => {
                        warn!("some notifications have not arrived; the next process sends them");
                        break;
                    }
                    Ok(Some(next)) => ctx.clock.sleep(until(next, ctx.clock.now())).await,
                    Err(error) => {
                        warn!("could not evaluate the alarms or send notifications: {}", Chain(&error));
                        break;
                    }
                }
            }
        };
        if tokio::time::timeout(FLUSH_TIMEOUT, flushed).await.is_err() {
            warn!("some notifications have not arrived; the next process sends them");
        }
    }

    /// Evaluates the alarms and sends the outbox, as a command does. Returns when the next retry of an event is due.
    ///
    /// # Errors
    ///
    /// If the ledger cannot be read or written; dead man's switches are notified of that.
    pub async fn round(&self, ctx: &Context) -> Result<Option<Timestamp>, LedgerError> {
        self.evaluate_and_deliver(ctx, &Role::command(ctx), None).await
    }

    async fn evaluate_and_deliver(
        &self,
        ctx: &Context,
        role: &Role,
        fault: Option<&str>,
    ) -> Result<Option<Timestamp>, LedgerError> {
        let evaluated = write_events(ctx, role).await;
        self.heartbeat.ping(&self.client, ctx, evaluated.as_ref(), fault).await;
        evaluated?;
        deliver::deliver(&self.client, ctx).await
    }
}

/// Logs the alarms, for as long as nothing can be sent.
async fn log_alarms(ctx: &Context) {
    let logged = async { log::write(ctx, &evaluate::evaluate(ctx, &Role::command(ctx)).await?).await };
    if let Err(error) = logged.await {
        debug!("could not evaluate the alarms: {}", Chain(&error));
    }
}

/// Evaluates the alarms, logs them, and writes the events that follow into the outbox.
async fn write_events(ctx: &Context, role: &Role) -> Result<Evaluation, LedgerError> {
    register_targets(ctx).await?;
    let evaluation = evaluate::evaluate(ctx, role).await?;
    log::write(ctx, &evaluation).await?;
    for (target, events) in deliver::subscribers(&ctx.config) {
        if ctx.ledger.waiting(&target.name).await? < deliver::OUTBOX_LIMIT {
            evaluate::write_alarms(ctx, target, events, &evaluation).await?;
            if !role.is_off_duty() {
                summary::write(ctx, target, events, &evaluation).await?;
            }
        }
    }
    Ok(evaluation)
}

/// The dispatcher of the daemon: evaluates and delivers until `shutdown`. A new context from `contexts` replaces the one
/// before.
pub async fn continuously(mut contexts: watch::Receiver<Arc<Context>>, shutdown: impl Future<Output = ()>) {
    let mut shutdown = pin!(shutdown);
    let started_at = contexts.borrow().clock.now();
    let mut current: Option<(Arc<Context>, Dispatcher)> = None;
    let mut memory = Memory::default();
    let mut reported_problem = String::new();
    loop {
        let ctx = contexts.borrow_and_update().clone();
        let is_same = current.as_ref().is_some_and(|(known, _)| Arc::ptr_eq(known, &ctx));
        if !is_same {
            memory = Memory::default();
            current = match Dispatcher::new(&ctx.config, started_at) {
                Ok(dispatcher) => {
                    // Only the daemon does this: a command may run with another configuration.
                    if let Err(error) = ctx.ledger.forget_other_targets(&names(&ctx.config)).await {
                        warn!("could not remove targets that are no longer configured: {}", Chain(&error));
                    }
                    ctx.status.clear(AlarmKind::Configuration, "notifications");
                    reported_problem.clear();
                    Some((Arc::clone(&ctx), dispatcher))
                }
                // It was valid when the context was made, so a secret file is missing temporarily.
                Err(problem) => {
                    let message = format!("notifications cannot be sent; retries in {RETRY_PAUSE:?}: {problem}");
                    if message != reported_problem {
                        error!(alarm = "configuration", "{message}");
                        ctx.status.raise(AlarmKind::Configuration, "notifications", message.clone());
                        reported_problem = message;
                    }
                    None
                }
            };
        }
        let turn = async {
            match &current {
                Some((ctx, dispatcher)) => dispatcher.turn(ctx, &mut memory).await,
                None => {
                    log_alarms(&ctx).await;
                    ctx.clock.sleep(RETRY_PAUSE).await;
                }
            }
        };
        tokio::select! {
            () = &mut shutdown => break,
            changed = contexts.changed() => if changed.is_err() { break },
            () = turn => {}
        }
    }
    // Events of the last objects. The next process sends what does not arrive in time.
    if let Some((ctx, dispatcher)) = current {
        let delivering = async {
            if ctx.ledger.take_duty(Duty::Notifying).await.is_ok_and(DutyTaken::is_ours) {
                let _ = deliver::deliver(&dispatcher.client, &ctx).await;
            }
        };
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, delivering).await;
    }
}

/// What the dispatcher of the daemon keeps from one turn to the next.
#[derive(Debug, Default)]
struct Memory {
    /// The last evaluation; `None` if the next turn evaluates.
    evaluated: Option<Evaluated>,
    /// [`LedgerView::newest_attempt`](crate::plan::LedgerView::newest_attempt) of the newest plan that was evaluated since this
    /// process has the duty.
    newest_attempt: Option<i64>,
}

/// The last evaluation.
#[derive(Debug, Clone, Copy)]
struct Evaluated {
    at: Timestamp,
    /// Of the plan that it read: see [`Planned::alarms_begun`](crate::sync::Planned::alarms_begun).
    alarms_begun: Option<usize>,
}

impl Memory {
    /// The plan to evaluate: with the attempts of other processes and commands. By an older one, alarms that they have
    /// reported would end, and alarms that they have ended would begin again. But a plan with a new alarm is evaluated as it
    /// is, because by now the alarm may have ended, unless an evaluation before it has seen more.
    async fn plan(&mut self, ctx: &Context, alarms_begun: Option<usize>) -> Option<Arc<Planned>> {
        let published = ctx.planned.latest();
        let has_new_alarm = self.evaluated.is_none_or(|last| last.alarms_begun != alarms_begun);
        let newest = |planned: &Option<Arc<Planned>>| planned.as_ref().map(|planned| planned.view.newest_attempt);
        let has_seen_more = self.newest_attempt.is_none() || newest(&published) < self.newest_attempt;
        let planned = match has_new_alarm && !has_seen_more {
            true => published,
            // The round meets the failure again.
            false => sync::refreshed_plan(ctx).await.unwrap_or(published),
        };
        self.newest_attempt = self.newest_attempt.max(newest(&planned));
        planned
    }
}

impl Dispatcher {
    /// Evaluates if it is time, delivers, and waits for the next reason to do so.
    async fn turn(&self, ctx: &Context, memory: &mut Memory) {
        let now = ctx.clock.now();
        let is_time =
            memory.evaluated.is_none_or(|last| now.duration_since(last.at).unsigned_abs() >= EVALUATION_INTERVAL);
        // Read before the plan, which may be published meanwhile.
        let alarms_begun = ctx.planned.alarms_begun();
        // While the ledger cannot be asked, the round fails likewise, and dead man's switches are notified of that.
        let taken = ctx.ledger.take_duty(Duty::Notifying).await.unwrap_or(DutyTaken::Begun);
        if taken != DutyTaken::Kept {
            memory.newest_attempt = None;
        }
        let delivered = match (taken.is_ours(), is_time) {
            (true, true) => {
                let role = Role::OnDuty(memory.plan(ctx, alarms_begun).await);
                self.evaluate_and_deliver(ctx, &role, None).await
            }
            (true, false) => deliver::deliver(&self.client, ctx).await,
            (false, true) => write_events(ctx, &Role::OffDuty).await.map(|_| None),
            (false, false) => Ok(None),
        };
        if is_time {
            memory.evaluated = Some(Evaluated { at: now, alarms_begun });
        }
        let next = delivered.unwrap_or_else(|error| {
            debug!("could not evaluate the alarms or send notifications: {}", Chain(&error));
            None
        });
        let now = ctx.clock.now();
        let wait = next.map_or(EVALUATION_INTERVAL, |next| until(next, now).clamp(BATCH_DELAY, EVALUATION_INTERVAL));
        let news = async {
            ctx.status.attempt_recorded().await;
            ctx.clock.sleep(BATCH_DELAY).await;
        };
        let alarm = async {
            let known = memory.evaluated.and_then(|last| last.alarms_begun);
            tokio::select! {
                () = ctx.status.alarm_raised() => {}
                () = ctx.planned.alarm_begun(known) => {}
            }
            // Taken first: the next turn evaluates, whichever branch ends this one.
            let earliest = memory.evaluated.take().and_then(|last| last.at.checked_add(MIN_EVALUATION_INTERVAL).ok());
            let now = ctx.clock.now();
            ctx.clock.sleep(earliest.map_or(Duration::ZERO, |at| until(at, now).min(BATCH_DELAY))).await;
        };
        tokio::select! {
            () = ctx.clock.sleep(wait) => {}
            () = news => {}
            () = alarm => {}
        }
    }
}
