//! The status page, health and metrics over HTTP. It only reads, and never through the connection that the daemon works
//! with: whoever looks does not slow the work down.
//!
//! This file owns the server: its address, its connections and their bounds. It must not know what is served.

mod api;
mod assets;
mod guard;
mod health;
mod metrics;
mod openapi;
mod overview;
mod pages;
mod partitions;

use std::{
    fmt, io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::Request, http::Uri, middleware, response::Response};
use hyper::{
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use jiff::Timestamp;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::{AbortHandle, JoinError, JoinSet},
    time::{sleep, timeout},
};
use tracing::{debug, error, info, warn};

pub use self::{api::ROUTES, openapi::description, overview::Overview};
use self::{guard::Guard, health::Probes, metrics::Scrape, partitions::Places};
use crate::{
    config,
    ledger::{self, Ledger, LedgerError},
    sync::{Context, report_panic},
};

/// Most connections at once. For one more, the oldest that is not being answered ends, so that whoever only occupies
/// places keeps nobody away.
const MOST_CONNECTIONS: usize = 128;
/// Longest time for the head of a request to arrive, the wait for a next one included.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Most requests at once that are answered from the ledger, health checks aside; more wait.
const MOST_READERS: usize = 8;
/// Most headers of a request, and most bytes of them all.
const MOST_HEADERS: usize = 64;
const MOST_HEAD_BYTES: usize = 16 * 1024;
/// Longest life of a connection: whoever reads slowly does not keep it for ever.
const CONNECTION_LIFE: Duration = Duration::from_secs(120);
/// What an answer that is under way at the end of that life gets.
const LAST_ANSWER: Duration = Duration::from_secs(10);

/// Why the server could not begin.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// The address is taken, not ours, or not allowed.
    #[error("could not listen on {address} for the status page: {reason}; set another [web] listen, or \"\" for none")]
    Listen {
        /// The address of the configuration.
        address: SocketAddr,
        /// What the system said.
        reason: io::Error,
    },
    /// The token cannot be used.
    #[error("{0}")]
    Token(config::Problem),
}

/// A server that has its address, and answers nobody yet.
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
    guard: Arc<Guard>,
    config: config::Web,
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Listener {
    /// Takes the address that `config` names; `None` when the server is switched off. To be done before anything else
    /// is started.
    ///
    /// # Errors
    ///
    /// The address cannot be had, or the token cannot be used.
    pub async fn bind(config: &config::Web) -> Result<Option<Self>, WebError> {
        let Some(address) = config.listen else { return Ok(None) };
        let token = config.token().map_err(WebError::Token)?;
        let failed = |reason| WebError::Listen { address, reason };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let guard = Arc::new(Guard::new(address, config, token));
        Ok(Some(Self { listener, address, guard, config: config.clone() }))
    }

    /// Where to look at it.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Answers until cancelled, which ends all connections too. `contexts` is what is shown, always the latest; with
    /// each new one the token is read again. May be called again after a panic.
    pub async fn serve(&self, contexts: watch::Receiver<Arc<Context>>) {
        let began_at = contexts.borrow().clock.now();
        let renewing = renew(Arc::clone(&self.guard), self.config.clone(), contexts.clone());
        let panicked = || report_panic(&contexts.borrow().status, "an answer of the status page");
        let state = State {
            contexts: contexts.clone(),
            began_at,
            probes: Probes::default(),
            scrape: Scrape::default(),
            places: Places::default(),
        };
        tokio::select! {
            () = accept(&self.listener, router(Arc::new(state), Arc::clone(&self.guard)), panicked) => {}
            () = renewing => {}
        }
    }
}

/// Reads the token again whenever there is a new context. What cannot be used leaves the old one in force.
async fn renew(guard: Arc<Guard>, config: config::Web, mut contexts: watch::Receiver<Arc<Context>>) {
    while contexts.changed().await.is_ok() {
        match config.token() {
            Ok(token) => {
                if guard.renew(token.as_ref()) {
                    info!("the token of the status page is another now; the one before is not valid any more");
                }
            }
            Err(problem) => error!(
                alarm = "configuration",
                "the token of the status page could not be read anew, the one before stays valid: \
                 {problem}"
            ),
        }
    }
    // Nothing more is loaded; what there is goes on being served.
    std::future::pending().await
}

/// Accepts connections. `panicked` is called for each that ended by a fault of moesync.
async fn accept(listener: &TcpListener, router: Router, panicked: impl Fn()) {
    let mut connections = JoinSet::new();
    let note = |ended: Result<(), JoinError>| {
        if ended.is_err_and(|error| error.is_panic()) {
            panicked();
        }
    };
    // The oldest first.
    let mut places: Vec<Place> = Vec::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(ended) = connections.join_next() => {
                note(ended);
                places.retain(|place: &Place| !place.connection.is_finished());
                continue;
            }
        };
        match accepted {
            Ok((stream, _)) => {
                let is_busy = Arc::new(AtomicBool::new(false));
                let connection = connections.spawn(converse(stream, router.clone(), Arc::clone(&is_busy)));
                places.push(Place { connection, is_busy });
            }
            Err(error) => {
                // Mostly a lack of file descriptors, which takes others a moment to give back.
                warn!("could not accept a connection to the status page: {error}");
                sleep(Duration::from_millis(100)).await;
            }
        }
        while let Some(ended) = connections.try_join_next() {
            note(ended);
        }
        places.retain(|place| !place.connection.is_finished());
        while places.len() > MOST_CONNECTIONS {
            // The last has only just come.
            match places[..MOST_CONNECTIONS].iter().position(|place| !place.is_busy.load(Ordering::Relaxed)) {
                Some(idle) => places.remove(idle).connection.abort(),
                // All are being answered, which takes its time and no more.
                None => {
                    if let Some(ended) = connections.join_next().await {
                        note(ended);
                    }
                    places.retain(|place| !place.connection.is_finished());
                }
            }
        }
    }
}

/// One connection, for whoever must choose between them.
struct Place {
    connection: AbortHandle,
    is_busy: Arc<AtomicBool>,
}

/// A request is being answered for as long as this lives.
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn begin(flag: &Arc<AtomicBool>) -> Self {
        flag.store(true, Ordering::Relaxed);
        Busy(Arc::clone(flag))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// One connection, from its first request to its end.
async fn converse(stream: TcpStream, router: Router, is_busy: Arc<AtomicBool>) {
    let service = TowerToHyperService::new(router);
    let service = service_fn(move |request| {
        let (busy, answer) = (Busy::begin(&is_busy), service.call(request));
        async move {
            let answer = answer.await;
            drop(busy);
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_headers(MOST_HEADERS)
        .max_buf_size(MOST_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = sleep(CONNECTION_LIFE) => {
            connection.as_mut().graceful_shutdown();
            timeout(LAST_ANSWER, connection).await.unwrap_or(Ok(()))
        }
    };
    // How a connection ends is the client's concern.
    if let Err(error) = ended {
        debug!("a connection to the status page ended: {error}");
    }
}

/// What all requests share.
struct State {
    contexts: watch::Receiver<Arc<Context>>,
    /// When the server began.
    began_at: Timestamp,
    probes: Probes,
    scrape: Scrape,
    places: Places,
}

impl State {
    /// What is in force now.
    fn context(&self) -> Arc<Context> {
        Arc::clone(&self.contexts.borrow())
    }

    /// When the loop last planned, or began: what it cannot write to the ledger it has not planned.
    fn planned_at(&self, ctx: &Context) -> Timestamp {
        ctx.status.planned_at().unwrap_or(self.began_at)
    }
}

/// The ledger, opened for one request alone.
async fn read_ledger(ctx: &Context) -> Result<Ledger, LedgerError> {
    // Deleted under the daemon, it is made anew within a minute; until then what is open is all there is.
    Ok(ledger::open_read_only(ctx.ledger.path()).await?.unwrap_or_else(|| ctx.ledger.clone()))
}

fn router(state: Arc<State>, guard: Arc<Guard>) -> Router {
    let places = Arc::new(Semaphore::new(MOST_READERS));
    let take_a_place = middleware::from_fn(move |request: Request, next: middleware::Next| {
        let places = Arc::clone(&places);
        async move {
            // The semaphore is never closed.
            let _place = places.acquire().await;
            Ok::<Response, std::convert::Infallible>(next.run(request).await)
        }
    });
    let reading = Router::new().merge(pages::routes()).merge(api::routes()).merge(metrics::routes());
    Router::new()
        .merge(reading.layer(take_a_place))
        .merge(assets::routes())
        .merge(health::routes())
        .fallback(async |uri: Uri| match uri.path() {
            path if path == "/api" || path.starts_with("/api/") => api::not_found(path),
            _ => pages::not_found().await,
        })
        .layer(middleware::from_fn(move |request: Request, next: middleware::Next| {
            let guard = Arc::clone(&guard);
            async move { Ok::<Response, std::convert::Infallible>(guard.admit(request, next).await) }
        }))
        .with_state(state)
}
