//! The JSON of `check` and `health`.

use schemars::JsonSchema;
use serde::Serialize;

/// One check and its result.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Check {
    /// The subject of the check.
    pub subject: String,
    /// Whether the check passed.
    pub ok: bool,
    /// The result as text.
    pub message: String,
}

/// The response of `/livez` and `/readyz`, and what `health` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Health {
    /// Whether all checks passed.
    pub ok: bool,
    /// The checks, in order.
    pub checks: Vec<Check>,
}

/// The result of one check of `check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckResult {
    /// It is as it should be.
    Ok,
    /// It works, or may work for the service; worth a look.
    Note,
    /// `run` refuses it, or it fails.
    Error,
}

impl CheckResult {
    /// The word that is printed.
    pub fn as_str(self) -> &'static str {
        match self {
            CheckResult::Ok => "ok",
            CheckResult::Note => "note",
            CheckResult::Error => "error",
        }
    }
}

/// One check of `check`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct CheckedSubject {
    /// The subject of the check.
    pub subject: String,
    /// The result.
    pub result: CheckResult,
    /// The result as text.
    pub message: String,
}

/// What `check` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Checked {
    /// Whether there is no error.
    pub ok: bool,
    /// The checks, in order.
    pub checks: Vec<CheckedSubject>,
}
