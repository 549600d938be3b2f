//! `moesync health`: asks the daemon of this configuration whether it is ready, for health checks of containers.

use std::{net::SocketAddr, time::Duration};

use reqwest::StatusCode;
use secrecy::ExposeSecret;
use serde::Deserialize;

use super::{CommandError, Completion, Result, shell::Shell};
use crate::{
    config::Open,
    http,
    telemetry::Chain,
    words::{Check, Health},
};

/// Longer than the daemon's own limit for an answer.
const TIMEOUT: Duration = Duration::from_secs(25);

/// The part of the daemon's answer that is read.
#[derive(Deserialize)]
struct HealthAnswer {
    ok: bool,
    checks: Vec<CheckAnswer>,
}

#[derive(Deserialize)]
struct CheckAnswer {
    subject: String,
    ok: bool,
    message: String,
}

pub(super) async fn run(shell: &Shell) -> Result {
    let config = shell.config()?;
    let Some(address) = config.web.listen else {
        return Err(CommandError::Usage(
            "[web] listen is \"\", so the daemon answers no health checks; set it, or check the process instead".into(),
        ));
    };
    let token = match config.web.open.contains(&Open::Health) {
        true => None,
        false => config.web.token()?,
    };
    let health = match ask(local_address(address), token.as_ref().map(ExposeSecret::expose_secret)).await {
        Ok(health) => health,
        Err(Unanswered::Refused(message) | Unanswered::Other(message)) => {
            Health { ok: false, checks: vec![Check { subject: "daemon".into(), ok: false, message }] }
        }
    };
    let ok = health.ok;
    shell.print(&health, |health| {
        let lines = health.checks.iter().map(|Check { subject, ok, message }| {
            format!("{} {subject}: {message}\n", if *ok { "ok    " } else { "FAILED" })
        });
        lines.collect()
    })?;
    Ok(if ok { Completion::Done } else { Completion::Incomplete })
}

/// The address at which this machine reaches its own server that listens on `address`.
fn local_address(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// Whether a moesync answers at `address`, for whatever token.
pub(super) async fn is_moesync(address: SocketAddr) -> bool {
    match ask(local_address(address), None).await {
        Ok(_) | Err(Unanswered::Refused(_)) => true,
        Err(Unanswered::Other(_)) => false,
    }
}

/// Why there is no health.
enum Unanswered {
    /// A moesync wants another token.
    Refused(String),
    /// There is no answer, or that of another program.
    Other(String),
}

async fn ask(address: SocketAddr, token: Option<&str>) -> Result<Health, Unanswered> {
    let url = format!("http://{address}/readyz");
    let client = http::local_client(TIMEOUT).map_err(|error| Unanswered::Other(Chain(&error).to_string()))?;
    let request = client.get(&url);
    let request = match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    let failed = |error: reqwest::Error| {
        let cause = Chain(&error.without_url()).to_string();
        Unanswered::Other(format!("no answer from {url}: {cause}; is the daemon running?"))
    };
    let response = request.send().await.map_err(failed)?;
    let status = response.status();
    let body = response.bytes().await.map_err(failed)?;
    let unexpected = || {
        Unanswered::Other(format!("{url} answered {status}, not as moesync does; does another program listen there?"))
    };
    match status {
        StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE => {
            let answer: HealthAnswer = serde_json::from_slice(&body).map_err(|_| unexpected())?;
            let checks = answer.checks.into_iter();
            let checks = checks.map(|CheckAnswer { subject, ok, message }| Check { subject, ok, message }).collect();
            Ok(Health { ok: answer.ok && status == StatusCode::OK, checks })
        }
        StatusCode::UNAUTHORIZED => Err(Unanswered::Refused(format!(
            "{url} refuses the token in web.token_file; the daemon read it when it started, restart it after a change"
        ))),
        _ => Err(unexpected()),
    }
}
