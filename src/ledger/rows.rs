//! Rows to values and back. Everything read is checked, because a ledger can be edited, half restored or damaged.

use jiff::{Timestamp, civil};

use super::{Ledger, LedgerError};
use crate::{
    config::SourceKind,
    ledger::database::{Column, Row},
    outcome::{Outcome, RecordedAttempt, Remark, StoredObject},
    partition::{Entry, Settled},
    report::{Partition, PartitionId, ReportId},
    retry::Hold,
};

impl Ledger {
    /// The value that `word` stands for in `column`, which holds one of a fixed set of words.
    pub(in crate::ledger) fn known<T>(
        &self,
        column: &str,
        word: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, LedgerError> {
        parse(word).ok_or_else(|| self.unknown(column, word))
    }

    pub(in crate::ledger) fn get<T: Column>(&self, row: &Row, column: &str) -> Result<T, LedgerError> {
        T::read(row, column).map_err(|error| self.nonsense(column, &error.to_string()))
    }

    pub(in crate::ledger) fn text(&self, row: &Row, column: &str) -> Result<String, LedgerError> {
        self.get(row, column)
    }

    pub(super) fn instant(&self, row: &Row, column: &str) -> Result<Timestamp, LedgerError> {
        self.instant_or_null(row, column)?.ok_or_else(|| self.nonsense(column, "null"))
    }

    pub(in crate::ledger) fn instant_or_null(&self, row: &Row, column: &str) -> Result<Option<Timestamp>, LedgerError> {
        self.get::<Option<i64>>(row, column)?
            .map(|value| Timestamp::from_millisecond(value).map_err(|_| self.nonsense(column, &value.to_string())))
            .transpose()
    }

    pub(in crate::ledger) fn natural<T: TryFrom<i64>>(
        &self,
        row: &Row,
        column: &str,
    ) -> Result<Option<T>, LedgerError> {
        self.get::<Option<i64>>(row, column)?
            .map(|value| T::try_from(value).map_err(|_| self.nonsense(column, &value.to_string())))
            .transpose()
    }

    pub(in crate::ledger) fn outcome(&self, row: &Row, column: &str) -> Result<Option<Outcome>, LedgerError> {
        self.get::<Option<String>>(row, column)?.map(|word| self.known(column, &word, Outcome::parse)).transpose()
    }

    pub(super) fn date(&self, row: &Row) -> Result<civil::Date, LedgerError> {
        let date = self.text(row, "date")?;
        date.parse().map_err(|_| self.nonsense("date", &date))
    }

    fn remark(&self, row: &Row) -> Result<Option<Remark>, LedgerError> {
        self.get::<Option<String>>(row, "remark")?.map(|word| self.known("remark", &word, Remark::parse)).transpose()
    }

    pub(in crate::ledger) fn entry(&self, row: &Row) -> Result<Entry, LedgerError> {
        let source = self.text(row, "source")?;
        let settled = self.text(row, "settled")?;
        let settled = self.known("settled", &settled, settled_from)?;
        let object = match (self.get::<Option<String>>(row, "object_key")?, settled) {
            (Some(key), Settled::Stored) => Some(StoredObject {
                key,
                size: self.natural(row, "size")?.ok_or_else(|| self.nonsense("size", "null"))?,
                sha256: self.text(row, "sha256")?,
                stored_at: self.instant(row, "stored_at")?,
            }),
            _ => None,
        };
        Ok(Entry {
            partition: Partition {
                id: PartitionId {
                    report: ReportId::new(&self.text(row, "workspace")?, &self.text(row, "report")?),
                    date: self.date(row)?,
                },
                source: self.known("source", &source, SourceKind::parse)?,
                generated_at: self.instant(row, "generated_at")?,
                due_at: self.instant(row, "due_at")?,
                expires_at: self.instant_or_null(row, "expires_at")?,
            },
            settled,
            outcome: self.outcome(row, "outcome")?,
            attempts: self.natural(row, "attempts")?.unwrap_or(0),
            streak: self.natural(row, "streak")?.unwrap_or(0),
            repeats: self.natural(row, "repeats")?.unwrap_or(0),
            last_attempt_at: self.instant_or_null(row, "last_attempt_at")?,
            next_attempt_at: self.instant_or_null(row, "next_attempt_at")?,
            seen: self.get(row, "seen")?,
            denied_at: self.instant_or_null(row, "denied_at")?,
            requested_late: self.get(row, "asked_late")?,
            remark: self.remark(row)?,
            message: self.get(row, "message")?,
            object,
            tables: self.tables_state(row)?,
            acknowledged: self.get(row, "acknowledged")?,
        })
    }

    pub(super) fn hold(&self, row: &Row) -> Result<Hold, LedgerError> {
        Ok(Hold {
            outcome: self.outcome(row, "outcome")?.ok_or_else(|| self.nonsense("holds.outcome", "null"))?,
            since: self.instant(row, "since")?,
            until: self.instant(row, "until")?,
            is_requested: self.get(row, "is_asked")?,
        })
    }

    pub(in crate::ledger) fn attempt(&self, row: &Row) -> Result<RecordedAttempt, LedgerError> {
        Ok(RecordedAttempt {
            started_at: self.instant(row, "started_at")?,
            finished_at: self.instant(row, "finished_at")?,
            outcome: self.outcome(row, "outcome")?.ok_or_else(|| self.nonsense("attempts.outcome", "null"))?,
            remark: self.remark(row)?,
            message: self.text(row, "message")?,
            http_status: self.natural(row, "http_status")?,
            request_id: self.get(row, "request_id")?,
            size: self.natural(row, "size")?,
            sha256: self.get(row, "sha256")?,
        })
    }
}

pub(super) fn settled_word(settled: Settled) -> &'static str {
    match settled {
        Settled::Open => "open",
        Settled::Stored => "stored",
        Settled::Absent => "absent",
        Settled::Lost => "lost",
    }
}

pub(super) fn settled_from(word: &str) -> Option<Settled> {
    [Settled::Open, Settled::Stored, Settled::Absent, Settled::Lost].into_iter().find(|s| settled_word(*s) == word)
}

/// SQLite's integers are signed; no object comes near the limit.
pub(super) fn to_integer(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// Whether `text` looks like a word that a version of moesync writes.
pub(super) fn is_word(text: &str) -> bool {
    (2..=40).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}
