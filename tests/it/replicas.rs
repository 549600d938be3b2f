//! Several processes that share a ledger on a PostgreSQL server, directly and through PgBouncer.

use crate::support::{
    Bench, Series,
    postgres::{self, Route},
};

macro_rules! on_each_route {
    ($($name:ident),* $(,)?) => {
        mod direct {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name($crate::support::postgres::Route::Direct).await;
            })*
        }

        mod pooled {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name($crate::support::postgres::Route::Pooled).await;
            })*
        }
    };
}

mod drill;
mod server;
mod sharing;

/// A bench whose ledger is on a server, and the URL of that.
async fn bench(route: Route, series: &[Series]) -> (Bench, String) {
    let url = postgres::database(route).await;
    (bench_on(&url, series).await, url)
}

async fn bench_on(url: &str, series: &[Series]) -> Bench {
    let bench = Bench::new(series).await;
    bench.write_config(&on_server(&bench, url));
    bench
}

fn on_server(bench: &Bench, url: &str) -> String {
    bench.config().replace(&format!("sqlite://{}", bench.ledger().display()), url)
}

fn password(url: &str) -> &str {
    url.split(['@', ':']).nth(2).unwrap()
}

async fn are_stored(bench: &Bench, count: usize) -> bool {
    let status = bench.status().await;
    status.len() == count && status.iter().all(|partition| partition["state"] == "stored")
}
