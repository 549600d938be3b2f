//! `moesync emulate`: runs the MoEngage emulator.

use std::{net::SocketAddr, sync::Arc};

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;
use url::Url;

use super::{
    CommandError, Completion, Result,
    answers::written,
    shell::{Shell, print, stop_signal},
};
use crate::{
    config::{self, Config, SourceKind},
    emulator::{self, Account, Campaigns, Container, Csv, EmulatedReport, Emulator, Rule},
    moengage, schedule, words,
};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Address to listen on.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8788")]
    listen: SocketAddr,
    /// Seed of all generated content.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Approximate size of each archive, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 65_536)]
    bytes: u64,
    /// Number of campaigns of each account, for the JSON APIs.
    #[arg(long, value_name = "NUMBER", default_value_t = 40, value_parser = clap::value_parser!(u32).range(..1 << 23))]
    campaigns: u32,
    /// Text of each campaign, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 200)]
    campaign_bytes: usize,
    /// Number of additional flow nodes, which a search lists together with child campaigns.
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u32).range(..1 << 21))]
    flow_nodes: u32,
    /// Number of additional campaigns in channels that only metadata and statistics cover.
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u32).range(..1 << 21))]
    other_channels: u32,
    /// Percentage of recurring campaigns made in the dashboard, whose executions are refused.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=100))]
    dashboard: u8,
    /// Format of the archives, independent of their names.
    #[arg(long, value_name = "FORMAT", default_value = "zip", value_parser = container_parser())]
    container: Container,
    /// Adds a fault, such as `status=503,times=2`; may be repeated. The rules are listed below.
    #[arg(long = "fault", value_name = "RULE")]
    faults: Vec<Rule>,
}

const CONTAINERS: [(&str, Container); 5] = [
    ("zip", Container::Zip),
    ("gzip", Container::Gzip),
    ("tar", Container::Tar),
    ("tar.gz", Container::TarGz),
    ("rar", Container::Rar),
];

fn container_parser() -> impl TypedValueParser<Value = Container> {
    let words = PossibleValuesParser::new(CONTAINERS.map(|(word, _)| word));
    words
        .map(|given| CONTAINERS.into_iter().find(|(word, _)| *word == given).map_or(Container::Zip, |(_, known)| known))
}

/// The APIs of the emulator, by source.
const SERVED: &str = "\
serving  campaign_report  GET  campaign_reports/rest_api/APP_ID/FILE
         daily_dump       GET  dailyCampaignReportDump/APP_ID/YYYYMMDD.zip
         campaign_stats   POST core-services/v1/campaign-stats
         campaigns        POST core-services/v1/campaigns/search, v5/campaigns/search
         campaign_meta    POST core-services/v1/campaigns/meta, v5/campaigns/meta
         executions       POST core-services/v1/campaigns/ID/executions
";

/// Emulates the workspaces, keys and reports of the configuration; without one, the demo's account.
pub(super) async fn run(shell: &Shell, options: Options) -> Result {
    let Options {
        listen,
        seed,
        bytes,
        campaigns,
        campaign_bytes,
        flow_nodes,
        other_channels,
        dashboard,
        container,
        faults,
    } = options;
    let config = match &shell.config {
        None if config::locate(None).is_err() => None,
        _ => Some(shell.config()?),
    };
    let mut accounts = match &config {
        Some(config) => accounts(config)?,
        None => vec![emulator::demo_account(TimeZone::UTC)],
    };
    // Changes once a month, so that most runs have the same listing.
    let created_before = shell.clock.now().to_zoned(TimeZone::UTC).date().first_of_month();
    for account in &mut accounts {
        account.campaigns = Campaigns {
            count: campaigns,
            content_bytes: campaign_bytes,
            created_before,
            flow_nodes,
            other_channels,
            dashboard_percent: dashboard,
            ..Campaigns::default()
        };
        for report in &mut account.reports {
            (report.bytes, report.container) = (bytes, container);
        }
    }
    let emulator = start(listen, emulator_options(shell, accounts.clone(), seed, faults)).await?;
    let url = emulator.url();
    let mut text = format!("MoEngage emulator listens on {url}; stop it with Ctrl-C\n");
    for account in &accounts {
        text += &introduction(account, config.as_deref(), &url, shell.clock.now());
    }
    print(&format!("{text}{SERVED}"))?;
    stop_signal().await;
    emulator.shutdown().await;
    Ok(Completion::Done)
}

/// What a client needs to know of an account. The keys of a configuration are not shown.
fn introduction(account: &Account, config: Option<&Config>, url: &Url, now: Timestamp) -> String {
    let Account { app_id, secret_key, api_key, reports, .. } = account;
    let described = |report: &EmulatedReport| {
        let note = match report.source {
            SourceKind::DailyDump => "; a daily dump, not for init",
            _ if report.appears_at_request > 1 => "; published late",
            _ => "",
        };
        format!("{} ({} {}{note})", report.name, written(&report.schedule), words::zone(&report.timezone))
    };
    let names: Vec<_> = reports.iter().map(described).collect();
    let newest = reports.iter().find_map(|report| Some((report, newest_file(report, now)?)));
    let workspace = config.and_then(|config| config.workspaces.iter().find(|known| known.app_id == *app_id));
    let (keys, line) = match (workspace, newest) {
        (Some(workspace), Some((_, file_name))) => (
            format!("keys        those of workspace `{}`", workspace.name),
            format!("moesync sign --workspace '{}' --filename '{file_name}'", workspace.name),
        ),
        (Some(workspace), None) => (format!("keys        those of workspace `{}`", workspace.name), String::new()),
        (None, newest) => {
            let curl = newest.and_then(|(report, file_name)| {
                moengage::curl_line(report.source, url, app_id, &file_name, secret_key)
            });
            (
                format!(
                    "secret key  {} (for archives; what init asks for)\n         API key     {} (for the JSON APIs)",
                    secret_key.expose_secret(),
                    api_key.expose_secret()
                ),
                curl.map(|curl| curl.expose_secret().to_owned()).unwrap_or_default(),
            )
        }
    };
    let reports = if names.is_empty() { String::new() } else { format!("         archives    {}\n", names.join(", ")) };
    let line = if line.is_empty() { line } else { format!("         try         {line}\n") };
    let set_up = match config {
        Some(_) => String::new(),
        None => format!("         set up      moesync init --base-url {url}\n"),
    };
    format!("account  app id      {app_id}\n         {keys}\n{reports}{line}{set_up}")
}

/// The name of the newest archive of a report that is there, by MoEngage's rules.
fn newest_file(report: &EmulatedReport, now: Timestamp) -> Option<String> {
    let week_ago = now.checked_sub(SignedDuration::from_hours(7 * 24)).ok()?;
    let generated = schedule::after(&report.schedule, &report.timezone, week_ago);
    let day = generated.take_while(|occurrence| occurrence.generated_at <= now).last()?.date.strftime("%Y%m%d");
    Some(match report.source {
        SourceKind::CampaignReport => format!("{}_{day}{}", report.name.replace(' ', "_"), report.suffix),
        _ => format!("{day}{}", report.suffix),
    })
}

pub(super) fn emulator_options(
    shell: &Shell,
    accounts: Vec<Account>,
    seed: u64,
    faults: Vec<Rule>,
) -> emulator::Options {
    let clock = Arc::clone(&shell.clock);
    emulator::Options { accounts, seed, faults, clock: Arc::new(move || clock.now()) }
}

pub(super) async fn start(listen: SocketAddr, options: emulator::Options) -> Result<Emulator> {
    let failed = |error: std::io::Error| CommandError::Failed(format!("could not listen on {listen}: {error}"));
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    emulator::start(listener, options).map_err(failed)
}

/// The accounts that a configuration expects MoEngage to have.
fn accounts(config: &Config) -> Result<Vec<Account>> {
    let account = |workspace: &Arc<crate::config::Workspace>| {
        let secret = |source: &crate::config::SecretSource| {
            source
                .resolve()
                .map_err(|problem| CommandError::Usage(format!("workspace `{}`: {problem}", workspace.name)))
        };
        let reports = config
            .reports
            .iter()
            .filter(|report| report.workspace.name == workspace.name)
            .filter(|report| report.source.kind().is_archive())
            .map(|report| EmulatedReport {
                source: report.source.kind(),
                name: report.name.clone(),
                schedule: report.schedule.clone(),
                timezone: report.timezone.clone(),
                suffix: report.suffix().to_owned(),
                first_date: None,
                publish_delay: SignedDuration::ZERO,
                appears_at_request: 1,
                bytes: 0,
                container: Container::Zip,
                csv: Csv::default(),
            })
            .collect();
        Ok(Account {
            app_id: workspace.app_id.clone(),
            secret_key: secret(&workspace.secret_key)?,
            api_key: secret(&workspace.api_key)?,
            reports,
            campaigns: Campaigns::default(),
        })
    };
    config.workspaces.iter().map(account).collect()
}
