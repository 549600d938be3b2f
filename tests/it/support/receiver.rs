//! A receiver of notifications: it keeps all requests and answers as the test sets.

use std::{
    collections::HashSet,
    fs,
    path::Path,
    sync::{Arc, Mutex, OnceLock},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header::RETRY_AFTER},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use tokio::net::TcpListener;

use super::wait_until;

/// The key in base64, and what a configuration calls it.
pub const KEY: &str = "Y2FuYXJ5LXdlYmhvb2sta2V5LWNhbmFyeS13ZWJob29r";

static VALIDATOR: OnceLock<jsonschema::Validator> = OnceLock::new();

/// One request.
#[derive(Debug, Clone)]
pub struct Received {
    pub path: String,
    pub headers: HeaderMap,
    pub body: String,
    /// The status of the answer.
    pub status: StatusCode,
}

impl Received {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.body))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    /// The event, provided that its signature is right.
    pub fn verified(&self) -> Value {
        let signed = format!("{}.{}.{}", self.header("webhook-id"), self.header("webhook-timestamp"), self.body);
        let mut mac = Hmac::<Sha256>::new_from_slice(&STANDARD.decode(KEY).unwrap()).unwrap();
        mac.update(signed.as_bytes());
        let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        assert_eq!(self.header("webhook-signature"), expected, "{}", self.body);
        assert_eq!(self.json()["id"], self.header("webhook-id"));
        let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schemas/event.json");
        let schema = serde_json::from_str(&fs::read_to_string(schema).unwrap()).unwrap();
        let validator =
            VALIDATOR.get_or_init(|| jsonschema::options().should_validate_formats(true).build(&schema).unwrap());
        let complaints: Vec<_> = validator.iter_errors(&self.json()).map(|error| error.to_string()).collect();
        assert_eq!(complaints, [""; 0], "{}", self.body);
        self.json()
    }
}

#[derive(Debug, Default)]
struct Memory {
    received: Vec<Received>,
    answer: Option<(StatusCode, String)>,
    /// The answer to bodies that contain a text, and its `Retry-After` in seconds.
    answers: Vec<(String, StatusCode, Option<u32>)>,
}

/// Listens for as long as the runtime lives.
#[derive(Debug, Clone)]
pub struct Receiver {
    pub url: String,
    memory: Arc<Mutex<Memory>>,
}

impl Receiver {
    pub async fn start() -> Self {
        let memory: Arc<Mutex<Memory>> = Arc::default();
        let keep = async |State(memory): State<Arc<Mutex<Memory>>>, uri: Uri, headers: HeaderMap, body: Bytes| {
            let mut memory = memory.lock().unwrap();
            let (mut status, text) = memory.answer.clone().unwrap_or((StatusCode::OK, "ok".to_owned()));
            let body = String::from_utf8(body.to_vec()).unwrap();
            let mut wait = HeaderMap::new();
            if let Some((_, refusal, seconds)) = memory.answers.iter().find(|(text, ..)| body.contains(text)) {
                status = *refusal;
                wait.extend(seconds.map(|seconds| (RETRY_AFTER, HeaderValue::from(seconds))));
            }
            memory.received.push(Received { path: uri.path().to_owned(), headers, body, status });
            (status, wait, text)
        };
        let app = Router::new().fallback(keep).with_state(Arc::clone(&memory));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        crate::support::spawn(async move { axum::serve(listener, app).await });
        Self { url, memory }
    }

    /// Sets the answer.
    pub fn answer(&self, status: u16, body: &str) {
        self.memory.lock().unwrap().answer = Some((StatusCode::from_u16(status).unwrap(), body.to_owned()));
    }

    /// Sets the answer to bodies that contain `text`.
    pub fn answer_to(&self, text: &str, status: u16, retry_after: Option<u32>) {
        let status = StatusCode::from_u16(status).unwrap();
        self.memory.lock().unwrap().answers.push((text.to_owned(), status, retry_after));
    }

    /// Removes the answers to certain bodies.
    pub fn relent(&self) {
        self.memory.lock().unwrap().answers.clear();
    }

    /// All requests.
    pub fn received(&self) -> Vec<Received> {
        self.memory.lock().unwrap().received.clone()
    }

    /// The events that were accepted, each with a right signature.
    pub fn events(&self) -> Vec<Value> {
        let received = self.received().into_iter().filter(|received| received.status.is_success());
        // A sender that is killed before it records a delivery sends the event again, with the same id.
        let mut taken = HashSet::new();
        received
            .filter(|received| received.path == "/hook")
            .map(|received| received.verified())
            .filter(|event| taken.insert(event["id"].to_string()))
            .collect()
    }

    /// The alarms among them, as `late began`.
    pub fn alarms(&self) -> Vec<String> {
        let events = self.events();
        let alarms = events.iter().filter_map(|event| {
            let phase = event["type"].as_str().unwrap().strip_prefix("alarm.")?;
            Some(format!("{} {phase}", event["data"]["alarm"].as_str().unwrap()))
        });
        alarms.collect()
    }

    /// Waits until this many alarms were received.
    pub async fn wait_for_alarms(&self, count: usize) {
        assert!(wait_until(async || self.alarms().len() >= count).await, "{:?}", self.alarms());
    }

    /// The table of a webhook to this receiver.
    pub fn webhook(&self) -> String {
        format!(
            "\n[[notify]]\nname = \"hook\"\nkind = \"webhook\"\nurl = \"{}/hook\"\nsecret = \"whsec_{KEY}\"\n",
            self.url
        )
    }
}
