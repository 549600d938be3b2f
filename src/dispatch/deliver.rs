//! The outbox: events are kept in the ledger and sent to their targets until they arrive or are given up.

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use tracing::{debug, error, warn};

use crate::{
    alarm_kind::AlarmKind,
    config::{Config, Events, Instance, Target},
    event::{Content, Event},
    ledger::{Delivery, LedgerError, SchemaNews, TablesNews},
    notify::{NotifyClient, Refusal},
    outcome::RecordedAttempt,
    partition::Entry,
    retry,
    sync::Context,
};

/// Maximum number of events that wait for one target. Later events are written once there is room: the ledger keeps what
/// they report.
pub(super) const OUTBOX_LIMIT: usize = 1000;

/// Number of events sent to one target before the alarms are evaluated again.
const SENDS_PER_TURN: usize = 20;

/// Time for the events of one target before the same, not counting the last request.
const TURN_TIMEOUT: SignedDuration = SignedDuration::from_secs(10);

/// How long an event that is being sent is not sent by another process. Longer than any request.
const SEND_LEASE: SignedDuration = SignedDuration::from_secs(60);

/// How long an event is retried that the target refuses for its content.
const GIVE_UP_REFUSED_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// How long any other event is retried.
const GIVE_UP_AFTER: SignedDuration = SignedDuration::from_hours(72);

/// Maximum `Retry-After` for an alarm: a target that requests a day may work again in a minute.
const MAX_ALARM_RETRY_AFTER: SignedDuration = SignedDuration::from_mins(15);

/// Number of refused events in a row after which the target itself is assumed to fail.
const TARGET_FAILS_AFTER: u32 = 3;

/// An event with a random id.
#[expect(clippy::disallowed_methods, reason = "the shell draws the random numbers")]
pub fn event(content: Content, now: Timestamp, instance: &Instance) -> Event {
    Event::new(rand::random(), now, content, instance)
}

/// The targets that receive events, and which.
pub(super) fn subscribers(config: &Config) -> impl Iterator<Item = (&Target, &Events)> {
    config.notify.iter().filter_map(|target| Some((target, target.events()?)))
}

/// Writes events for stored objects and sends the outbox, for all targets concurrently. Returns when the next retry is due.
pub(super) async fn deliver(client: &NotifyClient, ctx: &Context) -> Result<Option<Timestamp>, LedgerError> {
    let each = join_all(subscribers(&ctx.config).map(async |(target, events)| {
        let room = OUTBOX_LIMIT.saturating_sub(ctx.ledger.waiting(&target.name).await?);
        write_stored(ctx, target, events, room).await?;
        let room = OUTBOX_LIMIT.saturating_sub(ctx.ledger.waiting(&target.name).await?);
        write_tables(ctx, target, events, room).await?;
        send_waiting(client, ctx, target).await
    }));
    let next: Vec<_> = each.await.into_iter().collect::<Result<_, LedgerError>>()?;
    Ok(next.into_iter().flatten().min())
}

/// Writes events for up to `limit` objects that were stored since the last time.
async fn write_stored(ctx: &Context, target: &Target, events: &Events, limit: usize) -> Result<(), LedgerError> {
    let now = ctx.clock.now();
    let destination = |entry: &Entry| ctx.reports.get(&entry.partition.id.report).map(|open| open.destination.name());
    let write = |entry: &Entry, attempt: &RecordedAttempt| {
        let stored = Content::of_stored(entry, destination(entry)).filter(|_| events.stored);
        let other = Content::of_other_content(entry, attempt, destination(entry));
        let other = other.filter(|_| events.alarms.contains(&AlarmKind::OtherContent));
        stored.into_iter().chain(other).map(|content| event(content, now, &ctx.config.instance)).collect()
    };
    ctx.ledger.announce(&target.name, now, limit, write).await.map(drop)
}

/// Writes events for up to `limit` partitions whose tables were made, and for as many changed schemas, since the last time.
async fn write_tables(ctx: &Context, target: &Target, events: &Events, limit: usize) -> Result<(), LedgerError> {
    let now = ctx.clock.now();
    let of_tables = |news: &TablesNews| {
        let open = ctx.reports.get(&news.entry.partition.id.report);
        let content = Content::of_tables(&news.entry, &news.derived, open.map(|open| open.destination.name()));
        events.tables.then(|| event(content, now, &ctx.config.instance)).into_iter().collect()
    };
    let of_schemas = |news: &SchemaNews| {
        let content = Content::of_schema_changes(&news.report, &news.changes).filter(|_| events.schema_changed);
        content.map(|content| event(content, now, &ctx.config.instance)).into_iter().collect()
    };
    ctx.ledger.announce_tables(&target.name, now, limit, of_tables, of_schemas).await
}

/// Sends the events that wait for `target` until the target fails. An event that is refused for its content does not
/// stop the others.
async fn send_waiting(client: &NotifyClient, ctx: &Context, target: &Target) -> Result<Option<Timestamp>, LedgerError> {
    let started_at = ctx.clock.now();
    for _ in 0..SENDS_PER_TURN {
        let now = ctx.clock.now();
        if now.duration_since(started_at) >= TURN_TIMEOUT {
            break;
        }
        let Some(delivery) = ctx.ledger.take(&target.name, now, after(now, SEND_LEASE)).await? else {
            return ctx.ledger.next_delivery(&target.name).await;
        };
        let Err(refusal) = client.send(target, &delivery.event, now).await else {
            ctx.ledger.delivered(&delivery).await?;
            continue;
        };
        let failures = ctx.ledger.note_failure(&target.name, now).await?;
        let requested = |is_alarm: bool| match refusal.retry_after {
            Some(wait) if is_alarm => Some(wait.min(MAX_ALARM_RETRY_AFTER)),
            wait => wait,
        };
        // After a refused event the others are sent; a target that fails is paused.
        let pause = match refusal.is_of_message {
            true if failures < TARGET_FAILS_AFTER => None,
            true => Some(retry::delay(failures.min(retry::QUICK_TRIES), ctx.clock.jitter())),
            false => Some(retry::delay(failures, ctx.clock.jitter())),
        };
        let own_wait = match pause {
            // The quick tries of an event are those of its target.
            Some(pause) if !refusal.is_of_message && delivery.number < retry::QUICK_TRIES => pause,
            _ => retry::delay(delivery.number, ctx.clock.jitter()),
        };
        let wait = requested(delivery.event.content.is_alarm()).unwrap_or(own_wait);
        retry_or_give_up(ctx, target, &delivery, &refusal, wait, now).await?;
        if let Some(pause) = pause {
            let until = |wait: Option<SignedDuration>| after(now, wait.unwrap_or(pause));
            ctx.ledger.pause(&target.name, until(requested(false)), until(requested(true))).await?;
            return ctx.ledger.next_delivery(&target.name).await;
        }
    }
    // More events may wait.
    Ok(Some(ctx.clock.now()))
}

/// Keeps an event that did not arrive for a retry after `wait`, or gives it up.
async fn retry_or_give_up(
    ctx: &Context,
    target: &Target,
    delivery: &Delivery,
    refusal: &Refusal,
    wait: SignedDuration,
    now: Timestamp,
) -> Result<(), LedgerError> {
    let (name, event, attempts) = (target.name.as_str(), delivery.event.id.as_str(), delivery.number);
    let age = now.duration_since(delivery.created_at);
    let is_refused = refusal.is_of_message && attempts >= retry::QUICK_TRIES && age >= GIVE_UP_REFUSED_AFTER;
    if is_refused || age > GIVE_UP_AFTER {
        error!(
            target = name,
            event,
            attempts,
            "{refusal}; notify target {name}: event given up after {age:#}; if its alarm lasts, that is sent again"
        );
        return ctx.ledger.given_up(delivery).await;
    }
    let next = after(now, wait);
    if [1, retry::QUICK_TRIES].contains(&attempts) {
        warn!(
            target = name, event, attempts, next_attempt_at = %next,
            "{refusal}; notify target {name}: event did not arrive, retries in {wait:#}"
        );
    } else {
        debug!(target = name, event, attempts, next_attempt_at = %next, "{refusal}");
    }
    ctx.ledger.postpone(delivery, next).await
}

fn after(now: Timestamp, wait: SignedDuration) -> Timestamp {
    now.checked_add(wait).unwrap_or(Timestamp::MAX)
}
