//! Claims on the tables of reports: at most one process makes those of a report.
//!
//! A claim has a holder and a token that grows each time it changes hands, as that on a partition.

use super::{
    Ledger, LedgerError,
    database::{Transaction, query},
};
use crate::{report::ReportId, table_words::TableFormat};

/// The right to make the tables of one report.
#[derive(Debug, Clone)]
pub struct TablesClaim {
    pub(super) report: ReportId,
    token: i64,
}

/// What came of asking for the claim on a report's tables.
#[derive(Debug)]
pub enum TablesClaimed {
    /// It is ours.
    Ours(TablesClaim),
    /// A live process has it.
    Theirs,
    /// No tables are made of the report, or in another format.
    Settled,
}

impl Ledger {
    /// Claims the tables of a report, if they are made in this format. A claim of this process is renewed: it makes the
    /// tables of a report in one task.
    pub async fn claim_tables(&self, id: &ReportId, format: TableFormat) -> Result<TablesClaimed, LedgerError> {
        let row = query("SELECT holder, token FROM report_tables WHERE workspace = $1 AND report = $2 AND format = $3")
            .bind(id.workspace())
            .bind(id.name())
            .bind(format.extension())
            .read_one(&self.database)
            .await
            .map_err(|error| self.error("read", error))?;
        let Some(row) = row else { return Ok(TablesClaimed::Settled) };
        let (holder, token): (Option<String>, i64) = (self.get(&row, "holder")?, self.get(&row, "token")?);
        if let Some(holder) = &holder
            && holder != self.holder_name()
            && self.is_alive(holder).await
        {
            return Ok(TablesClaimed::Theirs);
        }
        let taken = query(
            "UPDATE report_tables SET holder = $3, token = $4 + 1 WHERE workspace = $1 AND report = $2 AND token = $4",
        )
        .bind(id.workspace())
        .bind(id.name())
        .bind(self.holder_name())
        .bind(token)
        .change(&self.database)
        .await
        .map_err(|error| self.error("write", error))?;
        // Otherwise another process was quicker.
        Ok(match taken {
            1 => TablesClaimed::Ours(TablesClaim { report: id.clone(), token: token + 1 }),
            _ => TablesClaimed::Theirs,
        })
    }

    /// Whether the claim is still ours: asked before an object is replaced.
    pub async fn has_tables_claim(&self, claim: &TablesClaim) -> Result<bool, LedgerError> {
        let row = query("SELECT holder FROM report_tables WHERE workspace = $1 AND report = $2 AND token = $3")
            .bind(claim.report.workspace())
            .bind(claim.report.name())
            .bind(claim.token)
            .read_one(&self.database)
            .await
            .map_err(|error| self.error("read", error))?;
        let holder = row.map(|row| self.get::<Option<String>>(&row, "holder")).transpose()?.flatten();
        Ok(holder.as_deref() == Some(self.holder_name()))
    }

    /// Gives the claim back.
    pub async fn release_tables(&self, claim: &TablesClaim) -> Result<(), LedgerError> {
        let query = query(
            "UPDATE report_tables SET holder = NULL WHERE workspace = $1 AND report = $2 AND holder = $3 AND token = $4",
        );
        let query = query.bind(claim.report.workspace()).bind(claim.report.name());
        self.change(query.bind(self.holder_name()).bind(claim.token)).await
    }

    /// # Errors
    ///
    /// [`LedgerError::Fenced`] when the claim has passed to another process.
    pub(super) async fn check_tables_claim(
        &self,
        transaction: &mut Transaction,
        claim: &TablesClaim,
    ) -> Result<(), LedgerError> {
        let row =
            query("SELECT 1 FROM report_tables WHERE workspace = $1 AND report = $2 AND holder = $3 AND token = $4")
                .bind(claim.report.workspace())
                .bind(claim.report.name())
                .bind(self.holder_name())
                .bind(claim.token)
                .row(transaction)
                .await
                .map_err(|error| self.error("read", error))?;
        match row {
            Some(_) => Ok(()),
            None => Err(LedgerError::Fenced { partition: format!("the tables of {}", claim.report) }),
        }
    }
}
