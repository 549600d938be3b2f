//! Removal of what dead processes left under `_staging/`.
//!
//! This file owns the order in which leftovers go. It must not know how it is decided that a process is dead.

use std::collections::HashMap;

use object_store::path::Path as Key;

use super::{
    bucket::Bucket,
    multipart::{NOTE, Note},
};
use crate::store::{STAGING, StoreError};

impl Bucket {
    /// Deletes the staged objects of dead holders and aborts their multipart uploads; the number of objects deleted.
    pub(in crate::store) async fn sweep(&self, is_dead: impl Fn(&str) -> bool) -> Result<u64, StoreError> {
        let staging = Key::from(STAGING);
        let mut dead = HashMap::new();
        let mut removed = 0;
        for key in self.keys(&staging).await? {
            let rest = key.strip_prefix(STAGING).and_then(|rest| rest.strip_prefix('/'));
            let Some((holder, _)) = rest.and_then(|rest| rest.split_once('/')) else { continue };
            if !*dead.entry(holder.to_owned()).or_insert_with(|| is_dead(holder)) {
                continue;
            }
            let Ok(path) = Key::parse(&key) else { continue };
            if key.ends_with(NOTE)
                && let Some(note) = Note::read(self, &path).await?
                && let Err(error) = note.abort(self).await
            {
                // The note stays, so that the next sweep tries again.
                tracing::warn!("{error}");
                continue;
            }
            match self.delete("sweep", &path).await {
                Ok(()) => removed += 1,
                Err(error) => tracing::warn!("{error}"),
            }
        }
        Ok(removed)
    }
}
