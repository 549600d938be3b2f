//! The emulator as others see it: reqwest for what a client does, a bare TCP connection for what a broken vendor does,
//! and Info-ZIP and Python for what is in the archives.

mod contract;
mod json;

use std::{
    io::Write,
    num::NonZeroU32,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::{
    SignedDuration, Timestamp,
    civil::{Weekday, date, time},
    tz::TimeZone,
};
use moesync::{
    config::{Schedule, SourceKind},
    emulator::{
        self, Account, Campaigns, Container, ContentEncoding, Csv, Cut, EmulatedReport, Emulator, Fault, Framing,
        OddJson, Options, RedirectTo, Reset, Rule, demo_account,
    },
};
use reqwest::{Method, Response, StatusCode};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const APP: &str = "MAZW5N1IMMSH5H67C3T9KBHA";
const KEY: &str = "s3cr3t";
const API_KEY: &str = "api-k3y";
/// Generated at 09:30 UTC on that day.
const FILE: &str = "Report_test_20210217.zip";
const NOON: &str = "2021-02-17T12:00:00Z";

/// An emulator with a clock to turn.
struct Vendor {
    emulator: Emulator,
    now: Arc<Mutex<Timestamp>>,
}

impl Vendor {
    async fn new(account: Account) -> Vendor {
        Vendor::seeded(account, 1).await
    }

    async fn seeded(account: Account, seed: u64) -> Vendor {
        Vendor::with_clock(account, seed, SignedDuration::ZERO).await
    }

    /// One whose time goes by with each look at its clock, for a client that keeps no rate.
    async fn hasty(account: Account) -> Vendor {
        Vendor::with_clock(account, 1, SignedDuration::from_millis(700)).await
    }

    async fn with_clock(account: Account, seed: u64, step: SignedDuration) -> Vendor {
        let now = Arc::new(Mutex::new(at(NOON)));
        let clock = now.clone();
        let clock = move || {
            let mut now = clock.lock().unwrap();
            *now += step;
            *now
        };
        let options = Options { accounts: vec![account], seed, faults: vec![], clock: Arc::new(clock) };
        Vendor { emulator: emulator::start(listener().await, options).unwrap(), now }
    }

    /// One with [`FILE`] to serve, as `fault` has it.
    async fn with(fault: impl Into<Rule>) -> Vendor {
        let vendor = Vendor::new(account(vec![report("Report test")])).await;
        vendor.emulator.add_fault(fault.into());
        vendor
    }

    fn set(&self, now: &str) {
        *self.now.lock().unwrap() = at(now);
    }

    /// Lets so much time pass that the next request is within every rate.
    fn tick(&self) {
        *self.now.lock().unwrap() += SignedDuration::from_millis(700);
    }

    /// A request by a client of good manners, but for what `build` does to it.
    async fn ask(
        &self,
        path: &str,
        build: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Response {
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let url = self.emulator.url().join(path).unwrap();
        build(client.get(url)).send().await.unwrap()
    }

    /// A properly signed request for a campaign report.
    async fn report(&self, file_name: &str) -> Response {
        self.ask(&path(file_name), |request| request.header("Signature", sign(APP, file_name, KEY))).await
    }

    /// The same for [`FILE`] over a bare connection.
    async fn raw(&self) -> Raw {
        let signature = sign(APP, FILE, KEY);
        Raw::get(
            &self.emulator,
            &format!("GET {} HTTP/1.1\r\nHost: vendor\r\nSignature: {signature}\r\n\r\n", path(FILE)),
        )
        .await
    }

    /// What [`FILE`] is when nothing is wrong.
    async fn truth(&self) -> Vec<u8> {
        let honest = Vendor::new(account(vec![report("Report test")])).await;
        honest.report(FILE).await.bytes().await.unwrap().to_vec()
    }
}

/// A connection on which one request was sent, read up to the end of the answer's headers.
struct Raw {
    head: String,
    start_of_body: Vec<u8>,
    stream: TcpStream,
}

impl Raw {
    async fn get(emulator: &Emulator, request: &str) -> Raw {
        let mut stream = Raw::send(emulator, request).await;
        let mut received = Vec::new();
        let end = loop {
            if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            assert_ne!(stream.read_buf(&mut received).await.unwrap(), 0, "no complete headers");
        };
        let start_of_body = received.split_off(end);
        Raw { head: String::from_utf8(received).unwrap().to_lowercase(), start_of_body, stream }
    }

    async fn send(emulator: &Emulator, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&*emulator.url().socket_addrs(|| None).unwrap()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// All of the body until the connection ends, and how that came.
    async fn rest(mut self) -> (Vec<u8>, std::io::Result<()>) {
        let mut body = self.start_of_body;
        let end = self.stream.read_to_end(&mut body).await.map(drop);
        (body, end)
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn account(reports: Vec<EmulatedReport>) -> Account {
    let campaigns = Campaigns::default();
    Account { app_id: APP.to_owned(), secret_key: KEY.into(), api_key: API_KEY.into(), reports, campaigns }
}

/// Daily at 09:30 UTC.
fn report(name: &str) -> EmulatedReport {
    EmulatedReport {
        source: SourceKind::CampaignReport,
        name: name.to_owned(),
        schedule: Schedule::Daily { at: time(9, 30, 0, 0) },
        timezone: TimeZone::UTC,
        suffix: ".zip".to_owned(),
        first_date: None,
        publish_delay: SignedDuration::ZERO,
        appears_at_request: 1,
        bytes: 20_000,
        container: Container::Zip,
        csv: Csv::default(),
    }
}

fn sign(app_id: &str, file_name: &str, key: &str) -> String {
    hex::encode(Sha256::digest(format!("{app_id}|{file_name}|{key}")))
}

fn path(file_name: &str) -> String {
    let encoded = percent_encoding::utf8_percent_encode(file_name, percent_encoding::NON_ALPHANUMERIC);
    format!("/campaign_reports/rest_api/{APP}/{encoded}")
}

fn dump_path(app_id: &str, file_name: &str, key: &str) -> String {
    format!("/dailyCampaignReportDump/{app_id}/{file_name}?Signature={}", sign(app_id, file_name, key))
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

/// The message of an answer that refuses as the campaign report API does.
async fn refused(response: Response) -> String {
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    error_message(response).await
}

async fn error_message(response: Response) -> String {
    assert_eq!(header(&response, "content-type"), Some("application/json"));
    let body: serde_json::Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    let error = body["error"].as_object().unwrap();
    assert_eq!(error.keys().collect::<Vec<_>>(), ["attribute", "message", "request_id", "type"]);
    error["message"].as_str().unwrap().to_owned()
}

/// Runs a program of somebody else's on `archive`; its output, which must come with success.
async fn judge(program: &str, arguments: &[&str], archive: &[u8]) -> String {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(archive).unwrap();
    let output = tokio::process::Command::new(program)
        .args(arguments)
        .arg(file.path())
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap_or_else(|error| panic!("{program} is needed by this test: {error}"));
    assert!(output.status.success(), "{program}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

// ---- the contract

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
async fn a_wrong_or_missing_signature_is_401_with_nothing_whether_the_file_exists_or_not() {
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
async fn an_unknown_app_id_is_400_whatever_the_signature() {
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
async fn a_report_is_there_from_publication_to_seven_days_after_generation_to_the_second() {
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
async fn the_log_tells_each_request_and_no_secret() {
    let dump = EmulatedReport { source: SourceKind::DailyDump, ..report("dump") };
    let vendor = Vendor::new(account(vec![report("Report test"), dump])).await;
    vendor.report(FILE).await;
    vendor.ask(&dump_path(APP, "20210217.zip", KEY), |request| request.header("User-Agent", "test/1")).await;
    vendor.emulator.add_fault(Fault::Unauthorized.into());
    vendor.ask("/nowhere", |request| request).await;

    let requests = vendor.emulator.requests();
    let told: Vec<_> = requests.iter().map(|r| (r.path.as_str(), r.status.unwrap().as_u16(), r.fault)).collect();
    let dump = format!("/dailyCampaignReportDump/{APP}/20210217.zip");
    assert_eq!(
        told,
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
async fn run_serves_until_it_is_told_to_stop() {
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

// ---- the archives

#[tokio::test]
async fn the_same_seed_and_name_give_the_same_bytes_and_others_give_others() {
    let reports = || account(vec![report("Report test"), EmulatedReport { container: Container::Gzip, ..report("G") }]);
    let (one, same, other) =
        (Vendor::seeded(reports(), 1).await, Vendor::seeded(reports(), 1).await, Vendor::seeded(reports(), 2).await);
    for file_name in [FILE, "G_20210217.zip"] {
        let body = async |vendor: &Vendor, name: &str| vendor.report(name).await.bytes().await.unwrap();
        let bytes = body(&one, file_name).await;
        assert_eq!(body(&one, file_name).await, bytes);
        assert_eq!(body(&same, file_name).await, bytes);
        assert_ne!(body(&other, file_name).await, bytes);
        assert_ne!(body(&one, &file_name.replace("17", "16")).await, bytes);
    }
    // Whoever changes what archives hold changes this too, knowingly.
    let zip = one.report(FILE).await.bytes().await.unwrap();
    let script = "import sys,zipfile\nz=zipfile.ZipFile(sys.argv[1])\n\
                  for n in z.namelist()[:3]: print(n,*z.read(n).decode().splitlines()[:3],sep='\\n')";
    insta::assert_snapshot!(judge("python3", &["-c", script], &zip).await, @r##"
    Report_test_PUSH_20210217.csv
    Campaign ID,Campaign Name,Campaign Type,Campaign Delivery Type,Campaign Channel,Campaign Status,Campaign Sent Time,Parent Campaign ID,Flows Name,Variation,Locale,Date,Tag Category: Region,Conversion Goal 1 Name,"Conversion Goal 1 Conversions (Total, Click-through)",Conversion Goal 1 Revenue,All Platform Sent,All Platform Impressions,All Platform Clicks,All Platform CTR,Android Sent,Android Impressions,Android Clicks,iOS Sent,iOS Impressions,iOS Clicks,Delivery Rate
    5fbd15cc00126aa278000002,Welcome series #2,Smart Trigger,EVENT_TRIGGERED,PUSH,Active,,,,All Variations,All Locales,2021-02-16,"['APAC', 'MENA']",Goal 1,0,,791,380,6,1.6,642,282,1,149,98,5,48.0%
    5f1573670051c450b5000009,Für dich empfohlen #9,General,PERIODIC,PUSH,Active,,,,All Variations,All Locales,2021-02-16,['MENA'],Goal 1,11,913,6976,4445,289,6.5,3252,1493,154,3724,2952,135,63.7%
    Report_test_EMAIL_20210217.csv
    Campaign ID,Campaign Name,Campaign Type,Campaign Delivery Type,Campaign Channel,Campaign Status,Campaign Sent Time,Parent Campaign ID,Flows Name,Variation,Locale,Date,Tag Category: Region,Conversion Goal 1 Name,"Conversion Goal 1 Conversions (Total, Click-through)",Conversion Goal 1 Revenue,Total Sent,Total Delivered,Total Open,Unique opens,Total clicks,Unique clicks,Hard bounces,Unsubscribes ,Email Subject
    5fd569c500f1510895000001,Año nuevo 50% off #1,General,PERIODIC,EMAIL,Stopped,,,,All Variations,All Locales,2021-02-16,['LATAM'],Goal 1,11,924,10798,10614,3344,2229,335,234,184,6,Año nuevo 50% off #1: 9 for you
    5f8d10d200d622e1ca000004,"Flash sale, 24 h #4",General,BUSINESS_EVENT_TRIGGERED,EMAIL,Stopped,,,,All Variations,All Locales,2021-02-16,['LATAM'],Goal 1,18,414,6517,6422,1813,1209,236,165,95,4,"Flash sale, 24 h #4: 83 for you"
    Report_test_SMS_20210217.csv
    Campaign ID,Campaign Name,Campaign Type,Campaign Delivery Type,Campaign Channel,Campaign Status,Campaign Sent Time,Parent Campaign ID,Flows Name,Variation,Locale,Date,Tag Category: Region,Conversion Goal 1 Name,"Conversion Goal 1 Conversions (Total, Click-through)",Conversion Goal 1 Revenue,Sent,Total Delivered,Clicks,Clicks,Delivery Rate
    5efde93300b64f339000000a,Año nuevo 50% off #10,Smart Trigger,EVENT_TRIGGERED,SMS,Active,,,,All Variations,All Locales,2021-02-16,"['LATAM', 'APAC']",Goal 1,19,"1,045",5852,5705,278,194,97.5%
    5e9de19700b98f66a100000e,Cart abandoned #14,Smart Trigger,EVENT_TRIGGERED,SMS,Active,,,,All Variations,All Locales,2021-02-16,[],Goal 1,5,345,3730,3667,124,86,98.3%
    "##);
}

/// Says of each CSV of an archive its name, heading count, and whether every row is as wide.
const LIST: &str = r"
import csv, io, sys, tarfile, zipfile
with open(sys.argv[1], 'rb') as f: is_zip = f.read(2) == b'PK'
if is_zip:
    z = zipfile.ZipFile(sys.argv[1])
    assert z.testzip() is None
    files = [(i.filename, i.date_time[:3], z.read(i)) for i in z.infolist()]
else:
    t = tarfile.open(sys.argv[1])
    import datetime
    of = lambda m: datetime.datetime.fromtimestamp(m.mtime, datetime.timezone.utc).timetuple()[:3]
    files = [(m.name, of(m), t.extractfile(m).read()) for m in t]
for name, day, data in files:
    rows = list(csv.reader(io.StringIO(data.decode('utf-8'), newline='')))
    assert len(rows) > 1 and all(len(row) == len(rows[0]) for row in rows), name
    print(name, day, len(rows[0]))
";

#[tokio::test]
async fn archives_are_about_as_large_as_asked_and_others_tools_can_read_them() {
    // From a few rows in memory to what lies on disk.
    for bytes in [0, 100_000, 3_000_000] {
        let of = |name: &str, container| EmulatedReport { bytes, container, ..report(name) };
        let reports = vec![
            of("Zip", Container::Zip),
            of("Gzip", Container::Gzip),
            of("Tar", Container::Tar),
            of("Tgz", Container::TarGz),
            of("Rar", Container::Rar),
        ];
        let vendor = Vendor::new(account(reports)).await;
        let mut sizes = vec![];
        for name in ["Zip", "Tar", "Tgz"] {
            let archive = vendor.report(&format!("{name}_20210217.zip")).await.bytes().await.unwrap();
            sizes.push((name, archive.len()));
            let listing = judge("python3", &["-c", LIST], &archive).await;
            let expected = [
                ("", "PUSH", 27),
                ("", "EMAIL", 25),
                ("", "SMS", 21),
                ("", "WHATSAPP", 21),
                ("flows/", "FLOWS_EMAIL", 25),
                ("flows/", "FLOWS_PUSH", 27),
            ];
            let expected = expected
                .map(|(folder, kind, width)| format!("{folder}{name}_{kind}_20210217.csv (2021, 2, 17) {width}\n"));
            assert_eq!(listing, expected.concat());
            match name {
                "Zip" => drop(judge("unzip", &["-tq"], &archive).await),
                "Tar" => drop(judge("tar", &["-tf"], &archive).await),
                _ => drop(judge("tar", &["-tzf"], &archive).await),
            }
        }

        let gzip = vendor.report("Gzip_20210217.zip").await.bytes().await.unwrap();
        let script = "import sys,gzip,csv\nt=list(csv.reader(gzip.open(sys.argv[1],'rt',encoding='utf-8',newline='')))\n\
                      assert all(len(r)==20 for r in t)\nprint(sorted({r[4] for r in t[1:]}))";
        let channels = judge("python3", &["-c", script], &gzip).await;
        assert!(bytes == 0 || channels == "['EMAIL', 'PUSH', 'SMS', 'WHATSAPP']\n", "{channels}");
        sizes.push(("Gzip", gzip.len()));
        let rar = vendor.report("Rar_20210217.zip").await.bytes().await.unwrap();
        assert!(rar.starts_with(b"Rar!\x1a\x07\x01\x00"));
        sizes.push(("Rar", rar.len()));

        if bytes > 0 {
            for (name, size) in sizes {
                assert!((bytes * 8 / 10..bytes * 12 / 10).contains(&(size as u64)), "{name}: {size} for {bytes}");
            }
        }
    }
}

#[tokio::test]
async fn the_daily_dump_has_its_own_names_and_tables_any_separator_and_mark() {
    let csv = Csv { separator: ';', byte_order_mark: true };
    let dump = EmulatedReport { source: SourceKind::DailyDump, csv, ..report("dump") };
    let vendor = Vendor::new(account(vec![dump])).await;
    let zip = vendor.ask(&dump_path(APP, "20210217.zip", KEY), |request| request).await.bytes().await.unwrap();
    let script = "import sys,zipfile\nz=zipfile.ZipFile(sys.argv[1])\n\
                  for n in z.namelist(): print(n,z.read(n)[:24])";
    let listing = judge("python3", &["-c", script], &zip).await;
    let names = [
        "General_Push",
        "General_Email",
        "General_SMS",
        "General_WHATSAPP",
        "Smart_Trigger_Email",
        "Smart_Trigger_Push",
    ];
    let expected = names.map(|name| format!("{name}_{APP}_20210217.csv b'\\xef\\xbb\\xbfCampaign ID;Campaign '\n"));
    assert_eq!(listing, expected.concat());
}

#[tokio::test]
async fn an_export_counts_a_campaigns_day_as_statistics_do() {
    let vendor = Vendor::new(account(vec![EmulatedReport { bytes: 100_000, ..report("Report test") }])).await;
    let zip = vendor.report(FILE).await.bytes().await.unwrap();
    let script = "import sys,zipfile,csv,io,json\nz=zipfile.ZipFile(sys.argv[1])\n\
                  rows=lambda c:csv.DictReader(io.TextIOWrapper(z.open(f'Report_test_{c}_20210217.csv'),'utf-8',newline=''))\n\
                  print(json.dumps({c:{r['Campaign ID']:[r['Date'],r[a],r[b]] for r in rows(c)} for c,a,b in \
                  [('PUSH','All Platform Sent','All Platform Clicks'),('EMAIL','Total Sent','Total Delivered'),\
                  ('SMS','Sent','Total Delivered')]}))";
    let exported: serde_json::Value = serde_json::from_str(&judge("python3", &["-c", script], &zip).await).unwrap();
    let counted = json::stats_of_day(&vendor, "2021-02-16").await;
    let mut compared = 0;
    for (channel, second) in [("PUSH", "click"), ("EMAIL", "delivered"), ("SMS", "delivered")] {
        for (id, performance) in &counted {
            let row = &exported[channel][id];
            if !row.is_null() {
                let expected = ["sent", second].map(|name| performance[name].to_string());
                assert_eq!(*row, serde_json::json!(["2021-02-16", expected[0], expected[1]]), "{channel} {id}");
                compared += 1;
            }
        }
    }
    assert!(compared > 10 && compared == counted.len(), "{compared} of {}", counted.len());
}

// ---- the faults

#[tokio::test]
async fn a_rule_strikes_the_requests_it_names_as_often_as_it_says() {
    let vendor = Vendor::new(account(vec![report("Report test"), report("Other")])).await;
    vendor.emulator.add_fault("status=503,path=Report_test,skip=1,times=2".parse().unwrap());
    vendor.emulator.add_fault("status=502,times=1".parse().unwrap());
    let mut statuses = vec![];
    for file_name in [FILE, "Other_20210217.zip", FILE, FILE, FILE] {
        statuses.push(vendor.report(file_name).await.status().as_u16());
    }
    // The first is let pass by the first rule, so the second has it.
    assert_eq!(statuses, [502, 200, 503, 503, 200]);
    vendor.emulator.add_fault(Fault::Html.into());
    vendor.emulator.clear_faults();
    assert_eq!(header(&vendor.report(FILE).await, "content-type"), Some("application/gzip"));
}

#[tokio::test]
async fn a_fault_of_the_body_waits_for_a_body() {
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
async fn a_truncated_body_ends_with_the_connection_whatever_its_framing() {
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
async fn a_bit_flip_changes_one_bit_where_it_is_told_or_always_in_the_same_place() {
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
async fn a_wrong_date_is_off_by_what_it_says_beside_any_other_fault() {
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
async fn an_encoded_archive_is_in_one_more_layer_or_only_said_to_be() {
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

#[test]
fn rules_are_read_from_text() {
    let rules = [
        ("html", Fault::Html.into()),
        (
            " status = 503 , times = 2 , path = Daily ",
            Rule {
                times: Some(2),
                path_contains: Some("Daily".to_owned()),
                ..Fault::Status { code: StatusCode::SERVICE_UNAVAILABLE, body: None }.into()
            },
        ),
        (
            r"status=500,body=a\, b\\c=d,skip=3",
            Rule {
                skip: 3,
                ..Fault::Status { code: StatusCode::INTERNAL_SERVER_ERROR, body: Some(r"a, b\c=d".to_owned()) }.into()
            },
        ),
        ("truncate=50%", Fault::Truncate { at: Cut::Percent(50), framing: Framing::ContentLength }.into()),
        ("truncate=7,framing=chunked", Fault::Truncate { at: Cut::Bytes(7), framing: Framing::Chunked }.into()),
        ("truncate=7,framing=close", Fault::Truncate { at: Cut::Bytes(7), framing: Framing::Close }.into()),
        ("slow=3", Fault::Slow { bytes_per_second: NonZeroU32::new(3).unwrap() }.into()),
        ("reset-mid-body=10%", Fault::ResetMidBody { at: Cut::Percent(10) }.into()),
        ("bit-flip", Fault::BitFlip { offset: None }.into()),
        ("bit-flip=9", Fault::BitFlip { offset: Some(9) }.into()),
        ("json-error", Fault::JsonError.into()),
        ("empty", Fault::Empty.into()),
        ("stall", Fault::Stall.into()),
        ("reset", Fault::Reset.into()),
        ("not-yet", Fault::NotYet.into()),
        ("unauthorized", Fault::Unauthorized.into()),
        ("redirect=storage", Fault::Redirect { to: RedirectTo::Storage, code: StatusCode::FOUND }.into()),
        ("rate-limited", Fault::RateLimited { retry_after: None, reset: None }.into()),
        (
            "rate-limited,until=30s",
            Fault::RateLimited { retry_after: None, reset: Some(Reset::After(SignedDuration::from_secs(30))) }.into(),
        ),
        (
            "rate-limited=7,until=0",
            Fault::RateLimited { retry_after: Some("7".to_owned()), reset: Some(Reset::Text("0".to_owned())) }.into(),
        ),
        ("firewall", Fault::Firewall { code: StatusCode::FORBIDDEN }.into()),
        ("firewall=400", Fault::Firewall { code: StatusCode::BAD_REQUEST }.into()),
        ("hide,page=2", Rule { page: Some(2), ..Fault::Hide { rows: None }.into() }),
        ("hide=3", Fault::Hide { rows: Some(3) }.into()),
        ("extra-total=5", Fault::ExtraTotal { by: NonZeroU32::new(5).unwrap() }.into()),
        ("odd-json=surrogate", Fault::OddJson(OddJson::LoneSurrogate).into()),
        (
            r"rate-limited=Wed\, 17 Feb 2021 12:05:00 GMT",
            Fault::RateLimited { retry_after: Some("Wed, 17 Feb 2021 12:05:00 GMT".to_owned()), reset: None }.into(),
        ),
        ("wrong-date=90s", Fault::WrongDate { offset: SignedDuration::from_secs(90) }.into()),
        ("content-encoding=gzip", Fault::ContentEncoding(ContentEncoding::Layer).into()),
        ("content-encoding=label", Fault::ContentEncoding(ContentEncoding::LabelOnly).into()),
        ("repeat,api=campaigns", Rule { api: Some(SourceKind::Campaigns), ..Fault::Repeat.into() }),
        ("shrink,page=3", Rule { page: Some(3), ..Fault::Shrink.into() }),
    ];
    for (text, rule) in rules {
        assert_eq!(text.parse::<Rule>(), Ok(rule), "{text}");
    }
}

#[test]
fn a_rule_that_cannot_be_read_says_why() {
    let texts = [
        "",
        "html,",
        "503",
        "times=2",
        "html,empty",
        "html,html",
        "html=1",
        "status",
        "status=200x",
        "status=101",
        "truncate=100%",
        "truncate=-1",
        "truncate=1,framing=none",
        "slow=0",
        "stall,times=0",
        "stall,skip=-1",
        "html,body=x",
        "empty,framing=close",
        "redirect=",
        "redirect=nowhere",
        "redirect=storage,code=301",
        "wrong-date=yesterday",
        "content-encoding=br",
        "bit-flip=x",
        "rate-limited=a\nb",
        "reset,path",
        "reset,api=search",
        "repeat,page=0",
        "firewall=404",
        "html,until=0",
        "hide=x",
        "extra-total=0",
        "odd-json=yes",
    ];
    let errors: String =
        texts.iter().map(|text| format!("{text:?}: {}\n", text.parse::<Rule>().unwrap_err())).collect();
    insta::assert_snapshot!(errors, @r##"
    "": `` lacks a word: a rule is written like `status=503,times=2`
    "html,": `html,` lacks a word: a rule is written like `status=503,times=2`
    "503": `503` is unknown: a rule is made of a fault (status, html, json-error, empty, truncate, slow, stall, reset, reset-mid-body, bit-flip, not-yet, redirect, rate-limited, unauthorized, wrong-date, content-encoding, firewall, repeat, shrink, hide, extra-total, odd-json) and details (path, api, page, times, skip, body, framing, code, until)
    "times=2": `times=2` says when but not what: add a fault (status, html, json-error, empty, truncate, slow, stall, reset, reset-mid-body, bit-flip, not-yet, redirect, rate-limited, unauthorized, wrong-date, content-encoding, firewall, repeat, shrink, hide, extra-total, odd-json)
    "html,empty": `html` and `empty` are two faults: give each a rule of its own
    "html,html": `html` is given twice
    "html=1": `html` takes no value, but `1` is given
    "status": `status` must be a status from 200 to 599, but has no value
    "status=200x": `status` must be a status from 200 to 599, not `200x`
    "status=101": `status` must be a status from 200 to 599, not `101`
    "truncate=100%": `truncate` must be a number of bytes, or a percentage from 0% to 99%, not `100%`
    "truncate=-1": `truncate` must be a number of bytes, or a percentage from 0% to 99%, not `-1`
    "truncate=1,framing=none": `framing` must be content-length, chunked or close, not `none`
    "slow=0": `slow` must be a whole number of bytes a second from 1, not `0`
    "stall,times=0": `times` must be a whole number from 1, not `0`
    "stall,skip=-1": `skip` must be a whole number, not `-1`
    "html,body=x": `body` goes with `status`, not with `html`
    "empty,framing=close": `framing` goes with `truncate`, not with `empty`
    "redirect=": `redirect` must be `storage` or a URL, not ``
    "redirect=nowhere": `redirect` must be `storage` or a URL, not `nowhere`
    "redirect=storage,code=301": `code` must be 302 or 307, not `301`
    "wrong-date=yesterday": `wrong-date` must be a span such as 90s, 8d or -2h, not `yesterday`
    "content-encoding=br": `content-encoding` must be gzip or label, not `br`
    "bit-flip=x": `bit-flip` must be the number of a byte, or nothing, not `x`
    "rate-limited=a\nb": `rate-limited` must be the text of a header, or nothing, not `a\nb`
    "reset,path": `path` must be a part of the path, but has no value
    "reset,api=search": `api` must be campaign_report, daily_dump, campaign_stats, campaigns, campaign_meta or executions, not `search`
    "repeat,page=0": `page` must be a whole number from 1, not `0`
    "firewall=404": `firewall` must be 400, 401 or 403, or nothing, not `404`
    "html,until=0": `until` goes with `rate-limited`, not with `html`
    "hide=x": `hide` must be a number of rows, or nothing, not `x`
    "extra-total=0": `extra-total` must be a whole number from 1, not `0`
    "odd-json=yes": `odd-json` must be bom, nan, utf8, duplicate, number or surrogate, not `yes`
    "##);
}
