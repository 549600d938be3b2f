//! How everything stands at a glance: what the first page shows, as data.
//!
//! This file owns what belongs to the overview. It must not know how it is shown.

use std::collections::HashMap;

use jiff::{Timestamp, ToSpan as _, civil::Date, tz::TimeZone};
use schemars::JsonSchema;
use serde::Serialize;

use super::read_ledger;
use crate::{
    alarm::{self, Alarm},
    config::{MonthDay, Report, Schedule, Source},
    ledger::{LedgerError, ReportFigures},
    outcome::{Entry, State},
    plan::{self, Decision, LedgerView},
    report::ReportId,
    schedule,
    sync::Context,
    words::{PartitionStatus, PlannedPartition},
};

/// How many dates of each report are shown.
pub(super) const DATES: i32 = 30;
/// How much of what comes next is shown.
const NEXT: usize = 12;

/// Everything at a glance.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Overview {
    /// The version of moesync that runs.
    pub version: String,
    /// When this was so.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub now: Timestamp,
    /// How many partitions of the configured reports are in which state.
    pub partitions: Counts,
    /// Bytes of all their stored objects.
    pub stored_bytes: u64,
    /// What is in danger, the nearest to its expiry first; then what was lost lately.
    pub dangers: Vec<Danger>,
    /// What is done next, in order.
    pub next: Vec<PlannedPartition>,
    /// How many recorded partitions belong to reports that are not configured any more: they are left alone.
    pub unconfigured: u64,
    /// The configured reports, in the order of the configuration.
    pub reports: Vec<ReportOverview>,
}

/// How many partitions are in which state.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Counts {
    /// Not due yet.
    pub scheduled: u64,
    /// Due, not stored.
    pub pending: u64,
    /// Object and manifest are there.
    pub stored: u64,
    /// Never published.
    pub absent: u64,
    /// Was or may have been there, and is gone.
    pub lost: u64,
}

/// A partition that calls for attention.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Danger {
    /// The partition.
    #[serde(flatten)]
    pub status: PartitionStatus,
    /// The worst that is to be said of it: lost, expiring, unauthorized, rejected, corrupt, store_failed or late.
    pub alarm: String,
    /// Seconds left to its expiry, negative once that has passed; null where it never expires or is lost.
    pub seconds_left: Option<i64>,
}

/// One report at a glance.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ReportOverview {
    /// Name of the workspace.
    pub workspace: String,
    /// Id of the report.
    pub report: String,
    /// Which API it comes from.
    pub source: Source,
    /// Its name in MoEngage's dashboard.
    pub name: String,
    /// Name of the destination.
    pub destination: String,
    /// When it is generated, for people.
    pub schedule: String,
    /// Its time zone.
    pub timezone: String,
    /// How many of its partitions are in which state.
    pub partitions: Counts,
    /// Bytes of its stored objects.
    pub stored_bytes: u64,
    /// When its newest stored partition was generated.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub newest_stored_at: Option<Timestamp>,
    /// Its last thirty dates, oldest first.
    pub dates: Vec<Day>,
}

/// One date of a report.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Day {
    /// The date, in the report's zone.
    #[schemars(with = "String", extend("format" = "date"))]
    pub date: Date,
    /// Where the partition of that date stands; null where there is none.
    pub state: Option<State>,
    /// What is to be said of it, if it calls for attention.
    pub alarm: Option<String>,
    /// Bytes of the stored object.
    pub size: Option<u64>,
}

impl Overview {
    /// How everything stands now.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub async fn gather(ctx: &Context) -> Result<Self, LedgerError> {
        let now = ctx.clock.now();
        let ledger = read_ledger(ctx).await?;
        let recent = ledger.recent(first_shown(now)).await?;
        let view = ledger.view(now).await?;
        let figures: HashMap<_, _> =
            ledger.report_figures(now).await?.into_iter().map(|figures| (figures.id.clone(), figures)).collect();

        let mut by_report: HashMap<ReportId, Vec<&Entry>> = HashMap::new();
        for entry in &recent {
            by_report.entry(entry.partition.id.report_id()).or_default().push(entry);
        }
        let reports: Vec<_> = ctx
            .config
            .reports
            .iter()
            .map(|report| {
                let id = report.report_id();
                let entries = by_report.get(&id).map_or(&[][..], Vec::as_slice);
                ReportOverview::new(ctx, report, figures.get(&id), entries, now)
            })
            .collect();
        let is_configured = |id: &ReportId| ctx.config.reports.iter().any(|report| report.report_id() == *id);
        let unconfigured = figures.values().filter(|figures| !is_configured(&figures.id)).map(Counts::of);
        let mut partitions = Counts::default();
        for report in &reports {
            partitions.add(&report.partitions);
        }
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now,
            partitions,
            stored_bytes: reports.iter().map(|report| report.stored_bytes).sum(),
            dangers: dangers(ctx, &recent, now).map(|(entry, alarm)| Danger::new(entry, alarm, now)).collect(),
            next: next(ctx, &view, now),
            unconfigured: unconfigured.map(|counts| counts.all()).sum(),
            reports,
        })
    }
}

impl ReportOverview {
    pub(super) fn new(
        ctx: &Context,
        report: &Report,
        figures: Option<&ReportFigures>,
        entries: &[&Entry],
        now: Timestamp,
    ) -> Self {
        let by_date: HashMap<Date, &Entry> = entries.iter().map(|entry| (entry.partition.id.date, *entry)).collect();
        let today = report.timezone.to_datetime(now).date();
        let first = today.saturating_sub((DATES - 1).days());
        let days = first.series(1.day()).take_while(|date| *date <= today);
        let dates = days.map(|date| match by_date.get(&date) {
            Some(entry) => Day {
                date,
                state: Some(entry.state(now)),
                alarm: alarm::of(entry, &ctx.config.alarms, now).map(|alarm| alarm.as_str().to_owned()),
                size: entry.object.as_ref().map(|object| object.size),
            },
            None => {
                let occurrence = schedule::on(&report.schedule, &report.timezone, date);
                let is_to_come = occurrence.is_some_and(|it| it.generated_at > now);
                Day { date, state: is_to_come.then_some(State::Scheduled), alarm: None, size: None }
            }
        });
        Self {
            workspace: report.workspace.name.clone(),
            report: report.id.clone(),
            source: report.source,
            name: report.name.clone(),
            destination: report.destination.clone(),
            schedule: describe(&report.schedule),
            timezone: report.timezone.iana_name().unwrap_or("UTC").to_owned(),
            partitions: figures.map(Counts::of).unwrap_or_default(),
            stored_bytes: figures.map_or(0, |figures| figures.stored_bytes),
            newest_stored_at: figures.and_then(|figures| figures.newest_stored),
            dates: dates.collect(),
        }
    }
}

impl Counts {
    fn of(figures: &ReportFigures) -> Self {
        let ReportFigures { scheduled, pending, stored, absent, lost, .. } = *figures;
        Self { scheduled, pending, stored, absent, lost }
    }

    fn all(&self) -> u64 {
        self.scheduled + self.pending + self.stored + self.absent + self.lost
    }

    fn add(&mut self, other: &Self) {
        self.scheduled += other.scheduled;
        self.pending += other.pending;
        self.stored += other.stored;
        self.absent += other.absent;
        self.lost += other.lost;
    }
}

impl Danger {
    fn new(entry: &Entry, alarm: Alarm, now: Timestamp) -> Self {
        let left = entry.partition.expires_at.filter(|_| alarm != Alarm::Lost);
        Self {
            status: PartitionStatus::new(entry, true, now),
            alarm: alarm.as_str().to_owned(),
            seconds_left: left.map(|expiry| expiry.duration_since(now).as_secs()),
        }
    }
}

/// The earliest date that is shown, in whichever zone.
pub(super) fn first_shown(now: Timestamp) -> Date {
    TimeZone::UTC.to_datetime(now).date().saturating_sub(DATES.days())
}

/// What of `entries` calls for attention: first what can still be saved, by the time that is left.
pub(super) fn dangers<'a>(
    ctx: &Context,
    entries: &'a [Entry],
    now: Timestamp,
) -> impl Iterator<Item = (&'a Entry, Alarm)> {
    let is_configured = |id: ReportId| ctx.config.reports.iter().any(|report| report.report_id() == id);
    let mut dangers: Vec<_> = entries
        .iter()
        .filter_map(|entry| Some((entry, alarm::of(entry, &ctx.config.alarms, now)?)))
        .filter(|(entry, _)| is_configured(entry.partition.id.report_id()))
        .collect();
    dangers.sort_by_key(|(entry, alarm)| {
        (*alarm == Alarm::Lost, entry.partition.expires_at.unwrap_or(Timestamp::MAX), &entry.partition.id)
    });
    dangers.into_iter()
}

/// The first things that the plan says of what is configured.
fn next(ctx: &Context, view: &LedgerView, now: Timestamp) -> Vec<PlannedPartition> {
    let plan = plan::plan(&ctx.config.reports, view, now);
    let configured = plan.items.iter().filter(|item| item.decision != Decision::Unconfigured);
    configured.take(NEXT).map(|item| PlannedPartition::new(item, now)).collect()
}

/// A schedule for people.
fn describe(schedule: &Schedule) -> String {
    let time = |at: &jiff::civil::Time| at.strftime("%H:%M").to_string();
    match schedule {
        Schedule::Daily { at } => format!("daily at {}", time(at)),
        Schedule::Weekly { on, at } => format!("{on:?}s at {}", time(at)),
        Schedule::Monthly { on: MonthDay::Day(day), at } => format!("monthly on day {day} at {}", time(at)),
        Schedule::Monthly { on: MonthDay::Last, at } => format!("monthly on the last day at {}", time(at)),
        Schedule::Once { date, at: Some(at) } => format!("once, on {date} at {}", time(at)),
        Schedule::Once { date, at: None } => format!("once, on {date}"),
    }
}
