//! `moesync check`: checks the configuration and everything that `run` opens, and with `--online` what it names elsewhere.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write as _},
    net::TcpListener,
    path::Path,
};

use clap::Args;
use rustix::fs::{Access, access};

use super::{
    Result, health, online,
    results::{Results, counted},
    shell::Shell,
};
use crate::{
    config::{Config, Ledger, Location, SecretSource},
    dispatch,
    ledger::{LedgerError, ServerFacts, server_facts},
    moengage,
    store::{Budget, Destination},
    sync::{StartError, open_ledger_read_only},
    telemetry::Chain,
    words::CheckResult,
};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Also tries credentials and destinations, requests each report's dates of the last seven days, and sends a test event to
    /// each notify target.
    #[arg(long)]
    online: bool,
}

pub(super) async fn run(shell: &Shell, options: Options) -> Result {
    let config = shell.config()?;
    let mut results = Results::new(shell, &config);
    let Config { workspaces, destinations, reports, .. } = &*config;
    let parts = [("workspace", workspaces.len()), ("destination", destinations.len()), ("report", reports.len())];
    results.add("configuration", CheckResult::Ok, parts.map(|(what, number)| counted(number, what)).join(", "));
    results.add("time zones", CheckResult::Ok, format!("tzdata {}", config.tzdata));
    for warning in &config.warnings {
        results.add("configuration", CheckResult::Note, warning.to_string());
    }
    for placeholder in &config.placeholders {
        results.add("configuration", CheckResult::Error, placeholder.to_string());
    }
    secrets(&config, &mut results);
    let has_network = clients(&config, &mut results);
    // Online, a probe opens them.
    if !options.online {
        open_destinations(&config, has_network, &mut results);
    }
    ledger(&config, &mut results).await;
    web(&config, &mut results).await;
    if options.online {
        online::check(shell, &config, &mut results).await?;
    }
    results.end(shell)
}

/// Reads every secret, as `run` does.
fn secrets(config: &Config, results: &mut Results) {
    for workspace in &config.workspaces {
        let keys = [("secret key", &workspace.secret_key), ("API key", &workspace.api_key)];
        let mut found: Vec<_> = keys.into_iter().filter_map(|(what, source)| Some((what, judged(source)?))).collect();
        // The API key is the secret key where it is not given.
        found.dedup_by(|(_, later), (_, earlier)| later == earlier);
        for (what, (result, message)) in found {
            add(results, format!("{what} of {}", workspace.name), result, message);
        }
    }
    for target in &config.notify {
        for (result, message) in target.secrets().filter_map(judged) {
            add(results, format!("notify {}", target.name), result, message);
        }
    }
}

fn add(results: &mut Results, subject: String, result: CheckResult, message: String) {
    match result {
        CheckResult::Error => results.add_refusal(subject, message),
        _ => results.add(subject, result, message),
    }
}

/// What is wrong with a secret, if anything is. `run` may be another user, and have variables that systemd sets.
fn judged(source: &SecretSource) -> Option<(CheckResult, String)> {
    let note = |message: String| Some((CheckResult::Note, message));
    match source {
        SecretSource::File { file, .. } if is_hidden(&file.path) => {
            return note(format!("{} cannot be read by this user", file.path.display()));
        }
        SecretSource::Unset(problem)
            if std::env::var_os(SYSTEMD).is_none() && problem.to_string().contains(SYSTEMD) =>
        {
            return note(format!("{problem}; systemd sets it for the service"));
        }
        _ => {}
    }
    if let Some(problem) = source.readable_by_all() {
        return Some((CheckResult::Error, problem.to_string()));
    }
    match source.resolve() {
        Err(problem) => Some((CheckResult::Error, problem.to_string())),
        Ok(_) => note(source.oddity()?.to_string()),
    }
}

/// The variable with the folder of a service's credentials.
const SYSTEMD: &str = "CREDENTIALS_DIRECTORY";

fn is_hidden(path: &Path) -> bool {
    matches!(File::open(path), Err(error) if error.kind() == ErrorKind::PermissionDenied)
}

/// Opens the destinations as `run` does: their options, certificates and folders. It makes no folder: the user of this
/// command may be another than that of the service.
fn open_destinations(config: &Config, has_network: bool, results: &mut Results) {
    let budget = Budget::new();
    for destination in &config.destinations {
        let refused = match &destination.location {
            Location::Directory(root) => folder(root).err(),
            // Buckets read the certificate authorities too, whose mistake is known already.
            Location::Bucket(_) if !has_network && destination.ca_file.is_some() => None,
            Location::Bucket(_) => {
                Destination::open(destination, budget.clone(), "check").err().map(|error| error.to_string())
            }
        };
        if let Some(message) = refused {
            results.add_refusal(format!("destination {}", destination.name), message);
        }
    }
}

/// Checks that the folder is there, or can be made.
fn folder(root: &Path) -> std::result::Result<(), String> {
    for path in root.ancestors() {
        match path.symlink_metadata() {
            // This user cannot see it, and it may be there.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(()),
            Err(_) => {}
            Ok(_) if !path.is_dir() => {
                return Err(format!("cannot store in {}: {} is not a folder", root.display(), path.display()));
            }
            Ok(_) if path == root => return Ok(()),
            Ok(_) => {
                return access(path, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| {
                    let error = io::Error::from(error);
                    format!("cannot make the folder {} in {}: {error}", root.display(), path.display())
                });
            }
        }
    }
    Ok(())
}

/// Makes the HTTP clients as `run` does. Whether `[network]` can be used: the clients of notify targets would repeat its
/// mistakes.
fn clients(config: &Config, results: &mut Results) -> bool {
    if let Err(error) = moengage::Client::new(&config.network, &config.limits) {
        results.add_refusal("network", Chain(&error).to_string());
        return false;
    }
    if let Err(message) = dispatch::check(config) {
        results.add_refusal("notify", message);
    }
    true
}

async fn ledger(config: &Config, results: &mut Results) {
    let opened = open_ledger_read_only(config).await;
    if let Ok(Some(ledger)) = &opened {
        // Before its file is opened again: closing that would end SQLite's locks of this process.
        ledger.close().await;
    }
    match opened {
        Ok(ledger) => match &config.ledger {
            Ledger::Postgres(url) => match server_facts(url).await {
                Ok(facts) => {
                    let (result, message) = server(&facts, ledger.is_some());
                    results.add("ledger", result, message);
                }
                Err(error) => results.add_error("ledger", Chain(&error).to_string()),
            },
            Ledger::Sqlite(path) => drop(file(path, ledger.is_some(), results)),
        },
        Err(StartError::Configuration(message)) => results.add_refusal("ledger", message),
        Err(StartError::Ledger(error)) => {
            let is_final = matches!(error, LedgerError::TooNew { .. }) || matches!(config.ledger, Ledger::Postgres(_));
            match &config.ledger {
                // `run` brings an older ledger up to date, and rebuilds a damaged one.
                Ledger::Sqlite(path) if !is_final => {
                    if file(path, path.symlink_metadata().is_ok(), results) {
                        results.add("ledger", CheckResult::Note, Chain(&error).to_string());
                    }
                }
                _ => results.add_error("ledger", Chain(&error).to_string()),
            }
        }
    }
}

/// Whether the ledger's file and its folder can be written. A folder that is missing is created by `run`.
fn file(path: &Path, exists: bool, results: &mut Results) -> bool {
    let folder = path.ancestors().skip(1).map(|folder| if folder == Path::new("") { Path::new(".") } else { folder });
    let folder = folder.into_iter().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let opened = match File::options().append(true).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        opened => opened.map(drop),
    };
    let written = opened.and_then(|()| try_writing(folder));
    match &written {
        Ok(()) => {
            let state = if exists { "" } else { "; it is created by the first `run` or `sync`" };
            results.add("ledger", CheckResult::Ok, format!("{}{state}", path.display()));
        }
        Err(error) => {
            let hint = match error.kind() {
                ErrorKind::PermissionDenied => "; check as the user that `run` is",
                _ => "",
            };
            results.add_error("ledger", format!("{} cannot be written: {error}{hint}", path.display()));
        }
    }
    written.is_ok()
}

fn try_writing(folder: &Path) -> io::Result<()> {
    let probe = folder.join(format!(".moesync-check-{}", std::process::id()));
    let mut file = File::create_new(&probe)?;
    // As much as the first page of a ledger.
    let written = file.write_all(&[0; 4096]).and_then(|()| file.sync_all());
    fs::remove_file(probe)?;
    written
}

/// What the ledger's server is, and whether its version and the user's rights suffice.
fn server(facts: &ServerFacts, has_tables: bool) -> (CheckResult, String) {
    let ServerFacts { version, is_supported, schema, can_create, missing_rights, connections, all_connections } = facts;
    let rights = match (schema, can_create) {
        (None, _) => "no schema in the user's search_path".to_owned(),
        (Some(schema), true) => format!("may create tables in the schema {schema}"),
        (Some(schema), false) => format!("may not create tables in the schema {schema}, which a new version can need"),
    };
    let age = if *is_supported { "" } else { ", which is too old: 13 is the oldest" };
    let lacks = match &missing_rights[..] {
        [] => String::new(),
        rights => format!("; lacks {}", rights.join(", ")),
    };
    let is_ok = *is_supported && (*can_create || has_tables) && missing_rights.is_empty();
    (
        if is_ok { CheckResult::Ok } else { CheckResult::Error },
        format!(
            "PostgreSQL {version}{age}; {rights}{lacks}; up to {connections} connections for each process, of the server's \
             {all_connections}"
        ),
    )
}

/// Whether the address of the page is free, or taken by a daemon of this configuration.
async fn web(config: &Config, results: &mut Results) {
    let Some(address) = config.web.listen else { return };
    match TcpListener::bind(address) {
        Ok(_) => results.add("web", CheckResult::Ok, format!("{address} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse && health::is_moesync(address).await => {
            results.add("web", CheckResult::Note, format!("{address} is taken by a moesync that runs"));
        }
        Err(error) => results.add_error("web", format!("`run` cannot listen on {address}: {error}")),
    }
    if let Err(problem) = config.web.token() {
        let is_hidden = config.web.token_file.as_ref().is_some_and(|file| is_hidden(&file.path));
        let result = if is_hidden { CheckResult::Note } else { CheckResult::Error };
        add(results, "web".to_owned(), result, problem.to_string());
    }
}
