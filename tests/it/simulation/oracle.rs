//! What must hold, whatever was injected.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp, ToSpan as _, civil::Date};
use moesync::{
    alarm::Subject,
    alarm_kind::AlarmKind,
    config::{Report, SourceKind},
    outcome::Outcome,
    partition::{Entry, Settled},
    report::{PartitionId, manifest_key},
    store::Manifest,
};
use sha2::{Digest as _, Sha256};

use super::{
    store::is_final,
    vendor::{Received, Truth},
    weather::{HOUR, StoreFault, VendorFault, Window},
    world::World,
};

/// With everything in order for so long, a published partition is stored: the longest wait is an hour and a quarter, an
/// attempt at a destination that has stopped answering takes an hour, and one answer may fail.
const LONG_ENOUGH: SignedDuration = SignedDuration::from_hours(4);

/// How long after a fault it still has an effect.
const AFTERMATH: Duration = Duration::from_secs(90 * 60);

/// A partition that the vendor may have.
struct Expected {
    report: Arc<Report>,
    truth: Arc<Truth>,
    /// From then on it has to be stored, because everything was in order for long enough.
    stored_by: Option<Timestamp>,
    is_checked: bool,
}

pub struct Oracle {
    expected: Vec<Expected>,
    /// Those without an alarm when it last looked.
    uncovered: BTreeSet<PartitionId>,
    pub violations: Vec<String>,
}

impl Oracle {
    pub fn new(world: &World) -> Self {
        let mut expected = Vec::new();
        for report in &world.config.reports {
            let day = |at: Timestamp| report.timezone.to_datetime(at).date();
            let (first, last) = (day(world.epoch - 10 * 24 * HOUR), day(world.calm_from + 10 * 24 * HOUR));
            for date in first.series(1.day()).take_while(|date| *date <= last) {
                let Some(truth) = world.vendor.truth(report, date) else { continue };
                let stored_by = stored_by(world, report, &truth);
                expected.push(Expected { report: Arc::clone(report), truth, stored_by, is_checked: false });
            }
        }
        Self { expected, uncovered: BTreeSet::new(), violations: Vec::new() }
    }

    fn violated(&mut self, world: &World, what: String) {
        world.trace(format!("VIOLATION: {what}"));
        self.violations.push(format!("{:.0}: {what}", world.clock.true_now()));
    }

    /// The objects under final names, by destination and key.
    pub async fn objects(&self, world: &World) -> BTreeMap<(String, String), Bytes> {
        let mut objects = BTreeMap::new();
        for (name, store) in &world.stores {
            let all = store.objects().await.into_iter().filter(|(key, _)| is_final(key));
            objects.extend(all.map(|(key, bytes)| ((name.to_string(), key), bytes)));
        }
        objects
    }

    /// What must hold at any time while the daemon runs. The alarms have just been evaluated.
    pub async fn check(&mut self, world: &World) {
        let Some(process) = &world.process else { return };
        let now = world.clock.true_now();
        let mut wrong = Vec::new();
        for expected in self.expected.iter_mut().filter(|expected| !expected.is_checked) {
            if expected.stored_by.is_some_and(|by| by <= now) {
                expected.is_checked = true;
                if !expected.is_stored(world).await {
                    wrong.push(format!("{} should be stored", expected.name()));
                }
            }
        }
        let ledger = &process.ctx.ledger;
        let open_or_lost = ledger.open_or_lost(Date::MIN).await.unwrap();
        for entry in &open_or_lost {
            wrong.extend(excessive_wait(entry));
        }
        let alarms: BTreeSet<_> = ledger.notified("").await.unwrap().into_keys().collect();
        for entry in open_or_lost.iter().filter(|entry| entry.settled == Settled::Lost) {
            let id = &entry.partition.id;
            let subject = Subject { date: Some(id.date), ..subject(id.workspace(), Some(id.report.name())) };
            if !alarms.contains(&(AlarmKind::Lost, subject)) {
                wrong.push(format!("{id} is lost without an alarm"));
            }
        }
        if !is_clock_right(world) {
            wrong.extend(self.ended_early(world, &ledger.entries().await.unwrap(), now));
        }
        let uncovered = self.uncovered(world).await;
        wrong.extend(uncovered.into_iter().filter(|(id, _)| self.uncovered.contains(id)).map(|(_, what)| what));
        wrong.into_iter().for_each(|what| self.violated(world, what));
    }

    /// Notes which partitions have no alarm yet, some time before [`check`](Self::check). The alarms have just been evaluated.
    pub async fn look(&mut self, world: &World) {
        self.uncovered = self.uncovered(world).await.into_keys().collect();
    }

    /// Partitions that are late without an alarm, in words. An alarm waits for an attempt in progress: it may come later.
    async fn uncovered(&self, world: &World) -> BTreeMap<PartitionId, String> {
        let (now, mut uncovered) = (world.clock.true_now(), BTreeMap::new());
        let Some(process) = &world.process else { return uncovered };
        let is_settled_in = now.duration_since(process.started_at) > SignedDuration::from_hours(2);
        if !is_settled_in || !is_clock_right(world) {
            return uncovered;
        }
        let ledger = &process.ctx.ledger;
        let alarms: BTreeSet<_> = ledger.notified("").await.unwrap().into_keys().collect();
        for expected in &self.expected {
            let Truth { partition, .. } = &*expected.truth;
            let late_from = partition.due_at + SignedDuration::from_hours(8);
            if now < late_from || now > partition.generated_at + 7 * 24 * HOUR || expected.is_stored(world).await {
                continue;
            }
            let what = match ledger.entry_of(&partition.id).await.unwrap() {
                None if partition.source != SourceKind::DailyDump => "is missing in the ledger".to_owned(),
                Some(entry) if entry.settled == Settled::Open && !entry.requested_late => {
                    let (workspace, report) = (partition.id.workspace(), partition.id.report.name());
                    let destination = Some(expected.report.destination.name.clone());
                    let covering = [
                        (AlarmKind::Expiring, subject(workspace, Some(report))),
                        (AlarmKind::Unauthorized, subject(workspace, None)),
                        (AlarmKind::StoreFailed, Subject { destination, ..Subject::default() }),
                    ];
                    if covering.iter().any(|key| alarms.contains(key)) {
                        continue;
                    }
                    format!("is late without an alarm: {entry:?}")
                }
                _ => continue,
            };
            uncovered.insert(partition.id.clone(), format!("{} {what}", expected.name()));
        }
        uncovered
    }

    /// What must hold after the calm.
    pub async fn check_end(&mut self, world: &World) {
        let Some(process) = &world.process else { return };
        let (now, ledger) = (world.clock.true_now(), &process.ctx.ledger);
        let mut wrong = Vec::new();
        for (kind, subject) in ledger.notified("").await.unwrap().into_keys() {
            if kind != AlarmKind::Lost && !self.is_late_yet(world, &subject).await {
                wrong.push(format!("the alarm {kind} has not ended: {subject:?}"));
            }
        }
        for (kind, message) in process.ctx.incidents() {
            wrong.extend(message.map(|message| format!("the incident {kind} has not ended: {message}")));
        }
        let objects = self.objects(world).await;
        for ((store, key), bytes) in &objects {
            wrong.extend(self.wrong_object(world, store, key, bytes).await);
        }
        let received = world.vendor.received();
        for entry in ledger.entries().await.unwrap() {
            let id = &entry.partition.id;
            let Some(expected) = self.expected_of(&entry) else { continue };
            match entry.settled {
                Settled::Stored => {
                    let object = entry.object.as_ref().unwrap();
                    let bytes = objects.get(&(expected.report.destination.name.clone(), object.key.clone()));
                    if bytes.map(|bytes| hex::encode(Sha256::digest(bytes))).as_ref() != Some(&object.sha256) {
                        wrong.push(format!("{id} is recorded as stored, with another object"));
                    }
                }
                Settled::Absent => wrong.extend(wrongly_absent(expected, &entry, &received)),
                Settled::Lost if is_before_end(&entry, now) => {
                    wrong.push(format!("{id} is lost before its end"));
                }
                Settled::Open
                    if now.duration_since(entry.partition.generated_at) > SignedDuration::from_hours(8 * 24) =>
                {
                    wrong.push(format!("{id} is still open: {entry:?}"));
                }
                Settled::Lost | Settled::Open => {}
            }
        }
        for expected in &self.expected {
            let held = expected.objects(&objects).count();
            if held > 1 && expected.truth.restated_at.is_none() {
                wrong.push(format!("{} is stored {held} times", expected.name()));
            }
        }
        wrong.into_iter().for_each(|what| self.violated(world, what));
    }

    /// After another start, nothing is fetched again, nothing is stored again, nothing is left.
    pub async fn check_restart(&mut self, world: &World, requests: usize, before: &BTreeMap<(String, String), Bytes>) {
        let mut wrong = Vec::new();
        let received = world.vendor.received();
        for request in &received[requests.min(received.len())..] {
            let stored = self.expected.iter().find(|expected| expected.is_asked_by(request));
            if let Some(expected) = stored.filter(|expected| expected.objects(before).next().is_some()) {
                wrong.push(format!("{} was requested again after a start", expected.name()));
            }
        }
        let after = self.objects(world).await;
        for key in before.keys().filter(|key| !after.contains_key(*key)) {
            wrong.push(format!("{key:?} is gone after a start"));
        }
        let Some(process) = &world.process else { return };
        for expected in &self.expected {
            let is_stored = expected.objects(&after).next().is_some();
            let entry = process.ctx.ledger.entry_of(&expected.truth.partition.id).await.unwrap();
            if is_stored && entry.is_none_or(|entry| entry.settled != Settled::Stored) {
                wrong.push(format!("{} is not recorded as stored after a start", expected.name()));
            }
        }
        for (name, store) in &world.stores {
            let staged = store.objects().await.into_iter().filter(|(key, _)| key.starts_with("_staging/"));
            wrong.extend(staged.map(|(key, _)| format!("{name}: {key} is left after a start")));
        }
        wrong.into_iter().for_each(|what| self.violated(world, what));
    }

    /// Partitions that ended before their end by the vendor's clock, unless its answer had a `Date` ahead of it.
    fn ended_early(&self, world: &World, entries: &[Entry], now: Timestamp) -> Vec<String> {
        let is_early =
            |entry: &&Entry| matches!(entry.settled, Settled::Absent | Settled::Lost) && is_before_end(entry, now);
        let was_misled = |expected: &Expected| {
            world.vendor.received().iter().any(|request| {
                let is_ahead = matches!(request.fault, Some(VendorFault::OddDate(by)) if by.is_positive());
                is_ahead && expected.is_asked_by(request)
            })
        };
        let early = entries.iter().filter(is_early);
        early
            .filter(|entry| self.expected_of(entry).is_some_and(|expected| !was_misled(expected)))
            .map(|entry| format!("{} is {:?} before its end", entry.partition.id, entry.settled))
            .collect()
    }

    fn expected_of(&self, entry: &Entry) -> Option<&Expected> {
        self.expected.iter().find(|expected| expected.truth.partition.id == entry.partition.id)
    }

    /// Whether an alarm may be on because a partition of its report is not published yet.
    async fn is_late_yet(&self, world: &World, subject: &Subject) -> bool {
        let now = world.clock.true_now();
        for expected in self.expected.iter().filter(|expected| expected.truth.partition.due_at <= now) {
            let is_open = expected.stored_by.is_none_or(|by| by > now) && !expected.is_stored(world).await;
            if Some(expected.report.id.name()) == subject.report.as_deref() && is_open {
                return true;
            }
        }
        false
    }

    /// What is wrong with an object under a final name.
    async fn wrong_object(&self, world: &World, store: &str, key: &str, bytes: &Bytes) -> Option<String> {
        let sha256 = hex::encode(Sha256::digest(bytes));
        let expected = self.expected.iter().find(|expected| expected.owns(store, key));
        let Some(expected) = expected else { return Some(format!("{store}: {key} belongs to no partition")) };
        if !expected.truth.contents.contains(bytes) {
            return Some(format!("{store}: {key} is not what the vendor served"));
        }
        let Some(manifest) = world.stores[store].object(&manifest_key(key)).await else {
            return Some(format!("{store}: {key} has no manifest"));
        };
        let Ok(manifest) = serde_json::from_slice::<Manifest>(&manifest) else {
            return Some(format!("{store}: the manifest of {key} is not one"));
        };
        let is_right = manifest.sha256 == sha256
            && manifest.size == bytes.len() as u64
            && manifest.names(&expected.truth.partition.id, key)
            && manifest.generated_at == expected.truth.partition.generated_at;
        (!is_right).then(|| format!("{store}: the manifest of {key} disagrees: {manifest:?}"))
    }
}

/// The time after which a daily dump is given up, which is the default.
const DUMP_GIVEN_UP: SignedDuration = SignedDuration::from_hours(7 * 24);

impl Expected {
    fn name(&self) -> String {
        let Truth { partition, published_at, .. } = &*self.truth;
        let at = |at: Option<Timestamp>| at.map_or("never".to_owned(), |at| format!("{at:.0}"));
        format!("{} (due {:.0}, published {})", partition.id, partition.due_at, at(*published_at))
    }

    fn owns(&self, store: &str, key: &str) -> bool {
        let keys = self.report.keys(self.truth.partition.id.date);
        store == self.report.destination.name && (key == keys.object() || key.starts_with(&keys.versions()))
    }

    fn objects<'a>(&'a self, all: &'a BTreeMap<(String, String), Bytes>) -> impl Iterator<Item = &'a Bytes> {
        all.iter().filter(|((store, key), _)| self.owns(store, key)).map(|(_, bytes)| bytes)
    }

    async fn is_stored(&self, world: &World) -> bool {
        let store = &world.stores[self.report.destination.name.as_str()];
        let keys = self.report.keys(self.truth.partition.id.date);
        let versions = self.truth.contents.iter().map(|content| keys.version(&hex::encode(Sha256::digest(content))));
        for key in [keys.object()].into_iter().chain(versions) {
            if store.object(&key).await.is_some() && store.object(&manifest_key(&key)).await.is_some() {
                return true;
            }
        }
        false
    }

    fn is_asked_by(&self, request: &Received) -> bool {
        let id = &self.truth.partition.id;
        request.date == id.date && request.report == id.report.name() && request.workspace == id.workspace()
    }
}

fn subject(workspace: &str, report: Option<&str>) -> Subject {
    Subject { workspace: Some(workspace.to_owned()), report: report.map(str::to_owned), ..Subject::default() }
}

/// The end of the first time in which everything that a partition needs was in order for long enough.
fn stored_by(world: &World, report: &Report, truth: &Truth) -> Option<Timestamp> {
    // A daily dump is first planned on the day of the first start.
    let first_day = report.timezone.to_datetime(world.epoch).date();
    if report.source.kind() == SourceKind::DailyDump && truth.partition.id.date < first_day {
        return None;
    }
    let end = truth.removed_at.min(truth.partition.generated_at + 7 * 24 * HOUR);
    let mut blocked: Vec<(Timestamp, Timestamp)> = Vec::new();
    for Window { from, to, what } in &world.weather.vendor[report.id.workspace()] {
        let wait = match what {
            VendorFault::Limits(Some(seconds @ ..=86_400)) => Duration::from_secs(*seconds),
            _ => Duration::ZERO,
        };
        blocked.push((*from, *to + wait));
    }
    for Window { from, to, what } in &world.weather.stores[report.destination.name.as_str()] {
        let slow = matches!(what, StoreFault::Silent | StoreFault::Slow);
        blocked.push((*from, *to + if slow { AFTERMATH } else { Duration::ZERO }));
    }
    blocked.extend(world.weather.stops.iter().map(|stop| (stop.from, stop.to)));
    blocked.extend(world.weather.clock.iter().map(|error| (error.from, error.to + AFTERMATH)));
    blocked.sort();
    let mut free_from = truth.partition.due_at.max(truth.published_at?).max(world.epoch);
    for (from, to) in blocked {
        if from.duration_since(free_from) >= LONG_ENOUGH {
            break;
        }
        free_from = free_from.max(to);
    }
    let by = free_from + LONG_ENOUGH;
    (by <= end).then_some(by)
}

/// No delay exceeds a quarter of the time left to expiry, or half of it where the vendor asked for that.
fn excessive_wait(entry: &Entry) -> Option<String> {
    let (last, next, expiry) = (entry.last_attempt_at?, entry.next_attempt_at?, entry.partition.expires_at?);
    let share = if entry.outcome == Some(Outcome::RateLimited) { 2 } else { 4 };
    let left = expiry.duration_since(last);
    let is_excessive = left.is_positive() && next.duration_since(last) * share > left + SignedDuration::from_millis(8);
    is_excessive.then(|| format!("{} waits too long: {entry:?}", entry.partition.id))
}

/// Whether the local clock is right, and was for some hours.
fn is_clock_right(world: &World) -> bool {
    let now = world.clock.true_now();
    !world.weather.clock.iter().any(|error| error.from <= now && now < error.to + 3 * HOUR)
}

/// Whether the vendor may still have it.
fn is_before_end(entry: &Entry, now: Timestamp) -> bool {
    entry.partition.end(DUMP_GIVEN_UP).is_none_or(|end| end > now)
}

/// Absent is what was never published, or only on the last day. A partition that was first asked for after its end may have
/// been there before; a vendor that denies what it has cannot be told from one that has nothing.
fn wrongly_absent(expected: &Expected, entry: &Entry, received: &[Received]) -> Option<String> {
    let end = entry.partition.end(DUMP_GIVEN_UP)?;
    let is_dump = entry.partition.source == SourceKind::DailyDump;
    let last_look = if is_dump { end } else { end - SignedDuration::from_hours(24) };
    let was_there = expected.truth.published_at.is_some_and(|at| at < last_look);
    let denied = received.iter().any(|request| {
        let is_denial = matches!(request.fault, Some(VendorFault::Denies(_)));
        expected.is_asked_by(request) && is_denial && request.at >= last_look
    });
    (was_there && !entry.requested_late && !denied).then(|| format!("{} is absent", expected.name()))
}
