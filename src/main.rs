//! Parses the arguments, starts the logs, runs the command, and turns its end into an exit code.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use moesync::{cli, telemetry};

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    let bars = cli::Bars::new();
    let (format, level) = arguments.logging();
    if let Err(error) = telemetry::start(format, level, bars.log_writer()) {
        eprintln!("error: {error}");
        return ExitCode::from(2);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
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
