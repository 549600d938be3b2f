//! Makes a context from a valid configuration.
//!
//! This file owns the order: secrets, destinations, ledger. Recovery comes after that, in `recover`.

use std::{collections::HashMap, path::Path, sync::Arc};

use tracing::{error, info, warn};

use super::{
    clock::Clock,
    context::{Context, OpenReport, Progress},
    load::Load,
    planned::Publication,
    process_status::ProcessStatus,
    pulse::Pulse,
    secrets::Secrets,
    server_clocks::ServerClocks,
};
use crate::{
    alarm_kind::AlarmKind,
    config::{self, Config, Ledger},
    ledger::{self, Found, LedgerError},
    moengage,
    report::ReportId,
    store::{Budget, Destination},
    telemetry::Chain,
};

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Something that the configuration names cannot be used. Nothing was changed.
    #[error("{0}")]
    Configuration(String),
    /// The ledger cannot be opened.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Opens everything that `config` names. [`super::recover`] comes next, or beside the work.
///
/// # Errors
///
/// [`StartError::Configuration`] before anything is changed; [`StartError::Ledger`] after.
pub async fn start(
    config: Arc<Config>,
    clock: Arc<dyn Clock>,
    progress: Arc<dyn Progress>,
) -> Result<Context, StartError> {
    log_warnings(&config);
    let secrets = resolve(&config).await?;
    let vendor = client(&config)?;
    let budget = Budget::for_destinations(&config.destinations);
    let holder_at = |place: &str| format!("{place}-{}-{}", std::process::id(), random());
    let (place, holder, destinations, reports, ledger, found) = match &config.ledger {
        Ledger::Sqlite(path) => {
            refuse_folder(path)?;
            let place = ledger::place(path, &random())?;
            let holder = holder_at(&place);
            // Opened first: nothing is created where a destination is not usable.
            let (destinations, reports) = open(&config, &budget, &holder, None)?;
            let (ledger, found) = ledger::open(path, &holder, clock.now()).await?;
            (place, holder, destinations, reports, ledger, found)
        }
        Ledger::Postgres(url) => {
            let (ledger, found, place, holder) = ledger::open_server(url, &random(), holder_at).await?;
            let (destinations, reports) = open(&config, &budget, &holder, None)?;
            (place, holder, destinations, reports, ledger, found)
        }
    };
    let status = Arc::new(ProcessStatus::default());
    match &found {
        Found::Existing => {}
        Found::Nothing => info!(ledger = ledger.shown(), "created a new ledger"),
        Found::Damaged { kept_at, reason } => {
            let message = format!(
                "the ledger was damaged ({reason}); it is kept as {} and rebuilt from the manifests",
                kept_at.display()
            );
            error!(alarm = "ledger", ledger = ledger.shown(), kept_at = %kept_at.display(), "{message}");
            status.raise(AlarmKind::Ledger, "the file", message);
        }
    }
    let server_clocks = Arc::new(ServerClocks::new(Arc::clone(&clock)));
    Ok(Context {
        config,
        ledger,
        vendor,
        destinations,
        reports,
        secrets,
        clock,
        progress,
        pulse: Pulse::new(),
        planned: Publication::new(),
        status,
        server_clocks,
        load: Load::new(),
        budget,
        holder,
        place,
    })
}

/// A context for `config` that replaces `old` and has the same ledger. `[ledger]` and `[web]` of `config` are ignored. Recovery
/// runs again, beside the loop.
///
/// # Errors
///
/// [`StartError::Configuration`]; `old` stays usable.
pub async fn reload(old: &Context, config: Arc<Config>) -> Result<Context, StartError> {
    log_warnings(&config);
    let budget = old.budget.redivided(&config.destinations);
    let (destinations, reports) = open(&config, &budget, &old.holder, Some(old))?;
    Ok(Context {
        ledger: old.ledger.clone(),
        vendor: client(&config)?,
        destinations,
        reports,
        secrets: resolve(&config).await?,
        clock: Arc::clone(&old.clock),
        progress: Arc::clone(&old.progress),
        pulse: old.pulse.clone(),
        planned: old.planned.clone(),
        status: Arc::clone(&old.status),
        server_clocks: Arc::clone(&old.server_clocks),
        load: old.load.clone(),
        place: old.place.clone(),
        budget,
        holder: old.holder.clone(),
        config,
    })
}

/// The ledger that `config` names, opened read-only; `None` if there is none yet.
///
/// # Errors
///
/// As [`start`].
pub async fn open_ledger_read_only(config: &Config) -> Result<Option<ledger::Ledger>, StartError> {
    match &config.ledger {
        Ledger::Sqlite(path) => {
            refuse_folder(path)?;
            Ok(ledger::open_read_only(path).await?)
        }
        Ledger::Postgres(url) => Ok(ledger::open_server_read_only(url).await?),
    }
}

fn refuse_folder(path: &Path) -> Result<(), StartError> {
    match path.is_dir() {
        true => {
            Err(StartError::Configuration(format!("ledger.url: {} is a folder; name a file in it", path.display())))
        }
        false => Ok(()),
    }
}

fn log_warnings(config: &Config) {
    for warning in &config.warnings {
        warn!("{warning}");
    }
}

async fn resolve(config: &Config) -> Result<Secrets, StartError> {
    let secrets = Secrets::default();
    for workspace in &config.workspaces {
        secrets.secret_key(workspace).await.map_err(StartError::Configuration)?;
    }
    for report in config.reports.iter().filter(|report| !report.source.kind().is_archive()) {
        secrets.api_key(&report.workspace).await.map_err(StartError::Configuration)?;
    }
    Ok(secrets)
}

fn client(config: &Config) -> Result<moengage::Client, StartError> {
    moengage::Client::new(&config.network, &config.limits)
        .map_err(|error| StartError::Configuration(Chain(&error).to_string()))
}

type Opened = (HashMap<String, Destination>, HashMap<ReportId, OpenReport>);

/// Opens the destinations, and pairs each report with its destination. A directory that is open in `old` stays open if its
/// settings have not changed: a mount that hangs must neither delay a reload nor occupy more threads.
fn open(config: &Config, budget: &Budget, holder: &str, old: Option<&Context>) -> Result<Opened, StartError> {
    let mut destinations = HashMap::new();
    let mut opened = |destination: &config::DestinationSettings| -> Result<Destination, StartError> {
        if let Some(opened) = destinations.get(&destination.name) {
            return Ok(Destination::clone(opened));
        }
        let kept = old
            .filter(|old| old.config.destinations.iter().any(|known| known.is_same_directory(destination)))
            .and_then(|old| old.destinations.get(&destination.name));
        let opened = match kept {
            Some(kept) => kept.clone(),
            None => Destination::open(destination, budget.clone(), holder)
                .map_err(|error| StartError::Configuration(format!("{}: {error}", destination.place)))?,
        };
        destinations.insert(destination.name.clone(), opened.clone());
        Ok(opened)
    };
    for destination in &config.destinations {
        opened(destination)?;
    }
    let mut reports = HashMap::new();
    for report in &config.reports {
        let destination = opened(&report.destination)?;
        reports.insert(report.id.clone(), OpenReport { report: Arc::clone(report), destination });
    }
    Ok((destinations, reports))
}

/// The configured reports, for a command that only reads objects.
///
/// # Errors
///
/// [`StartError::Configuration`].
pub fn open_reports(config: &Config) -> Result<HashMap<ReportId, OpenReport>, StartError> {
    open(config, &Budget::new(), "reader", None).map(|(_, reports)| reports)
}

#[expect(clippy::disallowed_methods, reason = "the shell draws the random numbers")]
fn random() -> String {
    format!("{:08x}", rand::random::<u32>())
}
