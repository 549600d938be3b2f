//! What an object store can do.
//!
//! This file owns the probe, and which refusals mean that a store lacks a feature. It must not know what the answers are
//! used for.

use futures::StreamExt;
use object_store::{Error, ObjectStoreExt, PutMode, PutPayload, path::Path as Key};

use super::bucket::{Bucket, is_unsupported, join};
use crate::store::{Capabilities, STAGING, StoreError};

impl Bucket {
    /// The result of the first probe.
    pub(super) async fn capabilities(&self) -> Result<&Capabilities, StoreError> {
        let probe = async || {
            let capabilities = self.probe().await?;
            if !capabilities.deletes {
                let destination = self.reporter.destination();
                tracing::warn!(destination, "reports can be stored, but leftovers below `{STAGING}` cannot be deleted");
            }
            Ok(capabilities)
        };
        self.capabilities.get_or_try_init(probe).await
    }

    /// Writes, reads, lists and deletes a probe, and reads a key that is free. The probe is always the same object, and is
    /// overwritten only where the store cannot refuse that: where objects can be neither deleted nor overwritten, each
    /// process leaves one probe and can go on.
    pub(in crate::store) async fn probe(&self) -> Result<Capabilities, StoreError> {
        let key = join([STAGING, &self.holder, "probe"]);
        let _writer = self.lock_key(&key).await;
        let fail = |error| self.fail("probe", &key, &error);
        let create = async |text| {
            self.objects.put_opts(&self.at(&key), PutPayload::from_static(text), PutMode::Create.into()).await
        };
        match create(b"probe").await {
            Ok(_) | Err(Error::AlreadyExists { .. }) => {}
            Err(error) if may_lack_conditions(&error) => {
                self.objects.put(&self.at(&key), PutPayload::from_static(b"probe")).await.map_err(fail)?;
            }
            Err(error) => return Err(fail(error)),
        }
        let result = async {
            let read = self.objects.get(&self.at(&key)).await.map_err(fail)?.bytes().await.map_err(fail)?;
            if read.as_ref() != b"probe" {
                return Err(self.text("probe", &key, "the bytes read back are not those written"));
            }
            self.check_listing(&key).await?;
            match create(b"other").await {
                Ok(_) => Ok(false),
                // The first put was permitted, so this refusal is about overwriting.
                Err(Error::AlreadyExists { .. } | Error::PermissionDenied { .. }) => Ok(true),
                Err(error) if may_lack_conditions(&error) => Ok(false),
                Err(error) => Err(fail(error)),
            }
        };
        let result = result.await;
        let deletes = self.delete("delete", &key).await.is_ok();
        Ok(Capabilities { refuses_overwrite: result?, deletes, forces_names: true, is_directory: false })
    }

    /// Lists the folder of `key` and looks at a free key: without the permission to list, S3 answers 403 instead of 404, so
    /// that a missing report could not be distinguished from a forbidden one.
    async fn check_listing(&self, key: &Key) -> Result<(), StoreError> {
        // The library has no error kind for a refusal to list.
        let is_refusal = |error: &Error| {
            matches!(error, Error::PermissionDenied { .. }) || error.to_string().contains("403 Forbidden")
        };
        let refused = |operation, key: &Key, error: &Error| match is_refusal(error) {
            true => self.reporter.unlisted(operation, key.as_ref(), error),
            false => self.fail(operation, key, error),
        };
        let missing = join([STAGING, &self.holder, "none"]);
        match self.objects.head(&self.at(&missing)).await {
            Ok(_) | Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(refused("look for", &missing, &error)),
        }
        let folder = join([STAGING, &self.holder]);
        let mut listing = self.objects.list(Some(&self.at(&folder)));
        while let Some(found) = listing.next().await {
            if found.map_err(|error| refused("list", &folder, &error))?.location == self.at(key) {
                break;
            }
        }
        Ok(())
    }
}

/// Whether the store may have refused a put for its condition: it does not support conditions, or, as some do, calls them an
/// invalid argument. The same put without a condition shows which.
fn may_lack_conditions(error: &Error) -> bool {
    is_unsupported(error)
        || matches!(error, Error::Generic { .. }) && error.to_string().contains("<Code>InvalidArgument</Code>")
}
