//! The JSON APIs as real accounts have them: odd pages, refused parents, wrong totals, version 5.

mod content;
mod executions;
mod requests;
mod totals;

use std::{
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
use jiff::{Timestamp, fmt::rfc2822::DateTimePrinter};
use moesync::{
    emulator::Campaigns,
    outcome::Outcome,
    partition::{Entry, Settled},
    sync::{self, Selection},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::AbortHandle};

use crate::support::{Bench, TestClock, files, oracle::manifest_key};

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

/// A listing of one page of these bytes.
async fn listing(body: &'static [u8]) -> Desk {
    Desk::new("\"campaigns\"", move |asked| if asked.page() == 1 { reply(200, body) } else { reply(200, "[]") }).await
}

fn one_execution(parent: &str) -> Reply {
    let execution = json!({ "campaign_id": format!("{parent}-1"), "sent_time": NOW, "status": "Sent" });
    ok(&json!({ "executions": [execution], "total_instances": 1 }))
}
