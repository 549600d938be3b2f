//! Requests that the JSON APIs refuse.

use moesync::emulator::Campaigns;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{
    super::{API_KEY, APP, KEY, header},
    SEARCH, STATS, executions, ids, json_of, page_request, stats_request, vendor, with,
};

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

    let mut messages = String::new();
    for (path, request) in refused {
        vendor.tick();
        let response = vendor.post(path, &request).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{path} {request}");
        let error = json_of(response).await;
        if path == STATS {
            assert_eq!(error["title"], "Invalid Field Value");
            assert_eq!(error.as_object().unwrap().keys().collect::<Vec<_>>(), ["code", "description", "title"]);
            messages += &format!("{}\n", error["description"].as_str().unwrap());
        } else {
            let error = &error["error"];
            assert_eq!(error["code"], "400 Bad Request");
            assert_eq!(error["details"][0], json!({"target": error["target"], "message": error["message"]}));
            assert_eq!(error["request_id"], request.get("request_id").cloned().unwrap_or(json!("")));
            messages += &format!("{}: {}\n", error["target"].as_str().unwrap(), error["message"].as_str().unwrap());
        }
    }
    insta::assert_snapshot!(messages, @r"
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
