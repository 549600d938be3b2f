//! Events of tables, and of changes of their schemas: each is news to a target once.

use jiff::Timestamp;

use super::{
    Ledger, LedgerError,
    database::{Row, query},
};
use crate::{
    derivation::{Derived, Difference, SchemaChange},
    event::Event,
    partition::Entry,
    report::ReportId,
};

/// Tables that are news to a target.
#[derive(Debug)]
pub struct TablesNews {
    /// The partition.
    pub entry: Entry,
    /// Its tables.
    pub derived: Derived,
}

/// Changes of a schema that are news to a target.
#[derive(Debug)]
pub struct SchemaNews {
    /// The report.
    pub report: ReportId,
    /// The table and its differences on one date.
    pub changes: Vec<SchemaChange>,
}

impl Ledger {
    /// Lets `of_tables` and `of_schemas` make events of up to `most` tables and changes of schemas each that `target` was not
    /// notified of, and keeps them. Changes of a schema come before the tables that have them.
    pub async fn announce_tables(
        &self,
        target: &str,
        now: Timestamp,
        most: usize,
        of_tables: impl Fn(&TablesNews) -> Vec<Event> + Send,
        of_schemas: impl Fn(&SchemaNews) -> Vec<Event> + Send,
    ) -> Result<(), LedgerError> {
        let failed = |error| self.error("write", error);
        let news = query(
            "SELECT 1 FROM targets WHERE name = $1
               AND (tables_read < (SELECT coalesce(max(number), 0) FROM partition_tables)
                    OR changes_read < (SELECT coalesce(max(id), 0) FROM schema_changes))",
        );
        let news = news.bind(target).read_one(&self.database).await.map_err(|error| self.error("read", error))?;
        if news.is_none() || most == 0 {
            return Ok(());
        }
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let mut transaction = self.begin().await?;
        let changes = query(
            "SELECT * FROM schema_changes WHERE id > (SELECT changes_read FROM targets WHERE name = $1) ORDER BY id LIMIT $2",
        );
        let changes = changes.bind(target).bind(most).rows(&mut transaction).await.map_err(failed)?;
        let mut grouped: Vec<SchemaNews> = Vec::new();
        for row in &changes {
            let (report, change) = (self.report_of(row)?, self.schema_change(row)?);
            let is_same = |news: &SchemaNews| {
                news.report == report
                    && news.changes.first().is_some_and(|it| (&it.table, it.date) == (&change.table, change.date))
            };
            match grouped.last_mut().filter(|last| is_same(last)) {
                Some(last) => last.changes.push(change),
                None => grouped.push(SchemaNews { report, changes: vec![change] }),
            }
        }
        for event in grouped.iter().flat_map(of_schemas) {
            self.post(&mut transaction, target, &event, &[], now).await?;
        }
        let tables = query(
            "SELECT p.*, t.objects, t.left_alone, t.number FROM partition_tables t JOIN partitions p ON p.id = t.partition_id
             WHERE t.number > (SELECT tables_read FROM targets WHERE name = $1) ORDER BY t.number LIMIT $2",
        );
        let tables = tables.bind(target).bind(most).rows(&mut transaction).await.map_err(failed)?;
        for row in &tables {
            // Without its objects, they are being made again, and are news after that.
            if self.get::<Option<String>>(row, "objects")?.is_some() {
                let news = TablesNews { entry: self.entry(row)?, derived: self.derived(row)? };
                for event in of_tables(&news) {
                    self.post(&mut transaction, target, &event, &[], now).await?;
                }
            }
        }
        let last = |rows: &[Row], column| rows.last().map(|row| self.get::<i64>(row, column)).transpose();
        query(
            "UPDATE targets SET tables_read = coalesce($2, tables_read), changes_read = coalesce($3, changes_read)
             WHERE name = $1",
        )
        .bind(target)
        .bind(last(&tables, "number")?)
        .bind(last(&changes, "id")?)
        .execute(&mut transaction)
        .await
        .map_err(failed)?;
        transaction.commit().await.map_err(failed)
    }

    fn schema_change(&self, row: &Row) -> Result<SchemaChange, LedgerError> {
        let date = self.text(row, "date")?;
        let date = date.parse().map_err(|_| self.nonsense("schema_changes.date", &date))?;
        let difference: Difference = self.read_json("difference", &self.text(row, "difference")?)?;
        Ok(SchemaChange { table: self.text(row, "name")?, date, difference })
    }
}
