//! The faults that the emulator can show, and the rules that select the requests they strike.
//!
//! This file must not know how a fault is carried out.

use std::{fmt, num::NonZeroU32};

use axum::http::StatusCode;
use jiff::SignedDuration;
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
    /// How many requests it strikes; `None` is all.
    pub times: Option<u32>,
    /// How many matching requests pass before the first strike.
    pub skip: u32,
    /// The fault.
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
    /// 200 with an empty body and the content type of the true answer.
    Empty,
    /// The body ends too early, with the connection.
    Truncate {
        /// After how much.
        at: Cut,
        /// What the headers say about the length.
        framing: Framing,
    },
    /// The body is sent slowly.
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
    /// A redirect.
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
    /// The true answer with a wrong `Date`.
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
    /// The last rows of the page are left out. All other pages and the totals stay.
    Hide {
        /// How many; `None` is all.
        rows: Option<u32>,
    },
    /// The total is too large, and so is the number of pages. Only for statistics and executions.
    ExtraTotal {
        /// By how many.
        by: NonZeroU32,
    },
    /// The first row of the page has one more field, `extra`, that JSON forbids or that parsers reject.
    OddJson(OddJson),
}

/// What `x-ratelimit-reset` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reset {
    /// The time of the request plus this span, in Unix seconds.
    After(SignedDuration),
    /// This text.
    Text(String),
}

/// An unusual or invalid form of JSON.
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
    pub(super) const WORDS: [(&str, OddJson); 6] = [
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
    /// This number of bytes, at most all but the last one.
    Bytes(u64),
    /// This percentage of the body, from 0 to 99.
    Percent(u8),
}

impl Cut {
    /// The number of bytes, less than `size`.
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

/// The target of a redirect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedirectTo {
    /// To a presigned URL under `/storage/` that serves the archive of this request without a signature and refuses a
    /// request that carries one with 400, as S3 does. Only for requests that would be given an archive.
    Storage,
    /// To this URL.
    Url(Url),
}

/// What `Content-Encoding: gzip` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentEncoding {
    /// The body is inside one more layer of gzip.
    Layer,
    /// The body is not encoded; only the header is set.
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
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}
