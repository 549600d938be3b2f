//! The parsed files: the place of each key, and the form of an error. Knows no key's meaning.

use std::{borrow::Cow, cmp::Reverse, fmt, ops::Range};

use config::{Map, Value, ValueKind};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// An error or a warning about the configuration: where, what is wrong, what to do. Contains no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    message: String,
    /// Where it is; `None` if it concerns nothing in a file.
    pub(super) position: Option<Position>,
    /// The path of what is there: that of the key it is about, or of its table if the key is missing.
    pub(super) given: Vec<Segment>,
}

impl Problem {
    pub(super) fn new(message: String) -> Self {
        Problem { message, position: None, given: Vec::new() }
    }

    /// What is wrong with which key, without the file and line.
    pub fn reason(&self) -> &str {
        match (self.position, self.message.split_once(": ")) {
            (Some(_), Some((_, reason))) => reason,
            _ => &self.message,
        }
    }
}

/// Prefix of the environment variables that override a setting.
pub(super) const ENV_PREFIX: &str = "MOESYNC__";

/// A place in a configuration. In the order of its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    /// The file's index.
    file: usize,
    /// Bytes before it.
    offset: usize,
}

/// A configuration of one file or several, parsed so far that the places of keys are known.
pub(super) struct Document<'a> {
    /// The file or folder as the user named it.
    name: &'a str,
    files: Vec<ParsedFile<'a>>,
    /// Upper-case names of the environment variables that override one of its keys.
    overrides: Vec<String>,
}

/// One file.
pub(super) struct ParsedFile<'a> {
    /// The file as the user named it, or its path in the folder.
    name: &'a str,
    text: &'a str,
    /// Its tree, with positions. Numbers in it are text.
    tree: DeTable<'a>,
}

impl<'a> ParsedFile<'a> {
    /// Parses TOML: the file and its values. The parser's own message quotes the line, which may contain a secret, so only
    /// its reason is kept.
    pub(super) fn parse(name: &'a str, text: &'a str) -> Result<(Self, Map<String, Value>), Problem> {
        let problem = |span: Option<Range<usize>>, reason: &str| {
            let before = text.get(..span.map_or(0, |span| span.start)).unwrap_or(text);
            let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
            Problem::new(format!("{name}:{}:{column}: not valid TOML: {reason}", line(before)))
        };
        let tree = DeTable::parse(text).map_err(|error| problem(error.span(), error.message()))?.into_inner();
        let values = values(&tree).map_err(|OutOfRange(span)| problem(Some(span), "a number is out of range"))?;
        Ok((ParsedFile { name, text, tree }, values))
    }

    fn line(&self, offset: usize) -> usize {
        line(self.text.get(..offset).unwrap_or(""))
    }

    /// The number of items in the list `key` at the root.
    fn items(&self, key: &str) -> usize {
        get(&self.tree, key).and_then(DeValue::as_array).map_or(0, |list| list.len())
    }

    /// The position of the deepest part of `path` that exists, and its depth.
    fn offset(&self, path: &[Segment]) -> Option<(usize, usize)> {
        let mut deepest = None;
        let mut table = Some(&self.tree);
        let mut list: Option<&[Spanned<DeValue<'_>>]> = None;
        for (depth, segment) in path.iter().enumerate() {
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
            deepest = Some((depth, start));
            table = value.get_ref().as_table();
            list = value.get_ref().as_array().map(|array| &array[..]);
        }
        deepest
    }
}

impl<'a> Document<'a> {
    /// The configuration of `files`, and their values as one tree. `name` is that of the file or of the folder.
    pub(super) fn new(
        name: &'a str,
        files: Vec<(ParsedFile<'a>, Map<String, Value>)>,
        overrides: Vec<String>,
    ) -> (Self, Map<String, Value>) {
        let (files, values): (Vec<_>, Vec<_>) = files.into_iter().unzip();
        let mut tree = Map::new();
        for (key, value) in values.into_iter().flatten() {
            match (tree.get_mut(&key).map(|value: &mut Value| &mut value.kind), value) {
                (Some(ValueKind::Array(list)), Value { kind: ValueKind::Array(more), .. }) => list.extend(more),
                (Some(ValueKind::Table(table)), Value { kind: ValueKind::Table(more), .. }) => table.extend(more),
                (_, value) => drop(tree.insert(key, value)),
            }
        }
        (Document { name, files, overrides }, tree)
    }

    /// The keys that are in several files and do not add up: all but the lists at the root.
    pub(super) fn repeated(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (index, later) in self.files.iter().enumerate() {
            for earlier in self.files.get(..index).unwrap_or_default() {
                for path in repeated(&earlier.tree, &later.tree) {
                    let [(first, _), (line, offset)] = [earlier, later].map(|file| {
                        let (_, offset) = file.offset(&path).unwrap_or_default();
                        (format!("{}:{}", file.name, file.line(offset)), offset)
                    });
                    let message = format!("{line}: {}: already given, at {first}; remove one of the two", Path(&path));
                    problems.push(Problem { message, position: Some(Position { file: index, offset }), given: path });
                }
            }
        }
        problems
    }

    pub(super) fn root(&self) -> KeyPath<'_> {
        KeyPath { document: self, path: Vec::new() }
    }

    /// The deepest part of `path` that exists: its last segment, and its position. The index of an item in a list at the root
    /// counts those of all files.
    fn position(&self, path: &[Segment]) -> Option<(usize, Position)> {
        let mut items_before = 0;
        let found = self.files.iter().enumerate().filter_map(|(number, file)| {
            let mut path = path.to_vec();
            if let [Segment::Key(list), Segment::Index(index), ..] = path.as_mut_slice() {
                let first = items_before;
                items_before += file.items(list);
                *index = index.checked_sub(first).unwrap_or(usize::MAX);
            }
            let (depth, offset) = file.offset(&path)?;
            Some((depth, Position { file: number, offset }))
        });
        found.max_by_key(|(depth, position)| (*depth, Reverse(*position)))
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File {
        /// The file as the user named it, or its path in the folder.
        file: String,
        /// The line of the key; `None` for the file as a whole.
        line: Option<usize>,
    },
    /// An environment variable that overrides the files.
    Environment {
        /// Its name.
        variable: String,
    },
    /// The key is not given.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { file, line: Some(line) } => write!(f, "{file}:{line}"),
            Origin::File { file, line: None } => f.write_str(file),
            Origin::Environment { variable } => write!(f, "environment variable {variable}"),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// The number of the line that follows `before`.
fn line(before: &str) -> usize {
    memchr::memchr_iter(b'\n', before.as_bytes()).count() + 1
}

fn get<'t, 'a>(table: &'t DeTable<'a>, key: &str) -> Option<&'t DeValue<'a>> {
    table.get(key).map(Spanned::get_ref)
}

/// A number that has no value, at these bytes of the file.
struct OutOfRange(Range<usize>);

fn values(table: &DeTable<'_>) -> Result<Map<String, Value>, OutOfRange> {
    table.iter().map(|(key, inner)| Ok((key.get_ref().to_string(), value(inner)?))).collect()
}

fn value(of: &Spanned<DeValue<'_>>) -> Result<Value, OutOfRange> {
    let out_of_range = || OutOfRange(of.span());
    let kind = match of.get_ref() {
        DeValue::String(text) => ValueKind::String(text.to_string()),
        DeValue::Integer(number) => {
            ValueKind::I64(i64::from_str_radix(number.as_str(), number.radix()).map_err(|_| out_of_range())?)
        }
        DeValue::Float(number) => {
            let text = number.as_str();
            // One that is too large is read as infinity.
            let is_meant = |number: &f64| !number.is_infinite() || text.contains("inf");
            ValueKind::Float(text.parse().ok().filter(is_meant).ok_or_else(out_of_range)?)
        }
        DeValue::Boolean(truth) => ValueKind::Boolean(*truth),
        DeValue::Datetime(datetime) => ValueKind::String(datetime.to_string()),
        DeValue::Array(items) => ValueKind::Array(items.iter().map(value).collect::<Result<_, _>>()?),
        DeValue::Table(table) => ValueKind::Table(values(table)?),
    };
    Ok(Value::new(None, kind))
}

/// The keys that two files have in common and that cannot add up: of the roots, and of tables there.
fn repeated(earlier: &DeTable<'_>, later: &DeTable<'_>) -> Vec<Vec<Segment>> {
    let key = |key: &str| Segment::Key(key.to_owned().into());
    let both = later.iter().filter_map(|(name, value)| {
        let name = name.get_ref().as_ref();
        Some((name, get(earlier, name)?, value.get_ref()))
    });
    both.flat_map(|(name, earlier, later)| match (earlier, later) {
        (DeValue::Array(_), DeValue::Array(_)) => Vec::new(),
        (DeValue::Table(earlier), DeValue::Table(later)) => {
            let common =
                later.keys().map(|inner| inner.get_ref().as_ref()).filter(|inner| get(earlier, inner).is_some());
            common.map(|inner| vec![key(name), key(inner)]).collect()
        }
        _ => vec![vec![key(name)]],
    })
    .collect()
}

/// The path of a key or a list item, whether or not the file has it.
#[derive(Clone)]
pub(super) struct KeyPath<'a> {
    document: &'a Document<'a>,
    path: Vec<Segment>,
}

/// A step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    Key(Cow<'static, str>),
    Index(usize),
}

impl<'a> KeyPath<'a> {
    pub(super) fn key(&self, key: impl Into<Cow<'static, str>>) -> KeyPath<'a> {
        self.with(Segment::Key(key.into()))
    }

    pub(super) fn index(&self, index: usize) -> KeyPath<'a> {
        self.with(Segment::Index(index))
    }

    fn with(&self, segment: Segment) -> KeyPath<'a> {
        // Made for each key of each report: one allocation.
        let mut path = Vec::with_capacity(self.path.len() + 1);
        path.extend_from_slice(&self.path);
        path.push(segment);
        KeyPath { document: self.document, path }
    }

    /// The path at which serde stopped.
    pub(super) fn follow(&self, path: &serde_path_to_error::Path) -> KeyPath<'a> {
        use serde_path_to_error::Segment as Step;
        path.iter().fold(self.clone(), |path, step| match step {
            Step::Seq { index } => path.index(*index),
            Step::Map { key } => path.key(key.clone()),
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
            .find_map(|s| if let Segment::Key(key) = s { Some(key.as_ref()) } else { None })
            .unwrap_or("")
    }

    pub(super) fn problem(&self, message: impl fmt::Display) -> Problem {
        let message = match self.path.as_slice() {
            [] => format!("{}: {message}", self.locus()),
            _ => format!("{}: {self}: {message}", self.locus()),
        };
        let found = self.document.position(&self.path);
        let given = found.map_or(&[][..], |(last, _)| &self.path[..=last]);
        Problem { message, position: found.map(|(_, position)| position), given: given.to_vec() }
    }

    /// File, line and key: the beginning of errors that are found after the configuration is loaded.
    pub(super) fn shown(&self) -> String {
        format!("{}: {self}", self.locus())
    }

    /// File and line, or the environment variable that overrides the key. A missing key has the line of its table.
    pub(super) fn locus(&self) -> String {
        self.origin().to_string()
    }

    /// Where its value comes from. A missing key has the line of its table.
    pub(super) fn origin(&self) -> Origin {
        if let Some(variable) = self.overriding() {
            return Origin::Environment { variable };
        }
        let place = self.position().and_then(|at| Some((self.document.files.get(at.file)?, at.offset)));
        match place {
            Some((file, offset)) => Origin::File { file: file.name.to_owned(), line: Some(file.line(offset)) },
            None => Origin::File { file: self.document.name.to_owned(), line: None },
        }
    }

    fn position(&self) -> Option<Position> {
        self.document.position(&self.path).map(|(_, position)| position)
    }

    /// The environment variable that overrides the key.
    fn overriding(&self) -> Option<String> {
        let [Segment::Key(table), Segment::Key(key), ..] = self.path.as_slice() else { return None };
        let name = format!("{ENV_PREFIX}{table}__{key}").to_uppercase();
        self.document.overrides.contains(&name).then_some(name)
    }
}

impl fmt::Display for KeyPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Path(&self.path).fmt(f)
    }
}

/// As in `reports[2].schedule.at`.
struct Path<'a>(&'a [Segment]);

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, segment) in self.0.iter().enumerate() {
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
