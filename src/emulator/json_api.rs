//! The three APIs that answer in JSON: `campaign_stats`, `campaigns` and `executions`.
//!
//! This file owns their paths, credentials, refusals and pages, strictly after the vendor's documents 002, 003 and 004. It
//! must not know what a campaign is made of or how an answer travels.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
};

use axum::{
    Extension, Router,
    body::Bytes,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};

use super::{
    Account,
    campaigns::{Library, Place, Search, Window},
    faults::Fault,
    json_checks::{Body, Part, Problem},
    server::{self, lock, post_only},
};
use crate::config::Source;

const STATS: &str = "/core-services/v1/campaign-stats";
const SEARCH: &str = "/core-services/v1/campaigns/search";
const CAMPAIGNS: &str = "/core-services/v1/campaigns/";
const EXECUTIONS: &str = "/executions";

/// How many listings stay selected, so that a page doesn't go through all campaigns again.
const SELECTED: usize = 8;

type Answer = Result<Page, Refusal>;

pub(super) fn routes() -> Router<Arc<server::State>> {
    Router::new()
        .route(STATS, post_only(stats))
        .route(SEARCH, post_only(search))
        .route("/core-services/v1/campaigns/{id}/executions", post_only(executions))
}

/// The API of a decoded path, if it is one of these.
pub(super) fn serves(path: &str) -> Option<Source> {
    match path {
        STATS => Some(Source::CampaignStats),
        SEARCH => Some(Source::Campaigns),
        other => (other.starts_with(CAMPAIGNS) && other.ends_with(EXECUTIONS)).then_some(Source::Executions),
    }
}

/// What is listed.
#[derive(Debug, Clone)]
enum Listing {
    Stats(Window),
    Campaigns(Box<Search>),
    /// Of the campaign with this id.
    Executions(String),
}

/// One page of a listing, which stands for the answer until it is sent.
#[derive(Debug, Clone)]
pub(super) struct Page {
    app_id: String,
    listing: Listing,
    part: Part,
    request_id: String,
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        Extension(self).into_response()
    }
}

/// What happened to a listing while it was paged through.
#[derive(Debug, Clone, Copy, Default)]
struct Drift {
    /// How many places everything has moved back, so that pages repeat what came before.
    repeated: u64,
    /// How many campaigns at the front are gone.
    gone: u64,
}

/// What is remembered of listings between their pages, by [`Page::key`].
#[derive(Debug, Default)]
pub(super) struct Listings {
    selected: Mutex<VecDeque<(String, Arc<Vec<Place>>)>>,
    drifts: Mutex<HashMap<String, Drift>>,
}

impl Page {
    /// From 1.
    pub(super) fn number(&self) -> u64 {
        self.part.offset / self.part.limit + 1
    }

    pub(super) fn request_id(&self) -> &str {
        &self.request_id
    }

    /// The same for all pages of a listing.
    fn key(&self) -> String {
        format!("{} {:?}", self.app_id, self.listing)
    }

    /// The answer's body, as `fault` bends it. The first page begins the listing anew.
    pub(super) fn body(&self, state: &server::State, fault: Option<&Fault>) -> Bytes {
        let Some(account) = state.accounts.iter().find(|account| account.app_id == self.app_id) else {
            return Bytes::new();
        };
        let library = state.library(account);
        let places = self.places(state, library);
        let Drift { repeated, gone } = self.drift(state, fault);
        let Part { offset, limit } = self.part;
        let all = places.len() as u64;
        let start = (offset + gone).saturating_sub(repeated).min(all);
        let end = (start + limit).min(all);
        let places = &places[start as usize..end as usize];
        let total = all.saturating_sub(gone);
        let body = match &self.listing {
            Listing::Stats(window) => {
                let restated = state.restated();
                let data: Map<_, _> = places.iter().map(|place| library.stats(*place, window, restated)).collect();
                json!({
                    "response_id": self.request_id,
                    "total_campaigns": total,
                    "current_page": self.number(),
                    "total_pages": (total + repeated).div_ceil(limit),
                    "data": data,
                })
            }
            Listing::Campaigns(_) => places.iter().map(|place| library.details(*place)).collect(),
            Listing::Executions(_) => {
                let executions: Value = places.iter().map(|place| library.execution(*place)).collect();
                json!({"executions": executions, "total_instances": total})
            }
        };
        body.to_string().into()
    }

    fn places(&self, state: &server::State, library: Library<'_>) -> Arc<Vec<Place>> {
        let select = || match &self.listing {
            Listing::Stats(window) => library.with_stats(window),
            Listing::Campaigns(search) => library.search(search),
            Listing::Executions(id) => library.executions(id).unwrap_or_default(),
        };
        // These are found by id, and would drive out what is found by looking at all.
        if matches!(&self.listing, Listing::Executions(_))
            || matches!(&self.listing, Listing::Stats(window) if !window.campaign_ids.is_empty())
        {
            return Arc::new(select());
        }
        let key = self.key();
        if let Some((_, places)) = lock(&state.listings.selected).iter().find(|(selected, _)| *selected == key) {
            return places.clone();
        }
        let places = Arc::new(select());
        let mut selected = lock(&state.listings.selected);
        if selected.len() == SELECTED {
            selected.pop_front();
        }
        selected.push_back((key, places.clone()));
        places
    }

    fn drift(&self, state: &server::State, fault: Option<&Fault>) -> Drift {
        let mut drifts = lock(&state.listings.drifts);
        if self.number() == 1 {
            drifts.remove(&self.key());
        }
        match fault {
            Some(Fault::Repeat) => drifts.entry(self.key()).or_default().repeated += 1,
            Some(Fault::Shrink) => drifts.entry(self.key()).or_default().gone += 1,
            _ => {}
        }
        drifts.get(&self.key()).copied().unwrap_or_default()
    }
}

async fn stats(State(state): State<Arc<server::State>>, headers: HeaderMap, body: Bytes) -> Answer {
    let api = Source::CampaignStats;
    let account = admitted(&state, api, &headers)?;
    checked(api, account, &headers, &body, |body| Ok((Listing::Stats(body.window()?), body.part_by_offset()?)))
}

async fn search(State(state): State<Arc<server::State>>, headers: HeaderMap, body: Bytes) -> Answer {
    let api = Source::Campaigns;
    let account = admitted(&state, api, &headers)?;
    checked(api, account, &headers, &body, |body| {
        Ok((Listing::Campaigns(Box::new(body.search()?)), body.part_by_page()?))
    })
}

async fn executions(
    State(state): State<Arc<server::State>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let api = Source::Executions;
    let account = admitted(&state, api, &headers)?;
    checked(api, account, &headers, &body, |body| {
        let part = body.part_by_page()?;
        // Refused only where the percent-encoding isn't UTF-8: no id is like that.
        let id = id.map(|Path(id)| id).unwrap_or_default();
        match state.library(account).executions(&id) {
            Ok(_) => Ok((Listing::Executions(id), part)),
            Err(message) => Err(Problem::new("campaign_id", message)),
        }
    })
}

/// The account that a request has the credentials of, if it may ask once more.
fn admitted<'a>(state: &'a server::State, api: Source, headers: &HeaderMap) -> Result<&'a Account, Refusal> {
    let refused = || Refusal::of(api, StatusCode::UNAUTHORIZED);
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let authorization = header("Authorization").ok_or_else(refused)?;
    let account = state.accounts.iter().find(|account| {
        let credentials = format!("{}:{}", account.app_id, account.api_key.expose_secret());
        let (scheme, given) = authorization.split_once(' ').unwrap_or_default();
        scheme.eq_ignore_ascii_case("basic") && given.trim() == BASE64_STANDARD.encode(credentials)
    });
    let account = account.ok_or_else(refused)?;
    if header("MOE-APPKEY") != Some(&account.app_id) {
        return Err(refused());
    }
    let taken = state.rates.take(&account.app_id, api, state.now());
    taken
        .map_err(|seconds| Refusal { retry_after: Some(seconds), ..Refusal::of(api, StatusCode::TOO_MANY_REQUESTS) })?;
    Ok(account)
}

/// The page that a body asks for, as `check` understands it.
fn checked(
    api: Source,
    account: &Account,
    headers: &HeaderMap,
    body: &[u8],
    check: impl FnOnce(&Body) -> Result<(Listing, Part), Problem>,
) -> Answer {
    let refused = |problem, request_id| Refusal {
        problem: Some(problem),
        request_id,
        ..Refusal::of(api, StatusCode::BAD_REQUEST)
    };
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        let problem = Problem::new("Content-Type", "Content-Type must be application/json");
        return Err(refused(problem, String::new()));
    }
    let body = Body::read(body).map_err(|problem| refused(problem, String::new()))?;
    let page = body.request_id().and_then(|request_id| {
        let (listing, part) = check(&body)?;
        Ok(Page { app_id: account.app_id.clone(), listing, part, request_id })
    });
    page.map_err(|problem| refused(problem, body.given_request_id()))
}

/// An error as an API words it. 403 and 429 of the listings, and 429 of statistics, are undocumented and follow the others.
#[derive(Debug)]
pub(super) struct Refusal {
    api: Source,
    status: StatusCode,
    problem: Option<Problem>,
    /// Empty where none is known.
    request_id: String,
    /// In seconds.
    retry_after: Option<i64>,
}

impl Refusal {
    /// Without any details.
    pub(super) fn of(api: Source, status: StatusCode) -> Refusal {
        Refusal { api, status, problem: None, request_id: String::new(), retry_after: None }
    }

    /// The same as the answer to the request with that id.
    pub(super) fn to(self, request_id: &str) -> Refusal {
        Refusal { request_id: request_id.to_owned(), ..self }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let target = self.problem.as_ref().map_or("", |problem| problem.target.as_str());
        let message = self.problem.as_ref().map(|problem| problem.message.as_str());
        let body = match self.api {
            Source::CampaignStats => stats_error(self.status, target, message),
            _ => listing_error(self.status, target, message, &self.request_id),
        };
        let mut response =
            (self.status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

fn stats_error(status: StatusCode, target: &str, message: Option<&str>) -> Value {
    let (title, description, code) = match status {
        StatusCode::BAD_REQUEST => {
            let message = message.unwrap_or("Some of the field values are invalid");
            ("Invalid Field Value", Some(format!("{target} - {message}")), "wUcwPRZF")
        }
        StatusCode::UNAUTHORIZED => {
            ("Authentication required", Some("Invalid identity information found.".to_owned()), "wUcwPRZF")
        }
        StatusCode::FORBIDDEN => ("Forbidden Request", None, "kmqLuuHM"),
        StatusCode::TOO_MANY_REQUESTS => ("Too Many Requests", Some("Rate limit exceeded".to_owned()), "tMrLXcQs"),
        _ => {
            let description = "An unexpected error was encountered while processing this request. Please contact \
                               MoEngage Team";
            ("Server Error", Some(description.to_owned()), "jDTGSxjd")
        }
    };
    json!({"title": title, "description": description, "code": code})
}

fn listing_error(status: StatusCode, target: &str, message: Option<&str>, request_id: &str) -> Value {
    // Document 003, the three samples after the sample response.
    let error = match status {
        StatusCode::UNAUTHORIZED => {
            let detail = json!({
                "code": "InvalidValue", "target": "APP_SECRET_KEY", "message": "Invalid APP_SECRET_KEY is provided.",
            });
            json!({
                "code": "401 Authentication error", "message": "Authentication required", "target": "APP_SECRET_KEY",
                "details": [{"code": "InvalidValue", "target": "APP_SECRET_KEY", "message": [detail]}],
                "request_id": request_id,
            })
        }
        status => {
            let message = message.unwrap_or(match status {
                StatusCode::BAD_REQUEST => "Some of the field values are invalid",
                StatusCode::FORBIDDEN => "This feature is not enabled for your account",
                StatusCode::TOO_MANY_REQUESTS => "Rate limit exceeded",
                _ => "Something went wrong. Please contact Moengage team",
            });
            json!({
                "code": status.to_string(), "message": message, "target": target,
                "details": [{"target": target, "message": message}],
                "request_id": request_id,
            })
        }
    };
    json!({"error": error})
}
