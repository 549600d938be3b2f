//! Logs: their format and their filter. They go to standard error or to systemd's journal.
//!
//! This file must not know what is logged.

use std::{
    fmt, io,
    io::{IsTerminal, Write as _},
};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{EnvFilter, filter::Targets, fmt::MakeWriter, layer::SubscriberExt, util::SubscriberInitExt};

/// Writes a line to standard error. One that takes no bytes, such as a closed pipe or a full disk, must not end the process.
pub fn tell(line: impl fmt::Display) {
    // As one write, so that lines of several processes do not mix.
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Human-readable text.
    Pretty,
    /// One JSON object a line.
    Json,
    /// To systemd's journal, with fields.
    Journald,
}

/// Libraries with a lot of debug output, and the most that they log unless the filter names them.
const NOISY: [(&str, LevelFilter); 9] = [
    ("h2", LevelFilter::INFO),
    ("hyper", LevelFilter::INFO),
    ("hyper_util", LevelFilter::INFO),
    ("reqwest", LevelFilter::INFO),
    ("rustls", LevelFilter::INFO),
    // Logs each refused certificate as an error, which is reported with what it is about.
    ("rustls_platform_verifier", LevelFilter::OFF),
    ("sqlx", LevelFilter::INFO),
    ("tokio_cron_scheduler", LevelFilter::WARN),
    ("tower", LevelFilter::INFO),
];

/// This library logs signed URLs, so its log is off for any filter. Its errors are reported without them.
const LOGS_CREDENTIALS: &str = "object_store";

/// Whether the environment asks for texts without colours, bold and movements of the cursor.
pub fn is_plain() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb")
}

/// Starts logging to `writer`, or to the journal, with a filter in the syntax of `RUST_LOG`.
///
/// # Errors
///
/// `filter` cannot be parsed, the journal cannot be reached, or logging was started before.
pub fn start<W>(format: LogFormat, filter: &str, writer: W) -> Result<(), String>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let (chosen, bounds) = filters(filter)?;
    // Filters of the whole registry. Those of a layer drop an event after a library has asked whether another one is
    // logged, as sqlx does (tracing issue 2519).
    let registry = tracing_subscriber::registry().with(bounds).with(chosen);
    let started = match format {
        LogFormat::Pretty => {
            let is_terminal = io::stderr().is_terminal();
            let layer = tracing_subscriber::fmt::layer()
                .log_internal_errors(false)
                .with_target(false)
                .with_ansi(is_terminal && !is_plain())
                .with_writer(writer);
            registry.with(layer).try_init()
        }
        LogFormat::Json => {
            let layer = tracing_subscriber::fmt::layer().log_internal_errors(false).json();
            let layer = layer.flatten_event(true).with_span_list(false);
            registry.with(layer.with_writer(writer)).try_init()
        }
        LogFormat::Journald => {
            let journal = tracing_journald::layer().map_err(|error| format!("could not reach the journal: {error}"))?;
            registry.with(journal).try_init()
        }
    };
    started.map_err(|error| format!("could not start logging: {error}"))
}

/// `filter`, and what [`NOISY`] and [`LOGS_CREDENTIALS`] leave of it.
fn filters(filter: &str) -> Result<(EnvFilter, Targets), String> {
    let chosen = EnvFilter::builder().with_regex(false).parse(filter).map_err(|error| {
        format!(
            "RUST_LOG: {filter:?} is not a log filter: {error}; expected one such as \"info\" or \"info,moesync=debug\""
        )
    })?;
    let unnamed = NOISY.into_iter().filter(|(target, _)| !filter.contains(target));
    let bounds = Targets::new().with_default(LevelFilter::TRACE).with_targets(unnamed);
    Ok((chosen, bounds.with_target(LOGS_CREDENTIALS, LevelFilter::OFF)))
}

/// An error with its causes on one line. A cause is omitted if its parent's text already ends with it, as some libraries
/// include the cause in their own text.
pub struct Chain<'a>(pub &'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.to_string();
        f.write_str(&shown)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !shown.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            shown = text;
            source = cause.source();
        }
        Ok(())
    }
}
