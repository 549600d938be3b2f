//! What work on partitions needs at hand: the edges, opened; the present; the keys; somebody who watches.
//!
//! This file owns no steps. It must not know what is done with any of it.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use tracing::warn;

use super::{Bulletin, Pulse, pace::Pace};
use crate::{
    config::{AlarmKind, Config, Report, Workspace},
    ledger::{Ledger, LedgerError},
    moengage,
    outcome::Outcome,
    plan::LedgerView,
    report::PartitionId,
    store::{Budget, Destination},
};

/// The present, and waiting for a later one. Tests have their own.
pub trait Clock: Send + Sync {
    /// The present instant.
    fn now(&self) -> Timestamp;
    /// Returns after `duration`.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one clock that the shell passes in")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// Somebody who watches downloads.
pub trait Progress: Send + Sync {
    /// A download of `total` bytes, where known, has begun.
    fn begin(&self, partition: &PartitionId, total: Option<u64>);
    /// `bytes` more have come.
    fn advance(&self, partition: &PartitionId, bytes: u64);
    /// The attempt is over.
    fn end(&self, partition: &PartitionId, outcome: Outcome);
}

/// Nobody watches.
impl Progress for () {
    fn begin(&self, _: &PartitionId, _: Option<u64>) {}
    fn advance(&self, _: &PartitionId, _: u64) {}
    fn end(&self, _: &PartitionId, _: Outcome) {}
}

/// Everything that work on partitions needs, wired once.
pub struct Context {
    /// The configuration in force.
    pub config: Arc<Config>,
    /// What is known.
    pub ledger: Ledger,
    /// The vendor.
    pub vendor: moengage::Client,
    /// The opened destinations, by name.
    pub destinations: HashMap<String, Destination>,
    /// The workspaces' keys.
    pub secrets: Secrets,
    /// The present.
    pub clock: Arc<dyn Clock>,
    /// Who watches.
    pub progress: Arc<dyn Progress>,
    pub(super) pace: Arc<Pace>,
    /// Whether the daemon's loop turns.
    pub pulse: Pulse,
    /// What the process has to say of itself.
    pub bulletin: Arc<Bulletin>,
    pub(super) skews: Skews,
    pub(super) budget: Budget,
    pub(super) holder: String,
    /// Names the ledger's place among all that share a destination.
    pub(super) place: String,
}

/// Skew against the vendor's `Date` beyond this is reported.
const REPORTED_SKEW: SignedDuration = SignedDuration::from_mins(1);

/// Skew below this is over.
const MENDED_SKEW: SignedDuration = SignedDuration::from_secs(30);

/// For how long an answer tells of the clocks.
const LONGEST_TRUST: SignedDuration = SignedDuration::from_hours(1);

/// What the clocks of the vendor's servers showed, by the server's URL: one that goes wrong says nothing of the others.
pub(super) type Skews = Mutex<HashMap<String, Skew>>;

/// What a server's last answer showed of the clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Skew {
    noted_at: Timestamp,
    ahead: SignedDuration,
}

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = self.ahead.abs();
        let by = by.round(jiff::Unit::Second).unwrap_or(by);
        let side = if self.ahead.is_positive() { "ahead of" } else { "behind" };
        write!(f, "the local clock is {by:#} {side} the vendor's")
    }
}

impl Context {
    /// Compares the clocks by the `Date` of an answer to a request of `report`.
    pub(super) fn note_vendor_date(&self, report: &Report, vendor_date: Option<Timestamp>) {
        let Some(vendor_date) = vendor_date else { return };
        let noted_at = self.clock.now();
        let ahead = noted_at.duration_since(vendor_date);
        let (skew, server) = (Skew { noted_at, ahead }, report.server());
        let before = self.skews.lock().unwrap_or_else(PoisonError::into_inner).insert(server.clone(), skew);
        if ahead.abs() > REPORTED_SKEW && before.is_none_or(|before| before.ahead.abs() <= REPORTED_SKEW) {
            warn!(
                skew_seconds = ahead.as_secs(),
                server, "{skew}; nothing is given up by it, but downloads may come late"
            );
        }
    }

    fn recent_skews(&self) -> Vec<(String, Skew)> {
        let now = self.clock.now();
        let skews = self.skews.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |skew: &Skew| now.duration_since(skew.noted_at).abs() <= LONGEST_TRUST;
        skews.iter().filter(|(_, skew)| is_recent(skew)).map(|(server, skew)| (server.clone(), *skew)).collect()
    }

    /// What is wrong with the process itself; nothing is said of what is not known at present.
    pub fn incidents(&self) -> BTreeMap<AlarmKind, Option<String>> {
        let raised = self.bulletin.incidents().into_iter().map(|(kind, message)| (kind, Some(message)));
        let mut incidents: BTreeMap<_, _> = raised.collect();
        match self.recent_skews().into_iter().max_by_key(|(_, skew)| skew.ahead.abs()) {
            Some((server, skew)) if skew.ahead.abs() > REPORTED_SKEW => {
                incidents.insert(AlarmKind::Clock, Some(format!("{skew} ({server})")));
            }
            // Near the threshold it would begin and end with every answer.
            Some((_, skew)) if skew.ahead.abs() > MENDED_SKEW => {
                incidents.insert(AlarmKind::Clock, None);
            }
            Some(_) => {}
            None => {
                incidents.insert(AlarmKind::Clock, None);
            }
        }
        incidents
    }

    /// What a plan depends on, at `now`: what `ledger` knows, and by how much the local clock is ahead of the servers that
    /// have shown it lately. The clock may have been set since.
    ///
    /// # Errors
    ///
    /// When the ledger refuses.
    pub async fn view(&self, ledger: &Ledger, now: Timestamp) -> Result<LedgerView, LedgerError> {
        let recent = self.recent_skews().into_iter().map(|(server, skew)| (server, skew.ahead));
        let clock_ahead: HashMap<_, _> = recent.filter(|(_, ahead)| *ahead > REPORTED_SKEW).collect();
        let most = clock_ahead.values().max().copied().unwrap_or_default();
        let earliest = now.checked_sub(most).unwrap_or(now);
        Ok(LedgerView { clock_ahead, ..ledger.view(earliest).await? })
    }
}

/// The workspaces' keys, read when first needed and again after the vendor refused one: a mended key heals by itself.
#[derive(Default)]
pub struct Secrets {
    known: Mutex<HashMap<(String, Purpose), SecretString>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Purpose {
    Archives,
    Apis,
}

impl Secrets {
    /// The key that signs archive requests of `workspace`.
    ///
    /// # Errors
    ///
    /// What is wrong with its file or variable.
    pub fn secret_key(&self, workspace: &Workspace) -> Result<SecretString, String> {
        self.read(workspace, Purpose::Archives)
    }

    /// The password of `workspace` for the JSON APIs.
    ///
    /// # Errors
    ///
    /// What is wrong with its file or variable.
    pub fn api_key(&self, workspace: &Workspace) -> Result<SecretString, String> {
        self.read(workspace, Purpose::Apis)
    }

    fn read(&self, workspace: &Workspace, purpose: Purpose) -> Result<SecretString, String> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (workspace.name.clone(), purpose);
        if let Some(secret) = known.get(&key) {
            return Ok(secret.clone());
        }
        let (source, what) = match purpose {
            Purpose::Archives => (&workspace.secret_key, "secret key"),
            Purpose::Apis => (&workspace.api_key, "API key"),
        };
        let secret =
            source.resolve().map_err(|problem| format!("the {what} of workspace `{}`: {problem}", workspace.name))?;
        known.insert(key, secret.clone());
        Ok(secret)
    }

    pub(super) fn forget(&self, workspace: &str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).retain(|(name, _), _| name != workspace);
    }
}
