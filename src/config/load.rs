//! Reads the configuration and adds the environment.

use std::{collections::BTreeMap, path::Path};

use config::{ConfigError, Environment, Map, Source, Value, ValueKind};

use super::{
    Config, Mistakes, Problem,
    document::{Document, ENV_PREFIX, KeyPath, ParsedFile, Segment, did_you_mean},
    form,
    read::read,
    tables::{self, Keys},
    variables::{Env, expand_all},
    zones::Zones,
};

/// Reads the file at `path`, or the `*.toml` files of the folder at `path` in the order of their names, replaces `${VAR}`
/// in all texts with the variables in `env`, overrides the tables with those named `MOESYNC__TABLE__KEY`, and checks
/// everything that can be checked without network and disk. No secret is read.
///
/// In a folder the lists of workspaces, destinations, reports and notify targets add up; any other key may be in one file
/// alone.
///
/// # Errors
/// All mistakes, each with its key, file and line. In a file that is not TOML, only the first. In a table with an unknown,
/// missing or mistyped key, keys are not checked that could be wrong because of it.
pub fn load(path: &Path, env: impl Into<Env>) -> Result<Config, Mistakes> {
    let env = env.into();
    with_tree(path, &env, |tree, root, mistakes, broken| check(tree, root, mistakes, broken, &env))?
}

/// As [`load`], of one text without overrides. `name` stands for the file in messages.
///
/// # Errors
/// As of [`load`].
pub fn load_text(name: &str, text: &str, env: impl Into<Env>) -> Result<Config, Mistakes> {
    let env = env.into();
    let files = vec![(name.to_owned(), text.to_owned())];
    with_files(name, &files, &env, |tree, root, mistakes, broken| check(tree, root, mistakes, broken, &env))?
}

/// Checks the tree of the files and the environment. It has these mistakes already, and is empty where it is `broken`.
pub(super) fn check<'a>(
    tree: Value,
    root: &KeyPath<'a>,
    mistakes: Mistakes,
    broken: Vec<KeyPath<'a>>,
    env: &Env,
) -> Result<Config, Mistakes> {
    let zones = Zones::find(env.get("TZDIR"));
    tables::check(form::read(tree, root, mistakes, broken), root, env, &zones)
}

/// Applies `act` to the tree of the files and the environment, the root of its keys, its mistakes, and where it is empty
/// because of them.
pub(super) fn with_tree<T>(
    path: &Path,
    env: &Env,
    act: impl for<'a> FnOnce(Value, &KeyPath<'a>, Mistakes, Vec<KeyPath<'a>>) -> T,
) -> Result<T, Mistakes> {
    with_files(&path.display().to_string(), &read(path)?, env, act)
}

/// The same, of files that are read already: names and texts. `name` is that of the file or folder.
fn with_files<T>(
    name: &str,
    files: &[(String, String)],
    env: &Env,
    act: impl for<'a> FnOnce(Value, &KeyPath<'a>, Mistakes, Vec<KeyPath<'a>>) -> T,
) -> Result<T, Mistakes> {
    let keys = tables::keys();
    let mut mistakes = Mistakes::default();
    let overrides = overrides(env, &keys, &mut mistakes);
    let names = overrides.keys().map(|name| name.to_uppercase()).collect();
    let parsed: Vec<_> =
        files.iter().map(|(name, text)| mistakes.keep(ParsedFile::parse(name, text).map_err(Mistakes::from))).collect();
    let Some(parsed) = parsed.into_iter().collect() else { return mistakes.finish(|| None) };
    let (document, values) = Document::new(name, parsed, names);
    document.repeated().into_iter().for_each(|repeated| mistakes.add(repeated));
    let root = document.root();
    let Some(mut tree) = mistakes.keep(merge(&root, values, overrides)) else { return mistakes.finish(|| None) };
    let is_later = |at: &KeyPath<'_>| is_part_of_secret(at, &keys);
    let broken = expand_all(&mut tree, &root, env, &is_later, &mut mistakes);
    Ok(act(tree, &root, mistakes, broken))
}

/// Whether `at` says where a secret is, or is one. Commands that need no secret work without the variables in it.
fn is_part_of_secret(at: &KeyPath<'_>, keys: &Keys) -> bool {
    let [Segment::Key(list), Segment::Index(_), Segment::Key(key), ..] = at.segments() else { return false };
    let stem = ["_file", "_command"].iter().find_map(|end| key.strip_suffix(end)).unwrap_or(key);
    keys.secrets.iter().any(|(table, secret)| table == list && secret == stem)
}

/// The variables in `env` that override a setting. Those that name no setting, or are not text, are mistakes.
fn overrides(env: &Env, keys: &Keys, mistakes: &mut Mistakes) -> BTreeMap<String, String> {
    let settings: Vec<_> = keys.overridable.iter().filter_map(|name| name.strip_prefix(ENV_PREFIX)).collect();
    let names = env.others().map(|name| name.to_uppercase());
    for name in names.filter(|name| name.starts_with(ENV_PREFIX)) {
        mistakes.add(Problem::new(format!("environment variable {name}: not UTF-8 text")));
    }
    let mut overrides = BTreeMap::new();
    for (name, value) in env.texts() {
        let upper = name.to_uppercase();
        let Some(setting) = upper.strip_prefix(ENV_PREFIX) else { continue };
        if settings.contains(&setting) {
            overrides.insert(name.clone(), value.clone());
            continue;
        }
        let lists = ["WORKSPACES", "DESTINATIONS", "REPORTS", "NOTIFY"];
        let reason = match lists.iter().any(|list| setting.starts_with(list)) {
            true => {
                "workspaces, destinations, reports and notify targets are set in the file alone; there, ${VAR} stands \
                     for a variable"
                    .to_owned()
            }
            false => {
                let nearest = did_you_mean(setting, settings.iter().copied());
                format!("unknown setting{}", nearest.replacen('"', &format!("\"{ENV_PREFIX}"), 1))
            }
        };
        mistakes.add(Problem::new(format!("environment variable {upper}: {reason}")));
    }
    overrides
}

/// The values of the files with those of `overrides` in them.
fn merge(
    root: &KeyPath<'_>,
    values: Map<String, Value>,
    overrides: BTreeMap<String, String>,
) -> Result<Value, Mistakes> {
    // The library reads a top-level name such as "a.b" as a path. No table has such a name.
    let mut mistakes = Mistakes::default();
    let paths = values.keys().filter(|key| key.contains(['.', '[', ']']));
    paths.for_each(|key| mistakes.add(root.key(key.clone()).problem("unknown key")));
    mistakes.finish(|| Some(()))?;
    let environment = Environment::with_prefix(ENV_PREFIX.trim_end_matches('_'))
        .separator("__")
        .source(Some(overrides.into_iter().collect()));
    // No variable overrides a list at the root, and the library copies all that it merges.
    let (lists, tables) = values.into_iter().partition(|(_, value)| matches!(value.kind, ValueKind::Array(_)));
    let merged = config::Config::builder().add_source(Tree(tables)).add_source(environment).build();
    // The library's own message may contain a value.
    let mut tree = merged.map_err(|_| root.problem("the file and the environment cannot be merged"))?.cache;
    if let ValueKind::Table(tables) = &mut tree.kind {
        tables.extend::<Map<_, _>>(lists);
    }
    Ok(tree)
}

/// What the library merges of the files, as a layer.
#[derive(Debug, Clone)]
struct Tree(Map<String, Value>);

impl Source for Tree {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}
