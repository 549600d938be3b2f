//! Locks that a panic does not spoil.
//!
//! This file owns the one rule for them: every value behind a lock here is whole between two statements, so it stays usable
//! after its holder panicked.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
