//! What the configuration promises: every key and default, one clear error for each mistake, and no secret shown.

mod addresses;
mod effective;
mod mistakes;
mod reference;
mod secrets;
mod sources;
mod values;

use std::fs;

use moesync::config::{self, Config};

const CANARY: &str = "canary-5d41402a";

const EXAMPLE: &str = include_str!("../../config/moesync.example.toml");

const GOOD: &str = r#"[[workspaces]]
name = "acme"
app_id = "APP-1"
data_center = "01"
timezone = "Europe/Berlin"
secret_key = "canary-5d41402a"

[[destinations]]
name = "archive"
url = "file:///archive"

[[reports]]
source = "campaign_report"
name = "Report test"
schedule = { every = "day", at = "09:30" }
"#;

/// Loads `bytes` as `moesync.toml`; messages name the file without its folder.
fn load_bytes(bytes: &[u8], env: &[(&str, &str)]) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("moesync.toml");
    fs::write(&path, bytes).unwrap();
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    config::load(&path, env).map_err(|problem| {
        assert!(!format!("{problem} {problem:?}").contains(CANARY), "a secret is shown: {problem}");
        problem.to_string().replace(&format!("{}/", folder.path().display()), "")
    })
}

fn load(text: &str) -> Result<Config, String> {
    load_bytes(text.as_bytes(), &[])
}

/// The good configuration, with one piece of its text replaced.
fn changed(old: &str, new: &str) -> String {
    assert!(GOOD.contains(old), "{old}");
    GOOD.replacen(old, new, 1)
}

/// The errors of these mistakes, one line each.
fn errors_of(mistakes: &[(&str, &str)]) -> String {
    let texts: Vec<_> = mistakes.iter().map(|(old, new)| changed(old, new)).collect();
    errors_in(&texts)
}

fn errors_in(texts: &[String]) -> String {
    let lines: Vec<_> = texts.iter().map(|text| load(text).expect_err(text)).collect();
    assert!(lines.iter().all(|line| line.lines().count() == 1), "{lines:#?}");
    lines.join("\n")
}

/// The good configuration, with a table before it.
fn with_table(table: &str) -> String {
    format!("{table}\n{GOOD}")
}

/// The good configuration, with these lines in its report.
fn with_report_lines(lines: &str) -> String {
    format!("{GOOD}{lines}\n")
}

/// The good configuration, with another source in its report and these lines.
fn with_source(source: &str, lines: &str) -> String {
    format!("{}{lines}\n", changed("campaign_report", source))
}

fn env_error(name: &str, value: &str) -> String {
    load_bytes(GOOD.as_bytes(), &[(name, value)]).unwrap_err()
}

/// The example with every setting in it switched on.
fn uncommented(example: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(setting) if !setting.is_empty() && !setting.starts_with([' ', ':']) => setting.to_owned(),
        _ => line.to_owned(),
    };
    example.lines().map(|text| line(text) + "\n").collect()
}

fn warnings(text: &str, env: &[(&str, &str)]) -> String {
    let config = load_bytes(text.as_bytes(), env).unwrap();
    let lines: Vec<_> = config.warnings.iter().chain(&config.placeholders).map(ToString::to_string).collect();
    lines
        .iter()
        .map(|line| line.rsplit_once("/moesync.toml").map_or(line.as_str(), |(_, rest)| rest))
        .collect::<Vec<_>>()
        .join("\n")
}
