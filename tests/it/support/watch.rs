//! What a process forces to disk and names there: a library that is loaded before libc, and the calls that it logs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use tempfile::TempDir;

/// The library, compiled once. Its head describes the environment variables that it reads.
pub fn library() -> PathBuf {
    static BUILT: OnceLock<TempDir> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/watch.c");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .arg(folder.path().join("watch.so"))
            .arg(source)
            .arg("-ldl")
            .output()
            .expect("the tests need `cc`, which Rust links with as well");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        folder
    });
    folder.path().join("watch.so")
}

/// A call that makes a change on disk permanent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub name: String,
    pub failed: bool,
    /// Relative to the bench's folder.
    pub path: String,
    /// The new name, of a link or rename.
    pub to: Option<String>,
}

/// The calls in `log`, in order. Paths below `folder` are relative to it.
pub fn calls(log: &Path, folder: &Path) -> Vec<Call> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let folder = fs::canonicalize(folder).unwrap();
    let relative = |path: &str| {
        let path = Path::new(path);
        path.strip_prefix(&folder).unwrap_or(path).to_str().unwrap().to_owned()
    };
    let calls = text.lines().map(|line| {
        let mut words = line.splitn(3, ' ');
        let (name, how, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        let (path, to) = rest.split_once(" -> ").map_or((rest, None), |(path, to)| (path, Some(to)));
        Call { name: name.to_owned(), failed: how == "failed", path: relative(path), to: to.map(relative) }
    });
    calls.collect()
}
