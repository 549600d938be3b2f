//! Gzip files of one or more members.

use moesync::archive::{ArchiveEntry, RejectedKind, Verdict};

use super::{judge, rejected_as, sketch::deflate, verified};

pub fn gzip(name: &str, content: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let builder = flate2::GzBuilder::new().filename(name).comment("made here").extra([1, 2, 3]);
    let mut encoder = builder.write(Vec::new(), flate2::Compression::best());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// With a checksum of the header, which flate2 does not write, as the only optional field.
fn gzip_with_header_crc(content: &[u8]) -> Vec<u8> {
    let mut archive = vec![0x1f, 0x8b, 8, 2, 0, 0, 0, 0, 0, 255];
    let crc = crc32fast::hash(&archive) as u16;
    archive.extend(crc.to_le_bytes());
    archive.extend(deflate(content));
    archive.extend(crc32fast::hash(content).to_le_bytes());
    archive.extend((content.len() as u32).to_le_bytes());
    archive
}

#[test]
fn a_gzip_archive_is_verified_with_an_entry_for_each_member() {
    let archive = [gzip("a.csv", b"first"), gzip_with_header_crc(b"second"), gzip("c.csv", b"")].concat();
    let verified = verified(&archive);
    assert_eq!(verified.format().as_str(), "gzip");
    let entry = |name: &str, content: &[u8]| ArchiveEntry {
        name: name.to_owned(),
        size: content.len() as u64,
        crc32: Some(crc32fast::hash(content)),
    };
    assert_eq!(verified.entries(), [entry("a.csv", b"first"), entry("", b"second"), entry("c.csv", b"")]);
}

#[test]
fn a_gzip_archive_is_rejected_if_cut_within_a_member_or_followed_by_other_bytes() {
    let (first, second) = (gzip("a.csv", b"first"), gzip_with_header_crc(b"second"));
    let archive = [first.clone(), second].concat();
    for length in (2..archive.len()).filter(|length| *length != first.len()) {
        rejected_as(RejectedKind::Corrupt, &archive[..length]);
    }
    for trailing in [b"\0x".as_slice(), b"\n", b"\x1f\x00", b"PK\x03\x04"] {
        rejected_as(RejectedKind::Unverifiable, &[&archive[..], trailing].concat());
    }
}

#[test]
fn one_flipped_bit_of_a_gzip_is_rejected_where_checksum_or_structure_covers_it() {
    let archive = gzip_with_header_crc(b"day,sent\n2026-11-21,7\n");
    let padding = archive.len() - 9;
    for bit in 0..archive.len() * 8 {
        let mut flipped = archive.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        // The header's checksum does not cover the flag that announces it: without the flag, the checksum is read as
        // compressed data, which it is not.
        assert!(bit / 8 == padding || matches!(judge(&flipped), Verdict::Rejected(_)), "byte {}", bit / 8);
    }
}
