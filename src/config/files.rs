//! Files that the configuration names.

use std::{fmt, path::PathBuf};

use super::{Problem, document::KeyPath};

/// A file that the configuration names. Equal to another mention of the same path.
#[derive(Debug, Clone)]
pub struct NamedFile {
    /// The file.
    pub path: PathBuf,
    /// Its key and line in the configuration, for error messages.
    pub place: String,
}

impl PartialEq for NamedFile {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for NamedFile {}

impl NamedFile {
    /// A problem with the file, reported at its key.
    pub fn problem(&self, what: impl fmt::Display) -> Problem {
        Problem::new(format!("{}: {what}", self.place))
    }

    pub(super) fn check(path: Option<&str>, at: &KeyPath<'_>) -> Result<Option<Self>, Problem> {
        path.map(|path| Self::at(path.to_owned(), at)).transpose()
    }

    pub(super) fn at(path: String, at: &KeyPath<'_>) -> Result<Self, Problem> {
        match path.is_empty() {
            true => Err(at.problem("expected the path of a file, found nothing")),
            false => Ok(NamedFile { path: path.into(), place: at.shown() }),
        }
    }
}
