//! From the tree of the files and the environment to the raw types.
//!
//! serde stops at the first mistake. To find all, each mistake is recorded and removed from the tree, which is then read
//! again. A mistyped or missing value becomes empty (`ValueKind::Nil`, which TOML does not have), and an empty value is
//! read as the default of any type.

use std::fmt;

use config::{Value, ValueKind};
use serde::{
    Deserializer,
    de::{
        self, DeserializeOwned, IntoDeserializer, Unexpected, Visitor,
        value::{MapDeserializer, SeqDeserializer},
    },
    forward_to_deserialize_any,
};

use super::{
    Mistakes, Problem,
    document::{KeyPath, Segment, alternatives, did_you_mean},
};

/// The raw types, with all mistakes in their form: unknown, missing and mistyped keys.
pub(super) struct Form<'a, T> {
    /// Its values; `None` if not even substitutes could be read. Values within [`Form::broken`] are substitutes.
    pub(super) raw: Option<T>,
    pub(super) mistakes: Mistakes,
    /// Where the mistakes are.
    broken: Vec<KeyPath<'a>>,
}

impl<T> Form<'_, T> {
    /// Whether the table, list or key at `at` has no mistake within it.
    pub(super) fn is_sound(&self, at: &KeyPath<'_>) -> bool {
        !self.broken.iter().any(|broken| broken.is_within(at))
    }

    /// Applies `check` to the table at `at`. A table with a mistake in its form fails without a further mistake.
    pub(super) fn check<'k, C>(
        &self,
        at: &KeyPath<'k>,
        check: impl FnOnce(&KeyPath<'k>) -> Result<C, Mistakes>,
    ) -> Result<C, Mistakes> {
        match self.is_sound(at) {
            true => check(at),
            false => Err(Mistakes::default()),
        }
    }

    /// As [`Form::check`], of a table whose keys do not depend on each other, but on those that `decide`. If another has a
    /// mistake in its form, the mistakes in the rest are found as well.
    pub(super) fn check_each<'k, C>(
        &self,
        at: &KeyPath<'k>,
        decide: &[&str],
        check: impl FnOnce(&KeyPath<'k>) -> Result<C, Mistakes>,
    ) -> Result<C, Mistakes> {
        if self.is_sound(at) {
            return check(at);
        }
        let is_undecided = |broken: &KeyPath<'_>| {
            broken.segments() == at.segments() || !did_you_mean(broken.last_key(), decide.iter().copied()).is_empty()
        };
        if self.broken.iter().filter(|broken| broken.is_within(at)).any(is_undecided) {
            return Err(Mistakes::default());
        }
        // A missing key may be missing because it is misspelt.
        let is_of_sound_key = |problem: &Problem| {
            let key = problem.given.get(..=at.segments().len());
            key.is_some_and(|key| !self.broken.iter().any(|broken| broken.segments().starts_with(key)))
        };
        Err(check(at).err().unwrap_or_default().only(is_of_sound_key))
    }

    /// Whether the list `key` at the root may be incomplete: it is not a list, or its name is misspelt.
    pub(super) fn may_lack(&self, key: &str) -> bool {
        let mut of_root = self.broken.iter().filter(|broken| broken.segments().len() == 1);
        of_root.any(|broken| !did_you_mean(broken.last_key(), [key]).is_empty())
    }
}

/// Reads `tree` as a `T`. Adds to `mistakes`. The values at `broken` are empty because of earlier ones.
pub(super) fn read<'a, T: DeserializeOwned>(
    mut tree: Value,
    root: &KeyPath<'a>,
    mut mistakes: Mistakes,
    mut broken: Vec<KeyPath<'a>>,
) -> Form<'a, T> {
    // Ends, because each round removes a key, makes a value empty, or adds an empty key that the raw type has.
    loop {
        let error = match serde_path_to_error::deserialize(Node(&tree)) {
            Ok(raw) => return Form { raw: Some(raw), mistakes, broken },
            Err(error) => error,
        };
        let at = root.follow(error.path());
        let (at, message, is_corrected) = match error.into_inner() {
            FormError::UnknownKey { key, known } => {
                let nearest = match did_you_mean(&key, known.iter().copied()) {
                    none if none.is_empty() => format!("; known here: {}", known.join(", ")),
                    nearest => nearest,
                };
                let is_corrected = remove(&mut tree, at.segments());
                (at, format!("unknown key{nearest}"), is_corrected)
            }
            FormError::MissingKey(key) => {
                let is_corrected = add_empty(&mut tree, at.segments(), key);
                if is_corrected && broken.iter().any(|broken| explains(broken, &at, key)) {
                    continue;
                }
                (at.key(key), "missing, but required".to_owned(), is_corrected)
            }
            FormError::Other(message) => {
                let is_corrected = make_empty(&mut tree, at.segments());
                (at, message, is_corrected)
            }
        };
        mistakes.add(at.problem(message));
        broken.push(at);
        if !is_corrected {
            return Form { raw: None, mistakes, broken };
        }
    }
}

/// Whether `broken` is why `table` lacks `key`: it is the mistyped table itself, or the misspelt key.
fn explains(broken: &KeyPath<'_>, table: &KeyPath<'_>, key: &str) -> bool {
    let is_misspelt =
        |segments: &[Segment]| segments == table.segments() && !did_you_mean(broken.last_key(), [key]).is_empty();
    broken.segments() == table.segments() || broken.segments().split_last().is_some_and(|(_, rest)| is_misspelt(rest))
}

/// Applies `change` to the value at the end of `path`, or to the deepest on the way that exists: an item of a list is
/// part of one text if the list comes from the environment.
fn change(value: &mut Value, path: &[Segment], change: &mut dyn FnMut(&mut Value) -> bool) -> bool {
    if let Some((first, rest)) = path.split_first() {
        let inner = match (first, &mut value.kind) {
            (Segment::Key(key), ValueKind::Table(table)) => table.get_mut(key.as_ref()),
            (Segment::Index(index), ValueKind::Array(list)) => list.get_mut(*index),
            _ => None,
        };
        if let Some(inner) = inner {
            return self::change(inner, rest, change);
        }
    }
    change(value)
}

fn make_empty(tree: &mut Value, path: &[Segment]) -> bool {
    change(tree, path, &mut |value| !matches!(std::mem::replace(&mut value.kind, ValueKind::Nil), ValueKind::Nil))
}

fn remove(tree: &mut Value, path: &[Segment]) -> bool {
    let Some((Segment::Key(key), table)) = path.split_last() else { return false };
    change(tree, table, &mut |value| match &mut value.kind {
        ValueKind::Table(table) => table.remove(key.as_ref()).is_some(),
        _ => false,
    })
}

fn add_empty(tree: &mut Value, path: &[Segment], key: &str) -> bool {
    change(tree, path, &mut |value| {
        if matches!(value.kind, ValueKind::Nil) {
            value.kind = ValueKind::Table(config::Map::new());
        }
        match &mut value.kind {
            ValueKind::Table(table) => table.insert(key.to_owned(), ValueKind::Nil.into()).is_none(),
            _ => false,
        }
    })
}

/// A deserializer of the tree. Unlike the library's own, it converts no types (`name = 5` is a mistake) except in values
/// from the environment, its errors contain no values, and it reads an empty value as any type.
#[derive(Clone, Copy)]
struct Node<'t>(&'t Value);

impl Node<'_> {
    /// The text of a value from the environment, where everything is text.
    fn environment_text(&self) -> Option<&str> {
        match (&self.0.kind, self.0.origin()) {
            (ValueKind::String(text), Some("the environment")) => Some(text),
            _ => None,
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self.0.kind, ValueKind::Nil)
    }

    fn unexpected(&self) -> Unexpected<'_> {
        match &self.0.kind {
            ValueKind::Nil => Unexpected::Option,
            ValueKind::Boolean(value) => Unexpected::Bool(*value),
            ValueKind::I64(value) => Unexpected::Signed(*value),
            ValueKind::Float(value) => Unexpected::Float(*value),
            ValueKind::String(value) => Unexpected::Str(value),
            ValueKind::Table(_) => Unexpected::Map,
            ValueKind::Array(_) => Unexpected::Seq,
            ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => Unexpected::Other("a huge number"),
        }
    }
}

impl<'de> Deserializer<'de> for Node<'_> {
    type Error = FormError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FormError> {
        match &self.0.kind {
            ValueKind::Boolean(value) => visitor.visit_bool(*value),
            ValueKind::I64(value) => visitor.visit_i64(*value),
            ValueKind::Float(value) => visitor.visit_f64(*value),
            ValueKind::String(value) => visitor.visit_str(value),
            ValueKind::Nil => visitor.visit_str(""),
            ValueKind::Array(items) => visitor.visit_seq(SeqDeserializer::new(items.iter().map(Node))),
            ValueKind::Table(table) => {
                // In order, so that the mistakes found are the same each time.
                let mut sorted: Vec<_> = table.iter().map(|(key, value)| (key.as_str(), Node(value))).collect();
                sorted.sort_unstable_by_key(|(key, _)| *key);
                visitor.visit_map(MapDeserializer::new(sorted.into_iter()))
            }
            _ => Err(de::Error::invalid_type(self.unexpected(), &visitor)),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FormError> {
        match self.environment_text().map(|text| text.trim().to_lowercase().parse()) {
            _ if self.is_empty() => visitor.visit_bool(false),
            Some(Ok(value)) => visitor.visit_bool(value),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FormError> {
        match self.environment_text().map(|text| text.trim().parse()) {
            _ if self.is_empty() => visitor.visit_i64(0),
            Some(Ok(value)) => visitor.visit_i64(value),
            _ => self.deserialize_any(visitor),
        }
    }

    /// A list in the environment is separated by commas.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FormError> {
        match self.environment_text() {
            _ if self.is_empty() => visitor.visit_seq(SeqDeserializer::new(std::iter::empty::<Node<'_>>())),
            Some(text) => {
                let items: Vec<_> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
                visitor.visit_seq(SeqDeserializer::new(items.into_iter()))
            }
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FormError> {
        match self.is_empty() {
            true => visitor.visit_none(),
            false => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, FormError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        words: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FormError> {
        match &self.0.kind {
            ValueKind::Nil => visitor.visit_enum(words.first().copied().unwrap_or_default().into_deserializer()),
            ValueKind::String(word) => visitor.visit_enum(word.as_str().into_deserializer()),
            _ => Err(de::Error::invalid_type(self.unexpected(), &visitor)),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FormError> {
        match self.is_empty() {
            true => visitor.visit_map(MapDeserializer::new(std::iter::empty::<(&str, Node<'_>)>())),
            false => self.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FormError> {
        self.deserialize_map(visitor)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, FormError> for Node<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// serde's errors, without values except words of a fixed choice: any value may be a secret under a wrong key.
#[derive(Debug)]
enum FormError {
    UnknownKey { key: String, known: &'static [&'static str] },
    MissingKey(&'static str),
    Other(String),
}

impl fmt::Display for FormError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FormError::UnknownKey { key, .. } => write!(f, "unknown key {key:?}"),
            FormError::MissingKey(key) => write!(f, "missing key {key:?}"),
            FormError::Other(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for FormError {}

impl de::Error for FormError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        FormError::Other(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let found = match found {
            Unexpected::Map if expected.to_string() == "a sequence" => {
                "a table; each table of a list has two brackets, such as [[reports]]"
            }
            Unexpected::Bool(_) => "a boolean",
            Unexpected::Signed(_) | Unexpected::Unsigned(_) => "an integer",
            Unexpected::Float(_) => "a decimal number",
            Unexpected::Str(_) => "a string",
            Unexpected::Seq => "a list",
            Unexpected::Map => "a table",
            _ => "something else",
        };
        let expected = match expected.to_string() {
            list if list == "a sequence" => "a list".to_owned(),
            integer if integer == "i64" => "an integer".to_owned(),
            map if map == "a map" => "a table".to_owned(),
            other => other,
        };
        FormError::Other(format!("expected {expected}, found {found}"))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(word: &str, known: &'static [&'static str]) -> Self {
        let nearest = did_you_mean(word, known.iter().copied());
        FormError::Other(format!("expected {}, found {word:?}{nearest}", alternatives(known.iter().copied())))
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        FormError::UnknownKey { key: key.to_owned(), known }
    }

    fn missing_field(key: &'static str) -> Self {
        FormError::MissingKey(key)
    }

    // TOML rejects a key that is written twice; only an alias gets here.
    fn duplicate_field(key: &'static str) -> Self {
        FormError::Other(format!("{key} is given twice, under two names"))
    }
}
