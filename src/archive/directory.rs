//! The central directory of a verified zip archive, read by seeking.
//!
//! This file must not be used on an archive that is not verified: it trusts that headers and data agree.

use std::{fs::File, io, os::unix::fs::FileExt};

use super::input::{u16_at, u32_at, u64_at};

/// The first four bytes of each structure (APPNOTE.TXT 4.3).
const LOCAL_HEADER: u32 = 0x0403_4b50;
const CENTRAL_HEADER: u32 = 0x0201_4b50;
const ZIP64_END: u32 = 0x0606_4b50;
const ZIP64_LOCATOR: u32 = 0x0706_4b50;
const END: u32 = 0x0605_4b50;

/// Lengths in bytes, without the fields of variable length.
const LOCAL_HEADER_BYTES: usize = 30;
const CENTRAL_HEADER_BYTES: usize = 46;
const ZIP64_END_BYTES: usize = 56;
const ZIP64_LOCATOR_BYTES: usize = 20;
const END_BYTES: usize = 22;

const METHOD_STORED: u16 = 0;

/// The extra field that widens sizes and offsets to 64 bits (4.5.3).
const EXTRA_ZIP64: u16 = 1;

/// Most bytes from the end record to the end of the file, without zeros that fill it up: the record and its comment.
const SEARCHED_BYTES: u64 = END_BYTES as u64 + u16::MAX as u64;

/// Bytes read at a time where zeros fill up the file.
const BLOCK_BYTES: u64 = 64 * 1024;

/// Where the data of an entry is.
pub(super) struct Located {
    pub(super) name: String,
    /// Of the local header.
    offset: u64,
    compressed_size: u64,
    pub(super) is_deflated: bool,
}

impl Located {
    /// From where to where its data is in the file.
    pub(super) fn data(&self, file: &File) -> io::Result<(u64, u64)> {
        let header = read(file, self.offset, LOCAL_HEADER_BYTES)?;
        if u32_at(&header, 0) != LOCAL_HEADER {
            return Err(unreadable("an entry is not where the central directory lists it"));
        }
        let variable = u64::from(u16_at(&header, 26)) + u64::from(u16_at(&header, 28));
        let start = self.offset + LOCAL_HEADER_BYTES as u64 + variable;
        Ok((start, start + self.compressed_size))
    }
}

/// The entries of the archive in `file`, in the order of their data.
pub(super) fn locate(file: &File) -> io::Result<Vec<Located>> {
    let end = without_zeros(file)?;
    let from = end.saturating_sub(SEARCHED_BYTES);
    // The record may end in zeros.
    let to = file.metadata()?.len().min(end + END_BYTES as u64);
    let tail = read(file, from, usize::try_from(to - from).map_err(io::Error::other)?)?;
    // A comment may have the signature too: the record is the one that a whole directory ends before.
    let candidates = (0..=tail.len().saturating_sub(END_BYTES)).rev();
    for at in candidates.filter(|at| tail.len() >= END_BYTES && u32_at(&tail, *at) == END) {
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
        if u32_at(&locator, 0) == ZIP64_LOCATOR {
            let wide = read(file, u64_at(&locator, 8), ZIP64_END_BYTES)?;
            limit = u64_at(&locator, 8);
            if u32_at(&wide, 0) == ZIP64_END {
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
        if rest.len() < CENTRAL_HEADER_BYTES || u32_at(rest, 0) != CENTRAL_HEADER {
            return Err(damaged());
        }
        let lengths = [u16_at(rest, 28), u16_at(rest, 30), u16_at(rest, 32)].map(usize::from);
        let whole = CENTRAL_HEADER_BYTES + lengths.iter().sum::<usize>();
        let (header, after) = rest.split_at_checked(whole).ok_or_else(damaged)?;
        let (name, extra) = header[CENTRAL_HEADER_BYTES..].split_at(lengths[0]);
        let mut wide = zip64_extra(&extra[..lengths[1]]);
        // The inflated size comes first.
        widen(u32_at(header, 24), &mut wide);
        let compressed_size = widen(u32_at(header, 20), &mut wide);
        let offset = widen(u32_at(header, 42), &mut wide);
        let is_deflated = u16_at(header, 10) != METHOD_STORED;
        let name = String::from_utf8_lossy(name).into_owned();
        entries.push(Located { name, offset, compressed_size, is_deflated });
        rest = after;
    }
    Ok(entries)
}

/// The contents of the zip64 extra field; empty if there is none.
fn zip64_extra(mut extra: &[u8]) -> &[u8] {
    while let Some((head, tail)) = extra.split_at_checked(4)
        && let Some((field, after)) = tail.split_at_checked(usize::from(u16_at(head, 2)))
    {
        if u16_at(head, 0) == EXTRA_ZIP64 {
            return field;
        }
        extra = after;
    }
    &[]
}

/// A size or offset, from the front of the zip64 extra field if its own field is all ones. Without a zip64 extra field,
/// all ones are a plain number.
fn widen(narrow: u32, wide: &mut &[u8]) -> u64 {
    match wide.split_at_checked(8) {
        Some((field, rest)) if narrow == u32::MAX => {
            *wide = rest;
            u64_at(field, 0)
        }
        _ => u64::from(narrow),
    }
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

fn unreadable(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the zip archive cannot be read: {reason}"))
}
