//! The partitions: what planning reads, what it adds, and what recovery finds at the destinations.

use std::collections::{BTreeSet, HashSet};

use jiff::Timestamp;

use super::{
    Adoption, Ledger, LedgerError,
    counters::{attempt_counted, change_counted, new_counted},
    rows::{settled_from, to_integer},
    tables::marks_for_tables,
};
use crate::{
    ledger::database::{Query, Transaction, query},
    outcome::{self, Outcome, RecordedAttempt, StoredObject},
    partition::{Entry, Settled},
    plan::{LedgerView, Plan},
    report::{Partition, PartitionId, ReportId},
};

impl Ledger {
    /// Every partition, in the order of report and date.
    pub async fn entries(&self) -> Result<Vec<Entry>, LedgerError> {
        let rows = self.read("SELECT * FROM partitions ORDER BY workspace, report, date").await?;
        rows.iter().map(|row| self.entry(row)).collect()
    }

    /// One partition.
    pub async fn entry_of(&self, id: &PartitionId) -> Result<Option<Entry>, LedgerError> {
        let row = partition_row(id).read_one(&self.database).await.map_err(|error| self.error("read", error))?;
        row.map(|row| self.entry(&row)).transpose()
    }

    /// Some partitions, in the order of `ids`. Those that the ledger does not have are left out.
    pub async fn entries_of(&self, ids: &[PartitionId]) -> Result<Vec<Entry>, LedgerError> {
        let failed = |error| self.error("read", error);
        let mut transaction = self.database.begin_reading().await.map_err(failed)?;
        let rows = transaction.run(ids.iter().map(partition_row).collect()).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        rows.iter().map(|row| self.entry(row)).collect()
    }

    /// A partition's history, oldest first.
    pub async fn attempts(&self, id: &PartitionId) -> Result<Vec<RecordedAttempt>, LedgerError> {
        let rows = query(
            "SELECT a.* FROM attempts a JOIN partitions p ON p.id = a.partition_id
             WHERE p.workspace = $1 AND p.report = $2 AND p.date = $3 ORDER BY a.id",
        )
        .bind_id(id)
        .read(&self.database)
        .await
        .map_err(|error| self.error("read", error))?;
        rows.iter().map(|row| self.attempt(row)).collect()
    }

    /// Records the partitions that `plan` found and how far it went. How far it went counts only for reports of which that
    /// is still as in `view`, which it was made from: recovery may have set one back meanwhile.
    pub async fn extend(&self, plan: &Plan, view: &LedgerView) -> Result<(), LedgerError> {
        if plan.new.is_empty() && plan.planned_through.is_empty() {
            return Ok(());
        }
        let mut transaction = self.begin().await?;
        let new = plan.new.iter().flat_map(|entry| insertion(&entry.partition, entry.requested_late));
        let through = plan.planned_through.iter();
        let through = through.map(|(id, through)| planned_through(id, view.planned_through.get(id).copied(), *through));
        // A plan from before a recovery does not know its objects.
        let late: BTreeSet<_> =
            plan.new.iter().filter(|it| it.requested_late).map(|it| &it.partition.id.report).collect();
        let corrected = late.into_iter().map(|report| about(report, NOT_ASKED_LATE));
        let extended = transaction.run(new.chain(through).chain(corrected).collect()).await;
        extended.map_err(|error| self.error("write", error))?;
        transaction.commit().await.map_err(|error| self.error("write", error))
    }

    /// The reports whose objects from before this ledger began are known to it, as far as they could be read.
    pub async fn recovered(&self) -> Result<HashSet<ReportId>, LedgerError> {
        let rows = self.read("SELECT workspace, report FROM recovered").await?;
        let of = |row| Ok(ReportId::new(&self.text(row, "workspace")?, &self.text(row, "report")?));
        rows.iter().map(of).collect()
    }

    /// Notes that the objects of `report` from before this ledger began are known to it. The first time, the report
    /// counts as planned no further than `mark`: until its objects were known, planning could not see how far it had
    /// been planned. Nor could it see what an earlier process was to fetch: what was generated after the newest of
    /// those objects was not asked for late, and opens again where it has ended as absent for that. Returns how many
    /// partitions that were.
    pub async fn note_recovered(&self, report: &ReportId, mark: Option<Timestamp>) -> Result<u64, LedgerError> {
        let failed = |error| self.error("write", error);
        let mut transaction = self.begin().await?;
        let noted = query("INSERT INTO recovered (workspace, report) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(report.workspace())
            .bind(report.name())
            .execute(&mut transaction)
            .await
            .map_err(failed)?;
        if noted == 0 {
            return Ok(0);
        }
        if let Some(mark) = mark {
            query(
                "INSERT INTO reports AS r (workspace, report, planned_through) VALUES ($1, $2, $3)
                 ON CONFLICT (workspace, report) DO UPDATE
                 SET planned_through = excluded.planned_through WHERE r.planned_through > excluded.planned_through",
            )
            .bind(report.workspace())
            .bind(report.name())
            .bind(mark.as_millisecond())
            .execute(&mut transaction)
            .await
            .map_err(failed)?;
        }
        // An attempt that runs goes by what it claimed.
        about(report, END_OF_LATE_CLAIMS).execute(&mut transaction).await.map_err(failed)?;
        let open = about(report, NOT_ASKED_LATE).execute(&mut transaction).await.map_err(failed)?;
        let absent = about(report, NOT_ABSENT).execute(&mut transaction).await.map_err(failed)?;
        let corrected = open + absent;
        if corrected > 0 {
            self.recount(&mut transaction, report).await?;
        }
        transaction.commit().await.map_err(failed)?;
        Ok(corrected)
    }

    /// Records partitions asked for by hand; those that ended as absent or lost are opened again. Of one that the ledger
    /// knows already, when it was first asked for stays as it is.
    pub async fn reopen(&self, asked: &[Entry]) -> Result<(), LedgerError> {
        let mut transaction = self.begin().await?;
        let opening = |id| {
            query(
                "UPDATE partitions SET settled = 'open', next_attempt_at = NULL, acknowledged = 0
                 WHERE workspace = $1 AND report = $2 AND date = $3 AND settled IN ('absent', 'lost')
                 RETURNING workspace, report",
            )
            .bind_id(id)
        };
        let statements = asked.iter().flat_map(|Entry { partition, requested_late, .. }| {
            insertion(partition, *requested_late).into_iter().chain([opening(&partition.id)])
        });
        let opened = transaction.run(statements.collect()).await.map_err(|error| self.error("write", error))?;
        let of = |row| Ok(ReportId::new(&self.text(row, "workspace")?, &self.text(row, "report")?));
        for report in opened.iter().map(of).collect::<Result<HashSet<_>, LedgerError>>()? {
            self.recount(&mut transaction, &report).await?;
        }
        transaction.commit().await.map_err(|error| self.error("write", error))
    }

    /// Opens a stored partition again whose object was found damaged or missing.
    pub async fn reopen_damaged(&self, id: &PartitionId, message: &str) -> Result<(), LedgerError> {
        let failed = |error| self.error("write", error);
        let mut transaction = self.begin().await?;
        query(
            "UPDATE partitions SET settled = 'open', outcome = 'corrupt', streak = 0, repeats = 1,
                    next_attempt_at = NULL, remark = NULL, message = $1
             WHERE workspace = $2 AND report = $3 AND date = $4 AND settled = 'stored'",
        )
        .bind(message)
        .bind_id(id)
        .execute(&mut transaction)
        .await
        .map_err(failed)?;
        self.recount(&mut transaction, &id.report).await?;
        transaction.commit().await.map_err(failed)
    }

    /// Records partitions whose objects and manifests were found at the destination, in one transaction; the number of those
    /// that were not recorded as stored.
    ///
    /// A partition that a live process has claimed is left to that one: it finds the object itself. The claim of a dead one
    /// ends.
    pub async fn adopt(&self, found: &[Adoption]) -> Result<usize, LedgerError> {
        // Before the transaction, which must not wait for another connection while it holds the write lock.
        let mut unclaimed = Vec::new();
        for adoption in found {
            match self.holder_of(&adoption.partition.id).await? {
                Some(holder) if self.is_alive(&holder).await => {}
                holder => unclaimed.push((adoption, holder)),
            }
        }
        if unclaimed.is_empty() {
            return Ok(0);
        }
        let mut transaction = self.begin().await?;
        let mut adopted = 0;
        for (adoption, holder) in unclaimed {
            adopted += usize::from(self.adopt_one(&mut transaction, adoption, holder).await?);
        }
        transaction.commit().await.map_err(|error| self.error("write", error))?;
        Ok(adopted)
    }

    /// Adopts a partition, unless it is stored or no longer claimed by `holder`.
    async fn adopt_one(
        &self,
        transaction: &mut Transaction,
        adoption: &Adoption,
        holder: Option<String>,
    ) -> Result<bool, LedgerError> {
        let Adoption { partition, object, attempts } = adoption;
        let before = query(
            "SELECT p.settled, c.holder FROM partitions p LEFT JOIN claims c ON c.partition_id = p.id
             WHERE p.workspace = $1 AND p.report = $2 AND p.date = $3",
        )
        .bind_id(&partition.id)
        .row(transaction)
        .await
        .map_err(|error| self.error("read", error))?;
        let mut settled = Settled::Open;
        if let Some(before) = &before {
            settled = self.known("settled", &self.text(before, "settled")?, settled_from)?;
            if settled == Settled::Stored || self.get::<Option<String>>(before, "holder")? != holder {
                return Ok(false);
            }
        }
        self.note_found(transaction, partition, object).await?;
        let inserted = transaction.run(insertion(partition, false).into()).await;
        inserted.map_err(|error| self.error("write", error))?;
        let stored = Some(object.clone());
        let after = Entry { settled: Settled::Stored, object: stored, ..Entry::new(partition.clone()) };
        let counted = change_counted(&after).execute(transaction).await;
        counted.map_err(|error| self.error("write", error))?;
        query(
            "UPDATE partitions SET settled = 'stored', outcome = 'stored', attempts = CASE WHEN attempts < $1 THEN $1 ELSE attempts END, seen = 1,
                    next_attempt_at = NULL, remark = NULL, message = NULL, object_key = $2, size = $3, sha256 = $4, stored_at = $5,
                    acknowledged = 0
             WHERE workspace = $6 AND report = $7 AND date = $8",
        )
        .bind(*attempts)
        .bind(&object.key)
        .bind(to_integer(object.size))
        .bind(&object.sha256)
        .bind(object.stored_at.as_millisecond())
        .bind_id(&partition.id)
        .execute(transaction)
        .await
        .map_err(|error| self.error("write", error))?;
        for mark in marks_for_tables(&partition.id, &object.sha256, false) {
            mark.execute(transaction).await.map_err(|error| self.error("write", error))?;
        }
        if settled != Settled::Open {
            self.recount(transaction, &partition.id.report).await?;
        }
        query(
            "DELETE FROM claims WHERE partition_id IN
                 (SELECT id FROM partitions WHERE workspace = $1 AND report = $2 AND date = $3)",
        )
        .bind_id(&partition.id)
        .execute(transaction)
        .await
        .map_err(|error| self.error("write", error))?;
        Ok(true)
    }

    /// Which process has claimed a partition.
    async fn holder_of(&self, id: &PartitionId) -> Result<Option<String>, LedgerError> {
        let row = query(
            "SELECT c.holder FROM claims c JOIN partitions p ON p.id = c.partition_id
             WHERE p.workspace = $1 AND p.report = $2 AND p.date = $3",
        )
        .bind_id(id)
        .read_one(&self.database)
        .await
        .map_err(|error| self.error("read", error))?;
        row.map(|row| self.text(&row, "holder")).transpose()
    }

    /// Records that the object of an open partition was found at the destination: the process that stored it died before it
    /// could record it. It counts as an attempt, so that targets are notified; a partition that was not recorded has none.
    async fn note_found(
        &self,
        transaction: &mut Transaction,
        partition: &Partition,
        object: &StoredObject,
    ) -> Result<(), LedgerError> {
        let (remark, message) = outcome::found_at(&object.key);
        let noted = query(
            "INSERT INTO attempts (partition_id, started_at, finished_at, outcome, remark, message, sha256)
             SELECT id, $4, $4, 'stored', $5, $6, $7 FROM partitions
             WHERE workspace = $1 AND report = $2 AND date = $3 AND settled = 'open'",
        )
        .bind_id(&partition.id)
        .bind(object.stored_at.as_millisecond())
        .bind(remark.as_str())
        .bind(message)
        .bind(&object.sha256)
        .execute(transaction)
        .await
        .map_err(|error| self.error("write", error))?;
        match noted {
            0 => Ok(()),
            _ => {
                let at = object.stored_at;
                let counted = attempt_counted(&partition.id.report, Outcome::Stored, (at, at), (0, false));
                counted.execute(transaction).await.map(drop).map_err(|error| self.error("write", error))
            }
        }
    }
}

/// Which partitions of a report were asked for late only because the objects from before this ledger were not known yet: its
/// objects were found up to an earlier one. What was found and not fetched is from before this ledger: MoEngage gave no
/// status for it.
macro_rules! wrongly_late {
    () => {
        "workspace = $1 AND report = $2 AND asked_late <> 0
         AND EXISTS (SELECT 1 FROM recovered r WHERE r.workspace = $1 AND r.report = $2)
         AND generated_at > (
             SELECT max(p.generated_at) FROM partitions p
             WHERE p.workspace = $1 AND p.report = $2 AND p.settled = 'stored' AND NOT EXISTS
                 (SELECT 1 FROM attempts a
                  WHERE a.partition_id = p.id AND a.outcome = 'stored' AND a.http_status IS NOT NULL))"
    };
}

const END_OF_LATE_CLAIMS: &str = concat!(
    "DELETE FROM claims WHERE partition_id IN (SELECT id FROM partitions WHERE settled = 'open' AND ",
    wrongly_late!(),
    ")"
);

const NOT_ASKED_LATE: &str =
    concat!("UPDATE partitions SET asked_late = 0 WHERE settled = 'open' AND ", wrongly_late!());

const NOT_ABSENT: &str = concat!(
    "UPDATE partitions SET asked_late = 0, settled = 'open', next_attempt_at = NULL WHERE settled = 'absent' AND ",
    wrongly_late!()
);

/// A statement about a report: workspace and name are its first two values.
fn about<'q>(report: &'q ReportId, sql: &'static str) -> Query<'q> {
    query(sql).bind(report.workspace()).bind(report.name())
}

fn partition_row(id: &PartitionId) -> Query<'_> {
    query("SELECT * FROM partitions WHERE workspace = $1 AND report = $2 AND date = $3").bind_id(id)
}

/// Adds a partition, unless the ledger has it, and makes room for its figures.
fn insertion(partition: &Partition, requested_late: bool) -> [Query<'_>; 2] {
    let row = query(
        "INSERT INTO partitions (workspace, report, date, source, generated_at, due_at, expires_at, asked_late)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (workspace, report, date) DO NOTHING",
    );
    let row = row
        .bind_id(&partition.id)
        .bind(partition.source.as_str())
        .bind(partition.generated_at.as_millisecond())
        .bind(partition.due_at.as_millisecond())
        .bind(partition.expires_at.map(Timestamp::as_millisecond))
        .bind(requested_late);
    [row, new_counted(partition)]
}

fn planned_through(id: &ReportId, before: Option<Timestamp>, through: Timestamp) -> Query<'_> {
    query(
        "INSERT INTO reports AS r (workspace, report, planned_through) VALUES ($1, $2, $3)
         ON CONFLICT (workspace, report) DO UPDATE
         SET planned_through = excluded.planned_through WHERE r.planned_through = $4",
    )
    .bind(id.workspace())
    .bind(id.name())
    .bind(through.as_millisecond())
    .bind(before.map(Timestamp::as_millisecond))
}
