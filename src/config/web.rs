//! The `[web]` table.

use std::net::SocketAddr;

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use url::Host;

use super::{Mistakes, Problem, document::KeyPath, files::NamedFile, mistakes::each, secret};

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct Raw {
    /// IP address and port of the status page, health and metrics; `""` switches them off. A change needs a restart.
    listen: String,
    /// File with a token that every request must present, as a Bearer token or, in a browser, as the password.
    /// Required unless `listen` is a loopback address.
    token_file: Option<String>,
    /// What is served without the token: `"health"` (`/livez` and `/readyz`) and `"metrics"`.
    open: Vec<Open>,
    /// Names of this host in browsers and behind a proxy, such as `moesync.example.com`. `localhost` and IP addresses
    /// are always accepted. Requests for other names are refused, which protects against DNS rebinding.
    hosts: Vec<String>,
}

impl Default for Raw {
    fn default() -> Self {
        Raw { listen: "127.0.0.1:8787".to_owned(), token_file: None, open: Vec::new(), hosts: Vec::new() }
    }
}

/// The web server: status page, API, health and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Web {
    /// Its address; `None` if it is switched off with `""`.
    pub listen: Option<SocketAddr>,
    /// File with the token that requests must present; always given if `listen` is not a loopback address.
    pub token_file: Option<NamedFile>,
    /// What is served without the token.
    pub open: Vec<Open>,
    /// Host names that requests may be for, in lower case, besides `localhost` and IP addresses.
    pub hosts: Vec<String>,
}

/// A part of the web server that can be open without the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", expecting = "\"health\" or \"metrics\"")]
pub enum Open {
    /// `/livez` and `/readyz`.
    Health,
    /// `/metrics`.
    Metrics,
}

impl Web {
    /// The present token, if requests must present one.
    ///
    /// # Errors
    /// As of [`SecretSource::resolve`](super::SecretSource::resolve), and if the token is short enough to be guessed.
    pub fn token(&self) -> Result<Option<SecretString>, Problem> {
        let of = |file: &NamedFile| secret::token(&file.path).map_err(|problem| file.problem(problem));
        self.token_file.as_ref().map(of).transpose()
    }
}

impl Raw {
    pub(super) fn check(&self, at: &KeyPath<'_>) -> Result<Web, Mistakes> {
        let mut mistakes = Mistakes::default();
        let listen = mistakes.keep(listen(&self.listen, &at.key("listen")));
        let token_file = mistakes.keep(NamedFile::check(self.token_file.as_deref(), &at.key("token_file")));
        if let Some(address) = listen.flatten()
            && !address.ip().is_loopback()
            && self.token_file.is_none()
        {
            mistakes.add(at.key("listen").problem(format_args!(
                "{address} can be reached by others, so it needs a token_file; or listen on a loopback address, such as \
                 \"127.0.0.1:8787\""
            )));
        }
        let hosts = mistakes.keep(each(&self.hosts, &at.key("hosts"), host_name));
        mistakes
            .finish(|| Some(Web { listen: listen?, token_file: token_file?, open: self.open.clone(), hosts: hosts? }))
    }
}

fn listen(text: &str, at: &KeyPath<'_>) -> Result<Option<SocketAddr>, Problem> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        at.problem(format_args!(
            "expected an IP address and a port, such as \"127.0.0.1:8787\", or \"\" for none, found {text:?}"
        ))
    })
}

/// The name of a host, without a port, in lower case.
fn host_name(text: &String, at: &KeyPath<'_>) -> Result<String, Problem> {
    match Host::parse(text) {
        Ok(Host::Domain(name)) => Ok(name),
        _ => Err(at.problem(format_args!(
            "expected a host name without a port, such as \"moesync.example.com\", found {text:?}"
        ))),
    }
}
