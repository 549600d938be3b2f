//! Rows of JSON: the lines of a snapshot.
//!
//! This file owns what the fields of an object are as cells. A column is a field of some object, in the order in which the
//! fields are first seen. It must not know types or names of columns.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read},
};

use serde_json::value::RawValue;

use super::{CellKind, Error, MOST_COLUMNS, MOST_ROW_BYTES, Row};
use crate::ndjson;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Passes each row to `each`, and returns the headings. Lines of white space are no rows. A row may be shorter than the
/// headings.
pub(super) fn read(file: impl Read, each: &mut dyn FnMut(Row<'_>) -> Result<(), Error>) -> Result<Vec<String>, Error> {
    let mut file = BufReader::with_capacity(64 * 1024, file);
    let mut columns = Columns::default();
    let mut line = Vec::new();
    let mut row = 0;
    loop {
        line.clear();
        let limit = MOST_ROW_BYTES as u64 + 1;
        file.by_ref().take(limit).read_until(b'\n', &mut line).map_err(Error::Read)?;
        if line.is_empty() {
            return Ok(columns.headings);
        }
        // Some programs begin a file with a byte order mark.
        if row == 0 && line.starts_with(BYTE_ORDER_MARK) {
            line.drain(..BYTE_ORDER_MARK.len());
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        row += 1;
        if line.len() > MOST_ROW_BYTES {
            return Err(Error::LongRow { row });
        }
        let json: &RawValue = serde_json::from_slice(&line).map_err(|source| Error::Json { row, source })?;
        let fields = ndjson::fields(json).ok_or(Error::NoObject { row })?;
        let values = columns.place(fields).ok_or(Error::WideRow { row })?;
        let mut cells = Cells::default();
        values.into_iter().for_each(|value| cells.push(value));
        each(Row { text: &cells.text, ends: &cells.ends, kinds: &cells.kinds, between: 0 })?;
    }
}

/// The columns so far.
#[derive(Default)]
struct Columns {
    headings: Vec<String>,
    /// The columns of each field: several, if an object repeats it.
    positions: HashMap<String, Vec<usize>>,
}

impl Columns {
    /// The values of an object in the order of the columns; `None` if there are too many columns.
    fn place<'a>(&mut self, fields: Vec<(String, &'a RawValue)>) -> Option<Vec<Option<&'a RawValue>>> {
        let mut values = vec![None; self.headings.len()];
        for (name, value) in fields {
            let positions = self.positions.get(&name).into_iter().flatten();
            let position = positions.copied().find(|position| values[*position].is_none());
            let position = position.unwrap_or_else(|| {
                self.headings.push(name.clone());
                values.push(None);
                self.positions.entry(name).or_default().push(values.len() - 1);
                values.len() - 1
            });
            if values.len() > MOST_COLUMNS {
                return None;
            }
            values[position] = Some(value);
        }
        Some(values)
    }
}

/// Cells, one after the other.
#[derive(Default)]
struct Cells {
    text: String,
    ends: Vec<usize>,
    kinds: Vec<CellKind>,
}

impl Cells {
    fn push(&mut self, value: Option<&RawValue>) {
        let json = value.map_or("null", RawValue::get);
        let mut kind = match json.as_bytes().first() {
            Some(b'"') => CellKind::String,
            Some(b'[' | b'{') => CellKind::Nested,
            Some(b't' | b'f') => CellKind::Boolean,
            Some(b'n') | None => CellKind::Text,
            Some(_) => CellKind::Number,
        };
        match kind {
            CellKind::Text => {}
            CellKind::String => match serde_json::from_str::<String>(json) {
                Ok(text) => self.text.push_str(&text),
                // UTF-8 cannot hold a lone surrogate.
                Err(_) => {
                    kind = CellKind::Bytes;
                    let escaped = serde_json::from_str::<ndjson::Text>(json);
                    self.text.push_str(escaped.as_ref().map_or(json, |text| &text.0));
                }
            },
            _ => self.text.push_str(json),
        }
        self.kinds.push(kind);
        self.ends.push(self.text.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Cells = Vec<(CellKind, String)>;

    fn read(file: &str) -> Result<(Vec<String>, Vec<Cells>), Error> {
        let mut rows = Vec::new();
        let headings = super::read(file.as_bytes(), &mut |row| {
            let cells = (0..row.len()).map(|cell| (row.cell(cell).kind, row.cell(cell).text.to_owned()));
            rows.push(cells.collect());
            Ok(())
        })?;
        Ok((headings, rows))
    }

    #[test]
    fn fields_are_cells_in_the_order_in_which_they_are_first_seen() {
        use CellKind::{Boolean, Nested, Number, String, Text};
        let file = "{\"a\":1.10,\"b\":\"x\\n\\\"y\",\"c\":null}\n\n{\"d\":[1, {}],\"b\":true,\"a\":-2}";
        let (headings, rows) = read(file).unwrap();
        assert_eq!(headings, ["a", "b", "c", "d"]);
        let cells =
            |cells: &[(CellKind, &str)]| cells.iter().map(|(kind, it)| (*kind, (*it).into())).collect::<Vec<_>>();
        assert_eq!(rows[0], cells(&[(Number, "1.10"), (String, "x\n\"y"), (Text, "")]));
        assert_eq!(rows[1], cells(&[(Number, "-2"), (Boolean, "true"), (Text, ""), (Nested, "[1, {}]")]));
    }

    #[test]
    fn a_lone_surrogate_is_no_text_of_a_column() {
        let (_, rows) = read("{\"a\":\"\\ud800x\",\"b\":\"\\ud83d\\ude00\"}\n").unwrap();
        assert_eq!(rows[0][0], (CellKind::Bytes, "\\xed\\xa0\\x80x".into()));
        assert_eq!(rows[0][1], (CellKind::String, "\u{1f600}".into()));
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_row() {
        assert_eq!(read("\u{feff}{\"a\":1}\n").unwrap(), read("{\"a\":1}\n").unwrap());
        assert!(matches!(read("{}\n\u{feff}{}\n"), Err(Error::Json { row: 2, .. })));
    }

    #[test]
    fn a_field_that_an_object_repeats_is_two_columns() {
        let (headings, rows) = read("{\"a\":1,\"a\":2}\n{\"a\":3}\n").unwrap();
        assert_eq!(headings, ["a", "a"]);
        let texts: Vec<Vec<_>> = rows.iter().map(|row| row.iter().map(|cell| cell.1.as_str()).collect()).collect();
        assert_eq!(texts, [["1", "2"], ["3", ""]]);
    }

    #[test]
    fn lines_that_are_no_objects_are_errors_with_their_row() {
        assert!(matches!(read("{}\n[1]\n"), Err(Error::NoObject { row: 2 })));
        assert!(matches!(read("{}\n\n{\"a\":\n"), Err(Error::Json { row: 2, .. })));
        assert!(matches!(read("{\"a\":\"\u{0}\"}"), Err(Error::Json { row: 1, .. })));
        let wide: Vec<_> = (0..=MOST_COLUMNS).map(|number| format!("\"{number}\":1")).collect();
        assert!(matches!(read(&format!("{{{}}}", wide.join(","))), Err(Error::WideRow { row: 1 })));
        let endless = std::io::repeat(b' ').take(MOST_ROW_BYTES as u64 * 2).chain(&b"{"[..]);
        assert!(super::read(endless, &mut |_| Ok(())).is_err());
    }
}
