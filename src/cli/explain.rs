//! `moesync explain`: shows everything about one partition.

use std::fmt::Write;

use clap::Args;

use super::{
    CommandError, Completion, Result,
    dates::{WrittenDate, date, today},
    scope::Scope,
    shell::Shell,
    table::{self, Look},
};
use crate::{
    config::Report,
    moengage,
    plan::{self, LedgerView, Reach},
    report::PartitionId,
    table_words::TablesState,
    words::{ClockChange, Explanation, Recorded},
};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    scope: Scope,
    /// The partition's date.
    #[arg(long, value_name = "DATE", value_parser = date, allow_hyphen_values = true)]
    date: WrittenDate,
}

pub(super) async fn run(shell: &Shell, options: Options) -> Result {
    let config = shell.config()?;
    let report = options.scope.one(&config)?;
    let date = options.date.on(today(&options.scope, &config, shell.clock.now()));
    let id = PartitionId { report: report.id.clone(), date };
    let ledger = shell.ledger(&config).await?;
    let now = shell.clock.now();
    let mut recorded = match &ledger {
        Some(ledger) => Recorded {
            entry: ledger.entry_of(&id).await?,
            history: ledger.attempts(&id).await?,
            tables: ledger.tables_of(&id).await?,
            hold: ledger.hold_of(id.report.workspace()).await?,
            new: None,
        },
        None => Recorded { entry: None, history: Vec::new(), tables: None, hold: None, new: None },
    };
    if recorded.entry.is_none() {
        let view = match &ledger {
            Some(ledger) => ledger.view(&Reach::of(std::slice::from_ref(&report), now, now)).await?,
            None => LedgerView::default(),
        };
        recorded.new = plan::unplanned_on(&report, &view, date, now);
    }
    let source_url = moengage::source_url(&report, id.date).to_string();
    let explanation = Explanation::new(&report, id.date, recorded, source_url, now)
        .ok_or_else(|| CommandError::Usage(format!("the report's time zone has no {}", id.date)))?;
    shell.print(&explanation, |explanation| show(explanation, &report, shell.look(&config)))?;
    Ok(Completion::Done)
}

fn show(explanation: &Explanation, report: &Report, look: Look) -> String {
    let status = &explanation.status;
    let mut text = format!("{}/{} {}\n\n", status.workspace, status.report, status.date);
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<14} {value}");
    };
    let or_never = |at: Option<jiff::Timestamp>| at.map_or("never".into(), |at| at.to_string());
    line("state", status.state.as_str());
    line("outcome", status.outcome.map_or("no attempt yet", |outcome| outcome.as_str()));
    if let Some(message) = &status.message {
        line("message", message);
    }
    if let Some(waits) = &explanation.waits {
        line("waits", waits);
    }
    line("source", report.source.kind().as_str());
    line("file name", &explanation.file_name);
    line("URL", &explanation.source_url);
    line("destination", &explanation.destination);
    line("key", &explanation.object_key);
    if let Some(key) = status.key.as_ref().filter(|key| **key != explanation.object_key) {
        line("stored at", key);
    }
    if let Some((size, sha256)) = status.size.zip(status.sha256.as_ref()) {
        line("size", &format!("{} ({size} bytes)", table::size(size)));
        line("sha256", sha256);
    }
    let note = match (explanation.clock_change, explanation.scheduled) {
        (Some(ClockChange::Gap), _) => "; the clocks skip this time: moved forward",
        (Some(ClockChange::Overlap), _) => "; the clocks repeat this time: the first of two",
        (None, false) => "; not a date of the schedule",
        (None, true) => "",
    };
    line(
        "generated",
        &format!("{} ({} {}{note})", status.generated_at, explanation.generated_local, explanation.timezone),
    );
    line("due", &status.due_at.to_string());
    line("expires", &or_never(status.expires_at));
    if let Some(next) = status.next_attempt_at {
        line("next attempt", &next.to_string());
    }
    if let Some((state, tables)) = status.tables.zip(explanation.derived.as_ref()) {
        let (objects, rows) = (tables.objects.len(), tables.rows);
        line(
            "tables",
            &match (&tables.message, state) {
                (Some(message), _) => format!("{state}: {message}"),
                (None, TablesState::Made) => format!("{state}: {rows} rows in {objects} objects"),
                (None, _) => state.to_string(),
            },
        );
        if let Some(next) = tables.next_attempt_at {
            line("next tables", &next.to_string());
        }
        for object in &tables.objects {
            line("", &format!("{} ({} rows)", object.key, object.rows));
        }
        for entry in &tables.left_alone {
            line("no table", entry);
        }
    }
    let known = u32::try_from(explanation.history.len()).unwrap_or(u32::MAX);
    if let Some(earlier) = status.attempts.checked_sub(known).filter(|earlier| *earlier > 0) {
        line("attempts", &format!("{}, of which {earlier} are no longer in the ledger", status.attempts));
    }
    if !explanation.history.is_empty() {
        let mut rows = look.table(["ENDED", "OUTCOME", "HTTP", "BYTES", "MESSAGE"]);
        for attempt in &explanation.history {
            rows.add_row([
                attempt.finished_at.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
                attempt.outcome.to_string(),
                attempt.http_status.map(|status| status.to_string()).unwrap_or_default(),
                attempt.size.map(|size| size.to_string()).unwrap_or_default(),
                attempt.message.clone().unwrap_or_default(),
            ]);
        }
        let _ = write!(text, "\n{}", rows.text());
    }
    text
}
