//! What an error of SQLite means for the ledger.

use std::path::Path;

use sqlx::migrate::MigrateError;

use super::LedgerError;

pub(super) fn migration_error(path: &Path, error: MigrateError) -> LedgerError {
    match error {
        MigrateError::VersionMissing(version) | MigrateError::VersionTooNew(version, _) => {
            LedgerError::TooNew { ledger: path.display().to_string(), found: format!("migration {version}") }
        }
        MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => {
            classify(path, "bring up to date", source)
        }
        other => LedgerError::unavailable(format!("could not bring the ledger {} up to date", path.display()), other),
    }
}

/// SQLITE_CORRUPT and SQLITE_NOTADB mean a damaged file. Only readers meet SQLITE_READONLY_ROLLBACK: the process that
/// created the ledger died before it had a write-ahead log. Everything else is a temporary failure.
pub(super) fn classify(path: &Path, action: &'static str, source: sqlx::Error) -> LedgerError {
    let code = source.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse::<i64>().ok());
    if code == Some(776) {
        return LedgerError::Unavailable {
            message: format!(
                "the ledger {} was left unfinished by a process that died; `moesync sync` or `moesync run` finish it",
                path.display()
            ),
            source: None,
        };
    }
    match code.map(|code| code & 0xff) {
        Some(11 | 26) => damaged(path, source.to_string()),
        _ => LedgerError::database(action, &path.display().to_string(), source),
    }
}

pub(super) fn damaged(path: &Path, reason: String) -> LedgerError {
    LedgerError::Damaged { ledger: path.display().to_string(), reason }
}
