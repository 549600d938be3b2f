//! What is in the archives: plausible campaign reports, the same bytes for the same names, in every process.
//!
//! This file owns contents and how they are kept while served. It must not know who asks or whether they may.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufWriter, Write},
    os::unix::fs::FileExt,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use jiff::civil::Date;
use rand::{Rng, SeedableRng, rngs::Xoshiro256PlusPlus};
use sha2::{Digest, Sha256};
use tempfile::{SpooledData, SpooledTempFile};
use tokio::{sync::OnceCell, task::spawn_blocking};
use zip::{CompressionMethod, DateTime, ZipWriter, write::SimpleFileOptions};

use super::Container;

/// Archives larger than this lie in an unlinked temporary file instead of memory.
const IN_MEMORY: usize = 1 << 20;
/// How many archives are kept for the next request. The others are simply built again.
const KEPT: usize = 64;
/// What one row comes to when compressed, in bytes.
const COMPRESSED_ROW: u64 = 68;
/// Above this an entry might pass 4 GiB, for which a zip writer must leave room in advance.
const LARGE_FILE: u64 = 1 << 30;

/// The columns of MoEngage's campaign report that most accounts have.
const HEADER: &str = "Campaign ID,Campaign Name,Channel,Campaign Type,Delivery Type,Sent Date,Sent,Impressions,Clicks,\
                      CTR,Conversions,CVR,Revenue,Currency\r\n";

/// Each channel with its share of the rows, in percent.
const CHANNELS: [(&str, u64); 5] = [("PUSH", 40), ("EMAIL", 25), ("SMS", 15), ("IN_APP", 12), ("WHATSAPP", 8)];
const THEMES: [&str; 8] = [
    "Welcome series",
    "Cart abandoned",
    "\"Flash sale, 24 h\"",
    "Price drop",
    "Año nuevo 50% off",
    "Win-back",
    "Für dich empfohlen",
    "Feature launch",
];
const TYPES: [(&str, &str); 4] =
    [("General", "One Time"), ("General", "Periodic"), ("Smart Trigger", "Event Triggered"), ("Flow", "Flow Node")];

/// All that the bytes of an archive follow from, but for the seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recipe {
    pub(super) app_id: String,
    pub(super) file_name: String,
    pub(super) date: Date,
    /// About how large, in bytes.
    pub(super) bytes: u64,
    pub(super) container: Container,
}

/// A finished archive, readable by many at once.
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

    /// The same inside one more layer of gzip, as a server with `Content-Encoding` sends it.
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

type Slot = (Recipe, Arc<OnceCell<Arc<Archive>>>);

/// Builds archives, and keeps the last few.
#[derive(Debug)]
pub(super) struct Archives {
    seed: u64,
    recent: Mutex<VecDeque<Slot>>,
}

impl Archives {
    pub(super) fn new(seed: u64) -> Archives {
        Archives { seed, recent: Mutex::default() }
    }

    /// The archive of `recipe`, built unless it is kept still. Who asks meanwhile waits for the same one.
    pub(super) async fn get(&self, recipe: Recipe) -> io::Result<Arc<Archive>> {
        let cell = self.slot(&recipe);
        let seed = self.seed;
        let build = || async move { spawn_blocking(move || build(seed, &recipe)).await.map_err(io::Error::other)? };
        cell.get_or_try_init(build).await.cloned()
    }

    fn slot(&self, recipe: &Recipe) -> Arc<OnceCell<Arc<Archive>>> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
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

/// A number that depends on the recipe alone, for faults that strike somewhere.
pub(super) fn somewhere(recipe: &Recipe) -> u64 {
    generator(0, "somewhere", recipe).next_u64()
}

fn digest(seed: u64, purpose: &str, recipe: &Recipe) -> [u8; 32] {
    Sha256::new()
        .chain_update(seed.to_be_bytes())
        .chain_update(format!("{purpose}|{}|{}", recipe.app_id, recipe.file_name))
        .finalize()
        .into()
}

/// An algorithm by name, because the standard generator of `rand` may change with its version.
fn generator(seed: u64, purpose: &str, recipe: &Recipe) -> Xoshiro256PlusPlus {
    Xoshiro256PlusPlus::from_seed(digest(seed, purpose, recipe))
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
    let mut rows = Rows { random: generator(seed, "contents", recipe), date: recipe.date };
    let total = recipe.bytes / COMPRESSED_ROW;
    let archive = match recipe.container {
        Container::Zip => {
            let midnight = recipe.date.at(0, 0, 0, 0);
            let options = SimpleFileOptions::default()
                .compression_method(CompressionMethod::Deflated)
                .compression_level(Some(1))
                .last_modified_time(DateTime::try_from(midnight).unwrap_or_default())
                .large_file(recipe.bytes > LARGE_FILE);
            let mut zip = ZipWriter::new(spool());
            for (channel, percent) in CHANNELS {
                zip.start_file(format!("{channel}.csv"), options)?;
                let mut out = BufWriter::new(&mut zip);
                out.write_all(HEADER.as_bytes())?;
                rows.write(&mut out, channel, total * percent / 100)?;
                out.flush()?;
            }
            zip.finish()?
        }
        Container::Gzip => {
            let mut out = BufWriter::new(GzEncoder::new(spool(), Compression::fast()));
            out.write_all(HEADER.as_bytes())?;
            for (channel, percent) in CHANNELS {
                rows.write(&mut out, channel, total * percent / 100)?;
            }
            out.into_inner().map_err(io::IntoInnerError::into_error)?.finish()?
        }
    };
    finished(archive).map(Arc::new)
}

struct Rows {
    random: Xoshiro256PlusPlus,
    date: Date,
}

impl Rows {
    /// Writes `count` rows, at least one.
    fn write(&mut self, out: &mut impl Write, channel: &str, count: u64) -> io::Result<()> {
        for number in 1..=count.max(1) {
            let (id, id_tail) = (self.random.next_u64(), self.random.next_u64() as u32);
            let theme = THEMES[self.below(THEMES.len() as u64) as usize];
            let (campaign_type, delivery_type) = TYPES[self.below(TYPES.len() as u64) as usize];
            // Each number is a share of the one before, as in any real funnel.
            let sent = 100 + self.below(400_000);
            let impressions = sent * (20 + self.below(75)) / 100;
            let clicks = impressions * self.below(120) / 1000;
            let conversions = clicks * self.below(200) / 1000;
            let cents = conversions * (500 + self.below(8_000));
            // A quoted name stays quoted: the number follows in a field of its own shape.
            let name = match theme.strip_suffix('"') {
                Some(quoted) => format!("{quoted} #{number}\""),
                None => format!("{theme} #{number}"),
            };
            write!(
                out,
                "{id:016x}{id_tail:08x},{name},{channel},{campaign_type},{delivery_type},{date},{sent},{impressions},\
                 {clicks},{ctr:.2},{conversions},{cvr:.2},{units}.{cents:02},EUR\r\n",
                date = self.date,
                ctr = percentage(clicks, impressions),
                cvr = percentage(conversions, clicks),
                units = cents / 100,
                cents = cents % 100,
            )?;
        }
        Ok(())
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random.next_u64() % limit
    }
}

fn percentage(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}
