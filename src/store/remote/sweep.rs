//! Removal of what dead processes left under `_staging/`.
//!
//! This file owns the order in which leftovers are removed. It must not know which processes are dead.

use std::collections::HashSet;

use object_store::path::Path as Key;

use super::{
    bucket::Bucket,
    multipart::{NOTE, Note},
};
use crate::store::{STAGING, StoreError};

impl Bucket {
    pub(in crate::store) async fn staged_holders(&self) -> Result<HashSet<String>, StoreError> {
        let keys = self.keys(&Key::from(STAGING)).await?;
        Ok(keys.iter().filter_map(|key| holder_of(key)).map(str::to_owned).collect())
    }

    /// Deletes the staged objects of the `dead` holders and aborts their multipart uploads; the number of objects deleted.
    pub(in crate::store) async fn sweep(&self, dead: &HashSet<String>) -> Result<u64, StoreError> {
        let mut removed = 0;
        for key in self.keys(&Key::from(STAGING)).await? {
            if !holder_of(&key).is_some_and(|holder| dead.contains(holder)) {
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

/// The holder that staged the object at `key`.
fn holder_of(key: &str) -> Option<&str> {
    let rest = key.strip_prefix(STAGING)?.strip_prefix('/')?;
    rest.split_once('/').map(|(holder, _)| holder)
}
