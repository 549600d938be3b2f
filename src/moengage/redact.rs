//! Redaction of every text from outside, before it is stored or shown.
//!
//! This file owns the rule that no text holds a secret. It must not know how requests are sent.

use std::{cmp::Reverse, ops::Range};

use bytes::Bytes;
use memchr::memmem;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use url::form_urlencoded;

/// Longest text of the vendor's that is kept, in characters.
const MAX_TEXT: usize = 200;

/// A beginning of a secret of this many bytes is redacted too, because a text may be cut within a secret. Shorter values of
/// a presigned query do not count as secrets.
const SECRET_PREFIX_BYTES: usize = 8;

/// Removes secrets and unprintable characters from texts, and shortens them.
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

    /// Adds the values of a presigned query to the secrets, encoded and decoded.
    pub(super) fn withhold_query(&mut self, query: &str) {
        let encoded = query.split('&').filter_map(|pair| Some(pair.split_once('=')?.1.to_owned()));
        let decoded = form_urlencoded::parse(query.as_bytes()).map(|(_, value)| value.into_owned());
        self.secrets
            .extend(encoded.chain(decoded).filter(|value| value.len() >= SECRET_PREFIX_BYTES).map(SecretString::from));
    }

    /// Whether a text contains the signature.
    pub(super) fn finds_signature(&self, text: &str) -> bool {
        text.to_ascii_lowercase().contains(self.signature.expose_secret())
    }

    /// The vendor's text, printable, redacted and shortened, in this order: removing a character may complete a secret, and
    /// a cut may hide one from redaction.
    pub(super) fn clean(&self, text: &str) -> String {
        self.redact(&printable(text)).chars().take(MAX_TEXT).collect()
    }

    /// The text without the secrets in any case, because hexadecimal digits may have either.
    pub(super) fn redact(&self, text: &str) -> String {
        let found = self.secrets.iter().flat_map(|secret| find(text, secret.expose_secret())).collect();
        String::from_utf8_lossy(&without(text.as_bytes(), found)).into_owned()
    }

    /// A page without the secrets that a server wrote into it; all other bytes are unchanged.
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

/// Replaces `found`, whose ranges may overlap, by `[redacted]`.
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

/// Where a text contains a secret or a beginning of it. ASCII case folding keeps the position of every byte.
fn find(text: &str, secret: &str) -> Vec<Range<usize>> {
    let (folded, wanted) = (text.to_ascii_lowercase(), secret.to_ascii_lowercase());
    let (folded, wanted) = (folded.as_bytes(), wanted.as_bytes());
    let prefix = &wanted[..wanted.len().min(SECRET_PREFIX_BYTES)];
    memmem::find_iter(folded, prefix)
        .map(|at| {
            let same = folded[at..].iter().zip(wanted).take_while(|(found, wanted)| found == wanted).count();
            text.floor_char_boundary(at)..text.ceil_char_boundary(at + same)
        })
        .collect()
}

/// A name from outside, printable and shortened.
pub fn shown(name: &str) -> String {
    printable(name).chars().take(MAX_TEXT).collect()
}

/// Collapses white space into single spaces; removes control characters, invisible ones, and marks of writing direction.
fn printable(text: &str) -> String {
    let shown: String = text
        .chars()
        .map(|c| if c.is_whitespace() { ' ' } else { c })
        .filter(|c| !c.is_control() && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'))
        .collect();
    shown.split_whitespace().collect::<Vec<_>>().join(" ")
}
