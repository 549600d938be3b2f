//! Claims: at most one process works on a partition.
//!
//! A claim has a holder and a token that grows each time it changes hands. Whether a holder is alive is answered by
//! `holder`.

use jiff::Timestamp;

use super::{Claim, Claimed, Ledger, LedgerError, rows::settled_word};
use crate::{
    ledger::database::{Query, query},
    partition::Entry,
    report::PartitionId,
};

impl Ledger {
    /// Claims a partition, unless it has changed since it was `planned`: it is no longer open, or no longer stored, or
    /// another process has attempted it, which also decided when it is attempted next. A claim of this process is renewed: it
    /// remains when an attempt could not be recorded, and the process makes one attempt at a partition at a time.
    pub async fn claim(&self, planned: &Entry) -> Result<Claimed, LedgerError> {
        let id = &planned.partition.id;
        let attempted_at = planned.last_attempt_at.map(Timestamp::as_millisecond);
        let claiming = query(
            "INSERT INTO claims AS c (partition_id, holder, token)
             SELECT id, $4, 1 FROM partitions WHERE workspace = $1 AND report = $2 AND date = $3 AND settled = $5
                 AND attempts = $6 AND last_attempt_at IS NOT DISTINCT FROM $7
             ON CONFLICT (partition_id) DO UPDATE SET token = c.token + 1 WHERE c.holder = excluded.holder",
        );
        let claiming = claiming.bind_id(id).bind(self.holder_name()).bind(settled_word(planned.settled));
        let claiming = claiming.bind(planned.attempts).bind(attempted_at);
        // Read after it was claimed: no other process can record anything about it.
        let reading = query(
            "SELECT p.*, c.holder, c.token, w.archive_seen_at FROM partitions p
             LEFT JOIN claims c ON c.partition_id = p.id LEFT JOIN workspaces w ON w.workspace = p.workspace
             WHERE p.workspace = $1 AND p.report = $2 AND p.date = $3",
        );
        let rows = self.database.write(None, vec![claiming, reading.bind_id(id)]).await;
        let rows = rows.map_err(|error| self.error("write", error))?.unwrap_or_default();
        let Some(row) = rows.into_iter().next() else { return Ok(Claimed::Changed) };
        let entry = self.entry(&row)?;
        // The ledger keeps milliseconds.
        let seen = (entry.settled, entry.attempts, entry.last_attempt_at.map(Timestamp::as_millisecond));
        if seen != (planned.settled, planned.attempts, attempted_at) {
            return Ok(Claimed::Changed);
        }
        // Another process may have given it back just now; then it is there for the asking next time.
        let Some(holder) = self.get::<Option<String>>(&row, "holder")? else { return Ok(Claimed::Theirs) };
        let archive_seen_at = self.instant_or_null(&row, "archive_seen_at")?;
        let mut claim = Claim { entry, archive_seen_at, row: self.get(&row, "id")?, token: self.get(&row, "token")? };
        if holder != self.holder_name() {
            if self.is_alive(&holder).await || !self.take_over(&claim, &holder).await? {
                return Ok(Claimed::Theirs);
            }
            claim.token += 1;
        }
        Ok(Claimed::Ours(Box::new(claim)))
    }

    /// Makes the claim of a dead holder ours, unless another process was quicker.
    async fn take_over(&self, claim: &Claim, dead: &str) -> Result<bool, LedgerError> {
        let taken = query(
            "UPDATE claims SET holder = $1, token = token + 1 WHERE partition_id = $2 AND holder = $3 AND token = $4",
        )
        .bind(self.holder_name())
        .bind(claim.row)
        .bind(dead)
        .bind(claim.token)
        .change(&self.database)
        .await
        .map_err(|error| self.error("write", error))?;
        Ok(taken == 1)
    }

    /// Ends the claims of dead processes on stored partitions. Where one had begun to replace the object, notes that this
    /// was left half done. Returns how many of those there were.
    pub async fn note_interrupted(&self) -> Result<u64, LedgerError> {
        let claims = self
            .read(
                "SELECT c.partition_id, c.holder, c.replaces FROM claims c CROSS JOIN partitions p
                 WHERE p.id = c.partition_id AND p.settled = 'stored'",
            )
            .await?;
        let mut noted = 0;
        for claim in &claims {
            let (partition, holder): (i64, String) = (self.get(claim, "partition_id")?, self.text(claim, "holder")?);
            if holder == self.holder_name() || self.is_alive(&holder).await {
                continue;
            }
            let is_half_done: bool = self.get(claim, "replaces")?;
            let failed = |error| self.error("write", error);
            let mut transaction = self.begin().await?;
            query(
                "UPDATE partitions SET outcome = 'store_failed', streak = 0, repeats = 1, next_attempt_at = NULL,
                        remark = NULL, message = 'a process died while it replaced the object'
                 WHERE id = $1 AND settled = 'stored'
                   AND EXISTS (SELECT 1 FROM claims WHERE partition_id = $1 AND holder = $2 AND replaces <> 0)",
            )
            .bind(partition)
            .bind(&holder)
            .execute(&mut transaction)
            .await
            .map_err(failed)?;
            query("DELETE FROM claims WHERE partition_id = $1 AND holder = $2")
                .bind(partition)
                .bind(&holder)
                .execute(&mut transaction)
                .await
                .map_err(failed)?;
            transaction.commit().await.map_err(failed)?;
            noted += u64::from(is_half_done);
        }
        Ok(noted)
    }

    /// Gives back this process's claim on a partition, if it has one, without an attempt.
    pub async fn release(&self, id: &PartitionId) -> Result<(), LedgerError> {
        let query = query(
            "DELETE FROM claims WHERE holder = $1 AND partition_id IN
                 (SELECT id FROM partitions WHERE workspace = $2 AND report = $3 AND date = $4)",
        );
        self.change(query.bind(self.holder_name()).bind_id(id)).await
    }

    /// Whether the claim is still ours: asked before something is made final that cannot be undone.
    pub async fn is_ours(&self, claim: &Claim) -> Result<bool, LedgerError> {
        let row = query("SELECT holder FROM claims WHERE partition_id = $1 AND token = $2")
            .bind(claim.row)
            .bind(claim.token)
            .read_one(&self.database)
            .await
            .map_err(|error| self.error("read", error))?;
        let holder = row.map(|row| self.text(&row, "holder")).transpose()?;
        Ok(holder.as_deref() == Some(self.holder_name()))
    }

    /// Notes that the object of a stored partition is about to be replaced; says whether the claim is still ours.
    pub async fn begin_replacing(&self, claim: &Claim) -> Result<bool, LedgerError> {
        let begun = query("UPDATE claims SET replaces = 1 WHERE partition_id = $1 AND holder = $2 AND token = $3")
            .bind(claim.row)
            .bind(self.holder_name())
            .bind(claim.token)
            .change(&self.database)
            .await
            .map_err(|error| self.error("write", error))?;
        Ok(begun == 1)
    }

    /// Ends a claim of this process. Changes a row if the claim is still ours.
    pub(super) fn end_of<'q>(&'q self, claim: &Claim) -> Query<'q> {
        query("DELETE FROM claims WHERE partition_id = $1 AND holder = $2 AND token = $3")
            .bind(claim.row)
            .bind(self.holder_name())
            .bind(claim.token)
    }
}
