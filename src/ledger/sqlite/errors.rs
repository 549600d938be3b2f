//! What an error of the database, or an unexpected value, means for the ledger.

use std::path::Path;

use sqlx::migrate::MigrateError;

use super::LedgerError;

/// What is wrong where `text` stands in a column that holds one of a fixed set of words: if it is a word as moesync writes
/// them, a newer version wrote it; anything else is damage.
pub(super) fn unknown(path: &Path, column: &str, text: &str) -> LedgerError {
    let is_word = (2..=40).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    match is_word {
        true => LedgerError::TooNew { path: path.to_owned(), found: format!("{column} holds the word `{text}`") },
        false => LedgerError::Damaged { path: path.to_owned(), reason: format!("{column} holds {text:?}") },
    }
}

pub(super) fn migration_error(path: &Path, error: MigrateError) -> LedgerError {
    match error {
        MigrateError::VersionMissing(version) | MigrateError::VersionTooNew(version, _) => {
            LedgerError::TooNew { path: path.to_owned(), found: format!("migration {version}") }
        }
        MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => {
            classify(path, "bring up to date", source)
        }
        other => LedgerError::File {
            message: format!("could not bring the ledger {} up to date: {other}", path.display()),
            source: None,
        },
    }
}

/// SQLITE_CORRUPT and SQLITE_NOTADB mean a damaged file. Only readers meet SQLITE_READONLY_ROLLBACK: the process that
/// created the ledger died before it had a write-ahead log. Everything else is a temporary failure.
pub(super) fn classify(path: &Path, action: &'static str, source: sqlx::Error) -> LedgerError {
    let code = source.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse::<i64>().ok());
    if code == Some(776) {
        return LedgerError::File {
            message: format!(
                "the ledger {} was left unfinished by a process that died; `moesync sync` or `moesync run` finish it",
                path.display()
            ),
            source: None,
        };
    }
    match code.map(|code| code & 0xff) {
        Some(11 | 26) => LedgerError::Damaged { path: path.to_owned(), reason: source.to_string() },
        _ => LedgerError::Database { action, path: path.to_owned(), source },
    }
}
