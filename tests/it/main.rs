//! Everything that is tried from outside, in one binary: one module a subject.

mod archive;
mod config;
mod deploy;
mod docs;
mod emulator;
mod store;
mod vendor;
