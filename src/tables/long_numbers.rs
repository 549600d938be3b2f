//! Long whole numbers in a workbook.
//!
//! This file owns that they keep their digits. The reader of workbooks makes every number a double, so those that a double
//! changes become texts before it reads them. It must not know rows or types of columns.

use std::io::{self, BufRead, BufReader, Cursor, Write};

use calamine::XlsxError;
use quick_xml::{
    Reader, Writer,
    events::{BytesStart, Event},
};
use zip::{CompressionMethod, ZipArchive, ZipWriter, write::SimpleFileOptions};

/// Least digits of a whole number that a double may change.
const LEAST_DIGITS: usize = 16;

/// Most parts of a cell before its number: of a formula, each character that is written as an entity makes two.
const MOST_HELD: usize = 512;

/// Looks for a value that may be a long number, in the bytes of a sheet that are written to it.
#[derive(Debug, Default)]
pub(super) struct Search {
    place: Place,
    /// Whether there is one.
    pub(super) has_found: bool,
}

/// Where the bytes end so far.
#[derive(Debug, Default, Clone, Copy)]
enum Place {
    #[default]
    Elsewhere,
    /// After the `v` that may be the name of a tag.
    Name,
    /// In the tag, after its name.
    Tag,
    /// Before the first digit of a value.
    Value,
    /// After so many digits of a value.
    Digits(usize),
}

impl Write for Search {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            self.place = match (self.place, byte) {
                (Place::Name | Place::Tag, b'>') => Place::Value,
                (Place::Tag, _) => Place::Tag,
                (Place::Name, byte) if byte.is_ascii_whitespace() => Place::Tag,
                (_, b'v') => Place::Name,
                (Place::Value, b'-') => Place::Value,
                (Place::Value, byte) if byte.is_ascii_whitespace() => Place::Value,
                (Place::Value, b'0'..=b'9') => Place::Digits(1),
                (Place::Digits(digits), b'0'..=b'9') => Place::Digits(digits + 1),
                _ => Place::Elsewhere,
            };
            self.has_found |= matches!(self.place, Place::Digits(LEAST_DIGITS..));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The workbook with the long numbers of these files in it as texts. Its other files are copied.
pub(super) fn as_texts(workbook: &[u8], files: &[usize]) -> Result<Vec<u8>, XlsxError> {
    let mut archive = ZipArchive::new(Cursor::new(workbook))?;
    let mut changed = ZipWriter::new(Cursor::new(Vec::new()));
    let fast = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated).compression_level(Some(1));
    for index in 0..archive.len() {
        if !files.contains(&index) {
            changed.raw_copy_file(archive.by_index_raw(index)?)?;
            continue;
        }
        let file = archive.by_index(index)?;
        changed.start_file(file.name()?, fast)?;
        copy(BufReader::new(file), &mut changed)?;
    }
    Ok(changed.finish()?.into_inner())
}

/// Copies the XML of a sheet.
fn copy(sheet: impl BufRead, to: &mut impl Write) -> Result<(), XlsxError> {
    let mut reader = Reader::from_reader(sheet);
    // The reader of workbooks permits it too.
    reader.config_mut().check_end_names = false;
    let mut writer = Writer::new(to);
    let mut buffer = Vec::new();
    // The beginning of a cell, whose type depends on the number that follows.
    let mut held: Vec<Event<'static>> = Vec::new();
    loop {
        buffer.clear();
        let event = reader.read_event_into(&mut buffer)?;
        let is_start = matches!(&event, Event::Start(tag) if tag.local_name().as_ref() == "c");
        let is_end = match &event {
            Event::End(tag) => tag.local_name().as_ref() == "c",
            event => matches!(event, Event::Eof),
        };
        let is_value = matches!(held.last(), Some(Event::Start(tag)) if tag.local_name().as_ref() == "v");
        if let (Event::Text(text), true, Some(Event::Start(cell))) = (&event, is_value, held.first_mut())
            && is_changed(&text.xml10_content())
        {
            become_text(cell)?;
        }
        let is_held = is_start || (!held.is_empty() && !is_value && !is_end && held.len() < MOST_HELD);
        if is_start || !is_held {
            for event in held.drain(..) {
                writer.write_event(event)?;
            }
        }
        match event {
            Event::Eof => return Ok(()),
            // What is written is UTF-8, as XML without a declaration is.
            Event::Decl(_) => {}
            event if is_held => held.push(event.into_owned()),
            event => writer.write_event(event)?,
        }
    }
}

/// Whether a double has other digits than the whole part of this number.
fn is_changed(number: &str) -> bool {
    let number = number.trim_ascii();
    let digits = number.trim_start_matches('-').bytes().take_while(u8::is_ascii_digit).count();
    digits >= LEAST_DIGITS && number.parse::<f64>().is_ok_and(|double| double.to_string() != number)
}

/// Makes the beginning of a cell with a number that of a cell with a text.
fn become_text(cell: &mut BytesStart<'static>) -> Result<(), XlsxError> {
    let attributes = cell.attributes().collect::<Result<Vec<_>, _>>().map_err(XlsxError::XmlAttr)?;
    let is_type = |key: &str| key == "t";
    if attributes.iter().any(|attribute| is_type(attribute.key.as_ref()) && attribute.value.as_ref() != "n") {
        return Ok(());
    }
    let others = attributes.iter().filter(|attribute| !is_type(attribute.key.as_ref())).cloned();
    let name = cell.name().as_ref().to_owned();
    let text = BytesStart::new(name).with_attributes(others).with_attributes([("t", "str")]);
    *cell = text.into_owned();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(sheet: &str) -> String {
        let mut to = Vec::new();
        copy(sheet.as_bytes(), &mut to).unwrap();
        String::from_utf8(to).unwrap()
    }

    #[test]
    fn numbers_that_a_double_changes_become_texts() {
        for (number, is_text) in [
            ("9007199254740992", false),
            ("9007199254740993", true),
            ("-1234567890123456789", true),
            (" 1234567890123456789 ", true),
            ("123456789012345680", false),
            ("1234567890123456789.0", true),
            ("12345678901234567.5", true),
            ("1234567890.1234567890", false),
            ("8.4000000000000004", false),
            ("1.2345678901234567E+17", false),
            ("64fa31c09b1f2a7d3c8e0b52", false),
        ] {
            let cell = |kind: &str| format!("<c r=\"A1\"{kind} s=\"2\"><f>A2&amp;1</f><v>{number}</v></c>");
            let text = format!("<c r=\"A1\" s=\"2\" t=\"str\"><f>A2&amp;1</f><v>{number}</v></c>");
            for kind in ["", " t=\"n\""] {
                assert_eq!(copied(&cell(kind)), if is_text { text.clone() } else { cell(kind) }, "{number}");
            }
            assert_eq!(copied(&cell(" t=\"s\"")), cell(" t=\"s\""), "{number}");
            let mut search = Search::default();
            cell("").bytes().for_each(|byte| search.write_all(&[byte]).unwrap());
            assert!(search.has_found || !is_text, "{number}");
            let mut search = Search::default();
            search.write_all(format!("<v xml:space=\"preserve\">{number}</v>").as_bytes()).unwrap();
            assert!(search.has_found || !is_text, "{number}");
        }
    }

    #[test]
    fn all_else_in_a_sheet_stays_as_it_is() {
        let long = "<x:c t=\"inlineStr\"><is><t>1234567890123456789</t></is></x:c>";
        let many = format!("<c>{}<v>1234567890123456789</v></c>", "<a/>".repeat(2 * MOST_HELD));
        for sheet in [long, &many, "<row><c r=\"A1\"/><c><v>1</v></c></row> <!-- &amp; -->", "<c r=\"A1\"><v>1"] {
            assert_eq!(copied(sheet), sheet);
        }
        assert_eq!(copied("<?xml version=\"1.0\"?><c/>"), "<c/>");
        assert!(copy(&b"<c <<"[..], &mut Vec::new()).is_err());
    }
}
