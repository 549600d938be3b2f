//! The configuration: TOML and environment in, one validated [`Config`] out.
//!
//! Each table has one file: its raw type (`Raw`) with keys, defaults and documentation, the typed result, and the check
//! from one to the other. Secrets are read when they are needed, so commands that send no request to MoEngage run
//! without access to the keys.

mod effective;
mod load;
mod read;
mod tables;

mod alarms;
mod destination;
mod instance;
mod ledger;
mod limits;
mod mail;
mod network;
mod notify;
mod report;
mod schedule;
mod source;
mod web;
mod workspace;

mod address;
mod command;
mod document;
mod files;
mod form;
mod key;
mod mistakes;
mod oddities;
mod secret;
mod values;
mod variables;
mod zones;

use std::sync::Arc;

use jiff::SignedDuration;

pub use self::{
    address::{is_loopback, is_loopback_host, is_permitted},
    alarms::Alarms,
    destination::{BucketLocation, DestinationSettings, Location, Provider},
    document::{Origin, Problem},
    effective::{Setting, effective},
    files::NamedFile,
    instance::Instance,
    key::key_part,
    ledger::Ledger,
    limits::Limits,
    load::{load, load_text},
    mail::{Email, Encryption, Login, MailServer},
    mistakes::Mistakes,
    network::Network,
    notify::{Channel, Events, Target},
    read::locate,
    report::{Report, ReportId},
    schedule::{MonthDay, Schedule},
    secret::{SecretSource, secret_in_file},
    source::{
        ApiVersion, ArchiveSource, CampaignsQuery, Listing, Shape, SnapshotSource, Source, SourceKind, StatsQuery,
    },
    tables::schema,
    values::FIRST_YEAR,
    variables::Env,
    web::{Open, Web},
    workspace::Workspace,
};

/// A configuration in which every name resolves, every value is in range and no two reports share a key.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where partitions and attempts are recorded.
    pub ledger: Ledger,
    /// How long attempts are kept; partitions and figures are kept forever.
    pub keep_attempts: SignedDuration,
    /// The web server.
    pub web: Web,
    /// Limits on concurrency, size and time.
    pub limits: Limits,
    /// How MoEngage and other servers are reached.
    pub network: Network,
    /// How notifications name this process, and where they link to.
    pub instance: Instance,
    /// When alarms are raised.
    pub alarms: Alarms,
    /// The MoEngage accounts, in the file's order.
    pub workspaces: Vec<Arc<Workspace>>,
    /// Where objects are stored, in the file's order.
    pub destinations: Vec<Arc<DestinationSettings>>,
    /// The reports to store, in the file's order.
    pub reports: Vec<Arc<Report>>,
    /// The notification targets, in the file's order.
    pub notify: Vec<Target>,
    /// Version and location of the time zone database.
    pub tzdata: String,
    /// Settings and environment variables that are valid and probably a mistake.
    pub warnings: Vec<Problem>,
    /// App ids that are placeholders of the examples: valid, and certainly a mistake.
    pub placeholders: Vec<Problem>,
}
