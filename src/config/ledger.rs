//! The `[ledger]` table.

use std::{fmt, path::PathBuf};

use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{
    Mistakes, Problem,
    document::KeyPath,
    values::{DAY, Duration, YEAR},
};

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct Raw {
    /// The database: `sqlite://PATH` or `postgres://USER:PASSWORD@HOST/DATABASE`. A change needs a restart.
    url: String,
    /// How long attempts are kept. Partitions and the counts behind metrics are kept forever.
    keep_attempts: Duration,
}

impl Default for Raw {
    fn default() -> Self {
        Raw { url: "sqlite://./moesync.db".to_owned(), keep_attempts: Duration::new("400d") }
    }
}

/// Which database holds the ledger.
#[derive(Clone, PartialEq, Eq)]
pub enum Ledger {
    /// A SQLite file, given as `sqlite://PATH`.
    Sqlite(PathBuf),
    /// A PostgreSQL database, given as `postgres://…`. The URL may contain a password.
    Postgres(String),
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ledger::Sqlite(path) => f.debug_tuple("Sqlite").field(path).finish(),
            // The password may be in any part of the URL.
            Ledger::Postgres(_) => f.debug_tuple("Postgres").finish_non_exhaustive(),
        }
    }
}

impl Raw {
    /// The database, and how long attempts are kept.
    pub(super) fn check(&self, at: &KeyPath<'_>) -> Result<(Ledger, SignedDuration), Mistakes> {
        let mut mistakes = Mistakes::default();
        let database = mistakes.keep(database(&self.url, &at.key("url")));
        let keep_attempts = mistakes.keep(self.keep_attempts.check(DAY..=100 * YEAR, &at.key("keep_attempts")));
        mistakes.finish(|| Some((database?, keep_attempts?)))
    }
}

/// No message shows the URL: it may contain a password.
fn database(url: &str, at: &KeyPath<'_>) -> Result<Ledger, Problem> {
    if let Some(path) = url.strip_prefix("sqlite://") {
        if path.is_empty() || path.starts_with(":memory:") || path.contains('?') {
            return Err(at.problem("expected the path of a file after sqlite://, and nothing else"));
        }
        return Ok(Ledger::Sqlite(path.into()));
    }
    match Url::parse(url) {
        Ok(parsed) if matches!(parsed.scheme(), "postgres" | "postgresql") => Ok(Ledger::Postgres(url.to_owned())),
        _ => Err(at.problem("expected sqlite://PATH or postgres://USER:PASSWORD@HOST/DATABASE")),
    }
}
