//! A MoEngage emulator over real HTTP, for `moesync emulate`, `moesync demo` and the tests.
//!
//! This folder owns the vendor's side of the public contract and every way in which a vendor can misbehave. It must
//! not know the client: names and signatures are derived here a second time, from the vendor's documents, so that a
//! misreading on one side fails a test. Only data types and the calendar are shared.

mod api_error;
mod archive_api;
mod archives;
mod campaign;
mod campaigns;
mod demo;
mod endpoint;
mod exports;
mod faults;
mod json_api;
mod json_checks;
mod library;
mod listings;
mod middleware;
mod numbers;
mod rates;
mod recipe;
mod request_log;
mod responses;
mod rows;
mod rule_text;
mod rules;
mod selection;
mod server;
mod storage;
mod transmission;
mod vendor;
mod wire;

use std::{fmt, io, sync::Arc};

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use secrecy::SecretString;
use tokio::{net::TcpListener, task::JoinHandle};
use url::Url;

use self::vendor::Vendor;
use crate::config::{Schedule, SourceKind};

pub use campaigns::{Campaigns, DeliveryType};
pub use demo::demo_account;
pub use faults::{ContentEncoding, Cut, Fault, Framing, OddJson, RedirectTo, Reset, Rule};
pub use request_log::{LoggedRequest, Traffic};
pub use rule_text::InvalidRule;

/// One MoEngage account that the emulator serves.
#[derive(Debug, Clone)]
pub struct Account {
    /// The id in every path.
    pub app_id: String,
    /// The key that archive requests must be signed with.
    pub secret_key: SecretString,
    /// The Basic password of the JSON APIs.
    pub api_key: SecretString,
    /// The reports that it generates.
    pub reports: Vec<EmulatedReport>,
    /// The campaigns that the JSON APIs list.
    pub campaigns: Campaigns,
}

/// A report that the emulator generates.
#[derive(Debug, Clone)]
pub struct EmulatedReport {
    /// The API that serves it.
    pub source: SourceKind,
    /// The name in the dashboard (`campaign_report`); elsewhere a label.
    pub name: String,
    /// When it is generated. "As soon as possible" is taken as the first instant of the day.
    pub schedule: Schedule,
    /// The zone of the schedule and of the dates in file names.
    pub timezone: TimeZone,
    /// The end of the file name after the date (`campaign_report`), normally `.zip`.
    pub suffix: String,
    /// The first date that was generated; `None` is always.
    pub first_date: Option<Date>,
    /// How long after generation a file is first served. It doesn't defer expiry.
    pub publish_delay: SignedDuration,
    /// The first request for a published file that succeeds: 1 refuses none, 3 refuses two as not generated.
    pub appears_at_request: u32,
    /// About how large an archive is, in bytes.
    pub bytes: u64,
    /// The format of the archive. Its name and headers may differ.
    pub container: Container,
    /// How the tables in it are written.
    pub csv: Csv,
}

/// The format of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Container {
    /// A zip with one CSV a channel, those of flows in a folder.
    Zip,
    /// One gzipped CSV of all channels.
    Gzip,
    /// The files of a zip in a tar (ustar).
    Tar,
    /// The same, gzipped.
    TarGz,
    /// The signature of a RAR 5 archive and random bytes: no program can unpack it.
    Rar,
}

/// How a table is written: RFC 4180, but for the separator that the report builder offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Csv {
    /// Between fields: `,`, `|`, `:` or `;`.
    pub separator: char,
    /// Whether the file begins with a byte order mark.
    pub byte_order_mark: bool,
}

impl Default for Csv {
    /// Commas, and no mark.
    fn default() -> Self {
        Csv { separator: ',', byte_order_mark: false }
    }
}

/// The emulator's time. It decides which reports are generated and expired, and each `Date` header.
pub type EmulatorClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Settings of an emulator.
pub struct Options {
    /// The accounts; their app ids differ.
    pub accounts: Vec<Account>,
    /// Determines all contents, together with app id and file name or campaign.
    pub seed: u64,
    /// The rules at the start.
    pub faults: Vec<Rule>,
    /// The emulator's time.
    pub clock: EmulatorClock,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { accounts, seed, faults, clock } = self;
        f.debug_struct("Options")
            .field("accounts", accounts)
            .field("seed", seed)
            .field("faults", faults)
            .field("now", &clock())
            .finish()
    }
}

/// A running emulator. Dropping it closes its port and all connections immediately.
#[derive(Debug)]
pub struct Emulator {
    url: Url,
    vendor: Arc<Vendor>,
    server: JoinHandle<()>,
}

/// Serves `options` on `listener` in a task of the current tokio runtime until the result is dropped.
///
/// # Errors
///
/// When the listener has no local address.
pub fn start(listener: TcpListener, options: Options) -> io::Result<Emulator> {
    let url = format!("http://{}/", listener.local_addr()?);
    let url = Url::parse(&url).map_err(io::Error::other)?;
    let vendor = Arc::new(Vendor::new(options));
    #[expect(clippy::disallowed_methods, reason = "the emulator that is returned holds the task and ends it")]
    let server = tokio::spawn(server::serve(listener, vendor.clone()));
    Ok(Emulator { url, vendor, server })
}

/// Serves `options` on `listener` until `shutdown` completes.
///
/// # Errors
///
/// As [`start`].
pub async fn run(listener: TcpListener, options: Options, shutdown: impl Future) -> io::Result<()> {
    let emulator = start(listener, options)?;
    shutdown.await;
    emulator.shutdown().await;
    Ok(())
}

impl Emulator {
    /// The base URL, for `base_url` of a workspace.
    pub fn url(&self) -> Url {
        self.url.clone()
    }

    /// The newest 100,000 requests, oldest first. A request is added when its response begins.
    pub fn requests(&self) -> Vec<LoggedRequest> {
        self.vendor.log.requests()
    }

    /// The requests for `api` among the newest 100,000.
    pub fn traffic(&self, api: SourceKind) -> Traffic {
        self.vendor.log.traffic(api)
    }

    /// Restates the statistics of every day, as late conversions do.
    pub fn restate(&self) {
        self.vendor.restate();
    }

    /// Adds `rule` after the existing rules.
    pub fn add_fault(&self, rule: Rule) {
        self.vendor.rules.add(rule);
    }

    /// Removes all rules.
    pub fn clear_faults(&self) {
        self.vendor.rules.clear();
    }

    /// Ends the emulator, and returns once its port is free. Open connections are closed: a stalled response never ends.
    pub async fn shutdown(mut self) {
        self.server.abort();
        // Cancellation is the expected end of the task; a panic in it was already reported.
        let _ = (&mut self.server).await;
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.server.abort();
    }
}
