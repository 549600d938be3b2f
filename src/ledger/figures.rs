//! Queries of the page and the metrics: the recent past, one report's history, figures of the whole ledger.
//!
//! This file owns the queries of the web page and of metrics. They only read, and each is bounded by the number of reports,
//! by what is open, or by a limit.

use std::collections::HashMap;

use jiff::{Timestamp, civil::Date};

use super::{Choice, DURATION_BOUNDS, Ledger, LedgerError, database::query, rows::settled_from};
use crate::{
    config::SourceKind,
    outcome::{Outcome, RecordedAttempt},
    partition::{Entry, State},
    report::{Partition, PartitionId, ReportId},
};

/// A partition of a report that is no longer open, as far as a list of dates shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettledDate {
    /// Its date.
    pub date: Date,
    /// Stored, absent or lost.
    pub state: State,
    /// Size of the stored object in bytes.
    pub size: Option<u64>,
}

/// One report in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportFigures {
    /// Which report.
    pub id: ReportId,
    /// Which API it comes from.
    pub source: SourceKind,
    /// Partitions that are not due yet.
    pub scheduled: u64,
    /// Partitions that are due and not stored.
    pub pending: u64,
    /// Partitions that are stored.
    pub stored: u64,
    /// Partitions that never were.
    pub absent: u64,
    /// Partitions that are gone.
    pub lost: u64,
    /// Bytes of all its stored objects.
    pub stored_bytes: u64,
    /// Generation time of the newest stored partition.
    pub newest_stored: Option<Timestamp>,
    /// Earliest expiry of what is due and not stored.
    pub nearest_expiry: Option<Timestamp>,
    /// When the oldest of what is due and not stored became due.
    pub oldest_pending_due: Option<Timestamp>,
    /// When the last attempt at the newest lost one ended that is not acknowledged.
    pub newest_lost: Option<Timestamp>,
}

impl ReportFigures {
    /// A report of which nothing is recorded.
    pub fn nothing(id: ReportId, source: SourceKind) -> Self {
        Self {
            id,
            source,
            scheduled: 0,
            pending: 0,
            stored: 0,
            absent: 0,
            lost: 0,
            stored_bytes: 0,
            newest_stored: None,
            nearest_expiry: None,
            oldest_pending_due: None,
            newest_lost: None,
        }
    }

    /// How many of its partitions are in each state.
    pub fn by_state(&self) -> [(State, u64); 5] {
        [
            (State::Scheduled, self.scheduled),
            (State::Pending, self.pending),
            (State::Stored, self.stored),
            (State::Absent, self.absent),
            (State::Lost, self.lost),
        ]
    }

    /// Also counts a partition that is not recorded yet.
    pub fn add_unrecorded(&mut self, partition: &Partition, now: Timestamp) {
        if now < partition.due_at {
            self.scheduled += 1;
            return;
        }
        self.pending += 1;
        self.nearest_expiry = [self.nearest_expiry, partition.expires_at].into_iter().flatten().min();
        let due_at = partition.due_at;
        self.oldest_pending_due = Some(self.oldest_pending_due.map_or(due_at, |oldest| oldest.min(due_at)));
    }
}

/// The attempts at one report that ended alike.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptFigures {
    /// Which report.
    pub id: ReportId,
    /// Which API it comes from.
    pub source: SourceKind,
    /// How they ended.
    pub outcome: Outcome,
    /// How many there were.
    pub count: u64,
    /// How long they took in all, in seconds.
    pub seconds: f64,
    /// Bytes of all that was received completely, stored or not.
    pub bytes: u64,
    /// How many found other content at the partition's key.
    pub other_content: u64,
    /// How many took no longer than each of [`DURATION_BOUNDS`].
    pub within: [u64; DURATION_BOUNDS.len()],
}

impl Ledger {
    /// The first `limit` of those partitions of `choice` that come after `after`, by workspace, report and date.
    pub async fn page(
        &self,
        choice: &Choice,
        after: Option<&PartitionId>,
        limit: u32,
    ) -> Result<Vec<Entry>, LedgerError> {
        // Each by the one index of workspace, report and date, from where the last page ended.
        let text = match (&choice.workspace, &choice.report, choice.since) {
            (Some(_), Some(_), _) => {
                "SELECT * FROM partitions
                 WHERE workspace = $4 AND report = $5 AND (date > $3 OR $4 <> $1 OR $5 <> $2)
                   AND date >= coalesce($6, date)
                 ORDER BY date LIMIT $7"
            }
            // Report by report, so that older dates are not read.
            (_, _, Some(_)) => {
                "SELECT p.* FROM report_figures f CROSS JOIN partitions p
                 WHERE (f.workspace, f.report) >= ($1, $2) AND f.workspace = coalesce($4, f.workspace)
                   AND f.report = coalesce($5, f.report)
                   AND p.workspace = f.workspace AND p.report = f.report AND p.source = f.source
                   AND p.date >= $6 AND (p.date > $3 OR p.workspace <> $1 OR p.report <> $2)
                 ORDER BY f.workspace, f.report, p.date LIMIT $7"
            }
            (Some(_), None, None) => {
                "SELECT * FROM partitions
                 WHERE workspace = $4 AND (report, date) > ($2, $3) AND report = coalesce($5, report)
                   AND date >= coalesce($6, date)
                 ORDER BY report, date LIMIT $7"
            }
            (None, _, None) => {
                "SELECT * FROM partitions
                 WHERE (workspace, report, date) > ($1, $2, $3) AND workspace = coalesce($4, workspace)
                   AND report = coalesce($5, report) AND date >= coalesce($6, date)
                 ORDER BY workspace, report, date LIMIT $7"
            }
        };
        let rows = query(text)
            // No name is empty.
            .bind(after.map_or("", |id| id.workspace()))
            .bind(after.map_or("", |id| id.report.name()))
            .bind(after.map_or(String::new(), |id| id.date.to_string()))
            .bind(&choice.workspace)
            .bind(&choice.report)
            .bind(choice.since.map(|date| date.to_string()))
            .bind(limit)
            .read(&self.database)
            .await
            .map_err(|error| self.error("read", error))?;
        rows.iter().map(|row| self.entry(row)).collect()
    }

    /// Every open partition, and every lost one of `since` and later.
    pub async fn open_or_lost(&self, since: Date) -> Result<Vec<Entry>, LedgerError> {
        let rows = query(
            "SELECT * FROM partitions WHERE settled = 'open'
             UNION ALL SELECT * FROM partitions WHERE settled = 'lost' AND date >= $1",
        )
        .bind(since.to_string())
        .read(&self.database)
        .await
        .map_err(|error| self.error("read", error))?;
        rows.iter().map(|row| self.entry(row)).collect()
    }

    /// The partitions of a report of `since` and later that are no longer open.
    pub async fn settled_dates(&self, id: &ReportId, since: Date) -> Result<Vec<SettledDate>, LedgerError> {
        let rows = query(
            "SELECT date, settled, size FROM partitions
             WHERE workspace = $1 AND report = $2 AND date >= $3 AND settled <> 'open'",
        )
        .bind(id.workspace())
        .bind(id.name())
        .bind(since.to_string())
        .read(&self.database)
        .await
        .map_err(|error| self.error("read", error))?;
        let settled_date = |row| {
            let word = self.text(row, "settled")?;
            let state = self.known("settled", &word, |word| settled_from(word)?.state())?;
            let size = self.natural(row, "size")?.filter(|_| state == State::Stored);
            Ok(SettledDate { date: self.date(row)?, state, size })
        };
        rows.iter().map(settled_date).collect()
    }

    /// The newest `limit` partitions of a report before `before`, newest first.
    pub async fn history(&self, id: &ReportId, before: Date, limit: u32) -> Result<Vec<Entry>, LedgerError> {
        let rows = query(
            "SELECT * FROM partitions WHERE workspace = $1 AND report = $2 AND date < $3 ORDER BY date DESC LIMIT $4",
        )
        .bind(id.workspace())
        .bind(id.name())
        .bind(before.to_string())
        .bind(limit)
        .read(&self.database)
        .await
        .map_err(|error| self.error("read", error))?;
        rows.iter().map(|row| self.entry(row)).collect()
    }

    /// The last `limit` attempts at each partition of a report from `first` to `last`, oldest first.
    pub async fn latest_attempts(
        &self,
        id: &ReportId,
        first: Date,
        last: Date,
        limit: u32,
    ) -> Result<HashMap<Date, Vec<RecordedAttempt>>, LedgerError> {
        let rows = query(
            "SELECT * FROM (
                 SELECT a.*, p.date, row_number() OVER (PARTITION BY p.id ORDER BY a.id DESC) AS age
                 FROM attempts a JOIN partitions p ON p.id = a.partition_id
                 WHERE p.workspace = $1 AND p.report = $2 AND p.date BETWEEN $3 AND $4) AS numbered
             WHERE age <= $5 ORDER BY id",
        )
        .bind(id.workspace())
        .bind(id.name())
        .bind(first.to_string())
        .bind(last.to_string())
        .bind(limit)
        .read(&self.database)
        .await
        .map_err(|error| self.error("read", error))?;
        let mut attempts: HashMap<Date, Vec<RecordedAttempt>> = HashMap::new();
        for row in &rows {
            let date = self.date(row)?;
            attempts.entry(date).or_default().push(self.attempt(row)?);
        }
        Ok(attempts)
    }

    /// The recorded reports that are called `name`, or all, in numbers, by workspace and id.
    pub async fn report_figures(&self, name: Option<&str>, now: Timestamp) -> Result<Vec<ReportFigures>, LedgerError> {
        let rows = query(
            "SELECT f.*, o.scheduled, o.pending, o.nearest_expiry, o.oldest_pending_due
             FROM (SELECT workspace, report, max(source) AS source, CAST(sum(stored) AS BIGINT) AS stored, CAST(sum(absent) AS BIGINT) AS absent,
                          CAST(sum(lost) AS BIGINT) AS lost, CAST(sum(stored_bytes) AS BIGINT) AS stored_bytes, max(newest_stored) AS newest_stored,
                          max(newest_lost) AS newest_lost
                   FROM report_figures WHERE report = coalesce($2, report) GROUP BY workspace, report) AS f
             LEFT JOIN (SELECT workspace, report,
                               count(*) FILTER (WHERE due_at > $1) AS scheduled,
                               count(*) FILTER (WHERE due_at <= $1) AS pending,
                               min(expires_at) FILTER (WHERE due_at <= $1) AS nearest_expiry,
                               min(due_at) FILTER (WHERE due_at <= $1) AS oldest_pending_due
                        FROM partitions WHERE settled = 'open' AND report = coalesce($2, report) GROUP BY workspace, report) AS o
                    ON o.workspace = f.workspace AND o.report = f.report
             ORDER BY f.workspace, f.report",
        )
        .bind(now.as_millisecond())
        .bind(name)
        .read(&self.database)
        .await
        .map_err(|error| self.error("read", error))?;
        let figures = rows.iter().map(|row| {
            let count = |column| Ok::<u64, LedgerError>(self.natural(row, column)?.unwrap_or(0));
            Ok(ReportFigures {
                id: ReportId::new(&self.text(row, "workspace")?, &self.text(row, "report")?),
                source: self.source(&self.text(row, "source")?)?,
                scheduled: count("scheduled")?,
                pending: count("pending")?,
                stored: count("stored")?,
                absent: count("absent")?,
                lost: count("lost")?,
                stored_bytes: count("stored_bytes")?,
                newest_stored: self.instant_or_null(row, "newest_stored")?,
                nearest_expiry: self.instant_or_null(row, "nearest_expiry")?,
                oldest_pending_due: self.instant_or_null(row, "oldest_pending_due")?,
                newest_lost: self.instant_or_null(row, "newest_lost")?,
            })
        });
        figures.collect()
    }

    /// The recorded reports that are called `name`, or all.
    pub async fn recorded_reports(&self, name: Option<&str>) -> Result<Vec<ReportId>, LedgerError> {
        let rows = query(
            "SELECT DISTINCT workspace, report FROM report_figures WHERE report = coalesce($1, report)
             ORDER BY workspace, report",
        )
        .bind(name)
        .read(&self.database)
        .await
        .map_err(|error| self.error("read", error))?;
        rows.iter().map(|row| Ok(ReportId::new(&self.text(row, "workspace")?, &self.text(row, "report")?))).collect()
    }

    /// Every attempt that was ever recorded in numbers, by workspace, report and outcome.
    pub async fn attempt_figures(&self) -> Result<Vec<AttemptFigures>, LedgerError> {
        let rows = self
            .read(
                "SELECT a.*, (SELECT max(source) FROM report_figures f
                              WHERE f.workspace = a.workspace AND f.report = a.report) AS source
                 FROM attempt_figures a ORDER BY workspace, report, outcome",
            )
            .await?;
        let figures = rows.iter().map(|row| {
            let mut within = [0; DURATION_BOUNDS.len()];
            for (within, bound) in within.iter_mut().zip(DURATION_BOUNDS) {
                *within = self.natural(row, &format!("within_{bound}"))?.unwrap_or(0);
            }
            let milliseconds: u64 = self.natural(row, "milliseconds")?.unwrap_or(0);
            Ok(AttemptFigures {
                id: ReportId::new(&self.text(row, "workspace")?, &self.text(row, "report")?),
                source: self.source(&self.text(row, "source")?)?,
                outcome: self.outcome(row, "outcome")?.ok_or_else(|| self.nonsense("attempts.outcome", "null"))?,
                count: self.natural(row, "attempts")?.unwrap_or(0),
                seconds: milliseconds as f64 / 1000.0,
                bytes: self.natural(row, "bytes")?.unwrap_or(0),
                other_content: self.natural(row, "other_content")?.unwrap_or(0),
                within,
            })
        });
        figures.collect()
    }

    fn source(&self, word: &str) -> Result<SourceKind, LedgerError> {
        self.known("source", word, SourceKind::parse)
    }
}
