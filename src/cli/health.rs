//! `moesync health`: asks the daemon of this configuration how it is, for container checks.

use std::{net::SocketAddr, time::Duration};

use reqwest::StatusCode;
use secrecy::ExposeSecret;
use serde::Deserialize;

use super::{Ended, Failure, Result, shell::Shell};
use crate::{
    config::Open,
    http,
    telemetry::Chain,
    words::{Check, Health},
};

/// Longer than the daemon lets an answer take.
const PATIENCE: Duration = Duration::from_secs(25);

/// What the daemon answers, as far as it matters here.
#[derive(Deserialize)]
struct Answer {
    ok: bool,
    checks: Vec<Answered>,
}

#[derive(Deserialize)]
struct Answered {
    subject: String,
    ok: bool,
    message: String,
}

pub(super) async fn run(shell: &Shell) -> Result {
    let config = shell.config()?;
    let Some(address) = config.web.listen else {
        return Err(Failure::Usage(
            "[web] listen is \"\", so there is no page to ask; set it, or check the process instead".into(),
        ));
    };
    let token = match config.web.open.contains(&Open::Health) {
        true => None,
        false => config.web.token()?,
    };
    let health = match ask(here(address), token.as_ref().map(ExposeSecret::expose_secret)).await {
        Ok(health) => health,
        Err(message) => Health { ok: false, checks: vec![Check { subject: "daemon".into(), ok: false, message }] },
    };
    let ok = health.ok;
    shell.print(&health, |health| {
        let lines = health.checks.iter().map(|Check { subject, ok, message }| {
            format!("{} {subject}: {message}\n", if *ok { "ok    " } else { "FAILED" })
        });
        lines.collect()
    })?;
    Ok(if ok { Ended::Done } else { Ended::Incomplete })
}

/// Where a server of this machine that listens on `address` is reached from this machine.
fn here(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

async fn ask(address: SocketAddr, token: Option<&str>) -> Result<Health, String> {
    let url = format!("http://{address}/readyz");
    let client = http::local_client(PATIENCE).map_err(|error| Chain(&error).to_string())?;
    let request = client.get(&url);
    let request = match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    let failed =
        |error: reqwest::Error| format!("no answer from {url}: {}; does the daemon run?", Chain(&error.without_url()));
    let response = request.send().await.map_err(failed)?;
    let status = response.status();
    let body = response.bytes().await.map_err(failed)?;
    let strange =
        || format!("{url} answered {status}, and not as moesync does; does another program have the address?");
    match status {
        StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE => {
            let answer: Answer = serde_json::from_slice(&body).map_err(|_| strange())?;
            let checks = answer.checks.into_iter();
            let checks = checks.map(|Answered { subject, ok, message }| Check { subject, ok, message }).collect();
            Ok(Health { ok: answer.ok && status == StatusCode::OK, checks })
        }
        StatusCode::UNAUTHORIZED => Err(format!(
            "{url} refuses the token in web.token_file; the daemon read it when it started, restart it after a change"
        )),
        _ => Err(strange()),
    }
}
