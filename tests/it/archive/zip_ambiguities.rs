//! Zips that two readers could read differently are rejected.

use moesync::archive::RejectedKind;

use super::{
    rejected_as,
    sketch::{Sketch, assemble, sketch, zip},
    verified,
};

#[test]
fn data_after_the_end_is_unverifiable_but_a_comment_is_not() {
    let mut archive = zip(&[sketch("a.csv", b"1")]);
    rejected_as(RejectedKind::Unverifiable, &[&archive[..], b"\n"].concat());
    rejected_as(RejectedKind::Unverifiable, &[archive.clone(), archive.clone()].concat());
    let length = archive.len();
    archive[length - 2] = 5;
    archive.extend(b"hello");
    verified(&archive);
    rejected_as(RejectedKind::Unverifiable, &[&archive[..], b"\n"].concat());
    let (mut ambiguous, length) = (zip(&[sketch("a.csv", b"1")]), length as u8);
    let end = ambiguous.len();
    ambiguous[end - 2] = length;
    let inner = ambiguous[..end].to_vec();
    ambiguous.extend(inner);
    assert!(rejected_as(RejectedKind::Unverifiable, &ambiguous).message.contains("ambiguous"));
}

/// `header` with a comment.
fn with_comment(mut header: Vec<u8>, comment: &[u8]) -> Vec<u8> {
    header[32..34].copy_from_slice(&(comment.len() as u16).to_le_bytes());
    header.extend(comment);
    header
}

#[test]
fn a_second_end_within_the_fields_of_the_end_is_ambiguous() {
    // The length of the comment, 0x4b50, and its first bytes are a signature. Python and Info-ZIP read the end that begins
    // there, whose directory is in the comment of the first entry's header.
    let file = sketch("public.csv", b"1");
    let quoted = sketch("hidden.csv", b"2");
    let holding = Sketch { deflated: false, ..sketch("public.csv", &quoted.local()) };
    let inner = holding.local().len() - quoted.local().len();
    let directory = with_comment(holding.central(0), &quoted.central(inner));
    for archive in [zip(&[file]), assemble(&[holding.local()], &[directory])] {
        let mut archive = archive;
        let end = archive.len();
        archive[end - 2..].copy_from_slice(b"PK");
        archive.extend(b"\x05\x06\0\0\0\0\x01\0\x01\0");
        archive.resize(end + 0x4b50, 0);
        let rejected = rejected_as(RejectedKind::Unverifiable, &archive);
        assert!(rejected.message.contains("has another one in it"), "{}", rejected.message);
    }
}

#[test]
fn a_zip64_locator_in_the_comment_of_the_last_central_header_is_ambiguous() {
    // Python and Info-ZIP look for it in front of the end, whether or not the end refers to it, and read another directory.
    let file = sketch("public.csv", b"1");
    let locator = [b"PK\x06\x07".as_slice(), &[0; 16]].concat();
    let disguised = |comment: &[u8]| assemble(&[file.local()], &[with_comment(file.central(0), comment)]);
    let rejected = rejected_as(RejectedKind::Unverifiable, &disguised(&locator));
    assert!(rejected.message.contains("zip64 locator"), "{}", rejected.message);
    verified(&disguised(&[&locator[..], b" "].concat()));
}

#[test]
fn hidden_entries_gaps_and_overlaps_are_corrupt() {
    let (first, second) = (sketch("a.csv", b"1"), sketch("b.csv", b"2"));
    let locals = [first.local(), second.local()];
    let at = first.local().len();
    let gap = vec![0; 7];
    for (case, archive) in [
        ("not in the directory", assemble(&locals, &[first.central(0)])),
        ("only in the directory", assemble(&locals[..1], &[first.central(0), second.central(at)])),
        ("listed twice", assemble(&locals[..1], &[first.central(0), first.central(0)])),
        (
            "a gap between entries",
            assemble(&[first.local(), gap.clone(), second.local()], &[first.central(0), second.central(at + 7)]),
        ),
        ("a gap before the directory", assemble(&[first.local(), gap], &[first.central(0)])),
        ("another name in the directory", assemble(&locals[..1], &[second.central(0)])),
    ] {
        let rejected = rejected_as(RejectedKind::Corrupt, &archive);
        assert!(rejected.message.starts_with("zip archive: "), "{case}: {}", rejected.message);
    }
    // As in Fifield's bomb, one entry's data quotes the next entry, and the directory lists both.
    let quoting = Sketch { deflated: false, ..sketch("a.csv", &second.local()) };
    let inner = quoting.local().len() - second.local().len();
    rejected_as(RejectedKind::Corrupt, &assemble(&[quoting.local()], &[quoting.central(0), second.central(inner)]));
}

#[test]
fn a_different_central_header_is_corrupt_and_the_message_names_the_field() {
    let entry = sketch("a.csv", b"day,sent\n");
    for (at, field) in [
        (10, "compression method"),
        (12, "modification time"),
        (14, "modification time"),
        (16, "CRC-32"),
        (20, "compressed size"),
        (24, "size"),
        (42, "where no entry begins"),
        (46, "name in the local header"),
    ] {
        let mut central = entry.central(0);
        central[at] ^= 2;
        let rejected = rejected_as(RejectedKind::Corrupt, &assemble(&[entry.local()], &[central]));
        assert!(rejected.message.contains(field), "{field}: {}", rejected.message);
    }
    for (at, bit) in [(8, 1), (8, 32), (8, 64), (9, 32)] {
        let mut central = entry.central(0);
        central[at] ^= bit;
        let rejected = rejected_as(RejectedKind::Corrupt, &assemble(&[entry.local()], &[central]));
        assert!(rejected.message.contains("flags"), "{}", rejected.message);
    }
    // The encoding of a name is a part of it, if the name is not ASCII.
    let entry = sketch("año.csv", b"day,sent\n");
    let mut central = entry.central(0);
    central[9] ^= 8;
    rejected_as(RejectedKind::Corrupt, &assemble(&[entry.local()], &[central]));
}
