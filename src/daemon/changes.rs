//! What differs between two configurations, for the log.

use std::{collections::BTreeMap, fmt::Debug};

use crate::config::{Config, Report, Target};

/// Number of names that each part of the text has.
const NAMED: usize = 10;

/// What `new` adds to `old`, takes from it and changes, such as `reports: + acme/new, - acme/old; limits`. A new key or address
/// in the same place is no difference. Empty without a difference.
pub(super) fn changes(old: &Config, new: &Config) -> String {
    let reports = |config: &Config| -> BTreeMap<String, String> {
        config.reports.iter().map(|report| (report.id.to_string(), settings(report))).collect()
    };
    let workspaces = |config: &Config| -> BTreeMap<String, String> {
        let of = |workspace: &crate::config::Workspace| {
            (&workspace.app_id, &workspace.base_url, &workspace.timezone).shown()
        };
        config.workspaces.iter().map(|workspace| (workspace.name.clone(), of(workspace))).collect()
    };
    let destinations = |config: &Config| -> BTreeMap<String, String> {
        let of = |to: &crate::config::DestinationSettings| {
            (&to.location, to.options.keys().collect::<Vec<_>>(), to.fsync).shown()
        };
        config.destinations.iter().map(|destination| (destination.name.clone(), of(destination))).collect()
    };
    let targets = |config: &Config| -> BTreeMap<String, String> {
        config.notify.iter().map(|target| (target.name.clone(), received(target))).collect()
    };
    let lists = [
        ("reports", difference(&reports(old), &reports(new))),
        ("workspaces", difference(&workspaces(old), &workspaces(new))),
        ("destinations", difference(&destinations(old), &destinations(new))),
        ("notify targets", difference(&targets(old), &targets(new))),
    ];
    let tables = [
        ("instance", old.instance.shown() != new.instance.shown()),
        ("alarms", old.alarms.shown() != new.alarms.shown()),
        ("limits", old.limits.shown() != new.limits.shown()),
        ("network", old.network.shown() != new.network.shown()),
    ];
    let lists = lists.into_iter().filter(|(_, parts)| !parts.is_empty());
    let lists = lists.map(|(what, parts)| format!("{what}: {}", parts.join(", ")));
    let tables = tables.into_iter().filter(|(_, is_changed)| *is_changed).map(|(name, _)| format!("[{name}]"));
    lists.chain(tables).collect::<Vec<_>>().join("; ")
}

/// `+` for each name that is new, `-` for each that is gone, `~` for each whose settings differ.
fn difference(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<String> {
    let added = new.keys().filter(|name| !old.contains_key(*name)).map(|name| format!("+ {name}"));
    let removed = old.keys().filter(|name| !new.contains_key(*name)).map(|name| format!("- {name}"));
    let changed = new.iter().filter(|(name, settings)| old.get(*name).is_some_and(|before| before != *settings));
    let mut all: Vec<_> = added.chain(removed).chain(changed.map(|(name, _)| format!("~ {name}"))).collect();
    let others = all.len().saturating_sub(NAMED);
    all.truncate(NAMED);
    all.extend((others > 0).then(|| format!("{others} more")));
    all
}

/// What decides when and how a report is fetched and where it is stored.
fn settings(report: &Report) -> String {
    let name = (&report.name, &report.source, &report.workspace.name, &report.destination.name);
    let times = (&report.schedule, &report.timezone, report.buffer, report.start);
    (name, times, &report.base_url, &report.tables, &report.column_types).shown()
}

fn received(target: &Target) -> String {
    (std::mem::discriminant(&target.channel), target.events()).shown()
}

/// Settings as text, to compare them: most of their types have no equality, as secrets have none.
trait Shown: Debug {
    fn shown(&self) -> String {
        format!("{self:?}")
    }
}

impl<T: Debug> Shown for T {}
