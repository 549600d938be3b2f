//! The ways in which a vendor misbehaves, when each strikes, and how to write them on a command line.
//!
//! This file owns the words and the counting. It must not know how a fault is carried out.

use std::{
    collections::BTreeMap,
    fmt,
    num::NonZeroU32,
    str::FromStr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use axum::http::StatusCode;
use jiff::{SignedDuration, Span, SpanRelativeTo};
use url::Url;

use crate::config::SourceKind;

/// One misbehaviour and the requests that it strikes.
///
/// Of several rules that would strike a request the first one does, and the others don't count it; only
/// [`Fault::WrongDate`] goes together with another fault. A fault of the body passes over requests that would be given
/// neither an archive nor a page of JSON anyway, uncounted.
///
/// As text, a rule is a list of `word` or `word=value`, separated by commas; `\` before a comma or a backslash makes
/// it part of a value. One word names the fault:
///
/// | word | fault |
/// |---|---|
/// | `status=503`, `body=TEXT` | [`Fault::Status`] |
/// | `html`, `json-error`, `empty` | [`Fault::Html`], [`Fault::JsonError`], [`Fault::Empty`] |
/// | `truncate=50%` or `truncate=1000`, `framing=content-length` (or `chunked`, `close`) | [`Fault::Truncate`] |
/// | `slow=100` | [`Fault::Slow`], in bytes a second |
/// | `stall`, `reset` | [`Fault::Stall`], [`Fault::Reset`] |
/// | `reset-mid-body=50%` or `reset-mid-body=1000` | [`Fault::ResetMidBody`] |
/// | `bit-flip` or `bit-flip=1000` | [`Fault::BitFlip`], at that byte |
/// | `not-yet`, `unauthorized` | [`Fault::NotYet`], [`Fault::Unauthorized`] |
/// | `redirect=storage` or `redirect=URL`, `code=302` (or `307`) | [`Fault::Redirect`] |
/// | `firewall` or `firewall=403` (or `400`, `401`) | [`Fault::Firewall`] |
/// | `rate-limited` or `rate-limited=RETRY-AFTER`, `until=30s` (or any text) | [`Fault::RateLimited`] |
/// | `wrong-date=-8d` | [`Fault::WrongDate`] |
/// | `content-encoding=gzip` or `content-encoding=label` | [`Fault::ContentEncoding`] |
/// | `repeat`, `shrink` | [`Fault::Repeat`], [`Fault::Shrink`] |
/// | `hide` or `hide=3` | [`Fault::Hide`], all rows of a page, or this number |
/// | `extra-total=5` | [`Fault::ExtraTotal`] |
/// | `odd-json=nan` (or `bom`, `utf8`, `duplicate`, `number`, `surrogate`) | [`Fault::OddJson`] |
///
/// The others say when: `path=TEXT`, `api=SOURCE`, `page=N`, `times=N`, `skip=N`, as the fields below.
///
/// ```
/// use moesync::emulator::{Fault, Rule};
///
/// let rule: Rule = "status=503,times=2,path=Daily".parse().unwrap();
/// assert_eq!(rule.times, Some(2));
/// assert!(matches!(rule.fault, Fault::Status { code, .. } if code == 503));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Strikes only requests whose decoded path contains this; `None` is every request.
    pub path_contains: Option<String>,
    /// Strikes only requests to this API; `None` is every request.
    pub api: Option<SourceKind>,
    /// Strikes only requests for this page of JSON, from 1: for statistics it follows from offset and limit. `None` is
    /// every request.
    pub page: Option<u64>,
    /// How often it strikes; `None` is always.
    pub times: Option<u32>,
    /// How many requests it lets pass before it begins.
    pub skip: u32,
    /// What it does.
    pub fault: Fault,
}

impl From<Fault> for Rule {
    /// Strikes every request, always.
    fn from(fault: Fault) -> Rule {
        Rule { path_contains: None, api: None, page: None, times: None, skip: 0, fault }
    }
}

/// A misbehaviour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A status from 200 to 599.
    Status {
        /// The status.
        code: StatusCode,
        /// The body, as `text/plain`. Without one there is nothing, or the error that a JSON API documents for it: 403
        /// is a feature that is off.
        body: Option<String>,
    },
    /// 200 with a login page.
    Html,
    /// 200 with a JSON error.
    JsonError,
    /// 200 with nothing, said to be what was asked for.
    Empty,
    /// The body ends too early, with the connection.
    Truncate {
        /// After how much.
        at: Cut,
        /// What the headers say about the length.
        framing: Framing,
    },
    /// The body trickles.
    Slow {
        /// How fast.
        bytes_per_second: NonZeroU32,
    },
    /// The headers, then nothing, on an open connection.
    Stall,
    /// The connection is reset before any answer.
    Reset,
    /// The connection is reset within the body.
    ResetMidBody {
        /// After how much was written; a client may see less of it.
        at: Cut,
    },
    /// One bit of the body is wrong.
    BitFlip {
        /// In which byte, the last one at most; `None` is somewhere in the middle half, always the same for one file.
        offset: Option<u64>,
    },
    /// 400, as for a file that isn't generated yet; of the JSON APIs, as for a wrong value.
    NotYet,
    /// A redirect in place of an answer.
    Redirect {
        /// Where to.
        to: RedirectTo,
        /// The status: 302 or 307.
        code: StatusCode,
    },
    /// 429.
    RateLimited {
        /// The `Retry-After` header, as it is; `None` leaves it out.
        retry_after: Option<String>,
        /// `x-ratelimit-reset`, with `x-ratelimit-remaining: 0`. `None` is what the API itself would say.
        reset: Option<Reset>,
    },
    /// The API firewall: the address is not on the workspace's list. A flat JSON error.
    Firewall {
        /// The status, which the vendor doesn't document: 400, 401 or 403.
        code: StatusCode,
    },
    /// 401, as for a wrong signature or password.
    Unauthorized,
    /// The answer as it would be, with a `Date` that is off.
    WrongDate {
        /// By how much; negative is in the past.
        offset: SignedDuration,
    },
    /// The body, with `Content-Encoding: gzip`.
    ContentEncoding(ContentEncoding),
    /// From this page on, a listing is one place further back: the last campaign of the page before comes again, and
    /// the listing takes one more place. Its totals stay, its pages grow if need be. A request for the first page
    /// has a listing that is well again. Only for pages from the second.
    Repeat,
    /// From this page on, the first campaign of a listing is gone: everything moves a place forward, so that one
    /// campaign is seen on no page, and the totals fall. A request for the first page restores it. Only for
    /// pages from the second.
    Shrink,
    /// The last rows of the page are not shown. All other pages and the totals stay.
    Hide {
        /// How many; `None` is all.
        rows: Option<u32>,
    },
    /// The total names more than there are. Pages are counted by it. Only for statistics and executions.
    ExtraTotal {
        /// By how many.
        by: NonZeroU32,
    },
    /// The first row of the page has one more field, `extra`, that JSON forbids or readers stumble over.
    OddJson(OddJson),
}

/// What `x-ratelimit-reset` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reset {
    /// The second that is so long after the request.
    After(SignedDuration),
    /// That text, whatever it means.
    Text(String),
}

/// What is odd about a page of JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OddJson {
    /// It begins with a byte order mark.
    ByteOrderMark,
    /// A bare `NaN`.
    NotANumber,
    /// A string in Latin-1.
    InvalidUtf8,
    /// A key that comes twice.
    DuplicateKey,
    /// A whole number beyond 64 bits.
    LargeNumber,
    /// Half of a surrogate pair, escaped.
    LoneSurrogate,
}

impl OddJson {
    const WORDS: [(&str, OddJson); 6] = [
        ("bom", OddJson::ByteOrderMark),
        ("nan", OddJson::NotANumber),
        ("utf8", OddJson::InvalidUtf8),
        ("duplicate", OddJson::DuplicateKey),
        ("number", OddJson::LargeNumber),
        ("surrogate", OddJson::LoneSurrogate),
    ];
}

/// How much of a body is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// That many bytes, all but the last one at most.
    Bytes(u64),
    /// That part of it, from 0 to 99.
    Percent(u8),
}

impl Cut {
    /// How many bytes of `size` that is; always fewer than all.
    pub(super) fn of(self, size: u64) -> u64 {
        let bytes = match self {
            Cut::Bytes(bytes) => bytes,
            Cut::Percent(percent) => (u128::from(size) * u128::from(percent) / 100) as u64,
        };
        bytes.min(size.saturating_sub(1))
    }
}

/// What an answer says about the length of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// `Content-Length`, of the whole.
    #[default]
    ContentLength,
    /// `Transfer-Encoding: chunked`; a truncated one lacks its last chunk.
    Chunked,
    /// Nothing: it ends with the connection, as in HTTP/1.0, and a truncated one looks like a whole one.
    Close,
}

/// Where a redirect leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedirectTo {
    /// To a presigned URL under `/storage/` that serves the archive of this request without a signature and refuses a
    /// request that carries one with 400, as S3 does. Only for requests that would be given an archive.
    Storage,
    /// Anywhere.
    Url(Url),
}

/// What `Content-Encoding: gzip` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentEncoding {
    /// The body is inside one more layer of gzip.
    Layer,
    /// The body is sent as it is, and called encoded.
    LabelOnly,
}

impl Fault {
    /// The word that names it in a rule's text.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Fault::Status { .. } => "status",
            Fault::Html => "html",
            Fault::JsonError => "json-error",
            Fault::Empty => "empty",
            Fault::Truncate { .. } => "truncate",
            Fault::Slow { .. } => "slow",
            Fault::Stall => "stall",
            Fault::Reset => "reset",
            Fault::ResetMidBody { .. } => "reset-mid-body",
            Fault::BitFlip { .. } => "bit-flip",
            Fault::NotYet => "not-yet",
            Fault::Redirect { .. } => "redirect",
            Fault::RateLimited { .. } => "rate-limited",
            Fault::Unauthorized => "unauthorized",
            Fault::WrongDate { .. } => "wrong-date",
            Fault::ContentEncoding(_) => "content-encoding",
            Fault::Firewall { .. } => "firewall",
            Fault::Repeat => "repeat",
            Fault::Shrink => "shrink",
            Fault::Hide { .. } => "hide",
            Fault::ExtraTotal { .. } => "extra-total",
            Fault::OddJson(_) => "odd-json",
        }
    }

    /// Whether it can strike a request that would be given `gets`.
    fn fits(&self, gets: Gets) -> bool {
        match self {
            Fault::Truncate { .. }
            | Fault::Slow { .. }
            | Fault::Stall
            | Fault::ResetMidBody { .. }
            | Fault::BitFlip { .. }
            | Fault::ContentEncoding(_) => gets != Gets::Neither,
            Fault::Redirect { to: RedirectTo::Storage, .. } => gets == Gets::Archive,
            Fault::Repeat | Fault::Shrink => matches!(gets, Gets::Page(2..)),
            Fault::Hide { .. } | Fault::ExtraTotal { .. } | Fault::OddJson(_) => matches!(gets, Gets::Page(_)),
            Fault::Status { .. }
            | Fault::Html
            | Fault::JsonError
            | Fault::Empty
            | Fault::Reset
            | Fault::NotYet
            | Fault::Redirect { to: RedirectTo::Url(_), .. }
            | Fault::RateLimited { .. }
            | Fault::Firewall { .. }
            | Fault::Unauthorized
            | Fault::WrongDate { .. } => true,
        }
    }
}

/// What a request would be given if nothing struck it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gets {
    Archive,
    /// The page of JSON with that number.
    Page(u64),
    Neither,
}

/// The rules in force, with how often each has met its requests.
#[derive(Debug)]
pub(super) struct Rules(Mutex<Vec<(Rule, u64)>>);

/// What strikes one request.
#[derive(Debug, Default)]
pub(super) struct Struck {
    /// The fault, which is never [`Fault::WrongDate`].
    pub(super) fault: Option<Fault>,
    /// What is added to the `Date` header.
    pub(super) date_offset: Option<SignedDuration>,
}

impl Rules {
    pub(super) fn new(rules: Vec<Rule>) -> Rules {
        Rules(Mutex::new(rules.into_iter().map(|rule| (rule, 0)).collect()))
    }

    pub(super) fn add(&self, rule: Rule) {
        self.lock().push((rule, 0));
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    /// Decides and counts what strikes a request for the decoded `path` of `api`.
    pub(super) fn strike(&self, path: &str, api: Option<SourceKind>, gets: Gets) -> Struck {
        let mut struck = Struck::default();
        for (rule, met) in self.lock().iter_mut() {
            let taken = match rule.fault {
                Fault::WrongDate { .. } => struck.date_offset.is_some(),
                _ => struck.fault.is_some(),
            };
            let meets = rule.path_contains.as_ref().is_none_or(|part| path.contains(part))
                && (rule.api.is_none() || rule.api == api)
                && rule.page.is_none_or(|page| gets == Gets::Page(page))
                && rule.fault.fits(gets)
                // The storage hands nothing over to itself.
                && !(is_handover(&rule.fault) && super::storage::serves(path));
            if taken || !meets {
                continue;
            }
            *met += 1;
            let skip = u64::from(rule.skip);
            let last = rule.times.map_or(u64::MAX, |times| skip + u64::from(times));
            if *met <= skip || *met > last {
                continue;
            }
            match &rule.fault {
                Fault::WrongDate { offset } => struck.date_offset = Some(*offset),
                fault => struck.fault = Some(fault.clone()),
            }
        }
        struck
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Rule, u64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_handover(fault: &Fault) -> bool {
    matches!(fault, Fault::Redirect { to: RedirectTo::Storage, .. })
}

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

/// The words of a rule with their values, taken out one by one.
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

    /// The value of a detail, if that is given, as what `parse` makes of it.
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

    /// The value of a word that can go without one.
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

/// `text`, if it can be sent as a header.
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

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}
