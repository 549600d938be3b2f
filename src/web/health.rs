//! `/livez` and `/readyz`: whether the process should be restarted, and whether it can do its work.
//!
//! This file owns what health means. A destination is probed at most once a minute, however often it is asked.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, extract, http::StatusCode, response::Response, routing::get};
use futures::future::join_all;
use jiff::SignedDuration;
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

use super::{State, api, read_ledger};
use crate::{
    ledger::Choice,
    store::Capabilities,
    sync::Context,
    telemetry::Chain,
    words::{self, Check, Health},
};

/// The loop plans each minute. Once it has not for so long, it cannot: the ledger refuses to be written.
pub(super) const PLAN_AGE: SignedDuration = SignedDuration::from_mins(15);
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
    let refusal = ctx.status.ledger_failure();
    let ok = refusal.is_none() && age <= PLAN_AGE;
    let message = match (refusal, ctx.status.planned_at()) {
        (Some(refusal), _) => format!("the ledger refuses: {refusal}"),
        (None, _) if !ok => format!("nothing was planned for {}; the log says why", words::duration(age)),
        (None, Some(_)) => format!("planned {} s ago", age.as_secs()),
        (None, None) => "begins".to_owned(),
    };
    Check { subject: "plan".into(), ok, message }
}

async fn ledger(ctx: &Context) -> Check {
    let asked = timeout(LEDGER_TIME, async { read_ledger(ctx).await?.page(&Choice::default(), None, 1).await });
    let (ok, message) = match asked.await {
        Ok(Ok(_)) => (true, "answers".into()),
        Ok(Err(error)) => (false, Chain(&error).to_string()),
        Err(_) => (false, format!("no answer within {} s", LEDGER_TIME.as_secs())),
    };
    Check { subject: "ledger".into(), ok, message }
}

/// The last probe of each destination, by name.
#[derive(Default)]
pub(super) struct Probes {
    last: Mutex<HashMap<String, Probe>>,
}

/// One probe. It goes on to its end whether or not anybody waits for it, so that what it finds is known to whoever asks
/// next.
#[derive(Clone)]
struct Probe {
    /// Under another configuration there are other destinations.
    under: Arc<Context>,
    began: Instant,
    /// When it ended, and how.
    found: watch::Receiver<Option<(Instant, Result<Capabilities, String>)>>,
    /// Why the one before failed, if it did.
    before: Option<String>,
}

impl Probes {
    async fn destinations(&self, ctx: &Arc<Context>) -> Vec<Check> {
        let probes = ctx.destinations.keys().map(|name| self.probe(ctx, name).check(name));
        let mut checks = join_all(probes).await;
        checks.sort_by(|a, b| a.subject.cmp(&b.subject));
        checks
    }

    /// The probe that counts now: a new one once a minute, but none beside one that hangs.
    fn probe(&self, ctx: &Arc<Context>, name: &str) -> Probe {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.retain(|_, probe| Arc::ptr_eq(&probe.under, ctx));
        let known = last.get(name);
        if let Some(probe) = known.filter(|probe| probe.counts()) {
            return probe.clone();
        }
        let before = known.and_then(|probe| probe.found.borrow().as_ref()?.1.as_ref().err().cloned());
        let (tell, found) = watch::channel(None);
        let probe = Probe { under: Arc::clone(ctx), began: Instant::now(), found, before };
        last.insert(name.to_owned(), probe.clone());
        let (ctx, name) = (Arc::clone(ctx), name.to_owned());
        tokio::spawn(async move {
            let Some(destination) = ctx.destinations.get(&name) else { return };
            let checked = destination.check().await.map_err(|error| error.to_string());
            tell.send_replace(Some((Instant::now(), checked)));
        });
        probe
    }
}

impl Probe {
    fn counts(&self) -> bool {
        match &*self.found.borrow() {
            Some((ended, _)) => ended.elapsed() < PROBE_AGE,
            // It goes on, unless it died.
            None => self.found.has_changed().is_ok(),
        }
    }

    async fn check(mut self, name: &str) -> Check {
        let ended = timeout_at(self.began + PROBE_TIME, self.found.wait_for(Option::is_some)).await;
        let ended = ended.map(|found| found.ok().and_then(|found| found.clone()));
        let (ok, message) = match ended {
            Ok(Some((_, Ok(capabilities)))) => (true, capabilities.to_string()),
            Ok(Some((_, Err(reason)))) => (false, reason),
            Ok(None) => (false, "the probe did not come to its end; the log may say why".to_owned()),
            Err(_) => {
                let before = self.before.map(|reason| format!("; before that: {reason}")).unwrap_or_default();
                (false, format!("no answer for {} s{before}", self.began.elapsed().as_secs()))
            }
        };
        Check { subject: format!("destination {name}"), ok, message }
    }
}
