//! `/livez` and `/readyz`: whether the process should be restarted, and whether it can do its work.
//!
//! This file owns the health checks. A destination is probed at most once a minute, for any number of requests.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, extract, http::StatusCode, response::Response, routing::get};
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use tokio::{sync::watch, time::timeout};

use super::{Shared, api, reader::read_ledger};
use crate::{
    alarm_kind::AlarmKind,
    ledger::Choice,
    lock::lock,
    store::Capabilities,
    sync::Context,
    telemetry::Chain,
    words::{self, Check, Health},
};

/// The loop plans each minute. A plan older than this means that the ledger cannot be written.
pub(super) const MAX_PLAN_AGE: SignedDuration = SignedDuration::from_mins(15);
/// How long the result of a probe is reused.
const MAX_PROBE_AGE: SignedDuration = SignedDuration::from_secs(60);
/// Time limit for writing, reading and deleting a probe.
const PROBE_TIMEOUT: SignedDuration = SignedDuration::from_secs(10);
/// Time limit for reading the ledger.
const LEDGER_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/livez", get(live)).route("/readyz", get(ready))
}

async fn live(extract::State(shared): extract::State<Arc<Shared>>) -> Response {
    answer(vec![loop_runs(&shared.context())])
}

async fn ready(extract::State(shared): extract::State<Arc<Shared>>) -> Response {
    let ctx = shared.context();
    let (ledger, destinations) = tokio::join!(ledger(&ctx), shared.probes.destinations(&ctx));
    answer(
        [vec![loop_runs(&ctx), ledger, plans(&shared, &ctx)], destinations, vec![configuration(&ctx)], stopping(&ctx)]
            .concat(),
    )
}

fn answer(checks: Vec<Check>) -> Response {
    let ok = checks.iter().all(|check| check.ok);
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    api::json(status, &Health { ok, checks })
}

fn loop_runs(ctx: &Context) -> Check {
    let seconds = ctx.pulse.age().as_secs();
    let message = match seconds {
        0 => "ran just now".to_owned(),
        seconds => format!("last ran {seconds} s ago"),
    };
    Check { subject: "loop".into(), ok: ctx.pulse.is_alive(), message }
}

fn plans(shared: &Shared, ctx: &Context) -> Check {
    // After the clock is set back, the last plan lies in the future until the next one.
    let age = ctx.clock.now().duration_since(shared.planned_at(ctx)).abs();
    let refusal = ctx.status.ledger_failure();
    let ok = refusal.is_none() && age <= MAX_PLAN_AGE;
    let message = match (refusal, ctx.status.planned_at()) {
        (Some(refusal), _) => format!("could not write to the ledger: {refusal}"),
        (None, _) if !ok => format!("no plan for {}; see the log", words::duration(age)),
        (None, Some(_)) => format!("planned {} s ago", age.as_secs()),
        (None, None) => "starting".to_owned(),
    };
    Check { subject: "plan".into(), ok, message }
}

/// A reload that was refused does not make the daemon unready: it works with the configuration before.
fn configuration(ctx: &Context) -> Check {
    let refused = ctx.status.incident(AlarmKind::Configuration);
    Check { subject: "configuration".into(), ok: true, message: refused.unwrap_or_else(|| "in force".into()) }
}

fn stopping(ctx: &Context) -> Vec<Check> {
    let check = || Check { subject: "process".into(), ok: false, message: "stopping".into() };
    ctx.status.is_stopping().then(check).into_iter().collect()
}

async fn ledger(ctx: &Context) -> Check {
    let read = timeout(LEDGER_TIMEOUT, async { read_ledger(ctx).await?.page(&Choice::default(), None, 1).await });
    let (ok, message) = match read.await {
        Ok(Ok(_)) => (true, "answers".into()),
        Ok(Err(error)) => (false, Chain(&error).to_string()),
        Err(_) => (false, format!("no answer within {} s", LEDGER_TIMEOUT.as_secs())),
    };
    Check { subject: "ledger".into(), ok, message }
}

/// The last probe of each destination, by name.
#[derive(Default)]
pub(super) struct Probes {
    last: Mutex<HashMap<String, Probe>>,
}

/// One probe. It continues if its request is cancelled; the next request gets its result.
#[derive(Clone)]
struct Probe {
    /// The configuration of its destination.
    under: Arc<Context>,
    began: Timestamp,
    /// When it ended, and how.
    result: watch::Receiver<Option<(Timestamp, Result<Capabilities, String>)>>,
    /// The reason why the previous probe failed, if it did.
    before: Option<String>,
}

impl Probes {
    async fn destinations(&self, ctx: &Arc<Context>) -> Vec<Check> {
        let probes = ctx.destinations.keys().map(|name| self.probe(ctx, name).check(name));
        let mut checks = join_all(probes).await;
        checks.sort_by(|a, b| a.subject.cmp(&b.subject));
        checks
    }

    /// The current probe: a new one each minute, unless the last one hangs.
    fn probe(&self, ctx: &Arc<Context>, name: &str) -> Probe {
        let mut last = lock(&self.last);
        last.retain(|_, probe| Arc::ptr_eq(&probe.under, ctx));
        let known = last.get(name);
        if let Some(probe) = known.filter(|probe| probe.is_current()) {
            return probe.clone();
        }
        let before = known.and_then(|probe| probe.result.borrow().as_ref()?.1.as_ref().err().cloned());
        let (report, result) = watch::channel(None);
        let probe = Probe { under: Arc::clone(ctx), began: ctx.clock.now(), result, before };
        last.insert(name.to_owned(), probe.clone());
        let (ctx, name) = (Arc::clone(ctx), name.to_owned());
        #[expect(
            clippy::disallowed_methods,
            reason = "the probe outlives its request; its result is read by the next one"
        )]
        tokio::spawn(async move {
            let Some(destination) = ctx.destinations.get(&name) else { return };
            let checked = destination.check().await.map_err(|error| error.to_string());
            report.send_replace(Some((ctx.clock.now(), checked)));
        });
        probe
    }
}

impl Probe {
    fn is_current(&self) -> bool {
        match &*self.result.borrow() {
            // A clock that was set back makes the age negative.
            Some((ended, _)) => self.under.clock.now().duration_since(*ended).abs() < MAX_PROBE_AGE,
            // It is running, unless it panicked.
            None => self.result.has_changed().is_ok(),
        }
    }

    async fn check(mut self, name: &str) -> Check {
        let clock = &self.under.clock;
        let left = PROBE_TIMEOUT - clock.now().duration_since(self.began).abs();
        let limit = clock.sleep(Duration::try_from(left).unwrap_or_default());
        let ended = tokio::select! {
            biased;
            ended = self.result.wait_for(Option::is_some) => Some(ended.ok().and_then(|ended| ended.clone())),
            () = limit => None,
        };
        let (ok, message) = match ended {
            Some(Some((_, Ok(capabilities)))) => (true, capabilities.to_string()),
            Some(Some((_, Err(reason)))) => (false, reason),
            Some(None) => (false, "the probe ended without a result; see the log".to_owned()),
            None => {
                let before = self.before.map(|reason| format!("; before that: {reason}")).unwrap_or_default();
                let seconds = clock.now().duration_since(self.began).abs().as_secs();
                (false, format!("no answer for {seconds} s{before}"))
            }
        };
        Check { subject: format!("destination {name}"), ok, message }
    }
}
