//! The log of requests that tests read.

use std::{collections::VecDeque, sync::Mutex};

use axum::http::{Method, StatusCode};
use jiff::Timestamp;

use crate::{config::SourceKind, lock::lock};

/// The number of newest requests that are kept.
const KEPT: usize = 100_000;

/// One request and the status of its response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedRequest {
    /// The method.
    pub method: Method,
    /// The path as it was sent, percent-encoded, without the query: that may hold a signature.
    pub path: String,
    /// The API that it was for, if any.
    pub api: Option<SourceKind>,
    /// The page of JSON that it is for, from 1.
    pub page: Option<u64>,
    /// The status of the response; `None` where the connection was reset instead.
    pub status: Option<StatusCode>,
    /// When it arrived, by the emulator's clock.
    pub at: Timestamp,
    /// The `User-Agent` header.
    pub user_agent: Option<String>,
    /// The names of all headers, lower-case, in their order. Values may be secrets.
    pub header_names: Vec<String>,
    /// The word of the fault that was applied, except `wrong-date`.
    pub fault: Option<&'static str>,
    /// Fields of a JSON request that the API's documents don't name, and forms of older documents. MoEngage ignores
    /// them without an error.
    pub oddities: Vec<String>,
}

impl LoggedRequest {
    /// Whether the request has the header `name`, in lower case.
    pub fn has_header(&self, name: &str) -> bool {
        self.header_names.iter().any(|sent| sent == name)
    }
}

/// How many requests one API received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// All requests.
    pub requests: usize,
    /// Requests that were answered with 429.
    pub rate_limited: usize,
}

/// The newest requests, oldest first.
#[derive(Debug, Default)]
pub(super) struct RequestLog(Mutex<VecDeque<LoggedRequest>>);

impl RequestLog {
    pub(super) fn requests(&self) -> Vec<LoggedRequest> {
        lock(&self.0).iter().cloned().collect()
    }

    pub(super) fn traffic(&self, api: SourceKind) -> Traffic {
        let requests = lock(&self.0);
        let requests = requests.iter().filter(|request| request.api == Some(api));
        requests.fold(Traffic::default(), |sum, request| Traffic {
            requests: sum.requests + 1,
            rate_limited: sum.rate_limited + usize::from(request.status == Some(StatusCode::TOO_MANY_REQUESTS)),
        })
    }

    pub(super) fn add(&self, request: LoggedRequest) {
        let LoggedRequest { method, path, status, fault, .. } = &request;
        let status = status.map(|status| status.as_u16());
        tracing::info!(%method, path, status, fault, "emulator answered");
        let mut requests = lock(&self.0);
        if requests.len() == KEPT {
            requests.pop_front();
        }
        requests.push_back(request);
    }
}
