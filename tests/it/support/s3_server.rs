//! An S3 server in this process, which fails as scripted.

use std::{
    fs,
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use moesync::config;
use s3s::{
    S3Request, S3Result,
    access::S3Access,
    auth::SimpleAuth,
    dto::PutObjectInput,
    service::{S3Service, S3ServiceBuilder},
};
use tempfile::TempDir;

pub const BUCKET: &str = "reports";
pub const KEY_ID: &str = "canary-access-key";
pub const SECRET: &str = "canary-secret-access-key";

/// An S3 server in this process, with faults and a request that gets no answer.
pub struct Server {
    pub root: TempDir,
    pub url: String,
    pub ignores_if_none_match: bool,
    /// Whether requests with a condition are answered "invalid argument".
    pub refuses_if_none_match: AtomicBool,
    service: S3Service,
    faults: Mutex<Vec<(When, Fault)>>,
    silence: Silence,
}

/// A request that gets no answer, and the requests counted for it.
#[derive(Default)]
struct Silence {
    /// The number, from 0, of the request that is done and gets no answer.
    at: Mutex<Option<usize>>,
    /// All requests since the number was set, as `PUT /reports/key?query`.
    requests: Mutex<Vec<String>>,
    has_come: AtomicBool,
    /// Requests in progress, except the one without an answer.
    working: AtomicUsize,
}

/// Selects the request that a fault applies to.
pub type When = fn(&Method, &Uri) -> bool;

#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// The request is not done.
    Refuse(StatusCode),
    /// The request is done, the answer says it isn't.
    DoAndRefuse(StatusCode),
    /// The request is done and the connection closed without an answer.
    LoseReply,
    /// The request is not done; the answer has this code and message.
    RefuseSaying(StatusCode, &'static str, &'static str),
    /// The request is not done; the answer is a 200 with this error in its body.
    ErrorInSuccess(&'static str),
    /// The request is not done; the answer redirects to this address.
    Redirect(&'static str),
}

impl Server {
    pub async fn start(ignores_if_none_match: bool) -> Arc<Self> {
        let root = TempDir::new().unwrap();
        fs::create_dir(root.path().join(BUCKET)).unwrap();
        let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root.path()).unwrap());
        service.set_auth(SimpleAuth::from_single(KEY_ID, SECRET));
        if ignores_if_none_match {
            service.set_access(IgnoreIfNoneMatch);
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (service, faults) = (service.build(), Mutex::default());
        let (silence, refuses_if_none_match) = (Silence::default(), AtomicBool::new(false));
        let server = Server { root, url, ignores_if_none_match, refuses_if_none_match, service, faults, silence };
        let server = Arc::new(server);
        let router = Router::new().fallback(answer).with_state(Arc::clone(&server));
        crate::support::spawn(async { axum::serve(listener, router).await });
        server
    }

    pub async fn without_conditions() -> Arc<Self> {
        let server = Self::start(false).await;
        server.refuses_if_none_match.store(true, Ordering::Relaxed);
        server
    }

    /// Applies `fault` to the next request that matches.
    pub fn next(&self, when: When, fault: Fault) {
        self.faults.lock().unwrap().push((when, fault));
    }

    pub fn all_happened(&self) -> bool {
        self.faults.lock().unwrap().is_empty()
    }

    pub fn config(&self) -> config::DestinationSettings {
        let options = [
            ("aws_endpoint", self.url.as_str()),
            ("aws_region", "us-east-1"),
            ("aws_access_key_id", KEY_ID),
            ("aws_secret_access_key", SECRET),
            ("allow_http", "true"),
        ];
        let options = options.map(|(name, value)| (name.to_owned(), value.into())).into();
        let location = format!("s3://{BUCKET}").parse().unwrap();
        config::DestinationSettings {
            name: "lake".to_owned(),
            location,
            options,
            fsync: true,
            ca_file: None,
            place: String::new(),
        }
    }

    /// Counts requests from 0 again; the one with this number is done and gets no answer.
    pub fn be_silent_at(&self, number: Option<usize>) {
        self.silence.requests.lock().unwrap().clear();
        self.silence.has_come.store(false, Ordering::SeqCst);
        *self.silence.at.lock().unwrap() = number;
    }

    /// Whether the request that gets no answer was done.
    pub fn is_silent(&self) -> bool {
        self.silence.has_come.load(Ordering::SeqCst)
    }

    /// Whether no request is in progress.
    pub fn is_idle(&self) -> bool {
        self.silence.working.load(Ordering::SeqCst) == 0
    }

    /// The requests since [`Server::be_silent_at`], as `PUT /reports/key?query`.
    pub fn requests(&self) -> Vec<String> {
        self.silence.requests.lock().unwrap().clone()
    }

    /// Where the bucket is on this machine's disk.
    pub fn bucket(&self) -> PathBuf {
        self.root.path().join(BUCKET)
    }

    /// Whether this names a multipart upload that has ended. S3 answers 404, the server of s3s-fs 403.
    fn knows_nothing_of(&self, uri: &Uri) -> bool {
        let upload = uri.query().and_then(|query| query.split('&').find_map(|part| part.strip_prefix("uploadId=")));
        upload.is_some_and(|id| self.files(".upload-").iter().all(|name| !name.contains(id)))
    }

    /// The server's own files whose names begin like this: uploads and parts.
    pub fn files(&self, beginning: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(beginning)).collect()
    }
}

/// Counts a request while it is processed, even if its client has disconnected.
struct Working(Arc<Server>);

impl Working {
    fn on(server: &Arc<Server>) -> Self {
        server.silence.working.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(server))
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.silence.working.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn answer(State(server): State<Arc<Server>>, request: Request) -> Response {
    let number = {
        let mut requests = server.silence.requests.lock().unwrap();
        requests.push(format!("{} {}", request.method(), request.uri()));
        requests.len() - 1
    };
    let is_silent = *server.silence.at.lock().unwrap() == Some(number);
    let working = Working::on(&server);
    let fault = {
        let mut faults = server.faults.lock().unwrap();
        let due = faults.iter().position(|(when, _)| when(request.method(), request.uri()));
        due.map(|at| faults.remove(at).1)
    };
    let serve = async |request: Request| {
        let answer = server.service.call(request.map(s3s::Body::http_body_unsync)).await.unwrap();
        answer.map(Body::new)
    };
    let error = |code: &str| {
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>As scripted.</Message></Error>")
    };
    // A server reads a request before it answers.
    let drained = async |request: Request| {
        request.into_body().into_data_stream().for_each(|_| async {}).await;
    };
    if is_silent {
        drop(serve(request).await);
        drop(working);
        server.silence.has_come.store(true, Ordering::SeqCst);
        return std::future::pending().await;
    }
    if request.method() == Method::DELETE && server.knows_nothing_of(request.uri()) {
        return (StatusCode::NOT_FOUND, error("NoSuchUpload")).into_response();
    }
    if server.refuses_if_none_match.load(Ordering::Relaxed) && request.headers().contains_key("if-none-match") {
        drained(request).await;
        return (StatusCode::BAD_REQUEST, error("InvalidArgument")).into_response();
    }
    match fault {
        None => serve(request).await,
        Some(Fault::RefuseSaying(status, code, message)) => {
            drained(request).await;
            (status, error(code).replace("As scripted.", message)).into_response()
        }
        Some(Fault::Refuse(status)) => {
            drained(request).await;
            (status, error("SlowDown")).into_response()
        }
        Some(Fault::DoAndRefuse(status)) => {
            serve(request).await;
            (status, error("InternalError")).into_response()
        }
        Some(Fault::LoseReply) => {
            serve(request).await.into_body().into_data_stream().for_each(|_| async {}).await;
            // Ends the connection's task without a panic message.
            std::panic::resume_unwind(Box::new("the reply is lost"))
        }
        Some(Fault::Redirect(target)) => {
            drained(request).await;
            (StatusCode::TEMPORARY_REDIRECT, [("location", target)]).into_response()
        }
        Some(Fault::ErrorInSuccess(code)) => {
            drained(request).await;
            (StatusCode::OK, error(code)).into_response()
        }
    }
}

struct IgnoreIfNoneMatch;

type Access<'a> = Pin<Box<dyn Future<Output = S3Result<()>> + Send + 'a>>;

impl S3Access for IgnoreIfNoneMatch {
    fn put_object<'a, 'b, 'c>(&'a self, request: &'b mut S3Request<PutObjectInput>) -> Access<'c>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        request.input.if_none_match = None;
        Box::pin(async { Ok(()) })
    }
}
