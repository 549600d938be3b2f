//! Help texts, manual pages and completion.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use clap::Parser as _;
use moesync::cli::Arguments;

/// What the binary prints.
fn printed(arguments: &[&str], environment: &[(&str, &str)], folder: &Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moesync"));
    command.args(arguments).envs(environment.iter().copied()).env_remove("MOESYNC_CONFIG").current_dir(folder);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn help_of(command: &[&str]) -> String {
    printed(&[command, &["--help"]].concat(), &[], Path::new("."))
}

/// The names of the commands in a help text.
fn commands_in(help: &str) -> Vec<String> {
    let Some((_, rest)) = help.split_once("Commands:\n") else { return Vec::new() };
    let lines = rest.lines().take_while(|line| !line.is_empty());
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.map(|line| line.split_whitespace().next().unwrap().to_owned()).filter(|name| name != "help").collect()
}

/// The help text of every command.
fn helps() -> BTreeMap<String, String> {
    let mut helps = BTreeMap::from([(String::new(), help_of(&[]))]);
    for command in commands_in(&helps[""]) {
        let help = help_of(&[&command]);
        for inner in commands_in(&help) {
            helps.insert(format!("{command} {inner}"), help_of(&[&command, &inner]));
        }
        helps.insert(command, help);
    }
    helps
}

#[test]
fn every_help_fits_a_terminal_has_examples_that_parse_and_groups_the_global_options() {
    let helps = helps();
    assert!(helps.len() > 20, "{:?}", helps.keys());
    for (command, help) in &helps {
        for line in help.lines() {
            assert!(line.chars().count() <= 80, "{command}: {line}");
        }
        let options = help.find("\nOptions:").unwrap();
        let global = help.find("\nGlobal options:").unwrap();
        let examples = help.find("\nExamples:\n").unwrap_or_else(|| panic!("{command} has no examples"));
        assert!(global < examples && (options < global || options < examples), "{help}");
        let examples = help[examples..].lines().skip(2).take_while(|line| !line.is_empty());
        let mut count = 0;
        for example in examples {
            let line = example.split(" #").next().unwrap().split(" >").next().unwrap().split(" |").next().unwrap();
            let line = line.trim().trim_start_matches("MOESYNC__WEB__LISTEN= ");
            let arguments = words(line);
            assert!(
                example.contains(&format!("moesync {command}")) || command.is_empty() || line.contains("--config"),
                "{example}"
            );
            Arguments::try_parse_from(&arguments).unwrap_or_else(|error| panic!("{example}: {error}"));
            count += 1;
        }
        assert!(count > 0, "{command}");
    }
    let main = &helps[""];
    for text in ["Exit codes:", "MOESYNC_CONFIG", "MOESYNC__TABLE__KEY", "RUST_LOG"] {
        assert!(main.contains(text), "{main}");
    }
    assert!(helps["status"].contains("[possible values: scheduled, pending, stored"), "{}", helps["status"]);
    for command in ["explain", "backfill"] {
        let usage = helps[command].lines().find(|line| line.starts_with("Usage:")).unwrap().to_owned();
        assert!(usage.contains("--report <ID>"), "{usage}");
    }
}

/// The words of a line for a shell, in which double quotes keep a word together.
fn words(line: &str) -> Vec<String> {
    let pieces = line.split('"').enumerate();
    let mut words = Vec::new();
    for (index, piece) in pieces {
        match index % 2 {
            0 => words.extend(piece.split_whitespace().map(str::to_owned)),
            _ => words.push(piece.to_owned()),
        }
    }
    words
}

#[test]
fn manual_pages_have_all_sections_and_moesync_toml_has_every_key() {
    let folder = tempfile::tempdir().unwrap();
    printed(&["man", "--dir", "."], &[], folder.path());
    let page = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    let pages: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(pages.len() > 20, "{pages:?}");
    for name in ["moesync.1", "moesync-sync.1", "moesync-config-show.1", "moesync-tables-rebuild.1"] {
        let text = page(name);
        for section in
            ["NAME", "SYNOPSIS", "OPTIONS", "EXAMPLES", "\"EXIT STATUS\"", "ENVIRONMENT", "FILES", "\"SEE ALSO\""]
        {
            assert!(text.contains(&format!(".SH {section}")), "{name} has no {section}: {text}");
        }
    }
    assert_eq!(printed(&["man"], &[], folder.path()), page("moesync.1"));
    // Laid out by hand, a rule a line.
    assert!(page("moesync-emulate.1").contains("\n  rate\\-limited[=RETRY\\-AFTER]"), "{}", page("moesync-emulate.1"));
    let reference = page("moesync.toml.5");
    let schema = moesync::config::schema();
    for (table, value) in schema["properties"].as_object().unwrap() {
        assert!(reference.contains(&format!("[{table}]")), "{table}");
        let keys = value["items"].get("properties").or(value.get("properties")).unwrap();
        for key in keys.as_object().unwrap().keys() {
            assert!(reference.contains(&format!("\\fB{key}\\fR")), "{table}.{key}");
        }
    }
}

/// A configuration whose names a shell completes.
const COMPLETED: &str = "
[[workspaces]]
name = \"acme\"
app_id = \"A\"
data_center = \"01\"
timezone = \"UTC\"
secret_key = \"k\"
[[destinations]]
name = \"disk\"
url = \"file:///x\"
[[reports]]
source = \"campaign_report\"
name = \"Report test\"
id = \"report-test\"
schedule = { every = \"day\", at = \"09:30\" }
";

#[test]
fn shells_complete_reports_workspaces_states_and_dates() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("other.toml"), COMPLETED).unwrap();
    let complete = |words: &[&str]| {
        let arguments = [&["--", "moesync"], words].concat();
        let index = words.len().to_string();
        let environment = [
            ("COMPLETE", "bash"),
            ("_CLAP_IFS", "\n"),
            ("_CLAP_COMPLETE_INDEX", index.as_str()),
            ("_CLAP_COMPLETE_COMP_TYPE", "9"),
        ];
        printed(&arguments, &environment, folder.path()).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let with_config = |words: &[&str]| complete(&[&["--config", "other.toml"], words].concat());
    assert_eq!(with_config(&["sync", "--report", ""]), ["report-test"]);
    assert_eq!(with_config(&["sync", "--workspace", "a"]), ["acme"]);
    assert_eq!(with_config(&["sync", "--report", "x"]), [""; 0]);
    assert_eq!(complete(&["sync", "--report", ""]), [""; 0], "there is no configuration");
    assert_eq!(complete(&["status", "--state", "st"]), ["stored"]);
    assert_eq!(complete(&["explain", "--date", "y"]), ["yesterday"]);
    assert!(complete(&["ver"]).contains(&"verify".to_owned()));
    for shell in ["bash", "zsh", "fish"] {
        let script = printed(&["completions", shell], &[], folder.path());
        assert!(script.contains("COMPLETE=") && script.contains("moesync"), "{script}");
    }
}
#[test]
fn bash_completes_a_name_with_spaces_in_and_without_quotes() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("moesync.toml"), COMPLETED.replace("id = \"report-test\"", "")).unwrap();
    fs::write(folder.path().join("completions"), printed(&["completions", "bash"], &[], folder.path())).unwrap();
    let folder_of_binary = Path::new(env!("CARGO_BIN_EXE_moesync")).parent().unwrap().display();
    let path = format!("{folder_of_binary}:{}", std::env::var("PATH").unwrap());
    // What bash does at a Tab: the word on the line, and that word as the function's second argument.
    for (on_the_line, word, completed) in [
        ("Rep", "Rep", r"Report\ test"),
        (r"'Report\ t'", r"'Report\ t'", r"Report\ test"),
        (r#"'"Rep'"#, "Rep", "Report test"),
        (r#""'Rep""#, "Rep", "Report test"),
    ] {
        let script = format!(
            "source completions 2> /dev/null; COMP_WORDS=(moesync explain --report {on_the_line}); \
             COMP_CWORD=3; _moesync moesync {word} --report; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", &script]).current_dir(folder.path()).env("PATH", &path);
        let ran = bash.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&ran.stdout).trim_end(), completed, "{on_the_line}: {ran:?}");
    }
}
