//! Keys and signatures appear in no message, quote, log line or displayed URL.

use moesync::{
    config::{Network, Report, SourceKind},
    moengage::{Client, curl_line, source_url},
};
use secrecy::ExposeSecret;
use url::Url;

use super::{
    DATE, SECRET, daily, fetch_with, header, limits, network, open, report,
    server::{Authority, Server, answer},
    signature_of, trusting,
};
use crate::support::Log;

#[tokio::test]
async fn a_secret_that_the_vendor_echoes_is_redacted() {
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
async fn a_quote_from_a_body_is_redacted_even_where_it_is_cut() {
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
async fn no_secret_is_logged_even_at_trace_level() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
        .with_writer(log.clone());
    let guard = Log::listen(subscriber.finish());
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
    for heard in ["requested an archive from MoEngage", "hyper_util::", "h2::", "reqwest::"] {
        assert!(log.contains(heard), "the log must be listened to where it could leak: {heard}");
    }
    for line in log.lines() {
        let lower = line.to_lowercase();
        assert!(!line.contains(SECRET) && !line.contains("t0ken"), "{line}");
        assert!(!signatures.iter().any(|signature| lower.contains(signature)), "{line}");
    }
    let asked = log.lines().find(|line| line.contains("requested an archive from MoEngage")).unwrap();
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
