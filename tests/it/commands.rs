//! The output and the exit code of each command.

mod backfill;
mod dates;
mod demo;
mod explain_and_plan;
mod help;
mod init;
mod logging;
mod reconcile;
mod status;
mod stored;
mod terminal;
mod undo;
mod usage;
mod verify;

use std::{fs, os::unix::fs::MetadataExt as _};

use crate::support::{Bench, files};

/// Every path below the bench's folder.
fn listing(bench: &Bench) -> Vec<(std::path::PathBuf, u64)> {
    let of = |path: std::path::PathBuf| {
        let size = fs::metadata(&path).unwrap().size();
        (path, size)
    };
    files(bench.folder.path()).into_iter().map(of).collect()
}
