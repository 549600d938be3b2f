//! The limits of an archive.
//!
//! This file owns the counts and the limits. It must not know the formats.

use super::{ArchiveLimits, Rejection};

/// Most entries of an archive. Above any report's, and they fit in 8 MiB without their names.
const MOST_ENTRIES: usize = 100_000;

/// Most bytes of all names in an archive.
const MOST_NAME_BYTES: usize = 16 * 1024 * 1024;

/// The ratio applies from this many inflated bytes.
const RATIO_FLOOR: u64 = 16 * 1024 * 1024;

/// Counts the bytes, entries and names of an archive, and rejects it beyond the limits.
#[derive(Clone)]
pub(super) struct Meter {
    limits: ArchiveLimits,
    consumed: u64,
    inflated: u64,
    entries: usize,
    name_bytes: usize,
}

impl Meter {
    pub(super) fn new(limits: ArchiveLimits) -> Meter {
        Meter { limits, consumed: 0, inflated: 0, entries: 0, name_bytes: 0 }
    }

    /// A new meter for an archive within this one, with the same limits.
    pub(super) fn within(&self) -> Meter {
        Meter::new(self.limits)
    }

    /// Bytes of the archive taken so far.
    pub(super) fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Counts bytes of the archive that were taken.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.consumed += bytes as u64;
    }

    /// How many of `bytes` inflated bytes are within the limit.
    pub(super) fn admitted(&self, bytes: usize) -> usize {
        let left = self.limits.inflated_bytes.saturating_sub(self.inflated);
        usize::try_from(left).map_or(bytes, |left| left.min(bytes))
    }

    /// Counts inflated bytes; call it after [`Meter::consume`] of the bytes that they came from.
    pub(super) fn inflate(&mut self, bytes: usize) -> Result<(), Rejection> {
        self.inflated += bytes as u64;
        let ArchiveLimits { inflated_bytes, inflate_ratio, .. } = self.limits;
        if self.inflated > inflated_bytes {
            return Err(Rejection::unverifiable(format!(
                "it inflates to more than limits.inflated_bytes ({inflated_bytes} bytes)"
            )));
        }
        if self.inflated > RATIO_FLOOR && self.inflated > self.consumed.saturating_mul(inflate_ratio) {
            return Err(Rejection::unverifiable(format!(
                "it inflates to more than limits.inflate_ratio ({inflate_ratio}) times its size"
            )));
        }
        Ok(())
    }

    /// Counts bytes that another thread inflates, and checks with a copy of this meter.
    pub(super) fn assume_inflated(&mut self, bytes: u64) {
        self.inflated = self.inflated.saturating_add(bytes);
    }

    /// Counts an entry before it is kept in memory.
    pub(super) fn remember(&mut self, name: &[u8]) -> Result<(), Rejection> {
        self.entries += 1;
        self.name_bytes += name.len();
        if self.entries > MOST_ENTRIES {
            return Err(Rejection::unverifiable(format!("it has more than {MOST_ENTRIES} entries")));
        }
        if self.name_bytes > MOST_NAME_BYTES {
            return Err(Rejection::unverifiable(format!("its entries' names exceed {MOST_NAME_BYTES} bytes")));
        }
        Ok(())
    }
}
