//! The faults that the emulator can produce, and the rules that select the requests they apply to.
//!
//! This file must not know how a fault is produced.

use std::{fmt, num::NonZeroU32};

use axum::http::StatusCode;
use jiff::SignedDuration;
use url::Url;

use crate::config::SourceKind;

/// One fault and the requests that it applies to.
///
/// If several rules match a request, the first one applies and the others do not count it; only [`Fault::WrongDate`]
/// combines with another fault. A fault of the body skips requests whose response is neither an archive nor a page of
/// JSON, without counting them.
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
/// The other words are conditions: `path=TEXT`, `api=SOURCE`, `page=N`, `times=N`, `skip=N`, as the fields below.
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
    /// Applies only to requests whose decoded path contains this; `None` is every request.
    pub path_contains: Option<String>,
    /// Applies only to requests to this API; `None` is every request.
    pub api: Option<SourceKind>,
    /// Applies only to requests for this page of JSON, from 1: for statistics it follows from offset and limit. `None` is
    /// every request.
    pub page: Option<u64>,
    /// The number of requests that it applies to; `None` is all.
    pub times: Option<u32>,
    /// The number of matching requests that it skips first.
    pub skip: u32,
    /// The fault.
    pub fault: Fault,
}

impl From<Fault> for Rule {
    /// Applies to every request.
    fn from(fault: Fault) -> Rule {
        Rule { path_contains: None, api: None, page: None, times: None, skip: 0, fault }
    }
}

/// A deviation from the documented response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A status from 200 to 599.
    Status {
        /// The status.
        code: StatusCode,
        /// The body, as `text/plain`. `None` is the error that a JSON API documents for the status (403: the feature is
        /// off), or an empty body.
        body: Option<String>,
    },
    /// 200 with a login page.
    Html,
    /// 200 with a JSON error.
    JsonError,
    /// 200 with an empty body and the content type of the true response.
    Empty,
    /// The body ends too early, and the connection with it.
    Truncate {
        /// The length that is sent.
        at: Cut,
        /// How the headers describe the length.
        framing: Framing,
    },
    /// The body is sent slowly.
    Slow {
        /// The speed, in bytes per second.
        bytes_per_second: NonZeroU32,
    },
    /// Only the headers, on a connection that stays open.
    Stall,
    /// The connection is reset before any response.
    Reset,
    /// The connection is reset within the body.
    ResetMidBody {
        /// The length that is written; a client may receive less.
        at: Cut,
    },
    /// One bit of the body is inverted.
    BitFlip {
        /// The byte, at most the last one; `None` is a byte in the middle half, the same for each request of a file.
        offset: Option<u64>,
    },
    /// 400, as for a file that is not generated yet; for the JSON APIs, as for a wrong value.
    NotYet,
    /// A redirect.
    Redirect {
        /// The target.
        to: RedirectTo,
        /// The status: 302 or 307.
        code: StatusCode,
    },
    /// 429.
    RateLimited {
        /// The `Retry-After` header, verbatim; `None` omits it.
        retry_after: Option<String>,
        /// `x-ratelimit-reset`, with `x-ratelimit-remaining: 0`. `None` is the API's own value.
        reset: Option<Reset>,
    },
    /// The API firewall: the address is not on the workspace's list. A flat JSON error.
    Firewall {
        /// The status, which the vendor doesn't document: 400, 401 or 403.
        code: StatusCode,
    },
    /// 401, as for a wrong signature or password.
    Unauthorized,
    /// The ordinary response with a wrong `Date`.
    WrongDate {
        /// The offset; negative is in the past.
        offset: SignedDuration,
    },
    /// The body, with `Content-Encoding: gzip`.
    ContentEncoding(ContentEncoding),
    /// From this page on, a listing is shifted back by one: the last campaign of the previous page is repeated. Totals
    /// stay, and a page is added if necessary. A request for the first page restores the listing. Only for pages from
    /// the second.
    Repeat,
    /// From this page on, the first campaign of a listing is removed: all others move forward by one, so that one
    /// campaign appears on no page, and the totals decrease. A request for the first page restores the listing. Only
    /// for pages from the second.
    Shrink,
    /// The last rows of the page are omitted. Other pages and the totals stay.
    Hide {
        /// The number of rows; `None` is all.
        rows: Option<u32>,
    },
    /// The total is too large, and so is the number of pages. Only for statistics and executions.
    ExtraTotal {
        /// The number that is added.
        by: NonZeroU32,
    },
    /// The first row of the page has one more field, `extra`, that JSON forbids or that parsers reject.
    OddJson(OddJson),
}

/// The value of `x-ratelimit-reset`.
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
    /// A key that occurs twice.
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

/// The part of a body that is sent.
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

/// How a response describes the length of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// `Content-Length`, of the whole.
    #[default]
    ContentLength,
    /// `Transfer-Encoding: chunked`; a truncated one lacks its last chunk.
    Chunked,
    /// No length: the body ends with the connection, as in HTTP/1.0, so that a truncated one looks complete.
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

/// The meaning of `Content-Encoding: gzip`.
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
