//! Pings as healthchecks.io understands them: the address itself, or with `/start`, `/fail` or `/log` appended.

use reqwest::{RequestBuilder, header::CONTENT_TYPE};
use url::Url;

use super::Ping;

pub(super) fn request(http: &reqwest::Client, url: &Url, ping: Ping, text: String) -> RequestBuilder {
    let suffix = match ping {
        Ping::Start => "/start",
        Ping::Success => "",
        Ping::Fail => "/fail",
        Ping::Log => "/log",
    };
    let mut url = url.clone();
    let path = format!("{}{suffix}", url.path().trim_end_matches('/'));
    url.set_path(&path);
    http.post(url).header(CONTENT_TYPE, "text/plain; charset=utf-8").body(text)
}
