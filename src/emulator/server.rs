//! Accepts connections, answers requests, and lets faults strike on the way out.
//!
//! This file owns what is common to every answer: the log, the clock in `Date`, the faults. It must not know any of
//! the APIs; they say what the true answer is, and it is given, bent or broken here.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{
    Extension, Router,
    body::Body,
    extract::{self, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodFilter, MethodRouter, on},
};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use jiff::Timestamp;
use serde_json::json;
use tokio::{net::TcpListener, task::JoinSet};

use super::{
    Account, Clock, Options, archive_api,
    archives::{self, Archive, Archives, Recipe},
    campaigns::Library,
    delivery::{self, Delivery, End},
    endpoint::Endpoint,
    faults::{Fault, Gets, RedirectTo, Reset, Rules, Struck},
    json_api::{self, Listings, Page},
    rates::Rates,
    refusal::Refusal,
    storage,
    wire::{Breaker, Wire},
};
use crate::config::SourceKind;

/// The newest requests that are remembered.
const LOGGED: usize = 100_000;

/// What every archive is called, whatever it is: seed document 001, "200 application/gzip".
const ARCHIVE_TYPE: &str = "application/gzip";

/// One request as it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedRequest {
    /// The method.
    pub method: Method,
    /// The path as it was sent, percent-encoded, without the query: that may hold a signature.
    pub path: String,
    /// Which API it was for, if any.
    pub api: Option<SourceKind>,
    /// Which page of JSON it would have been given, from 1.
    pub page: Option<u64>,
    /// The status of the answer; `None` where the connection was reset instead.
    pub status: Option<StatusCode>,
    /// When, by the emulator's clock.
    pub at: Timestamp,
    /// The `User-Agent` header.
    pub user_agent: Option<String>,
    /// The names of all headers, lower-case, in their order. Values may be secrets.
    pub header_names: Vec<String>,
    /// The word of the fault that struck it, [`Fault::WrongDate`] aside.
    pub fault: Option<&'static str>,
    /// What a JSON API was asked for in vain: fields that its documents don't name, and forms of older documents. The
    /// real ones ignore these without an error.
    pub oddities: Vec<String>,
}

impl LoggedRequest {
    /// Whether a header of that name, in lower case, came with it.
    pub fn has_header(&self, name: &str) -> bool {
        self.header_names.iter().any(|sent| sent == name)
    }
}

/// How much came for one API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// All requests.
    pub requests: usize,
    /// Those that were answered with 429.
    pub rate_limited: usize,
}

/// What all connections share.
pub(super) struct State {
    pub(super) accounts: Vec<Account>,
    pub(super) archives: Archives,
    pub(super) rules: Rules,
    /// How often each published file of an account was asked for, by app id and file name.
    pub(super) asked: Mutex<HashMap<(String, String), u32>>,
    /// What the storage serves, by token.
    pub(super) handed_over: Mutex<HashMap<String, Recipe>>,
    pub(super) rates: Rates,
    pub(super) listings: Listings,
    seed: u64,
    /// How often statistics were restated.
    restated: AtomicU32,
    clock: Clock,
    requests: Mutex<VecDeque<LoggedRequest>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("accounts", &self.accounts).field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl State {
    pub(super) fn new(options: Options) -> State {
        State {
            accounts: options.accounts,
            archives: Archives::new(options.seed),
            rules: Rules::new(options.faults),
            asked: Mutex::default(),
            handed_over: Mutex::default(),
            rates: Rates::default(),
            listings: Listings::default(),
            seed: options.seed,
            restated: AtomicU32::new(0),
            clock: options.clock,
            requests: Mutex::default(),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// The campaigns of `account`.
    pub(super) fn library<'a>(&self, account: &'a Account) -> Library<'a> {
        Library { seed: self.seed, app_id: &account.app_id, campaigns: &account.campaigns }
    }

    /// How often statistics were restated.
    pub(super) fn restated(&self) -> u32 {
        self.restated.load(Ordering::Relaxed)
    }

    pub(super) fn restate(&self) {
        self.restated.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn requests(&self) -> Vec<LoggedRequest> {
        lock(&self.requests).iter().cloned().collect()
    }

    pub(super) fn traffic(&self, api: SourceKind) -> Traffic {
        let requests = lock(&self.requests);
        let requests = requests.iter().filter(|request| request.api == Some(api));
        requests.fold(Traffic::default(), |sum, request| Traffic {
            requests: sum.requests + 1,
            rate_limited: sum.rate_limited + usize::from(request.status == Some(StatusCode::TOO_MANY_REQUESTS)),
        })
    }

    fn log(&self, request: LoggedRequest) {
        let LoggedRequest { method, path, status, fault, .. } = &request;
        let status = status.map(|status| status.as_u16());
        tracing::info!(%method, path, status, fault, "emulator answered");
        let mut requests = lock(&self.requests);
        if requests.len() == LOGGED {
            requests.pop_front();
        }
        requests.push_back(request);
    }
}

/// What a panic elsewhere left is still whole: every change under these locks is a single step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves connections until cancelled, which ends them too.
pub(super) async fn serve(listener: TcpListener, state: Arc<State>) {
    let router = Router::new()
        .merge(archive_api::routes())
        .merge(json_api::routes())
        .merge(storage::routes())
        .fallback(async || json_error(StatusCode::NOT_FOUND, "NOT FOUND", "no such path"))
        .layer(middleware::from_fn_with_state(state.clone(), answer))
        .with_state(state);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let breaker = Breaker::default();
                    let service = TowerToHyperService::new(router.clone().layer(Extension(breaker.clone())));
                    let io = TokioIo::new(Wire::new(stream, breaker));
                    // Not even a malformed request is answered with the real date.
                    connections.spawn(http1::Builder::new().auto_date_header(false).serve_connection(io, service));
                }
                Err(error) => {
                    // Mostly a lack of file descriptors, which takes others a moment to give back.
                    tracing::warn!(%error, "emulator cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            // How a connection ends is the client's concern, and often the fault that was asked for.
            Some(_) = connections.join_next() => {}
        }
    }
}

/// `handler` for GET, and 405 for every other method, HEAD included.
pub(super) fn get_only<H, T>(handler: H) -> MethodRouter<Arc<State>>
where
    H: axum::handler::Handler<T, Arc<State>>,
    T: 'static,
{
    only("GET", MethodFilter::GET, handler)
}

/// `handler` for POST, and 405 for every other method.
pub(super) fn post_only<H, T>(handler: H) -> MethodRouter<Arc<State>>
where
    H: axum::handler::Handler<T, Arc<State>>,
    T: 'static,
{
    only("POST", MethodFilter::POST, handler)
}

fn only<H, T>(name: &'static str, method: MethodFilter, handler: H) -> MethodRouter<Arc<State>>
where
    H: axum::handler::Handler<T, Arc<State>>,
    T: 'static,
{
    let refuse = async move || {
        let message = format!("only {name} is supported");
        let refusal = json_error(StatusCode::METHOD_NOT_ALLOWED, "METHOD NOT ALLOWED", &message);
        ([(header::ALLOW, name)], refusal)
    };
    on(method, handler).head(refuse).fallback(refuse)
}

/// The first value of a query parameter, decoded.
pub(super) fn query_value(query: Option<String>, name: &str) -> Option<String> {
    let query = query?;
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// An error in MoEngage's words (seed document 001, "Response Description").
pub(super) fn json_error(status: StatusCode, kind: &str, message: &str) -> Response {
    let error = json!({"error": {"attribute": "", "message": message, "type": kind, "request_id": ""}});
    (status, [(header::CONTENT_TYPE, "application/json")], error.to_string()).into_response()
}

/// 400 in MoEngage's words.
pub(super) fn bad_request(message: &str) -> Response {
    json_error(StatusCode::BAD_REQUEST, "BAD REQUEST", message)
}

/// 401 as the campaign report API has it: JSON by its type, and empty.
pub(super) fn unauthorized() -> Response {
    (StatusCode::UNAUTHORIZED, [(header::CONTENT_TYPE, "application/json")]).into_response()
}

/// The answer that stands for an archive until [`answer`] sends it.
pub(super) fn archive(recipe: Recipe) -> Response {
    Extension(recipe).into_response()
}

async fn answer(
    extract::State(state): extract::State<Arc<State>>,
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
        at: state.now(),
        user_agent: request
            .headers()
            .get(header::USER_AGENT)
            .map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()),
        header_names: request.headers().keys().map(|name| name.as_str().to_owned()).collect(),
        fault: None,
        oddities: Vec::new(),
    };
    let host = request.headers().get(header::HOST).cloned();
    let mut truth = next.run(request).await;
    let recipe = truth.extensions_mut().remove::<Recipe>();
    let page = truth.extensions_mut().remove::<Page>();
    let path = percent_encoding::percent_decode_str(&logged.path).decode_utf8_lossy();
    let endpoint = Endpoint::of(&path);
    logged.api = archive_api::serves(&path).or_else(|| endpoint.map(Endpoint::source));
    logged.page = page.as_ref().map(Page::number);
    logged.oddities = page.as_ref().map(|page| page.oddities().to_vec()).unwrap_or_default();
    let gets = match (&recipe, logged.page) {
        (Some(_), _) => Gets::Archive,
        (None, Some(number)) => Gets::Page(number),
        (None, None) => Gets::Neither,
    };
    let Struck { fault, date_offset } = state.rules.strike(&path, logged.api, gets);
    logged.fault = fault.as_ref().map(Fault::word);
    if let Some(Fault::Reset) = fault {
        state.log(logged);
        breaker.reset();
        return std::future::pending().await;
    }
    let mut response = match (misanswer(&fault, endpoint, page.as_ref(), logged.at), recipe, page) {
        (Some(response), ..) => response,
        (None, None, None) => truth,
        (None, Some(recipe), _) => give(&state, recipe, fault, breaker, host).await.unwrap_or_else(|error| {
            tracing::error!(%error, "emulator cannot build an archive in the temporary directory");
            json_error(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL SERVER ERROR", "cannot build the archive")
        }),
        (None, None, Some(page)) => {
            let body = Archive::Memory(page.body(&state, fault.as_ref()));
            let delivery = bent("application/json", fault, body.size(), page.number());
            let mut response = delivery::send(Arc::new(body), delivery, breaker).await.unwrap_or_else(|error| {
                tracing::error!(%error, "emulator cannot pack a page");
                json_error(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL SERVER ERROR", "cannot pack the page")
            });
            page.standing().write(response.headers_mut());
            response
        }
    };
    let date = date_offset.map_or(logged.at, |offset| logged.at.saturating_add(offset).unwrap_or(logged.at));
    response.headers_mut().insert(header::DATE, http_date(date));
    logged.status = Some(response.status());
    state.log(logged);
    response
}

/// What is answered in place of anything, where the fault is of that kind, in the words of the API. `page` is what the
/// request would be given at `now`.
fn misanswer(
    fault: &Option<Fault>,
    endpoint: Option<Endpoint>,
    page: Option<&Page>,
    now: Timestamp,
) -> Option<Response> {
    let documented = |status| {
        let refusal = |endpoint| page.map_or_else(|| Refusal::of(endpoint, status), |page| page.refusal(status));
        endpoint.map(|endpoint| refusal(endpoint).into_response())
    };
    Some(match fault.as_ref()? {
        Fault::Status { code, body: Some(body) } => (*code, body.clone()).into_response(),
        Fault::Status { code, body: None } => {
            // What stands before an API answers the others.
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
                (Some(_), Some(page)) => page.refusal(status).at(page.standing().exhausted()).into_response(),
                (Some(endpoint), None) => Refusal::of(endpoint, status).into_response(),
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

/// Sends the archive, or where it is to be had, as `fault` bends it.
async fn give(
    state: &State,
    recipe: Recipe,
    fault: Option<Fault>,
    breaker: Breaker,
    host: Option<HeaderValue>,
) -> io::Result<Response> {
    if let Some(Fault::Redirect { to: RedirectTo::Storage, code }) = fault {
        let mut headers = HeaderMap::new();
        headers.insert(header::LOCATION, storage::hand_over(state, recipe, host)?);
        return Ok((code, headers).into_response());
    }
    let archive = state.archives.get(recipe.clone()).await?;
    let delivery = bent(ARCHIVE_TYPE, fault, archive.size(), archives::somewhere(&recipe));
    delivery::send(archive, delivery, breaker).await
}

/// How `size` bytes are sent, as `fault` bends it; `somewhere` is always the same for the same body.
fn bent(content_type: &'static str, fault: Option<Fault>, size: u64, somewhere: u64) -> Delivery {
    let mut delivery = Delivery::of(content_type);
    match fault {
        Some(Fault::Truncate { at, framing }) => {
            delivery.end = Some((at.of(size), End::Close));
            delivery.framing = framing;
        }
        Some(Fault::Slow { bytes_per_second }) => delivery.bytes_per_second = Some(bytes_per_second),
        Some(Fault::Stall) => delivery.end = Some((0, End::Stall)),
        Some(Fault::ResetMidBody { at }) => delivery.end = Some((at.of(size), End::Reset)),
        Some(Fault::BitFlip { offset: Some(offset) }) => delivery.flip = Some((offset.min(size - 1), 1)),
        Some(Fault::BitFlip { offset: None }) => {
            // In the middle half: the outer ones hold bits that mean nothing, such as times of files.
            delivery.flip = Some((size / 4 + (somewhere >> 3) % (size / 2), 1 << (somewhere & 7)));
        }
        Some(Fault::ContentEncoding(encoding)) => delivery.content_encoding = Some(encoding),
        _ => {}
    }
    delivery
}

fn http_date(at: Timestamp) -> HeaderValue {
    // RFC 9110, section 5.6.7; made of letters and digits whatever the time.
    HeaderValue::try_from(at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
        .unwrap_or(HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))
}
