//! The `[alarms]` table.

use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Mistakes,
    document::KeyPath,
    mistakes::each,
    values::{Duration, SECOND, YEAR},
};

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct Raw {
    /// How long after it is due a report may be unpublished before that is an alarm.
    late_after: Duration,
    /// Times left to its expiry at which a report that is not stored raises an alarm again.
    expiry: Vec<Duration>,
}

impl Default for Raw {
    fn default() -> Self {
        Raw { late_after: Duration::new("6h"), expiry: ["72h", "24h", "6h"].map(Duration::new).into() }
    }
}

/// When alarms are raised.
#[derive(Debug, Clone)]
pub struct Alarms {
    /// How long after due a partition may be unpublished before it is an alarm.
    pub late_after: SignedDuration,
    /// Times left to expiry at which a partition that is not stored raises an alarm again, longest first.
    pub expiry: Vec<SignedDuration>,
}

impl Raw {
    pub(super) fn check(&self, at: &KeyPath<'_>) -> Result<Alarms, Mistakes> {
        let mut mistakes = Mistakes::default();
        let late_after = mistakes.keep(self.late_after.check(SignedDuration::ZERO..=YEAR, &at.key("late_after")));
        let expiry = mistakes.keep(each(&self.expiry, &at.key("expiry"), |text, at| text.check(SECOND..=YEAR, at)));
        mistakes.finish(|| {
            let mut expiry = expiry?;
            expiry.sort_unstable_by(|a, b| b.cmp(a));
            expiry.dedup();
            Some(Alarms { late_after: late_after?, expiry })
        })
    }
}
