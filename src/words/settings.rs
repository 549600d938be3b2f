//! The JSON of `config show` and `sign`.

use schemars::JsonSchema;
use serde::Serialize;

/// What `config show` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Settings {
    /// The settings in force, by key. Keys without a value are left out.
    pub settings: Vec<SettingInForce>,
}

/// A setting in force.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SettingInForce {
    /// The key, such as `limits.concurrency` or `reports[0].buffer`.
    pub key: String,
    /// The value. Secrets are replaced by `[redacted]`.
    pub value: serde_json::Value,
    /// Where the value comes from.
    pub from: SettingOrigin,
    /// The file, if it comes from one.
    pub file: Option<String>,
    /// The line in the file.
    pub line: Option<usize>,
    /// The environment variable, if it comes from one.
    pub variable: Option<String>,
}

/// Where the value of a setting comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SettingOrigin {
    /// A file.
    File,
    /// An environment variable `MOESYNC__TABLE__KEY`.
    Environment,
    /// The key is not given.
    Default,
}

/// What `sign` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Signed {
    /// The signature, lower-case hex. It allows to download this one file.
    pub signature: String,
    /// A shell command that downloads the file.
    pub curl: String,
}
