//! The JSON of `ls` and `get`.

use jiff::{Timestamp, civil::Date};
use schemars::JsonSchema;
use serde::Serialize;

use crate::config::SourceKind;

/// A stored object, as its manifest describes it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct StoredObject {
    /// Name of the workspace.
    pub workspace: String,
    /// Id of the report.
    pub report: String,
    /// The API that served it.
    pub source: SourceKind,
    /// The partition's date.
    #[schemars(with = "String", extend("format" = "date"))]
    pub date: Date,
    /// Key of the object at its destination.
    pub key: String,
    /// Whether it is other content than that of the partition's own key.
    pub version: bool,
    /// `zip`, `gzip`, `tar` or `ndjson.gz`.
    pub format: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256, lower-case hex.
    pub sha256: String,
    /// When it was stored.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub stored_at: Timestamp,
    /// Entries of the archive, in order.
    pub entries: Vec<StoredEntry>,
    /// Number of records of a snapshot; null for archives.
    pub records: Option<u64>,
    /// The damage that its size shows; null without one. `moesync verify` reads the bytes.
    pub damage: Option<String>,
}

/// One entry of a stored archive.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct StoredEntry {
    /// Name in the archive; empty for a gzip member without a name. Not safe as a path.
    pub name: String,
    /// Size of its contents in bytes.
    pub size: u64,
    /// CRC-32 of its contents, 8 lower-case hex digits; null in tar, which has none.
    pub crc32: Option<String>,
}

/// What `ls` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct StoredObjects {
    /// The objects, by report in the configuration's order, then by date.
    pub objects: Vec<StoredObject>,
}

/// What `get` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct CopiedObject {
    /// Key of the object.
    pub key: String,
    /// Name of the entry; null if all of the object was copied.
    pub entry: Option<String>,
    /// The file that was written.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
}
