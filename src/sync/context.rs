//! Everything that work on partitions needs, wired once: configuration, ledger, destinations, keys, clocks.
//!
//! This file owns no steps. It must not know what is done with any of it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use jiff::Timestamp;

use super::{
    clock::Clock,
    load::Load,
    planned::Publication,
    process_status::ProcessStatus,
    pulse::Pulse,
    secrets::Secrets,
    server_clocks::{ClockAlarm, ServerClocks},
};
use crate::{
    alarm_kind::AlarmKind,
    config::{Config, Report},
    ledger::{Ledger, LedgerError},
    moengage,
    plan::{LedgerView, Reach},
    report::{PartitionId, ReportId},
    store::{Budget, Destination},
};

/// Receives download progress.
pub trait Progress: Send + Sync {
    /// So many partitions are to be attempted in all.
    fn expect(&self, _partitions: usize) {}
    /// A download of `total` bytes, where known, has begun.
    fn begin(&self, partition: &PartitionId, total: Option<u64>);
    /// `bytes` more have arrived.
    fn advance(&self, partition: &PartitionId, bytes: u64);
    /// The attempt is over, successful or not.
    fn end(&self, partition: &PartitionId);
}

/// No progress output.
impl Progress for () {
    fn begin(&self, _: &PartitionId, _: Option<u64>) {}
    fn advance(&self, _: &PartitionId, _: u64) {}
    fn end(&self, _: &PartitionId) {}
}

/// A configured report whose destination is open.
#[derive(Clone)]
pub struct OpenReport {
    /// The report.
    pub report: Arc<Report>,
    /// Its destination.
    pub destination: Destination,
}

/// Everything that work on partitions needs.
pub struct Context {
    /// The configuration in force.
    pub config: Arc<Config>,
    /// The ledger.
    pub ledger: Ledger,
    /// The client of MoEngage.
    pub vendor: moengage::Client,
    /// The opened destinations, by name.
    pub destinations: BTreeMap<String, Destination>,
    /// The configured reports.
    pub reports: HashMap<ReportId, OpenReport>,
    /// The workspaces' keys.
    pub secrets: Secrets,
    /// The local clock.
    pub clock: Arc<dyn Clock>,
    /// Receives download progress.
    pub progress: Arc<dyn Progress>,
    /// Whether the daemon's loop still runs.
    pub pulse: Pulse,
    /// The loop's last plan, for page, metrics, probes and notifications. Shared by the contexts of one ledger.
    pub planned: Publication,
    /// Alarms about the process. Shared by the contexts of one ledger.
    pub status: Arc<ProcessStatus>,
    pub(super) server_clocks: Arc<ServerClocks>,
    /// Shared by the contexts of one ledger.
    pub(super) load: Load,
    pub(super) budget: Budget,
    /// This process, as it holds claims.
    pub(super) holder: String,
    /// This ledger, among all whose processes share a destination. Holders' names begin with it.
    pub(super) place: String,
}

impl Context {
    /// The alarms about the process: each with its message, or `None` where it stays as it was. An alarm that is not in the
    /// map has ended.
    pub fn incidents(&self) -> BTreeMap<AlarmKind, Option<String>> {
        let raised = self.status.incidents().into_iter().map(|(kind, message)| (kind, Some(message)));
        let clock = match self.server_clocks.alarm() {
            ClockAlarm::Raised(message) => Some((AlarmKind::Clock, Some(message))),
            ClockAlarm::Undetermined => Some((AlarmKind::Clock, None)),
            ClockAlarm::Ended => None,
        };
        raised.chain(clock).collect()
    }

    /// Number of attempts that run.
    pub fn attempts_in_flight(&self) -> usize {
        self.load.running()
    }

    /// Whether both work with the ledger as it was opened once: each opening has its own holder.
    pub(super) fn has_ledger_of(&self, other: &Context) -> bool {
        self.holder == other.holder
    }

    /// What a plan at `now` depends on: the contents of `ledger`, and by how much the local clock is ahead of the servers
    /// that have confirmed it. A clock that is ahead may have been set since the ledger was written.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read or written.
    pub async fn view(&self, ledger: &Ledger, now: Timestamp) -> Result<LedgerView, LedgerError> {
        let clock_ahead = self.server_clocks.confirmed_ahead();
        let most = clock_ahead.values().max().copied().unwrap_or_default();
        let earliest = now.checked_sub(most).unwrap_or(now);
        Ok(LedgerView { clock_ahead, ..ledger.view(&Reach::of(&self.config.reports, earliest, now)).await? })
    }
}
