//! Downloads MoEngage reports before they expire, verifies and stores them, and alerts when one is at risk.
//!
//! ARCHITECTURE.md has the map of the modules.

pub mod alarm;
pub mod alarm_kind;
pub mod archive;
pub mod causes;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod derivation;
pub mod dispatch;
pub mod emulator;
pub mod event;
pub mod http;
pub mod ledger;
pub mod lock;
pub mod magic;
pub mod moengage;
pub mod ndjson;
pub mod notify;
pub mod outcome;
pub mod partition;
pub mod plan;
pub mod reading;
pub mod report;
pub mod retry;
pub mod schedule;
pub mod shell_word;
pub mod signature;
pub mod store;
pub mod sync;
pub mod table_words;
pub mod tables;
pub mod telemetry;
pub mod temporary;
pub mod web;
pub mod words;
