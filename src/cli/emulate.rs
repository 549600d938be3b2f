//! `moesync emulate`: the pretend MoEngage alone.

use std::{net::SocketAddr, sync::Arc};

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use jiff::{SignedDuration, tz::TimeZone};
use tokio::net::TcpListener;

use super::{
    Ended, Failure, Result,
    shell::{Shell, print, stop_signal},
};
use crate::{
    config::Config,
    emulator::{self, Account, Campaigns, Container, Csv, EmulatedReport, Emulator, Rule},
};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Where it listens.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8788")]
    listen: SocketAddr,
    /// What the contents of its archives and pages follow from.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// About how large its archives are, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 65_536)]
    bytes: u64,
    /// How many campaigns each account has, for the JSON APIs.
    #[arg(long, value_name = "NUMBER", default_value_t = 40, value_parser = clap::value_parser!(u32).range(..1 << 23))]
    campaigns: u32,
    /// How much text each campaign has, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 200)]
    campaign_bytes: usize,
    /// How many more nodes of flows each account has; a search lists them with the children.
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u32).range(..1 << 21))]
    flow_nodes: u32,
    /// How many more campaigns in channels that a search doesn't cover: metadata and statistics have them.
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u32).range(..1 << 21))]
    other_channels: u32,
    /// How many in a hundred recurring campaigns were made in the dashboard: their executions are refused.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=100))]
    dashboard: u8,
    /// The format of its archives, independent of their names.
    #[arg(long, value_name = "FORMAT", default_value = "zip", value_parser = container_parser())]
    container: Container,
    /// Misbehaves: for example `status=503,times=2`; may be repeated.
    #[arg(long = "fault", value_name = "RULE", long_help = FAULTS)]
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

const FAULTS: &str = "\
Misbehaves; may be repeated. A rule is a fault and its details, separated by commas, as in
`status=503,times=2,path=Report_test`.

Faults:
  status=CODE                       that status, 403 for a feature that is off; body=TEXT
  unauthorized, not-yet             401, and 400 as for a report that is not there yet
  firewall[=400], =401, =403        403, or that status, as for an address that the workspace doesn't list
  rate-limited[=RETRY-AFTER]        429; until=SPAN or TEXT for x-ratelimit-reset
  html, json-error, empty           200, but neither an archive nor a page
  truncate=50%, truncate=BYTES      a body that ends early; framing=content-length, chunked or close
  bit-flip[=BYTE]                   one wrong bit
  content-encoding=gzip, label      packed for the journey, or only said to be
  slow=RATE                         so many bytes a second
  stall, reset                      no more after the headers, no answer at all
  reset-mid-body=50%, =BYTES        a connection that breaks
  redirect=storage, redirect=URL    code=302 or 307
  wrong-date=-8d                    a Date header that is off
  repeat                            the last campaign of the page before once more, and all after it a place later
  shrink                            the first campaign is gone, and all others come a place earlier
  hide[=N]                          the last N rows of a page are missing, or all
  extra-total=N                     a total that is N too large
  odd-json=KIND                     a field that is odd: nan, bom, utf8, duplicate, number or surrogate

One executions parent is refused by `status=404,api=executions,path=ID`.

When:
  path=TEXT                         only where the path contains it
  api=SOURCE                        only campaign_report, daily_dump, campaign_stats, campaigns, campaign_meta or
                                    executions
  page=N                            only that page of JSON, from 1
  times=N, skip=N                   so often, after so many requests";

/// What it serves, in the words of the configuration, and how it is asked.
const SERVED: &str = "\
serving  campaign_report  GET  campaign_reports/rest_api/APP_ID/FILE
         daily_dump       GET  dailyCampaignReportDump/APP_ID/YYYYMMDD.zip
         campaign_stats   POST core-services/v1/campaign-stats
         campaigns        POST core-services/v1/campaigns/search, v5/campaigns/search
         campaign_meta    POST core-services/v1/campaigns/meta, v5/campaigns/meta
         executions       POST core-services/v1/campaigns/ID/executions
";

/// With `--config`, it is the MoEngage of that configuration: its workspaces, keys and reports. Otherwise it has the
/// demo's account.
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
    let mut accounts = match &shell.config {
        Some(_) => accounts(&*shell.config()?)?,
        None => vec![emulator::demo_account(TimeZone::UTC)],
    };
    // The same for a month, so that the listing doesn't change from one run to the next.
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
    let emulator = start(listen, emulator_options(shell, accounts, seed, faults)).await?;
    print(&format!("a pretend MoEngage listens on {}; stop it with Ctrl-C\n{SERVED}", emulator.url()))?;
    stop_signal().await;
    emulator.shutdown().await;
    Ok(Ended::Done)
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
    let failed = |error: std::io::Error| Failure::Failed(format!("could not listen on {listen}: {error}"));
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    emulator::start(listener, options).map_err(failed)
}

/// The accounts that a configuration expects MoEngage to have.
fn accounts(config: &Config) -> Result<Vec<Account>> {
    let account = |workspace: &Arc<crate::config::Workspace>| {
        let secret = |source: &crate::config::SecretSource| {
            source.resolve().map_err(|problem| Failure::Usage(format!("workspace `{}`: {problem}", workspace.name)))
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
