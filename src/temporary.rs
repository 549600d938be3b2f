//! Temporary files without a name, and the folders of files.
//!
//! This file owns where a temporary file is made. It must not know what is written to it.

use std::{
    env,
    fs::File,
    io,
    path::{Path, PathBuf},
};

/// The folder of the file at `path`.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file without a name: in the folder of the `ledger`'s file, where there is room for data, or in the system's folder for
/// temporary files. Blocks.
///
/// # Errors
///
/// It cannot be made; the error names the folder.
pub fn temporary_file(ledger: Option<&Path>) -> io::Result<File> {
    let folder: PathBuf = ledger.map_or_else(env::temp_dir, |file| folder_of(file).to_owned());
    let hint = if ledger.is_none() { "; TMPDIR names another folder" } else { "" };
    let failed = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot make a temporary file in {}: {error}{hint}", folder.display()))
    };
    tempfile::tempfile_in(&folder).map_err(failed)
}
