//! The order of a plan's items, and the probe of a workspace on hold.

use std::collections::HashMap;

use jiff::Timestamp;

use super::{Decision, Item, LedgerView};
use crate::{outcome::Outcome, report::PartitionId};

/// A smaller value comes first.
type Urgency = (u8, Timestamp);

/// Sorts `items` by urgency.
///
/// In a workspace whose key was refused, one partition is the probe and takes the position of the most urgent one: the one
/// whose last attempt is the oldest. Archives and JSON APIs may have different keys; in this way both are probed in turn.
pub(super) fn sort(items: &mut [Item], ledger: &LedgerView, now: Timestamp) {
    let probes = probes(items, ledger, now);
    items.sort_by_cached_key(|item| {
        let partition = &item.entry.partition;
        let probe = probes.get(partition.id.workspace()).filter(|(id, _)| *id == partition.id);
        let (is_behind, urgency) = probe.map_or_else(|| (true, urgency(item, now)), |(_, first)| (false, *first));
        (urgency, is_behind, partition.generated_at, partition.id.clone())
    });
}

fn urgency(item: &Item, now: Timestamp) -> Urgency {
    let expiry = item.entry.partition.expires_at.unwrap_or(Timestamp::MAX);
    match item.decision {
        // An expired partition loses nothing by waiting for one that is about to expire.
        Decision::Fetch if expiry > now => (0, expiry),
        Decision::Fetch | Decision::Refresh => (1, expiry),
        decision => (2, decision.until().unwrap_or(Timestamp::MAX)),
    }
}

/// The probe of each workspace whose key was refused, and the urgency of the workspace's most urgent partition.
fn probes(items: &[Item], ledger: &LedgerView, now: Timestamp) -> HashMap<String, (PartitionId, Urgency)> {
    let refused = ledger.holds.iter().filter(|(_, hold)| hold.outcome == Outcome::Unauthorized);
    let probe = |workspace: &str| {
        let is_requested = |item: &&Item| {
            item.entry.partition.id.workspace() == workspace
                && matches!(item.decision, Decision::Fetch | Decision::Refresh)
        };
        let requested = || items.iter().filter(is_requested);
        let order = |item: &&Item| (item.entry.last_attempt_at, urgency(item, now), item.entry.partition.generated_at);
        let probe = requested().min_by_key(order)?.entry.partition.id.clone();
        Some((probe, requested().map(|item| urgency(item, now)).min()?))
    };
    refused.filter_map(|(workspace, _)| Some((workspace.clone(), probe(workspace)?))).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::{SignedDuration, civil, civil::time};

    use super::*;
    use crate::{
        config::{Schedule, SourceKind},
        plan::{
            fixtures::{daily, recorded, report, utc},
            plan,
        },
        report::ReportId,
        retry::Hold,
    };

    #[test]
    fn after_a_week_of_downtime_partitions_of_all_reports_are_ordered_by_expiry() {
        let mut weekly = report(
            SourceKind::CampaignReport,
            Schedule::Weekly { on: vec![civil::Weekday::Monday], at: time(7, 0, 0, 0) },
            "UTC",
        );
        weekly.id = ReportId::new("acme", "weekly");
        let mut listing = report(SourceKind::Campaigns, daily(6, 0), "UTC");
        listing.id = ReportId::new("acme", "listing");
        let daily = report(SourceKind::CampaignReport, daily(9, 30), "UTC");
        let reports = [Arc::new(daily), Arc::new(weekly), Arc::new(listing)];
        let plan = plan(&reports, &LedgerView::default(), utc("2026-11-21T12:00:00Z"));
        let expiries: Vec<_> = plan.items.iter().take(9).map(|item| item.entry.partition.expires_at).collect();
        assert!(expiries.is_sorted());
        let first: Vec<_> = plan.items.iter().take(3).map(|item| item.entry.partition.id.report.name()).collect();
        assert_eq!(first, ["listing", "daily", "weekly"], "the listing was made last and expires first");
    }

    #[test]
    fn after_a_refusal_the_partition_with_the_oldest_attempt_is_the_probe() {
        let now = utc("2026-11-21T12:00:00Z");
        let mut listing = report(SourceKind::Campaigns, daily(6, 0), "UTC");
        listing.id = ReportId::new("acme", "listing");
        let reports = [Arc::new(listing), Arc::new(report(SourceKind::CampaignReport, daily(9, 30), "UTC"))];
        let mut view = recorded(LedgerView::default(), &plan(&reports, &LedgerView::default(), now));
        assert_eq!(
            plan(&reports, &view, now).items[0].entry.partition.id.report.name(),
            "listing",
            "the first to expire"
        );
        let refused = now - SignedDuration::from_hours(1);
        for entry in view.entries.iter_mut().filter(|entry| entry.partition.id.report.name() == "listing") {
            entry.last_attempt_at = Some(refused);
        }
        let hold = Hold { outcome: Outcome::Unauthorized, since: refused, until: now, is_requested: false };
        view.holds.insert("acme".into(), hold);
        assert_eq!(plan(&reports, &view, now).items[0].entry.partition.id.report.name(), "daily");
    }
}
