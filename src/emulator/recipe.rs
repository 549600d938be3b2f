//! The inputs that determine an archive's bytes, and random numbers derived from them.

use jiff::{civil::Date, tz::TimeZone};
use rand::{Rng as _, SeedableRng as _, rngs::Xoshiro256PlusPlus};
use sha2::{Digest as _, Sha256};

use super::{Container, Csv, campaigns::Campaigns};

/// Together with the seed, it determines every byte of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recipe {
    pub(super) app_id: String,
    pub(super) file_name: String,
    pub(super) date: Date,
    /// Approximate size, in bytes.
    pub(super) bytes: u64,
    pub(super) container: Container,
    pub(super) contents: ExportContents,
}

/// The contents of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExportContents {
    /// The report's name in file names; `None` is the daily dump.
    pub(super) name: Option<String>,
    /// The number of days that it covers, up to the day before its date.
    pub(super) days: u8,
    /// The zone of its times.
    pub(super) timezone: TimeZone,
    pub(super) csv: Csv,
    /// Their numbers come first; generated rows follow until the archive has its size.
    pub(super) campaigns: Campaigns,
}

/// A number that depends on the recipe alone, for faults at an arbitrary position.
pub(super) fn somewhere(recipe: &Recipe) -> u64 {
    generator(0, "somewhere", recipe).next_u64()
}

pub(super) fn digest(seed: u64, purpose: &str, recipe: &Recipe) -> [u8; 32] {
    Sha256::new()
        .chain_update(seed.to_be_bytes())
        .chain_update(format!("{purpose}|{}|{}", recipe.app_id, recipe.file_name))
        .finalize()
        .into()
}

/// A named algorithm, because the standard generator of `rand` may change between versions.
pub(super) fn generator(seed: u64, purpose: &str, recipe: &Recipe) -> Xoshiro256PlusPlus {
    Xoshiro256PlusPlus::from_seed(digest(seed, purpose, recipe))
}
