//! Destinations: staged uploads, objects that are never overwritten, and the manifests beside them.
//!
//! This file owns the types that the parts of `store/` share. They must not know where bytes come from, what is in them,
//! or what is recorded about them: the verifier supplies the proof that an upload may be stored, and the ledger is
//! unknown here. Names of objects are made in [`crate::report`]; here they are keys.

mod batch;
mod budget;
mod credentials;
mod derived;
mod destination;
mod error;
mod hash;
mod kind;
mod local;
mod manifest;
mod remote;
mod threads;
mod upload;

use std::fmt;

pub(crate) use self::hash::of_reader as hash_of_reader;
pub use self::{
    batch::{Batch, BatchObject, Named},
    budget::Budget,
    destination::Destination,
    error::StoreError,
    manifest::{Manifest, ManifestEntry, ObjectFormat, Window},
    upload::{Sealed, Upload},
};

/// Folder of unfinished uploads, at the destination's root.
const STAGING: &str = "_staging";

const MIB: u64 = 1024 * 1024;

/// What a destination can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether the destination itself refuses to overwrite (`If-None-Match`, hard links). If not, moesync looks before
    /// it writes, which protects only against writers that respect claims.
    pub refuses_overwrite: bool,
    /// Whether staged objects can be deleted. If not, reports are stored all the same and leftovers stay.
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
            false => "written and read; staged objects cannot be deleted there and will stay",
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

/// A small object, and what tells whether it is still the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its entity tag; `None` in a directory, and at a store that sends none.
    tag: Option<String>,
}

/// Which object a small object is to replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaces<'a> {
    /// Whichever is there.
    Any,
    /// None: there is no object.
    Nothing,
    /// The one that was read.
    Only(&'a Versioned),
}

/// An object of a listing.
#[derive(Debug)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Its size in bytes, if the listing shows it. In a directory it does not.
    pub size: Option<u64>,
}

/// What is at an object's key, and beside it.
#[derive(Debug)]
pub struct Lookup {
    /// Size of the object in bytes; `None` if there is none.
    pub size: Option<u64>,
    /// Its manifest. One that is oversized or malformed counts as absent, and is logged.
    pub manifest: Option<Manifest>,
    /// Whether the manifest's key is taken, readable or not.
    pub has_manifest: bool,
}

/// How a large upload reaches its final key in an object store. Small uploads and directories ignore it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route<'a> {
    /// As a multipart upload at the final key, which saves a copy. If the key turns out to be taken, the bytes are gone.
    Direct(&'a str),
    /// By way of `_staging/`, and from there to any key: for a key known to be taken, or bytes that may have to be
    /// quarantined.
    Staged,
}

/// The result of a commit that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// This commit created the object.
    Stored,
    /// The key already held the same bytes, compared by hash. Also the result when the reply to our own write was lost.
    AlreadyThere,
    /// The key holds other content, which was left alone.
    Taken {
        /// Whether the upload still has the bytes and can be committed under another key. Otherwise they must be fetched
        /// again, by [`Route::Staged`].
        kept: bool,
    },
    /// `still_ours` was false. Nothing was written.
    NotOurs,
}
