//! The `[limits]` table.

use std::time;

use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Mistakes,
    document::KeyPath,
    values::{ByteSize, DAY, Duration, Rate, SECOND, integer},
};

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct Raw {
    /// Concurrent attempts, over all workspaces, from the request until the archive is stored.
    #[schemars(range(min = 1, max = 1024))]
    concurrency: i64,
    /// Concurrent downloads from one workspace. The next one begins while an archive is being stored.
    #[schemars(range(min = 1, max = 1024))]
    concurrency_per_workspace: i64,
    /// Concurrent attempts at one destination, including those that wait for it: a destination that does not answer
    /// blocks no more than these.
    #[schemars(range(min = 1, max = 1024))]
    concurrency_per_destination: i64,
    /// Largest archive accepted, as received, and largest snapshot, as stored.
    archive_bytes: ByteSize,
    /// Most bytes inflated from one archive, and most bytes of the lines of one snapshot.
    inflated_bytes: ByteSize,
    /// Most inflated bytes for each byte of archive.
    #[schemars(range(min = 1, max = 1_000_000))]
    inflate_ratio: i64,
    /// Longest time for one attempt: looking, fetching, verifying, storing. For the JSON sources, the longest time from
    /// one page to the next, without waiting for MoEngage's request rates; all pages together have 24 hours.
    attempt_timeout: Duration,
    /// Longest time to connect.
    connect_timeout: Duration,
    /// Slowest download accepted. Only the time spent waiting for MoEngage counts.
    min_rate: Rate,
    /// Most bytes a second of all downloads together, such as `10 MiB/s`; default: no limit. It includes the pages of the
    /// JSON sources.
    bandwidth: Option<Rate>,
}

impl Default for Raw {
    fn default() -> Self {
        Raw {
            concurrency: 16,
            concurrency_per_workspace: 4,
            concurrency_per_destination: 8,
            archive_bytes: ByteSize::new("20 GiB"),
            inflated_bytes: ByteSize::new("200 GiB"),
            inflate_ratio: 500,
            attempt_timeout: Duration::new("1h"),
            connect_timeout: Duration::new("10s"),
            min_rate: Rate::new("1 KiB/s"),
            bandwidth: None,
        }
    }
}

/// Limits on concurrency, size and time.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Concurrent attempts, over all workspaces; at least 1.
    pub concurrency: usize,
    /// Concurrent downloads from one workspace; at least 1. What is being stored does not count.
    pub concurrency_per_workspace: usize,
    /// Concurrent attempts at one destination, including those that wait for it; at least 1.
    pub concurrency_per_destination: usize,
    /// Largest archive accepted, in bytes as received.
    pub archive_bytes: u64,
    /// Most bytes inflated from one archive.
    pub inflated_bytes: u64,
    /// Most inflated bytes for each byte of archive.
    pub inflate_ratio: u64,
    /// Longest time for one attempt, from claim to record. For a snapshot, the longest time from one page to the next,
    /// without waiting for MoEngage's request rates.
    pub attempt_timeout: time::Duration,
    /// Longest time for TCP and TLS to connect.
    pub connect_timeout: time::Duration,
    /// Slowest download accepted, in bytes for each second spent waiting for MoEngage.
    pub min_rate: u64,
    /// Most bytes a second of all downloads together; `None` is no limit.
    pub bandwidth: Option<u64>,
}

impl Raw {
    pub(super) fn check(&self, at: &KeyPath<'_>) -> Result<Limits, Mistakes> {
        let mut mistakes = Mistakes::default();
        let mut attempts = |value, key| mistakes.keep(integer(value, 1..=1024, &at.key(key)));
        let concurrency = attempts(self.concurrency, "concurrency");
        let concurrency_per_workspace = attempts(self.concurrency_per_workspace, "concurrency_per_workspace");
        let concurrency_per_destination = attempts(self.concurrency_per_destination, "concurrency_per_destination");
        let archive_bytes = mistakes.keep(self.archive_bytes.check(&at.key("archive_bytes")));
        let inflated_bytes = mistakes.keep(self.inflated_bytes.check(&at.key("inflated_bytes")));
        let inflate_ratio = mistakes.keep(integer(self.inflate_ratio, 1..=1_000_000, &at.key("inflate_ratio")));
        let attempt_timeout = mistakes.keep(self.attempt_timeout.check(SECOND..=DAY, &at.key("attempt_timeout")));
        let range = SignedDuration::from_millis(1)..=SignedDuration::from_mins(10);
        let connect_timeout = mistakes.keep(self.connect_timeout.check(range, &at.key("connect_timeout")));
        let min_rate = mistakes.keep(self.min_rate.check(&at.key("min_rate")));
        let bandwidth = self.bandwidth.as_ref().map(|rate| rate.check(&at.key("bandwidth")));
        let bandwidth = mistakes.keep(bandwidth.transpose());
        mistakes.finish(|| {
            Some(Limits {
                concurrency: concurrency?,
                concurrency_per_workspace: concurrency_per_workspace?,
                concurrency_per_destination: concurrency_per_destination?,
                archive_bytes: archive_bytes?,
                inflated_bytes: inflated_bytes?,
                inflate_ratio: inflate_ratio?,
                attempt_timeout: attempt_timeout?.unsigned_abs(),
                connect_timeout: connect_timeout?.unsigned_abs(),
                min_rate: min_rate?,
                bandwidth: bandwidth?,
            })
        })
    }
}
