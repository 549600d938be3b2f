//! Tars of every common writer are verified, alone and within a gzip; cut, damaged and ambiguous ones are rejected.

use super::{gzip::gzip, *};

/// Compares names and sizes only: tar has no checksum of its data.
#[track_caller]
fn assert_holds_the_files_of_tar(tool: &str, format: ArchiveFormat, archive: &[u8]) {
    let (verified, found) = verified_files(tool, archive);
    let expected: Vec<_> = tar_files().into_iter().map(|(name, content)| (name, content.len() as u64, None)).collect();
    assert_eq!(found, expected, "{tool}");
    assert_eq!(verified.format(), format, "{tool}");
    assert!(verified.warnings().iter().all(|warning| warning.contains("zeros follow its end")), "{tool}");
}

/// A name that is too long for a header's name, but not for name and prefix.
fn long_name() -> String {
    format!("{}/{}.csv", "folder".repeat(12), "file".repeat(12))
}

fn tar_files() -> Vec<(String, Vec<u8>)> {
    let mut files = files();
    files.push((long_name(), b"day,sent\n".to_vec()));
    files.sort();
    files
}

fn folder_of_tar_files() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in tar_files() {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    folder
}

fn names() -> Vec<String> {
    tar_files().into_iter().map(|(name, _)| name).collect()
}

#[test]
fn tars_of_python_are_verified_in_each_format_and_within_gzip() {
    let folder = folder_of_tar_files();
    let script = r#"
import sys, tarfile
for name, format in [("ustar", tarfile.USTAR_FORMAT), ("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)]:
    for suffix, mode in [("tar", "w"), ("tar.gz", "w:gz"), ("pipe.tar", "w|"), ("pipe.tar.gz", "w|gz")]:
        with tarfile.open(f"out-{name}.{suffix}", mode, format=format) as archive:
            for file in sys.argv[1:]: archive.add(file)
"#;
    let names = names();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    run("python3", folder.path(), &[&["python3", "-c", script], &names[..]].concat());
    for format in ["ustar", "gnu", "pax"] {
        for (suffix, expected) in [("tar", ArchiveFormat::Tar), ("tar.gz", ArchiveFormat::Gzip)] {
            for suffix in [suffix.to_owned(), format!("pipe.{suffix}")] {
                let file = format!("out-{format}.{suffix}");
                assert_holds_the_files_of_tar(&file, expected, &read(folder.path(), &file));
            }
        }
    }
}

#[test]
fn tars_of_gnu_tar_and_bsdtar_are_verified_in_each_format_to_a_file_and_a_pipe() {
    let folder = folder_of_tar_files();
    for (package, tool, formats) in [
        ("tar", "tar", &["ustar", "posix", "gnu", "oldgnu"][..]),
        ("libarchive-tools", "bsdtar", &["ustar", "pax", "gnutar"]),
    ] {
        for format in formats {
            for (letters, expected) in [("-cf", ArchiveFormat::Tar), ("-czf", ArchiveFormat::Gzip)] {
                let names = names().iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(" ");
                let pipe = format!("{tool} --format={format} {letters} - {names} | cat");
                let piped = run(package, folder.path(), &["sh", "-c", &pipe]);
                assert_holds_the_files_of_tar(&pipe, expected, &piped);
                let file = format!("{tool} --format={format} {letters} out {names}");
                run(package, folder.path(), &["sh", "-c", &file]);
                assert_holds_the_files_of_tar(&file, expected, &read(folder.path(), "out"));
            }
        }
    }
    for tool in ["tar", "bsdtar"] {
        let historic =
            run("libarchive-tools", folder.path(), &["sh", "-c", &format!("{tool} --format=v7 -cf - Email.csv | cat")]);
        assert_eq!(verified(&historic).entries()[0].size, files()[0].1.len() as u64, "{tool}");
    }
}

#[test]
fn tars_of_gnu_tar_that_begin_with_the_label_of_a_volume_are_verified() {
    let folder = folder_of_tar_files();
    let names = names().iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(" ");
    for format in ["gnu", "oldgnu", "posix"] {
        for (letters, expected) in [("-cf", ArchiveFormat::Tar), ("-czf", ArchiveFormat::Gzip)] {
            let command = format!("tar --format={format} --label=reports {letters} - {names} | cat");
            let archive = run("tar", folder.path(), &["sh", "-c", &command]);
            assert_holds_the_files_of_tar(&command, expected, &archive);
        }
    }
}

#[test]
fn tars_of_perl_and_7_zip_are_verified() {
    let folder = folder_of_files();
    let script = "use Archive::Tar; Archive::Tar->create_archive('perl.tar', 0, 'Email.csv', 'Empty.csv')";
    run("perl", folder.path(), &["perl", "-e", script]);
    run("7zip", folder.path(), &[seven_zip(), "a", "-ttar", "7zip.tar", "Email.csv", "Empty.csv"]);
    for file in ["perl.tar", "7zip.tar"] {
        let verified = verified(&read(folder.path(), file));
        let mut sizes: Vec<_> = verified.entries().iter().map(|entry| entry.size).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [0, files()[0].1.len() as u64], "{file}");
        assert_eq!(verified.warnings(), [""; 0], "{file}");
    }
}

#[test]
fn a_sparse_file_of_gnu_tar_is_unsupported() {
    let folder = tempfile::tempdir().unwrap();
    let sparse = std::fs::File::create(folder.path().join("sparse.csv")).unwrap();
    sparse.set_len(MIB).unwrap();
    for format in ["gnu", "posix"] {
        let archive = run("tar", folder.path(), &["tar", &format!("--format={format}"), "-Scf", "-", "sparse.csv"]);
        let rejected = rejected_as(RejectedKind::Unsupported, &archive);
        assert!(rejected.message.contains("sparse"), "{}", rejected.message);
        let rejected = rejected_as(RejectedKind::Unsupported, &gzip("out.tar", &archive));
        assert!(rejected.message.contains("sparse"), "{}", rejected.message);
    }
}

const BLOCK: usize = 512;

/// Fills up the last block.
fn filled(contents: &[u8]) -> Vec<u8> {
    let mut blocks = contents.to_vec();
    blocks.resize(contents.len().div_ceil(BLOCK) * BLOCK, 0);
    blocks
}

/// A header without its checksum.
fn unsummed(kind: u8, name: &[u8], size: &[u8]) -> Vec<u8> {
    let mut header = vec![0; BLOCK];
    header[..name.len()].copy_from_slice(name);
    header[100..108].copy_from_slice(b"0000644\0");
    header[124..124 + size.len()].copy_from_slice(size);
    header[136..148].copy_from_slice(b"15301755713\0");
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    header
}

fn summed(mut header: Vec<u8>) -> Vec<u8> {
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

fn member(kind: u8, name: &str, contents: &[u8]) -> Vec<u8> {
    let size = format!("{:011o}\0", contents.len());
    [summed(unsummed(kind, name.as_bytes(), size.as_bytes())), filled(contents)].concat()
}

/// A pax header with these records.
fn pax(kind: u8, records: &[(&str, &str)]) -> Vec<u8> {
    let mut contents = String::new();
    for (key, value) in records {
        let rest = format!(" {key}={value}\n");
        let length = (1..=rest.len() + 8).find(|length| length.to_string().len() + rest.len() == *length).unwrap();
        contents += &format!("{length}{rest}");
    }
    member(kind, "PaxHeaders/x", contents.as_bytes())
}

/// The end of an archive.
fn end() -> Vec<u8> {
    vec![0; 2 * BLOCK]
}

fn tar(members: &[Vec<u8>]) -> Vec<u8> {
    [members.concat(), end()].concat()
}

fn only_name(archive: &[u8]) -> String {
    let verified = verified(archive);
    assert_eq!(verified.entries().len(), 1);
    verified.entries()[0].name.clone()
}

#[test]
fn a_flipped_bit_in_any_header_padding_or_end_of_a_tar_is_rejected() {
    let archive =
        tar(&[pax(b'x', &[("path", "año.csv")]), member(b'0', "a.csv", b"day,sent\n"), member(b'5', "folder/", b"")]);
    // The records of the extended header and the contents of the file are what tar has no checksum of.
    let unguarded = [BLOCK..BLOCK + 17, 3 * BLOCK..3 * BLOCK + 9];
    for bit in 0..archive.len() * 8 {
        let mut flipped = archive.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let is_guarded = unguarded.iter().all(|range| !range.contains(&(bit / 8)));
        if is_guarded {
            assert!(matches!(judge(&flipped), Verdict::Rejected(_)), "bit {} of byte {}", bit % 8, bit / 8);
        }
    }
}

#[test]
fn a_tar_cut_anywhere_before_the_end_of_its_two_zero_blocks_is_rejected() {
    let archive = tar(&[member(b'L', "././@LongLink", b"long.csv\0"), member(b'0', "a.csv", b"day,sent\n")]);
    for length in 0..archive.len() {
        let kind = if length < BLOCK { RejectedKind::NotAnArchive } else { RejectedKind::Corrupt };
        rejected_as(kind, &archive[..length]);
        if length >= BLOCK {
            let rejected = rejected_as(RejectedKind::Corrupt, &gzip("a.tar", &archive[..length]));
            assert!(rejected.message.contains("the tar inside: cut short"), "{}", rejected.message);
        }
    }
    verified(&archive);
    for zeros in [1, BLOCK, 10_240, 3 * MIB as usize] {
        assert_eq!(verified(&[archive.clone(), vec![0; zeros]].concat()).warnings(), [""; 0]);
    }
    rejected_as(RejectedKind::Unverifiable, &[archive.clone(), vec![0; 100], b"x".to_vec()].concat());
    rejected_as(RejectedKind::Unverifiable, &[archive.clone(), archive.clone()].concat());
    let lone = [archive[..archive.len() - BLOCK].to_vec(), member(b'0', "b.csv", b""), end()].concat();
    assert!(rejected_as(RejectedKind::Corrupt, &lone).message.contains("a single block of zeros"));
    rejected_as(RejectedKind::NotAnArchive, &[0; 10_240]);
}

#[test]
fn names_of_a_tar_come_from_extensions_prefix_or_header_and_never_become_paths() {
    let file = member(b'0', "short.csv", b"1");
    let mut prefixed = unsummed(b'0', b"name.csv", b"00000000000\0");
    prefixed[345..351].copy_from_slice(b"prefix");
    for (members, name) in [
        (vec![file.clone()], "short.csv"),
        (vec![summed(prefixed)], "prefix/name.csv"),
        (vec![pax(b'x', &[("path", "pax.csv"), ("comment", "a\nb")]), file.clone()], "pax.csv"),
        (vec![pax(b'g', &[("path", "global.csv")]), file.clone()], "global.csv"),
        (vec![pax(b'g', &[("path", "global.csv")]), pax(b'x', &[("path", "own.csv")]), file.clone()], "own.csv"),
        (vec![pax(b'x', &[("path", "")]), file.clone()], "short.csv"),
        (vec![member(b'L', "././@LongLink", b"long.csv\0"), file.clone()], "long.csv"),
        (vec![member(b'V', "label", b""), file.clone()], "short.csv"),
    ] {
        assert_eq!(only_name(&tar(&members)), name);
    }
    for (name, warning) in [("../evil", "\"..\" component"), ("/etc/passwd", "absolute"), ("a\\b", "backslash")] {
        let verified = verified(&tar(&[member(b'0', name, b"1")]));
        assert!(verified.warnings()[0].contains(warning), "{name}: {:?}", verified.warnings());
    }
    let nul = verified(&tar(&[pax(b'x', &[("path", "a\0b")]), file.clone()]));
    assert!(nul.warnings()[0].contains("control character"), "{:?}", nul.warnings());
    let odd = verified(&tar(&[
        member(b'2', "symlink", b""),
        member(b'1', "hard", b""),
        member(b'3', "device", b""),
        member(b'6', "pipe", b""),
        member(b'0', "twice", b""),
        member(b'0', "twice", b""),
    ]));
    assert_eq!(
        odd.warnings(),
        [
            "entry \"symlink\": it is a symbolic link",
            "entry \"hard\": it is a hard link",
            "entry \"device\": it is a device",
            "entry \"pipe\": it is a pipe",
            "entry \"twice\": an earlier entry has the same name",
        ]
    );
}

#[test]
fn sizes_are_octal_binary_or_in_a_pax_record_and_damaged_ones_are_rejected() {
    let with_size = |size: &[u8]| [summed(unsummed(b'0', b"a.csv", size)), filled(b"0123456789"), end()].concat();
    let binary = [&[0x80][..], &[0; 10], &[10]].concat();
    for size in [b"00000000012\0".as_slice(), b"000000000012", b"        12 \0", b"12\0", &binary] {
        assert_eq!(verified(&with_size(size)).entries()[0].size, 10, "{size:?}");
    }
    let (negative, huge) = ([0xff; 12], [&[0x80][..], &[0xff; 11]].concat());
    for size in [b"00000000018\0".as_slice(), b"-0000000012\0", b"0000 000012\0", &negative, &huge] {
        assert!(rejected_as(RejectedKind::Corrupt, &with_size(size)).message.contains("size"), "{size:?}");
    }
    // A reader without pax support would use the header's size.
    let ten = filled(b"0123456789");
    let agreeing =
        [pax(b'x', &[("size", "10")]), summed(unsummed(b'0', b"a", b"00000000012\0")), ten.clone(), end()].concat();
    assert_eq!(verified(&agreeing).entries()[0].size, 10);
    let smuggling = [pax(b'x', &[("size", "10")]), summed(unsummed(b'0', b"a", b"00000000000\0")), ten, end()].concat();
    assert!(rejected_as(RejectedKind::Unverifiable, &smuggling).message.contains("ambiguous"));
    // A size above eleven octal digits is only in the record; the rest of the archive is missing here.
    let large = [pax(b'x', &[("size", "8589934592")]), summed(unsummed(b'0', b"a", b"00000000000\0")), end()].concat();
    assert!(rejected_as(RejectedKind::Corrupt, &large).message.contains("cut short"));
}

#[test]
fn malformed_pax_records_are_corrupt() {
    for records in [
        &b"12 path=a.csv"[..],
        b"99 path=a.csv\n",
        b"13 path=a.csv\n",
        b"15 path=a.csv\n",
        b"014 path=a.csv\n",
        b"+14 path=a.csv\n",
        b"path=a.csv\n",
        b"8 a.csv\n",
        b"6 =bc\n",
        b"13 size=012\n\n",
        b"11 size=-1\n",
        b"14 path=a.csv\n\0",
        b"3 \n",
        b"0 \n",
        b" \n",
    ] {
        let archive = tar(&[member(b'x', "PaxHeaders/x", records), member(b'0', "a", b"")]);
        let rejected = rejected_as(RejectedKind::Corrupt, &archive);
        assert!(rejected.message.contains("malformed"), "{records:?}: {}", rejected.message);
    }
}

#[test]
fn where_readers_of_tar_disagree_the_archive_is_ambiguous() {
    let (file, long) = (member(b'0', "a.csv", b"1"), member(b'L', "././@LongLink", b"long.csv\0"));
    let extended = pax(b'x', &[("path", "pax.csv")]);
    for (case, members) in [
        ("two extended headers", vec![extended.clone(), extended.clone(), file.clone()]),
        ("an extended header of a long name", vec![extended.clone(), long.clone(), file.clone()]),
        ("a long name by GNU and one by pax", vec![long.clone(), extended.clone(), file.clone()]),
        ("two long names", vec![long.clone(), long.clone(), file.clone()]),
        ("a long name that goes on", vec![member(b'L', "././@LongLink", b"a\0b"), file.clone()]),
        ("a directory with contents", vec![member(b'5', "folder", b"1")]),
        ("a file named like a directory", vec![member(b'0', "folder/", b"1")]),
        ("a link with contents", vec![member(b'1', "link", b"1")]),
        ("a size for all", vec![pax(b'g', &[("size", "1")]), file.clone()]),
        ("an endless extension", vec![member(b'x', "x", &vec![b'0'; MIB as usize + 1]), file.clone()]),
    ] {
        let Verdict::Rejected(rejected) = judge(&tar(&members)) else { panic!("{case}: verified") };
        assert_eq!(rejected.kind, RejectedKind::Unverifiable, "{case}: {}", rejected.message);
    }
    assert!(rejected_as(RejectedKind::Corrupt, &tar(&[file.clone(), extended])).message.contains("without its entry"));
    for kind in [b'M', b'D', b'Q'] {
        rejected_as(RejectedKind::Unsupported, &tar(&[member(kind, "a", b"1"), file.clone()]));
    }
}

#[test]
fn a_historic_tar_with_signed_checksum_and_padded_numbers_is_verified() {
    let mut header = unsummed(0, "añ.csv".as_bytes(), b"          1 ");
    header[257..265].copy_from_slice(&[0; 8]);
    header[148..156].copy_from_slice(b"        ");
    let sum: i32 = header.iter().map(|byte| i32::from(byte.cast_signed())).sum();
    header[148..156].copy_from_slice(format!("{sum:6o}\0 ").as_bytes());
    let archive = [header, filled(b"1"), end()].concat();
    assert_eq!(only_name(&archive), "añ.csv");
}

#[test]
fn a_tar_within_a_gzip_is_verified_both_ways_and_lists_the_entries_of_the_tar() {
    let archive = tar(&[member(b'0', "a.csv", b"first"), member(b'0', "../b.csv", b"second")]);
    // As parallel gzip writers do: the members' contents are concatenated.
    let (one, two) = archive.split_at(700);
    for packed in [gzip("all.tar", &archive), [gzip("", one), gzip("", two)].concat()] {
        let verified = verified(&packed);
        assert_eq!(verified.format(), ArchiveFormat::Gzip);
        let found: Vec<_> = verified.entries().iter().map(|entry| (&entry.name[..], entry.size, entry.crc32)).collect();
        assert_eq!(found, [("a.csv", 5, None), ("../b.csv", 6, None)]);
        assert_eq!(verified.warnings().len(), 1);
    }
    for at in (0..BLOCK).filter(|at| *at != 156) {
        let mut damaged = archive.clone();
        damaged[at] ^= 4;
        let rejected = rejected_as(RejectedKind::Corrupt, &gzip("all.tar", &damaged));
        assert!(rejected.message.contains("the tar inside"), "byte {at}: {}", rejected.message);
    }
    let mut packed = gzip("all.tar", &archive);
    let crc = packed.len() - 8;
    packed[crc] ^= 1;
    rejected_as(RejectedKind::Corrupt, &packed);
}

#[test]
fn a_tar_of_a_million_entries_stops_at_the_cap() {
    let many = member(b'0', "a", b"").repeat(150_000);
    assert!(rejected_as(RejectedKind::Unverifiable, &many).message.contains("more than 100000 entries"));
    let names = [pax(b'g', &[("path", &"a".repeat(900_000))]), member(b'0', "a", b"").repeat(30)].concat();
    assert!(rejected_as(RejectedKind::Unverifiable, &names).message.contains("names exceed"));
}
