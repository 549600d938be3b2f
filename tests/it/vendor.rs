//! The client of MoEngage over real sockets, against a server that answers by script.

mod bodies;
mod connections;
mod encodings;
mod errors;
mod redirects;
mod requests;
mod secrets;
pub mod server;

use std::{collections::BTreeMap, io::Write, path::Path, sync::Arc, time::Duration};

use jiff::{
    SignedDuration,
    civil::{self, date},
    tz::TimeZone,
};
use moesync::{
    config::{
        ArchiveSource, DestinationSettings, Limits, NamedFile, Network, Report, ReportId, Schedule, SecretSource,
        Source, Workspace,
    },
    moengage::{AnnouncedGzip, Client, Download},
    outcome::Failure,
    signature,
};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use self::server::{Authority, Step};

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
        bandwidth: None,
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
        destination: Arc::new(DestinationSettings {
            name: "lake".into(),
            location: "file:///lake".parse().unwrap(),
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
        tables: None,
        column_types: BTreeMap::new(),
    }
}

fn signature_of(report: &Report) -> String {
    signature::sign(&report.workspace.app_id, &report.file_name(DATE), &secret()).expose_secret().to_owned()
}

async fn open(report: &Report) -> Result<Download, Failure> {
    client().open(report, archive(report), DATE, &secret(), AnnouncedGzip::Transport).await
}

/// All bytes of the archive, or the failure of any step.
async fn fetch_with(client: &Client, report: &Report) -> Result<Vec<u8>, Failure> {
    read(client.open(report, archive(report), DATE, &secret(), AnnouncedGzip::Transport).await?).await
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

/// A client whose attempts end after `timeout`, without a minimum rate.
fn impatient(timeout: Duration) -> Client {
    Client::new(&network(), &Limits { min_rate: 0, attempt_timeout: timeout, ..limits() }).unwrap()
}

/// The value of a header in a request as it was received.
fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    request.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// An answer with `head` verbatim and this body.
fn raw_answer(head: &str, body: &[u8]) -> Vec<Step> {
    let mut bytes = format!("HTTP/1.1 200 OK\r\n{head}Connection: close\r\n\r\n").into_bytes();
    bytes.extend_from_slice(body);
    vec![Step::Send(bytes)]
}
