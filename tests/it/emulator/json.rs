//! The emulator's JSON APIs: what they refuse and list, how they limit rates, how they fail.

mod campaigns;
mod clients;
mod faults;
mod rates;
mod refusals;
mod statistics;

use std::sync::atomic::{AtomicU64, Ordering};

use moesync::emulator::{Account, Campaigns};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use super::{API_KEY, APP, Vendor, account, header};

const STATS: &str = "/core-services/v1/campaign-stats";
const SEARCH: &str = "/core-services/v1/campaigns/search";
const META: &str = "/core-services/v1/campaigns/meta";
const SEARCH_V5: &str = "/v5/campaigns/search";
const META_V5: &str = "/v5/campaigns/meta";

fn executions(id: &str) -> String {
    format!("/core-services/v1/campaigns/{id}/executions")
}

fn stats_request() -> Value {
    json!({
        "request_id": "r-1", "start_date": "2020-12-01", "end_date": "2020-12-07",
        "attribution_type": "CLICK_THROUGH", "metric_type": "TOTAL",
    })
}

/// A window in which every campaign has statistics, after the creation of all.
fn after_all_creation() -> Value {
    json!({"start_date": "2021-02-01", "end_date": "2021-02-07"})
}

fn page_request(page: u64) -> Value {
    json!({"request_id": "r-2", "limit": 15, "page": page})
}

/// `request` with other values for some keys; null takes a key away.
fn with(mut request: Value, changes: Value) -> Value {
    for (key, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(request.as_object_mut().unwrap().remove(key)),
            value => request[key] = value.clone(),
        }
    }
    request
}

async fn vendor(campaigns: Campaigns) -> Vendor {
    Vendor::new(Account { campaigns, ..account(vec![]) }).await
}

async fn json_of(response: Response) -> Value {
    assert_eq!(header(&response, "content-type"), Some("application/json"));
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

/// A new one each time.
fn uuid() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("9b2f0c1e-5d3a-4c7b-8e6f-{:012x}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The totals of each campaign on `day`, in the statistics.
pub(super) async fn stats_of_day(vendor: &Vendor, day: &str) -> Vec<(String, Value)> {
    let (found, _) = vendor.stats(json!({"start_date": day, "end_date": day})).await;
    let whole = |stats: Value| {
        stats[0]["platforms"]["ALL_PLATFORMS"]["locales"]["all_locale"]["variations"]["all_variations"]
            ["performance_stats"]
            .clone()
    };
    found.into_iter().map(|(id, stats)| (id, whole(stats))).collect()
}

fn ids(campaigns: &[Value]) -> Vec<&str> {
    campaigns.iter().map(|campaign| campaign["campaign_id"].as_str().unwrap()).collect()
}

impl Vendor {
    /// A correct request, changed by `build`.
    async fn post_with(
        &self,
        path: &str,
        build: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Response {
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        build(client.post(self.emulator.url().join(path).unwrap())).send().await.unwrap()
    }

    async fn post(&self, path: &str, body: &Value) -> Response {
        self.post_with(path, |request| {
            let request = request.basic_auth(APP, Some(API_KEY)).header("MOE-APPKEY", APP);
            request.header("Content-Type", "application/json").body(body.to_string())
        })
        .await
    }

    /// The same to version 5, with a key that no other request has.
    async fn post_v5(&self, path: &str, key: &str, body: &Value) -> Response {
        self.post_with(path, |request| {
            let request = request.basic_auth(APP, Some(API_KEY)).header("Idempotency-Key", key);
            request.header("Content-Type", "application/json").body(body.to_string())
        })
        .await
    }

    /// All campaigns that a listing of version 5 has, page by page until one isn't full.
    async fn listed_v5(&self, path: &str, changes: Value) -> Vec<Value> {
        let mut found = vec![];
        for page in 1..=100 {
            self.tick();
            let response = self.post_v5(path, &uuid(), &with(page_request(page), changes.clone())).await;
            assert_eq!(response.status(), StatusCode::OK, "{path} {changes}");
            let answer = json_of(response).await;
            assert_eq!((&answer["response_id"], answer["type"].is_string()), (&json!("r-2"), true));
            let campaigns = answer["data"]["campaigns"].as_array().unwrap().clone();
            let is_last = campaigns.len() < 15;
            found.extend(campaigns);
            if is_last {
                return found;
            }
        }
        panic!("no page is the last");
    }

    async fn posted(&self, path: &str, body: &Value) -> Value {
        self.tick();
        let response = self.post(path, body).await;
        assert_eq!(response.status(), StatusCode::OK, "{path} {body}");
        json_of(response).await
    }

    /// All campaigns that a search finds, page by page until one isn't full.
    async fn search(&self, changes: Value) -> Vec<Value> {
        self.listed(SEARCH, changes).await
    }

    async fn listed(&self, path: &str, changes: Value) -> Vec<Value> {
        let mut found = vec![];
        for page in 1..=100 {
            let campaigns = self.posted(path, &with(page_request(page), changes.clone())).await;
            let campaigns = campaigns.as_array().unwrap().clone();
            let is_last = campaigns.len() < 15;
            found.extend(campaigns);
            if is_last {
                return found;
            }
        }
        panic!("no page is the last");
    }

    /// All statistics, by offset, with their campaigns' ids, and the total of the last page.
    async fn stats(&self, changes: Value) -> (Vec<(String, Value)>, u64) {
        let mut found = vec![];
        for page in 1..=100 {
            let offset = json!({"offset": (page - 1) * 10});
            let answer = self.posted(STATS, &with(with(stats_request(), changes.clone()), offset)).await;
            assert_eq!(answer["current_page"], page);
            found.extend(answer["data"].as_object().unwrap().clone());
            if answer["total_pages"].as_u64().unwrap() <= page {
                return (found, answer["total_campaigns"].as_u64().unwrap());
            }
        }
        panic!("no page is the last");
    }

    async fn executions(&self, id: &str) -> (Vec<Value>, u64) {
        let mut found = vec![];
        for page in 1..=100 {
            let answer = self.posted(&executions(id), &page_request(page)).await;
            let executions = answer["executions"].as_array().unwrap().clone();
            let is_last = executions.len() < 15;
            found.extend(executions);
            if is_last {
                return (found, answer["total_instances"].as_u64().unwrap());
            }
        }
        panic!("no page is the last");
    }
}
