//! Zips as real tools write them: Python, Info-ZIP, 7-Zip, Java and the zip crate.

use bytes::Bytes;
use moesync::archive::{ArchiveEntry, Pass, RejectedKind, Verdict};
use proptest::prelude::*;

use super::{LIMITS, RUNTIME, files, folder_of_files, read, rejected_as, run, seven_zip, verified, verified_files};

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
        // Into a pipe, Info-ZIP 3.0 writes zip64 archives whose end has an invalid offset; unzip refuses them as well.
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
fn encrypted_split_and_otherwise_compressed_zips_are_unsupported() {
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Archives of the zip crate, streamed or not, in chunks of any size.
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
