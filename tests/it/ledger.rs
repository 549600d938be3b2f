//! The ledger is a memory, not the truth: it may be lost at any time.

use std::{fs, path::PathBuf};

use jiff::{SignedDuration, Timestamp};
use moesync::{
    config::SourceKind,
    ledger::{self, Adoption, Claimed, Found, Ledger, LedgerError},
    outcome::{Attempt, Remark, StoredObject},
    partition::{Entry, Grounds, Settled},
    report::{Partition, PartitionId, ReportId},
    sync::{self, Selection},
    telemetry::Chain,
};
use serde_json::Value;

use crate::support::{
    Bench, Daemon, Ran, Series, files,
    ledger_file::{self, FullDisk, edit},
    wait_until,
};

mod contract;
mod figures;
mod reach;

/// The object of a partition, as its manifest shows it.
fn adoption(partition: &Partition, object: &StoredObject) -> Adoption {
    Adoption { partition: partition.clone(), object: object.clone(), attempts: 1 }
}

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
async fn a_pass_by_a_ledger_that_misses_months_of_objects_is_whole() {
    let bench = Bench::at("2026-08-21T12:00:00Z", &[Series::dump(5)]).await;
    let pass = async || {
        let ctx = bench.context().await;
        let summary = sync::recover_and_pass(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
        ctx.ledger.close().await;
        summary.is_complete()
    };
    assert!(pass().await);
    let copy = fs::read(bench.ledger()).unwrap();
    bench.clock.advance(SignedDuration::from_hours(24 * 80));
    assert!(pass().await);
    let asked = bench.requests();
    assert!(asked > 80);
    fs::write(bench.ledger(), copy).unwrap();
    assert!(pass().await);
    assert_eq!(bench.requests(), asked);
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
    assert!(ran.stdout.contains("error  ledger") && ran.stdout.contains("migration 9000"), "{}", ran.stdout);
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
        let Claimed::Ours(claim) = ledger.claim(&entry).await.unwrap() else { panic!("it was free") };
        let id = entry.partition.id;
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
    let entry = dead.entries().await.unwrap().remove(0);
    assert!(matches!(dead.claim(&entry).await.unwrap(), Claimed::Ours(_)));
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
    assert!(matches!(error, LedgerError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("run the command again"), "{error}");
}

fn partition(at: Timestamp) -> Partition {
    let id = PartitionId { report: ReportId::new("acme", "daily"), date: "2026-11-21".parse().unwrap() };
    Partition { id, source: SourceKind::DailyDump, generated_at: at, due_at: at, expires_at: None }
}

/// Makes an attempt at a partition, if it stands as `believed`.
async fn try_once(ledger: &Ledger, partition: &Partition, believed: Settled, attempt: Attempt) {
    let entry = ledger.entry_of(&partition.id).await.unwrap().filter(|entry| entry.settled == believed);
    let Some(entry) = entry else { return };
    let Claimed::Ours(claim) = ledger.claim(&entry).await.unwrap() else { return };
    let (after, hold) = claim.entry.clone().after(&attempt, GROUNDS, 0.5);
    ledger.record(&claim, &attempt, &after, hold).await.unwrap();
}
