//! The results of `moesync check`: printed as they come, counted at the end.

use super::{
    Completion, Result,
    shell::{Shell, print},
    table::Look,
};
use crate::{
    config::Config,
    words::{CheckResult, Checked, CheckedSubject},
};

/// From so many results on, errors are repeated at the end.
const MANY: usize = 20;

/// A number and what is counted.
pub(super) fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Results, printed as they come.
pub(super) struct Results {
    is_json: bool,
    look: Look,
    checks: Vec<CheckedSubject>,
    /// Whether `run` refuses the configuration.
    is_refused: bool,
    printed: Result<()>,
}

impl Results {
    /// None yet.
    pub(super) fn new(shell: &Shell, config: &Config) -> Self {
        Self { is_json: shell.json, look: shell.look(config), checks: Vec::new(), is_refused: false, printed: Ok(()) }
    }

    /// Adds one result.
    pub(super) fn add(&mut self, subject: impl Into<String>, result: CheckResult, message: impl Into<String>) {
        let check = CheckedSubject { subject: subject.into(), result, message: message.into() };
        if !self.is_json && self.printed.is_ok() {
            let line = line(&check);
            self.printed = print(&format!("{}\n", self.look.line(&line)));
        }
        self.checks.push(check);
    }

    /// Adds an error.
    pub(super) fn add_error(&mut self, subject: impl Into<String>, message: impl Into<String>) {
        self.add(subject, CheckResult::Error, message);
    }

    /// Adds an error for which `run` refuses the configuration.
    pub(super) fn add_refusal(&mut self, subject: impl Into<String>, message: impl Into<String>) {
        self.is_refused = true;
        self.add_error(subject, message);
    }

    /// Prints what is left: as text, the number of results, and once more those that were cut or are far above.
    pub(super) fn end(self, shell: &Shell) -> Result {
        self.printed?;
        let number = |result| self.checks.iter().filter(|check| check.result == result).count();
        let (ok, notes, errors) = (number(CheckResult::Ok), number(CheckResult::Note), number(CheckResult::Error));
        let look = self.look;
        let checked = Checked { ok: errors == 0, checks: self.checks };
        shell.print(&checked, |checked| {
            let is_far = checked.checks.len() >= MANY;
            let is_repeated = |check: &&CheckedSubject| match check.result {
                CheckResult::Ok => false,
                CheckResult::Note => look.cuts(&line(check)),
                CheckResult::Error => is_far || look.cuts(&line(check)),
            };
            let repeated = checked.checks.iter().filter(is_repeated);
            let repeated: String = repeated.map(|check| format!("{}\n", look.wrapped(&line(check), INDENT))).collect();
            let gap = if repeated.is_empty() { "" } else { "\n" };
            format!("{gap}{repeated}\n{ok} ok, {}, {}\n", counted(notes, "note"), counted(errors, "error"))
        })?;
        Ok(match (checked.ok, self.is_refused) {
            (true, _) => Completion::Done,
            (false, true) => Completion::Refused,
            (false, false) => Completion::Incomplete,
        })
    }
}

/// Columns before the subject.
const INDENT: usize = 7;

fn line(check: &CheckedSubject) -> String {
    format!("{:<INDENT$}{}: {}", check.result.as_str(), check.subject, check.message)
}
