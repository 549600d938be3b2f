//! `moesync reconcile`: compares the counts of stored archives with those of stored statistics.

use clap::Args;
use comfy_table::Cell;

use super::{
    CommandError, Completion, Result,
    dates::{DateRange, today},
    scope::Scope,
    shell::Shell,
    table::{self, Look},
};
use crate::{
    config::{Config, Report},
    reading::{self, ReconcileError, ReconcileParties},
    sync::{OpenReport, Selection},
    telemetry::Chain,
    words::Reconciliation,
};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    scope: Scope,
    /// The report of statistics (`campaign_stats`), in the same workspace.
    #[arg(long, value_name = "ID")]
    with: String,
    #[command(flatten)]
    dates: DateRange,
    /// Exits with 1 unless everything is equal.
    #[arg(long)]
    strict: bool,
}

/// Lines of the table. `--json` has all.
const LINES: usize = 200;

pub(super) async fn run(shell: &Shell, options: Options) -> Result {
    let config = shell.config()?;
    let archive = options.scope.one(&config)?;
    let workspace = Some(archive.id.workspace().to_owned());
    let stats = Scope { workspace, report: Some(options.with) }.one(&config)?;
    let dates = options.dates.dates(today(&options.scope, &config, shell.clock.now()))?;
    let (archive, stats) = (open(&config, &archive)?, open(&config, &stats)?);
    let parties = ReconcileParties { archive: &archive, stats: &stats };
    let reconciled = reading::reconcile(&parties, &dates).await.map_err(|error| match error {
        ReconcileError::Unfit(message) => CommandError::Usage(message),
        other => CommandError::Failed(Chain(&other).to_string()),
    })?;
    shell.print(&reconciled, |reconciled| show(reconciled, shell.look(&config)))?;
    let is_equal = reconciled.different == 0
        && reconciled.only_in_report == 0
        && reconciled.only_in_stats == 0
        && reconciled.days_without_stats.is_empty();
    Ok(if is_equal || !options.strict { Completion::Done } else { Completion::Incomplete })
}

fn open(config: &Config, report: &Report) -> Result<OpenReport> {
    let selection = Selection {
        workspace: Some(report.id.workspace().to_owned()),
        report: Some(report.id.name().to_owned()),
        partitions: None,
    };
    let opened = reading::open(config, &selection)?.pop();
    opened.ok_or_else(|| CommandError::Usage(format!("report {} is not configured", report.id)))
}

fn show(reconciled: &Reconciliation, look: Look) -> String {
    let mut rows = look.table(["DAY", "CAMPAIGN", "COUNT", "REPORT", "STATS", "DIFFERENCE"]);
    let number = |number: Option<i64>| Cell::new(number.map(|number| number.to_string()).unwrap_or_default());
    let (mut shown, mut left) = (0, 0);
    for campaign in &reconciled.campaigns {
        for count in campaign.counts.iter().filter(|count| count.difference != Some(0)) {
            if shown == LINES {
                left += 1;
                continue;
            }
            shown += 1;
            let difference = match count.difference {
                Some(difference) => format!("{difference:+}"),
                None if count.in_report.is_some() => "only report".to_owned(),
                None => "only stats".to_owned(),
            };
            rows.add_row([
                Cell::new(campaign.date),
                Cell::new(table::printable(&campaign.campaign_id)),
                Cell::new(&count.name),
                number(count.in_report),
                number(count.in_stats),
                Cell::new(difference),
            ]);
        }
    }
    let mut text = if shown > 0 { format!("{}\n", rows.text()) } else { String::new() };
    if left > 0 {
        text += &format!("{left} more lines; --json has all\n\n");
    }
    let Reconciliation { equal, different, only_in_report, only_in_stats, days_without_stats, .. } = reconciled;
    text += &format!(
        "campaigns by day: {equal} equal, {different} different, {only_in_report} only in the report, {only_in_stats} only in the \
         statistics\n"
    );
    if !days_without_stats.is_empty() {
        let days: Vec<_> = days_without_stats.iter().map(ToString::to_string).collect();
        text += &format!("not compared, because no statistics are stored: {}\n", days.join(", "));
    }
    text
}
