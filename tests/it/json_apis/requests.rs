//! The requests to both versions, their rate, and what refusals say.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    sync::{Arc, Mutex},
};

use jiff::{SignedDuration, Timestamp};
use moesync::{
    emulator::Campaigns,
    outcome::Outcome,
    sync::{self, Selection},
};
use serde_json::{Value, json};

use super::{Asked, Desk, NOW, Reply, STATS, ok, one_execution, page_of, reply, serve};
use crate::support::{Bench, oracle::manifest_key};

const FILTERS: &str = "delivery_type = [\"PERIODIC\"]\nstatus = [\"Active\"]\n\
                       created_date = { from_date = \"2026-01-31\", to_date = \"2026-02-28\" }\ninclude_child_campaigns = true";

#[tokio::test(flavor = "multi_thread")]
async fn requests_to_v1_have_the_fields_of_v1() {
    for (spelling, source, path) in [
        ("include_archive_campaigns", "campaigns", "/core-services/v1/campaigns/search"),
        ("include_archived_campaigns", "campaign_meta", "/core-services/v1/campaigns/meta"),
    ] {
        let report = format!("\"{source}\"\n{FILTERS}\n{spelling} = true");
        let desk = Desk::new(&report, |asked| ok(&page_of(2, asked.page()).into())).await;
        desk.store().await;
        assert_eq!(desk.lines().len(), 2);
        for asked in desk.asked.lock().unwrap().iter() {
            let expected = json!({
                "request_id": asked.body["request_id"],
                "limit": 15,
                "page": asked.page(),
                "campaign_fields": {
                    "delivery_type": ["PERIODIC"],
                    "status": ["Active"],
                    "created_date": { "from_date": "2026-01-31", "to_date": "2026-02-28" },
                },
                "include_child_campaigns": true,
                "include_archive_campaigns": true,
            });
            assert_eq!((asked.path.as_str(), &asked.body), (path, &expected));
            assert!(!asked.headers.contains_key("idempotency-key"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_to_v5_have_its_fields_and_a_new_idempotency_key_each() {
    for (source, path) in [("campaigns", "/v5/campaigns/search"), ("campaign_meta", "/v5/campaigns/meta")] {
        let troubles = Mutex::new(2);
        let desk = Desk::new(&format!("\"{source}\"\napi = \"v5\"\n{FILTERS}"), move |asked| {
            let mut troubles = troubles.lock().unwrap();
            if asked.page() == 2 && *troubles > 0 {
                *troubles -= 1;
                return reply(500, "");
            }
            let campaigns: Vec<_> = page_of(40, asked.page())
                .into_iter()
                .map(|campaign| json!({ "id": campaign["campaign_id"], "campaign_id": "the same of all" }))
                .collect();
            ok(&json!({ "response_id": "r", "type": "campaign", "data": { "campaigns": campaigns } }))
        })
        .await;
        desk.store().await;
        assert_eq!(desk.lines().len(), 40);
        let asked = desk.asked.lock().unwrap();
        let keys: BTreeSet<_> =
            asked.iter().map(|asked| asked.headers["idempotency-key"].to_str().unwrap().to_owned()).collect();
        assert!(keys.len() == asked.len() && asked.len() > 6, "each request and each retry has a new one: {keys:?}");
        for key in &keys {
            let parts: Vec<_> = key.split('-').collect();
            let lengths: Vec<_> = parts.iter().map(|part| part.len()).collect();
            assert!(lengths == [8, 4, 4, 4, 12] && parts[2].starts_with('4'), "{key}");
        }
        let fields = json!({
            "campaign_delivery_type": ["PERIODIC"],
            "status": ["Active"],
            "created_date": { "from_date": "2026-01-31T00:00:00Z", "to_date": "2026-02-28T23:59:59Z" },
        });
        assert!(asked.iter().all(|asked| asked.path == path && asked.body["campaign_fields"] == fields));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_v5_is_shown_and_another_shape_than_its_own_is_corrupt() {
    let error = r#"{"response_id": "r", "error": {"code": "VALIDATION_FAILED", "message": "limit is too large", "target": "limit"}}"#;
    let desk = Desk::new("\"campaign_meta\"\napi = \"v5\"", move |_| reply(400, error)).await;
    let message = desk.miss(Outcome::Rejected).await;
    assert!(message.contains("VALIDATION_FAILED: limit is too large (about limit)"), "{message}");
    let desk = Desk::new("\"campaigns\"\napi = \"v5\"", |_| ok(&json!([]))).await;
    desk.miss(Outcome::Corrupt).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missed_listing_of_meta_is_lost_and_cannot_be_backfilled() {
    let desk = Desk::new("\"campaign_meta\"", |asked| ok(&page_of(1, asked.page()).into())).await;
    let dates = ["--from", "2026-11-01", "--to", "2026-11-03"];
    let refused = desk.bench.run(&[&["backfill", "--report", "it"], &dates[..]].concat()).await.expect(2);
    assert!(refused.stderr.contains("live listing"), "{}", refused.stderr);
    desk.store().await;
    let key = manifest_key("acme/it/date=2026-11-21/it_20261121.ndjson.gz");
    let manifest: Value = serde_json::from_slice(&fs::read(desk.bench.object(&key)).unwrap()).unwrap();
    assert_eq!((&manifest["source"], &manifest["records"]), (&"campaign_meta".into(), &1.into()));
    assert!(manifest["source_url"].as_str().unwrap().ends_with("/core-services/v1/campaigns/meta"));
    assert_eq!(manifest["expires_at"], "2026-11-22T06:00:00Z");
}

/// The rate limits that the vendor documents: 10 a second, 100 a minute, 6,000 an hour, in sliding windows.
#[derive(Default)]
struct Rates(Mutex<HashMap<&'static str, Vec<Timestamp>>>);

impl Rates {
    /// Whether a request at `now` exceeds a limit.
    fn is_exceeded(&self, api: &'static str, now: Timestamp) -> bool {
        let mut taken = self.0.lock().unwrap();
        let taken = taken.entry(api).or_default();
        taken.push(now);
        [(10, 1), (100, 60), (6_000, 3_600)].iter().any(|(most, seconds)| {
            let since = now - SignedDuration::from_secs(*seconds);
            taken.iter().filter(|at| **at > since).count() > *most
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_of_1600_campaigns_provokes_no_429_alone_or_before_executions() {
    let rates = Arc::new(Rates::default());
    let bench = Bench::of_campaigns(NOW, Campaigns { count: 1, ..Campaigns::default() }).await;
    let clock = bench.clock.clone();
    let counted = rates.clone();
    let script = move |asked: &Asked| {
        let api = if asked.parent().is_some() { "executions" } else { "search" };
        if counted.is_exceeded(api, clock.read()) {
            return reply(429, "");
        }
        match asked.parent() {
            Some(parent) => one_execution(parent),
            None => {
                let mut page = page_of(1600, asked.page());
                for campaign in page.iter_mut().step_by(15) {
                    campaign["campaign_delivery_type"] = "PERIODIC".into();
                }
                ok(&page.into())
            }
        }
    };
    let (url, asked, task) = serve(bench.clock.clone(), script).await;
    let mut config = bench.config().replace(&format!("\"{}\"", bench.vendor.url()), &format!("\"{url}\""));
    for source in ["campaigns", "executions"] {
        config += &format!(
            "\n[[reports]]\nworkspace = \"acme\"\ndestination = \"disk\"\nsource = \"{source}\"\n\
             schedule = {{ every = \"day\", at = \"{}\" }}\n",
            bench.generated_at_time()
        );
    }
    bench.write_config(&config);
    let ctx = bench.context().await;
    // One report at a time: two that share a clock which moves when one of them sleeps would move it while a request
    // of the other is on its way. The ledger's contract has the rate of several processes.
    for report in ["campaigns", "executions"] {
        let selection = Selection { report: Some(report.to_owned()), ..Selection::default() };
        let summary = sync::once(&ctx, &selection, std::future::pending()).await.unwrap();
        assert!(summary.is_complete() && !summary.entries.is_empty(), "{:#?}", summary.entries);
    }
    ctx.ledger.close().await;
    task.abort();
    let asked = asked.lock().unwrap();
    let (executions, search): (Vec<_>, Vec<_>) = asked.iter().partition(|asked| asked.parent().is_some());
    assert!(search.len() >= 2 * 107 && executions.len() == 107, "{} and {}", search.len(), executions.len());
    let mut at: Vec<_> = search.iter().map(|asked| asked.at).collect();
    at.sort();
    let most = at.windows(101).map(|window| window[100].duration_since(window[0])).min().unwrap();
    assert!(most >= SignedDuration::from_secs(60), "101 searches within {most:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_429_in_mid_listing_waits_for_the_end_of_the_window_that_it_names() {
    // Seconds after the answer, and the resulting wait of the next request.
    for (reset, waits) in [(Some(17), 17), (Some(-5), 60), (Some(60 * 60 * 48), 60), (None, 60)] {
        let refusals = Mutex::new(1);
        let desk = Desk::new("\"campaigns\"", move |asked| {
            if asked.page() == 2 && std::mem::take(&mut *refusals.lock().unwrap()) == 1 {
                let reset = reset.map_or(0, |seconds: i64| asked.at.as_second() + seconds);
                let headers = vec![("x-ratelimit-reset", reset.to_string()), ("x-ratelimit-remaining", "0".into())];
                return Reply {
                    headers,
                    ..reply(429, r#"{"error": {"code": "429 conflict", "message": "rate_limit"}}"#)
                };
            }
            ok(&page_of(40, asked.page()).into())
        })
        .await;
        desk.store().await;
        let asked = desk.asked.lock().unwrap();
        let refused = asked.iter().position(|asked| asked.page() == 2).unwrap();
        let waited = asked[refused + 1].at.duration_since(asked[refused].at).as_secs();
        assert!((waits..waits + 2).contains(&waited), "{reset:?}: {waited} s");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_name_the_firewall_and_the_scopes_and_quote_the_answer() {
    let firewall = r#"{"error": "IP Validation Required", "message": "IP Validation Failed for 192.0.2.1"}"#;
    let page = "<!DOCTYPE html><html><head><title>Attention Required! | Cloudflare</title></head></html>";
    let stats = r#"{"title": "Forbidden Request", "description": null, "code": "kmqLuuHM"}"#;
    for (status, outcome, body, words) in [
        (401, Outcome::Unauthorized, "", vec!["check app_id and API key", "scopes", "API firewall"]),
        (
            403,
            Outcome::Unauthorized,
            firewall,
            vec!["scope", "API firewall", "IP Validation Required: IP Validation Failed"],
        ),
        (403, Outcome::Unauthorized, page, vec!["a web page titled `Attention Required! | Cloudflare`"]),
        (403, Outcome::Unauthorized, stats, vec!["this feature is off", "Forbidden Request"]),
        (400, Outcome::Rejected, firewall, vec!["refused the request", "API firewall", "IP Validation Failed"]),
    ] {
        let desk = Desk::new(STATS, move |_| reply(status, body)).await;
        let message = desk.miss(outcome).await;
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    }
}
