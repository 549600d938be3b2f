//! `moesync status`: shows the reports, or their partitions, and their state.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use clap::Args;
use comfy_table::Cell;
use jiff::{Timestamp, civil::Date};

use super::{
    Completion, Result,
    scope::{Scope, ambiguous, date, known},
    shell::{Shell, print},
    table,
};
use crate::{
    alarm,
    config::Config,
    ledger::{Choice, Ledger, ReportFigures},
    partition::{Entry, State},
    plan::{self, LedgerView, Reach},
    report::{PartitionId, ReportId},
    words::{self, ListText, PartitionStatus},
};

/// Number of partitions that are read together.
const READ_TOGETHER: u32 = 500;

/// Number of partitions in one table; more are in several.
const MOST_IN_TABLE: usize = 5000;

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    scope: Scope,
    /// Prints a line for each partition, as --report, --state, --since and --json do.
    #[arg(long)]
    all: bool,
    /// Only partitions in this state.
    #[arg(long, value_parser = state, value_name = "STATE")]
    state: Option<State>,
    /// Only partitions of this date and later.
    #[arg(long, value_name = "DATE", value_parser = date)]
    since: Option<Date>,
    /// Exits with 1 if anything is pending past due, or lost.
    #[arg(long)]
    check: bool,
}

fn state(word: &str) -> std::result::Result<State, String> {
    State::ALL.into_iter().find(|state| state.as_str() == word).ok_or_else(|| {
        let words: Vec<_> = State::ALL.iter().map(|state| state.as_str()).collect();
        format!("expected one of {}", words.join(", "))
    })
}

pub(super) async fn run(shell: &Shell, options: Options) -> Result {
    let config = shell.config()?;
    let ledger = shell.ledger(&config).await?;
    let now = shell.clock.now();
    let is_by_report = !shell.json
        && !options.all
        && options.scope.report.is_none()
        && options.state.is_none()
        && options.since.is_none();
    let figures = match &ledger {
        Some(ledger) if is_by_report => ledger.report_figures(now).await?,
        _ => Vec::new(),
    };
    let recorded = match &ledger {
        Some(ledger) => ledger.recorded_reports(name_to_look_up(&options.scope, &config)).await?,
        None => Vec::new(),
    };
    let workspace = check_names(&options.scope, &config, &recorded)?;
    let (mut open, mut lost, mut unplanned) = (Vec::new(), Vec::new(), Vec::new());
    if options.check || is_by_report {
        let view = match &ledger {
            Some(ledger) => ledger.view(&Reach::of(&config.reports, now, now)).await?,
            None => LedgerView::default(),
        };
        // Partitions that a running daemon would have planned by now. If it is down, they are not in the ledger.
        unplanned = plan::plan(&config.reports, &view, now).new;
        open = view.entries;
        if let Some(ledger) = &ledger {
            lost = ledger.lost().await?;
        }
    }
    let selected =
        Selected { options: &options, configured: config.reports.iter().map(|report| &report.id).collect(), now };
    let is_alarming = open.iter().chain(&lost).chain(&unplanned).any(|entry| selected.is_alarming(entry));
    if is_by_report {
        print(&by_report(&config, &options.scope, figures, open.iter().chain(&unplanned), &unplanned, now))?;
    } else {
        let unplanned = if options.check { unplanned } else { Vec::new() };
        let choice = Choice { workspace, report: options.scope.report.clone(), since: options.since };
        selected.print(shell, &config, ledger.as_ref(), unplanned, &choice).await?;
    }
    Ok(if options.check && is_alarming { Completion::Incomplete } else { Completion::Done })
}

/// The one report whose workspaces are looked up in the ledger; all reports if a name may be misspelt, and others are suggested.
fn name_to_look_up<'a>(scope: &'a Scope, config: &Config) -> Option<&'a str> {
    let name = scope.report.as_deref()?;
    let mut configured = config.reports.iter().map(|report| &report.id).filter(|id| id.name() == name);
    configured.any(|id| scope.workspace.as_ref().is_none_or(|workspace| *workspace == id.workspace())).then_some(name)
}

/// Refuses a report or workspace that is neither configured nor recorded, and a report that is in several workspaces.
/// Returns the workspace of the report, or the one that is named.
fn check_names(scope: &Scope, config: &Config, recorded: &[ReportId]) -> Result<Option<String>> {
    let ids: BTreeSet<&ReportId> = config.reports.iter().map(|report| &report.id).chain(recorded).collect();
    if let Some(workspace) = &scope.workspace {
        let configured = config.workspaces.iter().map(|workspace| workspace.name.as_str());
        known("workspace", workspace, configured.chain(ids.iter().map(|id| id.workspace())))?;
    }
    let Some(report) = &scope.report else { return Ok(scope.workspace.clone()) };
    let in_workspace: Vec<_> =
        ids.iter().filter(|id| scope.workspace.as_ref().is_none_or(|name| *name == id.workspace())).collect();
    known("report", report, in_workspace.iter().map(|id| id.name()))?;
    let workspaces: Vec<_> = in_workspace.iter().filter(|id| id.name() == *report).map(|id| id.workspace()).collect();
    if workspaces.len() > 1 {
        return Err(ambiguous(report, &workspaces));
    }
    Ok(workspaces.first().map(|&workspace| workspace.to_owned()))
}

/// The partitions that the command is about.
struct Selected<'a> {
    options: &'a Options,
    configured: HashSet<&'a ReportId>,
    now: Timestamp,
}

impl Selected<'_> {
    fn status(&self, entry: &Entry) -> PartitionStatus {
        PartitionStatus::new(entry, self.configured.contains(&entry.partition.id.report), self.now)
    }

    fn covers_report(&self, id: &ReportId) -> bool {
        let Scope { workspace, report, .. } = &self.options.scope;
        workspace.as_ref().is_none_or(|name| name == id.workspace())
            && report.as_ref().is_none_or(|name| name == id.name())
    }

    fn covers(&self, partition: &PartitionStatus) -> bool {
        let Options { scope, state, since, .. } = self.options;
        scope.workspace.as_ref().is_none_or(|name| *name == partition.workspace)
            && scope.report.as_ref().is_none_or(|id| *id == partition.report)
            && state.is_none_or(|state| state == partition.state)
            && since.is_none_or(|since| since <= partition.date)
    }

    fn is_alarming(&self, entry: &Entry) -> bool {
        let partition = self.status(entry);
        partition.configured && matches!(partition.state, State::Pending | State::Lost) && self.covers(&partition)
    }

    /// Prints the partitions of the ledger, the next one of each report, and `unplanned`, by workspace, report and date, as
    /// they are read.
    async fn print(
        &self,
        shell: &Shell,
        config: &Config,
        ledger: Option<&Ledger>,
        unplanned: Vec<Entry>,
        choice: &Choice,
    ) -> Result<()> {
        let mut output = StatusOutput::new(shell.json, self.now);
        let chosen = config.reports.iter().filter(|report| self.covers_report(&report.id));
        let next = chosen.filter_map(|report| plan::next(report, self.now)).map(Entry::new);
        let mut unrecorded: Vec<Entry> = unplanned.into_iter().chain(next).collect();
        unrecorded.sort_by(|a, b| a.partition.id.cmp(&b.partition.id));
        let mut unrecorded = VecDeque::from(unrecorded);
        let mut last: Option<PartitionId> = None;
        while let Some(ledger) = ledger {
            let entries = ledger.page(choice, last.as_ref(), READ_TOGETHER).await?;
            for entry in &entries {
                let id = &entry.partition.id;
                while let Some(other) = unrecorded.pop_front_if(|other| other.partition.id < *id) {
                    output.push(self.status(&other), |partition| self.covers(partition))?;
                }
                unrecorded.pop_front_if(|other| other.partition.id == *id);
                output.push(self.status(entry), |partition| self.covers(partition))?;
            }
            let Some(entry) = entries.into_iter().next_back() else { break };
            last = Some(entry.partition.id);
        }
        for other in unrecorded {
            output.push(self.status(&other), |partition| self.covers(partition))?;
        }
        output.end()
    }
}

/// Partitions on their way to standard output: JSON item by item, text in tables of bounded length.
struct StatusOutput {
    list: Option<ListText>,
    table: Vec<PartitionStatus>,
    counts: BTreeMap<State, u64>,
    now: Timestamp,
    text: String,
}

impl StatusOutput {
    fn new(is_json: bool, now: Timestamp) -> Self {
        let list = is_json.then(|| ListText::new("partitions"));
        Self { list, table: Vec::new(), counts: BTreeMap::new(), now, text: String::new() }
    }

    fn push(&mut self, partition: PartitionStatus, is_selected: impl Fn(&PartitionStatus) -> bool) -> Result<()> {
        if !is_selected(&partition) {
            return Ok(());
        }
        *self.counts.entry(partition.state).or_default() += 1;
        match &mut self.list {
            Some(list) => list.push(&mut self.text, &partition),
            None => self.table.push(partition),
        }
        if self.table.len() == MOST_IN_TABLE {
            self.text += &format!("{}\n", table::partitions(&std::mem::take(&mut self.table), self.now));
        }
        match self.text.len() < 1 << 16 {
            true => Ok(()),
            false => print(&std::mem::take(&mut self.text)),
        }
    }

    fn end(mut self) -> Result<()> {
        match self.list {
            Some(list) => list.end(&mut self.text),
            None => {
                let is_only_table = self.counts.values().sum::<u64>() <= MOST_IN_TABLE as u64;
                if is_only_table || !self.table.is_empty() {
                    self.text += &format!("{}\n", table::partitions(&self.table, self.now));
                }
                self.text += &table::counts(&self.counts);
            }
        }
        print(&self.text)
    }
}

/// A line for each report, and the number of partitions in each state. `open` contains `unplanned`.
fn by_report<'a>(
    config: &Config,
    scope: &Scope,
    figures: Vec<ReportFigures>,
    open: impl Iterator<Item = &'a Entry>,
    unplanned: &[Entry],
    now: Timestamp,
) -> String {
    let mut at_risk: BTreeMap<&ReportId, u64> = BTreeMap::new();
    let pending = open.filter(|entry| entry.state(now) == State::Pending);
    for entry in pending.filter(|entry| alarm::of(entry, &config.alarms, now).is_some()) {
        *at_risk.entry(&entry.partition.id.report).or_default() += 1;
    }
    let mut figures: BTreeMap<ReportId, ReportFigures> =
        figures.into_iter().map(|figures| (figures.id.clone(), figures)).collect();
    for report in &config.reports {
        let nothing = || ReportFigures::nothing(report.id.clone(), report.source.kind());
        figures.entry(report.id.clone()).or_insert_with(nothing);
    }
    for entry in unplanned {
        if let Some(figures) = figures.get_mut(&entry.partition.id.report) {
            figures.add_unrecorded(&entry.partition, now);
        }
    }
    let configured: BTreeMap<_, _> = config.reports.iter().map(|report| (&report.id, report)).collect();
    let mut rows = table::table(["WORKSPACE", "REPORT", "NEWEST STORED", "PENDING", "AT RISK", "LOST", "NEXT DUE"]);
    let mut counts: BTreeMap<State, u64> = BTreeMap::new();
    let is_selected = |id: &ReportId| scope.workspace.as_ref().is_none_or(|name| name == id.workspace());
    for (id, figures) in figures.iter().filter(|(id, _)| is_selected(id)) {
        let report = configured.get(id);
        let next = report.and_then(|report| plan::next(report, now));
        let newest = figures.newest_stored.map(|at| match report {
            Some(report) => report.timezone.to_datetime(at).date().to_string(),
            None => at.strftime("%Y-%m-%d").to_string(),
        });
        rows.add_row([
            Cell::new(id.workspace()),
            Cell::new(match report {
                Some(_) => id.name().to_owned(),
                None => format!("{} (unconfigured)", id.name()),
            }),
            Cell::new(newest.unwrap_or_default()),
            Cell::new(figures.pending),
            Cell::new(at_risk.get(id).unwrap_or(&0)),
            Cell::new(figures.lost),
            Cell::new(next.map(|partition| words::instant(partition.due_at)).unwrap_or_default()),
        ]);
        for (state, count) in figures.by_state() {
            *counts.entry(state).or_default() += count;
        }
    }
    format!("{}\n{}", table::text(&rows), table::counts(&counts))
}
