//! The middleware of all responses: it logs each, sets `Date` from the emulator's clock, and applies faults.
//!
//! This file must not know how an API decides: it receives the response without faults.

use std::{io, sync::Arc};

use axum::{
    Extension,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde_json::json;

use super::{
    api_error::JsonApiError,
    archive_api,
    archives::Archive,
    endpoint::Endpoint,
    faults::{Fault, RedirectTo, Reset},
    listings::ListingPage,
    recipe::{self, Recipe},
    request_log::LoggedRequest,
    responses::{bad_request, json_error, unauthorized},
    rules::{Applied, ResponseKind},
    storage,
    transmission::{self, End, Transmission},
    vendor::Vendor,
    wire::Breaker,
};

/// The content type of archives of every format: document 001, "200 application/gzip".
const ARCHIVE_TYPE: &str = "application/gzip";

/// Logs a request, applies a fault to its response, and sets `Date`.
pub(super) async fn respond(
    State(vendor): State<Arc<Vendor>>,
    Extension(breaker): Extension<Breaker>,
    request: Request,
    next: Next,
) -> Response {
    let mut logged = LoggedRequest {
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
        api: None,
        page: None,
        status: None,
        at: vendor.now(),
        user_agent: request
            .headers()
            .get(header::USER_AGENT)
            .map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()),
        header_names: request.headers().keys().map(|name| name.as_str().to_owned()).collect(),
        fault: None,
        oddities: Vec::new(),
    };
    let host = request.headers().get(header::HOST).cloned();
    let mut plain = next.run(request).await;
    let recipe = plain.extensions_mut().remove::<Recipe>();
    let page = plain.extensions_mut().remove::<ListingPage>();
    let path = percent_encoding::percent_decode_str(&logged.path).decode_utf8_lossy();
    let endpoint = Endpoint::of(&path);
    logged.api = archive_api::serves(&path).or_else(|| endpoint.map(Endpoint::source));
    logged.page = page.as_ref().map(ListingPage::number);
    logged.oddities = page.as_ref().map(|page| page.oddities().to_vec()).unwrap_or_default();
    let ordinary = match (&recipe, logged.page) {
        (Some(_), _) if storage::serves(&path) => ResponseKind::StoredArchive,
        (Some(_), _) => ResponseKind::Archive,
        (None, Some(number)) => ResponseKind::Page(number),
        (None, None) => ResponseKind::Neither,
    };
    let Applied { fault, date_offset } = vendor.rules.apply(&path, logged.api, ordinary);
    logged.fault = fault.as_ref().map(Fault::word);
    if let Some(Fault::Reset) = fault {
        vendor.log.add(logged);
        breaker.reset();
        return std::future::pending().await;
    }
    let mut response = match (replacement(&fault, endpoint, page.as_ref(), logged.at), recipe, page) {
        (Some(response), ..) => response,
        (None, None, None) => plain,
        (None, Some(recipe), _) => {
            archive_response(&vendor, recipe, fault, breaker, host).await.unwrap_or_else(|error| {
                tracing::error!(%error, "emulator cannot build an archive in the temporary directory");
                json_error(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL SERVER ERROR", "cannot build the archive")
            })
        }
        (None, None, Some(page)) => {
            let body = Archive::Memory(page_body(&vendor, &page, fault.as_ref()));
            let transmission = altered("application/json", fault, body.size(), page.number());
            let mut response =
                transmission::send(Arc::new(body), transmission, breaker).await.unwrap_or_else(|error| {
                    tracing::error!(%error, "emulator cannot pack a page");
                    json_error(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL SERVER ERROR", "cannot pack the page")
                });
            page.rate().write(response.headers_mut());
            response
        }
    };
    let date = date_offset.map_or(logged.at, |offset| logged.at.saturating_add(offset).unwrap_or(logged.at));
    response.headers_mut().insert(header::DATE, http_date(date));
    logged.status = Some(response.status());
    vendor.log.add(logged);
    response
}

fn page_body(vendor: &Vendor, page: &ListingPage, fault: Option<&Fault>) -> Bytes {
    let account = vendor.accounts.iter().find(|account| account.app_id == page.app_id);
    let body = |account| page.body(&vendor.listings, vendor.library(account), vendor.restated(), fault);
    account.map(body).unwrap_or_default()
}

/// The response of a fault that replaces the ordinary one, in the form of the API. `page` is the ordinary response at `now`.
fn replacement(
    fault: &Option<Fault>,
    endpoint: Option<Endpoint>,
    page: Option<&ListingPage>,
    now: Timestamp,
) -> Option<Response> {
    let documented = |status| {
        let refusal = |endpoint| page.map_or_else(|| JsonApiError::of(endpoint, status), |page| page.refusal(status));
        endpoint.map(|endpoint| refusal(endpoint).into_response())
    };
    Some(match fault.as_ref()? {
        Fault::Status { code, body: Some(body) } => (*code, body.clone()).into_response(),
        Fault::Status { code, body: None } => {
            // Other statuses come from a proxy in front of the API.
            let is_documented = [400, 401, 403, 429, 500].contains(&code.as_u16());
            is_documented.then(|| documented(*code)).flatten().unwrap_or_else(|| code.into_response())
        }
        Fault::Html => {
            let page = "<!DOCTYPE html>\n<html><head><title>Login</title></head><body><form action=\"/login\" \
                        method=\"post\"><input name=\"email\"><input name=\"password\" type=\"password\"></form></body>\
                        </html>\n";
            ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response()
        }
        Fault::JsonError => match documented(StatusCode::INTERNAL_SERVER_ERROR) {
            Some(error) => (StatusCode::OK, error).into_response(),
            None => json_error(StatusCode::OK, "INTERNAL ERROR", "the report could not be read"),
        },
        Fault::Empty => {
            let content_type = if endpoint.is_some() { "application/json" } else { ARCHIVE_TYPE };
            ([(header::CONTENT_TYPE, content_type)], Body::empty()).into_response()
        }
        Fault::NotYet => documented(StatusCode::BAD_REQUEST).unwrap_or_else(|| bad_request(archive_api::NOT_GENERATED)),
        Fault::Redirect { to: RedirectTo::Url(url), code } => {
            (*code, [(header::LOCATION, url.as_str())]).into_response()
        }
        Fault::RateLimited { retry_after, reset } => {
            let status = StatusCode::TOO_MANY_REQUESTS;
            let mut response = match (endpoint, page) {
                (Some(_), Some(page)) => page.refusal(status).at(page.rate().exhausted()).into_response(),
                (Some(endpoint), None) => JsonApiError::of(endpoint, status).into_response(),
                (None, _) => json_error(status, "TOO MANY REQUESTS", "rate limit exceeded"),
            };
            let reset = reset.as_ref().map(|reset| match reset {
                Reset::After(span) => now.saturating_add(*span).unwrap_or(now).as_second().to_string(),
                Reset::Text(text) => text.clone(),
            });
            let remaining = reset.as_ref().map(|_| "0".to_owned());
            for (name, value) in [
                (header::RETRY_AFTER, retry_after),
                (HeaderName::from_static("x-ratelimit-remaining"), &remaining),
                (HeaderName::from_static("x-ratelimit-reset"), &reset),
            ] {
                if let Some(value) = value.as_ref().and_then(|text| HeaderValue::from_str(text).ok()) {
                    response.headers_mut().insert(name, value);
                }
            }
            response
        }
        Fault::Firewall { code } => {
            let body = json!({
                "error": "IP Validation Required",
                "message": "IP Validation Failed: the address is not on the list of this workspace",
            });
            (*code, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
        }
        Fault::Unauthorized => documented(StatusCode::UNAUTHORIZED).unwrap_or_else(unauthorized),
        Fault::Truncate { .. }
        | Fault::Slow { .. }
        | Fault::Stall
        | Fault::Reset
        | Fault::ResetMidBody { .. }
        | Fault::BitFlip { .. }
        | Fault::Redirect { to: RedirectTo::Storage, .. }
        | Fault::WrongDate { .. }
        | Fault::ContentEncoding(_)
        | Fault::Repeat
        | Fault::Shrink
        | Fault::Hide { .. }
        | Fault::ExtraTotal { .. }
        | Fault::OddJson(_) => return None,
    })
}

/// Sends the archive, or a redirect to the storage, as `fault` changes it.
async fn archive_response(
    vendor: &Vendor,
    recipe: Recipe,
    fault: Option<Fault>,
    breaker: Breaker,
    host: Option<HeaderValue>,
) -> io::Result<Response> {
    if let Some(Fault::Redirect { to: RedirectTo::Storage, code }) = fault {
        let mut headers = HeaderMap::new();
        headers.insert(header::LOCATION, storage::hand_over(vendor, recipe, host)?);
        return Ok((code, headers).into_response());
    }
    let archive = vendor.archives.get(recipe.clone()).await?;
    let transmission = altered(ARCHIVE_TYPE, fault, archive.size(), recipe::somewhere(&recipe));
    transmission::send(archive, transmission, breaker).await
}

/// How `fault` changes the transmission of `size` bytes. `somewhere` depends on the body alone.
fn altered(content_type: &'static str, fault: Option<Fault>, size: u64, somewhere: u64) -> Transmission {
    let mut transmission = Transmission::of(content_type);
    match fault {
        Some(Fault::Truncate { at, framing }) => {
            transmission.end = Some((at.of(size), End::Close));
            transmission.framing = framing;
        }
        Some(Fault::Slow { bytes_per_second }) => transmission.bytes_per_second = Some(bytes_per_second),
        Some(Fault::Stall) => transmission.end = Some((0, End::Stall)),
        Some(Fault::ResetMidBody { at }) => transmission.end = Some((at.of(size), End::Reset)),
        Some(Fault::BitFlip { offset: Some(offset) }) => transmission.flip = Some((offset.min(size - 1), 1)),
        Some(Fault::BitFlip { offset: None }) => {
            // In the middle half: the outer quarters hold bits without meaning, such as times of files.
            transmission.flip = Some((size / 4 + (somewhere >> 3) % (size / 2), 1 << (somewhere & 7)));
        }
        Some(Fault::ContentEncoding(encoding)) => transmission.content_encoding = Some(encoding),
        _ => {}
    }
    transmission
}

fn http_date(at: Timestamp) -> HeaderValue {
    // RFC 9110, section 5.6.7. Letters and digits only, so the fallback is never used.
    HeaderValue::try_from(at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
        .unwrap_or(HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))
}
