//! Everything that is tried from outside, in one binary: one module a subject.

mod archive;
mod commands;
mod config;
mod daemon;
mod deploy;
mod docs;
mod emulator;
mod hunt;
mod json_apis;
mod ledger;
mod notify;
mod snapshot;
mod store;
mod support;
mod sync;
mod vendor;
mod web;
