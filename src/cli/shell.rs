//! Parts that commands share: configuration, context, ledger, output, and the signals that stop them.

use std::{path::PathBuf, sync::Arc};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
};

use super::{CommandError, Result, progress::Bars, table::Look};
use crate::{
    config::{self, Config, Env},
    dispatch, ledger,
    sync::{self, Clock, Context, Progress, open_ledger_read_only},
};

/// The global options and resources of a command.
pub(super) struct Shell {
    /// The file or folder that `--config` or `MOESYNC_CONFIG` names.
    pub(super) config: Option<PathBuf>,
    /// Whether results are printed as JSON.
    pub(super) json: bool,
    /// Whether lines are longer than the terminal is wide.
    pub(super) wide: bool,
    pub(super) bars: Bars,
    /// Whether the process was asked to stop.
    pub(super) stopping: Notify,
    pub(super) clock: Arc<dyn Clock>,
}

impl Shell {
    /// The configuration, located, layered with the environment and checked.
    pub(super) fn config(&self) -> Result<Arc<Config>> {
        let path = config::locate(self.config.as_deref())?;
        Ok(Arc::new(config::load(&path, environment())?))
    }

    /// A context for fetching.
    pub(super) async fn start(&self, config: Arc<Config>) -> Result<Arc<Context>> {
        // Before work begins: a command whose notifications cannot be sent must not run silently.
        dispatch::check(&config).map_err(CommandError::Usage)?;
        let progress: Arc<dyn Progress> = Arc::new(self.bars.clone());
        Ok(Arc::new(sync::start(config, Arc::clone(&self.clock), progress).await?))
    }

    /// A context for fetching, after recovery: all stored objects are in the ledger.
    pub(super) async fn context(&self, config: Arc<Config>) -> Result<Arc<Context>> {
        let ctx = self.start(config).await?;
        sync::recover(&ctx, &sync::Selection::default()).await?;
        Ok(ctx)
    }

    /// The ledger, opened read-only; `None` if there is none yet.
    pub(super) async fn ledger(&self, config: &Config) -> Result<Option<ledger::Ledger>> {
        Ok(open_ledger_read_only(config).await?)
    }

    /// Opens the ledger to change it, or read-only for a dry run. `None` if there is none to read.
    pub(super) async fn ledger_to_change(&self, config: &Config, dry_run: bool) -> Result<Option<ledger::Ledger>> {
        match dry_run {
            true => self.ledger(config).await,
            false => Ok(sync::open_ledger(config, self.clock.now()).await?),
        }
    }

    /// Returns when the process is asked to stop, and says what happens then.
    pub(super) async fn stopped(&self) {
        stop_signal().await;
        let limit = sync::DRAINING.as_secs();
        self.bars.say(&format!("stopping: running downloads have {limit} s to finish; Ctrl-C again stops at once"));
        self.stopping.notify_one();
    }

    /// Returns when the process is asked to stop once more.
    pub(super) async fn stopped_again(&self) {
        self.stopping.notified().await;
        stop_signal().await;
    }

    /// How lines look on standard output.
    pub(super) fn look(&self, config: &Config) -> Look {
        Look::new(self.wide, config)
    }

    /// Prints `value` as JSON, or as the text that `table` returns.
    pub(super) fn print<T: serde::Serialize>(&self, value: &T, table: impl FnOnce(&T) -> String) -> Result<()> {
        self.bars.clear();
        let text = if self.json {
            let mut text = serde_json::to_string_pretty(value)
                .map_err(|error| CommandError::Failed(format!("could not write JSON: {error}")))?;
            text.push('\n');
            text
        } else {
            table(value)
        };
        print(&text)
    }
}

/// Writes to standard output. A closed pipe, as behind `head`, is not a failure.
pub(super) fn print(text: &str) -> Result<()> {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(CommandError::Failed(format!("could not write the result: {error}")))
        }
        _ => Ok(()),
    }
}

/// The process's environment.
pub(super) fn environment() -> Env {
    Env::of_system(std::env::vars_os())
}

/// Returns when the process is asked to stop.
pub(super) async fn stop_signal() {
    let interrupt = signal(SignalKind::interrupt());
    let terminate = signal(SignalKind::terminate());
    match (interrupt, terminate) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        // Without handlers the signals end the process.
        _ => std::future::pending().await,
    }
}
