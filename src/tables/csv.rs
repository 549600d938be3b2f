//! Rows of separated text.
//!
//! This file owns encoding, separator and quotes. It must not know types or names of columns. Lines without any character
//! are no rows. A quote that is not closed ends with the file.

use std::{
    io::{self, BufRead, BufReader, Chain, Cursor, Read},
    mem,
};

use csv_core::{ReadRecordResult, ReaderBuilder};
use encoding_rs_io::{DecodeReaderBytes, DecodeReaderBytesBuilder};
use memchr::{memchr, memchr_iter, memchr2};

use super::{CellKind, Error, MOST_COLUMNS, MOST_ROW_BYTES, Row};

/// Bytes of a file from which its separator is found.
const SAMPLE_BYTES: usize = 64 * 1024;

/// Most bytes of a record that is read without the parser: without a bound, each record of a file whose lines end otherwise
/// would take a search through the buffer.
const PLAIN_BYTES: usize = 16 * 1024;

/// Separators. Of two that split a file equally well, the first is it: headings and numbers with commas are common, those
/// with the others are not.
const SEPARATORS: [u8; 4] = [b'\t', b'|', b';', b','];

/// Occurs in times and names: it separates a file that no other one splits, or only through the middle of headings, or into
/// far fewer cells.
const LAST_SEPARATOR: u8 = b':';

/// How much a heading counts that looks cut, compared with a whole one.
const CUT_HEADING: f64 = 0.3;

/// The decoded text of a file: the sample, then the rest.
type Text<R> = Chain<Cursor<Vec<u8>>, DecodeReaderBytes<R, Vec<u8>>>;

/// Passes each row to `each`, and returns the headings and the separator, which is found unless it is known. The text is UTF-8
/// with or without byte order mark, or UTF-16 with one. A file without headings has no rows. Ends early once `each` has
/// [`Error::Enough`].
pub(super) fn read(
    file: impl Read,
    known: Option<u8>,
    each: &mut dyn FnMut(Row<'_>) -> Result<(), Error>,
) -> Result<(Vec<String>, u8), Error> {
    let (mut records, separator) = Records::new(file, known)?;
    if !records.advance()? {
        return Ok((Vec::new(), separator));
    }
    let record = &records.record;
    let headings = (0..record.cells).map(|cell| String::from_utf8_lossy(record.bytes(cell)).into_owned()).collect();
    match records.rest(separator, each) {
        Ok(()) | Err(Error::Enough) => Ok((headings, separator)),
        Err(error) => Err(error),
    }
}

/// The records of one file.
struct Records<R: Read> {
    input: BufReader<Text<R>>,
    parser: csv_core::Reader,
    record: Record,
    /// Of a record that needs no parser.
    plain_ends: Vec<usize>,
    /// Number of records read: rows and the headings.
    count: u64,
}

/// Cells one after the other. Both buffers are longer than what is in use.
#[derive(Default)]
struct Record {
    text: Vec<u8>,
    ends: Vec<usize>,
    kinds: Vec<CellKind>,
    cells: usize,
}

impl<R: Read> Records<R> {
    fn new(file: R, known: Option<u8>) -> Result<(Self, u8), Error> {
        let mut decoded =
            DecodeReaderBytesBuilder::new().utf8_passthru(true).strip_bom(true).bom_override(true).build(file);
        let mut sample = Vec::with_capacity(SAMPLE_BYTES);
        decoded.by_ref().take(SAMPLE_BYTES as u64).read_to_end(&mut sample).map_err(Error::Read)?;
        let separator = known.unwrap_or_else(|| separator(&sample));
        let records = Self {
            input: BufReader::with_capacity(SAMPLE_BYTES, Cursor::new(sample).chain(decoded)),
            parser: ReaderBuilder::new().delimiter(separator).build(),
            record: Record { text: vec![0; 8192], ends: vec![0; 256], ..Record::default() },
            plain_ends: Vec::new(),
            count: 0,
        };
        Ok((records, separator))
    }

    /// Passes on all records that are left.
    fn rest(&mut self, separator: u8, each: &mut dyn FnMut(Row<'_>) -> Result<(), Error>) -> Result<(), Error> {
        let mut escaped = Record::default();
        loop {
            self.plain(separator, each)?;
            if !self.advance()? {
                return Ok(());
            }
            match self.record.row() {
                Some(row) => each(row)?,
                None => escaped.escape(&self.record).map_or(Ok(()), &mut *each)?,
            }
        }
    }

    /// Passes on the records that lie in the buffer as they are, until one that takes the parser: it has a quote or other
    /// bytes than UTF-8, or ends outside of the buffer. The parser is several times slower.
    fn plain(&mut self, separator: u8, each: &mut dyn FnMut(Row<'_>) -> Result<(), Error>) -> Result<(), Error> {
        loop {
            let input = match self.input.fill_buf() {
                Ok(input) => input,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::Read(error)),
            };
            let mut read = 0;
            while let Some(length) = memchr(b'\n', &input[read..input.len().min(read + PLAIN_BYTES)]) {
                let line = &input[read..read + length];
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                if memchr2(b'"', b'\r', line).is_some() {
                    break;
                }
                let Ok(text) = str::from_utf8(line) else { break };
                self.plain_ends.clear();
                self.plain_ends.extend(memchr_iter(separator, line));
                self.plain_ends.push(line.len());
                if self.plain_ends.len() > MOST_COLUMNS {
                    break;
                }
                read += length + 1;
                if !line.is_empty() {
                    self.count += 1;
                    each(Row { text, ends: &self.plain_ends, kinds: &[], between: 1 })?;
                }
            }
            self.input.consume(read);
            if read == 0 {
                return Ok(());
            }
        }
    }

    /// Reads the next record; false at the end of the file.
    fn advance(&mut self) -> Result<bool, Error> {
        let Record { text, ends, cells, .. } = &mut self.record;
        let mut length = 0;
        *cells = 0;
        loop {
            let input = match self.input.fill_buf() {
                Ok(input) => input,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::Read(error)),
            };
            let (result, read, written, ended) =
                self.parser.read_record(input, &mut text[length..], &mut ends[*cells..]);
            self.input.consume(read);
            length += written;
            *cells += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull if text.len() >= MOST_ROW_BYTES => {
                    return Err(Error::LongRow { row: self.count });
                }
                ReadRecordResult::OutputFull => text.resize(text.len() * 2, 0),
                ReadRecordResult::OutputEndsFull if ends.len() >= MOST_COLUMNS => {
                    return Err(Error::WideRow { row: self.count });
                }
                ReadRecordResult::OutputEndsFull => ends.resize(ends.len() * 2, 0),
                ReadRecordResult::Record => {
                    self.count += 1;
                    return Ok(true);
                }
                ReadRecordResult::End => return Ok(false),
            }
        }
    }
}

impl Record {
    fn bytes(&self, cell: usize) -> &[u8] {
        let start = cell.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start..self.ends[cell]]
    }

    /// The record as a row; `None` if some cell is not UTF-8.
    fn row(&self) -> Option<Row<'_>> {
        let ends = &self.ends[..self.cells];
        let text = str::from_utf8(&self.text[..ends.last().copied().unwrap_or(0)]).ok()?;
        // Halves of a character in two cells make a whole one.
        ends.iter().all(|end| text.is_char_boundary(*end)).then_some(Row { text, ends, kinds: &self.kinds, between: 0 })
    }

    /// The row of a record that is not UTF-8: a copy, with those cells escaped.
    fn escape(&mut self, from: &Record) -> Option<Row<'_>> {
        self.text.clear();
        self.ends.clear();
        self.kinds.clear();
        for bytes in (0..from.cells).map(|cell| from.bytes(cell)) {
            match str::from_utf8(bytes) {
                Ok(_) => self.text.extend_from_slice(bytes),
                Err(_) => self.text.extend(bytes.escape_ascii()),
            }
            self.kinds.push(str::from_utf8(bytes).map_or(CellKind::Bytes, |_| CellKind::Text));
            self.ends.push(self.text.len());
        }
        self.cells = from.cells;
        self.row()
    }
}

/// How a separator splits the records of a sample.
#[derive(Debug, Default, PartialEq, Eq)]
struct Split {
    /// Cells in each record.
    counts: Vec<usize>,
    /// Headings that look whole.
    whole: usize,
}

/// The separator that splits the headings of `sample` into most cells, and its rows into as many. A comma if none splits
/// them.
fn separator(sample: &[u8]) -> u8 {
    let mut best = (b',', Split::default());
    for separator in SEPARATORS {
        let split = split(sample, separator);
        if split.score() > best.1.score() {
            best = (separator, split);
        }
    }
    let last = split(sample, LAST_SEPARATOR);
    let is_doubtful = best.1.whole < best.1.headings() || last.headings() > 2 * best.1.headings();
    match last.score() > best.1.score() && (best.1.score() == 0.0 || is_doubtful) {
        true => LAST_SEPARATOR,
        false => best.0,
    }
}

impl Split {
    fn headings(&self) -> usize {
        self.counts.first().copied().unwrap_or(0)
    }

    /// Zero if the headings are not split, or too few rows have as many cells.
    fn score(&self) -> f64 {
        let Some((headings, rows)) = self.counts.split_first() else { return 0.0 };
        let alike = rows.iter().filter(|count| *count == headings).count();
        #[expect(clippy::cast_precision_loss, reason = "a sample has few rows and columns")]
        let [headings, whole, alike, rows] = [*headings, self.whole, alike, rows.len()].map(|it| it as f64);
        let share = (1.0 + alike) / (1.0 + rows);
        match headings > 1.0 && headings * share > 1.0 {
            true => (whole + CUT_HEADING * (headings - whole)) * share * share,
            false => 0.0,
        }
    }
}

/// Whether a heading looks as if no separator had cut it: one in `CTR (Android, iOS)` or `"Sent, total"` leaves a space at
/// the beginning, half of a pair of brackets, or a quote.
fn is_whole(heading: &[u8]) -> bool {
    let count = |byte: u8| memchr_iter(byte, heading).count();
    let is_padded = heading.first() == Some(&b' ') || heading.last() == Some(&b' ');
    !is_padded && count(b'(') == count(b')') && count(b'[') == count(b']') && count(b'"') == 0
}

/// The cells of the records of `sample`; only of the first if it has one cell. The last record may be cut off, so it counts
/// only if it is the only one.
fn split(sample: &[u8], separator: u8) -> Split {
    match memchr2(b'"', b'\r', sample) {
        None => plain_split(sample, separator),
        Some(_) => parsed_split(sample, separator),
    }
}

/// See [`split`]; of a sample in which each line is a record.
fn plain_split(sample: &[u8], separator: u8) -> Split {
    let mut split = Split::default();
    let mut rest = sample;
    while !rest.is_empty() {
        let end = memchr(b'\n', rest);
        let line = &rest[..end.unwrap_or(rest.len())];
        rest = end.map_or(&[], |end| &rest[end + 1..]);
        let is_cut_off = end.is_none() && sample.len() == SAMPLE_BYTES && !split.counts.is_empty();
        if !line.is_empty() && !is_cut_off {
            if split.counts.is_empty() {
                split.whole = line.split(|byte| *byte == separator).filter(|cell| is_whole(cell)).count();
            }
            split.counts.push(memchr_iter(separator, line).count() + 1);
            if split.counts == [1] {
                break;
            }
        }
    }
    split
}

/// See [`split`].
fn parsed_split(sample: &[u8], separator: u8) -> Split {
    let mut parser = ReaderBuilder::new().delimiter(separator).build();
    let mut record = Record { text: vec![0; sample.len()], ends: vec![0; sample.len() + 1], ..Record::default() };
    let (mut at, mut length, mut split) = (0, 0, Split::default());
    loop {
        let (result, read, written, ended) =
            parser.read_record(&sample[at..], &mut record.text[length..], &mut record.ends[record.cells..]);
        let is_end = at == sample.len();
        at += read;
        length += written;
        record.cells += ended;
        match result {
            ReadRecordResult::Record if is_end && sample.len() == SAMPLE_BYTES && !split.counts.is_empty() => {
                return split;
            }
            ReadRecordResult::Record => {
                if split.counts.is_empty() {
                    split.whole = (0..record.cells).filter(|cell| is_whole(record.bytes(*cell))).count();
                }
                split.counts.push(mem::take(&mut record.cells));
                length = 0;
                if split.counts == [1] {
                    return split;
                }
            }
            ReadRecordResult::InputEmpty => {}
            // Both buffers hold the whole sample.
            ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull | ReadRecordResult::End => return split,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Cells = Vec<(CellKind, String)>;

    fn read_file(file: impl Read) -> (Result<Vec<String>, Error>, Vec<Cells>) {
        let mut rows = Vec::new();
        let read = super::read(file, None, &mut |row| {
            let cells = (0..row.len()).map(|cell| (row.cell(cell).kind, row.cell(cell).text.to_owned()));
            rows.push(cells.collect());
            Ok(())
        });
        (read.map(|(headings, _)| headings), rows)
    }

    fn read(bytes: &[u8]) -> (Vec<String>, Vec<Vec<String>>) {
        let (headings, rows) = read_file(bytes);
        (headings.unwrap(), rows.into_iter().map(|row| row.into_iter().map(|cell| cell.1).collect()).collect())
    }

    fn utf16(text: &str, to_bytes: impl Fn(u16) -> [u8; 2]) -> Vec<u8> {
        "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(to_bytes).collect()
    }

    #[test]
    fn quotes_hold_separators_line_breaks_and_quotes() {
        let (headings, rows) = read(b"a,\"b, (c)\"\r\n\"x,\"\"y\"\"\",\"1\r\n2\"\r\n\r\n,\n\"open\n,quote");
        assert_eq!(headings, ["a", "b, (c)"]);
        assert_eq!(rows, [vec!["x,\"y\"", "1\r\n2"], vec!["", ""], vec!["open\n,quote"]]);
    }

    #[test]
    fn encodings_are_read_by_their_byte_order_mark() {
        let text = "Größe,b\n日,2\n";
        let expected = read(text.as_bytes());
        assert_eq!(expected.1, [["日", "2"]]);
        assert_eq!(read(format!("\u{feff}{text}").as_bytes()), expected);
        assert_eq!(read(&utf16(text, u16::to_le_bytes)), expected);
        assert_eq!(read(&utf16(text, u16::to_be_bytes)), expected);
    }

    #[test]
    fn separators_are_found_although_others_occur_in_headings_and_values() {
        for separator in SEPARATORS.into_iter().chain([LAST_SEPARATOR]).map(char::from) {
            let other = if separator == ',' { ';' } else { ',' };
            let line = |cells: [&str; 3]| cells.join(&separator.to_string()) + "\n";
            let heading = format!("CTR(a{other}b)");
            let time = if separator == ':' { "9" } else { "09:30:00" };
            let text = line([&heading, "b", "c"]) + &line([time, "2", "3"]) + &line(["4", "5", "6"]);
            let (headings, rows) = read(text.as_bytes());
            assert_eq!(headings, [heading.as_str(), "b", "c"], "{separator}");
            assert_eq!(rows, [[time, "2", "3"], ["4", "5", "6"]], "{separator}");
        }
        assert_eq!(read(b"Tag: Region,Date\na,09:30:00\n").0, ["Tag: Region", "Date"]);
        assert_eq!(read(b"only\n1,5\n").0, ["only"]);
        for (file, headings) in [
            (
                "\"Campaign Name\";\"Sent, total\";\"Clicks, total\"\n\"Diwali\";\"1,234\";\"1,000\"\n",
                &["Campaign Name", "Sent, total", "Clicks, total"][..],
            ),
            (
                "Campaign Name;Sent, total;Clicks, total\nDiwali;1,234;1,000\n",
                &["Campaign Name", "Sent, total", "Clicks, total"],
            ),
            ("Campaign ID;CTR (Android, iOS)\n64fa;12,5\n", &["Campaign ID", "CTR (Android, iOS)"]),
            ("Sent;CTR (Android, iOS)\n1,234;8.4\n", &["Sent", "CTR (Android, iOS)"]),
            ("Sent;Rate,all\n1;8,4\n", &["Sent", "Rate,all"]),
            ("Name, long;Sent\nDiwali, 2026;5\n", &["Name, long", "Sent"]),
            ("Campaign ID;Sent, all\n", &["Campaign ID", "Sent, all"]),
            ("Campaign ID|CTR (a, b, c)\n", &["Campaign ID", "CTR (a, b, c)"]),
            ("a, b, c\tb\n", &["a, b, c", "b"]),
            ("Tag: A: B,Time\nx,09:30:00\n", &["Tag: A: B", "Time"]),
            ("Name;Tags a,b,c,d\nx;1\n", &["Name", "Tags a,b,c,d"]),
            ("Name | Sent | Clicks\nx, y | 1 | 2\n", &["Name ", " Sent ", " Clicks"]),
            ("Name, Sent, CTR (a;b)\nx, 1, 2\n", &["Name", " Sent", " CTR (a;b)"]),
            ("Campaign ID:CTR (Android, iOS):Sent\n64fa:8.4:12,345\n", &["Campaign ID", "CTR (Android, iOS)", "Sent"]),
            ("Campaign ID:CTR (Android, iOS):Sent\n", &["Campaign ID", "CTR (Android, iOS)", "Sent"]),
            (
                "\"Campaign ID\":\"Date\":\"Sent\":\"CTR (Android, iOS)\"\n\"a\":\"2026-11-27\":\"12,345\":\"8.4\"\n",
                &["Campaign ID", "Date", "Sent", "CTR (Android, iOS)"],
            ),
            ("utm:source:medium,clicks\na:b:c,5\n", &["utm:source:medium", "clicks"]),
            ("\"Sent, \"\"all\"\"\",b\n1,2\n", &["Sent, \"all\"", "b"]),
        ] {
            assert_eq!(read(file.as_bytes()).0, headings, "{file}");
        }
        let long = "a;b\n".to_owned() + &"1;2\n".repeat(SAMPLE_BYTES);
        assert_eq!(read(long.as_bytes()).1.len(), SAMPLE_BYTES);
    }

    #[test]
    fn short_and_long_rows_are_kept_as_they_are() {
        let (_, rows) = read(b"a,b\n1\n1,2\n1,2,3,4\n");
        assert_eq!(rows, [vec!["1"], vec!["1", "2"], vec!["1", "2", "3", "4"]]);
    }

    #[test]
    fn files_of_headings_only_and_empty_ones_have_no_rows() {
        assert_eq!(read(b"a,b"), (vec!["a".to_owned(), "b".to_owned()], Vec::new()));
        for empty in ["", "\n\r\n", "\u{feff}"] {
            assert_eq!(read(empty.as_bytes()), (Vec::new(), Vec::new()), "{empty:?}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_kept_escaped() {
        // The second row has the two bytes of one character in two cells.
        let (_, rows) = read_file(&b"a,b\nx,\xff\n\xc3,\xa4\n"[..]);
        let cells = |cells: [(CellKind, &str); 2]| cells.map(|(kind, text)| (kind, text.to_owned()));
        assert_eq!(rows[0], cells([(CellKind::Text, "x"), (CellKind::Bytes, "\\xff")]));
        assert_eq!(rows[1], cells([(CellKind::Bytes, "\\xc3"), (CellKind::Bytes, "\\xa4")]));
        assert_eq!(rows.len(), 2);
    }

    #[test]
    fn a_quote_that_is_never_closed_and_a_row_of_separators_end_in_time() {
        let quote = io::Cursor::new("a,b\n1,2\n\"").chain(io::repeat(b'x'));
        let (end, rows) = read_file(quote);
        assert!(matches!(end, Err(Error::LongRow { row: 2 })));
        assert_eq!(rows.len(), 1);
        assert!(matches!(read_file(io::repeat(b',')).0, Err(Error::WideRow { row: 0 })));
        assert!(matches!(read_file(io::repeat(b'a')).0, Err(Error::LongRow { row: 0 })));
    }

    #[test]
    fn an_error_of_the_file_is_passed_on() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the disk is gone"))
            }
        }
        let (end, rows) = read_file(io::Cursor::new("a\n".repeat(SAMPLE_BYTES / 2)).chain(Broken));
        assert!(matches!(end, Err(Error::Read(_))));
        assert_eq!(rows.len(), SAMPLE_BYTES / 2 - 1);
    }

    /// The rows as the parser alone reads them.
    fn parsed(text: &[u8]) -> Vec<Vec<String>> {
        let mut parser = ReaderBuilder::new().delimiter(b',').build();
        let (mut rows, mut cells, mut cell) = (Vec::new(), Vec::new(), Vec::new());
        let (mut at, mut buffer) = (0, [0; 1]);
        loop {
            let (result, read, written) = parser.read_field(&text[at..], &mut buffer);
            at += read;
            cell.extend_from_slice(&buffer[..written]);
            match result {
                csv_core::ReadFieldResult::Field { record_end } => {
                    cells.push(String::from_utf8(std::mem::take(&mut cell)).unwrap());
                    if record_end {
                        rows.push(std::mem::take(&mut cells));
                    }
                }
                csv_core::ReadFieldResult::End => return rows,
                csv_core::ReadFieldResult::InputEmpty | csv_core::ReadFieldResult::OutputFull => {}
            }
        }
    }

    proptest! {
        #[test]
        fn cells_of_plain_lines_are_counted_as_the_parser_does(text in "[ab,:\n]{0,40}", fills in any::<bool>()) {
            let mut sample = text.into_bytes();
            if fills {
                // As long as a sample of a longer file.
                sample.splice(0..0, b"a,b\n".iter().copied().cycle().take(SAMPLE_BYTES - sample.len()));
            }
            for separator in [b',', b':'] {
                prop_assert_eq!(plain_split(&sample, separator), parsed_split(&sample, separator));
            }
        }

        #[test]
        fn rows_are_those_of_the_parser(lines in proptest::collection::vec("[ab,\"é]{0,6}(\n|\r\n|\r|\n\n)", 0..8), end in "[a,\"]{0,3}") {
            let text = format!("a,b\n{}{end}", lines.concat());
            let (_, rows) = read(text.as_bytes());
            prop_assert_eq!(&rows, &parsed(text.as_bytes())[1..]);
        }
    }
}
