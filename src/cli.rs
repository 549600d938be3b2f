//! The command line: one file for each command, and the parts that commands share.
//!
//! Only this folder prints: results to standard output, everything else to standard error.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use clap::{Args, FromArgMatches as _, Parser, Subcommand};
use tokio::sync::Notify;

use self::shell::Shell;
use crate::{
    config,
    daemon::DaemonError,
    ledger::LedgerError,
    reading::{OpenError, TableError},
    store::StoreError,
    sync::{StartError, SystemClock},
    telemetry::{self, Chain, LogFormat},
    web::WebError,
};

mod acknowledge;
mod answers;
mod ask;
mod backfill;
mod cat;
mod check;
mod completion;
mod dates;
mod demo;
mod emulate;
mod explain;
mod forget;
mod get;
mod health;
mod help;
mod init;
mod ls;
mod manual;
mod online;
mod package;
mod plan;
mod progress;
mod rebuild;
mod reconcile;
mod results;
mod run;
mod schema;
mod scope;
mod shell;
mod show;
mod sign;
mod status;
mod sync;
mod table;
mod tables;
mod verify;

pub use progress::Bars;

/// Downloads MoEngage reports before they expire, verifies and stores them, and alerts you when one is at risk.
#[derive(Debug, Parser)]
#[command(name = "moesync", version, max_term_width = 80)]
pub struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// The configuration: a file, or a folder of *.toml files [default: ./moesync.toml, then /etc/moesync/moesync.toml].
    #[arg(long, global = true, value_name = "FILE|FOLDER", env = "MOESYNC_CONFIG", hide_env_values = true)]
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
    /// Prints whole lines on a terminal, however wide they are.
    #[arg(long, global = true)]
    wide: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Asks for what is needed, tries it against MoEngage, and writes the configuration and the key file.
    Init(init::Options),
    /// Runs the daemon: fetches every partition when it is due, until it is stopped.
    Run,
    /// Makes one pass: fetches every partition that is due and not stored, then exits.
    Sync(sync::Options),
    /// Fetches past partitions of a report.
    Backfill(backfill::Options),
    /// Shows what would be fetched, when and why; changes nothing.
    Plan(plan::Options),
    /// Shows everything about one partition.
    Explain(explain::Options),
    /// Shows the partitions and their state.
    Status(status::Options),
    /// Notes that lost partitions were seen: no alarm any more, and `status --check` passes.
    Acknowledge(acknowledge::Options),
    /// Deletes rows of the ledger: reports that are no longer configured, or dates. Stored objects stay.
    Forget(forget::Options),
    /// Reads stored objects again and compares them with their manifests.
    Verify(verify::Options),
    /// Lists stored objects.
    Ls(ls::Options),
    /// Copies a stored archive, or one entry of it, to a file. Its hash is compared before the file gets its name.
    Get(get::Options),
    /// Copies a stored archive, or one entry of it, to standard output. Its hash is compared at the end: exit code 1 means
    /// that the output must not be used.
    Cat(cat::Options),
    /// Lists tables, and prints the statements that make a query engine read them.
    Tables(tables::Options),
    /// Compares the counts of stored archives with those of stored statistics, by campaign and day.
    Reconcile(reconcile::Options),
    /// Asks the daemon whether it is ready: exits with 0 if it is, otherwise with 1.
    Health,
    /// Checks the configuration.
    Check(check::Options),
    /// Shows the configuration.
    #[command(subcommand)]
    Config(show::Action),
    /// Prints the signature of a file name, and a curl command that fetches the file.
    Sign(sign::Options),
    /// Runs a complete example against a MoEngage emulator, in ./moesync-demo/.
    Demo(demo::Options),
    /// Runs a MoEngage emulator.
    Emulate(emulate::Options),
    /// Prints the JSON Schema of the configuration.
    Schema,
    /// Prints a completion script for a shell.
    Completions(package::Completions),
    /// Prints the manual page, or writes one for each command.
    Man(package::Man),
}

/// The exit code of a command that was stopped twice, as shells have it for Ctrl-C.
const STOPPED: u8 = 130;

/// How much of a command is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Completion {
    /// Everything that was requested is done: exit code 0.
    Done,
    /// Part of it is not done: exit code 1.
    Incomplete,
    /// `run` refuses this configuration: exit code 2.
    Refused,
}

/// Why a command failed.
#[derive(Debug)]
enum CommandError {
    /// A mistake in the usage or the configuration, before anything was started: exit code 2.
    Usage(String),
    /// Any other failure: exit code 1.
    Failed(String),
}

impl From<config::Mistakes> for CommandError {
    fn from(mistakes: config::Mistakes) -> Self {
        CommandError::Usage(mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\nerror: "))
    }
}

impl From<config::Problem> for CommandError {
    fn from(problem: config::Problem) -> Self {
        CommandError::Usage(problem.to_string())
    }
}

impl From<LedgerError> for CommandError {
    fn from(error: LedgerError) -> Self {
        CommandError::Failed(Chain(&error).to_string())
    }
}

impl From<StartError> for CommandError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Configuration(message) => CommandError::Usage(message),
            StartError::Ledger(error) => error.into(),
        }
    }
}

impl From<OpenError> for CommandError {
    fn from(error: OpenError) -> Self {
        CommandError::Failed(error.to_string())
    }
}

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> Self {
        CommandError::Failed(error.to_string())
    }
}

impl From<TableError> for CommandError {
    fn from(error: TableError) -> Self {
        CommandError::Failed(error.to_string())
    }
}

impl From<DaemonError> for CommandError {
    fn from(error: DaemonError) -> Self {
        match error {
            DaemonError::Configuration(mistakes) => mistakes.into(),
            DaemonError::Start(error) => error.into(),
            // Another program may be gone soon: a service manager tries again.
            DaemonError::Web(error @ WebError::Listen { .. }) => CommandError::Failed(error.to_string()),
            DaemonError::Web(error) => CommandError::Usage(error.to_string()),
            DaemonError::System { .. } => CommandError::Failed(error.to_string()),
        }
    }
}

type Result<T = Completion, E = CommandError> = std::result::Result<T, E>;

impl Arguments {
    /// The arguments of this process. Ends it if they are wrong, ask for help, or come from a shell that asks for
    /// completions.
    pub fn of_process() -> Self {
        completion::answer();
        let matches = help::command().get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    /// The log format and the filter, in the syntax of `RUST_LOG`. By default the daemon logs its work, and other
    /// commands log failures only.
    pub fn logging(&self) -> (LogFormat, String) {
        let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let format = self.global.log_format.unwrap_or(if is_terminal { LogFormat::Pretty } else { LogFormat::Json });
        let from_environment = std::env::var_os("RUST_LOG").filter(|filter| !filter.is_empty());
        let filter = match (&self.command, self.global.verbose, from_environment) {
            (_, 1, _) => "debug".to_owned(),
            (_, 2.., _) => "trace".to_owned(),
            (_, 0, Some(filter)) => filter.to_string_lossy().into_owned(),
            (Command::Run | Command::Emulate(_), 0, None) => "info".to_owned(),
            // One report of the demo is late on purpose.
            (Command::Demo(_), 0, None) => "off".to_owned(),
            (_, 0, None) => "warn".to_owned(),
        };
        (format, filter)
    }
}

/// Runs the command that `arguments` name and returns its exit code.
pub async fn run(arguments: Arguments, bars: Bars) -> ExitCode {
    let Arguments { global, command } = arguments;
    let shell = Shell {
        config: global.config,
        json: global.json,
        wide: global.wide,
        bars,
        stopping: Notify::new(),
        clock: Arc::new(SystemClock),
    };
    let command = async {
        match command {
            Command::Init(options) => init::run(&shell, options).await,
            Command::Run => run::run(&shell).await,
            Command::Sync(options) => sync::run(&shell, options).await,
            Command::Backfill(options) => backfill::run(&shell, options).await,
            Command::Plan(options) => plan::run(&shell, options).await,
            Command::Explain(options) => explain::run(&shell, options).await,
            Command::Status(options) => status::run(&shell, options).await,
            Command::Acknowledge(options) => acknowledge::run(&shell, options).await,
            Command::Forget(options) => forget::run(&shell, options).await,
            Command::Verify(options) => verify::run(&shell, options).await,
            Command::Ls(options) => ls::run(&shell, options).await,
            Command::Get(options) => get::run(&shell, options).await,
            Command::Cat(options) => cat::run(&shell, options).await,
            Command::Tables(options) => tables::run(&shell, options).await,
            Command::Reconcile(options) => reconcile::run(&shell, options).await,
            Command::Health => health::run(&shell).await,
            Command::Check(options) => check::run(&shell, options).await,
            Command::Config(action) => show::run(&shell, &action),
            Command::Sign(options) => sign::run(&shell, options).await,
            Command::Demo(options) => demo::run(&shell, options).await,
            Command::Emulate(options) => emulate::run(&shell, options).await,
            Command::Schema => schema::run(),
            Command::Completions(options) => package::completions(&options),
            Command::Man(options) => package::man(options),
        }
    };
    // It is large, as it is every command.
    let ended = tokio::select! {
        ended = Box::pin(command) => ended,
        () = shell.stopped_again() => {
            shell.bars.say("stopped");
            return ExitCode::from(STOPPED);
        }
    };
    shell.bars.clear();
    match ended {
        Ok(Completion::Done) => ExitCode::SUCCESS,
        Ok(Completion::Incomplete) => ExitCode::from(1),
        Ok(Completion::Refused) => ExitCode::from(2),
        Err(CommandError::Usage(message)) => {
            telemetry::tell(format_args!("error: {message}"));
            ExitCode::from(2)
        }
        Err(CommandError::Failed(message)) => {
            telemetry::tell(format_args!("error: {message}"));
            ExitCode::from(1)
        }
    }
}
