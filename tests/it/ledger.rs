//! The ledger is a memory, not the truth: it may be lost at any time.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::PathBuf,
};

use jiff::{SignedDuration, Timestamp};
use moesync::{
    config::{self, SourceKind},
    ledger::{self, AttemptFigures, Claimed, DURATION_BOUNDS, Found, Ledger, LedgerError, ReportFigures},
    outcome::{Attempt, Evidence, Failure, Outcome, Remark, StoredObject, Success},
    partition::{Entry, Grounds, Settled, State},
    plan::{self, LONGEST_STEP, LedgerView, Plan, Reach},
    report::{Partition, PartitionId, ReportId},
    schedule,
    telemetry::Chain,
};
use proptest::prelude::*;
use serde_json::Value;

use crate::support::{
    Bench, Daemon, Ran, Series, files,
    ledger_file::{self, FullDisk, edit},
    wait_until,
};

mod contract;

/// A bench with everything stored, by the binary.
async fn stored() -> (Bench, Vec<Value>) {
    let bench = Bench::new(&[Series::campaign("Report test", 5), Series::dump(5)]).await;
    bench.sync(0).await;
    let identities = identities(&bench).await;
    assert_eq!(identities.len(), 10);
    (bench, identities)
}

/// What a stored partition is known by.
async fn identities(bench: &Bench) -> Vec<Value> {
    let fields = ["workspace", "report", "source", "date", "state", "key", "size", "sha256", "stored_at", "expires_at"];
    let of = |partition: &Value| fields.iter().map(|field| partition[*field].clone()).collect();
    bench.status().await.iter().map(of).collect()
}

/// Nothing is downloaded, and everything known again.
async fn is_rebuilt(bench: &Bench, before: &[Value]) -> Ran {
    let (requests, stored_files) = (bench.requests(), bench.stored_files());
    let ran = bench.run(&["-v", "sync", "--json"]).await.expect(0);
    assert!(!ran.stderr.contains("could not evaluate the alarms"), "{}", ran.stderr);
    assert_eq!(bench.requests(), requests, "something was downloaded");
    assert!(bench.stored_files() == stored_files, "the destination was changed");
    assert_eq!(identities(bench).await, before);
    bench.oracle().await;
    ran
}

/// The damaged ledger, kept aside.
fn kept_aside(bench: &Bench) -> Vec<PathBuf> {
    let kept = files(&bench.path("ledger")).into_iter();
    kept.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("moesync.db.damaged-"))
        .filter(|path| path.extension().is_some_and(|extension| extension.to_str().unwrap().ends_with('Z')))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn between_runs_the_ledger_is_one_file_that_can_be_copied() {
    let (bench, _) = stored().await;
    bench.run(&["status"]).await.expect(0);
    let beside = files(&bench.path("ledger")).into_iter().filter(|path| path.parent() == bench.ledger().parent());
    assert_eq!(beside.collect::<Vec<_>>(), [bench.ledger()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_ledger_is_rebuilt_from_the_manifests_without_a_download() {
    let (bench, before) = stored().await;
    fs::remove_dir_all(bench.path("ledger")).unwrap();
    is_rebuilt(&bench, &before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_ledger_is_rebuilt_from_the_manifests_without_a_download() {
    let (bench, before) = stored().await;
    fs::write(bench.ledger(), "").unwrap();
    is_rebuilt(&bench, &before).await;
}

/// Damages a ledger's bytes, then expects it kept aside as it was and rebuilt.
async fn survives(damage: impl Fn(&mut Vec<u8>)) {
    let (bench, before) = stored().await;
    let mut bytes = fs::read(bench.ledger()).unwrap();
    damage(&mut bytes);
    fs::write(bench.ledger(), &bytes).unwrap();
    let ran = is_rebuilt(&bench, &before).await;
    assert_eq!(ran.alarms(), ["ledger"], "{}", ran.stderr);
    let [kept] = kept_aside(&bench).try_into().unwrap();
    assert_eq!(fs::read(kept).unwrap().len(), bytes.len(), "what was kept aside is not the damaged ledger");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_ledger_is_kept_aside_and_rebuilt() {
    survives(|bytes| bytes.truncate(bytes.len() / 2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_with_garbage_for_a_header_is_kept_aside_and_rebuilt() {
    survives(|bytes| bytes[..100].fill(0x5a)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_with_garbage_in_its_middle_is_kept_aside_and_rebuilt() {
    survives(|bytes| {
        let middle = bytes.len() / 2 / 4096 * 4096;
        bytes[middle..middle + 8192].fill(0xa5);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn something_else_entirely_under_the_ledgers_name_is_kept_aside() {
    survives(|bytes| *bytes = b"this is a shopping list\n".repeat(100)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_restored_from_an_older_copy_learns_what_it_missed() {
    let bench = Bench::new(&[Series::campaign("Report test", 5), Series::dump(5)]).await;
    bench.run(&["sync", "--report", "dump"]).await.expect(0);
    let copy = fs::read(bench.ledger()).unwrap();
    bench.sync(0).await;
    let before = identities(&bench).await;
    fs::write(bench.ledger(), copy).unwrap();
    let ran = is_rebuilt(&bench, &before).await;
    assert!(ran.alarms().is_empty(), "an older ledger is sound");
    assert!(kept_aside(&bench).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_commands_say_that_a_ledger_is_damaged_and_leave_it_as_it_is() {
    let (bench, _) = stored().await;
    let damaged = b"this is a shopping list\n".repeat(100);
    fs::write(bench.ledger(), &damaged).unwrap();
    for command in ["status", "plan"] {
        let ran = bench.run(&[command]).await.expect(1);
        assert!(ran.stderr.contains("damaged") && ran.stderr.contains("moesync sync"), "{}", ran.stderr);
    }
    assert_eq!(fs::read(bench.ledger()).unwrap(), damaged);
    assert!(kept_aside(&bench).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_or_an_unknown_word_is_refused_by_name_and_nothing_is_changed() {
    let (bench, before) = stored().await;
    let whole = fs::read(bench.ledger()).unwrap();
    let told = "INSERT INTO told (target, alarm, subject, since, told_as) VALUES ('hook', 'eclipse', '{}', 0, 'late')";
    for (statement, named) in [
        ("UPDATE partitions SET outcome = 'evaporated' WHERE id = 1", "partitions.outcome holds the word `evaporated`"),
        (
            "UPDATE partitions SET source = 'daily_digest' WHERE id = 1",
            "partitions.source holds the word `daily_digest`",
        ),
        ("UPDATE partitions SET settled = 'archived' WHERE id = 1", "partitions.settled holds the word `archived`"),
        ("UPDATE attempts SET outcome = 'evaporated' WHERE id = 1", "attempts.outcome holds the word `evaporated`"),
        ("UPDATE attempts SET remark = 'gilded' WHERE id = 1", "attempts.remark holds the word `gilded`"),
        ("INSERT INTO holds VALUES ('acme', 'asleep', 0, 0, 0)", "holds.outcome holds the word `asleep`"),
        (told, "told.alarm holds the word `eclipse`"),
        ("UPDATE _sqlx_migrations SET version = 9000 WHERE version = 2", "migration 9000"),
    ] {
        fs::write(bench.ledger(), &whole).unwrap();
        edit(&bench.ledger(), &[statement]).await;
        let edited = fs::read(bench.ledger()).unwrap();
        for command in ["sync", "run"] {
            let ran = bench.run(&[command]).await.expect(1);
            let is_named = ran.stderr.contains("made by a newer version of moesync") && ran.stderr.contains(named);
            assert!(is_named, "{statement}: {}", ran.stderr);
        }
        assert!(fs::read(bench.ledger()).unwrap() == edited, "{statement}: the ledger was changed");
        assert!(kept_aside(&bench).is_empty(), "{statement}: the ledger was taken for damaged");
    }
    // It is the last one that is in place: `check` names what `run` would refuse.
    let ran = bench.run(&["check"]).await.expect(1);
    assert!(ran.stdout.contains("FAILED ledger") && ran.stdout.contains("migration 9000"), "{}", ran.stdout);
    // Where only readers would meet it, they name it too.
    fs::write(bench.ledger(), &whole).unwrap();
    edit(&bench.ledger(), &["UPDATE partitions SET outcome = 'evaporated'"]).await;
    let ran = bench.run(&["status", "--all"]).await.expect(1);
    assert!(ran.stderr.contains("newer version") && ran.stderr.contains("`evaporated`"), "{}", ran.stderr);
    fs::write(bench.ledger(), &whole).unwrap();
    is_rebuilt(&bench, &before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_version_writes_is_damage() {
    for statement in [
        "UPDATE partitions SET outcome = 'Stored ' WHERE id = 1",
        "UPDATE partitions SET source = '' WHERE id = 1",
        "UPDATE partitions SET date = '2026-02-30' WHERE id = 1",
        "UPDATE partitions SET size = -1 WHERE id = 1",
        "UPDATE partitions SET generated_at = 9223372036854775807 WHERE id = 1",
    ] {
        let (bench, before) = stored().await;
        edit(&bench.ledger(), &[statement]).await;
        let ran = is_rebuilt(&bench, &before).await;
        assert_eq!(ran.alarms(), ["ledger"], "{statement}: {}", ran.stderr);
        assert_eq!(kept_aside(&bench).len(), 1, "{statement}");
    }
}
const GROUNDS: Grounds = Grounds { give_up_after: SignedDuration::from_hours(1), archive_seen_at: None };

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_a_long_history_is_found_after_opening_and_kept_aside_at_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let (path, now) = (folder.path().join("moesync.db"), "2026-11-21T12:00:00Z".parse::<Timestamp>().unwrap());
    let open = async || ledger::open(&path, "me", now).await.unwrap();
    open().await.0.close().await;
    ledger_file::add_megabytes(&path, 20).await;
    let (ledger, found) = open().await;
    assert_eq!(found, Found::Existing);
    ledger.check_whole().await.unwrap();
    ledger.close().await;

    edit(&path, &["UPDATE partitions SET generated_at = 9223372036854775807 WHERE id = 7"]).await;
    let (ledger, found) = open().await;
    assert_eq!(found, Found::Existing, "its history was read");
    assert!(matches!(ledger.check_whole().await, Err(LedgerError::Damaged { .. })));
    ledger.close().await;
    for is_damaged in [true, false] {
        let (ledger, found) = open().await;
        assert_eq!(matches!(found, Found::Damaged { .. }), is_damaged, "{found:?}");
        ledger.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_meets_damage_in_a_long_history_rebuilds_the_ledger() {
    let (bench, before) = stored().await;
    ledger_file::add_megabytes(&bench.ledger(), 20).await;
    let damage = "UPDATE partitions SET expires_at = 9223372036854775807 WHERE report = 'old' AND date = '2005-02-01'";
    edit(&bench.ledger(), &[damage]).await;
    let (requests, stored_files) = (bench.requests(), bench.stored_files());
    let daemon = Daemon::start(&bench).await;
    assert!(wait_until(async || kept_aside(&bench).len() == 1).await, "{}", daemon.log().join("\n"));
    assert!(wait_until(async || identities(&bench).await == before).await, "{}", daemon.log().join("\n"));
    assert_eq!(daemon.alarms(), ["ledger", "ledger"], "that it was met, and where it is kept");
    daemon.stop(&bench).await;
    assert_eq!(bench.requests(), requests, "something was downloaded");
    assert!(bench.stored_files() == stored_files, "the destination was changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_ledgers_attempts_show_which_workspaces_work() {
    let folder = tempfile::tempdir().unwrap();
    let (path, at) = (folder.path().join("moesync.db"), "2026-11-21T12:00:00Z".parse::<Timestamp>().unwrap());
    let mut statements = Vec::new();
    for (id, workspace, outcome, date) in [
        (1, "acme", "stored", at),
        (2, "acme", "not_published", at + SignedDuration::from_hours(1)),
        (3, "other", "stored", at + SignedDuration::from_hours(240)),
    ] {
        statements.push(format!(
            "INSERT INTO partitions (id, workspace, report, date, source, generated_at, due_at)
             VALUES ({id}, '{workspace}', 'daily', '2026-11-2{id}', 'daily_dump', 0, 0)"
        ));
        statements.push(format!(
            "INSERT INTO attempts (partition_id, started_at, finished_at, outcome, http_status, message, vendor_date)
             VALUES ({id}, {0}, {0}, '{outcome}', 200, '', {1})",
            at.as_millisecond(),
            date.as_millisecond()
        ));
    }
    let statements: Vec<_> = statements.iter().map(String::as_str).collect();
    ledger_file::of_older_version(&path, 2, &statements).await;
    let ledger = ledger::open(&path, "me", at).await.unwrap().0;
    for entry in ledger.entries().await.unwrap() {
        let id = entry.partition.id;
        let Claimed::Ours(claim) = ledger.claim(&id, Settled::Open).await.unwrap() else { panic!("it was free") };
        assert_eq!(claim.archive_seen_at, (id.workspace() == "acme").then_some(at), "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_ledgers_messages_become_remarks() {
    let folder = tempfile::tempdir().unwrap();
    let (path, at) = (folder.path().join("moesync.db"), "2026-11-21T12:00:00Z".parse::<Timestamp>().unwrap());
    let other = "other content is at `acme/daily/daily.zip` and was left alone";
    let damaged = "the gzip that the server packed the archive into is damaged: invalid checksum";
    let rows = [
        ("stored", other, Some(Remark::OtherContent)),
        ("stored", "unchanged", None),
        ("stored", "", None),
        ("corrupt", damaged, Some(Remark::DamagedWrapper)),
        ("corrupt", "other content came", None),
    ];
    let statements: Vec<_> = (1..)
        .zip(rows)
        .flat_map(|(id, (outcome, message, _))| {
            let partition = format!(
                "INSERT INTO partitions (id, workspace, report, date, source, generated_at, due_at, outcome, message)
                 VALUES ({id}, 'acme', 'daily', '2026-11-0{id}', 'daily_dump', 0, 0, '{outcome}', '{message}')"
            );
            let attempt = |outcome, message| {
                format!(
                    "INSERT INTO attempts (partition_id, started_at, finished_at, outcome, message)
                     VALUES ({id}, 0, 0, '{outcome}', '{message}')"
                )
            };
            [partition, attempt("corrupt", damaged), attempt(outcome, message)]
        })
        .collect();
    let statements: Vec<_> = statements.iter().map(String::as_str).collect();
    ledger_file::of_older_version(&path, 4, &statements).await;

    let ledger = ledger::open(&path, "me", at).await.unwrap().0;
    let entries = ledger.entries().await.unwrap();
    assert_eq!(entries.len(), rows.len());
    for (entry, (_, message, remark)) in entries.iter().zip(rows) {
        assert_eq!(entry.remark, remark, "{message}");
        let attempts = ledger.attempts(&entry.partition.id).await.unwrap();
        let remarks: Vec<_> = attempts.iter().map(|attempt| attempt.remark).collect();
        assert_eq!(remarks, [Some(Remark::DamagedWrapper), remark], "{message}");
        assert_eq!(attempts[1].message, message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_manifest_and_record_and_restarted_twice_it_stays_stored() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    bench.fault("status=404,times=1");
    bench.sync(1).await;
    let open = fs::read(bench.ledger()).unwrap();
    bench.sync(0).await;
    // The ledger as the process that died left it: open, and claimed.
    fs::write(bench.ledger(), open).unwrap();
    let dead = ledger::open(&bench.ledger(), "dead", bench.clock.read()).await.unwrap().0;
    let id = dead.entries().await.unwrap().remove(0).partition.id;
    assert!(matches!(dead.claim(&id, Settled::Open).await.unwrap(), Claimed::Ours(_)));
    fs::remove_file(bench.path("ledger/moesync.db.holders/dead")).unwrap();
    dead.close().await;
    let requests = bench.requests();
    for restart in 1..=3 {
        bench.sync(0).await;
        let status = bench.status().await;
        assert_eq!((&status[0]["state"], &status[0]["outcome"]), (&"stored".into(), &"stored".into()), "{restart}");
    }
    assert_eq!(bench.requests(), requests);
    bench.oracle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_was_full_for_a_moment_is_written_to_again() {
    let folder = tempfile::tempdir().unwrap();
    let (path, at) = (folder.path().join("moesync.db"), "2026-11-21T12:00:00Z".parse().unwrap());
    let ledger = ledger::open(&path, "me", at).await.unwrap().0;
    let disk = FullDisk::begin(&path).await;
    for _ in 0..3 {
        let refused = ledger.reopen(&[Entry::new(partition(at))]).await.unwrap_err();
        let refused = Chain(&refused).to_string();
        assert_eq!(refused.matches("the disk is full").count(), 1, "{refused}");
    }
    disk.end().await;
    ledger.reopen(&[Entry::new(partition(at))]).await.unwrap();
    assert_eq!(ledger.entries().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_changes_while_it_is_read_at_rest_does_not_count_as_damaged() {
    let (bench, _) = stored().await;
    let ledger = ledger::open_read_only(&bench.ledger()).await.unwrap().unwrap();
    // As a process that begins to write may leave it for a moment.
    let mut bytes = fs::read(bench.ledger()).unwrap();
    let whole = bytes.len();
    bytes[4096..].fill(0xa5);
    bytes.resize(whole + 4096, 0);
    fs::write(bench.ledger(), bytes).unwrap();
    let error = ledger.entries().await.unwrap_err();
    assert!(matches!(error, LedgerError::Outside { .. }), "{error}");
    assert!(error.to_string().contains("run the command again"), "{error}");
}

/// One change of a ledger: at which of a few partitions, which one, and how far in time it is.
#[derive(Debug, Clone, Copy)]
enum Step {
    Ask,
    AskLate,
    Store,
    Restate,
    Fail,
    Deny,
    Adopt,
    Damage,
    Recover,
}

const STEPS: [Step; 9] = [
    Step::Ask,
    Step::AskLate,
    Step::Store,
    Step::Restate,
    Step::Fail,
    Step::Deny,
    Step::Adopt,
    Step::Damage,
    Step::Recover,
];

/// Partition `number` of two reports, of two dates each.
fn one_of_four(number: u8) -> Partition {
    let at: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    let report = if number < 2 { "daily" } else { "stats" };
    let source = if number < 2 { SourceKind::DailyDump } else { SourceKind::CampaignStats };
    let date = format!("2026-11-2{}", number % 2).parse().unwrap();
    let at = at + SignedDuration::from_hours(24 * i64::from(number % 2));
    let id = PartitionId { report: ReportId::new("acme", report), date };
    Partition { id, source, generated_at: at, due_at: at, expires_at: None }
}

fn partition(at: Timestamp) -> Partition {
    let id = PartitionId { report: ReportId::new("acme", "daily"), date: "2026-11-21".parse().unwrap() };
    Partition { id, source: SourceKind::DailyDump, generated_at: at, due_at: at, expires_at: None }
}

/// Makes an attempt at a partition, if it stands as `believed`.
async fn try_once(ledger: &Ledger, partition: &Partition, believed: Settled, attempt: Attempt) {
    let Claimed::Ours(claim) = ledger.claim(&partition.id, believed).await.unwrap() else { return };
    let (after, hold) = claim.entry.clone().after(&attempt, GROUNDS, 0.5);
    ledger.record(&claim, &attempt, &after, hold).await.unwrap();
}

async fn take(ledger: &Ledger, step: Step, partition: &Partition, number: u32) {
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
        Step::AskLate => ledger.reopen(&[Entry::late(partition.clone())]).await.unwrap(),
        Step::Store => try_once(ledger, partition, Settled::Open, attempt(Ok(success()))).await,
        Step::Restate => try_once(ledger, partition, Settled::Stored, attempt(Ok(success()))).await,
        Step::Fail => try_once(ledger, partition, Settled::Open, failure(Outcome::Unavailable, 500)).await,
        // Lost if it came before, absent if it was asked for late.
        Step::Deny => try_once(ledger, partition, Settled::Open, failure(Outcome::NotPublished, 404)).await,
        Step::Adopt => drop(ledger.adopt(partition, &object(), 1).await.unwrap()),
        Step::Damage => ledger.reopen_damaged(&partition.id, "altered").await.unwrap(),
        Step::Recover => drop(ledger.note_recovered(&partition.id.report, None).await.unwrap()),
    }
}

/// Asserts that the figures of the ledger are what counting its partitions and attempts gives.
async fn assert_counted(ledger: &Ledger, now: Timestamp) {
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
                figures.newest_lost = figures.newest_lost.max(entry.last_attempt_at);
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
                within: [0; DURATION_BOUNDS.len()],
            };
            let figures = attempts.entry((id.report.clone(), outcome.as_str())).or_insert(nothing);
            let took = attempt.finished_at.duration_since(attempt.started_at).max(SignedDuration::ZERO);
            figures.count += 1;
            figures.seconds += took.as_secs_f64();
            for (within, bound) in figures.within.iter_mut().zip(DURATION_BOUNDS) {
                *within += u64::from(took <= SignedDuration::from_secs(i64::from(bound)));
            }
        }
    }
    for figures in attempts.values_mut() {
        figures.source = reports[&figures.id].source;
    }
    assert_eq!(ledger.report_figures(now).await.unwrap(), reports.into_values().collect::<Vec<_>>());
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
    let figures = ledger.report_figures(now).await.unwrap();
    assert_eq!((figures.len(), figures[0].stored, figures[0].stored_bytes, figures[0].lost), (2, 2, 300, 1));
    ledger.close().await;
    // Once more, as at each start.
    let ledger = ledger::open(&path, "me", now).await.unwrap().0;
    assert_eq!(ledger.report_figures(now).await.unwrap(), figures);
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

const REPORTS: &str = r#"
[[workspaces]]
name = "acme"
app_id = "APP"
timezone = "Asia/Kolkata"
base_url = "https://api-01.moengage.com"
secret_key_env = "KEY"

[[destinations]]
name = "here"
url = "file:///nowhere"

[[reports]]
workspace = "acme"
source = "campaign_report"
name = "Report"
id = "report"
destination = "here"
schedule = { every = "day", at = "09:30" }

[[reports]]
workspace = "acme"
source = "daily_dump"
id = "since"
destination = "here"
schedule = { every = "day", at = "04:00" }
start = "2026-08-01"

[[reports]]
workspace = "acme"
source = "campaign_stats"
id = "daily"
metric_type = "TOTAL"
attribution_type = "CLICK_THROUGH"
refresh_days = 2
destination = "here"
schedule = { every = "day", at = "23:00" }

[[reports]]
workspace = "acme"
source = "campaign_stats"
id = "weekly"
metric_type = "TOTAL"
attribution_type = "CLICK_THROUGH"
timezone = "America/Los_Angeles"
buffer = "30h"
refresh_days = 3
destination = "here"
schedule = { every = "week", on = "monday", at = "01:00" }
"#;

/// How a partition in a ledger stands.
#[derive(Debug, Clone, Copy)]
enum Stand {
    Missing,
    Open,
    Stored,
    HalfReplaced,
    NotRefreshed,
    Absent,
}

const STANDS: [Stand; 6] =
    [Stand::Missing, Stand::Open, Stand::Stored, Stand::HalfReplaced, Stand::NotRefreshed, Stand::Absent];

async fn put(ledger: &Ledger, partition: &Partition, stand: Stand) {
    let at = partition.due_at + SignedDuration::from_hours(2);
    let object = StoredObject { key: "k".into(), size: 1, sha256: "abc".into(), stored_at: at };
    let failed = |outcome, at| {
        let evidence = Evidence { http_status: Some(404), vendor_date: Some(at), ..Evidence::default() };
        Attempt { started_at: at, finished_at: at, result: Err(Failure::after(&evidence, outcome, "no".into())) }
    };
    match stand {
        Stand::Missing => {}
        Stand::Open => ledger.reopen(&[Entry::new(partition.clone())]).await.unwrap(),
        Stand::Stored => drop(ledger.adopt(partition, &object, 1).await.unwrap()),
        Stand::HalfReplaced | Stand::NotRefreshed => {
            ledger.adopt(partition, &object, 1).await.unwrap();
            let is_half_done = matches!(stand, Stand::HalfReplaced);
            let outcome = if is_half_done { Outcome::StoreFailed } else { Outcome::Unavailable };
            try_once(ledger, partition, Settled::Stored, failed(outcome, at)).await;
        }
        Stand::Absent => {
            ledger.reopen(&[Entry::late(partition.clone())]).await.unwrap();
            let end = at + SignedDuration::from_hours(24 * 30);
            try_once(ledger, partition, Settled::Open, failed(Outcome::NotPublished, end)).await;
        }
    }
}

fn decisions(plan: &Plan) -> Vec<String> {
    let items = plan.items.iter().map(|item| format!("{:?} {:?}", item.entry, item.decision));
    let new = plan.new.iter().map(|entry| format!("new {entry:?}"));
    let through = plan.planned_through.iter().map(|planned| format!("{planned:?}"));
    items.chain(new).chain(through).chain([format!("{}", plan.is_partial)]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_of_what_is_within_its_reach_is_that_of_the_whole_ledger(
        stands in prop::collection::vec((0..4_usize, 0..130_i32, prop::sample::select(&STANDS[..])), 0..40),
        marks in prop::collection::vec(prop::option::of(-40..130_i32), 4),
        on_step in any::<bool>(),
        ahead in 0..3_i64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("moesync.toml");
            fs::write(&file, REPORTS).unwrap();
            let reports = config::load(&file, [("KEY".to_owned(), "key".to_owned())]).unwrap().reports;
            let now: Timestamp = "2026-11-21T18:10:00Z".parse().unwrap();
            let day = SignedDuration::from_hours(24);
            let ledger = ledger::open(&folder.path().join("moesync.db"), "me", now).await.unwrap().0;
            for (report, ago, stand) in stands {
                let report = &reports[report];
                let from = now - day * (ago + 1);
                if let Some(occurrence) = schedule::after(&report.schedule, &report.timezone, from).next() {
                    put(&ledger, &report.partition(occurrence), stand).await;
                }
            }
            let mut planned_through = Vec::new();
            for (report, mark) in reports.iter().zip(marks) {
                // A report that is caught up with since its `start` is planned through whole steps.
                let first = "2026-07-31T18:30:00Z".parse::<Timestamp>().unwrap() + LONGEST_STEP;
                let mark = mark.map(|ago| if on_step && report.start.is_some() { first } else { now - day * ago });
                planned_through.extend(mark.map(|mark| (report.id.clone(), mark)));
            }
            let marks = Plan { planned_through, ..Plan::default() };
            ledger.extend(&marks, &LedgerView::default()).await.unwrap();

            let ahead = SignedDuration::from_hours(ahead);
            let clock_ahead = HashMap::from([(reports[0].server(), ahead)]);
            let near = ledger.view(&Reach::of(&reports, now - ahead, now)).await.unwrap();
            let near = LedgerView { clock_ahead: clock_ahead.clone(), ..near };
            let entries = ledger.entries().await.unwrap();
            let all = LedgerView { entries, ..near.clone() };
            assert_eq!(decisions(&plan::plan(&reports, &near, now)), decisions(&plan::plan(&reports, &all, now)));
            ledger.close().await;
        });
    }
}
