//! Duties: work that one process of the ledger does at a time.
//!
//! A duty belongs to its holder until that process ends or dies; then the next one that asks gets it. Between two
//! questions a process that was stopped for long may still believe that a duty is its own: what it does must be harmless
//! when another does it as well, or ask again in the transaction that writes.

use super::{
    Ledger, LedgerError,
    database::{Transaction, query},
};

/// What one process does for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// Learns stored objects from their manifests, removes what dead processes staged, deletes old attempts.
    Recovery,
    /// Evaluates the plan's alarms and sends events.
    Notifying,
    /// Decides of which reports tables are made, and in which format: by its configuration.
    Tables,
}

impl Duty {
    /// The name in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recovery => "recovery",
            Self::Notifying => "notifying",
            Self::Tables => "tables",
        }
    }
}

/// Whether this process has a duty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DutyTaken {
    /// It has, and no other had it since this process last asked.
    Kept,
    /// It has from now on.
    Begun,
    /// Another process has it.
    Theirs,
}

impl DutyTaken {
    /// Whether this process has it.
    pub fn is_ours(self) -> bool {
        self != Self::Theirs
    }
}

impl Ledger {
    /// Asks for `duty`.
    pub async fn take_duty(&self, duty: Duty) -> Result<DutyTaken, LedgerError> {
        let row = query("SELECT holder FROM duties WHERE name = $1")
            .bind(duty.as_str())
            .read_one(&self.database)
            .await
            .map_err(|error| self.error("read", error))?;
        let holder = row.map(|row| self.text(&row, "holder")).transpose()?;
        let query = match &holder {
            Some(holder) if holder == self.holder_name() => return Ok(DutyTaken::Kept),
            Some(holder) if self.is_alive(holder).await => return Ok(DutyTaken::Theirs),
            // Unless another process is quicker.
            Some(dead) => query("UPDATE duties SET holder = $2 WHERE name = $1 AND holder = $3")
                .bind(duty.as_str())
                .bind(self.holder_name())
                .bind(dead),
            None => query("INSERT INTO duties (name, holder) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
                .bind(duty.as_str())
                .bind(self.holder_name()),
        };
        let taken = query.change(&self.database).await.map_err(|error| self.error("write", error))?;
        Ok(if taken == 1 { DutyTaken::Begun } else { DutyTaken::Theirs })
    }

    /// Whether this process has `duty`, until the transaction ends.
    pub(super) async fn has_duty(&self, transaction: &mut Transaction, duty: Duty) -> Result<bool, LedgerError> {
        let held = query("SELECT 1 FROM duties WHERE name = $1 AND holder = $2");
        let held = held.bind(duty.as_str()).bind(self.holder_name()).row(transaction).await;
        held.map(|row| row.is_some()).map_err(|error| self.error("read", error))
    }

    /// Takes `duty`, whichever process has it.
    pub async fn take_over_duty(&self, duty: Duty) -> Result<(), LedgerError> {
        let query = query(
            "INSERT INTO duties (name, holder) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE SET holder = excluded.holder",
        );
        self.change(query.bind(duty.as_str()).bind(self.holder_name())).await
    }
}
