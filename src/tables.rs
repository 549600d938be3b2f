//! Tables that query engines can read, made of the entries of an archive or of the lines of a snapshot.
//!
//! An entry is read twice: once to infer the types of its columns, once to write it. Of separated text, the first rows are
//! enough at first: the second pass checks that their types hold for the rest. If not, the caller surveys the whole.
//! Neither holds an entry in memory. These files must not know where an entry comes from, where a table goes to, or when it
//! is made: the caller passes functions that open an entry, and something to write to.

mod csv;
mod csv_gz;
mod json;
mod long_numbers;
mod names;
mod parquet;
mod part;
mod schema;
mod types;
mod xlsx;

use std::io::{self, Read};

use jiff::civil::Date;

use self::types::Value;
pub use self::{
    names::{ENTRY_COLUMN, RESCUED_COLUMN, SURPLUS, layout, name_at, words},
    part::{Depth, Input, Open},
    schema::{Change, Column, Extended, Schema},
    types::Observed,
    xlsx::sheets,
};
use crate::{magic::HEAD_BYTES, table_words::ColumnType};

/// What an entry holds, of those that become tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Rows of separated text.
    Csv,
    /// A workbook; each sheet is a table.
    Xlsx,
    /// One JSON object a line.
    Ndjson,
}

impl Content {
    /// Extensions, in lower case.
    const EXTENSIONS: [(&str, Content); 5] = [
        (".csv", Content::Csv),
        (".tsv", Content::Csv),
        (".xlsx", Content::Xlsx),
        (".ndjson", Content::Ndjson),
        (".jsonl", Content::Ndjson),
    ];

    /// The content of an entry with this name; `None` if entries of this kind are left alone. One of several members of a gzip
    /// archive may have no name: it holds rows of text.
    pub fn of(name: &str) -> Option<Content> {
        let file = name.rsplit(['/', '\\']).next().unwrap_or_default();
        // What macOS adds to a zip archive: attributes of the file of the same name.
        if file.starts_with("._") {
            return None;
        }
        if name.is_empty() {
            return Some(Content::Csv);
        }
        Self::split(file).map(|(_, content)| content)
    }

    /// As [`Content::of`], of the only `file` in a gzip archive, which packers name as they like, and often not at all: by its
    /// first bytes, if its name does not tell.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn of_only_file(name: &str, file: impl Read) -> io::Result<Option<Content>> {
        if let Some(content) = Self::of(name).filter(|_| !name.is_empty()) {
            return Ok(Some(content));
        }
        let mut head = Vec::new();
        file.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
        let is_utf_16 = head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff");
        let is_text = is_utf_16 || !head.contains(&0);
        Ok(match head.trim_ascii_start().first() {
            Some(b'{') if is_text => Some(Content::Ndjson),
            _ => is_text.then_some(Content::Csv),
        })
    }

    /// The name of a file without the extension of its content.
    fn stem(file: &str) -> &str {
        let stem = || file.rsplit_once('.').map_or(file, |(stem, _)| stem);
        Self::split(file).map_or_else(stem, |(stem, _)| stem)
    }

    fn split(file: &str) -> Option<(&str, Content)> {
        Self::EXTENSIONS.into_iter().find_map(|(extension, content)| {
            let (stem, end) = file.split_at_checked(file.len().checked_sub(extension.len())?)?;
            end.eq_ignore_ascii_case(extension).then_some((stem, content))
        })
    }
}

/// One entry of an archive, before its tables are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name in the archive.
    pub name: String,
    /// What it holds; `None` if it is left alone.
    pub content: Option<Content>,
    /// The names of its sheets; empty unless it is a workbook.
    pub sheets: Vec<String>,
}

/// One object of a table: the rows of one entry, or of one of its sheets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The table's name.
    pub table: String,
    /// Counts the parts of the table in this archive, from 0.
    pub number: usize,
    /// The entry's place among those of the archive, from 0.
    pub entry: usize,
    /// What the entry holds.
    pub content: Content,
    /// The sheet; `None` unless the entry is a workbook.
    pub sheet: Option<String>,
}

/// Which tables the entries of an archive become.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// All parts, in the order of their entries.
    pub parts: Vec<Part>,
    /// Names of the entries that become no table.
    pub left_alone: Vec<String>,
}

/// Where the rows of an object come from. It is written into the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The report's id.
    pub report: String,
    /// The partition's date.
    pub date: Date,
    /// SHA-256 of the archive or snapshot, in hexadecimal.
    pub sha256: String,
    /// The entry's name; of a snapshot, the name of its file.
    pub entry: String,
}

/// What the first pass over an entry finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// Its headings.
    pub headings: Vec<String>,
    /// What the values under each heading have in common.
    pub columns: Vec<Observed>,
    /// Number of its rows; `None` if only the first were read.
    pub rows: Option<u64>,
    /// What separates its cells; `None` where nothing does.
    pub separator: Option<u8>,
}

/// What the second pass wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Number of rows.
    pub rows: u64,
    /// Number of rows with a value that fits no column.
    pub rescued_rows: u64,
}

/// What kind of value a file says a cell has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CellKind {
    /// Text of a file without types; it may mean a value of any type.
    Text,
    /// Text of a file that has types: neither a number nor a boolean.
    String,
    /// A day, in a file where a day is also its first moment.
    Day,
    /// A number, as text.
    Number,
    /// `true` or `false`.
    Boolean,
    /// An array or object, as JSON.
    Nested,
    /// Bytes that are not UTF-8, with escapes. They fit no column.
    Bytes,
}

/// One cell. Without text, it has no value: an empty cell and a missing one are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell<'a> {
    /// What kind of value it has.
    pub kind: CellKind,
    /// The value as text.
    pub text: &'a str,
}

impl Cell<'_> {
    /// The cell of a row that ends before its column.
    pub const MISSING: Cell<'static> = Cell { kind: CellKind::Text, text: "" };

    /// The whole number in it, as a column of numbers would have it, or written with decimals that are zeros; `None` if it is
    /// none.
    pub fn whole(self) -> Option<i64> {
        let is_zeros = |decimals: &str| !decimals.is_empty() && decimals.bytes().all(|digit| digit == b'0');
        let text = match self.text.trim_ascii().split_once('.') {
            Some((whole, decimals)) if is_zeros(decimals) => whole,
            _ => self.text,
        };
        match types::convert(Cell { text, ..self }, ColumnType::Int64) {
            Some(Value::Int64(number)) => Some(number),
            _ => None,
        }
    }

    /// The day of the date or time in it; `None` if it is none.
    pub fn date(self) -> Option<Date> {
        self.text.trim_ascii().get(..10)?.parse().ok()
    }

    /// Whether it has no value.
    pub fn is_empty(self) -> bool {
        self.text.is_empty()
    }

    /// Whether the type of its column depends on it: neither white space nor bytes that are no text do that.
    pub fn tells_type(self) -> bool {
        self.kind != CellKind::Bytes && !self.text.trim_ascii().is_empty()
    }
}

/// One row of a file. Its cells are in the order of the headings.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The text of all cells, in their order.
    text: &'a str,
    /// Where each cell ends in `text`.
    ends: &'a [usize],
    /// The kind of each cell; empty if all are [`CellKind::Text`].
    kinds: &'a [CellKind],
    /// Bytes between a cell and the next.
    between: usize,
}

impl<'a> Row<'a> {
    /// Number of cells. It may differ from that of the headings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether it has no cell.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The cell at a position that counts from 0; [`Cell::MISSING`] beyond the last.
    pub fn cell(&self, position: usize) -> Cell<'a> {
        let Some(end) = self.ends.get(position) else { return Cell::MISSING };
        let start = position.checked_sub(1).map_or(0, |before| self.ends[before] + self.between);
        let kind = self.kinds.get(position).copied().unwrap_or(CellKind::Text);
        Cell { kind, text: &self.text[start..*end] }
    }
}

/// Writes one object. Each row gives each column a value, in any order, before it ends.
trait Writer {
    /// The value of a column, by its position among the fields.
    fn value(&mut self, column: usize, value: Value<'_>) -> Result<(), Error>;

    /// Ends a row with its entry, and the JSON of what fits no column.
    fn end_row(&mut self, entry: &str, rescued: Option<&str>) -> Result<(), Error>;

    /// Completes the object. The number of rows in it.
    fn finish(self) -> Result<u64, Error>;
}

/// One column of an object.
#[derive(Debug, Clone)]
struct Field {
    name: String,
    heading: String,
    column_type: ColumnType,
}

/// Most columns of a file, and of a table over time. Real exports have about 200; engines permit 1,600 to 10,000.
pub const MOST_COLUMNS: usize = 4096;

/// Most parts of the tables of one archive. Real archives have a few dozen; each part is an object with a manifest.
pub const MOST_PARTS: usize = 1000;

/// Most bytes of one row, as text. Real rows have less than 100 kB; it bounds the memory for a quote that is never closed.
pub const MOST_ROW_BYTES: usize = 16 * 1024 * 1024;

/// Why a table could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The entry cannot be read.
    #[error("reading the entry")]
    Read(#[source] io::Error),
    /// The table cannot be written.
    #[error("writing the table")]
    Write(#[source] io::Error),
    /// A row is too long to be one.
    #[error("row {row} has more than {MOST_ROW_BYTES} bytes; is a quote not closed?")]
    LongRow {
        /// Counts the rows after the headings, from 1; 0 is the headings.
        row: u64,
    },
    /// A row, or the file, has too many columns.
    #[error("row {row} makes more than {MOST_COLUMNS} columns")]
    WideRow {
        /// Counts the rows after the headings, from 1; 0 is the headings.
        row: u64,
    },
    /// A line is not JSON.
    #[error("row {row} is not JSON")]
    Json {
        /// Counts the rows, from 1.
        row: u64,
        /// What the JSON lacks.
        source: serde_json::Error,
    },
    /// A line of JSON has no columns.
    #[error("row {row} is not a JSON object")]
    NoObject {
        /// Counts the rows, from 1.
        row: u64,
    },
    /// A workbook cannot be read.
    #[error("reading the workbook")]
    Workbook(#[source] Box<calamine::XlsxError>),
    /// A workbook is so large that reading it would take too much memory.
    #[error("the workbook, or a file in it, has more than {limit} bytes")]
    LargeWorkbook {
        /// The bound that it exceeds, in bytes.
        limit: u64,
    },
    /// The types that the first rows of an entry have do not hold for the rest: all of it has to be surveyed.
    #[error("row {row} has a value of another type than the first rows")]
    OtherTypes {
        /// Counts the rows, from 1.
        row: u64,
    },
    /// No error: no more rows are wanted.
    #[error("no more rows are wanted")]
    Enough,
    /// The two passes over an entry differ, or the object lacks rows.
    #[error("the entry has {first} rows; read again, it has {second}, of which {in_object} are in the object")]
    OtherRows {
        /// Rows of the first pass.
        first: u64,
        /// Rows of the second pass.
        second: u64,
        /// Rows in the object.
        in_object: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_file_of_a_gzip_is_known_by_its_first_bytes_unless_its_name_tells() {
        for (name, head, expected) in [
            ("Report_20261121.csv", &b"{"[..], Some(Content::Csv)),
            ("Report_20261121.zip", b"a,b\n1,2\n", Some(Content::Csv)),
            ("", b"\xff\xfea\0", Some(Content::Csv)),
            ("", b"", Some(Content::Csv)),
            ("Report_20261121", b" {\"a\":1}\n", Some(Content::Ndjson)),
            ("", b"PK\x03\x04\x14\0\0\0", None),
            ("Book.xlsx", b"PK\x03\x04\x14\0\0\0", Some(Content::Xlsx)),
        ] {
            assert_eq!(Content::of_only_file(name, head).unwrap(), expected, "{name} {}", head.escape_ascii());
        }
    }
}
