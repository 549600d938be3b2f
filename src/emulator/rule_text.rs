//! Rules as text, as on the command line: `status=503,times=2`.

use std::{collections::BTreeMap, str::FromStr};

use axum::http::StatusCode;
use jiff::{SignedDuration, Span, SpanRelativeTo};
use url::Url;

use super::faults::{ContentEncoding, Cut, Fault, Framing, OddJson, RedirectTo, Reset, Rule};
use crate::config::SourceKind;

/// Why a text is not a [`Rule`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidRule(String);

/// Every word that names a fault.
const FAULTS: [&str; 22] = [
    "status",
    "html",
    "json-error",
    "empty",
    "truncate",
    "slow",
    "stall",
    "reset",
    "reset-mid-body",
    "bit-flip",
    "not-yet",
    "redirect",
    "rate-limited",
    "unauthorized",
    "wrong-date",
    "content-encoding",
    "firewall",
    "repeat",
    "shrink",
    "hide",
    "extra-total",
    "odd-json",
];
/// The other words, each with the one fault that it belongs to.
const DETAILS: [(&str, Option<&str>); 9] = [
    ("path", None),
    ("api", None),
    ("page", None),
    ("times", None),
    ("skip", None),
    ("body", Some("status")),
    ("framing", Some("truncate")),
    ("code", Some("redirect")),
    ("until", Some("rate-limited")),
];

impl FromStr for Rule {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Rule, InvalidRule> {
        let mut words = Words::split(text)?;
        let fault = words.the_fault(text)?;
        for word in words.0.keys() {
            match DETAILS.iter().find(|(detail, _)| detail == word) {
                Some((_, Some(owner))) if *owner != fault => {
                    return Err(InvalidRule(format!("`{word}` goes with `{owner}`, not with `{fault}`")));
                }
                _ => {}
            }
        }
        Ok(Rule {
            path_contains: words.value("path", "a part of the path")?,
            api: words.parsed("api", SOURCES, SourceKind::parse)?,
            page: words.parsed("page", "a whole number from 1", |n| n.parse().ok().filter(|n| *n > 0))?,
            times: words.parsed("times", "a whole number from 1", |n| n.parse().ok().filter(|n| *n > 0))?,
            skip: words.parsed("skip", "a whole number", |n| n.parse().ok())?.unwrap_or(0),
            fault: words.fault(fault)?,
        })
    }
}

/// The words of a rule with their values; reading one removes it.
struct Words(BTreeMap<String, Option<String>>);

impl Words {
    fn split(text: &str) -> Result<Words, InvalidRule> {
        let mut words = BTreeMap::new();
        for item in split_at_commas(text) {
            let (word, value) = match item.split_once('=') {
                Some((word, value)) => (word.trim(), Some(value.trim().to_owned())),
                None => (item.trim(), None),
            };
            if word.is_empty() {
                return Err(InvalidRule(format!("`{text}` lacks a word: a rule is written like `status=503,times=2`")));
            }
            if !FAULTS.contains(&word) && !DETAILS.iter().any(|(detail, _)| *detail == word) {
                let details = DETAILS.map(|(detail, _)| detail).join(", ");
                return Err(InvalidRule(format!(
                    "`{word}` is unknown: a rule is made of a fault ({}) and details ({details})",
                    FAULTS.join(", ")
                )));
            }
            if words.insert(word.to_owned(), value).is_some() {
                return Err(InvalidRule(format!("`{word}` is given twice")));
            }
        }
        Ok(Words(words))
    }

    /// The one fault among the words.
    fn the_fault(&self, text: &str) -> Result<&'static str, InvalidRule> {
        let mut named = FAULTS.into_iter().filter(|fault| self.0.contains_key(*fault));
        match (named.next(), named.next()) {
            (Some(fault), None) => Ok(fault),
            (Some(one), Some(other)) => {
                Err(InvalidRule(format!("`{one}` and `{other}` are two faults: give each a rule of its own")))
            }
            (None, _) => {
                Err(InvalidRule(format!("`{text}` says when but not what: add a fault ({})", FAULTS.join(", "))))
            }
        }
    }

    fn fault(&mut self, word: &'static str) -> Result<Fault, InvalidRule> {
        Ok(match word {
            "status" => Fault::Status {
                code: self.required(word, "a status from 200 to 599", |n| {
                    n.parse()
                        .ok()
                        .and_then(|n| StatusCode::from_u16(n).ok())
                        .filter(|n| (200..600).contains(&n.as_u16()))
                })?,
                body: self.value("body", "a text")?,
            },
            "truncate" => Fault::Truncate {
                at: self.required(word, CUT, parse_cut)?,
                framing: self
                    .parsed("framing", "content-length, chunked or close", |name| match name {
                        "content-length" => Some(Framing::ContentLength),
                        "chunked" => Some(Framing::Chunked),
                        "close" => Some(Framing::Close),
                        _ => None,
                    })?
                    .unwrap_or_default(),
            },
            "slow" => Fault::Slow {
                bytes_per_second: self.required(word, "a whole number of bytes a second from 1", |n| n.parse().ok())?,
            },
            "reset-mid-body" => Fault::ResetMidBody { at: self.required(word, CUT, parse_cut)? },
            "bit-flip" => {
                Fault::BitFlip { offset: self.optional(word, "the number of a byte, or nothing", |n| n.parse().ok())? }
            }
            "redirect" => Fault::Redirect {
                to: self.required(word, "`storage` or a URL", |to| match to {
                    "storage" => Some(RedirectTo::Storage),
                    url => Url::parse(url).ok().map(RedirectTo::Url),
                })?,
                code: self
                    .parsed("code", "302 or 307", |code| match code {
                        "302" => Some(StatusCode::FOUND),
                        "307" => Some(StatusCode::TEMPORARY_REDIRECT),
                        _ => None,
                    })?
                    .unwrap_or(StatusCode::FOUND),
            },
            "rate-limited" => Fault::RateLimited {
                retry_after: self.optional(word, "the text of a header, or nothing", header_text)?,
                reset: self.parsed("until", "a span such as 30s, or the text of a header", |text| {
                    let after = parse_offset(text).map(Reset::After);
                    after.or_else(|| header_text(text).map(Reset::Text))
                })?,
            },
            "firewall" => Fault::Firewall {
                code: self
                    .optional(word, "400, 401 or 403, or nothing", |code| match code {
                        "400" => Some(StatusCode::BAD_REQUEST),
                        "401" => Some(StatusCode::UNAUTHORIZED),
                        "403" => Some(StatusCode::FORBIDDEN),
                        _ => None,
                    })?
                    .unwrap_or(StatusCode::FORBIDDEN),
            },
            "hide" => Fault::Hide { rows: self.optional(word, "a number of rows, or nothing", |n| n.parse().ok())? },
            "extra-total" => {
                Fault::ExtraTotal { by: self.required(word, "a whole number from 1", |n| n.parse().ok())? }
            }
            "odd-json" => Fault::OddJson(self.required(word, ODD_JSON, |what| {
                OddJson::WORDS.iter().find(|(word, _)| *word == what).map(|(_, odd)| *odd)
            })?),
            "wrong-date" => {
                Fault::WrongDate { offset: self.required(word, "a span such as 90s, 8d or -2h", parse_offset)? }
            }
            "content-encoding" => Fault::ContentEncoding(self.required(word, "gzip or label", |what| match what {
                "gzip" => Some(ContentEncoding::Layer),
                "label" => Some(ContentEncoding::LabelOnly),
                _ => None,
            })?),
            plain => {
                if let Some(Some(value)) = self.0.remove(plain) {
                    return Err(InvalidRule(format!("`{plain}` takes no value, but `{value}` is given")));
                }
                match plain {
                    "html" => Fault::Html,
                    "json-error" => Fault::JsonError,
                    "empty" => Fault::Empty,
                    "stall" => Fault::Stall,
                    "reset" => Fault::Reset,
                    "not-yet" => Fault::NotYet,
                    "repeat" => Fault::Repeat,
                    "shrink" => Fault::Shrink,
                    _ => Fault::Unauthorized,
                }
            }
        })
    }

    /// The value of a detail, if that is given.
    fn value(&mut self, word: &str, expected: &str) -> Result<Option<String>, InvalidRule> {
        self.parsed(word, expected, |value| Some(value.to_owned()))
    }

    /// The value of a detail, if that is given, as parsed by `parse`.
    fn parsed<T>(
        &mut self,
        word: &str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, InvalidRule> {
        if !self.0.contains_key(word) {
            return Ok(None);
        }
        self.required(word, expected, parse).map(Some)
    }

    /// The value of a word whose value is optional.
    fn optional<T>(
        &mut self,
        word: &str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, InvalidRule> {
        if self.0.get(word).is_some_and(Option::is_none) {
            return Ok(None);
        }
        self.parsed(word, expected, parse)
    }

    fn required<T>(&mut self, word: &str, expected: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, InvalidRule> {
        let value = self.0.remove(word).flatten();
        let given = match &value {
            Some(value) => format!("not `{}`", value.escape_debug()),
            None => "but has no value".to_owned(),
        };
        value.as_deref().and_then(parse).ok_or_else(|| InvalidRule(format!("`{word}` must be {expected}, {given}")))
    }
}

const SOURCES: &str = "campaign_report, daily_dump, campaign_stats, campaigns, campaign_meta or executions";
const ODD_JSON: &str = "bom, nan, utf8, duplicate, number or surrogate";
const CUT: &str = "a number of bytes, or a percentage from 0% to 99%";

fn parse_cut(text: &str) -> Option<Cut> {
    match text.strip_suffix('%') {
        Some(percent) => percent.parse().ok().filter(|percent| *percent < 100).map(Cut::Percent),
        None => text.parse().ok().map(Cut::Bytes),
    }
}

/// `text`, if it is valid in a header.
fn header_text(text: &str) -> Option<String> {
    text.chars().all(|c| c == ' ' || c.is_ascii_graphic()).then(|| text.to_owned())
}

fn parse_offset(text: &str) -> Option<SignedDuration> {
    text.parse::<Span>().ok()?.to_duration(SpanRelativeTo::days_are_24_hours()).ok()
}

fn split_at_commas(text: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, items.last_mut()) {
            (',', _) => items.push(String::new()),
            ('\\', Some(item)) => item.extend(chars.next()),
            (c, Some(item)) => item.push(c),
            (_, None) => {}
        }
    }
    items
}
