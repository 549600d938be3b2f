//! What a plan depends on, read by index: its cost grows with what is open and with the number of reports, not with the
//! history. A CROSS JOIN keeps SQLite from beginning with the partitions, which have no statistics.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use super::{Ledger, LedgerError};
use crate::{
    ledger::database::{Query, Row, Transaction, query},
    plan::{LONGEST_STEP, LedgerView, MARK_TOLERANCE, Reach},
    report::ReportId,
    retry::Hold,
};

/// The ids of attempts grow in the order in which they are recorded.
const NEWEST_ATTEMPT: &str = "SELECT coalesce(max(id), 0) AS newest FROM attempts";

impl Ledger {
    /// What a plan depends on: every open partition, and every other within its `reach`.
    pub async fn view(&self, reach: &Reach) -> Result<LedgerView, LedgerError> {
        let failed = |error| self.error("read", error);
        let mut transaction = self.database.begin_reading().await.map_err(failed)?;
        let reading = &mut transaction;
        let planned_through = self.marks(reading).await?;
        let mut rows = self.rows(reading, query("SELECT * FROM partitions WHERE settled = 'open'")).await?;
        rows.extend(self.after_marks(reading, reach).await?);
        for (id, from) in self.unmarked(reading, reach, &planned_through).await? {
            for (from, end) in reach.of_plan_from(from) {
                rows.extend(self.after(reading, &id, from, end, reach.retention()).await?);
            }
        }
        rows.extend(self.restating(reading, reach).await?);
        let newest_attempt = self.rows(reading, query(NEWEST_ATTEMPT)).await?;
        let mut view = LedgerView {
            planned_through,
            holds: self.holds(reading, reach.now).await?,
            newest_attempt: self.newest(&newest_attempt)?,
            ..LedgerView::default()
        };
        transaction.commit().await.map_err(failed)?;
        let mut known = HashSet::new();
        for row in &rows {
            if known.insert(self.get::<i64>(row, "id")?) {
                view.entries.push(self.entry(row)?);
            }
        }
        Ok(view)
    }

    /// [`LedgerView::newest_attempt`] by now.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub async fn newest_attempt(&self) -> Result<i64, LedgerError> {
        let rows = query(NEWEST_ATTEMPT).read(&self.database).await.map_err(|error| self.error("read", error))?;
        self.newest(&rows)
    }

    fn newest(&self, rows: &[Row]) -> Result<i64, LedgerError> {
        rows.first().map_or(Ok(0), |row| self.get(row, "newest"))
    }

    async fn rows(&self, transaction: &mut Transaction, query: Query<'_>) -> Result<Vec<Row>, LedgerError> {
        query.rows(transaction).await.map_err(|error| self.error("read", error))
    }

    async fn marks(&self, transaction: &mut Transaction) -> Result<HashMap<ReportId, Timestamp>, LedgerError> {
        let rows = self.rows(transaction, query("SELECT workspace, report, planned_through FROM reports")).await?;
        rows.iter().map(|row| Ok((self.report_id(row)?, self.instant(row, "planned_through")?))).collect()
    }

    /// The hold of a workspace, past or present.
    pub async fn hold_of(&self, workspace: &str) -> Result<Option<Hold>, LedgerError> {
        let row = query("SELECT workspace, outcome, since, until, is_asked FROM holds WHERE workspace = $1")
            .bind(workspace)
            .read_one(&self.database)
            .await
            .map_err(|error| self.error("read", error))?;
        row.map(|row| self.hold(&row)).transpose()
    }

    async fn holds(&self, transaction: &mut Transaction, now: Timestamp) -> Result<HashMap<String, Hold>, LedgerError> {
        let query = query("SELECT workspace, outcome, since, until, is_asked FROM holds");
        let rows = self.rows(transaction, query).await?;
        let holds = rows.iter().map(|row| Ok((self.text(row, "workspace")?, self.hold(row)?)));
        holds.filter(|hold| hold.as_ref().map_or(true, |(_, hold)| hold.is_believable(now))).collect()
    }

    /// What was generated after the mark of its report, where that is recent: not after the present, and no further back
    /// than one step of planning.
    async fn after_marks(&self, transaction: &mut Transaction, reach: &Reach) -> Result<Vec<Row>, LedgerError> {
        let (earliest, latest) = recent_marks(reach);
        let query = query(
            "SELECT p.* FROM reports r CROSS JOIN partitions p
             WHERE r.planned_through >= $1 AND r.planned_through <= $2
               AND p.workspace = r.workspace AND p.report = r.report AND p.generated_at > r.planned_through
               AND p.settled <> 'open'",
        );
        let query = query.bind(earliest.as_millisecond()).bind(latest.as_millisecond());
        self.rows(transaction, query).await
    }

    /// The recorded reports within `reach` that have no recent mark, and from when on each is planned.
    async fn unmarked(
        &self,
        transaction: &mut Transaction,
        reach: &Reach,
        marks: &HashMap<ReportId, Timestamp>,
    ) -> Result<Vec<(ReportId, Timestamp)>, LedgerError> {
        let (earliest, latest) = recent_marks(reach);
        let mut unmarked: HashMap<&ReportId, Timestamp> = HashMap::new();
        for (id, first_sight) in &reach.first_sights {
            match marks.get(id) {
                Some(mark) if *mark > latest => drop(unmarked.insert(id, *first_sight)),
                Some(mark) if *mark < earliest => drop(unmarked.insert(id, *mark)),
                Some(_) => {}
                None => drop(unmarked.insert(id, *first_sight)),
            }
        }
        if unmarked.is_empty() {
            return Ok(Vec::new());
        }
        let recorded = self.rows(transaction, query("SELECT DISTINCT workspace, report FROM report_figures")).await?;
        let mut found = Vec::new();
        for row in &recorded {
            let id = self.report_id(row)?;
            if let Some(from) = unmarked.get(&id) {
                found.push((id, *from));
            }
        }
        Ok(found)
    }

    /// What was generated after `from` and not after `to`, and the newest partition up to `retention` that was not requested
    /// after its end.
    async fn after(
        &self,
        transaction: &mut Transaction,
        id: &ReportId,
        from: Timestamp,
        to: Timestamp,
        retention: Timestamp,
    ) -> Result<Vec<Row>, LedgerError> {
        let query = query(
            "SELECT * FROM partitions
             WHERE workspace = $1 AND report = $2 AND settled <> 'open'
               AND (generated_at > $3 AND generated_at <= $4
                    OR generated_at = (SELECT max(generated_at) FROM partitions
                                       WHERE workspace = $1 AND report = $2 AND generated_at <= $5 AND asked_late = 0))",
        );
        let query = query.bind(id.workspace()).bind(id.name()).bind(from.as_millisecond()).bind(to.as_millisecond());
        self.rows(transaction, query.bind(retention.as_millisecond())).await
    }

    /// The last stored partitions of reports that restate, as many as the `reach` has, and older ones whose replacement
    /// was left half done.
    async fn restating(&self, transaction: &mut Transaction, reach: &Reach) -> Result<Vec<Row>, LedgerError> {
        let Some((before, count)) = reach.restating else { return Ok(Vec::new()) };
        let half_done = query(
            "SELECT * FROM partitions
             WHERE settled = 'stored' AND outcome = 'store_failed' AND source = 'campaign_stats'",
        );
        let mut rows = self.rows(transaction, half_done).await?;
        if let Some(skipped) = count.checked_sub(1) {
            let last = query(
                "SELECT p.* FROM report_figures f CROSS JOIN partitions p
                 WHERE f.source = 'campaign_stats'
                   AND p.workspace = f.workspace AND p.report = f.report AND p.source = f.source
                   AND p.settled = 'stored' AND p.date < $1 AND p.date >= coalesce(
                       (SELECT q.date FROM partitions q
                        WHERE q.workspace = f.workspace AND q.report = f.report AND q.source = f.source
                          AND q.settled = 'stored' AND q.date < $1
                        ORDER BY q.date DESC LIMIT 1 OFFSET $2), '')",
            );
            rows.extend(self.rows(transaction, last.bind(before.to_string()).bind(skipped)).await?);
        }
        Ok(rows)
    }

    fn report_id(&self, row: &Row) -> Result<ReportId, LedgerError> {
        Ok(ReportId::new(&self.text(row, "workspace")?, &self.text(row, "report")?))
    }
}

/// Between which instants a mark is one that the next plan goes on from, in one step.
fn recent_marks(reach: &Reach) -> (Timestamp, Timestamp) {
    let earliest = reach.present.checked_sub(LONGEST_STEP).unwrap_or(Timestamp::MIN);
    (earliest, reach.present.checked_add(MARK_TOLERANCE).unwrap_or(Timestamp::MAX))
}
