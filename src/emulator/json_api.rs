//! The four JSON APIs, in both versions: statistics, search, metadata and executions.
//!
//! This file owns credentials and idempotency, strictly after the vendor's documents 002, 003 and 004 and its
//! OpenAPI description. It must not know the content of campaigns or how responses are sent.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode, header},
    routing::MethodRouter,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use secrecy::ExposeSecret;

use super::{
    Account,
    api_error::JsonApiError,
    endpoint::{self, Api, Endpoint, Version},
    json_checks::{InvalidField, JsonBody, PageRange},
    listings::{Listing, ListingPage},
    rates::{Exceeded, RateStatus},
    responses::post_only,
    vendor::Vendor,
};
use crate::lock::lock;

/// The number of responses that are kept for replay.
const REPLAYED: usize = 10_000;
type PageResult = Result<ListingPage, JsonApiError>;

pub(super) fn routes() -> Router<Arc<Vendor>> {
    Router::new()
        .route(endpoint::STATS, post_only(stats))
        .route(endpoint::EXECUTIONS, post_only(executions))
        .route(endpoint::SEARCH, searched(Endpoint::v1(Api::Search)))
        .route(endpoint::META, searched(Endpoint::v1(Api::Meta)))
        .route(endpoint::SEARCH_V5, searched(Endpoint::v5(Api::Search)))
        .route(endpoint::META_V5, searched(Endpoint::v5(Api::Meta)))
}

fn searched(endpoint: Endpoint) -> MethodRouter<Arc<Vendor>> {
    post_only(async move |State(vendor): State<Arc<Vendor>>, headers: HeaderMap, body: Bytes| {
        search(&vendor, endpoint, &headers, &body)
    })
}

async fn stats(State(vendor): State<Arc<Vendor>>, headers: HeaderMap, body: Bytes) -> PageResult {
    let admitted = Admitted::of(&vendor, Endpoint::v1(Api::Stats), &headers)?;
    admitted.page(&headers, &body, |body| Ok((Listing::Stats(body.window()?), body.range_by_offset()?)))
}

fn search(vendor: &Vendor, endpoint: Endpoint, headers: &HeaderMap, body: &[u8]) -> PageResult {
    let admitted = Admitted::of(vendor, endpoint, headers)?;
    if endpoint.version == Version::V1 {
        return admitted.page(headers, body, |body| {
            Ok((Listing::Campaigns(Box::new(body.search(endpoint)?)), body.range_by_page()?))
        });
    }
    let key = headers.get("Idempotency-Key").and_then(|value| value.to_str().ok()).filter(|key| is_uuid_v4(key));
    let Some(key) = key else {
        let problem = InvalidField::new("Idempotency-Key", "Idempotency-Key must be a UUID v4");
        return Err(admitted.refusal(StatusCode::BAD_REQUEST).because(problem));
    };
    let key = (admitted.account.app_id.clone(), key.to_ascii_lowercase());
    if let Some((_, first)) = lock(&vendor.listings.replays).iter().find(|(known, _)| *known == key) {
        return Ok(first.clone());
    }
    let page = admitted.page(headers, body, |body| {
        Ok((Listing::Campaigns(Box::new(body.search(endpoint)?)), body.range_by_page()?))
    })?;
    let mut replays = lock(&vendor.listings.replays);
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
    State(vendor): State<Arc<Vendor>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Bytes,
) -> PageResult {
    let admitted = Admitted::of(&vendor, Endpoint::v1(Api::Executions), &headers)?;
    admitted.page(&headers, &body, |body| {
        let range = body.range_by_page()?;
        // Fails only if the percent-encoding is not UTF-8, which no id is.
        let id = id.map(|Path(id)| id).unwrap_or_default();
        match vendor.library(admitted.account).executions(&id) {
            Ok(_) => Ok((Listing::Executions(id), range)),
            Err(message) => Err(InvalidField::new("campaign_id", message)),
        }
    })
}

/// A request with the credentials of an account, within its rate limit.
struct Admitted<'a> {
    account: &'a Account,
    endpoint: Endpoint,
    rate: RateStatus,
}

impl<'a> Admitted<'a> {
    fn of(vendor: &'a Vendor, endpoint: Endpoint, headers: &HeaderMap) -> Result<Admitted<'a>, JsonApiError> {
        let refused = || JsonApiError::of(endpoint, StatusCode::UNAUTHORIZED);
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let authorization = header("Authorization").ok_or_else(refused)?;
        let account = vendor.accounts.iter().find(|account| {
            let credentials = format!("{}:{}", account.app_id, account.api_key.expose_secret());
            let (scheme, given) = authorization.split_once(' ').unwrap_or_default();
            scheme.eq_ignore_ascii_case("basic") && given.trim() == BASE64_STANDARD.encode(credentials)
        });
        let account = account.ok_or_else(refused)?;
        // Whether version 5 requires it is not documented; a wrong value is refused in both versions.
        let app_key = header("MOE-APPKEY").or((endpoint.version == Version::V5).then_some(&account.app_id));
        if app_key != Some(&account.app_id) {
            return Err(refused());
        }
        match vendor.rates.take(&account.app_id, endpoint.api, vendor.now()) {
            Ok(rate) => Ok(Admitted { account, endpoint, rate }),
            Err(Exceeded { rate, wait }) => {
                Err(JsonApiError::of(endpoint, StatusCode::TOO_MANY_REQUESTS).at(rate).again_after(wait))
            }
        }
    }

    fn refusal(&self, status: StatusCode) -> JsonApiError {
        JsonApiError::of(self.endpoint, status).at(self.rate)
    }

    /// The page that a body requests, as `check` reads it.
    fn page(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        check: impl FnOnce(&JsonBody) -> Result<(Listing, PageRange), InvalidField>,
    ) -> PageResult {
        let refused = |problem| self.refusal(StatusCode::BAD_REQUEST).because(problem);
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case("application/json") {
            return Err(refused(InvalidField::new("Content-Type", "Content-Type must be application/json")));
        }
        let body = JsonBody::read(body).map_err(refused)?;
        let page = body.request_id().and_then(|request_id| {
            let (listing, range) = check(&body)?;
            Ok(ListingPage {
                app_id: self.account.app_id.clone(),
                endpoint: self.endpoint,
                listing,
                range,
                request_id,
                rate: self.rate,
                oddities: body.oddities(self.endpoint),
            })
        });
        page.map_err(|problem| refused(problem).to(&body.given_request_id()))
    }
}
