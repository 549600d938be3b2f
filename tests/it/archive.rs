//! Archives of every common writer are verified; broken, ambiguous and hostile ones are rejected.

mod gzip;
mod limits;
mod sketch;
mod tar;
mod zip_ambiguities;
mod zip_forms;
mod zip_tools;

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::LazyLock,
};

use bytes::Bytes;
use moesync::archive::{ArchiveFormat, ArchiveLimits, Pass, Rejected, RejectedKind, Verdict, Verified};
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

const MIB: u64 = 1024 * 1024;
const LIMITS: ArchiveLimits =
    ArchiveLimits { archive_bytes: 1024 * MIB, inflated_bytes: 1024 * MIB, inflate_ratio: 500 };

fn judge_within(limits: ArchiveLimits, archive: &[u8]) -> Verdict {
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

/// The files that each tool packs: a table, an empty file, and one that does not compress.
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

/// Verifies an archive of `tool`: the proof, and name, size and CRC-32 of each file, sorted.
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

/// Runs a tool of the Debian package `package` in `folder`; returns its standard output.
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

fn folder_of_files() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files() {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

/// 7-Zip is called 7z in newer Debian packages, 7zz in older ones.
fn seven_zip() -> &'static str {
    if Command::new("7zz").arg("i").stdout(Stdio::null()).status().is_ok() { "7zz" } else { "7z" }
}
