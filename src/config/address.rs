//! Which addresses are permitted: HTTPS, and plain HTTP for loopback or with `network.allow_http`.

use url::{Host, Url};

/// The message for an address that [`is_permitted`] rejects.
pub(super) const UNENCRYPTED: &str = "http:// is not encrypted and only allowed for loopback addresses; use https://, \
                                      or set allow_http = true in [network]";

/// The `http://` or `https://` URL in `text`, if it is one with a host.
pub(super) fn parse(text: &str) -> Option<Url> {
    Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

/// Whether a request may be sent to `url`.
pub fn is_permitted(url: &Url, allow_http: bool) -> bool {
    url.scheme() == "https" || allow_http || is_loopback(url)
}

/// Whether the host of `url` is a loopback address or `localhost`.
pub fn is_loopback(url: &Url) -> bool {
    url.host().is_some_and(|host| is_loopback_host(&host))
}

/// Whether `host` is a loopback address or `localhost`.
pub fn is_loopback_host<S: AsRef<str>>(host: &Host<S>) -> bool {
    match host {
        Host::Ipv4(ip) => ip.is_loopback(),
        Host::Ipv6(ip) => ip.is_loopback(),
        Host::Domain(name) => name.as_ref() == "localhost",
    }
}
