//! The state of all reports: the data of the overview page.
//!
//! This file owns the content of the overview. It must not know how it is shown.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use jiff::{Timestamp, ToSpan as _, civil::Date, tz::TimeZone};
use schemars::JsonSchema;
use serde::Serialize;

use super::reader::read_ledger;
use crate::{
    alarm,
    alarm_kind::AlarmKind,
    config::{MonthDay, Report, Schedule, SourceKind},
    event::counted,
    ledger::{Ledger, LedgerError, ReportFigures, SettledDate},
    outcome::Outcome,
    partition::{Entry, Settled, State},
    report::{Partition, PartitionId, ReportId},
    schedule,
    sync::{Context, Planned},
    words::{self, PartitionStatus, PlannedPartition},
};

/// Number of dates shown of each report.
pub(super) const DATES: i32 = 30;
/// Number of planned partitions shown.
const NEXT: usize = 12;

/// The state of all reports.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Overview {
    /// All but the reports.
    #[serde(flatten)]
    pub head: OverviewHead,
    /// The configured reports, in the order of the configuration.
    pub reports: Vec<ReportOverview>,
}

/// The state of all reports together.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct OverviewHead {
    /// The version of moesync that runs.
    pub version: String,
    /// The time of this overview.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub now: Timestamp,
    /// Number of partitions of the configured reports in each state.
    pub partitions: Counts,
    /// Size of all their stored objects in bytes.
    pub stored_bytes: u64,
    /// Alarms of the process and its surroundings.
    pub incidents: Vec<Incident>,
    /// Partitions in danger, the nearest to its expiry first; then those lost recently.
    pub dangers: Vec<Danger>,
    /// Alarms about what is stored, by report.
    pub stored_alarms: Vec<StoredAlarm>,
    /// The next partitions of the plan, in order.
    pub next: Vec<PlannedPartition>,
    /// Number of recorded partitions of reports that are no longer configured. They are not fetched.
    pub unconfigured: u64,
    /// When the last plan was made; the API does not show it.
    #[serde(skip)]
    pub planned_at: Option<Timestamp>,
    /// The workspaces on hold whose reports wait, by name; the API does not show them.
    #[serde(skip)]
    pub held: Vec<HeldWorkspace>,
}

/// A workspace on hold.
#[derive(Debug, Clone)]
pub struct HeldWorkspace {
    /// Its name.
    pub name: String,
    /// `unauthorized` or `rate_limited`.
    pub outcome: Outcome,
    /// When it is requested again.
    pub until: Timestamp,
    /// Number of its reports with a partition that waits.
    pub reports: usize,
}

/// An alarm that is not about one partition.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Incident {
    /// The alarm: ledger, configuration, clock, panic, or store_failed if a destination has not answered for minutes.
    pub alarm: String,
    /// The cause, as one line of text.
    pub message: String,
}

/// An alarm about stored partitions of a report.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct StoredAlarm {
    /// The alarm: tables_failed or other_content.
    pub alarm: String,
    /// Name of the workspace.
    pub workspace: String,
    /// Id of the report.
    pub report: String,
    /// The cause, as one line of text.
    pub message: String,
}

/// Number of partitions in each state.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Counts {
    /// Not due yet.
    pub scheduled: u64,
    /// Due and not stored.
    pub pending: u64,
    /// Object and manifest are at the destination.
    pub stored: u64,
    /// Never published.
    pub absent: u64,
    /// Existed at MoEngage, or may have existed, and can no longer be fetched.
    pub lost: u64,
}

/// A partition with an alarm.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Danger {
    /// The partition.
    #[serde(flatten)]
    pub status: PartitionStatus,
    /// Its most severe alarm: lost, expiring, unauthorized, rejected, corrupt, unsupported, store_failed or late.
    pub alarm: String,
    /// Seconds left to its expiry, negative after it; null if it does not expire, is lost, or is stored and its refresh
    /// fails.
    pub seconds_left: Option<i64>,
}

/// The state of one report.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ReportOverview {
    /// Name of the workspace.
    pub workspace: String,
    /// Id of the report.
    pub report: String,
    /// The API that serves it.
    pub source: SourceKind,
    /// Its name in MoEngage's dashboard.
    pub name: String,
    /// Name of the destination.
    pub destination: String,
    /// When it is generated, as text.
    pub schedule: String,
    /// Its time zone.
    pub timezone: String,
    /// Number of its partitions in each state.
    pub partitions: Counts,
    /// Size of its stored objects in bytes.
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
    /// State of the partition of that date; null without one.
    pub state: Option<State>,
    /// Its alarm; null without one.
    pub alarm: Option<String>,
    /// Size of the stored object in bytes.
    pub size: Option<u64>,
}

impl Overview {
    /// The present state.
    ///
    /// # Errors
    ///
    /// If the ledger cannot be read.
    pub async fn gather(ctx: &Context) -> Result<Self, LedgerError> {
        Ok(Self::of(ctx, |_| (ctx.config.reports.iter().collect(), ())).await?.0)
    }

    /// The present state of the configured reports that `choose` returns, and the second value that it returns.
    pub(super) async fn of<'a, T>(
        ctx: &'a Context,
        choose: impl FnOnce(&Standing) -> (Vec<&'a Arc<Report>>, T),
    ) -> Result<(Self, T), LedgerError> {
        let ledger = read_ledger(ctx).await?;
        let standing = Standing::gather(ctx, &ledger).await?;
        let (chosen, second) = choose(&standing);
        let by_id: HashMap<_, _> = standing.figures.iter().map(|figures| (&figures.id, figures)).collect();
        let mut reports = Vec::with_capacity(chosen.len());
        for report in chosen {
            if let Some(figures) = by_id.get(&report.id) {
                let dates = standing.dates(&ledger, &report.id).await?;
                reports.push(ReportOverview::new(ctx, report, figures, &standing, &dates));
            }
        }
        Ok((Self { head: OverviewHead::read(ctx, &ledger, &standing).await?, reports }, second))
    }
}

impl OverviewHead {
    pub(super) async fn read(ctx: &Context, ledger: &Ledger, standing: &Standing) -> Result<Self, LedgerError> {
        let Standing { now, figures, .. } = standing;
        let mut partitions = Counts::default();
        for figures in figures {
            partitions.add(&Counts::of(figures));
        }
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now: *now,
            partitions,
            stored_bytes: figures.iter().map(|figures| figures.stored_bytes).sum(),
            incidents: incidents(ctx),
            dangers: standing.dangers(ctx).map(|(entry, alarm)| Danger::new(entry, alarm, *now)).collect(),
            stored_alarms: stored_alarms(ledger, standing).await?,
            next: standing.next(),
            unconfigured: standing.unconfigured,
            planned_at: standing.planned.as_ref().map(|planned| planned.at),
            held: standing.held(),
        })
    }
}

/// The alarms about what is stored of the configured reports.
async fn stored_alarms(ledger: &Ledger, standing: &Standing) -> Result<Vec<StoredAlarm>, LedgerError> {
    let alarm = |kind: AlarmKind, id: &ReportId, message| StoredAlarm {
        alarm: kind.as_str().to_owned(),
        workspace: id.workspace().to_owned(),
        report: id.name().to_owned(),
        message,
    };
    let mut found: BTreeMap<ReportId, u64> = BTreeMap::new();
    for figures in ledger.attempt_figures().await?.into_iter().filter(|figures| figures.other_content > 0) {
        *found.entry(figures.id).or_default() += figures.other_content;
    }
    let found = found.into_iter().map(|(id, attempts)| {
        let times = if attempts == 1 { "once".to_owned() } else { format!("{attempts} times") };
        let message = format!("other content was found at a key, {times}; nothing was overwritten");
        (id.clone(), alarm(AlarmKind::OtherContent, &id, message))
    });
    let failed = ledger.failed_tables().await?.into_iter().map(|failed| {
        let id = failed.newest.partition.id;
        let dates = counted(failed.partitions, "date");
        let message = format!("the tables of {dates} cannot be made; {}: {}", id.date, failed.message);
        (id.report.clone(), alarm(AlarmKind::TablesFailed, &id.report, message))
    });
    let all = failed.chain(found).filter(|(id, _)| standing.recent.contains_key(id));
    Ok(all.map(|(_, alarm)| alarm).collect())
}

fn incidents(ctx: &Context) -> Vec<Incident> {
    let incidents = ctx.incidents().into_iter();
    incidents
        .filter_map(|(kind, message)| Some(Incident { alarm: kind.as_str().to_owned(), message: message? }))
        .collect()
}

impl ReportOverview {
    pub(super) fn new(
        ctx: &Context,
        report: &Report,
        figures: &ReportFigures,
        standing: &Standing,
        settled: &[SettledDate],
    ) -> Self {
        let now = standing.now;
        let mut by_date: HashMap<Date, Day> = HashMap::with_capacity(settled.len());
        for entry in standing.recent.get(&figures.id).into_iter().flatten() {
            let date = entry.partition.id.date;
            let alarm = standing.alarm(ctx, entry).map(|alarm| alarm.as_str().to_owned());
            let size = entry.object.as_ref().map(|object| object.size);
            by_date.insert(date, Day { date, state: Some(entry.state(now)), alarm, size });
        }
        for &SettledDate { date, state, size } in settled {
            // It may have been settled since the entry was read; then its alarm is over.
            let alarm = by_date.remove(&date).filter(|day| day.state == Some(state)).and_then(|day| day.alarm);
            by_date.insert(date, Day { date, state: Some(state), alarm, size });
        }
        let today = report.timezone.to_datetime(now).date();
        let first = today.saturating_sub((DATES - 1).days());
        let days = first.series(1.day()).take_while(|date| *date <= today);
        let unrecorded = |date| {
            let occurrence = schedule::on(&report.schedule, &report.timezone, date);
            let is_in_future = occurrence.is_some_and(|it| it.generated_at > now);
            Day { date, state: is_in_future.then_some(State::Scheduled), alarm: None, size: None }
        };
        let dates = days.map(|date| by_date.remove(&date).unwrap_or_else(|| unrecorded(date)));
        Self {
            workspace: report.workspace.name.clone(),
            report: report.id.name().to_owned(),
            source: report.source.kind(),
            name: report.name.clone(),
            destination: report.destination.name.clone(),
            schedule: describe(&report.schedule),
            timezone: words::zone(&report.timezone).to_owned(),
            partitions: Counts::of(figures),
            stored_bytes: figures.stored_bytes,
            newest_stored_at: figures.newest_stored,
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
    fn new(entry: &Entry, alarm: AlarmKind, now: Timestamp) -> Self {
        let left = entry.partition.expires_at.filter(|_| alarm != AlarmKind::Lost && entry.settled != Settled::Stored);
        Self {
            status: PartitionStatus::new(entry, true, now),
            alarm: alarm.as_str().to_owned(),
            seconds_left: left.map(|expiry| expiry.duration_since(now).as_secs()),
        }
    }
}

/// The state of the reports: the ledger's figures and recent dates, and the loop's last plan.
pub(super) struct Standing {
    /// The time of all states.
    pub(super) now: Timestamp,
    /// The last plan; `None` before the first one.
    pub(super) planned: Option<Arc<Planned>>,
    /// Figures of the configured reports, in the order of the configuration.
    pub(super) figures: Vec<ReportFigures>,
    /// Stored partitions that are to be fetched again.
    refreshed: HashSet<PartitionId>,
    /// Of configured reports: open partitions, those lost recently, and those of the plan.
    recent: HashMap<ReportId, Vec<Entry>>,
    /// Number of recorded partitions of reports that are not configured.
    unconfigured: u64,
}

impl Standing {
    pub(super) async fn gather(ctx: &Context, ledger: &Ledger) -> Result<Self, LedgerError> {
        let now = ctx.clock.now();
        let planned = ctx.planned.latest();
        let mut recorded = ledger.open_or_lost(first_shown(now)).await?;
        let mut recorded_figures: HashMap<_, _> =
            ledger.report_figures(None, now).await?.into_iter().map(|figures| (figures.id.clone(), figures)).collect();

        let configured = ctx.config.reports.iter().map(|report| {
            let recorded = recorded_figures.remove(&report.id);
            recorded.unwrap_or_else(|| ReportFigures::nothing(report.id.clone(), report.source.kind()))
        });
        let mut figures: Vec<_> = configured.collect();
        let unconfigured = recorded_figures.values().map(|figures| Counts::of(figures).all()).sum();

        let mut recent: HashMap<_, Vec<_>> = figures.iter().map(|figures| (figures.id.clone(), Vec::new())).collect();
        let known: HashSet<_> = recorded.iter().map(|entry| entry.partition.id.clone()).collect();
        let mut refreshed = HashSet::new();
        let mut unrecorded: HashMap<ReportId, Vec<&Partition>> = HashMap::new();
        if let Some(Planned { plan, .. }) = planned.as_deref() {
            for item in plan.items.iter().filter(|item| item.entry.settled == Settled::Stored) {
                let id = &item.entry.partition.id;
                refreshed.insert(id.clone());
                // It may have been fetched since the plan was made.
                let is_failing = alarm::of_planned(&item.entry, &ctx.config.alarms, now).is_some();
                if is_failing && !known.contains(id) {
                    recorded.extend(ledger.entry_of(id).await?);
                }
            }
            for entry in plan.new.iter().filter(|new| !known.contains(&new.partition.id)) {
                let id = &entry.partition.id;
                if ledger.entry_of(id).await?.is_some() {
                    continue;
                }
                unrecorded.entry(id.report.clone()).or_default().push(&entry.partition);
                if let Some(entries) = recent.get_mut(&id.report) {
                    entries.push(entry.clone());
                }
            }
        }
        for entry in recorded {
            if let Some(entries) = recent.get_mut(&entry.partition.id.report) {
                entries.push(entry);
            }
        }
        for figures in &mut figures {
            for partition in unrecorded.remove(&figures.id).into_iter().flatten() {
                figures.add_unrecorded(partition, now);
            }
        }
        Ok(Self { now, planned, figures, refreshed, recent, unconfigured })
    }

    /// The dates of a report that are shown, but for its open ones.
    pub(super) async fn dates(&self, ledger: &Ledger, id: &ReportId) -> Result<Vec<SettledDate>, LedgerError> {
        ledger.settled_dates(id, first_shown(self.now)).await
    }

    /// The workspaces on hold, with the number of reports that wait.
    fn held(&self) -> Vec<HeldWorkspace> {
        let holds = self.planned.iter().flat_map(|planned| &planned.view.holds);
        let waits = |entry: &Entry| entry.settled == Settled::Open && entry.partition.due_at <= self.now;
        let mut held: Vec<_> = holds
            .filter(|(_, hold)| hold.until > self.now)
            .map(|(name, hold)| {
                let reports = self.recent.iter().filter(|(id, _)| id.workspace() == name);
                HeldWorkspace {
                    name: name.clone(),
                    outcome: hold.outcome,
                    until: hold.until,
                    reports: reports.filter(|(_, entries)| entries.iter().any(waits)).count(),
                }
            })
            .filter(|held| held.reports > 0)
            .collect();
        held.sort_by(|a, b| a.name.cmp(&b.name));
        held
    }

    /// The most severe alarm of a partition.
    pub(super) fn alarm(&self, ctx: &Context, entry: &Entry) -> Option<AlarmKind> {
        match self.refreshed.contains(&entry.partition.id) {
            true => alarm::of_planned(entry, &ctx.config.alarms, self.now),
            false => alarm::of(entry, &ctx.config.alarms, self.now),
        }
    }

    /// The partitions with an alarm: first those that can still be stored, by the time left to expiry; then the lost.
    pub(super) fn dangers(&self, ctx: &Context) -> impl Iterator<Item = (&Entry, AlarmKind)> {
        let entries = self.recent.values().flatten();
        let mut dangers: Vec<_> = entries.filter_map(|entry| Some((entry, self.alarm(ctx, entry)?))).collect();
        dangers.sort_by_key(|(entry, alarm)| {
            (*alarm == AlarmKind::Lost, entry.partition.expires_at.unwrap_or(Timestamp::MAX), &entry.partition.id)
        });
        dangers.into_iter()
    }

    /// The first items of the plan that belong to configured reports.
    fn next(&self) -> Vec<PlannedPartition> {
        let items = self.planned.iter().flat_map(|planned| &planned.plan.items);
        let configured = items.filter(|item| self.recent.contains_key(&item.entry.partition.id.report));
        configured.take(NEXT).map(|item| PlannedPartition::new(item, self.now)).collect()
    }
}

/// No report shows a date before this one.
fn first_shown(now: Timestamp) -> Date {
    TimeZone::UTC.to_datetime(now).date().saturating_sub(DATES.days())
}

/// A schedule as text.
fn describe(schedule: &Schedule) -> String {
    let time = |at: &jiff::civil::Time| at.strftime("%H:%M").to_string();
    match schedule {
        Schedule::Daily { at } => format!("daily at {}", time(at)),
        Schedule::Weekly { on, at } => {
            let days: Vec<_> = on.iter().map(|day| format!("{day:?}s")).collect();
            format!("{} at {}", days.join(", "), time(at))
        }
        Schedule::Monthly { on: MonthDay::Day(day), at } => format!("monthly on day {day} at {}", time(at)),
        Schedule::Monthly { on: MonthDay::Last, at } => format!("monthly on the last day at {}", time(at)),
        Schedule::Once { date, at: Some(at) } => format!("once, on {date} at {}", time(at)),
        Schedule::Once { date, at: None } => format!("once, on {date}"),
    }
}
