//! What the bytes of an archive follow from, and the random numbers that follow from it.

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
    /// About how large, in bytes.
    pub(super) bytes: u64,
    pub(super) container: Container,
    pub(super) contents: Contents,
}

/// The contents of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contents {
    /// The report's name in file names; `None` is the daily dump.
    pub(super) name: Option<String>,
    /// How many days it covers, up to the one before its date.
    pub(super) days: u8,
    /// The zone of its times.
    pub(super) timezone: TimeZone,
    pub(super) csv: Csv,
    /// Their numbers come first; made-up rows follow until the archive has its size.
    pub(super) campaigns: Campaigns,
}

/// A number that depends on the recipe alone, for faults that strike somewhere.
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

/// An algorithm by name, because the standard generator of `rand` may change with its version.
pub(super) fn generator(seed: u64, purpose: &str, recipe: &Recipe) -> Xoshiro256PlusPlus {
    Xoshiro256PlusPlus::from_seed(digest(seed, purpose, recipe))
}
