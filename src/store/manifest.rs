//! The manifest: the JSON beside each stored object that proves what it is.
//!
//! This file owns the manifest's fields and their spelling. It must not know where a manifest is kept or how it gets
//! there.

use jiff::{Timestamp, civil::Date};
use serde::{Deserialize, Serialize};

use crate::{config::SourceKind, report::PartitionId};

/// Description of a stored object, kept beside it. Fields are written in this order; one that does not apply is `null`.
///
/// Unknown fields are ignored, so that an older moesync can read the manifests of a newer one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the manifest format; [`Manifest::FORMAT_VERSION`].
    pub format_version: u32,
    /// Name of the workspace.
    pub workspace: String,
    /// The report's id.
    pub report: String,
    /// Which API the object came from.
    pub source: SourceKind,
    /// The partition's date.
    pub date: Date,
    /// Key of the object.
    pub key: String,
    /// The vendor's file name, or ours for the JSON sources.
    pub file_name: String,
    /// Format of the object.
    pub format: ObjectFormat,
    /// Size of the object in bytes.
    pub size: u64,
    /// SHA-256 of the object, 64 lower-case hex digits.
    pub sha256: String,
    /// The `Content-Type` of the response.
    pub content_type: Option<String>,
    /// Entries of an archive.
    pub entries: Option<Vec<ManifestEntry>>,
    /// Number of records (JSON sources).
    pub records: Option<u64>,
    /// Number of pages read (JSON sources).
    #[serde(default)]
    pub pages: Option<u64>,
    /// Number of requests sent (JSON sources).
    #[serde(default)]
    pub requests: Option<u64>,
    /// The days that statistics cover.
    pub window: Option<Window>,
    /// Scheduled generation time at MoEngage.
    pub generated_at: Timestamp,
    /// When it became due.
    pub due_at: Timestamp,
    /// When it was fetched; `null` if the manifest was recreated for an object found at the destination.
    pub fetched_at: Option<Timestamp>,
    /// When it expires: from then on the vendor may delete it.
    pub expires_at: Option<Timestamp>,
    /// Number of attempts.
    pub attempts: u32,
    /// Source URL: scheme, host and path, never a query.
    pub source_url: Option<String>,
    /// Oddities that did not prevent storing it.
    pub warnings: Vec<String>,
    /// Version of the moesync that stored it.
    pub moesync_version: String,
}

/// Format of a stored object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ObjectFormat {
    /// A zip archive, unchanged.
    #[serde(rename = "zip")]
    Zip,
    /// A gzip file, unchanged. If it holds a tar, the entries are those of the tar.
    #[serde(rename = "gzip")]
    Gzip,
    /// A tar archive, unchanged.
    #[serde(rename = "tar")]
    Tar,
    /// Lines of JSON, compressed by moesync.
    #[serde(rename = "ndjson.gz")]
    NdjsonGz,
}

/// One entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestEntry {
    /// Name, which must never be used as a path.
    pub name: String,
    /// Inflated size in bytes.
    pub size: u64,
    /// CRC-32 of the inflated bytes, written as 8 lower-case hex digits; `null` in tar, which records none.
    #[serde(with = "crc32_hex")]
    pub crc32: Option<u32>,
}

/// The days that statistics cover, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// First day.
    pub from: Date,
    /// Last day.
    pub to: Date,
}

impl Manifest {
    /// Format written by this version of moesync.
    pub const FORMAT_VERSION: u32 = 1;

    /// Whether this manifest describes the object at `key` as the partition `id`. One that was copied or moved by hand names
    /// another key and proves nothing, nor does one with a malformed hash.
    pub fn names(&self, id: &PartitionId, key: &str) -> bool {
        let is_hash =
            self.sha256.len() == 64 && self.sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let is_of = self.workspace == id.workspace() && self.report == id.report.name() && self.date == id.date;
        is_of && self.key == key && is_hash
    }

    /// When the object was stored, at the earliest: it was not fetched before it was due.
    pub fn stored_at(&self) -> Timestamp {
        self.fetched_at.unwrap_or(self.due_at)
    }

    /// The manifest as written to the destination: indented JSON with a final newline.
    pub(super) fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        Ok(json)
    }
}

mod crc32_hex {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub fn serialize<S: Serializer>(crc32: &Option<u32>, serializer: S) -> Result<S::Ok, S::Error> {
        crc32.map(|crc32| format!("{crc32:08x}")).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
        let Some(digits) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        let well_formed = digits.len() == 8 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let value = well_formed.then(|| u32::from_str_radix(&digits, 16).ok()).flatten();
        value.map(Some).ok_or_else(|| D::Error::custom(format!("`{digits}` is not a CRC-32 of 8 hex digits")))
    }
}
