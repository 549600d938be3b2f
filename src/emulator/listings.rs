//! Pages of the JSON APIs' listings, and the state kept between pages and between requests.
//!
//! This file must not know credentials or how responses are sent.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
};

use axum::{
    Extension,
    body::Bytes,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

use super::{
    api_error::JsonApiError,
    campaign::CampaignAt,
    endpoint::{Endpoint, Version},
    faults::{Fault, OddJson},
    json_checks::PageRange,
    library::Library,
    rates::RateStatus,
    selection::{Search, StatsWindow},
};
use crate::lock::lock;

/// How many listings are cached, so that a page does not search all campaigns again.
const SELECTED: usize = 8;
/// A placeholder in a page for text that no JSON value can hold.
const ODD: &str = "\u{1}odd\u{1}";

/// The rows that a request asks for, over all pages.
#[derive(Debug, Clone)]
pub(super) enum Listing {
    Stats(StatsWindow),
    Campaigns(Box<Search>),
    /// Of the campaign with this id.
    Executions(String),
}

/// One page of a listing. It stands for the response until `middleware.rs` sends it.
#[derive(Debug, Clone)]
pub(super) struct ListingPage {
    pub(super) app_id: String,
    pub(super) endpoint: Endpoint,
    pub(super) listing: Listing,
    pub(super) range: PageRange,
    pub(super) request_id: String,
    pub(super) rate: RateStatus,
    pub(super) oddities: Vec<String>,
}

impl IntoResponse for ListingPage {
    fn into_response(self) -> Response {
        Extension(self).into_response()
    }
}

/// How a fault has changed a listing since its first page.
#[derive(Debug, Clone, Copy, Default)]
struct Drift {
    /// By how many rows pages repeat earlier ones.
    repeated: u64,
    /// How many campaigns at the front were removed.
    gone: u64,
}

/// Listings between the requests for their pages, by [`ListingPage::key`], and responses by their idempotency key.
#[derive(Debug, Default)]
pub(super) struct Listings {
    selected: Mutex<VecDeque<(String, Arc<Vec<CampaignAt>>)>>,
    drifts: Mutex<HashMap<String, Drift>>,
    /// By app id and `Idempotency-Key`, oldest first.
    pub(super) replays: Mutex<VecDeque<((String, String), ListingPage)>>,
}

impl ListingPage {
    /// From 1.
    pub(super) fn number(&self) -> u64 {
        self.range.offset / self.range.limit + 1
    }

    /// The rate limit after its request.
    pub(super) fn rate(&self) -> RateStatus {
        self.rate
    }

    /// Fields of its request that the API ignores.
    pub(super) fn oddities(&self) -> &[String] {
        &self.oddities
    }

    /// A refusal of its request with `status`.
    pub(super) fn refusal(&self, status: StatusCode) -> JsonApiError {
        JsonApiError::of(self.endpoint, status).to(&self.request_id).at(self.rate)
    }

    /// The same for all pages of a listing.
    fn key(&self) -> String {
        format!("{} {:?}", self.app_id, self.listing)
    }

    /// The response's body, as `fault` changes it. The first page restarts the listing.
    pub(super) fn body(
        &self,
        listings: &Listings,
        library: Library<'_>,
        restated: u32,
        fault: Option<&Fault>,
    ) -> Bytes {
        let places = self.places(listings, library);
        let Drift { repeated, gone } = self.drift(listings, fault);
        let PageRange { offset, limit } = self.range;
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
                let of = |place: &CampaignAt| {
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

    fn places(&self, listings: &Listings, library: Library<'_>) -> Arc<Vec<CampaignAt>> {
        let select = || match &self.listing {
            Listing::Stats(window) => library.with_stats(window),
            Listing::Campaigns(search) => library.search(search),
            Listing::Executions(id) => library.executions(id).unwrap_or_default(),
        };
        // These are found by id; in the cache they would evict listings that need a search.
        if matches!(&self.listing, Listing::Executions(_))
            || matches!(&self.listing, Listing::Stats(window) if !window.campaign_ids.is_empty())
        {
            return Arc::new(select());
        }
        let key = self.key();
        if let Some((_, places)) = lock(&listings.selected).iter().find(|(selected, _)| *selected == key) {
            return places.clone();
        }
        let places = Arc::new(select());
        let mut selected = lock(&listings.selected);
        if selected.len() == SELECTED {
            selected.pop_front();
        }
        selected.push_back((key, places.clone()));
        places
    }

    fn drift(&self, listings: &Listings, fault: Option<&Fault>) -> Drift {
        let mut drifts = lock(&listings.drifts);
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

/// `text` with [`ODD`] replaced as `odd` says.
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
