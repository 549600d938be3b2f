//! Listings of campaigns, their metadata and their executions.

use std::collections::BTreeSet;

use moesync::{
    config::SourceKind,
    emulator::{Campaigns, DeliveryType, Traffic},
};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{
    META, META_V5, SEARCH, SEARCH_V5, STATS, after_all_creation, executions, ids, json_of, page_request, stats_request,
    uuid, vendor, with,
};

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
        assert!(!expected.is_empty() && expected.len() < all.len(), "{filter} matches all or none");
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
    // As in one sentence of the FAQ, and in no schema.
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
async fn fields_that_a_search_ignores_are_accepted_and_logged() {
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
async fn version_5_requires_a_new_key_and_replays_the_answer_of_a_known_one() {
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
async fn a_hundred_thousand_large_campaigns_are_generated_on_request() {
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
