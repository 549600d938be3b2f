//! The central directory of a verified zip archive, read by seeking.
//!
//! This file must not be used on an archive that is not verified: it trusts that headers and data agree.

use std::{fs::File, io, os::unix::fs::FileExt};

use super::{
    entry::{METHOD_STORED, widen, zip64_extra},
    format::{CENTRAL_HEADER_BYTES, END_BYTES, LOCAL_HEADER_BYTES, ZIP64_END_BYTES, ZIP64_LOCATOR_BYTES, signature},
};
use crate::archive::{
    Rejection,
    input::{u16_at, u32_at, u64_at},
};

/// Most bytes from the end record to the end of the file, without zeros that fill it up: the record and its comment.
const SEARCHED_BYTES: u64 = END_BYTES as u64 + u16::MAX as u64;

/// Bytes read at a time where zeros fill up the file.
const BLOCK_BYTES: u64 = 64 * 1024;

/// Where the data of an entry is.
pub(in crate::archive) struct Located {
    pub(in crate::archive) name: String,
    /// Of the local header.
    offset: u64,
    compressed_size: u64,
    pub(in crate::archive) is_deflated: bool,
}

impl Located {
    /// From where to where its data is in the file.
    pub(in crate::archive) fn data(&self, file: &File) -> io::Result<(u64, u64)> {
        let header = read(file, self.offset, LOCAL_HEADER_BYTES)?;
        if u32_at(&header, 0) != signature::LOCAL_HEADER {
            return Err(unreadable("an entry is not where the central directory lists it"));
        }
        let variable = u64::from(u16_at(&header, 26)) + u64::from(u16_at(&header, 28));
        let start = self.offset + LOCAL_HEADER_BYTES as u64 + variable;
        Ok((start, start + self.compressed_size))
    }
}

/// The entries of the archive in `file`, in the order of their data.
pub(in crate::archive) fn locate(file: &File) -> io::Result<Vec<Located>> {
    let end = without_zeros(file)?;
    let from = end.saturating_sub(SEARCHED_BYTES);
    // The record may end in zeros.
    let to = file.metadata()?.len().min(end + END_BYTES as u64);
    let tail = read(file, from, usize::try_from(to - from).map_err(io::Error::other)?)?;
    // A comment may have the signature too: the record is the one that a whole directory ends before.
    let candidates = (0..=tail.len().saturating_sub(END_BYTES)).rev();
    for at in candidates.filter(|at| tail.len() >= END_BYTES && u32_at(&tail, *at) == signature::END) {
        if let Ok(mut entries) = entries_before(file, from + at as u64, &tail[at..]) {
            entries.sort_by_key(|entry| entry.offset);
            return Ok(entries);
        }
    }
    Err(unreadable("it has no central directory"))
}

/// The entries of the directory whose end record is at `at`.
fn entries_before(file: &File, at: u64, end: &[u8]) -> io::Result<Vec<Located>> {
    let (mut count, mut size, mut offset) =
        (u64::from(u16_at(end, 10)), u64::from(u32_at(end, 12)), u64::from(u32_at(end, 16)));
    let mut limit = at;
    if let Some(locator) = at.checked_sub(ZIP64_LOCATOR_BYTES as u64) {
        let locator = read(file, locator, ZIP64_LOCATOR_BYTES)?;
        if u32_at(&locator, 0) == signature::ZIP64_LOCATOR {
            let wide = read(file, u64_at(&locator, 8), ZIP64_END_BYTES)?;
            limit = u64_at(&locator, 8);
            if u32_at(&wide, 0) == signature::ZIP64_END {
                (count, size, offset) = (u64_at(&wide, 32), u64_at(&wide, 40), u64_at(&wide, 48));
            }
        }
    }
    // A digital signature may be part of the directory, but nothing is between the directory and its end record.
    if offset.checked_add(size) != Some(limit) {
        return Err(unreadable("its central directory is not before its end record"));
    }
    let directory = read(file, offset, usize::try_from(size).map_err(io::Error::other)?)?;
    let mut entries = Vec::new();
    let mut rest = directory.as_slice();
    for _ in 0..count {
        let damaged = || unreadable("its central directory is damaged");
        if rest.len() < CENTRAL_HEADER_BYTES || u32_at(rest, 0) != signature::CENTRAL_HEADER {
            return Err(damaged());
        }
        let lengths = [u16_at(rest, 28), u16_at(rest, 30), u16_at(rest, 32)].map(usize::from);
        let whole = CENTRAL_HEADER_BYTES + lengths.iter().sum::<usize>();
        let (header, after) = rest.split_at_checked(whole).ok_or_else(damaged)?;
        let (name, extra) = header[CENTRAL_HEADER_BYTES..].split_at(lengths[0]);
        let mut wide = zip64_extra(&extra[..lengths[1]]).map_err(rejected)?;
        // The inflated size comes first.
        widen(u32_at(header, 24), &mut wide).map_err(rejected)?;
        let compressed_size = widen(u32_at(header, 20), &mut wide).map_err(rejected)?;
        let offset = widen(u32_at(header, 42), &mut wide).map_err(rejected)?;
        let is_deflated = u16_at(header, 10) != METHOD_STORED;
        let name = String::from_utf8_lossy(name).into_owned();
        entries.push(Located { name, offset, compressed_size, is_deflated });
        rest = after;
    }
    Ok(entries)
}

/// Where the last byte is that is not zero, and one more.
fn without_zeros(file: &File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    while end > 0 {
        let from = end.saturating_sub(BLOCK_BYTES);
        let block = read(file, from, usize::try_from(end - from).map_err(io::Error::other)?)?;
        if let Some(last) = block.iter().rposition(|byte| *byte != 0) {
            return Ok(from + last as u64 + 1);
        }
        end = from;
    }
    Ok(0)
}

fn read(file: &File, at: u64, bytes: usize) -> io::Result<Vec<u8>> {
    // Lengths are from the file: what it does not have is not allocated.
    let left = usize::try_from(file.metadata()?.len().saturating_sub(at)).unwrap_or(usize::MAX);
    if bytes > left {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut read = vec![0; bytes];
    file.read_exact_at(&mut read, at)?;
    Ok(read)
}

fn rejected(rejection: Rejection) -> io::Error {
    unreadable(&rejection.message)
}

fn unreadable(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the zip archive cannot be read: {reason}"))
}
