//! From what is the case to what others know: alarms are surveyed, events kept in the ledger, and sent until they arrive.
//!
//! This file owns when targets are told. It must not know what an alarm is (`alarm.rs`), what an event says (`event.rs`)
//! or how one travels (`notify/`). It reads what work has left in the ledger, beside the work and never in its way.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use tokio::{sync::watch, task::JoinSet};
use tracing::{debug, error, warn};

use crate::{
    alarm::{self, Change, Facts, Key, Phase, Standing, Told},
    config::{AlarmKind, Channel, Config, Events, Problem, Target},
    event::{Content, Event},
    ledger::{Delivery, LedgerError, Summarized},
    notify::{Client, Ping, Refusal},
    outcome,
    partition::Entry,
    plan::{self, Plan},
    report::ReportId,
    retry,
    sync::Context,
    telemetry::Chain,
};

/// What is in danger by the passing of time alone is looked for this often.
const ROUND: Duration = Duration::from_secs(15);

/// What begins to be in danger by what an attempt met is looked for at once, but no more often than this.
const SHORTEST_ROUND: SignedDuration = SignedDuration::from_millis(500);

/// News of stored objects gathers for this long, so that many of them are one glance at the ledger.
const GATHERING: Duration = Duration::from_secs(1);

/// So many events wait for one target at most. What comes to pass meanwhile is told later: it stays in the ledger.
const ROOM: usize = 1000;

/// So many events are sent to one target before the others are looked after again.
const AT_ONCE: usize = 20;

/// Nor do the others, and the pings, wait for longer than this and one request more.
const TURN: SignedDuration = SignedDuration::from_secs(10);

/// Nobody else sends an event for so long once it is being sent; longer than any request.
const SENDING: SignedDuration = SignedDuration::from_secs(60);

/// For how long an event is tried that the target itself refuses.
const GIVE_UP_REFUSED_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// Longest wait of an alarm for a target that asks to wait: one that asks for a day may be back in a minute.
const LONGEST_ASKED: SignedDuration = SignedDuration::from_mins(15);

/// How many refused events in a row mean that a target refuses all of them.
const REFUSES_ALL_AFTER: u32 = 3;

/// For how long any other event is tried.
const GIVE_UP_AFTER: SignedDuration = SignedDuration::from_hours(72);

/// What is younger than this was written before the clock was set back.
const SET_BACK: SignedDuration = SignedDuration::from_mins(-1);

/// How often there is a summary.
const SUMMARY: SignedDuration = SignedDuration::from_hours(24);

/// The loop plans each minute. Once it has not for so long, it hangs.
const HANGING: SignedDuration = SignedDuration::from_mins(15);

/// Rounds are seconds apart. After a longer pause the machine has slept or its clock was set, and the loop had no time to
/// go on.
const ABSENCE: SignedDuration = SignedDuration::from_mins(5);

/// A ping that tells something else than the last comes no sooner after that.
const SHORTEST_PING: SignedDuration = SignedDuration::from_mins(1);

/// How long the daemon waits before it tries again to read the targets' secrets.
const PAUSE: Duration = Duration::from_secs(5);

/// How long a command that is done with its work stays to tell of it.
const LAST_WORDS: Duration = Duration::from_secs(20);

/// Tells the targets of one configuration.
#[derive(Debug)]
pub struct Dispatcher {
    client: Client,
    /// When the process began or the machine woke, and the last round.
    awake: Mutex<(Timestamp, Timestamp)>,
    signs: Mutex<HashMap<String, Sign>>,
}

/// The last sign of life that a dead man's switch was given.
#[derive(Debug, Clone, Copy)]
struct Sign {
    at: Timestamp,
    ping: Ping,
    has_arrived: bool,
}

/// What a round has found.
struct Found {
    all: BTreeMap<Key, Standing>,
    /// The same for each target that is told of some of them, by its name.
    chosen: BTreeMap<String, BTreeMap<Key, Standing>>,
    /// What began and is not known to be over, for each dead man's switch, by its name.
    lasting: BTreeMap<String, BTreeMap<Key, Told>>,
    pending: usize,
    now: Timestamp,
}

impl Found {
    /// What is certainly so at this moment.
    fn active(&self) -> impl Iterator<Item = &Key> {
        self.all.iter().filter(|(_, standing)| matches!(standing, Standing::Active(_))).map(|(key, _)| key)
    }
}

impl Dispatcher {
    /// Prepares for the targets of `config`, of which every secret must be there. `now` is when the process began.
    ///
    /// # Errors
    ///
    /// What is wrong with the connections or a target's secrets.
    pub fn new(config: &Config, now: Timestamp) -> Result<Self, String> {
        for target in &config.notify {
            target.url().and_then(|_| target.key()).map_err(|problem: Problem| problem.to_string())?;
        }
        let client = Client::new(&config.network).map_err(|refusal| refusal.to_string())?;
        Ok(Self { client, awake: Mutex::new((now, now)), signs: Mutex::default() })
    }

    /// To be called before work begins: from here on what is stored is told.
    ///
    /// # Errors
    ///
    /// When the ledger refuses.
    pub async fn begin(&self, ctx: &Context) -> Result<(), LedgerError> {
        ctx.ledger.add_targets(&names(&ctx.config), ctx.clock.now()).await
    }

    /// Tells dead man's switches that a pass begins, beside it. To be waited for before they are told more.
    pub fn announce_start(&self, ctx: &Context) -> JoinSet<()> {
        let mut started = JoinSet::new();
        for target in ctx.config.notify.iter().filter(|target| matches!(target.channel, Channel::Ping { .. })) {
            let (client, target) = (self.client.clone(), target.clone());
            started.spawn(async move {
                if let Err(refusal) = client.ping(&target, Ping::Start, String::new()).await {
                    warn!(target = target.name, "notify target {} was not pinged: {refusal}", target.name);
                }
            });
        }
        started
    }

    /// The last words of a command: everything there is to tell, and a few tries to have it arrive. What does not is
    /// told by the next process. `fault` is what the pass did not bring to its end.
    pub async fn finish(&self, ctx: &Context, fault: Option<&str>) {
        let last = ctx.clock.now().checked_add(LAST_WORDS).unwrap_or(Timestamp::MAX);
        let told = async {
            loop {
                match self.tell(ctx, fault).await {
                    Ok(None) => break,
                    // It would be waited for in vain.
                    Ok(Some(next)) if next > last => {
                        warn!("not all that is to be told has arrived; the next process tells it");
                        break;
                    }
                    Ok(Some(next)) => ctx.clock.sleep(until(next, ctx.clock.now())).await,
                    Err(error) => {
                        warn!("could not tell what is to be told: {}", Chain(&error));
                        break;
                    }
                }
            }
        };
        if !ctx.config.notify.is_empty() && tokio::time::timeout(LAST_WORDS, told).await.is_err() {
            warn!("not all that is to be told has arrived; the next process tells it");
        }
    }

    /// Looks at everything and tells what is to be told. Returns when an event that did not arrive is to be tried again.
    ///
    /// # Errors
    ///
    /// When the ledger refuses; dead man's switches are told so.
    pub async fn round(&self, ctx: &Context) -> Result<Option<Timestamp>, LedgerError> {
        self.tell(ctx, None).await
    }

    async fn tell(&self, ctx: &Context, fault: Option<&str>) -> Result<Option<Timestamp>, LedgerError> {
        if ctx.config.notify.is_empty() {
            return Ok(None);
        }
        let looked = async {
            self.begin(ctx).await?;
            let mut found = self.survey(ctx).await?;
            for target in ctx.config.notify.iter().filter(|target| matches!(target.channel, Channel::Ping { .. })) {
                let lasting = remember(ctx, target, &found).await?;
                found.lasting.insert(target.name.clone(), lasting);
            }
            for (target, events) in told(&ctx.config) {
                if ctx.ledger.waiting(&target.name).await? < ROOM {
                    write_alarms(ctx, target, events, &found).await?;
                    write_summary(ctx, target, events, &found).await?;
                }
            }
            Ok(found)
        }
        .await;
        self.ping(ctx, looked.as_ref(), fault).await;
        looked?;
        self.deliver(ctx).await
    }

    /// Tells what was stored, and what waits to be told.
    async fn deliver(&self, ctx: &Context) -> Result<Option<Timestamp>, LedgerError> {
        let each = join_all(told(&ctx.config).map(async |(target, events)| {
            let room = ROOM.saturating_sub(ctx.ledger.waiting(&target.name).await?);
            write_stored(ctx, target, events, room).await?;
            self.send(ctx, target).await
        }));
        let next: Vec<_> = each.await.into_iter().collect::<Result<_, LedgerError>>()?;
        Ok(next.into_iter().flatten().min())
    }

    async fn survey(&self, ctx: &Context) -> Result<Found, LedgerError> {
        let now = ctx.clock.now();
        let view = ctx.view(&ctx.ledger, now).await?;
        let plan = plan::plan(&ctx.config.reports, &view, now);
        let is_configured = |id: ReportId| ctx.config.reports.iter().any(|report| report.report_id() == id);
        let mut lost = ctx.ledger.lost().await?;
        lost.retain(|entry| is_configured(entry.partition.id.report_id()));
        let mut incidents = ctx.incidents();
        if ctx.ledger.is_shared() {
            // What is wrong with another process is for that one to say.
            for kind in [AlarmKind::StoreFailed, AlarmKind::Ledger, AlarmKind::Configuration, AlarmKind::Panic] {
                incidents.entry(kind).or_insert(None);
            }
        }
        let fetching = alarm::being_fetched(&plan, &ctx.config.alarms, now);
        let fetching_since = ctx.ledger.note_fetching(&fetching, now).await?;
        let survey = |told: &BTreeSet<AlarmKind>| {
            alarm::survey(&Facts {
                plan: &plan,
                view: &view,
                lost: &lost,
                incidents: &incidents,
                alarms: &ctx.config.alarms,
                told,
                fetching_since: &fetching_since,
                now,
            })
        };
        let all = survey(&BTreeSet::from(AlarmKind::ALL));
        let chosen = self::told(&ctx.config).map(|(target, events)| (target.name.clone(), survey(&events.alarms)));
        Ok(Found { chosen: chosen.collect(), lasting: BTreeMap::new(), all, pending: pending(&plan, now), now })
    }

    /// Sends what waits for `target` until the target fails. An event that is itself refused does not keep the others.
    async fn send(&self, ctx: &Context, target: &Target) -> Result<Option<Timestamp>, LedgerError> {
        let began_at = ctx.clock.now();
        for _ in 0..AT_ONCE {
            let now = ctx.clock.now();
            if now.duration_since(began_at) >= TURN {
                break;
            }
            let lease = now.checked_add(SENDING).unwrap_or(Timestamp::MAX);
            let Some(delivery) = ctx.ledger.take(&target.name, now, lease).await? else {
                return ctx.ledger.next_delivery(&target.name).await;
            };
            let Err(refusal) = self.client.send(target, &delivery.event, now).await else {
                ctx.ledger.delivered(&delivery).await?;
                continue;
            };
            let failures = ctx.ledger.note_failure(&target.name, now).await?;
            let is_alarm = delivery.event.content.is_alarm();
            let asked = |is_alarm: bool| match refusal.retry_after {
                Some(asked) if is_alarm => Some(asked.min(LONGEST_ASKED)),
                asked => asked,
            };
            // Where one event is refused, the others have their turn; where all are, the target is given time.
            let pause = match refusal.is_of_message {
                true if failures < REFUSES_ALL_AFTER => None,
                true => Some(retry::delay(failures.min(retry::QUICK_TRIES), jitter())),
                false => Some(retry::delay(failures, jitter())),
            };
            let own = match pause {
                // The quick tries of an event are those of its target.
                Some(pause) if !refusal.is_of_message && delivery.number < retry::QUICK_TRIES => pause,
                _ => retry::delay(delivery.number, jitter()),
            };
            self.put_back(ctx, target, &delivery, &refusal, asked(is_alarm).unwrap_or(own), now).await?;
            if let Some(pause) = pause {
                let until =
                    |wait: Option<SignedDuration>| now.checked_add(wait.unwrap_or(pause)).unwrap_or(Timestamp::MAX);
                ctx.ledger.pause(&target.name, until(asked(false)), until(asked(true))).await?;
                return ctx.ledger.next_delivery(&target.name).await;
            }
        }
        // There may be more.
        Ok(Some(ctx.clock.now()))
    }

    /// Keeps an event that has not arrived for another try after `wait`, or gives it up.
    async fn put_back(
        &self,
        ctx: &Context,
        target: &Target,
        delivery: &Delivery,
        refusal: &Refusal,
        wait: SignedDuration,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let age = now.duration_since(delivery.created_at);
        let is_refused = refusal.is_of_message && delivery.number >= retry::QUICK_TRIES && age >= GIVE_UP_REFUSED_AFTER;
        if is_refused || age > GIVE_UP_AFTER {
            let why = if is_refused { "is refused" } else { "did not arrive" };
            error!(
                target = target.name,
                event = delivery.event.id,
                attempts = delivery.number,
                "an event for notify target {} {why} and is given up after {age:#}; a danger that lasts is sent again: \
                 {refusal}",
                target.name
            );
            return ctx.ledger.given_up(delivery).await;
        }
        let next = now.checked_add(wait).unwrap_or(Timestamp::MAX);
        if [1, retry::QUICK_TRIES].contains(&delivery.number) {
            warn!(
                target = target.name, event = delivery.event.id, attempts = delivery.number,
                next_attempt_at = %next,
                "an event for notify target {} did not arrive and is tried again: {refusal}", target.name
            );
        } else {
            debug!(target = target.name, attempts = delivery.number, "did not arrive: {refusal}");
        }
        ctx.ledger.postpone(delivery, next).await
    }

    fn awake_since(&self, now: Timestamp) -> Timestamp {
        let mut awake = self.awake.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, last_round) = *awake;
        let since = if now.duration_since(last_round).abs() > ABSENCE { now } else { since };
        *awake = (since, now);
        since
    }

    /// Gives the dead man's switches whose time has come a sign of life, or of what is wrong.
    async fn ping(&self, ctx: &Context, looked: Result<&Found, &LedgerError>, fault: Option<&str>) {
        let now = ctx.clock.now();
        let planned_at = ctx.bulletin.planned_at();
        let awake_since = self.awake_since(now);
        let silent = now.duration_since(planned_at.map_or(awake_since, |planned_at| planned_at.max(awake_since)));
        // Before its first plan there is nothing to say of it.
        if planned_at.is_none() && fault.is_none() && silent <= HANGING {
            return;
        }
        join_all(ctx.config.notify.iter().map(async |target| {
            let Channel::Ping { every } = target.channel else { return };
            let last = self.signs.lock().unwrap_or_else(PoisonError::into_inner).get(&target.name).copied();
            let (ping, text) = match looked {
                Err(error) => (Ping::Fail, Chain(error).to_string()),
                Ok(_) if silent > HANGING => (Ping::Fail, format!("the loop has not gone on for {silent:#}")),
                Ok(found) => match (describe(found, found.lasting.get(&target.name)), fault) {
                    ((_, text), Some(fault)) => (Ping::Fail, format!("{fault}; {text}")),
                    (described, None) => described,
                },
            };
            let age = last.map(|last| now.duration_since(last.at));
            let is_due = age.is_none_or(|age| age >= every || age.is_negative())
                || last.is_some_and(|last| last.ping != ping || !last.has_arrived)
                    && age.is_some_and(|age| age >= SHORTEST_PING);
            if !is_due {
                return;
            }
            // Without the ledger there is no telling.
            let news = ctx.ledger.stored_since_ping(&target.name).await.ok();
            let stored = news.map_or(String::new(), |news| format!("{} stored since the last ping; ", news.stored));
            let arrived = self.client.ping(target, ping, format!("{stored}{text}")).await;
            if let Err(refusal) = &arrived
                && last.is_none_or(|last| last.has_arrived)
            {
                warn!(target = target.name, "notify target {} was not pinged: {refusal}", target.name);
            }
            let has_arrived = arrived.is_ok();
            if let Some(news) = news.filter(|_| has_arrived)
                && let Err(error) = ctx.ledger.pinged(&target.name, news.through).await
            {
                debug!("the next ping tells it again: {}", Chain(&error));
            }
            let sign = Sign { at: now, ping, has_arrived };
            self.signs.lock().unwrap_or_else(PoisonError::into_inner).insert(target.name.clone(), sign);
        }))
        .await;
    }
}

/// Beside the daemon's loop: tells what is to be told, until `shutdown`. Each new context that comes through `contexts`
/// takes the place of the one before.
pub async fn continuously(mut contexts: watch::Receiver<Arc<Context>>, shutdown: impl Future<Output = ()>) {
    let mut shutdown = pin!(shutdown);
    let started_at = contexts.borrow().clock.now();
    let mut current: Option<(Arc<Context>, Dispatcher)> = None;
    let mut surveyed_at: Option<Timestamp> = None;
    let mut unusable = String::new();
    loop {
        let ctx = contexts.borrow_and_update().clone();
        let is_same = current.as_ref().is_some_and(|(known, _)| Arc::ptr_eq(known, &ctx));
        if !is_same {
            surveyed_at = None;
            current = match Dispatcher::new(&ctx.config, started_at) {
                Ok(dispatcher) => {
                    // Only the daemon has the last word on who is told: a command may have a configuration of its own.
                    if let Err(error) = ctx.ledger.forget_other_targets(&names(&ctx.config)).await {
                        warn!("what was told to targets that are gone is not forgotten yet: {}", Chain(&error));
                    }
                    ctx.bulletin.clear(AlarmKind::Configuration, "notifications");
                    unusable.clear();
                    Some((Arc::clone(&ctx), dispatcher))
                }
                // It was whole when the context was made: a file is away for a moment.
                Err(problem) => {
                    let message = format!("notifications cannot be sent; retries in {PAUSE:?}: {problem}");
                    if message != unusable {
                        error!(alarm = "configuration", "{message}");
                        ctx.bulletin.raise(AlarmKind::Configuration, "notifications", message.clone());
                        unusable = message;
                    }
                    None
                }
            };
        }
        let told = async {
            let Some((ctx, dispatcher)) = &current else { return ctx.clock.sleep(PAUSE).await };
            if ctx.config.notify.is_empty() {
                return std::future::pending().await;
            }
            let now = ctx.clock.now();
            let is_time = surveyed_at.is_none_or(|at| now.duration_since(at).unsigned_abs() >= ROUND);
            let told = if is_time { dispatcher.round(ctx).await } else { dispatcher.deliver(ctx).await };
            if is_time {
                surveyed_at = Some(now);
            }
            let next = told.unwrap_or_else(|error| {
                debug!("the ledger refuses what is to be told: {}", Chain(&error));
                None
            });
            let now = ctx.clock.now();
            let wait = next.map_or(ROUND, |next| until(next, now).clamp(GATHERING, ROUND));
            let news = async {
                ctx.bulletin.news().await;
                ctx.clock.sleep(GATHERING).await;
            };
            let alarm = async {
                ctx.bulletin.alarm().await;
                // Whatever else may end this wait: the next round looks around.
                let earliest = surveyed_at.take().and_then(|at| at.checked_add(SHORTEST_ROUND).ok());
                let now = ctx.clock.now();
                ctx.clock.sleep(earliest.map_or(Duration::ZERO, |at| until(at, now).min(GATHERING))).await;
            };
            tokio::select! {
                () = ctx.clock.sleep(wait) => {}
                () = news => {}
                () = alarm => {}
            }
        };
        tokio::select! {
            () = &mut shutdown => break,
            changed = contexts.changed() => if changed.is_err() { break },
            () = told => {}
        }
    }
    // What was stored last; whatever does not arrive in time is told by the next process.
    if let Some((ctx, dispatcher)) = current {
        let _ = tokio::time::timeout(Duration::from_secs(5), dispatcher.deliver(&ctx)).await;
    }
}

fn names(config: &Config) -> Vec<&str> {
    config.notify.iter().map(|target| target.name.as_str()).collect()
}

/// The targets that are told of events, and of which.
fn told(config: &Config) -> impl Iterator<Item = (&Target, &Events)> {
    config.notify.iter().filter_map(|target| Some((target, target.events()?)))
}

/// Keeps what dead man's switches are to hear of, as [`write_alarms`] does for those who are told in words. What is being
/// tried at the moment stays what it was. Returns all that is not over.
async fn remember(ctx: &Context, target: &Target, found: &Found) -> Result<BTreeMap<Key, Told>, LedgerError> {
    let told = ctx.ledger.told(&target.name).await?;
    if alarm::compare(&told, &found.all).is_empty() {
        return Ok(told);
    }
    let memories = |told: &BTreeMap<Key, Told>| {
        alarm::compare(told, &found.all)
            .into_iter()
            .map(|change| (change.key.clone(), change.told(found.now)))
            .collect()
    };
    ctx.ledger.tell(&target.name, found.now, |told| (memories(told), Vec::new())).await?;
    ctx.ledger.told(&target.name).await
}

async fn write_alarms(ctx: &Context, target: &Target, events: &Events, found: &Found) -> Result<(), LedgerError> {
    let wanted: BTreeMap<Key, Standing> = found
        .chosen
        .get(&target.name)
        .into_iter()
        .flatten()
        .map(|(key, standing)| match standing {
            // What it is not told of neither begins for it nor ends.
            Standing::Active(danger) if !events.alarms.contains(&danger.kind) => (key.clone(), Standing::Open),
            standing => (key.clone(), standing.clone()),
        })
        .collect();
    let now = found.now;
    if alarm::compare(&ctx.ledger.told(&target.name).await?, &wanted).is_empty() {
        return Ok(());
    }
    ctx.ledger
        .tell(&target.name, now, |told| {
            let changes = alarm::compare(told, &wanted);
            let memories = changes.iter().map(|change| (change.key.clone(), change.told(now))).collect();
            let is_wanted = |change: &Change| {
                let before = change.before.as_ref().map_or(change.key.0, |before: &Told| before.kind);
                change.phase != Some(Phase::Ended) || events.alarms.contains(&before)
            };
            let changes: Vec<_> = changes.into_iter().filter(is_wanted).collect();
            let contents = Content::of_changes(&changes, now).into_iter();
            (memories, contents.map(|(content, alarms)| (event(content, now), alarms)).collect())
        })
        .await
}

async fn write_stored(ctx: &Context, target: &Target, events: &Events, room: usize) -> Result<(), LedgerError> {
    let now = ctx.clock.now();
    let destination = |entry: &Entry| {
        let id = entry.partition.id.report_id();
        let report = ctx.config.reports.iter().find(|report| report.report_id() == id)?;
        Some(report.destination.as_str())
    };
    let write = |entry: &Entry, attempt: &outcome::Attempt| {
        let stored = Content::of_stored(entry, destination(entry)).filter(|_| events.stored);
        let other = Content::of_other_content(entry, attempt, destination(entry));
        let other = other.filter(|_| events.alarms.contains(&AlarmKind::OtherContent));
        stored.into_iter().chain(other).map(|content| event(content, now)).collect()
    };
    ctx.ledger.announce(&target.name, now, room, write).await.map(drop)
}

async fn write_summary(ctx: &Context, target: &Target, events: &Events, found: &Found) -> Result<(), LedgerError> {
    let Some(last) = ctx.ledger.last_summary(&target.name).await? else { return Ok(()) };
    // A clock that was set back would have it wait for as long again.
    let age = found.now.duration_since(last.at);
    if !events.summary || (SET_BACK..SUMMARY).contains(&age) {
        return Ok(());
    }
    let news = ctx.ledger.stored_after(&target.name, last.through).await?;
    let next = Summarized { at: found.now, through: news.through };
    // What it was told of and is being tried at the moment is not over either.
    let told = ctx.ledger.told(&target.name).await?;
    let alarms = found.active().chain(told.keys()).collect::<BTreeSet<_>>().len();
    let content = Content::of_summary(last.at, (news.stored, news.bytes), found.pending, alarms);
    ctx.ledger.summarize(&target.name, last, next, &event(content, found.now)).await
}

/// How many configured partitions are due and not stored.
fn pending(plan: &Plan, now: Timestamp) -> usize {
    plan.items.iter().filter(|item| alarm::is_pending(item, now)).count()
}

/// All is well where nothing is in danger; what is lost, or was rebuilt, was told and changes no more.
fn describe(found: &Found, lasting: Option<&BTreeMap<Key, Told>>) -> (Ping, String) {
    let is_over = |kind| matches!(kind, AlarmKind::Lost | AlarmKind::Ledger);
    // Of the clocks nothing is known until the vendor answers again, which may be in a month.
    let is_active = |key: &Key| matches!(found.all.get(key), Some(Standing::Active(_)));
    let alarms: Vec<_> = lasting
        .into_iter()
        .flatten()
        .filter(|(key, told)| !is_over(told.kind) && (told.kind != AlarmKind::Clock || is_active(key)))
        .collect();
    let mut text = format!("{} due and not stored; {} alarms", found.pending, alarms.len());
    for (key, told) in alarms.iter().take(20) {
        let subject = &key.1;
        let whose = subject.report.as_ref().or(subject.destination.as_ref());
        let whose = whose.or(subject.workspace.as_ref()).map_or("moesync", String::as_str);
        let extent = match found.all.get(key) {
            Some(Standing::Active(danger)) => format!("{} partitions", danger.partitions),
            _ => "not known to be over".to_owned(),
        };
        text += &format!("\n{}: {whose}, {extent}", told.kind);
    }
    (if alarms.is_empty() { Ping::Success } else { Ping::Fail }, text)
}

/// An event with a name of its own.
#[expect(clippy::disallowed_methods, reason = "the shell draws the random numbers")]
pub fn event(content: Content, now: Timestamp) -> Event {
    Event::new(rand::random(), now, content)
}

#[expect(clippy::disallowed_methods, reason = "the shell draws the random numbers that the core is given")]
fn jitter() -> f64 {
    rand::random()
}

fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO)
}
