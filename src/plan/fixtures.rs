//! Reports for the tests of this folder.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp, civil, civil::time, tz::TimeZone};

use super::{Decision, LedgerView, Plan};
use crate::{
    config::{
        ArchiveSource, CampaignsQuery, DestinationSettings, Report, Schedule, SecretSource, Shape, SnapshotSource,
        Source, SourceKind, StatsQuery, Workspace,
    },
    partition::Entry,
    report::ReportId,
};

pub(super) fn utc(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn settings(source: SourceKind) -> Source {
    match source {
        SourceKind::CampaignReport => Source::Archive(ArchiveSource::CampaignReport { suffix: ".zip".to_owned() }),
        SourceKind::DailyDump => {
            Source::Archive(ArchiveSource::DailyDump { give_up_after: SignedDuration::from_hours(168) })
        }
        SourceKind::Campaigns => Source::Snapshot(SnapshotSource::Campaigns(CampaignsQuery::default())),
        SourceKind::CampaignStats => Source::Snapshot(SnapshotSource::CampaignStats(StatsQuery {
            metric_type: "TOTAL".to_owned(),
            attribution_type: "CLICK_THROUGH".to_owned(),
            campaign_ids: Vec::new(),
            window_days: 1,
            refresh_days: 0,
            shape: Shape::Raw,
        })),
        other => panic!("no test plans {other}"),
    }
}

pub(super) fn report(source: SourceKind, schedule: Schedule, zone: &str) -> Report {
    let timezone = TimeZone::get(zone).unwrap();
    let base_url: url::Url = "https://api-01.moengage.com".parse().unwrap();
    let key = SecretSource::Env { name: "KEY".into(), place: "here".into() };
    Report {
        workspace: Arc::new(Workspace {
            name: "acme".into(),
            app_id: "APP".into(),
            base_url: base_url.clone(),
            timezone: timezone.clone(),
            secret_key: key.clone(),
            api_key: key,
        }),
        source: settings(source),
        id: ReportId::new("acme", "daily"),
        name: "Report test".into(),
        destination: Arc::new(DestinationSettings {
            name: "disk".into(),
            location: "file:///x".parse().unwrap(),
            options: [].into(),
            fsync: true,
            ca_file: None,
            place: "here".into(),
        }),
        schedule,
        buffer: SignedDuration::from_mins(30),
        start: None,
        timezone,
        base_url,
        tables: None,
        column_types: Default::default(),
    }
}

pub(super) fn daily(hour: i8, minute: i8) -> Schedule {
    Schedule::Daily { at: time(hour, minute, 0, 0) }
}

pub(super) fn dates_to_fetch(plan: &Plan) -> Vec<civil::Date> {
    plan.items.iter().filter(|item| item.decision == Decision::Fetch).map(|item| item.entry.partition.id.date).collect()
}

/// The view of a ledger after `plan` was recorded.
pub(super) fn recorded(mut view: LedgerView, plan: &Plan) -> LedgerView {
    view.entries.extend(plan.new.iter().cloned());
    view.planned_through.extend(plan.planned_through.iter().cloned());
    view
}

pub(super) fn late_dates(entries: &[Entry]) -> Vec<civil::Date> {
    entries.iter().filter(|entry| entry.requested_late).map(|entry| entry.partition.id.date).collect()
}
