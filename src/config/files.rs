//! Paths of files in the configuration, with the environment variables in them.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use super::{Problem, document::KeyPath};

/// The environment that the configuration is read in.
pub(super) type Env = BTreeMap<String, String>;

/// A file that the configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// The file.
    pub path: PathBuf,
    /// Its key and line in the configuration, for error messages.
    pub place: String,
}

impl NamedFile {
    /// A problem with the file, reported at its key.
    pub fn problem(&self, what: impl fmt::Display) -> Problem {
        Problem::new(format!("{}: {what}", self.place))
    }

    /// A problem if the file does not exist. A file that cannot be seen from here counts as existing.
    pub fn missing(&self) -> Option<Problem> {
        let is_missing = matches!(self.path.try_exists(), Ok(false));
        is_missing.then(|| self.problem(format_args!("there is no file {}", self.path.display())))
    }

    pub(super) fn check(path: Option<&str>, at: &KeyPath<'_>, env: &Env) -> Result<Option<Self>, Problem> {
        let Some(path) = path else { return Ok(None) };
        Self::at(expand(path, at, env)?, at).map(Some)
    }

    /// The file at `path`, which is free of variables.
    pub(super) fn at(path: String, at: &KeyPath<'_>) -> Result<Self, Problem> {
        match path.is_empty() {
            true => Err(at.problem("expected the path of a file, found nothing")),
            false => Ok(NamedFile { path: path.into(), place: at.shown() }),
        }
    }
}

/// Why the variables in a path could not be replaced.
pub(super) enum Unexpanded {
    /// The variable is not set in this environment.
    Unset(Problem),
    /// The path is malformed in every environment.
    Malformed(Problem),
}

impl From<Unexpanded> for Problem {
    fn from(unexpanded: Unexpanded) -> Self {
        match unexpanded {
            Unexpanded::Unset(problem) | Unexpanded::Malformed(problem) => problem,
        }
    }
}

/// Replaces each `${VAR}` with the variable's value.
pub(super) fn expand(path: &str, at: &KeyPath<'_>, env: &Env) -> Result<String, Unexpanded> {
    let unset = |name| at.problem(format_args!("the environment variable {name:?} in this path is not set"));
    let mut expanded = String::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) =
            after.split_once('}').ok_or_else(|| Unexpanded::Malformed(at.problem("a \"${\" has no closing \"}\"")))?;
        let value = env.get(name).ok_or_else(|| Unexpanded::Unset(unset(name)))?;
        expanded.push_str(before);
        expanded.push_str(value);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}
