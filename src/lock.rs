//! Locks that a panic does not spoil.
//!
//! This file owns the one rule for them: every value behind a lock in this crate is whole between two statements, so it stays
//! usable after its holder panicked.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`, also after a panic of its holder.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
