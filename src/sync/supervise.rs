//! Tasks that go on after a panic.
//!
//! This file owns what comes of a fault of moesync itself: an alarm, a pause, and the task once more. It must not know
//! what the tasks do.

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt as _;
use tokio::time::{Instant, sleep};
use tracing::error;

use super::process_status::ProcessStatus;
use crate::alarm_kind::AlarmKind;

/// How long a task that has panicked pauses; twice as long each time, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A task that has run for this long begins with the shortest pause again.
const LONG_RUN: Duration = Duration::from_secs(5 * 60);

/// Runs `task` until it ends without a panic. `status` is where the alarm goes.
pub async fn supervised<T, F: Future<Output = T>>(
    name: &str,
    status: impl Fn() -> Arc<ProcessStatus>,
    task: impl Fn() -> F,
) -> T {
    let mut pauses = Pauses::default();
    loop {
        let began = Instant::now();
        if let Ok(done) = AssertUnwindSafe(task()).catch_unwind().await {
            return done;
        }
        report(&status(), name);
        sleep(pauses.next(began)).await;
    }
}

/// Raises the alarm for a part of moesync that has panicked and goes on.
pub fn report(status: &ProcessStatus, name: &str) {
    let message = format!("{name} ended by a fault of moesync and was restarted; please report it, with the log");
    error!(alarm = "panic", task = name, "{message}");
    status.raise(AlarmKind::Panic, name, message);
}

/// The pauses of one task.
#[derive(Debug)]
pub(super) struct Pauses {
    next: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { next: FIRST_PAUSE }
    }
}

impl Pauses {
    /// The pause after a run that began at `began` and has panicked now.
    pub(super) fn next(&mut self, began: Instant) -> Duration {
        let pause = if began.elapsed() >= LONG_RUN { FIRST_PAUSE } else { self.next };
        self.next = (pause * 2).min(LONGEST_PAUSE);
        pause
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_restarted_after_a_pause_that_grows() {
        let (status, runs) = (Arc::new(ProcessStatus::default()), AtomicU32::new(0));
        let began = Instant::now();
        let task = async || {
            // Quieter than a panic, and unwinds alike.
            match runs.fetch_add(1, Ordering::Relaxed) {
                0..3 => std::panic::resume_unwind(Box::new("a fault")),
                runs => runs,
            }
        };
        assert_eq!(supervised("the dispatcher", || Arc::clone(&status), task).await, 3);
        assert_eq!(began.elapsed(), 7 * FIRST_PAUSE);
        let raised = status.incidents().remove(&AlarmKind::Panic).unwrap();
        assert!(raised.starts_with("the dispatcher ended"), "{raised}");
    }
}
