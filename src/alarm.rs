//! Alarms: the present ones, and their changes since the last report.
//!
//! This folder owns when an alarm begins, worsens and ends. This follows from stored state alone, so a restart neither repeats
//! nor drops an alarm. It must not know who is notified, or how.

mod change;
mod partition;
mod survey;

use std::collections::BTreeMap;

use jiff::{SignedDuration, civil::Date};
use serde::{Deserialize, Serialize};

pub use self::{
    change::{Change, Notified, Phase, compare},
    partition::{begins, is_pending, of, of_planned},
    survey::{Facts, reports_being_fetched, survey},
};
use crate::{alarm_kind::AlarmKind, partition::Entry, report::ReportId};

/// What one alarm is about; `None` where it is not about one of these.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Subject {
    /// Name of the workspace.
    pub workspace: Option<String>,
    /// Id of the report.
    pub report: Option<String>,
    /// Date of the partition.
    pub date: Option<Date>,
    /// Name of the destination.
    pub destination: Option<String>,
}

/// Identifies an alarm. A report that is late and later expiring has one alarm that worsens: both have the key
/// [`AlarmKind::Expiring`].
pub type AlarmKey = (AlarmKind, Subject);

/// An alarm that is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveAlarm {
    /// The kind of alarm.
    pub kind: AlarmKind,
    /// The smallest configured time left to the nearest expiry; zero once that has passed.
    pub within: Option<SignedDuration>,
    /// Number of partitions.
    pub partitions: usize,
    /// Number of partitions by report.
    pub reports: BTreeMap<ReportId, usize>,
    /// The partition that expires first.
    pub nearest: Option<Entry>,
    /// The cause, for an alarm without partitions.
    pub message: Option<String>,
}

/// The status of one alarm in a survey. An alarm that the survey does not contain is off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlarmStatus {
    /// The alarm is on.
    Active(Box<ActiveAlarm>),
    /// An attempt in progress, or the next answer, will decide. The alarm keeps its previous status.
    Undetermined,
}

#[cfg(test)]
mod fixtures;
