//! Progress bars on a terminal, and a log writer that keeps them intact.

use std::{
    collections::HashMap,
    io::{self, IsTerminal, Write},
    sync::{Arc, Mutex},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing_subscriber::fmt::MakeWriter;

use crate::{lock::lock, report::PartitionId, sync::Progress};

/// The bars of all downloads in progress. Nothing is drawn unless standard error is a terminal.
#[derive(Clone)]
pub struct Bars {
    all: MultiProgress,
    each: Arc<Mutex<HashMap<PartitionId, ProgressBar>>>,
}

impl Bars {
    /// No bars yet.
    #[expect(clippy::new_without_default, reason = "a process has one set of bars, made where it begins")]
    pub fn new() -> Self {
        let target =
            if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { all: MultiProgress::with_draw_target(target), each: Arc::default() }
    }

    /// A log writer that hides the bars while it writes.
    pub fn log_writer(&self) -> LogWriter {
        LogWriter { bars: self.all.clone() }
    }

    fn with(&self, partition: &PartitionId, act: impl FnOnce(&ProgressBar)) {
        if let Some(bar) = lock(&self.each).get(partition) {
            act(bar);
        }
    }
}

impl Progress for Bars {
    fn begin(&self, partition: &PartitionId, total: Option<u64>) {
        if self.all.is_hidden() {
            return;
        }
        let template = match total {
            Some(_) => "{msg:40!} {bar:24} {bytes:>10} of {total_bytes:<10} {bytes_per_sec:>12}  {eta}",
            None => "{msg:40!} {spinner} {bytes:>10} {bytes_per_sec:>12}",
        };
        let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new).with_message(partition.to_string());
        let bar = self.all.add(bar);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        lock(&self.each).insert(partition.clone(), bar);
    }

    fn advance(&self, partition: &PartitionId, bytes: u64) {
        if !self.all.is_hidden() {
            self.with(partition, |bar| bar.inc(bytes));
        }
    }

    fn end(&self, partition: &PartitionId) {
        if let Some(bar) = lock(&self.each).remove(partition) {
            bar.finish_and_clear();
        }
    }
}

/// See [`Bars::log_writer`].
#[derive(Clone)]
pub struct LogWriter {
    bars: MultiProgress,
}

impl MakeWriter<'_> for LogWriter {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bars.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
