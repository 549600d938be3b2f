//! The emulator as its clients see it: an HTTP client, bare TCP connections, and Info-ZIP and Python for its archives.

mod archive_api;
mod archives;
mod contract;
mod faults;
mod json;
mod rule_text;

use std::{
    io::Write,
    process::Stdio,
    sync::{Arc, Mutex},
};

use jiff::{SignedDuration, Timestamp, civil::time, tz::TimeZone};
use moesync::{
    config::{Schedule, SourceKind},
    emulator::{self, Account, Campaigns, Container, Csv, EmulatedReport, Emulator, Options, Rule},
};
use reqwest::{Response, StatusCode};
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

/// An emulator with a clock that the test sets.
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

    /// One whose clock advances with each reading, for a client that keeps no rate limit.
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

    /// One that serves [`FILE`] with `fault`.
    async fn with(fault: impl Into<Rule>) -> Vendor {
        let vendor = Vendor::new(account(vec![report("Report test")])).await;
        vendor.emulator.add_fault(fault.into());
        vendor
    }

    fn set(&self, now: &str) {
        *self.now.lock().unwrap() = at(now);
    }

    /// Advances the clock so that the next request is within every rate limit.
    fn tick(&self) {
        *self.now.lock().unwrap() += SignedDuration::from_millis(700);
    }

    /// A correct request, changed by `build`.
    async fn ask(
        &self,
        path: &str,
        build: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Response {
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let url = self.emulator.url().join(path).unwrap();
        build(client.get(url)).send().await.unwrap()
    }

    /// A correctly signed request for a campaign report.
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

    /// The content of [`FILE`] without faults.
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

    /// The body until the connection ends, and how it ended.
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

/// The message of a refusal by the campaign report API.
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

/// Runs another program on `archive`, which must succeed; returns its output.
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
