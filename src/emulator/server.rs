//! Accepts connections and routes their requests to the APIs.

use std::{sync::Arc, time::Duration};

use axum::{Extension, Router, http::StatusCode, middleware};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{net::TcpListener, task::JoinSet};

use super::{
    archive_api, json_api,
    middleware::respond,
    responses::json_error,
    storage,
    vendor::Vendor,
    wire::{Breaker, Wire},
};

/// Serves connections until cancelled, which ends them too.
pub(super) async fn serve(listener: TcpListener, vendor: Arc<Vendor>) {
    let router = Router::new()
        .merge(archive_api::routes())
        .merge(json_api::routes())
        .merge(storage::routes())
        .fallback(async || json_error(StatusCode::NOT_FOUND, "NOT FOUND", "no such path"))
        .layer(middleware::from_fn_with_state(vendor.clone(), respond))
        .with_state(vendor);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let breaker = Breaker::default();
                    let service = TowerToHyperService::new(router.clone().layer(Extension(breaker.clone())));
                    let io = TokioIo::new(Wire::new(stream, breaker));
                    // The real date would reach clients through responses to malformed requests.
                    connections.spawn(http1::Builder::new().auto_date_header(false).serve_connection(io, service));
                }
                Err(error) => {
                    // Usually a lack of file descriptors, which is over shortly.
                    tracing::warn!(%error, "emulator cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            // A connection that ends early is often the effect of a fault.
            Some(_) = connections.join_next() => {}
        }
    }
}
