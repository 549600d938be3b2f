//! Wiring: from a valid configuration to a context that can work.
//!
//! This file owns the order of starting: secrets, destinations, ledger, leftovers, manifests.

use std::{collections::HashMap, sync::Arc};

use tracing::{error, info, warn};

use super::{Bulletin, Clock, Context, Progress, Pulse, Secrets, context::Skews, rebuild};
use crate::{
    config::{AlarmKind, Config, Ledger},
    ledger::{self, Found, LedgerError},
    moengage,
    store::{Budget, Destination},
    telemetry::Chain,
};

/// What is said to a `postgres://` ledger, which the configuration knows and this version does not have.
pub const POSTGRES_UNSUPPORTED: &str = "ledger.url: this version keeps its ledger in SQLite; use sqlite://PATH";

/// Why work could not begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Something the configuration names is not usable: nothing was started.
    #[error("{0}")]
    Configuration(String),
    /// The ledger refuses.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Opens everything that `config` names. [`recover`] comes next.
///
/// # Errors
///
/// [`StartError::Configuration`] before anything is touched; [`StartError::Ledger`] after.
pub async fn start(
    config: Arc<Config>,
    clock: Arc<dyn Clock>,
    progress: Arc<dyn Progress>,
) -> Result<Context, StartError> {
    let Ledger::Sqlite(path) = &config.ledger else {
        return Err(StartError::Configuration(POSTGRES_UNSUPPORTED.into()));
    };
    if path.is_dir() {
        let message = format!("ledger.url: {} is a folder; name a file in it", path.display());
        return Err(StartError::Configuration(message));
    }
    let secrets = resolve(&config)?;
    let vendor = client(&config)?;
    let place = ledger::place(path, &random()).map_err(|source| LedgerError::File {
        message: format!("could not write beside the ledger {}", path.display()),
        source: Some(source),
    })?;
    let holder = format!("{place}-{}-{}", std::process::id(), random());
    let budget = Budget::new();
    let destinations = open(&config, &budget, &holder)?;
    let (ledger, found) = ledger::open(path, &holder, clock.now()).await?;
    let bulletin = Arc::new(Bulletin::default());
    match &found {
        Found::Existing => {}
        Found::Nothing => info!(ledger = %path.display(), "there was no ledger; a new one is begun"),
        Found::Damaged { kept_at, reason } => {
            let message = format!(
                "the ledger was damaged ({reason}); it is kept as {} and rebuilt from the manifests",
                kept_at.display()
            );
            error!(alarm = "ledger", ledger = %path.display(), kept_at = %kept_at.display(), "{message}");
            bulletin.raise(AlarmKind::Ledger, message);
        }
    }
    let (pace, pulse, skews) = (Arc::default(), Pulse::new(), Skews::default());
    Ok(Context {
        config,
        ledger,
        vendor,
        destinations,
        secrets,
        clock,
        progress,
        pace,
        pulse,
        bulletin,
        skews,
        budget,
        holder,
        place,
    })
}

/// Clears up after processes that died and brings the ledger up to what the destinations hold. To be done once before
/// work begins; a destination that cannot be reached is left for the next time.
///
/// # Errors
///
/// When the ledger refuses.
pub async fn recover(ctx: &Context) -> Result<(), LedgerError> {
    sweep(ctx).await;
    ctx.ledger.note_interrupted().await?;
    rebuild(ctx).await?;
    Ok(())
}

/// A context for `config` in place of `old`, with the same ledger; whatever `[ledger]` and `[web]` say now.
///
/// # Errors
///
/// As of [`start`]; `old` stays usable.
pub async fn reload(old: &Context, config: Arc<Config>) -> Result<Context, StartError> {
    let context = Context {
        ledger: old.ledger.clone(),
        vendor: client(&config)?,
        destinations: open(&config, &old.budget, &old.holder)?,
        secrets: resolve(&config)?,
        clock: Arc::clone(&old.clock),
        progress: Arc::clone(&old.progress),
        pace: Arc::clone(&old.pace),
        pulse: old.pulse.clone(),
        bulletin: Arc::clone(&old.bulletin),
        skews: Skews::default(),
        place: old.place.clone(),
        budget: old.budget.clone(),
        holder: old.holder.clone(),
        config,
    };
    rebuild(&context).await?;
    Ok(context)
}

fn resolve(config: &Config) -> Result<Secrets, StartError> {
    let secrets = Secrets::default();
    for workspace in &config.workspaces {
        secrets.secret_key(workspace).map_err(StartError::Configuration)?;
    }
    for report in config.reports.iter().filter(|report| !report.source.is_archive()) {
        secrets.api_key(&report.workspace).map_err(StartError::Configuration)?;
    }
    Ok(secrets)
}

fn client(config: &Config) -> Result<moengage::Client, StartError> {
    moengage::Client::new(&config.network, &config.limits)
        .map_err(|error| StartError::Configuration(Chain(&error).to_string()))
}

fn open(config: &Config, budget: &Budget, holder: &str) -> Result<HashMap<String, Destination>, StartError> {
    let opened = config.destinations.iter().map(|destination| {
        let opened = Destination::open(destination, budget.clone(), holder)
            .map_err(|error| StartError::Configuration(format!("{}: {error}", destination.place)))?;
        Ok((destination.name.clone(), opened))
    });
    opened.collect()
}

/// Removes what processes of this ledger that died have left staged.
async fn sweep(ctx: &Context) {
    // Holders of other ledgers may share the destination. Nothing here tells whether they live, so they are left alone.
    let is_alive = |holder: &str| !holder.starts_with(&ctx.place) || ctx.ledger.is_alive(holder);
    for destination in ctx.destinations.values() {
        match destination.sweep(is_alive).await {
            Ok(0) => {}
            Ok(removed) => {
                info!(destination = destination.name(), removed, "removed unfinished uploads of a dead process")
            }
            Err(error) => warn!(destination = destination.name(), "could not look for unfinished uploads: {error}"),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the shell draws the random numbers")]
fn random() -> String {
    format!("{:08x}", rand::random::<u32>())
}
