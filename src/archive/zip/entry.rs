//! Entries: their local and central headers, and the comparison of both with the data.
//!
//! This file must not know where an entry's data ends.

use super::format::{CENTRAL_HEADER_BYTES, LOCAL_HEADER_BYTES, same, split};
use crate::archive::{
    Rejection,
    inflate::Checksum,
    input::{u16_at, u32_at, u64_at},
    names,
};

/// General purpose flags (4.4.4).
const FLAG_ENCRYPTED: u16 = 1;
pub(super) const FLAG_DESCRIPTOR: u16 = 1 << 3;
const FLAG_PATCH: u16 = 1 << 5;
const FLAG_STRONG_ENCRYPTION: u16 = 1 << 6;
const FLAG_UTF8: u16 = 1 << 11;
const FLAG_MASKED_HEADERS: u16 = 1 << 13;

/// The flags that bear on how the data is read.
const FLAGS_OF_DATA: u16 = FLAG_ENCRYPTED | FLAG_PATCH | FLAG_STRONG_ENCRYPTION | FLAG_MASKED_HEADERS;

pub(super) const METHOD_STORED: u16 = 0;
const METHOD_DEFLATED: u16 = 8;

/// The extra field that widens sizes and offsets to 64 bits (4.5.3), the version that introduced it, and the versions
/// that stored and deflated files need without it (4.4.3).
const EXTRA_ZIP64: u16 = 1;
const VERSION_ZIP64: u16 = 45;
const VERSIONS_NARROW: [u16; 2] = [10, 20];

/// File type bits of a Unix mode, which the upper half of the external attributes holds, and those of a symbolic link.
const MODE_TYPE: u32 = 0o170_000;
const MODE_SYMLINK: u32 = 0o120_000;

/// An entry: the values of its local header, then those of its data once that is read.
#[derive(Clone)]
pub(super) struct LocalEntry {
    /// Of the local header, from the start of the archive.
    pub(super) offset: u64,
    pub(super) name: Box<[u8]>,
    pub(super) version: u16,
    pub(super) flags: u16,
    pub(super) method: u16,
    /// Date and time in MS-DOS format; only compared.
    pub(super) modified: u32,
    /// Whether the local header has a zip64 extra field.
    pub(super) zip64: bool,
    pub(super) crc32: u32,
    pub(super) compressed_size: u64,
    pub(super) size: u64,
    /// Whether the local header has the right CRC-32 and sizes.
    pub(super) is_described: bool,
    /// Whether the central directory lists it.
    pub(super) listed: bool,
    pub(super) symlink: bool,
}

impl LocalEntry {
    /// Reads a local header: `header` up to the end of the name, then the extra fields.
    pub(super) fn parse(offset: u64, header: &[u8], extra: &[u8]) -> Result<LocalEntry, Rejection> {
        let (flags, method) = (u16_at(header, 6), u16_at(header, 8));
        if flags & (FLAG_ENCRYPTED | FLAG_STRONG_ENCRYPTION | FLAG_MASKED_HEADERS) != 0 {
            return Err(Rejection::unsupported(
                "encrypted, so it cannot be verified; have the report delivered without a password",
            ));
        }
        if flags & FLAG_PATCH != 0 {
            return Err(Rejection::unsupported(
                "holds a patch, not a file; have the report delivered as an ordinary zip",
            ));
        }
        if ![METHOD_STORED, METHOD_DEFLATED].contains(&method) {
            return Err(Rejection::unsupported(format!(
                "unsupported compression method {method}; have the report delivered as an ordinary zip, deflated or stored"
            )));
        }
        let wide = zip64_extra(extra)?;
        let mut wide_fields = wide;
        let size = widen(u32_at(header, 22), &mut wide_fields)?;
        let compressed_size = widen(u32_at(header, 18), &mut wide_fields)?;
        Ok(LocalEntry {
            offset,
            name: header[LOCAL_HEADER_BYTES..].into(),
            version: u16_at(header, 4),
            flags,
            method,
            modified: u32_at(header, 10),
            zip64: wide.is_some(),
            crc32: u32_at(header, 14),
            compressed_size,
            size,
            is_described: false,
            listed: false,
            symlink: false,
        })
    }

    /// Checks the header against the data, and takes the values of the data.
    pub(super) fn with_data(self, compressed_size: u64, checksum: &Checksum) -> Result<LocalEntry, Rejection> {
        let (size, crc32) = (checksum.size, checksum.crc32());
        let is_described = (self.crc32, self.compressed_size, self.size) == (crc32, compressed_size, size);
        for (field, recorded, found) in [
            ("compressed size", self.compressed_size, compressed_size),
            ("size", self.size, size),
            ("CRC-32", u64::from(self.crc32), u64::from(crc32)),
        ] {
            // With a descriptor these should be zero (4.4.4), but some writers record them.
            if recorded != 0 || self.flags & FLAG_DESCRIPTOR == 0 {
                same(field, "its local header", recorded, found)?;
            }
        }
        Ok(LocalEntry { compressed_size, size, crc32, is_described, ..self })
    }

    pub(super) fn entry(&self) -> String {
        names::entry(&String::from_utf8_lossy(&self.name))
    }
}

/// Finds the entry of a central header, and checks that both agree: `header` up to the end of the name, then the extra
/// fields. Disagreements that do not bear on the data are passed to `note`.
pub(super) fn list(
    entries: &mut [LocalEntry],
    header: &[u8],
    extra: &[u8],
    mut note: impl FnMut(&'static str),
) -> Result<(), Rejection> {
    let wide = zip64_extra(extra)?;
    let mut wide_fields = wide;
    let size = widen(u32_at(header, 24), &mut wide_fields)?;
    let compressed_size = widen(u32_at(header, 20), &mut wide_fields)?;
    let offset = widen(u32_at(header, 42), &mut wide_fields)?;
    let disk = match (u16_at(header, 34), wide_fields) {
        (u16::MAX, Some(&[a, b, c, d, ..])) => u32::from_le_bytes([a, b, c, d]),
        (disk, _) => u32::from(disk),
    };
    if disk != 0 {
        return Err(split());
    }
    let not_there =
        || Rejection::corrupt(format!("the central directory lists it at byte {offset}, where no entry begins"));
    let index = entries.binary_search_by_key(&offset, |local| local.offset).map_err(|_| not_there())?;
    let local = &mut entries[index];
    if std::mem::replace(&mut local.listed, true) {
        return Err(Rejection::corrupt(format!("the central directory lists it at byte {offset} twice")));
    }
    if header[CENTRAL_HEADER_BYTES..] != *local.name {
        return Err(Rejection::corrupt(format!("its name in the local header is {}", local.entry())));
    }
    // The flag for UTF-8 bears only on names that are not ASCII.
    let bearing = if local.name.is_ascii() { FLAGS_OF_DATA } else { FLAGS_OF_DATA | FLAG_UTF8 };
    let flags = u16_at(header, 8);
    for (field, recorded, found) in [
        ("flags", u64::from(flags & bearing), u64::from(local.flags & bearing)),
        ("compression method", u64::from(u16_at(header, 10)), u64::from(local.method)),
        ("modification time", u64::from(u32_at(header, 12)), u64::from(local.modified)),
        ("CRC-32", u64::from(u32_at(header, 16)), u64::from(local.crc32)),
        ("compressed size", compressed_size, local.compressed_size),
        ("size", size, local.size),
    ] {
        same(field, "the central directory", recorded, found)?;
    }
    // Only the header with a zip64 extra field needs the version that introduced it. The two differ for an entry at an
    // offset beyond 4 GiB, which is recorded only in the central header.
    let versions = [(local.version, local.zip64), (u16_at(header, 6), wide.is_some())];
    let widened = match versions {
        [(VERSION_ZIP64, true), (narrow, _)] | [(narrow, _), (VERSION_ZIP64, true)] => {
            VERSIONS_NARROW.contains(&narrow)
        }
        _ => false,
    };
    if !widened && versions[0].0 != versions[1].0 {
        note("the version needed differs between the central directory and its local header");
    }
    match (flags ^ local.flags) & !bearing {
        0 => {}
        FLAG_DESCRIPTOR => note("only one of its headers announces a data descriptor"),
        _ => note("the flags differ between the central directory and its local header"),
    }
    local.symlink = (u32_at(header, 38) >> 16) & MODE_TYPE == MODE_SYMLINK;
    Ok(())
}

/// The contents of the zip64 extra field, if there is one.
pub(super) fn zip64_extra(extra: &[u8]) -> Result<Option<&[u8]>, Rejection> {
    let (mut rest, mut zip64) = (extra, None);
    while !rest.is_empty() {
        let damaged = || Rejection::corrupt("its extra fields are damaged");
        // Too short for a field: some writers pad to align the data.
        if rest.len() < 4 && rest.iter().all(|byte| *byte == 0) {
            break;
        }
        let (head, tail) = rest.split_at_checked(4).ok_or_else(damaged)?;
        let (field, after) = tail.split_at_checked(usize::from(u16_at(head, 2))).ok_or_else(damaged)?;
        if u16_at(head, 0) == EXTRA_ZIP64 && zip64.replace(field).is_some() {
            return Err(Rejection::unverifiable("ambiguous: it has two zip64 extra fields"));
        }
        rest = after;
    }
    Ok(zip64)
}

/// A size or offset, from the front of the zip64 extra field if its own field is all ones (4.5.3). Without a
/// zip64 extra field, all ones are a plain number.
pub(super) fn widen(narrow: u32, wide: &mut Option<&[u8]>) -> Result<u64, Rejection> {
    match wide {
        Some(fields) if narrow == u32::MAX => {
            let (field, rest) =
                fields.split_at_checked(8).ok_or_else(|| Rejection::corrupt("its zip64 extra field is too short"))?;
            *fields = rest;
            Ok(u64_at(field, 0))
        }
        _ => Ok(u64::from(narrow)),
    }
}
