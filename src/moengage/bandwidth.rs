//! The limit on the bytes a second of all downloads together.
//!
//! A downloaded piece takes a span of time on one schedule that all downloads share, as long as the limit demands, and
//! its reader waits until that span begins. Pieces that arrive together so take turns.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::Instant;

use crate::lock::lock;

/// The limit. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Bandwidth {
    schedule: Arc<Mutex<Schedule>>,
}

#[derive(Default)]
struct Schedule {
    /// In bytes a second; `None` is no limit.
    limit: Option<u64>,
    /// From when the schedule is free; `None` before the first piece.
    free_at: Option<Instant>,
}

impl Bandwidth {
    /// Replaces the limit, for the pieces that arrive from now on.
    pub(super) fn set(&self, limit: Option<u64>) {
        let mut schedule = lock(&self.schedule);
        schedule.limit = limit;
        schedule.free_at = None;
    }

    /// When a piece of this many bytes that has arrived at `now` may be passed on.
    pub(super) fn admit(&self, bytes: u64, now: Instant) -> Instant {
        let mut schedule = lock(&self.schedule);
        let Some(limit) = schedule.limit else { return now };
        let starts_at = schedule.free_at.map_or(now, |free_at| free_at.max(now));
        let lasts = Duration::from_secs_f64(bytes as f64 / limit.max(1) as f64);
        schedule.free_at = starts_at.checked_add(lasts);
        starts_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_all_downloads_take_turns_at_the_limit_and_a_pause_saves_nothing_up() {
        let start = Instant::now();
        let bandwidth = Bandwidth::default();
        let after = |bytes, seconds| {
            let now = start + Duration::from_secs(seconds);
            bandwidth.clone().admit(bytes, now).duration_since(start).as_secs()
        };
        assert_eq!([after(1 << 40, 0), after(1, 0)], [0, 0], "there is no limit");
        bandwidth.set(Some(100));
        assert_eq!([after(1000, 0), after(500, 0), after(100, 3)], [0, 10, 15]);
        assert_eq!([after(1000, 100), after(1, 100)], [100, 110], "the time without downloads is over");
        bandwidth.set(Some(1000));
        assert_eq!([after(1000, 101), after(1, 101)], [101, 102], "a reload applies to what arrives then");
        bandwidth.set(None);
        assert_eq!(after(1, 101), 101);
    }
}
