//! Redirects: which are followed, and what the next server receives.

use std::sync::{Arc, Mutex};

use moesync::{config::Network, moengage::Client, outcome::Outcome};

use super::{
    ca_file, daily, fetch, fetch_with, header, limits, named_file, open, read, report,
    server::{Authority, Server, answer},
    signature_of,
};

#[tokio::test]
async fn presigned_storage_gets_the_request_but_no_credential() {
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let storage = Server::start(|_| answer("200 OK", "Date: Thu, 01 Jan 2032 00:00:00 GMT", b"PK\x05\x06")).await;
        let place = storage.url().replace("http://", "http://user:pass@");
        let vendor = Server::start(move |_| {
            let date = "Date: Sat, 21 Nov 2026 10:00:00 GMT";
            answer(status, &format!("{date}\r\nLocation: {place}/bucket/x.zip?X-Amz-Signature=presigned"), b"moved")
        })
        .await;
        for report in [report(&vendor.url()), daily(&vendor.url())] {
            let download = open(&report).await.unwrap();
            assert_eq!(
                download.evidence.vendor_date,
                Some("2026-11-21T10:00:00Z".parse().unwrap()),
                "the vendor's own date"
            );
            assert_eq!(read(download).await.unwrap(), b"PK\x05\x06");
            let seen = storage.requests().pop().unwrap();
            assert!(seen.starts_with("GET /bucket/x.zip?X-Amz-Signature=presigned HTTP/1.1\r\n"), "{seen}");
            for secret in ["\r\nsignature:", "authorization", "referer", &signature_of(&report)] {
                assert!(!seen.contains(secret), "{seen}");
            }
        }
    }
}

#[tokio::test]
async fn the_same_origin_still_sees_the_signature_after_a_relative_redirect() {
    let vendor = Server::start(|request| match request.starts_with("GET /moved ") {
        true => answer("200 OK", "", b"PK"),
        false => answer("302 Found", "Location: /moved", b""),
    })
    .await;
    let report = report(&vendor.url());
    fetch(&report).await.unwrap();
    let seen = vendor.requests();
    assert_eq!(seen.len(), 2);
    assert_eq!(header(&seen[1], "signature"), Some(signature_of(&report).as_str()));
}

#[tokio::test]
async fn a_redirect_back_from_another_origin_carries_no_signature() {
    let vendor_url = Arc::new(Mutex::new(String::new()));
    let back = Arc::clone(&vendor_url);
    let other =
        Server::start(move |_| answer("302 Found", &format!("Location: {}/back", back.lock().unwrap()), b"")).await;
    let other_url = other.url();
    let vendor = Server::start(move |request| match request.starts_with("GET /back ") {
        true => answer("200 OK", "", b"PK"),
        false => answer("302 Found", &format!("Location: {other_url}/"), b""),
    })
    .await;
    *vendor_url.lock().unwrap() = vendor.url();
    fetch(&report(&vendor.url())).await.unwrap();
    assert_eq!(header(&vendor.requests()[1], "signature"), None);
}

#[tokio::test]
async fn a_redirect_that_would_send_the_signature_elsewhere_is_refused() {
    let other = Server::start(|_| answer("200 OK", "", b"PK")).await;
    let other_url = other.url();
    let vendor = Server::start(move |request| {
        let target = request.split(' ').nth(1).unwrap();
        answer("302 Found", &format!("Location: {other_url}{target}"), b"")
    })
    .await;
    let failure = open(&daily(&vendor.url())).await.err().unwrap();
    assert_eq!(failure.outcome, Outcome::Unavailable);
    assert!(failure.message.contains("base_url"), "{failure}");
    assert_eq!(other.requests().len(), 0);
}

#[tokio::test]
async fn endless_circular_and_invalid_redirects_are_refused() {
    let cases = [
        ("Location: /a", "already"),
        ("Location: {n}", "after 3 redirects"),
        ("", "no Location header"),
        ("Location: ftp://127.0.0.1/x", "neither http nor https"),
        ("Location: file:///etc/passwd", "neither http nor https"),
        ("Location: http://[", "not a URL"),
        ("Location: http://192.0.2.1/x?token=t0ken", "network.allow_http"),
    ];
    for (headers, reason) in cases {
        let count = Arc::new(Mutex::new(0));
        let counter = Arc::clone(&count);
        let vendor = Server::start(move |_| {
            let mut count = counter.lock().unwrap();
            *count += 1;
            answer("302 Found", &headers.replace("{n}", &format!("/{count}")), b"")
        })
        .await;
        let failure = open(&report(&vendor.url())).await.err().unwrap();
        assert_eq!((failure.outcome, failure.evidence.http_status), (Outcome::Unavailable, Some(302)));
        assert!(failure.message.contains(reason) && !failure.message.contains("t0ken"), "{failure}");
        assert!(*count.lock().unwrap() <= 4);
    }
}

#[tokio::test]
async fn a_refusal_of_a_redirects_target_is_unavailable_without_its_query() {
    for status in [400, 401, 403, 404, 410, 429, 500] {
        let storage = Server::start(move |_| {
            answer(&format!("{status} No"), "Retry-After: 5", br#"{"error": {"message": "for ?sig=t0ken"}}"#)
        })
        .await;
        let place = storage.url();
        let vendor =
            Server::start(move |_| answer("302 Found", &format!("Location: {place}/key/t0ken?sig=t0ken"), b"")).await;
        let failure = open(&report(&vendor.url())).await.err().unwrap();
        assert_eq!((failure.outcome, failure.evidence.http_status), (Outcome::Unavailable, Some(status)));
        assert_eq!(
            (failure.evidence.retry_after, failure.evidence.vendor_date, failure.evidence.seen),
            (None, None, false)
        );
        assert!(failure.message.contains(&storage.url()), "{failure}");
        assert!(!format!("{failure:?}").contains("t0ken"), "{failure:?}");
    }
    let vendor = Server::start(|_| answer("302 Found", "Location: http://127.0.0.1:1/t0ken?sig=t0ken", b"")).await;
    let failure = open(&report(&vendor.url())).await.err().unwrap();
    assert_eq!(failure.outcome, Outcome::Unavailable);
    assert!(failure.message.contains("could not connect to http://127.0.0.1:1"), "{failure}");
    assert!(!format!("{failure:?}").contains("t0ken"), "{failure:?}");
}

#[tokio::test]
async fn a_redirect_from_https_to_http_is_refused() {
    let plain = Server::start(|_| answer("200 OK", "", b"PK")).await;
    let location = format!("Location: {}/x", plain.url());
    let authority = Authority::new();
    let vendor = Server::tls(authority.acceptor(), move |_| answer("302 Found", &location, b"")).await;
    let file = ca_file(&authority);
    let network = Network { proxy: None, ca_file: Some(named_file(file.path())), allow_http: true };
    let client = Client::new(&network, &limits()).unwrap();
    let failure = fetch_with(&client, &report(&vendor.url())).await.unwrap_err();
    assert_eq!(failure.outcome, Outcome::Unavailable);
    assert!(failure.message.contains("from https to http"), "{failure}");
    assert_eq!(plain.requests().len(), 0);
}
