//! Answers with an error status: outcome, message and `Retry-After`.

use std::time::Duration;

use moesync::outcome::{Outcome, RetryAfter};

use super::{
    daily, fetch, fetch_with, impatient, open, report,
    server::{Server, Step, answer},
};

#[tokio::test]
async fn every_status_has_the_outcome_of_the_table() {
    let table = [
        (201, Outcome::Corrupt),
        (204, Outcome::Corrupt),
        (206, Outcome::Corrupt),
        (304, Outcome::Unavailable),
        (400, Outcome::NotPublished),
        (401, Outcome::Unauthorized),
        (403, Outcome::Unauthorized),
        (404, Outcome::NotPublished),
        (407, Outcome::Unavailable),
        (408, Outcome::Unavailable),
        (410, Outcome::NotPublished),
        (418, Outcome::NotPublished),
        (425, Outcome::Unavailable),
        (429, Outcome::RateLimited),
        (500, Outcome::Unavailable),
        (503, Outcome::Unavailable),
        (599, Outcome::Unavailable),
    ];
    for (status, outcome) in table {
        let server = Server::start(move |_| {
            answer(&format!("{status} Status"), "Date: Sat, 21 Nov 2026 10:00:00 GMT\r\nX-Request-Id: r-1", b"")
        })
        .await;
        for report in [report(&server.url()), daily(&server.url())] {
            let failure = open(&report).await.err().unwrap();
            assert_eq!((failure.outcome, failure.evidence.http_status), (outcome, Some(status)), "{failure}");
            assert_eq!(failure.evidence.seen, (200..300).contains(&status), "{failure}");
            assert_eq!(failure.evidence.vendor_date, Some("2026-11-21T10:00:00Z".parse().unwrap()), "{failure}");
            assert!(failure.message.contains(&status.to_string()), "{failure}");
        }
    }
}

#[tokio::test]
async fn the_message_quotes_moengages_error() {
    let cases: [(&[u8], &str, Option<&str>); 6] = [
        (
            br#"{"error": {"attribute": "", "message": "File\nnot \u001b[31mfound\u202e", "type": "BAD REQUEST", "request_id": "q7"}}"#,
            "BAD REQUEST: File not [31mfound (request q7)",
            Some("q7"),
        ),
        (
            br#"{"title": "Invalid", "description": "no such app", "code": "400"}"#,
            "400: Invalid: no such app",
            None,
        ),
        (
            br#"{"error": "IP Validation Required", "message": "IP Validation Failed"}"#,
            "IP Validation Required: IP Validation Failed",
            None,
        ),
        (
            b"<html><title>Attention Required! | Cloudflare</title></html>",
            "a web page titled `Attention Required! | Cloudflare`",
            None,
        ),
        (b"<html>nginx</html>", "API firewall does not list this machine's address", None),
        (br#"{"error": {"message": "", "request_id": ""}}"#, "API firewall does not list this machine's address", None),
    ];
    for (body, ending, request_id) in cases {
        let server = Server::start(move |_| answer("400 Bad Request", "", body)).await;
        let failure = open(&report(&server.url())).await.err().unwrap();
        assert!(failure.message.ends_with(ending), "{failure}");
        assert_eq!(failure.evidence.request_id.as_deref(), request_id);
    }
}

#[tokio::test]
async fn an_endless_error_body_is_cut_short() {
    let server = Server::start(|_| {
        let mut steps = vec![Step::Send(b"HTTP/1.1 400 Bad Request\r\n\r\n{\"error\": {\"message\": \"".to_vec())];
        steps.extend((0..64).map(|_| Step::Send(vec![b'x'; 4096])));
        steps.push(Step::Hang);
        steps
    })
    .await;
    assert_eq!(open(&report(&server.url())).await.err().unwrap().outcome, Outcome::NotPublished);

    let server = Server::start(|_| {
        answer("400 Bad Request", "", format!(r#"{{"error": {{"message": "{}"}}}}"#, "é".repeat(9000)).as_bytes())
    })
    .await;
    let message = open(&report(&server.url())).await.err().unwrap().message;
    assert_eq!(message.matches('é').count(), 200);
}

#[tokio::test]
async fn retry_after_is_read_in_both_forms() {
    let dated = "Date: Sat, 21 Nov 2026 10:00:00 GMT\r\nRetry-After: Sat, 21 Nov 2026 10:02:00 GMT";
    let past = "Date: Sat, 21 Nov 2026 10:00:00 GMT\r\nRetry-After: Sat, 21 Nov 2026 09:00:00 GMT";
    let cases = [
        ("Retry-After: 17", Some(RetryAfter::Seconds(17))),
        ("Retry-After: 0", Some(RetryAfter::Seconds(0))),
        ("Retry-After: 31536000", Some(RetryAfter::Seconds(31_536_000))),
        ("Retry-After: 99999999999999999999999", Some(RetryAfter::Seconds(u64::MAX))),
        (dated, Some(RetryAfter::Seconds(120))),
        (past, Some(RetryAfter::Seconds(0))),
        ("Retry-After: Sat, 21 Nov 2026 10:02:00 GMT", Some(RetryAfter::At("2026-11-21T10:02:00Z".parse().unwrap()))),
        ("Retry-After: soon", None),
        ("Retry-After: -1", None),
        ("", None),
    ];
    for (headers, expected) in cases {
        let server = Server::start(move |_| answer("429 Too Many Requests", headers, b"")).await;
        assert_eq!(open(&report(&server.url())).await.err().unwrap().evidence.retry_after, expected, "{headers}");
    }
}

#[tokio::test]
async fn an_error_body_that_stalls_does_not_hide_the_status() {
    let server = Server::start(|_| {
        vec![Step::Send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n{".to_vec()), Step::Hang]
    })
    .await;
    let failure = fetch_with(&impatient(Duration::from_secs(1)), &report(&server.url())).await.unwrap_err();
    assert_eq!((failure.outcome, failure.evidence.http_status), (Outcome::NotPublished, Some(404)));
}

#[tokio::test]
async fn an_answer_that_a_proxy_changed_is_not_an_archive() {
    let server = Server::start(|_| answer("203 Non-Authoritative Information", "", b"PK\x05\x06")).await;
    let failure = fetch(&report(&server.url())).await.unwrap_err();
    assert_eq!(failure.outcome, Outcome::Corrupt);
    assert!(failure.message.starts_with("a proxy changed what MoEngage sent for "), "{failure}");
}
