//! Finds and reads the file, and adds the environment.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use config::{Environment, File, FileFormat, Value};

use super::{
    Config, Mistakes, Problem,
    document::{Document, ENV_PREFIX, did_you_mean},
    files::Env,
    form, tables,
    zones::Zones,
};

/// Where the configuration is searched if no file is named, in this order.
const DEFAULT_PATHS: [&str; 2] = ["./moesync.toml", "/etc/moesync/moesync.toml"];

/// The configuration file to use: `explicit`, else `./moesync.toml`, else `/etc/moesync/moesync.toml`.
///
/// An explicit file need not exist; [`load`] reports that.
///
/// # Errors
/// If no file is named and neither of the two exists.
pub fn locate(explicit: Option<&Path>) -> Result<PathBuf, Problem> {
    match explicit {
        Some(path) => Ok(path.to_owned()),
        None => first_existing(&DEFAULT_PATHS.map(PathBuf::from)),
    }
}

fn first_existing(candidates: &[PathBuf]) -> Result<PathBuf, Problem> {
    // A file that cannot be accessed counts as existing: the error of reading it names the cause.
    candidates.iter().find(|path| path.try_exists().unwrap_or(true)).cloned().ok_or_else(|| {
        let tried: Vec<_> = candidates.iter().map(|path| path.display().to_string()).collect();
        Problem::new(format!(
            "no configuration found: neither {} exists; write one, or name yours with --config FILE",
            tried.join(" nor ")
        ))
    })
}

/// Reads the file at `path`, overrides its tables with the variables of `env` named `MOESYNC__TABLE__KEY`, and checks
/// everything that can be checked without network and disk. No secret is read.
///
/// `env` also gives the values of `${VAR}` in file paths.
///
/// # Errors
/// All mistakes, each with its key and line. In text that is not TOML, only the first. A table with an unknown, missing or
/// mistyped key is not checked further.
pub fn load(path: &Path, env: impl IntoIterator<Item = (String, String)>) -> Result<Config, Mistakes> {
    let env: Env = env.into_iter().collect();
    let file = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|error| {
        Problem::new(format!("cannot read the configuration {file}: {error}; name another file with --config FILE"))
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        Problem::new(format!("{file}:{line}: not UTF-8 text; save the file in that encoding"))
    })?;
    let mut mistakes = Mistakes::default();
    let overrides = overrides(&env, &mut mistakes);
    let names = overrides.keys().map(|name| name.to_uppercase()).collect();
    let document = mistakes.keep(Document::parse(&file, &text, names));
    let merged = document.as_ref().and_then(|document| mistakes.keep(merge(document, overrides)));
    let (Some(document), Some(merged)) = (&document, merged) else { return mistakes.finish(|| None) };
    let root = document.root();
    let form = form::read::<tables::Raw>(merged, &root, mistakes);
    let zones = Zones::find(env.get("TZDIR").map(String::as_str));
    tables::check(form, &root, &env, &zones)
}

/// The variables in `env` that override a setting. Those that name no setting are mistakes.
fn overrides(env: &Env, mistakes: &mut Mistakes) -> Env {
    let known = tables::overridable();
    let settings: Vec<_> = known.iter().filter_map(|name| name.strip_prefix(ENV_PREFIX)).collect();
    let mut overrides = Env::new();
    for (name, value) in env {
        let upper = name.to_uppercase();
        let Some(setting) = upper.strip_prefix(ENV_PREFIX) else { continue };
        if settings.contains(&setting) {
            overrides.insert(name.clone(), value.clone());
            continue;
        }
        let lists = ["WORKSPACES", "DESTINATIONS", "REPORTS", "NOTIFY"];
        let reason = match lists.iter().any(|list| setting.starts_with(list)) {
            true => "workspaces, destinations, reports and notify targets are set in the file alone".to_owned(),
            false => {
                let nearest = did_you_mean(setting, settings.iter().copied());
                format!("unknown setting{}", nearest.replacen('"', &format!("\"{ENV_PREFIX}"), 1))
            }
        };
        mistakes.add(Problem::new(format!("environment variable {upper}: {reason}")));
    }
    overrides
}

/// The file's tree with the values of `overrides` in it.
fn merge(document: &Document<'_>, overrides: BTreeMap<String, String>) -> Result<Value, Mistakes> {
    let root = document.root();
    // The library reads a top-level name such as "a.b" as a path. No table has such a name.
    let paths = document.table.keys().filter(|key| key.get_ref().contains(['.', '[', ']']));
    let mut mistakes = Mistakes::default();
    paths.for_each(|key| mistakes.add(root.key(key.get_ref()).problem("unknown key")));
    mistakes.finish(|| Some(()))?;
    let environment = Environment::with_prefix(ENV_PREFIX.trim_end_matches('_'))
        .separator("__")
        .source(Some(overrides.into_iter().collect()));
    let merged = config::Config::builder()
        .add_source(File::from_str(document.text, FileFormat::Toml))
        .add_source(environment)
        .build();
    // The library's own message may contain a value.
    merged.map(|merged| merged.cache).map_err(|_| root.problem("the file and the environment cannot be merged").into())
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
