//! An event as a line of text for the incoming webhooks of Slack, Mattermost and others.

use reqwest::{RequestBuilder, header::CONTENT_TYPE};
use serde_json::json;
use url::Url;

use crate::event::{Content, Event};

pub(super) fn request(http: &reqwest::Client, url: &Url, event: &Event) -> RequestBuilder {
    let icon = match event.content {
        Content::AlarmBegan(_) | Content::AlarmWorsened(_) => ":rotating_light:",
        Content::AlarmEnded(_) | Content::Stored(_) | Content::Tables(_) => ":white_check_mark:",
        Content::SchemaChanged(_) | Content::Summary(_) | Content::Test(_) => ":information_source:",
    };
    let body = json!({ "text": format!("{icon} {}", escape(&event.content.message())) });
    http.post(url.clone()).header(CONTENT_TYPE, "application/json").body(body.to_string())
}

/// Part of the text comes from MoEngage. `&`, `<` and `>` could mention a whole channel or disguise a link; Mattermost
/// mentions everyone at a plain `@all`, which a zero-width joiner after the `@` prevents.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('@', "@\u{200d}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_moengage_mentions_no_one() {
        assert_eq!(escape("<!channel> & @all"), "&lt;!channel&gt; &amp; @\u{200d}all");
    }
}
