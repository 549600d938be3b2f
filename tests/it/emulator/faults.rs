//! Faults of the archive APIs.

use std::time::Duration;

use moesync::emulator::{ContentEncoding, Cut, EmulatedReport, Fault, Framing, RedirectTo, Rule};
use reqwest::StatusCode;
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;

use super::{APP, FILE, KEY, Raw, Vendor, account, header, judge, path, report, sign};

#[tokio::test]
async fn a_rule_applies_to_matching_requests_as_often_as_it_says() {
    let vendor = Vendor::new(account(vec![report("Report test"), report("Other")])).await;
    vendor.emulator.add_fault("status=503,path=Report_test,skip=1,times=2".parse().unwrap());
    vendor.emulator.add_fault("status=502,times=1".parse().unwrap());
    let mut statuses = vec![];
    for file_name in [FILE, "Other_20210217.zip", FILE, FILE, FILE] {
        statuses.push(vendor.report(file_name).await.status().as_u16());
    }
    // The first rule skips the first request, so the second rule applies to it.
    assert_eq!(statuses, [502, 200, 503, 503, 200]);
    vendor.emulator.add_fault(Fault::Html.into());
    vendor.emulator.clear_faults();
    assert_eq!(header(&vendor.report(FILE).await, "content-type"), Some("application/gzip"));
}

#[tokio::test]
async fn a_body_fault_applies_only_to_answers_with_a_body() {
    let vendor = Vendor::with("stall,times=1".parse::<Rule>().unwrap()).await;
    assert_eq!(vendor.report("Unknown_20210217.zip").await.status(), StatusCode::BAD_REQUEST);
    vendor.report(FILE).await;
    assert_eq!(vendor.emulator.requests().iter().map(|r| r.fault).collect::<Vec<_>>(), [None, Some("stall")]);
}

#[tokio::test]
async fn misleading_answers_are_as_the_rule_says() {
    let statuses = [
        (Fault::Status { code: StatusCode::SERVICE_UNAVAILABLE, body: None }, 503, None, ""),
        (
            Fault::Status { code: StatusCode::GONE, body: Some("gone, for good".to_owned()) },
            410,
            Some("text/plain; charset=utf-8"),
            "gone, for good",
        ),
        (Fault::Html, 200, Some("text/html; charset=utf-8"), "<!DOCTYPE html>"),
        (Fault::JsonError, 200, Some("application/json"), "{\"error\":"),
        (Fault::Empty, 200, Some("application/gzip"), ""),
        (Fault::NotYet, 400, Some("application/json"), "{\"error\":"),
        (Fault::RateLimited { retry_after: None, reset: None }, 429, Some("application/json"), "{\"error\":"),
        (
            Fault::Firewall { code: StatusCode::UNAUTHORIZED },
            401,
            Some("application/json"),
            "{\"error\":\"IP Validation Required\",\"message\":\"IP Validation Failed",
        ),
        (Fault::Unauthorized, 401, Some("application/json"), ""),
    ];
    for (fault, status, content_type, start) in statuses {
        let vendor = Vendor::with(fault.clone()).await;
        let response = vendor.report(FILE).await;
        assert_eq!(response.status(), status, "{fault}");
        assert_eq!(header(&response, "content-type"), content_type, "{fault}");
        assert_eq!(header(&response, "retry-after"), None, "{fault}");
        let body = response.text().await.unwrap();
        assert!(body.starts_with(start) && body.is_empty() == start.is_empty(), "{fault}: {body}");
    }
    for retry_after in ["0", "31536000", "Wed, 17 Feb 2021 12:05:00 GMT"] {
        let vendor = Vendor::with(Fault::RateLimited { retry_after: Some(retry_after.to_owned()), reset: None }).await;
        assert_eq!(header(&vendor.report(FILE).await, "retry-after"), Some(retry_after));
    }
}

#[tokio::test]
async fn a_truncated_body_ends_with_the_connection_with_any_framing() {
    let framings = [
        (Framing::ContentLength, "http/1.1 200 ok\r\n"),
        (Framing::Chunked, "http/1.1 200 ok\r\n"),
        (Framing::Close, "http/1.0 200 ok\r\n"),
    ];
    for (framing, status_line) in framings {
        let vendor = Vendor::with(Fault::Truncate { at: Cut::Bytes(1000), framing }).await;
        let truth = vendor.truth().await;
        let raw = vendor.raw().await;
        let head = raw.head.clone();
        assert!(head.starts_with(status_line), "{head}");
        let length = format!("\r\ncontent-length: {}\r\n", truth.len());
        assert_eq!(head.contains(&length), framing == Framing::ContentLength, "{head}");
        assert_eq!(head.contains("\r\ntransfer-encoding: chunked\r\n"), framing == Framing::Chunked, "{head}");
        let (body, end) = raw.rest().await;
        end.unwrap();
        match framing {
            Framing::ContentLength | Framing::Close => assert_eq!(body, truth[..1000]),
            Framing::Chunked => assert_eq!(body, [b"3E8\r\n", &truth[..1000], b"\r\n"].concat()),
        }
    }
}

#[tokio::test]
async fn a_cut_is_in_bytes_or_percent_and_always_leaves_something_out() {
    for (at, of_size) in [(Cut::Bytes(0), 0), (Cut::Percent(50), 50), (Cut::Bytes(u64::MAX), 100)] {
        let vendor = Vendor::with(Fault::Truncate { at, framing: Framing::ContentLength }).await;
        let truth = vendor.truth().await;
        let (body, _) = vendor.raw().await.rest().await;
        let expected = (truth.len() * of_size / 100).min(truth.len() - 1);
        assert_eq!(body.len(), expected, "{at:?}");
    }
}

#[tokio::test]
async fn a_large_archive_is_cut_where_it_should_be() {
    let large = EmulatedReport { bytes: 3_000_000, ..report("Report test") };
    let vendor = Vendor::new(account(vec![large])).await;
    let truth = vendor.report(FILE).await.bytes().await.unwrap();
    vendor.emulator.add_fault("truncate=2000001".parse().unwrap());
    let (body, end) = vendor.raw().await.rest().await;
    end.unwrap();
    assert!(body == truth[..2_000_001], "{} bytes", body.len());
}

#[tokio::test]
async fn a_reset_comes_before_any_answer_or_within_the_body() {
    let vendor = Vendor::with(Fault::Reset).await;
    let request = format!("GET {} HTTP/1.1\r\nHost: vendor\r\n\r\n", path(FILE));
    let mut stream = Raw::send(&vendor.emulator, &request).await;
    let mut received = vec![];
    let error = stream.read_to_end(&mut received).await.unwrap_err();
    assert_eq!((error.kind(), received.as_slice()), (std::io::ErrorKind::ConnectionReset, &b""[..]));
    assert_eq!(vendor.emulator.requests()[0].status, None);

    let vendor = Vendor::with(Fault::ResetMidBody { at: Cut::Percent(50) }).await;
    let truth = vendor.truth().await;
    let signature = sign(APP, FILE, KEY);
    let request = format!("GET {} HTTP/1.1\r\nHost: vendor\r\nSignature: {signature}\r\n\r\n", path(FILE));
    let mut stream = Raw::send(&vendor.emulator, &request).await;
    let error = stream.read_to_end(&mut received).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(received.len() < truth.len());
    assert_eq!(vendor.emulator.requests()[0].status, Some(StatusCode::OK));
}

#[tokio::test]
async fn a_stalled_answer_has_headers_and_never_a_body() {
    let vendor = Vendor::with(Fault::Stall).await;
    let mut raw = vendor.raw().await;
    assert!(raw.head.contains("content-length: "), "{}", raw.head);
    assert!(raw.start_of_body.is_empty());
    let next = tokio::time::timeout(Duration::from_millis(300), raw.stream.read_u8()).await;
    assert!(next.is_err(), "{next:?}");
}

#[tokio::test]
async fn a_bit_flip_changes_one_bit_at_a_given_or_a_fixed_place() {
    let flipped = async |offset| {
        let vendor = Vendor::with(Fault::BitFlip { offset }).await;
        let (truth, body) = (vendor.truth().await, vendor.report(FILE).await.bytes().await.unwrap());
        assert_eq!(truth.len(), body.len());
        let bits: u32 = truth.iter().zip(&body).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!(bits, 1);
        (truth.iter().zip(&body).position(|(a, b)| a != b).unwrap(), truth.len())
    };
    assert_eq!(flipped(Some(17)).await.0, 17);
    let (last, size) = flipped(Some(u64::MAX)).await;
    assert_eq!(last, size - 1);
    let somewhere = flipped(None).await;
    assert_eq!(flipped(None).await, somewhere);
    assert!((size / 4..size * 3 / 4).contains(&somewhere.0), "{somewhere:?}");
}

#[tokio::test]
async fn a_redirect_leads_to_storage_that_wants_no_signature() {
    let vendor = Vendor::with("redirect=storage,code=307".parse::<Rule>().unwrap()).await;
    let response = vendor.report(FILE).await;
    assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
    let location = header(&response, "location").unwrap().to_owned();
    assert!(location.starts_with(&format!("{}storage/", vendor.emulator.url())), "{location}");

    let stored = vendor.ask(&location, |request| request).await;
    assert_eq!(stored.status(), StatusCode::OK);
    assert_eq!(stored.bytes().await.unwrap(), vendor.truth().await);
    let signed = vendor.ask(&location, |request| request.header("Signature", sign(APP, FILE, KEY))).await;
    assert_eq!(signed.status(), StatusCode::BAD_REQUEST);
    let authorized = vendor.ask(&location, |request| request.basic_auth(APP, Some(KEY))).await;
    assert_eq!(authorized.status(), StatusCode::BAD_REQUEST);
    let bare = vendor.ask(location.split('?').next().unwrap(), |request| request).await;
    assert_eq!(bare.status(), StatusCode::FORBIDDEN);
    assert_eq!(vendor.ask("/storage/other", |request| request).await.status(), StatusCode::NOT_FOUND);

    let unsigned = vendor.ask(&path(FILE), |request| request).await;
    assert_eq!(unsigned.status(), StatusCode::UNAUTHORIZED, "the storage is for those who may");
}

#[tokio::test]
async fn a_redirect_leads_anywhere() {
    let elsewhere = "https://elsewhere.example/x?token=1";
    let to = RedirectTo::Url(elsewhere.parse().unwrap());
    let vendor = Vendor::with(Fault::Redirect { to, code: StatusCode::FOUND }).await;
    let response = vendor.report(FILE).await;
    assert_eq!((response.status(), header(&response, "location")), (StatusCode::FOUND, Some(elsewhere)));
}

#[tokio::test]
async fn a_wrong_date_combines_with_any_other_fault() {
    let vendor = Vendor::with("wrong-date=-8d".parse::<Rule>().unwrap()).await;
    let response = vendor.report(FILE).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(header(&response, "date"), Some("Tue, 09 Feb 2021 12:00:00 GMT"));
    vendor.emulator.add_fault(Fault::NotYet.into());
    let response = vendor.report(FILE).await;
    assert_eq!(header(&response, "date"), Some("Tue, 09 Feb 2021 12:00:00 GMT"));
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_content_encoding_adds_a_layer_or_only_a_label() {
    let vendor = Vendor::with(Fault::ContentEncoding(ContentEncoding::Layer)).await;
    let response = vendor.report(FILE).await;
    assert_eq!(header(&response, "content-encoding"), Some("gzip"));
    let body = response.bytes().await.unwrap();
    let inside = "import sys,gzip,hashlib\nprint(hashlib.sha256(gzip.open(sys.argv[1]).read()).hexdigest())";
    let inside = judge("python3", &["-c", inside], &body).await;
    assert_eq!(inside.trim(), hex::encode(Sha256::digest(vendor.truth().await)));

    let vendor = Vendor::with(Fault::ContentEncoding(ContentEncoding::LabelOnly)).await;
    let response = vendor.report(FILE).await;
    assert_eq!(header(&response, "content-encoding"), Some("gzip"));
    assert_eq!(response.bytes().await.unwrap(), vendor.truth().await);
}
