//! Misfortunes of whole commands: the real binary against the emulator, on a machine that is not as it should be.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Output},
    sync::Arc,
};

use jiff::{Timestamp, tz::TimeZone};
use moesync::emulator::{self, Emulator, Fault, Options, demo_account};
use secrecy::ExposeSecret;
use tempfile::TempDir;
use tokio::net::TcpListener;

/// The demo's account, and a folder with a configuration for its daily dump.
async fn vendor() -> (Emulator, TempDir) {
    let account = demo_account(TimeZone::UTC);
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    fs::write(&key, account.secret_key.expose_secret()).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let app_id = account.app_id.clone();
    #[expect(clippy::disallowed_methods, reason = "the binary has the real clock, so its vendor must")]
    let clock = Arc::new(Timestamp::now);
    let options = Options { accounts: vec![account], seed: 1, faults: vec![], clock };
    let emulator = emulator::start(TcpListener::bind("127.0.0.1:0").await.unwrap(), options).unwrap();
    let configuration = format!(
        "[[workspaces]]\nname = \"acme\"\napp_id = \"{app_id}\"\nbase_url = \"{}\"\ntimezone = \"UTC\"\n\
         secret_key_file = \"key\"\n\
         [[destinations]]\nname = \"disk\"\nurl = \"file://./kept\"\n\
         [[reports]]\nsource = \"daily_dump\"\ndestination = \"disk\"\nschedule = {{ every = \"day\", at = \"08:00\" }}\n",
        emulator.url()
    );
    fs::write(folder.path().join("moesync.toml"), configuration).unwrap();
    (emulator, folder)
}

/// Runs `moesync check --online` there.
async fn check_online(folder: &TempDir, environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moesync"));
    command.args(["check", "--online"]).current_dir(folder.path());
    command.envs(environment.iter().copied());
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_check_finds_out_that_what_is_served_is_no_archive() {
    let (emulator, folder) = vendor().await;
    assert_eq!(check_online(&folder, &[]).await.status.code(), Some(0));

    emulator.add_fault(Fault::Html.into());
    let output = check_online(&folder, &[]).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("is no archive: neither zip, gzip nor tar: it begins with"), "{said}");
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test]
async fn a_proxy_of_the_environment_is_not_asked_for_what_is_on_this_machine() {
    let (_emulator, folder) = vendor().await;
    let nobody = "http://127.0.0.1:1";
    let output = check_online(&folder, &[("HTTP_PROXY", nobody), ("http_proxy", nobody), ("NO_PROXY", "")]).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}

#[tokio::test]
async fn a_check_warns_of_what_is_valid_and_most_likely_not_meant() {
    let (_emulator, folder) = vendor().await;
    let (key, configuration) = (folder.path().join("key"), folder.path().join("moesync.toml"));
    fs::write(&key, format!("\"{}\"\n", fs::read_to_string(&key).unwrap())).unwrap();
    let text = fs::read_to_string(&configuration).unwrap();
    fs::write(&configuration, text.replace("\"daily_dump\"\n", "\"daily_dump\"\nname = \"daily\u{a0}dump\"\n"))
        .unwrap();

    let output = check_online(&folder, &[("HTTP_PROXY", "no address")]).await;
    let said = String::from_utf8_lossy(&output.stdout);
    for warning in ["U+00A0", "environment variable HTTP_PROXY: it is no address", "the secret has quotes around it"] {
        let line = said.lines().find(|line| line.contains(warning)).unwrap_or_else(|| panic!("{warning}: {said}"));
        assert!(line.starts_with("ok ") && line.contains(": warning: "), "{line}");
    }
    assert!(said.contains("time zones: tzdata 2"), "{said}");
    assert_eq!(output.status.code(), Some(1), "the vendor refuses a key in quotes: {said}");
}
