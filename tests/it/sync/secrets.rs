//! Secrets in logs and arguments, and missing credentials.

use std::fs;

use crate::support::{Bench, Daemon, Series, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn trace_logs_of_a_failing_run_with_both_sources_contain_no_secret() {
    let bench = Bench::new(&[Series::campaign("Report test", 2), Series::dump(2)]).await;
    bench.fault("unauthorized,path=campaign_reports");
    bench.fault("redirect=storage,path=dailyCampaignReportDump,times=1");
    bench.fault("status=404,path=dailyCampaignReportDump");
    bench.run(&["-vv", "sync"]).await.expect(1);
    // The same with a filter that names every library.
    let mut traced = bench.command(&["sync"]);
    traced.env("RUST_LOG", "trace,object_store=trace,h2=trace,hyper=trace,hyper_util=trace,reqwest=trace,sqlx=trace");
    let logged = bench.finish(traced).await.expect(1).stderr;
    assert!(logged.contains("\"TRACE\"") && !logged.contains("\"target\":\"object_store"), "{logged}");
    bench.check_secrets();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_arguments_that_other_users_see_hold_no_secret() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    bench.fault("stall");
    let syncing = Daemon::spawn(bench.command(&["-vv", "sync"]));
    assert!(wait_until(async || bench.requests() > 0).await);
    bench.note_printed(&fs::read_to_string(format!("/proc/{}/cmdline", syncing.pid())).unwrap());
    syncing.kill(&bench).await;
    bench.check_secrets();
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_credentials_for_a_store_are_named() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let folder = format!("file://{}/reports", bench.folder.path().display());
    bench.write_config(&bench.config().replace(&folder, "s3://reports"));
    // Without a network, so that no metadata server of a cloud answers.
    let mut command = bench.command_under("unshare", &["--net"], &["check", "--online"]);
    command.env("AWS_PROFILE", "reports").env("HOME", bench.folder.path());
    let checked = bench.finish(command).await.expect(1).stdout;
    let line = checked.lines().find(|line| line.contains("destination disk")).unwrap();
    assert!(
        line.contains("no credentials") && line.contains("AWS_ACCESS_KEY_ID") && line.contains("~/.aws are not read"),
        "{line}"
    );
}
