//! The figures of each report, kept in the transaction that changes what they count.
//!
//! A partition that becomes stored, absent or lost is counted by the difference. Where one leaves such a state, which is
//! rare, its report is counted again.

use jiff::Timestamp;

use super::{Ledger, LedgerError, rows::to_integer};
use crate::{
    ledger::{
        DURATION_BOUNDS,
        database::{Query, Transaction, query},
    },
    outcome::Outcome,
    partition::{Entry, Settled},
    report::{Partition, ReportId},
};

impl Ledger {
    /// Counts the partitions of a report again.
    pub(super) async fn recount(&self, transaction: &mut Transaction, id: &ReportId) -> Result<(), LedgerError> {
        query(
            "INSERT INTO report_figures (workspace, report, source, stored, absent, lost, stored_bytes, newest_stored,
                                         newest_lost)
             SELECT workspace, report, source,
                    count(*) FILTER (WHERE settled = 'stored'), count(*) FILTER (WHERE settled = 'absent'),
                    count(*) FILTER (WHERE settled = 'lost'),
                    CAST(coalesce(sum(size) FILTER (WHERE settled = 'stored'), 0) AS BIGINT),
                    max(generated_at) FILTER (WHERE settled = 'stored'),
                    max(last_attempt_at) FILTER (WHERE settled = 'lost' AND acknowledged = 0)
             FROM partitions WHERE workspace = $1 AND report = $2 GROUP BY workspace, report, source
             ON CONFLICT (workspace, report, source) DO UPDATE
             SET stored = excluded.stored, absent = excluded.absent, lost = excluded.lost,
                 stored_bytes = excluded.stored_bytes, newest_stored = excluded.newest_stored,
                 newest_lost = excluded.newest_lost",
        )
        .bind(id.workspace())
        .bind(id.name())
        .execute(transaction)
        .await
        .map(drop)
        .map_err(|error| self.error("write", error))
    }
}

/// Makes room for the figures of a partition that was added, unless the ledger has it from another source.
pub(super) fn new_counted(partition: &Partition) -> Query<'_> {
    query(
        "INSERT INTO report_figures (workspace, report, source)
         SELECT workspace, report, source FROM partitions
         WHERE workspace = $1 AND report = $2 AND date = $3 AND source = $4
         ON CONFLICT (workspace, report, source) DO NOTHING",
    )
    .bind_id(&partition.id)
    .bind(partition.source.as_str())
}

/// Counts the difference between a partition in the ledger, which is neither absent nor lost, and the one `after` it,
/// which is about to be written.
pub(super) fn change_counted(after: &Entry) -> Query<'_> {
    let Entry { partition, settled, .. } = after;
    let when = |state, at: Option<Timestamp>| at.filter(|_| *settled == state).map(Timestamp::as_millisecond);
    let bytes = after.object.as_ref().filter(|_| *settled == Settled::Stored).map_or(0, |object| object.size);
    query(
        "UPDATE report_figures
         SET stored = stored + $5 - (SELECT count(*) FROM partitions
                 WHERE workspace = $1 AND report = $2 AND date = $3 AND settled = 'stored'),
             stored_bytes = stored_bytes + $6 - (SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM partitions
                 WHERE workspace = $1 AND report = $2 AND date = $3 AND settled = 'stored'),
             absent = absent + $7,
             lost = lost + $8,
             newest_stored = CASE WHEN newest_stored >= $9 OR $9 IS NULL THEN newest_stored ELSE $9 END,
             newest_lost = CASE WHEN newest_lost >= $10 OR $10 IS NULL THEN newest_lost ELSE $10 END
         WHERE workspace = $1 AND report = $2 AND source = $4",
    )
    .bind_id(&partition.id)
    .bind(partition.source.as_str())
    .bind(i64::from(*settled == Settled::Stored))
    .bind(to_integer(bytes))
    .bind(i64::from(*settled == Settled::Absent))
    .bind(i64::from(*settled == Settled::Lost))
    .bind(when(Settled::Stored, Some(partition.generated_at)))
    .bind(when(Settled::Lost, after.last_attempt_at))
}

/// Counts an attempt at a partition of the report `id` that ended with `outcome`, received `bytes` completely, and found
/// other content at the partition's key or not.
pub(super) fn attempt_counted(
    id: &ReportId,
    outcome: Outcome,
    (started_at, finished_at): (Timestamp, Timestamp),
    (bytes, found_other_content): (u64, bool),
) -> Query<'_> {
    // A clock that was set back during an attempt makes it end before it began.
    let took = (finished_at.as_millisecond() - started_at.as_millisecond()).max(0);
    let query = query(
        "INSERT INTO attempt_figures AS f
             (workspace, report, outcome, attempts, milliseconds, bytes, other_content, within_1, within_5, within_15,
              within_60, within_300, within_900, within_1800, within_3600)
         VALUES ($1, $2, $3, 1, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
         ON CONFLICT (workspace, report, outcome) DO UPDATE
         SET attempts = f.attempts + 1, milliseconds = f.milliseconds + excluded.milliseconds,
             bytes = f.bytes + excluded.bytes, other_content = f.other_content + excluded.other_content,
             within_1 = f.within_1 + excluded.within_1, within_5 = f.within_5 + excluded.within_5,
             within_15 = f.within_15 + excluded.within_15, within_60 = f.within_60 + excluded.within_60,
             within_300 = f.within_300 + excluded.within_300, within_900 = f.within_900 + excluded.within_900,
             within_1800 = f.within_1800 + excluded.within_1800,
             within_3600 = f.within_3600 + excluded.within_3600",
    );
    let query = query.bind(id.workspace()).bind(id.name()).bind(outcome.as_str()).bind(took);
    let query = query.bind(to_integer(bytes));
    let query = query.bind(i64::from(found_other_content));
    DURATION_BOUNDS.iter().fold(query, |query, bound| query.bind(i64::from(took <= i64::from(*bound) * 1000)))
}
