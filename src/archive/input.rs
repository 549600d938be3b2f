//! What the parsers share: structures that arrive in pieces, numbers, and zeros after the end.
//!
//! This file must not know the formats.

use super::{Rejection, meter::Meter};

/// Zeros after the end of an archive. Writers to pipes and tapes fill up their last block with them.
#[derive(Default)]
pub(super) struct Padding {
    bytes: u64,
}

/// How far from the end of a file seeking readers search for the end of a zip archive: the length that its comment may
/// have.
const SEARCHED_BYTES: u64 = u16::MAX as u64;

impl Padding {
    /// Takes all of `input`, which must be zeros.
    pub(super) fn read(&mut self, input: &mut &[u8], meter: &mut Meter) -> Result<(), Rejection> {
        if let Some(at) = input.iter().position(|byte| *byte != 0) {
            let at = meter.consumed() + at as u64;
            return Err(Rejection::unverifiable(format!("other data follows its end, at byte {at}")));
        }
        self.bytes += input.len() as u64;
        meter.consume(input.len());
        *input = &[];
        Ok(())
    }

    /// The warning about them, if there are any.
    pub(super) fn warning(&self) -> Option<String> {
        let bytes = self.bytes;
        match bytes {
            0 => None,
            1..=SEARCHED_BYTES => Some(format!("{bytes} zeros follow its end")),
            _ => Some(format!("{bytes} zeros follow its end: too many for programs that search for it from the end")),
        }
    }
}

/// `wanted`, or what there is.
pub(super) fn at_most(wanted: u64, available: usize) -> usize {
    usize::try_from(wanted).map_or(available, |wanted| wanted.min(available))
}

/// Moves bytes from the front of `input` until `gathered` has `wanted`; returns whether it has.
pub(super) fn gather(gathered: &mut Vec<u8>, wanted: usize, input: &mut &[u8], meter: &mut Meter) -> bool {
    let missing = wanted.saturating_sub(gathered.len());
    let (now, later) = input.split_at(missing.min(input.len()));
    gathered.extend_from_slice(now);
    meter.consume(now.len());
    *input = later;
    gathered.len() >= wanted
}

/// The little-endian number at `at`.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// The little-endian number at `at`.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

/// The little-endian number at `at`.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
