//! `moesync check`: checks the configuration, and with `--online` the credentials, destinations, reports and targets
//! that it names.

use std::{fmt::Write, time::Duration};

use clap::Args;
use jiff::{ToSpan, civil::Date};
use secrecy::SecretString;
use tokio::time::timeout;

use super::{CommandError, Completion, Result, shell::Shell};
use crate::{
    archive::{self, Rejected, RejectedKind, Verdict},
    config::{
        ArchiveSource, CampaignsQuery, Config, Ledger, NamedFile, Problem, Report, SecretSource, SnapshotSource,
        Source, Target,
    },
    dispatch,
    event::Content,
    ledger::{LedgerError, ServerFacts, server_facts},
    magic,
    moengage::{self, Page, Question, RequestId, Unread},
    notify,
    outcome::Outcome,
    schedule,
    store::{Budget, Destination},
    sync::{Secrets, StartError, archive_limits, open_ledger_read_only},
    telemetry::Chain,
    words::{Check, Checked},
};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Also tries credentials and destinations, requests each report's last seven dates, and sends a test event to each
    /// notify target.
    #[arg(long)]
    online: bool,
}

/// Time limit for the probe of a destination. A slower destination cannot store reports in time.
const DESTINATION_TIME: Duration = Duration::from_secs(60);

/// Time limit for the requests of one report.
const REPORT_TIME: Duration = Duration::from_secs(180);

/// Number of campaigns whose executions are requested at most.
const MOST_PARENTS: usize = 5;

pub(super) async fn run(shell: &Shell, options: Options) -> Result {
    let config = shell.config()?;
    for workspace in &config.workspaces {
        for (what, secret) in [("secret key", &workspace.secret_key), ("API key", &workspace.api_key)] {
            refuse_readable_by_all(&format!("the {what} of workspace `{}`", workspace.name), secret)?;
        }
    }
    for target in &config.notify {
        for secret in target.secrets() {
            refuse_readable_by_all(&format!("a secret of notify target `{}`", target.name), secret)?;
        }
    }
    if let Some(problem) = config.network.ca_file.as_ref().and_then(NamedFile::missing) {
        return Err(CommandError::Usage(problem.to_string()));
    }
    let mut checks = vec![Check {
        subject: "configuration".into(),
        ok: true,
        message: format!(
            "{} workspaces, {} destinations, {} reports",
            config.workspaces.len(),
            config.destinations.len(),
            config.reports.len()
        ),
    }];
    checks.push(Check { subject: "time zones".into(), ok: true, message: format!("tzdata {}", config.tzdata) });
    checks.extend(config.warnings.iter().map(|warning| warn("configuration", warning)));
    // Other errors may not apply to the service's user.
    match open_ledger_read_only(&config).await {
        Err(error @ StartError::Configuration(_)) => return Err(error.into()),
        Err(StartError::Ledger(error))
            if matches!(error, LedgerError::TooNew { .. }) || matches!(config.ledger, Ledger::Postgres(_)) =>
        {
            checks.push(failed("ledger", &error));
        }
        Ok(ledger) => {
            if let Ledger::Postgres(url) = &config.ledger {
                let has_tables = ledger.is_some();
                let facts = server_facts(url).await;
                checks.push(facts.map_or_else(|error| failed("ledger", &error), |facts| server(&facts, has_tables)));
            }
        }
        Err(_) => {}
    }
    checks.extend(missing_secrets(&config).map(|problem| Check {
        subject: "secrets".into(),
        // The service's user may have access to them.
        ok: true,
        message: format!("{problem} (for this user); `run` and `sync` need it"),
    }));
    // Secrets outside the configuration are read only if MoEngage is contacted.
    let is_read = |secret: &SecretSource| options.online || matches!(secret, SecretSource::Value(_));
    for workspace in &config.workspaces {
        let keys = [("secret key", &workspace.secret_key), ("API key", &workspace.api_key)];
        let odd = keys.into_iter().filter(|(_, secret)| is_read(secret));
        let mut odd: Vec<_> = odd.filter_map(|(what, secret)| Some((what, secret.oddity()?))).collect();
        // The API key is the secret key where it is not given.
        odd.dedup_by(|(_, later), (_, earlier)| later == earlier);
        checks.extend(odd.iter().map(|(what, oddity)| warn(&format!("{what} of {}", workspace.name), oddity)));
    }
    if options.online {
        destinations(&config, &mut checks).await;
        targets(shell, &config, &mut checks).await?;
        reports(shell, &config, &mut checks).await?;
    }
    let is_ok = checks.iter().all(|check| check.ok);
    shell.print(&Checked { checks }, |result| {
        let mut text = String::new();
        for Check { subject, ok, message } in &result.checks {
            let _ = writeln!(text, "{} {subject}: {message}", if *ok { "ok    " } else { "FAILED" });
        }
        text
    })?;
    Ok(if is_ok { Completion::Done } else { Completion::Incomplete })
}

/// What the ledger's server is, and whether its version and the user's rights suffice.
fn server(facts: &ServerFacts, has_tables: bool) -> Check {
    let ServerFacts { version, is_supported, schema, can_create, connections, all_connections } = facts;
    let rights = match (schema, can_create) {
        (None, _) => "no schema in the user's search_path".to_owned(),
        (Some(schema), true) => format!("may create tables in the schema {schema}"),
        (Some(schema), false) => format!("may not create tables in the schema {schema}, which a new version can need"),
    };
    let age = if *is_supported { "" } else { ", which is too old: 13 is the oldest" };
    Check {
        subject: "ledger".into(),
        ok: *is_supported && (*can_create || has_tables),
        message: format!(
            "PostgreSQL {version}{age}; {rights}; up to {connections} connections for each process, of the server's \
             {all_connections}"
        ),
    }
}

fn failed(subject: &str, error: &LedgerError) -> Check {
    Check { subject: subject.to_owned(), ok: false, message: Chain(error).to_string() }
}

/// A warning about a valid value that is probably a mistake.
fn warn(subject: &str, warning: &Problem) -> Check {
    Check { subject: subject.to_owned(), ok: true, message: format!("warning: {warning}") }
}

/// Checks the mode of a secret's file without reading it: this command may run as a user who cannot.
fn refuse_readable_by_all(what: &str, secret: &SecretSource) -> Result<()> {
    match secret.readable_by_all() {
        Some(problem) => Err(CommandError::Usage(format!("{what}: {problem}"))),
        None => Ok(()),
    }
}

fn missing_secrets(config: &Config) -> impl Iterator<Item = Problem> {
    let keys = config.workspaces.iter().flat_map(|workspace| [&workspace.secret_key, &workspace.api_key]);
    let of_targets = config.notify.iter().flat_map(Target::secrets);
    let files = keys.chain(of_targets).filter_map(|secret| match secret {
        SecretSource::File { file, .. } => Some(file),
        _ => None,
    });
    let mut missing: Vec<_> = files.chain(&config.web.token_file).filter_map(NamedFile::missing).collect();
    // The API key is the secret key where it is not given.
    missing.dedup();
    missing.into_iter()
}

async fn destinations(config: &Config, checks: &mut Vec<Check>) {
    let budget = Budget::new();
    for destination in &config.destinations {
        let checked = match Destination::open(destination, budget.clone(), "check") {
            Ok(opened) => {
                let reports = config.reports.iter().filter(|report| report.destination.name == destination.name);
                let prefixes: Vec<_> = reports.map(|report| report.key_prefix()).collect();
                timeout(DESTINATION_TIME, opened.check_for(&prefixes)).await
            }
            Err(error) => Ok(Err(error)),
        };
        let (ok, message) = match checked {
            Ok(Ok(capabilities)) => (true, capabilities.to_string()),
            Ok(Err(error)) => (false, error.to_string()),
            Err(_) => (false, no_answer(DESTINATION_TIME)),
        };
        checks.push(Check { subject: format!("destination {}", destination.name), ok, message });
    }
}

fn no_answer(limit: Duration) -> String {
    format!("no answer within {} s", limit.as_secs())
}

/// Sends each target a test message.
async fn targets(shell: &Shell, config: &Config, checks: &mut Vec<Check>) -> Result<()> {
    let client =
        notify::NotifyClient::new(&config.network).map_err(|refusal| CommandError::Usage(refusal.to_string()))?;
    for target in &config.notify {
        let event = dispatch::event(Content::test(), shell.clock.now(), &config.instance);
        let (ok, message) = match client.send(target, &event, event.timestamp).await {
            Ok(()) => (true, format!("a test event arrived, {}", event.id)),
            Err(refusal) => (false, refusal.to_string()),
        };
        checks.push(Check { subject: format!("notify {}", target.name), ok, message });
    }
    Ok(())
}

async fn reports(shell: &Shell, config: &Config, checks: &mut Vec<Check>) -> Result<()> {
    let client = moengage::Client::new(&config.network, &config.limits)
        .map_err(|error| CommandError::Usage(Chain(&error).to_string()))?;
    let secrets = Secrets::default();
    for report in &config.reports {
        let checked = async {
            match &report.source {
                Source::Archive(archive) => match secrets.secret_key(&report.workspace).await {
                    Ok(secret) => {
                        let limits = archive_limits(&config.limits, report.source.kind());
                        answers(shell, &client, limits, report, archive, &secret).await
                    }
                    Err(problem) => (false, problem),
                },
                Source::Snapshot(source) => match secrets.api_key(&report.workspace).await {
                    Ok(api_key) => first_page(shell, &client, report, source, &api_key).await,
                    Err(problem) => (false, problem),
                },
            }
        };
        let (ok, message) = timeout(REPORT_TIME, checked).await.unwrap_or_else(|_| (false, no_answer(REPORT_TIME)));
        checks.push(Check { subject: format!("report {}", report.id), ok, message });
    }
    Ok(())
}

/// Requests the first page of a snapshot.
async fn first_page(
    shell: &Shell,
    client: &moengage::Client,
    report: &Report,
    source: &SnapshotSource,
    api_key: &SecretString,
) -> (bool, String) {
    let today = report.timezone.to_datetime(shell.clock.now()).date();
    let question = match source {
        SnapshotSource::CampaignStats(query) => {
            let campaign_ids = &query.campaign_ids[..query.campaign_ids.len().min(Question::CAMPAIGN_IDS)];
            Question::Stats { query, window: query.window(today), campaign_ids, offset: 0 }
        }
        SnapshotSource::Campaigns(query) => Question::Campaigns { query, page: 1 },
        SnapshotSource::Executions { campaign_ids } => return executions(client, report, api_key, campaign_ids).await,
    };
    match client.page(report, &question, api_key, &request_id()).await {
        Ok(page) => (true, arrived(&page)),
        Err(unread) => (false, unread.failure.message),
    }
}

fn arrived(page: &Page) -> String {
    match page.total {
        Some(total) => format!("first page received; {total} in total"),
        None => format!("first page received, with {} campaigns", page.items),
    }
}

/// Requests the executions of one campaign after another, until one request is not refused.
async fn executions(
    client: &moengage::Client,
    report: &Report,
    api_key: &SecretString,
    campaign_ids: &[String],
) -> (bool, String) {
    let mut parents = campaign_ids.to_vec();
    if campaign_ids.is_empty() {
        let every_campaign = CampaignsQuery::default();
        let question = Question::Campaigns { query: &every_campaign, page: 1 };
        match client.page(report, &question, api_key, &request_id()).await {
            Ok(page) => {
                parents = page.records.iter().filter_map(|record| moengage::executions_parent(&record.json)).collect();
            }
            Err(unread) => return (false, unread.failure.message),
        }
        if parents.is_empty() {
            return (true, "campaign listing received; no campaign on its first page has executions".into());
        }
    }
    // Only the first page of the listing was read.
    let is_all = !campaign_ids.is_empty() && parents.len() <= MOST_PARENTS;
    parents.truncate(MOST_PARENTS);
    let (mut refused, mut is_forbidden) = (None, true);
    for parent in &parents {
        match client.page(report, &Question::Executions { parent, page: 1 }, api_key, &request_id()).await {
            Ok(page) => return (true, arrived(&page)),
            Err(Unread { failure, .. }) => {
                let is_forbidden_here = failure.evidence.http_status == Some(403);
                if failure.outcome != Outcome::Rejected && !is_forbidden_here {
                    return (false, failure.message);
                }
                is_forbidden &= is_forbidden_here;
                refused.get_or_insert(failure.message);
            }
        }
    }
    let (count, refusal) = (parents.len(), refused.unwrap_or_default());
    match is_all || is_forbidden {
        true => (
            false,
            format!(
                "MoEngage refused the executions of all {count} campaigns that were requested; the first refusal: {refusal}"
            ),
        ),
        false => (
            true,
            format!(
                "warning: MoEngage refused the executions of the first {count} recurring campaigns, which is normal for those \
                 made in the dashboard; no others were requested; the first refusal: {refusal}"
            ),
        ),
    }
}

#[expect(clippy::disallowed_methods, reason = "the shell draws the random numbers")]
fn request_id() -> RequestId {
    RequestId::new(rand::random())
}

/// Requests the last seven dates of a report.
async fn answers(
    shell: &Shell,
    client: &moengage::Client,
    limits: archive::ArchiveLimits,
    report: &Report,
    archive: &ArchiveSource,
    secret: &SecretString,
) -> (bool, String) {
    let dates = last_dates(shell, report);
    if dates.is_empty() {
        return (true, "its schedule has no date in the last seven days".into());
    }
    let mut available = Vec::new();
    let mut refusal = None;
    for date in &dates {
        match client.open(report, archive, *date, secret, moengage::AnnouncedGzip::Transport).await {
            Ok(mut download) => match begins_as_archive(limits, &mut download).await {
                Ok(()) => available.push(*date),
                Err(found) => return (false, format!("{} {found}", report.file_name(*date))),
            },
            Err(failure) if failure.outcome == Outcome::NotPublished => refusal = Some(failure.message),
            Err(failure) => return (false, failure.message),
        }
    }
    match (available.last(), refusal) {
        (Some(newest), _) => {
            (true, format!("{} of {} dates are available, the newest {newest}", available.len(), dates.len()))
        }
        (None, refusal) => (
            false,
            format!(
                "none of the last {} dates is available ({}); compare its name with the dashboard's; requested as `{}`",
                dates.len(),
                refusal.unwrap_or_default(),
                dates.last().map(|date| report.file_name(*date)).unwrap_or_default()
            ),
        ),
    }
}

/// Reads the first bytes only: many servers answer an unknown name with 200 and a web page.
async fn begins_as_archive(limits: archive::ArchiveLimits, download: &mut moengage::Download) -> Result<(), String> {
    let mut pass = archive::Pass::start(limits);
    let mut seen = 0;
    while seen < magic::HEAD_BYTES {
        let Some(chunk) =
            download.chunk().await.map_err(|failure| format!("could not be read: {}", failure.message))?
        else {
            break;
        };
        seen += chunk.len();
        if pass.feed(chunk).await.is_err() {
            break;
        }
    }
    match pass.finish().await {
        Verdict::Rejected(Rejected { kind: RejectedKind::NotAnArchive, message, .. }) => {
            Err(format!("is not an archive: {}", download.redact(&message)))
        }
        Verdict::Rejected(Rejected { kind: RejectedKind::Unsupported, message, .. }) => {
            Err(format!("cannot be verified: {}", download.redact(&message)))
        }
        Verdict::Verified(_) | Verdict::Rejected(_) => Ok(()),
    }
}

fn last_dates(shell: &Shell, report: &Report) -> Vec<Date> {
    let now = shell.clock.now();
    let today = report.timezone.to_datetime(now).date();
    // A day more than a week, because today's may not be due yet.
    let first = today.checked_sub(7.days()).unwrap_or(today);
    let mut dates: Vec<_> = first
        .series(1.day())
        .take_while(|date| *date <= today)
        .filter_map(|date| schedule::on(&report.schedule, &report.timezone, date))
        .map(|occurrence| report.partition(occurrence))
        .filter(|partition| partition.due_at <= now && partition.expires_at.is_none_or(|expiry| expiry > now))
        .map(|partition| partition.id.date)
        .collect();
    dates.drain(..dates.len().saturating_sub(7));
    dates
}
