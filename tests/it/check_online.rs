//! `moesync check --online` with a faulty vendor, machine or configuration.

use std::fs;

use crate::support::{Bench, Ran, Series};

/// Runs `moesync check --online` with these variables in its environment.
async fn check_online(bench: &Bench, environment: &[(&str, &str)]) -> Ran {
    let mut command = bench.command(&["check", "--online"]);
    command.envs(environment.iter().copied());
    bench.finish(command).await
}

#[tokio::test]
async fn an_answer_that_is_no_archive_fails_the_check() {
    let bench = Bench::new(&[Series::dump(1)]).await;
    check_online(&bench, &[]).await.expect(0);

    bench.fault("html");
    let checked = check_online(&bench, &[]).await.expect(1);
    assert!(
        checked.stdout.contains("is not an archive: neither zip, gzip nor tar: it begins with"),
        "{}",
        checked.stdout
    );
}

#[tokio::test]
async fn a_clock_that_differs_from_that_of_moengage_is_a_note() {
    let bench = Bench::new(&[Series::dump(1)]).await;
    bench.fault("wrong-date=-8d");
    let said = check_online(&bench, &[]).await.expect(0).stdout;
    let line = said.lines().find(|line| line.contains("report acme/dump")).unwrap();
    assert!(
        line.starts_with("note ") && line.contains("the local clock is 192h") && line.contains("ahead of the vendor's"),
        "{said}"
    );
}

#[tokio::test]
async fn a_proxy_of_the_environment_is_not_used_for_loopback_addresses() {
    let bench = Bench::new(&[Series::dump(1)]).await;
    let closed = "http://127.0.0.1:1";
    check_online(&bench, &[("HTTP_PROXY", closed), ("http_proxy", closed), ("NO_PROXY", "")]).await.expect(0);
}

#[tokio::test]
async fn valid_values_that_look_like_mistakes_are_warnings() {
    let bench = Bench::new(&[Series::dump(1)]).await;
    let key = bench.path("secret-key");
    fs::write(&key, format!("\"{}\"\n", fs::read_to_string(&key).unwrap())).unwrap();
    bench.write_config(&bench.config().replace("name = \"dump\"", "name = \"daily\u{a0}dump\""));

    // The vendor refuses a key in quotes.
    let said = check_online(&bench, &[("HTTP_PROXY", "no address")]).await.expect(1).stdout;
    for warning in ["U+00A0", "environment variable HTTP_PROXY: not an address", "the secret has quotes around it"] {
        let line = said.lines().find(|line| line.contains(warning)).unwrap_or_else(|| panic!("{warning}: {said}"));
        assert!(line.starts_with("note "), "{line}");
    }
    assert!(said.contains("time zones: tzdata 2"), "{said}");
}
