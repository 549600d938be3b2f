//! Which reports' tables are made when: the newest partition first, and behind what is due.
//!
//! This file owns the order and the limit of concurrency. It must not know the steps of an attempt.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    future::{Future, pending},
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::{Timestamp, civil::Date};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tracing::{debug, info};

use super::{Derive, partition::derive_partitions, threads::Threads};
use crate::{
    derivation::Derivation,
    ledger::{Choice, Duty, LedgerError, MostDue, TablesClaimed},
    lock::lock,
    report::{PartitionId, ReportId},
    sync::{
        context::{Context, OpenReport},
        daemon_loop::LoopCommand,
        pass::Selection,
    },
    table_words::TableFormat,
    telemetry::Chain,
};

/// Number of reports whose tables are made concurrently.
const CONCURRENCY: usize = 2;

/// Number of reports that are looked up at a time.
const LISTED: u32 = 64;

/// Partitions whose tables are made together, unless there are fewer or they are large. Then a report gives way to one
/// with a newer partition.
const TOGETHER: MostDue = MostDue { partitions: 64, bytes: 16 * 1024 * 1024 };

/// How long they wait for the downloads that run or wait. After that, its tables are made beside them.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often the daemon looks for retries that are due, and for partitions that other processes have stored.
const INTERVAL: Duration = Duration::from_secs(60);

/// How long the daemon waits after a failure of the ledger.
const LEDGER_PAUSE: Duration = Duration::from_secs(30);

/// How often a command looks for tables that another process makes.
const OTHERS_INTERVAL: Duration = Duration::from_secs(1);

/// What a command made.
#[derive(Debug, Clone, Default)]
pub struct TablesSummary {
    /// Number of partitions whose tables are made.
    pub partitions: u64,
    /// Number of their objects.
    pub objects: u64,
    /// Number of their rows.
    pub rows: u64,
    /// The partitions whose tables could not be made, and why.
    pub failed: BTreeMap<PartitionId, String>,
    /// Whether everything was tried. If not, the command was stopped.
    pub is_whole: bool,
}

impl TablesSummary {
    fn add(&mut self, id: &PartitionId, derivation: &Derivation) {
        match &derivation.result {
            Ok(derived) => {
                self.partitions += 1;
                self.objects += derived.objects.len() as u64;
                self.rows += derived.rows();
            }
            Err(failure) => drop(self.failed.insert(id.clone(), failure.message.clone())),
        }
    }
}

/// What a task tells of the tables of a report.
enum Turn {
    /// It has made some; there may be more.
    Worked,
    /// There are none to make, or none are made of the report.
    Nothing,
    /// Another process makes them.
    Theirs,
}

/// What a command has tried.
type Tried = (HashSet<PartitionId>, TablesSummary);

/// Which partitions, and what has become of them.
struct Round {
    /// Of a command: each chosen partition is tried once, whenever its retry is due.
    command: Option<(Selection, Mutex<Tried>)>,
    threads: Threads,
}

impl Round {
    fn is_chosen(&self, id: &PartitionId) -> bool {
        self.command.as_ref().is_none_or(|(selection, tried)| selection.covers(id) && !lock(tried).0.contains(id))
    }

    /// Before which time a retry must be due; `None`: any retry is due.
    fn now(&self, ctx: &Context) -> Option<Timestamp> {
        self.command.is_none().then(|| ctx.clock.now())
    }

    fn note(&self, id: &PartitionId, derivation: &Derivation) {
        if let Some((_, tried)) = &self.command {
            let (tried, summary) = &mut *lock(tried);
            tried.insert(id.clone());
            summary.add(id, derivation);
        }
    }
}

/// Notes in the ledger of which reports tables are made: partitions that are stored from then on are marked for that. Of
/// several processes whose configurations differ, the one that began with its own last decides, as long as it lives.
///
/// # Errors
///
/// When the ledger cannot be read or written.
pub async fn note_table_reports(ctx: &Context) -> Result<(), LedgerError> {
    ctx.ledger.take_over_duty(Duty::Tables).await?;
    ctx.ledger.set_table_reports(&formats(ctx)).await.map(drop)
}

/// Notes it again if this process decides, or the one that decided is gone.
async fn keep_table_reports(ctx: &Context) -> Result<(), LedgerError> {
    match ctx.ledger.take_duty(Duty::Tables).await?.is_ours() {
        true => ctx.ledger.set_table_reports(&formats(ctx)).await.map(drop),
        false => Ok(()),
    }
}

/// Makes the tables of all selected partitions that lack them, each once, and waits for those that another process makes.
/// Ends early when `shutdown` does.
///
/// # Errors
///
/// When the ledger cannot be read or written.
pub async fn derive_once(
    ctx: &Arc<Context>,
    selection: &Selection,
    shutdown: impl Future<Output = ()>,
) -> Result<TablesSummary, LedgerError> {
    keep_table_reports(ctx).await?;
    let round = Arc::new(Round { command: Some((selection.clone(), Mutex::default())), threads: Threads::default() });
    let mut is_whole = true;
    if !formats(ctx).is_empty() {
        let working = async {
            while work(ctx, &round).await? {
                ctx.clock.sleep(OTHERS_INTERVAL).await;
            }
            Ok::<_, LedgerError>(())
        };
        let mut shutdown = pin!(shutdown);
        tokio::select! {
            worked = working => worked?,
            () = &mut shutdown => is_whole = false,
        }
    }
    let summary = round.command.as_ref().map(|(_, tried)| lock(tried).1.clone()).unwrap_or_default();
    Ok(TablesSummary { is_whole, ..summary })
}

/// Marks the stored partitions of `choice`, up to the date `until`, and makes their tables again, whether or not they have
/// any. What is not made before `shutdown` is made later, by any process.
///
/// # Errors
///
/// When the ledger cannot be read or written.
pub async fn tables_again(
    ctx: &Arc<Context>,
    choice: &Choice,
    until: Option<Date>,
    shutdown: impl Future<Output = ()>,
) -> Result<TablesSummary, LedgerError> {
    note_table_reports(ctx).await?;
    ctx.ledger.make_tables_again(choice, until).await?;
    let Choice { workspace, report, .. } = choice.clone();
    derive_once(ctx, &Selection { workspace, report, partitions: None }, shutdown).await
}

/// Marks these stored partitions, and makes their tables again, each once. What is not made before `shutdown` is made later,
/// by any process.
///
/// # Errors
///
/// When the ledger cannot be read or written.
pub async fn tables_of_again(
    ctx: &Arc<Context>,
    ids: HashSet<PartitionId>,
    shutdown: impl Future<Output = ()>,
) -> Result<TablesSummary, LedgerError> {
    note_table_reports(ctx).await?;
    for PartitionId { report, date } in &ids {
        let (workspace, report) = (Some(report.workspace().to_owned()), Some(report.name().to_owned()));
        ctx.ledger.make_tables_again(&Choice { workspace, report, since: Some(*date) }, Some(*date)).await?;
    }
    derive_once(ctx, &Selection { partitions: Some(ids), ..Selection::default() }, shutdown).await
}

/// Makes tables beside the daemon's loop, and again for each of the `contexts`. The loop gets [`LoopCommand::Reopen`] when
/// the ledger has to be opened again.
pub async fn derive_continuously(mut contexts: watch::Receiver<Arc<Context>>, loop_: mpsc::Sender<LoopCommand>) {
    loop {
        let ctx = contexts.borrow_and_update().clone();
        let deriving = async {
            if let Err(error) = until_reopened(&ctx).await {
                // An error means that the process ends.
                let _ = loop_.send(LoopCommand::Reopen { of: Arc::clone(&ctx), error }).await;
            }
            pending::<()>().await;
        };
        tokio::select! {
            () = deriving => {}
            changed = contexts.changed() => if changed.is_err() { return },
        }
    }
}

/// # Errors
///
/// Those for which the ledger has to be opened again.
async fn until_reopened(ctx: &Arc<Context>) -> Result<(), LedgerError> {
    let (formats, round) = (formats(ctx), Arc::new(Round { command: None, threads: Threads::default() }));
    let mut is_noted = false;
    loop {
        let worked = async {
            match is_noted {
                true => keep_table_reports(ctx).await?,
                false => note_table_reports(ctx).await?,
            }
            is_noted = true;
            match formats.is_empty() {
                true => Ok(false),
                false => work(ctx, &round).await,
            }
        };
        match worked.await {
            Err(error) if error.needs_reopening() => return Err(error),
            Err(error) => {
                // The loop meets the same error, and reports it.
                debug!("could not make tables: {}", Chain(&error));
                ctx.clock.sleep(LEDGER_PAUSE).await;
            }
            Ok(_) if formats.is_empty() => return Ok(()),
            Ok(_) => tokio::select! {
                () = ctx.status.tables_due() => {}
                () = ctx.clock.sleep(INTERVAL) => {}
            },
        }
    }
}

fn formats(ctx: &Context) -> BTreeMap<ReportId, TableFormat> {
    ctx.config.reports.iter().filter_map(|report| Some((report.id.clone(), report.tables?))).collect()
}

/// Makes tables until none are due. Returns whether another process makes some of them.
async fn work(ctx: &Arc<Context>, round: &Arc<Round>) -> Result<bool, LedgerError> {
    let mut tasks: JoinSet<(ReportId, Result<Turn, LedgerError>)> = JoinSet::new();
    let mut running: HashSet<ReportId> = HashSet::new();
    // Reports with nothing to do for this process, and whether another makes their tables.
    let mut over: HashMap<ReportId, bool> = HashMap::new();
    loop {
        if running.len() < CONCURRENCY {
            let due = ctx.ledger.reports_with_tables_due(round.now(ctx), LISTED + over.len() as u32).await?;
            for id in due {
                if running.len() >= CONCURRENCY {
                    break;
                }
                if over.contains_key(&id) {
                    continue;
                }
                let Some(open) = ctx.reports.get(&id).cloned() else {
                    over.insert(id, false);
                    continue;
                };
                if running.insert(id.clone()) {
                    let (ctx, round) = (Arc::clone(ctx), Arc::clone(round));
                    tasks.spawn(async move { (id, turn(&ctx, &open, &round).await) });
                }
            }
        }
        let Some(joined) = tasks.join_next().await else { break };
        let (id, turn) = match joined {
            Ok(ended) => ended,
            Err(failure) => std::panic::resume_unwind(failure.into_panic()),
        };
        running.remove(&id);
        match turn {
            Ok(Turn::Worked) => {}
            Ok(Turn::Nothing) => drop(over.insert(id, false)),
            Ok(Turn::Theirs) => drop(over.insert(id, true)),
            Err(LedgerError::Fenced { partition }) => {
                debug!("the claim on {partition} was taken over by another process");
                over.insert(id, true);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(over.into_values().any(|is_theirs| is_theirs))
}

/// Makes the tables of some partitions of one report, newest first.
async fn turn(ctx: &Context, open: &OpenReport, round: &Round) -> Result<Turn, LedgerError> {
    let OpenReport { report, destination } = open;
    let Some(format) = report.tables.filter(|_| round_covers(round, &report.id)) else { return Ok(Turn::Nothing) };
    let claim = match ctx.ledger.claim_tables(&report.id, format).await? {
        TablesClaimed::Ours(claim) => claim,
        TablesClaimed::Theirs => return Ok(Turn::Theirs),
        TablesClaimed::Settled => return Ok(Turn::Nothing),
    };
    let working = async {
        tokio::select! {
            () = ctx.load.is_idle() => {}
            () = ctx.clock.sleep(PATIENCE) => {}
        }
        let is_chosen = |id: &PartitionId| round.is_chosen(id);
        let due = ctx.ledger.begin_tables(&claim, round.now(ctx), is_chosen, TOGETHER).await?;
        if due.is_empty() {
            return Ok(Turn::Nothing);
        }
        let threads = round.threads.clone();
        let derive = Derive { ctx, report, destination, format, claim: &claim, threads };
        for (due, derivation) in due.iter().zip(derive_partitions(&derive, &due).await?) {
            round.note(&due.entry.partition.id, &derivation);
        }
        Ok(Turn::Worked)
    };
    let worked = Box::pin(working).await;
    if let Err(error) = ctx.ledger.release_tables(&claim).await {
        // This process can claim it again.
        info!("could not release the claim on the tables of {}: {}", report.id, Chain(&error));
    }
    worked
}

fn round_covers(round: &Round, id: &ReportId) -> bool {
    round.command.as_ref().is_none_or(|(selection, _)| selection.covers_report(id))
}
