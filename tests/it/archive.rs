//! Archives of every common writer are verified, and nothing that is broken, hidden or hostile is.
//!
//! Archives come from the real tools, or from [`Sketch`], which writes zips that no tool would. Tars are in `tar`.

mod tar;

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::LazyLock,
};

use bytes::Bytes;
use moesync::archive::{
    ArchiveEntry, ArchiveFormat, Limits, Pass, Rejected, RejectedKind, TooLarge, Verdict, Verified,
};
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

const MIB: u64 = 1024 * 1024;
const LIMITS: Limits = Limits { archive_bytes: 1024 * MIB, inflated_bytes: 1024 * MIB, inflate_ratio: 500 };

fn judge_within(limits: Limits, archive: &[u8]) -> Verdict {
    RUNTIME.block_on(async {
        let mut pass = Pass::start(limits);
        pass.feed(Bytes::copy_from_slice(archive)).await.unwrap();
        pass.finish().await
    })
}

fn judge(archive: &[u8]) -> Verdict {
    judge_within(LIMITS, archive)
}

#[track_caller]
fn verified(archive: &[u8]) -> Verified {
    match judge(archive) {
        Verdict::Verified(verified) => {
            assert_eq!(verified.size(), archive.len() as u64);
            assert_eq!(verified.sha256(), hex::encode(Sha256::digest(archive)));
            verified
        }
        Verdict::Rejected(rejected) => panic!("rejected: {}", rejected.message),
    }
}

#[track_caller]
fn rejected_as(kind: RejectedKind, archive: &[u8]) -> Rejected {
    match judge(archive) {
        Verdict::Rejected(rejected) => {
            assert_eq!(rejected.kind, kind, "{}", rejected.message);
            assert_eq!(rejected.size, archive.len() as u64);
            assert_eq!(rejected.sha256, hex::encode(Sha256::digest(archive)));
            rejected
        }
        Verdict::Verified(verified) => panic!("verified: {verified:?}"),
    }
}

// ---- the tools

/// What each tool is given to pack: a table, nothing, and something that does not compress.
fn files() -> Vec<(String, Vec<u8>)> {
    let table: String = (0..20_000).map(|row| format!("{row},campaign {},{}\n", row % 37, row * 7919)).collect();
    let mut state = 1_u32;
    let noise = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    });
    vec![
        ("Email.csv".to_owned(), table.into_bytes()),
        ("Empty.csv".to_owned(), Vec::new()),
        ("Push – año.xlsx".to_owned(), noise.take(300_000).collect()),
    ]
}

fn folder_of_files() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files() {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

/// What `tool` archived, by its verified archive: the proof, and name, size and CRC-32 of each file, sorted.
#[track_caller]
fn verified_files(tool: &str, archive: &[u8]) -> (Verified, Vec<(String, u64, Option<u32>)>) {
    let verified = match judge(archive) {
        Verdict::Verified(verified) => verified,
        Verdict::Rejected(rejected) => panic!("{tool}: rejected: {}", rejected.message),
    };
    let entries = verified.entries().iter().filter(|entry| !entry.name.ends_with('/'));
    let mut found: Vec<_> = entries.map(|entry| (entry.name.clone(), entry.size, entry.crc32)).collect();
    found.sort();
    (verified, found)
}

#[track_caller]
fn assert_holds_the_files(tool: &str, archive: &[u8]) {
    let (verified, found) = verified_files(tool, archive);
    let expected: Vec<_> = files()
        .into_iter()
        .map(|(name, content)| (name, content.len() as u64, Some(crc32fast::hash(&content))))
        .collect();
    assert_eq!(found, expected, "{tool}");
    assert_eq!(verified.warnings(), &[] as &[String], "{tool}");
}

/// Runs a tool that `package` brings, in `folder`; its standard output.
#[track_caller]
fn run(package: &str, folder: &Path, command: &[&str]) -> Vec<u8> {
    let output = Command::new(command[0])
        .args(&command[1..])
        .current_dir(folder)
        .stdin(Stdio::null())
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}; install the Debian package {package}", command[0]));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn read(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(name)).unwrap()
}

/// The 7-Zip of newer Debian packages is called 7z, of older ones 7zz.
fn seven_zip() -> &'static str {
    if Command::new("7zz").arg("i").stdout(Stdio::null()).status().is_ok() { "7zz" } else { "7z" }
}

#[test]
fn zips_of_python_are_verified_seekable_streamed_zip64_or_stored() {
    let folder = folder_of_files();
    let script = r#"
import glob, io, itertools, zipfile
class Pipe(io.RawIOBase):
    def __init__(self, file): self.file = file
    def writable(self): return True
    def write(self, data): return self.file.write(data)
files = [(name, open(name, "rb").read()) for name in sorted(glob.glob("*.*"))]
for streamed, zip64, method in itertools.product([False, True], [False, True], [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]):
    with open(f"out-{streamed:d}{zip64:d}{method}", "wb") as file:
        with zipfile.ZipFile(Pipe(file) if streamed else file, "w", method) as archive:
            archive.mkdir("folder")
            for name, content in files:
                with archive.open(name, "w", force_zip64=zip64) as entry: entry.write(content)
            archive.comment = b"made by Python"
"#;
    run("python3", folder.path(), &["python3", "-c", script]);
    for name in ["000", "008", "010", "018", "100", "108", "110", "118"] {
        assert_holds_the_files(&format!("Python {name}"), &read(folder.path(), &format!("out-{name}")));
    }
}

#[test]
fn zips_of_info_zip_are_verified_whether_to_a_file_or_a_pipe() {
    let folder = folder_of_files();
    let names = ["Email.csv", "Empty.csv", "Push – año.xlsx"];
    for options in [&["-q"][..], &["-q0"], &["-q", "-fd"], &["-q0", "-fd"], &["-qX"], &["-q", "-fz"]] {
        run("zip", folder.path(), &[&["zip"], options, &["out.zip"], &names].concat());
        assert_holds_the_files(&format!("zip {options:?} to a file"), &read(folder.path(), "out.zip"));
        std::fs::remove_file(folder.path().join("out.zip")).unwrap();
        // To a pipe, Info-ZIP 3.0 gives a zip64 archive an end that points nowhere: unzip refuses those, too.
        if !options.contains(&"-fz") {
            let piped = run("zip", folder.path(), &[&["zip"], options, &["-"], &names].concat());
            assert_holds_the_files(&format!("zip {options:?} to a pipe"), &piped);
        }
    }
    let piped = run("zip", folder.path(), &["sh", "-c", "cat Email.csv | zip -q - - | cat"]);
    let table = &files()[0].1;
    let entry = ArchiveEntry { name: "-".to_owned(), size: table.len() as u64, crc32: Some(crc32fast::hash(table)) };
    assert_eq!(verified(&piped).entries(), [entry]);
}

#[test]
fn archives_of_7_zip_are_verified() {
    let folder = folder_of_files();
    let seven_zip = seven_zip();
    for options in [&["-tzip"][..], &["-tzip", "-mx0"], &["-tzip", "-mx9"]] {
        let command = [&[seven_zip, "a"], options, &["out.zip", "Email.csv", "Empty.csv", "Push – año.xlsx"]].concat();
        run("7zip", folder.path(), &command);
        assert_holds_the_files(&format!("7-Zip {options:?}"), &read(folder.path(), "out.zip"));
        std::fs::remove_file(folder.path().join("out.zip")).unwrap();
    }
    let piped = run("7zip", folder.path(), &[seven_zip, "a", "-tgzip", "-so", "out", "Email.csv"]);
    assert_eq!(verified(&piped).entries()[0].name, "Email.csv");
}

#[test]
fn archives_of_java_are_verified() {
    let folder = folder_of_files();
    let source = r#"
import java.io.*; import java.nio.file.*; import java.util.*; import java.util.zip.*;
class Make {
    public static void main(String[] names) throws IOException {
        for (int method : new int[] {ZipEntry.DEFLATED, ZipEntry.STORED})
            try (var zip = new ZipOutputStream(new FileOutputStream("java-" + method + ".zip"))) {
                zip.putNextEntry(new ZipEntry("folder/"));
                for (String name : names) {
                    byte[] content = Files.readAllBytes(Path.of(name));
                    var entry = new ZipEntry(name);
                    entry.setMethod(method);
                    if (method == ZipEntry.STORED) {
                        var crc = new CRC32();
                        crc.update(content);
                        entry.setSize(content.length);
                        entry.setCrc(crc.getValue());
                    }
                    zip.putNextEntry(entry);
                    zip.write(content);
                }
            }
        try (var gzip = new GZIPOutputStream(new FileOutputStream("java.gz"))) {
            gzip.write(Files.readAllBytes(Path.of(names[0])));
        }
    }
}
"#;
    std::fs::write(folder.path().join("Make.java"), source).unwrap();
    let jdk = "default-jdk-headless";
    run(jdk, folder.path(), &["java", "Make.java", "Email.csv", "Empty.csv", "Push – año.xlsx"]);
    assert_holds_the_files("Java, deflated", &read(folder.path(), "java-8.zip"));
    assert_holds_the_files("Java, stored", &read(folder.path(), "java-0.zip"));
    assert_eq!(verified(&read(folder.path(), "java.gz")).entries()[0].size, files()[0].1.len() as u64);
}

#[test]
fn an_encrypted_a_split_or_an_otherwise_compressed_zip_is_unsupported_and_says_so() {
    let folder = folder_of_files();
    let (path, seven_zip) = (folder.path(), seven_zip());
    run("zip", path, &["zip", "-q", "-P", "password", "zip-encrypted", "Email.csv"]);
    run("7zip", path, &[seven_zip, "a", "-tzip", "-ppassword", "-mem=AES256", "aes.zip", "Email.csv"]);
    run("7zip", path, &[seven_zip, "a", "-tzip", "-mm=LZMA", "lzma.zip", "Email.csv"]);
    run("7zip", path, &[seven_zip, "a", "-tzip", "-mm=Deflate64", "deflate64.zip", "Email.csv"]);
    run("zip", path, &["zip", "-q", "-0", "-s", "64k", "split.zip", "Email.csv", "Push – año.xlsx"]);
    for (file, said) in [
        ("zip-encrypted.zip", "entry \"Email.csv\": encrypted"),
        ("aes.zip", "encrypted"),
        ("lzma.zip", "unsupported compression method 14"),
        ("deflate64.zip", "unsupported compression method 9"),
        ("split.z01", "split into several files"),
    ] {
        let rejected = rejected_as(RejectedKind::Unsupported, &read(path, file));
        assert!(rejected.message.contains(said), "{}", rejected.message);
    }
}

// ---- zips that no tool would write

/// One entry, to be written in any of the ways the format allows.
#[derive(Clone)]
struct Sketch {
    name: Vec<u8>,
    content: Vec<u8>,
    deflated: bool,
    /// Whether the descriptor has a signature, and whether it is 64 bits wide.
    descriptor: Option<(bool, bool)>,
    zip64: bool,
    external_attributes: u32,
}

fn sketch(name: &str, content: &[u8]) -> Sketch {
    Sketch {
        name: name.as_bytes().to_vec(),
        content: content.to_vec(),
        deflated: true,
        descriptor: None,
        zip64: false,
        external_attributes: 0,
    }
}

fn deflate(content: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

impl Sketch {
    fn data(&self) -> Vec<u8> {
        if self.deflated { deflate(&self.content) } else { self.content.clone() }
    }

    /// From the version needed to the length of the name: what local and central header have in common.
    fn common(&self, crc32: u32, compressed: u32, size: u32) -> Vec<u8> {
        let mut common = vec![if self.zip64 { 45 } else { 20 }, 0];
        common.extend([if self.descriptor.is_some() { 8 } else { 0 }, 0, if self.deflated { 8 } else { 0 }, 0]);
        common.extend([0x21, 0x43, 0x75, 0x5d]);
        common.extend([crc32, compressed, size].into_iter().flat_map(u32::to_le_bytes));
        common.extend((self.name.len() as u16).to_le_bytes());
        common
    }

    fn local(&self) -> Vec<u8> {
        let data = self.data();
        let (crc32, compressed, size) = (crc32fast::hash(&self.content), data.len() as u64, self.content.len() as u64);
        let known = if self.descriptor.is_some() { (0, 0, 0) } else { (crc32, compressed, size) };
        let mut local = b"PK\x03\x04".to_vec();
        if self.zip64 {
            local.extend(self.common(known.0, u32::MAX, u32::MAX));
            local.extend([20, 0]);
            local.extend(&self.name);
            local.extend([1, 0, 16, 0]);
            local.extend([known.2, known.1].into_iter().flat_map(u64::to_le_bytes));
        } else {
            local.extend(self.common(known.0, known.1 as u32, known.2 as u32));
            local.extend([0, 0]);
            local.extend(&self.name);
        }
        local.extend(data);
        if let Some((signed, wide)) = self.descriptor {
            local.extend(if signed { b"PK\x07\x08".as_slice() } else { b"" });
            local.extend(crc32.to_le_bytes());
            for length in [compressed, size] {
                local.extend(&length.to_le_bytes()[..if wide { 8 } else { 4 }]);
            }
        }
        local
    }

    fn central(&self, offset: usize) -> Vec<u8> {
        let (compressed, size) = (self.data().len() as u64, self.content.len() as u64);
        let mut extra = Vec::new();
        if self.zip64 {
            extra.extend([1, 0, 16, 0]);
            extra.extend([size, compressed].into_iter().flat_map(u64::to_le_bytes));
        }
        let shown = |length: u64| if self.zip64 { u32::MAX } else { length as u32 };
        let mut central = b"PK\x01\x02\x1e\x03".to_vec();
        central.extend(self.common(crc32fast::hash(&self.content), shown(compressed), shown(size)));
        central.extend((extra.len() as u16).to_le_bytes());
        central.extend([0; 6]);
        central.extend(self.external_attributes.to_le_bytes());
        central.extend((offset as u32).to_le_bytes());
        central.extend(&self.name);
        central.extend(extra);
        central
    }
}

/// An archive of given local parts and central headers, with an end that fits them.
fn assemble(locals: &[Vec<u8>], centrals: &[Vec<u8>]) -> Vec<u8> {
    let (mut archive, directory) = (locals.concat(), centrals.concat());
    let offset = archive.len() as u32;
    archive.extend(&directory);
    archive.extend(b"PK\x05\x06\0\0\0\0");
    archive.extend([centrals.len() as u16; 2].into_iter().flat_map(u16::to_le_bytes));
    archive.extend([directory.len() as u32, offset].into_iter().flat_map(u32::to_le_bytes));
    archive.extend([0, 0]);
    archive
}

fn zip(sketches: &[Sketch]) -> Vec<u8> {
    let locals: Vec<_> = sketches.iter().map(Sketch::local).collect();
    let mut offset = 0;
    let centrals: Vec<_> = sketches
        .iter()
        .zip(&locals)
        .map(|(sketch, local)| {
            let central = sketch.central(offset);
            offset += local.len();
            central
        })
        .collect();
    assemble(&locals, &centrals)
}

/// Every way of writing an entry.
fn all_forms() -> Vec<Sketch> {
    let mut forms = Vec::new();
    for content in [b"day,sent\n2026-11-21,7\n".as_slice(), b""] {
        for deflated in [false, true] {
            for zip64 in [false, true] {
                let descriptors = [(false, false), (false, true), (true, false), (true, true)];
                for descriptor in descriptors.into_iter().map(Some).chain([None]) {
                    let name = format!("{}.csv", forms.len());
                    forms.push(Sketch { deflated, descriptor, zip64, ..sketch(&name, content) });
                }
            }
        }
    }
    forms
}

#[test]
fn every_form_of_entry_and_descriptor_is_verified_alone_and_beside_all_others() {
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
            // Versions needed, and flags but for those of the data, may differ.
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
fn data_after_the_end_is_unverifiable_and_a_comment_is_not_after_the_end() {
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
fn a_central_header_that_says_otherwise_is_corrupt_and_the_message_names_the_field() {
    let entry = sketch("a.csv", b"day,sent\n");
    for (at, field) in [
        (10, "compression method"),
        (12, "modification time"),
        (14, "modification time"),
        (16, "CRC-32"),
        (20, "compressed size"),
        (24, "size"),
        (42, "where none begins"),
        (46, "calls"),
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
    // How the bytes of a name are to be read is a part of the name, where it matters.
    let entry = sketch("año.csv", b"day,sent\n");
    let mut central = entry.central(0);
    central[9] ^= 8;
    rejected_as(RejectedKind::Corrupt, &assemble(&[entry.local()], &[central]));
}

#[test]
fn headers_that_differ_in_no_matter_of_data_are_verified_with_a_warning() {
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
        // Announced by both, with the truth in the local header, and not there.
        let mut local = Sketch { deflated, ..entry.clone() }.local();
        local[6] ^= 8;
        let central = described.central(0);
        let warnings = self::verified(&assemble(&[local.clone()], std::slice::from_ref(&central))).warnings().to_vec();
        assert_eq!(warnings, ["entry \"a.csv\": a data descriptor is announced, and there is none"]);
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
fn unsupported_formats_are_named_and_the_message_says_what_to_choose() {
    for (head, name) in [
        (b"Rar!\x1a\x07\x00".as_slice(), "rar"),
        (b"Rar!\x1a\x07\x01\x00", "rar"),
        (b"7z\xbc\xaf\x27\x1c", "7z"),
        (b"\xfd7zXZ\x00", "xz"),
        (b"BZh91AY&SY", "bzip2"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
    ] {
        let rejected = rejected_as(RejectedKind::Unsupported, &[head, &[7; 1000]].concat());
        assert!(rejected.message.starts_with(&format!("{name} archive: ")), "{}", rejected.message);
        assert!(rejected.message.contains("choose zip in the report's settings"), "{}", rejected.message);
    }
    let folder = folder_of_files();
    run("7zip", folder.path(), &[seven_zip(), "a", "out.7z", "Email.csv"]);
    rejected_as(RejectedKind::Unsupported, &read(folder.path(), "out.7z"));
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

// ---- gzip

fn gzip(name: &str, content: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let builder = flate2::GzBuilder::new().filename(name).comment("made here").extra([1, 2, 3]);
    let mut encoder = builder.write(Vec::new(), flate2::Compression::best());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// With a checksum of the header, which flate2 does not write: no optional field but that.
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
        // The flag that says there is a checksum of the header is the one that it cannot guard: without it, the
        // checksum is read as data, which it is not.
        assert!(bit / 8 == padding || matches!(judge(&flipped), Verdict::Rejected(_)), "byte {}", bit / 8);
    }
}

// ---- limits, bombs, and what is no archive

#[test]
fn what_is_no_archive_is_shown_in_the_message() {
    for (content, shown) in [
        (b"".as_slice(), "empty"),
        (b"<!DOCTYPE html>\n<title>Sorry</title>", "<!DOCTYPE html> <title>Sorry</title>"),
        (b"{\"error\": {\"message\": \"no\"}}", "error"),
        (b"day,sent\r\n1,2\r\n", "day,sent  1,2"),
        (b"\n\nPK\x03\x04", "PK"),
        (b"\0\0\0\0", "zeros"),
    ] {
        let rejected = rejected_as(RejectedKind::NotAnArchive, content);
        assert!(rejected.message.contains(shown), "{}", rejected.message);
        assert!(!rejected.message.contains(char::is_control), "{}", rejected.message);
    }
    let rejected = rejected_as(RejectedKind::NotAnArchive, &vec![b'x'; 1_000_000]);
    assert!(rejected.message.len() < 200, "{}", rejected.message);
}

#[test]
fn a_table_that_compresses_extremely_well_is_no_bomb_and_a_bomb_stops_at_the_ratio() {
    verified(&zip(&[sketch("zeros.csv", &vec![b'0'; 15 * MIB as usize])]));
    let bomb = zip(&[sketch("bomb.csv", &vec![b'0'; 40 * MIB as usize])]);
    assert!(rejected_as(RejectedKind::Unverifiable, &bomb).message.contains("limits.inflate_ratio"));
    let bomb = gzip("bomb.csv", &vec![b'0'; 40 * MIB as usize]);
    assert!(rejected_as(RejectedKind::Unverifiable, &bomb).message.contains("limits.inflate_ratio"));
}

#[test]
fn inflating_stops_at_the_cap_whatever_the_form() {
    let limits = Limits { inflated_bytes: 1000, ..LIMITS };
    let content = [b'1'; 1001];
    for form in all_forms() {
        for (length, allowed) in [(1000, true), (1001, false)] {
            let archive = zip(&[Sketch { content: content[..length].to_vec(), ..form.clone() }]);
            assert_eq!(matches!(judge_within(limits, &archive), Verdict::Verified(_)), allowed, "{length}");
        }
    }
}

#[test]
fn a_million_entries_stop_at_the_cap_and_everything_is_still_hashed() {
    let local = Sketch { deflated: false, ..sketch("a", b"") }.local();
    let rejected = rejected_as(RejectedKind::Unverifiable, &local.repeat(1_000_000));
    assert!(rejected.message.contains("more than 100000 entries"), "{}", rejected.message);
    let rejected = rejected_as(RejectedKind::Unverifiable, &gzip("a", b"").repeat(1_000_000));
    assert!(rejected.message.contains("more than 100000 entries"), "{}", rejected.message);
}

#[test]
fn names_that_would_fill_the_memory_stop_at_the_cap() {
    let local = Sketch { deflated: false, ..sketch(&"a".repeat(65_535), b"") }.local();
    let rejected = rejected_as(RejectedKind::Unverifiable, &local.repeat(300));
    assert!(rejected.message.contains("names exceed"), "{}", rejected.message);
}

#[test]
fn a_stored_entry_full_of_false_ends_is_verified() {
    // Each sixteen bytes could be an unsigned descriptor of all before it, but for its checksum.
    let mut content = Vec::new();
    while content.len() < 8 * MIB as usize {
        let size = (content.len() as u32).to_le_bytes();
        content.extend([&[1, 2, 3, 4], &size, &size, &b"PK\x03\x04"[..]].concat());
    }
    let entry = Sketch { deflated: false, descriptor: Some((true, false)), ..sketch("a", &content) };
    // Hashing the entry again at each of them would take hours.
    verified(&zip(&[entry]));
}

#[tokio::test]
async fn more_bytes_than_allowed_are_refused_and_never_verified() {
    let archive = zip(&[sketch("a.csv", b"1")]);
    let limit = archive.len() as u64;
    let mut pass = Pass::start(Limits { archive_bytes: limit, ..LIMITS });
    pass.feed(Bytes::from(archive)).await.unwrap();
    assert_eq!(pass.feed(Bytes::from_static(b"x")).await, Err(TooLarge { limit }));
    let Verdict::Rejected(rejected) = pass.finish().await else { panic!("verified") };
    assert_eq!(rejected.kind, RejectedKind::Unverifiable);
}

#[test]
fn dropping_a_pass_ends_its_thread() {
    let (ended, wait) = std::sync::mpsc::channel();
    let pass = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut pass = Pass::start(LIMITS);
            let entry = Sketch { deflated: false, ..sketch("a", &vec![7; 3 * MIB as usize]) };
            pass.feed(Bytes::from(entry.local())).await.unwrap();
        });
        // Waits for every thread that works for the runtime.
        drop(runtime);
        ended.send(()).unwrap();
    };
    std::thread::Builder::new().name("pass".into()).spawn(pass).unwrap();
    wait.recv_timeout(std::time::Duration::from_secs(60)).expect("the thread goes on");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the zip crate writes, streamed or not, and however it arrives.
    #[test]
    fn every_archive_of_the_zip_crate_is_verified(
        files in proptest::collection::vec((any::<u16>(), proptest::collection::vec(0u8..8, 0..5000), any::<bool>(), any::<bool>()), 0..8),
        streamed in any::<bool>(),
        chunk in 1usize..3000,
    ) {
        use std::io::Write as _;
        fn write<W: std::io::Write + std::io::Seek>(mut writer: zip::ZipWriter<W>, files: &[(u16, Vec<u8>, bool, bool)]) -> W {
            for (index, (name, content, deflated, large)) in files.iter().enumerate() {
                let method = if *deflated { zip::CompressionMethod::Deflated } else { zip::CompressionMethod::Stored };
                let options = zip::write::SimpleFileOptions::default().compression_method(method).large_file(*large);
                writer.start_file(format!("{index}-{name}.csv"), options).unwrap();
                writer.write_all(content).unwrap();
            }
            writer.finish().unwrap()
        }
        let archive = if streamed {
            write(zip::ZipWriter::new_stream(Vec::new()), &files).into_inner()
        } else {
            write(zip::ZipWriter::new(std::io::Cursor::new(Vec::new())), &files).into_inner()
        };
        let verdict = RUNTIME.block_on(async {
            let mut pass = Pass::start(LIMITS);
            for chunk in archive.chunks(chunk) {
                pass.feed(Bytes::copy_from_slice(chunk)).await.unwrap();
            }
            pass.finish().await
        });
        let Verdict::Verified(verified) = verdict else { panic!("{verdict:?}") };
        let found: Vec<_> = verified.entries().iter().map(|entry| (entry.size, entry.crc32)).collect();
        let expected: Vec<_> = files.iter().map(|(_, content, ..)| (content.len() as u64, Some(crc32fast::hash(content)))).collect();
        prop_assert_eq!(found, expected);
    }
}
