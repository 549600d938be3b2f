//! Tar archives: POSIX ustar and pax (IEEE 1003.1, "pax"), GNU's long names and numbers, and the historic form.
//!
//! This file owns the tar format. It must not know that other formats exist.
//!
//! Tar has no checksum of its data. Checked are every header, its place as given by the size of the entry before, the zeros
//! that fill up the last block of a file, and the end of the archive. An archive is ambiguous, and refused, if readers
//! disagree on where a file ends.

use super::{
    ArchiveEntry, ArchiveFormat, Contents, Rejection,
    input::{Padding, gather},
    meter::Meter,
    names,
    tap::Tap,
};
use crate::magic;

/// All structures are multiples of this size.
const BLOCK_BYTES: usize = 512;

/// Longest long name or extended header. The format does not limit them.
const MOST_EXTENSION_BYTES: u64 = 1024 * 1024;

/// The largest size in eleven octal digits. A larger one is in a pax record, or in binary.
const MOST_OCTAL: u64 = 0o777_7777_7777;

/// The fields of a header.
const NAME: std::ops::Range<usize> = 0..100;
const SIZE: std::ops::Range<usize> = 124..136;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const TYPE: usize = 156;
const MAGIC: std::ops::Range<usize> = 257..263;
const PREFIX: std::ops::Range<usize> = 345..500;

/// A tar archive being read.
pub(super) struct Tar {
    section: TarSection,
    /// The bytes so far of the block or extension being read.
    gathered: Vec<u8>,
    entries: Vec<ArchiveEntry>,
    /// For the entry with the same index: where its data begins.
    starts: Vec<u64>,
    /// For the entry with the same index: what it is instead of a file.
    oddities: Vec<Option<&'static str>>,
    /// Extensions of the next entry.
    extended: Extended,
    /// The name that a global pax header gives to every entry that has no other.
    global_path: Option<Vec<u8>>,
    /// Zeros after the end: archives are filled up to a whole record.
    padding: Padding,
    tap: Tap,
}

/// The section that the next byte belongs to.
#[derive(Debug, Clone, Copy)]
enum TarSection {
    Header,
    /// The data of the last entry: bytes left, and the zeros that fill up its last block.
    Data {
        left: u64,
        zeros: usize,
    },
    /// The data of an extension.
    Extension {
        kind: Extension,
        size: usize,
    },
    /// The zeros left up to the next block.
    Zeros(usize),
    /// The second of the two blocks of zeros that end an archive.
    SecondZeroBlock,
    End,
}

/// A member that describes the next one, or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extension {
    Pax,
    GlobalPax,
    LongName,
    LongLink,
}

/// Extensions of the next entry. Targets of links are not kept.
#[derive(Default)]
struct Extended {
    long_name: Option<Vec<u8>>,
    has_long_link: bool,
    pax: Option<Pax>,
}

/// The records of a pax header that bear on the contents of the archive.
#[derive(Default)]
struct Pax {
    path: Option<Vec<u8>>,
    size: Option<u64>,
    is_sparse: bool,
}

impl Tar {
    pub(super) fn new(tap: Tap) -> Tar {
        Tar {
            section: TarSection::Header,
            gathered: Vec::new(),
            entries: Vec::new(),
            starts: Vec::new(),
            oddities: Vec::new(),
            extended: Extended::default(),
            global_path: None,
            padding: Padding::default(),
            tap,
        }
    }

    pub(super) fn write(&mut self, mut input: &[u8], meter: &mut Meter) -> Result<(), Rejection> {
        while !input.is_empty() {
            self.section = self.step(&mut input, meter)?;
        }
        Ok(())
    }

    pub(super) fn finish(self, meter: &Meter) -> Result<Contents, Rejection> {
        let place = match self.section {
            TarSection::End => {
                let warnings = names::warnings(&self.entries, |index| self.oddities[index]);
                return Ok(Contents { format: ArchiveFormat::Tar, entries: self.entries, warnings });
            }
            TarSection::Data { .. } => self.entries.last().map_or(String::new(), |entry| names::entry(&entry.name)),
            TarSection::Header if self.gathered.is_empty() => {
                "the place of a header or of the end of the archive".to_owned()
            }
            TarSection::Header => "a header".to_owned(),
            TarSection::Extension { .. } => "an extended header".to_owned(),
            TarSection::Zeros(_) => "the zeros that fill up a block".to_owned(),
            TarSection::SecondZeroBlock => "the end of the archive, which is two blocks of zeros".to_owned(),
        };
        Err(Rejection::corrupt(format!("cut short after {} bytes, in {place}", meter.consumed())))
    }

    /// The files of an archive that is read, with the position and the length of their data.
    pub(super) fn located(self) -> impl Iterator<Item = (String, u64, u64)> {
        let Tar { entries, starts, .. } = self;
        entries.into_iter().zip(starts).map(|(entry, start)| (entry.name, start, entry.size))
    }

    /// Reads on in the current section; returns the next one.
    fn step(&mut self, input: &mut &[u8], meter: &mut Meter) -> Result<TarSection, Rejection> {
        match self.section {
            TarSection::Header => {
                if !gather(&mut self.gathered, BLOCK_BYTES, input, meter) {
                    return Ok(TarSection::Header);
                }
                let offset = meter.consumed() - BLOCK_BYTES as u64;
                let block = std::mem::take(&mut self.gathered);
                let next = self.header(&block, meter).map_err(|rejection| rejection.within(&format!("byte {offset}")));
                self.gathered = block;
                self.gathered.clear();
                next
            }
            TarSection::Data { left, zeros } => {
                let taken = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
                let (now, later) = input.split_at(taken);
                *input = later;
                meter.consume(taken);
                meter.inflate(taken)?;
                // The header of the entry has been read.
                self.tap.pass_on(self.entries.len().saturating_sub(1), now);
                Ok(match left - taken as u64 {
                    0 => TarSection::after_data(zeros),
                    left => TarSection::Data { left, zeros },
                })
            }
            TarSection::Extension { kind, size } => {
                if !gather(&mut self.gathered, size, input, meter) {
                    return Ok(TarSection::Extension { kind, size });
                }
                let contents = std::mem::take(&mut self.gathered);
                self.extend(kind, &contents)?;
                Ok(TarSection::after_data(zeros_after(size as u64)))
            }
            TarSection::Zeros(left) => {
                let (now, later) = input.split_at(left.min(input.len()));
                if let Some(at) = now.iter().position(|byte| *byte != 0) {
                    let at = meter.consumed() + at as u64;
                    return Err(Rejection::corrupt(format!(
                        "byte {at}: the last block of a file is not filled up with zeros"
                    )));
                }
                *input = later;
                meter.consume(now.len());
                Ok(TarSection::after_data(left - now.len()))
            }
            TarSection::SecondZeroBlock => {
                if !gather(&mut self.gathered, BLOCK_BYTES, input, meter) {
                    return Ok(TarSection::SecondZeroBlock);
                }
                if self.gathered.iter().any(|byte| *byte != 0) {
                    let offset = meter.consumed() - 2 * BLOCK_BYTES as u64;
                    return Err(Rejection::corrupt(format!("byte {offset}: a single block of zeros; the end is two")));
                }
                Ok(TarSection::End)
            }
            TarSection::End => self.padding.read(input, meter).map(|()| TarSection::End),
        }
    }

    /// Reads a header; returns the section after it.
    fn header(&mut self, block: &[u8], meter: &mut Meter) -> Result<TarSection, Rejection> {
        if block.iter().all(|byte| *byte == 0) {
            if self.extended.is_some() {
                return Err(Rejection::corrupt("the archive ends after an extended header, without its entry"));
            }
            return Ok(TarSection::SecondZeroBlock);
        }
        check_sum(block)?;
        let size = number(&block[SIZE])?;
        let extension = match block[TYPE] {
            b'x' => Some(Extension::Pax),
            b'g' => Some(Extension::GlobalPax),
            b'L' => Some(Extension::LongName),
            b'K' => Some(Extension::LongLink),
            _ => None,
        };
        let Some(kind) = extension else { return self.entry(block, size, meter) };
        // Readers disagree on whether it describes the extension or the entry after that.
        if self.extended.pax.is_some() {
            return Err(Rejection::unverifiable("ambiguous: an extended header is not followed by its entry"));
        }
        if size > MOST_EXTENSION_BYTES {
            return Err(Rejection::unverifiable(format!(
                "an extended header is longer than {MOST_EXTENSION_BYTES} bytes"
            )));
        }
        if size == 0 {
            self.extend(kind, &[])?;
            return Ok(TarSection::Header);
        }
        Ok(TarSection::Extension { kind, size: size as usize })
    }

    /// Reads the header of an entry.
    fn entry(&mut self, header: &[u8], recorded: u64, meter: &mut Meter) -> Result<TarSection, Rejection> {
        let kind = header[TYPE];
        let is_extended = self.extended.is_some();
        let Extended { long_name, pax, .. } = std::mem::take(&mut self.extended);
        let Pax { path, size, is_sparse } = pax.unwrap_or_default();
        if long_name.as_ref().zip(path.as_ref()).is_some_and(|(long, path)| long != path) {
            return Err(Rejection::unverifiable("ambiguous: an entry has one long name by GNU and another by pax"));
        }
        let name = path.or(long_name).or_else(|| self.global_path.clone()).unwrap_or_else(|| name(header));
        let shown = String::from_utf8_lossy(&name).into_owned();
        let within = |rejection: Rejection| rejection.within(&names::entry(&shown));
        if is_sparse || kind == b'S' {
            return Err(within(Rejection::unsupported(
                "a sparse file, which is not verified; have the report made without sparse files, or choose zip in its settings",
            )));
        }
        let size = match size {
            // A reader without pax would look for the next header elsewhere.
            Some(size) if size <= MOST_OCTAL && size != recorded => {
                return Err(within(Rejection::unverifiable(format!(
                    "ambiguous: its size is {size} in its extended header and {recorded} in its header"
                ))));
            }
            Some(size) => size,
            None => recorded,
        };
        let oddity = match kind {
            b'0' | 0 | b'7' if size > 0 && name.ends_with(b"/") => {
                return Err(within(Rejection::unverifiable(format!(
                    "ambiguous: it has a directory's name and {size} bytes"
                ))));
            }
            b'0' | 0 | b'7' => None,
            b'1'..=b'6' if size > 0 => {
                return Err(within(Rejection::unverifiable(format!(
                    "ambiguous: it is not a file and has {size} bytes"
                ))));
            }
            b'1' => Some("it is a hard link"),
            b'2' => Some("it is a symbolic link"),
            b'3' | b'4' => Some("it is a device"),
            b'5' => None,
            b'6' => Some("it is a pipe"),
            // The label of a volume (GNU).
            b'V' if size == 0 && !is_extended => return Ok(TarSection::Header),
            b'M' => {
                return Err(within(Rejection::unsupported(
                    "split into several archives, of which this is one; have the report delivered in one file",
                )));
            }
            kind => {
                return Err(within(Rejection::unsupported(format!(
                    "unsupported kind of member {:?}; choose zip in the report's settings",
                    char::from(kind)
                ))));
            }
        };
        meter.remember(&name)?;
        self.entries.push(ArchiveEntry { name: shown, size, crc32: None });
        self.starts.push(meter.consumed());
        self.oddities.push(oddity);
        Ok(match size {
            0 => TarSection::Header,
            size => TarSection::Data { left: size, zeros: zeros_after(size) },
        })
    }

    /// Reads the data of an extension.
    fn extend(&mut self, kind: Extension, contents: &[u8]) -> Result<(), Rejection> {
        match kind {
            Extension::Pax => self.extended.pax = Some(Pax::parse(contents)?),
            Extension::GlobalPax => {
                let Pax { path, size, is_sparse } = Pax::parse(contents)?;
                if size.is_some() || is_sparse {
                    return Err(Rejection::unverifiable("ambiguous: a global extended header has a size"));
                }
                self.global_path = path.or(self.global_path.take());
            }
            Extension::LongName => {
                let name = long(contents)?;
                if self.extended.long_name.replace(name.to_owned()).is_some() {
                    return Err(Rejection::unverifiable("ambiguous: an entry has two long names"));
                }
            }
            Extension::LongLink => {
                long(contents)?;
                if std::mem::replace(&mut self.extended.has_long_link, true) {
                    return Err(Rejection::unverifiable("ambiguous: an entry has two long targets"));
                }
            }
        }
        Ok(())
    }
}

impl Extended {
    fn is_some(&self) -> bool {
        self.long_name.is_some() || self.has_long_link || self.pax.is_some()
    }
}

impl TarSection {
    /// The section after the data of a member, whose last block is filled up by `zeros` bytes.
    fn after_data(zeros: usize) -> TarSection {
        if zeros == 0 { TarSection::Header } else { TarSection::Zeros(zeros) }
    }
}

impl Pax {
    /// Reads the records of a pax header, each `LENGTH KEY=VALUE\n`, whose length counts all of it. Of several with the
    /// same key the last counts; an empty value deletes the key.
    fn parse(contents: &[u8]) -> Result<Pax, Rejection> {
        let malformed = || Rejection::corrupt("a record of an extended header is malformed");
        let (mut pax, mut rest) = (Pax::default(), contents);
        while !rest.is_empty() {
            let space = rest.iter().take(20).position(|byte| *byte == b' ').ok_or_else(malformed)?;
            let length =
                decimal(&rest[..space]).and_then(|length| usize::try_from(length).ok()).ok_or_else(malformed)?;
            let (record, after) = rest.split_at_checked(length).ok_or_else(malformed)?;
            let record = record.get(space + 1..).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(malformed)?;
            let equals = memchr::memchr(b'=', record).filter(|at| *at > 0).ok_or_else(malformed)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            let value = (!value.is_empty()).then_some(value);
            match key {
                b"path" => pax.path = value.map(<[u8]>::to_owned),
                b"size" => pax.size = value.map(|value| decimal(value).ok_or_else(malformed)).transpose()?,
                key if key.starts_with(b"GNU.sparse.") => pax.is_sparse = true,
                _ => {}
            }
            rest = after;
        }
        Ok(pax)
    }
}

/// Checks the header's checksum: the sum of its unsigned bytes, or signed ones by historic writers.
fn check_sum(header: &[u8]) -> Result<(), Rejection> {
    let Some(recorded) = magic::tar_checksum(header) else {
        return Err(Rejection::corrupt("there is no header: its checksum is malformed"));
    };
    let spaces = 32 * CHECKSUM.len() as i64;
    let (mut unsigned, mut signed) = (spaces, spaces);
    for (_, byte) in header.iter().enumerate().filter(|(at, _)| !CHECKSUM.contains(at)) {
        unsigned += i64::from(*byte);
        signed += i64::from(byte.cast_signed());
    }
    if ![unsigned, signed].contains(&i64::from(recorded)) {
        return Err(Rejection::corrupt(format!(
            "the checksum of the header is {unsigned:o}, recorded is {recorded:o}"
        )));
    }
    Ok(())
}

/// A number in octal digits with spaces before and after, or in binary if the highest bit is set (GNU).
fn number(field: &[u8]) -> Result<u64, Rejection> {
    let wrong = || Rejection::corrupt("the size in the header is malformed");
    if field[0] & 0x80 != 0 {
        let (high, low) = field.split_at(field.len() - 8);
        let is_small = high[0] == 0x80 && high[1..].iter().all(|byte| *byte == 0);
        let low = low.try_into().map(u64::from_be_bytes).map_err(|_| wrong())?;
        // Leaves room for arithmetic; archives are smaller.
        return Some(low).filter(|low| is_small && *low <= u64::MAX / 4).ok_or_else(wrong);
    }
    let begin = field.iter().position(|byte| *byte != b' ').unwrap_or(field.len());
    let digits = &field[begin..];
    let end = digits.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(digits.len());
    if digits[end..].iter().any(|byte| !matches!(byte, 0 | b' ')) {
        return Err(wrong());
    }
    digits[..end].iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'7' => Ok(value * 8 + u64::from(digit - b'0')),
        _ => Err(wrong()),
    })
}

/// A number in decimal digits, without sign or leading zeros.
fn decimal(digits: &[u8]) -> Option<u64> {
    let is_plain = digits.iter().all(u8::is_ascii_digit) && (digits == b"0" || digits.first() != Some(&b'0'));
    let number = str::from_utf8(digits).ok().filter(|_| is_plain)?.parse::<u64>().ok()?;
    (number <= u64::MAX / 4).then_some(number)
}

/// The name that a header without extensions gives.
fn name(header: &[u8]) -> Vec<u8> {
    let name = until_nul(&header[NAME]);
    let prefix = until_nul(&header[PREFIX]);
    // GNU uses POSIX's prefix for other fields, and the historic form lacks it.
    if &header[MAGIC] == b"ustar\0" && !prefix.is_empty() {
        return [prefix, b"/", name].concat();
    }
    name.to_owned()
}

/// A long name or target by GNU, which ends at a NUL.
fn long(contents: &[u8]) -> Result<&[u8], Rejection> {
    let name = until_nul(contents);
    if name.is_empty() || contents[name.len()..].iter().any(|byte| *byte != 0) {
        return Err(Rejection::unverifiable("ambiguous: a long name is empty, or continues after its NUL"));
    }
    Ok(name)
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    &bytes[..memchr::memchr(0, bytes).unwrap_or(bytes.len())]
}

/// How many zeros fill up the last block of `size` bytes.
fn zeros_after(size: u64) -> usize {
    (BLOCK_BYTES - (size % BLOCK_BYTES as u64) as usize) % BLOCK_BYTES
}
