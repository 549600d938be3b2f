//! Restarts tasks that panic.
//!
//! This file owns what follows from a panic: an alarm, a pause, and a restart. It must not know what the tasks do.

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt as _;
use tokio::time::{Instant, sleep};
use tracing::error;

use super::process_status::ProcessStatus;
use crate::alarm_kind::AlarmKind;

/// The first pause of a task that has panicked. It doubles each time, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// After this time without a panic, a task's alarm ends and its next pause is the first one.
const LONG_RUN: Duration = Duration::from_secs(5 * 60);

/// Runs `task` until it ends without a panic. The alarm is raised at `status`.
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

/// Raises the alarm for a part of moesync that has panicked and is restarted.
pub fn report(status: &ProcessStatus, name: &str) {
    let message = format!("{name} panicked, a bug in moesync, and was restarted; please report it, with the log");
    error!(alarm = "panic", task = name, "{message}");
    status.raise_for(AlarmKind::Panic, name, message, LONG_RUN);
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
            // Unwinds like a panic, without its output.
            match runs.fetch_add(1, Ordering::Relaxed) {
                0..3 => std::panic::resume_unwind(Box::new("a bug")),
                runs => runs,
            }
        };
        assert_eq!(supervised("the dispatcher", || Arc::clone(&status), task).await, 3);
        assert_eq!(began.elapsed(), 7 * FIRST_PAUSE);
        let raised = status.incidents().remove(&AlarmKind::Panic).unwrap();
        assert!(raised.starts_with("the dispatcher panicked"), "{raised}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_alarm_of_a_task_ends_once_it_has_run_for_a_while_without_a_panic() {
        let status = ProcessStatus::default();
        let is_raised = || status.incidents().contains_key(&AlarmKind::Panic);
        report(&status, "the dispatcher");
        sleep(LONG_RUN / 2).await;
        report(&status, "the dispatcher");
        sleep(LONG_RUN - Duration::from_secs(1)).await;
        assert!(is_raised());
        sleep(Duration::from_secs(1)).await;
        assert!(!is_raised());
    }
}
