//! Figures are kept by every change of the ledger, and are what counting would give.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use moesync::{
    config::SourceKind,
    ledger::{self, AttemptFigures, DURATION_BOUNDS, Ledger, ReportFigures},
    outcome::{Attempt, Evidence, Failure, Outcome, Remark, StoredObject, Success},
    partition::{Entry, Settled, State},
    report::{Partition, PartitionId, ReportId},
};
use proptest::prelude::*;

use super::{adoption, identities, stored, try_once};
use crate::support::ledger_file::{self, edit};

/// One change of a ledger: at which of a few partitions, which one, and how far in time it is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Ask,
    AskLate,
    Store,
    Restate,
    Fail,
    Deny,
    Adopt,
    Damage,
    Recover,
    Acknowledge,
    Forget,
}

const STEPS: [Step; 11] = [
    Step::Ask,
    Step::AskLate,
    Step::Store,
    Step::Restate,
    Step::Fail,
    Step::Deny,
    Step::Adopt,
    Step::Damage,
    Step::Recover,
    Step::Acknowledge,
    Step::Forget,
];

/// Partition `number` of two reports, of two dates each.
pub(super) fn one_of_four(number: u8) -> Partition {
    let at: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    let report = if number < 2 { "daily" } else { "stats" };
    let source = if number < 2 { SourceKind::DailyDump } else { SourceKind::CampaignStats };
    let date = format!("2026-11-2{}", number % 2).parse().unwrap();
    let at = at + SignedDuration::from_hours(24 * i64::from(number % 2));
    let id = PartitionId { report: ReportId::new("acme", report), date };
    Partition { id, source, generated_at: at, due_at: at, expires_at: None }
}

pub(super) async fn take(ledger: &Ledger, step: Step, partition: &Partition, number: u32) {
    let at = partition.generated_at + SignedDuration::from_secs((i64::from(number) + 1) * 4000);
    let object =
        || StoredObject { key: "k".into(), size: u64::from(number) + 1, sha256: number.to_string(), stored_at: at };
    let evidence =
        |http_status| Evidence { http_status: Some(http_status), vendor_date: Some(at), ..Evidence::default() };
    let attempt =
        |result| Attempt { started_at: at - SignedDuration::from_secs(i64::from(number)), finished_at: at, result };
    let success = || Success { object: object(), remark: None, message: String::new(), evidence: evidence(200) };
    let failure = |outcome, status| attempt(Err(Failure::after(&evidence(status), outcome, "no".into())));
    match step {
        Step::Ask => ledger.reopen(&[Entry::new(partition.clone())]).await.unwrap(),
        Step::AskLate => ledger.reopen(&[Entry::requested_late(partition.clone())]).await.unwrap(),
        Step::Store => try_once(ledger, partition, Settled::Open, attempt(Ok(success()))).await,
        Step::Restate => try_once(ledger, partition, Settled::Stored, attempt(Ok(success()))).await,
        Step::Fail => try_once(ledger, partition, Settled::Open, failure(Outcome::Unavailable, 500)).await,
        // Lost if it came before, absent if it was asked for late.
        Step::Deny => try_once(ledger, partition, Settled::Open, failure(Outcome::NotPublished, 404)).await,
        Step::Adopt => drop(ledger.adopt(&[adoption(partition, &object())]).await.unwrap()),
        Step::Damage => ledger.reopen_damaged(&partition.id, "altered").await.unwrap(),
        Step::Recover => drop(ledger.note_recovered(&partition.id.report, None).await.unwrap()),
        Step::Acknowledge => drop(ledger.acknowledge(std::slice::from_ref(&partition.id)).await.unwrap()),
        Step::Forget => drop(ledger.forget_report(&partition.id.report).await.unwrap()),
    }
}

/// Asserts that the figures of the ledger are what counting its partitions and attempts gives.
pub(super) async fn assert_counted(ledger: &Ledger, now: Timestamp) {
    let mut reports: BTreeMap<ReportId, ReportFigures> = BTreeMap::new();
    let mut attempts: BTreeMap<(ReportId, &str), AttemptFigures> = BTreeMap::new();
    for entry in ledger.entries().await.unwrap() {
        let Partition { id, source, generated_at, due_at, .. } = entry.partition.clone();
        let nothing = ReportFigures::nothing(id.report.clone(), source);
        let figures = reports.entry(id.report.clone()).or_insert(nothing);
        // Of a report whose source was changed, the last by name.
        if figures.source.as_str() < source.as_str() {
            figures.source = source;
        }
        match entry.state(now) {
            State::Scheduled => figures.scheduled += 1,
            State::Pending => {
                figures.pending += 1;
                figures.oldest_pending_due =
                    Some(figures.oldest_pending_due.map_or(due_at, |oldest| oldest.min(due_at)));
            }
            State::Stored => {
                figures.stored += 1;
                figures.stored_bytes += entry.object.as_ref().unwrap().size;
                figures.newest_stored = figures.newest_stored.max(Some(generated_at));
            }
            State::Absent => figures.absent += 1,
            State::Lost => {
                figures.lost += 1;
                let unseen = entry.last_attempt_at.filter(|_| !entry.acknowledged);
                figures.newest_lost = figures.newest_lost.max(unseen);
            }
        }
        for attempt in ledger.attempts(&id).await.unwrap() {
            let outcome = attempt.outcome;
            let nothing = AttemptFigures {
                id: id.report.clone(),
                source,
                outcome,
                count: 0,
                seconds: 0.0,
                bytes: 0,
                other_content: 0,
                within: [0; DURATION_BOUNDS.len()],
            };
            let figures = attempts.entry((id.report.clone(), outcome.as_str())).or_insert(nothing);
            let took = attempt.finished_at.duration_since(attempt.started_at).max(SignedDuration::ZERO);
            figures.count += 1;
            figures.seconds += took.as_secs_f64();
            figures.bytes += attempt.size.unwrap_or(0);
            figures.other_content += u64::from(attempt.remark == Some(Remark::OtherContent));
            for (within, bound) in figures.within.iter_mut().zip(DURATION_BOUNDS) {
                *within += u64::from(took <= SignedDuration::from_secs(i64::from(bound)));
            }
        }
    }
    for figures in attempts.values_mut() {
        figures.source = reports[&figures.id].source;
    }
    assert_eq!(ledger.report_figures(None, now).await.unwrap(), reports.into_values().collect::<Vec<_>>());
    assert_eq!(ledger.attempt_figures().await.unwrap(), attempts.into_values().collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn figures_are_what_counting_gives_after_any_changes(
        steps in prop::collection::vec((prop::sample::select(&STEPS[..]), 0..4_u8), 1..24)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let now: Timestamp = "2026-11-21T18:00:00Z".parse().unwrap();
            let ledger = ledger::open(&folder.path().join("moesync.db"), "me", now).await.unwrap().0;
            for (number, (step, which)) in (0..).zip(steps) {
                take(&ledger, step, &one_of_four(which), number).await;
                assert_counted(&ledger, now).await;
            }
            ledger.close().await;
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_ledgers_history_is_counted_once() {
    let folder = tempfile::tempdir().unwrap();
    let (path, now) = (folder.path().join("moesync.db"), "2026-11-21T12:00:00Z".parse::<Timestamp>().unwrap());
    let mut statements = Vec::new();
    for (id, report, settled, source) in [
        (1, "daily", "stored", "daily_dump"),
        (2, "daily", "stored", "daily_dump"),
        (3, "daily", "lost", "daily_dump"),
        (4, "daily", "absent", "daily_dump"),
        (5, "daily", "open", "daily_dump"),
        (6, "other", "stored", "campaign_stats"),
        // A report whose source was changed.
        (7, "other", "open", "campaigns"),
    ] {
        let stored =
            if settled == "stored" { format!("'key', {id}00, 'abc', {id}") } else { "NULL, NULL, NULL, NULL".into() };
        statements.push(format!(
            "INSERT INTO partitions (id, workspace, report, date, source, generated_at, due_at, settled, last_attempt_at,
                                     object_key, size, sha256, stored_at)
             VALUES ({id}, 'acme', '{report}', '2026-11-0{id}', '{source}', {id}000, {id}000, '{settled}', {id}500, {stored})"
        ));
        let outcome = if settled == "stored" { "stored" } else { "not_published" };
        statements.push(format!(
            "INSERT INTO attempts (partition_id, started_at, finished_at, outcome, message)
             VALUES ({id}, 0, {id}000, '{outcome}', ''), ({id}, 1000, 0, 'unavailable', '')"
        ));
    }
    let statements: Vec<_> = statements.iter().map(String::as_str).collect();
    ledger_file::of_older_version(&path, 5, &statements).await;
    let ledger = ledger::open(&path, "me", now).await.unwrap().0;
    let figures = ledger.report_figures(None, now).await.unwrap();
    assert_eq!((figures.len(), figures[0].stored, figures[0].stored_bytes, figures[0].lost), (2, 2, 300, 1));
    ledger.close().await;
    // Once more, as at each start.
    let ledger = ledger::open(&path, "me", now).await.unwrap().0;
    assert_eq!(ledger.report_figures(None, now).await.unwrap(), figures);
    assert_counted(&ledger, now).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_older_than_configured_are_deleted_and_stay_counted() {
    let (bench, before) = stored().await;
    let attempts = async || {
        let ledger = ledger::open_read_only(&bench.ledger()).await.unwrap().unwrap();
        let mut attempts = 0;
        for entry in ledger.entries().await.unwrap() {
            attempts += ledger.attempts(&entry.partition.id).await.unwrap().len();
        }
        (attempts, ledger.attempt_figures().await.unwrap())
    };
    let (all, figures) = attempts().await;
    assert_eq!(all, 10);
    let day = SignedDuration::from_hours(24);
    let old = bench.clock.read() - 401 * day;
    edit(&bench.ledger(), &[&format!("UPDATE attempts SET finished_at = {} WHERE id % 2 = 0", old.as_millisecond())])
        .await;
    // The last one has the number that the next one goes on from.
    let config = bench.config();
    let ledger_table = config.lines().find(|line| line.trim() == "[ledger]").unwrap();
    bench.write_config(&config.replacen(ledger_table, "[ledger]\nkeep_attempts = \"402d\"", 1));
    bench.sync(0).await;
    assert_eq!(attempts().await, (10, figures.clone()));
    bench.write_config(&config);
    bench.sync(0).await;
    assert_eq!(attempts().await, (6, figures));
    assert_eq!(identities(&bench).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_at_open_partitions_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let now: Timestamp = "2026-11-21T18:00:00Z".parse().unwrap();
    let ledger = ledger::open(&folder.path().join("moesync.db"), "me", now).await.unwrap().0;
    for (number, (step, which)) in
        (0..).zip([(Step::Ask, 0), (Step::Fail, 0), (Step::Ask, 1), (Step::Store, 1), (Step::Ask, 2), (Step::Store, 2)])
    {
        take(&ledger, step, &one_of_four(which), number).await;
    }
    let later = now + SignedDuration::from_hours(24 * 500);
    assert_eq!(ledger.prune_attempts(later, 10).await.unwrap(), 1);
    for (which, left) in [(0, 1), (1, 0), (2, 1)] {
        assert_eq!(ledger.attempts(&one_of_four(which).id).await.unwrap().len(), left, "{which}");
    }
    assert_eq!(ledger.prune_attempts(later, 10).await.unwrap(), 0);
}
