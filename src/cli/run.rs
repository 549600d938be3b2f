//! `moesync run`: the daemon.

use std::sync::Arc;

use super::{
    Completion, Result,
    shell::{Shell, environment},
};
use crate::{config, daemon, sync::Progress};

pub(super) async fn run(shell: &Shell) -> Result {
    let path = config::locate(shell.config.as_deref())?;
    let load = move || config::load(&path, environment());
    let progress: Arc<dyn Progress> = Arc::new(());
    daemon::run(load, Arc::clone(&shell.clock), progress).await?;
    Ok(Completion::Done)
}
