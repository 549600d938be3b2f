//! Progress bars on a terminal, and a log writer that keeps them intact.

use std::{
    collections::{HashMap, HashSet},
    io::{self, IsTerminal, Write},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing_subscriber::fmt::MakeWriter;

use crate::{lock::lock, report::PartitionId, sync::Progress, telemetry, words};

/// The bars of all downloads in progress, below one of how many are done. Nothing is drawn unless standard error is a
/// terminal that can move its cursor.
#[derive(Clone)]
pub struct Bars {
    all: MultiProgress,
    drawn: Arc<Mutex<Drawn>>,
}

#[derive(Default)]
struct Drawn {
    each: HashMap<PartitionId, ProgressBar>,
    attempted: HashSet<PartitionId>,
    total: Option<ProgressBar>,
}

/// A bar that counts objects and their bytes.
pub struct Counter {
    bar: ProgressBar,
    bytes: AtomicU64,
}

impl Counter {
    /// Counts one more object, of so many bytes.
    pub fn count(&self, bytes: u64) {
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.bar.set_message(words::size(bytes));
        self.bar.inc(1);
    }
}

impl Bars {
    /// No bars yet.
    #[expect(clippy::new_without_default, reason = "a process has one set of bars, made where it begins")]
    pub fn new() -> Self {
        let is_dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
        let target = match io::stderr().is_terminal() && !is_dumb {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        Self { all: MultiProgress::with_draw_target(target), drawn: Arc::default() }
    }

    /// Writes a line to standard error, above the bars.
    pub fn say(&self, line: &str) {
        self.all.suspend(|| telemetry::tell(line));
    }

    /// Removes every bar, also those of downloads that were broken off: what is printed next stays.
    pub fn clear(&self) {
        let Drawn { each, total, .. } = std::mem::take(&mut *lock(&self.drawn));
        for bar in each.into_values().chain(total) {
            bar.finish_and_clear();
        }
        // Nothing is left to draw; an error would be that of a closed terminal.
        let _ = self.all.clear();
    }

    /// Counts objects, of `total` if that is known.
    pub fn counter(&self, total: Option<u64>) -> Counter {
        let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
        let template = if total.is_some() { "{pos} of {len} objects, {msg}" } else { "{pos} objects, {msg}" };
        let bar = with_style(self.all.add(bar), template);
        lock(&self.drawn).total = Some(bar.clone());
        Counter { bar, bytes: AtomicU64::new(0) }
    }

    /// A log writer that hides the bars while it writes.
    pub fn log_writer(&self) -> LogWriter {
        LogWriter { bars: self.all.clone() }
    }

    fn with(&self, partition: &PartitionId, act: impl FnOnce(&ProgressBar)) {
        if let Some(bar) = lock(&self.drawn).each.get(partition) {
            act(bar);
        }
    }
}

fn with_style(bar: ProgressBar, template: &str) -> ProgressBar {
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

impl Progress for Bars {
    fn expect(&self, partitions: usize) {
        if self.all.is_hidden() || partitions == 0 {
            return;
        }
        let mut drawn = lock(&self.drawn);
        let total = drawn.total.get_or_insert_with(|| with_style(self.all.add(ProgressBar::new(0)), "{pos} of {len}"));
        // A later pass repeats partitions of an earlier one.
        total.set_length(total.length().unwrap_or(0).max(partitions as u64));
    }

    fn begin(&self, partition: &PartitionId, total: Option<u64>) {
        if self.all.is_hidden() {
            return;
        }
        let template = match total {
            Some(_) => "{wide_msg} {bar:10} {percent:>3}% {bytes:>10} {bytes_per_sec:>12} {eta:>4}",
            None => "{wide_msg} {spinner} {bytes:>10} {bytes_per_sec:>12}",
        };
        // The date comes first: what does not fit is cut at the end.
        let message = format!("{} {}", partition.date, partition.report);
        let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new).with_message(message);
        let bar = with_style(self.all.add(bar), template);
        lock(&self.drawn).each.insert(partition.clone(), bar);
    }

    fn advance(&self, partition: &PartitionId, bytes: u64) {
        if !self.all.is_hidden() {
            self.with(partition, |bar| bar.inc(bytes));
        }
    }

    fn end(&self, partition: &PartitionId) {
        let mut drawn = lock(&self.drawn);
        if let Some(bar) = drawn.each.remove(partition) {
            bar.finish_and_clear();
        }
        if drawn.attempted.insert(partition.clone())
            && let Some(total) = &drawn.total
        {
            total.inc(1);
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
