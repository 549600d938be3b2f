//! How many downloads run or wait, for work that gives way to them.

use tokio::sync::watch;

/// Number of attempts that run, and that wait for a slot. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Load(watch::Sender<(usize, usize)>);

impl Load {
    pub(super) fn new() -> Self {
        Load(watch::Sender::new((0, 0)))
    }

    pub(super) fn set(&self, running: usize, waiting: usize) {
        self.0.send_if_modified(|known| std::mem::replace(known, (running, waiting)) != (running, waiting));
    }

    /// Number of attempts that run.
    pub(super) fn running(&self) -> usize {
        self.0.borrow().0
    }

    /// Returns once no attempt runs or waits.
    pub(super) async fn is_idle(&self) {
        // Fails only without a sender, and this is one.
        let _ = self.0.subscribe().wait_for(|attempts| *attempts == (0, 0)).await;
    }
}
