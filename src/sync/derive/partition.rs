//! The tables of one partition from claim to record.
//!
//! This is the only file that knows the order of the steps: present, source, survey, schemas, objects, removal, record. The
//! schemas of all tables are stored before the first object: a column that is in an object is in the schema.

use tracing::{info, warn};

use super::{Derive, DeriveError, present::Present, schema, source, survey, write};
use crate::{
    derivation::{Derivation, DerivationFailure, Derived},
    ledger::{DuePartition, LedgerError},
    outcome::StoredObject,
    partition::Entry,
};

/// Makes the tables of a partition, and records that.
pub(super) async fn derive_partition(derive: &Derive<'_>, due: &DuePartition) -> Result<Derivation, LedgerError> {
    let id = &due.entry.partition.id;
    let limit = derive.ctx.config.limits.attempt_timeout;
    let ended = match tokio::time::timeout(limit, steps(derive, due)).await {
        Ok(ended) => ended,
        Err(_) => Err(DeriveError::passing(format!(
            "the tables were not made within {limit:?}, the time for an attempt; see limits.attempt_timeout"
        ))),
    };
    let (result, is_news) = match ended {
        Ok((derived, is_news)) => (Ok(derived), is_news),
        Err(DeriveError::Failed(failure)) => (Err(failure), false),
        Err(DeriveError::Ledger(error)) => return Err(error),
    };
    let sha256 = due.entry.object.as_ref().map(|object| object.sha256.clone()).unwrap_or_default();
    let derivation = Derivation { finished_at: derive.ctx.clock.now(), sha256, result, is_news };
    let after = derivation.consequence(due.failures, derive.ctx.clock.jitter());
    derive.ctx.ledger.record_tables(derive.claim, id, &derivation, after).await?;
    derive.ctx.status.note_attempt();
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
    Ok(derivation)
}

/// The steps between claim and record. Returns the tables, and whether they are news.
async fn steps(derive: &Derive<'_>, due: &DuePartition) -> Result<(Derived, bool), DeriveError> {
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
                return Ok((derived, due.was_begun));
            }
            present
        }
    };
    let derived = make(derive, entry, object).await?;
    present.remove_others(derive, &derived.objects).await?;
    Ok((derived, true))
}

async fn make(derive: &Derive<'_>, entry: &Entry, object: &StoredObject) -> Result<Derived, DeriveError> {
    let file = source::open(derive, object).await?;
    let surveyed = survey::survey(derive, entry, file).await?;
    let mut extended = Vec::new();
    for (table, parts) in &surveyed.tables {
        extended.push((parts, schema::extend(derive, table, entry.partition.id.date, parts).await?));
    }
    let count = surveyed.tables.values().map(Vec::len).sum();
    let mut objects = Vec::new();
    for (parts, schema) in &extended {
        for part in *parts {
            objects.push(write::write(derive, (entry, object), &surveyed.entries, part, schema, count).await?);
        }
    }
    Ok(Derived { objects, left_alone: surveyed.left_alone })
}
