//! Finds and reads the files.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use super::{Mistakes, Problem};

/// Where the configuration is searched if none is named, in this order.
const DEFAULT_PATHS: [&str; 2] = ["./moesync.toml", "/etc/moesync/moesync.toml"];

/// The configuration to use: `explicit`, a file or a folder, else `./moesync.toml`, else `/etc/moesync/moesync.toml`.
///
/// An explicit one need not exist; [`load`](super::load) reports that.
///
/// # Errors
/// If none is named and neither of the two exists.
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
            "no configuration found: neither {} exists; write one with `moesync init`, or name yours with --config or \
             MOESYNC_CONFIG",
            tried.join(" nor ")
        ))
    })
}

/// The name and the text of the file at `path`, or of each `*.toml` file in the folder at `path`, in the order of names.
/// Files whose names begin with a dot are left out.
pub(super) fn read(path: &Path) -> Result<Vec<(String, String)>, Mistakes> {
    if !path.is_dir() {
        return Ok(vec![read_file(path)?]);
    }
    let shown = path.display();
    let unreadable = |error| Problem::new(format!("cannot read the folder {shown} of the configuration: {error}"));
    let entries = fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(unreadable)?;
    let is_part = |path: &PathBuf| {
        let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        path.extension() == Some(OsStr::new("toml")) && !is_hidden && !path.is_dir()
    };
    let mut paths: Vec<_> = entries.iter().map(fs::DirEntry::path).filter(is_part).collect();
    paths.sort_unstable();
    if paths.is_empty() {
        let problem =
            format!("the folder {shown} has no *.toml file; name another one with --config or MOESYNC_CONFIG");
        return Err(Problem::new(problem).into());
    }
    let mut mistakes = Mistakes::default();
    let files: Vec<_> = paths.iter().map(|path| mistakes.keep(read_file(path))).collect();
    mistakes.finish(|| files.into_iter().collect())
}

fn read_file(path: &Path) -> Result<(String, String), Problem> {
    let name = path.display().to_string();
    let bytes = fs::read(path).map_err(|error| {
        Problem::new(format!(
            "cannot read the configuration {name}: {error}; name another one with --config or MOESYNC_CONFIG"
        ))
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        Problem::new(format!("{name}:{line}: not UTF-8 text; save the file in that encoding"))
    })?;
    Ok((name, text))
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
