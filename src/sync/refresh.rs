//! A stored partition whose numbers restate, fetched again.
//!
//! This file owns the one exception to "the first content under a key stays": the old content is kept under another name
//! first, then replaced. A process that dies between two steps leaves whole objects, and the next attempt goes by the
//! object that it finds, not by what the ledger says of it.

use tracing::warn;

use super::{Ended, Landed, LedgerError, Step, Work, store_failed};
use crate::{
    outcome::StoredObject,
    store::{Destination, Manifest},
};

impl Work<'_> {
    pub(super) async fn refresh(&self, destination: &Destination, object: &StoredObject) -> Result<Landed, Ended> {
        let key = &object.key;
        let mut delivery = self.open(destination).await?;
        let (verified, upload) = self.fetch(destination, &mut delivery, false).await?;
        let fail = |error| store_failed(error, &delivery);
        let present = self.frame.at(Step::Look, destination.sha256_of(key)).await.map_err(fail)?;
        let described = self.frame.at(Step::Look, destination.manifest(key)).await.map_err(fail)?;
        let new = self.manifest_of(&delivery, key, &verified);
        let is_right = |manifest: &Manifest| {
            manifest.names(&self.claim.entry.partition.id, key) && manifest.sha256 == verified.sha256()
        };

        if present.as_deref() == Some(verified.sha256()) {
            self.abandon(upload).await;
            let manifest = match described.filter(is_right) {
                Some(manifest) => manifest,
                None => {
                    self.frame.at(Step::Manifest, destination.put_manifest(&new)).await.map_err(fail)?;
                    new
                }
            };
            return Ok(Landed::fetched(manifest, "unchanged".into(), &delivery));
        }
        if *key != self.keys.object() {
            // Something else has the partition's own name, and ours is among the versions already: one more of them.
            let placed = self.place(&delivery, &verified, upload, true).await?;
            let manifest = Manifest { key: placed.key, ..new };
            self.frame.at(Step::Manifest, destination.put_manifest(&manifest)).await.map_err(fail)?;
            return Ok(Landed::fetched(manifest, "restated".into(), &delivery));
        }
        let remark = match &present {
            Some(sha256) => {
                let version = self.keys.version(sha256);
                self.frame.at(Step::Keep, destination.copy_if_absent(key, &version)).await.map_err(fail)?;
                let manifest = match described.filter(|manifest| manifest.sha256 == *sha256) {
                    Some(manifest) => Some(Manifest { key: version.clone(), ..manifest }),
                    // A process died when it had replaced the object and not yet the manifest.
                    None => {
                        self.frame.at(Step::Keep, self.described_again(destination, &version)).await.map_err(fail)?
                    }
                };
                if let Some(manifest) = manifest {
                    self.frame.at(Step::Manifest, destination.put_manifest(&manifest)).await.map_err(fail)?;
                }
                format!("restated; what was there is kept at `{version}`")
            }
            None => {
                warn!(
                    key,
                    "the object of {} is missing at the destination; storing it again", self.claim.entry.partition.id
                );
                "its object was gone".into()
            }
        };
        if !self.ctx.ledger.begin_replacing(self.claim).await? {
            self.abandon(upload).await;
            return Err(LedgerError::Fenced { what: self.claim.entry.partition.id.to_string() }.into());
        }
        self.frame.at(Step::Store, upload.replace(&verified, key)).await.map_err(fail)?;
        self.frame.at(Step::Manifest, destination.put_manifest(&new)).await.map_err(fail)?;
        Ok(Landed::fetched(new, remark, &delivery))
    }
}
