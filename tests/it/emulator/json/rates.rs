//! Rate limits of the JSON APIs.

use jiff::SignedDuration;
use moesync::{
    config::SourceKind,
    emulator::{Campaigns, Traffic},
};
use reqwest::{Response, StatusCode};
use serde_json::json;

use super::{
    super::{at, header},
    META_V5, SEARCH, SEARCH_V5, STATS, executions, ids, json_of, page_request, stats_request, uuid, vendor,
};

#[tokio::test]
async fn every_api_has_its_own_limit_per_minute_and_reports_the_rest() {
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
            // Only version 5 sends it.
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
async fn listings_have_a_limit_per_second_over_both_versions() {
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
