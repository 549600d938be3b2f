//! `moesync ls`: lists stored objects.

use clap::Args;
use comfy_table::Cell;
use futures::{StreamExt, TryStreamExt, stream};

use super::{
    Completion, Result,
    dates::{DateRange, today},
    scope::Scope,
    shell::{Shell, print},
    table::{self, Look},
};
use crate::{
    reading,
    words::{self, ListText, StoredObject},
};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    dates: DateRange,
    /// Lists the entries of archives, one a line.
    #[arg(long)]
    entries: bool,
}

/// Most manifests that are read concurrently.
const CONCURRENCY: usize = 32;

pub(super) async fn run(shell: &Shell, options: Options) -> Result {
    let config = shell.config()?;
    let selection = options.scope.selection(&config)?;
    let dates = options.dates.dates(today(&options.scope, &config, shell.clock.now()))?;
    let mut list = shell.json.then(|| ListText::new("objects"));
    let (mut text, mut objects) = (String::new(), Vec::new());
    for open in reading::open(&config, &selection)? {
        let listed = reading::keys(&open, &dates).await?;
        let mut described =
            stream::iter(&listed).map(|listed| reading::describe(&open, listed)).buffered(CONCURRENCY).boxed();
        while let Some(stored) = described.try_next().await? {
            let Some(object) = stored.map(StoredObject::from) else { continue };
            match &mut list {
                Some(list) => {
                    list.push(&mut text, &object);
                    print(&std::mem::take(&mut text))?;
                }
                None => objects.push(object),
            }
        }
    }
    match list {
        Some(list) => list.end(&mut text),
        None if options.entries => text = entries(&objects, shell.look(&config)),
        None => text = show(&objects, shell.look(&config)),
    }
    print(&text)?;
    Ok(Completion::Done)
}

fn show(objects: &[StoredObject], look: Look) -> String {
    let bytes = objects.iter().map(|object| object.size).sum();
    let summary = format!("{} objects, {}\n", objects.len(), table::size(bytes));
    if objects.is_empty() {
        return summary;
    }
    let mut rows = look.table(["STORED", "SIZE", "ENTRIES", "KEY"]);
    for object in objects {
        let damage = object.damage.as_ref().map(|damage| format!(": {damage}")).unwrap_or_default();
        rows.add_row([
            Cell::new(words::instant(object.stored_at)),
            Cell::new(table::size(object.size)),
            Cell::new(object.entries.len()),
            Cell::new(format!("{}{damage}", object.key)),
        ]);
    }
    format!("{}\n{summary}", rows.text())
}

fn entries(objects: &[StoredObject], look: Look) -> String {
    let mut rows = look.table(["REPORT", "DATE", "SIZE", "CRC-32", "ENTRY"]);
    for object in objects {
        for entry in &object.entries {
            rows.add_row([
                Cell::new(format!("{}/{}", object.workspace, object.report)),
                Cell::new(object.date),
                Cell::new(table::size(entry.size)),
                Cell::new(entry.crc32.as_deref().unwrap_or_default()),
                Cell::new(table::printable(&entry.name)),
            ]);
        }
    }
    rows.text()
}
