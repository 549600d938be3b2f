//! The body of an error response: MoEngage's message, its id of the request, or the beginning of an unknown form.
//!
//! This file owns the forms of error bodies. It must not know what a status means.

use serde_json::Value;

use super::{body::Body, redact::Redactor, repair};

/// Most of an error body that is read, in bytes.
const MAX_ERROR_BODY: usize = 64 * 1024;

/// Most characters quoted of an unknown form.
const MAX_BEGINNING: usize = 80;

/// What an error body says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ErrorBody {
    /// Redacted and shortened.
    text: Option<ErrorText>,
    /// MoEngage's id of the request, redacted.
    pub(super) request_id: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum ErrorText {
    /// Message and kind of an API's error.
    Message(String),
    /// The title of a web page, of a firewall or a proxy.
    Title(String),
    /// The beginning of an unknown form.
    Beginning(String),
}

impl ErrorBody {
    /// `sentence`, followed by the text of the body.
    pub(super) fn follow(self, sentence: String) -> String {
        match self.text {
            Some(ErrorText::Message(text)) => format!("{sentence}; error message: {text}"),
            Some(ErrorText::Title(title)) => format!("{sentence}; the response is a web page titled `{title}`"),
            Some(ErrorText::Beginning(text)) => format!("{sentence}; the response begins with `{text}`"),
            None => sentence,
        }
    }
}

/// Reads an error body in any of the vendor's forms: `{"error": {code or type, message, target, request_id}}` (Campaign
/// Report API, Get Campaign Details API, v5), `{title, description, code}` (Campaign Stats and Reports API), `{"error":
/// "text", "message": "text"}` (the API firewall). The text of a web page is its title; of other text and unknown JSON,
/// the beginning. Other bodies are ignored, because the status is enough for the outcome.
pub(super) async fn read(body: &mut Body, redactor: &Redactor) -> ErrorBody {
    let mut bytes = Vec::new();
    while bytes.len() < MAX_ERROR_BODY {
        match body.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk[..chunk.len().min(MAX_ERROR_BODY - bytes.len())]),
            Ok(None) | Err(_) => break,
        }
    }
    parse(&repair::unpack(&bytes.into(), MAX_ERROR_BODY).unwrap_or_default(), redactor)
}

fn parse(body: &[u8], redactor: &Redactor) -> ErrorBody {
    let cleaned = |text: String| Some(redactor.clean(&text)).filter(|text| !text.is_empty());
    let beginning = || beginning(body, redactor).map(ErrorText::Beginning);
    let Ok(json) = serde_json::from_slice::<Value>(body) else {
        let text = title(body).and_then(cleaned).map(ErrorText::Title).or_else(beginning);
        return ErrorBody { text, request_id: None };
    };
    let nested = json.get("error").filter(|error| error.is_object());
    let text_of = |object: &Value, name: &str| match object.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let field = |name: &str| text_of(nested.unwrap_or(&json), name);
    let known: Vec<_> =
        ["error", "type", "code", "title", "message", "description"].into_iter().filter_map(field).collect();
    let is_unknown = known.is_empty() && json.as_object().is_some_and(|object| !object.is_empty());
    let parts: Vec<_> = known.into_iter().filter(|text| !text.trim().is_empty()).collect();
    let target = field("target").filter(|target| !target.trim().is_empty());
    let mut text = match target.filter(|_| !parts.is_empty()) {
        Some(target) => format!("{} (about {target})", parts.join(": ")),
        None => parts.join(": "),
    };
    let details = nested.and_then(|error| error.get("details")).and_then(Value::as_array);
    for detail in details.into_iter().flatten() {
        let message = text_of(detail, "message").or_else(|| detail.as_str().map(str::to_owned));
        let Some(message) = message.filter(|message| !text.contains(message.as_str())) else { continue };
        let target = text_of(detail, "target").map(|target| format!("{target}: ")).unwrap_or_default();
        text = [text, format!("{target}{message}")]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join("; ");
    }
    let request_id = field("request_id").filter(|id| !id.is_empty()).or_else(|| text_of(&json, "response_id"));
    let text = cleaned(text).map(ErrorText::Message).or_else(|| beginning().filter(|_| is_unknown));
    ErrorBody { text, request_id: request_id.and_then(cleaned) }
}

/// The beginning of a text that is neither a web page nor binary. It is redacted before it is cut.
fn beginning(body: &[u8], redactor: &Redactor) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let is_odd = |c: char| c == '\u{fffd}' || (c.is_control() && !c.is_whitespace());
    if text.trim_start().starts_with('<') || text.chars().take(MAX_BEGINNING).any(is_odd) {
        return None;
    }
    let text: String = redactor.clean(&text).chars().take(MAX_BEGINNING).collect();
    Some(text.trim_end().to_owned()).filter(|text| !text.is_empty())
}

/// The title of a web page.
fn title(page: &[u8]) -> Option<String> {
    let page = String::from_utf8_lossy(page);
    // ASCII case folding keeps the position of every byte.
    let folded = page.to_ascii_lowercase();
    let tag = folded.find("<title")?;
    let start = tag + folded[tag..].find('>')? + 1;
    let end = start + folded[start..].find("</title").unwrap_or(folded.len() - start);
    let title = &page[start..end];
    let meant = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&#x27;", "'"), ("&amp;", "&")];
    Some(meant.iter().fold(title.to_owned(), |title, (written, meant)| title.replace(written, meant)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(body: &str) -> String {
        let redactor = Redactor::new(&"secret-key".into(), &"signature".into());
        parse(body.as_bytes(), &redactor).follow("no".to_owned())
    }

    #[test]
    fn every_form_of_an_error_body_is_shown() {
        for (body, text) in [
            (
                r#"{"error": {"attribute": "", "message": "no file", "type": "BAD REQUEST", "request_id": ""}}"#,
                "no; error message: BAD REQUEST: no file",
            ),
            (
                r#"{"error": {"code": "400 Bad Request", "message": "invalid", "target": "limit", "details": [{}]}}"#,
                "no; error message: 400 Bad Request: invalid (about limit)",
            ),
            (
                r#"{"response_id": "r", "error": {"code": "VALIDATION_FAILED", "message": "invalid", "target": null}}"#,
                "no; error message: VALIDATION_FAILED: invalid",
            ),
            (
                r#"{"title": "Forbidden Request", "description": null, "code": "kmqLuuHM"}"#,
                "no; error message: kmqLuuHM: Forbidden Request",
            ),
            (
                r#"{"error": "IP Validation Required", "message": "IP Validation Failed for secret-key"}"#,
                "no; error message: IP Validation Required: IP Validation Failed for [redacted]",
            ),
            (
                r#"{"response_id": "r", "error": {"code": "VALIDATION_FAILED", "message": "invalid", "details": [
                    {"target": "channels", "message": "no such channel"}, {"message": "invalid"}, "too many"]}}"#,
                "no; error message: VALIDATION_FAILED: invalid; channels: no such channel; too many",
            ),
            ("default backend - 404\n", "no; the response begins with `default backend - 404`"),
            ("Bad key secret-key", "no; the response begins with `Bad key [redacted]`"),
            (
                r#"{"errors": [{"message": "bad"}]}"#,
                "no; the response begins with `{\"errors\": [{\"message\": \"bad\"}]}`",
            ),
            ("", "no"),
            ("{}", "no"),
            ("[1]", "no"),
            ("\u{1}\u{2}binary", "no"),
            (
                "<html><HEAD><TITLE lang=en>\nAttention Required! | Tom &amp; Jerry</TITLE>",
                "no; the response is a web page titled `Attention Required! | Tom & Jerry`",
            ),
            ("<html><title>cut", "no; the response is a web page titled `cut`"),
            ("<html><title", "no"),
        ] {
            assert_eq!(explained(body), text, "{body}");
        }
    }
}
