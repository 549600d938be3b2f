//! What a request for an archive sends, and what a good answer returns.

use jiff::civil::date;
use moesync::moengage::{AnnouncedGzip, source_url};

use super::{
    DATE, archive, campaign_report, client, daily_dump, fetch, named, open, raw_answer, read, report,
    server::{Server, answer},
};

#[tokio::test]
async fn an_archive_arrives_whole_with_its_headers() {
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
async fn the_request_names_moesync_and_accepts_no_encoding() {
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
async fn the_published_signatures_and_exact_names_are_sent() {
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
        client().open(&report, archive(&report), date, &key.into(), AnnouncedGzip::Transport).await.unwrap();
        let request = server.requests().pop().unwrap();
        assert!(request.starts_with(&format!("GET {target} HTTP/1.1\r\n")), "{request}");
        let header = format!("\r\nsignature: {signature}\r\n");
        assert_eq!(request.contains(&header), !signature.is_empty(), "{request}");
    }
}

#[tokio::test]
async fn a_name_with_url_syntax_stays_one_path_segment() {
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
async fn folded_malformed_or_many_header_lines_do_not_break_an_answer() {
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
