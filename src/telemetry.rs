//! What the process says of itself: logs.
//!
//! This file owns how a log line looks and which ones are let through. Logs go to standard error, or to the journal.

use std::{fmt, io, io::IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer, filter::Targets, fmt::MakeWriter, layer::SubscriberExt, util::SubscriberInitExt};

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
    /// To systemd's journal, with fields.
    Journald,
}

/// Libraries whose debugging would drown what moesync says.
const TALKATIVE: [&str; 7] = ["h2", "hyper", "hyper_util", "reqwest", "rustls", "tower", "sqlx"];

/// A library that tells of its own beginnings as if they were news.
const SELF_IMPORTANT: &str = "tokio_cron_scheduler";

/// A library that logs URLs with their queries, in which some object stores carry credentials. What it has to say comes
/// back as errors, without them.
const INDISCREET: &str = "object_store";

/// Starts logging at `level`, to `writer` unless the journal is asked for.
///
/// # Errors
///
/// When the journal cannot be reached, or logging was started before.
pub fn start<W>(format: LogFormat, level: LevelFilter, writer: W) -> Result<(), String>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let quiet = TALKATIVE.map(|target| (target, level.min(LevelFilter::INFO)));
    let bounded = Targets::new()
        .with_default(level)
        .with_targets(quiet)
        .with_target(SELF_IMPORTANT, level.min(LevelFilter::WARN))
        .with_target(INDISCREET, LevelFilter::OFF);
    let registry = tracing_subscriber::registry();
    let started = match format {
        LogFormat::Pretty => {
            let is_terminal = io::stderr().is_terminal();
            let layer = tracing_subscriber::fmt::layer()
                .with_target(false)
                .with_ansi(is_terminal && std::env::var_os("NO_COLOR").is_none())
                .with_writer(writer);
            registry.with(layer.with_filter(bounded)).try_init()
        }
        LogFormat::Json => {
            let layer = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(writer);
            registry.with(layer.with_filter(bounded)).try_init()
        }
        LogFormat::Journald => {
            let journal = tracing_journald::layer().map_err(|error| format!("could not reach the journal: {error}"))?;
            registry.with(journal.with_filter(bounded)).try_init()
        }
    };
    started.map_err(|error| format!("could not start logging: {error}"))
}

/// An error with all its causes on one line, less those that say again what was said: some libraries put the cause into
/// their own text as well.
pub struct Chain<'a>(pub &'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !said.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            said = text;
            source = cause.source();
        }
        Ok(())
    }
}
