//! The connection to the ledger that one request reads through.

use crate::{
    ledger::{self, Ledger, LedgerError},
    sync::Context,
};

/// The ledger, opened for one request.
pub(super) async fn read_ledger(ctx: &Context) -> Result<Ledger, LedgerError> {
    // A deleted file is created again within a minute; until then the daemon's own connection is used.
    Ok(ledger::open_read_only(ctx.ledger.path()).await?.unwrap_or_else(|| ctx.ledger.clone()))
}
