//! The client to the vendor, tried over real sockets against a server that answers by script.

pub mod server;

use std::{
    io::Write,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use jiff::{SignedDuration, civil, civil::date, tz::TimeZone};
use moesync::{
    config::{
        ArchiveSource, Destination, Limits, NamedFile, Network, Report, ReportId, Schedule, SecretSource, Source,
        SourceKind, Workspace,
    },
    moengage::{Client, Download, curl_line, source_url},
    outcome::{Failure, Outcome, RetryAfter},
    signature,
};
use secrecy::{ExposeSecret, SecretString};
use tracing_subscriber::util::SubscriberInitExt;
use url::Url;

use self::server::{Authority, Server, Step, answer};

const SECRET: &str = "canary-5e2f-key";
const DATE: civil::Date = date(2026, 11, 21);

fn limits() -> Limits {
    Limits {
        concurrency: 16,
        concurrency_per_workspace: 4,
        concurrency_per_destination: 8,
        archive_bytes: u64::MAX,
        inflated_bytes: u64::MAX,
        inflate_ratio: 500,
        attempt_timeout: Duration::from_secs(3600),
        connect_timeout: Duration::from_secs(10),
        min_rate: 1024,
    }
}

fn network() -> Network {
    Network { proxy: None, ca_file: None, allow_http: false }
}

fn client() -> Client {
    Client::new(&network(), &limits()).unwrap()
}

fn secret() -> SecretString {
    SECRET.into()
}

fn report(base_url: &str) -> Report {
    named(base_url, campaign_report(), "APP-1", "Report test")
}

fn daily(base_url: &str) -> Report {
    named(base_url, daily_dump(), "APP-1", "daily_dump")
}

fn campaign_report() -> ArchiveSource {
    ArchiveSource::CampaignReport { suffix: ".zip".to_owned() }
}

fn daily_dump() -> ArchiveSource {
    ArchiveSource::DailyDump { give_up_after: SignedDuration::from_hours(168) }
}

fn archive(report: &Report) -> &ArchiveSource {
    let Source::Archive(archive) = &report.source else { panic!("{report:?}") };
    archive
}

fn named(base_url: &str, source: ArchiveSource, app_id: &str, name: &str) -> Report {
    let base_url: Url = base_url.parse().unwrap();
    let workspace = Workspace {
        name: "acme".into(),
        app_id: app_id.into(),
        base_url: base_url.clone(),
        timezone: TimeZone::UTC,
        secret_key: SecretSource::Env { name: "UNUSED".into(), place: "here".into() },
        api_key: SecretSource::Env { name: "UNUSED".into(), place: "here".into() },
    };
    Report {
        workspace: Arc::new(workspace),
        source: Source::Archive(source),
        id: ReportId::new("acme", "report"),
        name: name.into(),
        destination: Arc::new(Destination {
            name: "lake".into(),
            url: "file:///lake".parse().unwrap(),
            options: [].into(),
            fsync: true,
            ca_file: None,
            place: "here".into(),
        }),
        schedule: Schedule::Daily { at: civil::time(9, 30, 0, 0) },
        buffer: SignedDuration::from_mins(30),
        start: None,
        timezone: TimeZone::UTC,
        base_url,
    }
}

fn signature_of(report: &Report) -> String {
    signature::sign(&report.workspace.app_id, &report.file_name(DATE), &secret()).expose_secret().to_owned()
}

async fn open(report: &Report) -> Result<Download, Failure> {
    client().open(report, archive(report), DATE, &secret()).await
}

/// All bytes of the archive, or the failure, wherever it came.
async fn fetch_with(client: &Client, report: &Report) -> Result<Vec<u8>, Failure> {
    read(client.open(report, archive(report), DATE, &secret()).await?).await
}

async fn fetch(report: &Report) -> Result<Vec<u8>, Failure> {
    fetch_with(&client(), report).await
}

async fn read(mut download: Download) -> Result<Vec<u8>, Failure> {
    let mut all = Vec::new();
    while let Some(bytes) = download.chunk().await? {
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn named_file(path: &Path) -> NamedFile {
    NamedFile { path: path.to_owned(), place: "moesync.toml:9: network.ca_file".to_owned() }
}

fn ca_file(authority: &Authority) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    // Another authority comes first: every certificate of the file counts.
    write!(file, "{}{}", Authority::new().pem, authority.pem).unwrap();
    file
}

fn trusting(authority: &Authority) -> Client {
    let file = ca_file(authority);
    Client::new(&Network { ca_file: Some(named_file(file.path())), ..network() }, &limits()).unwrap()
}

#[tokio::test]
async fn an_archive_arrives_whole_with_its_judged_headers() {
    let server = Server::start(|_| {
        answer(
            "200 OK",
            "Date: Sat, 21 Nov 2026 10:00:00 GMT\r\nContent-Type: application/gzip\r\nX-Request-Id: r-1",
            b"PK\x05\x06archive",
        )
    })
    .await;
    let download = open(&report(&server.url())).await.unwrap();
    assert_eq!(download.content_length, Some(11));
    assert_eq!(download.content_type.as_deref(), Some("application/gzip"));
    assert_eq!(download.evidence.vendor_date, Some("2026-11-21T10:00:00Z".parse().unwrap()));
    assert_eq!(download.evidence.request_id.as_deref(), Some("r-1"));
    let place = format!("{}/campaign_reports/rest_api/APP-1/Report_test_20261121.zip", server.url());
    assert_eq!(source_url(&report(&server.url()), DATE).as_str(), place);
    assert_eq!(read(download).await.unwrap(), b"PK\x05\x06archive");
}

#[tokio::test]
async fn the_request_says_who_asks_and_wants_the_bytes_as_they_are() {
    let server = Server::start(|_| answer("200 OK", "", b"PK")).await;
    fetch(&report(&server.url())).await.unwrap();
    let request = server.requests().remove(0);
    assert!(request.contains("\r\naccept: */*\r\n"), "{request}");
    assert!(request.contains("\r\naccept-encoding: identity\r\n"), "{request}");
    assert!(request.contains(concat!("\r\nuser-agent: moesync/", env!("CARGO_PKG_VERSION"), "\r\n")), "{request}");
    for absent in ["referer:", "cookie:", "authorization:"] {
        assert!(!request.contains(absent), "{request}");
    }
}

#[tokio::test]
async fn the_published_signatures_and_exact_names_go_over_the_wire() {
    let server = Server::start(|_| answer("200 OK", "", b"PK")).await;
    let base = format!("{}/v1/", server.url());
    let cases = [
        (
            named(&base, campaign_report(), "MAZW5N1IMMSH5H67C3T9KBHA", "Report - test"),
            (date(2021, 2, 17), "pipe|in|key"),
            "/v1/campaign_reports/rest_api/MAZW5N1IMMSH5H67C3T9KBHA/Report_-_test_20210217.zip",
            "7e89e03528ca568e759c21a3401e1bb69831b88f69c61bbcef30bf2c1a23d3a8",
        ),
        (
            named(&base, campaign_report(), "APP-1", "Año nuevo 50% off"),
            (date(2025, 12, 31), "k"),
            "/v1/campaign_reports/rest_api/APP-1/A%C3%B1o_nuevo_50%25_off_20251231.zip",
            "8b83fb74075bfdbd21a93896ad933a80f8ab9b615caa9ac5a4656008bad53a54",
        ),
        (
            named(&base, daily_dump(), "YOUR-API-ID", "daily_dump"),
            (date(2016, 3, 2), "YOUR-SECRET-KEY"),
            "/v1/dailyCampaignReportDump/YOUR-API-ID/20160302.zip\
             ?Signature=b81b9b69a9762f734a15306e53c9d7f6a7d829d2cf197e540091b728ebdf753e",
            "",
        ),
    ];
    for (report, (date, key), target, signature) in cases {
        client().open(&report, archive(&report), date, &key.into()).await.unwrap();
        let request = server.requests().pop().unwrap();
        assert!(request.starts_with(&format!("GET {target} HTTP/1.1\r\n")), "{request}");
        let header = format!("\r\nsignature: {signature}\r\n");
        assert_eq!(request.contains(&header), !signature.is_empty(), "{request}");
    }
}

#[tokio::test]
async fn a_name_with_url_syntax_in_it_stays_one_name() {
    let server = Server::start(|_| answer("200 OK", "", b"PK")).await;
    let report = named(&server.url(), campaign_report(), "APP/1", "a+b #1? 10%41/../é;='&");
    fetch(&report).await.unwrap();
    let request = server.requests().remove(0);
    let segment = request.split(' ').nth(1).unwrap().strip_prefix("/campaign_reports/rest_api/APP%2F1/").unwrap();
    assert!(segment.contains("a%2Bb"), "{segment}");
    assert!(!segment.contains(['/', '?', '#', '+']), "{segment}");
    let seen = percent_encoding::percent_decode_str(segment).decode_utf8().unwrap();
    assert_eq!(seen, report.file_name(DATE));
}

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
async fn what_moengage_says_about_an_error_is_passed_on() {
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
            "a web page with the title `Attention Required! | Cloudflare`",
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
async fn a_secret_that_the_vendor_echoes_is_not_repeated() {
    for source in [report as fn(&str) -> Report, daily] {
        let server = Server::start(|request| {
            let target = request.split(' ').nth(1).unwrap();
            let signature = header(request, "signature").unwrap_or_else(|| target.rsplit('=').next().unwrap());
            let (first, last) = signature.split_at(20);
            let body = format!(
                r#"{{"error": {{"message": "bad {} or {first}\u0000{last} for {SECRET}", "request_id": "{signature}"}}}}"#,
                signature.to_uppercase()
            );
            answer("400 Bad Request", &format!("X-Request-Id: {SECRET}"), body.as_bytes())
        })
        .await;
        let report = source(&server.url());
        let failure = open(&report).await.err().unwrap();
        let shown = format!("{failure} {failure:?}").to_lowercase();
        assert!(shown.contains("bad [redacted] or [redacted] for [redacted]"), "{shown}");
        assert!(!shown.contains(SECRET) && !shown.contains(&signature_of(&report)), "{shown}");
    }
}

#[tokio::test]
async fn what_is_quoted_from_a_body_has_no_secret_in_it_even_where_the_quote_was_cut() {
    let storage = Server::start(|_| answer("200 OK", "", b"<html>")).await;
    let location = format!("Location: {}/x.zip?X-Amz-Signature=presigned%2Fsecret&X-Amz-Expires=300", storage.url());
    let vendor = Server::start(move |_| answer("302 Found", &location, b"")).await;
    let report = daily(&vendor.url());
    let signature = signature_of(&report);
    let download = open(&report).await.unwrap();

    assert_eq!(
        download.redact(&format!("asked for ?Signature={signature}, 300")),
        "asked for ?Signature=[redacted], 300"
    );
    assert_eq!(download.redact(&format!("cut in {}", &signature[..20])), "cut in [redacted]");
    assert_eq!(download.redact("presigned%2Fsecret or presigned/secr"), "[redacted] or [redacted]");
}

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
async fn the_way_back_from_another_origin_brings_no_signature() {
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
async fn a_redirect_that_would_carry_our_signature_elsewhere_is_refused() {
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
async fn redirects_in_a_loop_without_end_or_without_sense_are_refused() {
    let cases = [
        ("Location: /a", "already"),
        ("Location: {n}", "after 3 redirects"),
        ("", "no location"),
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
async fn whatever_a_redirects_target_refuses_is_unavailable_and_its_query_is_not_told() {
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

#[tokio::test]
async fn a_body_cut_anywhere_is_corrupt_and_says_how_much_came() {
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
async fn a_download_that_failed_never_looks_finished_afterwards() {
    let server = Server::start(|_| vec![Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n".to_vec())]).await;
    let mut download = open(&report(&server.url())).await.unwrap();
    let first = download.chunk().await.unwrap_err();
    assert_eq!(download.chunk().await.unwrap_err(), first);
}

#[tokio::test]
async fn tls_without_its_farewell_is_a_cut_where_nothing_else_tells_the_end() {
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
async fn gzip_for_the_journey_is_taken_off_and_an_archive_labelled_gzip_is_kept() {
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
        ("gzip", gzip(b""), &[]),
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
            // In small pieces, so that no decision gets all it needs at once.
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
async fn a_gzip_of_the_transfer_is_taken_off_and_absurdly_many_layers_are_refused() {
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
async fn a_gzip_for_the_journey_that_is_damaged_or_short_is_corrupt() {
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
async fn a_bomb_around_the_archive_comes_in_small_pieces() {
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

/// A client whose attempts end after `timeout`, however slowly bytes come.
fn impatient(timeout: Duration) -> Client {
    Client::new(&network(), &Limits { min_rate: 0, attempt_timeout: timeout, ..limits() }).unwrap()
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
async fn silence_instead_of_an_answer_ends_at_the_deadline_of_the_attempt() {
    let server = Server::start(|_| vec![Step::Hang]).await;
    let failure = fetch_with(&impatient(Duration::from_millis(300)), &report(&server.url())).await.unwrap_err();
    assert_eq!((failure.outcome, failure.evidence.seen), (Outcome::Unavailable, false));
    assert!(failure.message.contains("did not answer within 300ms"), "{failure}");
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
async fn a_private_authority_works_once_it_is_named_and_is_asked_for_until_then() {
    let authority = Authority::new();
    let server = Server::tls(authority.acceptor(), |_| answer("200 OK", "", b"PK")).await;
    assert_eq!(fetch_with(&trusting(&authority), &report(&server.url())).await.unwrap(), b"PK");
    let failure = fetch(&report(&server.url())).await.unwrap_err();
    assert_eq!((failure.outcome, failure.evidence.http_status), (Outcome::Unavailable, None));
    assert!(failure.message.contains("network.ca_file"), "{failure}");
}

#[tokio::test]
async fn an_expired_certificate_is_refused_in_so_many_words() {
    let authority = Authority::new();
    let server = Server::tls(authority.expired(), |_| answer("200 OK", "", b"PK")).await;
    let failure = fetch_with(&trusting(&authority), &report(&server.url())).await.unwrap_err();
    assert_eq!(failure.outcome, Outcome::Unavailable);
    assert!(failure.message.contains("certificate expired"), "{failure}");
    assert!(failure.message.contains(&format!("could not connect to {}", server.url())), "{failure}");
}

#[tokio::test]
async fn a_server_that_only_knows_tls_1_1_is_refused() {
    // Alert `protocol_version`: what such a server answers to a TLS 1.2 greeting.
    let server = Server::deaf(vec![0x15, 3, 2, 0, 2, 2, 70]).await;
    let failure = fetch(&report(&server.url())).await.unwrap_err();
    assert_eq!(failure.outcome, Outcome::Unavailable);
    assert!(failure.message.contains("TLS: "), "{failure}");
    assert!(failure.message.contains("ProtocolVersion"), "{failure}");
}

#[tokio::test]
async fn a_ca_file_that_is_none_is_a_clear_error() {
    let empty = tempfile::NamedTempFile::new().unwrap();
    let mut broken = tempfile::NamedTempFile::new().unwrap();
    broken.write_all(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    for path in [empty.path(), broken.path(), std::path::Path::new("/nowhere/ca.pem")] {
        let error = Client::new(&Network { ca_file: Some(named_file(path)), ..network() }, &limits()).err().unwrap();
        assert!(error.to_string().contains("moesync.toml:9: network.ca_file"), "{error}");
    }
}

#[tokio::test]
async fn a_proxy_sees_whole_urls_and_its_credentials() {
    let proxy = Server::start(|_| answer("200 OK", "", b"PK")).await;
    for (userinfo, expected) in [("", None), ("user:p%40ss@", Some("Basic dXNlcjpwQHNz"))] {
        let url = proxy.url().replace("http://", &format!("http://{userinfo}")).parse().unwrap();
        let client = Client::new(&Network { proxy: Some(url), ..network() }, &limits()).unwrap();
        fetch_with(&client, &report("http://vendor.invalid")).await.unwrap();
        let request = proxy.requests().pop().unwrap();
        assert!(request.starts_with("GET http://vendor.invalid/campaign_reports/"), "{request}");
        assert_eq!(header(&request, "proxy-authorization"), expected);
    }
}

#[tokio::test]
async fn https_goes_through_a_proxy_that_never_sees_inside() {
    let authority = Authority::new();
    let vendor = Server::tls(authority.acceptor(), |_| answer("200 OK", "", b"PK")).await;
    let to = vendor.address;
    let proxy = Server::start(move |request| match header(request, "proxy-authorization") {
        Some("Basic dXNlcjpwQHNz") => vec![Step::Tunnel(to)],
        _ => answer("407 Proxy Authentication Required", "", b""),
    })
    .await;
    let file = ca_file(&authority);
    for (userinfo, reached) in [("user:p%40ss@", true), ("", false)] {
        let url = proxy.url().replace("http://", &format!("http://{userinfo}")).parse().unwrap();
        let network = Network { proxy: Some(url), ca_file: Some(named_file(file.path())), ..network() };
        let client = Client::new(&network, &limits()).unwrap();
        let fetched = fetch_with(&client, &report(&vendor.url())).await;
        if reached {
            assert_eq!(fetched.unwrap(), b"PK");
        } else {
            let failure = fetched.unwrap_err();
            assert_eq!(failure.outcome, Outcome::Unavailable);
            assert!(failure.message.contains("407") && failure.message.contains("network.proxy"), "{failure}");
        }
    }
    for request in proxy.requests() {
        assert!(request.starts_with(&format!("CONNECT {to} HTTP/1.1\r\n")), "{request}");
        assert!(!request.contains("signature"), "{request}");
    }
}

#[tokio::test]
async fn a_proxy_that_is_down_or_unwilling_is_named_without_its_password() {
    let unwilling = Server::start(|_| answer("403 Forbidden", "", b"")).await;
    for address in [unwilling.address.to_string(), "127.0.0.1:1".into()] {
        let url = format!("http://user:{SECRET}@{address}").parse().unwrap();
        let client = Client::new(&Network { proxy: Some(url), ..network() }, &limits()).unwrap();
        let failure = fetch_with(&client, &report("https://vendor.invalid")).await.unwrap_err();
        assert_eq!(failure.outcome, Outcome::Unavailable);
        assert!(failure.message.contains(&format!("through the proxy http://{address}")), "{failure}");
        assert!(!format!("{failure:?}").contains(SECRET), "{failure:?}");
    }
    let socks = Network { proxy: Some("socks5://127.0.0.1:1".parse().unwrap()), ..network() };
    assert!(Client::new(&socks, &limits()).err().unwrap().to_string().contains("network.proxy"));
}

#[tokio::test]
async fn a_host_that_only_has_ipv6_is_reached() {
    let server = Server::bound_to("[::1]:0", |_| answer("200 OK", "", b"PK")).await;
    assert!(server.url().starts_with("http://[::1]:"));
    assert_eq!(fetch(&report(&server.url())).await.unwrap(), b"PK");
}

#[tokio::test]
async fn failures_to_connect_say_what_failed() {
    let unnamed = fetch(&report("https://nonexistent.invalid")).await.unwrap_err();
    assert!(
        unnamed.message.contains("could not connect to https://nonexistent.invalid: its name has no address"),
        "{unnamed}"
    );
    let refused = fetch(&daily("http://127.0.0.1:1")).await.unwrap_err();
    assert!(refused.message.contains("could not connect to http://127.0.0.1:1: Connection refused"), "{refused}");
    let closed = Server::start(|_| vec![]).await;
    let closed = fetch(&daily(&closed.url())).await.unwrap_err();
    assert!(closed.message.contains("was lost before the answer"), "{closed}");
    for failure in [unnamed, refused, closed] {
        assert_eq!(
            (failure.outcome, failure.evidence.http_status, failure.evidence.seen),
            (Outcome::Unavailable, None, false)
        );
        assert!(!format!("{failure:?}").contains("Signature="), "{failure:?}");
    }
}

#[tokio::test]
async fn no_secret_is_logged_even_at_trace_level() {
    let log = Log::default();
    let writer = log.clone();
    // With a single subscriber, tracing asks whichever thread first meets a log line whether anybody listens, and
    // other tests' threads would say no. A second one makes it ask all subscribers.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let guard = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
        .with_writer(move || writer.clone())
        .finish()
        .set_default();
    let authority = Authority::new();
    let client = trusting(&authority);
    let storage = Server::start(|_| answer("403 Forbidden", "", b"")).await;
    let storage_url = storage.url();
    let servers = [
        Server::start(|_| answer("200 OK", "", b"PK")).await,
        Server::start(|_| answer("401 Unauthorized", "", b"")).await,
        Server::start(|_| vec![]).await,
        Server::start(move |_| answer("302 Found", &format!("Location: {storage_url}/?sig=t0ken"), b"")).await,
        Server::tls(authority.acceptor(), |_| answer("200 OK", "", b"PK")).await,
        Server::http2(&authority, 4, b"PK\x05\x06").await,
        Server::http2(&authority, 4, b"PK").await,
    ];
    let mut signatures = Vec::new();
    for server in &servers {
        for report in [report(&server.url()), daily(&server.url())] {
            let _ = fetch_with(&client, &report).await;
            signatures.push(signature_of(&report));
        }
    }
    let through: Url = servers[0].url().replace("http://", &format!("http://user:{SECRET}@")).parse().unwrap();
    let proxied = Client::new(&Network { proxy: Some(through), ..network() }, &limits()).unwrap();
    for base in ["http://vendor.invalid", "https://vendor.invalid"] {
        let _ = fetch_with(&proxied, &daily(base)).await;
    }
    drop(guard);
    let log = log.text();
    for heard in ["asked MoEngage for an archive", "hyper_util::", "h2::", "reqwest::"] {
        assert!(log.contains(heard), "the log must be listened to where it could leak: {heard}");
    }
    for line in log.lines() {
        let lower = line.to_lowercase();
        assert!(!line.contains(SECRET) && !line.contains("t0ken"), "{line}");
        assert!(!signatures.iter().any(|signature| lower.contains(signature)), "{line}");
    }
    let asked = log.lines().find(|line| line.contains("asked MoEngage for an archive")).unwrap();
    for field in ["workspace=\"acme\"", "report=\"report\"", "date=2026-11-21", "http_status=200", "elapsed_seconds="] {
        assert!(asked.contains(field), "{asked}");
    }
}

#[test]
fn the_curl_line_is_ready_to_paste_and_the_shown_url_has_no_secret() {
    let base: Url = "https://user:pass@api-01.moengage.com/v1?x=y".parse().unwrap();
    let line = |source, file: &str| curl_line(source, &base, "APP-1", file, &"k".into());
    insta::assert_snapshot!(
        line(SourceKind::CampaignReport, "Año_nuevo_50%_off_20251231.zip").unwrap().expose_secret(),
        @"curl --fail --remote-name --header 'Signature: 8b83fb74075bfdbd21a93896ad933a80f8ab9b615caa9ac5a4656008bad53a54' 'https://api-01.moengage.com/v1/campaign_reports/rest_api/APP-1/A%C3%B1o_nuevo_50%25_off_20251231.zip'"
    );
    let dump = line(SourceKind::DailyDump, "20160302.zip").unwrap();
    assert!(
        dump.expose_secret()
            .contains("'https://api-01.moengage.com/v1/dailyCampaignReportDump/APP-1/20160302.zip?Signature=")
    );
    assert!(line(SourceKind::CampaignStats, "x").is_none());
    let shown = source_url(&daily(base.as_str()), DATE);
    assert_eq!(shown.as_str(), "https://api-01.moengage.com/v1/dailyCampaignReportDump/APP-1/20261121.zip");
}

/// The value of a header in a request as it was received.
fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    request.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// Everything that was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// An answer whose head is `head`, as it is, with this body.
fn raw_answer(head: &str, body: &[u8]) -> Vec<Step> {
    let mut bytes = format!("HTTP/1.1 200 OK\r\n{head}Connection: close\r\n\r\n").into_bytes();
    bytes.extend_from_slice(body);
    vec![Step::Send(bytes)]
}

#[tokio::test]
async fn header_lines_that_are_folded_malformed_or_many_do_not_spoil_an_answer() {
    let many: String = (0..500).map(|number| format!("X-Cookie-{number}: {number}\r\n")).collect();
    for odd in [
        "Content-Security-Policy: default-src 'self';\r\n\tscript-src 'self';\r\n img-src *\r\n",
        "X-Powered-By : PHP/5.3\r\n",
        "X-Powered By: PHP\r\n",
        "a line without a colon\r\n",
        "X-Control: a\x01b\r\n",
        "(comment): x\r\n folded after it\r\n",
        &many,
    ] {
        for framing in ["Content-Length: 9\r\n", "Content-Length : 9\r\n", "Content-Length:\r\n 9\r\n"] {
            for head in [format!("{odd}{framing}"), format!("{framing}{odd}")] {
                let sent = head.clone();
                let server = Server::start(move |_| raw_answer(&sent, b"PK\x05\x06whole")).await;
                assert_eq!(
                    fetch(&report(&server.url())).await.as_deref(),
                    Ok(b"PK\x05\x06whole".as_slice()),
                    "{head:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_body_never_looks_whole_because_its_length_was_written_oddly() {
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

#[tokio::test]
async fn what_a_proxy_says_it_changed_is_not_an_archive() {
    let server = Server::start(|_| answer("203 Non-Authoritative Information", "", b"PK\x05\x06")).await;
    let failure = fetch(&report(&server.url())).await.unwrap_err();
    assert_eq!(failure.outcome, Outcome::Corrupt);
    assert!(failure.message.starts_with("a proxy changed what MoEngage sent for "), "{failure}");
}
