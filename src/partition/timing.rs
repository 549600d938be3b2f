//! Whether content may be stored, by the local clock and MoEngage's.

use jiff::{SignedDuration, Timestamp};

use crate::{outcome::CLOCK_TOLERANCE, report::Partition};

/// Whether content may be stored, by the clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    /// It may.
    Timely,
    /// MoEngage's clock has not reached the generation time: the content is not final.
    TooEarly,
    /// The same, but the archive expires within [`LAST_CHANCE`]: it is stored with a warning. A server whose clock is a
    /// week behind must not cost a report.
    LastChance,
    /// A live listing that has expired by both clocks.
    Over,
    /// A live listing that has expired by the local clock; MoEngage's `Date` differs or is absent.
    Unclear,
}

/// Judges content of `partition` that MoEngage began to send at `now` with the `Date` `vendor_date`. `is_skew_confirmed`:
/// earlier answers of this server showed the same difference between the clocks.
///
/// Before its expiry by the local clock, a live listing is timely for any `Date`: it cannot be fetched again, and one wrong
/// `Date` must not cost it.
pub fn timing(
    partition: &Partition,
    now: Timestamp,
    vendor_date: Option<Timestamp>,
    is_skew_confirmed: bool,
) -> Timing {
    let has_expired = |at: Timestamp| partition.expires_at.is_some_and(|expiry| at >= expiry);
    let is_over_here = partition.source.is_live_listing() && has_expired(now);
    let Some(date) = vendor_date else {
        return if is_over_here { Timing::Unclear } else { Timing::Timely };
    };
    if date < partition.generated_at {
        let is_last_chance = partition.source.is_archive() && is_last_chance(partition, now);
        return if is_last_chance { Timing::LastChance } else { Timing::TooEarly };
    }
    if !is_over_here {
        return Timing::Timely;
    }
    let agree = now.duration_since(date).abs() <= CLOCK_TOLERANCE;
    match has_expired(date) {
        true if agree => Timing::Over,
        false if agree || is_skew_confirmed => Timing::Timely,
        _ => Timing::Unclear,
    }
}

/// The message of [`Timing::TooEarly`] and [`Timing::LastChance`].
pub fn not_reached(partition: &Partition, vendor_date: Option<Timestamp>) -> String {
    let date = vendor_date.map_or("absent".to_owned(), |date| date.to_string());
    format!(
        "MoEngage's clock has not reached the generation time, {}: the Date of its answer is {date}",
        partition.generated_at
    )
}

/// Whether the partition expires within [`LAST_CHANCE`] of `now`.
pub fn is_last_chance(partition: &Partition, now: Timestamp) -> bool {
    partition.expires_at.is_some_and(|expiry| expiry.duration_since(now) < LAST_CHANCE)
}

/// With less time than this to expiry, doubtful content is kept immediately instead of being requested again.
pub const LAST_CHANCE: SignedDuration = SignedDuration::from_hours(24);

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;
    use crate::{
        config::SourceKind,
        report::{PartitionId, ReportId},
    };

    fn utc(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn partition(source: SourceKind) -> Partition {
        let generated_at = utc("2026-11-10T09:30:00Z");
        Partition {
            id: PartitionId { report: ReportId::new("acme", "daily"), date: date(2026, 11, 10) },
            source,
            generated_at,
            due_at: utc("2026-11-10T10:00:00Z"),
            expires_at: match source {
                SourceKind::CampaignReport => Some(generated_at + SignedDuration::from_hours(168)),
                SourceKind::Campaigns => Some(utc("2026-11-11T09:30:00Z")),
                _ => None,
            },
        }
    }

    #[test]
    fn content_is_final_once_moengages_clock_has_reached_the_generation_time() {
        let timing = |source, now: &str, date: Option<&str>, is_skew_confirmed| {
            super::timing(&partition(source), utc(now), date.map(utc), is_skew_confirmed)
        };
        let (before, in_time, past) = ("2026-11-10T09:29:59Z", "2026-11-10T10:00:00Z", "2026-11-12T00:00:00Z");
        for source in
            [SourceKind::CampaignReport, SourceKind::DailyDump, SourceKind::CampaignStats, SourceKind::Campaigns]
        {
            assert_eq!(timing(source, in_time, Some(before), true), Timing::TooEarly, "{source}");
            assert_eq!(timing(source, in_time, Some(in_time), false), Timing::Timely, "{source}");
            assert_eq!(timing(source, in_time, Some(past), true), Timing::Timely, "{source}");
            assert_eq!(timing(source, in_time, None, false), Timing::Timely, "{source}");
        }
        let last_day = "2026-11-16T09:30:01Z";
        assert_eq!(timing(SourceKind::CampaignReport, last_day, Some(before), false), Timing::LastChance);
        assert_eq!(timing(SourceKind::CampaignReport, "2026-11-16T09:30:00Z", Some(before), false), Timing::TooEarly);
        assert_eq!(timing(SourceKind::DailyDump, last_day, Some(before), false), Timing::TooEarly);
        assert_eq!(timing(SourceKind::Campaigns, "2026-11-11T09:00:00Z", Some(before), false), Timing::TooEarly);
    }

    #[test]
    fn a_listing_expired_by_one_clock_alone_is_not_judged() {
        let partition = partition(SourceKind::Campaigns);
        let past = utc("2026-11-12T00:00:00Z");
        let judged = |date: Option<&str>, is_skew_confirmed| timing(&partition, past, date.map(utc), is_skew_confirmed);
        assert_eq!(judged(Some("2026-11-12T00:01:00Z"), false), Timing::Over);
        assert_eq!(judged(Some("2026-11-12T00:01:01Z"), true), Timing::Unclear);
        assert_eq!(judged(None, true), Timing::Unclear);
        assert_eq!(judged(Some("2026-11-10T12:00:00Z"), false), Timing::Unclear);
        assert_eq!(judged(Some("2026-11-10T12:00:00Z"), true), Timing::Timely, "the local clock is ahead");
    }
}
