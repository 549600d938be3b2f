//! Completion of values in a shell: reports and workspaces of the configuration, dates.

use std::{ffi::OsStr, path::PathBuf};

use clap::{Arg, Command};
use clap_complete::{
    CompleteEnv,
    engine::{ArgValueCompleter, CompletionCandidate},
};

use super::{help, shell::environment};
use crate::config::{self, Config};

/// The variable by which the shell's script asks for completions.
pub(super) const VARIABLE: &str = "COMPLETE";

/// What follows the script for bash, which inserts a completion as it is: a name with a space is quoted, unless the word is
/// in quotes already.
pub(super) const BASH_QUOTING: &str = r#"
_moesync() {
    _clap_complete_moesync "$@"
    if [[ ${COMP_WORDS[COMP_CWORD]} != [\"\']* ]]; then
        local i
        for i in "${!COMPREPLY[@]}"; do
            COMPREPLY[i]=$(printf %q "${COMPREPLY[i]}")
        done
    fi
}
complete -o nospace -o bashdefault -F _moesync moesync
"#;

/// What follows the script for zsh: as a file in `fpath`, it is the body of the function that completes, and it is run for that.
pub(super) const ZSH_AUTOLOADED: &str = r#"
if [[ ${funcstack[1]} == _moesync ]]; then
    _clap_dynamic_completer_moesync "$@"
fi
"#;

/// Answers a shell that asks for completions, and then ends the process.
pub(super) fn answer() {
    CompleteEnv::with_factory(|| with_values(help::command())).var(VARIABLE).bin("moesync").complete();
}

/// The command line with completers of values.
fn with_values(command: Command) -> Command {
    // The names that `init` takes are not in a configuration yet.
    match command.get_name() {
        "init" => command,
        _ => command.mut_args(with_value).mut_subcommands(with_values),
    }
}

fn with_value(arg: Arg) -> Arg {
    match arg.get_id().as_str() {
        "report" | "with" => arg.add(ArgValueCompleter::new(|start: &OsStr| {
            configured(start, |config| config.reports.iter().map(|report| report.id.name().to_owned()).collect())
        })),
        "workspace" => arg.add(ArgValueCompleter::new(|start: &OsStr| {
            configured(start, |config| config.workspaces.iter().map(|workspace| workspace.name.clone()).collect())
        })),
        "date" | "from" | "to" | "since" => arg.add(ArgValueCompleter::new(dates)),
        _ => arg,
    }
}

/// The names in the configuration that begin with `start`. None if there is no valid configuration.
fn configured(start: &OsStr, names: fn(&Config) -> Vec<String>) -> Vec<CompletionCandidate> {
    let Some(config) = config() else { return Vec::new() };
    beginning_with(start, names(&config))
}

fn dates(start: &OsStr) -> Vec<CompletionCandidate> {
    let ago = (2..=7).map(|days| format!("-{days}d"));
    beginning_with(start, ["today", "yesterday"].map(str::to_owned).into_iter().chain(ago).collect())
}

fn beginning_with(start: &OsStr, mut names: Vec<String>) -> Vec<CompletionCandidate> {
    // Bash passes the word as it is on the line.
    let start = start.to_string_lossy().replace('\\', "");
    names.sort();
    names.dedup();
    names.into_iter().filter(|name| name.starts_with(&start)).map(CompletionCandidate::new).collect()
}

/// The configuration of the line that is completed.
fn config() -> Option<Config> {
    let words: Vec<_> = std::env::args_os().filter_map(|word| word.into_string().ok()).collect();
    let named = words.iter().enumerate().find_map(|(at, word)| match word.strip_prefix("--config") {
        Some("") => words.get(at + 1).cloned(),
        Some(rest) => rest.strip_prefix('=').map(str::to_owned),
        None => None,
    });
    let named = named.map(PathBuf::from).or_else(|| std::env::var_os("MOESYNC_CONFIG").map(PathBuf::from));
    config::load(&config::locate(named.as_deref()).ok()?, environment()).ok()
}
