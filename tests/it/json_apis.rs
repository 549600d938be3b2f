//! The JSON APIs as real accounts have them: odd pages, refused parents, wrong totals, version 5.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    io::{Read as _, Write as _},
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::Request,
    http::{HeaderMap, Response, StatusCode, header},
};
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use jiff::{SignedDuration, Timestamp, fmt::rfc2822::DateTimePrinter};
use moesync::{
    emulator::Campaigns,
    outcome::Outcome,
    partition::{Entry, Settled},
    sync::{self, Selection},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::AbortHandle};

use crate::support::{Bench, CANARY, TestClock, files, oracle::manifest_key};

const NOW: &str = "2026-11-21T12:00:00Z";
const STATS: &str = "\"campaign_stats\"\nmetric_type = \"TOTAL\"\nattribution_type = \"CLICK_THROUGH\"";

/// A request to the vendor.
struct Asked {
    path: String,
    headers: HeaderMap,
    body: Value,
    at: Timestamp,
}

impl Asked {
    /// From 1.
    fn page(&self) -> u64 {
        self.body["page"].as_u64().unwrap_or_else(|| self.body["offset"].as_u64().unwrap() / 10 + 1)
    }

    /// The campaign whose executions are requested.
    fn parent(&self) -> Option<&str> {
        self.path.strip_prefix("/core-services/v1/campaigns/")?.strip_suffix("/executions")
    }
}

struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn reply(status: u16, body: impl Into<Vec<u8>>) -> Reply {
    Reply { status, headers: Vec::new(), body: body.into() }
}

fn ok(body: &Value) -> Reply {
    reply(200, body.to_string())
}

/// A vendor that answers by script, and a bench that stores its answers.
struct Desk {
    bench: Bench,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: AbortHandle,
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Desk {
    /// One report of `source`, generated six hours ago.
    async fn new(source: &str, script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::with(source, "", script).await
    }

    async fn with(source: &str, tables: &str, script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let bench = Bench::of_campaigns(NOW, Campaigns { count: 1, ..Campaigns::default() }).await;
        let (url, asked, task) = serve(bench.clock.clone(), script).await;
        let config = bench.config().replace(&format!("\"{}\"", bench.vendor.url()), &format!("\"{url}\""));
        let report = format!(
            "\n[[reports]]\nid = \"it\"\nworkspace = \"acme\"\ndestination = \"disk\"\n\
             schedule = {{ every = \"day\", at = \"{}\" }}\nsource = {source}\n",
            bench.generated_at_time()
        );
        bench.write_config(&format!("{config}\n{tables}\n{report}"));
        Self { bench, asked, task }
    }

    async fn pass(&self) -> Entry {
        let ctx = self.bench.context().await;
        let summary = sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
        ctx.ledger.close().await;
        summary.entries[0].clone()
    }

    /// A pass that must store it.
    async fn store(&self) {
        let entry = self.pass().await;
        assert_eq!(entry.settled, Settled::Stored, "{:?}", entry.message);
    }

    /// A pass that must end in `outcome`; returns its message.
    async fn miss(&self, outcome: Outcome) -> String {
        let entry = self.pass().await;
        assert_eq!((entry.settled, entry.outcome), (Settled::Open, Some(outcome)), "{:?}", entry.message);
        entry.message.unwrap()
    }

    fn object(&self) -> Vec<u8> {
        fs::read(self.bench.object("acme/it/date=2026-11-21/it_20261121.ndjson.gz")).unwrap()
    }

    fn text(&self) -> String {
        let mut text = String::new();
        MultiGzDecoder::new(&self.object()[..]).read_to_string(&mut text).unwrap();
        text
    }

    fn lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn warnings(&self) -> Vec<String> {
        let key = manifest_key("acme/it/date=2026-11-21/it_20261121.ndjson.gz");
        let manifest: Value = serde_json::from_slice(&fs::read(self.bench.object(&key)).unwrap()).unwrap();
        serde_json::from_value(manifest["warnings"].clone()).unwrap()
    }

    /// The one warning.
    fn warning(&self) -> String {
        let warnings = self.warnings();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        warnings[0].clone()
    }

    fn requests(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// The contents of the quarantine.
    fn quarantined(&self) -> Vec<Vec<u8>> {
        files(&self.bench.object("_quarantine")).iter().map(|path| fs::read(path).unwrap()).collect()
    }
}

async fn serve(
    clock: TestClock,
    script: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
) -> (String, Arc<Mutex<Vec<Asked>>>, AbortHandle) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (noted, script) = (asked.clone(), Arc::new(script));
    let app = Router::new().fallback(move |request: Request| {
        let (clock, noted, script) = (clock.clone(), noted.clone(), script.clone());
        async move {
            let (head, body) = request.into_parts();
            let body: Bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            let asked = Asked {
                path: head.uri.path().to_owned(),
                headers: head.headers,
                body: serde_json::from_slice(&body).unwrap(),
                at: clock.read(),
            };
            let Reply { status, headers, body } = script(&asked);
            noted.lock().unwrap().push(asked);
            let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&clock.read()).unwrap();
            let mut response =
                Response::builder().status(StatusCode::from_u16(status).unwrap()).header(header::DATE, date);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(axum::body::Body::from(body)).unwrap()
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let task = crate::support::spawn(async move { axum::serve(listener, app).await.unwrap() }).abort_handle();
    (url, asked, task)
}

/// Campaigns `from` to `to`, without the last one.
fn campaigns(from: u64, to: u64) -> Vec<Value> {
    (from..to).map(|number| json!({ "campaign_id": format!("c{number:05}") })).collect()
}

/// A page of a listing of `count` campaigns.
fn page_of(count: u64, page: u64) -> Vec<Value> {
    campaigns((page - 1) * 15, (page * 15).min(count).max((page - 1) * 15))
}

fn packed(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_page_of_a_listing_is_not_the_last() {
    let desk = Desk::new("\"campaigns\"", |asked| {
        let mut page = page_of(45, asked.page());
        page.retain(|campaign| campaign["campaign_id"] != "c00020");
        ok(&page.into())
    })
    .await;
    desk.store().await;
    assert_eq!((desk.lines().len(), desk.warnings()), (44, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_page_of_statistics_without_a_total_is_not_the_last() {
    let desk = Desk::new(STATS, |asked| {
        let (from, to) = ((asked.page() - 1) * 10, (asked.page() * 10).min(24));
        let data: serde_json::Map<_, _> =
            (from..to).filter(|number| *number != 14).map(|number| (format!("c{number}"), json!([{}]))).collect();
        ok(&json!({ "data": if data.is_empty() { Value::Null } else { data.into() } }))
    })
    .await;
    desk.store().await;
    assert_eq!(desk.lines().len(), 23);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_page_within_a_listing_is_passed_and_named_once_two_readings_agree() {
    let desk = Desk::new("\"campaigns\"", |asked| match asked.page() {
        2 => ok(&json!([])),
        page => ok(&page_of(45, page).into()),
    })
    .await;
    desk.store().await;
    assert_eq!(desk.lines().len(), 30);
    assert!(
        desk.warning().contains("page 2 of the listing of campaigns brought nothing and page 3 did"),
        "{}",
        desk.warning()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_page_that_fills_on_the_second_reading_leaves_no_warning() {
    let glitches = Mutex::new(1);
    let desk = Desk::new("\"campaigns\"", move |asked| match asked.page() {
        2 if std::mem::take(&mut *glitches.lock().unwrap()) == 1 => ok(&json!([])),
        page => ok(&page_of(45, page).into()),
    })
    .await;
    desk.store().await;
    assert_eq!((desk.lines().len(), desk.warnings()), (45, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_total_of_statistics_above_what_is_listed_is_a_warning() {
    let desk = Desk::new(STATS, |asked| {
        let (from, to) = ((asked.page() - 1) * 10, (asked.page() * 10).min(25));
        let data: serde_json::Map<_, _> =
            (from..to).filter(|number| *number != 7).map(|number| (format!("c{number}"), json!([{}]))).collect();
        ok(&json!({ "total_campaigns": 25, "data": data }))
    })
    .await;
    desk.store().await;
    assert_eq!(desk.lines().len(), 24);
    assert!(desk.warning().contains("24 of 25"), "{}", desk.warning());
    assert_eq!(desk.requests(), 6, "two readings that agree");
}

/// Statistics of 25 campaigns, with a total and further keys beside it.
async fn statistics(total: u64, beside: &'static str) -> Desk {
    Desk::new(STATS, move |asked| {
        let (from, to) = ((asked.page() - 1) * 10, (asked.page() * 10).min(25));
        let data: serde_json::Map<_, _> = (from..to).map(|number| (format!("c{number}"), json!([{}]))).collect();
        match beside {
            "" => ok(&json!({ "total_campaigns": total, "data": data })),
            _ => ok(&json!({ "current_page": 1, "total_pages": 99, "data": data })),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_too_small_total_of_statistics_does_not_end_the_listing() {
    for total in [10, 20] {
        let desk = statistics(total, "").await;
        desk.store().await;
        assert_eq!(desk.lines().len(), 25, "{total}");
        assert!(desk.warning().contains(&format!("25 of {total} ")), "{}", desk.warning());
    }
    let desk = statistics(25, "").await;
    desk.store().await;
    assert_eq!((desk.lines().len(), desk.requests()), (25, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_of_pages_above_what_is_listed_is_a_warning() {
    let desk = statistics(0, "pages").await;
    desk.store().await;
    assert_eq!(desk.lines().len(), 25);
    assert!(desk.warning().contains("says that more follow"), "{}", desk.warning());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_after_the_counted_total_may_be_refused_or_fail() {
    for (status, warnings) in [(400, 0), (404, 0), (500, 1)] {
        let desk = Desk::new(STATS, move |asked| match asked.page() {
            1 | 2 => {
                let from = (asked.page() - 1) * 10;
                let data: serde_json::Map<_, _> =
                    (from..from + 10).map(|number| (format!("c{number}"), json!([{}]))).collect();
                ok(&json!({ "total_campaigns": 20, "data": data }))
            }
            _ => reply(status, ""),
        })
        .await;
        desk.store().await;
        assert_eq!((desk.lines().len(), desk.warnings().len()), (20, warnings), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_campaign_without_statistics_is_a_warning_that_names_it() {
    let desk = Desk::new(&format!("{STATS}\ncampaign_ids = [\"a\", \"b\", \"c\"]"), |_| {
        ok(&json!({ "total_campaigns": 3, "data": { "a": [{}], "c": [{}] } }))
    })
    .await;
    desk.store().await;
    assert_eq!((desk.lines().len(), desk.requests()), (2, 1));
    let warning = desk.warning();
    assert!(warning.contains("2 of 3") && warning.ends_with(": b"), "{warning}");
}

/// Parents of this id, channel and delivery type; the script answers for their executions.
async fn executions(
    parents: Vec<(&'static str, &'static str, &'static str)>,
    script: impl Fn(&str, u64) -> Reply + Send + Sync + 'static,
) -> Desk {
    Desk::new("\"executions\"", move |asked| match asked.parent() {
        Some(parent) => script(parent, asked.page()),
        None if asked.page() > 1 => ok(&json!([])),
        None => {
            let listed = parents.iter().map(
                |(id, channel, kind)| json!({ "campaign_id": id, "channel": channel, "campaign_delivery_type": kind }),
            );
            ok(&listed.collect())
        }
    })
    .await
}

fn ten() -> Vec<(&'static str, &'static str, &'static str)> {
    ["p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9"].map(|id| (id, "EMAIL", "PERIODIC")).to_vec()
}

fn one_execution(parent: &str) -> Reply {
    let execution = json!({ "campaign_id": format!("{parent}-1"), "sent_time": NOW, "status": "Sent" });
    ok(&json!({ "executions": [execution], "total_instances": 1 }))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_refused_parent_in_ten_leaves_nine_stored_and_is_named() {
    for (status, refused) in [(400, "p4"), (404, "p0"), (403, "p0"), (403, "p9"), (422, "p5")] {
        let desk = executions(ten(), move |parent, _| match parent == refused {
            true => reply(status, r#"{"error": {"code": "400 Bad Request", "message": "Campaign has no instances"}}"#),
            false => one_execution(parent),
        })
        .await;
        desk.store().await;
        let parents: BTreeSet<_> = desk.lines().iter().map(|line| line["parent_campaign_id"].to_string()).collect();
        assert_eq!((desk.lines().len(), parents.len()), (9, 9));
        let warning = desk.warning();
        assert!(
            warning.contains(&format!("executions of {refused} ")) && warning.contains("no instances"),
            "{warning}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_parents_refused_is_rejected_or_a_403_of_the_api() {
    let desk = executions(ten(), |_, _| reply(400, "")).await;
    let message = desk.miss(Outcome::Rejected).await;
    assert!(message.contains("all 10 parents") && message.contains("created through its API"), "{message}");
    let desk = executions(ten(), |_, _| reply(403, "")).await;
    desk.miss(Outcome::Unauthorized).await;
    let desk = executions(ten(), |parent, _| reply(if parent == "p3" { 404 } else { 403 }, "")).await;
    desk.miss(Outcome::Rejected).await;
    let desk = executions(ten(), |parent, _| match parent {
        "p3" => reply(401, ""),
        parent => one_execution(parent),
    })
    .await;
    desk.miss(Outcome::Unauthorized).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_asks_further_parents_when_the_first_are_refused() {
    let checked = async |desk: &Desk, code| desk.bench.run(&["check", "--online"]).await.expect(code).stdout;
    let desk = executions(ten(), |parent, _| match parent {
        "p0" => reply(403, ""),
        "p1" => reply(404, ""),
        parent => one_execution(parent),
    })
    .await;
    let said = checked(&desk, 0).await;
    assert!(said.contains("first page received; 1 in total"), "{said}");
    let desk = executions(ten(), |_, _| reply(400, "")).await;
    let said = checked(&desk, 0).await;
    assert!(said.contains("warning: MoEngage refused the executions of the first 5 recurring campaigns"), "{said}");
    assert_eq!(desk.requests(), 6);
    let desk = executions(ten(), |_, _| reply(403, "")).await;
    let said = checked(&desk, 1).await;
    assert!(said.contains("API firewall"), "{said}");
    let desk = executions(Vec::new(), |_, _| reply(500, "")).await;
    let said = checked(&desk, 0).await;
    assert!(said.contains("no campaign on its first page has executions") && desk.requests() == 1, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn executions_are_asked_of_recurring_email_and_push_campaigns_in_any_spelling() {
    let parents = vec![
        ("email", "Email", "Periodic"),
        ("push", "PUSH", "business event triggered"),
        ("sms", "SMS", "PERIODIC"),
        ("once", "EMAIL", "ONE_TIME"),
    ];
    let desk = executions(parents, |parent, _| one_execution(parent)).await;
    desk.store().await;
    let stored: Vec<_> = desk.lines().iter().map(|line| line["parent_campaign_id"].clone()).collect();
    assert_eq!((stored, desk.warnings()), (vec![json!("email"), json!("push")], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_equal_executions_are_two_lines() {
    let execution = json!({ "campaign_id": "x", "sent_time": null, "status": "Scheduled" });
    let desk = executions(vec![("p", "EMAIL", "PERIODIC")], move |_, _| {
        ok(&json!({ "executions": [execution, execution], "total_instances": 2 }))
    })
    .await;
    desk.store().await;
    assert_eq!((desk.lines().len(), desk.warnings()), (2, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_total_of_executions_does_not_end_the_listing() {
    let execution = |number: u64| json!({ "campaign_id": format!("x{number}"), "sent_time": NOW });
    for total_of in [|items: usize| items, |_| 23] {
        let desk = executions(vec![("p", "EMAIL", "PERIODIC")], move |_, page| {
            let executions: Vec<_> = ((page - 1) * 15..(page * 15).min(20)).map(execution).collect();
            ok(&json!({ "total_instances": total_of(executions.len()), "executions": executions }))
        })
        .await;
        desk.store().await;
        assert_eq!(desk.lines().len(), 20);
        let odd: Vec<_> = desk.warnings().iter().map(|warning| warning.contains("20 of 23")).collect();
        assert_eq!(odd, if total_of(7) == 7 { vec![] } else { vec![true] });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_warnings_of_a_snapshot_are_bounded_and_say_how_many_more_there_are() {
    // MoEngage counts more executions of each than it lists.
    let parents = (0..13).map(|number| (&*format!("p{number:02}").leak(), "PUSH", "PERIODIC")).collect();
    let desk = executions(parents, |parent, page| match page {
        1 => ok(&json!({ "executions": [{ "campaign_id": parent }], "total_instances": 9 })),
        _ => ok(&json!({ "executions": [], "total_instances": 9 })),
    })
    .await;
    desk.store().await;
    let warnings = desk.warnings();
    assert!(warnings.len() == 13 && warnings[12].contains("1 of 9 executions of p12"), "{warnings:?}");

    let named: Vec<_> = (0..120).map(|number| format!("p{number:03}")).collect();
    let desk = Desk::new(&format!("\"executions\"\ncampaign_ids = {named:?}"), |asked| {
        let listed = if asked.page() == 1 { json!([{ "campaign_id": "x" }]) } else { json!([]) };
        ok(&json!({ "executions": listed, "total_instances": 9 }))
    })
    .await;
    desk.store().await;
    let warnings = desk.warnings();
    assert_eq!((desk.lines().len(), warnings.len()), (120, 101));
    assert_eq!(warnings[100], "20 more warnings are left out");
}

/// A listing of one page of these bytes.
async fn listing(body: &'static [u8]) -> Desk {
    Desk::new("\"campaigns\"", move |asked| if asked.page() == 1 { reply(200, body) } else { reply(200, "[]") }).await
}

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

#[tokio::test(flavor = "multi_thread")]
async fn statistics_that_are_null_without_a_total_are_no_empty_list() {
    let desk = Desk::new(STATS, |_| reply(200, "{\"data\": null}")).await;
    let message = desk.miss(Outcome::Corrupt).await;
    assert!(message.contains("there is no map `data`, nor a total of 0"), "{message}");
    let desk = Desk::new(STATS, |_| reply(200, "{\"data\": null, \"total_campaigns\": 0}")).await;
    desk.store().await;
    assert_eq!(desk.text(), "");
    Desk::new("\"campaigns\"", |_| reply(204, "")).await.miss(Outcome::Corrupt).await;
}

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
    let summary = sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap();
    ctx.ledger.close().await;
    task.abort();
    assert!(summary.is_complete(), "{:#?}", summary.entries);
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
        (403, Outcome::Unauthorized, page, vec!["a web page with the title `Attention Required! | Cloudflare`"]),
        (403, Outcome::Unauthorized, stats, vec!["this feature is off", "Forbidden Request"]),
        (400, Outcome::Rejected, firewall, vec!["refused the request", "API firewall", "IP Validation Failed"]),
    ] {
        let desk = Desk::new(STATS, move |_| reply(status, body)).await;
        let message = desk.miss(outcome).await;
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    }
}
