//! Objects in gzipped CSV.
//!
//! This file owns the form of values as text. A line has the columns of a Parquet file, in their order, after RFC 4180;
//! without a value, a cell is empty. It must not know where values come from.

use std::io::{BufWriter, Write};

use flate2::{Compression, write::GzEncoder};
use jiff::civil::{Date, DateTime};

use super::{
    Error, Field, Writer,
    names::{ENTRY_COLUMN, RESCUED_COLUMN},
    types::Value,
};

/// Writes one gzip file, without a time in its header.
pub(super) struct CsvGzWriter<W: Write> {
    to: GzEncoder<BufWriter<W>>,
    /// The cells of the line so far, and whether each has been given.
    cells: Vec<String>,
    line: String,
    rows: u64,
}

impl<W: Write> CsvGzWriter<W> {
    pub(super) fn new(fields: &[Field], to: W) -> Result<Self, Error> {
        let to = GzEncoder::new(BufWriter::new(to), Compression::default());
        let mut writer = Self { to, cells: vec![String::new(); fields.len()], line: String::new(), rows: 0 };
        for (cell, field) in writer.cells.iter_mut().zip(fields) {
            field.name.clone_into(cell);
        }
        writer.write_line(ENTRY_COLUMN, RESCUED_COLUMN)?;
        Ok(writer)
    }

    fn write_line(&mut self, entry: &str, rescued: &str) -> Result<(), Error> {
        self.line.clear();
        for cell in &mut self.cells {
            push(&mut self.line, cell);
            self.line.push(',');
            cell.clear();
        }
        push(&mut self.line, entry);
        self.line.push(',');
        push(&mut self.line, rescued);
        self.line.push_str("\r\n");
        self.to.write_all(self.line.as_bytes()).map_err(Error::Write)
    }
}

impl<W: Write> Writer for CsvGzWriter<W> {
    fn value(&mut self, column: usize, value: Value<'_>) -> Result<(), Error> {
        use std::fmt::Write;

        let cell = &mut self.cells[column];
        // Writing to a string does not fail.
        let _ = match value {
            Value::Null => Ok(()),
            Value::String(text) => cell.write_str(text),
            Value::Int64(number) => write!(cell, "{number}"),
            Value::Double(number) => write!(cell, "{number:?}"),
            Value::Boolean(is_true) => write!(cell, "{is_true}"),
            Value::Date(days) => write!(cell, "{}", at(i64::from(days) * 86_400_000_000).date()),
            Value::Timestamp(micros) => {
                let at = at(micros);
                write!(cell, "{} {}", at.date(), at.time())
            }
        };
        Ok(())
    }

    fn end_row(&mut self, entry: &str, rescued: Option<&str>) -> Result<(), Error> {
        self.rows += 1;
        self.write_line(entry, rescued.unwrap_or_default())
    }

    fn finish(self) -> Result<u64, Error> {
        let mut to = self.to.finish().map_err(Error::Write)?;
        to.flush().map_err(Error::Write)?;
        Ok(self.rows)
    }
}

/// The civil time so many microseconds after 1970-01-01 00:00:00.
fn at(micros: i64) -> DateTime {
    let epoch = DateTime::from_parts(Date::constant(1970, 1, 1), jiff::civil::Time::midnight());
    epoch.saturating_add(jiff::SignedDuration::from_micros(micros))
}

fn push(line: &mut String, cell: &str) {
    if !cell.contains(['"', ',', '\r', '\n']) {
        return line.push_str(cell);
    }
    line.push('"');
    line.push_str(&cell.replace('"', "\"\""));
    line.push('"');
}
