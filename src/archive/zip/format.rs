//! What all structures of a zip archive share: signatures, lengths, the comparison of a field's records.
//!
//! This file must not know the order of the structures.

use crate::archive::Rejection;

/// The first four bytes of each structure.
pub(super) mod signature {
    pub(in crate::archive::zip) const LOCAL_HEADER: u32 = 0x0403_4b50;
    pub(in crate::archive::zip) const DATA_DESCRIPTOR: u32 = 0x0807_4b50;
    pub(in crate::archive::zip) const ARCHIVE_EXTRA_DATA: u32 = 0x0806_4b50;
    pub(in crate::archive::zip) const CENTRAL_HEADER: u32 = 0x0201_4b50;
    pub(in crate::archive::zip) const DIGITAL_SIGNATURE: u32 = 0x0505_4b50;
    pub(in crate::archive::zip) const ZIP64_END: u32 = 0x0606_4b50;
    pub(in crate::archive::zip) const ZIP64_LOCATOR: u32 = 0x0706_4b50;
    pub(in crate::archive::zip) const END: u32 = 0x0605_4b50;
    /// Begins the first volume of a split archive, even if it remains the only one (8.5.3); later writers then put the
    /// other marker there (8.5.4).
    pub(in crate::archive::zip) const SPLIT: u32 = DATA_DESCRIPTOR;
    pub(in crate::archive::zip) const NOT_SPLIT: u32 = 0x3030_4b50;
}

/// Lengths in bytes, without the fields of variable length.
pub(super) const SIGNATURE_BYTES: usize = 4;
pub(super) const LOCAL_HEADER_BYTES: usize = 30;
pub(super) const CENTRAL_HEADER_BYTES: usize = 46;
pub(super) const ZIP64_END_BYTES: usize = 56;
pub(super) const ZIP64_LOCATOR_BYTES: usize = 20;
pub(super) const END_BYTES: usize = 22;

/// Checks that the value `recorded` in `place` is the value `found`.
pub(super) fn same(field: &str, place: &str, recorded: u64, found: u64) -> Result<(), Rejection> {
    if recorded == found {
        return Ok(());
    }
    Err(Rejection::corrupt(if field == "CRC-32" {
        format!("its {field} is {found:08x}, in {place} {recorded:08x}")
    } else {
        format!("its {field} is {found}, in {place} {recorded}")
    }))
}

/// The archive is one file of several.
pub(super) fn split() -> Rejection {
    Rejection::unsupported("split into several files, of which this is one; have the report delivered in one file")
}
