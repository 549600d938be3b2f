//! Collects the mistakes of a configuration, so that all are reported together. Knows no key's meaning.

use std::{collections::BTreeMap, fmt};

use super::{Problem, document::KeyPath};

/// Why a configuration is not valid: at least one mistake, in the order of the files. Displays one a line.
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

    /// One line: the first mistake and the number of others.
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

    /// Those that `is_kept` holds for.
    pub(super) fn only(mut self, is_kept: impl FnMut(&Problem) -> bool) -> Self {
        self.0.retain(is_kept);
        self
    }

    /// The value, if it is valid; otherwise its mistakes are added.
    pub(super) fn keep<T>(&mut self, checked: Result<T, impl Into<Mistakes>>) -> Option<T> {
        checked.map_err(|mistakes| self.0.extend(mistakes.into().0)).ok()
    }

    /// The result of `build` if there is no mistake. `build` returns `None` only if a value it needs is missing because of
    /// a mistake that is recorded elsewhere.
    pub(super) fn finish<T>(mut self, build: impl FnOnce() -> Option<T>) -> Result<T, Mistakes> {
        if self.0.is_empty() {
            return build().ok_or(self);
        }
        // Mistakes outside the files come last.
        self.0.sort_by_key(|problem| (problem.position.is_none(), problem.position));
        Err(self)
    }
}

/// Checks every element and collects the mistakes of all.
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
            mistakes.add(here.problem(format_args!("{name:?} is already used, at {}", first.locus())));
        }
    }
    mistakes.finish(|| Some(()))
}
