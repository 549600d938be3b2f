//! A destination in an object store: S3 and compatible stores, Google Cloud Storage, Azure Blob Storage.
//!
//! Together these files make an object appear under a free key, once and whole, although stores retry, lose replies and
//! differ in what they refuse.

mod bucket;
mod client;
mod copy;
mod multipart;
mod open;
mod probe;
mod staged;
mod sweep;
mod upload;

pub(super) use self::{bucket::Bucket, upload::ObjectUpload};
