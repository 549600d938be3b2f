//! What work on partitions needs: the open edges, the clock, the keys, the progress output.
//!
//! This file owns no steps. It must not know what is done with any of it.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret as _, SecretString};
use tracing::warn;

use super::{clock::Clock, pace::Pace, planned::Publication, process_status::ProcessStatus, pulse::Pulse};
use crate::{
    alarm_kind::AlarmKind,
    config::{Config, Report, SourceKind, Workspace},
    ledger::{Ledger, LedgerError},
    lock::lock,
    moengage,
    outcome::{CLOCK_TOLERANCE, Failure, Outcome},
    plan::{LedgerView, Reach},
    report::{PartitionId, ReportId},
    store::{Budget, Destination},
};

/// Receives download progress.
pub trait Progress: Send + Sync {
    /// A download of `total` bytes, where known, has begun.
    fn begin(&self, partition: &PartitionId, total: Option<u64>);
    /// `bytes` more have come.
    fn advance(&self, partition: &PartitionId, bytes: u64);
    /// The attempt is over, however it ended.
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
    /// The configured reports.
    pub reports: HashMap<ReportId, OpenReport>,
    /// The workspaces' keys.
    pub secrets: Secrets,
    /// The present.
    pub clock: Arc<dyn Clock>,
    /// Receives download progress.
    pub progress: Arc<dyn Progress>,
    pub(super) pace: Arc<Pace>,
    /// Whether the daemon's loop turns.
    pub pulse: Pulse,
    /// The last plan, for all who show or notify. Shared by the contexts of one ledger.
    pub planned: Publication,
    /// What the process has to say of itself.
    pub status: Arc<ProcessStatus>,
    pub(super) skews: Arc<Skews>,
    pub(super) budget: Budget,
    pub(super) holder: String,
    /// Names the ledger's place among all that share a destination.
    pub(super) place: String,
}

/// Skew against the vendor's `Date` beyond this is reported.
const REPORTED_SKEW: SignedDuration = CLOCK_TOLERANCE;

/// Skew below this is over.
const SKEW_CLEARED: SignedDuration = SignedDuration::from_secs(30);

/// How long a measured skew stays valid.
const SKEW_MAX_AGE: SignedDuration = SignedDuration::from_hours(1);

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
        now.duration_since(self.noted_at).abs() <= SKEW_MAX_AGE
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
        let mut skews = lock(&self.skews);
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
        let skews = lock(&self.skews);
        skews.get(&report.server()).is_some_and(|skew| skew.is_recent(self.clock.now()) && skew.is_confirmed())
    }

    /// Whether the last answer of some server showed a difference between the clocks that was not confirmed yet: what
    /// the present is will be known by the next ones.
    pub(super) fn is_present_in_doubt(&self) -> bool {
        self.recent_skews().iter().any(|(_, skew)| skew.is_reported() && !skew.is_confirmed())
    }

    fn recent_skews(&self) -> Vec<(String, Skew)> {
        let now = self.clock.now();
        let skews = lock(&self.skews);
        skews.iter().filter(|(_, skew)| skew.is_recent(now)).map(|(server, skew)| (server.clone(), *skew)).collect()
    }

    /// What is wrong with the process itself; nothing is said of what is not known at present.
    pub fn incidents(&self) -> BTreeMap<AlarmKind, Option<String>> {
        let raised = self.status.incidents().into_iter().map(|(kind, message)| (kind, Some(message)));
        let mut incidents: BTreeMap<_, _> = raised.collect();
        match self.recent_skews().into_iter().max_by_key(|(_, skew)| skew.ahead.abs()) {
            Some((server, skew)) if skew.is_reported() => {
                incidents.insert(AlarmKind::Clock, Some(format!("{skew} ({server})")));
            }
            // Near the threshold it would begin and end with every answer.
            Some((_, skew)) if skew.ahead.abs() > SKEW_CLEARED => {
                incidents.insert(AlarmKind::Clock, None);
            }
            Some(_) => {}
            None => {
                incidents.insert(AlarmKind::Clock, None);
            }
        }
        incidents
    }

    /// Whether both have the ledger as it was opened once; each opening has a holder of its own.
    pub(super) fn has_ledger_of(&self, other: &Context) -> bool {
        self.holder == other.holder
    }

    /// What a plan depends on, at `now`: what `ledger` knows, and by how much the local clock is ahead of the servers
    /// whose answers have confirmed it lately. The clock may have been set since.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read or written.
    pub async fn view(&self, ledger: &Ledger, now: Timestamp) -> Result<LedgerView, LedgerError> {
        let confirmed = self.recent_skews().into_iter().filter(|(_, skew)| skew.is_confirmed());
        let ahead = confirmed.map(|(server, skew)| (server, skew.ahead));
        let clock_ahead: HashMap<_, _> = ahead.filter(|(_, ahead)| *ahead > REPORTED_SKEW).collect();
        let most = clock_ahead.values().max().copied().unwrap_or_default();
        let earliest = now.checked_sub(most).unwrap_or(now);
        Ok(LedgerView { clock_ahead, ..ledger.view(&Reach::of(&self.config.reports, earliest, now)).await? })
    }
}

/// The workspaces' keys. One is read when it is first needed, and again after MoEngage has refused it: a key that is
/// replaced, or corrected, takes effect without a restart.
#[derive(Default)]
pub struct Secrets {
    known: Mutex<HashMap<(String, Purpose), Slot>>,
}

/// How long the reading of a key may take. An attempt that waits for a file that hangs takes a place of its workspace.
const LONGEST_READING: Duration = Duration::from_secs(10);

/// One key.
#[derive(Default)]
struct Slot {
    secret: Option<SecretString>,
    /// Held while it is read: a file that hangs keeps one thread, and of many attempts that were refused one reads.
    reading: Arc<tokio::sync::Mutex<()>>,
}

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    /// It signs requests for archives.
    Archives,
    /// It is the password of the JSON APIs.
    Apis,
}

impl Purpose {
    pub(super) fn of(source: SourceKind) -> Self {
        if source.is_archive() { Purpose::Archives } else { Purpose::Apis }
    }
}

impl Secrets {
    /// The key that signs archive requests of `workspace`.
    ///
    /// # Errors
    ///
    /// What is wrong with its file or variable.
    pub async fn secret_key(&self, workspace: &Workspace) -> Result<SecretString, String> {
        self.key(workspace, Purpose::Archives).await
    }

    /// The password of `workspace` for the JSON APIs.
    ///
    /// # Errors
    ///
    /// What is wrong with its file or variable.
    pub async fn api_key(&self, workspace: &Workspace) -> Result<SecretString, String> {
        self.key(workspace, Purpose::Apis).await
    }

    pub(super) async fn key(&self, workspace: &Workspace, purpose: Purpose) -> Result<SecretString, String> {
        self.read(workspace, purpose, |_| true).await
    }

    /// The key in place of `refused`, which MoEngage has refused; `None` when its source still says the same.
    ///
    /// # Errors
    ///
    /// What is wrong with its file or variable: that it cannot be read is no refusal, a key is being replaced.
    pub(super) async fn renewed(
        &self,
        workspace: &Workspace,
        purpose: Purpose,
        refused: &SecretString,
    ) -> Result<Option<SecretString>, String> {
        let is_another = |secret: &SecretString| secret.expose_secret() != refused.expose_secret();
        let secret = self.read(workspace, purpose, is_another).await?;
        Ok(Some(secret).filter(is_another))
    }

    /// The key that is known, if it is good enough, else what its source says.
    async fn read(
        &self,
        workspace: &Workspace,
        purpose: Purpose,
        is_good: impl Fn(&SecretString) -> bool,
    ) -> Result<SecretString, String> {
        let known = || {
            self.with_slot(workspace, purpose, |slot| {
                (slot.secret.clone().filter(|secret| is_good(secret)), Arc::clone(&slot.reading))
            })
        };
        let (secret, reading) = known();
        if let Some(secret) = secret {
            return Ok(secret);
        }
        let (source, what) = match purpose {
            Purpose::Archives => (workspace.secret_key.clone(), "secret key"),
            Purpose::Apis => (workspace.api_key.clone(), "API key"),
        };
        let read = async {
            let reading = reading.lock_owned().await;
            // Another attempt may have read it meanwhile.
            if let (Some(secret), _) = known() {
                return Ok(secret);
            }
            let read = tokio::task::spawn_blocking(move || {
                let read = source.resolve();
                drop(reading);
                read
            });
            let secret = match read.await {
                Ok(read) => read.map_err(|error| error.to_string())?,
                Err(failure) => return Err(failure.to_string()),
            };
            self.with_slot(workspace, purpose, |slot| slot.secret = Some(secret.clone()));
            Ok(secret)
        };
        let read = tokio::time::timeout(LONGEST_READING, read).await;
        let read = read.unwrap_or_else(|_| Err(format!("it could not be read within {LONGEST_READING:?}")));
        read.map_err(|problem| format!("the {what} of workspace `{}`: {problem}", workspace.name))
    }

    pub(super) fn forget(&self, workspace: &str) {
        let mut known = lock(&self.known);
        for (_, slot) in known.iter_mut().filter(|((name, _), _)| name == workspace) {
            slot.secret = None;
        }
    }

    fn with_slot<T>(&self, workspace: &Workspace, purpose: Purpose, act: impl FnOnce(&mut Slot) -> T) -> T {
        let mut known = lock(&self.known);
        act(known.entry((workspace.name.clone(), purpose)).or_default())
    }
}

/// A refusal of a key that could not be read again: it is being replaced, most likely, so it is no refusal of the
/// workspace.
pub(super) fn unreadable(refusal: Failure, problem: &str) -> Failure {
    let message = format!("{}; and the key cannot be read again at the moment: {problem}", refusal.message);
    Failure { outcome: Outcome::Unavailable, message, ..refusal }
}
