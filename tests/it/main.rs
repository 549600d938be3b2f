//! The integration tests, in one binary: one module for each subject.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a helper that fails fails its test")]

mod archive;
mod bucket;
mod check_online;
mod commands;
mod config;
mod contain;
mod daemon;
mod deploy;
mod derive;
mod disk;
mod docs;
mod emulator;
mod json_apis;
mod ledger;
mod map;
mod notify;
mod recover;
mod replicas;
mod restart;
mod simulation;
mod snapshot;
mod store;
mod support;
mod sync;
mod tables;
mod vendor;
mod web;
