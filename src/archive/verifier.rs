//! The verifier as a push parser: takes bytes in pieces of any length, and judges at the end. The judgement does not depend
//! on how the bytes are cut.
//!
//! This file owns the choice of the format. It must not know threads or where bytes come from.

#[cfg(fuzzing)]
use super::{ArchiveEntry, ArchiveFormat};
use super::{
    ArchiveLimits, Contents, RejectedKind, Rejection,
    gzip::Gzip,
    meter::Meter,
    tap::Tap,
    tar::Tar,
    zip::{Second, Zip},
};
use crate::magic::{self, HEAD_BYTES, Magic};

/// Judges one archive. After an error, every call returns the same error.
pub(super) struct Verifier {
    meter: Meter,
    parser: Parser,
    /// How a zip gets a second thread.
    second: fn() -> Second,
    /// Until the format is known.
    tap: Tap,
}

enum Parser {
    /// The first bytes, while they are too few to recognize the format.
    Undecided(Vec<u8>),
    Zip(Zip),
    Gzip(Gzip),
    Tar(Tar),
    Rejected(Rejection),
}

/// Characters quoted of bytes that are not an archive. [`HEAD_BYTES`] hold as many.
const SHOWN_CHARS: usize = 120;

impl Verifier {
    /// A verifier that inflates on the caller's thread only.
    pub(super) fn new(limits: ArchiveLimits) -> Verifier {
        Verifier::with_tap(limits, Tap::default())
    }

    /// A verifier that may inflate large entries on a second thread.
    pub(super) fn on_two_threads(limits: ArchiveLimits) -> Verifier {
        Verifier { second: Second::of_large_entries, ..Verifier::new(limits) }
    }

    /// A verifier that passes on the contents of entries, in their order and so on one thread.
    pub(super) fn with_tap(limits: ArchiveLimits, tap: Tap) -> Verifier {
        Verifier { meter: Meter::new(limits), parser: Parser::Undecided(Vec::new()), second: Second::unused, tap }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    ///
    /// As soon as the archive is rejected.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Rejection> {
        let result = match &mut self.parser {
            Parser::Undecided(_) => self.begin(bytes),
            Parser::Zip(zip) => zip.write(bytes, &mut self.meter).map_err(|rejection| rejection.within("zip archive")),
            Parser::Gzip(gzip) => {
                gzip.write(bytes, &mut self.meter).map_err(|rejection| rejection.within("gzip archive"))
            }
            Parser::Tar(tar) => tar.write(bytes, &mut self.meter).map_err(|rejection| rejection.within("tar archive")),
            Parser::Rejected(rejection) => Err(rejection.clone()),
        };
        if let Err(rejection) = &result {
            self.parser = Parser::Rejected(rejection.clone());
        }
        result
    }

    /// Ends the archive.
    pub(super) fn finish(self) -> Result<Contents, Rejection> {
        match self.parser {
            Parser::Undecided(head) => Err(not_an_archive(&head)),
            Parser::Zip(zip) => zip.finish(&self.meter).map_err(|rejection| rejection.within("zip archive")),
            Parser::Gzip(gzip) => gzip.finish(&self.meter).map_err(|rejection| rejection.within("gzip archive")),
            Parser::Tar(tar) => tar.finish(&self.meter).map_err(|rejection| rejection.within("tar archive")),
            Parser::Rejected(rejection) => Err(rejection),
        }
    }

    /// Decides the format by the first bytes alone.
    fn begin(&mut self, bytes: &[u8]) -> Result<(), Rejection> {
        let Parser::Undecided(head) = &mut self.parser else { return Ok(()) };
        let seen_before = head.len();
        head.extend_from_slice(&bytes[..bytes.len().min(HEAD_BYTES - seen_before)]);
        let head = std::mem::take(head);
        let mut tap = || std::mem::take(&mut self.tap);
        self.parser = match magic::recognise(&head) {
            Some(Magic::Zip) => Parser::Zip(Zip::new((self.second)(), tap())),
            Some(Magic::Gzip) => Parser::Gzip(Gzip::new(tap())),
            Some(Magic::Tar) => Parser::Tar(Tar::new(tap())),
            Some(Magic::Unsupported(name)) => {
                return Err(Rejection::unsupported(format!(
                    "{name} archive: moesync cannot verify this format; choose zip in the report's settings"
                )));
            }
            Some(Magic::Unknown) => return Err(not_an_archive(&head)),
            None => {
                self.parser = Parser::Undecided(head);
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
        // An empty tar archive is all zeros; so is the output of a failing disk.
        "neither zip, gzip nor tar: it begins with zeros only".to_owned()
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

/// Whether `beginning` is enough to know that the archive cannot be verified, as with rar or an encrypted first entry.
/// Reads little, so it may be called on a runtime thread; later entries are left to a [`super::Pass`].
pub fn is_unsupported(beginning: &[u8]) -> bool {
    let beginning = &beginning[..beginning.len().min(16 * 1024)];
    let limits = ArchiveLimits { archive_bytes: u64::MAX, inflated_bytes: 256 * 1024, inflate_ratio: u64::MAX };
    let judged = Verifier::new(limits).write(beginning);
    judged.is_err_and(|rejection| rejection.kind == RejectedKind::Unsupported)
}

/// The result that the fuzz targets compare.
#[cfg(fuzzing)]
pub type Judgement = Result<(ArchiveFormat, Vec<ArchiveEntry>, Vec<String>), (RejectedKind, String)>;

/// Judges bytes in exactly these pieces, without the hash, threads and blocks of a [`super::Pass`]: for the fuzz targets.
#[cfg(fuzzing)]
pub fn judge_pieces(limits: ArchiveLimits, pieces: &[&[u8]]) -> Judgement {
    judged(Verifier::new(limits), pieces)
}

/// The same, with a second thread for every entry of a zip whose size is known.
#[cfg(fuzzing)]
pub fn judge_on_two_threads(limits: ArchiveLimits, pieces: &[&[u8]]) -> Judgement {
    judged(Verifier { second: Second::of_all_entries, ..Verifier::new(limits) }, pieces)
}

#[cfg(fuzzing)]
fn judged(mut verifier: Verifier, pieces: &[&[u8]]) -> Judgement {
    let judged = pieces.iter().try_for_each(|piece| verifier.write(piece)).and_then(|()| verifier.finish());
    judged
        .map(|Contents { format, entries, warnings }| (format, entries, warnings))
        .map_err(|Rejection { kind, message }| (kind, message))
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        io::Write as _,
        sync::{Arc, Mutex},
    };

    use super::*;
    use crate::lock::lock;

    const LIMITS: ArchiveLimits =
        ArchiveLimits { archive_bytes: u64::MAX, inflated_bytes: 1 << 30, inflate_ratio: 500 };

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
    fn an_archive_is_judged_the_same_however_its_bytes_are_cut() {
        for archive in archives() {
            let whole = judge([&archive[..]]);
            assert!(whole.is_ok(), "{whole:?}");
            for at in 0..=archive.len() {
                assert_eq!(judge([&archive[..at], &archive[at..]]), whole);
            }
            assert_eq!(judge(archive.chunks(1)), whole);
        }
    }

    /// Tests run on several threads, of which one at a time has a second thread.
    fn judge_on_two_threads<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Contents, Rejection> {
        let mut verifier = Verifier { second: Second::of_all_entries, ..Verifier::new(LIMITS) };
        pieces.into_iter().try_for_each(|piece| verifier.write(piece))?;
        verifier.finish()
    }

    #[test]
    fn an_archive_is_judged_the_same_with_and_without_a_second_thread() {
        for archive in archives() {
            for end in 0..=archive.len() {
                assert_eq!(judge_on_two_threads([&archive[..end]]), judge([&archive[..end]]), "the first {end} bytes");
            }
            for at in 0..archive.len() {
                let mut damaged = archive.clone();
                damaged[at] ^= 0x10;
                assert_eq!(judge_on_two_threads(damaged.chunks(7)), judge([&damaged[..]]), "byte {at}");
                // Damage of the thread that reads on may be found first.
                damaged[(at + 60).min(archive.len() - 1)] ^= 0x10;
                assert_eq!(judge_on_two_threads(damaged.chunks(7)), judge([&damaged[..]]), "byte {at} and a later one");
            }
        }
    }

    /// The contents of each entry, as passed on.
    fn tapped<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> BTreeMap<usize, Vec<u8>> {
        let contents: Arc<Mutex<BTreeMap<usize, Vec<u8>>>> = Arc::default();
        let taken = Arc::clone(&contents);
        let tap = Tap::new(move |entry, bytes| lock(&taken).entry(entry).or_default().extend(bytes));
        let mut verifier = Verifier::with_tap(LIMITS, tap);
        pieces.into_iter().try_for_each(|piece| verifier.write(piece)).unwrap();
        verifier.finish().unwrap();
        std::mem::take(&mut *lock(&contents))
    }

    #[test]
    fn the_contents_of_entries_are_passed_on_the_same_however_the_archive_is_cut() {
        for archive in archives() {
            let entries = judge([&archive[..]]).unwrap().entries;
            let contents = tapped([&archive[..]]);
            for (index, entry) in entries.iter().enumerate() {
                let bytes = contents.get(&index).map_or(&[][..], Vec::as_slice);
                assert_eq!(bytes.len() as u64, entry.size);
                assert!(entry.crc32.is_none_or(|crc32| crc32 == crc32fast::hash(bytes)));
            }
            assert!(contents.keys().all(|index| *index < entries.len()));
            assert_eq!(tapped(archive.chunks(1)), contents);
            for at in 0..=archive.len() {
                assert_eq!(tapped([&archive[..at], &archive[at..]]), contents);
            }
        }
    }

    #[test]
    fn a_damaged_archive_is_judged_the_same_however_its_bytes_are_cut() {
        for archive in archives() {
            for at in 0..archive.len() {
                let mut damaged = archive.clone();
                damaged[at] ^= 0x10;
                assert_eq!(judge(damaged.chunks(1)), judge([&damaged[..]]), "byte {at}");
            }
        }
    }
}
