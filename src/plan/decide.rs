//! The decision about one partition that is due or will be.

use jiff::Timestamp;

use super::Decision;
use crate::{outcome::CLOCK_TOLERANCE, partition::Entry, retry::Hold};

/// Decides about `entry` at `now`, where `hold` is that of its workspace. A wait that began after `now` was written by a
/// clock that has since been set back, and is void.
pub fn decide(entry: &Entry, hold: Option<&Hold>, now: Timestamp) -> Decision {
    if now < entry.partition.due_at {
        return Decision::NotDue { until: entry.partition.due_at };
    }
    if let Some(hold) = hold.filter(|hold| hold.is_believable(now)) {
        let until = hold.until_for(entry.partition.expires_at);
        if now < until {
            return Decision::Held { outcome: hold.outcome, until };
        }
    }
    match (entry.next_attempt_at, entry.last_attempt_at) {
        (Some(until), Some(last)) if now < until && last <= now + CLOCK_TOLERANCE => Decision::Backoff { until },
        _ => Decision::Fetch,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::SignedDuration;

    use super::*;
    use crate::{
        config::SourceKind,
        outcome::Outcome,
        plan::{
            LedgerView,
            fixtures::{daily, dates_to_fetch, recorded, report, utc},
            plan,
        },
    };

    #[test]
    fn a_hold_of_the_workspace_comes_before_the_backoff_of_the_partition() {
        let reports = [Arc::new(report(SourceKind::DailyDump, daily(8, 0), "UTC"))];
        let now = utc("2026-11-21T12:00:00Z");
        let mut view = recorded(LedgerView::default(), &plan(&reports, &LedgerView::default(), now));
        let until = utc("2026-11-21T12:05:00Z");
        view.entries[0].last_attempt_at = Some(now);
        view.entries[0].next_attempt_at = Some(until);
        assert_eq!(plan(&reports, &view, now).items[0].decision, Decision::Backoff { until });
        let later = utc("2026-11-21T13:00:00Z");
        view.holds.insert(
            "acme".into(),
            Hold { outcome: Outcome::Unauthorized, since: now, until: later, is_requested: false },
        );
        assert_eq!(
            plan(&reports, &view, now).items[0].decision,
            Decision::Held { outcome: Outcome::Unauthorized, until: later }
        );
        assert_eq!(plan(&reports, &view, later).items[0].decision, Decision::Fetch);
    }

    #[test]
    fn a_wait_that_began_after_the_present_is_void() {
        let reports = [Arc::new(report(SourceKind::CampaignReport, daily(9, 30), "UTC"))];
        let now = utc("2026-11-21T12:00:00Z");
        let mut view = recorded(LedgerView::default(), &plan(&reports, &LedgerView::default(), now));
        let future = utc("2106-01-01T00:00:00Z");
        for entry in &mut view.entries {
            entry.last_attempt_at = Some(future);
            entry.next_attempt_at = Some(future + SignedDuration::from_hours(1));
        }
        view.holds.insert(
            "acme".into(),
            Hold {
                outcome: Outcome::RateLimited,
                since: future,
                until: future + SignedDuration::from_hours(1),
                is_requested: true,
            },
        );
        assert_eq!(dates_to_fetch(&plan(&reports, &view, now)).len(), 7);
    }
}
