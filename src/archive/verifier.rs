//! The verifier as a push parser: bytes in, in pieces of any length, and a judgement at the end.
//!
//! This file owns what the formats share: the limits, inflating, zeros after the end. It must not know threads or
//! where its bytes come from. How the bytes are cut into pieces never changes the judgement.

use flate2::{Decompress, FlushDecompress, Status};

use super::{Entry, Format, Limits, RejectedKind, gzip::Gzip, tar::Tar, zip::Zip};
use crate::magic::{self, HEAD_BYTES, Magic};

/// What a verified archive holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) format: Format,
    pub(super) entries: Vec<Entry>,
    pub(super) warnings: Vec<String>,
}

/// Why an archive is not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rejection {
    pub(super) kind: RejectedKind,
    pub(super) message: String,
}

impl Rejection {
    pub(super) fn corrupt(message: impl Into<String>) -> Rejection {
        Rejection { kind: RejectedKind::Corrupt, message: message.into() }
    }

    pub(super) fn unverifiable(message: impl Into<String>) -> Rejection {
        Rejection { kind: RejectedKind::Unverifiable, message: message.into() }
    }

    pub(super) fn unsupported(message: impl Into<String>) -> Rejection {
        Rejection { kind: RejectedKind::Unsupported, message: message.into() }
    }

    /// Says in which part of the archive it was.
    pub(super) fn within(self, part: &str) -> Rejection {
        Rejection { kind: self.kind, message: format!("{part}: {}", self.message) }
    }
}

/// Judges one archive. After the first error it says the same to every further byte.
pub(super) struct Verifier {
    meter: Meter,
    state: State,
}

enum State {
    /// The first bytes, while they may still become any format, and the evidence when they become none.
    Beginning(Vec<u8>),
    Zip(Zip),
    Gzip(Gzip),
    Tar(Tar),
    Rejected(Rejection),
}

/// How much of something that is no archive is shown, in characters. [`HEAD_BYTES`] hold as many.
const SHOWN_CHARS: usize = 120;

impl Verifier {
    pub(super) fn new(limits: Limits) -> Verifier {
        Verifier { meter: Meter::new(limits), state: State::Beginning(Vec::new()) }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    ///
    /// As soon as it is certain that the archive is rejected.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Rejection> {
        let result = match &mut self.state {
            State::Beginning(_) => self.begin(bytes),
            State::Zip(zip) => zip.write(bytes, &mut self.meter).map_err(|rejection| rejection.within("zip archive")),
            State::Gzip(gzip) => {
                gzip.write(bytes, &mut self.meter).map_err(|rejection| rejection.within("gzip archive"))
            }
            State::Tar(tar) => tar.write(bytes, &mut self.meter).map_err(|rejection| rejection.within("tar archive")),
            State::Rejected(rejection) => Err(rejection.clone()),
        };
        if let Err(rejection) = &result {
            self.state = State::Rejected(rejection.clone());
        }
        result
    }

    /// Says that there are no more bytes.
    pub(super) fn finish(self) -> Result<Contents, Rejection> {
        match self.state {
            State::Beginning(head) => Err(not_an_archive(&head)),
            State::Zip(zip) => zip.finish(&self.meter).map_err(|rejection| rejection.within("zip archive")),
            State::Gzip(gzip) => gzip.finish(&self.meter).map_err(|rejection| rejection.within("gzip archive")),
            State::Tar(tar) => tar.finish(&self.meter).map_err(|rejection| rejection.within("tar archive")),
            State::Rejected(rejection) => Err(rejection),
        }
    }

    /// Decides the format by the first bytes alone.
    fn begin(&mut self, bytes: &[u8]) -> Result<(), Rejection> {
        let State::Beginning(head) = &mut self.state else { return Ok(()) };
        let seen_before = head.len();
        head.extend_from_slice(&bytes[..bytes.len().min(HEAD_BYTES - seen_before)]);
        let head = std::mem::take(head);
        self.state = match magic::recognise(&head) {
            Some(Magic::Zip) => State::Zip(Zip::new()),
            Some(Magic::Gzip) => State::Gzip(Gzip::new()),
            Some(Magic::Tar) => State::Tar(Tar::new()),
            Some(Magic::Unsupported(name)) => {
                return Err(Rejection::unsupported(format!(
                    "{name} archive: moesync cannot verify this format; choose zip in the report's settings"
                )));
            }
            Some(Magic::Unknown) => return Err(not_an_archive(&head)),
            None => {
                self.state = State::Beginning(head);
                return Ok(());
            }
        };
        self.write(&head[..seen_before])?;
        self.write(bytes)
    }
}

fn not_an_archive(head: &[u8]) -> Rejection {
    let message = if head.is_empty() {
        "neither zip, gzip nor tar: it is empty".to_owned()
    } else if head.iter().all(|byte| *byte == 0) {
        // A tar archive of nothing is nothing but zeros; so is what a failing disk returns.
        "neither zip, gzip nor tar: it begins with nothing but zeros".to_owned()
    } else {
        let shown: String = String::from_utf8_lossy(head)
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(SHOWN_CHARS)
            .collect();
        format!("neither zip, gzip nor tar: it begins with {shown:?}")
    };
    Rejection { kind: RejectedKind::NotAnArchive, message }
}

/// More than any sane report has, and few enough to remember them all in 8 MiB, their names aside.
const MOST_ENTRIES: usize = 100_000;

/// All names of an archive together, in bytes.
const MOST_NAME_BYTES: usize = 16 * 1024 * 1024;

/// The ratio is not looked at below this many inflated bytes.
const RATIO_FLOOR: u64 = 16 * 1024 * 1024;

/// Counts what an archive costs, and stops it at the limits.
pub(super) struct Meter {
    limits: Limits,
    consumed: u64,
    inflated: u64,
    entries: usize,
    name_bytes: usize,
}

impl Meter {
    fn new(limits: Limits) -> Meter {
        Meter { limits, consumed: 0, inflated: 0, entries: 0, name_bytes: 0 }
    }

    /// One for an archive within this one, with the same limits.
    pub(super) fn within(&self) -> Meter {
        Meter::new(self.limits)
    }

    /// Bytes of the archive taken so far.
    pub(super) fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Counts bytes of the archive that were taken.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.consumed += bytes as u64;
    }

    /// How many of `bytes` that an entry yielded may still be looked at.
    fn admitted(&self, bytes: usize) -> usize {
        let left = self.limits.inflated_bytes.saturating_sub(self.inflated);
        usize::try_from(left).map_or(bytes, |left| left.min(bytes))
    }

    /// Counts bytes that an entry yielded; call it after counting those that they came from.
    pub(super) fn inflate(&mut self, bytes: usize) -> Result<(), Rejection> {
        self.inflated += bytes as u64;
        let Limits { inflated_bytes, inflate_ratio, .. } = self.limits;
        if self.inflated > inflated_bytes {
            return Err(Rejection::unverifiable(format!(
                "it inflates to more than limits.inflated_bytes ({inflated_bytes} bytes)"
            )));
        }
        if self.inflated > RATIO_FLOOR && self.inflated > self.consumed.saturating_mul(inflate_ratio) {
            return Err(Rejection::unverifiable(format!(
                "it inflates to more than limits.inflate_ratio ({inflate_ratio}) times its size"
            )));
        }
        Ok(())
    }

    /// Counts an entry that is going to be remembered.
    pub(super) fn remember(&mut self, name: &[u8]) -> Result<(), Rejection> {
        self.entries += 1;
        self.name_bytes += name.len();
        if self.entries > MOST_ENTRIES {
            return Err(Rejection::unverifiable(format!("it has more than {MOST_ENTRIES} entries")));
        }
        if self.name_bytes > MOST_NAME_BYTES {
            return Err(Rejection::unverifiable(format!("its entries' names exceed {MOST_NAME_BYTES} bytes")));
        }
        Ok(())
    }
}

/// Zeros after the end of an archive, as writers to pipes and tapes put them there to fill up their last block. Nothing
/// can be hidden in them.
#[derive(Default)]
pub(super) struct Padding {
    bytes: u64,
}

/// So much at the end of a file is searched for the end of a zip archive by readers that begin there: as long as its
/// comment may be.
const SEARCHED_BYTES: u64 = u16::MAX as u64;

impl Padding {
    /// Takes all of `input`, which must be zeros.
    pub(super) fn read(&mut self, input: &mut &[u8], meter: &mut Meter) -> Result<(), Rejection> {
        if let Some(at) = input.iter().position(|byte| *byte != 0) {
            let at = meter.consumed() + at as u64;
            return Err(Rejection::unverifiable(format!("other data follows its end, at byte {at}")));
        }
        self.bytes += input.len() as u64;
        meter.consume(input.len());
        *input = &[];
        Ok(())
    }

    /// What to say of them.
    pub(super) fn warning(&self) -> Option<String> {
        let bytes = self.bytes;
        match bytes {
            0 => None,
            1..=SEARCHED_BYTES => Some(format!("{bytes} zeros follow its end")),
            _ => Some(format!("{bytes} zeros follow its end: too many for programs that search for it from behind")),
        }
    }
}

/// Takes bytes off the front of `input` until `gathered` has `wanted`; whether it has.
pub(super) fn gather(gathered: &mut Vec<u8>, wanted: usize, input: &mut &[u8], meter: &mut Meter) -> bool {
    let missing = wanted.saturating_sub(gathered.len());
    let (now, later) = input.split_at(missing.min(input.len()));
    gathered.extend_from_slice(now);
    meter.consume(now.len());
    *input = later;
    gathered.len() >= wanted
}

/// The little-endian number at `at`.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// The little-endian number at `at`.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

/// The little-endian number at `at`.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// Smaller makes inflating slower (8 KiB: by 40 %), larger no faster.
const OUTPUT_BYTES: usize = 64 * 1024;

/// Inflates one deflate stream after another; keeps only the length and CRC-32 of what comes out.
pub(super) struct Inflater {
    decompress: Decompress,
    output: Box<[u8]>,
    checksum: Checksum,
}

/// Length and CRC-32 of the bytes so far.
#[derive(Clone, Default)]
pub(super) struct Checksum {
    hasher: crc32fast::Hasher,
    pub(super) size: u64,
}

impl Checksum {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
    }

    pub(super) fn crc32(&self) -> u32 {
        self.hasher.clone().finalize()
    }
}

impl Inflater {
    pub(super) fn new() -> Inflater {
        Inflater {
            decompress: Decompress::new(false),
            output: vec![0; OUTPUT_BYTES].into_boxed_slice(),
            checksum: Checksum::default(),
        }
    }

    /// Forgets the stream before.
    pub(super) fn restart(&mut self) {
        self.decompress.reset(false);
        self.checksum = Checksum::default();
    }

    /// Takes what it can off the front of `input` and shows `see` what comes out; whether the stream has ended, in which
    /// case the rest of `input` is not its own. If it has not, all of `input` is taken.
    pub(super) fn inflate(
        &mut self,
        input: &mut &[u8],
        meter: &mut Meter,
        mut see: impl FnMut(&[u8]) -> Result<(), Rejection>,
    ) -> Result<bool, Rejection> {
        let damaged = || Rejection::corrupt("its deflate stream is damaged");
        loop {
            let (taken, given) = (self.decompress.total_in(), self.decompress.total_out());
            let status = self.decompress.decompress(input, &mut self.output, FlushDecompress::None);
            // Both are at most the lengths of buffers in memory.
            let taken = (self.decompress.total_in() - taken) as usize;
            let given = (self.decompress.total_out() - given) as usize;
            *input = &input[taken..];
            self.checksum.update(&self.output[..given]);
            meter.consume(taken);
            // What came before a limit was reached, or before the damage, is judged before that.
            see(&self.output[..meter.admitted(given)])?;
            meter.inflate(given)?;
            match status.map_err(|_| damaged())? {
                Status::StreamEnd => return Ok(true),
                Status::Ok | Status::BufError if taken == 0 && given == 0 => {
                    return if input.is_empty() { Ok(false) } else { Err(damaged()) };
                }
                Status::Ok | Status::BufError => {}
            }
        }
    }

    /// Of the current stream's output so far.
    pub(super) fn checksum(&self) -> &Checksum {
        &self.checksum
    }

    /// Compressed bytes taken by the current stream.
    pub(super) fn taken(&self) -> u64 {
        self.decompress.total_in()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const LIMITS: Limits = Limits { archive_bytes: u64::MAX, inflated_bytes: 1 << 30, inflate_ratio: 500 };

    fn judge<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Contents, Rejection> {
        let mut verifier = Verifier::new(LIMITS);
        pieces.into_iter().try_for_each(|piece| verifier.write(piece))?;
        verifier.finish()
    }

    /// Zips with known lengths, with descriptors, with zip64, a gzip with every optional field but the CRC, a tar, and the
    /// same within a gzip.
    fn archives() -> Vec<Vec<u8>> {
        let files =
            [("a.csv", "day,sent\n2026-11-21,7\n"), ("b.csv", ""), ("PK.csv", "PK\x03\x04PK\x01\x02PK\x07\x08")];
        let mut archives = Vec::new();
        for method in [::zip::CompressionMethod::Stored, ::zip::CompressionMethod::Deflated] {
            for large in [false, true] {
                let options = ::zip::write::SimpleFileOptions::default().compression_method(method).large_file(large);
                let mut seekable = ::zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
                let mut streamed = ::zip::ZipWriter::new_stream(Vec::new());
                for (name, content) in files {
                    seekable.start_file(name, options).unwrap();
                    seekable.write_all(content.as_bytes()).unwrap();
                    streamed.start_file(name, options).unwrap();
                    streamed.write_all(content.as_bytes()).unwrap();
                }
                archives.push(seekable.finish().unwrap().into_inner());
                archives.push(streamed.finish().unwrap().into_inner());
            }
        }
        let mut gzip = Vec::new();
        for (name, content) in files {
            let builder = flate2::GzBuilder::new().filename(name).comment("comment").extra([1, 2, 3]);
            let mut encoder = builder.write(&mut gzip, flate2::Compression::best());
            encoder.write_all(content.as_bytes()).unwrap();
            encoder.finish().unwrap();
        }
        archives.push(gzip);
        let tar = tar();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(&tar).unwrap();
        archives.extend([tar, gzip.finish().unwrap()]);
        archives
    }

    /// A file with a long name by GNU, and the end.
    fn tar() -> Vec<u8> {
        let mut archive = Vec::new();
        for (kind, contents) in [(b'L', "long.csv"), (b'0', "day,sent\n")] {
            let at = archive.len();
            archive.resize(at + 512, 0);
            let header = &mut archive[at..];
            header[0] = b'a';
            header[124..136].copy_from_slice(format!("{:011o}\0", contents.len()).as_bytes());
            header[148..156].fill(b' ');
            header[156] = kind;
            header[257..265].copy_from_slice(b"ustar  \0");
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            archive.extend(contents.as_bytes());
            archive.resize(at + 1024, 0);
        }
        archive.resize(archive.len() + 1024, 0);
        archive
    }

    #[test]
    fn how_the_bytes_are_cut_never_changes_the_judgement() {
        for archive in archives() {
            let whole = judge([&archive[..]]);
            assert!(whole.is_ok(), "{whole:?}");
            for at in 0..=archive.len() {
                assert_eq!(judge([&archive[..at], &archive[at..]]), whole);
            }
            assert_eq!(judge(archive.chunks(1)), whole);
        }
    }

    #[test]
    fn how_the_bytes_are_cut_never_changes_the_judgement_on_a_damaged_archive() {
        for archive in archives() {
            for at in 0..archive.len() {
                let mut damaged = archive.clone();
                damaged[at] ^= 0x10;
                assert_eq!(judge(damaged.chunks(1)), judge([&damaged[..]]), "byte {at}");
            }
        }
    }
}
