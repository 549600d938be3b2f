//! The four APIs that answer in JSON, in both versions: statistics, search, metadata and executions.
//!
//! This file owns credentials, idempotency and pages, strictly after the vendor's documents 002, 003 and 004 and its
//! OpenAPI description. It must not know what a campaign is made of or how an answer travels.

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
    routing::MethodRouter,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};

use super::{
    Account,
    campaigns::{Library, Place, Search, Window},
    endpoint::{self, Api, Endpoint, Version},
    faults::{Fault, OddJson},
    json_checks::{Body, Part, Problem},
    rates::{Exceeded, Standing},
    refusal::Refusal,
    server::{self, lock, post_only},
};

/// How many listings stay selected, so that a page doesn't go through all campaigns again.
const SELECTED: usize = 8;
/// How many answers are kept to be replayed.
const REPLAYED: usize = 10_000;
/// Stands in a page for what no JSON value can be, until the page is text.
const ODD: &str = "\u{1}odd\u{1}";

type Answer = Result<Page, Refusal>;

pub(super) fn routes() -> Router<Arc<server::State>> {
    Router::new()
        .route(endpoint::STATS, post_only(stats))
        .route(endpoint::EXECUTIONS, post_only(executions))
        .route(endpoint::SEARCH, searched(Endpoint::v1(Api::Search)))
        .route(endpoint::META, searched(Endpoint::v1(Api::Meta)))
        .route(endpoint::SEARCH_V5, searched(Endpoint::v5(Api::Search)))
        .route(endpoint::META_V5, searched(Endpoint::v5(Api::Meta)))
}

fn searched(endpoint: Endpoint) -> MethodRouter<Arc<server::State>> {
    post_only(async move |State(state): State<Arc<server::State>>, headers: HeaderMap, body: Bytes| {
        search(&state, endpoint, &headers, &body)
    })
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
    endpoint: Endpoint,
    listing: Listing,
    part: Part,
    request_id: String,
    standing: Standing,
    oddities: Vec<String>,
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

/// What is remembered of listings between their pages, by [`Page::key`], and of answers by their idempotency key.
#[derive(Debug, Default)]
pub(super) struct Listings {
    selected: Mutex<VecDeque<(String, Arc<Vec<Place>>)>>,
    drifts: Mutex<HashMap<String, Drift>>,
    /// By app id and `Idempotency-Key`, oldest first.
    replays: Mutex<VecDeque<((String, String), Page)>>,
}

impl Page {
    /// From 1.
    pub(super) fn number(&self) -> u64 {
        self.part.offset / self.part.limit + 1
    }

    /// How its request stands with the rate.
    pub(super) fn standing(&self) -> Standing {
        self.standing
    }

    /// Fields of its request that the API ignores.
    pub(super) fn oddities(&self) -> &[String] {
        &self.oddities
    }

    /// The refusal with `status` that its request could have had instead.
    pub(super) fn refusal(&self, status: StatusCode) -> Refusal {
        Refusal::of(self.endpoint, status).to(&self.request_id).at(self.standing)
    }

    /// The same for all pages of a listing.
    fn key(&self) -> String {
        format!("{} {:?}", self.app_id, self.listing)
    }

    /// The answer's body, as `fault` changes it. The first page restarts the listing.
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
        let hidden = match fault {
            Some(Fault::Hide { rows }) => rows.map_or(u64::MAX, u64::from),
            _ => 0,
        };
        let places = &places[start as usize..end.saturating_sub(hidden).max(start) as usize];
        let extra = match fault {
            Some(Fault::ExtraTotal { by }) => u64::from(by.get()),
            _ => 0,
        };
        // "The number of campaigns requested in the payload", if it names any: also those that have no numbers.
        let listed = match &self.listing {
            Listing::Stats(window) if !window.campaign_ids.is_empty() => window.campaign_ids.len() as u64,
            _ => all,
        };
        let total = listed.saturating_sub(gone) + extra;
        let odd = match fault {
            Some(Fault::OddJson(odd)) => Some(*odd),
            _ => None,
        };
        // An odd value is one more field of the first row, as the real API grows fields.
        let mut is_odd = odd.is_some();
        let mut mark = |mut row: Value| {
            if let Some(row) = row.as_object_mut().filter(|_| std::mem::take(&mut is_odd)) {
                row.insert("extra".to_owned(), ODD.into());
            }
            row
        };
        let body = match &self.listing {
            Listing::Stats(window) => {
                let restated = state.restated();
                let of = |place: &Place| {
                    let (id, row) = library.stats(*place, window, restated);
                    (id, json!([mark(row)]))
                };
                let data: Map<_, _> = places.iter().map(of).collect();
                json!({
                    "response_id": self.request_id,
                    "total_campaigns": total,
                    "current_page": self.number(),
                    "total_pages": (total + repeated).div_ceil(limit),
                    "data": data,
                })
            }
            Listing::Campaigns(_) => {
                let campaigns: Value = places.iter().map(|place| mark(library.listed(*place, self.endpoint))).collect();
                match self.endpoint.version {
                    Version::V1 => campaigns,
                    Version::V5 => {
                        json!({"response_id": self.request_id, "type": "campaigns", "data": {"campaigns": campaigns}})
                    }
                }
            }
            Listing::Executions(_) => {
                let executions: Value = places.iter().map(|place| mark(library.execution(*place))).collect();
                json!({"executions": executions, "total_instances": total})
            }
        };
        match odd {
            Some(odd) => spoiled(&body.to_string(), odd),
            None => body.to_string().into(),
        }
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

/// `text` with what `odd` puts in the place of [`ODD`].
fn spoiled(text: &str, odd: OddJson) -> Bytes {
    let marker = Value::from(ODD).to_string();
    let in_its_place: &[u8] = match odd {
        OddJson::ByteOrderMark => return [b"\xef\xbb\xbf", text.replace(&marker, "1").as_bytes()].concat().into(),
        OddJson::NotANumber => b"NaN",
        OddJson::InvalidUtf8 => b"\"caf\xe9\"",
        OddJson::DuplicateKey => b"1,\"extra\":2",
        OddJson::LargeNumber => b"123456789012345678901234567890",
        OddJson::LoneSurrogate => b"\"\\ud83d\"",
    };
    match text.split_once(&marker) {
        Some((before, after)) => [before.as_bytes(), in_its_place, after.as_bytes()].concat().into(),
        // A page without rows.
        None => text.to_owned().into(),
    }
}

async fn stats(State(state): State<Arc<server::State>>, headers: HeaderMap, body: Bytes) -> Answer {
    let admitted = Admitted::of(&state, Endpoint::v1(Api::Stats), &headers)?;
    admitted.page(&headers, &body, |body| Ok((Listing::Stats(body.window()?), body.part_by_offset()?)))
}

fn search(state: &server::State, endpoint: Endpoint, headers: &HeaderMap, body: &[u8]) -> Answer {
    let admitted = Admitted::of(state, endpoint, headers)?;
    if endpoint.version == Version::V1 {
        return admitted.page(headers, body, |body| {
            Ok((Listing::Campaigns(Box::new(body.search(endpoint)?)), body.part_by_page()?))
        });
    }
    let key = headers.get("Idempotency-Key").and_then(|value| value.to_str().ok()).filter(|key| is_uuid_v4(key));
    let Some(key) = key else {
        let problem = Problem::new("Idempotency-Key", "Idempotency-Key must be a UUID v4");
        return Err(admitted.refusal(StatusCode::BAD_REQUEST).because(problem));
    };
    let key = (admitted.account.app_id.clone(), key.to_ascii_lowercase());
    if let Some((_, first)) = lock(&state.listings.replays).iter().find(|(known, _)| *known == key) {
        return Ok(first.clone());
    }
    let page = admitted
        .page(headers, body, |body| Ok((Listing::Campaigns(Box::new(body.search(endpoint)?)), body.part_by_page()?)))?;
    let mut replays = lock(&state.listings.replays);
    if replays.len() == REPLAYED {
        replays.pop_front();
    }
    replays.push_back((key, page.clone()));
    Ok(page)
}

fn is_uuid_v4(text: &str) -> bool {
    // RFC 9562, section 5.4.
    text.len() == 36
        && text.bytes().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => byte == b'-',
            14 => byte == b'4',
            19 => b"89abAB".contains(&byte),
            _ => byte.is_ascii_hexdigit(),
        })
}

async fn executions(
    State(state): State<Arc<server::State>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let admitted = Admitted::of(&state, Endpoint::v1(Api::Executions), &headers)?;
    admitted.page(&headers, &body, |body| {
        let part = body.part_by_page()?;
        // Refused only where the percent-encoding isn't UTF-8: no id is like that.
        let id = id.map(|Path(id)| id).unwrap_or_default();
        match state.library(admitted.account).executions(&id) {
            Ok(_) => Ok((Listing::Executions(id), part)),
            Err(message) => Err(Problem::new("campaign_id", message)),
        }
    })
}

/// A request with the credentials of an account, within its rate.
struct Admitted<'a> {
    account: &'a Account,
    endpoint: Endpoint,
    standing: Standing,
}

impl<'a> Admitted<'a> {
    fn of(state: &'a server::State, endpoint: Endpoint, headers: &HeaderMap) -> Result<Admitted<'a>, Refusal> {
        let refused = || Refusal::of(endpoint, StatusCode::UNAUTHORIZED);
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let authorization = header("Authorization").ok_or_else(refused)?;
        let account = state.accounts.iter().find(|account| {
            let credentials = format!("{}:{}", account.app_id, account.api_key.expose_secret());
            let (scheme, given) = authorization.split_once(' ').unwrap_or_default();
            scheme.eq_ignore_ascii_case("basic") && given.trim() == BASE64_STANDARD.encode(credentials)
        });
        let account = account.ok_or_else(refused)?;
        // Whether version 5 asks for it is not documented; a wrong one is wrong everywhere.
        let app_key = header("MOE-APPKEY").or((endpoint.version == Version::V5).then_some(&account.app_id));
        if app_key != Some(&account.app_id) {
            return Err(refused());
        }
        match state.rates.take(&account.app_id, endpoint.api, state.now()) {
            Ok(standing) => Ok(Admitted { account, endpoint, standing }),
            Err(Exceeded { standing, wait }) => {
                Err(Refusal::of(endpoint, StatusCode::TOO_MANY_REQUESTS).at(standing).again_after(wait))
            }
        }
    }

    fn refusal(&self, status: StatusCode) -> Refusal {
        Refusal::of(self.endpoint, status).at(self.standing)
    }

    /// The page that a body asks for, as `check` understands it.
    fn page(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        check: impl FnOnce(&Body) -> Result<(Listing, Part), Problem>,
    ) -> Answer {
        let refused = |problem| self.refusal(StatusCode::BAD_REQUEST).because(problem);
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case("application/json") {
            return Err(refused(Problem::new("Content-Type", "Content-Type must be application/json")));
        }
        let body = Body::read(body).map_err(refused)?;
        let page = body.request_id().and_then(|request_id| {
            let (listing, part) = check(&body)?;
            Ok(Page {
                app_id: self.account.app_id.clone(),
                endpoint: self.endpoint,
                listing,
                part,
                request_id,
                standing: self.standing,
                oddities: body.oddities(self.endpoint),
            })
        });
        page.map_err(|problem| refused(problem).to(&body.given_request_id()))
    }
}
