//! File systems that fail at fsync, or have no hard links or no sync of folders.

use std::{fs, path::PathBuf};

use moesync::ledger;
use tokio::process::Command;

use super::need_strace;
use crate::support::{Bench, Daemon, Ran, Series, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_at_fsync_is_never_a_success() {
    need_strace().await;
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let (series, date) = bench.due()[0];
    // Only the destination's disk fails here: a ledger that other processes have open is not synced.
    let _held = ledger::open(&bench.ledger(), "other", bench.clock.read()).await.unwrap();
    bench.fault("status=404,times=1");
    bench.sync(1).await;
    let arguments = ["-f", "-o", "/dev/null", "-e", "trace=fsync", "-e", "inject=fsync:error=EIO"];
    let failing = Daemon::spawn(bench.command_under("strace", &arguments, &["sync"]));
    // Twice, because a repeated fsync may succeed without effect.
    let failed_twice = async || {
        let status = &bench.status().await[0];
        status["outcome"] == "store_failed" && status["attempts"].as_u64() >= Some(3)
    };
    assert!(wait_until(failed_twice).await, "{:?} {}", bench.status().await, failing.log().join("\n"));
    // Killed, not strace, which would let it continue with a working disk.
    let children = format!("/proc/{0}/task/{0}/children", failing.pid());
    let traced = fs::read_to_string(children).unwrap();
    assert!(Command::new("kill").args(["-KILL", traced.trim()]).status().await.unwrap().success());
    failing.end(&bench).await;
    assert!(!bench.object(&series.key(date)).exists());
    assert_eq!(bench.status().await[0]["state"], "pending");

    bench.sync(0).await;
    bench.oracle().await;
}

/// The arguments with which `strace` fails each call of `syscalls`, restricted to `paths` if there are any.
fn failing(syscalls: &str, error: &str, paths: &[PathBuf]) -> Vec<String> {
    let (trace, inject) = (format!("trace={syscalls}"), format!("inject={syscalls}:error={error}"));
    let mut arguments = ["-f", "-o", "/dev/null", "-e", &trace, "-e", &inject].map(str::to_owned).to_vec();
    for path in paths {
        arguments.extend(["-P".to_owned(), path.display().to_string()]);
    }
    arguments
}

async fn run_failing(bench: &Bench, strace: &[String], arguments: &[&str]) -> Ran {
    let strace: Vec<_> = strace.iter().map(String::as_str).collect();
    bench.finish(bench.command_under("strace", &strace, arguments)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_without_hard_links_serves_ledger_and_destination() {
    need_strace().await;
    for error in ["EPERM", "EOPNOTSUPP", "ENOSYS", "EXDEV", "EIO", "EMLINK"] {
        let bench = Bench::new(&[Series::campaign("Report test", 2)]).await;
        let strace = failing("linkat", error, &[]);
        let ran = run_failing(&bench, &strace, &["sync"]).await;
        assert_eq!(ran.code, Some(0), "{error}: {}", ran.stderr);
        assert_eq!(bench.requests(), 2, "{error}");
        bench.oracle().await;
        let checked = run_failing(&bench, &strace, &["check", "--online"]).await.expect(0).stdout;
        assert!(
            checked.contains("cannot link a file to its final name") && !checked.contains("refuses to overwrite"),
            "{error}: {checked}"
        );
        assert_eq!(bench.kept_in("_staging"), [""; 0], "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_that_cannot_fsync_folders_serves_with_one_warning() {
    need_strace().await;
    for error in ["EINVAL", "EOPNOTSUPP", "ENOSYS"] {
        let bench = Bench::new(&[Series::campaign("Report test", 2)]).await;
        let strace = failing("fsync", error, &folders(&bench));
        let ran = run_failing(&bench, &strace, &["sync"]).await;
        assert_eq!(ran.code, Some(0), "{error}: {}", ran.stderr);
        assert_eq!(ran.stderr.matches("cannot force the names of new files to disk").count(), 1, "{}", ran.stderr);
        assert!(ran.stderr.contains("`fsync = false`"), "{}", ran.stderr);
        bench.oracle().await;
        let checked = run_failing(&bench, &strace, &["check", "--online"]).await.expect(0).stdout;
        assert!(checked.contains("a power cut may lose the newest (`fsync = false` accepts that)"), "{checked}");
    }
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let checked =
        run_failing(&bench, &failing("fsync", "EIO", &folders(&bench)), &["check", "--online"]).await.expect(1);
    assert!(checked.stdout.contains("Input/output error"), "{}", checked.stdout);
}

/// All folders of the destination that hold objects, and their parents.
fn folders(bench: &Bench) -> Vec<PathBuf> {
    let mut folders = vec![bench.folder.path().to_owned(), bench.path("reports"), bench.object("acme")];
    for (series, date) in bench.due() {
        let date = bench.object(&series.key(date)).parent().unwrap().to_owned();
        folders.extend([date.parent().unwrap().to_owned(), date]);
    }
    folders
}
