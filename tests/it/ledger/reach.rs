//! A view has what a plan can meet again, and no more of the history is needed.

use std::{collections::HashMap, fs};

use jiff::{SignedDuration, Timestamp};
use moesync::{
    config,
    ledger::{self, Ledger},
    outcome::{Attempt, Evidence, Failure, Outcome, StoredObject},
    partition::{Entry, Settled},
    plan::{self, LONGEST_STEP, LedgerView, Plan, Reach},
    report::Partition,
    schedule,
};
use proptest::prelude::*;

use super::{adoption, try_once};

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
        Stand::Stored => drop(ledger.adopt(&[adoption(partition, &object)]).await.unwrap()),
        Stand::HalfReplaced | Stand::NotRefreshed => {
            ledger.adopt(&[adoption(partition, &object)]).await.unwrap();
            let is_half_done = matches!(stand, Stand::HalfReplaced);
            let outcome = if is_half_done { Outcome::StoreFailed } else { Outcome::Unavailable };
            try_once(ledger, partition, Settled::Stored, failed(outcome, at)).await;
        }
        Stand::Absent => {
            ledger.reopen(&[Entry::requested_late(partition.clone())]).await.unwrap();
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
