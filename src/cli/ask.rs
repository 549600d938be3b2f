//! Questions on a terminal, one a line.

use std::io::{self, IsTerminal as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use secrecy::SecretString;

use super::{CommandError, Result, shell::stop_signal};

/// Whether questions can be asked.
pub(super) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// The answer to `question`, without spaces around it; `default` if nothing is entered.
pub(super) async fn ask(question: &str, default: Option<&str>) -> Result<String> {
    loop {
        match default {
            Some(default) if !default.is_empty() => say(&format!("{question} [{default}]: "))?,
            _ => say(&format!("{question}: "))?,
        }
        let line = read_line().await?;
        match (line.trim(), default) {
            ("", Some(default)) => return Ok(default.to_owned()),
            ("", None) => say("An answer is needed.\n")?,
            (answer, _) => return Ok(answer.to_owned()),
        }
    }
}

/// The answer to `question`, which is not shown while it is typed.
pub(super) async fn ask_secret(question: &str) -> Result<SecretString> {
    loop {
        say(&format!("{question}: "))?;
        let hidden = Hidden::start();
        let line = read_line().await;
        drop(hidden);
        say("\n")?;
        match line?.trim() {
            "" => say("An answer is needed.\n")?,
            answer => return Ok(answer.into()),
        }
    }
}

/// Writes to the terminal.
pub(super) fn say(text: &str) -> Result<()> {
    let mut stderr = io::stderr().lock();
    let written = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    written.map_err(|error| CommandError::Failed(format!("could not write to the terminal: {error}")))
}

async fn read_line() -> Result<String> {
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|length| (line, length))
    });
    let failed = |what: String| CommandError::Failed(format!("{what}; nothing was written"));
    tokio::select! {
        read = read => match read {
            Ok(Ok((line, 1..))) => Ok(line),
            Ok(Ok(_)) => Err(failed("the input has ended".to_owned())),
            Ok(Err(error)) => Err(failed(format!("could not read the answer: {error}"))),
            Err(error) => Err(failed(format!("could not read the answer: {error}"))),
        },
        () = stop_signal() => Err(failed("stopped".to_owned())),
    }
}

/// The terminal shows nothing that is typed until this is dropped.
struct Hidden {
    before: Termios,
}

impl Hidden {
    fn start() -> Option<Self> {
        let before = tcgetattr(io::stdin()).ok()?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        // What is typed already stays.
        tcsetattr(io::stdin(), OptionalActions::Drain, &silent).ok()?;
        Some(Hidden { before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // Nothing can be done where the terminal is gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.before);
    }
}
