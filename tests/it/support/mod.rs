//! A workbench for the real binary: a folder with a configuration, an emulated vendor, and the oracle.
//!
//! After any injected fault, [`Bench::oracle`] checks that no harm was done.

mod browser;
mod daemon;
pub mod ledger_file;
mod log;
mod mail_server;
pub mod oracle;
pub mod postgres;
pub mod receiver;
pub mod s3_server;
pub mod small_disk;
mod time;
pub mod watch;

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp, ToSpan as _, civil::Date, tz::TimeZone};
use moesync::{
    config::{self, Schedule, SourceKind},
    emulator::{self, Account, Campaigns, Container, Csv, EmulatedReport, Emulator, Fault, Rule},
    sync::Context,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{net::TcpListener, process::Command, task::JoinHandle};

pub use self::{
    browser::Browser,
    daemon::{Daemon, wait_until},
    log::Log,
    mail_server::MailServer,
    receiver::Receiver,
    time::TestClock,
};

/// A task that ends with the test's runtime.
#[expect(clippy::disallowed_methods, reason = "the runtime of a test ends its tasks")]
pub fn spawn<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::spawn(task)
}

/// The id in every path.
pub const APP: &str = "MAZW5N1IMMSH5H67C3T9KBHA";
/// The key that must appear in no output.
pub const CANARY: &str = "canary-8c1f27-secret-key";
/// Time limit for everything that a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A configured report that the vendor serves.
#[derive(Debug, Clone)]
pub struct Series {
    pub id: String,
    pub source: SourceKind,
    pub name: String,
    /// The number of due partitions, which is also where the report starts.
    pub days: u32,
    /// Approximate size of an archive, in bytes.
    pub bytes: u64,
}

impl Series {
    /// A daily campaign report. The vendor has at most seven of its days.
    pub fn campaign(name: &str, days: u32) -> Self {
        let id = name.to_lowercase().replace(' ', "-");
        Self { id, source: SourceKind::CampaignReport, name: name.to_owned(), days, bytes: 4096 }
    }

    /// The daily dump, which never expires.
    pub fn dump(days: u32) -> Self {
        Self { id: "dump".to_owned(), source: SourceKind::DailyDump, name: "dump".to_owned(), days, bytes: 4096 }
    }

    pub fn bytes(self, bytes: u64) -> Self {
        Self { bytes, ..self }
    }

    /// The vendor's name for the file of `date`.
    pub fn file_name(&self, date: Date) -> String {
        let day = date.strftime("%Y%m%d");
        match self.source {
            SourceKind::CampaignReport => format!("{}_{day}.zip", self.name.replace(' ', "_")),
            _ => format!("{day}.zip"),
        }
    }

    /// The key of the object of `date`.
    pub fn key(&self, date: Date) -> String {
        format!("acme/{}/date={date}/{}", self.id, self.file_name(date))
    }
}

/// A folder, a vendor, and the expected result.
pub struct Bench {
    pub folder: TempDir,
    pub vendor: Emulator,
    pub series: Vec<Series>,
    /// The time of the vendor, and of the library where a test uses that; the binary has the machine's.
    pub clock: TestClock,
    /// Date of the newest partition that is due.
    pub newest: Date,
    /// Where the destination's objects are on this machine's disk.
    root: PathBuf,
    /// The table of the destination, without its head.
    destination: String,
    /// The binary's environment.
    environment: Vec<(&'static str, &'static str)>,
    /// A second emulator without faults: the reference for contents.
    twin: Emulator,
    /// The client for it.
    client: reqwest::Client,
    /// The contents that the twin served, by key.
    truths: Mutex<HashMap<String, Vec<u8>>>,
    /// Everything that was printed.
    printed: Mutex<Vec<String>>,
}

impl Bench {
    /// At the machine's present time, for the binary.
    pub async fn new(series: &[Series]) -> Self {
        Self::with_clock(series, Campaigns::default(), TestClock::machine()).await
    }

    /// At a chosen time, for the library.
    pub async fn at(now: &str, series: &[Series]) -> Self {
        Self::with_clock(series, Campaigns::default(), TestClock::set_to(now.parse().unwrap())).await
    }

    /// At a chosen time, with an account that has these campaigns. The test configures their reports.
    pub async fn of_campaigns(now: &str, campaigns: Campaigns) -> Self {
        Self::with_clock(&[], campaigns, TestClock::set_to(now.parse().unwrap())).await
    }

    /// At a chosen time, with reports and campaigns.
    pub async fn at_with_campaigns(now: &str, series: &[Series], campaigns: Campaigns) -> Self {
        Self::with_clock(series, campaigns, TestClock::set_to(now.parse().unwrap())).await
    }

    /// At the machine's present time, for the binary, with an S3 server as the destination.
    pub async fn on_s3(server: &s3_server::Server, series: &[Series]) -> Self {
        Self::on_s3_with_campaigns(server, series, Campaigns::default()).await
    }

    /// The same, with an account that has campaigns.
    pub async fn on_s3_with_campaigns(server: &s3_server::Server, series: &[Series], campaigns: Campaigns) -> Self {
        let mut bench = Self::with_clock(series, campaigns, TestClock::machine()).await;
        bench.root = server.bucket();
        bench.destination = format!(
            "name = \"disk\"\nurl = \"s3://{}\"\n\
             options = {{ aws_endpoint = \"{}\", aws_region = \"us-east-1\", allow_http = \"true\" }}\n",
            s3_server::BUCKET,
            server.url
        );
        bench.environment =
            vec![("AWS_ACCESS_KEY_ID", s3_server::KEY_ID), ("AWS_SECRET_ACCESS_KEY", s3_server::SECRET)];
        bench.write_config(&bench.config());
        bench
    }

    /// Sets this folder as the destination.
    pub fn store_in(&mut self, folder: &Path) {
        self.root = folder.to_owned();
        self.destination = format!("name = \"disk\"\nurl = \"file://{}\"\n", folder.display());
        self.write_config(&self.config());
    }

    async fn with_clock(series: &[Series], campaigns: Campaigns, clock: TestClock) -> Self {
        // Everything was generated six hours ago, or some days before, so that the hour at which a test runs does not matter.
        let generated = (clock.read() - SignedDuration::from_hours(6)).to_zoned(TimeZone::UTC).datetime();
        let at = jiff::civil::time(generated.hour(), generated.minute(), 0, 0);
        let account = Account {
            app_id: APP.to_owned(),
            secret_key: CANARY.into(),
            api_key: CANARY.into(),
            reports: series.iter().map(|series| emulated(series, Schedule::Daily { at })).collect(),
            campaigns,
        };
        let vendor = serve(account.clone(), &clock).await;
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("reports");
        let bench = Bench {
            destination: format!("name = \"disk\"\nurl = \"file://{}\"\n", root.display()),
            root,
            environment: Vec::new(),
            folder,
            twin: serve(account, &clock).await,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            vendor,
            series: series.to_vec(),
            clock,
            newest: generated.date(),
            truths: Mutex::default(),
            printed: Mutex::default(),
        };
        let key = bench.path("secret-key");
        fs::write(&key, CANARY).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        bench.write_config(&bench.config());
        bench
    }

    /// The configuration that fits the vendor.
    pub fn config(&self) -> String {
        let folder = self.folder.path().display();
        let mut text = format!(
            "[ledger]\nurl = \"sqlite://{folder}/ledger/moesync.db\"\n\n[web]\nlisten = \"\"\n\n\
             [[workspaces]]\nname = \"acme\"\napp_id = \"{APP}\"\nbase_url = \"{}\"\ntimezone = \"UTC\"\n\
             secret_key_file = \"{folder}/secret-key\"\n\n\
             [[destinations]]\n{}",
            self.vendor.url(),
            self.destination
        );
        for series in &self.series {
            text += &self.report(series);
        }
        text
    }

    /// The table of one report.
    pub fn report(&self, series: &Series) -> String {
        let Series { id, source, name, days, .. } = series;
        let start = self.newest.checked_sub((i64::from(*days) - 1).days()).unwrap();
        format!(
            "\n[[reports]]\nworkspace = \"acme\"\nsource = \"{source}\"\nid = \"{id}\"\nname = \"{name}\"\n\
             destination = \"disk\"\nschedule = {{ every = \"day\", at = \"{}\" }}\nstart = \"{start}\"\n",
            self.generated_at_time()
        )
    }

    /// The time of day of all generations.
    pub fn generated_at_time(&self) -> String {
        (self.clock.read_at_start() - SignedDuration::from_hours(6)).strftime("%H:%M").to_string()
    }

    /// Configures a vendor that answers every request with the body in the returned mutex.
    pub async fn answer_with(&self, body: Vec<u8>) -> Arc<Mutex<Vec<u8>>> {
        let body = Arc::new(Mutex::new(body));
        let (served, clock) = (Arc::clone(&body), self.clock.clone());
        let app = axum::Router::new().fallback(move || {
            let date = clock.read().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
            std::future::ready(([("date", date)], served.lock().unwrap().clone()))
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        spawn(async move { axum::serve(listener, app).await });
        let config = fs::read_to_string(self.path("moesync.toml")).unwrap();
        self.write_config(&config.replace(self.vendor.url().as_str().trim_end_matches('/'), &url));
        body
    }

    pub fn write_config(&self, text: &str) {
        fs::write(self.path("moesync.toml"), text).unwrap();
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The ledger's file.
    pub fn ledger(&self) -> PathBuf {
        self.path("ledger/moesync.db")
    }

    /// A path at the destination.
    pub fn object(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    /// All partitions that are due, oldest first.
    pub fn due(&self) -> Vec<(&Series, Date)> {
        let mut due: Vec<_> = self
            .series
            .iter()
            .flat_map(|series| (0..i64::from(series.days)).map(move |ago| (series, ago)))
            .map(|(series, ago)| (series, self.newest.checked_sub(ago.days()).unwrap()))
            .collect();
        due.sort_by_key(|(series, date)| (*date, series.id.clone()));
        due
    }

    /// The number of requests that the vendor received.
    pub fn requests(&self) -> usize {
        self.vendor.requests().len()
    }

    pub fn fault(&self, rule: &str) {
        self.vendor.add_fault(rule.parse().unwrap());
    }

    /// A fault of one file, this many times.
    pub fn fault_at(&self, file_name: &str, fault: Fault, times: u32) {
        self.vendor.add_fault(Rule {
            path_contains: Some(file_name.to_owned()),
            times: Some(times),
            ..Rule::from(fault)
        });
    }

    /// The binary with these arguments, not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moesync"));
        self.prepare(&mut command, arguments);
        command
    }

    /// The same under another program, such as `strace`.
    pub fn command_under(&self, program: &str, its_arguments: &[&str], arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(its_arguments).arg(env!("CARGO_BIN_EXE_moesync"));
        self.prepare(&mut command, arguments);
        command
    }

    fn prepare(&self, command: &mut Command, arguments: &[&str]) {
        command
            .current_dir(self.folder.path())
            .env_clear()
            .envs(self.environment.iter().copied())
            .arg("--config")
            .arg(self.path("moesync.toml"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
    }

    /// Runs the binary to its end.
    pub async fn run(&self, arguments: &[&str]) -> Ran {
        self.finish(self.command(arguments)).await
    }

    /// Runs a prepared command to its end.
    pub async fn finish(&self, mut command: Command) -> Ran {
        let output = tokio::time::timeout(PATIENCE, command.output()).await.unwrap().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let ran = Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) };
        self.note_printed(&ran.stdout);
        self.note_printed(&ran.stderr);
        ran
    }

    /// Keeps output for the oracle.
    pub fn note_printed(&self, text: &str) {
        self.printed.lock().unwrap().push(text.to_owned());
    }

    /// The output that was kept.
    pub fn printed(&self) -> Vec<String> {
        self.printed.lock().unwrap().clone()
    }

    /// `sync`, which must end with this code.
    pub async fn sync(&self, code: i32) -> Ran {
        self.run(&["sync", "--json"]).await.expect(code)
    }

    /// The partitions in `status --json`, except scheduled ones.
    pub async fn status(&self) -> Vec<Value> {
        let mut partitions = self.run(&["status", "--json"]).await.expect(0).partitions();
        partitions.retain(|partition| partition["state"] != "scheduled");
        partitions
    }

    /// A context of the library, with this bench's clock.
    pub async fn context(&self) -> Arc<Context> {
        let config = config::load(&self.path("moesync.toml"), std::iter::empty()).unwrap();
        let clock: Arc<dyn moesync::sync::Clock> = Arc::new(self.clock.clone());
        Arc::new(moesync::sync::start(Arc::new(config), clock, Arc::new(())).await.unwrap())
    }
}

fn emulated(series: &Series, schedule: Schedule) -> EmulatedReport {
    EmulatedReport {
        source: series.source,
        name: series.name.clone(),
        schedule,
        timezone: TimeZone::UTC,
        suffix: ".zip".to_owned(),
        first_date: None,
        publish_delay: SignedDuration::ZERO,
        appears_at_request: 1,
        bytes: series.bytes,
        container: Container::Zip,
        csv: Csv::default(),
    }
}

async fn serve(account: Account, clock: &TestClock) -> Emulator {
    let clock = clock.clone();
    let options = emulator::Options {
        accounts: vec![account],
        seed: 7,
        faults: Vec::new(),
        clock: Arc::new(move || clock.read()) as Arc<dyn Fn() -> Timestamp + Send + Sync>,
    };
    emulator::start(TcpListener::bind("127.0.0.1:0").await.unwrap(), options).unwrap()
}

/// The result of a run of the binary.
#[derive(Debug)]
pub struct Ran {
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Fails the test unless the run ended with `code`.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        let Ran { code: found, stdout, stderr } = &self;
        assert_eq!(*found, Some(code), "\n--- stdout\n{stdout}\n--- stderr\n{stderr}");
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {}\n{}", self.stdout, self.stderr))
    }

    /// The list that most commands print.
    #[track_caller]
    pub fn partitions(&self) -> Vec<Value> {
        self.json()["partitions"].as_array().unwrap().clone()
    }

    /// The alarms in its log, in order.
    pub fn alarms(&self) -> Vec<String> {
        alarms(self.stderr.lines())
    }
}

/// The alarms that began or worsened, according to the lines of a log.
fn alarms<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let events = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let errors = events.filter(|event| event["level"] == "ERROR");
    errors.filter_map(|event| Some(event["alarm"].as_str()?.to_owned())).collect()
}

/// Every file below `folder`.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        // A folder may be deleted concurrently.
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => found.push(entry.path()),
            }
        }
    }
    found.sort();
    found
}
