//! The content of pages: invalid JSON, gzip, records without an id, secrets, limits.

use moesync::outcome::Outcome;
use serde_json::Value;

use super::{Desk, Reply, STATS, executions, listing, ok, packed, page_of, reply};
use crate::support::CANARY;

#[tokio::test(flavor = "multi_thread")]
async fn invalid_json_is_repaired_and_counted_with_its_position() {
    let desk = listing(
        b"[{\"campaign_id\":\"a\",\"ctr\":1.10},\n{\"campaign_id\":\"b\",\"ctr\":NaN,\"d\":-Infinity,\"name\":\"caf\xe9\ta\"}]",
    )
    .await;
    desk.store().await;
    let repaired = "{\"campaign_id\":\"b\",\"ctr\":null,\"d\":null,\"name\":\"caf\u{fffd}\\u0009a\"}\n";
    assert_eq!(desk.text(), format!("{{\"campaign_id\":\"a\",\"ctr\":1.10}}\n{repaired}"));
    let warnings = desk.warnings();
    let warns = |words: [&str; 3]| warnings.iter().any(|warning| words.iter().all(|word| warning.contains(word)));
    assert!(warns([
        "NaN or Infinity",
        "2 in all",
        "page 1 of the listing of campaigns, line 2 column 26, in the record b"
    ]));
    assert!(warns(["not UTF-8", "1 in all", "record b"]) && warns(["control characters", "1 in all", "record b"]));
    assert_eq!(warnings.len(), 3, "{warnings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn oddities_of_statistics_and_executions_are_repaired_too() {
    let body = r#"{"total_campaigns": 1, "data": {"a": [{"ctr": NaN}]}}"#;
    let desk = Desk::new(STATS, move |_| reply(200, body)).await;
    desk.store().await;
    assert_eq!(desk.text(), "{\"campaign_id\":\"a\",\"ctr\":null}\n");
    assert!(
        desk.warning().contains("page 1 of the statistics, line 1 column 47, in the record a"),
        "{}",
        desk.warning()
    );
    let desk = executions(vec![("p", "EMAIL", "PERIODIC")], |_, _| {
        reply(200, b"{\"executions\": [{\"campaign_id\": \"x\", \"status\": \"\xff\"}], \"total_instances\": 1}")
    })
    .await;
    desk.store().await;
    assert!(desk.warning().contains("page 1 of the executions of p"), "{}", desk.warning());
}

#[tokio::test(flavor = "multi_thread")]
async fn valid_json_is_kept_byte_for_byte() {
    let records = [
        r#"{"campaign_id":"a","n":1e400,"big":123456789012345678901234567890,"zero":-0,"d":1,"d":2}"#,
        r#"{"campaign_id":"b\ud800","\udfff":"\ud83d"}"#,
    ];
    let body = format!("\u{feff}[{}]", records.join(",")).leak();
    let desk = listing(body.as_bytes()).await;
    desk.store().await;
    assert_eq!((desk.text(), desk.warnings()), (format!("{}\n{}\n", records[0], records[1]), vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_gzip_is_inflated_and_a_bomb_is_refused() {
    let desk = Desk::new("\"campaigns\"", |asked| Reply {
        headers: vec![("content-encoding", "gzip".into())],
        ..reply(200, packed(Value::from(page_of(20, asked.page())).to_string().as_bytes()))
    })
    .await;
    desk.store().await;
    assert_eq!(desk.lines().len(), 20);
    let desk = Desk::new("\"campaigns\"", |_| reply(200, packed(&vec![b' '; 17 << 20]))).await;
    let message = desk.miss(Outcome::Corrupt).await;
    assert!(message.contains("more than 16777216 bytes"), "{message}");
    assert_eq!(desk.quarantined().len(), 1, "as it came");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_page_is_located_and_quarantined() {
    let page = b"[{\"campaign_id\":\"a\"},\n{\"campaign_id\":]";
    let desk = listing(page).await;
    let message = desk.miss(Outcome::Corrupt).await;
    assert!(message.contains("page 1 of the listing of campaigns") && message.contains("line 2 column"), "{message}");
    // The next listing is less than a day away.
    assert!(
        message.contains("_quarantine/acme/it/date=2026-11-21/it_20261121.") && message.contains(".json`"),
        "{message}"
    );
    assert_eq!(desk.quarantined(), [page.to_vec()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_echoes_the_api_key_is_kept_without_it() {
    let key = CANARY;
    let desk = listing(format!("<html>{key} caf\u{e9}</html>").leak().as_bytes()).await;
    let message = desk.miss(Outcome::Corrupt).await;
    assert!(!message.contains(key), "{message}");
    assert_eq!(desk.quarantined(), ["<html>[redacted] caf\u{e9}</html>".as_bytes().to_vec()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_page_without_expiry_is_kept_once_it_came_twice() {
    let desk = Desk::new(STATS, |_| reply(200, "{\"data\": {\"a\": NaNcy}}")).await;
    desk.miss(Outcome::Corrupt).await;
    // Each quick retry of a pass is an attempt.
    assert_eq!(desk.quarantined(), [b"{\"data\": {\"a\": NaNcy}}".to_vec()]);
    let desk =
        Desk::new(STATS, |asked| reply(200, format!("{{\"data\": {{\"{}\": x}}}}", asked.body["request_id"]))).await;
    let message = desk.miss(Outcome::Corrupt).await;
    assert!(desk.quarantined().is_empty() && !message.contains("_quarantine"), "each is another: {message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_without_an_id_is_corrupt_with_its_position() {
    let secretive = "very-long-".repeat(30);
    let page = format!("[{{\"campaign_id\": \"a\"}}, {{\"campaign_identifier\": \"{secretive}\"}}]").leak();
    let desk = listing(page.as_bytes()).await;
    let message = desk.miss(Outcome::Corrupt).await;
    assert!(message.contains("record 2 of the page, at line 1 column 24, has no id"), "{message}");
    assert!(!message.contains("very-long-very-long"), "{message}");
    let page = format!("[{{\"campaign_id\": \"{}\"}}]", "x".repeat(1025)).leak();
    let message = listing(page.as_bytes()).await.miss(Outcome::Corrupt).await;
    assert!(message.contains("an id of 1025 bytes"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_of_one_campaign_are_records_of_their_own() {
    let desk = listing(br#"[{"campaign_id": "c", "id": "v1"}, {"campaign_id": "c", "id": "v2"}]"#).await;
    desk.store().await;
    assert_eq!(desk.lines().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_larger_than_the_limits_is_corrupt_and_names_the_limit() {
    for (limit, named) in [("inflated_bytes", "limits.inflated_bytes"), ("archive_bytes", "limits.archive_bytes")] {
        let tables = format!("[limits]\n{limit} = 100");
        let desk = Desk::with("\"campaigns\"", &tables, |asked| ok(&page_of(60, asked.page()).into())).await;
        let message = desk.miss(Outcome::Corrupt).await;
        assert!(message.contains(named), "{message}");
    }
}
