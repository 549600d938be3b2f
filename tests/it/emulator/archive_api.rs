//! The archive APIs: signatures, names, publication, expiry, and the emulator's own start and end.

use std::sync::Arc;

use jiff::{
    SignedDuration,
    civil::{Weekday, date, time},
    tz::TimeZone,
};
use moesync::{
    config::{Schedule, SourceKind},
    emulator::{self, Account, EmulatedReport, Fault, Options, demo_account},
};
use reqwest::{Method, StatusCode};
use tokio::net::TcpListener;

use super::{
    API_KEY, APP, FILE, KEY, NOON, Vendor, account, at, dump_path, error_message, header, listener, path, refused,
    report, sign,
};

#[tokio::test]
async fn the_published_signatures_open_their_archives() {
    let vectors = [
        (
            "Report test",
            "Report_test_20210217.zip",
            "s3cr3t",
            "1debb3527e02ca97d6b601841205efe96617aada8c5b876d6e176551e7b3e6c0",
        ),
        (
            "Report - test",
            "Report_-_test_20210217.zip",
            "pipe|in|key",
            "7e89e03528ca568e759c21a3401e1bb69831b88f69c61bbcef30bf2c1a23d3a8",
        ),
    ];
    for (name, file_name, key, signature) in vectors {
        let vendor = Vendor::new(Account { secret_key: key.into(), ..account(vec![report(name)]) }).await;
        let response = vendor.ask(&path(file_name), |request| request.header("Signature", signature)).await;
        assert_eq!(response.status(), StatusCode::OK, "{file_name}");
    }

    let spanish =
        Account { app_id: "APP-1".to_owned(), secret_key: "k".into(), ..account(vec![report("Año nuevo 50% off")]) };
    let vendor = Vendor::new(spanish).await;
    vendor.set("2025-12-31T12:00:00Z");
    let response = vendor
        .ask("/campaign_reports/rest_api/APP-1/A%C3%B1o_nuevo_50%25_off_20251231.zip", |request| {
            request.header("Signature", "8b83fb74075bfdbd21a93896ad933a80f8ab9b615caa9ac5a4656008bad53a54")
        })
        .await;
    assert_eq!(response.status(), StatusCode::OK);

    let dump = EmulatedReport { source: SourceKind::DailyDump, ..report("dump") };
    let legacy =
        Account { app_id: "YOUR-API-ID".to_owned(), secret_key: "YOUR-SECRET-KEY".into(), ..account(vec![dump]) };
    let vendor = Vendor::new(legacy).await;
    let signature = "b81b9b69a9762f734a15306e53c9d7f6a7d829d2cf197e540091b728ebdf753e";
    let path = format!("/dailyCampaignReportDump/YOUR-API-ID/20160302.zip?Signature={signature}");
    assert_eq!(vendor.ask(&path, |request| request).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn an_archive_is_called_gzip_and_has_a_length_and_the_emulators_date() {
    let vendor = Vendor::new(account(vec![report("Report test")])).await;
    let response = vendor
        .ask(&path(FILE), |request| request.header("Signature", sign(APP, FILE, KEY)).header("Range", "bytes=0-9"))
        .await;
    assert_eq!(response.status(), StatusCode::OK, "a range is ignored");
    assert_eq!(header(&response, "content-type"), Some("application/gzip"));
    assert_eq!(header(&response, "date"), Some("Wed, 17 Feb 2021 12:00:00 GMT"));
    let length: usize = header(&response, "content-length").unwrap().parse().unwrap();
    let body = response.bytes().await.unwrap();
    assert_eq!(body.len(), length);
    assert!(body.starts_with(b"PK\x03\x04"));
}

#[tokio::test]
async fn every_percent_encoding_means_the_same_name() {
    let vendor = Vendor::new(account(vec![report("A/b ñ+%")])).await;
    let file_name = "A/b_ñ+%_20210217.zip";
    for encoded in ["A%2Fb_%C3%B1+%25_20210217.zip", "%41%2fb_%c3%b1%2B%25_2021021%37%2ezip"] {
        let path = format!("/campaign_reports/rest_api/{APP}/{encoded}");
        let response = vendor.ask(&path, |request| request.header("Signature", sign(APP, file_name, KEY))).await;
        assert_eq!(response.status(), StatusCode::OK, "{encoded}");
    }
    let path = format!("/campaign_reports/rest_api/{APP}/%FF_20210217.zip");
    assert_eq!(refused(vendor.ask(&path, |request| request).await).await, "Invalid report file name");
}

#[tokio::test]
async fn a_wrong_or_missing_signature_is_an_empty_401_for_any_file() {
    let vendor = Vendor::new(account(vec![report("Report test")])).await;
    for file_name in [FILE, "No_such_report_20210217.zip"] {
        let right = sign(APP, file_name, KEY);
        let wrong = [
            None,
            Some(String::new()),
            Some(right.to_uppercase()),
            Some(sign(APP, file_name, "other")),
            Some(sign(APP, "other.zip", KEY)),
            Some(sign("other", file_name, KEY)),
        ];
        for signature in wrong {
            let response = vendor
                .ask(&format!("{}?Signature={right}", path(file_name)), |request| match &signature {
                    Some(signature) => request.header("Signature", signature),
                    None => request,
                })
                .await;
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{signature:?}");
            assert_eq!(header(&response, "content-type"), Some("application/json"));
            assert_eq!(response.bytes().await.unwrap(), "");
        }
    }
}

#[tokio::test]
async fn an_unknown_app_id_is_400_with_any_signature() {
    let vendor = Vendor::new(account(vec![report("Report test")])).await;
    let path = format!("/campaign_reports/rest_api/OTHER/{FILE}");
    assert_eq!(refused(vendor.ask(&path, |request| request).await).await, "Incorrect App Id");
    let path = dump_path("OTHER", "20210217.zip", KEY);
    assert_eq!(refused(vendor.ask(&path, |request| request).await).await, "Incorrect App Id");
}

#[tokio::test]
async fn a_name_that_no_report_has_is_400() {
    let weekly = EmulatedReport {
        schedule: Schedule::Weekly { on: vec![Weekday::Monday], at: time(7, 0, 0, 0) },
        suffix: String::new(),
        ..report("Weekly")
    };
    let vendor = Vendor::new(account(vec![report("Report test"), weekly])).await;
    let unknown = [
        "Report test_20210217.zip",
        "Report_test_2021-02-17.zip",
        "Report_test_2021217.zip",
        "Report_test_20210230.zip",
        "Report_test_+2021021.zip",
        "Report_test_20210217",
        "Report_test_20210217.ZIP",
        "Report_test.zip",
        "20210217.zip",
        "Weekly_20210216",
        "Weekly_20210215.zip",
    ];
    for file_name in unknown {
        assert_eq!(refused(vendor.report(file_name).await).await, "Invalid report file name", "{file_name}");
    }
    assert_eq!(vendor.report("Weekly_20210215").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_report_is_served_from_publication_to_seven_days_after_generation() {
    let delayed = EmulatedReport { publish_delay: SignedDuration::from_mins(20), ..report("Report test") };
    let vendor = Vendor::new(account(vec![delayed])).await;
    let steps = [
        ("2021-02-17T09:30:00Z", Some("The requested report is not generated yet")),
        ("2021-02-17T09:49:59Z", Some("The requested report is not generated yet")),
        ("2021-02-17T09:50:00Z", None),
        ("2021-02-24T09:29:59Z", None),
        ("2021-02-24T09:30:00Z", Some("The requested report is older than 7 days")),
    ];
    for (now, refusal) in steps {
        vendor.set(now);
        let response = vendor.report(FILE).await;
        match refusal {
            None => assert_eq!(response.status(), StatusCode::OK, "{now}"),
            Some(message) => assert_eq!(refused(response).await, message, "{now}"),
        }
    }
}

#[tokio::test]
async fn across_a_clock_change_a_report_keeps_its_seven_times_24_hours() {
    let berlin = TimeZone::get("Europe/Berlin").unwrap();
    let night = Schedule::Daily { at: time(2, 30, 0, 0) };
    let vendor =
        Vendor::new(account(vec![EmulatedReport { schedule: night, timezone: berlin, ..report("Night") }])).await;
    let spans = [
        // An ordinary night, and clocks go forward before it expires.
        ("Night_20260325.zip", "2026-03-25T01:30:00Z", "2026-04-01T01:30:00Z"),
        // 02:30 doesn't exist: it is 03:30 in summer time.
        ("Night_20260329.zip", "2026-03-29T01:30:00Z", "2026-04-05T01:30:00Z"),
        // 02:30 exists twice: it is the first.
        ("Night_20261025.zip", "2026-10-25T00:30:00Z", "2026-11-01T00:30:00Z"),
    ];
    let second = SignedDuration::from_secs(1);
    for (file_name, generated, expires) in spans {
        let (generated, expires) = (at(generated), at(expires));
        for (now, there) in [(generated - second, false), (generated, true), (expires - second, true), (expires, false)]
        {
            vendor.set(&now.to_string());
            assert_eq!(vendor.report(file_name).await.status() == StatusCode::OK, there, "{file_name} at {now}");
        }
    }
}

#[tokio::test]
async fn a_late_report_appears_at_its_third_request_each_file_for_itself() {
    let late = EmulatedReport { appears_at_request: 3, ..report("Report test") };
    let vendor = Vendor::new(account(vec![late])).await;
    for file_name in [FILE, "Report_test_20210216.zip"] {
        for _ in 0..2 {
            assert_eq!(refused(vendor.report(file_name).await).await, "The requested report is not generated yet");
        }
        for _ in 0..2 {
            assert_eq!(vendor.report(file_name).await.status(), StatusCode::OK);
        }
    }
}

#[tokio::test]
async fn no_date_before_the_first_was_ever_generated() {
    let first_date = Some(date(2021, 2, 17));
    let dump = EmulatedReport { source: SourceKind::DailyDump, first_date, ..report("dump") };
    let vendor = Vendor::new(account(vec![EmulatedReport { first_date, ..report("Report test") }, dump])).await;
    assert_eq!(vendor.report(FILE).await.status(), StatusCode::OK);
    let before = vendor.report("Report_test_20210216.zip").await;
    assert_eq!(refused(before).await, "No campaign report for this date");
    let before = vendor.ask(&dump_path(APP, "20210216.zip", KEY), |request| request).await;
    assert_eq!(refused(before).await, "No campaign report for this date");
}

#[tokio::test]
async fn the_daily_dump_is_signed_in_the_query_and_never_expires() {
    let dump = EmulatedReport { source: SourceKind::DailyDump, ..report("dump") };
    let vendor = Vendor::new(account(vec![dump])).await;
    let plain = async |path: String| vendor.ask(&path, |request| request).await;

    vendor.set("2031-02-17T09:29:59Z");
    let path = dump_path(APP, "20210217.zip", KEY);
    assert_eq!(plain(path.clone()).await.status(), StatusCode::OK);
    assert_eq!(plain(format!("/v1{path}")).await.status(), StatusCode::OK);
    let today = plain(dump_path(APP, "20310217.zip", KEY)).await;
    assert_eq!(refused(today).await, "The requested report is not generated yet");
    for file_name in ["20210217", "2021-02-17.zip", "dump_20210217.zip"] {
        assert_eq!(refused(plain(dump_path(APP, file_name, KEY)).await).await, "Invalid report file name");
    }

    let in_header = vendor
        .ask(path.split('?').next().unwrap(), |request| request.header("Signature", sign(APP, "20210217.zip", KEY)))
        .await;
    for response in [in_header, plain(dump_path(APP, "20210217.zip", "other")).await] {
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(error_message(response).await, "Invalid signature");
    }
}

#[tokio::test]
async fn other_paths_are_404_and_other_methods_405() {
    let vendor = Vendor::new(account(vec![report("Report test")])).await;
    for path in ["/", "/campaign_reports", &format!("{}/more", path(FILE)), &format!("/v1{}", path(FILE))] {
        let response = vendor.ask(path, |request| request).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        error_message(response).await;
    }
    for method in [Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = vendor.emulator.url().join(&path(FILE)).unwrap();
        let signed = client.request(method.clone(), url).header("Signature", sign(APP, FILE, KEY));
        let response = signed.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert_eq!(header(&response, "allow"), Some("GET"));
    }
}

#[tokio::test]
async fn the_log_has_each_request_and_no_secret() {
    let dump = EmulatedReport { source: SourceKind::DailyDump, ..report("dump") };
    let vendor = Vendor::new(account(vec![report("Report test"), dump])).await;
    vendor.report(FILE).await;
    vendor.ask(&dump_path(APP, "20210217.zip", KEY), |request| request.header("User-Agent", "test/1")).await;
    vendor.emulator.add_fault(Fault::Unauthorized.into());
    vendor.ask("/nowhere", |request| request).await;

    let requests = vendor.emulator.requests();
    let logged: Vec<_> = requests.iter().map(|r| (r.path.as_str(), r.status.unwrap().as_u16(), r.fault)).collect();
    let dump = format!("/dailyCampaignReportDump/{APP}/20210217.zip");
    assert_eq!(
        logged,
        [(path(FILE).as_str(), 200, None), (dump.as_str(), 200, None), ("/nowhere", 401, Some("unauthorized"))]
    );
    assert!(requests[0].has_header("signature") && !requests[1].has_header("signature"));
    assert_eq!(requests[1].user_agent.as_deref(), Some("test/1"));
    assert!(requests.iter().all(|request| request.method == Method::GET && request.at == at(NOON)));
    let shown = format!("{requests:?} {:?}", vendor.emulator);
    for secret in [KEY, API_KEY, &sign(APP, FILE, KEY), &sign(APP, "20210217.zip", KEY)] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}

#[tokio::test]
async fn an_emulator_that_ends_takes_its_connections_and_its_port_with_it() {
    let vendor = Vendor::with(Fault::Stall).await;
    let address = vendor.emulator.url().socket_addrs(|| None).unwrap();
    let stalled = vendor.raw().await;
    vendor.emulator.shutdown().await;
    let (body, end) = stalled.rest().await;
    assert!(body.is_empty() && end.is_ok());
    TcpListener::bind(&*address).await.unwrap();
}

#[tokio::test]
async fn run_serves_until_it_is_stopped() {
    let (listener, (stop, stopped)) = (listener().await, tokio::sync::oneshot::channel::<()>());
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let options = Options { accounts: vec![], seed: 0, faults: vec![], clock: Arc::new(|| at(NOON)) };
    let running = crate::support::spawn(emulator::run(listener, options, stopped));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    assert_eq!(client.get(&url).send().await.unwrap().status(), StatusCode::NOT_FOUND);
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
    assert!(client.get(&url).send().await.unwrap_err().is_connect());
}

#[tokio::test]
async fn the_demo_account_serves_what_it_names() {
    let demo = demo_account(TimeZone::UTC);
    let app_id = demo.app_id.clone();
    let key = "demo-secret-key-of-no-account";
    let vendor = Vendor::new(demo).await;
    let ask = async |file_name: &str| {
        let path = format!("/campaign_reports/rest_api/{app_id}/{file_name}");
        vendor.ask(&path, |request| request.header("Signature", sign(&app_id, file_name, key))).await.status()
    };
    assert_eq!(ask("Daily_campaigns_20210217.zip").await, 200);
    let late = "Daily_-_conversions_20210217.zip";
    assert_eq!([ask(late).await, ask(late).await, ask(late).await], [400, 400, 200]);
    assert_eq!(ask("Weekly_summary_20210215.zip").await, 200);
    assert_eq!(vendor.ask(&dump_path(&app_id, "20210217.zip", key), |request| request).await.status(), 200);
}
