//! Output on terminals: tables, sizes, times.

use std::{collections::BTreeMap, io::IsTerminal};

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Row, Table, presets};
use console::{Term, measure_text_width, truncate_str};
use jiff::{Timestamp, tz::TimeZone};

use crate::{
    config::Config,
    partition::State,
    telemetry::is_plain,
    words::{self, PartitionStatus},
};

/// How lines look on standard output.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// The longest line, in columns; `None` without a limit.
    width: Option<usize>,
    /// Whether colours and bold are used.
    is_styled: bool,
    /// Whether all that is printed is of one workspace.
    has_one_workspace: bool,
}

/// The head of the column that is left out if there is one workspace.
const WORKSPACE: &str = "WORKSPACE";

/// Columns of names, which are cut where the last column is not enough.
const NAMES: [&str; 5] = [WORKSPACE, "REPORT", "TABLE", "CAMPAIGN", "COLUMN"];

/// To how many columns a text is cut at most, so that something of it is seen.
const LEAST: usize = 9;

/// Columns between two columns of a table.
const GAP: usize = 2;

impl Look {
    /// A terminal gets lines that fit, unless they are to be `wide`; a pipe gets whole lines. A terminal without a width is
    /// without a limit.
    pub(super) fn new(is_wide: bool, config: &Config) -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        let columns = Term::stdout().size_checked().map(|(_, columns)| usize::from(columns));
        Self {
            width: columns.filter(|columns| is_terminal && !is_wide && *columns > 0),
            is_styled: is_terminal && !is_plain(),
            has_one_workspace: config.workspaces.len() == 1,
        }
    }

    /// An empty table with this head.
    pub(super) fn table<const N: usize>(self, head: [&str; N]) -> Rows {
        Rows { look: self, head: head.map(str::to_owned).into(), rows: Vec::new() }
    }

    /// Whether a line does not fit.
    pub(super) fn cuts(self, text: &str) -> bool {
        self.width.is_some_and(|width| measure_text_width(text) > width)
    }

    /// A line that fits.
    pub(super) fn line(self, text: &str) -> String {
        match self.width {
            Some(width) => truncate_str(text, width, "…").into_owned(),
            None => text.to_owned(),
        }
    }

    /// A text in lines that fit, with `indent` before all but the first. Words are not broken.
    pub(super) fn wrapped(self, text: &str, indent: usize) -> String {
        let Some(width) = self.width else { return text.to_owned() };
        let (mut wrapped, mut used) = (String::new(), 0);
        for word in text.split(' ') {
            let needed = measure_text_width(word);
            if used > indent && used + 1 + needed > width {
                wrapped += &format!("\n{:indent$}", "");
                used = indent;
            } else if used > 0 {
                wrapped.push(' ');
                used += 1;
            }
            wrapped += word;
            used += needed;
        }
        wrapped
    }

    /// One line a partition.
    pub(super) fn partitions(self, partitions: &[PartitionStatus], now: Timestamp) -> String {
        let head = [WORKSPACE, "REPORT", "DATE", "STATE", "OUTCOME", "TRIES", "SIZE", "EXPIRES IN", "DETAIL"];
        let mut table = self.table(head);
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
            let outcome = partition.outcome.map_or("", |outcome| outcome.as_str());
            table.add_row([
                Cell::new(&partition.workspace),
                Cell::new(report(&partition.report, partition.configured)),
                Cell::new(partition.date),
                state(partition.state),
                Cell::new(if outcome == partition.state.as_str() { "" } else { outcome }),
                Cell::new(partition.attempts),
                Cell::new(partition.size.map(size).unwrap_or_default()),
                Cell::new(if open { left(partition.expires_at, now) } else { String::new() }),
                Cell::new(detail),
            ]);
        }
        table.text()
    }
}

/// A table that is being filled.
pub(super) struct Rows {
    look: Look,
    head: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

impl Rows {
    pub(super) fn add_row<const N: usize, T: Into<Cell>>(&mut self, cells: [T; N]) {
        self.rows.push(cells.map(Into::into).into());
    }

    /// The table as text, without trailing blanks and without columns that say nothing.
    pub(super) fn text(&self) -> String {
        let shown: Vec<usize> = (0..self.head.len()).filter(|column| self.says_something(*column)).collect();
        let widths = self.widths(&shown);
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        match self.look.is_styled {
            true => table.enforce_styling(),
            false => table.force_no_tty(),
        };
        table.set_header(shown.iter().zip(&widths).map(|(column, width)| {
            Cell::new(truncate_str(&self.head[*column], *width, "…")).add_attribute(Attribute::Bold)
        }));
        for cells in &self.rows {
            let cut = |(column, width): (&usize, &usize)| fitting(&cells[*column], *width);
            table.add_row(Row::from(shown.iter().zip(&widths).map(cut).collect::<Vec<_>>()));
        }
        // Nothing before the first column and behind the last: a line as long as the terminal is wide does not wrap.
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((u16::from(index > 0), u16::from(index + 1 < shown.len())));
        }
        table.to_string().lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }

    fn says_something(&self, column: usize) -> bool {
        let is_empty = |cells: &Vec<Cell>| cells[column].content().is_empty();
        let is_known = self.head[column] == WORKSPACE && self.look.has_one_workspace;
        self.rows.is_empty() || !(is_known || self.rows.iter().all(is_empty))
    }

    /// The widths of the columns that are `shown`: the last one gives way first, then those of names.
    fn widths(&self, shown: &[usize]) -> Vec<usize> {
        let longest = |column: &usize| {
            let cells = self.rows.iter().map(|cells| measure_text_width(&cells[*column].content()));
            cells.chain([measure_text_width(&self.head[*column])]).max().unwrap_or(0)
        };
        let mut widths: Vec<usize> = shown.iter().map(longest).collect();
        let (Some(limit), Some(last)) = (self.look.width, widths.len().checked_sub(1)) else { return widths };
        let names = (0..last).filter(|index| NAMES.contains(&self.head[shown[*index]].as_str())).rev();
        for index in std::iter::once(last).chain(names) {
            let over = (widths.iter().sum::<usize>() + GAP * last).saturating_sub(limit);
            widths[index] = widths[index].saturating_sub(over).max(widths[index].min(LEAST));
        }
        widths
    }
}

/// A cell in `width` columns. Only unstyled cells are cut: states are short.
fn fitting(cell: &Cell, width: usize) -> Cell {
    let content = cell.content();
    match measure_text_width(&content) > width || content.contains('\n') {
        true => Cell::new(truncate_str(&content.replace('\n', " "), width, "…")),
        false => cell.clone(),
    }
}

/// An instant in a time zone, to the minute.
pub(super) fn local(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M %Z").to_string()
}

/// A number with a comma before each three digits.
pub(super) fn number(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The id of a report in a table.
pub(super) fn report(id: &str, is_configured: bool) -> String {
    if is_configured { id.to_owned() } else { format!("{id} (unconfigured)") }
}

fn state(state: State) -> Cell {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(width: Option<usize>, has_one_workspace: bool) -> Vec<String> {
        let look = Look { width, is_styled: false, has_one_workspace };
        let mut table = look.table([WORKSPACE, "REPORT", "DATE", "OUTCOME", "DETAIL"]);
        table.add_row(["acme", "a-report-with-a-long-name", "2026-11-21", "", "a message that is long: 答え"]);
        table.add_row(["acme", "b", "2026-11-22", "", ""]);
        table.text().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_table_fits_by_cutting_the_last_column_and_then_names() {
        let whole = lines(None, false);
        assert_eq!(whole[1], "acme       a-report-with-a-long-name  2026-11-21  a message that is long: 答え");
        for width in [75, 60, 50] {
            let cut = lines(Some(width), false);
            assert!(cut.iter().all(|line| measure_text_width(line) <= width), "{cut:#?}");
            assert!(cut[1].contains("2026-11-21") && cut[1].ends_with('…'), "{cut:#?}");
        }
        assert!(lines(Some(75), false)[1].contains("a-report-with-a-long-name  2026"));
    }

    #[test]
    fn columns_that_say_nothing_are_left_out() {
        assert_eq!(lines(None, false)[0], "WORKSPACE  REPORT                     DATE        DETAIL");
        assert!(lines(None, true)[0].starts_with("REPORT  "));
    }

    #[test]
    fn a_wrapped_text_breaks_between_words() {
        let look = Look { width: Some(16), is_styled: false, has_one_workspace: true };
        assert_eq!(look.wrapped("error  one two three", 7), "error  one two\n       three");
        assert_eq!(look.wrapped("https://long.example/a b", 2), "https://long.example/a\n  b");
    }
}
