//! Values for the tests of this folder.

use jiff::{SignedDuration, Timestamp};

use crate::{
    config::{Alarms, Report, SourceKind},
    outcome::Outcome,
    partition::Entry,
    report::{Partition, PartitionId, ReportId},
};

pub(super) fn utc(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(super) fn alarms() -> Alarms {
    Alarms { late_after: SignedDuration::from_hours(6), expiry: [72, 24, 6].map(SignedDuration::from_hours).to_vec() }
}

/// Generated at 10:00 on the 10th, due half an hour later, expires on the 17th.
pub(super) fn entry(outcome: Outcome, repeats: u32) -> Entry {
    let id = PartitionId { report: ReportId::new("acme", "daily"), date: "2026-11-10".parse().unwrap() };
    let partition = Partition {
        id,
        source: SourceKind::CampaignReport,
        generated_at: utc("2026-11-10T10:00:00Z"),
        due_at: utc("2026-11-10T10:30:00Z"),
        expires_at: Some(utc("2026-11-17T10:00:00Z")),
    };
    Entry { outcome: Some(outcome), repeats, ..Entry::new(partition) }
}

/// The report of [`entry`].
pub(super) fn report() -> Report {
    let text = "[[workspaces]]\nname = \"acme\"\napp_id = \"A\"\ndata_center = \"01\"\ntimezone = \"UTC\"\n\
                secret_key = \"x\"\n[[destinations]]\nname = \"disk\"\nurl = \"file:///x\"\n[[reports]]\n\
                source = \"campaign_report\"\nname = \"daily\"\nschedule = { every = \"day\", at = \"10:00\" }\n";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("moesync.toml");
    std::fs::write(&path, text).unwrap();
    (*crate::config::load(&path, []).unwrap().reports[0]).clone()
}
