//! Everything that is tried from outside, in one binary: one module a subject.

mod archive;
mod bucket;
mod commands;
mod config;
mod contain;
mod daemon;
mod deploy;
mod disk;
mod docs;
mod emulator;
mod evidence;
mod hunt;
mod json_apis;
mod ledger;
mod map;
mod notify;
mod recover;
mod restart;
mod snapshot;
mod store;
mod support;
mod sync;
mod vendor;
mod web;
