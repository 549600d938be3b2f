//! Zip archives (PKWARE's APPNOTE.TXT 6.3), read forward only.
//!
//! This file owns the zip format: every entry's data is checked against its local header or data descriptor, the
//! central directory against the entries, the end records against the central directory. Fields that bear on the data (name,
//! method, CRC-32, sizes, offset) must agree everywhere; a disagreement in other fields, which some writers produce, is a
//! warning. It must not know that other formats exist. Section numbers in comments are APPNOTE's.

use std::collections::BTreeMap;

use super::{
    ArchiveEntry, ArchiveFormat, Contents, Rejection,
    inflate::{Checksum, Inflater},
    input::{Padding, gather, u16_at, u32_at, u64_at},
    meter::Meter,
    names,
};

/// The first four bytes of each structure.
mod signature {
    pub(super) const LOCAL_HEADER: u32 = 0x0403_4b50;
    pub(super) const DATA_DESCRIPTOR: u32 = 0x0807_4b50;
    pub(super) const ARCHIVE_EXTRA_DATA: u32 = 0x0806_4b50;
    pub(super) const CENTRAL_HEADER: u32 = 0x0201_4b50;
    pub(super) const DIGITAL_SIGNATURE: u32 = 0x0505_4b50;
    pub(super) const ZIP64_END: u32 = 0x0606_4b50;
    pub(super) const ZIP64_LOCATOR: u32 = 0x0706_4b50;
    pub(super) const END: u32 = 0x0605_4b50;
    /// Begins the first volume of a split archive, even if it remains the only one (8.5.3); later writers then put the
    /// other marker there (8.5.4).
    pub(super) const SPLIT: u32 = DATA_DESCRIPTOR;
    pub(super) const NOT_SPLIT: u32 = 0x3030_4b50;
}

/// Lengths in bytes, without the fields of variable length.
const SIGNATURE_BYTES: usize = 4;
const LOCAL_HEADER_BYTES: usize = 30;
const CENTRAL_HEADER_BYTES: usize = 46;
const ZIP64_END_BYTES: usize = 56;
const ZIP64_LOCATOR_BYTES: usize = 20;
const END_BYTES: usize = 22;

/// General purpose flags (4.4.4).
const FLAG_ENCRYPTED: u16 = 1;
const FLAG_DESCRIPTOR: u16 = 1 << 3;
const FLAG_PATCH: u16 = 1 << 5;
const FLAG_STRONG_ENCRYPTION: u16 = 1 << 6;
const FLAG_UTF8: u16 = 1 << 11;
const FLAG_MASKED_HEADERS: u16 = 1 << 13;

/// The flags that bear on how the data is read.
const FLAGS_OF_DATA: u16 = FLAG_ENCRYPTED | FLAG_PATCH | FLAG_STRONG_ENCRYPTION | FLAG_MASKED_HEADERS;

const METHOD_STORED: u16 = 0;
const METHOD_DEFLATED: u16 = 8;

/// The extra field that widens sizes and offsets to 64 bits (4.5.3), the version that introduced it, and the versions
/// that stored and deflated files need without it (4.4.3).
const EXTRA_ZIP64: u16 = 1;
const VERSION_ZIP64: u16 = 45;
const VERSIONS_NARROW: [u16; 2] = [10, 20];

/// File type bits of a Unix mode, which the upper half of the external attributes holds, and those of a symbolic link.
const MODE_TYPE: u32 = 0o170_000;
const MODE_SYMLINK: u32 = 0o120_000;

/// A zip archive being read.
pub(super) struct Zip {
    section: Section,
    /// The bytes so far of the structure being read.
    gathered: Vec<u8>,
    inflater: Inflater,
    entries: Vec<LocalEntry>,
    directory: CentralDirectory,
    /// Whether the archive begins like the first volume of a split one.
    is_marked_split: bool,
    oddities: Oddities,
    padding: Padding,
}

/// Oddities of headers that do not bear on the data: for each sentence the first entry that it applies to, and the number
/// of others.
#[derive(Default)]
struct Oddities(BTreeMap<&'static str, (String, u64)>);

impl Oddities {
    fn note(&mut self, sentence: &'static str, entry: impl FnOnce() -> String) {
        self.0.entry(sentence).and_modify(|(_, others)| *others += 1).or_insert_with(|| (entry(), 0));
    }

    fn warnings(self) -> impl Iterator<Item = String> {
        self.0.into_iter().map(|(sentence, (entry, others))| match others {
            0 => format!("{entry}: {sentence}"),
            others => format!("{entry} and {others} more: {sentence}"),
        })
    }
}

/// The section that the next byte belongs to.
enum Section {
    /// The first four bytes.
    Beginning,
    /// A local header, or the first structure after the last entry.
    Entries,
    Data(LocalEntry, EntryData),
    Descriptor(LocalEntry),
    Directory,
    Zip64Locator {
        zip64_end: u64,
    },
    End {
        zip64: bool,
    },
    /// None: the archive is complete.
    Nothing,
}

/// The data of an entry, by how its end is found.
enum EntryData {
    /// Stored, with this many bytes left.
    Stored(u64, Checksum),
    /// Stored, of unknown length: a data descriptor ends it.
    StoredToDescriptor(DescriptorSearch),
    /// Deflated, with this many bytes left if that is known; the stream marks its end.
    Deflated(Option<u64>),
}

/// An entry: the values of its local header, replaced by those of its data once that is read.
struct LocalEntry {
    /// Of the local header, from the start of the archive.
    offset: u64,
    name: Box<[u8]>,
    version: u16,
    flags: u16,
    method: u16,
    /// Date and time in MS-DOS format; only compared.
    modified: u32,
    /// Whether the local header has a zip64 extra field.
    zip64: bool,
    crc32: u32,
    compressed_size: u64,
    size: u64,
    /// Whether the local header has the right CRC-32 and sizes.
    is_described: bool,
    /// Whether the central directory lists it.
    listed: bool,
    symlink: bool,
}

/// The central directory so far.
#[derive(Default)]
struct CentralDirectory {
    offset: u64,
    bytes: u64,
    headers: u64,
    /// Whether the last header ends with bytes that may be read as a zip64 locator.
    ends_like_zip64: bool,
}

impl Zip {
    pub(super) fn new() -> Zip {
        Zip {
            section: Section::Beginning,
            gathered: Vec::new(),
            inflater: Inflater::new(),
            entries: Vec::new(),
            directory: CentralDirectory::default(),
            is_marked_split: false,
            oddities: Oddities::default(),
            padding: Padding::default(),
        }
    }

    pub(super) fn write(&mut self, mut input: &[u8], meter: &mut Meter) -> Result<(), Rejection> {
        while !input.is_empty() {
            let part = std::mem::replace(&mut self.section, Section::Nothing);
            self.section = match part {
                Section::Data(local, data) => {
                    let entry = names::entry(&String::from_utf8_lossy(&local.name));
                    self.data(local, data, &mut input, meter).map_err(|rejection| rejection.within(&entry))?
                }
                Section::Descriptor(local) => self.descriptor(local, &mut input, meter)?,
                Section::Nothing => {
                    self.padding.read(&mut input, meter)?;
                    Section::Nothing
                }
                part => self.structure(&part, &mut input, meter)?.unwrap_or(part),
            };
        }
        Ok(())
    }

    pub(super) fn finish(self, meter: &Meter) -> Result<Contents, Rejection> {
        if self.is_marked_split && !matches!(self.section, Section::Nothing) {
            return Err(split());
        }
        let place = match self.section {
            Section::Nothing => return Ok(self.contents()),
            Section::Beginning | Section::Entries => "a local header".to_owned(),
            Section::Data(local, EntryData::StoredToDescriptor(_)) => {
                format!("{}, whose data descriptor is missing or wrong", local.entry())
            }
            Section::Data(local, _) => local.entry(),
            Section::Descriptor(local) => format!("the data descriptor of {}", local.entry()),
            Section::Directory => "the central directory".to_owned(),
            Section::Zip64Locator { .. } | Section::End { .. } => "the end of the central directory".to_owned(),
        };
        Err(Rejection::corrupt(format!("cut short after {} bytes, in {place}", meter.consumed())))
    }

    fn contents(self) -> Contents {
        let symlinks: Vec<bool> = self.entries.iter().map(|local| local.symlink).collect();
        let entries: Vec<ArchiveEntry> = self
            .entries
            .into_iter()
            .map(|LocalEntry { name, size, crc32, .. }| {
                let name = String::from_utf8(name.into_vec())
                    .unwrap_or_else(|invalid| String::from_utf8_lossy(invalid.as_bytes()).into_owned());
                ArchiveEntry { name, size, crc32: Some(crc32) }
            })
            .collect();
        let mut warnings = names::warnings(&entries, |index| symlinks[index].then_some("it is a symbolic link"));
        warnings.extend(self.oddities.warnings());
        warnings.extend(self.padding.warning());
        Contents { format: ArchiveFormat::Zip, entries, warnings }
    }

    /// Reads on in a structure that begins with a signature; returns the next section once it is complete.
    fn structure(
        &mut self,
        part: &Section,
        input: &mut &[u8],
        meter: &mut Meter,
    ) -> Result<Option<Section>, Rejection> {
        if !gather(&mut self.gathered, SIGNATURE_BYTES, input, meter) {
            return Ok(None);
        }
        let offset = meter.consumed() - self.gathered.len() as u64;
        match (part, u32_at(&self.gathered, 0)) {
            (Section::Beginning, marker @ (signature::SPLIT | signature::NOT_SPLIT)) => {
                self.is_marked_split = marker == signature::SPLIT;
                self.gathered.clear();
                Ok(Some(Section::Entries))
            }
            (Section::Beginning, _) => Ok(Some(Section::Entries)),
            (Section::Entries, signature::LOCAL_HEADER) => self.local_header(offset, input, meter),
            (Section::Entries, signature::CENTRAL_HEADER | signature::ZIP64_END | signature::END) => {
                self.directory.offset = offset;
                Ok(Some(Section::Directory))
            }
            (Section::Directory, signature::CENTRAL_HEADER) => self.central_header(input, meter),
            (Section::Directory, signature::ZIP64_END) => self.zip64_end(offset, input, meter),
            (Section::Directory, signature::END) => self.end(false, input, meter),
            (Section::Zip64Locator { zip64_end }, signature::ZIP64_LOCATOR) => {
                self.zip64_locator(*zip64_end, input, meter)
            }
            (Section::End { zip64 }, signature::END) => self.end(*zip64, input, meter),
            (_, signature::ARCHIVE_EXTRA_DATA | signature::DIGITAL_SIGNATURE) => Err(Rejection::unsupported(format!(
                "encrypted or signed central directory (a record for that is at byte {offset})"
            ))),
            (part, _) => {
                let expected = match part {
                    Section::Entries => "neither a local header nor the central directory",
                    Section::Directory => "neither a central header nor the end of the central directory",
                    Section::Zip64Locator { .. } => "no zip64 locator",
                    _ => "no end of central directory record",
                };
                Err(Rejection::corrupt(format!("{expected} is at byte {offset}")))
            }
        }
    }

    /// 4.3.7
    fn local_header(
        &mut self,
        offset: u64,
        input: &mut &[u8],
        meter: &mut Meter,
    ) -> Result<Option<Section>, Rejection> {
        if !gather(&mut self.gathered, LOCAL_HEADER_BYTES, input, meter) {
            return Ok(None);
        }
        let name_end = LOCAL_HEADER_BYTES + usize::from(u16_at(&self.gathered, 26));
        let extra_end = name_end + usize::from(u16_at(&self.gathered, 28));
        if !gather(&mut self.gathered, extra_end, input, meter) {
            return Ok(None);
        }
        let (header, extra) = self.gathered.split_at(name_end);
        let name = &header[LOCAL_HEADER_BYTES..];
        meter.remember(name)?;
        let local = LocalEntry::parse(offset, header, extra)
            .map_err(|rejection| rejection.within(&names::entry(&String::from_utf8_lossy(name))))?;
        self.gathered.clear();
        self.inflater.restart();
        let descriptor = local.flags & FLAG_DESCRIPTOR != 0;
        let data = match (local.method, descriptor) {
            // With a descriptor the size should be zero (4.4.4), but some writers record it.
            (METHOD_STORED, false) => EntryData::Stored(local.compressed_size, Checksum::default()),
            (METHOD_STORED, true) if local.compressed_size > 0 => {
                EntryData::Stored(local.compressed_size, Checksum::default())
            }
            (METHOD_STORED, true) => EntryData::StoredToDescriptor(DescriptorSearch::default()),
            (_, false) => EntryData::Deflated(Some(local.compressed_size)),
            (_, true) => EntryData::Deflated(None),
        };
        Ok(Some(Section::Data(local, data)))
    }

    /// Reads on in an entry's data.
    fn data(
        &mut self,
        local: LocalEntry,
        data: EntryData,
        input: &mut &[u8],
        meter: &mut Meter,
    ) -> Result<Section, Rejection> {
        match data {
            EntryData::Stored(left, mut checksum) => {
                let (now, later) = input.split_at(at_most(left, input.len()));
                *input = later;
                checksum.update(now);
                meter.consume(now.len());
                meter.inflate(now.len())?;
                match left - now.len() as u64 {
                    0 => self.data_end(local, checksum.size, &checksum),
                    left => Ok(Section::Data(local, EntryData::Stored(left, checksum))),
                }
            }
            EntryData::StoredToDescriptor(mut search) => match search.read(input, meter)? {
                Some((checksum, next_signature)) => {
                    self.gathered.extend_from_slice(&next_signature);
                    let local = local.with_data(checksum.size, &checksum)?;
                    self.entries.push(local);
                    Ok(Section::Entries)
                }
                None => Ok(Section::Data(local, EntryData::StoredToDescriptor(search))),
            },
            EntryData::Deflated(left) => {
                let available = left.map_or(input.len(), |left| at_most(left, input.len()));
                let mut rest = &input[..available];
                let ended = self.inflater.inflate(&mut rest, meter, |_| Ok(()))?;
                let taken = available - rest.len();
                *input = &input[taken..];
                match (ended, left.map(|left| left - taken as u64)) {
                    (true, None | Some(0)) => {
                        let checksum = self.inflater.checksum().clone();
                        self.data_end(local, self.inflater.taken(), &checksum)
                    }
                    (true, Some(left)) => {
                        Err(Rejection::corrupt(format!("{left} bytes of its data are not deflated data")))
                    }
                    (false, Some(0)) => Err(Rejection::corrupt("its deflate stream is not complete")),
                    (false, left) => Ok(Section::Data(local, EntryData::Deflated(left))),
                }
            }
        }
    }

    fn data_end(&mut self, local: LocalEntry, compressed_size: u64, checksum: &Checksum) -> Result<Section, Rejection> {
        let local = local.with_data(compressed_size, checksum)?;
        if local.flags & FLAG_DESCRIPTOR != 0 {
            return Ok(Section::Descriptor(local));
        }
        self.entries.push(local);
        Ok(Section::Entries)
    }

    /// Reads the descriptor after deflated data. Only its values and the header after it show its form: for an empty entry
    /// one form is the beginning of another.
    fn descriptor(&mut self, local: LocalEntry, input: &mut &[u8], meter: &mut Meter) -> Result<Section, Rejection> {
        // An archive with a descriptor has more bytes than this after the data.
        if !gather(&mut self.gathered, DescriptorForm::LONGEST + SIGNATURE_BYTES, input, meter) {
            return Ok(Section::Descriptor(local));
        }
        let length = DescriptorForm::ALL
            .iter()
            .filter_map(|form| form.encode(local.crc32, local.compressed_size, local.size))
            .find(|descriptor| {
                self.gathered.starts_with(descriptor) && is_header(u32_at(&self.gathered, descriptor.len()))
            })
            .map(|descriptor| descriptor.len());
        match length {
            Some(length) => drop(self.gathered.drain(..length)),
            // The local header is right about the data, and the next header follows immediately.
            None if local.is_described && is_header(u32_at(&self.gathered, 0)) => {
                self.oddities.note("a data descriptor is announced, and there is none", || local.entry());
            }
            None => {
                return Err(Rejection::corrupt("its data descriptor contradicts its data").within(&local.entry()));
            }
        }
        self.entries.push(local);
        Ok(Section::Entries)
    }

    /// 4.3.12
    fn central_header(&mut self, input: &mut &[u8], meter: &mut Meter) -> Result<Option<Section>, Rejection> {
        if !gather(&mut self.gathered, CENTRAL_HEADER_BYTES, input, meter) {
            return Ok(None);
        }
        let name_end = CENTRAL_HEADER_BYTES + usize::from(u16_at(&self.gathered, 28));
        let extra_end = name_end + usize::from(u16_at(&self.gathered, 30));
        let comment_end = extra_end + usize::from(u16_at(&self.gathered, 32));
        if !gather(&mut self.gathered, comment_end, input, meter) {
            return Ok(None);
        }
        let (header, rest) = self.gathered.split_at(name_end);
        let name = &header[CENTRAL_HEADER_BYTES..];
        let entry = || names::entry(&String::from_utf8_lossy(name));
        list(&mut self.entries, header, &rest[..extra_end - name_end], |oddity| self.oddities.note(oddity, entry))
            .map_err(|rejection| rejection.within(&entry()))?;
        self.directory.headers += 1;
        self.directory.bytes += comment_end as u64;
        self.directory.ends_like_zip64 =
            self.gathered[comment_end - ZIP64_LOCATOR_BYTES..].starts_with(&signature::ZIP64_LOCATOR.to_le_bytes());
        self.gathered.clear();
        Ok(Some(Section::Directory))
    }

    /// 4.3.14
    fn zip64_end(&mut self, offset: u64, input: &mut &[u8], meter: &mut Meter) -> Result<Option<Section>, Rejection> {
        if !gather(&mut self.gathered, ZIP64_END_BYTES, input, meter) {
            return Ok(None);
        }
        let record = &self.gathered;
        // Counted from the end of this field. A larger size means an extensible data sector, which is defined only for
        // encryption (4.4.27).
        if u64_at(record, 4) != (ZIP64_END_BYTES - 12) as u64 {
            return Err(Rejection::unverifiable(
                "unsupported extensible data in its zip64 end of central directory record",
            ));
        }
        let CentralDirectory { offset: directory, bytes, headers, .. } = self.directory;
        if u32_at(record, 16) != 0 || u32_at(record, 20) != 0 {
            return Err(split());
        }
        for (field, recorded, found) in [
            ("number of entries on this disk", u64_at(record, 24), headers),
            ("number of entries", u64_at(record, 32), headers),
            ("size of the central directory", u64_at(record, 40), bytes),
            ("offset of the central directory", u64_at(record, 48), directory),
        ] {
            same(field, "its zip64 end of central directory record", recorded, found)?;
        }
        self.gathered.clear();
        Ok(Some(Section::Zip64Locator { zip64_end: offset }))
    }

    /// 4.3.15
    fn zip64_locator(
        &mut self,
        zip64_end: u64,
        input: &mut &[u8],
        meter: &mut Meter,
    ) -> Result<Option<Section>, Rejection> {
        if !gather(&mut self.gathered, ZIP64_LOCATOR_BYTES, input, meter) {
            return Ok(None);
        }
        let record = &self.gathered;
        let (disk, disks) = (u32_at(record, 4), u32_at(record, 16));
        // Some writers count from zero.
        if disk != 0 || disks > 1 {
            return Err(split());
        }
        same("offset of the zip64 end of central directory record", "its zip64 locator", u64_at(record, 8), zip64_end)?;
        self.gathered.clear();
        Ok(Some(Section::End { zip64: true }))
    }

    /// 4.3.16
    fn end(&mut self, zip64: bool, input: &mut &[u8], meter: &mut Meter) -> Result<Option<Section>, Rejection> {
        if !gather(&mut self.gathered, END_BYTES, input, meter) {
            return Ok(None);
        }
        let comment_end = END_BYTES + usize::from(u16_at(&self.gathered, 20));
        if !gather(&mut self.gathered, comment_end, input, meter) {
            return Ok(None);
        }
        let record = &self.gathered;
        let (u16_at, u32_at) = (|at| u64::from(u16_at(record, at)), |at| u64::from(u32_at(record, at)));
        let (most16, most32) = (u64::from(u16::MAX), u64::from(u32::MAX));
        // A field of all ones refers to the zip64 record (4.4.1.4); some writers use it where the value would fit.
        let deferred = |recorded, most| zip64 && recorded == most;
        if [u16_at(4), u16_at(6)].into_iter().any(|disk| disk != 0 && !deferred(disk, most16)) {
            return Err(split());
        }
        let CentralDirectory { offset: directory, bytes, headers, .. } = self.directory;
        for (field, recorded, most, found) in [
            ("number of entries on this disk", u16_at(8), most16, headers),
            ("number of entries", u16_at(10), most16, headers),
            ("size of the central directory", u32_at(12), most32, bytes),
            ("offset of the central directory", u32_at(16), most32, directory),
        ] {
            if !deferred(recorded, most) {
                same(field, "its end of central directory record", recorded, found)?;
            }
        }
        if let Some(hidden) = self.entries.iter().find(|local| !local.listed) {
            return Err(Rejection::corrupt("it is not in the central directory").within(&hidden.entry()));
        }
        // A reader that searches from the end finds that one, even if it begins in the last fields of this record.
        if memchr::memmem::find(&record[SIGNATURE_BYTES..], &signature::END.to_le_bytes()).is_some() {
            return Err(Rejection::unverifiable(
                "ambiguous: its end of central directory record has another one in it",
            ));
        }
        // Python and Info-ZIP always look for the locator before this record.
        if !zip64 && self.directory.ends_like_zip64 {
            return Err(Rejection::unverifiable("ambiguous: its last central header ends like a zip64 locator"));
        }
        self.gathered.clear();
        Ok(Some(Section::Nothing))
    }
}

impl LocalEntry {
    /// Reads a local header: `header` up to the end of the name, then the extra fields.
    fn parse(offset: u64, header: &[u8], extra: &[u8]) -> Result<LocalEntry, Rejection> {
        let (flags, method) = (u16_at(header, 6), u16_at(header, 8));
        if flags & (FLAG_ENCRYPTED | FLAG_STRONG_ENCRYPTION | FLAG_MASKED_HEADERS) != 0 {
            return Err(Rejection::unsupported(
                "encrypted, so that nothing shows whether it is whole; have the report delivered without a password",
            ));
        }
        if flags & FLAG_PATCH != 0 {
            return Err(Rejection::unsupported(
                "holds a patch, not a file; have the report delivered as an ordinary zip",
            ));
        }
        if ![METHOD_STORED, METHOD_DEFLATED].contains(&method) {
            return Err(Rejection::unsupported(format!(
                "unsupported compression method {method}; have the report delivered as an ordinary zip, deflated or stored"
            )));
        }
        let wide = zip64_extra(extra)?;
        let mut wide_fields = wide;
        let size = widen(u32_at(header, 22), &mut wide_fields)?;
        let compressed_size = widen(u32_at(header, 18), &mut wide_fields)?;
        Ok(LocalEntry {
            offset,
            name: header[LOCAL_HEADER_BYTES..].into(),
            version: u16_at(header, 4),
            flags,
            method,
            modified: u32_at(header, 10),
            zip64: wide.is_some(),
            crc32: u32_at(header, 14),
            compressed_size,
            size,
            is_described: false,
            listed: false,
            symlink: false,
        })
    }

    /// Checks the header against the data, and takes over the values of the data.
    fn with_data(self, compressed_size: u64, checksum: &Checksum) -> Result<LocalEntry, Rejection> {
        let (size, crc32) = (checksum.size, checksum.crc32());
        let is_described = (self.crc32, self.compressed_size, self.size) == (crc32, compressed_size, size);
        for (field, recorded, found) in [
            ("compressed size", self.compressed_size, compressed_size),
            ("size", self.size, size),
            ("CRC-32", u64::from(self.crc32), u64::from(crc32)),
        ] {
            // With a descriptor these should be zero (4.4.4), but some writers record them.
            if recorded != 0 || self.flags & FLAG_DESCRIPTOR == 0 {
                same(field, "its local header", recorded, found)?;
            }
        }
        Ok(LocalEntry { compressed_size, size, crc32, is_described, ..self })
    }

    fn entry(&self) -> String {
        names::entry(&String::from_utf8_lossy(&self.name))
    }
}

/// Finds the entry of a central header, and checks that both agree: `header` up to the end of the name, then the extra
/// fields. Disagreements that do not bear on the data are passed to `note`.
fn list(
    entries: &mut [LocalEntry],
    header: &[u8],
    extra: &[u8],
    mut note: impl FnMut(&'static str),
) -> Result<(), Rejection> {
    let wide = zip64_extra(extra)?;
    let mut wide_fields = wide;
    let size = widen(u32_at(header, 24), &mut wide_fields)?;
    let compressed_size = widen(u32_at(header, 20), &mut wide_fields)?;
    let offset = widen(u32_at(header, 42), &mut wide_fields)?;
    let disk = match (u16_at(header, 34), wide_fields) {
        (u16::MAX, Some(&[a, b, c, d, ..])) => u32::from_le_bytes([a, b, c, d]),
        (disk, _) => u32::from(disk),
    };
    if disk != 0 {
        return Err(split());
    }
    let not_there = || Rejection::corrupt(format!("the central directory has it at byte {offset}, where none begins"));
    let index = entries.binary_search_by_key(&offset, |local| local.offset).map_err(|_| not_there())?;
    let local = &mut entries[index];
    if std::mem::replace(&mut local.listed, true) {
        return Err(Rejection::corrupt(format!("the central directory has it at byte {offset} twice")));
    }
    if header[CENTRAL_HEADER_BYTES..] != *local.name {
        return Err(Rejection::corrupt(format!("its local header calls it {}", local.entry())));
    }
    // The flag for UTF-8 bears only on names that are not ASCII.
    let bearing = if local.name.is_ascii() { FLAGS_OF_DATA } else { FLAGS_OF_DATA | FLAG_UTF8 };
    let flags = u16_at(header, 8);
    for (field, recorded, found) in [
        ("flags", u64::from(flags & bearing), u64::from(local.flags & bearing)),
        ("compression method", u64::from(u16_at(header, 10)), u64::from(local.method)),
        ("modification time", u64::from(u32_at(header, 12)), u64::from(local.modified)),
        ("CRC-32", u64::from(u32_at(header, 16)), u64::from(local.crc32)),
        ("compressed size", compressed_size, local.compressed_size),
        ("size", size, local.size),
    ] {
        same(field, "the central directory", recorded, found)?;
    }
    // Only the header with a zip64 extra field needs the version that introduced it. The two differ for an entry at an
    // offset beyond 4 GiB, which is recorded only in the central header.
    let versions = [(local.version, local.zip64), (u16_at(header, 6), wide.is_some())];
    let widened = match versions {
        [(VERSION_ZIP64, true), (narrow, _)] | [(narrow, _), (VERSION_ZIP64, true)] => {
            VERSIONS_NARROW.contains(&narrow)
        }
        _ => false,
    };
    if !widened && versions[0].0 != versions[1].0 {
        note("the version needed is another in the central directory than in its local header");
    }
    match (flags ^ local.flags) & !bearing {
        0 => {}
        FLAG_DESCRIPTOR => note("only one of its headers announces a data descriptor"),
        _ => note("the flags in the central directory are others than those in its local header"),
    }
    local.symlink = (u32_at(header, 38) >> 16) & MODE_TYPE == MODE_SYMLINK;
    Ok(())
}

/// The search for the end of stored data of unknown length: a descriptor with the length and CRC-32 of the data before it,
/// followed by a header.
///
/// It stops only at signatures of headers and computes the CRC-32 as it goes, so that it takes linear time.
#[derive(Default)]
struct DescriptorSearch {
    /// Of the data before `pending`.
    checksum: Checksum,
    /// Bytes that may belong to the descriptor or to the signature after it.
    pending: Vec<u8>,
}

/// Most bytes searched in one call.
const SEARCH_BYTES: usize = 64 * 1024;

impl DescriptorSearch {
    /// Takes bytes off the front of `input`, including the signature after the descriptor if that is found; then returns
    /// the checksum of the data, and that signature.
    fn read(
        &mut self,
        input: &mut &[u8],
        meter: &mut Meter,
    ) -> Result<Option<(Checksum, [u8; SIGNATURE_BYTES])>, Rejection> {
        let searched = self.pending.len();
        let (now, later) = input.split_at(input.len().min(SEARCH_BYTES));
        self.pending.extend_from_slice(now);
        // A signature that ends in the new bytes may begin before them.
        let mut from = searched.saturating_sub(SIGNATURE_BYTES - 1);
        // Bytes of `pending` that `checksum` covers.
        let mut covered = 0;
        while let Some(at) = memchr::memmem::find(&self.pending[from..], b"PK") {
            let at = from + at;
            let Some(next) = self.pending.get(at..at + SIGNATURE_BYTES) else { break };
            if is_header(u32_at(next, 0)) {
                for form in DescriptorForm::ALL {
                    let Some(end) = at.checked_sub(form.length()) else { continue };
                    let size = self.checksum.size + (end - covered) as u64;
                    if form.size(&self.pending[..at]) != size {
                        continue;
                    }
                    let settled = at.saturating_sub(DescriptorForm::LONGEST).max(covered);
                    self.checksum.update(&self.pending[covered..settled]);
                    covered = settled;
                    let mut checksum = self.checksum.clone();
                    checksum.update(&self.pending[covered..end]);
                    let descriptor = form.encode(checksum.crc32(), size, size);
                    if descriptor.is_some_and(|descriptor| descriptor == self.pending[end..at]) {
                        let taken = at + SIGNATURE_BYTES - searched;
                        meter.consume(taken);
                        meter.inflate(end)?;
                        let next_signature = [next[0], next[1], next[2], next[3]];
                        *input = &input[taken..];
                        return Ok(Some((checksum, next_signature)));
                    }
                }
            }
            from = at + 2;
        }
        *input = later;
        meter.consume(now.len());
        let kept = DescriptorForm::LONGEST + SIGNATURE_BYTES - 1;
        let settled = self.pending.len().saturating_sub(kept).max(covered);
        self.checksum.update(&self.pending[covered..settled]);
        self.pending.drain(..settled);
        meter.inflate(settled)?;
        Ok(None)
    }
}

/// One of the four forms of a data descriptor (4.3.9): the signature is optional, and the sizes are 64 bits wide if there
/// is a zip64 extra field, and often without one.
struct DescriptorForm {
    signed: bool,
    wide: bool,
}

impl DescriptorForm {
    const ALL: [DescriptorForm; 4] = [
        DescriptorForm { signed: true, wide: false },
        DescriptorForm { signed: true, wide: true },
        DescriptorForm { signed: false, wide: false },
        DescriptorForm { signed: false, wide: true },
    ];

    /// Length of the longest form, in bytes.
    const LONGEST: usize = 24;

    fn length(&self) -> usize {
        (if self.signed { 4 } else { 0 }) + 4 + 2 * (if self.wide { 8 } else { 4 })
    }

    /// The size in a descriptor at the end of `bytes`.
    fn size(&self, bytes: &[u8]) -> u64 {
        if self.wide { u64_at(bytes, bytes.len() - 8) } else { u64::from(u32_at(bytes, bytes.len() - 4)) }
    }

    /// The descriptor of such data; `None` if the sizes do not fit this form.
    fn encode(&self, crc32: u32, compressed_size: u64, size: u64) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(DescriptorForm::LONGEST);
        if self.signed {
            bytes.extend_from_slice(&signature::DATA_DESCRIPTOR.to_le_bytes());
        }
        bytes.extend_from_slice(&crc32.to_le_bytes());
        for size in [compressed_size, size] {
            if self.wide {
                bytes.extend_from_slice(&size.to_le_bytes());
            } else {
                bytes.extend_from_slice(&u32::try_from(size).ok()?.to_le_bytes());
            }
        }
        Some(bytes)
    }
}

/// Whether this signature can follow an entry.
fn is_header(signature: u32) -> bool {
    [signature::LOCAL_HEADER, signature::CENTRAL_HEADER].contains(&signature)
}

/// The contents of the zip64 extra field, if there is one.
fn zip64_extra(extra: &[u8]) -> Result<Option<&[u8]>, Rejection> {
    let (mut rest, mut zip64) = (extra, None);
    while !rest.is_empty() {
        let damaged = || Rejection::corrupt("its extra fields are damaged");
        // Too short for a field: some writers pad to align the data.
        if rest.len() < 4 && rest.iter().all(|byte| *byte == 0) {
            break;
        }
        let (head, tail) = rest.split_at_checked(4).ok_or_else(damaged)?;
        let (field, after) = tail.split_at_checked(usize::from(u16_at(head, 2))).ok_or_else(damaged)?;
        if u16_at(head, 0) == EXTRA_ZIP64 && zip64.replace(field).is_some() {
            return Err(Rejection::unverifiable("ambiguous: it has two zip64 extra fields"));
        }
        rest = after;
    }
    Ok(zip64)
}

/// A size or offset, taken off the front of the zip64 extra field if its own field is all ones (4.5.3). Without a
/// zip64 extra field, all ones are a plain number.
fn widen(narrow: u32, wide: &mut Option<&[u8]>) -> Result<u64, Rejection> {
    match wide {
        Some(fields) if narrow == u32::MAX => {
            let (field, rest) =
                fields.split_at_checked(8).ok_or_else(|| Rejection::corrupt("its zip64 extra field is too short"))?;
            *fields = rest;
            Ok(u64_at(field, 0))
        }
        _ => Ok(u64::from(narrow)),
    }
}

fn same(field: &str, place: &str, recorded: u64, found: u64) -> Result<(), Rejection> {
    if recorded == found {
        return Ok(());
    }
    Err(Rejection::corrupt(if field == "CRC-32" {
        format!("its {field} is {found:08x}, in {place} {recorded:08x}")
    } else {
        format!("its {field} is {found}, in {place} {recorded}")
    }))
}

fn split() -> Rejection {
    Rejection::unsupported("split into several files, of which this is one; have the report delivered in one file")
}

fn at_most(wanted: u64, available: usize) -> usize {
    usize::try_from(wanted).map_or(available, |wanted| wanted.min(available))
}
