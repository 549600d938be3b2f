//! Packs the tables of an export: the same bytes for the same names, in every process.
//!
//! This file owns formats and the cache of archives. It must not know the content of tables, requests or credentials.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufWriter, Seek as _, Write},
    os::unix::fs::FileExt,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use jiff::{civil::Date, tz::TimeZone};
use rand::Rng as _;
use tempfile::{SpooledData, SpooledTempFile};
use tokio::{sync::OnceCell, task::spawn_blocking};
use zip::{CompressionMethod, DateTime, ZipWriter, write::SimpleFileOptions};

use super::{
    Container,
    exports::{MIXED, TABLES},
    recipe::{Recipe, digest, generator},
};
use crate::lock::lock;

/// Archives above this size, in bytes, are kept in an unlinked temporary file.
const IN_MEMORY: usize = 1 << 20;
/// Size of the cache, in archives. Others are built again.
const KEPT: usize = 64;
/// The size of a row of a channel's table, in bytes: compressed, and plain.
const COMPRESSED_ROW: u64 = 90;
const PLAIN_ROW: u64 = 222;
/// The size of a row of all channels, in bytes, compressed.
const MIXED_ROW: u64 = 67;
const TAR_BLOCK: u64 = 512;
/// Above this size, in bytes, an entry may exceed 4 GiB, for which the zip writer reserves header fields.
const LARGE_FILE: u64 = 1 << 30;

/// A finished archive. Many requests can read it concurrently.
#[derive(Debug)]
pub(super) enum Archive {
    Memory(Bytes),
    Disk { file: File, size: u64 },
}

impl Archive {
    /// In bytes.
    pub(super) fn size(&self) -> u64 {
        match self {
            Archive::Memory(bytes) => bytes.len() as u64,
            Archive::Disk { size, .. } => *size,
        }
    }

    /// The bytes from `at`, `length` of them; both lie within [`Archive::size`].
    pub(super) async fn read(self: Arc<Self>, at: u64, length: usize) -> io::Result<Bytes> {
        match &*self {
            Archive::Memory(_) => self.read_blocking(at, length),
            Archive::Disk { .. } => {
                spawn_blocking(move || self.read_blocking(at, length)).await.map_err(io::Error::other)?
            }
        }
    }

    fn read_blocking(&self, at: u64, length: usize) -> io::Result<Bytes> {
        match self {
            Archive::Memory(bytes) => Ok(bytes.slice(at as usize..at as usize + length)),
            Archive::Disk { file, .. } => {
                let mut buffer = vec![0; length];
                file.read_exact_at(&mut buffer, at)?;
                Ok(buffer.into())
            }
        }
    }

    /// This archive inside one more layer of gzip.
    pub(super) async fn gzipped(self: Arc<Self>) -> io::Result<Archive> {
        spawn_blocking(move || {
            let mut encoder = GzEncoder::new(spool(), Compression::fast());
            let mut at = 0;
            while at < self.size() {
                let length = (self.size() - at).min(IN_MEMORY as u64);
                encoder.write_all(&self.read_blocking(at, length as usize)?)?;
                at += length;
            }
            finished(encoder.finish()?)
        })
        .await
        .map_err(io::Error::other)?
    }
}

type CachedArchive = (Recipe, Arc<OnceCell<Arc<Archive>>>);

/// Builds archives and caches the last few.
#[derive(Debug)]
pub(super) struct Archives {
    seed: u64,
    recent: Mutex<VecDeque<CachedArchive>>,
}

impl Archives {
    pub(super) fn new(seed: u64) -> Archives {
        Archives { seed, recent: Mutex::default() }
    }

    /// The archive of `recipe`, built if it is not cached. Concurrent calls wait for the same build.
    pub(super) async fn get(&self, recipe: Recipe) -> io::Result<Arc<Archive>> {
        let cell = self.slot(&recipe);
        let seed = self.seed;
        let build = || async move { spawn_blocking(move || build(seed, &recipe)).await.map_err(io::Error::other)? };
        cell.get_or_try_init(build).await.cloned()
    }

    fn slot(&self, recipe: &Recipe) -> Arc<OnceCell<Arc<Archive>>> {
        let mut recent = lock(&self.recent);
        if let Some((_, cell)) = recent.iter().find(|(kept, _)| kept == recipe) {
            return cell.clone();
        }
        if recent.len() == KEPT {
            recent.pop_front();
        }
        let cell = Arc::default();
        recent.push_back((recipe.clone(), Arc::clone(&cell)));
        cell
    }

    /// A secret of the emulator's own that depends on the seed, the recipe and the `purpose`, in 64 hex digits.
    pub(super) fn token(&self, purpose: &str, recipe: &Recipe) -> String {
        hex::encode(digest(self.seed, purpose, recipe))
    }
}

fn spool() -> SpooledTempFile {
    SpooledTempFile::new(IN_MEMORY)
}

fn finished(spool: SpooledTempFile) -> io::Result<Archive> {
    Ok(match spool.into_inner() {
        SpooledData::InMemory(cursor) => Archive::Memory(cursor.into_inner().into()),
        SpooledData::OnDisk(file) => Archive::Disk { size: file.metadata()?.len(), file },
    })
}

fn build(seed: u64, recipe: &Recipe) -> io::Result<Arc<Archive>> {
    let rows = recipe.bytes / COMPRESSED_ROW;
    let archive = match recipe.container {
        Container::Zip => {
            let options = SimpleFileOptions::default()
                .compression_method(CompressionMethod::Deflated)
                .compression_level(Some(1))
                .last_modified_time(DateTime::try_from(recipe.date.at(0, 0, 0, 0)).unwrap_or_default())
                .large_file(recipe.bytes > LARGE_FILE);
            let mut zip = ZipWriter::new(spool());
            for table in TABLES {
                zip.start_file(table.path(recipe), options)?;
                let mut out = BufWriter::new(&mut zip);
                table.write(&mut out, recipe, seed, table.share(rows))?;
                out.flush()?;
            }
            zip.finish()?
        }
        Container::Gzip => {
            let mut out = BufWriter::new(GzEncoder::new(spool(), Compression::fast()));
            MIXED.write(&mut out, recipe, seed, recipe.bytes / MIXED_ROW)?;
            out.into_inner().map_err(io::IntoInnerError::into_error)?.finish()?
        }
        Container::Tar => {
            let mut out = BufWriter::new(spool());
            // Without compression.
            tar(&mut out, recipe, seed, recipe.bytes / PLAIN_ROW)?;
            out.into_inner().map_err(io::IntoInnerError::into_error)?
        }
        Container::TarGz => {
            let mut out = BufWriter::new(GzEncoder::new(spool(), Compression::fast()));
            tar(&mut out, recipe, seed, rows)?;
            out.into_inner().map_err(io::IntoInnerError::into_error)?.finish()?
        }
        Container::Rar => {
            let (mut out, mut random) = (BufWriter::new(spool()), generator(seed, "contents", recipe));
            out.write_all(b"Rar!\x1a\x07\x01\x00")?;
            for _ in 0..(recipe.bytes / 8).max(8) {
                out.write_all(&random.next_u64().to_be_bytes())?;
            }
            out.into_inner().map_err(io::IntoInnerError::into_error)?
        }
    };
    finished(archive).map(Arc::new)
}

/// Writes the tables as POSIX ustar.
fn tar(out: &mut impl Write, recipe: &Recipe, seed: u64, rows: u64) -> io::Result<()> {
    for table in TABLES {
        // The header, with the size, precedes the contents.
        let mut contents = BufWriter::new(spool());
        table.write(&mut contents, recipe, seed, table.share(rows))?;
        let mut contents = contents.into_inner().map_err(io::IntoInnerError::into_error)?;
        let size = contents.stream_position()?;
        contents.rewind()?;
        out.write_all(&tar_header(&table.path(recipe), size, recipe.date)?)?;
        io::copy(&mut contents, out)?;
        out.write_all(&[0; TAR_BLOCK as usize][..(size.next_multiple_of(TAR_BLOCK) - size) as usize])?;
    }
    out.write_all(&[0; 2 * TAR_BLOCK as usize])
}

fn tar_header(path: &str, size: u64, date: Date) -> io::Result<[u8; TAR_BLOCK as usize]> {
    let mut header = [0; TAR_BLOCK as usize];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    // Longer names and sizes need tar extensions.
    if path.len() > 100 || size >= 1 << 33 {
        return Err(io::Error::other(format!("a tar of the emulator cannot hold {path} of {size} bytes")));
    }
    let modified = date.to_zoned(TimeZone::UTC).map_or(0, |midnight| midnight.timestamp().as_second().max(0));
    put(0, path.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, format!("{modified:011o}\0").as_bytes());
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(header)
}
