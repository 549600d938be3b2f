//! The client's requests, checked by the rules that the emulator took from MoEngage's documents.

use std::collections::BTreeMap;

use moesync::{
    emulator::Campaigns,
    sync::{self, Selection},
};
use reqwest::StatusCode;

use crate::support::Bench;

const FILTERS: &str = r#"
channels = ["EMAIL", "PUSH"]
created_by = ["john.doe@example.com", "jane.roe@example.com", "marta.núñez@example.com"]
created_date = { from_date = "2018-06-01", to_date = "2020-12-31" }
delivery_type = ["PERIODIC", "EVENT_TRIGGERED"]
status = ["ACTIVE", "Paused"]
include_child_campaigns = true
include_archive_campaigns = true
"#;

/// The emulator refuses a missing header or field, a page that is too large, a word or date in another form. It logs fields
/// that the real API ignores without an error, such as a filter under its name in another version.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_of_the_client_is_refused_or_has_ignored_fields() {
    let campaigns = Campaigns { flow_nodes: 4, other_channels: 4, ..Campaigns::default() };
    let bench = Bench::of_campaigns("2026-11-21T12:00:00Z", campaigns).await;
    let ids: Vec<_> = (0..12).map(|number| format!("{number:024x}")).collect();
    let measured =
        |metric: &str, attribution: &str| format!("metric_type = \"{metric}\"\nattribution_type = \"{attribution}\"\n");
    let reports = [
        ("stats", "campaign_stats", measured("TOTAL", "CLICK_THROUGH")),
        ("rows", "campaign_stats", measured("UNIQUE", "VIEW_THROUGH") + "shape = \"rows\"\nwindow_days = 31\n"),
        ("by-id", "campaign_stats", measured("TOTAL", "IN_SESSION") + &format!("campaign_ids = {ids:?}\n")),
        ("listing", "campaigns", String::new()),
        ("filtered", "campaigns", FILTERS.to_owned()),
        ("filtered-5", "campaigns", format!("api = \"v5\"\n{FILTERS}")),
        ("meta", "campaign_meta", FILTERS.to_owned()),
        ("meta-5", "campaign_meta", format!("api = \"v5\"\n{FILTERS}")),
        ("executions", "executions", String::new()),
    ];
    let mut config = bench.config();
    for (id, source, settings) in &reports {
        config += &format!(
            "\n[[reports]]\nworkspace = \"acme\"\ndestination = \"disk\"\nid = \"{id}\"\nsource = \"{source}\"\n\
             schedule = {{ every = \"day\", at = \"{}\" }}\n{settings}",
            bench.generated_at_time()
        );
    }
    bench.write_config(&config);
    let ctx = bench.context().await;
    let summary = sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
    ctx.ledger.close().await;
    assert!(summary.is_complete() && summary.entries.len() == reports.len(), "{:#?}", summary.entries);

    let mut asked = BTreeMap::new();
    for request in bench.vendor.requests() {
        assert_eq!((request.status, &request.oddities), (Some(StatusCode::OK), &vec![]), "{request:?}");
        let is_v5 = request.path.starts_with("/v5/");
        assert_eq!(request.has_header("idempotency-key"), is_v5, "{request:?}");
        let path = if request.path.ends_with("/executions") { "executions" } else { &request.path };
        *asked.entry(path.to_owned()).or_insert(0) += 1;
    }
    let paths: Vec<_> = asked.keys().map(String::as_str).collect();
    assert_eq!(
        paths,
        [
            "/core-services/v1/campaign-stats",
            "/core-services/v1/campaigns/meta",
            "/core-services/v1/campaigns/search",
            "/v5/campaigns/meta",
            "/v5/campaigns/search",
            "executions",
        ]
    );
    // A filter that applies matches some campaigns, and not all.
    let records = |id: &str| {
        let entry = summary.entries.iter().find(|entry| entry.partition.id.report.name() == id).unwrap();
        let manifest = bench.object(&crate::support::oracle::manifest_key(&entry.object.as_ref().unwrap().key));
        let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(manifest).unwrap()).unwrap();
        manifest["records"].as_u64().unwrap()
    };
    for id in ["filtered", "filtered-5", "meta", "meta-5"] {
        assert!((1..40).contains(&records(id)), "{id}: {}", records(id));
    }
}
