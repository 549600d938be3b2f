//! All mistakes of one configuration together.
//!
//! This file owns how they are collected. It must not know what any key means.

use std::{collections::BTreeMap, fmt};

use super::{Problem, document::KeyPath};

/// Why a configuration is not valid: at least one mistake, in the file's order.
///
/// Shown with one mistake a line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mistakes(Vec<Problem>);

impl std::error::Error for Mistakes {}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl From<Problem> for Mistakes {
    fn from(problem: Problem) -> Self {
        Mistakes(vec![problem])
    }
}

impl Mistakes {
    /// Each mistake.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// All of them in one line, for a log or a message: the first, and how many more there are.
    pub fn summary(&self) -> String {
        match self.0.as_slice() {
            [] => String::new(),
            [only] => only.to_string(),
            [first, more @ ..] => {
                let plural = if more.len() == 1 { "" } else { "s" };
                format!("{first}; and {} more mistake{plural}, which `moesync check` lists", more.len())
            }
        }
    }

    pub(super) fn add(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// The value, if it is valid; otherwise its mistakes are kept.
    pub(super) fn keep<T>(&mut self, checked: Result<T, impl Into<Mistakes>>) -> Option<T> {
        checked.map_err(|mistakes| self.0.extend(mistakes.into().0)).ok()
    }

    /// The value that `build` makes of what was kept valid. It finds all of it there if no mistake was kept.
    pub(super) fn finish<T>(mut self, build: impl FnOnce() -> Option<T>) -> Result<T, Mistakes> {
        if self.0.is_empty() {
            return build().ok_or(self);
        }
        // What is not in the file comes last.
        self.0.sort_by_key(|problem| problem.offset.unwrap_or(usize::MAX));
        Err(self)
    }
}

/// Checks every element, and collects the mistakes of all.
pub(super) fn each<R, T, E: Into<Mistakes>>(
    raw: &[R],
    at: &KeyPath<'_>,
    mut check: impl FnMut(&R, &KeyPath<'_>) -> Result<T, E>,
) -> Result<Vec<T>, Mistakes> {
    let mut mistakes = Mistakes::default();
    let checked: Vec<_> =
        raw.iter().enumerate().map(|(index, raw)| mistakes.keep(check(raw, &at.index(index)))).collect();
    mistakes.finish(|| checked.into_iter().collect())
}

/// Checks that no two elements have one name.
pub(super) fn unique<'n>(names: impl Iterator<Item = &'n str>, at: &KeyPath<'_>) -> Result<(), Mistakes> {
    let mut mistakes = Mistakes::default();
    let mut seen = BTreeMap::new();
    for (index, name) in names.enumerate().filter(|(_, name)| !name.trim().is_empty()) {
        let here = at.index(index).key("name");
        if let Some(first) = seen.insert(name, here.clone()) {
            mistakes.add(here.problem(format_args!("{name:?} is taken already, at {}", first.locus())));
        }
    }
    mistakes.finish(|| Some(()))
}
