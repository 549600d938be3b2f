//! Bodies that are cut, reset or stalled.

use std::time::Duration;

use moesync::outcome::Outcome;

use super::{
    fetch, fetch_with, impatient, open, raw_answer, report,
    server::{Authority, Server, Step},
    trusting,
};

#[tokio::test]
async fn a_body_cut_anywhere_is_corrupt_and_the_message_has_its_length() {
    let whole = b"PK\x05\x06 sixteen bytes in here";
    for cut in 0..whole.len() {
        let server = Server::start(move |_| {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", whole.len());
            vec![Step::Send(head.into_bytes()), Step::Send(whole[..cut].to_vec())]
        })
        .await;
        let failure = fetch(&report(&server.url())).await.unwrap_err();
        assert_eq!(
            (failure.outcome, failure.evidence.seen, failure.evidence.http_status),
            (Outcome::Corrupt, true, Some(200))
        );
        assert!(failure.message.contains(&format!("{cut} of {} bytes", whole.len())), "{failure}");
    }
    let chunked = b"4\r\nPK\x05\x06\r\n3\r\nabc\r\n0\r\n\r\n";
    for cut in 0..chunked.len() {
        let server = Server::start(move |_| {
            let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            vec![Step::Send(head.to_vec()), Step::Send(chunked[..cut].to_vec())]
        })
        .await;
        let failure = fetch(&report(&server.url())).await.expect_err(&format!("cut at {cut}"));
        assert_eq!((failure.outcome, failure.evidence.seen), (Outcome::Corrupt, true), "{failure}");
    }
}

#[tokio::test]
async fn broken_chunks_are_corrupt_and_a_reset_is_unavailable() {
    let server =
        Server::start(|_| vec![Step::Send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec())])
            .await;
    assert_eq!(fetch(&report(&server.url())).await.unwrap_err().outcome, Outcome::Corrupt);

    let server = Server::start(|_| {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nPK";
        vec![Step::Send(head.to_vec()), Step::Pause(Duration::from_millis(20)), Step::Reset]
    })
    .await;
    let failure = fetch(&report(&server.url())).await.unwrap_err();
    assert_eq!((failure.outcome, failure.evidence.seen), (Outcome::Unavailable, true), "{failure}");
    assert!(failure.message.contains("2 of 100 bytes"), "{failure}");
}

#[tokio::test]
async fn a_failed_download_keeps_returning_its_failure() {
    let server = Server::start(|_| vec![Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n".to_vec())]).await;
    let mut download = open(&report(&server.url())).await.unwrap();
    let first = download.chunk().await.unwrap_err();
    assert_eq!(download.chunk().await.unwrap_err(), first);
}

#[tokio::test]
async fn tls_without_close_notify_is_a_cut_if_the_length_is_unknown() {
    let authority = Authority::new();
    let body = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nPK\x05\x06";
    let cut = Server::tls(authority.acceptor(), |_| vec![Step::Send(body.to_vec()), Step::Drop]).await;
    let failure = fetch_with(&trusting(&authority), &report(&cut.url())).await.unwrap_err();
    assert_eq!((failure.outcome, failure.evidence.seen), (Outcome::Corrupt, true), "{failure}");
    let whole = Server::tls(authority.acceptor(), |_| vec![Step::Send(body.to_vec())]).await;
    assert_eq!(fetch_with(&trusting(&authority), &report(&whole.url())).await.unwrap(), b"PK\x05\x06");
}

#[tokio::test]
async fn over_http2_a_short_body_is_corrupt_and_a_whole_one_arrives() {
    let authority = Authority::new();
    for (sent, expected) in [(&b"PK\x05\x06"[..], Ok(())), (b"PK", Err(Outcome::Corrupt))] {
        let server = Server::http2(&authority, 4, sent).await;
        let fetched = fetch_with(&trusting(&authority), &report(&server.url())).await;
        assert_eq!(fetched.map(|bytes| assert_eq!(bytes, sent)).map_err(|failure| failure.outcome), expected);
        assert!(server.requests()[0].starts_with("GET HTTP/2.0 /campaign_reports/"), "{:?}", server.requests());
    }
}

#[tokio::test]
async fn a_body_that_stalls_ends_at_the_deadline_of_the_attempt() {
    let server =
        Server::start(|_| vec![Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nPK".to_vec()), Step::Hang])
            .await;
    let failure = fetch_with(&impatient(Duration::from_secs(1)), &report(&server.url())).await.unwrap_err();
    assert_eq!((failure.outcome, failure.evidence.seen), (Outcome::Unavailable, true));
    assert!(failure.message.contains("within 1s, only 2 of 9 bytes"), "{failure}");
}

#[tokio::test]
async fn a_missing_answer_ends_at_the_deadline_of_the_attempt() {
    let server = Server::start(|_| vec![Step::Hang]).await;
    let failure = fetch_with(&impatient(Duration::from_millis(300)), &report(&server.url())).await.unwrap_err();
    assert_eq!((failure.outcome, failure.evidence.seen), (Outcome::Unavailable, false));
    assert!(failure.message.contains("did not answer within 300ms"), "{failure}");
}

#[tokio::test]
async fn an_odd_content_length_never_makes_a_cut_body_look_whole() {
    for (head, body) in [
        ("Content-Length : 90\r\n", "PK cut"),
        ("Content-Length:\r\n 90\r\n", "PK cut"),
        ("Content-Length: 9\r\n 0\r\n", "PK cut"),
        ("Content-Length\t: 90\r\n", "PK cut"),
        ("Content Length: 90\r\n", "PK cut"),
        ("Content-Length: 90\x01\r\n", "PK cut"),
        ("\"Content-Length\": 90\r\n", "PK cut"),
        ("(x): y\r\nContent-Length: 90\r\n", "PK cut"),
        ("Transfer-Encoding : chunked\r\n", "6\r\nPK cut\r\n"),
        ("Transfer-Encoding:\r\n chunked\r\n", "6\r\nPK cut\r\n"),
        ("Transfer Encoding: chunked\r\n", "6\r\nPK cut\r\n"),
        ("Transfer-Encoding: chunked\x01\r\n", "6\r\nPK cut\r\n"),
        ("(x): y\r\nTransfer-Encoding: identity\r\n", "PK cut"),
    ] {
        let server = Server::start(move |_| raw_answer(head, body.as_bytes())).await;
        let fetched = fetch(&report(&server.url())).await;
        let failure = fetched.expect_err(head);
        assert!(matches!(failure.outcome, Outcome::Corrupt | Outcome::Unavailable), "{head:?}: {failure}");
    }
}
