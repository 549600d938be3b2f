//! Parses the arguments, starts logging, runs the command, and returns its exit code.

use std::{panic, process::ExitCode, thread, time::Duration};

use moesync::{cli, telemetry};

/// Limit of threads for blocking work: two for each of 1,024 downloads, the maximum of limits.concurrency, and 16 for
/// each of 128 destinations that hang. Threads are created on demand.
const BLOCKING_THREADS: usize = 4096;

fn main() -> ExitCode {
    let arguments = cli::Arguments::of_process();
    let bars = cli::Bars::new();
    let (format, filter) = arguments.logging();
    if let Err(error) = telemetry::start(format, &filter, bars.log_writer()) {
        telemetry::tell(format_args!("error: {error}"));
        return ExitCode::from(2);
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().max_blocking_threads(BLOCKING_THREADS);
    if thread::available_parallelism().is_ok_and(|processors| processors.get() == 1) {
        // So that the page answers while the loop plans.
        builder.worker_threads(2);
    }
    let runtime = match builder.build() {
        Ok(runtime) => runtime,
        Err(error) => {
            telemetry::tell(format_args!("error: could not start the runtime: {error}"));
            return ExitCode::FAILURE;
        }
    };
    // On the runtime's own threads: what runs here instead is woken by a system call each time.
    let running = runtime.spawn(cli::run(arguments, bars));
    // The runtime still runs, so only a panic ends it early.
    let ended = runtime.block_on(running).unwrap_or_else(|failure| panic::resume_unwind(failure.into_panic()));
    // A system call that hangs must not keep the process alive.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}
