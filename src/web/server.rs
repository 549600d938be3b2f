//! The server: its address, its connections and their limits, and which part answers which path.
//!
//! This file must not know what an answer contains.

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

use axum::{
    Router,
    extract::{Path, Request},
    http::Uri,
    middleware,
    response::Response,
    routing::get,
};
use hyper::{
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{Semaphore, watch},
    task::{AbortHandle, JoinError, JoinSet},
    time::{sleep, timeout},
};
use tower_http::compression::CompressionLayer;
use tracing::{debug, error, info, warn};

use super::{
    Shared, api, assets,
    guard::Guard,
    health::{self, Probes},
    metrics::{self, Scrape},
    pages,
    stream::PageSlots,
};
use crate::{
    config,
    sync::{Context, report_panic},
};

/// Connection limit. Beyond it, the oldest idle connection is closed.
const MAX_CONNECTIONS: usize = 128;
/// Time limit for the head of a request, counted from the end of the previous answer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Number of requests that are answered from the ledger concurrently, health checks excluded; others wait.
const MAX_READERS: usize = 8;
/// Limits on the headers of a request: their number, and their bytes in total.
const MAX_HEADERS: usize = 64;
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Time limit for a connection, which also bounds a client that reads slowly.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(120);
/// Additional time for an answer that is in progress at that limit.
const LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// The address is in use, not one of this machine, or not permitted.
    #[error("could not listen on {address} for the status page: {reason}; set another [web] listen, or \"\" for none")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// The system's error.
        reason: io::Error,
    },
    /// The token cannot be used.
    #[error("{0}")]
    Token(config::Problem),
}

/// A server that has bound its address and does not answer yet.
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
    /// Binds the address in `config`; `None` when the server is switched off. Called before anything else is started.
    ///
    /// # Errors
    ///
    /// The address cannot be bound, or the token cannot be used.
    pub async fn bind(config: &config::Web) -> Result<Option<Self>, WebError> {
        let Some(address) = config.listen else { return Ok(None) };
        let token = config.token().map_err(WebError::Token)?;
        let failed = |reason| WebError::Listen { address, reason };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let guard = Arc::new(Guard::new(address, config, token));
        Ok(Some(Self { listener, address, guard, config: config.clone() }))
    }

    /// The page's URL.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Answers until cancelled, which also ends all connections. Each request uses the latest of `contexts`; for each new
    /// context the token is read again. May be called again after a panic.
    pub async fn serve(&self, contexts: watch::Receiver<Arc<Context>>) {
        let started_at = contexts.borrow().clock.now();
        let renewing = renew(Arc::clone(&self.guard), self.config.clone(), contexts.clone());
        let panicked = || report_panic(&contexts.borrow().status, "an answer of the status page");
        let shared = Shared {
            contexts: contexts.clone(),
            started_at,
            probes: Probes::default(),
            scrape: Scrape::default(),
            page_slots: PageSlots::default(),
        };
        tokio::select! {
            () = accept(&self.listener, router(Arc::new(shared), Arc::clone(&self.guard)), panicked) => {}
            () = renewing => {}
        }
    }
}

/// Reads the token again for each new context. An unusable token leaves the old one in force.
async fn renew(guard: Arc<Guard>, config: config::Web, mut contexts: watch::Receiver<Arc<Context>>) {
    while contexts.changed().await.is_ok() {
        match config.token() {
            Ok(token) => {
                if guard.renew(token.as_ref()) {
                    info!("the token of the status page has changed; the old one is no longer valid");
                }
            }
            Err(problem) => error!(
                alarm = "configuration",
                "could not read the token of the status page again, the old one stays valid: {problem}"
            ),
        }
    }
    // All senders are gone: the last context stays.
    std::future::pending().await
}

/// Accepts connections. `panicked` is called for each that ended in a panic.
async fn accept(listener: &TcpListener, router: Router, panicked: impl Fn()) {
    let mut connections = JoinSet::new();
    let note = |ended: Result<(), JoinError>| {
        if ended.is_err_and(|error| error.is_panic()) {
            panicked();
        }
    };
    // The oldest first.
    let mut open: Vec<OpenConnection> = Vec::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(ended) = connections.join_next() => {
                note(ended);
                open.retain(|other: &OpenConnection| !other.connection.is_finished());
                continue;
            }
        };
        match accepted {
            Ok((stream, _)) => {
                let is_busy = Arc::new(AtomicBool::new(false));
                let connection = connections.spawn(converse(stream, router.clone(), Arc::clone(&is_busy)));
                open.push(OpenConnection { connection, is_busy });
            }
            Err(error) => {
                // Usually a lack of file descriptors, which is temporary.
                warn!("could not accept a connection to the status page: {error}");
                sleep(Duration::from_millis(100)).await;
            }
        }
        while let Some(ended) = connections.try_join_next() {
            note(ended);
        }
        open.retain(|other| !other.connection.is_finished());
        while open.len() > MAX_CONNECTIONS {
            // All but the one just accepted.
            match open[..MAX_CONNECTIONS].iter().position(|other| !other.is_busy.load(Ordering::Relaxed)) {
                Some(idle) => open.remove(idle).connection.abort(),
                // Each is being answered, which has a time limit.
                None => {
                    if let Some(ended) = connections.join_next().await {
                        note(ended);
                    }
                    open.retain(|other| !other.connection.is_finished());
                }
            }
        }
    }
}

/// An open connection.
struct OpenConnection {
    connection: AbortHandle,
    is_busy: Arc<AtomicBool>,
}

/// Marks a connection as busy until dropped.
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
async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router, is_busy: Arc<AtomicBool>) {
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
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = sleep(CONNECTION_TIMEOUT) => {
            connection.as_mut().graceful_shutdown();
            timeout(LAST_ANSWER_TIMEOUT, connection).await.unwrap_or(Ok(()))
        }
    };
    // Clients may end a connection in any way.
    if let Err(error) = ended {
        debug!("a connection to the status page ended: {error}");
    }
}

fn router(shared: Arc<Shared>, guard: Arc<Guard>) -> Router {
    let readers = Arc::new(Semaphore::new(MAX_READERS));
    let limited = middleware::from_fn(move |request: Request, next: middleware::Next| {
        let readers = Arc::clone(&readers);
        async move {
            // The semaphore is never closed.
            let _reader = readers.acquire().await;
            Ok::<Response, std::convert::Infallible>(next.run(request).await)
        }
    });
    let reading = Router::new().merge(pages::routes()).merge(api::routes()).merge(metrics::routes());
    Router::new()
        .merge(reading.layer(limited))
        .route("/assets/{name}", get(asset))
        .merge(health::routes())
        .fallback(async |uri: Uri| match uri.path() {
            path if path == "/api" || path.starts_with("/api/") => api::not_found(path),
            _ => pages::not_found().await,
        })
        .layer(middleware::from_fn(move |request: Request, next: middleware::Next| {
            let guard = Arc::clone(&guard);
            async move { Ok::<Response, std::convert::Infallible>(guard.admit(request, next).await) }
        }))
        // Compresses pages and lists to a tenth.
        .layer(CompressionLayer::new())
        .with_state(shared)
}

async fn asset(Path(name): Path<String>) -> Response {
    match assets::response(&name) {
        Some(response) => response,
        None => pages::not_found().await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
        time::Instant,
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_whose_head_does_not_arrive_ends_after_its_time() {
        let (mut client, server) = duplex(1024);
        let began = Instant::now();
        client.write_all(b"GET /livez HTTP/1.1\r\nHost: loc").await.unwrap();
        let conversation = converse(server, Router::new(), Arc::default());
        let mut answer = Vec::new();
        let (read, ()) = tokio::join!(client.read_to_end(&mut answer), conversation);
        read.unwrap();
        assert_eq!(began.elapsed().as_secs(), HEAD_TIMEOUT.as_secs());
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&answer));
    }
}
