//! An event as blocks for Slack, with a line of text for Mattermost and others, and for Slack's own previews.
//!
//! <https://docs.slack.dev/reference/block-kit/blocks> has the limits.

use reqwest::{RequestBuilder, header::CONTENT_TYPE};
use serde_json::{Value, json};
use url::Url;

use crate::event::{Event, Mood};

/// Maximum length of a section's text; Slack's is 3,000.
const SECTION: usize = 3000;

/// Maximum length of a header; Slack's is 150.
const HEADER: usize = 150;

/// Maximum length of one fact, so that several fit into a section.
const FACT: usize = 500;

/// Maximum length of the line of text.
const LINE: usize = 1000;

pub(super) fn request(http: &reqwest::Client, url: &Url, event: &Event) -> RequestBuilder {
    http.post(url.clone()).header(CONTENT_TYPE, "application/json").body(body(event).to_string())
}

fn body(event: &Event) -> Value {
    let notice = event.notice();
    let icon = match notice.mood {
        Mood::Bad => ":rotating_light:",
        Mood::Good => ":white_check_mark:",
        Mood::Neutral => ":information_source:",
    };
    let header = within(HEADER, &format!("{icon} "), &[&notice.title]);
    let mut blocks = vec![json!({ "type": "header", "text": { "type": "plain_text", "emoji": true, "text": header } })];
    if let Some(text) = &notice.text {
        let text = within(SECTION, "", &[text]);
        blocks.push(json!({ "type": "section", "text": { "type": "plain_text", "emoji": false, "text": text } }));
    }
    let mut facts = String::new();
    for (name, value) in &notice.facts {
        let line = within(FACT, &format!("*{name}:* "), &[value]) + "\n";
        if units(&facts) + units(&line) <= SECTION {
            facts += &line;
        }
    }
    // `verbatim`: names of channels and addresses in MoEngage's text do not become links.
    let section =
        |text: &str| json!({ "type": "section", "text": { "type": "mrkdwn", "verbatim": true, "text": text } });
    if !facts.is_empty() {
        blocks.push(section(facts.trim_end()));
    }
    if let Some(advice) = &notice.advice {
        blocks.push(section(&within(SECTION, "*What to do:* ", &[advice])));
    }
    let mut foot = within(FACT, "", &[&event.instance]);
    if let Some(page) = &event.page {
        // An address has no space and no `<` or `>`.
        foot += &format!(" · <{}|status page>", page.replace('&', "&amp;").replace('|', "%7C"));
    }
    blocks.push(json!({
        "type": "context", "elements": [{ "type": "mrkdwn", "verbatim": true, "text": foot }]
    }));
    let line = within(LINE, &format!("{icon} "), &[&event.instance, ": ", &event.content.message()]);
    let page = event.page.as_ref().map_or(String::new(), |page| format!(" {}", page.replace('&', "&amp;")));
    json!({ "text": line + &page, "blocks": blocks })
}

/// `start` and the escaped `parts`, cut to `limit`.
///
/// Part of the text comes from MoEngage. `&`, `<` and `>` could mention a whole channel or disguise a link; Mattermost
/// mentions everyone at a plain `@all`, which a zero-width joiner after the `@` prevents.
fn within(limit: usize, start: &str, parts: &[&str]) -> String {
    let mut text = start.to_owned();
    for c in parts.iter().flat_map(|part| part.chars()) {
        let mut plain = [0; 4];
        let escaped = match c {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            '@' => "@\u{200d}",
            c => c.encode_utf8(&mut plain),
        };
        // One is left for the dots.
        if units(&text) + units(escaped) > limit - 1 {
            return text + "…";
        }
        text += escaped;
    }
    text
}

/// The length as JavaScript and Java count it, which is never less than the number of characters.
fn units(text: &str) -> usize {
    text.encode_utf16().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_moengage_mentions_no_one() {
        assert_eq!(within(100, "", &["<!channel> & @all"]), "&lt;!channel&gt; &amp; @\u{200d}all");
    }

    #[test]
    fn a_text_is_cut_between_escaped_characters() {
        assert_eq!(within(12, "> ", &["&&&"]), "> &amp;…");
        assert_eq!(within(9, "", &["😀😀😀😀😀"]), "😀😀😀😀…");
    }
}
