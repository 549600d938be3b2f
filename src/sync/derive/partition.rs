//! The tables of some partitions of one report, from claim to record.
//!
//! This is the only file that knows the order of the steps: present, source, survey, schemas, objects, names, removal,
//! record. Types come from the first rows of each entry; if they do not hold for the rest, or a write ends before that is
//! known, all is done again with a survey of the whole: no schema has a type that a file does not. The partitions are
//! read and written side by side, and their schemas extended one after the other. Then all objects get their names
//! together, because one wait for the disk serves all of them: each after the schema that has its columns. All are
//! recorded together, once they survive a power cut.

use std::mem;

use futures::{
    FutureExt as _, StreamExt as _,
    stream::{self, FuturesOrdered},
};
use tracing::{info, warn};

use super::{
    AHEAD, Derive, DeriveError,
    present::Present,
    schema::{self, PartSchema, Schemas},
    source,
    survey::{self, Surveyed},
    threads::Stop,
    write::{self, WrittenObjects},
};
use crate::{
    derivation::{Consequence, Derivation, DerivationFailure, Derived},
    ledger::{DuePartition, LedgerError, MadeTables},
    outcome::StoredObject,
    store::{Batch, Named},
    tables::Depth,
};

/// Rows of an entry that are surveyed at first. Most columns have a value of their type in them.
const FIRST_ROWS: u64 = 256;

/// What is to be done about a partition.
enum Prepared<'a> {
    /// Nothing: the tables are there.
    Present(Derived),
    Surveyed {
        object: &'a StoredObject,
        surveyed: Surveyed,
        present: Present,
        stop: Stop,
    },
}

/// A partition after its objects were written.
struct Ready {
    derived: Derived,
    /// Its objects and manifests, as far as they wait for their names.
    unnamed: Vec<Named>,
    /// What was there before; `None` if nothing is new.
    present: Option<Present>,
}

/// Why the objects of a partition were not written.
enum Unwritten {
    Failed(DeriveError),
    /// It failed, and only first rows were surveyed: the schema may have types that the rest of them refutes.
    Unproven,
}

impl Unwritten {
    /// After a step that follows the survey, and so may follow the extension of a schema.
    fn after_survey(error: DeriveError, depth: Depth) -> Self {
        match (error, depth) {
            (DeriveError::Failed(_), Depth::First(_)) => Unwritten::Unproven,
            (error, _) => Unwritten::Failed(error),
        }
    }
}

/// Makes the tables of partitions, and records that.
pub(super) async fn derive_partitions(
    derive: &Derive<'_>,
    due: &[DuePartition],
) -> Result<Vec<Derivation>, LedgerError> {
    let made = Box::pin(make(derive, due, Depth::First(FIRST_ROWS))).await?;
    let of = |(due, result): (&DuePartition, Result<(Derived, bool), DerivationFailure>)| {
        let (result, is_news) = match result {
            Ok((derived, is_news)) => (Ok(derived), is_news),
            Err(failure) => (Err(failure), false),
        };
        let sha256 = due.entry.object.as_ref().map(|object| object.sha256.clone()).unwrap_or_default();
        let derivation = Derivation { finished_at: derive.ctx.clock.now(), sha256, result, is_news };
        let after = derivation.consequence(due.failures, derive.ctx.clock.jitter());
        (derivation, after)
    };
    let derivations: Vec<(Derivation, Consequence)> = due.iter().zip(made).map(of).collect();
    let records = due.iter().zip(&derivations).map(|(due, (derivation, after))| MadeTables {
        id: &due.entry.partition.id,
        derivation,
        after: *after,
    });
    derive.ctx.ledger.record_tables(derive.claim, &records.collect::<Vec<_>>()).await?;
    derive.ctx.status.note_attempt();
    for (due, (derivation, after)) in due.iter().zip(&derivations) {
        log(due, derivation, *after);
    }
    Ok(derivations.into_iter().map(|(derivation, _)| derivation).collect())
}

fn log(due: &DuePartition, derivation: &Derivation, after: Consequence) {
    let id = &due.entry.partition.id;
    let (workspace, report, date) = (id.workspace(), id.report.name(), id.date);
    match &derivation.result {
        Ok(derived) => {
            let (objects, rows) = (derived.objects.len(), derived.rows());
            info!(workspace, report, %date, objects, rows, "made the tables of {id}: {objects} objects, {rows} rows");
        }
        Err(DerivationFailure { message, .. }) => {
            let next_attempt_at = after.next_attempt_at.map(|at| at.to_string());
            warn!(
                workspace, report, %date, next_attempt_at,
                "{message}; {id} is stored and has no tables of this content"
            );
        }
    }
}

/// The steps between claim and record. Returns the tables of each partition, and whether they are news.
async fn make(
    derive: &Derive<'_>,
    due: &[DuePartition],
    depth: Depth,
) -> Result<Vec<Result<(Derived, bool), DerivationFailure>>, LedgerError> {
    let batch = match derive.destination.batch().await {
        Ok(batch) => batch,
        Err(error) => {
            let failure = DerivationFailure { message: error.to_string(), is_of_content: false };
            return Ok(due.iter().map(|_| Err(failure.clone())).collect());
        }
    };
    // A schema that was stored at once cannot be taken back.
    let depth = if batch.names_at_once() { Depth::Whole } else { depth };
    let mut schemas = Schemas::default();
    let preparing: Vec<_> = due.iter().map(|due| in_time(derive, prepare(derive, due, depth)).boxed()).collect();
    let mut preparing = stream::iter(preparing).buffered(AHEAD).enumerate();
    let mut writing = FuturesOrdered::new();
    let mut ready = Vec::new();
    let is_proven = loop {
        tokio::select! {
            Some((number, prepared)) = preparing.next(), if writing.len() < AHEAD => {
                let extended = match prepared {
                    Ok(prepared) => {
                        let extended = extend(derive, &batch, &mut schemas, &due[number], number, prepared).await;
                        extended.map_err(|error| Unwritten::after_survey(error, depth))
                    }
                    Err(error) => Err(Unwritten::Failed(error)),
                };
                let (derive, batch) = (derive, &batch);
                let write = async move {
                    let (prepared, schemas) = extended?;
                    let written = in_time(derive, write(derive, batch, &due[number], prepared, schemas)).await;
                    written.map_err(|error| Unwritten::after_survey(error, depth))
                };
                writing.push_back(write.boxed());
            }
            Some(written) = writing.next() => match written {
                Err(Unwritten::Unproven) => break false,
                Err(Unwritten::Failed(error)) => ready.push(Err(error)),
                Ok(written) => ready.push(Ok(written)),
            },
            else => break true,
        }
    };
    drop((preparing, writing));
    if !is_proven {
        return Box::pin(make(derive, due, Depth::Whole)).await;
    }
    let named = in_time(derive, name_all(derive, &batch, schemas, &mut ready)).await;
    let mut made = Vec::new();
    for (due, ready) in due.iter().zip(ready) {
        let ended = match (&named, ready) {
            (Err(DeriveError::Failed(failure)), Ok(Ready { present: Some(_), .. })) => {
                Err(DeriveError::Failed(failure.clone()))
            }
            (_, Ok(Ready { derived, present, .. })) => finish(derive, due, derived, present).await,
            (_, Err(error)) => Err(error),
        };
        made.push(match ended {
            Ok(made) => Ok(made),
            Err(DeriveError::Failed(failure)) => Err(failure),
            Err(DeriveError::Ledger(error)) => return Err(error),
        });
    }
    match named {
        Err(DeriveError::Ledger(error)) => Err(error),
        _ => Ok(made),
    }
}

/// Ends a step after the time for an attempt.
async fn in_time<T>(derive: &Derive<'_>, step: impl Future<Output = Result<T, DeriveError>>) -> Result<T, DeriveError> {
    let limit = derive.ctx.config.limits.attempt_timeout;
    tokio::time::timeout(limit, step).await.unwrap_or_else(|_| {
        Err(DeriveError::passing(format!(
            "the tables were not made within {limit:?}, the time for an attempt; see limits.attempt_timeout"
        )))
    })
}

async fn prepare<'a>(derive: &Derive<'_>, due: &'a DuePartition, depth: Depth) -> Result<Prepared<'a>, DeriveError> {
    let DuePartition { entry, .. } = due;
    let id = &entry.partition.id;
    let missing = || DeriveError::passing("the partition has no object".to_owned());
    let object = entry.object.as_ref().ok_or_else(missing)?;
    let present = match &due.objects {
        Some(objects) => Present::recorded(objects),
        None => {
            let present = Present::list(derive, id).await?;
            if !due.remake
                && let Some(derived) = present.complete(derive, id, object).await?
            {
                return Ok(Prepared::Present(derived));
            }
            present
        }
    };
    let stop = Stop::default();
    let file = source::open(derive, object).await?;
    let surveyed = survey::survey(derive, entry, file, depth, &stop).await?;
    Ok(Prepared::Surveyed { object, surveyed, present, stop })
}

/// Extends the schemas of a partition's tables, which come in the order of their names.
async fn extend<'a>(
    derive: &Derive<'_>,
    batch: &Batch,
    schemas: &mut Schemas,
    due: &DuePartition,
    number: usize,
    prepared: Prepared<'a>,
) -> Result<(Prepared<'a>, Vec<PartSchema>), DeriveError> {
    let mut extended = Vec::new();
    if let Prepared::Surveyed { surveyed, .. } = &prepared {
        for (table, parts) in &surveyed.tables {
            let when = (number, due.entry.partition.id.date);
            extended.push(schema::extend(derive, batch, schemas, table, when, parts).await?);
        }
    }
    Ok((prepared, extended))
}

async fn write(
    derive: &Derive<'_>,
    batch: &Batch,
    due: &DuePartition,
    prepared: Prepared<'_>,
    schemas: Vec<PartSchema>,
) -> Result<Ready, DeriveError> {
    let (object, surveyed, present, stop) = match prepared {
        Prepared::Present(derived) => return Ok(Ready { derived, unnamed: Vec::new(), present: None }),
        Prepared::Surveyed { object, surveyed, present, stop } => (object, surveyed, present, stop),
    };
    let written = write::write(derive, batch, (&due.entry, object), &surveyed, schemas, &stop).await?;
    let WrittenObjects { objects, unnamed } = written;
    let derived = Derived { objects, left_alone: surveyed.left_alone };
    Ok(Ready { derived, unnamed, present: Some(present) })
}

/// Stores the schemas, and gives all objects their names: those of each partition after the schemas that have its columns.
async fn name_all(
    derive: &Derive<'_>,
    batch: &Batch,
    mut schemas: Schemas,
    ready: &mut [Result<Ready, DeriveError>],
) -> Result<(), DeriveError> {
    schema::note(derive, &mem::take(&mut schemas.changes)).await?;
    let mut unstored = schemas.into_unstored().into_iter().peekable();
    let mut named = Vec::new();
    for (number, ready) in ready.iter_mut().enumerate() {
        while let Some(schema) = unstored.next_if(|schema| schema.before <= number) {
            named.push(Named::Small(schema.key, schema.bytes));
        }
        if let Ok(ready) = ready {
            named.append(&mut ready.unnamed);
        }
    }
    if !named.is_empty() {
        derive.check_claim().await?;
        batch.name_all(named).await?;
    }
    Ok(())
}

/// Removes what no longer belongs to the tables.
async fn finish(
    derive: &Derive<'_>,
    due: &DuePartition,
    derived: Derived,
    present: Option<Present>,
) -> Result<(Derived, bool), DeriveError> {
    match present {
        None => Ok((derived, due.was_begun)),
        Some(present) => {
            in_time(derive, present.remove_others(derive, &derived.objects)).await?;
            Ok((derived, true))
        }
    }
}
