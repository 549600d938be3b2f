//! The tables of stored partitions: which reports have them, which process makes them, what was made.
//!
//! One process makes the tables of a report at a time, partition by partition, so that its schemas have one writer: the claim
//! is on the report.

use std::collections::BTreeMap;

use jiff::{Timestamp, civil::Date};

use super::{
    Choice, Ledger, LedgerError,
    database::{Query, Row, Transaction, query},
    rows::to_integer,
    table_claims::TablesClaim,
};
use crate::{
    derivation::{Consequence, Derivation, Derived, PartitionTables, SchemaChange, TableFigures, TableObject},
    partition::Entry,
    report::{PartitionId, ReportId},
    table_words::{TableFormat, TablesState},
};

/// A partition whose tables are to be made.
#[derive(Debug)]
pub struct DuePartition {
    /// The partition.
    pub entry: Entry,
    /// Failures in a row before.
    pub failures: u32,
    /// The objects that its tables have; `None` if that is unknown: an attempt was not recorded, or the ledger is new.
    pub objects: Option<Vec<TableObject>>,
    /// Whether an attempt of this ledger has begun before.
    pub was_begun: bool,
    /// Whether tables that are there are made again.
    pub remake: bool,
}

/// How many partitions are begun together.
#[derive(Debug, Clone, Copy)]
pub struct MostDue {
    /// Most partitions; at least 1.
    pub partitions: u32,
    /// Most bytes of their objects, unless the first alone has more.
    pub bytes: u64,
}

/// What became of an attempt.
#[derive(Debug)]
pub struct MadeTables<'a> {
    /// The partition.
    pub id: &'a PartitionId,
    /// What was made.
    pub derivation: &'a Derivation,
    /// What follows from that.
    pub after: Consequence,
}

/// Partitions of one report whose tables cannot be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedTables {
    /// How many.
    pub partitions: usize,
    /// The newest of them.
    pub newest: Entry,
    /// Why its last attempt failed.
    pub message: String,
}

impl Ledger {
    /// Notes that tables are made of exactly `reports`, in these formats. All stored partitions of a report that is new
    /// among them, or has another format, are to get tables; claims on those of another format are void. Returns whether
    /// that changed anything.
    pub async fn set_table_reports(&self, reports: &BTreeMap<ReportId, TableFormat>) -> Result<bool, LedgerError> {
        let known = self.table_reports().await?;
        if known == *reports {
            return Ok(false);
        }
        let failed = |error| self.error("write", error);
        let mut transaction = self.begin().await?;
        for id in known.keys().filter(|id| !reports.contains_key(*id)) {
            for forget in [
                "DELETE FROM report_tables WHERE workspace = $1 AND report = $2",
                "UPDATE partitions SET tables = NULL WHERE workspace = $1 AND report = $2 AND tables IS NOT NULL",
                "DELETE FROM partition_tables WHERE partition_id IN
                     (SELECT id FROM partitions WHERE workspace = $1 AND report = $2)",
            ] {
                let query = query(forget).bind(id.workspace()).bind(id.name());
                query.execute(&mut transaction).await.map_err(failed)?;
            }
        }
        for (id, format) in reports.iter().filter(|(id, format)| known.get(*id) != Some(*format)) {
            query(
                "INSERT INTO report_tables (workspace, report, format) VALUES ($1, $2, $3)
                 ON CONFLICT (workspace, report) DO UPDATE
                 SET format = excluded.format, holder = NULL, token = report_tables.token + 1, made_rows = 0, newest = NULL",
            )
            .bind(id.workspace())
            .bind(id.name())
            .bind(format.extension())
            .execute(&mut transaction)
            .await
            .map_err(failed)?;
            for mark in [
                "UPDATE partitions SET tables = 'pending' WHERE workspace = $1 AND report = $2 AND settled = 'stored'",
                "UPDATE partition_tables SET sha256 = NULL, made_rows = 0, failures = 0, next_attempt_at = NULL
                 WHERE partition_id IN (SELECT id FROM partitions WHERE workspace = $1 AND report = $2)",
            ] {
                let query = query(mark).bind(id.workspace()).bind(id.name());
                query.execute(&mut transaction).await.map_err(failed)?;
            }
        }
        transaction.commit().await.map_err(failed)?;
        Ok(true)
    }

    async fn table_reports(&self) -> Result<BTreeMap<ReportId, TableFormat>, LedgerError> {
        let rows = self.read("SELECT workspace, report, format FROM report_tables").await?;
        rows.iter().map(|row| Ok((self.report_of(row)?, self.format_of(row)?))).collect()
    }

    /// Marks the stored partitions of `choice`, and of no later date than `until`, for making their tables again. Returns
    /// how many.
    pub async fn make_tables_again(&self, choice: &Choice, until: Option<Date>) -> Result<u64, LedgerError> {
        let failed = |error| self.error("write", error);
        let mut transaction = self.begin().await?;
        let chosen = "INSERT INTO partition_tables (partition_id, remake)
             SELECT p.id, 1 FROM partitions p JOIN report_tables r ON r.workspace = p.workspace AND r.report = p.report
             WHERE p.settled = 'stored' AND p.workspace = coalesce($1, p.workspace) AND p.report = coalesce($2, p.report)
               AND p.date >= coalesce($3, p.date) AND p.date <= coalesce($4, p.date)
             ON CONFLICT (partition_id) DO UPDATE SET remake = 1, failures = 0, next_attempt_at = NULL";
        let marked = "UPDATE partitions SET tables = 'pending'
             WHERE settled = 'stored' AND workspace = coalesce($1, workspace) AND report = coalesce($2, report)
               AND date >= coalesce($3, date) AND date <= coalesce($4, date)
               AND EXISTS (SELECT 1 FROM report_tables r
                           WHERE r.workspace = partitions.workspace AND r.report = partitions.report)";
        let mut count = 0;
        for text in [chosen, marked] {
            count = query(text)
                .bind(&choice.workspace)
                .bind(&choice.report)
                .bind(choice.since.map(|date| date.to_string()))
                .bind(until.map(|date| date.to_string()))
                .execute(&mut transaction)
                .await
                .map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)?;
        Ok(count)
    }

    /// Up to `limit` reports with a partition whose tables may be made at `now`, those with the newest one first. Without
    /// `now`, those that wait for a retry as well.
    pub async fn reports_with_tables_due(
        &self,
        now: Option<Timestamp>,
        limit: u32,
    ) -> Result<Vec<ReportId>, LedgerError> {
        let rows = query(
            "SELECT workspace, report FROM (
                 SELECT r.workspace, r.report,
                        (SELECT p.date FROM partitions p LEFT JOIN partition_tables t ON t.partition_id = p.id
                         WHERE p.workspace = r.workspace AND p.report = r.report AND p.tables IN ('pending', 'failed')
                           AND p.settled = 'stored' AND ($1 IS NULL OR t.next_attempt_at IS NULL OR t.next_attempt_at <= $1)
                         ORDER BY p.date DESC LIMIT 1) AS date
                 FROM report_tables r) AS due
             WHERE date IS NOT NULL ORDER BY date DESC, workspace, report LIMIT $2",
        )
        .bind(now.map(Timestamp::as_millisecond))
        .bind(limit)
        .read(&self.database)
        .await
        .map_err(|error| self.error("read", error))?;
        rows.iter().map(|row| self.report_of(row)).collect()
    }

    /// The newest partitions whose tables may be made at `now`, as far as `is_chosen` has them; notes that an attempt at each
    /// begins. Without `now`, also those that wait for a retry.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Fenced`] when the claim has passed to another process.
    pub async fn begin_tables(
        &self,
        claim: &TablesClaim,
        now: Option<Timestamp>,
        is_chosen: impl Fn(&PartitionId) -> bool + Send,
        most: MostDue,
    ) -> Result<Vec<DuePartition>, LedgerError> {
        let failed = |error| self.error("write", error);
        let mut transaction = self.begin().await?;
        self.check_tables_claim(&mut transaction, claim).await?;
        let (mut begun, mut bytes) = (Vec::new(), 0_u64);
        // After every date.
        let mut before = "9999-99-99".to_owned();
        loop {
            let rows = query(
                "SELECT p.*, t.partition_id, t.objects, t.failures, t.remake
                 FROM partitions p LEFT JOIN partition_tables t ON t.partition_id = p.id
                 WHERE p.workspace = $1 AND p.report = $2 AND p.tables IN ('pending', 'failed') AND p.settled = 'stored'
                   AND p.date < $4 AND ($3 IS NULL OR t.next_attempt_at IS NULL OR t.next_attempt_at <= $3)
                 ORDER BY p.date DESC LIMIT $5",
            )
            .bind(claim.report.workspace())
            .bind(claim.report.name())
            .bind(now.map(Timestamp::as_millisecond))
            .bind(&before)
            .bind(most.partitions)
            .rows(&mut transaction)
            .await
            .map_err(failed)?;
            let is_last = rows.len() < most.partitions as usize;
            let mut is_full = false;
            for row in &rows {
                let entry = self.entry(row)?;
                before = entry.partition.id.date.to_string();
                if !is_chosen(&entry.partition.id) {
                    continue;
                }
                bytes += entry.object.as_ref().map_or(0, |object| object.size);
                is_full = begun.len() >= most.partitions as usize || (!begun.is_empty() && bytes > most.bytes);
                if is_full {
                    break;
                }
                let objects = self.get::<Option<String>>(row, "objects")?;
                begun.push(DuePartition {
                    failures: self.natural(row, "failures")?.unwrap_or(0),
                    objects: objects.map(|json| self.read_json("objects", &json)).transpose()?,
                    was_begun: self.get::<Option<i64>>(row, "partition_id")?.is_some(),
                    remake: self.natural::<i64>(row, "remake")?.is_some_and(|remake| remake != 0),
                    entry,
                });
                query(
                    "INSERT INTO partition_tables (partition_id) VALUES ($1)
                     ON CONFLICT (partition_id) DO UPDATE SET objects = NULL",
                )
                .bind(self.get::<i64>(row, "id")?)
                .execute(&mut transaction)
                .await
                .map_err(failed)?;
            }
            if is_full || is_last {
                break;
            }
        }
        transaction.commit().await.map_err(failed)?;
        Ok(begun)
    }

    /// Records what became of attempts, with their consequences, all or none. The tables of a partition stay to be made if it
    /// has other content by now.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Fenced`] when the claim has passed to another process; nothing is recorded then.
    pub async fn record_tables(&self, claim: &TablesClaim, made: &[MadeTables<'_>]) -> Result<(), LedgerError> {
        let mut transaction = self.begin().await?;
        self.check_tables_claim(&mut transaction, claim).await?;
        for made in made {
            self.record_made(&mut transaction, made).await?;
        }
        transaction.commit().await.map_err(|error| self.error("write", error))
    }

    async fn record_made(&self, transaction: &mut Transaction, made: &MadeTables<'_>) -> Result<(), LedgerError> {
        let failed = |error| self.error("write", error);
        let MadeTables { id, derivation, after } = *made;
        let before = query(
            "SELECT p.id, p.sha256, p.settled, coalesce(t.made_rows, 0) AS made_rows, t.number,
                    (SELECT coalesce(max(number), 0) + 1 FROM partition_tables) AS next_number
             FROM partitions p LEFT JOIN partition_tables t ON t.partition_id = p.id
             WHERE p.workspace = $1 AND p.report = $2 AND p.date = $3",
        );
        let Some(before) = before.bind_id(id).row(transaction).await.map_err(failed)? else { return Ok(()) };
        let row: i64 = self.get(&before, "id")?;
        let is_present = self.get::<Option<String>>(&before, "sha256")?.as_deref() == Some(&derivation.sha256);
        let state = if is_present { after.state } else { TablesState::Pending };
        query("UPDATE partitions SET tables = $2 WHERE id = $1 AND tables IS NOT NULL")
            .bind(row)
            .bind(state.as_str())
            .execute(transaction)
            .await
            .map_err(failed)?;
        let finished_at = derivation.finished_at.as_millisecond();
        match &derivation.result {
            Ok(derived) => {
                let number: Option<i64> = match derivation.is_news {
                    true => Some(self.get(&before, "next_number")?),
                    false => self.get(&before, "number")?,
                };
                query(
                    "UPDATE partition_tables
                     SET sha256 = $2, objects = $3, left_alone = $4, made_rows = $5, remake = 0, failures = 0, message = NULL,
                         finished_at = $6, next_attempt_at = NULL, number = $7
                     WHERE partition_id = $1",
                )
                .bind(row)
                .bind(&derivation.sha256)
                .bind(to_json(&derived.objects))
                .bind(to_json(&derived.left_alone))
                .bind(to_integer(derived.rows()))
                .bind(finished_at)
                .bind(number)
                .execute(transaction)
                .await
                .map_err(failed)?;
                self.count_tables(transaction, id, to_integer(derived.rows()) - self.get::<i64>(&before, "made_rows")?)
                    .await?;
            }
            Err(failure) => {
                query(
                    "UPDATE partition_tables
                     SET sha256 = $2, failures = $3, message = $4, finished_at = $5, next_attempt_at = $6
                     WHERE partition_id = $1",
                )
                .bind(row)
                .bind(&derivation.sha256)
                .bind(after.failures)
                .bind(&failure.message)
                .bind(finished_at)
                .bind(after.next_attempt_at.filter(|_| is_present).map(Timestamp::as_millisecond))
                .execute(transaction)
                .await
                .map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Counts the tables of a report, after those of one partition were made.
    async fn count_tables(
        &self,
        transaction: &mut Transaction,
        id: &PartitionId,
        more_rows: i64,
    ) -> Result<(), LedgerError> {
        query(
            "UPDATE report_tables
             SET made_rows = made_rows + $4, newest = CASE WHEN newest >= $3 THEN newest ELSE $3 END
             WHERE workspace = $1 AND report = $2",
        )
        .bind_id(id)
        .bind(more_rows)
        .execute(transaction)
        .await
        .map(drop)
        .map_err(|error| self.error("write", error))
    }

    /// Notes changes of the schemas of a report's tables, each once. It comes before the schema is stored: should the
    /// process die between the two, the same changes are found again.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Fenced`] when the claim has passed to another process; nothing is noted then.
    pub async fn note_schema_changes(&self, claim: &TablesClaim, changes: &[SchemaChange]) -> Result<(), LedgerError> {
        let failed = |error| self.error("write", error);
        let mut transaction = self.begin().await?;
        self.check_tables_claim(&mut transaction, claim).await?;
        for change in changes {
            query(
                "INSERT INTO schema_changes (workspace, report, name, date, difference) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (workspace, report, name, date, difference) DO NOTHING",
            )
            .bind(claim.report.workspace())
            .bind(claim.report.name())
            .bind(&change.table)
            .bind(change.date.to_string())
            .bind(to_json(&change.difference))
            .execute(&mut transaction)
            .await
            .map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)
    }

    /// The tables of a partition; `None` if none are made of its report.
    pub async fn tables_of(&self, id: &PartitionId) -> Result<Option<PartitionTables>, LedgerError> {
        let row = query(
            "SELECT p.tables, t.objects, t.left_alone, t.message, t.finished_at, t.next_attempt_at
             FROM partitions p LEFT JOIN partition_tables t ON t.partition_id = p.id
             WHERE p.workspace = $1 AND p.report = $2 AND p.date = $3",
        );
        let row = row.bind_id(id).read_one(&self.database).await.map_err(|error| self.error("read", error))?;
        let Some(row) = row else { return Ok(None) };
        let Some(state) = self.tables_state(&row)? else { return Ok(None) };
        Ok(Some(PartitionTables {
            state,
            derived: self.derived(&row)?,
            finished_at: self.instant_or_null(&row, "finished_at")?,
            next_attempt_at: self.instant_or_null(&row, "next_attempt_at")?,
            message: self.get(&row, "message")?,
        }))
    }

    /// The tables of each report that has them, in numbers.
    pub async fn table_figures(&self) -> Result<BTreeMap<ReportId, TableFigures>, LedgerError> {
        let rows = self
            .read(
                "SELECT r.workspace, r.report, r.format, r.made_rows, r.newest,
                        (SELECT count(*) FROM partitions p
                         WHERE p.workspace = r.workspace AND p.report = r.report AND p.tables IN ('pending', 'failed')) AS open,
                        (SELECT count(*) FROM partitions p
                         WHERE p.workspace = r.workspace AND p.report = r.report AND p.tables = 'failed') AS failed,
                        (SELECT count(*) FROM schema_changes s
                         WHERE s.workspace = r.workspace AND s.report = r.report) AS schema_changes
                 FROM report_tables r",
            )
            .await?;
        let figures = rows.iter().map(|row| {
            let count = |column| Ok::<u64, LedgerError>(self.natural(row, column)?.unwrap_or(0));
            let (open, failed) = (count("open")?, count("failed")?);
            let newest = self.get::<Option<String>>(row, "newest")?;
            let newest = newest.map(|date| date.parse().map_err(|_| self.nonsense("newest", &date))).transpose()?;
            let figures = TableFigures {
                format: self.format_of(row)?,
                rows: count("made_rows")?,
                newest,
                pending: open.saturating_sub(failed),
                failed,
                schema_changes: count("schema_changes")?,
            };
            Ok((self.report_of(row)?, figures))
        });
        figures.collect()
    }

    /// The reports with partitions whose tables cannot be made.
    pub async fn failed_tables(&self) -> Result<Vec<FailedTables>, LedgerError> {
        let rows = self
            .read(
                "SELECT p.*, t.message AS reason, f.partitions
                 FROM (SELECT workspace, report, count(*) AS partitions, max(date) AS newest FROM partitions
                       WHERE tables = 'failed' GROUP BY workspace, report) AS f
                 JOIN partitions p ON p.workspace = f.workspace AND p.report = f.report AND p.date = f.newest
                 LEFT JOIN partition_tables t ON t.partition_id = p.id
                 ORDER BY p.workspace, p.report",
            )
            .await?;
        let of = |row: &Row| {
            Ok(FailedTables {
                partitions: self.natural(row, "partitions")?.unwrap_or(1),
                newest: self.entry(row)?,
                message: self.get::<Option<String>>(row, "reason")?.unwrap_or_default(),
            })
        };
        rows.iter().map(of).collect()
    }

    pub(super) fn derived(&self, row: &Row) -> Result<Derived, LedgerError> {
        let list = |column: &'static str| self.get::<Option<String>>(row, column);
        Ok(Derived {
            objects: list("objects")?.map_or(Ok(Vec::new()), |json| self.read_json("objects", &json))?,
            left_alone: list("left_alone")?.map_or(Ok(Vec::new()), |json| self.read_json("left_alone", &json))?,
        })
    }

    /// The state in `partitions.tables`.
    pub(super) fn tables_state(&self, row: &Row) -> Result<Option<TablesState>, LedgerError> {
        let word = self.get::<Option<String>>(row, "tables")?;
        word.map(|word| self.known("partitions.tables", &word, TablesState::parse)).transpose()
    }

    pub(super) fn report_of(&self, row: &Row) -> Result<ReportId, LedgerError> {
        Ok(ReportId::new(&self.text(row, "workspace")?, &self.text(row, "report")?))
    }

    fn format_of(&self, row: &Row) -> Result<TableFormat, LedgerError> {
        let word = self.text(row, "format")?;
        TableFormat::parse(&word).ok_or_else(|| self.nonsense("report_tables.format", &word))
    }

    pub(super) fn read_json<T: serde::de::DeserializeOwned>(&self, column: &str, json: &str) -> Result<T, LedgerError> {
        serde_json::from_str(json).map_err(|_| self.nonsense(column, json))
    }
}

/// Texts and numbers: they can always be written.
fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Marks a partition, which is stored with this content, for making its tables, if tables are made of its report and none
/// were made of this content. Part of recording that it is stored. If it was just fetched, it has no tables yet.
pub(super) fn marks_for_tables<'q>(id: &'q PartitionId, sha256: &'q str, is_fetched: bool) -> Vec<Query<'q>> {
    let mark = query(
        "UPDATE partitions SET tables = 'pending'
         WHERE workspace = $1 AND report = $2 AND date = $3 AND settled = 'stored'
           AND EXISTS (SELECT 1 FROM report_tables WHERE workspace = $1 AND report = $2)
           AND NOT (tables IS NOT NULL AND EXISTS
               (SELECT 1 FROM partition_tables t WHERE t.partition_id = partitions.id AND t.sha256 = $4))",
    );
    let none_yet = query(
        "INSERT INTO partition_tables (partition_id, objects)
         SELECT id, '[]' FROM partitions WHERE workspace = $1 AND report = $2 AND date = $3 AND tables = 'pending'
         ON CONFLICT (partition_id) DO NOTHING",
    );
    let at_once = query(
        "UPDATE partition_tables SET failures = 0, next_attempt_at = NULL
         WHERE partition_id = (SELECT id FROM partitions
                               WHERE workspace = $1 AND report = $2 AND date = $3 AND tables = 'pending')",
    );
    let none_yet = is_fetched.then(|| none_yet.bind_id(id));
    [mark.bind_id(id).bind(sha256)].into_iter().chain(none_yet).chain([at_once.bind_id(id)]).collect()
}
