//! `moesync plan`: shows what would be fetched, when and why.

use std::collections::{HashMap, HashSet};

use clap::Args;
use comfy_table::Cell;
use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};

use super::{
    Completion, Result,
    scope::Scope,
    shell::Shell,
    table::{self, Look},
};
use crate::{
    partition::{Entry, State},
    plan::{self, LedgerView, Reach},
    words::{self, Action, PartitionStatus, PlannedPartition, PlannedPartitions},
};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    scope: Scope,
    /// Prints a line for each partition, as --report and --days do.
    #[arg(long)]
    all: bool,
    /// Also shows what is scheduled within this many days.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u16).range(0..=3660))]
    days: Option<u16>,
}

pub(super) async fn run(shell: &Shell, options: Options) -> Result {
    let config = shell.config()?;
    let selection = options.scope.selection(&config)?;
    let now = shell.clock.now();
    let view = match shell.ledger(&config).await? {
        Some(ledger) => ledger.view(&Reach::of(&config.reports, now, now)).await?,
        None => LedgerView::default(),
    };
    let plan = plan::plan(&config.reports, &view, now);
    let is_selected = |entry: &&Entry| selection.covers_report(&entry.partition.id.report);
    // A plan covers five weeks of each report, so that a wrong clock does not fill the ledger.
    let more = match plan.is_partial {
        true => {
            let all = plan::unplanned(&config.reports, &view, now);
            all.iter().filter(is_selected).count() - plan.new.iter().filter(is_selected).count()
        }
        false => 0,
    };
    let items = plan.items;
    let planned: HashSet<_> = items.iter().map(|item| &item.entry.partition.id).collect();
    let mut partitions: Vec<_> = items.iter().map(|item| PlannedPartition::new(item, now)).collect();
    if let Some(days) = options.days {
        let until = now.checked_add(SignedDuration::from_hours(24 * i64::from(days))).unwrap_or(Timestamp::MAX);
        let upcoming = plan::upcoming(&config.reports, now, until).into_iter();
        let further = upcoming.filter(|partition| !planned.contains(&partition.id));
        partitions.extend(further.map(|partition| PlannedPartition::upcoming(partition, now)));
    }
    partitions.retain(|partition| {
        let PartitionStatus { workspace, report, .. } = &partition.status;
        selection.workspace.as_ref().is_none_or(|name| name == workspace)
            && selection.report.as_ref().is_none_or(|id| id == report)
    });
    let is_by_report = !options.all && options.days.is_none() && options.scope.report.is_none();
    let zones: Zones = config
        .reports
        .iter()
        .map(|report| ((report.workspace.name.clone(), report.id.name().to_owned()), report.timezone.clone()))
        .collect();
    shell.print(&PlannedPartitions { partitions }, |plan| {
        let look = shell.look(&config);
        let table = match is_by_report {
            true => by_report(plan, &zones, look, now),
            false => by_partition(plan, &zones, look, now),
        };
        let to_fetch = plan.partitions.iter().filter(|partition| is_fetched(partition)).count();
        let more = match more {
            0 => String::new(),
            more => format!(", and {} more after MoEngage has answered", table::number(more)),
        };
        format!("{table}\n{} to fetch now{more}\n", table::number(to_fetch))
    })?;
    Ok(Completion::Done)
}

/// The zones in which a report's times are shown.
type Zones = HashMap<(String, String), TimeZone>;

/// Why a partition is not fetched now, with the time in the report's zone.
fn why(partition: &PlannedPartition, zones: &Zones) -> String {
    let status = &partition.status;
    let zone = zones.get(&(status.workspace.clone(), status.report.clone()));
    match (partition.until, zone) {
        (Some(until), Some(zone)) => partition.reason.replace(&words::instant(until), &table::local(until, zone)),
        _ => partition.reason.clone(),
    }
}

fn is_fetched(partition: &PlannedPartition) -> bool {
    matches!(partition.action, Action::Fetch | Action::Refresh)
}

/// A line for each partition.
fn by_partition(plan: &PlannedPartitions, zones: &Zones, look: Look, now: Timestamp) -> String {
    let mut rows = look.table(["WORKSPACE", "REPORT", "DATE", "ACTION", "EXPIRES IN", "WHY"]);
    for partition in &plan.partitions {
        let status = &partition.status;
        rows.add_row([
            Cell::new(&status.workspace),
            Cell::new(table::report(&status.report, status.configured)),
            Cell::new(status.date),
            Cell::new(partition.action.as_str().replace('_', " ")),
            Cell::new(table::left(status.expires_at, now)),
            Cell::new(why(partition, zones)),
        ]);
    }
    rows.text()
}

/// Of what is due; else of what is next.
fn nearest_expiry(partitions: &[&PlannedPartition]) -> Option<Timestamp> {
    let due = partitions.iter().filter(|partition| partition.status.state != State::Scheduled);
    let nearest = due.filter_map(|partition| partition.status.expires_at).min();
    nearest.or_else(|| partitions.first()?.status.expires_at)
}

/// A line for each report: what is fetched now, or why its first partition waits.
fn by_report(plan: &PlannedPartitions, zones: &Zones, look: Look, now: Timestamp) -> String {
    let mut order: Vec<(&str, &str)> = Vec::new();
    let mut reports: HashMap<(&str, &str), Vec<&PlannedPartition>> = HashMap::new();
    for partition in &plan.partitions {
        let id = (partition.status.workspace.as_str(), partition.status.report.as_str());
        let partitions = reports.entry(id).or_default();
        if partitions.is_empty() {
            order.push(id);
        }
        partitions.push(partition);
    }
    let mut rows = look.table(["WORKSPACE", "REPORT", "NOW", "FIRST", "LAST", "EXPIRES IN", "WHY"]);
    for id in order {
        let all = &reports[&id];
        let fetched: Vec<_> = all.iter().filter(|partition| is_fetched(partition)).copied().collect();
        let shown = if fetched.is_empty() { &all[..1] } else { &fetched[..] };
        let dates = || shown.iter().map(|partition| partition.status.date);
        let (first, last) = (dates().min(), dates().max());
        let date = |date: Option<Date>| date.map(|date| date.to_string()).unwrap_or_default();
        rows.add_row([
            Cell::new(id.0),
            Cell::new(table::report(id.1, shown[0].status.configured)),
            Cell::new(fetched.len()),
            Cell::new(date(first)),
            Cell::new(date(last.filter(|last| Some(*last) != first))),
            Cell::new(table::left(nearest_expiry(all), now)),
            Cell::new(why(shown[0], zones)),
        ]);
    }
    rows.text()
}
