//! Dead man's switches: regular pings that report whether alarms are on. A receiver alerts when they stop.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Mutex,
};

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::evaluate::Evaluation;
use crate::{
    alarm::{AlarmKey, AlarmStatus, Notified},
    alarm_kind::AlarmKind,
    config::{Channel, Target},
    event::counted,
    ledger::LedgerError,
    lock::lock,
    notify::{NotifyClient, Ping},
    sync::Context,
    telemetry::Chain,
};

/// The loop plans each minute. If it has not for this long, it hangs.
const HUNG_AFTER: SignedDuration = SignedDuration::from_mins(15);

/// Evaluations are seconds apart. After a longer pause the machine has slept or its clock was set, and the loop had no
/// time to plan.
const SLEPT_AFTER: SignedDuration = SignedDuration::from_mins(5);

/// Minimum interval between pings that differ.
const MIN_PING_INTERVAL: SignedDuration = SignedDuration::from_mins(1);

/// Number of alarms that a ping lists.
const LISTED_ALARMS: usize = 20;

/// The pings that one dispatcher sent.
#[derive(Debug)]
pub(super) struct Heartbeat {
    awake: Mutex<Awake>,
    /// By the target's name.
    last: Mutex<HashMap<String, LastPing>>,
}

#[derive(Debug, Clone, Copy)]
struct Awake {
    /// When the process started or the machine woke.
    since: Timestamp,
    last_seen: Timestamp,
}

#[derive(Debug, Clone, Copy)]
struct LastPing {
    at: Timestamp,
    ping: Ping,
    has_arrived: bool,
}

/// Sends each dead man's switch the start of a pass, in tasks of their own.
pub(super) fn announce_start(client: &NotifyClient, ctx: &Context) -> JoinSet<()> {
    let mut started = JoinSet::new();
    for target in ctx.config.notify.iter().filter(|target| matches!(target.channel, Channel::Ping { .. })) {
        let (client, target) = (client.clone(), target.clone());
        started.spawn(async move {
            if let Err(refusal) = client.ping(&target, Ping::Start, String::new()).await {
                warn!(target = target.name, "could not ping notify target {}: {refusal}", target.name);
            }
        });
    }
    started
}

impl Heartbeat {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { awake: Mutex::new(Awake { since: now, last_seen: now }), last: Mutex::default() }
    }

    /// Pings the targets that are due. `fault`: the failure of a pass, if it failed.
    pub(super) async fn ping(
        &self,
        client: &NotifyClient,
        ctx: &Context,
        evaluated: Result<&Evaluation, &LedgerError>,
        fault: Option<&str>,
    ) {
        let now = ctx.clock.now();
        let planned_at = ctx.status.planned_at();
        let awake_since = self.awake_since(now);
        let silent = now.duration_since(planned_at.map_or(awake_since, |planned_at| planned_at.max(awake_since)));
        // Before the first plan the state is unknown.
        if planned_at.is_none() && fault.is_none() && silent <= HUNG_AFTER {
            return;
        }
        join_all(ctx.config.notify.iter().map(async |target| {
            let Channel::Ping { every } = target.channel else { return };
            let (ping, text) = match evaluated {
                Err(error) => (Ping::Fail, Chain(error).to_string()),
                Ok(_) if silent > HUNG_AFTER => (Ping::Fail, format!("the loop has not planned for {silent:#}")),
                Ok(evaluation) => match (describe(evaluation, evaluation.unresolved.get(&target.name)), fault) {
                    ((_, text), Some(fault)) => (Ping::Fail, format!("{fault}; {text}")),
                    (described, None) => described,
                },
            };
            let last = self.last(target);
            let age = last.map(|last| now.duration_since(last.at));
            let is_due = age.is_none_or(|age| age >= every || age.is_negative())
                || last.is_some_and(|last| last.ping != ping || !last.has_arrived)
                    && age.is_some_and(|age| age >= MIN_PING_INTERVAL);
            if is_due {
                let has_arrived = send(client, ctx, target, ping, &text, last).await;
                let mut all = lock(&self.last);
                all.insert(target.name.clone(), LastPing { at: now, ping, has_arrived });
            }
        }))
        .await;
    }

    fn last(&self, target: &Target) -> Option<LastPing> {
        lock(&self.last).get(&target.name).copied()
    }

    fn awake_since(&self, now: Timestamp) -> Timestamp {
        let mut awake = lock(&self.awake);
        if now.duration_since(awake.last_seen).abs() > SLEPT_AFTER {
            awake.since = now;
        }
        awake.last_seen = now;
        awake.since
    }
}

/// Sends one ping with the number of objects stored since the last one. Returns whether it arrived.
async fn send(
    client: &NotifyClient,
    ctx: &Context,
    target: &Target,
    ping: Ping,
    text: &str,
    last: Option<LastPing>,
) -> bool {
    // If the ledger cannot be read, the ping goes without the number.
    let news = ctx.ledger.stored_since_ping(&target.name).await.ok();
    let stored = news.map_or(String::new(), |news| format!("{} stored since the last ping; ", news.stored));
    let instance = &ctx.config.instance;
    let page = instance.page(None).map_or(String::new(), |page| format!("\n{page}"));
    let arrived = client.ping(target, ping, format!("{}: {stored}{text}{page}", instance.name)).await;
    if let Err(refusal) = &arrived
        && last.is_none_or(|last| last.has_arrived)
    {
        warn!(target = target.name, "could not ping notify target {}: {refusal}", target.name);
    }
    if let Some(news) = news.filter(|_| arrived.is_ok())
        && let Err(error) = ctx.ledger.pinged(&target.name, news.through).await
    {
        debug!("the next ping counts the same objects again: {}", Chain(&error));
    }
    arrived.is_ok()
}

/// Success while no alarm is on. Lost partitions and a rebuilt ledger are reported once and do not count.
fn describe(evaluation: &Evaluation, unresolved: Option<&BTreeMap<AlarmKey, Notified>>) -> (Ping, String) {
    let is_reported_once = |kind| matches!(kind, AlarmKind::Lost | AlarmKind::Ledger);
    let is_active = |key: &AlarmKey| matches!(evaluation.all.get(key), Some(AlarmStatus::Active(_)));
    let alarms: Vec<_> = unresolved
        .into_iter()
        .flatten()
        // The clocks are compared with each answer, and the next answer may be a month away.
        .filter(|(key, alarm)| !is_reported_once(alarm.kind) && (alarm.kind != AlarmKind::Clock || is_active(key)))
        .collect();
    let mut text = format!("{} due and not stored; {}", evaluation.pending, counted(alarms.len(), "alarm"));
    for (key, alarm) in alarms.iter().take(LISTED_ALARMS) {
        let subject = &key.1;
        let name = subject.report.as_ref().or(subject.destination.as_ref()).or(subject.workspace.as_ref());
        let name = name.map_or("moesync", String::as_str);
        let extent = match evaluation.all.get(key) {
            Some(AlarmStatus::Active(active)) => counted(active.partitions, "partition"),
            _ => "not known to have ended".to_owned(),
        };
        text += &format!("\n{}: {name}, {extent}", alarm.kind);
    }
    (if alarms.is_empty() { Ping::Success } else { Ping::Fail }, text)
}
