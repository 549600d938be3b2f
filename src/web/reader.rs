//! The ledger for one request. A file gets its own connection, so that requests do not wait for a writer.

use crate::{
    ledger::{self, Ledger, LedgerError},
    sync::Context,
};

/// The ledger, opened for one request.
pub(super) async fn read_ledger(ctx: &Context) -> Result<Ledger, LedgerError> {
    let Some(file) = ctx.ledger.file() else { return Ok(ctx.ledger.clone()) };
    // A deleted file is created again within a minute; until then the daemon's own connection is used.
    Ok(ledger::open_read_only(file).await?.unwrap_or_else(|| ctx.ledger.clone()))
}
