//! Faults of the JSON APIs.

use std::collections::BTreeSet;

use moesync::emulator::{self, Campaigns, DeliveryType};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{
    super::{NOON, at, header},
    SEARCH, STATS, after_all_creation, executions, ids, json_of, page_request, stats_request, vendor, with,
};

#[tokio::test]
async fn a_fault_applies_to_the_page_and_the_api_that_it_names() {
    let vendor = vendor(Campaigns { count: 100, ..Campaigns::default() }).await;
    vendor.emulator.add_fault("status=500,api=campaigns,page=4,times=1".parse().unwrap());
    vendor.emulator.add_fault("rate-limited=7,api=campaigns,page=5,times=1".parse().unwrap());
    vendor.posted(STATS, &with(stats_request(), json!({"offset": 30}))).await;
    let mut answers = vec![];
    for page in [1, 4, 4, 5, 5] {
        let response = vendor.post(SEARCH, &page_request(page)).await;
        answers.push((response.status().as_u16(), header(&response, "retry-after").map(str::to_owned)));
    }
    assert_eq!(answers, [(200, None), (500, None), (200, None), (429, Some("7".to_owned())), (200, None)]);
    let refused = |request: &&emulator::LoggedRequest| request.fault.is_some();
    let pages: Vec<_> = vendor.emulator.requests().iter().filter(refused).map(|request| request.page).collect();
    assert_eq!(pages, [Some(4), Some(5)]);
}

#[tokio::test]
async fn a_fault_answers_in_the_form_of_its_api() {
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
    // Statuses of a gateway, which are not the API's own.
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
async fn body_faults_apply_to_pages() {
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
    // Neither of two rules that do not apply to a page counts it.
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
    // 40 fill four pages, and the repeated one needs a fifth.
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
async fn a_rate_limit_can_have_a_reset_only() {
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
async fn hidden_rows_and_too_large_totals_change_nothing_else() {
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
