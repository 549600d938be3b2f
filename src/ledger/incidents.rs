//! Alarms about processes: each process writes its own, and reads those of the others.
//!
//! They are void once their process has ended or died, however that happens. This file must not know who is notified.

use std::collections::BTreeMap;

use super::{Ledger, LedgerError, database::query};
use crate::alarm_kind::AlarmKind;

impl Ledger {
    /// Notes that the alarms about this process are exactly `own`, with their messages. Returns those about all other
    /// processes that live.
    pub async fn share_incidents(
        &self,
        own: &BTreeMap<AlarmKind, String>,
    ) -> Result<BTreeMap<AlarmKind, String>, LedgerError> {
        let mut by_holder: BTreeMap<String, BTreeMap<AlarmKind, String>> = BTreeMap::new();
        for row in &self.read("SELECT holder, alarm, message FROM incidents").await? {
            let kind = self.known("incidents.alarm", &self.text(row, "alarm")?, AlarmKind::parse)?;
            by_holder.entry(self.text(row, "holder")?).or_default().insert(kind, self.text(row, "message")?);
        }
        if by_holder.remove(self.holder_name()).unwrap_or_default() != *own {
            self.replace_incidents(own).await?;
        }
        let mut others: BTreeMap<AlarmKind, String> = BTreeMap::new();
        for (holder, incidents) in by_holder {
            if !self.is_alive(&holder).await {
                self.change(query("DELETE FROM incidents WHERE holder = $1").bind(&holder)).await?;
                continue;
            }
            for (kind, message) in incidents {
                others.entry(kind).and_modify(|all| *all += &format!("; {message}")).or_insert(message);
            }
        }
        Ok(others)
    }

    async fn replace_incidents(&self, own: &BTreeMap<AlarmKind, String>) -> Result<(), LedgerError> {
        let failed = |error| self.error("write", error);
        let mut transaction = self.begin().await?;
        let delete = query("DELETE FROM incidents WHERE holder = $1").bind(self.holder_name());
        delete.execute(&mut transaction).await.map_err(failed)?;
        for (kind, message) in own {
            query("INSERT INTO incidents (holder, alarm, message) VALUES ($1, $2, $3)")
                .bind(self.holder_name())
                .bind(kind.as_str())
                .bind(message)
                .execute(&mut transaction)
                .await
                .map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)
    }
}
