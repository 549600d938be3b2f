//! Output on terminals: tables, sizes, times.

use std::collections::BTreeMap;

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use jiff::Timestamp;

use crate::{
    partition::State,
    words::{self, PartitionStatus},
};

/// An empty table with this head.
pub(super) fn table<const N: usize>(head: [&str; N]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(head.map(|title| Cell::new(title).add_attribute(Attribute::Bold)));
    if let Some(column) = table.column_mut(0) {
        column.set_padding((0, 1));
    }
    table
}

/// A table as text, without trailing blanks.
pub(super) fn text(table: &Table) -> String {
    table.to_string().lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

pub(super) fn state(state: State) -> Cell {
    let cell = Cell::new(state);
    match state {
        State::Scheduled => cell.fg(Color::DarkGrey),
        State::Pending => cell.fg(Color::Yellow),
        State::Stored => cell.fg(Color::Green),
        State::Absent => cell,
        State::Lost => cell.fg(Color::Red).add_attribute(Attribute::Bold),
    }
}

/// The time left to an instant, where there is one.
pub(super) fn left(at: Option<Timestamp>, now: Timestamp) -> String {
    at.map(|at| words::left(at, now)).unwrap_or_default()
}

pub(super) fn size(bytes: u64) -> String {
    words::size(bytes)
}

/// A text that others chose, without characters that a terminal would act on.
pub(super) fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// One line a partition.
pub(super) fn partitions(partitions: &[PartitionStatus], now: Timestamp) -> String {
    let mut table = table(["WORKSPACE", "REPORT", "DATE", "STATE", "OUTCOME", "TRIES", "SIZE", "EXPIRES IN", "DETAIL"]);
    for partition in partitions {
        let open = matches!(partition.state, State::Pending | State::Scheduled);
        let detail = match (&partition.message, &partition.key, partition.state) {
            (message, ..) if partition.acknowledged => {
                format!("acknowledged{}", message.as_ref().map(|it| format!(": {it}")).unwrap_or_default())
            }
            (Some(message), ..) => message.clone(),
            (None, Some(key), _) => key.clone(),
            (None, None, State::Scheduled) => format!("due {}", words::instant(partition.due_at)),
            _ => String::new(),
        };
        let mut name = Cell::new(&partition.report);
        if !partition.configured {
            name = Cell::new(format!("{} (unconfigured)", partition.report));
        }
        table.add_row([
            Cell::new(&partition.workspace),
            name,
            Cell::new(partition.date),
            state(partition.state),
            Cell::new(partition.outcome.map_or("", |outcome| outcome.as_str())),
            Cell::new(partition.attempts),
            Cell::new(partition.size.map(size).unwrap_or_default()),
            Cell::new(if open { left(partition.expires_at, now) } else { String::new() }),
            Cell::new(detail),
        ]);
    }
    text(&table)
}

/// The number of `partitions` in each state, as text.
pub(super) fn count(partitions: &[PartitionStatus]) -> String {
    let mut numbers = BTreeMap::new();
    for partition in partitions {
        *numbers.entry(partition.state).or_default() += 1;
    }
    counts(&numbers)
}

/// The number of partitions in each state, as text.
pub(super) fn counts(counts: &BTreeMap<State, u64>) -> String {
    let counts = counts.iter().filter(|(_, count)| **count > 0);
    let parts: Vec<_> = counts.map(|(state, count)| format!("{count} {state}")).collect();
    if parts.is_empty() { "no partitions".into() } else { parts.join(", ") }
}
