//! Verifies that a stream of bytes is a complete, intact zip, gzip or tar archive, and lists its entries: in one forward
//! pass, with bounded memory, while the bytes are passed on.
//!
//! This folder must not know where bytes come from or go to, and must not use an entry's name as a path. This file owns
//! its shared types.
//!
//! Seeking readers use the central directory of a zip and streaming readers the local headers; either alone accepts
//! archives that the other rejects. Here both are read and must agree, every byte must belong to a structure, and every
//! checksum is computed. Tar has no checksum of its data, only structure; a gzip around it has one. A forward pass cannot detect a
//! gzip archive cut exactly between two members: only the length announced by the sender shows that.

mod entries;
mod gzip;
mod inflate;
mod input;
mod meter;
mod names;
mod pass;
mod tap;
mod tar;
mod verifier;
mod zip;

use std::fmt;

#[cfg(fuzzing)]
pub use self::verifier::{Judgement, judge_on_two_threads, judge_pieces};
pub use self::{entries::Entries, pass::Pass, tap::Tap, verifier::is_unsupported};

/// Limits of one archive.
#[derive(Debug, Clone, Copy)]
pub struct ArchiveLimits {
    /// Largest archive accepted, in bytes as received.
    pub archive_bytes: u64,
    /// Most bytes inflated from one archive.
    pub inflated_bytes: u64,
    /// Most inflated bytes for each byte of archive. Applies from 16 MiB inflated: smaller tables may compress better
    /// than this, and a bomb of that size is harmless.
    pub inflate_ratio: u64,
}

impl ArchiveLimits {
    /// For an archive that was within its limits when it was verified.
    pub const NONE: ArchiveLimits =
        ArchiveLimits { archive_bytes: u64::MAX, inflated_bytes: u64::MAX, inflate_ratio: u64::MAX };
}

/// The formats that are verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// A zip archive (PKWARE's APPNOTE.TXT), stored or deflated.
    Zip,
    /// One or more gzip members (RFC 1952), which together may hold a tar.
    Gzip,
    /// A tar archive (POSIX ustar and pax, GNU, historic).
    Tar,
}

impl ArchiveFormat {
    /// The word used in manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            ArchiveFormat::Zip => "zip",
            ArchiveFormat::Gzip => "gzip",
            ArchiveFormat::Tar => "tar",
        }
    }
}

impl fmt::Display for ArchiveFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One file in an archive: a zip or tar entry, or a gzip member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveEntry {
    /// The name in the archive, which must not be used as a path. Empty for a gzip member without a name.
    /// Bytes that are not UTF-8 are replaced.
    pub name: String,
    /// Inflated size in bytes.
    pub size: u64,
    /// CRC-32 of the inflated bytes, as computed and as recorded in the archive; `None` in tar, which records none.
    pub crc32: Option<u32>,
}

/// Contents of a verified archive.
#[derive(Debug, PartialEq, Eq)]
struct Contents {
    format: ArchiveFormat,
    entries: Vec<ArchiveEntry>,
    warnings: Vec<String>,
}

/// Why an archive is not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rejection {
    kind: RejectedKind,
    message: String,
}

impl Rejection {
    fn corrupt(message: impl Into<String>) -> Rejection {
        Rejection { kind: RejectedKind::Corrupt, message: message.into() }
    }

    fn unverifiable(message: impl Into<String>) -> Rejection {
        Rejection { kind: RejectedKind::Unverifiable, message: message.into() }
    }

    fn unsupported(message: impl Into<String>) -> Rejection {
        Rejection { kind: RejectedKind::Unsupported, message: message.into() }
    }

    /// Adds the part of the archive that it concerns.
    fn within(self, part: &str) -> Rejection {
        Rejection { kind: self.kind, message: format!("{part}: {}", self.message) }
    }
}

/// Proof that every byte of an archive was read and verified. Only a [`Pass`] makes one.
#[derive(Debug)]
pub struct Verified {
    contents: Contents,
    size: u64,
    sha256: String,
}

impl Verified {
    /// Zip, gzip or tar, by the first bytes: a tar within a gzip is a gzip.
    pub fn format(&self) -> ArchiveFormat {
        self.contents.format
    }

    /// Size of the archive as received, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// SHA-256 of the archive as received, in lower-case hex.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The entries in the order of their data. A gzip archive has one for each member, or those of the tar in it.
    pub fn entries(&self) -> &[ArchiveEntry] {
        &self.contents.entries
    }

    /// Oddities of an archive that is otherwise intact, one sentence each: names that would be dangerous as paths,
    /// duplicate names, links (at most 100 of these and a count of the rest), headers that disagree on something that does
    /// not bear on the data, zeros after the end.
    pub fn warnings(&self) -> &[String] {
        &self.contents.warnings
    }
}

/// An archive that must not be stored under its final name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The kind, for the caller's decision.
    pub kind: RejectedKind,
    /// The reason, and its position.
    pub message: String,
    /// Bytes received.
    pub size: u64,
    /// SHA-256 of all bytes received, in lower-case hex.
    pub sha256: String,
}

/// Kinds of rejection that callers treat differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectedKind {
    /// Not an archive, such as an HTML page or an empty body. Worth another request.
    NotAnArchive,
    /// An archive that is cut short or damaged, or whose parts contradict each other. Worth another request.
    Corrupt,
    /// An archive on which programs disagree: ambiguous, followed by other data, or beyond a limit.
    Unverifiable,
    /// A format that cannot be verified: rar, 7z and others, encrypted, split, a method other than stored or deflate,
    /// sparse. Another request does not help until the report's settings change.
    Unsupported,
}

/// The result of a [`Pass`].
#[derive(Debug)]
pub enum Verdict {
    /// Complete and intact.
    Verified(Verified),
    /// Anything else.
    Rejected(Rejected),
}

/// The archive has more bytes than `limits.archive_bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the archive is larger than limits.archive_bytes ({limit} bytes); raise that limit if the archive is genuine")]
pub struct TooLarge {
    /// The limit, in bytes.
    pub limit: u64,
}
