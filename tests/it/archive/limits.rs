//! Limits, decompression bombs, and input that is no archive or of no supported format.

use bytes::Bytes;
use moesync::archive::{ArchiveLimits, Pass, RejectedKind, TooLarge, Verdict};

use super::{
    LIMITS, MIB, folder_of_files,
    gzip::gzip,
    judge_within, read, rejected_as, run, seven_zip,
    sketch::{Sketch, all_forms, sketch, zip},
    verified,
};

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
fn the_message_shows_the_start_of_input_that_is_no_archive() {
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
fn a_bomb_stops_at_the_ratio_and_a_table_that_compresses_well_does_not() {
    verified(&zip(&[sketch("zeros.csv", &vec![b'0'; 15 * MIB as usize])]));
    let bomb = zip(&[sketch("bomb.csv", &vec![b'0'; 40 * MIB as usize])]);
    assert!(rejected_as(RejectedKind::Unverifiable, &bomb).message.contains("limits.inflate_ratio"));
    let bomb = gzip("bomb.csv", &vec![b'0'; 40 * MIB as usize]);
    assert!(rejected_as(RejectedKind::Unverifiable, &bomb).message.contains("limits.inflate_ratio"));
}

#[test]
fn inflating_stops_at_the_cap_in_every_form() {
    let limits = ArchiveLimits { inflated_bytes: 1000, ..LIMITS };
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
    // Each sixteen bytes could be an unsigned descriptor of all before it, except for its checksum.
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
    let mut pass = Pass::start(ArchiveLimits { archive_bytes: limit, ..LIMITS });
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
        // Waits for all threads of the runtime.
        drop(runtime);
        ended.send(()).unwrap();
    };
    std::thread::Builder::new().name("pass".into()).spawn(pass).unwrap();
    wait.recv_timeout(std::time::Duration::from_secs(60)).expect("the thread goes on");
}
