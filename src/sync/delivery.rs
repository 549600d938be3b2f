//! What is on its way to a destination, whichever way it was had: an archive as the vendor sends it, or a snapshot of
//! pages.
//!
//! This file owns what the two have in common, and must not know what is done with the bytes.

use bytes::Bytes;
use jiff::Timestamp;

use super::snapshot::Snapshot;
use crate::moengage::{Download, Failure};

pub(super) enum Delivery {
    Archive(Box<Download>),
    Snapshot(Snapshot),
}

impl Delivery {
    /// The next bytes; `None` at the proper end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        match self {
            Delivery::Archive(download) => download.chunk().await,
            Delivery::Snapshot(snapshot) => snapshot.chunk().await,
        }
    }

    /// Bytes to come, where known.
    pub(super) fn content_length(&self) -> Option<u64> {
        match self {
            Delivery::Archive(download) => download.content_length,
            Delivery::Snapshot(_) => None,
        }
    }

    /// Whether the bytes may be a gzip that the server put around the archive.
    pub(super) fn is_packed(&self) -> bool {
        match self {
            Delivery::Archive(download) => download.is_packed,
            Delivery::Snapshot(_) => false,
        }
    }

    /// What the vendor calls it.
    pub(super) fn content_type(&self) -> Option<&str> {
        match self {
            Delivery::Archive(download) => download.content_type.as_deref(),
            Delivery::Snapshot(_) => None,
        }
    }

    /// The `Date` of the vendor's last answer.
    pub(super) fn vendor_date(&self) -> Option<Timestamp> {
        match self {
            Delivery::Archive(download) => download.vendor_date,
            Delivery::Snapshot(snapshot) => snapshot.vendor_date,
        }
    }

    /// What to name to MoEngage's support. A snapshot took many requests.
    pub(super) fn request_id(&self) -> Option<&str> {
        match self {
            Delivery::Archive(download) => download.request_id.as_deref(),
            Delivery::Snapshot(_) => None,
        }
    }

    /// A text about the bytes, without the secrets that a server can have written into them.
    pub(super) fn redact(&self, text: &str) -> String {
        match self {
            Delivery::Archive(download) => download.redact(text),
            // Its bytes are our own.
            Delivery::Snapshot(_) => text.to_owned(),
        }
    }
}
