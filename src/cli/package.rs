//! `moesync completions` and `moesync man`: files that a package installs beside the binary.

use std::{fs, path::PathBuf};

use clap::Args;
use clap_complete::env::Shells;

use super::{CommandError, Completion, Result, completion, manual, shell::print};

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell.
    #[arg(value_parser = ["bash", "elvish", "fish", "powershell", "zsh"])]
    shell: String,
}

#[derive(Debug, Args)]
pub(super) struct Man {
    /// Writes the page of each command and moesync.toml(5) into this folder, instead of the main page to standard output.
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

/// Prints a script by which the shell asks this program for completions, so that it knows reports and workspaces.
pub(super) fn completions(options: &Completions) -> Result {
    let unknown = || CommandError::Usage(format!("no completions for {}", options.shell));
    let shells = Shells::builtins();
    let shell = shells.completer(&options.shell).ok_or_else(unknown)?;
    let mut script = Vec::new();
    shell
        .write_registration(completion::VARIABLE, "moesync", "moesync", "moesync", &mut script)
        .map_err(|error| CommandError::Failed(format!("could not write the script: {error}")))?;
    if shell.is("bash") {
        script.extend_from_slice(completion::BASH_QUOTING.as_bytes());
    }
    if shell.is("zsh") {
        script.extend_from_slice(completion::ZSH_AUTOLOADED.as_bytes());
    }
    print(&String::from_utf8_lossy(&script))?;
    Ok(Completion::Done)
}

pub(super) fn man(options: Man) -> Result {
    let failed = |error| CommandError::Failed(format!("could not write the pages: {error}"));
    match options.dir {
        Some(folder) => {
            for (name, page) in manual::pages().map_err(failed)? {
                let path = folder.join(name);
                fs::write(&path, page)
                    .map_err(|error| CommandError::Failed(format!("could not write {}: {error}", path.display())))?;
            }
        }
        None => print(&String::from_utf8_lossy(&manual::main_page().map_err(failed)?))?,
    }
    Ok(Completion::Done)
}
