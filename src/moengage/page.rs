//! One page of a JSON API: asked for, judged, and taken apart into records.
//!
//! This file owns what the three JSON APIs have in common: Basic authentication, the size of an answer, and what its
//! status means. It must not know which page comes next.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use jiff::{Timestamp, civil::Date};
use reqwest::{
    StatusCode,
    header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue},
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, value::RawValue};
use tokio::time::Instant;
use url::Url;

use super::{
    Client, answer, campaign_stats, campaigns, executions,
    failure::{Failure, Redactor},
    request_id,
    transport::{Answer, Request, spoken},
};
use crate::{
    config::{CampaignsQuery, Report, Source, StatsQuery},
    outcome::Outcome,
};

/// Largest page that is read, in bytes: fifteen campaigns of a megabyte each.
const MAX_PAGE: usize = 16 * 1024 * 1024;

/// Longest beginning of an answer that is quoted, in bytes.
const MAX_QUOTE: usize = 60;

const MOE_APPKEY: HeaderName = HeaderName::from_static("moe-appkey");

/// What to ask a JSON API for.
#[derive(Debug, Clone, Copy)]
pub enum Question<'a> {
    /// A page of the listing, from 1.
    Campaigns {
        /// Filters.
        query: &'a CampaignsQuery,
        /// Which page.
        page: u64,
    },
    /// A page of one campaign's executions, from 1.
    Executions {
        /// The campaign.
        parent: &'a str,
        /// Which page.
        page: u64,
    },
    /// Statistics of up to ten campaigns.
    Stats {
        /// What is measured.
        query: &'a StatsQuery,
        /// First and last day.
        window: (Date, Date),
        /// Only these, at most ten; all when empty.
        campaign_ids: &'a [String],
        /// How many campaigns to pass over.
        offset: u64,
    },
}

impl Question<'_> {
    /// Which API answers it.
    pub fn source(&self) -> Source {
        match self {
            Question::Campaigns { .. } => Source::Campaigns,
            Question::Executions { .. } => Source::Executions,
            Question::Stats { .. } => Source::CampaignStats,
        }
    }

    /// Most items that an answer holds.
    pub fn limit(&self) -> u64 {
        match self {
            Question::Campaigns { .. } => campaigns::LIMIT,
            Question::Executions { .. } => executions::LIMIT,
            Question::Stats { .. } => campaign_stats::LIMIT,
        }
    }

    /// Most campaigns that one question can name; see [`Question::Stats`].
    pub const CAMPAIGN_IDS: usize = campaign_stats::LIMIT as usize;

    fn url(&self, base_url: &Url) -> Url {
        match self {
            Question::Campaigns { .. } => campaigns::url(base_url),
            Question::Executions { parent, .. } => executions::url(base_url, parent),
            Question::Stats { .. } => campaign_stats::url(base_url),
        }
    }

    fn body(&self, request_id: &str) -> Bytes {
        let json = match *self {
            Question::Campaigns { query, page } => campaigns::body(query, page, request_id),
            Question::Executions { page, .. } => executions::body(page, request_id),
            Question::Stats { query, window, campaign_ids, offset } => {
                campaign_stats::body(query, window, campaign_ids, offset, request_id)
            }
        };
        json.to_string().into()
    }

    fn read(&self, json: &[u8]) -> Result<Contents, serde_json::Error> {
        match self {
            Question::Campaigns { .. } => campaigns::read(json),
            Question::Executions { .. } => executions::read(json),
            Question::Stats { .. } => campaign_stats::read(json),
        }
    }
}

/// One campaign, execution, or campaign's statistics.
#[derive(Debug, Clone)]
pub struct Record {
    /// What tells it from the other records of a listing. The same id on two pages is the same record.
    pub id: String,
    /// As it came.
    pub json: Box<RawValue>,
}

/// What an answer holds.
pub(super) struct Contents {
    pub(super) records: Vec<Record>,
    pub(super) items: u64,
    pub(super) total: Option<u64>,
    pub(super) is_followed: bool,
}

/// An answer that holds what was asked for.
#[derive(Debug)]
pub struct Page {
    /// The records, in the order of the answer.
    pub records: Vec<Record>,
    /// How many items the answer had: a page that is not full is the last one.
    pub items: u64,
    /// How many there are on all pages, where the API says so.
    pub total: Option<u64>,
    /// Whether the answer itself says that more pages follow.
    pub is_followed: bool,
    /// Bytes of the answer.
    pub bytes: u64,
    /// The `Date` of the answer.
    pub vendor_date: Option<Timestamp>,
}

/// A total, also one that is written as text or with a decimal point.
pub(super) fn total<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Number(number) => number.as_u64().or_else(|| {
            let number = number.as_f64()?;
            (number.fract() == 0.0 && (0.0..1e15).contains(&number)).then_some(number as u64)
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    })
}

impl Client {
    /// Asks a JSON API, as the workspace of `report`, with `api_key`. `request_id` is ours; MoEngage's support can find
    /// the request by it.
    ///
    /// # Errors
    ///
    /// Everything but the page, with its outcome.
    pub async fn page(
        &self,
        report: &Report,
        question: &Question<'_>,
        api_key: &SecretString,
        request_id: &str,
    ) -> Result<Page, Failure> {
        let started = Instant::now();
        let page = self.ask_page(report, question, api_key, request_id).await;
        tracing::debug!(
            workspace = report.workspace.name,
            report = report.id,
            request_id,
            http_status = page.as_ref().map_or_else(|failure| failure.http_status, |_| Some(200)),
            items = page.as_ref().map_or(0, |page| page.items),
            elapsed_seconds = started.elapsed().as_secs_f64(),
            "asked MoEngage for a page"
        );
        page.map_err(|failure| Failure {
            request_id: failure.request_id.or_else(|| Some(request_id.to_owned())),
            ..failure
        })
    }

    async fn ask_page(
        &self,
        report: &Report,
        question: &Question<'_>,
        api_key: &SecretString,
        our_request_id: &str,
    ) -> Result<Page, Failure> {
        if let Question::Executions { parent: parent @ ("." | ".."), .. } = *question {
            return Err(Failure::new(Outcome::Rejected, format!("`{parent}` is no campaign's id")));
        }
        let url = question.url(&report.base_url);
        let source_url = url.to_string();
        let app_id = &report.workspace.app_id;
        let token: SecretString = BASE64_STANDARD.encode(format!("{app_id}:{}", api_key.expose_secret())).into();
        let redactor = Redactor::new(api_key, &token);
        let credentials = credentials(app_id, &token).map_err(|message| Failure::new(Outcome::Rejected, message))?;
        let request = Request { url, credentials, json: Some(question.body(our_request_id)) };
        let mut answer = self.transport.ask(request, &redactor).await.map_err(|fault| Failure {
            http_status: fault.http_status,
            vendor_date: fault.vendor_date,
            ..Failure::new(fault.outcome, redactor.redact(&fault.message))
        })?;
        if let Some(outcome) = answer::api_outcome(answer.status) {
            return Err(refusal(outcome, answer, report, &source_url, &redactor).await);
        }
        let (vendor_date, request_id) = (answer.vendor_date, request_id(&answer.headers, &redactor));
        let corrupt = |outcome, message| Failure {
            http_status: Some(200),
            vendor_date,
            request_id: request_id.clone(),
            seen: true,
            ..Failure::new(outcome, message)
        };
        let mut json = Vec::new();
        loop {
            match answer.body.chunk().await {
                Ok(Some(bytes)) if json.len() + bytes.len() > MAX_PAGE => {
                    let message = format!("a page of {source_url} is larger than {MAX_PAGE} bytes");
                    return Err(corrupt(Outcome::Corrupt, message));
                }
                Ok(Some(bytes)) => json.extend_from_slice(&bytes),
                Ok(None) => break,
                Err(fault) => return Err(corrupt(fault.outcome, redactor.redact(&fault.message))),
            }
        }
        let Contents { records, items, total, is_followed } = question.read(&json).map_err(|error| {
            let beginning = String::from_utf8_lossy(&json[..json.len().min(MAX_QUOTE)]);
            let beginning = redactor.clean(&beginning);
            let error = redactor.clean(&error.to_string());
            let what = match json.is_empty() {
                true => "with nothing".to_owned(),
                false => format!("with something else than was asked for ({error}); it begins with `{beginning}`"),
            };
            corrupt(Outcome::Corrupt, format!("MoEngage answered 200 OK for {source_url} {what}"))
        })?;
        Ok(Page { records, items, total, is_followed, bytes: json.len() as u64, vendor_date })
    }
}

fn credentials(app_id: &str, token: &SecretString) -> Result<HeaderMap, String> {
    let unusable = |what: &str| format!("{what} has characters that no HTTP header can carry");
    let mut authorization =
        HeaderValue::from_str(&format!("Basic {}", token.expose_secret())).map_err(|_| unusable("the API key"))?;
    authorization.set_sensitive(true);
    let app_key = HeaderValue::from_str(app_id).map_err(|_| unusable("app_id"))?;
    Ok(HeaderMap::from_iter([(AUTHORIZATION, authorization), (MOE_APPKEY, app_key)]))
}

/// Every answer but 200.
async fn refusal(
    outcome: Outcome,
    mut answer: Answer,
    report: &Report,
    source_url: &str,
    redactor: &Redactor,
) -> Failure {
    let status = answer.status;
    let explanation = answer::explanation(&mut answer.body, redactor).await;
    let said = meaning(outcome, status, report, source_url);
    Failure {
        http_status: Some(status.as_u16()),
        retry_after: answer::retry_after(&answer.headers, answer.vendor_date),
        vendor_date: answer.vendor_date,
        request_id: explanation.request_id.or_else(|| request_id(&answer.headers, redactor)),
        ..Failure::new(
            outcome,
            match explanation.text {
                Some(text) => format!("{said}; it says: {text}"),
                None => said,
            },
        )
    }
}

/// What came back and what to do, in plain words.
fn meaning(outcome: Outcome, status: StatusCode, report: &Report, source_url: &str) -> String {
    let (answered, workspace) = (spoken(status), &report.workspace.name);
    match outcome {
        // Seed 002: 403 where the feature is not enabled for the account.
        Outcome::Unauthorized if status == StatusCode::FORBIDDEN => format!(
            "MoEngage says that this feature is off for the account of workspace {workspace} ({answered} for {source_url}); \
             ask MoEngage to switch {} on, or take the report out",
            report.source
        ),
        Outcome::Unauthorized => format!(
            "MoEngage refused the credentials for {source_url} ({answered}); check app_id and API key of workspace \
             {workspace}"
        ),
        Outcome::Rejected => format!("MoEngage refused the request ({answered} for {source_url})"),
        Outcome::RateLimited => format!("MoEngage wants fewer requests ({answered} for {source_url})"),
        Outcome::Corrupt => format!("MoEngage answered {answered} without a page for {source_url}"),
        _ if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            format!("the proxy wants other credentials ({answered} for {source_url}); see network.proxy")
        }
        _ => format!("MoEngage could not answer ({answered} for {source_url})"),
    }
}
