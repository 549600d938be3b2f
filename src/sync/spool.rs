//! The records of a snapshot, on disk while they are gathered, and their way out in order.
//!
//! This file owns the bound on memory: of a record only its key and its place are remembered. It must not know what a
//! record is. The file has no name, so nothing is left of it however the process ends.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
    path::Path,
};

use bytes::Bytes;
use flate2::{Compression, GzBuilder, write};
use tokio::sync::mpsc;

use crate::ndjson::Lines;

/// Compressed bytes handed on at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Chunks that may wait for the consumer.
const CHUNKS_WAITING: usize = 4;

/// Records by key, the later one of two with the same.
#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    end: u64,
    places: BTreeMap<String, Extent>,
}

#[derive(Debug, Clone, Copy)]
struct Extent {
    at: u64,
    bytes: usize,
    lines: u64,
}

impl Spool {
    /// An empty one, in a file without a name on the disk of `folder`. Blocks.
    pub(super) fn create(folder: &Path) -> io::Result<Self> {
        Ok(Self { file: tempfile::tempfile_in(folder)?, end: 0, places: BTreeMap::new() })
    }

    /// Forgets all records.
    pub(super) fn clear(&mut self) {
        self.places.clear();
        self.end = 0;
    }

    /// Adds records. Blocks.
    pub(super) fn put(&mut self, records: Vec<(String, Lines)>) -> io::Result<()> {
        let mut text = String::new();
        for (key, lines) in records {
            let at = self.end + text.len() as u64;
            text.push_str(&lines.text);
            self.places.insert(key, Extent { at, bytes: lines.text.len(), lines: lines.count });
        }
        self.file.write_all_at(text.as_bytes(), self.end)?;
        self.end += text.len() as u64;
        Ok(())
    }

    /// Bytes on disk, those of records that were replaced included.
    pub(super) fn bytes(&self) -> u64 {
        self.end
    }

    /// How many lines there are.
    pub(super) fn lines(&self) -> u64 {
        self.places.values().map(|place| place.lines).sum()
    }

    /// All lines in the order of their keys, as one gzip member that holds a file called `name`: the same records give
    /// the same bytes. They come from a thread of their own, which ends when the consumer is dropped.
    pub(super) fn into_gzip(self, name: String) -> mpsc::Receiver<io::Result<Bytes>> {
        let (chunks, receiver) = mpsc::channel(CHUNKS_WAITING);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = self.write_gzip(name, &chunks) {
                // The consumer may be gone.
                let _ = chunks.blocking_send(Err(error));
            }
        });
        receiver
    }

    fn write_gzip(self, name: String, chunks: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
        // No time in the header: it would make the same records other bytes.
        let mut encoder = GzBuilder::new().filename(name).mtime(0).write(Vec::new(), Compression::default());
        let mut record = Vec::new();
        for place in self.places.values() {
            record.resize(place.bytes, 0);
            self.file.read_exact_at(&mut record, place.at)?;
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

/// Counts the lines of a compressed snapshot that passes by.
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
    /// Takes the next bytes. Fails if they are not gzip.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// How many lines have passed.
    pub(super) fn total(mut self) -> io::Result<u64> {
        self.0.try_finish()?;
        Ok(self.0.get_ref().0)
    }
}
