//! A destination in a directory of this machine.
//!
//! object_store's own local store is not used: its multipart upload completes by a rename that overwrites, and a crash
//! leaves `name#1` beside the final name.

mod backend;
mod batch;
mod directory;
mod durability;
mod naming;
mod probe;
mod staged;
mod upload;

pub(super) use self::{
    backend::Local,
    batch::{BatchFile, BatchWriter, Content, FileBatch},
    upload::FileUpload,
};
