//! How often a workspace may ask the JSON APIs.
//!
//! This file owns the limits and the counting, in sliding windows: the strictest reading of "100 a minute". It must not
//! know how a refusal looks.

use std::{
    collections::{HashMap, VecDeque},
    sync::Mutex,
};

use jiff::Timestamp;

use super::server::lock;
use crate::config::Source;

/// So many requests within so many seconds. Nothing is documented for the search.
const fn limits(api: Source) -> &'static [(usize, i64)] {
    match api {
        Source::CampaignStats => &[(100, 60)],
        // The last one follows from the one before; it is documented all the same.
        Source::Executions => &[(10, 1), (100, 60), (6_000, 3_600)],
        Source::Campaigns | Source::CampaignMeta | Source::CampaignReport | Source::DailyDump => &[],
    }
}

/// When each workspace asked each API.
#[derive(Debug, Default)]
pub(super) struct Rates(Mutex<HashMap<(String, Source), VecDeque<Timestamp>>>);

impl Rates {
    /// Counts a request, unless it is one too many. A refused one doesn't count.
    ///
    /// # Errors
    ///
    /// The seconds after which the next one is let through, from 1.
    pub(super) fn take(&self, app_id: &str, api: Source, now: Timestamp) -> Result<(), i64> {
        let limits = limits(api);
        let longest = limits.iter().map(|(_, seconds)| *seconds).max().unwrap_or(0);
        let mut taken = lock(&self.0);
        let taken = taken.entry((app_id.to_owned(), api)).or_default();
        let age = |at: &Timestamp| now.duration_since(*at).as_millis();
        // A clock that was set back has no past.
        taken.retain(|at| (0..i128::from(longest) * 1000).contains(&age(at)));
        let wait = limits.iter().filter_map(|(count, seconds)| {
            let oldest = taken.get(taken.len().checked_sub(*count)?)?;
            let left = i128::from(*seconds) * 1000 - age(oldest);
            (left > 0).then(|| (left as i64 + 999) / 1000)
        });
        match wait.max() {
            Some(seconds) => Err(seconds),
            None => {
                taken.push_back(now);
                Ok(())
            }
        }
    }
}
