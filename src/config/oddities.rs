//! Warnings: settings that are valid and probably a mistake.

use url::Url;

use super::{Problem, document::KeyPath, secret::PLACEHOLDER, variables::Env};

/// The variables that name a proxy.
const PROXIES: [&str; 6] = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// The variables that name hosts to reach without a proxy.
const EXCEPTIONS: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// A character in a report's name that is probably a mistake.
pub(super) fn report_name(name: &str, at: &KeyPath<'_>) -> Option<Problem> {
    let (position, found) = name.chars().enumerate().find(|(_, c)| is_invisible_or_like_a_space(*c))?;
    Some(at.problem(format_args!(
        "{name:?} has U+{:04X} as its character {}, which is invisible or looks like a space and often comes from a web \
         page; MoEngage finds the report only if its name in the dashboard has it too",
        u32::from(found),
        position + 1
    )))
}

/// The placeholder of an example.
pub(super) fn app_id(app_id: &str, at: &KeyPath<'_>) -> Option<Problem> {
    app_id.starts_with(PLACEHOLDER).then(|| {
        at.problem(format_args!("{app_id:?} is the placeholder of an example; replace it with MoEngage's workspace id"))
    })
}

fn is_invisible_or_like_a_space(c: char) -> bool {
    (c.is_whitespace() && c != ' ')
        || matches!(c, '\u{ad}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
}

/// Proxy variables with values that the HTTP client ignores.
pub(super) fn proxies(env: &Env) -> Vec<Problem> {
    let of = |name: &'static str| Some((name, env.get(name)?.trim())).filter(|(_, value)| !value.is_empty());
    let unusable = PROXIES.into_iter().filter_map(of).filter(|(_, value)| !is_address(value)).map(|(name, _)| {
        // Not shown: it may hold a password.
        Problem::new(format!(
            "environment variable {name}: not an address such as \"http://proxy.example:3128\", so no proxy is used for it"
        ))
    });
    let exceptions = EXCEPTIONS.into_iter().filter_map(of).flat_map(|(name, value)| {
        value.split(',').map(str::trim).filter_map(move |host| {
            let instead = excepted(host)?;
            Some(Problem::new(format!("environment variable {name}: {host:?} has no effect; write {instead:?}")))
        })
    });
    unusable.chain(exceptions).collect()
}

/// Whether `value` can be an address, with or without a scheme.
fn is_address(value: &str) -> bool {
    let url = if value.contains("://") { Url::parse(value) } else { Url::parse(&format!("http://{value}")) };
    url.is_ok_and(|url| url.has_host())
}

/// The form of an exception that the HTTP client understands, if this one is not.
fn excepted(host: &str) -> Option<&str> {
    if let Some(domain) = host.strip_prefix('*').filter(|domain| domain.starts_with('.')) {
        return Some(domain);
    }
    let (name, port) = host.rsplit_once(':')?;
    let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let is_host = !name.is_empty() && (!name.contains(':') || name.ends_with(']'));
    (is_port && is_host).then(|| name.trim_start_matches('[').trim_end_matches(']'))
}
