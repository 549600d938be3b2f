//! Environment variables in the texts of the configuration: `${VAR}`.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
};

use config::{Value, ValueKind};

use super::{Mistakes, Problem, document::KeyPath};

/// The environment that the configuration is read in.
#[derive(Clone, Default)]
pub struct Env {
    texts: BTreeMap<String, String>,
    /// The names of the variables that are not UTF-8 text, with U+FFFD for what is not in the name.
    others: BTreeSet<String>,
}

impl<V: IntoIterator<Item = (String, String)>> From<V> for Env {
    fn from(variables: V) -> Self {
        Env { texts: variables.into_iter().collect(), others: BTreeSet::new() }
    }
}

impl Env {
    /// Of variables as the system has them.
    pub fn of_system(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut env = Env::default();
        for (name, value) in variables {
            match (name.into_string(), value.into_string()) {
                (Ok(name), Ok(value)) => drop(env.texts.insert(name, value)),
                (Ok(name), Err(_)) => drop(env.others.insert(name)),
                (Err(name), _) => drop(env.others.insert(name.to_string_lossy().into_owned())),
            }
        }
        env
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.texts.get(name).map(String::as_str)
    }

    pub(super) fn texts(&self) -> impl Iterator<Item = (&String, &String)> {
        self.texts.iter()
    }

    pub(super) fn others(&self) -> impl Iterator<Item = &String> {
        self.others.iter()
    }
}

/// Why the variables in a text could not be replaced.
pub(super) enum Unexpanded {
    /// The variable is not set in this environment.
    Unset(Problem),
    /// The text is malformed in every environment.
    Malformed(Problem),
}

impl From<Unexpanded> for Problem {
    fn from(unexpanded: Unexpanded) -> Self {
        match unexpanded {
            Unexpanded::Unset(problem) | Unexpanded::Malformed(problem) => problem,
        }
    }
}

/// Replaces each `${VAR}` in `text` with the variable's value, and each `$${` with `${`.
pub(super) fn expand(text: &str, at: &KeyPath<'_>, env: &Env) -> Result<String, Unexpanded> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(literal) = before.strip_suffix('$') {
            expanded.push_str(literal);
            expanded.push_str("${");
            rest = after;
            continue;
        }
        let Some((name, after)) = after.split_once('}') else {
            return Err(Unexpanded::Malformed(
                at.problem("a \"${\" has no closing \"}\"; write a literal \"${\" as \"$${\""),
            ));
        };
        let Some(value) = env.get(name) else {
            let what = if env.others.contains(name) { "not UTF-8 text" } else { "not set" };
            return Err(Unexpanded::Unset(at.problem(format_args!("the environment variable {name:?} is {what}"))));
        };
        expanded.push_str(before);
        expanded.push_str(value);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// Replaces the variables in every text of `tree` but those that `is_later` selects. A text with a mistake becomes empty;
/// returns where.
pub(super) fn expand_all<'a>(
    tree: &mut Value,
    at: &KeyPath<'a>,
    env: &Env,
    is_later: &impl Fn(&KeyPath<'_>) -> bool,
    mistakes: &mut Mistakes,
) -> Vec<KeyPath<'a>> {
    let mut expand_inner = |value: &mut Value, path: &dyn Fn() -> KeyPath<'a>| match mentions_variable(value) {
        true => expand_all(value, &path(), env, is_later, mistakes),
        false => Vec::new(),
    };
    match &mut tree.kind {
        ValueKind::String(text) if !is_later(at) => match expand(text, at, env) {
            Ok(expanded) => {
                *text = expanded;
                Vec::new()
            }
            Err(unexpanded) => {
                mistakes.add(unexpanded.into());
                tree.kind = ValueKind::Nil;
                vec![at.clone()]
            }
        },
        ValueKind::Array(items) => {
            let items = items.iter_mut().enumerate();
            items.flat_map(|(index, item)| expand_inner(item, &|| at.index(index))).collect()
        }
        ValueKind::Table(table) => {
            let values = table.iter_mut();
            values.flat_map(|(key, value)| expand_inner(value, &|| at.key(key.clone()))).collect()
        }
        _ => Vec::new(),
    }
}

/// Whether a text in `value` has something to replace.
fn mentions_variable(value: &Value) -> bool {
    match &value.kind {
        ValueKind::String(text) => text.contains("${"),
        ValueKind::Array(items) => items.iter().any(mentions_variable),
        ValueKind::Table(table) => table.values().any(mentions_variable),
        _ => false,
    }
}
