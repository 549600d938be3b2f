//! Content on its way from MoEngage to a destination: an archive, or a snapshot.
//!
//! This file owns what the two have in common. It must not know where the bytes go.

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
    /// The next bytes; `None` at the end of complete content.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        match self {
            Incoming::Archive(download) => download.chunk().await,
            Incoming::Snapshot(snapshot) => snapshot.chunk().await,
        }
    }

    /// What MoEngage's answer showed.
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

    /// Whether the bytes may include a gzip that the server put around the archive.
    pub(super) fn is_packed(&self) -> bool {
        match self {
            Incoming::Archive(download) => download.is_packed,
            Incoming::Snapshot(_) => false,
        }
    }

    /// The media type in MoEngage's answer.
    pub(super) fn content_type(&self) -> Option<&str> {
        match self {
            Incoming::Archive(download) => download.content_type.as_deref(),
            Incoming::Snapshot(_) => None,
        }
    }

    /// A text about the bytes, without secrets: a server may have written some into them.
    pub(super) fn redact(&self, text: &str) -> String {
        match self {
            Incoming::Archive(download) => download.redact(text),
            // moesync wrote its bytes.
            Incoming::Snapshot(_) => text.to_owned(),
        }
    }
}
