//! The outbox: events that have not arrived, in which order they are sent, and when.
//!
//! It must not know what is worth an event.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tracing::error;

use super::{Ledger, LedgerError};
use crate::{
    alarm::{AlarmKey, Subject},
    event::Event,
    ledger::database::{Row, Transaction, query},
    retry,
};

/// An event on its way to a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// What is to be delivered.
    pub event: Event,
    /// Since when it waits.
    pub created_at: Timestamp,
    /// Which try this is, counted from 1.
    pub number: u32,
    row: i64,
}

/// The events that wait for one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// How many.
    pub events: u64,
    /// Since when the oldest does.
    pub since: Timestamp,
}

/// Whether an event `o` that waits is behind none of the same alarm: what began must not end for its receiver before.
macro_rules! is_first_of_its_alarms {
    () => {
        "NOT EXISTS (SELECT 1 FROM event_alarms mine
                     JOIN event_alarms theirs ON theirs.alarm = mine.alarm AND theirs.event < mine.event
                     JOIN outbox earlier ON earlier.id = theirs.event
                     WHERE mine.event = o.id AND earlier.target = o.target)"
    };
}

impl Ledger {
    /// Adds an event for `target` that is about `alarms`.
    pub(super) async fn post(
        &self,
        transaction: &mut Transaction,
        target: &str,
        event: &Event,
        alarms: &[AlarmKey],
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let failed = |error| self.error("write", error);
        let row = query(
            "INSERT INTO outbox (target, event, is_alarm, created_at, next_attempt_at) VALUES ($1, $2, $3, $4, $4)
             RETURNING id",
        )
        .bind(target)
        // Text and numbers: they can always be written.
        .bind(serde_json::to_string(event).unwrap_or_default())
        .bind(event.content.is_alarm())
        .bind(now.as_millisecond())
        .row(transaction)
        .await
        .map_err(failed)?;
        let id: i64 = row.map_or(Ok(0), |row| self.get(&row, "id"))?;
        for (alarm, subject) in alarms {
            query("INSERT INTO event_alarms (event, alarm) VALUES ($1, $2) ON CONFLICT (event, alarm) DO NOTHING")
                .bind(id)
                .bind(format!("{alarm} {}", subject_text(subject)))
                .execute(transaction)
                .await
                .map_err(failed)?;
        }
        Ok(())
    }

    /// What waits for each target, by its name.
    pub async fn all_waiting(&self) -> Result<BTreeMap<String, Waiting>, LedgerError> {
        let rows = self
            .read("SELECT target, count(*) AS events, min(created_at) AS since FROM outbox GROUP BY target")
            .await?;
        let of = |row: &Row| {
            let events = self.natural(row, "events")?.unwrap_or(0);
            Ok((self.text(row, "target")?, Waiting { events, since: self.instant(row, "since")? }))
        };
        rows.iter().map(of).collect()
    }

    /// How many events wait for `target`.
    pub async fn waiting(&self, target: &str) -> Result<usize, LedgerError> {
        let row = query("SELECT count(*) AS events FROM outbox WHERE target = $1")
            .bind(target)
            .read_one(&self.database)
            .await;
        let row = row.map_err(|error| self.error("read", error))?;
        Ok(row.map(|row| self.natural(&row, "events")).transpose()?.flatten().unwrap_or(0))
    }

    /// The next event that waits for `target`, if there is one whose time has come. No other process takes it before
    /// `until`; should this process die with it, it is sent again after that.
    ///
    /// Events go in their order as long as they arrive. One that was tried [`retry::QUICK_TRIES`] times lets the others
    /// pass; once as many sends in a row have failed, whichever the events, alarms go first, and among them those that were
    /// tried the least. No event passes an earlier one of the same alarm.
    pub async fn take(&self, target: &str, now: Timestamp, until: Timestamp) -> Result<Option<Delivery>, LedgerError> {
        let failed = |error| self.error("write", error);
        let mut transaction = self.begin().await?;
        let row = query(
            // Tried in the future: the clock has been set back since, and the wait means nothing.
            concat!(
                "UPDATE outbox SET attempts = attempts + 1, tried_at = $3, next_attempt_at = $1
                 WHERE id = (
                     SELECT o.id FROM outbox o JOIN targets t ON t.name = o.target
                     WHERE o.target = $2
                       AND (o.attempts = 0 OR o.next_attempt_at <= $3 OR o.tried_at > $4)
                       AND (CASE o.is_alarm WHEN 0 THEN t.next_at ELSE t.next_alarm_at END <= $3 OR t.failed_at > $4)
                       AND ",
                is_first_of_its_alarms!(),
                "    ORDER BY CASE WHEN t.failures >= $5 THEN 1 - o.is_alarm WHEN o.attempts >= $5 THEN 1 ELSE 0 END,
                              CASE WHEN t.failures < $5 THEN 0 ELSE o.attempts END, o.id
                     LIMIT 1)
                 RETURNING *",
            ),
        )
        .bind(until.as_millisecond())
        .bind(target)
        .bind(now.as_millisecond())
        .bind(latest(now))
        .bind(retry::QUICK_TRIES)
        .row(&mut transaction)
        .await
        .map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        let Some(row) = row else { return Ok(None) };
        match self.delivery(&row) {
            Ok(delivery) => Ok(Some(delivery)),
            // It would keep all others of its alarms from arriving.
            Err(error) => {
                error!(target, "an event that waits in the ledger cannot be read and is dropped: {error}");
                let row: i64 = self.get(&row, "id")?;
                self.change(query("DELETE FROM outbox WHERE id = $1").bind(row)).await?;
                Ok(None)
            }
        }
    }

    /// When the next event that waits for `target` may be sent.
    pub async fn next_delivery(&self, target: &str) -> Result<Option<Timestamp>, LedgerError> {
        let row = query(concat!(
            "SELECT min(CASE WHEN o.next_attempt_at > o.earliest THEN o.next_attempt_at ELSE o.earliest END) AS next_at
             FROM (SELECT w.*, CASE w.is_alarm WHEN 0 THEN t.next_at ELSE t.next_alarm_at END AS earliest
                   FROM outbox w JOIN targets t ON t.name = w.target WHERE w.target = $1) AS o
             WHERE ",
            is_first_of_its_alarms!(),
        ))
        .bind(target)
        .read_one(&self.database)
        .await
        .map_err(|error| self.error("read", error))?;
        Ok(row.map(|row| self.instant_or_null(&row, "next_at")).transpose()?.flatten())
    }

    /// That an event has arrived, and so that its target can be reached.
    pub async fn delivered(&self, delivery: &Delivery) -> Result<(), LedgerError> {
        let failed = |error| self.error("write", error);
        let mut transaction = self.begin().await?;
        for statement in [
            "UPDATE targets SET failures = 0, failed_at = 0, next_at = 0, next_alarm_at = 0
             WHERE failures > 0 AND name = (SELECT target FROM outbox WHERE id = $1)",
            "DELETE FROM outbox WHERE id = $1",
        ] {
            query(statement).bind(delivery.row).execute(&mut transaction).await.map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)
    }

    /// That a send to `target` has failed at `now`. Returns how many in a row have, with this one.
    pub async fn note_failure(&self, target: &str, now: Timestamp) -> Result<u32, LedgerError> {
        let failed = |error| self.error("write", error);
        let mut transaction = self.begin().await?;
        let row =
            query("UPDATE targets SET failures = failures + 1, failed_at = $1 WHERE name = $2 RETURNING failures")
                .bind(now.as_millisecond())
                .bind(target)
                .row(&mut transaction)
                .await
                .map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        row.map_or(Ok(1), |row| Ok(self.natural(&row, "failures")?.unwrap_or(1)))
    }

    /// That nothing is sent to `target` before `until`, and no alarm before `alarms_until`.
    pub async fn pause(&self, target: &str, until: Timestamp, alarms_until: Timestamp) -> Result<(), LedgerError> {
        let query = query("UPDATE targets SET next_at = $1, next_alarm_at = $2 WHERE name = $3");
        self.change(query.bind(until.as_millisecond()).bind(alarms_until.as_millisecond()).bind(target)).await
    }

    /// That an event has not arrived and is not tried again. The target then does not know of its alarms, unless a
    /// later event contains them; if they last, they are sent again.
    pub async fn given_up(&self, delivery: &Delivery) -> Result<(), LedgerError> {
        let failed = |error| self.error("write", error);
        let mut transaction = self.begin().await?;
        for forget in [
            "DELETE FROM told WHERE target = (SELECT target FROM outbox WHERE id = $1)
               AND alarm || ' ' || subject IN (SELECT e.alarm FROM event_alarms e WHERE e.event = $1)
               AND alarm || ' ' || subject NOT IN (SELECT e.alarm FROM event_alarms e JOIN outbox o ON o.id = e.event
                                                   WHERE o.target = told.target AND o.id > $1)",
            "DELETE FROM outbox WHERE id = $1",
        ] {
            query(forget).bind(delivery.row).execute(&mut transaction).await.map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)
    }

    /// That an event has not arrived, and when it is tried again.
    pub async fn postpone(&self, delivery: &Delivery, until: Timestamp) -> Result<(), LedgerError> {
        let query = query("UPDATE outbox SET next_attempt_at = $1 WHERE id = $2");
        self.change(query.bind(until.as_millisecond()).bind(delivery.row)).await
    }

    fn delivery(&self, row: &Row) -> Result<Delivery, LedgerError> {
        let event = self.text(row, "event")?;
        Ok(Delivery {
            event: serde_json::from_str(&event).map_err(|_| self.nonsense("outbox.event", &event))?,
            created_at: self.instant(row, "created_at")?,
            number: self.natural(row, "attempts")?.unwrap_or(1),
            row: self.get(row, "id")?,
        })
    }
}

/// What was written later than this was written before the clock was set back. In milliseconds.
pub(super) fn latest(now: Timestamp) -> i64 {
    now.as_millisecond().saturating_add(60_000)
}

/// A subject as it is stored.
pub(super) fn subject_text(subject: &Subject) -> String {
    // Names and dates: they can always be written.
    serde_json::to_string(subject).unwrap_or_default()
}
