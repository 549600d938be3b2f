//! What happened in a run, by virtual time.

use std::sync::{Arc, Mutex};

use jiff::Timestamp;

#[derive(Clone, Default)]
pub struct Trace(Arc<Mutex<Vec<(Timestamp, String)>>>);

impl Trace {
    pub fn add(&self, at: Timestamp, line: String) {
        self.0.lock().unwrap().push((at, line));
    }

    /// The lines, oldest first.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|(at, line)| format!("{at:.3} {line}")).collect()
    }
}
