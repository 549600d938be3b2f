//! `moesync completions` and `moesync man`: files that a package installs beside the binary.

use std::path::PathBuf;

use clap::{Args, CommandFactory};

use super::{Arguments, CommandError, Completion, Result, shell::print};

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell.
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(super) struct Man {
    /// Writes the page of each command into this folder, instead of the main page to standard output.
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

pub(super) fn completions(options: Completions) -> Result {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Arguments::command(), "moesync", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(Completion::Done)
}

pub(super) fn man(options: Man) -> Result {
    match options.dir {
        Some(folder) => clap_mangen::generate_to(Arguments::command(), &folder)
            .map_err(|error| CommandError::Failed(format!("could not write to {}: {error}", folder.display())))?,
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Arguments::command())
                .render(&mut page)
                .map_err(|error| CommandError::Failed(format!("could not write the page: {error}")))?;
            print(&String::from_utf8_lossy(&page))?;
        }
    }
    Ok(Completion::Done)
}
