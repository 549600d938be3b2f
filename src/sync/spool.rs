//! The records of a snapshot, on disk while they are gathered, and read back in order.
//!
//! This file owns the bound on memory: of a record only its key and its position are in memory. It must not know what a
//! record is. The file has no name, so nothing is left of it however the process ends.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use flate2::{Compression, GzBuilder, write};
use tokio::sync::mpsc;

use crate::{
    ndjson::Lines,
    outcome::{Failure, Outcome},
    temporary::temporary_file,
};

/// Size in bytes from which compressed bytes are handed on.
const CHUNK_BYTES: usize = 64 * 1024;

/// Chunks that may wait for the consumer.
const CHUNKS_WAITING: usize = 4;

/// Records by key. A later record replaces one with the same key.
#[derive(Debug)]
pub(super) struct Spool {
    file: Arc<File>,
    end: u64,
    extents: BTreeMap<String, Extent>,
}

/// Where a record is in the file.
#[derive(Debug, Clone, Copy)]
struct Extent {
    at: u64,
    bytes: usize,
    lines: u64,
}

impl Spool {
    /// An empty spool, in a file without a name: in the folder of the `ledger`'s file, where there is room for data, or in
    /// the system's folder for temporary files.
    pub(super) async fn create(ledger: Option<&Path>) -> io::Result<Self> {
        let ledger = ledger.map(Path::to_owned);
        let file = blocking(move || temporary_file(ledger.as_deref())).await?;
        Ok(Self { file: Arc::new(file), end: 0, extents: BTreeMap::new() })
    }

    /// Discards all records.
    pub(super) fn clear(&mut self) {
        self.extents.clear();
        self.end = 0;
    }

    /// Adds records, which are made on a thread that may block.
    pub(super) async fn put(
        &mut self,
        records: impl FnOnce() -> Result<Vec<(String, Lines)>, Failure> + Send + 'static,
    ) -> Result<(), Failure> {
        let (file, start) = (Arc::clone(&self.file), self.end);
        let written = blocking(move || {
            let records = match records() {
                Ok(records) => records,
                Err(failure) => return Ok(Err(failure)),
            };
            let (mut text, mut extents) = (String::new(), Vec::new());
            for (key, lines) in records {
                let at = start + text.len() as u64;
                text.push_str(&lines.text);
                extents.push((key, Extent { at, bytes: lines.text.len(), lines: lines.count }));
            }
            file.write_all_at(text.as_bytes(), start)?;
            Ok(Ok((start + text.len() as u64, extents)))
        });
        let (end, extents) = written.await.map_err(|error| spool_failure("write", &error))??;
        self.end = end;
        self.extents.extend(extents);
        Ok(())
    }

    /// Bytes on disk, including those of replaced records.
    pub(super) fn bytes(&self) -> u64 {
        self.end
    }

    /// Number of lines.
    pub(super) fn lines(&self) -> u64 {
        self.extents.values().map(|extent| extent.lines).sum()
    }

    /// All lines in the order of their keys, as one gzip member that holds a file called `name`: the same records give
    /// the same bytes. They are compressed on a thread that ends when the receiver is dropped.
    pub(super) fn into_gzip(self, name: String) -> mpsc::Receiver<io::Result<Bytes>> {
        let (chunks, receiver) = mpsc::channel(CHUNKS_WAITING);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = self.write_gzip(name, &chunks) {
                // The receiver may be gone.
                let _ = chunks.blocking_send(Err(error));
            }
        });
        receiver
    }

    fn write_gzip(self, name: String, chunks: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
        // No time in the header: the same records give the same bytes.
        let mut encoder = GzBuilder::new().filename(name).mtime(0).write(Vec::new(), Compression::default());
        let mut record = Vec::new();
        for extent in self.extents.values() {
            record.resize(extent.bytes, 0);
            self.file.read_exact_at(&mut record, extent.at)?;
            encoder.write_all(&record)?;
            if encoder.get_ref().len() >= CHUNK_BYTES {
                let chunk = std::mem::take(encoder.get_mut());
                if chunks.blocking_send(Ok(chunk.into())).is_err() {
                    return Ok(());
                }
            }
        }
        let _ = chunks.blocking_send(Ok(encoder.finish()?.into()));
        Ok(())
    }
}

pub(super) fn spool_failure(action: &str, error: &io::Error) -> Failure {
    Failure::new(Outcome::StoreFailed, format!("could not {action} the temporary file that collects pages: {error}"))
}

async fn blocking<T: Send + 'static>(step: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(step).await.unwrap_or_else(|failure| Err(io::Error::other(failure)))
}

/// Counts the lines of a compressed snapshot.
pub(super) struct LineCount(write::MultiGzDecoder<Counter>);

#[derive(Default)]
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += memchr::memchr_iter(b'\n', bytes).count() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Default for LineCount {
    fn default() -> Self {
        Self(write::MultiGzDecoder::new(Counter::default()))
    }
}

impl LineCount {
    /// Takes the next bytes. An error means that they are not gzip.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// Number of lines, after the last bytes.
    pub(super) fn total(mut self) -> io::Result<u64> {
        self.0.try_finish()?;
        Ok(self.0.get_ref().0)
    }
}
