//! Rows of the sheets of a workbook.
//!
//! This file owns what the cells of a workbook are as text, and the bounds of the memory that a workbook takes: its shared
//! strings are held in memory, its sheets are read forward. It must not know types or names of columns.

use std::io::{Cursor, Read, Write};

use calamine::{DataRef, ExcelDateTime, Reader, SheetType, Style, Xlsx, XlsxError};

use super::{CellKind, Error, MOST_COLUMNS, MOST_ROW_BYTES, Row, long_numbers};

/// Most bytes of a workbook as a file. It is read into memory, because its directory is at its end.
const MOST_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Most bytes of a file inside a workbook, inflated: a sheet, or all texts. Real sheets of 70,000 rows have 200 MB.
const MOST_INFLATED_BYTES: u64 = 1024 * 1024 * 1024;

/// Most bytes of all files inside a workbook but its sheets, inflated.
const MOST_HELD_BYTES: u64 = 64 * 1024 * 1024;

/// Least bytes of a text among the shared ones: `<si/>`.
const LEAST_STRING_BYTES: u64 = 5;

type Workbook = Xlsx<Cursor<Vec<u8>>>;

/// The names of the sheets of a workbook that have cells. Charts and dialogs are left alone.
///
/// # Errors
///
/// It cannot be read, is no workbook, or is too large.
pub fn sheets(file: impl Read) -> Result<Vec<String>, Error> {
    let workbook = workbook(bytes_of(file)?.0)?;
    let with_cells = workbook.sheets_metadata().iter().filter(|sheet| sheet.typ == SheetType::WorkSheet);
    Ok(with_cells.map(|sheet| sheet.name.clone()).collect())
}

/// Passes each row of a sheet to `each`, and returns the headings: the first row. Rows without any value are no
/// rows: programs also write cells that are only formatted.
pub(super) fn read(
    file: impl Read,
    sheet: &str,
    each: &mut dyn FnMut(Row<'_>) -> Result<(), Error>,
) -> Result<Vec<String>, Error> {
    let (bytes, with_long_numbers) = bytes_of(file)?;
    let mut workbook = workbook(match with_long_numbers.is_empty() {
        true => bytes,
        false => long_numbers::as_texts(&bytes, &with_long_numbers).map_err(unreadable)?,
    })?;
    let mut cells = workbook.worksheet_cells_reader(sheet).map_err(unreadable)?;
    let formats: Vec<_> = cells.styles().iter().map(Format::of).collect();
    let mut headings = None;
    let mut current = Cells::default();
    let mut row = 0;
    let mut end = |cells: &Cells| match &headings {
        _ if !cells.has_value => Ok(()),
        None => {
            let row = cells.row();
            headings = Some((0..row.len()).map(|cell| row.cell(cell).text.to_owned()).collect::<Vec<_>>());
            Ok(())
        }
        Some(_) => each(cells.row()),
    };
    while let Some((cell, style)) = cells.next_cell_with_style_id().map_err(unreadable)? {
        let (number, column) = cell.get_position();
        if number != row {
            end(&current)?;
            current.clear();
            row = number;
        }
        let column = usize::try_from(column).unwrap_or(usize::MAX);
        if column >= MOST_COLUMNS {
            return Err(Error::WideRow { row: row.into() });
        }
        current.push(column, cell.get_value(), formats.get(style).copied().unwrap_or_default());
        if current.text.len() > MOST_ROW_BYTES {
            return Err(Error::LongRow { row: row.into() });
        }
    }
    end(&current)?;
    Ok(headings.unwrap_or_default())
}

/// The bytes of a workbook that is not too large, and which of its files have numbers that the reader may change.
fn bytes_of(file: impl Read) -> Result<(Vec<u8>, Vec<usize>), Error> {
    let mut bytes = Vec::new();
    file.take(MOST_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(Error::Read)?;
    if bytes.len() as u64 > MOST_FILE_BYTES {
        return Err(Error::LargeWorkbook { limit: MOST_FILE_BYTES });
    }
    let with_long_numbers = check_files(&bytes)?;
    Ok((bytes, with_long_numbers))
}

fn workbook(bytes: Vec<u8>) -> Result<Workbook, Error> {
    Xlsx::new(Cursor::new(bytes)).map_err(unreadable)
}

/// Inflates the workbook's files once to count their bytes: what their directory states may be wrong, and the reader
/// allocates by it. Returns which of them have numbers that the reader may change.
fn check_files(bytes: &[u8]) -> Result<Vec<usize>, Error> {
    let unreadable = |error: zip::result::ZipError| unreadable(error.into());
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(unreadable)?;
    let (mut held, mut with_long_numbers) = (0, Vec::new());
    for index in 0..archive.len() {
        let mut file = archive.by_index(index).map_err(unreadable)?;
        let name = file.name().map_err(unreadable)?.to_ascii_lowercase();
        let mut head = Vec::new();
        file.by_ref().take(4096).read_to_end(&mut head).map_err(Error::Read)?;
        let mut search = long_numbers::Search::default();
        search.write_all(&head).map_err(Error::Read)?;
        let rest = file.by_ref().take(MOST_INFLATED_BYTES + 1);
        let inflated = head.len() as u64 + std::io::copy(&mut { rest }, &mut search).map_err(Error::Read)?;
        if inflated > MOST_INFLATED_BYTES {
            return Err(Error::LargeWorkbook { limit: MOST_INFLATED_BYTES });
        }
        held += if name.contains("worksheets/") { 0 } else { inflated };
        let is_absurd = name.ends_with("sharedstrings.xml") && stated_strings(&head) > inflated / LEAST_STRING_BYTES;
        if held > MOST_HELD_BYTES || is_absurd {
            return Err(Error::LargeWorkbook { limit: MOST_HELD_BYTES });
        }
        if search.has_found && name.ends_with(".xml") {
            with_long_numbers.push(index);
        }
    }
    Ok(with_long_numbers)
}

/// The number of shared strings that their file states; 0 if it states none. The reader reserves memory for them.
fn stated_strings(head: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(head);
    let stated = text.split("uniqueCount").nth(1).unwrap_or_default();
    let digits = stated.trim_start_matches(|c: char| c.is_ascii_whitespace() || "=\"'".contains(c));
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    // What is no number of 64 bits is more than any file has.
    if end == 0 { 0 } else { digits[..end].parse().unwrap_or(u64::MAX) }
}

fn unreadable(error: XlsxError) -> Error {
    Error::Workbook(Box::new(error))
}

/// The cells of one row, one after the other.
#[derive(Default)]
struct Cells {
    text: String,
    ends: Vec<usize>,
    kinds: Vec<CellKind>,
    /// Whether any of them is more than a format.
    has_value: bool,
}

impl Cells {
    fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
        self.kinds.clear();
        self.has_value = false;
    }

    fn row(&self) -> Row<'_> {
        Row { text: &self.text, ends: &self.ends, kinds: &self.kinds, between: 0 }
    }

    /// Adds the cell of a column, after empty ones for those that the row skips. A cell of an earlier column, which no
    /// program writes, is added at the end, so that it is not lost.
    fn push(&mut self, column: usize, value: &DataRef<'_>, format: Format) {
        while self.ends.len() < column {
            self.end(CellKind::Text);
        }
        self.has_value |= *value != DataRef::Empty;
        let (kind, text) = text(value, format);
        self.text.push_str(&text);
        self.end(kind);
    }

    fn end(&mut self, kind: CellKind) {
        self.ends.push(self.text.len());
        self.kinds.push(kind);
    }
}

/// What the number format of a cell shows.
#[derive(Debug, Default, Clone, Copy)]
struct Format {
    has_day: bool,
    has_time: bool,
    is_percentage: bool,
}

impl Format {
    fn of(style: &Style) -> Self {
        let mut format = Self::default();
        let code = style.number_format.as_ref().map_or("", |number| &number.format_code);
        let mut letters = code.chars();
        while let Some(letter) = letters.next() {
            match letter {
                // What follows is the format of other numbers.
                ';' => break,
                // The next letter is shown as it is, repeated, or left blank.
                '\\' | '*' | '_' => drop(letters.next()),
                '"' => letters.by_ref().take_while(|letter| *letter != '"').for_each(drop),
                '[' => letters.by_ref().take_while(|letter| *letter != ']').for_each(drop),
                'd' | 'D' | 'y' | 'Y' => format.has_day = true,
                'h' | 'H' | 's' | 'S' => format.has_time = true,
                '%' => format.is_percentage = true,
                _ => {}
            }
        }
        format
    }
}

/// The first number that is no day: it would be in the year 10000.
const END_OF_DAYS: f64 = 2_958_466.0;

/// A cell as text. Programs also write numbers as texts, so a text may mean a number.
fn text(value: &DataRef<'_>, format: Format) -> (CellKind, String) {
    match value {
        DataRef::Empty => (CellKind::Text, String::new()),
        DataRef::String(text) | DataRef::DateTimeIso(text) | DataRef::DurationIso(text) => {
            (CellKind::Text, text.clone())
        }
        DataRef::SharedString(text) => (CellKind::Text, (*text).to_owned()),
        DataRef::Int(number) => (CellKind::Number, number.to_string()),
        // No file has infinity: it is what a number with a large exponent becomes.
        DataRef::Float(number) if !number.is_finite() => (CellKind::Text, number.to_string()),
        DataRef::Float(number) if format.is_percentage => (CellKind::Text, percentage(*number)),
        DataRef::Float(number) => (CellKind::Number, number.to_string()),
        DataRef::Bool(is_true) => (CellKind::Boolean, is_true.to_string()),
        DataRef::DateTime(time) if time.is_datetime() && (0.0..END_OF_DAYS).contains(&time.as_f64()) => {
            moment(time, format)
        }
        DataRef::DateTime(duration) => (CellKind::Number, duration.as_f64().to_string()),
        DataRef::Error(error) => (CellKind::Text, error.to_string()),
    }
}

/// A number as CSV has it where a workbook shows percents. The digits are moved, because a product may have others.
fn percentage(number: f64) -> String {
    let text = number.abs().to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let digits = format!("{whole}{fraction:0<2}");
    let (whole, fraction) = digits.split_at(whole.len() + 2);
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        whole => whole,
    };
    let sign = if number < 0.0 { "-" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{whole}{point}{fraction}%")
}

/// A day, a time of day, or both. A workbook has one number for all three: its format tells them apart.
fn moment(time: &ExcelDateTime, format: Format) -> (CellKind, String) {
    let (year, month, day, hour, minute, second, milli) = time.to_ymd_hms_milli();
    let day = format!("{year:04}-{month:02}-{day:02}");
    let clock = format!("{hour:02}:{minute:02}:{second:02}");
    if time.as_f64() < 1.0 && !format.has_day {
        return (CellKind::Text, if milli == 0 { clock } else { format!("{clock}.{milli:03}") });
    }
    match (hour, minute, second, milli) {
        (0, 0, 0, 0) if !format.has_time => (CellKind::Day, day),
        _ => (CellKind::Text, format!("{day} {clock}.{milli:03}")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use zip::write::SimpleFileOptions;

    use super::*;

    /// A workbook with one sheet `sheet1`, of these rows, and shared strings.
    fn workbook(rows: &str, strings: &str) -> Vec<u8> {
        workbook_of(rows, strings, "", "")
    }

    /// As [`workbook`], with these entries after the sheet and its relationship.
    fn workbook_of(rows: &str, strings: &str, more_sheets: &str, more_relations: &str) -> Vec<u8> {
        let package = "http://schemas.openxmlformats.org/package/2006";
        let document = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
        let main = "xmlns=\"http://schemas.openxmlformats.org/spreadsheetml/2006/main\"";
        let parts = [
            (
                "[Content_Types].xml",
                format!(
                    "<Types xmlns=\"{package}/content-types\"><Default Extension=\"xml\" ContentType=\"application/xml\"/></Types>"
                ),
            ),
            (
                "_rels/.rels",
                format!(
                    "<Relationships xmlns=\"{package}/relationships\"><Relationship Id=\"r1\" Type=\"{document}/officeDocument\" Target=\"xl/workbook.xml\"/></Relationships>"
                ),
            ),
            (
                "xl/workbook.xml",
                format!(
                    "<workbook {main} xmlns:r=\"{document}\"><sheets><sheet name=\"sheet1\" sheetId=\"1\" r:id=\"r1\"/>{more_sheets}</sheets></workbook>"
                ),
            ),
            (
                "xl/_rels/workbook.xml.rels",
                format!(
                    "<Relationships xmlns=\"{package}/relationships\"><Relationship Id=\"r1\" Type=\"{document}/worksheet\" Target=\"worksheets/sheet1.xml\"/>{more_relations}</Relationships>"
                ),
            ),
            (
                "xl/styles.xml",
                format!(
                    "<styleSheet {main}><numFmts>{NUMBER_FORMATS}</numFmts><cellXfs><xf numFmtId=\"0\"/>{}</cellXfs></styleSheet>",
                    STYLES.map(|format| format!("<xf numFmtId=\"{format}\"/>")).concat()
                ),
            ),
            ("xl/sharedStrings.xml", format!("<sst {main} {strings}</sst>")),
            ("xl/worksheets/sheet1.xml", format!("<worksheet {main}><sheetData>{rows}</sheetData></worksheet>")),
        ];
        let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in parts {
            archive.start_file(name, SimpleFileOptions::default()).unwrap();
            archive.write_all(content.as_bytes()).unwrap();
        }
        archive.finish().unwrap().into_inner()
    }

    fn read(file: &[u8]) -> (Vec<String>, Vec<Vec<(CellKind, String)>>) {
        let mut rows = Vec::new();
        let headings = super::read(file, "sheet1", &mut |row| {
            let cells = (0..row.len()).map(|cell| (row.cell(cell).kind, row.cell(cell).text.to_owned()));
            rows.push(cells.collect());
            Ok(())
        });
        (headings.unwrap(), rows)
    }

    /// Number formats of the styles from 1: a day with a time, a day, a clock, one of its own, one of East Asia,
    /// percents.
    const STYLES: [u32; 6] = [22, 14, 20, 164, 31, 10];
    const NUMBER_FORMATS: &str = "<numFmt numFmtId=\"164\" formatCode=\"[$-409]d\\.\\ mmm&quot; hours&quot;_s;h:mm\"/>";

    #[test]
    fn dates_are_days_times_of_day_or_both_as_their_format_shows() {
        let rows = "<row><c t=\"s\"><v>0</v></c></row><row><c s=\"1\"><v>46347</v></c><c s=\"2\"><v>46347</v></c>\
            <c s=\"3\"><v>0.3958333333</v></c><c s=\"4\"><v>46347</v></c><c s=\"5\"><v>46347</v></c>\
            <c s=\"2\"><v>46347.25</v></c><c s=\"3\"><v>46347.25</v></c><c s=\"3\"><v>0.5000001</v></c>\
            <c s=\"2\"><v>-5</v></c><c s=\"2\"><v>2958466</v></c></row>";
        let row = read(&workbook(rows, STRINGS)).1.remove(0);
        let expected = [
            (CellKind::Text, "2026-11-21 00:00:00.000"),
            (CellKind::Day, "2026-11-21"),
            (CellKind::Text, "09:30:00"),
            (CellKind::Day, "2026-11-21"),
            (CellKind::Day, "2026-11-21"),
            (CellKind::Text, "2026-11-21 06:00:00.000"),
            (CellKind::Text, "2026-11-21 06:00:00.000"),
            (CellKind::Text, "12:00:00.009"),
            (CellKind::Number, "-5"),
            (CellKind::Number, "2958466"),
        ];
        assert_eq!(row, expected.map(|(kind, text)| (kind, text.to_owned())));
    }

    #[test]
    fn percents_are_numbers_of_hundredths_as_in_csv() {
        let numbers = ["0.084", "8.4000000000000005E-2", "0.07", "0.29", "1", "-12.5", "0", "1E-7", "0.005"];
        let cells = numbers.map(|number| format!("<c s=\"6\"><v>{number}</v></c>")).concat();
        let rows = format!("<row><c t=\"s\"><v>0</v></c></row><row>{cells}<c s=\"6\" t=\"str\"><v>n/a</v></c></row>");
        let row = read(&workbook(&rows, STRINGS)).1.remove(0);
        let expected = ["8.4%", "8.4%", "7%", "29%", "100%", "-1250%", "0%", "0.00001%", "0.5%", "n/a"];
        assert_eq!(row, expected.map(|text| (CellKind::Text, text.to_owned())));
    }

    const STRINGS: &str = "uniqueCount=\"2\"><si><t>Sent</t></si><si><t>Name &amp; more</t></si>";

    #[test]
    fn cells_are_texts_numbers_booleans_and_times() {
        use CellKind::{Boolean, Number, Text};
        let rows = "<row r=\"2\"><c r=\"A2\" t=\"s\"><v>0</v></c><c r=\"B2\" t=\"s\"><v>1</v></c></row>\
            <row r=\"4\"><c r=\"A4\"><v>1200</v></c><c r=\"C4\" t=\"b\"><v>1</v></c></row>\
            <row r=\"5\"><c r=\"A5\"><v>8.4</v></c><c r=\"B5\" s=\"1\"><v>46347.5</v></c>\
            <c r=\"C5\" t=\"inlineStr\"><is><t>12,345</t></is></c></row>";
        let file = workbook(rows, STRINGS);
        assert_eq!(sheets(file.as_slice()).unwrap(), ["sheet1"]);
        let (headings, rows) = read(&file);
        assert_eq!(headings, ["Sent", "Name & more"]);
        let cells = |cells: [(CellKind, &str); 3]| cells.map(|(kind, text)| (kind, text.to_owned()));
        assert_eq!(rows[0], cells([(Number, "1200"), (Text, ""), (Boolean, "true")]));
        assert_eq!(rows[1], cells([(Number, "8.4"), (Text, "2026-11-21 12:00:00.000"), (Text, "12,345")]));
        assert_eq!(rows.len(), 2);
    }

    #[test]
    fn rows_of_cells_that_are_only_formatted_are_no_rows() {
        let rows = "<row r=\"1\"><c r=\"A1\" s=\"1\"/></row>\
            <row r=\"2\"><c r=\"A2\" t=\"s\"><v>0</v></c></row>\
            <row r=\"3\"><c r=\"A3\" s=\"1\"/><c r=\"B3\" s=\"1\"></c></row>\
            <row r=\"4\"><c r=\"A4\" s=\"1\"/><c r=\"B4\"><v>7</v></c></row>\
            <row r=\"5\"><c r=\"A5\" t=\"str\"><v></v></c></row>\
            <row r=\"9\"><c r=\"C9\" s=\"1\"/></row>";
        let (headings, rows) = read(&workbook(rows, STRINGS));
        assert_eq!(headings, ["Sent"]);
        let texts: Vec<Vec<_>> = rows.iter().map(|row| row.iter().map(|cell| cell.1.as_str()).collect()).collect();
        assert_eq!(texts, [vec!["", "7"], vec![""]], "an empty text is a value");
    }

    #[test]
    fn long_whole_numbers_keep_their_digits() {
        let cell = |attributes: &str, number: &str| format!("<c {attributes}><v>{number}</v></c>");
        let cells = [
            cell("", "1234567890123456789"),
            cell("t=\"n\" s=\"1\"", "-9007199254740993"),
            cell("s=\"1\"", "46347.5"),
            cell("t=\"s\"", "1"),
            cell("t=\"n\"", "9007199254740992"),
            cell("", "1e999"),
        ];
        let rows = format!("<row><c t=\"s\"><v>0</v></c></row><row>{}</row>", cells.concat());
        let file = workbook(&rows, STRINGS);
        assert_eq!(sheets(file.as_slice()).unwrap(), ["sheet1"]);
        let row = read(&file).1.remove(0);
        let expected = [
            (CellKind::Text, "1234567890123456789"),
            (CellKind::Text, "-9007199254740993"),
            (CellKind::Text, "2026-11-21 12:00:00.000"),
            (CellKind::Text, "Name & more"),
            (CellKind::Number, "9007199254740992"),
            (CellKind::Text, "inf"),
        ];
        assert_eq!(row, expected.map(|(kind, text)| (kind, text.to_owned())));
    }

    #[test]
    fn sheets_of_charts_and_dialogs_are_left_alone() {
        let sheets = "<sheet name=\"Chart\" sheetId=\"2\" r:id=\"r2\"/><sheet name=\"Ask\" sheetId=\"3\" r:id=\"r3\"/>";
        let relation = |number: u32, kind: &str| {
            format!("<Relationship Id=\"r{number}\" Type=\"x/{kind}\" Target=\"{kind}s/sheet1.xml\"/>")
        };
        let relations = relation(2, "chartsheet") + &relation(3, "dialogsheet");
        let file = workbook_of("<row><c t=\"s\"><v>0</v></c></row>", STRINGS, sheets, &relations);
        assert_eq!(super::sheets(file.as_slice()).unwrap(), ["sheet1"]);
        assert_eq!(read(&file).0, ["Sent"]);
    }

    #[test]
    fn a_sheet_without_cells_has_no_headings() {
        assert_eq!(read(&workbook("", STRINGS)), (Vec::new(), Vec::new()));
    }

    #[test]
    fn workbooks_that_would_take_too_much_memory_are_refused() {
        let absurd = workbook("", "uniqueCount=\"99999999999\"><si><t>Sent</t></si>");
        assert!(matches!(sheets(absurd.as_slice()), Err(Error::LargeWorkbook { .. })));
        let texts = format!("uniqueCount=\"1\"><si><t>{}</t></si>", " ".repeat(65 << 20));
        assert!(matches!(sheets(workbook("", &texts).as_slice()), Err(Error::LargeWorkbook { .. })));
        let endless = std::io::repeat(0);
        assert!(matches!(sheets(endless), Err(Error::LargeWorkbook { limit: MOST_FILE_BYTES })));
    }

    #[test]
    fn what_is_no_workbook_is_an_error() {
        for file in [&b"Sent,Clicks\n"[..], b""] {
            assert!(matches!(sheets(file), Err(Error::Workbook(_))));
        }
        let file = workbook("<row><c r=\"A1\"><v>1</v>", STRINGS);
        assert!(matches!(super::read(file.as_slice(), "sheet1", &mut |_| Ok(())), Err(Error::Workbook(_))));
        assert!(matches!(super::read(file.as_slice(), "other", &mut |_| Ok(())), Err(Error::Workbook(_))));
    }
}
