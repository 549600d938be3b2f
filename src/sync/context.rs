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
    outcome::CLOCK_TOLERANCE,
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
    /// The attempt is over, however it ended.
    fn end(&self, partition: &PartitionId);
}

/// Nobody watches.
impl Progress for () {
    fn begin(&self, _: &PartitionId, _: Option<u64>) {}
    fn advance(&self, _: &PartitionId, _: u64) {}
    fn end(&self, _: &PartitionId) {}
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
    pub(super) skews: Arc<Skews>,
    pub(super) budget: Budget,
    pub(super) holder: String,
    /// Names the ledger's place among all that share a destination.
    pub(super) place: String,
}

/// Skew against the vendor's `Date` beyond this is reported.
const REPORTED_SKEW: SignedDuration = CLOCK_TOLERANCE;

/// Skew below this is over.
const MENDED_SKEW: SignedDuration = SignedDuration::from_secs(30);

/// For how long an answer tells of the clocks.
const LONGEST_TRUST: SignedDuration = SignedDuration::from_hours(1);

/// A skew is confirmed by an answer that shows it again this long after the first, with none in between that shows
/// another. One answer with an odd `Date` must not change what is planned.
const CONFIRMED_AFTER: SignedDuration = SignedDuration::from_mins(1);

/// What the clocks of the vendor's servers showed, by the server's URL: one that goes wrong says nothing of the others.
pub(super) type Skews = Mutex<HashMap<String, Skew>>;

/// What a server's last answers showed of the clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Skew {
    /// By the first of the answers that showed this skew, one after the other.
    since: Timestamp,
    /// By the last one.
    noted_at: Timestamp,
    ahead: SignedDuration,
}

impl Skew {
    /// What is known after an answer at `now`.
    fn next(before: Option<Skew>, now: Timestamp, ahead: SignedDuration) -> Skew {
        let is_again = |before: &Skew| {
            before.is_recent(now) && before.noted_at <= now && (before.ahead - ahead).abs() <= CLOCK_TOLERANCE
        };
        Skew { since: before.filter(is_again).map_or(now, |before| before.since), noted_at: now, ahead }
    }

    fn is_recent(&self, now: Timestamp) -> bool {
        now.duration_since(self.noted_at).abs() <= LONGEST_TRUST
    }

    fn is_reported(&self) -> bool {
        self.ahead.abs() > REPORTED_SKEW
    }

    fn is_confirmed(&self) -> bool {
        self.noted_at.duration_since(self.since) >= CONFIRMED_AFTER
    }
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
        let now = self.clock.now();
        let ahead = now.duration_since(vendor_date);
        let server = report.server();
        let mut skews = self.skews.lock().unwrap_or_else(PoisonError::into_inner);
        let before = skews.get(&server).copied();
        let skew = Skew::next(before, now, ahead);
        skews.insert(server.clone(), skew);
        drop(skews);
        if skew.is_reported() && before.is_none_or(|before| !before.is_reported()) {
            warn!(
                skew_seconds = ahead.as_secs(),
                server, "{skew}; no partition ends as absent or lost while they differ, and downloads may come late"
            );
        }
    }

    /// Whether the difference between the clocks that the last answer from the server of `report` showed was confirmed.
    pub(super) fn is_skew_confirmed(&self, report: &Report) -> bool {
        let skews = self.skews.lock().unwrap_or_else(PoisonError::into_inner);
        skews.get(&report.server()).is_some_and(|skew| skew.is_recent(self.clock.now()) && skew.is_confirmed())
    }

    /// Whether the last answer of some server showed a difference between the clocks that was not confirmed yet: what
    /// the present is will be known by the next ones.
    pub(super) fn is_present_in_doubt(&self) -> bool {
        self.recent_skews().iter().any(|(_, skew)| skew.is_reported() && !skew.is_confirmed())
    }

    fn recent_skews(&self) -> Vec<(String, Skew)> {
        let now = self.clock.now();
        let skews = self.skews.lock().unwrap_or_else(PoisonError::into_inner);
        skews.iter().filter(|(_, skew)| skew.is_recent(now)).map(|(server, skew)| (server.clone(), *skew)).collect()
    }

    /// What is wrong with the process itself; nothing is said of what is not known at present.
    pub fn incidents(&self) -> BTreeMap<AlarmKind, Option<String>> {
        let raised = self.bulletin.incidents().into_iter().map(|(kind, message)| (kind, Some(message)));
        let mut incidents: BTreeMap<_, _> = raised.collect();
        match self.recent_skews().into_iter().max_by_key(|(_, skew)| skew.ahead.abs()) {
            Some((server, skew)) if skew.is_reported() => {
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

    /// What a plan depends on, at `now`: what `ledger` knows, and by how much the local clock is ahead of the servers whose
    /// answers have confirmed it lately. The clock may have been set since.
    ///
    /// # Errors
    ///
    /// When the ledger refuses.
    pub async fn view(&self, ledger: &Ledger, now: Timestamp) -> Result<LedgerView, LedgerError> {
        let confirmed = self.recent_skews().into_iter().filter(|(_, skew)| skew.is_confirmed());
        let ahead = confirmed.map(|(server, skew)| (server, skew.ahead));
        let clock_ahead: HashMap<_, _> = ahead.filter(|(_, ahead)| *ahead > REPORTED_SKEW).collect();
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
