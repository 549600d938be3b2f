//! What every ledger holds to: in a file, in memory, on a server, and on a server behind PgBouncer.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use moesync::{
    alarm::{Notified, Subject},
    alarm_kind::AlarmKind,
    config::SourceKind,
    derivation::{Derivation, DerivationFailure, Derived, Difference, DifferenceKind, SchemaChange, TableObject},
    ledger::{
        self, Choice, Claim, Claimed, Duty, DutyTaken, Ledger, LedgerError, MadeTables, Memory, MostDue, Rate,
        SchemaNews, TablesClaimed, TablesNews,
    },
    outcome::{Attempt, Evidence, Failure, Outcome, StoredObject, Success},
    partition::{Entry, Settled},
    plan::{Plan, Reach},
    report::{Partition, PartitionId, ReportId},
    table_words::{TableFormat, TablesState},
};
use tempfile::TempDir;

use super::{
    GROUNDS, adoption,
    figures::{Step, assert_counted, one_of_four, take},
    partition,
};
use crate::support::postgres::{self, Route};

/// Where an empty ledger is.
enum Place {
    File(TempDir),
    Memory(Memory),
    Server(String),
}

impl Place {
    async fn open(&self, holder: &str) -> Ledger {
        let now = "2026-11-21T12:00:00Z".parse().unwrap();
        match self {
            Place::File(folder) => ledger::open(&folder.path().join("moesync.db"), holder, now).await.unwrap().0,
            Place::Memory(memory) => memory.open(holder),
            Place::Server(url) => ledger::open_server(url, "place", |_| holder.to_owned()).await.unwrap().0,
        }
    }

    /// Makes `holder` look dead, as if its process had been killed: its claims stay.
    async fn bury(&self, holder: &str) {
        match self {
            Place::File(folder) => fs::remove_file(folder.path().join("moesync.db.holders").join(holder)).unwrap(),
            Place::Memory(memory) => memory.kill(holder),
            Place::Server(url) => postgres::bury(url, holder).await,
        }
    }
}

macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        mod file {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Place::File(tempfile::tempdir().unwrap())).await;
            })*
        }

        mod memory {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Place::Memory(super::Memory::new().await.unwrap())).await;
            })*
        }

        mod server {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Place::Server(super::postgres::database(super::Route::Direct).await)).await;
            })*
        }

        mod pooled_server {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Place::Server(super::postgres::database(super::Route::Pooled).await)).await;
            })*
        }
    };
}

contract! {
    a_dead_holders_claim_passes_to_one_other_and_its_late_result_is_not_recorded,
    a_claim_made_again_by_its_own_holder_voids_the_one_before,
    a_claim_that_returns_to_its_first_holder_voids_that_ones_earlier_claim,
    a_partition_that_was_refreshed_since_it_was_planned_is_not_claimed,
    a_partition_that_was_attempted_since_it_was_planned_is_not_claimed,
    what_a_live_process_works_on_is_not_adopted_and_the_claim_of_a_dead_one_ends,
    a_plan_made_before_recovery_set_a_report_back_does_not_hide_its_dates,
    each_way_that_a_partition_can_go_is_counted,
    a_loss_is_acknowledged_until_it_is_asked_for_again,
    a_forgotten_partition_is_discarded_by_who_works_on_it_and_its_number_hides_no_news,
    a_duty_has_one_holder_and_passes_to_one_other_when_that_one_dies,
    a_process_that_has_lost_a_duty_records_no_notifications_for_it,
    a_date_that_recovery_has_explained_was_not_asked_for_late,
    a_hold_by_a_clock_that_was_ahead_is_void_and_ends_with_the_next_answer,
    an_alarm_about_a_process_is_known_to_the_others_while_that_process_lives,
    the_requests_of_an_account_keep_their_distance_over_all_processes,
    a_pause_that_was_asked_for_applies_to_all_processes,
    pages_from_a_date_on_have_every_partition_once_and_in_order,
    the_tables_of_a_report_have_one_maker_and_a_late_one_records_nothing,
}

async fn the_tables_of_a_report_have_one_maker_and_a_late_one_records_nothing(place: Place) {
    let at: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    let (one, other) = (place.open("one").await, place.open("other").await);
    let of = |date: &str| {
        let mut partition = partition(at);
        partition.id.date = date.parse().unwrap();
        let object = StoredObject { key: "daily.zip".into(), size: 3, sha256: "abc".into(), stored_at: at };
        adoption(&partition, &object)
    };
    let (id, sha256) = (of("2026-11-20").partition.id, "abc".to_owned());
    one.adopt(&[of("2026-11-20"), of("2026-11-21")]).await.unwrap();
    let reports = BTreeMap::from([(id.report.clone(), TableFormat::Parquet)]);
    assert!(one.set_table_reports(&reports).await.unwrap() && !other.set_table_reports(&reports).await.unwrap());
    one.add_targets(&["hook"], at).await.unwrap();
    assert!(other.reports_with_tables_due(Some(at), 9).await.unwrap().iter().eq([&id.report]));
    let TablesClaimed::Ours(claim) = one.claim_tables(&id.report, TableFormat::Parquet).await.unwrap() else {
        panic!()
    };
    assert!(matches!(other.claim_tables(&id.report, TableFormat::Parquet).await.unwrap(), TablesClaimed::Theirs));
    for most in [MostDue { partitions: 1, bytes: 9 }, MostDue { partitions: 9, bytes: 5 }] {
        let due = one.begin_tables(&claim, None, |_| true, most).await.unwrap();
        let dates: Vec<_> = due.iter().map(|due| due.entry.partition.id.date.to_string()).collect();
        assert_eq!(dates, ["2026-11-21"], "newest first, {most:?}");
    }
    let most = MostDue { partitions: 1, bytes: 1 };
    let due = one.begin_tables(&claim, None, |chosen| *chosen == id, most).await.unwrap();
    assert_eq!((&due[0].entry.partition.id, &due[0].objects, due[0].was_begun), (&id, &None, false));
    let most = MostDue { partitions: 9, bytes: 6 };
    let due = one.begin_tables(&claim, Some(at), |_| true, most).await.unwrap();
    assert_eq!(due.len(), 2);
    let newer = due[0].entry.partition.id.clone();

    let object = TableObject {
        table: "push".into(),
        key: "tables/acme/daily/push/date=2026-11-20/part-0.parquet".into(),
        rows: 7,
        rescued_rows: 0,
        size: 9,
        sha256: sha256.clone(),
        schema_version: "v".into(),
    };
    let derived = Derived { objects: vec![object], left_alone: vec!["notes.pdf".into()] };
    let made = Derivation { finished_at: at, sha256: sha256.clone(), result: Ok(derived.clone()), is_news: true };
    let difference = Difference {
        change: DifferenceKind::Added,
        column: "sent".into(),
        heading: "Sent".into(),
        former_type: None,
        column_type: None,
    };
    let change = SchemaChange { table: "push".into(), date: id.date, difference };
    for _ in 0..2 {
        one.note_schema_changes(&claim, std::slice::from_ref(&change)).await.unwrap();
    }

    // The process stands still, another takes over, and the first goes on.
    place.bury("one").await;
    let TablesClaimed::Ours(second) = other.claim_tables(&id.report, TableFormat::Parquet).await.unwrap() else {
        panic!()
    };
    assert!(!one.has_tables_claim(&claim).await.unwrap() && other.has_tables_claim(&second).await.unwrap());
    let late = one.record_tables(&claim, &[after(&id, &made, 0)]).await;
    assert!(matches!(late, Err(LedgerError::Fenced { .. })), "{late:?}");
    assert_eq!(other.tables_of(&id).await.unwrap().unwrap().state, TablesState::Pending);

    let due = other.begin_tables(&second, Some(at), |_| true, most).await.unwrap();
    assert!(due.iter().all(|due| due.was_begun));
    let failure = DerivationFailure { message: "no workbook".into(), is_of_content: true };
    let failed = Derivation { result: Err(failure), ..made.clone() };
    other.record_tables(&second, &[after(&newer, &made, 0), after(&id, &failed, 0)]).await.unwrap();
    assert_eq!(
        other.tables_of(&newer).await.unwrap().unwrap().state,
        TablesState::Made,
        "one fails, the other does not"
    );
    let reported = other.failed_tables().await.unwrap();
    assert_eq!((reported.len(), reported[0].partitions, reported[0].message.as_str()), (1, 1, "no workbook"));
    assert!(other.begin_tables(&second, Some(at), |_| true, most).await.unwrap().is_empty(), "not before its time");

    assert_eq!(other.begin_tables(&second, None, |_| true, most).await.unwrap().len(), 1);
    other.record_tables(&second, &[after(&id, &made, 1)]).await.unwrap();
    other.release_tables(&second).await.unwrap();
    let tables = other.tables_of(&id).await.unwrap().unwrap();
    assert_eq!((tables.state, tables.derived, tables.message), (TablesState::Made, derived, None));
    let figures = other.table_figures().await.unwrap().remove(&id.report).unwrap();
    assert_eq!((figures.rows, figures.newest, figures.pending, figures.failed), (14, Some(newer.date), 0, 0));
    assert_eq!(figures.schema_changes, 1);

    let mut news = (0, 0);
    for _ in 0..2 {
        let counts = std::sync::Mutex::new(&mut news);
        let tables = |_: &TablesNews| {
            counts.lock().unwrap().0 += 1;
            Vec::new()
        };
        let schemas = |news: &SchemaNews| {
            counts.lock().unwrap().1 += news.changes.len();
            Vec::new()
        };
        other.announce_tables("hook", at, 100, tables, schemas).await.unwrap();
    }
    assert_eq!(news, (2, 1), "each once");

    assert_eq!(other.make_tables_again(&Choice::default(), Some(id.date)).await.unwrap(), 1);
    let TablesClaimed::Ours(again) = other.claim_tables(&id.report, TableFormat::Parquet).await.unwrap() else {
        panic!()
    };
    assert!(other.begin_tables(&again, Some(at), |_| true, most).await.unwrap()[0].remake);
    assert!(other.set_table_reports(&BTreeMap::new()).await.unwrap());
    assert_eq!(other.tables_of(&id).await.unwrap(), None);

    // Made in another format from now on: what is under way in the former one is not recorded.
    assert!(other.set_table_reports(&reports).await.unwrap());
    let TablesClaimed::Ours(former) = other.claim_tables(&id.report, TableFormat::Parquet).await.unwrap() else {
        panic!()
    };
    let reports = BTreeMap::from([(id.report.clone(), TableFormat::CsvGz)]);
    assert!(other.set_table_reports(&reports).await.unwrap());
    let late = other.record_tables(&former, &[after(&id, &made, 0)]).await;
    assert!(matches!(late, Err(LedgerError::Fenced { .. })), "{late:?}");
    assert!(matches!(other.claim_tables(&id.report, TableFormat::Parquet).await.unwrap(), TablesClaimed::Settled));
    assert!(matches!(other.claim_tables(&id.report, TableFormat::CsvGz).await.unwrap(), TablesClaimed::Ours(_)));
}

fn after<'a>(id: &'a PartitionId, derivation: &'a Derivation, failures: u32) -> MadeTables<'a> {
    MadeTables { id, derivation, after: derivation.consequence(failures, 0.5) }
}

/// How far a plan looks back that is of no report.
fn reach(at: Timestamp) -> Reach {
    Reach::of(&[], at, at)
}

/// Records under `claim` that the object was stored at `at`.
async fn record(ledger: &Ledger, claim: &Claim, at: Timestamp) -> Result<(), LedgerError> {
    let object = StoredObject { key: "daily.zip".into(), size: 3, sha256: "abc".into(), stored_at: at };
    let evidence = Evidence { http_status: Some(200), vendor_date: Some(at), seen: true, ..Evidence::default() };
    let success = Success { object, remark: None, message: String::new(), evidence };
    let attempt = Attempt { started_at: at, finished_at: at, result: Ok(success) };
    let (after, hold) = claim.entry.clone().after(&attempt, GROUNDS, 0.5);
    ledger.record(claim, &attempt, &after, hold).await.map(drop)
}

async fn a_dead_holders_claim_passes_to_one_other_and_its_late_result_is_not_recorded(place: Place) {
    let at: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    let open = async |holder| place.open(holder).await;
    let (first, second, third) = (open("first").await, open("second").await, open("third").await);
    let partition = partition(at);
    let id = partition.id.clone();
    let entry = Entry::new(partition);
    first.reopen(std::slice::from_ref(&entry)).await.unwrap();

    let Claimed::Ours(dead) = first.claim(&entry).await.unwrap() else { panic!("it was free") };
    assert!(matches!(second.claim(&entry).await.unwrap(), Claimed::Theirs), "its holder lives");
    place.bury("first").await;
    let Claimed::Ours(heir) = second.claim(&entry).await.unwrap() else { panic!("its holder is dead") };
    assert!(matches!(third.claim(&entry).await.unwrap(), Claimed::Theirs), "the heir lives");
    assert!(!first.is_ours(&dead).await.unwrap() && second.is_ours(&heir).await.unwrap());

    assert!(matches!(record(&first, &dead, at).await, Err(LedgerError::Fenced { .. })));
    assert_eq!(third.attempts(&id).await.unwrap(), []);
    record(&second, &heir, at).await.unwrap();
    assert_eq!(third.attempts(&id).await.unwrap().len(), 1);
    assert!(matches!(third.claim(&entry).await.unwrap(), Claimed::Changed));
}

async fn a_claim_made_again_by_its_own_holder_voids_the_one_before(place: Place) {
    let at: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    let ledger = place.open("me").await;
    let partition = partition(at);
    let id = partition.id.clone();
    let entry = Entry::new(partition);
    ledger.reopen(std::slice::from_ref(&entry)).await.unwrap();

    let Claimed::Ours(before) = ledger.claim(&entry).await.unwrap() else { panic!("it was free") };
    let Claimed::Ours(after) = ledger.claim(&entry).await.unwrap() else { panic!("it is our own") };
    assert!(!ledger.is_ours(&before).await.unwrap());
    assert!(ledger.is_ours(&after).await.unwrap());

    assert!(
        matches!(record(&ledger, &before, at).await, Err(LedgerError::Fenced { .. })),
        "a claim that is void was recorded by"
    );
    assert_eq!(ledger.attempts(&id).await.unwrap(), []);
    record(&ledger, &after, at).await.unwrap();
    assert_eq!(ledger.attempts(&id).await.unwrap().len(), 1);
}

async fn a_claim_that_returns_to_its_first_holder_voids_that_ones_earlier_claim(place: Place) {
    let at: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    let (first, second) = (place.open("first").await, place.open("second").await);
    let entry = Entry::new(partition(at));
    first.reopen(std::slice::from_ref(&entry)).await.unwrap();

    let Claimed::Ours(before) = first.claim(&entry).await.unwrap() else { panic!("it was free") };
    place.bury("first").await;
    let Claimed::Ours(_) = second.claim(&entry).await.unwrap() else { panic!("its holder is dead") };
    place.bury("second").await;
    let Claimed::Ours(after) = first.claim(&entry).await.unwrap() else { panic!("its holder is dead") };
    assert!(!first.is_ours(&before).await.unwrap() && first.is_ours(&after).await.unwrap());
    assert!(matches!(record(&first, &before, at).await, Err(LedgerError::Fenced { .. })));
    record(&first, &after, at).await.unwrap();
}

async fn a_partition_that_was_refreshed_since_it_was_planned_is_not_claimed(place: Place) {
    let at: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    let (first, second) = (place.open("first").await, place.open("second").await);
    let open = Entry::new(partition(at));
    let id = open.partition.id.clone();
    first.reopen(std::slice::from_ref(&open)).await.unwrap();
    let Claimed::Ours(claim) = first.claim(&open).await.unwrap() else { panic!("it was free") };
    record(&first, &claim, at).await.unwrap();

    let planned = first.entry_of(&id).await.unwrap().unwrap();
    let Claimed::Ours(claim) = first.claim(&planned).await.unwrap() else { panic!("it was free") };
    record(&first, &claim, at + SignedDuration::from_hours(24)).await.unwrap();
    assert!(matches!(second.claim(&planned).await.unwrap(), Claimed::Changed));
    let refreshed = second.entry_of(&id).await.unwrap().unwrap();
    assert!(matches!(first.claim(&refreshed).await.unwrap(), Claimed::Ours(_)), "the refused claim remained");
}

async fn a_partition_that_was_attempted_since_it_was_planned_is_not_claimed(place: Place) {
    let at: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    let (first, second) = (place.open("first").await, place.open("second").await);
    let planned = Entry::new(partition(at));
    let id = planned.partition.id.clone();
    first.reopen(std::slice::from_ref(&planned)).await.unwrap();
    let Claimed::Ours(claim) = first.claim(&planned).await.unwrap() else { panic!("it was free") };
    let evidence = Evidence { http_status: Some(503), ..Evidence::default() };
    let failure = Failure::after(&evidence, Outcome::Unavailable, "busy".into());
    let attempt = Attempt { started_at: at, finished_at: at, result: Err(failure) };
    let (after, hold) = claim.entry.clone().after(&attempt, GROUNDS, 0.5);
    first.record(&claim, &attempt, &after, hold).await.unwrap();

    assert!(matches!(second.claim(&planned).await.unwrap(), Claimed::Changed), "its next attempt is due later");
    // The time of an attempt is kept in milliseconds.
    let precise = Entry { last_attempt_at: Some(at + SignedDuration::from_nanos(1)), ..after };
    assert!(matches!(second.claim(&precise).await.unwrap(), Claimed::Ours(_)), "the refused claim remained");
    assert_eq!(first.attempts(&id).await.unwrap().len(), 1);
}

async fn what_a_live_process_works_on_is_not_adopted_and_the_claim_of_a_dead_one_ends(place: Place) {
    let at: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    let open = async |holder| place.open(holder).await;
    let (first, second) = (open("first").await, open("second").await);
    let partition = partition(at);
    let id = partition.id.clone();
    let object = StoredObject { key: "daily.zip".into(), size: 3, sha256: "abc".into(), stored_at: at };
    let entry = Entry::new(partition.clone());
    first.reopen(std::slice::from_ref(&entry)).await.unwrap();
    let Claimed::Ours(claim) = first.claim(&entry).await.unwrap() else { panic!("it was free") };
    for ledger in [&first, &second] {
        assert_eq!(ledger.adopt(&[adoption(&partition, &object)]).await.unwrap(), 0, "it is in flight");
    }
    assert_eq!(second.attempts(&id).await.unwrap(), []);
    assert_eq!(first.entry_of(&id).await.unwrap().unwrap().settled, Settled::Open);
    record(&first, &claim, at).await.unwrap();
    assert_eq!(second.adopt(&[adoption(&partition, &object)]).await.unwrap(), 0, "it is stored");
    assert_eq!(second.attempts(&id).await.unwrap().len(), 1, "one attempt was recorded twice");

    let other = Partition { id: PartitionId { report: ReportId::new("acme", "other"), ..id }, ..partition };
    let entry = Entry::new(other.clone());
    first.reopen(std::slice::from_ref(&entry)).await.unwrap();
    let Claimed::Ours(dead) = first.claim(&entry).await.unwrap() else { panic!("it was free") };
    place.bury("first").await;
    assert_eq!(second.adopt(&[adoption(&other, &object)]).await.unwrap(), 1);
    assert!(!first.is_ours(&dead).await.unwrap());
    assert_eq!(second.note_interrupted().await.unwrap(), 0, "the stored partition counts as half fetched");
    let adopted = second.entry_of(&other.id).await.unwrap().unwrap();
    assert_eq!((adopted.settled, adopted.outcome), (Settled::Stored, Some(Outcome::Stored)));
}

async fn a_plan_made_before_recovery_set_a_report_back_does_not_hide_its_dates(place: Place) {
    let at: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    let ledger = place.open("me").await;
    let id = partition(at).id.report;
    let plan = |through| Plan { planned_through: vec![(id.clone(), through)], ..Plan::default() };
    let planned = async || ledger.view(&reach(at)).await.unwrap().planned_through.get(&id).copied();
    ledger.extend(&plan(at), &ledger.view(&reach(at)).await.unwrap()).await.unwrap();
    let view = ledger.view(&reach(at)).await.unwrap();
    let earlier = at - SignedDuration::from_hours(72);
    ledger.note_recovered(&id, Some(earlier)).await.unwrap();
    ledger.extend(&plan(at + SignedDuration::from_hours(1)), &view).await.unwrap();
    assert_eq!(planned().await, Some(earlier));
    // Once is enough: what was planned since stays planned.
    ledger.extend(&plan(at), &ledger.view(&reach(at)).await.unwrap()).await.unwrap();
    ledger.note_recovered(&id, Some(earlier)).await.unwrap();
    assert_eq!(planned().await, Some(at));
}

async fn each_way_that_a_partition_can_go_is_counted(place: Place) {
    let now: Timestamp = "2026-11-21T18:00:00Z".parse().unwrap();
    let ledger = place.open("me").await;
    let mut seen = BTreeSet::new();
    // The property test draws from the same steps; these orders meet each state at least once.
    for (number, (step, which)) in (0..).zip([
        (Step::AskLate, 1),
        (Step::Deny, 1),
        (Step::Adopt, 0),
        (Step::Recover, 0),
        (Step::Damage, 0),
        (Step::Fail, 0),
        (Step::Deny, 0),
        (Step::Ask, 0),
        (Step::Deny, 0),
        (Step::Adopt, 0),
        (Step::AskLate, 1),
        (Step::Ask, 2),
        (Step::Adopt, 2),
        (Step::Restate, 2),
        (Step::AskLate, 3),
        (Step::Deny, 3),
        (Step::Ask, 3),
        (Step::Adopt, 3),
        (Step::Damage, 2),
        (Step::Adopt, 2),
        (Step::Ask, 1),
        (Step::Deny, 1),
        (Step::Acknowledge, 0),
        (Step::Acknowledge, 1),
        (Step::Forget, 0),
    ]) {
        take(&ledger, step, &one_of_four(which), number).await;
        assert_counted(&ledger, now).await;
        seen.extend(ledger.entries().await.unwrap().iter().map(|entry| entry.state(now).as_str()));
    }
    assert_eq!(Vec::from_iter(seen), ["absent", "lost", "pending", "scheduled", "stored"]);
}

async fn a_loss_is_acknowledged_until_it_is_asked_for_again(place: Place) {
    let ledger = place.open("me").await;
    let lost = one_of_four(0);
    take(&ledger, Step::Ask, &lost, 0).await;
    take(&ledger, Step::Deny, &lost, 1).await;
    let unseen = async || ledger.lost().await.unwrap().len();
    assert_eq!(unseen().await, 1);
    assert_eq!(ledger.acknowledge(std::slice::from_ref(&lost.id)).await.unwrap(), 1);
    assert_eq!((unseen().await, ledger.acknowledge(std::slice::from_ref(&lost.id)).await.unwrap()), (0, 0));
    assert!(ledger.entry_of(&lost.id).await.unwrap().unwrap().acknowledged);
    take(&ledger, Step::Ask, &lost, 2).await;
    take(&ledger, Step::Deny, &lost, 3).await;
    assert_eq!(unseen().await, 1);
}

async fn a_forgotten_partition_is_discarded_by_who_works_on_it_and_its_number_hides_no_news(place: Place) {
    let at: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    let ledger = place.open("me").await;
    let (kept, gone) = (one_of_four(0), one_of_four(1));
    take(&ledger, Step::Ask, &kept, 0).await;
    take(&ledger, Step::Ask, &gone, 0).await;
    let entry = Entry::new(gone.clone());
    let Claimed::Ours(claim) = ledger.claim(&entry).await.unwrap() else { panic!("it was free") };
    assert_eq!(ledger.forget(std::slice::from_ref(&gone.id)).await.unwrap(), 1);
    assert!(matches!(record(&ledger, &claim, at).await, Err(LedgerError::Fenced { .. })));
    assert_eq!(ledger.entries().await.unwrap().len(), 1);
    assert_counted(&ledger, at).await;

    ledger.add_targets(&["hook"], at - SignedDuration::from_hours(1)).await.unwrap();
    take(&ledger, Step::Store, &kept, 1).await;
    let news = ledger.stored_since_ping("hook").await.unwrap();
    ledger.pinged("hook", news.through).await.unwrap();
    ledger.forget_report(&kept.id.report).await.unwrap();
    assert_eq!((ledger.entries().await.unwrap(), ledger.report_figures(None, at).await.unwrap()), (vec![], vec![]));
    take(&ledger, Step::Ask, &kept, 2).await;
    take(&ledger, Step::Store, &kept, 3).await;
    assert_eq!(ledger.stored_since_ping("hook").await.unwrap().stored, 1);
}

async fn a_duty_has_one_holder_and_passes_to_one_other_when_that_one_dies(place: Place) {
    let (first, second, third) = (place.open("first").await, place.open("second").await, place.open("third").await);
    assert_eq!(first.take_duty(Duty::Recovery).await.unwrap(), DutyTaken::Begun);
    for other in [&second, &third] {
        assert!(!other.take_duty(Duty::Recovery).await.unwrap().is_ours(), "a live process has it");
    }
    assert!(second.take_duty(Duty::Notifying).await.unwrap().is_ours(), "another duty");
    assert_eq!(first.take_duty(Duty::Recovery).await.unwrap(), DutyTaken::Kept, "it was given back");
    place.bury("first").await;
    assert_eq!(second.take_duty(Duty::Recovery).await.unwrap(), DutyTaken::Begun);
    assert!(
        !third.take_duty(Duty::Recovery).await.unwrap().is_ours()
            && !first.take_duty(Duty::Recovery).await.unwrap().is_ours()
    );
    third.take_over_duty(Duty::Recovery).await.unwrap();
    assert!(
        third.take_duty(Duty::Recovery).await.unwrap().is_ours()
            && !second.take_duty(Duty::Recovery).await.unwrap().is_ours()
    );
}

async fn a_process_that_has_lost_a_duty_records_no_notifications_for_it(place: Place) {
    let at: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    let (first, second) = (place.open("first").await, place.open("second").await);
    let record = async |ledger: &Ledger, kind| {
        let notified = Notified { since: at, kind, within: None };
        let records = vec![((kind, Subject::default()), Some(notified))];
        ledger.record_notified(Some(Duty::Notifying), "hook", at, |_| (records, Vec::new())).await.unwrap();
    };
    assert!(first.take_duty(Duty::Notifying).await.unwrap().is_ours());
    record(&first, AlarmKind::Corrupt).await;
    place.bury("first").await;
    assert!(second.take_duty(Duty::Notifying).await.unwrap().is_ours());
    record(&first, AlarmKind::Rejected).await;
    record(&second, AlarmKind::Late).await;
    let kinds: Vec<_> = second.notified("hook").await.unwrap().into_keys().map(|(kind, _)| kind).collect();
    assert_eq!(BTreeSet::from_iter(kinds), BTreeSet::from([AlarmKind::Corrupt, AlarmKind::Late]));
}

async fn a_date_that_recovery_has_explained_was_not_asked_for_late(place: Place) {
    let at: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    let ledger = place.open("me").await;
    let on = |date: &str| {
        let partition = partition(at);
        let generated_at = format!("{date}T12:00:00Z").parse().unwrap();
        Partition { id: PartitionId { date: date.parse().unwrap(), ..partition.id }, generated_at, ..partition }
    };
    let late = |date: &str| Entry { requested_late: true, ..Entry::new(on(date)) };
    let is_late = async |date: &str| ledger.entry_of(&on(date).id).await.unwrap().unwrap().requested_late;
    let plan = |dates: &[&str]| Plan { new: dates.iter().map(|date| late(date)).collect(), ..Plan::default() };
    let view = ledger.view(&reach(at)).await.unwrap();
    ledger.extend(&plan(&["2026-11-17", "2026-11-19"]), &view).await.unwrap();
    let Claimed::Ours(claim) = ledger.claim(&late("2026-11-19")).await.unwrap() else { panic!("it was free") };

    let found = on("2026-11-18");
    let object = StoredObject { key: "daily.zip".into(), size: 3, sha256: "abc".into(), stored_at: found.generated_at };
    ledger.adopt(&[adoption(&found, &object)]).await.unwrap();
    ledger.note_recovered(&found.id.report, None).await.unwrap();
    let recorded = record(&ledger, &claim, at).await;
    assert!(matches!(recorded, Err(LedgerError::Fenced { .. })), "the attempt goes by what is no longer so");
    ledger.extend(&plan(&["2026-11-16", "2026-11-20"]), &view).await.unwrap();
    for (date, expected) in [("2026-11-16", true), ("2026-11-17", true), ("2026-11-19", false), ("2026-11-20", false)] {
        assert_eq!(is_late(date).await, expected, "{date}");
    }
}

async fn a_hold_by_a_clock_that_was_ahead_is_void_and_ends_with_the_next_answer(place: Place) {
    let at: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    let ahead = at + SignedDuration::from_hours(9000);
    let ledger = place.open("me").await;
    let partition = partition(at);
    let entry = Entry::new(partition.clone());
    ledger.reopen(std::slice::from_ref(&entry)).await.unwrap();
    let Claimed::Ours(claim) = ledger.claim(&entry).await.unwrap() else { panic!("it was free") };
    let refused = Failure::new(Outcome::Unauthorized, "refused".into());
    let attempt = Attempt { started_at: ahead, finished_at: ahead, result: Err(refused) };
    let (after, hold) = claim.entry.clone().after(&attempt, GROUNDS, 0.5);
    ledger.record(&claim, &attempt, &after, hold).await.unwrap();
    assert_eq!(ledger.view(&reach(ahead)).await.unwrap().holds.len(), 1);
    assert_eq!(ledger.view(&reach(at)).await.unwrap().holds.len(), 0);
    let entry = ledger.entry_of(&partition.id).await.unwrap().unwrap();
    let Claimed::Ours(claim) = ledger.claim(&entry).await.unwrap() else { panic!("it was free") };
    record(&ledger, &claim, at).await.unwrap();
    assert_eq!(ledger.hold_of("acme").await.unwrap(), None);
}

async fn an_alarm_about_a_process_is_known_to_the_others_while_that_process_lives(place: Place) {
    let (first, second, third) = (place.open("first").await, place.open("second").await, place.open("third").await);
    let alarms = |pairs: &[(AlarmKind, &str)]| -> BTreeMap<AlarmKind, String> {
        pairs.iter().map(|(kind, message)| (*kind, (*message).to_owned())).collect()
    };
    let none = alarms(&[]);
    let own = alarms(&[(AlarmKind::Panic, "the loop"), (AlarmKind::StoreFailed, "disk hangs")]);
    assert_eq!(first.share_incidents(&own).await.unwrap(), none, "its own are not those of others");
    let of_second = alarms(&[(AlarmKind::StoreFailed, "no answer")]);
    assert_eq!(second.share_incidents(&of_second).await.unwrap(), own);
    let both = alarms(&[(AlarmKind::Panic, "the loop"), (AlarmKind::StoreFailed, "disk hangs; no answer")]);
    assert_eq!(third.share_incidents(&none).await.unwrap(), both);
    assert_eq!(first.share_incidents(&alarms(&[(AlarmKind::Panic, "the loop")])).await.unwrap(), of_second);
    assert_eq!(
        third.share_incidents(&none).await.unwrap(),
        alarms(&[(AlarmKind::Panic, "the loop"), (AlarmKind::StoreFailed, "no answer")])
    );
    place.bury("first").await;
    assert_eq!(third.share_incidents(&none).await.unwrap(), of_second, "a dead process has no alarm");
    assert_eq!(second.share_incidents(&none).await.unwrap(), none);
    assert_eq!(third.share_incidents(&none).await.unwrap(), none);
}

const RATE: Rate = Rate { distance: Duration::from_secs(60), longest_wait: Duration::from_secs(3600) };

async fn the_requests_of_an_account_keep_their_distance_over_all_processes(place: Place) {
    // The clocks of servers go on meanwhile; that of a file is the one that is passed.
    let now = "2026-11-21T12:00:00Z".parse().unwrap();
    let (first, second) = (place.open("first").await, place.open("second").await);
    let turn = async |ledger: &Ledger, source| ledger.take_turn("app", source, RATE, now).await.unwrap();
    let minutes = |wait: Duration| (wait.as_secs_f64() / 60.0).ceil();
    for expected in 1..=4 {
        let ledger = if expected % 2 == 0 { &second } else { &first };
        assert_eq!(minutes(turn(ledger, SourceKind::Campaigns).await), f64::from(expected));
    }
    assert_eq!(minutes(turn(&second, SourceKind::CampaignStats).await), 1.0, "each API has a rate of its own");
    let short = Rate { longest_wait: Duration::from_secs(1), ..RATE };
    let wait = first.take_turn("app", SourceKind::Campaigns, short, now).await.unwrap();
    assert_eq!(minutes(wait), 1.0, "a clock that was set back keeps all requests waiting");
}

async fn a_pause_that_was_asked_for_applies_to_all_processes(place: Place) {
    let now = "2026-11-21T12:00:00Z".parse().unwrap();
    let (first, second) = (place.open("first").await, place.open("second").await);
    let left = async || second.rest_left("app", SourceKind::Campaigns, now).await.unwrap();
    assert_eq!(left().await, Duration::ZERO);
    first.rest("app", SourceKind::Campaigns, Duration::from_secs(1200), now).await.unwrap();
    first.rest("app", SourceKind::Campaigns, Duration::from_secs(600), now).await.unwrap();
    assert!(left().await > Duration::from_secs(1000), "a shorter pause ended a longer one");
    let wait = second.take_turn("app", SourceKind::Campaigns, RATE, now).await.unwrap();
    assert!(wait > Duration::from_secs(1000), "{wait:?}");
}

async fn pages_from_a_date_on_have_every_partition_once_and_in_order(place: Place) {
    let at: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    let ledger = place.open("me").await;
    let mut recorded = Vec::new();
    for (workspace, report) in [("acme", "a"), ("acme", "b"), ("acme", "c"), ("other", "b")] {
        for date in ["2026-11-18", "2026-11-19", "2026-11-20", "2026-11-21"] {
            let id = PartitionId { report: ReportId::new(workspace, report), date: date.parse().unwrap() };
            recorded.push(Partition { id, ..partition(at) });
        }
    }
    ledger.reopen(&recorded.iter().cloned().map(Entry::new).collect::<Vec<_>>()).await.unwrap();
    let since = "2026-11-20".parse().unwrap();
    let names = [None, Some("acme"), Some("other")].map(|name| name.map(str::to_owned));
    for (workspace, report) in names.iter().flat_map(|name| [(name, None), (name, Some("b".to_owned()))]) {
        let is_meant = |id: &PartitionId| {
            id.date >= since
                && workspace.as_ref().is_none_or(|name| name == id.workspace())
                && report.as_ref().is_none_or(|name| name == id.report.name())
        };
        let expected: Vec<_> = recorded.iter().map(|partition| partition.id.clone()).filter(is_meant).collect();
        let choice = Choice { workspace: workspace.clone(), report: report.clone(), since: Some(since) };
        let mut read: Vec<PartitionId> = Vec::new();
        loop {
            let page = ledger.page(&choice, read.last(), 3).await.unwrap();
            if page.is_empty() {
                break;
            }
            read.extend(page.into_iter().map(|entry| entry.partition.id));
        }
        assert_eq!(read, expected, "{choice:?}");
    }
}
