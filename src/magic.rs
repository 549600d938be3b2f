//! Recognizing archive formats by their first bytes.
//!
//! This file owns the magic numbers. File names and media types are often wrong, so only the bytes decide. It must not know
//! what is then done with them.

/// A format, as far as its first bytes show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Magic {
    /// A zip archive, with or without the marker of a split one.
    Zip,
    /// A gzip member.
    Gzip,
    /// A tar header.
    Tar,
    /// An archive of a known format that moesync cannot verify; its name.
    Unsupported(&'static str),
    /// No known format.
    Unknown,
}

/// Bytes needed to recognize every format: a tar header.
pub const HEAD_BYTES: usize = 512;

const UNSUPPORTED: [(&[u8], &str); 8] = [
    (b"Rar!\x1a\x07\x00", "rar"),
    (b"Rar!\x1a\x07\x01\x00", "rar"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"LZIP\x01", "lzip"),
    (b"\x1f\x9d\x90", "compress"),
];

/// bzip2: after `BZh` and a digit, the first block or, if it is empty, the end of the stream.
const BZIP2_BLOCK: &[u8] = b"\x31\x41\x59\x26\x53\x59";
const BZIP2_END: &[u8] = b"\x17\x72\x45\x38\x50\x90";

/// The format that begins with `head`; `None` if more bytes are needed, at most [`HEAD_BYTES`].
pub fn recognise(head: &[u8]) -> Option<Magic> {
    match head {
        [0x1f, 0x8b, ..] => return Some(Magic::Gzip),
        // A local header, the end of an archive without entries, and the markers of a split archive.
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] | [b'P', b'K', 7, 8, ..] | [b'P', b'K', b'0', b'0', ..] => {
            return Some(Magic::Zip);
        }
        [b'B', b'Z', b'h', b'1'..=b'9', rest @ ..] if rest.starts_with(BZIP2_BLOCK) || rest.starts_with(BZIP2_END) => {
            return Some(Magic::Unsupported("bzip2"));
        }
        _ => {}
    }
    if let Some((_, name)) = UNSUPPORTED.into_iter().find(|(magic, _)| head.starts_with(magic)) {
        return Some(Magic::Unsupported(name));
    }
    if head.len() < HEAD_BYTES {
        return None;
    }
    Some(if is_tar(head) { Magic::Tar } else { Magic::Unknown })
}

/// Whether `text` begins as a web page does. No report does.
pub fn is_page(text: &[u8]) -> bool {
    begins_with(text, b'<')
}

/// Whether `text` begins as a JSON object does.
pub fn is_json(text: &[u8]) -> bool {
    begins_with(text, b'{')
}

fn begins_with(text: &[u8], first: u8) -> bool {
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    text.trim_ascii_start().first() == Some(&first)
}

/// Fields of a tar header.
const TAR_SIZE: usize = 124;
const TAR_CHECKSUM: std::ops::Range<usize> = 148..156;
const TAR_TYPE: usize = 156;
const TAR_MAGIC: usize = 257;

/// Either the magic of POSIX or GNU or a well-formed checksum is enough, so that a header with one of them damaged is
/// recognized as a damaged tar. Both contain a NUL, which text does not. The label of a volume, which GNU tar puts first,
/// has neither magic nor size.
fn is_tar(head: &[u8]) -> bool {
    let magic = &head[TAR_MAGIC..];
    magic.starts_with(b"ustar\0")
        || magic.starts_with(b"ustar  \0")
        || (tar_checksum(head).is_some()
            && (matches!(head[TAR_SIZE], b'0'..=b'7' | b' ' | 0x80) || head[TAR_TYPE] == b'V'))
}

/// The checksum recorded in the tar header at the beginning of `header`; `None` if its form is not in use.
///
/// Every writer fills the field in one way: six digits, NUL, space; six digits, space, NUL; or seven digits and NUL.
/// Historic writers and Perl's pad it with spaces instead of zeros, and the size as well, which shows it unless the size has
/// all its digits. Other forms are refused, so that damage to the field itself is detected.
pub fn tar_checksum(header: &[u8]) -> Option<u32> {
    let digits = match header.get(TAR_CHECKSUM)? {
        [digits @ .., 0, b' '] | [digits @ .., b' ', 0] | [digits @ .., 0] => digits,
        _ => return None,
    };
    let padding = digits.iter().take_while(|byte| **byte == b' ').count();
    let may_be_padded = matches!(header[TAR_SIZE], b' ' | b'1'..=b'7');
    if padding == digits.len() || (padding > 0 && !may_be_padded) {
        return None;
    }
    digits[padding..].iter().try_fold(0_u32, |value, digit| match digit {
        b'0'..=b'7' => Some(value * 8 + u32::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_format_is_recognized_by_its_first_bytes_and_a_table_by_none() {
        for (head, magic) in [
            (b"\x1f\x8b".as_slice(), Magic::Gzip),
            (b"PK\x03\x04", Magic::Zip),
            (b"PK\x05\x06", Magic::Zip),
            (b"PK\x07\x08", Magic::Zip),
            (b"Rar!\x1a\x07\x00", Magic::Unsupported("rar")),
            (b"Rar!\x1a\x07\x01\x00", Magic::Unsupported("rar")),
            (b"7z\xbc\xaf\x27\x1c", Magic::Unsupported("7z")),
            (b"\xfd7zXZ\x00", Magic::Unsupported("xz")),
            (b"BZh91AY&SY", Magic::Unsupported("bzip2")),
            (b"\x28\xb5\x2f\xfd", Magic::Unsupported("zstd")),
        ] {
            assert_eq!(recognise(head), Some(magic), "{head:?}");
            assert_eq!(recognise(&head[..1]), None, "{head:?}");
        }
        assert_eq!(recognise(b"day,sent\n"), None);
        assert_eq!(recognise(&b"day,sent\n2026-11-21,012345 7\n".repeat(30)), Some(Magic::Unknown));
        assert_eq!(recognise(&[0; HEAD_BYTES]), Some(Magic::Unknown));
    }

    #[test]
    fn a_checksum_of_tar_has_one_of_the_forms_that_writers_use() {
        let checksum = |field: &[u8; 8], size: u8| {
            let mut header = [0; HEAD_BYTES];
            header[TAR_SIZE] = size;
            header[TAR_CHECKSUM].copy_from_slice(field);
            tar_checksum(&header)
        };
        for field in [b"001750\0 ", b"001750 \0", b"0001750\0"] {
            assert_eq!(checksum(field, b'0'), Some(1000), "{field:?}");
        }
        assert_eq!((checksum(b"  1750\0 ", b' '), checksum(b"  1750\0 ", b'0')), (Some(1000), None));
        for field in
            [b"001750\0\0", b"001750  ", b"00175000", b"001780\0 ", b"      \0 ", b"\0\0\0\0\0\0\0\0", b"0017 0\0 "]
        {
            assert_eq!(checksum(field, b' '), None, "{field:?}");
        }
    }
}
