//! What the files under deploy/ promise: units that systemd accepts, containers that may do little.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use moesync::config::{self, SecretSource};
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

const DAEMON: &str = "deploy/systemd/moesync.service";
const PASS: &str = "deploy/systemd/moesync-sync.service";

/// The values that a key has in the daemon's unit.
fn unit(key: &str) -> Vec<String> {
    let values = read(DAEMON);
    values.lines().filter_map(|line| line.strip_prefix(&format!("{key}="))).map(str::to_owned).collect()
}

fn compose() -> Value {
    serde_saphyr::from_str(&read("deploy/compose.yaml")).unwrap()
}

/// How long downloads may take to end once the daemon is told to stop.
fn grace() -> Duration {
    let source = read("src/sync/pass.rs");
    let seconds = source.split("const GRACE: Duration = Duration::from_secs(").nth(1).unwrap();
    Duration::from_secs(seconds.split(')').next().unwrap().parse().unwrap())
}

fn seconds(text: &str) -> Duration {
    Duration::from_secs(text.strip_suffix('s').unwrap().parse().unwrap())
}

/// Runs systemd-analyze on a unit, with the binary of this build in it; what it said.
fn analyze(unit: &str, arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join(Path::new(unit).file_name().unwrap());
    let text = read(unit);
    assert!(text.contains("=moesync "), "{text}");
    fs::write(&copy, text.replace("=moesync ", &format!("={} ", env!("CARGO_BIN_EXE_moesync")))).unwrap();
    let output = Command::new("systemd-analyze")
        .args(arguments)
        .arg(&copy)
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap_or_else(|error| panic!("systemd-analyze: {error}; install the Debian package systemd"));
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn systemd_accepts_the_units_without_a_word() {
    for unit in [DAEMON, PASS] {
        assert_eq!(analyze(unit, &["verify"]), "", "{unit}");
    }
}

#[test]
fn the_units_are_hardened_to_an_exposure_of_at_most_1_2_of_10() {
    for unit in [DAEMON, PASS] {
        let said = analyze(unit, &["security", "--offline=true", "--threshold=12"]);
        assert!(said.contains("Overall exposure level for moesync"), "{said}");
    }
}

#[test]
fn the_command_lines_of_the_units_are_understood() {
    use clap::Parser as _;
    let lines: Vec<_> = [DAEMON, PASS].iter().flat_map(|unit| commands_of(unit)).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    for line in lines {
        moesync::cli::Arguments::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

/// The command lines of moesync in a unit.
fn commands_of(unit: &str) -> Vec<String> {
    let text = read(unit);
    let lines = text.lines().filter_map(|line| line.strip_prefix("Exec")?.split_once('='));
    lines.map(|(_, command)| command.to_owned()).filter(|command| command.starts_with("moesync ")).collect()
}

#[test]
fn a_pass_by_the_timer_has_the_sandbox_of_the_daemon() {
    let sandbox = |unit: &str| {
        let text = read(unit);
        let service = text.split("\n[Service]\n").nth(1).unwrap().split("\n[Install]\n").next().unwrap().to_owned();
        let own = ["Exec", "Restart", "TimeoutStart", "Type=", "WatchdogSec="];
        let keys = service.lines().filter(|line| line.contains('=') && !line.starts_with('#'));
        keys.filter(|line| !own.iter().any(|own| line.starts_with(own))).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(sandbox(DAEMON), sandbox(PASS));
}

#[test]
fn the_watchdog_waits_longer_than_the_daemon_takes_to_answer() {
    // It answers three times as often, unless its loop hangs; shorter than that would punish a busy machine.
    assert_eq!(unit("WatchdogSec"), ["1min"]);
    assert_eq!(unit("Type"), ["notify"]);
}

#[test]
fn the_package_holds_the_files_that_the_units_need_and_starts_nothing_without_a_key() {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let deb = &manifest["package"]["metadata"]["deb"];
    let assets = deb["assets"].as_array().unwrap();
    let sources: Vec<_> = assets.iter().map(|asset| asset[0].as_str().unwrap()).collect();
    for file in fs::read_dir(root().join("deploy/systemd")).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let is_packed = sources.contains(&format!("deploy/systemd/{name}").as_str());
        assert!(is_packed || name == "test", "deploy/systemd/{name} is not in the package");
    }
    for source in sources.iter().filter(|source| !source.starts_with("target/")) {
        assert!(root().join(source).exists(), "{source}");
    }
    for units in deb["systemd-units"].as_array().unwrap() {
        assert_eq!(units["start"].as_bool(), Some(false), "{units}");
    }
    assert_eq!(unit("AssertPathExists"), [unit("LoadCredential")[0].split_once(':').unwrap().1]);
}

#[test]
fn the_key_is_read_where_each_deployment_puts_it() {
    let key_file = |path: &str, env: &[(&str, &str)]| {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let config = config::load(&root().join(path), env).unwrap();
        let SecretSource::File { path, .. } = config.workspaces[0].secret_key.clone() else { panic!("{path}") };
        path
    };
    let systemd = key_file("deploy/systemd/moesync.toml", &[("CREDENTIALS_DIRECTORY", "/credentials")]);
    let credential = unit("LoadCredential")[0].split(':').next().unwrap().to_owned();
    assert_eq!(systemd, Path::new("/credentials").join(credential));

    let secret = compose()["services"]["moesync"]["secrets"][0].as_str().unwrap().to_owned();
    assert_eq!(key_file("deploy/compose.toml", &[]), Path::new("/run/secrets").join(&secret));
    assert!(compose()["secrets"][&secret]["file"].is_string());
}

#[test]
fn everything_that_is_written_has_a_place_that_may_be_written_to() {
    let state = Path::new("/var/lib").join(&unit("StateDirectory")[0]);
    let volumes = compose()["services"]["moesync"]["volumes"].clone();
    assert!(volumes.as_array().unwrap().contains(&Value::from(format!("state:{}", state.display()))), "{volumes}");
    for path in ["deploy/systemd/moesync.toml", "deploy/compose.toml"] {
        let env = [("CREDENTIALS_DIRECTORY".to_owned(), "/credentials".to_owned())];
        let config = config::load(&root().join(path), env).unwrap();
        let config::Ledger::Sqlite(ledger) = &config.ledger else { panic!("{path}: {:?}", config.ledger) };
        let archive = PathBuf::from(config.destinations[0].url.path());
        assert!(ledger.starts_with(&state) && archive.starts_with(&state), "{path}");
    }
}

#[test]
fn a_stop_leaves_more_time_than_downloads_are_given() {
    assert!(seconds(&unit("TimeoutStopSec")[0]) > grace());
    assert!(seconds(compose()["services"]["moesync"]["stop_grace_period"].as_str().unwrap()) > grace());
}

#[test]
fn the_container_has_no_capabilities_and_a_root_that_is_read_only() {
    let service = &compose()["services"]["moesync"];
    assert_eq!(service["read_only"], true);
    assert_eq!(service["cap_drop"], serde_json::json!(["ALL"]));
    assert_eq!(service["security_opt"], serde_json::json!(["no-new-privileges:true"]));
}

#[test]
fn the_image_holds_no_shell_and_runs_as_nobody_in_particular() {
    let text = read("Dockerfile");
    let (build, image) = text.rsplit_once("\nFROM ").unwrap();
    let image: Vec<_> = image.lines().collect();
    assert_eq!(
        image,
        [
            "scratch",
            "COPY --from=build /image /",
            "USER 65532:65532",
            "WORKDIR /var/lib/moesync",
            "ENTRYPOINT [\"/usr/local/bin/moesync\"]",
            "CMD [\"run\"]",
        ]
    );
    let toolchain = read("rust-toolchain.toml");
    let channel = toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap().trim_matches('"');
    assert!(
        build.contains(&format!("/rust:{channel}-slim-bookworm AS build")),
        "built with another Rust than {channel}"
    );
    let allowed = read(".dockerignore");
    for copied in build.lines().filter_map(|line| line.strip_prefix("COPY ")) {
        let (sources, _) = copied.rsplit_once(' ').unwrap();
        for source in sources.split(' ') {
            assert!(root().join(source).exists() && allowed.contains(&format!("!{source}\n")), "{source}");
        }
    }
}
