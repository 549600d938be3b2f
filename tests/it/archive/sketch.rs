//! Zips written byte by byte, for forms that no tool writes.

/// One entry, which can be written in any form that the format allows.
#[derive(Clone)]
pub struct Sketch {
    pub name: Vec<u8>,
    pub content: Vec<u8>,
    pub deflated: bool,
    /// Whether the descriptor has a signature, and whether it is 64 bits wide.
    pub descriptor: Option<(bool, bool)>,
    pub zip64: bool,
    pub external_attributes: u32,
}

pub fn sketch(name: &str, content: &[u8]) -> Sketch {
    Sketch {
        name: name.as_bytes().to_vec(),
        content: content.to_vec(),
        deflated: true,
        descriptor: None,
        zip64: false,
        external_attributes: 0,
    }
}

pub fn deflate(content: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

impl Sketch {
    pub fn data(&self) -> Vec<u8> {
        if self.deflated { deflate(&self.content) } else { self.content.clone() }
    }

    /// The fields that local and central header share: from the version needed to the length of the name.
    pub fn common(&self, crc32: u32, compressed: u32, size: u32) -> Vec<u8> {
        let mut common = vec![if self.zip64 { 45 } else { 20 }, 0];
        common.extend([if self.descriptor.is_some() { 8 } else { 0 }, 0, if self.deflated { 8 } else { 0 }, 0]);
        common.extend([0x21, 0x43, 0x75, 0x5d]);
        common.extend([crc32, compressed, size].into_iter().flat_map(u32::to_le_bytes));
        common.extend((self.name.len() as u16).to_le_bytes());
        common
    }

    pub fn local(&self) -> Vec<u8> {
        let data = self.data();
        let (crc32, compressed, size) = (crc32fast::hash(&self.content), data.len() as u64, self.content.len() as u64);
        let known = if self.descriptor.is_some() { (0, 0, 0) } else { (crc32, compressed, size) };
        let mut local = b"PK\x03\x04".to_vec();
        if self.zip64 {
            local.extend(self.common(known.0, u32::MAX, u32::MAX));
            local.extend([20, 0]);
            local.extend(&self.name);
            local.extend([1, 0, 16, 0]);
            local.extend([known.2, known.1].into_iter().flat_map(u64::to_le_bytes));
        } else {
            local.extend(self.common(known.0, known.1 as u32, known.2 as u32));
            local.extend([0, 0]);
            local.extend(&self.name);
        }
        local.extend(data);
        if let Some((signed, wide)) = self.descriptor {
            local.extend(if signed { b"PK\x07\x08".as_slice() } else { b"" });
            local.extend(crc32.to_le_bytes());
            for length in [compressed, size] {
                local.extend(&length.to_le_bytes()[..if wide { 8 } else { 4 }]);
            }
        }
        local
    }

    pub fn central(&self, offset: usize) -> Vec<u8> {
        let (compressed, size) = (self.data().len() as u64, self.content.len() as u64);
        let mut extra = Vec::new();
        if self.zip64 {
            extra.extend([1, 0, 16, 0]);
            extra.extend([size, compressed].into_iter().flat_map(u64::to_le_bytes));
        }
        let shown = |length: u64| if self.zip64 { u32::MAX } else { length as u32 };
        let mut central = b"PK\x01\x02\x1e\x03".to_vec();
        central.extend(self.common(crc32fast::hash(&self.content), shown(compressed), shown(size)));
        central.extend((extra.len() as u16).to_le_bytes());
        central.extend([0; 6]);
        central.extend(self.external_attributes.to_le_bytes());
        central.extend((offset as u32).to_le_bytes());
        central.extend(&self.name);
        central.extend(extra);
        central
    }
}

/// An archive of these local parts and central headers, with a matching end.
pub fn assemble(locals: &[Vec<u8>], centrals: &[Vec<u8>]) -> Vec<u8> {
    let (mut archive, directory) = (locals.concat(), centrals.concat());
    let offset = archive.len() as u32;
    archive.extend(&directory);
    archive.extend(b"PK\x05\x06\0\0\0\0");
    archive.extend([centrals.len() as u16; 2].into_iter().flat_map(u16::to_le_bytes));
    archive.extend([directory.len() as u32, offset].into_iter().flat_map(u32::to_le_bytes));
    archive.extend([0, 0]);
    archive
}

pub fn zip(sketches: &[Sketch]) -> Vec<u8> {
    let locals: Vec<_> = sketches.iter().map(Sketch::local).collect();
    let mut offset = 0;
    let centrals: Vec<_> = sketches
        .iter()
        .zip(&locals)
        .map(|(sketch, local)| {
            let central = sketch.central(offset);
            offset += local.len();
            central
        })
        .collect();
    assemble(&locals, &centrals)
}

/// Every form of an entry.
pub fn all_forms() -> Vec<Sketch> {
    let mut forms = Vec::new();
    for content in [b"day,sent\n2026-11-21,7\n".as_slice(), b""] {
        for deflated in [false, true] {
            for zip64 in [false, true] {
                let descriptors = [(false, false), (false, true), (true, false), (true, true)];
                for descriptor in descriptors.into_iter().map(Some).chain([None]) {
                    let name = format!("{}.csv", forms.len());
                    forms.push(Sketch { deflated, descriptor, zip64, ..sketch(&name, content) });
                }
            }
        }
    }
    forms
}
