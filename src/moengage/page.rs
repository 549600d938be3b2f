//! One page of a JSON API: its request, the outcome of its status, and its records.
//!
//! This file owns what the JSON APIs have in common: Basic authentication, the largest page, and that each record has
//! an id. It must not know which page is next.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use jiff::Timestamp;
use reqwest::{
    StatusCode,
    header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue},
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::{
    Client,
    contents::{PageContents, RawRecord},
    error_body,
    head::status_text,
    question::{Question, RequestId},
    redact::{Redactor, shown},
    repair::{self, JsonRepair, RepairedPage},
    status,
    transport::{Request, Response},
};
use crate::{
    config::Report,
    outcome::{Evidence, Failure, Outcome, Received},
};

/// Largest page that is read, in bytes: fifteen campaigns of a megabyte each.
const MAX_PAGE: usize = 16 * 1024 * 1024;

/// Most bytes quoted of a response that is not a page.
const MAX_QUOTE: usize = 60;

/// Longest id of a record, in bytes. MoEngage's ids have 24.
const MAX_ID: usize = 1024;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const MOE_APPKEY: HeaderName = HeaderName::from_static("moe-appkey");

/// One campaign, execution, or campaign's statistics.
#[derive(Debug, Clone)]
pub struct Record {
    /// Unique in a listing: the same id on two pages is the same record.
    pub id: String,
    /// As received.
    pub json: Box<RawValue>,
}

/// The text of a page, parsed.
struct Parsed {
    records: Vec<Record>,
    total: Option<u64>,
    is_followed: bool,
    repairs: Vec<JsonRepair>,
}

/// Parses the text of a page: strictly, and if that fails, after repairs of what JSON does not allow.
fn parse(question: &Question<'_>, page: &[u8]) -> Result<Parsed, String> {
    let strict = match str::from_utf8(page) {
        Ok(json) => match question.read(json) {
            Ok(contents) => return parsed(contents, json, Vec::new()),
            Err(error) => error.to_string(),
        },
        Err(error) => {
            let (line, column) = repair::place(page, error.valid_up_to());
            format!("a byte that is not UTF-8 at line {line} column {column}")
        }
    };
    let Some(RepairedPage { json, repairs }) = repair::repair(page) else { return Err(strict) };
    match question.read(&json) {
        Ok(contents) => parsed(contents, &json, repairs),
        Err(error) => Err(format!("{strict}; after repairs, {error}")),
    }
}

/// The records of `json`. Each of `repairs` has its position in `json`.
fn parsed(contents: PageContents<'_>, json: &str, mut repairs: Vec<(JsonRepair, usize)>) -> Result<Parsed, String> {
    let PageContents { items, total, is_followed } = contents;
    let start_of = |item: &RawRecord<'_>| (item.json.get().as_ptr() as usize).saturating_sub(json.as_ptr() as usize);
    let mut records = Vec::with_capacity(items.len());
    for (number, item) in items.into_iter().enumerate() {
        let start = start_of(&item);
        let record = || {
            let (line, column) = repair::place(json.as_bytes(), start);
            format!("record {} of the page, at line {line} column {column},", number + 1)
        };
        let id = item.id.ok_or_else(|| format!("{} has no id", record()))?;
        if id.len() > MAX_ID {
            return Err(format!("{} has an id of {} bytes", record(), id.len()));
        }
        let within = start..start + item.json.get().len();
        for (repair, _) in repairs.iter_mut().filter(|(_, at)| within.contains(at)) {
            repair.record = Some(shown(&id));
        }
        records.push(Record { id, json: item.json.to_owned() });
    }
    let repairs = repairs.into_iter().map(|(repair, _)| repair).collect();
    Ok(Parsed { records, total, is_followed, repairs })
}

/// A page as received, taken apart into records.
#[derive(Debug)]
pub struct Page {
    /// In the order of the response.
    pub records: Vec<Record>,
    /// Number of items in the response. A page that is not full need not be the last one.
    pub items: u64,
    /// Number of items on all pages, if the API states it.
    pub total: Option<u64>,
    /// Whether the response states that more pages follow.
    pub is_followed: bool,
    /// Repairs of what JSON does not allow.
    pub repairs: Vec<JsonRepair>,
    /// Size of the response in bytes.
    pub bytes: u64,
    /// The `Date` of the response.
    pub vendor_date: Option<Timestamp>,
}

/// Why there is no page.
#[derive(Debug)]
pub struct Unread {
    /// How the request ended.
    pub failure: Failure,
    /// The body that [`Failure::received`] describes: decompressed, redacted, otherwise as received.
    pub page: Option<Bytes>,
}

impl From<Failure> for Unread {
    fn from(failure: Failure) -> Self {
        Self { failure, page: None }
    }
}

impl Client {
    /// Requests a page from a JSON API for the workspace of `report`. `request_id` must be a new one for each request.
    ///
    /// # Errors
    ///
    /// Every response that is not the page, with its outcome.
    pub async fn page(
        &self,
        report: &Report,
        question: &Question<'_>,
        api_key: &SecretString,
        request_id: &RequestId,
    ) -> Result<Page, Unread> {
        let started = Instant::now();
        let page = self.request_page(report, question, api_key, request_id).await;
        tracing::debug!(
            workspace = report.workspace.name,
            report = report.id.name(),
            %request_id,
            http_status = page.as_ref().map_or_else(|unread| unread.failure.evidence.http_status, |_| Some(200)),
            items = page.as_ref().map_or(0, |page| page.items),
            elapsed_seconds = started.elapsed().as_secs_f64(),
            "requested a page from MoEngage"
        );
        page.map_err(|mut unread| {
            unread.failure.evidence.request_id.get_or_insert_with(|| request_id.to_string());
            unread
        })
    }

    async fn request_page(
        &self,
        report: &Report,
        question: &Question<'_>,
        api_key: &SecretString,
        our_request_id: &RequestId,
    ) -> Result<Page, Unread> {
        if let Question::Executions { parent: parent @ ("." | ".."), .. } = *question {
            return Err(Failure::new(Outcome::Rejected, format!("`{parent}` is not the id of a campaign")).into());
        }
        let url = question.url(&report.base_url);
        let source_url = url.to_string();
        let app_id = &report.workspace.app_id;
        let token: SecretString = BASE64_STANDARD.encode(format!("{app_id}:{}", api_key.expose_secret())).into();
        let redactor = Redactor::new(api_key, &token);
        let unusable = |message| Failure::new(Outcome::Rejected, message);
        let mut credentials = credentials(app_id, &token).map_err(unusable)?;
        if question.is_v5() {
            let key =
                HeaderValue::from_str(&our_request_id.to_string()).map_err(|error| unusable(error.to_string()))?;
            credentials.insert(IDEMPOTENCY_KEY, key);
        }
        let request = Request { url, credentials, json: Some(question.body(our_request_id)) };
        let mut response = self.transport.send(request, &redactor).await?;
        if let Some(outcome) = status::api_outcome(response.status) {
            return Err(refusal(outcome, response, report, &source_url, &redactor).await.into());
        }
        let corrupt = |message| Failure::after(&response.evidence, Outcome::Corrupt, message);
        let mut body = Vec::new();
        loop {
            match response.body.chunk().await {
                Ok(Some(bytes)) if body.len() + bytes.len() > MAX_PAGE => {
                    let message = format!("a page of {source_url} is larger than {MAX_PAGE} bytes");
                    return Err(corrupt(message).into());
                }
                Ok(Some(bytes)) => body.extend_from_slice(&bytes),
                Ok(None) => break,
                Err(failure) => {
                    let message = redactor.redact(&failure.message);
                    return Err(Failure { message, ..failure }.into());
                }
            }
        }
        let (bytes, body) = (body.len() as u64, Bytes::from(body));
        let unreadable = |page: &Bytes, what: String| {
            let page = (!page.is_empty()).then(|| redactor.redact_page(page));
            let received = page
                .as_ref()
                .map(|page| Received { size: page.len() as u64, sha256: hex::encode(Sha256::digest(page)) });
            let failure = corrupt(format!("MoEngage answered 200 OK for {source_url} {what}"));
            Unread { failure: Failure { received: received.map(Box::new), ..failure }, page }
        };
        let page = repair::unpack(&body, MAX_PAGE).map_err(|error| {
            unreadable(&body, format!("with a gzip that cannot be decompressed ({}): {error}", question.place()))
        })?;
        let Parsed { records, total, is_followed, repairs } = parse(question, &page).map_err(|error| {
            let beginning = redactor.clean(&String::from_utf8_lossy(&page[..page.len().min(MAX_QUOTE)]));
            let (error, place) = (redactor.clean(&error), question.place());
            unreadable(
                &page,
                match page.is_empty() {
                    true => format!("with an empty body ({place})"),
                    false => format!("with a body that is not {place} ({error}); it begins with `{beginning}`"),
                },
            )
        })?;
        let (items, vendor_date) = (records.len() as u64, response.evidence.vendor_date);
        Ok(Page { items, records, total, is_followed, repairs, bytes, vendor_date })
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

/// The failure of a response that is not a page.
async fn refusal(
    outcome: Outcome,
    mut response: Response,
    report: &Report,
    source_url: &str,
    redactor: &Redactor,
) -> Failure {
    let status = response.status;
    let error = error_body::read(&mut response.body, redactor).await;
    let summary = summary(outcome, status, report, source_url);
    let evidence = Evidence {
        retry_after: status::retry_after(status, &response.headers, response.evidence.vendor_date),
        request_id: error.request_id.clone().or(response.evidence.request_id),
        ..response.evidence
    };
    Failure::after(&evidence, outcome, error.follow(summary))
}

/// What MoEngage answered, and what to do about it.
fn summary(outcome: Outcome, status: StatusCode, report: &Report, source_url: &str) -> String {
    let (answered, workspace) = (status_text(status), &report.workspace.name);
    match outcome {
        // Campaign Stats and Reports API: 403 where the feature is not enabled for the account. The others are
        // MoEngage's current documentation.
        Outcome::Unauthorized if status == StatusCode::FORBIDDEN => format!(
            "MoEngage does not allow {} for workspace {workspace} ({answered} for {source_url}): this feature is off for \
             the account, the API key lacks its scope, or MoEngage's API firewall does not list this machine's address",
            report.source.kind()
        ),
        Outcome::Unauthorized => format!(
            "MoEngage refused the credentials for {source_url} ({answered}); check app_id and API key of workspace \
             {workspace}, the key's scopes, and whether MoEngage's API firewall lists this machine's address"
        ),
        Outcome::Rejected => format!(
            "MoEngage refused the request ({answered} for {source_url}); check the report's filters and ids, then whether \
             MoEngage's API firewall lists this machine's address"
        ),
        Outcome::RateLimited => format!("MoEngage's rate limit is reached ({answered} for {source_url})"),
        Outcome::Corrupt => format!("MoEngage answered {answered} without a page for {source_url}"),
        _ if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            format!("the proxy requires other credentials ({answered} for {source_url}); see network.proxy")
        }
        _ => format!("MoEngage failed to serve {source_url} ({answered})"),
    }
}
