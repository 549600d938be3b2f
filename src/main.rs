//! Parses the arguments, starts the logs, runs the command, and turns its end into an exit code.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use moesync::{cli, telemetry};

/// Threads for blocking work: two for each of 1,024 downloads, the most that limits.concurrency allows, and 16 for each of
/// 128 destinations that hang. A thread is made when it is needed.
const BLOCKING_THREADS: usize = 4096;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    let bars = cli::Bars::new();
    let (format, filter) = arguments.logging();
    if let Err(error) = telemetry::start(format, &filter, bars.log_writer()) {
        eprintln!("error: {error}");
        return ExitCode::from(2);
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = match builder.enable_all().max_blocking_threads(BLOCKING_THREADS).build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: could not start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(cli::run(arguments, bars));
    // A read or write that hangs in the system must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}
