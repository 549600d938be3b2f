//! Everything that is tried from outside, in one binary: one module a subject.

mod archive;
mod config;
mod emulator;
mod store;
mod vendor;
