//! An event as an Adaptive Card for a Workflow of Microsoft Teams ("When a Teams webhook request is received").

use reqwest::{RequestBuilder, header::CONTENT_TYPE};
use serde_json::{Value, json};
use url::Url;

use crate::event::{Event, Mood, Notice};

/// Maximum size of a message in bytes: Teams refuses one of more than 28 KB.
const MESSAGE: usize = 28_000;

pub(super) fn request(http: &reqwest::Client, url: &Url, event: &Event) -> RequestBuilder {
    http.post(url.clone()).header(CONTENT_TYPE, "application/json").body(body(event))
}

/// The message, with its texts cut as far as the limit demands.
fn body(event: &Event) -> String {
    let notice = event.notice();
    let mut limit = 4000;
    loop {
        let body = card(event, &notice, limit).to_string();
        if body.len() <= MESSAGE || limit == 0 {
            return body;
        }
        limit /= 2;
    }
}

/// The card, with at most `limit` characters of each text. All texts are runs, which have no formatting: part of them comes
/// from MoEngage.
fn card(event: &Event, notice: &Notice, limit: usize) -> Value {
    let cut = |text: &str| match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    };
    let run = |text: &str| json!({ "type": "TextRun", "text": cut(text) });
    let paragraph = |runs: Vec<Value>| json!({ "type": "RichTextBlock", "inlines": runs });
    let named = |name: &str, value: &str| {
        paragraph(vec![json!({ "type": "TextRun", "text": format!("{name}: "), "weight": "Bolder" }), run(value)])
    };
    let color = match notice.mood {
        Mood::Bad => "Attention",
        Mood::Good => "Good",
        Mood::Neutral => "Accent",
    };
    let title = json!({
        "type": "TextRun", "text": cut(&notice.title), "weight": "Bolder", "size": "Large", "color": color
    });
    let mut body = vec![paragraph(vec![title])];
    body.extend(notice.text.as_ref().map(|text| paragraph(vec![run(text)])));
    body.extend(notice.facts.iter().map(|(name, value)| named(name, value)));
    body.extend(notice.advice.as_ref().map(|advice| named("What to do", advice)));
    body.push(named("Instance", &event.instance));
    let mut card = json!({
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": { "width": "Full" },
        "fallbackText": cut(&notice.title),
        "body": body,
    });
    if let Some(page) = &event.page {
        card["actions"] = json!([{ "type": "Action.OpenUrl", "title": "Status page", "url": page }]);
    }
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": null, "content": card
        }],
    })
}
