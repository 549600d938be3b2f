//! The parsed file: the line of each key, and the form of an error. Knows no key's meaning.

use std::fmt;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// An error or a warning about the configuration: where, what is wrong, what to do. Contains no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    message: String,
    /// Where in the file, in bytes; `None` if it concerns nothing in the file.
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
    /// Its text.
    pub(super) text: &'a str,
    /// Its tree, with positions.
    pub(super) table: DeTable<'a>,
    /// Upper-case names of the environment variables that override one of its keys.
    pub(super) overrides: Vec<String>,
}

impl<'a> Document<'a> {
    /// Parses TOML. The parser's own message quotes the line, which may contain a secret, so only its reason is kept.
    pub(super) fn parse(file: &'a str, text: &'a str, overrides: Vec<String>) -> Result<Self, Problem> {
        let problem = |error: &toml::de::Error, reason: &str| {
            let before = text.get(..error.span().map_or(0, |span| span.start)).unwrap_or(text);
            let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
            Problem::new(format!("{file}:{}:{column}: not valid TOML: {reason}", line(before)))
        };
        let table = DeTable::parse(text).map_err(|error| problem(&error, error.message()))?.into_inner();
        // The tree with positions keeps numbers as text. This finds those that are too large; its own reason quotes them.
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

/// The path of a key or a list item, whether or not the file has it.
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
        let mut path = self.clone();
        path.path.push(segment);
        path
    }

    /// The path at which serde stopped.
    pub(super) fn follow(&self, path: &serde_path_to_error::Path) -> KeyPath<'a> {
        use serde_path_to_error::Segment as Step;
        path.iter().fold(self.clone(), |path, step| match step {
            Step::Seq { index } => path.index(*index),
            Step::Map { key } => path.key(key),
            Step::Enum { .. } | Step::Unknown => path,
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

    /// File, line and key: the beginning of errors that are found after the configuration is loaded.
    pub(super) fn shown(&self) -> String {
        format!("{}: {self}", self.locus())
    }

    /// File and line, or the environment variable that overrides the key. A missing key has the line of its table.
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

    /// The position of the deepest part of the path that exists.
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

/// As in `reports[2].schedule.at`.
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

/// The words as `"a", "b" or "c"`.
pub(super) fn alternatives<'k>(words: impl IntoIterator<Item = &'k str>) -> String {
    let quoted: Vec<_> = words.into_iter().map(|word| format!("{word:?}")).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}
