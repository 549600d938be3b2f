//! One part of a table: the two passes over an entry.
//!
//! This file owns the order of the passes, what is rescued, and the proof that rows in are rows out. It must not know how a
//! format is read or written.

use std::{
    io::{self, Read, Write},
    thread,
};

use serde_json::Value as Json;

use super::{
    Cell, CellKind, Content, Error, Field, Origin, Part, Row, Survey, Writer, Written, csv,
    csv_gz::CsvGzWriter,
    json,
    names::SURPLUS,
    parquet::ParquetWriter,
    schema::{Column, Extended},
    types::{Observed, Value, convert},
    xlsx,
};
use crate::table_words::TableFormat;

/// Opens the entry from its beginning. It is called once for each pass.
pub type Open<'a> = dyn Fn() -> io::Result<Box<dyn Read + 'a>> + 'a;

/// How much of an entry the first pass reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// So many rows, where headings come first; otherwise all.
    First(u64),
    /// All of it.
    Whole,
}

/// The rows of one part, which can be read twice.
pub struct Input<'a> {
    /// The part.
    pub part: &'a Part,
    /// Opens its entry.
    pub open: &'a Open<'a>,
}

impl Input<'_> {
    /// Passes each row to `each`, and returns the headings.
    ///
    /// # Errors
    ///
    /// The entry cannot be read, is not what its name says, or `each` fails.
    pub fn read(&self, each: &mut dyn FnMut(Row<'_>) -> Result<(), Error>) -> Result<Vec<String>, Error> {
        self.read_as(None, each).map(|(headings, _)| headings)
    }

    /// As [`Input::read`], with the separator of an earlier pass. Returns the separator too, where there is one.
    fn read_as(
        &self,
        separator: Option<u8>,
        each: &mut dyn FnMut(Row<'_>) -> Result<(), Error>,
    ) -> Result<(Vec<String>, Option<u8>), Error> {
        let file = (self.open)().map_err(Error::Read)?;
        match self.part.content {
            Content::Csv => csv::read(file, separator, each).map(|(headings, separator)| (headings, Some(separator))),
            Content::Ndjson => json::read(file, each).map(|headings| (headings, None)),
            Content::Xlsx => {
                let sheet = self.part.sheet.as_deref().unwrap_or_default();
                xlsx::read(file, sheet, each).map(|headings| (headings, None))
            }
        }
    }

    /// The first pass: headings, and the types that the values of each column have in common.
    ///
    /// # Errors
    ///
    /// The entry cannot be read, or is not what its name says.
    pub fn survey(&self, depth: Depth) -> Result<Survey, Error> {
        let most = match (depth, self.part.content) {
            (Depth::First(rows), Content::Csv) => rows,
            _ => u64::MAX,
        };
        let mut columns: Vec<Observed> = Vec::new();
        let mut rows = 0;
        let (headings, separator) = self.read_as(None, &mut |row| {
            if rows == most {
                return Err(Error::Enough);
            }
            if columns.len() < row.len() {
                columns.resize_with(row.len(), Observed::default);
            }
            for (position, column) in columns.iter_mut().enumerate().take(row.len()) {
                column.observe(row.cell(position));
            }
            rows += 1;
            Ok(())
        })?;
        // Cells beyond the headings are in no column.
        columns.resize_with(headings.len(), Observed::default);
        Ok(Survey { headings, columns, rows: (rows < most).then_some(rows), separator })
    }

    /// The second pass: writes the part. `survey` is that of the first pass, and `extended` the schema with those of all parts of
    /// the table, in the order of their numbers. The same input and schema give the same bytes.
    ///
    /// # Errors
    ///
    /// As for [`Input::survey`]; or the part cannot be written; or the entry has other rows than before, or values of other
    /// types than its first rows.
    pub fn write(
        &self,
        survey: &Survey,
        extended: &Extended,
        origin: &Origin,
        format: TableFormat,
        to: &mut (dyn Write + Send),
    ) -> Result<Written, Error> {
        let field = |(_, column, column_type): (_, &'_ Column, _)| Field {
            name: column.name.clone(),
            heading: column.heading.clone(),
            column_type,
        };
        let fields: Vec<_> = extended.schema.typed().map(field).collect();
        match format {
            TableFormat::Parquet => thread::scope(|scope| {
                let writer = ParquetWriter::new(&fields, origin, to, scope)?;
                self.write_rows(survey, extended, &origin.entry, writer)
            }),
            TableFormat::CsvGz => {
                let writer = CsvGzWriter::new(&fields, to)?;
                self.write_rows(survey, extended, &origin.entry, writer)
            }
        }
    }

    fn write_rows(
        &self,
        survey: &Survey,
        extended: &Extended,
        entry: &str,
        mut writer: impl Writer,
    ) -> Result<Written, Error> {
        let Extended { schema, inferred, .. } = extended;
        let columns = &extended.columns[self.part.number];
        let mut rescue = Rescue::default();
        let mut written = Written { rows: 0, rescued_rows: 0 };
        // The cell of each column of the object, and the cells whose column has no type.
        let cell_of = |column: usize| columns.iter().position(|it| *it == column);
        let is_guessed = |position: usize| survey.rows.is_none() && inferred[position];
        let slots: Vec<_> = schema
            .typed()
            .map(|(position, column, of_type)| (cell_of(position), column, of_type, is_guessed(position)))
            .collect();
        let untyped =
            columns.iter().enumerate().map(|(cell, column)| (cell, &schema.columns[*column], is_guessed(*column)));
        let untyped: Vec<_> = untyped.filter(|(_, column, _)| column.column_type.is_none()).collect();
        self.read_as(survey.separator, &mut |row| {
            let other_types = Error::OtherTypes { row: written.rows + 1 };
            for (index, (cell, column, of_type, is_guessed)) in slots.iter().enumerate() {
                let cell = cell.map_or(Cell::MISSING, |cell| row.cell(cell));
                let value = match convert(cell, *of_type) {
                    Some(value) => value,
                    None if *is_guessed && cell.tells_type() => return Err(other_types),
                    None => {
                        rescue.add(&column.name, cell);
                        Value::Null
                    }
                };
                writer.value(index, value)?;
            }
            for (cell, column, is_guessed) in &untyped {
                let cell = row.cell(*cell);
                if *is_guessed && cell.tells_type() {
                    return Err(other_types);
                }
                if !cell.is_empty() {
                    rescue.add(&column.name, cell);
                }
            }
            rescue.add_surplus(&row, survey.headings.len());
            let rescued = rescue.take();
            written.rescued_rows += u64::from(rescued.is_some());
            written.rows += 1;
            writer.end_row(entry, rescued)
        })?;
        let in_object = writer.finish()?;
        let first = survey.rows.unwrap_or(written.rows);
        if written.rows != first || in_object != first {
            return Err(Error::OtherRows { first, second: written.rows, in_object });
        }
        Ok(written)
    }
}

/// The JSON object of what fits no column of a row.
#[derive(Default)]
struct Rescue {
    json: String,
    is_taken: bool,
}

impl Rescue {
    fn add(&mut self, name: &str, cell: Cell<'_>) {
        self.key(name);
        push(&mut self.json, cell);
    }

    /// Cells beyond the headings, if any has a value.
    fn add_surplus(&mut self, row: &Row<'_>, headings: usize) {
        let mut cells = (headings..row.len()).map(|position| row.cell(position));
        if cells.clone().all(Cell::is_empty) {
            return;
        }
        self.key(SURPLUS);
        self.json.push('[');
        for (index, cell) in cells.by_ref().enumerate() {
            if index > 0 {
                self.json.push(',');
            }
            push(&mut self.json, cell);
        }
        self.json.push(']');
    }

    fn key(&mut self, name: &str) {
        if std::mem::take(&mut self.is_taken) {
            self.json.clear();
        }
        self.json.push(if self.json.is_empty() { '{' } else { ',' });
        push(&mut self.json, Cell { kind: CellKind::Text, text: name });
        self.json.push(':');
    }

    /// The complete object; `None` if nothing was added since the last one.
    fn take(&mut self) -> Option<&str> {
        if self.json.is_empty() || std::mem::replace(&mut self.is_taken, true) {
            return None;
        }
        self.json.push('}');
        Some(&self.json)
    }
}

/// A cell as JSON: what is JSON in the file stays as it is.
fn push(json: &mut String, cell: Cell<'_>) {
    match cell.kind {
        CellKind::Text | CellKind::String | CellKind::Day | CellKind::Bytes => {
            json.push_str(&Json::from(cell.text).to_string())
        }
        CellKind::Number | CellKind::Boolean | CellKind::Nested => json.push_str(cell.text),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow_array::{Array, RecordBatch, cast::AsArray, types};
    use arrow_schema::DataType;
    use jiff::civil::date;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        table_words::ColumnType,
        tables::{ENTRY_COLUMN, RESCUED_COLUMN, Schema},
    };

    fn origin() -> Origin {
        Origin { report: "r".into(), date: date(2026, 11, 21), sha256: "ab".repeat(32), entry: "r_PUSH.csv".into() }
    }

    fn part(content: Content) -> Part {
        let sheet = (content == Content::Xlsx).then(|| "sheet1".to_owned());
        Part { table: "push".into(), number: 0, entry: 0, content, sheet }
    }

    fn write(file: &[u8], schema: &Schema, format: TableFormat) -> Result<(Vec<u8>, Schema, Written), Error> {
        write_content(Content::Csv, file, schema, format)
    }

    fn write_content(
        content: Content,
        file: &[u8],
        schema: &Schema,
        format: TableFormat,
    ) -> Result<(Vec<u8>, Schema, Written), Error> {
        let open = || Ok(Box::new(file) as Box<dyn Read>);
        let input = Input { part: &part(content), open: &open };
        let write = |depth| {
            let survey = input.survey(depth)?;
            let extended = schema.extend(std::slice::from_ref(&survey), date(2026, 11, 21), &BTreeMap::new());
            let mut object = Vec::new();
            let written = input.write(&survey, &extended, &origin(), format, &mut object)?;
            Ok((object, extended.schema, written))
        };
        let whole = write(Depth::Whole)?;
        match write(Depth::First(1)) {
            Err(Error::OtherTypes { .. }) => {}
            first => assert_eq!(first?, whole, "the first row says something else than all"),
        }
        Ok(whole)
    }

    #[test]
    fn types_of_the_first_rows_must_hold_for_the_rest() {
        let written = |file: &[u8], schema: &Schema| {
            let open = || Ok(Box::new(file) as Box<dyn Read>);
            let input = Input { part: &part(Content::Csv), open: &open };
            let survey = input.survey(Depth::First(1)).unwrap();
            assert_eq!(survey.rows, None);
            let extended = schema.extend(std::slice::from_ref(&survey), date(2026, 11, 21), &BTreeMap::new());
            input.write(&survey, &extended, &origin(), TableFormat::Parquet, &mut Vec::new())
        };
        for (file, row) in [
            (&b"a,b\n1,x\n2,y\n1.5,z\n"[..], Some(3)),
            (b"a,b\n1,\n2,y\n", Some(2)),
            (b"a,b\n1,\n2, \n,\n", None),
            (b"a,b\nx,1\n7,\n", None),
        ] {
            match (written(file, &Schema::default()), row) {
                (Ok(_), None) => {}
                (Err(Error::OtherTypes { row: found }), Some(expected)) => assert_eq!(found, expected),
                (other, _) => panic!("{}: {other:?}", file.escape_ascii()),
            }
        }
        let known = write(b"a,b\n1,x\n", &Schema::default(), TableFormat::Parquet).unwrap().1;
        let rescued = written(b"a,b\n1,x\nmany,y\n", &known).unwrap();
        assert_eq!(rescued, Written { rows: 2, rescued_rows: 1 }, "the type of a known column is fixed");
    }

    /// The cells of an object, by column. Numbers and times are written as text in one way.
    fn read(object: Vec<u8>) -> Vec<BTreeMap<String, Option<String>>> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(object)).unwrap().build().unwrap();
        reader.flat_map(|batch| rows(&batch.unwrap())).collect()
    }

    fn rows(batch: &RecordBatch) -> Vec<BTreeMap<String, Option<String>>> {
        let cell = |column: &dyn Array, row: usize| match column.data_type() {
            DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
            DataType::Int64 => column.as_primitive::<types::Int64Type>().value(row).to_string(),
            DataType::Float64 => column.as_primitive::<types::Float64Type>().value(row).to_string(),
            DataType::Boolean => column.as_boolean().value(row).to_string(),
            DataType::Date32 => {
                let days = i64::from(column.as_primitive::<types::Date32Type>().value(row));
                (date(1970, 1, 1) + jiff::SignedDuration::from_hours(24 * days)).to_string()
            }
            DataType::Timestamp(..) => {
                let micros = column.as_primitive::<types::TimestampMicrosecondType>().value(row);
                (date(1970, 1, 1).at(0, 0, 0, 0) + jiff::SignedDuration::from_micros(micros)).to_string()
            }
            other => panic!("{other}"),
        };
        let schema = batch.schema();
        let columns = || schema.fields().iter().map(|field| field.name().clone()).zip(batch.columns());
        let row = |row| columns().map(|(name, it)| (name, it.is_valid(row).then(|| cell(it, row)))).collect();
        (0..batch.num_rows()).map(row).collect()
    }

    fn text(object: &[u8]) -> String {
        let mut text = String::new();
        flate2::read::GzDecoder::new(object).read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn values_are_in_typed_columns_and_the_rest_is_rescued() {
        let first =
            write(b"Sent,Date,Note,Goal\n\"1,200\",2026-11-21,a,\n", &Schema::default(), TableFormat::Parquet).unwrap();
        let file = b"Sent,Date,Note,Goal,New\nmany,2026-11-22,b,,\n7,soon,,,,x,\n";
        let (object, schema, written) = write(file, &first.1, TableFormat::Parquet).unwrap();
        assert_eq!(written, Written { rows: 2, rescued_rows: 2 });
        let rows = read(object);
        let cell = |row: usize, name: &str| rows[row][name].as_deref();
        assert_eq!((cell(0, "sent"), cell(0, "date_2"), cell(0, "note")), (None, Some("2026-11-22"), Some("b")));
        assert_eq!(cell(0, RESCUED_COLUMN), Some(r#"{"sent":"many"}"#));
        assert_eq!((cell(1, "sent"), cell(1, "date_2"), cell(1, "note")), (Some("7"), None, None));
        assert_eq!(cell(1, RESCUED_COLUMN), Some(r#"{"date_2":"soon","_surplus":["x",""]}"#));
        assert_eq!(cell(1, ENTRY_COLUMN), Some("r_PUSH.csv"));
        assert!(!rows[0].contains_key("goal"), "a column without values has no type yet");
        assert_eq!(schema.columns.len(), 5);
    }

    #[test]
    fn statistics_have_typed_columns_and_rescued_values_keep_their_own_type() {
        use ColumnType::{Boolean, Date, Double, Int64, String};
        let file = b"{\"campaign_id\":\"7\",\"clicks\":12,\"ctr\":1e-05,\"day\":\"2026-11-21\",\"tags\":[1,\"a\"],\"live\":true}\n";
        let write =
            |file: &[u8], schema: &Schema| write_content(Content::Ndjson, file, schema, TableFormat::Parquet).unwrap();
        let (object, schema, _) = write(file, &Schema::default());
        let types: Vec<_> = schema.columns.iter().filter_map(|column| column.column_type).collect();
        assert_eq!(types, [String, Int64, Double, Date, String, Boolean]);
        let first = &read(object)[0];
        assert_eq!((first["ctr"].as_deref(), first["tags"].as_deref()), (Some("0.00001"), Some("[1,\"a\"]")));
        let (object, _, written) = write(b"{\"clicks\":\"12\",\"ctr\":{\"a\":1},\"live\":null}\n", &schema);
        assert_eq!(written, Written { rows: 1, rescued_rows: 1 });
        assert_eq!(read(object)[0][RESCUED_COLUMN].as_deref(), Some("{\"clicks\":\"12\",\"ctr\":{\"a\":1}}"));
    }

    #[test]
    fn csv_has_the_columns_and_values_of_parquet() {
        let file = b"A,B,C,D,E,F\n\"x\"\"\r\n,y\",12.5%,2026-11-21,2026-11-21T09:30:00.5,TRUE,\n,7,,,,\n,1,,1,,\n";
        let schema = Schema::default();
        let (parquet, extended, _) = write(file, &schema, TableFormat::Parquet).unwrap();
        let (object, same, written) = write(file, &schema, TableFormat::CsvGz).unwrap();
        assert_eq!((written.rows, same), (3, extended));
        let expected = "a,b,c,d,e,_entry,_rescued\r\n\
            \"x\"\"\r\n,y\",12.5,2026-11-21,2026-11-21T09:30:00.5,true,r_PUSH.csv,\r\n\
            ,7.0,,,,r_PUSH.csv,\r\n,1.0,,1,,r_PUSH.csv,\r\n";
        assert_eq!(text(&object), expected);
        assert_eq!(read(parquet)[0]["d"].as_deref(), Some("2026-11-21T09:30:00.5"));
        let times = write(b"T\n2026-11-21T09:30:00.5\n2026-01-01 00:00:00\n", &schema, TableFormat::CsvGz).unwrap();
        let lines: Vec<_> = text(&times.0).lines().map(|line| line.split(',').next().unwrap().to_owned()).collect();
        assert_eq!(lines, ["t", "2026-11-21 09:30:00.5", "2026-01-01 00:00:00"]);
    }

    #[test]
    fn files_without_rows_give_objects_without_rows() {
        for file in [&b""[..], b"Sent,Clicks\n"] {
            for format in [TableFormat::Parquet, TableFormat::CsvGz] {
                let (object, _, written) = write(file, &Schema::default(), format).unwrap();
                assert_eq!(written, Written { rows: 0, rescued_rows: 0 });
                match format {
                    TableFormat::Parquet => assert!(read(object).is_empty()),
                    TableFormat::CsvGz => assert_eq!(text(&object), "_entry,_rescued\r\n"),
                }
            }
        }
    }

    #[test]
    fn an_object_names_its_origin_and_the_headings_of_its_columns() {
        let (object, ..) = write(b"All Platform CTR(%)\n1.5\n", &Schema::default(), TableFormat::Parquet).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(object)).unwrap();
        let field = reader.schema().field(0);
        assert_eq!(
            (field.name().as_str(), field.metadata()["heading"].as_str()),
            ("all_platform_ctr", "All Platform CTR(%)")
        );
        let file = reader.metadata().file_metadata();
        assert_eq!(file.created_by(), Some("moesync version 1"));
        let pairs: BTreeMap<_, _> =
            file.key_value_metadata().unwrap().iter().map(|it| (it.key.as_str(), it.value.as_deref())).collect();
        assert_eq!(pairs["moesync.report"], Some("r"));
        assert_eq!(pairs["moesync.date"], Some("2026-11-21"));
        assert_eq!(pairs["moesync.source_sha256"], Some("ab".repeat(32).as_str()));
    }

    #[test]
    fn large_files_have_several_row_groups_and_the_same_bytes_each_time() {
        let mut file = String::from("Name,Sent\n");
        // A text that zstd compresses to no less than three quarters.
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut noise = 1_u64;
        for number in 0..20_000 {
            for _ in 0..160 {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                let letters = noise.to_be_bytes().map(|byte| char::from(LETTERS[usize::from(byte % 64)]));
                file.extend(letters);
            }
            file.push_str(&format!(",{number}\n"));
        }
        let [first, second] =
            [(); 2].map(|()| write(file.as_bytes(), &Schema::default(), TableFormat::Parquet).unwrap());
        assert_eq!(first.2, Written { rows: 20_000, rescued_rows: 0 });
        assert!(first.0 == second.0);
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(first.0)).unwrap();
        assert_eq!(reader.metadata().num_row_groups(), 2);
    }

    #[test]
    fn an_entry_that_changes_between_the_passes_is_an_error() {
        let passes = std::cell::Cell::new(0);
        let open = || {
            passes.set(passes.get() + 1);
            let file: &[u8] = if passes.get() == 1 { b"a\n1\n2\n" } else { b"a\n1\n" };
            Ok(Box::new(file) as Box<dyn Read>)
        };
        let input = Input { part: &part(Content::Csv), open: &open };
        let survey = input.survey(Depth::Whole).unwrap();
        let extended = Schema::default().extend(std::slice::from_ref(&survey), origin().date, &BTreeMap::new());
        let written = input.write(&survey, &extended, &origin(), TableFormat::Parquet, &mut Vec::new());
        assert!(matches!(written, Err(Error::OtherRows { first: 2, second: 1, in_object: 1 })));
    }

    #[test]
    fn an_object_whose_entry_cannot_be_read_again_gets_no_end() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the disk is gone"))
            }
        }
        let file = "a\n".repeat(100_000);
        let passes = std::cell::Cell::new(0);
        let open = || {
            passes.set(passes.get() + 1);
            let file = file.as_bytes();
            Ok(if passes.get() == 1 { Box::new(file) as Box<dyn Read> } else { Box::new(file.chain(Broken)) })
        };
        let input = Input { part: &part(Content::Csv), open: &open };
        let survey = input.survey(Depth::Whole).unwrap();
        let extended = Schema::default().extend(std::slice::from_ref(&survey), origin().date, &BTreeMap::new());
        let mut object = Vec::new();
        let written = input.write(&survey, &extended, &origin(), TableFormat::Parquet, &mut object);
        assert!(matches!(written, Err(Error::Read(_))));
        // A complete file has its magic number at both ends.
        assert!(object.len() <= 4 || !object.ends_with(b"PAR1"), "{} bytes", object.len());
    }

    #[test]
    fn an_error_of_the_target_is_passed_on() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::from(io::ErrorKind::StorageFull))
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let open = || Ok(Box::new(&b"a\n1\n"[..]) as Box<dyn Read>);
        let input = Input { part: &part(Content::Csv), open: &open };
        let survey = input.survey(Depth::Whole).unwrap();
        let extended = Schema::default().extend(std::slice::from_ref(&survey), origin().date, &BTreeMap::new());
        for format in [TableFormat::Parquet, TableFormat::CsvGz] {
            match input.write(&survey, &extended, &origin(), format, &mut Full) {
                Err(Error::Write(error)) => assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{format:?}"),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Whether `stored` means `text`, judged by other means than those of the conversion.
    fn means(stored: &str, text: &str, column: ColumnType) -> bool {
        let text = text.trim();
        let plain = text.replace([',', '%'], "");
        match column {
            ColumnType::String => stored.trim() == text,
            ColumnType::Int64 => stored.parse::<i128>().unwrap() == plain.parse::<i128>().unwrap(),
            ColumnType::Double => stored.parse::<f64>().unwrap() == plain.trim().parse::<f64>().unwrap(),
            ColumnType::Boolean => stored == text.to_lowercase(),
            ColumnType::Date => stored == text,
            ColumnType::Timestamp => {
                stored == text.replace(' ', "T").trim_end_matches(['.', '0']) || stored == text.replace(' ', "T")
            }
        }
    }

    fn cells() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => Just(String::new()),
            4 => "-?[0-9]{1,3}(,[0-9]{3}){0,2}",
            2 => "-?[0-9]{1,20}(\\.[0-9]{1,20})?%?",
            2 => "20[0-9]{2}-(0[1-9]|1[0-2])-[0-3][0-9]([ T][0-2][0-9]:[0-6][0-9]:[0-6][0-9])?",
            1 => "[0-9a-f]{24}",
            1 => "(true|FALSE|\\['UPI'\\]|n/a)",
            1 => "[ -~\n\r\"é]{0,8}",
        ]
    }

    fn csv(lines: &[Vec<String>]) -> String {
        let quote = |cell: &String| format!("\"{}\"", cell.replace('"', "\"\""));
        lines.iter().map(|cells| cells.iter().map(quote).collect::<Vec<_>>().join(",") + "\r\n").collect()
    }

    proptest! {
        #[test]
        fn every_cell_is_in_its_column_or_rescued(
            headings in proptest::collection::vec("[A-C]{1,2}", 1..5),
            first in proptest::collection::vec(proptest::collection::vec(cells(), 1..6), 0..4),
            later in proptest::collection::vec(proptest::collection::vec(cells(), 1..6), 0..12),
        ) {
            let file = |rows: &[Vec<String>]| csv(&[std::slice::from_ref(&headings), rows].concat());
            let schema = write(file(&first).as_bytes(), &Schema::default(), TableFormat::Parquet).unwrap().1;
            let (object, schema, written) = write(file(&later).as_bytes(), &schema, TableFormat::Parquet).unwrap();
            prop_assert_eq!(written.rows, later.len() as u64);
            let stored = read(object);
            prop_assert_eq!(stored.len(), later.len());
            for (row, stored) in later.iter().zip(&stored) {
                let rescued = stored[RESCUED_COLUMN].clone().unwrap_or("{}".into());
                let mut rescued: serde_json::Map<String, Json> = serde_json::from_str(&rescued).unwrap();
                let surplus = rescued.remove(SURPLUS);
                for (position, column) in schema.columns.iter().enumerate() {
                    let text = row.get(position).map_or("", String::as_str);
                    let value = stored.get(&column.name).cloned().flatten();
                    match (value, rescued.remove(&column.name), column.column_type) {
                        (Some(value), None, Some(of_type)) => prop_assert!(means(&value, text, of_type), "{value} {text}"),
                        (None, Some(kept), _) => prop_assert_eq!(kept, text),
                        (None, None, _) => prop_assert_eq!(text, ""),
                        other => prop_assert!(false, "{other:?}"),
                    }
                }
                prop_assert!(rescued.is_empty());
                let beyond = row.get(headings.len()..).unwrap_or_default();
                match surplus {
                    Some(surplus) => prop_assert_eq!(surplus, Json::from(beyond.to_vec())),
                    None => prop_assert!(beyond.iter().all(String::is_empty)),
                }
            }
        }
    }
}
