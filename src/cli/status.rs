//! `moesync status`: shows the reports, or their partitions, and their state.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use comfy_table::Cell;
use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};

use super::{
    Completion, Result,
    dates::{WrittenDate, date, today},
    scope::Scope,
    shell::{Shell, print},
    table::{self, Look},
};
use crate::{
    alarm,
    config::Config,
    ledger::{Choice, Ledger, ReportFigures},
    partition::{Entry, Settled, State},
    plan::{self, LedgerView, Reach},
    report::{PartitionId, ReportId},
    words::{self, ListText, PartitionStatus, ReportStatus, StatusHead},
};

/// Number of partitions that are read together.
const READ_TOGETHER: u32 = 500;

/// How long after the last plan something that is due and not planned shows that no daemon runs. A daemon plans each minute.
const MISSED_AFTER: SignedDuration = SignedDuration::from_mins(5);

/// How long after the last plan no daemon or timer runs, whatever is due.
const LONG_AFTER: SignedDuration = SignedDuration::from_hours(2);

/// Number of partitions in one table; more are in several.
const MOST_IN_TABLE: usize = 5000;

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    scope: Scope,
    /// Prints a line for each partition, as --report, --state and --since do.
    #[arg(long)]
    all: bool,
    /// Only partitions in this state.
    #[arg(long, value_parser = state_parser(), ignore_case = true, value_name = "STATE")]
    state: Option<State>,
    /// Only partitions of this date and later.
    #[arg(long, value_name = "DATE", value_parser = date, allow_hyphen_values = true)]
    since: Option<WrittenDate>,
    /// Exits with 1 if anything is pending past due, or lost and not acknowledged.
    #[arg(long)]
    check: bool,
}

fn state_parser() -> impl TypedValueParser<Value = State> {
    PossibleValuesParser::new(State::ALL.map(State::as_str)).map(|word| {
        State::ALL.into_iter().find(|state| state.as_str().eq_ignore_ascii_case(&word)).unwrap_or(State::Pending)
    })
}

pub(super) async fn run(shell: &Shell, options: Options) -> Result {
    let config = shell.config()?;
    let ledger = shell.ledger(&config).await?;
    let now = shell.clock.now();
    let recorded = match &ledger {
        Some(ledger) => ledger.recorded_reports(options.scope.name_to_look_up(&config)).await?,
        None => Vec::new(),
    };
    let workspace = options.scope.check_recorded(&config, &recorded)?;
    let known = Known::read(&config, &options.scope, ledger.as_ref(), now).await?;
    let since = options.since.map(|since| since.on(today(&options.scope, &config, now)));
    let configured = config.reports.iter().map(|report| &report.id).collect();
    let selected = Selected { options: &options, since, configured, now };
    let head = StatusHead { planned_at: known.planned_at, reports: selected.reports(&config, &known) };
    let entries = known.open.iter().chain(&known.lost).chain(&known.unplanned);
    let is_alarming = entries.map(|entry| selected.status(entry)).any(|partition| selected.is_alarming(&partition));
    let planned = planned(&known, now);
    let Options { scope, all, state, .. } = &options;
    if !shell.json && !all && scope.report.is_none() && state.is_none() && since.is_none() {
        print(&by_report(&head, shell.look(&config), &planned))?;
    } else {
        let choice = Choice { workspace, report: scope.report.clone(), since };
        let output = StatusOutput::new(shell.json, shell.look(&config), &head, planned, now);
        selected.print(output, &config, ledger.as_ref(), known.unplanned, &choice).await?;
    }
    Ok(if options.check && is_alarming { Completion::Incomplete } else { Completion::Done })
}

/// What the state of the reports follows from.
struct Known {
    /// When the ledger's processes last planned.
    planned_at: Option<Timestamp>,
    figures: Vec<ReportFigures>,
    open: Vec<Entry>,
    /// What is lost and not acknowledged.
    lost: Vec<Entry>,
    /// Number of partitions whose tables cannot be made.
    tables_failed: HashMap<ReportId, u64>,
    /// Partitions that a running daemon would have planned by now. If it is down, they are not in the ledger.
    unplanned: Vec<Entry>,
}

impl Known {
    async fn read(config: &Config, scope: &Scope, ledger: Option<&Ledger>, now: Timestamp) -> Result<Self> {
        let covered: Vec<_> = config.reports.iter().filter(|report| scope.covers(&report.id)).cloned().collect();
        let (view, figures, lost) = match ledger {
            Some(ledger) => (
                ledger.view(&Reach::of(&covered, now, now)).await?,
                ledger.report_figures(scope.report.as_deref(), now).await?,
                ledger.lost().await?,
            ),
            None => (LedgerView::default(), Vec::new(), Vec::new()),
        };
        let failed = match ledger {
            Some(ledger) => ledger.failed_tables().await?,
            None => Vec::new(),
        };
        let marks = config.reports.iter().filter_map(|report| view.planned_through.get(&report.id));
        Ok(Self {
            // Every plan moves at least one mark to its own time.
            planned_at: marks.max().copied(),
            figures,
            lost,
            tables_failed: failed
                .into_iter()
                .map(|failed| (failed.newest.partition.id.report, failed.partitions as u64))
                .collect(),
            unplanned: plan::unplanned(&covered, &view, now),
            open: view.entries.into_iter().filter(|entry| entry.settled == Settled::Open).collect(),
        })
    }
}

/// When it was last planned, and whether that was long ago.
fn planned(known: &Known, now: Timestamp) -> String {
    let Some(planned_at) = known.planned_at else {
        return "never planned: `moesync run` or `moesync sync` does it".to_owned();
    };
    let ago = now.duration_since(planned_at);
    let is_missed = !known.unplanned.is_empty() && ago > MISSED_AFTER;
    let hint = if is_missed || ago > LONG_AFTER { "; does the daemon run?" } else { "" };
    match ago.is_negative() {
        true => format!("last planned {}, after the present of this machine", words::instant(planned_at)),
        false => format!("last planned {} ago{hint}", words::duration(ago)),
    }
}

/// The partitions that the command is about.
struct Selected<'a> {
    options: &'a Options,
    /// The first date, of `--since`.
    since: Option<Date>,
    configured: HashSet<&'a ReportId>,
    now: Timestamp,
}

impl Selected<'_> {
    fn status(&self, entry: &Entry) -> PartitionStatus {
        PartitionStatus::new(entry, self.configured.contains(&entry.partition.id.report), self.now)
    }

    fn covers(&self, partition: &PartitionStatus) -> bool {
        let Options { scope, state, .. } = self.options;
        scope.workspace.as_ref().is_none_or(|name| *name == partition.workspace)
            && scope.report.as_ref().is_none_or(|id| *id == partition.report)
            && state.is_none_or(|state| state == partition.state)
            && self.since.is_none_or(|since| since <= partition.date)
    }

    fn is_alarming(&self, partition: &PartitionStatus) -> bool {
        partition.configured && matches!(partition.state, State::Pending | State::Lost) && self.covers(partition)
    }

    /// The reports in numbers.
    fn reports(&self, config: &Config, known: &Known) -> Vec<ReportStatus> {
        let now = self.now;
        let mut at_risk: BTreeMap<&ReportId, u64> = BTreeMap::new();
        let pending = known.open.iter().chain(&known.unplanned).filter(|entry| entry.state(now) == State::Pending);
        for entry in pending.filter(|entry| alarm::of(entry, &config.alarms, now).is_some()) {
            *at_risk.entry(&entry.partition.id.report).or_default() += 1;
        }
        let mut unseen: BTreeMap<&ReportId, u64> = BTreeMap::new();
        for entry in &known.lost {
            *unseen.entry(&entry.partition.id.report).or_default() += 1;
        }
        let mut figures: BTreeMap<&ReportId, ReportFigures> =
            known.figures.iter().map(|figures| (&figures.id, figures.clone())).collect();
        for report in &config.reports {
            let nothing = || ReportFigures::nothing(report.id.clone(), report.source.kind());
            figures.entry(&report.id).or_insert_with(nothing);
        }
        for entry in &known.unplanned {
            if let Some(figures) = figures.get_mut(&entry.partition.id.report) {
                figures.add_unrecorded(&entry.partition, now);
            }
        }
        let configured: HashMap<_, _> = config.reports.iter().map(|report| (&report.id, report)).collect();
        let status = |(id, figures): (&ReportId, ReportFigures)| {
            let report = configured.get(id);
            let timezone = report.map_or(TimeZone::UTC, |report| report.timezone.clone());
            ReportStatus {
                workspace: id.workspace().to_owned(),
                report: id.name().to_owned(),
                source: figures.source,
                configured: report.is_some(),
                newest_stored: figures.newest_stored.map(|at| timezone.to_datetime(at).date()),
                scheduled: figures.scheduled,
                pending: figures.pending,
                at_risk: at_risk.get(id).copied().unwrap_or(0),
                stored: figures.stored,
                absent: figures.absent,
                lost: figures.lost,
                acknowledged: figures.lost.saturating_sub(unseen.get(id).copied().unwrap_or(0)),
                tables_failed: known.tables_failed.get(id).copied().unwrap_or(0),
                next_due_at: report.and_then(|report| plan::next(report, now)).map(|partition| partition.due_at),
            }
        };
        figures.into_iter().filter(|(id, _)| self.options.scope.covers(id)).map(status).collect()
    }

    /// Prints the partitions of the ledger, the next one of each report, and `unplanned`, by workspace, report and date, as
    /// they are read.
    async fn print(
        &self,
        mut output: StatusOutput,
        config: &Config,
        ledger: Option<&Ledger>,
        unplanned: Vec<Entry>,
        choice: &Choice,
    ) -> Result<()> {
        let chosen = config.reports.iter().filter(|report| self.options.scope.covers(&report.id));
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
    planned: String,
    look: Look,
    now: Timestamp,
    text: String,
}

impl StatusOutput {
    fn new(is_json: bool, look: Look, head: &StatusHead, planned: String, now: Timestamp) -> Self {
        let list = is_json.then(|| ListText::after(head, "partitions"));
        Self { list, table: Vec::new(), counts: BTreeMap::new(), planned, look, now, text: String::new() }
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
            self.text += &format!("{}\n", self.look.partitions(&std::mem::take(&mut self.table), self.now));
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
                    self.text += &format!("{}\n", self.look.partitions(&self.table, self.now));
                }
                self.text += &format!("{}; {}\n", table::counts(&self.counts), self.planned);
            }
        }
        print(&self.text)
    }
}

/// A line for each report, the number of partitions in each state, and when it was `planned`.
fn by_report(head: &StatusHead, look: Look, planned: &str) -> String {
    let mut rows = look.table(["WORKSPACE", "REPORT", "NEWEST", "PENDING", "AT RISK", "LOST", "NO TABLES", "NEXT DUE"]);
    let (mut counts, mut acknowledged) = (BTreeMap::new(), 0);
    for report in &head.reports {
        acknowledged += report.acknowledged;
        rows.add_row([
            Cell::new(&report.workspace),
            Cell::new(table::report(&report.report, report.configured)),
            Cell::new(report.newest_stored.map(|date| date.to_string()).unwrap_or_default()),
            Cell::new(report.pending),
            Cell::new(report.at_risk),
            Cell::new(report.lost - report.acknowledged),
            Cell::new(match report.tables_failed {
                0 => String::new(),
                failed => failed.to_string(),
            }),
            Cell::new(report.next_due_at.map(words::instant).unwrap_or_default()),
        ]);
        for (state, count) in report.by_state() {
            *counts.entry(state).or_default() += count;
        }
    }
    let acknowledged = if acknowledged > 0 { format!(" ({acknowledged} acknowledged)") } else { String::new() };
    format!("{}\n{}{acknowledged}; {planned}\n", rows.text(), table::counts(&counts))
}
