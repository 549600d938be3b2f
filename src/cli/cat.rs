//! `moesync cat`: copies a stored archive or one of its entries to standard output.

use std::io::{self, ErrorKind, Write};

use clap::Args;

use super::{
    CommandError, Completion, Result,
    get::{Choice, chosen},
    shell::Shell,
};
use crate::reading::{self, CopyError};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    choice: Choice,
}

pub(super) async fn run(shell: &Shell, options: Options) -> Result {
    let chosen = chosen(shell, &options.choice).await?;
    let mut stdout = io::stdout();
    let copied = reading::copy(&chosen.destination, &chosen.stored, chosen.part, &mut stdout).await;
    let is_closed = |error: &io::Error| error.kind() == ErrorKind::BrokenPipe;
    match copied.and_then(|_| stdout.flush().map_err(CopyError::Write)) {
        Ok(()) => Ok(Completion::Done),
        // As behind `head`.
        Err(CopyError::Write(error)) if is_closed(&error) => Ok(Completion::Done),
        Err(CopyError::Write(error)) => Err(CommandError::Failed(format!("could not write the copy: {error}"))),
        Err(error) => Err(CommandError::Failed(error.to_string())),
    }
}
