//! Makes a context from a valid configuration.
//!
//! This file owns the order: secrets, destinations, ledger. Recovery comes after that, in `recover`.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use jiff::Timestamp;
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
    config::{Config, Ledger, Report},
    ledger::{self, Found, LedgerError},
    moengage,
    report::ReportId,
    store::{Budget, Destination, StoreError},
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

/// What work needs of the outside, open.
pub struct Edges {
    /// The ledger.
    pub ledger: ledger::Ledger,
    /// The client of MoEngage.
    pub vendor: moengage::Client,
    /// The destinations, by name.
    pub destinations: BTreeMap<String, Destination>,
    /// The memory for uploads that `destinations` were opened with.
    pub budget: Budget,
    /// This process, as it holds claims. Begins with `place`.
    pub holder: String,
    /// The ledger, among all whose processes share a destination.
    pub place: String,
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
    let secrets = resolve(&config).await?;
    open_all(config, clock, progress, secrets).await
}

/// As [`start`], for work that sends no request to MoEngage: no key is read.
///
/// # Errors
///
/// As [`start`].
pub async fn start_offline(
    config: Arc<Config>,
    clock: Arc<dyn Clock>,
    progress: Arc<dyn Progress>,
) -> Result<Context, StartError> {
    open_all(config, clock, progress, Secrets::default()).await
}

async fn open_all(
    config: Arc<Config>,
    clock: Arc<dyn Clock>,
    progress: Arc<dyn Progress>,
    secrets: Secrets,
) -> Result<Context, StartError> {
    log_warnings(&config);
    let vendor = client(&config)?;
    let budget = Budget::for_destinations(&config.destinations);
    refuse_other(&config.ledger).await?;
    let (place, holder, destinations, ledger, found) = match &config.ledger {
        Ledger::Sqlite(path) => {
            let place = ledger::place(path, &random())?;
            let holder = holder_at(&place);
            // Opened first: nothing is created where a destination is not valid.
            let destinations = open(&config, &budget, &holder, None, make_folder)?;
            let (ledger, found) = ledger::open(path, &holder, clock.now()).await?;
            (place, holder, destinations, ledger, found)
        }
        Ledger::Postgres(url) => {
            let (ledger, found, place, holder) = ledger::open_server(url, &random(), holder_at).await?;
            let destinations = open(&config, &budget, &holder, None, make_folder)?;
            (place, holder, destinations, ledger, found)
        }
    };
    let edges = Edges { ledger, vendor, destinations, budget, holder, place };
    let context = Context { secrets, ..assemble(config, edges, clock, progress) };
    let (status, ledger) = (&context.status, &context.ledger);
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
    Ok(context)
}

/// A context with `edges` that are open. A report whose destination is not among them is not fetched. Keys are read when they
/// are first needed.
pub fn assemble(config: Arc<Config>, edges: Edges, clock: Arc<dyn Clock>, progress: Arc<dyn Progress>) -> Context {
    let Edges { ledger, vendor, destinations, budget, holder, place } = edges;
    Context {
        reports: pair(&config, &destinations),
        config,
        ledger,
        vendor,
        destinations,
        secrets: Secrets::default(),
        server_clocks: Arc::new(ServerClocks::new(Arc::clone(&clock))),
        clock,
        progress,
        pulse: Pulse::new(),
        planned: Publication::new(),
        status: Arc::new(ProcessStatus::default()),
        load: Load::new(),
        budget,
        holder,
        place,
    }
}

/// A context for `config` that replaces `old` and has the same ledger, which `config` names too. Recovery runs again, beside the
/// loop.
///
/// # Errors
///
/// [`StartError::Configuration`]; `old` stays usable.
pub async fn reload(old: &Context, config: Arc<Config>) -> Result<Context, StartError> {
    log_warnings(&config);
    let budget = old.budget.redivided(&config.destinations);
    let destinations = open(&config, &budget, &old.holder, Some(old), Destination::make_folder)?;
    Ok(Context {
        reports: pair(&config, &destinations),
        ledger: old.ledger.clone(),
        vendor: client(&config)?.replacing(&old.vendor, &config.limits),
        destinations,
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
    refuse_other(&config.ledger).await?;
    match &config.ledger {
        Ledger::Sqlite(path) => Ok(ledger::open_read_only(path).await?),
        Ledger::Postgres(url) => Ok(ledger::open_server_read_only(url).await?),
    }
}

/// The ledger that `config` names, opened for writing without anything else; `None` if there is none yet.
///
/// # Errors
///
/// As [`start`]. A ledger of an older version, or a damaged one, is refused and left as it is.
pub async fn open_ledger(config: &Config, now: Timestamp) -> Result<Option<ledger::Ledger>, StartError> {
    let Some(existing) = open_ledger_read_only(config).await? else { return Ok(None) };
    existing.close().await;
    Ok(Some(match &config.ledger {
        Ledger::Sqlite(path) => {
            let holder = holder_at(&ledger::place(path, &random())?);
            ledger::open(path, &holder, now).await?.0
        }
        Ledger::Postgres(url) => ledger::open_server(url, &random(), holder_at).await?.0,
    }))
}

/// A name of this process that no other process of the ledger called `place` has.
fn holder_at(place: &str) -> String {
    format!("{place}-{}-{}", std::process::id(), random())
}

/// Refuses what cannot be a ledger, before anything is written.
async fn refuse_other(ledger: &Ledger) -> Result<(), StartError> {
    let refused = |what: String| Err(StartError::Configuration(format!("ledger.url: {what}")));
    match ledger {
        Ledger::Sqlite(path) if path.is_dir() => refused(format!("{} is a folder; name a file in it", path.display())),
        Ledger::Sqlite(path) => match ledger::table_of_other_program(path).await {
            Some(table) => refused(format!(
                "{} is the database of another program, which has the table `{table}`; name a file of its own for the ledger",
                path.display()
            )),
            None => Ok(()),
        },
        Ledger::Postgres(url) => match ledger::check_server_url(url) {
            Ok(()) => Ok(()),
            Err(problem) => refused(problem),
        },
    }
}

fn log_warnings(config: &Config) {
    for warning in config.warnings.iter().chain(&config.placeholders) {
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

/// Makes the destination's folder. One that cannot be made, because its disk is away or full, fails the attempts to store in
/// it, until one of them can make it.
fn make_folder(destination: &Destination) -> Result<(), StoreError> {
    if let Err(error) = destination.make_folder() {
        error!(destination = destination.name(), "{error}");
    }
    Ok(())
}

/// Opens the destinations, and calls `prepare` for each. A directory that is open in `old` stays open if its settings have
/// not changed: a mount that hangs must neither delay a reload nor occupy more threads.
fn open(
    config: &Config,
    budget: &Budget,
    holder: &str,
    old: Option<&Context>,
    prepare: impl Fn(&Destination) -> Result<(), StoreError>,
) -> Result<BTreeMap<String, Destination>, StartError> {
    let mut destinations = BTreeMap::new();
    let of_reports = config.reports.iter().map(|report| &report.destination);
    for destination in config.destinations.iter().chain(of_reports) {
        if destinations.contains_key(&destination.name) {
            continue;
        }
        let kept = old
            .filter(|old| old.config.destinations.iter().any(|known| known.is_same_directory(destination)))
            .and_then(|old| old.destinations.get(&destination.name));
        let opened = match kept {
            Some(kept) => kept.clone(),
            None => Destination::open(destination, budget.clone(), holder)
                .and_then(|opened| prepare(&opened).map(|()| opened))
                .map_err(|error| StartError::Configuration(format!("{}: {error}", destination.place)))?,
        };
        destinations.insert(destination.name.clone(), opened);
    }
    Ok(destinations)
}

/// The reports, each with its destination.
fn pair(config: &Config, destinations: &BTreeMap<String, Destination>) -> HashMap<ReportId, OpenReport> {
    let open = |report: &Arc<Report>| {
        let destination = destinations.get(&report.destination.name)?.clone();
        Some((report.id.clone(), OpenReport { report: Arc::clone(report), destination }))
    };
    config.reports.iter().filter_map(open).collect()
}

/// The configured reports, for a command that only reads objects.
///
/// # Errors
///
/// [`StartError::Configuration`].
pub fn open_reports(config: &Config) -> Result<HashMap<ReportId, OpenReport>, StartError> {
    open(config, &Budget::new(), "reader", None, |_| Ok(())).map(|destinations| pair(config, &destinations))
}

#[expect(clippy::disallowed_methods, reason = "the shell draws the random numbers")]
fn random() -> String {
    format!("{:08x}", rand::random::<u32>())
}
