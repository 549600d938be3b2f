//! Zip archives (PKWARE's APPNOTE.TXT 6.3), read forward only.
//!
//! This file owns the zip format: every entry's data is checked against its local header or data descriptor, the
//! central directory against the entries, the end records against the central directory. Fields that bear on the data (name,
//! method, CRC-32, sizes, offset) must agree everywhere; a disagreement in other fields, which some writers produce, is a
//! warning. It must not know that other formats exist. Section numbers in comments are APPNOTE's.

mod deflated;
mod descriptor;
mod directory;
mod entry;
mod format;
mod second;

use std::collections::BTreeMap;

use self::{
    deflated::Deflated,
    descriptor::{DescriptorForm, DescriptorSearch, is_header},
    entry::{FLAG_DESCRIPTOR, LocalEntry, METHOD_STORED, list},
    format::{
        CENTRAL_HEADER_BYTES, END_BYTES, LOCAL_HEADER_BYTES, SIGNATURE_BYTES, ZIP64_END_BYTES, ZIP64_LOCATOR_BYTES,
        same, signature, split,
    },
};
pub(super) use self::{
    directory::{Located, locate},
    second::Second,
};
use super::{
    ArchiveEntry, ArchiveFormat, Contents, Rejection,
    inflate::{Checksum, Inflater},
    input::{Padding, at_most, gather, u16_at, u32_at, u64_at},
    meter::Meter,
    names,
    tap::Tap,
};

/// A zip archive being read.
pub(super) struct Zip {
    section: ZipSection,
    /// The bytes so far of the structure being read.
    gathered: Vec<u8>,
    inflater: Inflater,
    /// Entries that another thread inflates meanwhile.
    second: Second,
    entries: Vec<LocalEntry>,
    directory: CentralDirectory,
    /// Whether the archive begins like the first volume of a split one.
    is_marked_split: bool,
    oddities: Oddities,
    padding: Padding,
    tap: Tap,
}

/// Oddities of headers that do not bear on the data: for each, the first entry and the number of others.
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
enum ZipSection {
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
    /// Deflated; the stream marks its end.
    Deflated(Deflated),
    /// Deflated, with this many bytes left for the second thread.
    Aside(u64),
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
    pub(super) fn new(second: Second, tap: Tap) -> Zip {
        Zip {
            section: ZipSection::Beginning,
            gathered: Vec::new(),
            inflater: Inflater::new(),
            second,
            entries: Vec::new(),
            directory: CentralDirectory::default(),
            is_marked_split: false,
            oddities: Oddities::default(),
            padding: Padding::default(),
            tap,
        }
    }

    pub(super) fn write(&mut self, input: &[u8], meter: &mut Meter) -> Result<(), Rejection> {
        // Of several rejections, the one of the earliest bytes is the verdict.
        self.read(input, meter).map_err(|rejection| self.second.finish().err().unwrap_or(rejection))
    }

    fn read(&mut self, mut input: &[u8], meter: &mut Meter) -> Result<(), Rejection> {
        while !input.is_empty() {
            let part = std::mem::replace(&mut self.section, ZipSection::Nothing);
            self.section = match part {
                ZipSection::Data(local, data) => {
                    let entry = names::entry(&String::from_utf8_lossy(&local.name));
                    self.data(local, data, &mut input, meter).map_err(|rejection| rejection.within(&entry))?
                }
                ZipSection::Descriptor(local) => self.descriptor(local, &mut input, meter)?,
                ZipSection::Nothing => {
                    self.padding.read(&mut input, meter)?;
                    ZipSection::Nothing
                }
                part => self.structure(&part, &mut input, meter)?.unwrap_or(part),
            };
        }
        Ok(())
    }

    pub(super) fn finish(mut self, meter: &Meter) -> Result<Contents, Rejection> {
        self.second.finish()?;
        if self.is_marked_split && !matches!(self.section, ZipSection::Nothing) {
            return Err(split());
        }
        let place = match self.section {
            ZipSection::Nothing => return Ok(self.contents()),
            ZipSection::Beginning | ZipSection::Entries => "a local header".to_owned(),
            ZipSection::Data(local, EntryData::StoredToDescriptor(_)) => {
                format!("{}, whose data descriptor is missing or wrong", local.entry())
            }
            ZipSection::Data(local, _) => local.entry(),
            ZipSection::Descriptor(local) => format!("the data descriptor of {}", local.entry()),
            ZipSection::Directory => "the central directory".to_owned(),
            ZipSection::Zip64Locator { .. } | ZipSection::End { .. } => "the end of the central directory".to_owned(),
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
        part: &ZipSection,
        input: &mut &[u8],
        meter: &mut Meter,
    ) -> Result<Option<ZipSection>, Rejection> {
        if !gather(&mut self.gathered, SIGNATURE_BYTES, input, meter) {
            return Ok(None);
        }
        let offset = meter.consumed() - self.gathered.len() as u64;
        match (part, u32_at(&self.gathered, 0)) {
            (ZipSection::Beginning, marker @ (signature::SPLIT | signature::NOT_SPLIT)) => {
                self.is_marked_split = marker == signature::SPLIT;
                self.gathered.clear();
                Ok(Some(ZipSection::Entries))
            }
            (ZipSection::Beginning, _) => Ok(Some(ZipSection::Entries)),
            (ZipSection::Entries, signature::LOCAL_HEADER) => self.local_header(offset, input, meter),
            (ZipSection::Entries, signature::CENTRAL_HEADER | signature::ZIP64_END | signature::END) => {
                // The directory is compared with verified entries.
                self.second.finish()?;
                self.directory.offset = offset;
                Ok(Some(ZipSection::Directory))
            }
            (ZipSection::Directory, signature::CENTRAL_HEADER) => self.central_header(input, meter),
            (ZipSection::Directory, signature::ZIP64_END) => self.zip64_end(offset, input, meter),
            (ZipSection::Directory, signature::END) => self.end(false, input, meter),
            (ZipSection::Zip64Locator { zip64_end }, signature::ZIP64_LOCATOR) => {
                self.zip64_locator(*zip64_end, input, meter)
            }
            (ZipSection::End { zip64 }, signature::END) => self.end(*zip64, input, meter),
            (_, signature::ARCHIVE_EXTRA_DATA | signature::DIGITAL_SIGNATURE) => Err(Rejection::unsupported(format!(
                "encrypted or signed central directory (a record for that is at byte {offset})"
            ))),
            (part, _) => {
                let expected = match part {
                    ZipSection::Entries => "neither a local header nor the central directory",
                    ZipSection::Directory => "neither a central header nor the end of the central directory",
                    ZipSection::Zip64Locator { .. } => "no zip64 locator",
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
    ) -> Result<Option<ZipSection>, Rejection> {
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
            (_, false) if self.second.begin(&local, meter)? => EntryData::Aside(local.compressed_size),
            (_, false) => EntryData::Deflated(Deflated::of_size(local.compressed_size)),
            (_, true) => EntryData::Deflated(Deflated::of_unknown_size()),
        };
        Ok(Some(ZipSection::Data(local, data)))
    }

    /// Reads on in an entry's data.
    fn data(
        &mut self,
        local: LocalEntry,
        data: EntryData,
        input: &mut &[u8],
        meter: &mut Meter,
    ) -> Result<ZipSection, Rejection> {
        let entry = self.entries.len();
        match data {
            EntryData::Stored(left, mut checksum) => {
                let (now, later) = input.split_at(at_most(left, input.len()));
                *input = later;
                checksum.update(now);
                meter.consume(now.len());
                meter.inflate(now.len())?;
                self.tap.pass_on(entry, now);
                match left - now.len() as u64 {
                    0 => self.data_end(local, checksum.size, &checksum),
                    left => Ok(ZipSection::Data(local, EntryData::Stored(left, checksum))),
                }
            }
            EntryData::StoredToDescriptor(mut search) => {
                match search.read(input, meter, |bytes| self.tap.pass_on(entry, bytes))? {
                    Some((checksum, next_signature)) => {
                        self.gathered.extend_from_slice(&next_signature);
                        let local = local.with_data(checksum.size, &checksum)?;
                        self.entries.push(local);
                        Ok(ZipSection::Entries)
                    }
                    None => Ok(ZipSection::Data(local, EntryData::StoredToDescriptor(search))),
                }
            }
            EntryData::Deflated(mut deflated) => {
                match deflated.read(&mut self.inflater, input, meter, |bytes| self.tap.pass_on(entry, bytes))? {
                    true => {
                        let checksum = self.inflater.checksum().clone();
                        self.data_end(local, self.inflater.taken(), &checksum)
                    }
                    false => Ok(ZipSection::Data(local, EntryData::Deflated(deflated))),
                }
            }
            EntryData::Aside(left) => {
                let (now, later) = input.split_at(at_most(left, input.len()));
                *input = later;
                meter.consume(now.len());
                self.second.write(now);
                match left - now.len() as u64 {
                    0 => {
                        // The second thread accepts no entry that has other values than its local header.
                        meter.assume_inflated(local.size);
                        self.entries.push(LocalEntry { is_described: true, ..local });
                        Ok(ZipSection::Entries)
                    }
                    left => Ok(ZipSection::Data(local, EntryData::Aside(left))),
                }
            }
        }
    }

    fn data_end(
        &mut self,
        local: LocalEntry,
        compressed_size: u64,
        checksum: &Checksum,
    ) -> Result<ZipSection, Rejection> {
        let local = local.with_data(compressed_size, checksum)?;
        if local.flags & FLAG_DESCRIPTOR != 0 {
            return Ok(ZipSection::Descriptor(local));
        }
        self.entries.push(local);
        Ok(ZipSection::Entries)
    }

    /// Reads the descriptor after deflated data. Only its values and the header after it show its form: for an empty entry
    /// one form is the beginning of another.
    fn descriptor(&mut self, local: LocalEntry, input: &mut &[u8], meter: &mut Meter) -> Result<ZipSection, Rejection> {
        // An archive with a descriptor has more bytes than this after the data.
        if !gather(&mut self.gathered, DescriptorForm::LONGEST + SIGNATURE_BYTES, input, meter) {
            return Ok(ZipSection::Descriptor(local));
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
            // The local header agrees with the data, and the next header follows immediately.
            None if local.is_described && is_header(u32_at(&self.gathered, 0)) => {
                self.oddities.note("its announced data descriptor is missing", || local.entry());
            }
            None => {
                return Err(Rejection::corrupt("its data descriptor contradicts its data").within(&local.entry()));
            }
        }
        self.entries.push(local);
        Ok(ZipSection::Entries)
    }

    /// 4.3.12
    fn central_header(&mut self, input: &mut &[u8], meter: &mut Meter) -> Result<Option<ZipSection>, Rejection> {
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
        Ok(Some(ZipSection::Directory))
    }

    /// 4.3.14
    fn zip64_end(
        &mut self,
        offset: u64,
        input: &mut &[u8],
        meter: &mut Meter,
    ) -> Result<Option<ZipSection>, Rejection> {
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
        Ok(Some(ZipSection::Zip64Locator { zip64_end: offset }))
    }

    /// 4.3.15
    fn zip64_locator(
        &mut self,
        zip64_end: u64,
        input: &mut &[u8],
        meter: &mut Meter,
    ) -> Result<Option<ZipSection>, Rejection> {
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
        Ok(Some(ZipSection::End { zip64: true }))
    }

    /// 4.3.16
    fn end(&mut self, zip64: bool, input: &mut &[u8], meter: &mut Meter) -> Result<Option<ZipSection>, Rejection> {
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
        Ok(Some(ZipSection::Nothing))
    }
}
