//! What people change by hand: losses that they have seen, and rows that they no longer want.

use std::collections::BTreeSet;

use super::{Ledger, LedgerError};
use crate::{
    ledger::database::{Transaction, query},
    report::{PartitionId, ReportId},
};

/// What deletes the rows about a report as a whole. The rows about a partition go with it.
const FORGET_REPORT: [&str; 6] = [
    "DELETE FROM reports WHERE workspace = $1 AND report = $2",
    "DELETE FROM report_figures WHERE workspace = $1 AND report = $2",
    "DELETE FROM attempt_figures WHERE workspace = $1 AND report = $2",
    "DELETE FROM report_tables WHERE workspace = $1 AND report = $2",
    "DELETE FROM recovered WHERE workspace = $1 AND report = $2",
    "DELETE FROM schema_changes WHERE workspace = $1 AND report = $2",
];

/// SQLite gives the number of a deleted last row to the next one, which a target that has read so far would miss.
const READ_NO_FURTHER: [&str; 4] = [
    "UPDATE targets SET attempts_read = (SELECT coalesce(max(id), 0) FROM attempts)
     WHERE attempts_read > (SELECT coalesce(max(id), 0) FROM attempts)",
    "UPDATE targets SET attempts_pinged = (SELECT coalesce(max(id), 0) FROM attempts)
     WHERE attempts_pinged > (SELECT coalesce(max(id), 0) FROM attempts)",
    "UPDATE targets SET attempts_summarized = (SELECT coalesce(max(id), 0) FROM attempts)
     WHERE attempts_summarized > (SELECT coalesce(max(id), 0) FROM attempts)",
    "UPDATE targets SET tables_read = (SELECT coalesce(max(number), 0) FROM partition_tables)
     WHERE tables_read > (SELECT coalesce(max(number), 0) FROM partition_tables)",
];

impl Ledger {
    /// Notes that a person has seen that these partitions are lost, which ends their alarms. Returns how many of them are
    /// lost and were not acknowledged before.
    pub async fn acknowledge(&self, ids: &[PartitionId]) -> Result<u64, LedgerError> {
        let failed = |error| self.error("write", error);
        let mut transaction = self.begin().await?;
        let mut acknowledged = 0;
        for id in ids {
            acknowledged += query(
                "UPDATE partitions SET acknowledged = 1
                 WHERE workspace = $1 AND report = $2 AND date = $3 AND settled = 'lost' AND acknowledged = 0",
            )
            .bind_id(id)
            .execute(&mut transaction)
            .await
            .map_err(failed)?;
        }
        for report in ids.iter().map(|id| &id.report).collect::<BTreeSet<_>>() {
            self.recount(&mut transaction, report).await?;
        }
        transaction.commit().await.map_err(failed)?;
        Ok(acknowledged)
    }

    /// Deletes the rows of these partitions with their attempts, claims and tables. A process that works on one of them
    /// discards its attempt. Returns how many there were.
    pub async fn forget(&self, ids: &[PartitionId]) -> Result<u64, LedgerError> {
        let failed = |error| self.error("write", error);
        let mut transaction = self.begin().await?;
        let mut forgotten = 0;
        for id in ids {
            forgotten += query("DELETE FROM partitions WHERE workspace = $1 AND report = $2 AND date = $3")
                .bind_id(id)
                .execute(&mut transaction)
                .await
                .map_err(failed)?;
        }
        for report in ids.iter().map(|id| &id.report).collect::<BTreeSet<_>>() {
            // A report without partitions has no row in the figures.
            query("DELETE FROM report_figures WHERE workspace = $1 AND report = $2")
                .bind(report.workspace())
                .bind(report.name())
                .execute(&mut transaction)
                .await
                .map_err(failed)?;
            self.recount(&mut transaction, report).await?;
        }
        self.read_no_further(&mut transaction).await?;
        transaction.commit().await.map_err(failed)?;
        Ok(forgotten)
    }

    /// Deletes every row of a report, which is then as one that was never planned. Returns how many partitions it had.
    pub async fn forget_report(&self, id: &ReportId) -> Result<u64, LedgerError> {
        let failed = |error| self.error("write", error);
        let mut transaction = self.begin().await?;
        let forgotten = query("DELETE FROM partitions WHERE workspace = $1 AND report = $2")
            .bind(id.workspace())
            .bind(id.name())
            .execute(&mut transaction)
            .await
            .map_err(failed)?;
        for forget in FORGET_REPORT {
            query(forget).bind(id.workspace()).bind(id.name()).execute(&mut transaction).await.map_err(failed)?;
        }
        self.read_no_further(&mut transaction).await?;
        transaction.commit().await.map_err(failed)?;
        Ok(forgotten)
    }

    async fn read_no_further(&self, transaction: &mut Transaction) -> Result<(), LedgerError> {
        for update in READ_NO_FURTHER {
            query(update).execute(transaction).await.map_err(|error| self.error("write", error))?;
        }
        Ok(())
    }
}
