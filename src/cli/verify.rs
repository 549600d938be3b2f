//! `moesync verify`: reads stored objects and tables again and compares them with their manifests.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use clap::Args;
use comfy_table::Cell;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use super::{
    CommandError, Completion, Result,
    dates::{WrittenDate, date, today},
    scope::Scope,
    shell::{Shell, print},
    table::{self, Look},
};
use crate::{
    ledger::{Choice, Ledger},
    partition::{Entry, Settled},
    reading,
    report::{PartitionId, ReportId},
    sync::{self, Context, Damage, Inspected, ObjectRepair, OpenReport, Selection},
    table_words::TablesState,
    words::{DamageCode, ListText, PartitionStatus, VerifiedPartition},
};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    scope: Scope,
    /// Only partitions of this date and later.
    #[arg(long, value_name = "DATE", value_parser = date, allow_hyphen_values = true)]
    since: Option<WrittenDate>,
    /// Only a part of the objects, drawn at random, such as 5%.
    #[arg(long, value_name = "PERCENT", value_parser = share)]
    sample: Option<f64>,
    /// Fetches damaged objects again, where MoEngage still has them, and makes damaged tables again. The damaged bytes of
    /// objects are kept under _quarantine/.
    #[arg(long)]
    repair: bool,
}

/// A percentage as a share of one.
fn share(text: &str) -> Result<f64, String> {
    let percent = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>().ok();
    percent
        .filter(|percent| *percent > 0.0 && *percent <= 100.0)
        .map(|percent| percent / 100.0)
        .ok_or_else(|| "expected a percentage greater than 0 and up to 100, such as 5%".to_owned())
}

/// Draws a share of the objects: of many, exactly that share.
struct Sample {
    share: f64,
    carry: f64,
}

impl Sample {
    #[expect(clippy::disallowed_methods, reason = "the shell draws the random numbers")]
    fn new(share: Option<f64>) -> Self {
        Self { share: share.unwrap_or(1.0), carry: rand::random() }
    }

    fn draws(&mut self) -> bool {
        self.carry += self.share;
        let is_drawn = self.carry >= 1.0;
        self.carry -= if is_drawn { 1.0 } else { 0.0 };
        is_drawn
    }
}

/// Number of partitions that are read from the ledger together.
const READ_TOGETHER: u32 = 100;

/// Number of objects that are read concurrently.
const CONCURRENCY: usize = 4;

pub(super) async fn run(shell: &Shell, options: Options) -> Result {
    let config = shell.config()?;
    let selection = options.scope.selection(&config)?;
    let since = options.since.map(|since| since.on(today(&options.scope, &config, shell.clock.now())));
    let choice = Choice { workspace: selection.workspace.clone(), report: selection.report.clone(), since };

    if options.repair {
        // Where a disk is not mounted, it would make the folder and fetch everything again into it.
        reading::open(&config, &selection)?;
    }
    // Only a repair contacts MoEngage and writes.
    let ctx = match options.repair {
        true => Some(shell.context(Arc::clone(&config)).await?),
        false => None,
    };
    let (ledger, reports) = match &ctx {
        Some(ctx) => (ctx.ledger.clone(), ctx.reports.clone()),
        None => {
            let reports = sync::open_reports(&config)?;
            let Some(ledger) = shell.ledger(&config).await? else {
                return Err(CommandError::Usage(
                    "there is no ledger yet; `moesync sync` creates one from the manifests".into(),
                ));
            };
            (ledger, reports)
        }
    };
    let mut output = VerifyOutput::new(shell.json, shell.look(&config));
    let figures = ledger.report_figures(choice.report.as_deref(), shell.clock.now()).await?;
    let selected = figures.iter().filter(|figures| selection.covers_report(&figures.id));
    let stored = selected.map(|figures| figures.stored).sum::<u64>();
    // How many there are since a date is not counted.
    let total = options.since.is_none().then_some((stored as f64 * options.sample.unwrap_or(1.0)).ceil() as u64);
    // JSON is printed as it comes.
    let counter = (!shell.json).then(|| shell.bars.counter(total));
    let counter = counter.as_ref();
    let mut sample = Sample::new(options.sample);
    let mut last: Option<PartitionId> = None;
    loop {
        let entries = ledger.page(&choice, last.as_ref(), READ_TOGETHER).await?;
        let Some(entry) = entries.last() else { break };
        last = Some(entry.partition.id.clone());
        let stored = entries.into_iter().filter(|entry| entry.settled == Settled::Stored).filter_map(|entry| {
            let open = reports.get(&entry.partition.id.report)?;
            sample.draws().then(|| (entry, open.clone()))
        });
        let ledger = &ledger;
        let read: Vec<Read> = stream::iter(stored)
            .map(|(entry, open)| async move {
                let read = Read::new(ledger, open, entry).await?;
                if let (Some(counter), Some(object)) = (counter, &read.object.entry.object) {
                    counter.count(object.size);
                }
                Ok::<_, CommandError>(read)
            })
            .buffered(CONCURRENCY)
            .try_collect()
            .await?;
        let repaired = match &ctx {
            Some(ctx) => repair(shell, ctx, &reports, &read).await?,
            None => RepairResults::default(),
        };
        for read in read {
            output.push(repaired.status(read, shell.clock.now()))?;
        }
    }
    if let Some(ctx) = &ctx {
        ctx.ledger.close().await;
    }
    shell.bars.clear();
    output.end()
}

/// A stored partition that was read again.
struct Read {
    object: Inspected,
    open: OpenReport,
    /// What is wrong with its tables.
    tables: Option<String>,
}

impl Read {
    async fn new(ledger: &Ledger, open: OpenReport, entry: Entry) -> Result<Self> {
        let object = sync::inspect(&open.destination, entry).await;
        let tables = match object.damage {
            // Its tables are at the same destination.
            Some(Damage::Unreadable(_)) => None,
            _ => sync::inspect_tables(ledger, &open, &object.entry).await?,
        };
        Ok(Self { object, open, tables })
    }

    fn id(&self) -> &PartitionId {
        &self.object.entry.partition.id
    }
}

/// The results of the repairs of some partitions.
#[derive(Default)]
struct RepairResults {
    /// Those whose objects are whole again.
    done: HashSet<PartitionId>,
    /// Those whose tables are whole again.
    tables: HashSet<PartitionId>,
    /// Those that were opened and fetched again.
    after: HashMap<PartitionId, Entry>,
}

async fn repair(
    shell: &Shell,
    ctx: &Arc<Context>,
    reports: &HashMap<ReportId, OpenReport>,
    read: &[Read],
) -> Result<RepairResults> {
    let mut repaired = RepairResults::default();
    let mut opened = HashSet::new();
    for Read { object, .. } in read.iter().filter(|read| read.object.damage.is_some()) {
        let id = &object.entry.partition.id;
        if let Some(report) = reports.get(&id.report) {
            match sync::repair(ctx, report, object).await? {
                ObjectRepair::Done => drop(repaired.done.insert(id.clone())),
                ObjectRepair::Opened => drop(opened.insert(id.clone())),
                ObjectRepair::Impossible => {}
            }
        }
    }
    if !opened.is_empty() {
        let selection = Selection { partitions: Some(opened), ..Selection::default() };
        let summary = sync::once(ctx, &selection, shell.stopped()).await?;
        repaired.after.extend(summary.entries.into_iter().map(|entry| (entry.partition.id.clone(), entry)));
    }
    // Of what is stored by now.
    let damaged = || read.iter().filter(|read| read.tables.is_some());
    let ids: HashSet<_> = damaged().map(|read| read.id().clone()).collect();
    if !ids.is_empty() {
        sync::tables_of_again(ctx, ids, shell.stopped()).await?;
    }
    for read in damaged() {
        let stored = ctx.ledger.entry_of(read.id()).await?.filter(|entry| entry.tables == Some(TablesState::Made));
        if let Some(entry) = stored
            && sync::inspect_tables(&ctx.ledger, &read.open, &entry).await?.is_none()
        {
            repaired.tables.insert(read.id().clone());
        }
    }
    Ok(repaired)
}

impl RepairResults {
    fn status(&self, read: Read, now: Timestamp) -> VerifiedPartition {
        let Read { object: Inspected { entry, damage }, tables, .. } = read;
        let id = &entry.partition.id;
        let after = self.after.get(id);
        let is_stored_again = after.is_some_and(|after| after.settled == Settled::Stored);
        let is_object_repaired = damage.is_none() || self.done.contains(id) || is_stored_again;
        let are_tables_repaired = tables.is_none() || self.tables.contains(id);
        let code = damage.as_ref().map(sync::Damage::code);
        let damage_code = code.or(tables.is_some().then_some(DamageCode::Tables));
        let damages: Vec<String> = damage.map(|damage| damage.to_string()).into_iter().chain(tables).collect();
        VerifiedPartition {
            status: PartitionStatus::new(after.unwrap_or(&entry), true, now),
            damage_code,
            repaired: damage_code.is_some() && is_object_repaired && are_tables_repaired,
            damage: damage_code.map(|_| damages.join("; ")),
        }
    }
}

/// Results on their way to standard output: JSON item by item; as text, the damaged partitions and the counts.
struct VerifyOutput {
    list: Option<ListText>,
    damaged: Vec<VerifiedPartition>,
    whole: u64,
    bytes: u64,
    is_sound: bool,
    look: Look,
    text: String,
}

impl VerifyOutput {
    fn new(is_json: bool, look: Look) -> Self {
        let list = is_json.then(|| ListText::new("partitions"));
        Self { list, damaged: Vec::new(), whole: 0, bytes: 0, is_sound: true, look, text: String::new() }
    }

    fn push(&mut self, partition: VerifiedPartition) -> Result<()> {
        let is_damaged = partition.damage.is_some();
        self.is_sound &= !is_damaged || partition.repaired;
        self.whole += u64::from(!is_damaged);
        self.bytes += partition.status.size.unwrap_or(0);
        if let Some(list) = &mut self.list {
            list.push(&mut self.text, &partition);
            return print(&std::mem::take(&mut self.text));
        }
        if is_damaged {
            self.damaged.push(partition);
        }
        Ok(())
    }

    fn end(mut self) -> Result {
        match self.list.take() {
            Some(list) => list.end(&mut self.text),
            None => self.text = show(&self),
        }
        print(&self.text)?;
        Ok(if self.is_sound { Completion::Done } else { Completion::Incomplete })
    }
}

fn show(VerifyOutput { damaged, whole, bytes, look, .. }: &VerifyOutput) -> String {
    let summary = format!("{whole} whole, {} damaged ({} read)\n", damaged.len(), table::size(*bytes));
    if damaged.is_empty() {
        return summary;
    }
    let mut rows = look.table(["WORKSPACE", "REPORT", "DATE", "DAMAGE", "NOW"]);
    for partition in damaged {
        let status = &partition.status;
        let now = match (partition.repaired, &status.message) {
            (true, _) => "repaired".to_owned(),
            (false, Some(message)) => format!("{}: {message}", status.state),
            (false, None) => "not repaired".to_owned(),
        };
        rows.add_row([
            Cell::new(&status.workspace),
            Cell::new(&status.report),
            Cell::new(status.date),
            Cell::new(partition.damage.as_deref().unwrap_or_default()),
            Cell::new(now),
        ]);
    }
    format!("{}\n{summary}", rows.text())
}
