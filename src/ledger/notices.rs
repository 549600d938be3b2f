//! Notification targets, and what each was notified of.
//!
//! An event and the record that its target knows of it are written in one transaction; so are the events of stored objects
//! and the number of the last attempt among them. This file must not know what is worth an event.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::{
    Ledger, LedgerError,
    duties::Duty,
    outbox::{latest, subject_text},
};
use crate::{
    alarm::{AlarmKey, Notified},
    alarm_kind::AlarmKind,
    event::Event,
    ledger::database::{Row, query},
    outcome::RecordedAttempt,
    partition::Entry,
    report::ReportId,
};

/// How far the summaries of a target go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summarized {
    /// When it had the last.
    pub at: Timestamp,
    /// The number of the last attempt in it.
    pub through: i64,
}

/// What was stored in some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredNews {
    /// How many objects.
    pub stored: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The number of the last attempt that was looked at.
    pub through: i64,
}

/// Whether an attempt `a` at a partition `p` has stored what is news to the target that is bound. The same content once
/// more is none: it was fetched again and has not changed. Nor is what was stored before the target was known, and has
/// been found: the ledger may be a new one.
macro_rules! is_news {
    () => {
        "a.outcome = 'stored' AND p.stored_at >= (SELECT since FROM targets WHERE name = $1)
         AND a.sha256 IS DISTINCT FROM (SELECT b.sha256 FROM attempts b
                              WHERE b.partition_id = a.partition_id AND b.outcome = 'stored' AND b.id < a.id
                              ORDER BY b.id DESC LIMIT 1)"
    };
}

impl Ledger {
    /// Adds the targets called `names` that are missing. A new one is notified of objects stored from now on.
    pub async fn add_targets(&self, names: &[&str], now: Timestamp) -> Result<(), LedgerError> {
        let sound = query("SELECT name FROM targets WHERE since <= $1").bind(latest(now)).read(&self.database).await;
        let sound = sound.map_err(|error| self.error("read", error))?;
        let sound = sound.iter().map(|row| self.text(row, "name")).collect::<Result<Vec<_>, _>>()?;
        if names.iter().all(|name| sound.iter().any(|known| known == name)) {
            return Ok(());
        }
        let failed = |error| self.error("write", error);
        let mut transaction = self.begin().await?;
        for name in names {
            query(
                "INSERT INTO targets AS t (name, since, summarized_at, attempts_read, attempts_pinged, attempts_summarized,
                                           tables_read, changes_read)
                 SELECT $1, $2, $2, coalesce(max(id), 0), coalesce(max(id), 0), coalesce(max(id), 0),
                        (SELECT coalesce(max(number), 0) FROM partition_tables),
                        (SELECT coalesce(max(id), 0) FROM schema_changes)
                 FROM attempts WHERE true
                 -- Should the clock have been set back.
                 ON CONFLICT (name) DO UPDATE SET since = excluded.since WHERE t.since > excluded.since",
            )
            .bind(*name)
            .bind(now.as_millisecond())
            .execute(&mut transaction)
            .await
            .map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)
    }

    /// Forgets everything of the targets that are not among `names`.
    pub async fn forget_other_targets(&self, names: &[&str]) -> Result<(), LedgerError> {
        let known = self.known_targets().await?;
        let gone: Vec<_> = known.iter().filter(|name| !names.contains(&name.as_str())).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let failed = |error| self.error("write", error);
        let mut transaction = self.begin().await?;
        for name in gone {
            for forget in [
                "DELETE FROM targets WHERE name = $1",
                "DELETE FROM told WHERE target = $1",
                "DELETE FROM outbox WHERE target = $1",
            ] {
                query(forget).bind(name).execute(&mut transaction).await.map_err(failed)?;
            }
        }
        transaction.commit().await.map_err(failed)
    }

    async fn known_targets(&self) -> Result<Vec<String>, LedgerError> {
        self.read("SELECT name FROM targets").await?.iter().map(|row| self.text(row, "name")).collect()
    }

    /// Every partition that is lost and not acknowledged.
    pub async fn lost(&self) -> Result<Vec<Entry>, LedgerError> {
        let rows = self.read("SELECT * FROM partitions WHERE settled = 'lost' AND acknowledged = 0").await?;
        rows.iter().map(|row| self.entry(row)).collect()
    }

    /// Remembers that something of exactly these reports is being fetched at `now`. Returns since when that is so.
    pub async fn note_fetching(
        &self,
        reports: &BTreeSet<ReportId>,
        now: Timestamp,
    ) -> Result<BTreeMap<ReportId, Timestamp>, LedgerError> {
        let of = |row: &Row| {
            let id = ReportId::new(&self.text(row, "workspace")?, &self.text(row, "report")?);
            Ok((id, self.instant(row, "since")?))
        };
        let rows = self.read("SELECT * FROM fetching").await?;
        let known = rows.iter().map(of).collect::<Result<BTreeMap<_, _>, LedgerError>>()?;
        // What was written by a clock that has been set back since would never grow old.
        let since = |id: &ReportId| known.get(id).map_or(now, |since| now.min(*since));
        let fetching: BTreeMap<_, _> = reports.iter().map(|id| (id.clone(), since(id))).collect();
        if fetching == known {
            return Ok(fetching);
        }
        let failed = |error| self.error("write", error);
        let mut transaction = self.begin().await?;
        query("DELETE FROM fetching").execute(&mut transaction).await.map_err(failed)?;
        for (id, since) in &fetching {
            query("INSERT INTO fetching (workspace, report, since) VALUES ($1, $2, $3)")
                .bind(id.workspace())
                .bind(id.name())
                .bind(since.as_millisecond())
                .execute(&mut transaction)
                .await
                .map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)?;
        Ok(fetching)
    }

    /// The active alarms that `target` was notified of.
    pub async fn notified(&self, target: &str) -> Result<BTreeMap<AlarmKey, Notified>, LedgerError> {
        let rows = query(TOLD).bind(target).read(&self.database).await;
        self.told_from(&rows.map_err(|error| self.error("read", error))?)
    }

    /// Passes `decide` the active alarms that `target` was notified of, and stores what it returns: the new record of each
    /// alarm, and the events to send, each with its alarms. With `duty`, only while this process has that: what it decides
    /// by may be older than what the next one has stored.
    pub async fn record_notified(
        &self,
        duty: Option<Duty>,
        target: &str,
        now: Timestamp,
        decide: impl FnOnce(
            &BTreeMap<AlarmKey, Notified>,
        ) -> (Vec<(AlarmKey, Option<Notified>)>, Vec<(Event, Vec<AlarmKey>)>),
    ) -> Result<(), LedgerError> {
        let failed = |error| self.error("write", error);
        let mut transaction = self.begin().await?;
        if let Some(duty) = duty
            && !self.has_duty(&mut transaction, duty).await?
        {
            return Ok(());
        }
        let rows = query(TOLD).bind(target).rows(&mut transaction).await.map_err(failed)?;
        let (memories, events) = decide(&self.told_from(&rows)?);
        for ((alarm, subject), notified) in memories {
            let subject = subject_text(&subject);
            let query = match notified {
                Some(notified) => query(
                    "INSERT INTO told (target, alarm, subject, since, told_as, within) VALUES ($1, $2, $3, $4, $5, $6)
                     ON CONFLICT (target, alarm, subject) DO UPDATE
                     SET told_as = excluded.told_as, within = excluded.within",
                )
                .bind(target)
                .bind(alarm.as_str())
                .bind(subject)
                .bind(notified.since.as_millisecond())
                .bind(notified.kind.as_str())
                .bind(notified.within.map(|within| within.as_secs())),
                None => query("DELETE FROM told WHERE target = $1 AND alarm = $2 AND subject = $3")
                    .bind(target)
                    .bind(alarm.as_str())
                    .bind(subject),
            };
            query.execute(&mut transaction).await.map_err(failed)?;
        }
        for (event, alarms) in events {
            self.post(&mut transaction, target, &event, &alarms, now).await?;
        }
        transaction.commit().await.map_err(failed)
    }

    /// Lets `write` make events of up to `most` partitions that were stored since `target` last had news of such, and
    /// keeps them. Returns how many partitions that were.
    pub async fn announce(
        &self,
        target: &str,
        now: Timestamp,
        most: usize,
        mut write: impl FnMut(&Entry, &RecordedAttempt) -> Vec<Event>,
    ) -> Result<usize, LedgerError> {
        let failed = |error| self.error("write", error);
        let news = query(
            "SELECT 1 FROM targets WHERE name = $1 AND attempts_read < (SELECT coalesce(max(id), 0) FROM attempts)",
        );
        let news = news.bind(target).read_one(&self.database).await.map_err(|error| self.error("read", error))?;
        if news.is_none() || most == 0 {
            return Ok(0);
        }
        let mut transaction = self.begin().await?;
        let rows = query(concat!(
            "SELECT a.*, a.id AS attempt_id FROM attempts a JOIN partitions p ON p.id = a.partition_id
             WHERE a.id > (SELECT attempts_read FROM targets WHERE name = $1) AND ",
            is_news!(),
            " ORDER BY a.id LIMIT $2",
        ))
        .bind(target)
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .rows(&mut transaction)
        .await
        .map_err(failed)?;
        for row in &rows {
            let partition = query("SELECT * FROM partitions WHERE id = $1")
                .bind(self.get::<i64>(row, "partition_id")?)
                .row(&mut transaction)
                .await
                .map_err(failed)?;
            let Some(partition) = partition else { continue };
            for event in write(&self.entry(&partition)?, &self.attempt(row)?) {
                self.post(&mut transaction, target, &event, &[], now).await?;
            }
        }
        let last =
            rows.last().filter(|_| rows.len() == most).map(|row| self.get::<i64>(row, "attempt_id")).transpose()?;
        query("UPDATE targets SET attempts_read = coalesce($1, (SELECT max(id) FROM attempts), 0) WHERE name = $2")
            .bind(last)
            .bind(target)
            .execute(&mut transaction)
            .await
            .map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(rows.len())
    }

    /// The last summary that `target` had; `None` when it is not known.
    pub async fn last_summary(&self, target: &str) -> Result<Option<Summarized>, LedgerError> {
        let row = query("SELECT summarized_at, attempts_summarized FROM targets WHERE name = $1")
            .bind(target)
            .read_one(&self.database)
            .await
            .map_err(|error| self.error("read", error))?;
        let of = |row| {
            let through = self.get(&row, "attempts_summarized")?;
            Ok(Summarized { at: self.instant(&row, "summarized_at")?, through })
        };
        row.map(of).transpose()
    }

    /// What was stored after the attempt numbered `after`, as far as it is news to `target`.
    pub async fn stored_after(&self, target: &str, after: i64) -> Result<StoredNews, LedgerError> {
        let row = query(concat!(
            "SELECT count(p.id) AS stored, CAST(coalesce(sum(p.size), 0) AS BIGINT) AS bytes,
                    (SELECT coalesce(max(id), 0) FROM attempts) AS through
             FROM attempts a JOIN partitions p ON p.id = a.partition_id
             WHERE a.id > $2 AND ",
            is_news!(),
        ))
        .bind(target)
        .bind(after)
        .read_one(&self.database)
        .await
        .map_err(|error| self.error("read", error))?
        .ok_or_else(|| self.nonsense("attempts", "no count"))?;
        Ok(StoredNews {
            stored: self.natural(&row, "stored")?.unwrap_or(0),
            bytes: self.natural(&row, "bytes")?.unwrap_or(0),
            through: self.get(&row, "through")?,
        })
    }

    /// What was stored since `target` was last pinged, by whichever process.
    pub async fn stored_since_ping(&self, target: &str) -> Result<StoredNews, LedgerError> {
        let row =
            query("SELECT attempts_pinged FROM targets WHERE name = $1").bind(target).read_one(&self.database).await;
        let row = row.map_err(|error| self.error("read", error))?;
        let after = row.map_or(Ok(0), |row| self.get(&row, "attempts_pinged"))?;
        self.stored_after(target, after).await
    }

    /// Records that a ping of `target` reported the objects stored up to the attempt numbered `through`.
    pub async fn pinged(&self, target: &str, through: i64) -> Result<(), LedgerError> {
        let query = query("UPDATE targets SET attempts_pinged = $1 WHERE name = $2 AND attempts_pinged < $1");
        self.change(query.bind(through).bind(target)).await
    }

    /// Keeps a summary for `target`, unless another process has done so since `before`. The one after it goes on from `next`.
    pub async fn summarize(
        &self,
        target: &str,
        before: Summarized,
        next: Summarized,
        event: &Event,
    ) -> Result<(), LedgerError> {
        let mut transaction = self.begin().await?;
        let updated = query(
            "UPDATE targets SET summarized_at = $1, attempts_summarized = $2 WHERE name = $3 AND summarized_at = $4",
        )
        .bind(next.at.as_millisecond())
        .bind(next.through)
        .bind(target)
        .bind(before.at.as_millisecond())
        .execute(&mut transaction)
        .await
        .map_err(|error| self.error("write", error))?;
        if updated == 1 {
            self.post(&mut transaction, target, event, &[], next.at).await?;
        }
        transaction.commit().await.map_err(|error| self.error("write", error))
    }

    fn told_from(&self, rows: &[Row]) -> Result<BTreeMap<AlarmKey, Notified>, LedgerError> {
        let of = |row: &Row| {
            let subject = self.text(row, "subject")?;
            let subject = serde_json::from_str(&subject).map_err(|_| self.nonsense("told.subject", &subject))?;
            let notified = Notified {
                since: self.instant(row, "since")?,
                kind: self.alarm_kind(row, "told_as")?,
                within: self.get::<Option<i64>>(row, "within")?.map(SignedDuration::from_secs),
            };
            Ok(((self.alarm_kind(row, "alarm")?, subject), notified))
        };
        rows.iter().map(of).collect()
    }

    fn alarm_kind(&self, row: &Row, column: &str) -> Result<AlarmKind, LedgerError> {
        let word = self.text(row, column)?;
        self.known(column, &word, AlarmKind::parse)
    }
}

const TOLD: &str = "SELECT * FROM told WHERE target = $1";
