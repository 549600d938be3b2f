//! The entries of a verified archive, to be read again and in any order.
//!
//! This file owns which bytes of the archive are an entry's. It must not be used on an archive that is not verified, and
//! must not know what an entry holds.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    os::unix::fs::FileExt,
    sync::Arc,
};

use flate2::{
    bufread::{DeflateDecoder, GzDecoder},
    read::MultiGzDecoder,
};

use super::{
    ArchiveLimits,
    meter::Meter,
    tap::Tap,
    tar::Tar,
    zip::{Located, locate},
};
use crate::magic::{self, HEAD_BYTES, Magic};

/// Bytes read at a time.
const READ_BYTES: usize = 64 * 1024;

/// The entries of a verified archive.
#[derive(Debug)]
pub struct Entries {
    file: Arc<File>,
    entries: Vec<StoredEntry>,
}

/// One file in a verified archive.
#[derive(Debug)]
struct StoredEntry {
    name: String,
    data: Data,
}

/// Where the data of an entry is.
#[derive(Debug)]
enum Data {
    /// Bytes of the file, as they are.
    Plain { from: u64, to: u64 },
    /// Bytes of the file, deflated.
    Deflated { from: u64, to: u64 },
    /// Bytes of what the file holds when all its gzip members are inflated.
    InGzip { from: u64, bytes: u64 },
    /// Whole gzip members: the number of those before them, and their own.
    Members { before: usize, count: usize },
}

impl Entries {
    /// Finds the entries of the archive in `file`. Blocks. Gzip members are one entry if only the first of them has a name,
    /// or all have the same: they are parts of one file.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is no archive.
    pub fn find(file: Arc<File>) -> io::Result<Entries> {
        let mut head = Vec::new();
        whole(&file).take(HEAD_BYTES as u64).read_to_end(&mut head)?;
        let entries = match magic::recognise(&head) {
            Some(Magic::Zip) => {
                let entry = |located: Located| -> io::Result<StoredEntry> {
                    let (from, to) = located.data(&file)?;
                    let data = if located.is_deflated { Data::Deflated { from, to } } else { Data::Plain { from, to } };
                    Ok(StoredEntry { name: located.name, data })
                };
                locate(&file)?.into_iter().map(entry).collect::<Result<_, _>>()?
            }
            Some(Magic::Tar) => in_tar(whole(&file), |from, bytes| Data::Plain { from, to: from + bytes })?,
            Some(Magic::Gzip) => {
                let mut inside = Vec::new();
                MultiGzDecoder::new(whole(&file)).take(HEAD_BYTES as u64).read_to_end(&mut inside)?;
                match magic::recognise(&inside) {
                    Some(Magic::Tar) => {
                        in_tar(MultiGzDecoder::new(whole(&file)), |from, bytes| Data::InGzip { from, bytes })?
                    }
                    _ => members(&file)?,
                }
            }
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no zip, gzip or tar archive")),
        };
        Ok(Entries { file, entries })
    }

    /// The names of all entries, in the order of their data. A name must not be used as a path, may repeat, and may be
    /// empty.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.entries.iter().map(|entry| entry.name.as_str())
    }

    /// Whether the archive is one file, compressed with gzip.
    pub fn is_one_gzip_file(&self) -> bool {
        matches!(self.entries.as_slice(), [StoredEntry { data: Data::Members { .. }, .. }])
    }

    /// The data of an entry, inflated. Reading blocks.
    ///
    /// # Errors
    ///
    /// The file cannot be read; there is no entry of that number.
    pub fn open(&self, number: usize) -> io::Result<Box<dyn Read + Send + '_>> {
        let entry = self.entries.get(number).ok_or(io::ErrorKind::NotFound)?;
        let file = &self.file;
        Ok(match entry.data {
            Data::Plain { from, to } => Box::new(part(file, from, to)),
            Data::Deflated { from, to } => {
                Box::new(DeflateDecoder::new(BufReader::with_capacity(READ_BYTES, part(file, from, to))))
            }
            Data::InGzip { from, bytes } => {
                let mut inflated = MultiGzDecoder::new(whole(file));
                io::copy(&mut inflated.by_ref().take(from), &mut io::sink())?;
                Box::new(inflated.take(bytes))
            }
            Data::Members { before: 0, count } if count == self.members() => Box::new(MultiGzDecoder::new(whole(file))),
            Data::Members { before, count } => {
                let mut compressed = whole(file);
                for _ in 0..before {
                    io::copy(&mut GzDecoder::new(&mut compressed), &mut io::sink())?;
                }
                Box::new(Members { compressed: Some(GzDecoder::new(compressed)), left: count })
            }
        })
    }

    fn members(&self) -> usize {
        let counts = self.entries.iter().map(|entry| match entry.data {
            Data::Members { count, .. } => count,
            _ => 0,
        });
        counts.sum()
    }
}

/// A number of gzip members, one after another.
struct Members {
    compressed: Option<GzDecoder<BufReader<Extent>>>,
    /// With the one that is being read.
    left: usize,
}

impl Read for Members {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.compressed {
            let read = member.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            self.left -= 1;
            self.compressed =
                self.compressed.take().filter(|_| self.left > 0).map(|done| GzDecoder::new(done.into_inner()));
        }
        Ok(0)
    }
}

/// The entries of a gzip archive without a tar.
fn members(file: &Arc<File>) -> io::Result<Vec<StoredEntry>> {
    let mut entries: Vec<StoredEntry> = Vec::new();
    let mut compressed = whole(file);
    // Zeros may fill up the file.
    for before in 0.. {
        if compressed.fill_buf()?.first().is_none_or(|byte| *byte == 0) {
            break;
        }
        let mut member = GzDecoder::new(&mut compressed);
        io::copy(&mut member, &mut io::sink())?;
        let name = member.header().and_then(|header| header.filename()).unwrap_or_default();
        // ISO 8859-1 by RFC 1952; gzip itself writes the file system's bytes, which are UTF-8 today.
        let name =
            std::str::from_utf8(name).map_or_else(|_| name.iter().copied().map(char::from).collect(), str::to_owned);
        match entries.last_mut() {
            Some(StoredEntry { name: last, data: Data::Members { count, .. } }) if name.is_empty() || *last == name => {
                *count += 1;
            }
            _ => entries.push(StoredEntry { name, data: Data::Members { before, count: 1 } }),
        }
    }
    Ok(entries)
}

/// The entries of a tar, and where each one's data is in it.
fn in_tar(mut archive: impl Read, data: impl Fn(u64, u64) -> Data) -> io::Result<Vec<StoredEntry>> {
    let (mut tar, mut meter, mut buffer) =
        (Tar::new(Tap::default()), Meter::new(ArchiveLimits::NONE), vec![0; READ_BYTES]);
    loop {
        match archive.read(&mut buffer)? {
            0 => break,
            read => tar.write(&buffer[..read], &mut meter).map_err(|rejection| io::Error::other(rejection.message))?,
        }
    }
    Ok(tar.located().map(|(name, from, bytes)| StoredEntry { name, data: data(from, bytes) }).collect())
}

/// Bytes of a file, read without its position: several readers do not disturb each other.
struct Extent {
    file: Arc<File>,
    at: u64,
    to: u64,
}

impl Read for Extent {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.to.saturating_sub(self.at)).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = self.file.read_at(&mut buffer[..most], self.at)?;
        if read == 0 && most > 0 && self.to != u64::MAX {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += read as u64;
        Ok(read)
    }
}

fn part(file: &Arc<File>, at: u64, to: u64) -> Extent {
    Extent { file: Arc::clone(file), at, to }
}

fn whole(file: &Arc<File>) -> BufReader<Extent> {
    BufReader::with_capacity(READ_BYTES, part(file, 0, u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, GzBuilder, write::GzEncoder};

    use super::*;

    fn entries(archive: &[u8]) -> Vec<(String, String)> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(archive).unwrap();
        let entries = Entries::find(Arc::new(file)).unwrap();
        let names: Vec<_> = entries.names().map(str::to_owned).collect();
        let read = |(number, name)| {
            let mut text = String::new();
            entries.open(number).unwrap().read_to_string(&mut text).unwrap();
            (name, text)
        };
        names.into_iter().enumerate().map(read).collect()
    }

    fn member(name: &str, text: &str) -> Vec<u8> {
        let builder = if name.is_empty() { GzBuilder::new() } else { GzBuilder::new().filename(name) };
        let mut encoder = builder.write(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn owned(entries: &[(&str, &str)]) -> Vec<(String, String)> {
        entries.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    fn tar(files: &[(&str, &str)]) -> Vec<u8> {
        let mut archive = Vec::new();
        for (name, text) in files {
            let mut header = [0_u8; 512];
            header[..name.len()].copy_from_slice(name.as_bytes());
            header[124..136].copy_from_slice(format!("{:011o}\0", text.len()).as_bytes());
            header[156] = b'0';
            header[257..263].copy_from_slice(b"ustar\0");
            header[148..156].copy_from_slice(b"        ");
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            archive.extend_from_slice(&header);
            archive.extend_from_slice(text.as_bytes());
            archive.resize(archive.len().next_multiple_of(512), 0);
        }
        archive.resize(archive.len() + 1024, 0);
        archive
    }

    #[test]
    fn the_entries_of_a_tar_are_read_from_it_and_from_a_gzip_around_it() {
        let files = [("a.csv", "x\n1\n"), ("empty.csv", ""), ("b/c.csv", "y\n2\n")];
        let tar = tar(&files);
        assert_eq!(entries(&tar), owned(&files));
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&tar).unwrap();
        assert_eq!(entries(&encoder.finish().unwrap()), owned(&files));
    }

    #[test]
    fn gzip_members_are_files_of_their_own_only_if_each_has_a_name() {
        assert_eq!(entries(&member("", "a")), owned(&[("", "a")]));
        let parts = [member("a.csv", "1"), member("", "2"), member("a.csv", "3")].concat();
        assert_eq!(entries(&parts), owned(&[("a.csv", "123")]));
        let files = [member("a.csv", "1"), member("b.csv", "2"), member("", "3"), member("c.csv", "4")].concat();
        assert_eq!(entries(&files), owned(&[("a.csv", "1"), ("b.csv", "23"), ("c.csv", "4")]));
    }

    fn zip(files: &[(&str, &str)]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        for (number, (name, text)) in files.iter().enumerate() {
            let method = [zip::CompressionMethod::Deflated, zip::CompressionMethod::Stored][number % 2];
            writer.start_file(*name, zip::write::SimpleFileOptions::default().compression_method(method)).unwrap();
            writer.write_all(text.as_bytes()).unwrap();
        }
        let _ = writer.set_comment("PK\u{5}\u{6} is how an end record begins");
        writer.finish().unwrap().into_inner()
    }

    #[test]
    fn the_entries_of_a_zip_are_read_whatever_its_comment_and_its_end() {
        let files = [("a.csv", "x\n1\n"), ("b/", ""), ("b/c.csv", "y\n2\n"), ("d.csv", "")];
        let mut zip = zip(&files);
        assert_eq!(entries(&zip), owned(&files));
        zip.resize(zip.len() + 100_000, 0);
        assert_eq!(entries(&zip), owned(&files));
    }

    #[test]
    fn two_entries_of_a_zip_with_one_name_are_two_entries() {
        let mut zip = zip(&[("a.csv", "1"), ("b.csv", "2")]);
        for at in 0..zip.len() - 5 {
            if zip[at..].starts_with(b"b.csv") {
                zip[at] = b'a';
            }
        }
        assert_eq!(entries(&zip), owned(&[("a.csv", "1"), ("a.csv", "2")]));
    }
}
