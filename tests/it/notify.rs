//! Notifications: each alarm is sent once when it begins, worsens and ends, also across crashes.

mod alarms;
mod delivery;
mod every_alarm;
mod mail;
mod messages;
mod pings;
mod targets;

use std::{collections::HashSet, sync::Arc};

use jiff::SignedDuration;
use moesync::{
    dispatch::{self, Dispatcher},
    sync::{self, Context, Selection},
};

use crate::support::{Bench, Receiver, Series};

const NOW: &str = "2026-11-21T12:00:00Z";

/// A bench whose configuration notifies a receiver by webhook.
async fn with_webhook(series: &[Series]) -> (Bench, Receiver) {
    let (bench, receiver) = (Bench::at(NOW, series).await, Receiver::start().await);
    bench.write_config(&(bench.config() + &receiver.webhook()));
    (bench, receiver)
}

/// One pass and its notifications, as a new process.
async fn pass(bench: &Bench) {
    let ctx = bench.context().await;
    let dispatcher = Dispatcher::new(&ctx.config, ctx.clock.now()).unwrap();
    dispatch::register_targets(&ctx).await.unwrap();
    sync::recover(&ctx, &sync::Selection::default()).await.unwrap();
    sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
    dispatcher.round(&ctx).await.unwrap();
    ctx.ledger.close().await;
}

/// Plans and publishes the plan, as the loop does, without an attempt.
async fn plan_only(ctx: &Arc<Context>) {
    let nothing = Selection { partitions: Some(HashSet::new()), ..Selection::default() };
    sync::once(ctx, &nothing, std::future::pending()).await.unwrap();
}

/// Notifications without a pass, as a new process.
async fn look(bench: &Bench) {
    let ctx = bench.context().await;
    plan_only(&ctx).await;
    Dispatcher::new(&ctx.config, ctx.clock.now()).unwrap().round(&ctx).await.unwrap();
    ctx.ledger.close().await;
}

fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}
