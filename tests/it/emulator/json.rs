//! The emulator's JSON APIs: what they refuse, what they list, how often they may be asked, how they misbehave. MoEngage's own
//! Python client is the judge of whether they are like the real ones.

use std::{
    collections::BTreeSet,
    path::Path,
    process::Output,
    sync::atomic::{AtomicU64, Ordering},
};

use moesync::emulator::{DeliveryType, Traffic};
use serde_json::{Value, json};
use tokio::process::Command;

use super::*;

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

/// A window in which every campaign has statistics that goes on for ever.
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

/// Another one each time.
fn uuid() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("9b2f0c1e-5d3a-4c7b-8e6f-{:012x}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// What statistics count as the whole of each campaign on `day`.
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
    /// A proper request, but for what `build` does to it.
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

    /// All statistics, by offset, as ids with what they are of; and the total that the last page names.
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

// ---- what is refused

#[tokio::test]
async fn only_the_workspace_with_its_api_key_and_header_gets_in() {
    let vendor = vendor(Campaigns::default()).await;
    let periodic = vendor.search(json!({"campaign_fields": {"delivery_type": ["PERIODIC"]}})).await;
    let executions = executions(ids(&periodic)[0]);
    for (path, body) in [(STATS, stats_request()), (SEARCH, page_request(1)), (executions.as_str(), page_request(1))] {
        let wrong = [
            ("no authorization", None, Some(APP)),
            ("the secret key", Some((APP, KEY)), Some(APP)),
            ("no key", Some((APP, "")), Some(APP)),
            ("another user", Some(("OTHER", API_KEY)), Some(APP)),
            ("no header", Some((APP, API_KEY)), None),
            ("another header", Some((APP, API_KEY)), Some("OTHER")),
        ];
        for (what, credentials, app_key) in wrong {
            let response = vendor
                .post_with(path, |mut request| {
                    if let Some((user, password)) = credentials {
                        request = request.basic_auth(user, Some(password));
                    }
                    if let Some(app_key) = app_key {
                        request = request.header("MOE-APPKEY", app_key);
                    }
                    request.header("Content-Type", "application/json").body(body.to_string())
                })
                .await;
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path} {what}");
            let error = json_of(response).await;
            match path {
                STATS => assert_eq!(
                    error,
                    json!({
                        "title": "Authentication required", "description": "Invalid identity information found.",
                        "code": "wUcwPRZF",
                    })
                ),
                _ => {
                    assert_eq!(error["error"]["code"], "401 Authentication error", "{error}");
                    assert_eq!(error["error"]["details"][0]["target"], "APP_SECRET_KEY", "{error}");
                }
            }
        }
        assert_eq!(vendor.post(path, &body).await.status(), StatusCode::OK);
        let get = vendor.ask(path, |request| request.basic_auth(APP, Some(API_KEY)).header("MOE-APPKEY", APP)).await;
        assert_eq!((get.status(), header(&get, "allow")), (StatusCode::METHOD_NOT_ALLOWED, Some("POST")));
    }
}

#[tokio::test]
async fn each_check_of_a_request_refuses_in_the_documented_words() {
    let vendor = vendor(Campaigns::default()).await;
    let eleven: Vec<_> = (0..11).map(|n| format!("{n:024x}")).collect();
    let fields = |fields: Value| with(page_request(1), json!({"campaign_fields": fields}));
    let parent = vendor.search(json!({"campaign_fields": {"delivery_type": ["PERIODIC"]}})).await;
    let parent = executions(ids(&parent)[0]);
    let mut refused = vec![];
    for changes in [
        json!({"request_id": null}),
        json!({"request_id": 7}),
        json!({"start_date": null}),
        json!({"end_date": null}),
        json!({"start_date": "01-12-2020"}),
        json!({"start_date": "2020-12-32"}),
        json!({"start_date": "2020-12-08"}),
        json!({"start_date": "2020-11-06"}),
        json!({"attribution_type": null}),
        json!({"attribution_type": "view_through"}),
        json!({"metric_type": null}),
        json!({"metric_type": "AVERAGE"}),
        json!({"campaign_ids": eleven}),
        json!({"campaign_ids": "5"}),
        json!({"limit": 11}),
        json!({"limit": 0}),
        json!({"offset": -1}),
    ] {
        refused.push((STATS, with(stats_request(), changes)));
    }
    for changes in [
        json!({"request_id": null}),
        json!({"limit": null}),
        json!({"limit": 16}),
        json!({"limit": "15"}),
        json!({"page": null}),
        json!({"page": 0}),
    ] {
        refused.push((SEARCH, with(page_request(1), changes.clone())));
        refused.push((&parent, with(page_request(1), changes)));
    }
    for wrong in [
        json!({"channels": ["FAX"]}),
        json!({"channels": "PUSH"}),
        json!({"delivery_type": ["SOMETIMES"]}),
        json!({"status": ["Asleep"]}),
        json!({"tags": [1]}),
        json!({"created_by": "john.doe@example.com"}),
        json!({"id": 5}),
        json!({"name": ["x"]}),
        json!({"created_date": {"from_date": "16-06-2020"}}),
        json!({"created_date": {"from_date": "2020-6-16", "to_date": "21-06-2020"}}),
        json!({"created_date": {"from_date": "22-06-2020", "to_date": "21-06-2020"}}),
    ] {
        refused.push((SEARCH, fields(wrong)));
    }
    refused.push((SEARCH, with(page_request(1), json!({"include_child_campaigns": "yes"}))));
    refused.push((SEARCH, json!([])));

    let mut told = String::new();
    for (path, request) in refused {
        vendor.tick();
        let response = vendor.post(path, &request).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{path} {request}");
        let error = json_of(response).await;
        if path == STATS {
            assert_eq!(error["title"], "Invalid Field Value");
            assert_eq!(error.as_object().unwrap().keys().collect::<Vec<_>>(), ["code", "description", "title"]);
            told += &format!("{}\n", error["description"].as_str().unwrap());
        } else {
            let error = &error["error"];
            assert_eq!(error["code"], "400 Bad Request");
            assert_eq!(error["details"][0], json!({"target": error["target"], "message": error["message"]}));
            assert_eq!(error["request_id"], request.get("request_id").cloned().unwrap_or(json!("")));
            told += &format!("{}: {}\n", error["target"].as_str().unwrap(), error["message"].as_str().unwrap());
        }
    }
    insta::assert_snapshot!(told, @r"
    request_id - request_id key is mandatory field
    request_id - request_id must be a string that isn't empty
    start_date - start_date key is mandatory field
    end_date - end_date key is mandatory field
    start_date - start_date must be a date as YYYY-MM-DD
    start_date - start_date must be a date as YYYY-MM-DD
    end_date - end_date must not be before start_date
    end_date - start_date and end_date must be at most 30 days apart
    attribution_type - attribution_type key is mandatory field
    attribution_type - attribution_type must be one of VIEW_THROUGH, CLICK_THROUGH, IN_SESSION, TOTAL_CONVERSIONS, CLICK_CONVERSIONS
    metric_type - metric_type key is mandatory field
    metric_type - metric_type must be one of TOTAL, UNIQUE
    campaign_ids - campaign_ids must be a list of at most 10 strings
    campaign_ids - campaign_ids must be a list of at most 10 strings
    limit - limit must be a whole number from 1 to 10
    limit - limit must be a whole number from 1 to 10
    offset - offset must be a whole number from 0
    request_id: request_id key is mandatory field
    request_id: request_id key is mandatory field
    limit: limit key is mandatory field
    limit: limit key is mandatory field
    limit: limit must be a whole number from 1 to 15
    limit: limit must be a whole number from 1 to 15
    limit: limit must be a whole number from 1 to 15
    limit: limit must be a whole number from 1 to 15
    page: page key is mandatory field
    page: page key is mandatory field
    page: page must be a whole number from 1
    page: page must be a whole number from 1
    channels: channels must be one of EMAIL, PUSH, SMS, IN_APP, WHATSAPP, CARDS, ONSITE, FACEBOOK, GOOGLE_ADS, CONNECTOR
    channels: channels must be a list of strings
    delivery_type: delivery_type must be one of ONE_TIME, PERIODIC, EVENT_TRIGGERED, BUSINESS_EVENT_TRIGGERED, DEVICE_TRIGGERED, LOCATION_TRIGGERED, BROADCAST_LIVE_ACTIVITY, API_TRIGGERED
    status: status must be one of Active, Archived, Completed, Draft, Paused, Retired, Scheduled, Sent, Stopped
    tags: tags must be a list of strings
    created_by: created_by must be a list of strings
    id: id must be a string
    name: name must be a string
    to_date: to_date key is mandatory field
    from_date: from_date must be a date as YYYY-MM-DD or DD-MM-YYYY
    to_date: to_date must not be before from_date
    include_child_campaigns: include_child_campaigns must be true or false
    body: the body must be a JSON object
    ");

    let plain = vendor
        .post_with(SEARCH, |request| {
            let request = request.basic_auth(APP, Some(API_KEY)).header("MOE-APPKEY", APP);
            request.header("Content-Type", "text/plain").body(page_request(1).to_string())
        })
        .await;
    assert_eq!(plain.status(), StatusCode::BAD_REQUEST);
    // The widest window that is allowed: the ends are 30 days apart.
    vendor.posted(STATS, &with(stats_request(), json!({"start_date": "2020-11-07"}))).await;
}

// ---- what is listed

#[tokio::test]
async fn a_search_lists_every_campaign_once_newest_first_in_pages_of_fifteen() {
    let vendor = vendor(Campaigns { count: 100, ..Campaigns::default() }).await;
    let all = vendor.search(json!({})).await;
    assert_eq!(ids(&all).into_iter().collect::<BTreeSet<_>>().len(), 100);
    assert_eq!(vendor.emulator.traffic(SourceKind::Campaigns), Traffic { requests: 7, rate_limited: 0 });
    assert!(all.iter().all(|campaign| ["EMAIL", "PUSH", "SMS"].contains(&campaign["channel"].as_str().unwrap())));
    let created: Vec<_> = all.iter().map(|campaign| campaign["created_at"].as_str().unwrap()).collect();
    assert!(created.is_sorted_by(|a, b| a >= b), "{created:?}");
    assert_eq!(vendor.posted(SEARCH, &page_request(8)).await, json!([]));
    for campaign in &all {
        let id = campaign["campaign_id"].as_str().unwrap();
        assert!(id.len() == 24 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        for key in ["status", "channel", "created_by", "campaign_delivery_type"] {
            assert!(campaign[key].is_string(), "{key} of {campaign}");
        }
        for key in ["basic_details", "campaign_content", "scheduling_details", "segmentation_details"] {
            assert!(campaign[key].is_object(), "{key} of {campaign}");
        }
    }
    let pages = vendor.emulator.requests();
    assert_eq!(pages.iter().map(|request| request.page.unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[tokio::test]
async fn every_filter_of_a_search_is_honoured() {
    let vendor = vendor(Campaigns { count: 80, ..Campaigns::default() }).await;
    let all = vendor.search(json!({})).await;
    let one = &all[33];
    let tag = all.iter().find_map(|campaign| campaign["basic_details"]["tags"].get(0)).unwrap();
    type Keeps = Box<dyn Fn(&Value) -> bool>;
    let of_the_summer =
        |campaign: &Value| ("2020-06-16".."2020-08-22").contains(&&campaign["created_at"].as_str().unwrap()[..10]);
    let is = |key: &'static str, words: &'static [&'static str]| -> Keeps {
        Box::new(move |campaign: &Value| words.contains(&campaign[key].as_str().unwrap()))
    };
    let (id, name, wanted_tag) = (one["campaign_id"].clone(), one["basic_details"]["name"].clone(), tag.clone());
    let (same_id, same_name) = (id.clone(), name.clone());
    let filters: Vec<(Value, Keeps)> = vec![
        (json!({"channels": ["EMAIL", "PUSH"]}), is("channel", &["EMAIL", "PUSH"])),
        (json!({"created_by": ["john.doe@example.com"]}), is("created_by", &["john.doe@example.com"])),
        (json!({"delivery_type": ["PERIODIC"]}), is("campaign_delivery_type", &["PERIODIC"])),
        (json!({"status": ["ACTIVE"]}), is("status", &["Active"])),
        (json!({"created_date": {"from_date": "16-06-2020", "to_date": "21-08-2020"}}), Box::new(of_the_summer)),
        (json!({"created_date": {"from_date": "2020-06-16", "to_date": "2020-08-21"}}), Box::new(of_the_summer)),
        (
            json!({"tags": [tag]}),
            Box::new(move |campaign| campaign["basic_details"]["tags"].as_array().unwrap().contains(&wanted_tag)),
        ),
        (json!({"id": id}), Box::new(move |campaign| campaign["campaign_id"] == same_id)),
        (json!({"name": name}), Box::new(move |campaign| campaign["basic_details"]["name"] == same_name)),
        (
            json!({"delivery_type": ["ONE_TIME"], "status": ["Scheduled"]}),
            Box::new(|campaign| campaign["campaign_delivery_type"] == "ONE_TIME" && campaign["status"] == "Scheduled"),
        ),
    ];
    for (filter, keeps) in filters {
        let expected: Vec<_> = all.iter().filter(|campaign| keeps(campaign)).cloned().collect();
        assert!(!expected.is_empty() && expected.len() < all.len(), "{filter} tells nothing apart");
        assert_eq!(vendor.search(json!({"campaign_fields": filter})).await, expected, "{filter}");
    }
    // A channel that exists, but not there.
    assert_eq!(vendor.search(json!({"campaign_fields": {"channels": ["WHATSAPP"]}})).await, [json!(null); 0]);
}

#[tokio::test]
async fn children_and_archived_campaigns_are_listed_only_when_asked_for() {
    let vendor = vendor(Campaigns { count: 40, flow_nodes: 6, ..Campaigns::default() }).await;
    let plain = vendor.search(json!({})).await;
    assert_eq!(plain.len(), 40);
    let archived = vendor.search(json!({"include_archive_campaigns": true})).await;
    assert_eq!(archived.len(), 44);
    assert!(archived[40..].iter().all(|campaign| campaign["status"] == "Archived"));
    // As one sentence of the FAQ has it, and no schema.
    assert_eq!(vendor.search(json!({"include_archived_campaigns": true})).await, plain);

    let mut executions = BTreeSet::new();
    for parent in &plain {
        let delivery_type = parent["campaign_delivery_type"].as_str().unwrap();
        if ["PERIODIC", "BUSINESS_EVENT_TRIGGERED"].contains(&delivery_type) {
            let id = parent["campaign_id"].as_str().unwrap();
            let found = vendor.executions(id).await.0;
            executions.extend(ids(&found).into_iter().map(|child| (child.to_owned(), id.to_owned())));
        }
    }
    let with_children = vendor.search(json!({"include_child_campaigns": true})).await;
    assert_eq!(ids(&with_children).into_iter().collect::<BTreeSet<_>>().len(), with_children.len());
    let text = |campaign: &Value, key: &str| campaign.get(key).map(|text| text.as_str().unwrap().to_owned());
    let children = with_children
        .iter()
        .filter_map(|campaign| Some((text(campaign, "campaign_id")?, text(campaign, "parent_id")?)));
    assert_eq!(children.collect::<BTreeSet<_>>(), executions);
    let flows: Vec<_> = with_children.iter().filter_map(|campaign| text(campaign, "flow_id")).collect();
    assert_eq!((flows.len(), flows.iter().collect::<BTreeSet<_>>().len()), (6, 2), "four nodes a flow");
    assert_eq!(with_children.iter().filter(|campaign| campaign.get("flow_name").is_some()).count(), 6);
    assert_eq!(with_children.len(), plain.len() + executions.len() + flows.len());
}

#[tokio::test]
async fn what_a_search_asks_for_in_vain_is_let_through_and_noted() {
    let vendor = vendor(Campaigns::default()).await;
    let odd = json!({
        "include_archived_campaigns": true,
        "campaign_fields": {"ids": ["x"], "created_date": {"from_date": "16-06-2020", "to_date": "2020-07-01"}},
    });
    vendor.posted(SEARCH, &with(page_request(1), odd)).await;
    vendor.posted(STATS, &with(stats_request(), json!({"page": 2}))).await;
    let with_old_name = json!({"campaign_fields": {"delivery_type": ["PERIODIC"]}});
    assert_eq!(vendor.listed_v5(SEARCH_V5, with_old_name).await, [json!(null); 0], "the old name finds nothing");
    let noted: Vec<_> = vendor.emulator.requests().into_iter().map(|request| request.oddities).collect();
    assert_eq!(
        noted,
        [
            vec![
                "unknown field `include_archived_campaigns`",
                "unknown field `campaign_fields.ids`",
                "`created_date` as DD-MM-YYYY is of older documents",
            ],
            vec!["unknown field `page`"],
            vec!["unknown field `campaign_fields.delivery_type`"],
        ]
    );
}

#[tokio::test]
async fn metadata_covers_the_channels_that_a_search_does_not() {
    let campaigns = Campaigns { count: 20, other_channels: 10, flow_nodes: 3, ..Campaigns::default() };
    let vendor = vendor(campaigns).await;
    let (searched, listed) = (vendor.search(json!({})).await, vendor.listed(META, json!({})).await);
    assert_eq!((searched.len(), listed.len()), (20, 30));
    assert_eq!(ids(&listed)[..20], ids(&searched)[..]);
    for campaign in &listed[20..] {
        assert!(!["EMAIL", "PUSH", "SMS"].contains(&campaign["channel"].as_str().unwrap()), "{campaign}");
    }
    for campaign in &listed {
        for key in ["campaign_id", "name", "team", "status", "channel"] {
            assert!(campaign[key].is_string(), "{key} of {campaign}");
        }
        assert!(campaign["tags"].is_array() && campaign["children_count"].is_u64());
    }
    // Statistics are of every channel.
    let (found, total) = vendor.stats(after_all_creation()).await;
    let found: BTreeSet<_> = found.iter().map(|(id, _)| id.as_str()).collect();
    assert!(ids(&listed[20..]).iter().all(|id| found.contains(id)) && found.len() as u64 == total);
}

#[tokio::test]
async fn version_5_lists_each_version_of_a_campaign_under_an_id_of_its_own() {
    let vendor = vendor(Campaigns { count: 40, other_channels: 10, ..Campaigns::default() }).await;
    for (path, old, count) in [(SEARCH_V5, SEARCH, 40), (META_V5, META, 50)] {
        let (listed, old) = (vendor.listed_v5(path, json!({})).await, vendor.listed(old, json!({})).await);
        let versions: BTreeSet<_> = listed.iter().map(|campaign| campaign["id"].as_str().unwrap()).collect();
        assert!(versions.len() == listed.len() && listed.len() > count, "{} versions", listed.len());
        let campaigns: BTreeSet<_> = ids(&listed).into_iter().collect();
        assert_eq!(campaigns, ids(&old).into_iter().collect());
        assert!(campaigns.is_disjoint(&versions) && campaigns.len() == count);
        let one = &listed[7];
        let filter =
            json!({"campaign_fields": {"ids": [one["id"]], "campaign_delivery_type": [one["campaign_delivery_type"]]}});
        assert_eq!(vendor.listed_v5(path, filter).await, std::slice::from_ref(one));
        let dates = json!({"from_date": "2020-06-16T00:00:00Z", "to_date": "2020-08-21T23:59:59"});
        let of_summer = vendor.listed_v5(path, json!({"campaign_fields": {"created_date": dates}})).await;
        assert!(!of_summer.is_empty() && of_summer.len() < listed.len());
    }
}

#[tokio::test]
async fn version_5_wants_a_fresh_key_on_every_request_and_replays_the_first_answer() {
    let vendor = vendor(Campaigns::default()).await;
    let (one, other) = (uuid(), uuid());
    let first = vendor.post_v5(SEARCH_V5, &one, &page_request(1)).await.bytes().await.unwrap();
    let second = vendor.post_v5(SEARCH_V5, &other, &page_request(2)).await.bytes().await.unwrap();
    assert_ne!(first, second);
    assert_eq!(vendor.post_v5(SEARCH_V5, &one, &page_request(2)).await.bytes().await.unwrap(), first);

    let proper = uuid();
    for (key, body, target) in [
        ("", page_request(1), "Idempotency-Key"),
        ("9b2f0c1e-5d3a-1c7b-8e6f-000000000000", page_request(1), "Idempotency-Key"),
        (proper.as_str(), with(page_request(1), json!({"limit": 16})), "limit"),
    ] {
        let refused = vendor.post_v5(SEARCH_V5, key, &body).await;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{key}");
        let error = json_of(refused).await;
        assert_eq!((&error["error"]["code"], &error["error"]["target"]), (&json!("VALIDATION_FAILED"), &json!(target)));
        assert!(error["response_id"].is_string() && error["error"]["details"].is_array());
    }
    let unsigned = vendor.post_with(SEARCH_V5, |request| request.body(page_request(1).to_string())).await;
    assert_eq!(unsigned.status(), StatusCode::UNAUTHORIZED);
    let executions =
        vendor.post_v5(&executions("x").replace("core-services/v1", "v5"), &uuid(), &page_request(1)).await;
    assert_eq!(executions.status(), StatusCode::NOT_FOUND, "version 5 has none");
}

#[tokio::test]
async fn executions_belong_to_recurring_parents_alone() {
    let vendor = vendor(Campaigns::default()).await;
    let all = vendor.search(json!({})).await;
    let mut lengths = BTreeSet::new();
    for campaign in &all {
        let id = campaign["campaign_id"].as_str().unwrap();
        let delivery_type = campaign["campaign_delivery_type"].as_str().unwrap();
        if ["PERIODIC", "BUSINESS_EVENT_TRIGGERED"].contains(&delivery_type) {
            assert!(["EMAIL", "PUSH"].contains(&campaign["channel"].as_str().unwrap()), "made through the API");
            let (executions, total) = vendor.executions(id).await;
            assert_eq!(executions.len() as u64, total);
            assert_eq!(ids(&executions).into_iter().collect::<BTreeSet<_>>().len() as u64, total);
            let times: Vec<_> = executions.iter().map(|execution| execution["sent_time"].as_str().unwrap()).collect();
            assert!(times.is_sorted() && times.iter().all(|time| **time < *"2021"), "{times:?}");
            lengths.insert(executions.len());
            vendor.tick();
            let child = vendor.post(&executions_path(&executions), &page_request(1)).await;
            assert_eq!(child.status(), StatusCode::BAD_REQUEST, "a child has no children");
        } else {
            vendor.tick();
            let response = vendor.post(&executions(id), &page_request(1)).await;
            assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{delivery_type}");
            let error = json_of(response).await;
            let message = "only a periodic or business event triggered campaign has executions";
            assert_eq!(error["error"]["message"], message);
        }
    }
    assert!(lengths.first() < Some(&15) && lengths.last() > Some(&15), "of one page and of several: {lengths:?}");
    vendor.tick();
    let unknown = vendor.post(&executions("000000000000000000000000"), &page_request(1)).await;
    assert_eq!(json_of(unknown).await["error"]["message"], "no campaign has this id");
}

#[tokio::test]
async fn executions_of_parents_made_in_the_dashboard_are_refused() {
    let delivery_types = vec![DeliveryType::Periodic];
    let vendor = vendor(Campaigns { count: 60, delivery_types, dashboard_percent: 50, ..Campaigns::default() }).await;
    let mut refused = BTreeSet::new();
    for campaign in &vendor.search(json!({})).await {
        vendor.tick();
        let response = vendor.post(&executions(campaign["campaign_id"].as_str().unwrap()), &page_request(1)).await;
        if response.status() == StatusCode::BAD_REQUEST {
            let message = json_of(response).await["error"]["message"].as_str().unwrap().to_owned();
            refused.insert((campaign["channel"].as_str().unwrap().to_owned(), message));
        } else {
            assert!(["EMAIL", "PUSH"].contains(&campaign["channel"].as_str().unwrap()), "{campaign}");
        }
    }
    let (made, by) = (
        "only a campaign that was created through the API has executions",
        "only campaigns by email and push have executions",
    );
    let expected = [("EMAIL", made), ("PUSH", made), ("SMS", by)];
    assert_eq!(refused, expected.map(|(channel, why)| (channel.to_owned(), why.to_owned())).into());
}

fn executions_path(found: &[Value]) -> String {
    executions(found[0]["campaign_id"].as_str().unwrap())
}

#[tokio::test]
async fn statistics_are_of_all_that_was_sent_in_the_window_children_included() {
    let vendor = vendor(Campaigns::default()).await;
    let listed = vendor.search(json!({"include_child_campaigns": true})).await;
    let (found, total) = vendor.stats(json!({})).await;
    let found: BTreeSet<_> = found.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(found.len() as u64, total);
    let mut children = 0;
    for campaign in &listed {
        let sent = campaign.get("sent_time").map(|sent| sent.as_str().unwrap()[..10].to_owned());
        let created = &campaign["created_at"].as_str().unwrap()[..10];
        let expected = match (campaign["campaign_delivery_type"].as_str().unwrap(), &sent) {
            ("API_TRIGGERED", _) => false,
            // People react for a week.
            (_, Some(sent)) => ("2020-11-25".."2020-12-08").contains(&sent.as_str()),
            ("ONE_TIME", None) => false,
            (_, None) => created <= "2020-12-07",
        };
        children += usize::from(expected && sent.is_some());
        assert_eq!(found.contains(campaign["campaign_id"].as_str().unwrap()), expected, "{campaign}");
    }
    assert!(children > 0 && found.len() < listed.len());

    // By id: what is asked for, as far as there is something.
    let api_triggered = listed.iter().find(|campaign| campaign["campaign_delivery_type"] == "API_TRIGGERED").unwrap();
    let asked =
        [*found.first().unwrap(), *found.last().unwrap(), api_triggered["campaign_id"].as_str().unwrap(), "nope"];
    let (by_id, total) = vendor.stats(json!({"campaign_ids": asked})).await;
    assert_eq!(total, 4, "the number of campaigns requested");
    assert_eq!(by_id.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), asked[..2]);
}

#[tokio::test]
async fn the_parts_of_statistics_add_up() {
    let campaigns = Campaigns { delivery_types: vec![DeliveryType::EventTriggered], ..Campaigns::default() };
    let vendor = vendor(campaigns).await;
    let (found, total) = vendor.stats(after_all_creation()).await;
    assert_eq!(total, 40);
    let sent = |variation: &Value| variation["performance_stats"]["sent"].as_u64().unwrap();
    let (mut platforms, mut locales, mut variations) = (0, 0, 0);
    for (_, campaign) in &found {
        let parts = |parent: &Value, all: &str, of: &dyn Fn(&Value) -> u64| {
            let parts = parent.as_object().unwrap().iter();
            let parts: Vec<u64> = parts
                .filter(|(name, _)| *name != all && !name.ends_with("control_group"))
                .map(|(_, part)| of(part))
                .collect();
            if !parts.is_empty() {
                assert_eq!(of(&parent[all]), parts.iter().sum::<u64>(), "{parent}");
            }
            parts.len()
        };
        let of_locale = |locale: &Value| sent(&locale["variations"]["all_variations"]);
        let of_platform = |platform: &Value| of_locale(&platform["locales"]["all_locale"]);
        let all = &campaign[0]["platforms"];
        platforms = platforms.max(parts(all, "ALL_PLATFORMS", &of_platform));
        let all = &all["ALL_PLATFORMS"]["locales"];
        locales = locales.max(parts(all, "all_locale", &of_locale));
        let all = &all["all_locale"]["variations"];
        variations = variations.max(parts(all, "all_variations", &sent));
        // As in the vendor's sample: nothing is sent to a control group.
        assert_eq!(all["campaign_control_group"].get("performance_stats"), None);
        for key in ["performance_stats", "conversion_goal_stats", "delivery_funnel", "failure_breakdown"] {
            assert!(all["all_variations"][key].is_object(), "{key}");
        }
    }
    assert_eq!((platforms, locales, variations), (2, 2, 2), "some campaigns have several of each");
}

#[tokio::test]
async fn the_same_request_has_the_same_answer_until_statistics_are_restated() {
    let (one, same) = (vendor(Campaigns::default()).await, vendor(Campaigns::default()).await);
    let other = Vendor::seeded(account(vec![]), 2).await;
    same.set("2026-11-21T00:00:00Z");
    for (path, body) in [(STATS, stats_request()), (SEARCH, page_request(1))] {
        let bytes = async |vendor: &Vendor| vendor.post(path, &body).await.bytes().await.unwrap();
        let truth = bytes(&one).await;
        assert_eq!(bytes(&one).await, truth);
        assert_eq!(bytes(&same).await, truth, "the clock changes nothing");
        assert_ne!(bytes(&other).await, truth);
    }
    let truth = one.stats(json!({})).await;
    for changes in [
        json!({"end_date": "2020-12-08"}),
        json!({"attribution_type": "VIEW_THROUGH"}),
        json!({"metric_type": "UNIQUE"}),
    ] {
        assert_ne!(one.stats(changes.clone()).await, truth, "{changes}");
    }
    one.emulator.restate();
    let restated = one.stats(json!({})).await;
    assert_ne!(restated, truth);
    assert_eq!(one.stats(json!({})).await, restated);
    let conversions = |(found, _): &(Vec<(String, Value)>, u64)| {
        let variations = &found[0].1[0]["platforms"]["ALL_PLATFORMS"]["locales"]["all_locale"]["variations"];
        variations["all_variations"]["conversion_goal_stats"]["Goal 1"]["conversions"].as_u64()
    };
    assert!(conversions(&restated) > conversions(&truth));
}

#[tokio::test]
async fn a_hundred_thousand_large_campaigns_are_made_as_they_are_asked_for() {
    let campaigns = Campaigns {
        count: 100_000,
        content_bytes: 30_000,
        delivery_types: vec![DeliveryType::EventTriggered],
        ..Campaigns::default()
    };
    let vendor = vendor(campaigns).await;
    for (page, campaigns) in [(1, 15), (6_667, 10), (6_668, 0)] {
        let body = vendor.post(SEARCH, &page_request(page)).await.bytes().await.unwrap();
        let expected = campaigns * 30_000..campaigns * 36_000 + 3;
        assert!(expected.contains(&body.len()), "{} bytes for {campaigns} campaigns", body.len());
    }
    let statistics = vendor.posted(STATS, &with(stats_request(), json!({"offset": 90_000}))).await;
    assert_eq!(statistics["current_page"], 9_001);
    assert_eq!(statistics["data"].as_object().unwrap().len(), 10);
}

// ---- how often

#[tokio::test]
async fn every_api_is_rationed_by_the_minute_for_itself_and_says_how_much_is_left() {
    let vendor = vendor(Campaigns::default()).await;
    let parent = vendor.search(json!({"campaign_fields": {"delivery_type": ["PERIODIC"]}})).await;
    let parent = executions(ids(&parent)[0]);
    let start = at("2021-02-18T12:00:00Z");
    let seconds = |text: &str| at(text).as_second().to_string();
    let left = |response: &Response| {
        ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "retry-after"]
            .map(|name| header(response, name).unwrap_or("none").to_owned())
    };
    for path in [STATS, SEARCH, META_V5, &parent] {
        let body = if path == STATS { stats_request() } else { page_request(1) };
        let ask = async || match path {
            META_V5 => vendor.post_v5(path, &uuid(), &body).await,
            _ => vendor.post(path, &body).await,
        };
        // Eight a second at most.
        for number in 0..100 {
            vendor.set(&(start + SignedDuration::from_millis(number * 125)).to_string());
            let answer = ask().await;
            assert_eq!(answer.status(), StatusCode::OK, "{path} {number}");
            let expected = ["100", &(99 - number).to_string(), &seconds("2021-02-18T12:01:00Z"), "none"];
            assert_eq!(left(&answer), expected, "{path}");
        }
        for (now, wait) in [("2021-02-18T12:00:12.5Z", "48"), ("2021-02-18T12:00:59.999Z", "1")] {
            vendor.set(now);
            let refused = ask().await;
            assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS, "{path} {now}");
            // Only version 5 promises it.
            let wait = if path == META_V5 { wait } else { "none" };
            assert_eq!(left(&refused), ["100", "0", &seconds("2021-02-18T12:01:00Z"), wait], "{path}");
            let error = json_of(refused).await;
            match path {
                STATS => assert_eq!(error["title"], "Too Many Requests"),
                META_V5 => assert_eq!(error["error"]["code"], "RATE_LIMIT_EXCEEDED"),
                _ => {
                    let words = (&error["error"]["code"], &error["error"]["message"]);
                    assert_eq!(words, (&json!("429 conflict"), &json!("rate_limit")));
                }
            }
        }
        vendor.set("2021-02-18T12:01:00Z");
        assert_eq!(ask().await.status(), StatusCode::OK, "{path} a minute after the first");
        assert_eq!(ask().await.status(), StatusCode::TOO_MANY_REQUESTS, "{path} and only one");
    }
    for api in [SourceKind::CampaignStats, SourceKind::CampaignMeta, SourceKind::Executions] {
        assert_eq!(vendor.emulator.traffic(api), Traffic { requests: 104, rate_limited: 3 }, "{api}");
    }
}

#[tokio::test]
async fn listings_are_rationed_by_the_second_too_both_versions_together() {
    let vendor = vendor(Campaigns::default()).await;
    for number in 0..11 {
        let response = match number % 2 {
            0 => vendor.post(SEARCH, &page_request(1)).await,
            _ => vendor.post_v5(SEARCH_V5, &uuid(), &page_request(1)).await,
        };
        assert_eq!(response.status() == StatusCode::OK, number < 10, "{number}");
    }
    let refused = vendor.post_v5(SEARCH_V5, &uuid(), &page_request(1)).await;
    assert_eq!((header(&refused, "x-ratelimit-limit"), header(&refused, "retry-after")), (Some("10"), Some("1")));
    vendor.set("2021-02-17T12:00:01Z");
    assert_eq!(vendor.post(SEARCH, &page_request(1)).await.status(), StatusCode::OK);
}

// ---- how they misbehave

#[tokio::test]
async fn a_fault_strikes_the_page_of_the_api_that_it_names() {
    let vendor = vendor(Campaigns { count: 100, ..Campaigns::default() }).await;
    vendor.emulator.add_fault("status=500,api=campaigns,page=4,times=1".parse().unwrap());
    vendor.emulator.add_fault("rate-limited=7,api=campaigns,page=5,times=1".parse().unwrap());
    vendor.posted(STATS, &with(stats_request(), json!({"offset": 30}))).await;
    let mut told = vec![];
    for page in [1, 4, 4, 5, 5] {
        let response = vendor.post(SEARCH, &page_request(page)).await;
        told.push((response.status().as_u16(), header(&response, "retry-after").map(str::to_owned)));
    }
    assert_eq!(told, [(200, None), (500, None), (200, None), (429, Some("7".to_owned())), (200, None)]);
    let refused = |request: &&emulator::LoggedRequest| request.fault.is_some();
    let pages: Vec<_> = vendor.emulator.requests().iter().filter(refused).map(|request| request.page).collect();
    assert_eq!(pages, [Some(4), Some(5)]);
}

#[tokio::test]
async fn a_fault_answers_in_the_words_of_its_api() {
    let faults = [
        ("status=403", 403, "Forbidden Request", "403 Forbidden"),
        ("status=500", 500, "Server Error", "500 Internal Server Error"),
        ("status=401", 401, "Authentication required", "401 Authentication error"),
        ("unauthorized", 401, "Authentication required", "401 Authentication error"),
        ("not-yet", 400, "Invalid Field Value", "400 Bad Request"),
        ("rate-limited", 429, "Too Many Requests", "429 conflict"),
        ("json-error", 200, "Server Error", "500 Internal Server Error"),
    ];
    for (rule, status, title, code) in faults {
        let vendor = vendor(Campaigns::default()).await;
        vendor.emulator.add_fault(rule.parse().unwrap());
        let response = vendor.post(STATS, &stats_request()).await;
        assert_eq!(response.status(), status, "{rule}");
        assert_eq!(json_of(response).await["title"], title, "{rule}");
        let response = vendor.post(SEARCH, &page_request(1)).await;
        assert_eq!(response.status(), status, "{rule}");
        let error = json_of(response).await;
        assert_eq!((&error["error"]["code"], &error["error"]["request_id"]), (&json!(code), &json!("r-2")), "{rule}");
    }
    // A gateway's, and whatever else is not the API's own.
    for (rule, status, start) in
        [("status=503", 503, ""), ("status=403,body=no", 403, "no"), ("html", 200, "<!DOCTYPE"), ("empty", 200, "")]
    {
        let vendor = vendor(Campaigns::default()).await;
        vendor.emulator.add_fault(rule.parse().unwrap());
        let response = vendor.post(SEARCH, &page_request(1)).await;
        assert_eq!(response.status(), status, "{rule}");
        let text = response.text().await.unwrap();
        assert!(text.starts_with(start) && text.is_empty() == start.is_empty(), "{rule}: {text}");
    }
}

#[tokio::test]
async fn the_faults_of_a_body_bend_pages_too() {
    let vendor = vendor(Campaigns::default()).await;
    let truth = vendor.post(SEARCH, &page_request(1)).await.bytes().await.unwrap();

    vendor.emulator.add_fault("truncate=50%,framing=close,times=1".parse().unwrap());
    assert_eq!(vendor.post(SEARCH, &page_request(1)).await.bytes().await.unwrap(), truth[..truth.len() / 2]);
    vendor.emulator.add_fault("bit-flip=10,times=1".parse().unwrap());
    let flipped = vendor.post(SEARCH, &page_request(1)).await.bytes().await.unwrap();
    assert_eq!((flipped[10] ^ truth[10], flipped.len()), (1, truth.len()));
    vendor.emulator.add_fault("content-encoding=gzip,times=1".parse().unwrap());
    let packed = vendor.post(SEARCH, &page_request(1)).await;
    assert_eq!(header(&packed, "content-encoding"), Some("gzip"));
    assert!(packed.bytes().await.unwrap().starts_with(&[0x1f, 0x8b]));
    vendor.emulator.add_fault("redirect=https://elsewhere.example/,code=307,times=1".parse().unwrap());
    assert_eq!(vendor.post(SEARCH, &page_request(1)).await.status(), StatusCode::TEMPORARY_REDIRECT);
    vendor.emulator.add_fault("slow=1000000,times=1".parse().unwrap());
    assert_eq!(vendor.post(SEARCH, &page_request(1)).await.bytes().await.unwrap(), truth);
    // Of two that don't fit a page, none is counted.
    vendor.emulator.add_fault("redirect=storage".parse().unwrap());
    vendor.emulator.add_fault("repeat".parse().unwrap());
    assert_eq!(vendor.post(SEARCH, &page_request(1)).await.bytes().await.unwrap(), truth);
}

#[tokio::test]
async fn a_repeat_shows_a_campaign_on_two_pages_and_loses_none() {
    let campaigns = Campaigns { delivery_types: vec![DeliveryType::EventTriggered], ..Campaigns::default() };
    let vendor = vendor(campaigns).await;
    let (all, stats) = (vendor.search(json!({})).await, vendor.stats(after_all_creation()).await);
    vendor.emulator.add_fault("repeat,page=2,api=campaigns,times=1".parse().unwrap());
    vendor.emulator.add_fault("repeat,page=3,api=campaign_stats,times=1".parse().unwrap());

    let repeated = vendor.search(json!({})).await;
    assert_eq!(repeated.len(), 41);
    assert_eq!(repeated[14], repeated[15]);
    assert_eq!([&repeated[..15], &repeated[16..]].concat(), all);
    let (repeated, total) = vendor.stats(after_all_creation()).await;
    // 40 fill four pages, and the one that comes twice asks for a fifth.
    assert_eq!((repeated.len(), total), (41, 40));
    let distinct: BTreeSet<_> = repeated.iter().map(|(id, _)| id).collect();
    assert_eq!(distinct, stats.0.iter().map(|(id, _)| id).collect());

    assert_eq!(vendor.search(json!({})).await, all, "the next listing is well");
    assert_eq!(vendor.stats(after_all_creation()).await, stats);
}

#[tokio::test]
async fn a_shrinking_listing_hides_a_campaign_and_its_total_falls() {
    let campaigns = Campaigns { delivery_types: vec![DeliveryType::Periodic], ..Campaigns::default() };
    let vendor = vendor(campaigns).await;
    let (all, stats) = (vendor.search(json!({})).await, vendor.stats(json!({})).await);
    let mut parents = ids(&all).into_iter();
    let (parent, children) = loop {
        let parent = parents.next().unwrap();
        let (children, total) = vendor.executions(parent).await;
        if total > 15 {
            break (parent, children);
        }
    };
    vendor.emulator.add_fault("shrink,page=2,times=3".parse().unwrap());
    let fewer = vendor.search(json!({})).await;
    assert_eq!([&all[..15], &all[16..]].concat(), fewer);
    let (fewer, total) = vendor.stats(json!({})).await;
    assert_eq!((fewer.len() as u64, total), (stats.1 - 1, stats.1 - 1));
    let (fewer, total) = vendor.executions(parent).await;
    assert_eq!((fewer.len(), total), (children.len() - 1, children.len() as u64 - 1));
    assert_eq!(vendor.search(json!({})).await, all, "the next listing is well");
}

#[tokio::test]
async fn a_rate_that_only_a_reset_speaks_of_says_what_the_rule_says() {
    let vendor = vendor(Campaigns::default()).await;
    let at_second = |seconds: i64| (at(NOON).as_second() + seconds).to_string();
    for (rule, reset) in [
        ("rate-limited,until=30s", at_second(30)),
        ("rate-limited,until=0", "0".to_owned()),
        ("rate-limited,until=soon", "soon".to_owned()),
        ("rate-limited", at_second(60)),
    ] {
        vendor.emulator.clear_faults();
        vendor.emulator.add_fault(rule.parse().unwrap());
        let response = vendor.post(SEARCH, &page_request(1)).await;
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(header(&response, "x-ratelimit-remaining"), Some("0"), "{rule}");
        assert_eq!(header(&response, "x-ratelimit-reset"), Some(reset.as_str()), "{rule}");
        assert_eq!(header(&response, "retry-after"), None, "{rule}");
    }
}

#[tokio::test]
async fn a_firewall_refuses_every_api_with_a_flat_body() {
    let vendor = vendor(Campaigns::default()).await;
    vendor.emulator.add_fault("firewall=400".parse().unwrap());
    for (path, body) in [(STATS, stats_request()), (SEARCH, page_request(1))] {
        let response = vendor.post(path, &body).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        let error = json_of(response).await;
        assert_eq!(error["error"], "IP Validation Required");
        assert!(error["message"].as_str().unwrap().starts_with("IP Validation Failed"), "{error}");
    }
}

#[tokio::test]
async fn hidden_rows_and_too_large_totals_leave_all_else_as_it_is() {
    let vendor = vendor(Campaigns { delivery_types: vec![DeliveryType::Periodic], ..Campaigns::default() }).await;
    let page = async |path: &str, number: u64| {
        let body = match path {
            STATS => with(stats_request(), json!({"offset": (number - 1) * 10})),
            _ => page_request(number),
        };
        vendor.posted(path, &body).await
    };
    let (first, second) = (page(SEARCH, 1).await, page(SEARCH, 2).await);
    let parent = executions(ids(first.as_array().unwrap())[0]);
    let (stats, instances) = (page(STATS, 1).await, page(&parent, 1).await);

    vendor.emulator.add_fault("hide=2,api=campaigns,page=1".parse().unwrap());
    vendor.emulator.add_fault("hide,api=executions,times=1".parse().unwrap());
    vendor.emulator.add_fault("extra-total=5".parse().unwrap());
    assert_eq!(page(SEARCH, 1).await.as_array().unwrap()[..], first.as_array().unwrap()[..13]);
    assert_eq!(page(SEARCH, 2).await, second);
    let total = instances["total_instances"].as_u64().unwrap();
    assert_eq!(page(&parent, 1).await, json!({"executions": [], "total_instances": total}));
    let grown = |value: &Value, key: &str| with(value.clone(), json!({key: value[key].as_u64().unwrap() + 5}));
    assert_eq!(page(&parent, 1).await, grown(&instances, "total_instances"));
    let (inflated, stats) = (page(STATS, 1).await, grown(&stats, "total_campaigns"));
    assert_eq!((&inflated["data"], &inflated["total_campaigns"]), (&stats["data"], &stats["total_campaigns"]));
}

#[tokio::test]
async fn odd_json_is_in_the_first_row_of_a_page() {
    let vendor = vendor(Campaigns::default()).await;
    let truth = vendor.posted(SEARCH, &page_request(1)).await;
    let oddities: [(&str, &[u8]); 6] = [
        ("bom", b"\xef\xbb\xbf[{"),
        ("nan", b"\"extra\":NaN,"),
        ("utf8", b"\"extra\":\"caf\xe9\","),
        ("duplicate", b"\"extra\":1,\"extra\":2,"),
        ("number", b"\"extra\":123456789012345678901234567890,"),
        ("surrogate", b"\"extra\":\"\\ud83d\","),
    ];
    for (word, bytes) in oddities {
        vendor.emulator.add_fault(format!("odd-json={word},times=2").parse().unwrap());
        vendor.tick();
        let body = vendor.post(SEARCH, &page_request(1)).await.bytes().await.unwrap();
        let place = |part: &[u8]| body.windows(part.len()).position(|window| window == part);
        let second = place(truth[1]["campaign_id"].as_str().unwrap().as_bytes());
        assert!(place(bytes).is_some() && place(bytes) < second, "{word}: {}", String::from_utf8_lossy(&body));
        let stats = vendor.post(STATS, &stats_request()).await.bytes().await.unwrap();
        assert!(word == "bom" || stats.windows(bytes.len() - 1).any(|w| w == &bytes[..bytes.len() - 1]), "{word}");
    }
    assert_eq!(vendor.posted(SEARCH, &page_request(1)).await, truth);
}

// ---- as others see them

#[tokio::test]
async fn the_command_names_what_it_serves() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moesync"));
    command.args(["emulate", "--listen", "127.0.0.1:0", "--campaigns", "3"]).kill_on_drop(true);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut banner = String::new();
    let mut stdout = child.stdout.take().unwrap();
    while !banner.contains("executions") {
        let mut bytes = [0; 4096];
        let read = tokio::time::timeout(Duration::from_secs(30), stdout.read(&mut bytes)).await.unwrap().unwrap();
        assert_ne!(read, 0, "{banner}");
        banner += str::from_utf8(&bytes[..read]).unwrap();
    }
    for api in ["campaign_report ", "daily_dump ", "campaign_stats ", "campaigns ", "campaign_meta ", "executions "] {
        assert!(banner.contains(api), "{api} in {banner}");
    }
    child.kill().await.unwrap();
}

/// MoEngage's own client, at a version that is known to work.
const OFFICIAL_CLIENT: &str = "moengage-mcp-server==0.1.2";

/// Asks for all that the client offers, and fails when the client calls any of it an error.
const OFFICIAL_CLIENT_ASKS: &str = r#"
import asyncio, sys
from datetime import date
from moengage_mcp import config
from moengage_mcp.client import MoEngageClient
from moengage_mcp.models import *

# The package has no setting for it.
config.DataCenter.api_base_url = property(lambda self: sys.argv[1].rstrip("/"))

async def main():
    settings = config.Settings(workspace_id=sys.argv[2], campaign_reports_api_key=sys.argv[3])
    client = MoEngageClient(settings)
    campaigns = []
    for page in range(1, 10):
        found = await client.search_campaigns(CampaignSearchRequest(limit=15, page=page))
        assert found.success, found.error_message
        campaigns += found.campaigns
        if len(found.campaigns) < 15: break
    assert len({c.campaign_id for c in campaigns}) == 40, len(campaigns)
    assert all(c.channel and c.created_by and c.created_at and c.basic_details.name for c in campaigns)
    for channel in CampaignChannel:
        for status in CampaignStatus:
            found = await client.search_campaigns(CampaignSearchRequest(
                channels=[channel], campaign_status=[status], delivery_type=list(CampaignDeliveryType)))
            assert found.success, found.error_message
    triggered = [c.campaign_id for c in campaigns if c.campaign_delivery_type == "EVENT_TRIGGERED"][-5:]
    for attribution in AttributionType:
        for metric in MetricType:
            stats = await client.get_campaign_stats(StatsRequest(
                campaign_ids=triggered, start_date=date(2020, 12, 1), end_date=date(2020, 12, 31),
                attribution_type=attribution, metric_type=metric))
            assert stats.success, stats.error_message
            assert [c.campaign_id for c in stats.campaigns] == triggered, stats
            assert all(c.all_variations.sent > 0 and c.all_variations.ctr > 0 for c in stats.campaigns), stats
    # And that a refusal is told from an answer.
    wrong = await MoEngageClient(config.Settings(workspace_id=sys.argv[2], campaign_reports_api_key="wrong")) \
        .search_campaigns(CampaignSearchRequest())
    assert not wrong.success and "Invalid workspace ID or API key" in wrong.error_message, wrong
    print(len(campaigns), len(triggered))

asyncio.run(main())
"#;

#[tokio::test]
async fn moengages_own_client_gets_statistics_and_searches() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(OFFICIAL_CLIENT);
    let python = folder.join("bin/python");
    if !folder.join("installed").exists() {
        let venv = run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder)).await;
        assert!(venv.status.success(), "python3 -m venv is needed by this test (python3-venv): {venv:?}");
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "2"];
        let installed = run(Command::new(&python).args(pip).arg(OFFICIAL_CLIENT)).await;
        let error = String::from_utf8_lossy(&installed.stderr);
        assert!(
            installed.status.success(),
            "this test needs {OFFICIAL_CLIENT} from PyPI, once, and could not install it: {error}"
        );
        std::fs::write(folder.join("installed"), "").unwrap();
    }
    let vendor = Vendor::hasty(account(vec![])).await;
    let asked = run(Command::new(&python)
        .args(["-c", OFFICIAL_CLIENT_ASKS, vendor.emulator.url().as_str(), APP, API_KEY])
        .current_dir(&folder)
        .env_clear()
        .env("NO_PROXY", "*"))
    .await;
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    assert_eq!(String::from_utf8(asked.stdout).unwrap(), "40 5\n");
    assert_eq!(vendor.emulator.traffic(SourceKind::CampaignStats), Traffic { requests: 4, rate_limited: 0 });
}

async fn run(command: &mut Command) -> Output {
    let patience = Duration::from_secs(300);
    let output = tokio::time::timeout(patience, command.stdin(Stdio::null()).kill_on_drop(true).output()).await;
    output
        .unwrap()
        .unwrap_or_else(|error| panic!("{:?} is needed by this test: {error}", command.as_std().get_program()))
}
