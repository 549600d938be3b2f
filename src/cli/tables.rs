//! `moesync tables`: lists tables, and prints the statements that make a query engine read them.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use comfy_table::Cell;

use super::{
    CommandError, Completion, Result,
    dates::{DateRange, today},
    rebuild,
    scope::{Scope, known},
    shell::{Shell, print},
    table::{self, Look},
};
use crate::{
    reading::{self, Engine, Table},
    sync::OpenReport,
    table_words::ColumnType,
    words::{TableDescription, TableDescriptions},
};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Options {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    scope: Scope,
    /// Only tables with this name.
    #[arg(long, value_name = "NAME")]
    table: Option<String>,
    #[command(flatten)]
    dates: DateRange,
    /// Prints the statements that make this engine read the tables.
    #[arg(long = "for", value_enum, value_name = "ENGINE", conflicts_with_all = ["date", "from", "to", "columns"])]
    engine: Option<Engine>,
    /// Lists the columns of the tables, one a line.
    #[arg(long)]
    columns: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Makes the tables of stored partitions again.
    Rebuild(rebuild::Options),
}

pub(super) async fn run(shell: &Shell, options: Options) -> Result {
    if let Some(Action::Rebuild(options)) = options.action {
        return rebuild::run(shell, options).await;
    }
    let config = shell.config()?;
    let selection = options.scope.selection(&config)?;
    let dates = options.dates.dates(today(&options.scope, &config, shell.clock.now()))?;
    let mut found = Vec::new();
    for open in reading::open(&config, &selection)? {
        let tables = reading::tables(&open, &dates).await?;
        found.extend(tables.into_iter().map(|table| (open.clone(), table)));
    }
    if let Some(name) = &options.table {
        known("table", name, found.iter().map(|(_, table)| table.name.as_str()))?;
        found.retain(|(_, table)| table.name == *name);
    }
    if let Some(engine) = options.engine {
        found.retain(|(_, table)| !table.dates.is_empty());
        return statements(engine, &found);
    }
    let mut tables = Vec::new();
    for (open, table) in &found {
        tables.push(reading::with_rows(open, table).await?);
    }
    let look = shell.look(&config);
    shell.print(&TableDescriptions { tables }, |described| match options.columns {
        true => columns(&described.tables, look),
        false => show(&described.tables, look),
    })?;
    Ok(Completion::Done)
}

/// Prints the statements of all tables, or of none if the engine cannot read one.
fn statements(engine: Engine, found: &[(OpenReport, Table)]) -> Result {
    if found.is_empty() {
        return Err(CommandError::Failed("there are no tables".to_owned()));
    }
    let mut named: BTreeMap<String, String> = BTreeMap::new();
    let (mut text, mut unreadable) = (String::new(), Vec::new());
    for (open, table) in found {
        let (name, folder) = (reading::engine_name(&open.report, table), table.folder.clone());
        if let Some(other) = named.insert(name.clone(), folder.clone()) {
            return Err(CommandError::Usage(format!(
                "{other} and {folder} would both be called {name}; limit the command with --workspace and --report, and rename one"
            )));
        }
        match reading::statements(engine, &open.report, table) {
            Ok(statements) if text.is_empty() => text = statements,
            Ok(statements) => text = format!("{text}\n{statements}"),
            Err(reason) => unreadable.push(reason.to_string()),
        }
    }
    if !unreadable.is_empty() {
        return Err(CommandError::Usage(unreadable.join("\nerror: ")));
    }
    print(&text)?;
    Ok(Completion::Done)
}

fn show(tables: &[TableDescription], look: Look) -> String {
    let mut rows = look.table(["REPORT", "TABLE", "FORMAT", "COLUMNS", "ROWS", "DATES", "FIRST", "LAST"]);
    let date = |date: Option<jiff::civil::Date>| Cell::new(date.map(|date| date.to_string()).unwrap_or_default());
    for table in tables {
        rows.add_row([
            Cell::new(format!("{}/{}", table.workspace, table.report)),
            Cell::new(&table.table),
            Cell::new(table.formats.iter().map(|it| it.extension()).collect::<Vec<_>>().join(", ")),
            Cell::new(table.columns.len()),
            Cell::new(table.rows),
            Cell::new(table.dates.len()),
            date(table.dates.first().map(|it| it.date)),
            date(table.dates.last().map(|it| it.date)),
        ]);
    }
    match tables {
        [] => "no tables; the key `tables` of a report makes them\n".to_owned(),
        _ => rows.text(),
    }
}

fn columns(tables: &[TableDescription], look: Look) -> String {
    let mut rows = look.table(["REPORT", "TABLE", "COLUMN", "TYPE", "FIRST", "LAST", "HEADING"]);
    for table in tables {
        for column in &table.columns {
            rows.add_row([
                Cell::new(format!("{}/{}", table.workspace, table.report)),
                Cell::new(&table.table),
                Cell::new(&column.name),
                Cell::new(column.column_type.map_or("none yet", ColumnType::as_str)),
                Cell::new(column.first_date),
                Cell::new(column.last_date),
                Cell::new(table::printable(&column.heading)),
            ]);
        }
    }
    rows.text()
}
