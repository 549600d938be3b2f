//! Recording an attempt: its row, the partition after it, the hold on its workspace, in one transaction. Old attempts are
//! deleted.

use jiff::Timestamp;

use super::{
    Claim, Ledger, LedgerError,
    counters::{attempt_counted, change_counted},
    rows::{settled_word, to_integer},
    tables::marks_for_tables,
};
use crate::{
    ledger::database::{Query, Transaction, query},
    outcome::{Attempt, CLOCK_TOLERANCE, Outcome, Remark},
    partition::{Entry, Settled},
    report::Partition,
    retry::{Hold, later},
};

impl Ledger {
    /// Records an attempt, the partition `after` it, and the `hold` that it calls for, and ends the claim, in one
    /// transaction. Returns the hold that is now on the workspace, if the attempt calls for one: this one or a longer one.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Fenced`] when the claim has passed to another process; nothing is recorded then.
    pub async fn record(
        &self,
        claim: &Claim,
        attempt: &Attempt,
        after: &Entry,
        hold: Option<Hold>,
    ) -> Result<Option<Hold>, LedgerError> {
        let Partition { id, source, .. } = &after.partition;
        let workspace = id.workspace();
        let took = (attempt.started_at, attempt.finished_at);
        let found = (attempt.received_bytes().unwrap_or(0), after.remark == Some(Remark::OtherContent));
        let mut statements = vec![
            attempt_row(claim.row, attempt, after),
            attempt_counted(&id.report, attempt.outcome(), took, found),
            change_counted(after),
            partition_after(claim.row, after),
        ];
        if attempt.is_authenticated() {
            // An answer about the file, to a request made after the hold began, shows that it is over. What a clock that was
            // ahead has written is void.
            let over = query("DELETE FROM holds WHERE workspace = $1 AND (since <= $2 OR since > $3)");
            let over = over.bind(workspace).bind(attempt.started_at.as_millisecond());
            statements.push(over.bind(later(attempt.finished_at, CLOCK_TOLERANCE).as_millisecond()));
        }
        if let Some(seen_at) = attempt.archive_seen_at(*source) {
            let seen = query(
                "INSERT INTO workspaces AS w (workspace, archive_seen_at) VALUES ($1, $2)
                 ON CONFLICT (workspace) DO UPDATE
                 SET archive_seen_at = excluded.archive_seen_at WHERE w.archive_seen_at < excluded.archive_seen_at",
            );
            statements.push(seen.bind(workspace).bind(seen_at.as_millisecond()));
        }
        if let Some(object) = after.object.as_ref().filter(|_| after.settled == Settled::Stored) {
            let is_fetched = attempt.evidence().http_status.is_some();
            statements.extend(marks_for_tables(id, &object.sha256, is_fetched));
        }
        let failed = |error| self.error("write", error);
        let fenced = || LedgerError::Fenced { partition: id.to_string() };
        let Some(hold) = hold else {
            let recorded = self.database.write(Some(self.end_of(claim)), statements).await.map_err(failed)?;
            return recorded.map(|_| None).ok_or_else(fenced);
        };
        // Which hold is the longer one shows only within the transaction.
        let mut transaction = self.begin().await?;
        if self.end_of(claim).execute(&mut transaction).await.map_err(failed)? == 0 {
            return Err(fenced());
        }
        transaction.run(statements).await.map_err(failed)?;
        let hold = self.set_hold(&mut transaction, workspace, hold).await?;
        transaction.commit().await.map_err(failed)?;
        Ok(Some(hold))
    }

    /// Deletes up to `at_most` attempts that ended before `before`, the oldest first, at partitions that are no longer open.
    /// Returns how many. The figures still count them.
    pub async fn prune_attempts(&self, before: Timestamp, at_most: u64) -> Result<u64, LedgerError> {
        // The numbers of attempts only grow, so the last one stays.
        let deleted = query(
            "DELETE FROM attempts WHERE id IN (
                 SELECT a.id FROM attempts a JOIN partitions p ON p.id = a.partition_id
                 WHERE a.finished_at < $1 AND p.settled <> 'open' AND a.id < (SELECT max(id) FROM attempts)
                 ORDER BY a.finished_at LIMIT $2)",
        );
        let deleted = deleted.bind(before.as_millisecond()).bind(to_integer(at_most)).change(&self.database).await;
        deleted.map_err(|error| self.error("write", error))
    }

    async fn set_hold(&self, transaction: &mut Transaction, workspace: &str, hold: Hold) -> Result<Hold, LedgerError> {
        let before = query("SELECT outcome, since, until, is_asked FROM holds WHERE workspace = $1")
            .bind(workspace)
            .row(transaction)
            .await
            .map_err(|error| self.error("read", error))?;
        let hold = hold.or_longer(before.map(|row| self.hold(&row)).transpose()?);
        query(
            "INSERT INTO holds (workspace, outcome, since, until, is_asked) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (workspace) DO UPDATE
             SET outcome = excluded.outcome, since = excluded.since, until = excluded.until,
                 is_asked = excluded.is_asked",
        )
        .bind(workspace)
        .bind(hold.outcome.as_str())
        .bind(hold.since.as_millisecond())
        .bind(hold.until.as_millisecond())
        .bind(hold.is_requested)
        .execute(transaction)
        .await
        .map_err(|error| self.error("write", error))?;
        Ok(hold)
    }
}

fn attempt_row<'q>(row: i64, attempt: &'q Attempt, after: &'q Entry) -> Query<'q> {
    let evidence = attempt.evidence();
    query(
        "INSERT INTO attempts (partition_id, started_at, finished_at, outcome, remark, message, http_status,
                               vendor_date, request_id, size, sha256)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(row)
    .bind(attempt.started_at.as_millisecond())
    .bind(attempt.finished_at.as_millisecond())
    .bind(attempt.outcome().as_str())
    .bind(after.remark.map(Remark::as_str))
    .bind(after.message.as_deref().unwrap_or_default())
    .bind(evidence.http_status)
    .bind(evidence.vendor_date.map(Timestamp::as_millisecond))
    .bind(&evidence.request_id)
    .bind(attempt.received_bytes().map(to_integer))
    .bind(attempt.sha256())
}

/// Writes everything but what never changes: which partition it is, and its instants.
fn partition_after(row: i64, entry: &Entry) -> Query<'_> {
    let object = entry.object.as_ref();
    query(
        "UPDATE partitions SET settled = $2, outcome = $3, attempts = $4, streak = $5, repeats = $6,
                last_attempt_at = $7, next_attempt_at = $8, seen = $9, denied_at = $10, asked_late = $11,
                remark = $12, message = $13, object_key = $14, size = $15, sha256 = $16, stored_at = $17
         WHERE id = $1",
    )
    .bind(row)
    .bind(settled_word(entry.settled))
    .bind(entry.outcome.map(Outcome::as_str))
    .bind(entry.attempts)
    .bind(entry.streak)
    .bind(entry.repeats)
    .bind(entry.last_attempt_at.map(Timestamp::as_millisecond))
    .bind(entry.next_attempt_at.map(Timestamp::as_millisecond))
    .bind(entry.seen)
    .bind(entry.denied_at.map(Timestamp::as_millisecond))
    .bind(entry.requested_late)
    .bind(entry.remark.map(Remark::as_str))
    .bind(&entry.message)
    .bind(object.map(|object| &object.key))
    .bind(object.map(|object| to_integer(object.size)))
    .bind(object.map(|object| &object.sha256))
    .bind(object.map(|object| object.stored_at.as_millisecond()))
}
