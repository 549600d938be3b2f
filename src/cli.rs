//! The command line: one file a command below, and what they share here.
//!
//! The only place that prints: results on standard output, everything else on standard error.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use clap::{Args, Parser, Subcommand};
use jiff::civil::Date;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    config::{self, Config, Report},
    daemon::DaemonError,
    dispatch,
    ledger::{self, LedgerError},
    partition::Entry,
    sync::{Clock, Context, Progress, Selection, StartError, SystemClock, ledger_file},
    telemetry::{Chain, LogFormat},
    words,
};

mod backfill;
mod check;
mod demo;
mod emulate;
mod explain;
mod health;
mod plan;
mod progress;
mod run;
mod schema;
mod shell;
mod sign;
mod status;
mod sync;
mod table;
mod verify;

pub use progress::Bars;

/// Keeps every MoEngage campaign report: fetched before it expires, verified, stored, and accounted for.
#[derive(Debug, Parser)]
#[command(name = "moesync", version, max_term_width = 100)]
pub struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Global {
    /// The configuration [default: ./moesync.toml, then /etc/moesync/moesync.toml].
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Increases log verbosity: -v debug, -vv trace [default: the filter in RUST_LOG].
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Log format [default: pretty on a terminal, json otherwise].
    #[arg(long, global = true, value_enum, value_name = "FORMAT", env = "MOESYNC_LOG", hide_env_values = true)]
    log_format: Option<LogFormat>,
    /// Prints results as JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the daemon: fetches every partition when it is due, until told to stop.
    Run,
    /// Makes one pass: fetches every partition that is due and not stored, then exits.
    Sync(sync::Options),
    /// Fetches past partitions of a report.
    Backfill(backfill::Options),
    /// Shows what would be done, when and why; touches nothing.
    Plan(plan::Options),
    /// Shows everything about one partition.
    Explain(explain::Options),
    /// Shows the partitions and their state.
    Status(status::Options),
    /// Reads stored objects again and compares them with their manifests.
    Verify(verify::Options),
    /// Asks the daemon whether it is ready: exits with 0 if so, else with 1.
    Health,
    /// Checks the configuration.
    Check(check::Options),
    /// Prints a file's signature and a ready curl line.
    Sign(sign::Options),
    /// Shows everything at work against a pretend MoEngage; stores into ./moesync-demo/.
    Demo(demo::Options),
    /// Runs a pretend MoEngage.
    Emulate(emulate::Options),
    /// Prints the JSON Schema of the configuration.
    Schema,
    /// Prints a completion script for a shell.
    Completions(shell::Completions),
    /// Prints the manual page, or writes one for each command.
    Man(shell::Man),
}

/// Which report a command is about.
#[derive(Debug, Clone, Default, Args)]
struct Which {
    /// Only this workspace.
    #[arg(long, value_name = "NAME")]
    workspace: Option<String>,
    /// Only the report with this id.
    #[arg(long, value_name = "ID")]
    report: Option<String>,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// All that was asked is done: exit code 0.
    Done,
    /// Something that was asked is not: exit code 1.
    Incomplete,
}

/// Why a command could not do what was asked.
#[derive(Debug)]
enum Failure {
    /// Usage or configuration, before anything was started: exit code 2.
    Usage(String),
    /// Anything else: exit code 1.
    Failed(String),
}

impl From<config::Problem> for Failure {
    fn from(problem: config::Problem) -> Self {
        Failure::Usage(problem.to_string())
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        Failure::Failed(Chain(&error).to_string())
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Configuration(message) => Failure::Usage(message),
            StartError::Ledger(error) => error.into(),
        }
    }
}

impl From<DaemonError> for Failure {
    fn from(error: DaemonError) -> Self {
        match error {
            DaemonError::Configuration(problem) => problem.into(),
            DaemonError::Start(error) => error.into(),
            DaemonError::Web(error) => Failure::Usage(error.to_string()),
            DaemonError::System { .. } => Failure::Failed(error.to_string()),
        }
    }
}

type Result<T = Ended, E = Failure> = std::result::Result<T, E>;

impl Arguments {
    /// The log format and the filter, in the syntax of `RUST_LOG`. By default a daemon logs what it does, a command only
    /// what fails.
    pub fn logging(&self) -> (LogFormat, String) {
        let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let format = self.global.log_format.unwrap_or(if is_terminal { LogFormat::Pretty } else { LogFormat::Json });
        let from_environment = std::env::var_os("RUST_LOG").filter(|filter| !filter.is_empty());
        let filter = match (&self.command, self.global.verbose, from_environment) {
            (_, 1, _) => "debug".to_owned(),
            (_, 2.., _) => "trace".to_owned(),
            (_, 0, Some(filter)) => filter.to_string_lossy().into_owned(),
            (Command::Run | Command::Emulate(_), 0, None) => "info".to_owned(),
            // One of its reports is late on purpose.
            (Command::Demo(_), 0, None) => "off".to_owned(),
            (_, 0, None) => "warn".to_owned(),
        };
        (format, filter)
    }
}

/// Runs the command that `arguments` name, and says how it went.
pub async fn run(arguments: Arguments, bars: Bars) -> ExitCode {
    let Arguments { global, command } = arguments;
    let shell = Shell { global, bars, clock: Arc::new(SystemClock) };
    let ended = match command {
        Command::Run => run::run(&shell).await,
        Command::Sync(options) => sync::run(&shell, options).await,
        Command::Backfill(options) => backfill::run(&shell, options).await,
        Command::Plan(options) => plan::run(&shell, options).await,
        Command::Explain(options) => explain::run(&shell, options).await,
        Command::Status(options) => status::run(&shell, options).await,
        Command::Verify(options) => verify::run(&shell, options).await,
        Command::Health => health::run(&shell).await,
        Command::Check(options) => check::run(&shell, options).await,
        Command::Sign(options) => sign::run(&shell, options).await,
        Command::Demo(options) => demo::run(&shell, options).await,
        Command::Emulate(options) => emulate::run(&shell, options).await,
        Command::Schema => schema::run(),
        Command::Completions(options) => shell::completions(options),
        Command::Man(options) => shell::man(options),
    };
    match ended {
        Ok(Ended::Done) => ExitCode::SUCCESS,
        Ok(Ended::Incomplete) => ExitCode::from(1),
        Err(Failure::Usage(message)) => {
            eprintln!("error: {message}");
            ExitCode::from(2)
        }
        Err(Failure::Failed(message)) => {
            eprintln!("error: {message}");
            ExitCode::from(1)
        }
    }
}

/// What every command has at hand.
struct Shell {
    global: Global,
    bars: Bars,
    clock: Arc<dyn Clock>,
}

impl Shell {
    /// The configuration, located, layered with the environment and checked.
    fn config(&self) -> Result<Arc<Config>> {
        let path = config::locate(self.global.config.as_deref())?;
        Ok(Arc::new(config::load(&path, environment())?))
    }

    /// A context that can speak to the vendor, with the ledger up to what the destinations hold.
    async fn context(&self, config: Arc<Config>) -> Result<Arc<Context>> {
        // Before work begins: a command whose notifications cannot be sent must not run silently.
        dispatch::check(&config).map_err(Failure::Usage)?;
        let progress: Arc<dyn Progress> = Arc::new(self.bars.clone());
        let ctx = crate::sync::start(config, Arc::clone(&self.clock), progress).await?;
        crate::sync::recover(&ctx).await?;
        Ok(Arc::new(ctx))
    }

    /// What the ledger holds, read without changing anything; empty when there is none yet.
    async fn ledger(&self, config: &Config) -> Result<Option<ledger::Ledger>> {
        Ok(ledger::open_read_only(ledger_file(config)?).await?)
    }

    /// Prints `value` as JSON, or what `table` makes of it.
    fn print<T: serde::Serialize>(&self, value: &T, table: impl FnOnce(&T) -> String) -> Result<()> {
        let text = if self.global.json {
            let mut text = serde_json::to_string_pretty(value)
                .map_err(|error| Failure::Failed(format!("could not write JSON: {error}")))?;
            text.push('\n');
            text
        } else {
            table(value)
        };
        print(&text)
    }
}

/// Writes to standard output. A reader that has seen enough, such as `head`, is no failure.
fn print(text: &str) -> Result<()> {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("could not write the result: {error}")))
        }
        _ => Ok(()),
    }
}

/// The process's environment, less what is not text.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

impl Which {
    /// The selection, provided that it names something that is configured.
    fn selection(&self, config: &Config) -> Result<Selection> {
        self.known_workspace(config)?;
        if self.report.is_some() {
            self.one(config)?;
        }
        Ok(Selection { workspace: self.workspace.clone(), report: self.report.clone(), partitions: None })
    }

    fn known_workspace(&self, config: &Config) -> Result<()> {
        let names = config.workspaces.iter().map(|known| known.name.as_str());
        self.workspace.as_ref().map_or(Ok(()), |workspace| known("workspace", workspace, names))
    }

    /// The one configured report that is meant.
    fn one(&self, config: &Config) -> Result<Arc<Report>> {
        self.known_workspace(config)?;
        let Some(id) = &self.report else {
            return Err(Failure::Usage("which report? name it with --report ID".into()));
        };
        let in_workspace =
            |report: &&Arc<Report>| self.workspace.as_ref().is_none_or(|name| *name == report.workspace.name);
        let found: Vec<_> =
            config.reports.iter().filter(in_workspace).filter(|report| report.id.name() == *id).collect();
        match found.as_slice() {
            [report] => Ok(Arc::clone(report)),
            [] => {
                known("report", id, config.reports.iter().filter(in_workspace).map(|report| report.id.name()))?;
                Err(Failure::Usage(format!("no report has the id `{id}`")))
            }
            several => {
                let names: Vec<_> = several.iter().map(|report| report.workspace.name.as_str()).collect();
                Err(ambiguous(id, &names))
            }
        }
    }
}

fn ambiguous(report: &str, workspaces: &[&str]) -> Failure {
    Failure::Usage(format!(
        "report `{report}` is in several workspaces ({}); name one with --workspace",
        workspaces.join(", ")
    ))
}

/// Refuses a name that is not among those that are known, and offers the nearest.
fn known<'a>(what: &str, name: &str, names: impl Iterator<Item = &'a str>) -> Result<()> {
    let names: BTreeSet<&str> = names.collect();
    if names.contains(name) {
        return Ok(());
    }
    let nearest = names
        .iter()
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    let hint = match nearest {
        Some((_, nearest)) => format!("did you mean `{nearest}`?"),
        None => format!("configured are: {}", Vec::from_iter(names).join(", ")),
    };
    Err(Failure::Usage(format!("no {what} is called `{name}`; {hint}")))
}

/// The reports of `config` by what the ledger calls them.
fn configured(config: &Config) -> HashMap<crate::report::ReportId, Arc<Report>> {
    config.reports.iter().map(|report| (report.id.clone(), Arc::clone(report))).collect()
}

/// The entries of a ledger that may not exist yet.
async fn entries(ledger: Option<&ledger::Ledger>) -> Result<Vec<Entry>> {
    match ledger {
        Some(ledger) => Ok(ledger.entries().await?),
        None => Ok(Vec::new()),
    }
}

/// Returns when the process is asked to stop.
async fn stop_signal() {
    let interrupt = signal(SignalKind::interrupt());
    let terminate = signal(SignalKind::terminate());
    match (interrupt, terminate) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        // Without handlers the signals end the process by themselves.
        _ => std::future::pending().await,
    }
}

/// A date on the command line.
fn date(text: &str) -> std::result::Result<Date, String> {
    text.parse().map_err(|_| "expected a date such as 2026-11-21".to_owned())
}
