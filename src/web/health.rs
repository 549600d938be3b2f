//! `/livez` and `/readyz`: whether the process should be restarted, and whether it can do its work.
//!
//! This file owns what health means. A destination is probed at most once a minute, however often it is asked.

use std::{sync::Arc, time::Duration};

use axum::{Router, extract, http::StatusCode, response::Response, routing::get};
use futures::future::join_all;
use jiff::SignedDuration;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::{State, api, read_ledger};
use crate::{
    sync::Context,
    telemetry::Chain,
    words::{self, Check, Health},
};

/// The loop plans each minute. Once it has not for so long, it cannot: the ledger refuses to be written.
const PLAN_AGE: SignedDuration = SignedDuration::from_mins(15);
/// How long the answer of a probe counts.
const PROBE_AGE: Duration = Duration::from_secs(60);
/// How long a destination may take to be written, read and deleted from.
const PROBE_TIME: Duration = Duration::from_secs(10);
/// How long the ledger may take to answer.
const LEDGER_TIME: Duration = Duration::from_secs(5);

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new().route("/livez", get(live)).route("/readyz", get(ready))
}

async fn live(extract::State(state): extract::State<Arc<State>>) -> Response {
    answer(vec![turns(&state.context())])
}

async fn ready(extract::State(state): extract::State<Arc<State>>) -> Response {
    let ctx = state.context();
    let (ledger, destinations) = tokio::join!(ledger(&ctx), state.probes.destinations(&ctx));
    answer([vec![turns(&ctx), ledger, plans(&state, &ctx)], destinations].concat())
}

fn answer(checks: Vec<Check>) -> Response {
    let ok = checks.iter().all(|check| check.ok);
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    api::json(status, &Health { ok, checks })
}

fn turns(ctx: &Context) -> Check {
    let seconds = ctx.pulse.age().as_secs();
    let message = match seconds {
        0 => "turned just now".to_owned(),
        seconds => format!("turned {seconds} s ago"),
    };
    Check { subject: "loop".into(), ok: ctx.pulse.is_alive(), message }
}

fn plans(state: &State, ctx: &Context) -> Check {
    // After a clock was set back the last plan is of the future, until the next one.
    let age = ctx.clock.now().duration_since(state.planned_at(ctx)).abs();
    let ok = age <= PLAN_AGE;
    let message = match (ctx.bulletin.planned_at(), ok) {
        (Some(_), true) => format!("planned {} s ago", age.as_secs()),
        (None, true) => "begins".to_owned(),
        (_, false) => format!("nothing was planned for {}; the log says what the ledger refuses", words::duration(age)),
    };
    Check { subject: "plan".into(), ok, message }
}

async fn ledger(ctx: &Context) -> Check {
    let asked = timeout(LEDGER_TIME, async { read_ledger(ctx).await?.view(ctx.clock.now()).await });
    let (ok, message) = match asked.await {
        Ok(Ok(_)) => (true, "answers".into()),
        Ok(Err(error)) => (false, Chain(&error).to_string()),
        Err(_) => (false, format!("no answer within {} s", LEDGER_TIME.as_secs())),
    };
    Check { subject: "ledger".into(), ok, message }
}

/// What the last probes of the destinations found.
#[derive(Default)]
pub(super) struct Probes {
    last: Mutex<Option<Probed>>,
}

struct Probed {
    /// Under another configuration there are other destinations.
    under: Arc<Context>,
    at: Instant,
    checks: Vec<Check>,
}

impl Probes {
    async fn destinations(&self, ctx: &Arc<Context>) -> Vec<Check> {
        // Held while probing: whoever comes meanwhile waits for the same answer.
        let mut last = self.last.lock().await;
        if let Some(probed) = last.as_ref().filter(|p| Arc::ptr_eq(&p.under, ctx) && p.at.elapsed() < PROBE_AGE) {
            return probed.checks.clone();
        }
        let mut checks = join_all(ctx.destinations.iter().map(async |(name, destination)| {
            let (ok, message) = match timeout(PROBE_TIME, destination.check()).await {
                Ok(Ok(_)) => (true, "written, read and deleted".into()),
                Ok(Err(error)) => (false, error.to_string()),
                Err(_) => (false, format!("no answer within {} s", PROBE_TIME.as_secs())),
            };
            Check { subject: format!("destination {name}"), ok, message }
        }))
        .await;
        checks.sort_by(|a, b| a.subject.cmp(&b.subject));
        *last = Some(Probed { under: Arc::clone(ctx), at: Instant::now(), checks: checks.clone() });
        checks
    }
}
