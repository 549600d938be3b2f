//! The JSON of `verify`.

use schemars::JsonSchema;
use serde::Serialize;

use super::status::PartitionStatus;

/// What is wrong with a stored object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DamageCode {
    /// There is no object.
    Missing,
    /// Its bytes are not those that were stored.
    Altered,
    /// Its manifest is missing or does not describe it.
    Manifest,
    /// It could not be read.
    Unreadable,
    /// It is whole, but an object of its tables, or the manifest of one, is not.
    Tables,
}

/// A stored partition and the result of reading it again.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct VerifiedPartition {
    /// The partition after the command.
    #[serde(flatten)]
    pub status: PartitionStatus,
    /// The kind of damage; null without damage.
    pub damage_code: Option<DamageCode>,
    /// The damage of its object, of its tables, or of their manifests as text; null without damage.
    pub damage: Option<String>,
    /// Whether it was repaired.
    pub repaired: bool,
}

/// What `verify` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Verification {
    /// Every stored partition that was read.
    pub partitions: Vec<VerifiedPartition>,
}
