//! When the next question to a JSON API may be asked, so that the vendor never has to say 429.
//!
//! This file owns the vendor's published rates. One line for each account and API, shared by all its reports. The
//! questions of a line keep an even distance: no window of a minute, a second or an hour holds too many, whenever it
//! begins, and neither does one in which the process was started again.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::clock::Clock;
use crate::{config::SourceKind, lock::lock};

/// 100 requests a minute for statistics (seed document 002) and for each other JSON API, which also allow 10 a second and
/// 6,000 an hour (MoEngage's current documentation). A little less, because the network moves requests together.
const DISTANCE: SignedDuration = SignedDuration::from_millis(610);

/// Longest wait for a turn: a longer one comes from a clock that has since been set back.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_mins(6);

/// All lines, by app id and API. They outlive a reload.
#[derive(Debug, Default)]
pub(super) struct Pace {
    lines: Mutex<HashMap<(String, SourceKind), Line>>,
}

#[derive(Debug, Clone, Copy)]
struct Line {
    /// The next turn that is free.
    free_at: Timestamp,
    /// The vendor asked to be left alone until then.
    rests_until: Timestamp,
}

impl Pace {
    /// Returns when it is the caller's turn.
    pub(super) async fn turn(&self, clock: &dyn Clock, app_id: &str, source: SourceKind) {
        let key = (app_id.to_owned(), source);
        loop {
            let now = clock.now();
            let turn_at = self.with_line(&key, now, |line| {
                let turn_at = line.free_at.max(line.rests_until).max(now);
                line.free_at = later(turn_at, DISTANCE);
                turn_at
            });
            if let Ok(wait) = Duration::try_from(turn_at.duration_since(now))
                && !wait.is_zero()
            {
                clock.sleep(wait).await;
            }
            let now = clock.now();
            // Another request may have been refused meanwhile.
            if self.with_line(&key, now, |line| line.rests_until <= now) {
                return;
            }
        }
    }

    /// The vendor asked to be left alone for `wait`.
    pub(super) fn rest(&self, clock: &dyn Clock, app_id: &str, source: SourceKind, wait: SignedDuration) {
        let now = clock.now();
        self.with_line(&(app_id.to_owned(), source), now, |line| {
            line.rests_until = line.rests_until.max(later(now, wait));
        });
    }

    fn with_line<T>(&self, key: &(String, SourceKind), now: Timestamp, act: impl FnOnce(&mut Line) -> T) -> T {
        let mut lines = lock(&self.lines);
        // A new line begins with a distance: a process before this one may have asked a moment ago.
        let new = Line { free_at: later(now, DISTANCE), rests_until: now };
        let line = lines.entry(key.clone()).or_insert(new);
        if line.free_at.max(line.rests_until) > later(now, LONGEST_WAIT) {
            *line = new;
        }
        act(line)
    }
}

fn later(instant: Timestamp, by: SignedDuration) -> Timestamp {
    instant.checked_add(by).unwrap_or(Timestamp::MAX)
}
