//! The causes of an HTTP error.
//!
//! This file owns the walk through them. It must not know what an error means.

use std::{error::Error, io};

/// The texts of an error and its causes, the outermost first.
pub fn texts(error: &reqwest::Error) -> Vec<String> {
    chain(error).map(ToString::to_string).collect()
}

/// The text of the innermost cause.
pub fn root(error: &reqwest::Error) -> String {
    texts(error).pop().unwrap_or_default()
}

/// The innermost cause of a type.
pub fn innermost<T: Error + 'static>(error: &reqwest::Error) -> Option<&T> {
    chain(error).filter_map(|cause| cause.downcast_ref::<T>()).last()
}

/// An error and its causes, including the error that an `io::Error` wraps, which `source` omits.
fn chain(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(Some(error as &(dyn Error + 'static)), |&error| {
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}
