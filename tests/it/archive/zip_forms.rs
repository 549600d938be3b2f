//! Every form of a zip that the format allows is verified; a cut or flipped one is rejected.

use moesync::archive::{ArchiveFormat, RejectedKind, Verdict};

use super::{
    MIB, files, folder_of_files,
    gzip::gzip,
    judge, rejected_as, run,
    sketch::{Sketch, all_forms, assemble, sketch, zip},
    verified,
};

#[test]
fn every_form_of_entry_is_verified_alone_and_together_with_all_others() {
    for form in all_forms() {
        assert_eq!(verified(&zip(std::slice::from_ref(&form))).entries()[0].size, form.content.len() as u64);
    }
    assert_eq!(verified(&zip(&all_forms())).entries().len(), all_forms().len());
}

#[test]
fn the_central_directory_may_be_in_another_order() {
    let (first, second) = (sketch("a.csv", b"1"), sketch("b.csv", b"2"));
    let at = first.local().len();
    let archive = assemble(&[first.local(), second.local()], &[second.central(at), first.central(0)]);
    assert_eq!(verified(&archive).entries().iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["a.csv", "b.csv"]);
}

#[test]
fn an_archive_without_entries_is_verified() {
    let verified = verified(&assemble(&[], &[]));
    assert_eq!((verified.format(), verified.entries()), (ArchiveFormat::Zip, &[][..]));
}

#[test]
fn a_zip_within_a_stored_entry_of_unknown_length_is_data_like_any_other() {
    let inner = zip(&all_forms());
    for descriptor in [(false, false), (false, true), (true, false), (true, true)] {
        let outer = Sketch { deflated: false, descriptor: Some(descriptor), ..sketch("inner.zip", &inner) };
        assert_eq!(verified(&zip(&[outer.clone(), outer.clone()])).entries()[1].size, inner.len() as u64);
    }
}

#[test]
fn one_flipped_bit_is_rejected_wherever_a_checksum_or_a_structure_covers_it() {
    for form in all_forms() {
        let archive = zip(std::slice::from_ref(&form));
        let data = 30 + form.name.len() + if form.zip64 { 20 } else { 0 };
        let data = data..data + form.data().len();
        let central = form.local().len();
        for bit in 0..archive.len() * 8 {
            let mut flipped = archive.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let Verdict::Verified(verified) = judge(&flipped) else { continue };
            let at = bit / 8;
            // Version made by, internal and external attributes are in the central directory alone.
            // Versions needed may differ, and flags that do not concern the data.
            let uncovered = (4..8).contains(&at)
                || [4..10, 36..42].into_iter().any(|field| at >= central && field.contains(&(at - central)));
            // The last bits of the last byte of a deflate stream mean nothing.
            let padding = form.deflated && at == data.end - 1;
            // An empty stored entry's unsigned 64-bit descriptor is twenty zeros. If the extra field's length takes the
            // first eight for itself, what is left is the same entry with a 32-bit descriptor.
            let all_zeros = form.content.is_empty() && !form.deflated && form.descriptor == Some((false, true));
            // A header before a descriptor says zero for the compressed size, but may as well say the truth.
            let compressed_size = if form.zip64 { 30 + form.name.len() + 12 } else { 18 };
            let truth = form.descriptor.is_some() && usize::from(flipped[compressed_size]) == data.len();
            assert!(
                uncovered || padding || (all_zeros && at == 28) || (truth && at == compressed_size),
                "byte {at} of {archive:02x?}"
            );
            assert_eq!(verified.entries()[0].crc32, Some(crc32fast::hash(&form.content)));
        }
    }
}

#[test]
fn an_archive_cut_anywhere_is_rejected() {
    let archive = zip(&all_forms());
    for length in 0..archive.len() {
        let kind = if length < 4 { RejectedKind::NotAnArchive } else { RejectedKind::Corrupt };
        rejected_as(kind, &archive[..length]);
    }
}

#[test]
fn header_differences_that_do_not_affect_data_are_a_warning() {
    let entry = sketch("a.csv", b"day,sent\n");
    for (at, bits, warning) in [
        (6, 30, "version needed"),
        (6, 20 ^ 45, "version needed"),
        (8, 2, "flags"),
        (8, 6, "flags"),
        (9, 8, "flags"),
        (8, 8, "only one of its headers announces a data descriptor"),
    ] {
        let mut central = entry.central(0);
        central[at] ^= bits;
        let verified = verified(&assemble(&[entry.local()], &[central]));
        assert_eq!(verified.entries()[0].size, 9);
        assert_eq!(verified.warnings().len(), 1);
        assert!(verified.warnings()[0].contains(warning), "{at}: {:?}", verified.warnings());
    }
    for deflated in [true, false] {
        let described = Sketch { descriptor: Some((true, false)), deflated, ..entry.clone() };
        let mut central = described.central(0);
        central[8] ^= 8;
        let verified = verified(&assemble(&[described.local()], &[central]));
        assert!(verified.warnings()[0].contains("announces a data descriptor"), "{:?}", verified.warnings());
        // Announced by both headers, with the value in the local header, and missing.
        let mut local = Sketch { deflated, ..entry.clone() }.local();
        local[6] ^= 8;
        let central = described.central(0);
        let warnings = self::verified(&assemble(&[local.clone()], std::slice::from_ref(&central))).warnings().to_vec();
        assert_eq!(warnings, ["entry \"a.csv\": its announced data descriptor is missing"]);
        local[14] ^= 1;
        rejected_as(RejectedKind::Corrupt, &assemble(&[local], &[central]));
    }
    let (mut locals, mut centrals, mut offset) = (Vec::new(), Vec::new(), 0);
    for name in ["a.csv", "b.csv", "c.csv"] {
        let entry = sketch(name, b"1");
        let mut central = entry.central(offset);
        central[8] ^= 2;
        offset += entry.local().len();
        locals.push(entry.local());
        centrals.push(central);
    }
    let verified = verified(&assemble(&locals, &centrals));
    assert_eq!(verified.warnings().len(), 1);
    assert!(verified.warnings()[0].starts_with("entry \"a.csv\" and 2 more: "), "{:?}", verified.warnings());
}

/// `header` with `padding` behind its extra fields, which end at `end` and whose length is at `at`.
fn with_padding(mut header: Vec<u8>, at: usize, end: usize, padding: &[u8]) -> Vec<u8> {
    header[at] += padding.len() as u8;
    header.splice(end..end, padding.iter().copied());
    header
}

#[test]
fn zeros_that_pad_extra_fields_are_verified_and_other_bytes_there_are_corrupt() {
    for entry in [sketch("a.csv", b"1"), Sketch { zip64: true, ..sketch("a.csv", b"1") }] {
        let end = if entry.zip64 { 35 + 20 } else { 35 };
        let (local, central) = (entry.local(), entry.central(0));
        let central_end = central.len();
        for zeros in 1..=20 {
            let padding = vec![0; zeros];
            let local = with_padding(local.clone(), 28, end, &padding);
            let central = with_padding(central.clone(), 30, central_end, &padding);
            assert_eq!(verified(&assemble(&[local], &[central])).warnings(), [""; 0], "{zeros}");
        }
        let local = with_padding(local, 28, end, b"\0x");
        let rejected = rejected_as(RejectedKind::Corrupt, &assemble(&[local], &[central]));
        assert!(rejected.message.contains("extra fields"), "{}", rejected.message);
    }
}

#[test]
fn zeros_after_the_end_are_verified_with_a_warning_and_anything_else_is_not() {
    for archive in [zip(&[sketch("a.csv", b"1")]), gzip("a.csv", b"1")] {
        for zeros in [1, 10_240, 8 * MIB as usize] {
            let padded = [archive.clone(), vec![0; zeros]].concat();
            let warnings = verified(&padded).warnings().to_vec();
            assert!(warnings[0].starts_with(&format!("{zeros} zeros follow its end")), "{warnings:?}");
            assert_eq!(warnings[0].contains("too many for programs"), zeros > 65_535);
            let rejected = rejected_as(RejectedKind::Unverifiable, &[&padded[..], b"x"].concat());
            let at = padded.len();
            assert!(rejected.message.contains(&format!("at byte {at}")), "{}", rejected.message);
        }
    }
    let folder = folder_of_files();
    let pack = "bsdtar --format zip -cf - Email.csv Empty.csv 'Push – año.xlsx' | cat";
    let piped = run("libarchive-tools", folder.path(), &["sh", "-c", pack]);
    let piped = verified(&piped);
    assert_eq!(
        piped.entries().iter().map(|entry| entry.size).sum::<u64>(),
        files().iter().map(|(_, c)| c.len() as u64).sum::<u64>()
    );
}

#[test]
fn the_marker_of_a_split_archive_before_one_that_is_whole_is_verified() {
    let entry = sketch("a.csv", b"1");
    for marker in [b"PK\x07\x08", b"PK00"] {
        let archive = assemble(&[marker.to_vec(), entry.local()], &[entry.central(4)]);
        assert_eq!(verified(&archive).warnings(), [""; 0]);
        for length in 4..archive.len() {
            let Verdict::Rejected(rejected) = judge(&archive[..length]) else { panic!("verified") };
            let is_split = marker == b"PK\x07\x08";
            assert_eq!(rejected.kind, if is_split { RejectedKind::Unsupported } else { RejectedKind::Corrupt });
        }
    }
}

#[test]
fn a_zip64_locator_that_counts_no_disks_is_verified() {
    let entry = sketch("a.csv", b"1");
    let (local, central) = (entry.local(), entry.central(0));
    for (disks, kind) in [(0, None), (1, None), (2, Some(RejectedKind::Unsupported))] {
        let mut archive = [local.clone(), central.clone()].concat();
        let end = archive.len() as u64;
        archive.extend(b"PK\x06\x06");
        archive.extend(44_u64.to_le_bytes());
        archive.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        archive.extend([1, 1, central.len() as u64, local.len() as u64].into_iter().flat_map(u64::to_le_bytes));
        archive.extend(b"PK\x06\x07\0\0\0\0");
        archive.extend(end.to_le_bytes());
        archive.extend([disks, 0, 0, 0]);
        archive.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
        archive.extend([central.len() as u32, local.len() as u32].into_iter().flat_map(u32::to_le_bytes));
        archive.extend([0, 0]);
        match kind {
            None => drop(verified(&archive)),
            Some(kind) => drop(rejected_as(kind, &archive)),
        }
    }
}

#[test]
fn dangerous_names_are_verified_with_a_warning_each() {
    for (name, warning) in [
        ("../evil", "\"..\" component"),
        ("a\\..\\evil", "\"..\" component"),
        ("/etc/passwd", "absolute"),
        ("a\\b", "backslash"),
        ("C:evil", "drive letter"),
        ("a\0b", "control character"),
    ] {
        let verified = verified(&zip(&[sketch(name, b"1")]));
        assert_eq!(verified.entries()[0].name, name);
        assert!(verified.warnings().iter().any(|found| found.contains(warning)), "{name:?}: {:?}", verified.warnings());
    }
    let link = Sketch { external_attributes: 0o120_777 << 16, ..sketch("link", b"/etc/passwd") };
    assert_eq!(verified(&zip(&[link])).warnings(), ["entry \"link\": it is a symbolic link"]);
    let twice = verified(&zip(&[sketch("a", b"1"), sketch("a", b"2")]));
    assert_eq!(twice.warnings(), ["entry \"a\": an earlier entry has the same name"]);
    let many = verified(&zip(&vec![sketch("/a", b"1"); 100]));
    assert_eq!(many.warnings().len(), 101);
    assert_eq!(many.warnings()[100], "and 99 more warnings");
    assert_eq!(verified(&zip(&[sketch("folder/a..b.csv", b"1"), sketch("folder/", b"")])).warnings(), [""; 0]);
}
