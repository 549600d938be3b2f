//! Content on its way from MoEngage to a destination: an archive as it is sent, or a snapshot of pages.
//!
//! This file owns what the two have in common. It must not know what is done with the bytes.

use bytes::Bytes;

use super::snapshot::Snapshot;
use crate::{
    moengage::Download,
    outcome::{Evidence, Failure},
};

pub(super) enum Incoming {
    Archive(Box<Download>),
    Snapshot(Snapshot),
}

impl Incoming {
    /// The next bytes; `None` at the proper end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        match self {
            Incoming::Archive(download) => download.chunk().await,
            Incoming::Snapshot(snapshot) => snapshot.chunk().await,
        }
    }

    /// What MoEngage has shown.
    pub(super) fn evidence(&self) -> &Evidence {
        match self {
            Incoming::Archive(download) => &download.evidence,
            Incoming::Snapshot(snapshot) => &snapshot.evidence,
        }
    }

    /// Bytes to come, where known.
    pub(super) fn content_length(&self) -> Option<u64> {
        match self {
            Incoming::Archive(download) => download.content_length,
            Incoming::Snapshot(_) => None,
        }
    }

    /// Whether the bytes may be a gzip that the server put around the archive.
    pub(super) fn is_packed(&self) -> bool {
        match self {
            Incoming::Archive(download) => download.is_packed,
            Incoming::Snapshot(_) => false,
        }
    }

    /// MoEngage's name of the format.
    pub(super) fn content_type(&self) -> Option<&str> {
        match self {
            Incoming::Archive(download) => download.content_type.as_deref(),
            Incoming::Snapshot(_) => None,
        }
    }

    /// A text about the bytes, without the secrets that a server can have written into them.
    pub(super) fn redact(&self, text: &str) -> String {
        match self {
            Incoming::Archive(download) => download.redact(text),
            // Its bytes are our own.
            Incoming::Snapshot(_) => text.to_owned(),
        }
    }
}
