//! Cleaning of every text that came from outside, before it is kept or shown.
//!
//! This file owns the rule that no secret is in a text. It must not know how requests are made.

use std::{cmp::Reverse, ops::Range};

use bytes::Bytes;
use memchr::memmem;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use url::form_urlencoded;

/// Longest text taken over from the vendor, in characters.
const MAX_TEXT: usize = 200;

/// This many bytes of the beginning of a secret count as the secret: a text may have been cut within one. Also the
/// least that a value of a presigned query must have to be taken for one.
const TELLING_BYTES: usize = 8;

/// Makes texts from outside fit to be kept and shown: no secret, nothing but printable characters, not too long.
pub(super) struct Redactor {
    signature: SecretString,
    secrets: Vec<SecretString>,
}

impl Redactor {
    pub(super) fn new(secret_key: &SecretString, signature: &SecretString) -> Self {
        let encoded = utf8_percent_encode(secret_key.expose_secret(), NON_ALPHANUMERIC).to_string().into();
        let secrets = [secret_key.clone(), signature.clone(), encoded];
        let secrets = secrets.into_iter().filter(|secret| !secret.expose_secret().is_empty()).collect();
        Redactor { signature: signature.clone(), secrets }
    }

    /// Keeps the values of a presigned query secret too, as they are written and as they are meant.
    pub(super) fn withhold_query(&mut self, query: &str) {
        let written = query.split('&').filter_map(|pair| Some(pair.split_once('=')?.1.to_owned()));
        let meant = form_urlencoded::parse(query.as_bytes()).map(|(_, value)| value.into_owned());
        self.secrets.extend(written.chain(meant).filter(|value| value.len() >= TELLING_BYTES).map(SecretString::from));
    }

    /// Whether a text carries the signature.
    pub(super) fn finds_signature(&self, text: &str) -> bool {
        text.to_ascii_lowercase().contains(self.signature.expose_secret())
    }

    /// A text of the vendor's. Secrets go last but for the cut: dropping a character may have joined one together,
    /// and half a secret is a secret too.
    pub(super) fn clean(&self, text: &str) -> String {
        self.redact(&printable(text)).chars().take(MAX_TEXT).collect()
    }

    /// The text without the secrets; case does not matter, because hexadecimal digits come in both.
    pub(super) fn redact(&self, text: &str) -> String {
        let found = self.secrets.iter().flat_map(|secret| find(text, secret.expose_secret())).collect();
        String::from_utf8_lossy(&without(text.as_bytes(), found)).into_owned()
    }

    /// A whole page without the secrets that a server wrote into it, byte for byte the same otherwise.
    pub(super) fn redact_page(&self, page: &Bytes) -> Bytes {
        let folded = page.to_ascii_lowercase();
        let found: Vec<_> = self
            .secrets
            .iter()
            .map(|secret| secret.expose_secret().to_ascii_lowercase())
            .flat_map(|secret| memmem::find_iter(&folded, &secret).map(|at| at..at + secret.len()).collect::<Vec<_>>())
            .collect();
        match found.is_empty() {
            true => page.clone(),
            false => without(page, found).into(),
        }
    }
}

/// The text with `[redacted]` in place of what was found, which may overlap.
fn without(text: &[u8], mut found: Vec<Range<usize>>) -> Vec<u8> {
    found.sort_unstable_by_key(|range| (range.start, Reverse(range.end)));
    let mut kept = Vec::with_capacity(text.len());
    let mut from = 0;
    for range in found {
        if range.start >= from {
            kept.extend_from_slice(&text[from..range.start]);
            kept.extend_from_slice(b"[redacted]");
        }
        from = from.max(range.end);
    }
    kept.extend_from_slice(&text[from..]);
    kept
}

/// Where a secret is in a text, or what a cut left of one. ASCII folding keeps every byte's place, so what is found in
/// the folded text is in the text itself.
fn find(text: &str, secret: &str) -> Vec<Range<usize>> {
    let (folded, wanted) = (text.to_ascii_lowercase(), secret.to_ascii_lowercase());
    let (folded, wanted) = (folded.as_bytes(), wanted.as_bytes());
    let telling = &wanted[..wanted.len().min(TELLING_BYTES)];
    memmem::find_iter(folded, telling)
        .map(|at| {
            let same = folded[at..].iter().zip(wanted).take_while(|(found, wanted)| found == wanted).count();
            text.floor_char_boundary(at)..text.ceil_char_boundary(at + same)
        })
        .collect()
}

/// A name from outside, fit to be shown.
pub fn shown(name: &str) -> String {
    printable(name).chars().take(MAX_TEXT).collect()
}

/// White space in a row becomes one space; control characters and those that turn the direction of writing go.
fn printable(text: &str) -> String {
    let shown: String = text
        .chars()
        .map(|c| if c.is_whitespace() { ' ' } else { c })
        .filter(|c| !c.is_control() && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'))
        .collect();
    shown.split_whitespace().collect::<Vec<_>>().join(" ")
}
