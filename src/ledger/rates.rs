//! Rates of requests: a row for each account and API, which all processes of the ledger share.
//!
//! This file owns when a request may be sent. It must not know which rates MoEngage allows.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Ledger, LedgerError,
    database::{Transaction, query},
};
use crate::config::SourceKind;

/// How requests follow each other.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Between two requests.
    pub distance: Duration,
    /// The longest wait for a turn. A longer one comes from a clock that has since been set back, and is void.
    pub longest_wait: Duration,
}

impl Ledger {
    /// Takes the next free turn for a request of `account` to `source`. Returns how long to wait for it.
    ///
    /// `now` is the clock of this machine; it counts only where the ledger is not on a server, which has its own.
    pub async fn take_turn(
        &self,
        account: &str,
        source: SourceKind,
        rate: Rate,
        now: Timestamp,
    ) -> Result<Duration, LedgerError> {
        let failed = |error| self.error("write", error);
        let mut transaction = self.begin().await?;
        let now = self.clock(&mut transaction, now).await?;
        let row = query("SELECT free_at, rests_until FROM rates WHERE account = $1 AND source = $2")
            .bind(account)
            .bind(source.as_str())
            .row(&mut transaction)
            .await
            .map_err(failed)?;
        let known = match row {
            Some(row) => Some((self.get(&row, "free_at")?, self.get(&row, "rests_until")?)),
            None => None,
        };
        let is_sound = |(free_at, rests_until): &(i64, i64)| {
            (*free_at).max(*rests_until) <= now.saturating_add(milliseconds(rate.longest_wait))
        };
        // The first request waits, too: a process of another ledger may have sent one a moment ago.
        let (free_at, rests_until) = known.filter(is_sound).unwrap_or((now + milliseconds(rate.distance), now));
        let turn_at = free_at.max(rests_until).max(now);
        query(
            "INSERT INTO rates (account, source, free_at, rests_until) VALUES ($1, $2, $3, $4)
             ON CONFLICT (account, source) DO UPDATE SET free_at = excluded.free_at, rests_until = excluded.rests_until",
        )
        .bind(account)
        .bind(source.as_str())
        .bind(turn_at.saturating_add(milliseconds(rate.distance)))
        .bind(rests_until)
        .execute(&mut transaction)
        .await
        .map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(duration(turn_at - now))
    }

    /// Lets no request of `account` to `source` be sent for `wait`, because MoEngage asked for that.
    pub async fn rest(
        &self,
        account: &str,
        source: SourceKind,
        wait: Duration,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let failed = |error| self.error("write", error);
        let mut transaction = self.begin().await?;
        let now = self.clock(&mut transaction, now).await?;
        query(
            "INSERT INTO rates AS r (account, source, free_at, rests_until) VALUES ($1, $2, $3, $3)
             ON CONFLICT (account, source) DO UPDATE
             SET rests_until = excluded.rests_until WHERE r.rests_until < excluded.rests_until",
        )
        .bind(account)
        .bind(source.as_str())
        .bind(now.saturating_add(milliseconds(wait)))
        .execute(&mut transaction)
        .await
        .map_err(failed)?;
        transaction.commit().await.map_err(failed)
    }

    /// How much longer no request of `account` to `source` may be sent because MoEngage asked for that.
    pub async fn rest_left(&self, account: &str, source: SourceKind, now: Timestamp) -> Result<Duration, LedgerError> {
        let failed = |error| self.error("read", error);
        let mut transaction = self.database.begin_reading().await.map_err(failed)?;
        let now = self.clock(&mut transaction, now).await?;
        let row = query("SELECT rests_until FROM rates WHERE account = $1 AND source = $2")
            .bind(account)
            .bind(source.as_str())
            .row(&mut transaction)
            .await
            .map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(duration(row.map_or(Ok(now), |row| self.get(&row, "rests_until"))? - now))
    }

    /// The clock of the ledger, in milliseconds: that of the server, or `local`.
    async fn clock(&self, transaction: &mut Transaction, local: Timestamp) -> Result<i64, LedgerError> {
        let Some(ask) = self.server_clock() else { return Ok(local.as_millisecond()) };
        let row = query(ask).row(transaction).await.map_err(|error| self.error("read", error))?;
        row.map_or(Ok(local.as_millisecond()), |row| self.get(&row, "now"))
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn duration(milliseconds: i64) -> Duration {
    Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0))
}
