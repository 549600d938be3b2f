//! Keeps every MoEngage campaign report: fetched before it expires, verified, stored, and accounted for.
//!
//! ARCHITECTURE.md has the map of the house.

pub mod archive;
pub mod config;
pub mod emulator;
pub mod moengage;
pub mod outcome;
pub mod plan;
pub mod report;
pub mod schedule;
pub mod signature;
pub mod store;
