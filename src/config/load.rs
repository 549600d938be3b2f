//! Finds the file, lays the environment over it, and turns both into the raw structs.
//!
//! This file owns layers and types. It must not know which values are sensible: that is `check`'s to say.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use config::{Environment, File, FileFormat, Value, ValueKind};
use serde::{
    Deserializer,
    de::{
        self, IntoDeserializer, Unexpected, Visitor,
        value::{MapDeserializer, SeqDeserializer},
    },
    forward_to_deserialize_any,
};

use super::{
    Config, Mistakes, Problem,
    document::{Document, ENV_PREFIX, alternatives, did_you_mean},
    tables,
    zones::Zones,
};

/// Where the configuration is looked for when no file is named, in this order.
const USUAL_PLACES: [&str; 2] = ["./moesync.toml", "/etc/moesync/moesync.toml"];

/// The configuration file to use: the one named, else `./moesync.toml`, else `/etc/moesync/moesync.toml`.
///
/// A named file is not looked at here; [`load`] says what is wrong with it.
///
/// # Errors
/// When none is named and neither of the two exists.
pub fn locate(explicit: Option<&Path>) -> Result<PathBuf, Problem> {
    match explicit {
        Some(path) => Ok(path.to_owned()),
        None => first_existing(&USUAL_PLACES.map(PathBuf::from)),
    }
}

fn first_existing(candidates: &[PathBuf]) -> Result<PathBuf, Problem> {
    // A file that may not be looked at exists too: reading it then says why it can't be.
    candidates.iter().find(|path| path.try_exists().unwrap_or(true)).cloned().ok_or_else(|| {
        let tried: Vec<_> = candidates.iter().map(|path| path.display().to_string()).collect();
        Problem::new(format!(
            "no configuration found: neither {} exists; write one, or name yours with --config FILE",
            tried.join(" nor ")
        ))
    })
}

/// Reads the file at `path`, lays the variables of `env` named `MOESYNC__TABLE__KEY` over its tables, and checks
/// everything that can be checked without the outside world. No secret is read.
///
/// The rest of `env` is what `${VAR}` in file paths is taken from.
///
/// # Errors
/// Every mistake in a value, each with its key and line; of mistakes in the form (TOML, unknown keys, types) the first.
pub fn load(path: &Path, env: impl IntoIterator<Item = (String, String)>) -> Result<Config, Mistakes> {
    let env: BTreeMap<String, String> = env.into_iter().collect();
    let file = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|error| {
        Problem::new(format!("cannot read the configuration {file}: {error}; name another file with --config FILE"))
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        Problem::new(format!("{file}:{line}: not UTF-8 text; save the file in that encoding"))
    })?;
    let document = Document::parse(&file, &text, overrides(&env)?)?;
    let raw = merge(&document, &env)?;
    let zones = Zones::find(env.get("TZDIR").map(String::as_str));
    raw.check(&document.root(), &env, &zones)
}

/// The names, in upper case, of the variables in `env` that override a setting; each must name one that exists.
fn overrides(env: &BTreeMap<String, String>) -> Result<Vec<String>, Problem> {
    let names: Vec<_> =
        env.keys().map(|name| name.to_uppercase()).filter(|name| name.starts_with(ENV_PREFIX)).collect();
    let known = tables::overridable();
    let setting = |name: &str| name.strip_prefix(ENV_PREFIX).unwrap_or(name).to_owned();
    let Some(unknown) = names.iter().find(|name| !known.contains(name)) else { return Ok(names) };
    let lists = ["WORKSPACES", "DESTINATIONS", "REPORTS", "NOTIFY"];
    let reason = match setting(unknown) {
        list if lists.iter().any(|name| list.starts_with(name)) => {
            "workspaces, destinations, reports and notify targets are set in the file alone".to_owned()
        }
        other => {
            let settings: Vec<_> = known.iter().map(|name| setting(name)).collect();
            let nearest = did_you_mean(&other, settings.iter().map(String::as_str));
            format!("unknown setting{}", nearest.replacen('"', &format!("\"{}", ENV_PREFIX), 1))
        }
    };
    Err(Problem::new(format!("environment variable {unknown}: {reason}")))
}

fn merge(document: &Document<'_>, env: &BTreeMap<String, String>) -> Result<tables::Raw, Problem> {
    let root = document.root();
    // The library takes a top-level name such as "a.b" for a path; ours are all plain words.
    if let Some((key, _)) = document.table.iter().find(|(key, _)| key.get_ref().contains(['.', '[', ']'])) {
        return Err(root.key(key.get_ref()).problem("unknown key"));
    }
    let merged = config::Config::builder()
        .add_source(File::from_str(document.text, FileFormat::Toml))
        .add_source(
            Environment::with_prefix(ENV_PREFIX.trim_end_matches('_'))
                .separator("__")
                .source(Some(env.iter().map(|(name, value)| (name.clone(), value.clone())).collect())),
        )
        .build()
        // The library's own message may hold a value.
        .map_err(|_| root.problem("the file and the environment cannot be laid over each other"))?;
    serde_path_to_error::deserialize(Node(merged.cache)).map_err(|error| {
        let place = root.follow(error.path());
        match error.into_inner() {
            Fault::UnknownKey { key, known } => {
                let nearest = match did_you_mean(&key, known.iter().copied()) {
                    none if none.is_empty() => format!("; known here: {}", known.join(", ")),
                    nearest => nearest,
                };
                place.problem(format_args!("unknown key{nearest}"))
            }
            Fault::MissingKey(key) => place.key(key).problem("missing, but required"),
            Fault::Other(message) => place.problem(message),
        }
    })
}

/// A merged value as serde sees it. Unlike the library's own deserializer, this one keeps types apart (`name = 5` is no
/// name), and its errors hold no values.
struct Node(Value);

impl Node {
    /// The text of a value from the environment, where everything is text.
    fn environment_text(&self) -> Option<&str> {
        match (&self.0.kind, self.0.origin()) {
            (ValueKind::String(text), Some("the environment")) => Some(text),
            _ => None,
        }
    }

    fn unexpected(&self) -> Unexpected<'_> {
        match &self.0.kind {
            ValueKind::Nil => Unexpected::Unit,
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

impl<'de> Deserializer<'de> for Node {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0.kind {
            ValueKind::Boolean(value) => visitor.visit_bool(value),
            ValueKind::I64(value) => visitor.visit_i64(value),
            ValueKind::Float(value) => visitor.visit_f64(value),
            ValueKind::String(value) => visitor.visit_string(value),
            ValueKind::Array(items) => visitor.visit_seq(SeqDeserializer::new(items.into_iter().map(Node))),
            ValueKind::Table(table) => {
                // In order, so that of several problems it is always the same that is reported.
                let sorted: BTreeMap<String, Value> = table.into_iter().collect();
                visitor.visit_map(MapDeserializer::new(sorted.into_iter().map(|(key, value)| (key, Node(value)))))
            }
            _ => Err(de::Error::invalid_type(self.unexpected(), &visitor)),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.environment_text().map(|text| text.trim().to_lowercase().parse()) {
            Some(Ok(value)) => visitor.visit_bool(value),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.environment_text().map(|text| text.trim().parse()) {
            Some(Ok(value)) => visitor.visit_i64(value),
            _ => self.deserialize_any(visitor),
        }
    }

    /// A list in the environment is separated by commas.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.environment_text() {
            Some(text) => {
                let items: Vec<_> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
                visitor.visit_seq(SeqDeserializer::new(items.into_iter()))
            }
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.0.kind {
            ValueKind::String(word) => visitor.visit_enum(word.into_deserializer()),
            _ => Err(de::Error::invalid_type(self.unexpected(), &visitor)),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct map struct identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Fault> for Node {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// What serde has to say, kept apart so that it can be said well. Values are left out, but for words of a fixed choice:
/// any may be a secret that stands under the wrong key.
#[derive(Debug)]
enum Fault {
    UnknownKey { key: String, known: &'static [&'static str] },
    MissingKey(&'static str),
    Other(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::UnknownKey { key, .. } => write!(f, "unknown key {key:?}"),
            Fault::MissingKey(key) => write!(f, "missing key {key:?}"),
            Fault::Other(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Fault::Other(message.to_string())
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
        Fault::Other(format!("expected {expected}, found {found}"))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(word: &str, known: &'static [&'static str]) -> Self {
        let nearest = did_you_mean(word, known.iter().copied());
        Fault::Other(format!("expected {}, found {word:?}{nearest}", alternatives(known.iter().copied())))
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        Fault::UnknownKey { key: key.to_owned(), known }
    }

    fn missing_field(key: &'static str) -> Self {
        Fault::MissingKey(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_usual_place_that_exists_is_used_and_else_both_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let candidates = ["one.toml", "two.toml"].map(|name| folder.path().join(name));
        let message = first_existing(&candidates).unwrap_err().to_string();
        assert!(candidates.iter().all(|path| message.contains(&path.display().to_string())), "{message}");
        for path in candidates.iter().rev() {
            std::fs::write(path, "").unwrap();
            assert_eq!(first_existing(&candidates).unwrap(), *path);
        }
    }
}
