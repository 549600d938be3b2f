//! What is valid and most likely not meant.
//!
//! This file owns the warnings of `check` and of each start. Nothing is refused for them.

use std::collections::BTreeMap;

use url::Url;

use super::{Problem, place::Place, raw, secret::PLACEHOLDER};

/// The variables that name a proxy.
const PROXIES: [&str; 6] = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// The variables that name hosts to reach without one.
const EXCEPTIONS: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// Everything of the configuration and of the environment `env` that is odd.
pub(super) fn all(raw: &raw::Config, root: &Place<'_>, env: &BTreeMap<String, String>) -> Vec<Problem> {
    let reports = root.key("reports");
    let names = raw.reports.iter().enumerate().filter_map(|(index, report)| {
        let (name, at) = (report.name.as_deref()?, reports.index(index).key("name"));
        let (position, found) = name.chars().enumerate().find(|(_, c)| looks_like_a_space_or_nothing(*c))?;
        Some(at.problem(format_args!(
            "{name:?} has U+{:04X} as its character {}, which looks like a space or like nothing and often comes from a web \
             page; MoEngage finds the report only if its name in the dashboard has it too",
            u32::from(found),
            position + 1
        )))
    });
    let workspaces = root.key("workspaces");
    let placeholders =
        raw.workspaces.iter().enumerate().filter(|(_, workspace)| workspace.app_id.starts_with(PLACEHOLDER));
    let app_ids = placeholders.map(|(index, workspace)| {
        workspaces.index(index).key("app_id").problem(format_args!(
            "{:?} is the placeholder of an example; put MoEngage's workspace id in its place",
            workspace.app_id
        ))
    });
    names.chain(app_ids).chain(proxies(env)).collect()
}

fn looks_like_a_space_or_nothing(c: char) -> bool {
    (c.is_whitespace() && c != ' ')
        || matches!(c, '\u{ad}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
}

/// What the HTTP client ignores without an error.
fn proxies(env: &BTreeMap<String, String>) -> Vec<Problem> {
    let of = |name: &'static str| Some((name, env.get(name)?.trim())).filter(|(_, value)| !value.is_empty());
    let unusable = PROXIES.into_iter().filter_map(of).filter(|(_, value)| !is_address(value)).map(|(name, _)| {
        // Not shown: it may hold a password.
        Problem::new(format!(
            "environment variable {name}: it is no address such as \"http://proxy.example:3128\", so no proxy is used for it"
        ))
    });
    let exceptions = EXCEPTIONS.into_iter().filter_map(of).flat_map(|(name, value)| {
        value.split(',').map(str::trim).filter_map(move |host| {
            let instead = excepted(host)?;
            Some(Problem::new(format!(
                "environment variable {name}: {host:?} excepts nothing from the proxy; write {instead:?}"
            )))
        })
    });
    unusable.chain(exceptions).collect()
}

/// Whether it can be an address, with or without a scheme.
fn is_address(value: &str) -> bool {
    let url = if value.contains("://") { Url::parse(value) } else { Url::parse(&format!("http://{value}")) };
    url.is_ok_and(|url| url.has_host())
}

/// How an exception has to be written that is not understood as it is.
fn excepted(host: &str) -> Option<&str> {
    if let Some(domain) = host.strip_prefix('*').filter(|domain| domain.starts_with('.')) {
        return Some(domain);
    }
    let (name, port) = host.rsplit_once(':')?;
    let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let is_host = !name.is_empty() && (!name.contains(':') || name.ends_with(']'));
    (is_port && is_host).then(|| name.trim_start_matches('[').trim_end_matches(']'))
}
