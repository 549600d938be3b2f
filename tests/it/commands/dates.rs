//! Dates on the command line, and `sign`.

use jiff::ToSpan as _;
use serde_json::Value;

use crate::support::{Bench, Series};

#[tokio::test(flavor = "multi_thread")]
async fn a_date_is_written_in_five_forms_and_counts_from_today_where_the_report_is_generated() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    bench.sync(0).await;
    // Where it is tomorrow already, or still yesterday.
    for (zone, offset) in [("UTC", 0), ("Pacific/Kiritimati", 14), ("Etc/GMT+12", -12)] {
        bench.write_config(&bench.config().replace("timezone = \"UTC\"", &format!("timezone = \"{zone}\"")));
        let explained = async |date: &str| -> Value {
            let ran = bench.run(&["explain", "--report", "report-test", "--date", date, "--json"]).await.expect(0);
            serde_json::from_str::<Value>(&ran.stdout).unwrap()["date"].clone()
        };
        let today = || (bench.clock.read() + offset.hours()).to_zoned(jiff::tz::TimeZone::UTC).date();
        let (before, shown, after) = (today(), explained("-7d").await, today());
        let week_ago = [before, after].map(|day| Value::from(day.saturating_sub(7.days()).to_string()));
        assert!(week_ago.contains(&shown), "{zone}: {shown}");
        assert_eq!(explained("20261121").await, explained("2026-11-21").await);
        assert_ne!(explained("yesterday").await, explained("-3d").await);
    }
    for arguments in [
        &["explain", "--report", "report-test", "--date", "21/11/2026"] as &[&str],
        &["backfill", "--report", "report-test", "--from", "-7", "--to", "today"],
        &["ls", "--date", "-x"],
        &["status", "--since", "tomorrow"],
    ] {
        let refused = bench.run(arguments).await.expect(2);
        let forms = "2026-11-21, 20261121, today, yesterday or -7d (seven days ago)";
        assert!(refused.stderr.contains(forms), "{}", refused.stderr);
    }
    for command in ["ls", "tables", "status"] {
        let option = if command == "status" { "--since" } else { "--from" };
        bench.run(&[command, option, "-7d"]).await.expect(0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sign_takes_a_report_and_a_date_and_needs_no_workspace_if_there_is_one() {
    let bench = Bench::new(&[Series::campaign("Report test", 1), Series::dump(1)]).await;
    let signed = async |arguments: &[&str]| bench.run(&[&["sign"], arguments].concat()).await.expect(0).stdout;
    let by_name = signed(&["--filename", "Report_test_20261121.zip"]).await;
    assert_eq!(by_name, signed(&["--report", "report-test", "--date", "2026-11-21"]).await);
    assert_eq!(by_name, signed(&["--workspace", "acme", "--filename", "Report_test_20261121.zip"]).await);
    assert!(by_name.contains("curl") && by_name.contains("Report_test_20261121.zip"), "{by_name}");
    assert_eq!(
        signed(&["--filename", "20261121.zip"]).await,
        signed(&["--report", "dump", "--date", "20261121"]).await
    );
    bench.run(&["sign"]).await.expect(2);
    bench.run(&["sign", "--report", "report-test"]).await.expect(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_year_without_reports_is_a_mistake() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let refused = bench
        .run(&["backfill", "--report", "report-test", "--from", "0206-11-01", "--to", "yesterday"])
        .await
        .expect(2);
    assert!(refused.stderr.contains("no report is older than the year 2010"), "{}", refused.stderr);
    let config = bench.config();
    let start = config.lines().find(|line| line.starts_with("start = ")).unwrap();
    bench.write_config(&config.replace(start, "start = \"0206-11-01\""));
    let refused = bench.run(&["check"]).await.expect(2);
    assert!(refused.stderr.contains("reports[0].start: no report is older"), "{}", refused.stderr);
}
