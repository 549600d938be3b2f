//! Keeps every MoEngage campaign report: fetched before it expires, verified, stored, and accounted for.
//!
//! ARCHITECTURE.md has the map of the house.

pub mod archive;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod emulator;
pub mod ledger;
pub mod moengage;
pub mod ndjson;
pub mod outcome;
pub mod plan;
pub mod report;
pub mod schedule;
pub mod signature;
pub mod store;
pub mod sync;
pub mod telemetry;
pub mod web;
pub mod words;
