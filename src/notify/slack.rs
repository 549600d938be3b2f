//! An event as a line of text, for an incoming webhook of Slack or of what understands the same.

use reqwest::{RequestBuilder, header::CONTENT_TYPE};
use serde_json::json;
use url::Url;

use crate::event::{Content, Event};

pub(super) fn request(http: &reqwest::Client, url: &Url, event: &Event) -> RequestBuilder {
    let sign = match event.content {
        Content::AlarmBegan(_) | Content::AlarmWorsened(_) => ":rotating_light:",
        Content::AlarmEnded(_) | Content::Stored(_) => ":white_check_mark:",
        Content::Summary(_) | Content::Test(_) => ":information_source:",
    };
    let body = json!({ "text": format!("{sign} {}", escape(&event.content.message())) });
    http.post(url.clone()).header(CONTENT_TYPE, "application/json").body(body.to_string())
}

/// Some of the text is the vendor's. With the first three characters it could call everybody, or show a link as another;
/// Mattermost calls everybody at a plain `@all`, unless something stands between.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('@', "@\u{200d}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_the_vendor_calls_nobody() {
        assert_eq!(escape("<!channel> & @all"), "&lt;!channel&gt; &amp; @\u{200d}all");
    }
}
