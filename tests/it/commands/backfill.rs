//! `moesync backfill`.

use jiff::ToSpan as _;

use super::listing;
use crate::support::{Bench, Series};

#[tokio::test(flavor = "multi_thread")]
async fn backfill_of_a_live_listing_is_refused_and_of_an_archive_ignores_start() {
    let bench = Bench::new(&[Series::dump(1)]).await;
    let listing_report = "\n[[reports]]\nworkspace = \"acme\"\nsource = \"campaigns\"\ndestination = \"disk\"\n\
                          schedule = { every = \"day\", at = \"09:30\" }\n";
    bench.write_config(&format!("{}{listing_report}", bench.config()));
    let from = bench.newest.checked_sub(3.days()).unwrap().to_string();
    let to = bench.newest.checked_sub(1.days()).unwrap().to_string();
    let refused = bench.run(&["backfill", "--report", "campaigns", "--from", &from, "--to", &to]).await.expect(2);
    assert!(refused.stderr.contains("live listing"), "{}", refused.stderr);
    assert!(!bench.ledger().exists());

    let filled = bench.run(&["backfill", "--report", "dump", "--from", &from, "--to", &to, "--json"]).await.expect(0);
    let stored = filled.partitions();
    assert_eq!(stored.len(), 3);
    assert!(stored.iter().all(|partition| partition["state"] == "stored"));
    // A second run changes nothing.
    let again = bench.run(&["backfill", "--report", "dump", "--from", &from, "--to", &to]).await.expect(0).stdout;
    assert_eq!(again, "every date that was named is stored already\n");
    assert_eq!(bench.requests(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_past_the_retention_is_refused_unless_asked_anyway() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let date = |ago: i64| bench.newest.checked_sub(ago.days()).unwrap().to_string();
    let (from, to) = (date(9), date(5));
    let backfill = ["backfill", "--report", "report-test", "--from", &from, "--to", &to, "--json"];
    let before = listing(&bench);
    for dry_run in [&["--dry-run"][..], &[]] {
        let refused = bench.run(&[&backfill[..], dry_run].concat()).await.expect(2);
        for named in [&date(9), &date(8), &date(7), &format!("--from {}", date(6)), "--ask-anyway"] {
            assert!(refused.stderr.contains(named), "{named}: {}", refused.stderr);
        }
        assert!(!refused.stderr.contains(&date(5)), "{}", refused.stderr);
    }
    // More than a week of them are named by their ends.
    let longer = ["backfill", "--report", "report-test", "--from", &date(20), "--to", &to];
    let refused = bench.run(&longer).await.expect(2).stderr;
    let named = format!("past its retention: 14 dates from {} to {}; use --from {}", date(20), date(7), date(6));
    assert!(refused.contains(&named), "{refused}");
    let shown = bench.run(&[&backfill[..], &["--dry-run", "--ask-anyway"]].concat()).await.expect(0).partitions();
    let dates: Vec<_> = shown.iter().map(|partition| partition["date"].as_str().unwrap().to_owned()).collect();
    assert_eq!(dates, [9, 8, 7, 6, 5].map(date));
    assert!(shown.iter().all(|partition| partition["asked"] == true && partition["state"] == "pending"));
    assert_eq!((listing(&bench), bench.requests()), (before, 0), "something was touched");

    let ran = bench.run(&[&backfill[..], &["--ask-anyway"]].concat()).await.expect(0);
    let states: Vec<_> = ran.partitions().iter().map(|p| p["state"].as_str().unwrap().to_owned()).collect();
    assert_eq!(states, ["absent", "absent", "absent", "stored", "stored"]);
    assert_eq!(ran.alarms(), [""; 0], "{}", ran.stderr);
    bench.sync(0).await;
    bench.run(&["status", "--check"]).await.expect(0);
    let (from, to) = (date(7), date(6));
    let again = ["backfill", "--report", "report-test", "--from", &from, "--to", &to, "--ask-anyway", "--dry-run"];
    let again = bench.run(&[&again[..], &["--json"]].concat()).await.expect(0).partitions();
    let asked: Vec<_> = again.iter().map(|p| (p["state"].as_str().unwrap(), p["asked"].as_bool().unwrap())).collect();
    assert_eq!(asked, [("absent", true), ("stored", false)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn dates_that_are_not_generated_yet_are_named_and_the_others_requested() {
    let bench = Bench::new(&[Series::dump(1)]).await;
    let date = |ago: i64| bench.newest.checked_sub(ago.days()).unwrap().to_string();
    let (from, to) = (date(1), date(-2));
    let backfill = ["backfill", "--report", "dump", "--from", &from, "--to", &to];
    let shown = bench.run(&[&backfill[..], &["--dry-run", "--json"]].concat()).await.expect(0).partitions();
    let line = |p: &serde_json::Value| [&p["date"], &p["state"], &p["asked"]].map(ToString::to_string).join(" ");
    let expected = [(1, "pending", true), (0, "pending", true), (-1, "scheduled", false), (-2, "scheduled", false)];
    let expected = expected.map(|(ago, state, asked)| format!("\"{}\" \"{state}\" {asked}", date(ago)));
    assert_eq!(shown.iter().map(line).collect::<Vec<_>>(), expected);
    let text = bench.run(&[&backfill[..], &["--dry-run"]].concat()).await.expect(0).stdout;
    assert!(text.contains("not generated yet, so not requested") && text.ends_with("2 would be requested\n"), "{text}");

    let ran = bench.run(&[&backfill[..], &["--json"]].concat()).await.expect(0).partitions();
    let states: Vec<_> = ran.iter().map(|p| (p["date"].as_str().unwrap(), p["state"].as_str().unwrap())).collect();
    let dates = [1, 0, -1, -2].map(date);
    let expected = dates.iter().map(String::as_str).zip(["stored", "stored", "scheduled", "scheduled"]);
    assert_eq!(states, expected.collect::<Vec<_>>());
    let named = format!("not generated yet, so not requested: {}, {}\n", date(-1), date(-2));
    let again = bench.run(&backfill).await.expect(0).stdout;
    assert_eq!(again, format!("every date that was named and is generated is stored already\n{named}"));
    assert_eq!(bench.requests(), 2);
    let last = date(-30);
    let longer = ["backfill", "--report", "dump", "--from", &date(2), "--to", &last];
    let text = bench.run(&longer).await.expect(0).stdout;
    let named = format!("1 stored\nnot generated yet, so not requested: 30 dates from {} to {last}\n", date(-1));
    assert!(text.ends_with(&named), "{text}");
    let only = ["backfill", "--report", "dump", "--from", &date(-1), "--to", &last];
    for dry_run in [&["--dry-run"][..], &[]] {
        let refused = bench.run(&[&only[..], dry_run].concat()).await.expect(2).stderr;
        assert!(refused.contains("that is in the past"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_without_expiry_is_backfilled_at_any_age() {
    let bench = Bench::new(&[Series::dump(1)]).await;
    let date = bench.newest.checked_sub(400.days()).unwrap().to_string();
    let backfill = ["backfill", "--report", "dump", "--from", &date, "--to", &date, "--json"];
    let states = async |code| bench.run(&backfill).await.expect(code).partitions()[0]["state"].clone();
    bench.fault("not-yet,times=1");
    assert_eq!(states(0).await, "absent", "it was never seen, and past the time to give it up");
    assert_eq!(states(0).await, "stored", "and it can be asked for again");
}
