//! Data descriptors: their four forms, and the search for the one that ends data of unknown length.
//!
//! This file must not know entries.

use super::format::{SIGNATURE_BYTES, signature};
use crate::archive::{
    Rejection,
    inflate::Checksum,
    input::{u32_at, u64_at},
    meter::Meter,
};

/// The search for the end of stored data of unknown length: a descriptor with the length and CRC-32 of the data before it,
/// followed by a header.
///
/// It stops only at signatures of headers and computes the CRC-32 incrementally, in linear time.
#[derive(Default)]
pub(super) struct DescriptorSearch {
    /// Of the data before `pending`.
    checksum: Checksum,
    /// Bytes that may belong to the descriptor or to the signature after it.
    pending: Vec<u8>,
}

/// Most bytes searched in one call.
const SEARCH_BYTES: usize = 64 * 1024;

impl DescriptorSearch {
    /// Takes bytes from the front of `input`. At the descriptor, takes the signature after it too, and returns the checksum
    /// of the data and that signature. Passes data to `see` once it is known to be data.
    pub(super) fn read(
        &mut self,
        input: &mut &[u8],
        meter: &mut Meter,
        mut see: impl FnMut(&[u8]),
    ) -> Result<Option<(Checksum, [u8; SIGNATURE_BYTES])>, Rejection> {
        let searched = self.pending.len();
        let (now, later) = input.split_at(input.len().min(SEARCH_BYTES));
        self.pending.extend_from_slice(now);
        // A signature that ends in the new bytes may begin before them.
        let mut from = searched.saturating_sub(SIGNATURE_BYTES - 1);
        // Bytes of `pending` that `checksum` covers.
        let mut covered = 0;
        while let Some(at) = memchr::memmem::find(&self.pending[from..], b"PK") {
            let at = from + at;
            let Some(next) = self.pending.get(at..at + SIGNATURE_BYTES) else { break };
            if is_header(u32_at(next, 0)) {
                for form in DescriptorForm::ALL {
                    let Some(end) = at.checked_sub(form.length()) else { continue };
                    let size = self.checksum.size + (end - covered) as u64;
                    if form.size(&self.pending[..at]) != size {
                        continue;
                    }
                    let settled = at.saturating_sub(DescriptorForm::LONGEST).max(covered);
                    self.checksum.update(&self.pending[covered..settled]);
                    see(&self.pending[covered..settled]);
                    covered = settled;
                    let mut checksum = self.checksum.clone();
                    checksum.update(&self.pending[covered..end]);
                    let descriptor = form.encode(checksum.crc32(), size, size);
                    if descriptor.is_some_and(|descriptor| descriptor == self.pending[end..at]) {
                        let taken = at + SIGNATURE_BYTES - searched;
                        meter.consume(taken);
                        meter.inflate(end)?;
                        see(&self.pending[covered..end]);
                        let next_signature = [next[0], next[1], next[2], next[3]];
                        *input = &input[taken..];
                        return Ok(Some((checksum, next_signature)));
                    }
                }
            }
            from = at + 2;
        }
        *input = later;
        meter.consume(now.len());
        let kept = DescriptorForm::LONGEST + SIGNATURE_BYTES - 1;
        let settled = self.pending.len().saturating_sub(kept).max(covered);
        self.checksum.update(&self.pending[covered..settled]);
        see(&self.pending[covered..settled]);
        self.pending.drain(..settled);
        meter.inflate(settled)?;
        Ok(None)
    }
}

/// One of the four forms of a data descriptor (4.3.9): the signature is optional, and the sizes are 64 bits wide if there
/// is a zip64 extra field, and often without one.
pub(super) struct DescriptorForm {
    signed: bool,
    wide: bool,
}

impl DescriptorForm {
    pub(super) const ALL: [DescriptorForm; 4] = [
        DescriptorForm { signed: true, wide: false },
        DescriptorForm { signed: true, wide: true },
        DescriptorForm { signed: false, wide: false },
        DescriptorForm { signed: false, wide: true },
    ];

    /// Length of the longest form, in bytes.
    pub(super) const LONGEST: usize = 24;

    fn length(&self) -> usize {
        (if self.signed { 4 } else { 0 }) + 4 + 2 * (if self.wide { 8 } else { 4 })
    }

    /// The size in a descriptor at the end of `bytes`.
    fn size(&self, bytes: &[u8]) -> u64 {
        if self.wide { u64_at(bytes, bytes.len() - 8) } else { u64::from(u32_at(bytes, bytes.len() - 4)) }
    }

    /// The descriptor of such data; `None` if the sizes do not fit this form.
    pub(super) fn encode(&self, crc32: u32, compressed_size: u64, size: u64) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(DescriptorForm::LONGEST);
        if self.signed {
            bytes.extend_from_slice(&signature::DATA_DESCRIPTOR.to_le_bytes());
        }
        bytes.extend_from_slice(&crc32.to_le_bytes());
        for size in [compressed_size, size] {
            if self.wide {
                bytes.extend_from_slice(&size.to_le_bytes());
            } else {
                bytes.extend_from_slice(&u32::try_from(size).ok()?.to_le_bytes());
            }
        }
        Some(bytes)
    }
}

/// Whether this signature can follow an entry.
pub(super) fn is_header(signature: u32) -> bool {
    [signature::LOCAL_HEADER, signature::CENTRAL_HEADER].contains(&signature)
}
