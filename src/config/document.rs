//! Where something stands in the configuration, so that every complaint can point at it.
//!
//! This file owns the way from a key to its line and the form of an error. It must not know what any key means.

use std::fmt;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// What is wrong with the configuration, where, and what to do: ready to be shown, and free of secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    message: String,
    /// Where in the file, in bytes; `None` where it is not about something that is written there.
    pub(super) offset: Option<usize>,
}

impl Problem {
    pub(super) fn new(message: String) -> Self {
        Problem { message, offset: None }
    }
}

/// Prefix of the environment variables that override a setting.
pub(super) const ENV_PREFIX: &str = "MOESYNC__";

/// A configuration file, parsed so far that the lines of keys are known.
pub(super) struct Document<'a> {
    /// The file as the user named it.
    pub(super) file: &'a str,
    /// Everything in it.
    pub(super) text: &'a str,
    /// The same as a tree with places.
    pub(super) table: DeTable<'a>,
    /// Upper-case names of the environment variables that override something in it.
    pub(super) overrides: Vec<String>,
}

impl<'a> Document<'a> {
    /// Parses TOML. The parser's own message shows the line, which may hold a secret, so only its reason is kept.
    pub(super) fn parse(file: &'a str, text: &'a str, overrides: Vec<String>) -> Result<Self, Problem> {
        let problem = |error: &toml::de::Error, reason: &str| {
            let before = text.get(..error.span().map_or(0, |span| span.start)).unwrap_or(text);
            let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
            Problem::new(format!("{file}:{}:{column}: not valid TOML: {reason}", line(before)))
        };
        let table = DeTable::parse(text).map_err(|error| problem(&error, error.message()))?.into_inner();
        // The tree with places keeps numbers as text; only this finds those that are too large, but its reason would
        // quote them.
        toml::from_str::<toml::Table>(text).map_err(|error| problem(&error, "a number is out of range"))?;
        Ok(Document { file, text, table, overrides })
    }

    pub(super) fn root(&self) -> KeyPath<'_> {
        KeyPath { document: self, path: Vec::new() }
    }
}

/// The number of the line that follows `before`.
fn line(before: &str) -> usize {
    before.matches('\n').count() + 1
}

/// A key or a list item of the configuration, whether or not it is written there.
#[derive(Clone)]
pub(super) struct KeyPath<'a> {
    document: &'a Document<'a>,
    path: Vec<Segment>,
}

/// A step of a path.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Segment {
    Key(String),
    Index(usize),
}

impl<'a> KeyPath<'a> {
    pub(super) fn key(&self, key: &str) -> KeyPath<'a> {
        self.with(Segment::Key(key.to_owned()))
    }

    pub(super) fn index(&self, index: usize) -> KeyPath<'a> {
        self.with(Segment::Index(index))
    }

    fn with(&self, segment: Segment) -> KeyPath<'a> {
        let mut place = self.clone();
        place.path.push(segment);
        place
    }

    /// The path at which serde stopped.
    pub(super) fn follow(&self, path: &serde_path_to_error::Path) -> KeyPath<'a> {
        use serde_path_to_error::Segment as Step;
        path.iter().fold(self.clone(), |place, step| match step {
            Step::Seq { index } => place.index(*index),
            Step::Map { key } => place.key(key),
            Step::Enum { .. } | Step::Unknown => place,
        })
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.path
    }

    /// Whether it is `other` or a part of it.
    pub(super) fn is_within(&self, other: &KeyPath<'_>) -> bool {
        self.path.starts_with(&other.path)
    }

    /// The last key of the path, or nothing at the root.
    pub(super) fn last_key(&self) -> &str {
        self.path
            .iter()
            .rev()
            .find_map(|s| if let Segment::Key(key) = s { Some(key.as_str()) } else { None })
            .unwrap_or("")
    }

    pub(super) fn problem(&self, message: impl fmt::Display) -> Problem {
        let message = match self.path.as_slice() {
            [] => format!("{}: {message}", self.locus()),
            _ => format!("{}: {self}: {message}", self.locus()),
        };
        Problem { message, offset: self.offset() }
    }

    /// Where this is said, as a problem begins that is found later.
    pub(super) fn shown(&self) -> String {
        format!("{}: {self}", self.locus())
    }

    /// The file and line, or the environment variable, where this is said; of something left out, where the table
    /// begins that lacks it.
    pub(super) fn locus(&self) -> String {
        if let [Segment::Key(table), Segment::Key(key), ..] = self.path.as_slice() {
            let name = format!("{}{table}__{key}", ENV_PREFIX).to_uppercase();
            if self.document.overrides.contains(&name) {
                return format!("environment variable {name}");
            }
        }
        match self.offset() {
            Some(offset) => format!("{}:{}", self.document.file, line(self.document.text.get(..offset).unwrap_or(""))),
            None => self.document.file.to_owned(),
        }
    }

    /// Where the deepest part of the path begins that is there at all.
    fn offset(&self) -> Option<usize> {
        let mut offset = None;
        let mut table = Some(&self.document.table);
        let mut list: Option<&[Spanned<DeValue<'_>>]> = None;
        for segment in &self.path {
            let (start, value) = match (segment, table, list) {
                (Segment::Key(key), Some(table), _) => {
                    let Some((key, value)) = table.iter().find(|(k, _)| k.get_ref() == key) else { break };
                    (key.span().start, value)
                }
                (Segment::Index(index), _, Some(list)) => {
                    let Some(value) = list.get(*index) else { break };
                    (value.span().start, value)
                }
                _ => break,
            };
            offset = Some(start);
            table = value.get_ref().as_table();
            list = value.get_ref().as_array().map(|array| &array[..]);
        }
        offset
    }
}

/// The path as one would write it: `reports[2].schedule.at`.
impl fmt::Display for KeyPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, segment) in self.path.iter().enumerate() {
            match segment {
                Segment::Key(key) if at == 0 => write!(f, "{}", key.escape_debug())?,
                Segment::Key(key) => write!(f, ".{}", key.escape_debug())?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// `; did you mean "…"?` with the nearest of `known`, or nothing if none is near.
pub(super) fn did_you_mean<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    let word = word.to_lowercase();
    let likeness = |candidate: &str| match candidate.len() >= 3 && strsim::osa_distance(&word, candidate) == 1 {
        // One slip in a short word, such as two letters exchanged, which the other measure rates low.
        true => 1.0,
        false => strsim::jaro_winkler(&word, candidate),
    };
    known
        .into_iter()
        .map(|candidate| (likeness(&candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map_or(String::new(), |(_, candidate)| format!("; did you mean {candidate:?}?"))
}

/// The words as a reader wants them: `"a", "b" or "c"`.
pub(super) fn alternatives<'k>(words: impl IntoIterator<Item = &'k str>) -> String {
    let quoted: Vec<_> = words.into_iter().map(|word| format!("{word:?}")).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}
