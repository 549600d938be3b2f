//! From the bytes of a page to JSON: decompression, the byte order mark, and repairs of what JSON does not allow, where
//! the meaning is clear.
//!
//! This file owns what is repaired, and the counts. It must not know what a page holds.

use std::{
    fmt,
    io::{self, Read},
};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;

/// The first two bytes of a gzip; no JSON begins so.
const GZIP: &[u8] = &[0x1f, 0x8b];

/// The UTF-8 byte order mark, which a reader of JSON may ignore (RFC 8259, section 8.1).
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Values that JSON does not have, and that JavaScript and Python write.
const NOT_NUMBERS: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];

/// What JSON does not allow, and is repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Oddity {
    /// `NaN`, `Infinity` or `-Infinity`; read as `null`.
    NoNumber,
    /// Bytes in a string that are not UTF-8; read as U+FFFD.
    NotUtf8,
    /// A control character in a string, such as a tab, that is not escaped; read as its escape.
    Control,
}

impl Oddity {
    const ALL: [Oddity; 3] = [Oddity::NoNumber, Oddity::NotUtf8, Oddity::Control];
}

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Oddity::NoNumber => "NaN or Infinity, stored as null",
            Oddity::NotUtf8 => "bytes that are not UTF-8, stored as U+FFFD",
            Oddity::Control => "unescaped control characters, stored escaped",
        })
    }
}

/// One kind of oddity in a page, repaired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonRepair {
    /// The kind.
    pub oddity: Oddity,
    /// Number of occurrences.
    pub count: u64,
    /// Line of the first, from 1.
    pub line: usize,
    /// Its column in bytes, from 1.
    pub column: usize,
    /// The id of the record that holds the first, printable.
    pub record: Option<String>,
}

/// A page after its repairs.
pub(super) struct RepairedPage {
    pub(super) json: String,
    /// Each kind that occurred, and the position of its first in `json`.
    pub(super) repairs: Vec<(JsonRepair, usize)>,
}

/// Decompresses a gzip and skips a byte order mark.
///
/// # Errors
///
/// If the gzip is damaged, or holds more than `limit` bytes.
pub(super) fn unpack(body: &Bytes, limit: usize) -> io::Result<Bytes> {
    let plain: Bytes = match body.starts_with(GZIP) {
        false => body.clone(),
        true => {
            let mut plain = Vec::new();
            // One byte beyond the limit shows that a page is too large.
            MultiGzDecoder::new(&body[..]).take(limit as u64 + 1).read_to_end(&mut plain)?;
            if plain.len() > limit {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it holds more than {limit} bytes")));
            }
            plain.into()
        }
    };
    Ok(match plain.starts_with(BYTE_ORDER_MARK) {
        true => plain.slice(BYTE_ORDER_MARK.len()..),
        false => plain,
    })
}

/// Line and column of the byte at `at`, both from 1, as serde_json counts them.
pub(super) fn place(page: &[u8], at: usize) -> (usize, usize) {
    let before = &page[..at.min(page.len())];
    let line_start = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
    (memchr::memchr_iter(b'\n', before).count() + 1, before.len() - line_start + 1)
}

/// Repairs every oddity of `page`. `None` where there is none, or where bytes outside strings are not UTF-8.
pub(super) fn repair(page: &[u8]) -> Option<RepairedPage> {
    let mut out = Vec::with_capacity(page.len() + 64);
    // Of each kind: the count, and the position of the first in the page and in the output.
    let mut found = [None::<(u64, usize, usize)>; Oddity::ALL.len()];
    let mut note = |oddity: Oddity, at: usize, output_at: usize| {
        let (count, ..) = found[oddity as usize].get_or_insert((0, at, output_at));
        *count += 1;
    };
    let (mut at, mut in_string) = (0, false);
    while let Some(&byte) = page.get(at) {
        let rest = &page[at..];
        let mut taken = 1;
        if !in_string {
            in_string = byte == b'"';
            match NOT_NUMBERS.iter().find(|word| begins_with_word(rest, word)) {
                Some(word) => {
                    note(Oddity::NoNumber, at, out.len());
                    out.extend_from_slice(b"null");
                    taken = word.len();
                }
                None => out.push(byte),
            }
        } else if byte < 0x20 {
            note(Oddity::Control, at, out.len());
            out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
        } else if byte.is_ascii() {
            in_string = byte != b'"';
            out.push(byte);
            // An escaped quote does not end the string.
            if let (b'\\', Some(escaped @ 0x20..=0x7f)) = (byte, rest.get(1)) {
                out.push(*escaped);
                taken = 2;
            }
        } else {
            let (is_valid, length) = first_character(rest);
            taken = length;
            match is_valid {
                true => out.extend_from_slice(&rest[..length]),
                false => {
                    note(Oddity::NotUtf8, at, out.len());
                    out.extend_from_slice("\u{fffd}".as_bytes());
                }
            }
        }
        at += taken;
    }
    let repairs: Vec<_> = Oddity::ALL
        .into_iter()
        .zip(found)
        .filter_map(|(oddity, found)| {
            let (count, at, output_at) = found?;
            let (line, column) = place(page, at);
            Some((JsonRepair { oddity, count, line, column, record: None }, output_at))
        })
        .collect();
    let json = String::from_utf8(out).ok()?;
    (!repairs.is_empty()).then_some(RepairedPage { json, repairs })
}

fn begins_with_word(text: &[u8], word: &[u8]) -> bool {
    text.starts_with(word) && !text.get(word.len()).is_some_and(|next| next.is_ascii_alphanumeric() || *next == b'_')
}

/// Whether `text`, whose first byte is not ASCII, begins with a valid character, and the length of that or of the invalid
/// bytes.
fn first_character(text: &[u8]) -> (bool, usize) {
    // No character is longer than four bytes.
    let head = &text[..text.len().min(4)];
    match head.utf8_chunks().next() {
        Some(chunk) => match chunk.valid().chars().next() {
            Some(character) => (true, character.len_utf8()),
            None => (false, chunk.invalid().len()),
        },
        None => (false, head.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repaired(page: &[u8]) -> String {
        repair(page).unwrap().json
    }

    #[test]
    fn each_kind_of_oddity_is_repaired_counted_and_placed() {
        let page = b"[{\"ctr\":NaN,\n\"low\":-Infinity,\"n\":\"caf\xe9\ta\tb NaN \xf0\x9f\x98\x80\"}]";
        let RepairedPage { json, repairs } = repair(page).unwrap();
        let text = "[{\"ctr\":null,\n\"low\":null,\"n\":\"caf\u{fffd}\\u0009a\\u0009b NaN \u{1f600}\"}]";
        assert_eq!(json, text);
        let counted: Vec<_> = repairs.iter().map(|(r, at)| (r.oddity, r.count, r.line, r.column, *at)).collect();
        let expected =
            [(Oddity::NoNumber, 2, 1, 9, 8), (Oddity::NotUtf8, 1, 2, 25, 33), (Oddity::Control, 2, 2, 26, 36)];
        assert_eq!(counted, expected);
    }

    #[test]
    fn what_json_allows_is_left_alone() {
        for page in ["[\"a \\\" NaN \\\\\", 1e400, \"\u{e9}\"]", "{\"NaNs\": Nanny}", "[InfinityX]", ""] {
            assert!(repair(page.as_bytes()).is_none(), "{page}");
        }
        // The page may end within a string or a character.
        assert_eq!(repaired(b"\"a\xf0\x9f"), "\"a\u{fffd}");
        assert!(repair(b"[\xff]").is_none());
    }

    #[test]
    fn a_gzip_is_decompressed_within_the_limit_and_a_byte_order_mark_is_skipped() {
        let packed = |plain: &[u8]| -> Bytes {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            io::Write::write_all(&mut encoder, plain).unwrap();
            encoder.finish().unwrap().into()
        };
        assert_eq!(unpack(&packed(b"\xef\xbb\xbf[]"), 5).unwrap(), "[]");
        assert_eq!(unpack(&Bytes::from_static(b"[]"), 5).unwrap(), "[]");
        assert!(unpack(&packed(&[b' '; 6]), 5).is_err());
        let whole = packed(b"[]");
        assert!(unpack(&whole.slice(..whole.len() - 1), 5).is_err());
    }
}
