//! Campaign statistics: window, sums, restatement.

use std::collections::BTreeSet;

use moesync::emulator::{Campaigns, DeliveryType};
use serde_json::{Value, json};

use super::{super::account, SEARCH, STATS, Vendor, after_all_creation, page_request, stats_request, vendor};

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

    // By id: the requested campaigns that have statistics.
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
