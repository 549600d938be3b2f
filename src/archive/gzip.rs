//! Gzip archives (RFC 1952): members one after another.
//!
//! This file owns the gzip format. The members together may hold a tar, which is then verified too; its entries are the
//! archive's. It must not know other formats.

use super::{
    ArchiveEntry, ArchiveFormat, Contents, Rejection,
    inflate::Inflater,
    input::{Padding, gather, u16_at, u32_at},
    meter::Meter,
    names,
    tap::Tap,
    tar::Tar,
};
use crate::magic::{self, HEAD_BYTES, Magic};

/// Header flags (RFC 1952, 2.3.1). The lowest, FTEXT, is a hint only.
const FLAG_HEADER_CRC: u8 = 1 << 1;
const FLAG_EXTRA: u8 = 1 << 2;
const FLAG_NAME: u8 = 1 << 3;
const FLAG_COMMENT: u8 = 1 << 4;
const FLAGS_RESERVED: u8 = 0b1110_0000;

const MAGIC: [u8; 2] = [0x1f, 0x8b];
const METHOD_DEFLATE: u8 = 8;

/// Length of the header before its optional fields, and of the trailer.
const HEADER_BYTES: usize = 10;
const TRAILER_BYTES: usize = 8;

/// Longest header. The format does not limit its name and comment.
const MOST_HEADER_BYTES: usize = 256 * 1024;

/// A gzip archive being read.
pub(super) struct Gzip {
    inflater: Inflater,
    section: GzipSection,
    /// The bytes so far of the header or trailer being read.
    gathered: Vec<u8>,
    /// Where in `gathered` the header's current field begins.
    field: usize,
    /// The name of the member being read.
    name: String,
    entries: Vec<ArchiveEntry>,
    inside: Inside,
    padding: Padding,
}

/// The data of all members together.
enum Inside {
    /// Its first bytes, while they are too few to recognize a format.
    Unknown(Beginning),
    /// Not a tar: only the members' checksums verify it.
    Data(Tap),
    /// A tar, with a meter of its own.
    Tar(Box<(Tar, Meter)>),
}

/// The first bytes of the data, which are passed on once it is known that they are not those of a tar.
#[derive(Default)]
struct Beginning {
    bytes: Vec<u8>,
    /// Where in `bytes` each complete member ends.
    ends: Vec<usize>,
    tap: Tap,
}

/// The section that the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GzipSection {
    FixedHeader,
    Extra,
    Name,
    Comment,
    HeaderCrc,
    Data,
    Trailer,
    /// Zeros after the last member.
    Padding,
}

impl Gzip {
    pub(super) fn new(tap: Tap) -> Gzip {
        Gzip {
            inflater: Inflater::new(),
            section: GzipSection::FixedHeader,
            gathered: Vec::new(),
            field: 0,
            name: String::new(),
            entries: Vec::new(),
            inside: Inside::Unknown(Beginning { tap, ..Beginning::default() }),
            padding: Padding::default(),
        }
    }

    pub(super) fn write(&mut self, mut input: &[u8], meter: &mut Meter) -> Result<(), Rejection> {
        while !input.is_empty() {
            self.step(&mut input, meter)
                .map_err(|rejection| rejection.within(&format!("member {}", self.entries.len() + 1)))?;
        }
        Ok(())
    }

    pub(super) fn finish(self, meter: &Meter) -> Result<Contents, Rejection> {
        let part = match self.section {
            GzipSection::FixedHeader if self.gathered.is_empty() => return self.contents(),
            GzipSection::Padding => return self.contents(),
            GzipSection::Data => "data",
            GzipSection::Trailer => "trailer",
            _ => "header",
        };
        let (member, bytes) = (self.entries.len() + 1, meter.consumed());
        Err(Rejection::corrupt(format!("cut short after {bytes} bytes, in the {part} of member {member}")))
    }

    fn contents(self) -> Result<Contents, Rejection> {
        let mut contents = match self.inside {
            Inside::Tar(tar) => {
                let (tar, meter) = *tar;
                let contents = tar.finish(&meter).map_err(|rejection| rejection.within("the tar inside"))?;
                Contents { format: ArchiveFormat::Gzip, ..contents }
            }
            inside @ (Inside::Unknown(_) | Inside::Data(_)) => {
                if let Inside::Unknown(beginning) = inside {
                    beginning.pass_on();
                }
                let warnings = names::warnings(&self.entries, |_| None);
                Contents { format: ArchiveFormat::Gzip, entries: self.entries, warnings }
            }
        };
        contents.warnings.extend(self.padding.warning());
        Ok(contents)
    }

    fn step(&mut self, input: &mut &[u8], meter: &mut Meter) -> Result<(), Rejection> {
        match self.section {
            GzipSection::FixedHeader
                if self.gathered.is_empty() && !self.entries.is_empty() && input.first() == Some(&0) =>
            {
                self.section = GzipSection::Padding;
            }
            GzipSection::FixedHeader => self.fixed_header(input, meter)?,
            GzipSection::Extra => {
                let length_known = gather(&mut self.gathered, self.field + 2, input, meter);
                if length_known {
                    let end = self.field + 2 + usize::from(u16_at(&self.gathered, self.field));
                    if gather(&mut self.gathered, end, input, meter) {
                        self.next_field(GzipSection::Extra);
                    }
                }
            }
            GzipSection::Name | GzipSection::Comment => {
                let end = memchr::memchr(0, input);
                let taken = end.map_or(input.len(), |at| at + 1);
                let wanted = self.gathered.len() + taken;
                if wanted > MOST_HEADER_BYTES {
                    return Err(Rejection::unverifiable(format!(
                        "its header is longer than {MOST_HEADER_BYTES} bytes"
                    )));
                }
                gather(&mut self.gathered, wanted, input, meter);
                if end.is_some() {
                    if self.section == GzipSection::Name {
                        self.name = name(&self.gathered[self.field..wanted - 1]);
                    }
                    self.next_field(self.section);
                }
            }
            GzipSection::HeaderCrc => {
                if gather(&mut self.gathered, self.field + 2, input, meter) {
                    // RFC 1952: the two low bytes of the CRC-32 of the header before it.
                    let computed = crc32fast::hash(&self.gathered[..self.field]) & 0xffff;
                    let recorded = u32::from(u16_at(&self.gathered, self.field));
                    if computed != recorded {
                        return Err(Rejection::corrupt(format!(
                            "the CRC-16 of its header is {computed:04x}, recorded is {recorded:04x}"
                        )));
                    }
                    self.next_field(GzipSection::HeaderCrc);
                }
            }
            GzipSection::Data => {
                let (inside, member) = (&mut self.inside, self.entries.len());
                let within = meter.within();
                if self.inflater.inflate(input, meter, |bytes| inside.write(member, bytes, &within))? {
                    self.section = GzipSection::Trailer;
                }
            }
            GzipSection::Trailer => self.trailer(input, meter)?,
            GzipSection::Padding => self.padding.read(input, meter)?,
        }
        Ok(())
    }

    fn fixed_header(&mut self, input: &mut &[u8], meter: &mut Meter) -> Result<(), Rejection> {
        let whole = gather(&mut self.gathered, HEADER_BYTES, input, meter);
        // Checked byte by byte, however the input is cut.
        if self.gathered.iter().zip(MAGIC).any(|(byte, magic)| *byte != magic) {
            return Err(Rejection::unverifiable("other data follows the end of the previous member"));
        }
        if whole {
            let (method, flags) = (self.gathered[2], self.gathered[3]);
            if method != METHOD_DEFLATE {
                return Err(Rejection::unverifiable(format!("unsupported compression method {method}")));
            }
            if flags & FLAGS_RESERVED != 0 {
                return Err(Rejection::unverifiable(format!("unsupported header flags {flags:#04x}")));
            }
            self.name.clear();
            self.next_field(GzipSection::FixedHeader);
        }
        Ok(())
    }

    /// Moves on to the first field after `done` that this header has, or to the data.
    fn next_field(&mut self, done: GzipSection) {
        let flags = self.gathered[3];
        let optional = [
            (GzipSection::Extra, FLAG_EXTRA),
            (GzipSection::Name, FLAG_NAME),
            (GzipSection::Comment, FLAG_COMMENT),
            (GzipSection::HeaderCrc, FLAG_HEADER_CRC),
        ];
        let after = optional.iter().position(|(part, _)| *part == done).map_or(0, |at| at + 1);
        match optional[after..].iter().find(|(_, flag)| flags & flag != 0) {
            Some((part, _)) => {
                self.section = *part;
                self.field = self.gathered.len();
            }
            None => {
                self.gathered.clear();
                self.inflater.restart();
                self.section = GzipSection::Data;
            }
        }
    }

    fn trailer(&mut self, input: &mut &[u8], meter: &mut Meter) -> Result<(), Rejection> {
        if !gather(&mut self.gathered, TRAILER_BYTES, input, meter) {
            return Ok(());
        }
        let (crc32, size) = (self.inflater.checksum().crc32(), self.inflater.checksum().size);
        let (recorded_crc32, recorded_size) = (u32_at(&self.gathered, 0), u32_at(&self.gathered, 4));
        if crc32 != recorded_crc32 {
            return Err(Rejection::corrupt(format!("its CRC-32 is {crc32:08x}, recorded is {recorded_crc32:08x}")));
        }
        // RFC 1952: recorded modulo 2^32.
        if size & u64::from(u32::MAX) != u64::from(recorded_size) {
            return Err(Rejection::corrupt(format!(
                "it holds {size} bytes, recorded (modulo 2^32) are {recorded_size}"
            )));
        }
        meter.remember(self.name.as_bytes())?;
        if let Inside::Unknown(beginning) = &mut self.inside {
            beginning.ends.push(beginning.bytes.len());
        }
        self.entries.push(ArchiveEntry { name: std::mem::take(&mut self.name), size, crc32: Some(crc32) });
        self.gathered.clear();
        self.section = GzipSection::FixedHeader;
        Ok(())
    }
}

impl Beginning {
    /// Passes on the bytes, each to the member that it belongs to.
    fn pass_on(self) -> Tap {
        let Beginning { bytes, ends, mut tap } = self;
        let mut start = 0;
        for (member, end) in ends.into_iter().chain([bytes.len()]).enumerate() {
            tap.pass_on(member, &bytes[start..end]);
            start = end;
        }
        tap
    }
}

impl Inside {
    /// Takes the next bytes of the members' data; `meter` is a new one with the archive's limits.
    fn write(&mut self, member: usize, bytes: &[u8], meter: &Meter) -> Result<(), Rejection> {
        match self {
            Inside::Unknown(beginning) => {
                let seen_before = beginning.bytes.len();
                beginning.bytes.extend_from_slice(&bytes[..bytes.len().min(HEAD_BYTES - seen_before)]);
                let mut beginning = std::mem::take(beginning);
                *self = match magic::recognise(&beginning.bytes) {
                    None => Inside::Unknown(beginning),
                    Some(Magic::Tar) => {
                        let mut tar = Inside::Tar(Box::new((Tar::new(beginning.tap), meter.within())));
                        tar.write(member, &beginning.bytes[..seen_before], meter)?;
                        tar.write(member, bytes, meter)?;
                        tar
                    }
                    Some(_) => {
                        beginning.bytes.truncate(seen_before);
                        let mut tap = beginning.pass_on();
                        tap.pass_on(member, bytes);
                        Inside::Data(tap)
                    }
                };
                Ok(())
            }
            Inside::Data(tap) => {
                tap.pass_on(member, bytes);
                Ok(())
            }
            Inside::Tar(tar) => {
                let (tar, meter) = &mut **tar;
                tar.write(bytes, meter).map_err(|rejection| rejection.within("the tar inside"))
            }
        }
    }
}

/// ISO 8859-1 by RFC 1952; gzip itself writes the file system's bytes, which are UTF-8 today.
fn name(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(name) => name.to_owned(),
        Err(_) => bytes.iter().copied().map(char::from).collect(),
    }
}
