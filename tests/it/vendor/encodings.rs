//! `Content-Encoding`: gzip around an archive is removed, gzip that is the archive is not.

use std::{io::Write, time::Duration};

use flate2::{Compression, write::GzEncoder};
use moesync::outcome::Outcome;

use super::{
    fetch, open, read, report,
    server::{Server, Step, answer},
};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn transfer_gzip_is_removed_and_an_archive_labelled_gzip_is_kept() {
    let zip = b"PK\x03\x04 a zip with some more bytes, so that cutting it hurts".as_slice();
    let empty_zip = b"PK\x05\x06\0\0".as_slice();
    let csv = b"campaign,sent\n1,2\n".as_slice();
    let rar = b"Rar!\x1a\x07\x01\0 and more".as_slice();
    let mut tar = vec![b'0'; 1024];
    tar[257..263].copy_from_slice(b"ustar\0");
    let mut two_members = gzip(&zip[..20]);
    two_members.extend(gzip(&zip[20..]));
    let mut named = b"\x1f\x8b\x08\x08\0\0\0\0\0\xff".to_vec();
    named.extend([b'n'; 3000]);
    named.push(0);
    named.extend(&gzip(zip)[10..]);
    let cases: Vec<(&str, Vec<u8>, &[u8])> = vec![
        ("gzip", gzip(zip), zip),
        ("GZip", gzip(empty_zip), empty_zip),
        ("x-gzip", gzip(&gzip(csv)), &[]),
        ("identity, gzip", two_members, zip),
        ("gzip", named, zip),
        ("gzip", gzip(csv), &[]),
        ("gzip", zip.to_vec(), &[]),
        ("gzip", b"".to_vec(), &[]),
        ("gzip", b"\x1f".to_vec(), &[]),
        ("gzip", gzip(zip)[..8].to_vec(), &[]),
        ("br", gzip(zip), &[]),
        ("gzip, gzip", gzip(&gzip(zip)), zip),
        ("identity", gzip(zip), &[]),
        ("gzip, x-gzip, gzip", gzip(&gzip(&gzip(zip))), zip),
        ("gzip, gzip", gzip(zip), zip),
        ("gzip, gzip", zip.to_vec(), &[]),
        ("gzip, gzip", gzip(csv), &[]),
        ("gzip, br", gzip(&gzip(zip)), &[]),
        ("br, gzip", gzip(zip), zip),
        ("gzip", gzip(&tar), &tar),
        ("gzip", gzip(rar), rar),
    ];
    for (at, (encoding, sent, inside)) in cases.into_iter().enumerate() {
        let body = sent.clone();
        let server = Server::start(move |_| {
            // In small pieces, so that no decision has all its input in one piece.
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {}\r\n\r\n", body.len());
            let mut steps = vec![Step::Send(head.into_bytes())];
            for piece in body.chunks(body.len().div_ceil(8).max(1)) {
                steps.extend([Step::Send(piece.to_vec()), Step::Pause(Duration::from_millis(1))]);
            }
            steps
        })
        .await;
        let inner = gzip(csv);
        let stripped = if at == 2 { inner.as_slice() } else { inside };
        let download = open(&report(&server.url())).await.unwrap();
        let expected = if stripped.is_empty() { sent.as_slice() } else { stripped };
        let announced = stripped.is_empty().then_some(sent.len() as u64);
        assert_eq!(download.content_length, announced, "case {at}");
        assert_eq!(read(download).await.unwrap(), expected, "case {at}");
    }
}

#[tokio::test]
async fn a_gzip_around_what_is_sent_in_place_of_an_archive_is_removed() {
    let page = b"\xef\xbb\xbf\n<!doctype html><title>Please log in</title>".as_slice();
    let long_page = [page, [b' '; 2000].as_slice()].concat();
    let json = b" {\"error\": \"no\"}".as_slice();
    let csv = b"campaign,sent\n1,2\n".as_slice();
    for (encoding, content, is_removed) in [
        ("gzip", page, true),
        ("gzip", &long_page, true),
        ("gzip", json, true),
        ("gzip", b"", true),
        ("gzip", csv, false),
        ("identity", page, true),
        ("identity", &long_page, true),
        // As lines of JSON are.
        ("identity", json, false),
        ("identity", b"", false),
        ("identity", csv, false),
    ] {
        let sent = gzip(content);
        let header = format!("Content-Encoding: {encoding}");
        let body = sent.clone();
        let server = Server::start(move |_| answer("200 OK", &header, &body)).await;
        let received = read(open(&report(&server.url())).await.unwrap()).await.unwrap();
        let expected = if is_removed { content } else { &sent };
        assert_eq!(received, expected, "{encoding}: {}", content.escape_ascii());
    }
}

#[tokio::test]
async fn a_transfer_gzip_is_removed_and_more_than_four_layers_are_refused() {
    let zip = b"PK\x03\x04 a zip with some more bytes, so that cutting it hurts".as_slice();
    let packed = gzip(&gzip(zip));
    let server = Server::start(move |_| {
        let mut body =
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: gzip, chunked\r\n\r\n".to_vec();
        for chunk in packed.chunks(7) {
            body.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
            body.extend(chunk);
            body.extend(b"\r\n");
        }
        body.extend(b"0\r\n\r\n");
        vec![Step::Send(body)]
    })
    .await;
    assert_eq!(read(open(&report(&server.url())).await.unwrap()).await.unwrap(), zip);
    let sent = gzip(zip);
    let server =
        Server::start(move |_| answer("200 OK", "Content-Encoding: gzip, gzip, gzip, gzip, gzip", &sent)).await;
    let failure = fetch(&report(&server.url())).await.unwrap_err();
    assert_eq!((failure.outcome, failure.evidence.seen), (Outcome::Corrupt, true), "{failure}");
    assert!(failure.message.contains("5 layers"), "{failure}");
}

#[tokio::test]
async fn a_damaged_or_short_transfer_gzip_is_corrupt() {
    let zip: Vec<u8> = b"PK\x03\x04"
        .iter()
        .copied()
        .chain((0..4000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()))
        .collect();
    let packed = gzip(&zip);
    let mut flipped = packed.clone();
    let checksum = flipped.len() - 6;
    flipped[checksum] ^= 1;
    let mut followed = packed.clone();
    followed.extend(b"more");
    let damaged = [flipped, followed, packed[..packed.len() - 1].to_vec(), packed[..2000].to_vec()];
    let twice = damaged.iter().map(|damaged| ("gzip, gzip", gzip(damaged)));
    for (encoding, sent) in damaged.iter().map(|damaged| ("gzip", damaged.clone())).chain(twice) {
        let header = format!("Content-Encoding: {encoding}");
        let server = Server::start(move |_| answer("200 OK", &header, &sent)).await;
        let failure = fetch(&report(&server.url())).await.unwrap_err();
        assert_eq!((failure.outcome, failure.evidence.seen), (Outcome::Corrupt, true), "{failure}");
        assert!(failure.message.contains("gzip"), "{failure}");
    }
}

#[tokio::test]
async fn a_bomb_in_the_transfer_encoding_is_read_in_small_pieces() {
    let mut bomb = b"PK\x03\x04".to_vec();
    bomb.resize(64 * 1024 * 1024, 0);
    let packed = gzip(&bomb);
    let server = Server::start(move |_| answer("200 OK", "Content-Encoding: gzip", &packed)).await;
    let mut download = open(&report(&server.url())).await.unwrap();
    let mut total = 0;
    while let Some(bytes) = download.chunk().await.unwrap() {
        assert!(bytes.len() <= 256 * 1024, "{}", bytes.len());
        total += bytes.len();
    }
    assert_eq!(total, bomb.len());
}
