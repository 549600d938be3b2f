//! The requests of `moesync check --online`: credentials, destinations, targets, and each report's dates of the last
//! seven days.

use std::time::Duration;

use jiff::{Timestamp, ToSpan, civil::Date};
use secrecy::SecretString;
use tokio::time::timeout;

use super::{
    CommandError, Result,
    results::{Results, counted},
    shell::Shell,
};
use crate::{
    archive::{self, Rejected, RejectedKind, Verdict},
    config::{ArchiveSource, CampaignsQuery, Config, Report, SnapshotSource, Source},
    dispatch,
    event::Content,
    magic,
    moengage::{self, Page, Question, RequestId, Unread},
    notify,
    outcome::Outcome,
    schedule,
    store::{Budget, Destination},
    sync::{self, Secrets, archive_limits},
    telemetry::Chain,
    words::CheckResult,
};

/// Time limit for the probe of a destination. A slower destination cannot store reports in time.
const DESTINATION_TIME: Duration = Duration::from_secs(60);

/// Time limit for the requests of one report.
const REPORT_TIME: Duration = Duration::from_secs(180);

/// Number of campaigns whose executions are requested at most.
const MOST_PARENTS: usize = 5;

/// Adds the result of each request as it comes.
pub(super) async fn check(shell: &Shell, config: &Config, results: &mut Results) -> Result<()> {
    destinations(config, results).await;
    targets(shell, config, results).await?;
    reports(shell, config, results).await
}

async fn destinations(config: &Config, results: &mut Results) {
    let budget = Budget::new();
    for destination in &config.destinations {
        let opened = Destination::open(destination, budget.clone(), "check");
        let checked = match opened.and_then(|opened| opened.make_folder().map(|()| opened)) {
            Ok(opened) => {
                let reports = config.reports.iter().filter(|report| report.destination.name == destination.name);
                let prefixes: Vec<_> = reports.map(|report| report.key_prefix()).collect();
                timeout(DESTINATION_TIME, opened.check_for(&prefixes)).await
            }
            Err(error) => Ok(Err(error)),
        };
        let (result, message) = match checked {
            Ok(Ok(capabilities)) => (CheckResult::Ok, capabilities.to_string()),
            Ok(Err(error)) => (CheckResult::Error, error.to_string()),
            Err(_) => (CheckResult::Error, no_answer(DESTINATION_TIME)),
        };
        results.add(format!("destination {}", destination.name), result, message);
    }
}

fn no_answer(limit: Duration) -> String {
    format!("no answer within {} s", limit.as_secs())
}

/// Sends each target a test message.
async fn targets(shell: &Shell, config: &Config, results: &mut Results) -> Result<()> {
    let client =
        notify::NotifyClient::new(&config.network).map_err(|refusal| CommandError::Usage(refusal.to_string()))?;
    for target in &config.notify {
        let event = dispatch::event(Content::test(), shell.clock.now(), &config.instance);
        let (result, message) = match client.send(target, &event, event.timestamp).await {
            Ok(()) => (CheckResult::Ok, format!("a test event arrived, {}", event.id)),
            Err(refusal) => (CheckResult::Error, refusal.to_string()),
        };
        results.add(format!("notify {}", target.name), result, message);
    }
    Ok(())
}

async fn reports(shell: &Shell, config: &Config, results: &mut Results) -> Result<()> {
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
                    Err(problem) => (CheckResult::Error, problem),
                },
                Source::Snapshot(source) => match secrets.api_key(&report.workspace).await {
                    Ok(api_key) => first_page(shell, &client, report, source, &api_key).await,
                    Err(problem) => (CheckResult::Error, problem),
                },
            }
        };
        let (result, message) =
            timeout(REPORT_TIME, checked).await.unwrap_or_else(|_| (CheckResult::Error, no_answer(REPORT_TIME)));
        results.add(format!("report {}", report.id), result, message);
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
) -> (CheckResult, String) {
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
        Ok(page) => by_clock(shell, page.vendor_date, arrived(&page)),
        Err(unread) => (CheckResult::Error, unread.failure.message),
    }
}

/// What was found, and whether the clocks differ.
fn by_clock(shell: &Shell, vendor_date: Option<Timestamp>, found: String) -> (CheckResult, String) {
    match vendor_date.and_then(|vendor_date| sync::reported_skew(shell.clock.now(), vendor_date)) {
        Some(skew) => (CheckResult::Note, format!("{found}; {skew}: set the clock that is wrong (`timedatectl`)")),
        None => (CheckResult::Ok, found),
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
) -> (CheckResult, String) {
    let mut parents = campaign_ids.to_vec();
    if campaign_ids.is_empty() {
        let every_campaign = CampaignsQuery::default();
        let question = Question::Campaigns { query: &every_campaign, page: 1 };
        match client.page(report, &question, api_key, &request_id()).await {
            Ok(page) => {
                parents = page.records.iter().filter_map(|record| moengage::executions_parent(&record.json)).collect();
            }
            Err(unread) => return (CheckResult::Error, unread.failure.message),
        }
        if parents.is_empty() {
            return (CheckResult::Ok, "campaign listing received; no campaign on its first page has executions".into());
        }
    }
    // Only the first page of the listing was read.
    let is_all = !campaign_ids.is_empty() && parents.len() <= MOST_PARENTS;
    parents.truncate(MOST_PARENTS);
    let (mut refused, mut is_forbidden) = (None, true);
    for parent in &parents {
        match client.page(report, &Question::Executions { parent, page: 1 }, api_key, &request_id()).await {
            Ok(page) => return (CheckResult::Ok, arrived(&page)),
            Err(Unread { failure, .. }) => {
                let is_forbidden_here = failure.evidence.http_status == Some(403);
                if failure.outcome != Outcome::Rejected && !is_forbidden_here {
                    return (CheckResult::Error, failure.message);
                }
                is_forbidden &= is_forbidden_here;
                refused.get_or_insert(failure.message);
            }
        }
    }
    let (count, refusal) = (parents.len(), refused.unwrap_or_default());
    match is_all || is_forbidden {
        true => (
            CheckResult::Error,
            format!(
                "MoEngage refused the executions of all {count} campaigns that were requested; the first refusal: {refusal}"
            ),
        ),
        false => (
            CheckResult::Note,
            format!(
                "MoEngage refused the executions of the first {count} recurring campaigns, which is normal for those \
                 made in the dashboard; no others were requested; the first refusal: {refusal}"
            ),
        ),
    }
}

#[expect(clippy::disallowed_methods, reason = "the shell draws the random numbers")]
fn request_id() -> RequestId {
    RequestId::new(rand::random())
}

/// Requests the dates of a report of the last seven days.
pub(super) async fn answers(
    shell: &Shell,
    client: &moengage::Client,
    limits: archive::ArchiveLimits,
    report: &Report,
    archive: &ArchiveSource,
    secret: &SecretString,
) -> (CheckResult, String) {
    let dates = last_dates(shell, report);
    if dates.is_empty() {
        return (CheckResult::Ok, "its schedule has no date in the last seven days".into());
    }
    let mut available = Vec::new();
    let (mut refusal, mut vendor_date) = (None, None);
    for date in &dates {
        match client.open(report, archive, *date, secret, moengage::AnnouncedGzip::Transport).await {
            Ok(mut download) => match begins_as_archive(limits, &mut download).await {
                Ok(()) => {
                    vendor_date = download.evidence.vendor_date;
                    available.push(*date);
                }
                Err(found) => return (CheckResult::Error, format!("{} {found}", report.file_name(*date))),
            },
            Err(failure) if failure.outcome == Outcome::NotPublished => refusal = Some(failure.message),
            Err(failure) => return (CheckResult::Error, failure.message),
        }
    }
    match (available.last(), refusal) {
        (Some(newest), _) => {
            let found =
                format!("{} of {} available, the newest {newest}", available.len(), counted(dates.len(), "date"));
            by_clock(shell, vendor_date, found)
        }
        (None, refusal) => (
            CheckResult::Error,
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
