//! Destinations: staged uploads, objects that are never overwritten, and the manifests beside them.
//!
//! This file owns the types that the parts of a destination share. None of them knows where bytes come from, what is in
//! them, or what is recorded about them: of the verifier they take the proof that an upload may be stored, of the ledger
//! nothing. Names of objects are made in [`crate::report`]; here they are keys.

mod budget;
mod credentials;
mod destination;
mod error;
mod local;
mod manifest;
mod remote;
mod upload;

use std::fmt;

pub use self::{
    budget::Budget,
    destination::Destination,
    error::StoreError,
    manifest::{Format, Manifest, ManifestEntry, Window},
    upload::Upload,
};

/// Where unfinished uploads are, at the destination's root.
const STAGING: &str = "_staging";

/// Size of a part, and of the largest object that is put in one request. The least that S3 takes as a part of a
/// multipart upload.
const PART_BYTES: u64 = 5 * MIB;

/// Size of a part where parts of [`PART_BYTES`] would be too many. With [`MAX_PARTS`], the bound of an object is 78 GiB.
const LARGE_PART_BYTES: u64 = 8 * MIB;

/// Most parts in one multipart upload (S3's limit).
const MAX_PARTS: u64 = 10_000;

const MIB: u64 = 1024 * 1024;

/// What a destination can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether the destination itself refuses to overwrite (`If-None-Match`, hard links). If not, moesync looks before
    /// it writes, which keeps apart only writers that hold the claim in turn.
    pub refuses_overwrite: bool,
    /// Whether what is staged can be removed again. If not, reports are stored all the same and leftovers stay.
    pub deletes: bool,
    /// Whether the names of new objects survive a power cut. If not, the newest may be missing after one.
    pub forces_names: bool,
    /// Whether it is a directory of this machine.
    pub is_directory: bool,
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.deletes {
            true => "written, read and deleted",
            false => "written and read; what is staged there cannot be deleted and will stay",
        })?;
        f.write_str(match (self.refuses_overwrite, self.is_directory) {
            (true, _) => "; refuses to overwrite",
            (false, true) => {
                "; cannot link a file to its final name, so it looks before it renames: let one moesync at a time write to it"
            }
            (false, false) => {
                "; ignores conditional puts: let one moesync at a time write to it, and switch on versioning"
            }
        })?;
        f.write_str(match self.forces_names {
            true => "",
            false => "; cannot force the names of new files to disk, so a power cut may lose the newest (`fsync = false` accepts that)",
        })
    }
}

/// What is at an object's key, and beside it.
#[derive(Debug)]
pub struct Found {
    /// Size of the object in bytes; `None` when there is none.
    pub size: Option<u64>,
    /// Its manifest. One that is oversized or unreadable as a manifest counts as absent, with a warning in the log.
    pub manifest: Option<Manifest>,
    /// Whether something has the manifest's name, readable or not.
    pub has_manifest: bool,
}

/// Where a large upload to an object store gathers. Small ones and files don't care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement<'a> {
    /// Straight at its final key: nothing is copied in the end. If that key turns out to be taken, the bytes are gone.
    Direct(&'a str),
    /// Under `_staging/`, from where it can still go anywhere: for a key known to be taken, or bytes that may have to
    /// be quarantined.
    Staged,
}

/// How a commit ended, when nothing failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// The object is at its key, put there by this commit.
    Stored,
    /// The object is at its key and was before: the same bytes, compared by hash. Also what is found when the reply to
    /// our own write was lost.
    AlreadyThere,
    /// Other content is at the key and was left alone.
    Taken {
        /// Whether the upload still has the bytes, so that it can be committed under another key. Otherwise they must
        /// be fetched again, into [`Placement::Staged`].
        kept: bool,
    },
    /// `still_ours` said no. Nothing was written.
    NotOurs,
}
