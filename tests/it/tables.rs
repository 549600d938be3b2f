//! Tables as query engines read them: DuckDB and pyarrow give the values that Python's csv module reads from the sources.

mod statements;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{Read, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use jiff::civil::{Date, date};
use moesync::{
    table_words::{ColumnType, TableFormat},
    tables::{Content, Depth, Input, Origin, Part, Schema, Written},
};

/// Tables in a folder, and the tables that Python compares.
struct Tables {
    folder: tempfile::TempDir,
    paths: Vec<PathBuf>,
}

/// A file as Python's csv module is to read it.
struct Source {
    encoding: &'static str,
    separator: char,
    bytes: Vec<u8>,
}

fn utf8(text: &str) -> Source {
    Source { encoding: "utf-8", separator: ',', bytes: text.as_bytes().to_vec() }
}

impl Tables {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), paths: Vec::new() }
    }

    /// Makes a table of one file a day.
    fn make(&mut self, name: &str, sources: &[Source]) -> Schema {
        let part = Part { table: name.into(), number: 0, entry: 0, content: Content::Csv, sheet: None };
        let days: Vec<_> = sources.iter().map(|source| (source, source.bytes.as_slice())).collect();
        self.make_of(&part, &days)
    }

    /// Makes a table of entries that hold the rows of the sources.
    fn make_of(&mut self, part: &Part, days: &[(&Source, &[u8])]) -> Schema {
        let folder = self.folder.path().join(&part.table);
        let mut schema = Schema::default();
        for (day, (source, entry)) in (1..).zip(days) {
            let at = date(2026, 11, day);
            let path = folder.join(format!("date={at}"));
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("source.csv"), &source.bytes).unwrap();
            let form = serde_json::json!({"encoding": source.encoding, "separator": source.separator});
            fs::write(path.join("source.json"), form.to_string()).unwrap();
            schema = derive(part, entry, &schema, at, &path);
        }
        fs::write(folder.join("_schema.json"), serde_json::to_string(&schema).unwrap()).unwrap();
        self.paths.push(folder);
        schema
    }

    /// Compares all tables, cell by cell.
    fn compare(&self) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = root.join("target/engines/bin/python");
        assert!(python.exists(), "{} is missing; `make engines` installs it", python.display());
        let compared = Command::new(python).arg(root.join("tests/it/tables/compare.py")).args(&self.paths).output();
        let compared = compared.unwrap();
        let lines = String::from_utf8_lossy(&compared.stdout);
        assert!(compared.status.success(), "{lines}{}", String::from_utf8_lossy(&compared.stderr));
        assert_eq!(lines.lines().count(), 3 * self.paths.len(), "{lines}");
    }
}

/// Writes the objects of one date, and returns the extended schema.
fn derive(part: &Part, entry: &[u8], schema: &Schema, at: Date, path: &Path) -> Schema {
    let open = || Ok(Box::new(entry) as Box<dyn Read>);
    let input = Input { part, open: &open };
    let survey = input.survey(Depth::Whole).unwrap();
    let extended = schema.extend(std::slice::from_ref(&survey), at, &BTreeMap::new());
    let origin = Origin { report: "r".into(), date: at, sha256: "00".repeat(32), entry: "source.csv".into() };
    for format in [TableFormat::Parquet, TableFormat::CsvGz] {
        let mut object = Vec::new();
        let Written { rows, .. } = input.write(&survey, &extended, &origin, format, &mut object).unwrap();
        assert_eq!(Some(rows), survey.rows);
        fs::write(path.join(format!("part-0.{}", format.extension())), object).unwrap();
    }
    extended.schema
}

fn types(schema: &Schema) -> Vec<(&str, Option<ColumnType>)> {
    schema.columns.iter().map(|column| (column.name.as_str(), column.column_type)).collect()
}

/// Values that are easily misread, one of each kind in each row.
fn rows(separator: char) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let lines = [
        ["Campaign ID", "Sent", "CTR", "Tag Category: Method", "Sent At", "Day", "Is Live", "Note (a, b; c|d)"],
        ["123456789012345678901234", "12,345", "12.5%", "['UPI']", "2026-11-21 09:30:00", "2026-11-21", "true", ""],
        [
            "64fa31c09b1f2a7d3c8e0b52",
            "7",
            "8.4",
            "['UPI', 'Card']",
            "2026-02-28 23:59:59",
            "1999-12-31",
            "FALSE",
            "a\r\nb",
        ],
        ["000000000000000000000007", "", "1,234.5%", "", "", "", "", "say \"Größe\", then 日本; a|b:c\td\ne"],
        ["", "-3", "0", "[]", "2026-11-21T00:00:00.25", "0001-01-01", "True", " space "],
    ];
    let line = |cells: &[&str; 8]| cells.map(quoted).join(&separator.to_string()) + "\r\n";
    lines.iter().map(line).collect()
}

const ROW_TYPES: [(&str, Option<ColumnType>); 8] = [
    ("campaign_id", Some(ColumnType::String)),
    ("sent", Some(ColumnType::Int64)),
    ("ctr", Some(ColumnType::Double)),
    ("tag_category_method", Some(ColumnType::String)),
    ("sent_at", Some(ColumnType::Timestamp)),
    ("day", Some(ColumnType::Date)),
    ("is_live", Some(ColumnType::Boolean)),
    ("note_a_b_c_d", Some(ColumnType::String)),
];

#[test]
fn encodings_and_separators_give_the_same_values() {
    let mut tables = Tables::new();
    for (number, separator) in [',', ';', '|', ':', '\t'].into_iter().enumerate() {
        let text = rows(separator);
        let with_mark = format!("\u{feff}{text}");
        let utf16 = |to_bytes: fn(u16) -> [u8; 2]| with_mark.encode_utf16().flat_map(to_bytes).collect();
        let sources = [
            Source { encoding: "utf-8", separator, bytes: text.clone().into_bytes() },
            Source { encoding: "utf-8-sig", separator, bytes: with_mark.clone().into_bytes() },
            Source { encoding: "utf-16", separator, bytes: utf16(u16::to_le_bytes) },
            Source { encoding: "utf-16", separator, bytes: utf16(u16::to_be_bytes) },
        ];
        let schema = tables.make(&format!("separator_{number}"), &sources);
        assert_eq!(types(&schema), ROW_TYPES);
    }
    tables.compare();
}

#[test]
fn a_month_of_changing_files_reads_as_one_table() {
    let mut tables = Tables::new();
    // The goal is empty for ten days; the heading of the variation changes; a count becomes text; columns come and go.
    let days: Vec<_> = (1..=28)
        .map(|day| {
            let goal = if day <= 10 { String::new() } else { format!("{day}.5") };
            let variation = if day <= 14 { "Variation" } else { "Campaign Version Name" };
            let sent = if day == 20 { "n/a".to_owned() } else { format!("\"{day},000\"") };
            let tag = if day % 3 == 0 { ",Tag Category: Region " } else { "" };
            let mut text = format!("Sent,Date,{variation},Sent,Goal{tag}\n");
            for row in 0..day {
                let region = if tag.is_empty() { String::new() } else { format!(",['{row}']") };
                writeln!(text, "{sent},2026-11-{day:02},v{row},{row},{goal}{region}").unwrap();
            }
            // A short row, one with surplus cells, and one whose surplus is empty.
            text + "1\n" + "2,2026-11-21,v,3,,,\"surplus, quoted\",,\n" + "3,2026-11-21,v,3,,,,\n"
        })
        .map(|text| utf8(&text))
        .collect();
    let schema = tables.make("month", &days);
    let expected = [
        ("sent", Some(ColumnType::Int64)),
        ("date_2", Some(ColumnType::Date)),
        ("variation", Some(ColumnType::String)),
        ("sent_2", Some(ColumnType::Int64)),
        ("goal", Some(ColumnType::Double)),
        ("tag_category_region", Some(ColumnType::String)),
        ("campaign_version_name", Some(ColumnType::String)),
    ];
    assert_eq!(types(&schema), expected);
    tables.compare();
}

#[test]
fn a_file_of_209_columns_and_files_without_rows_read_as_one_table() {
    let mut tables = Tables::new();
    let headings: Vec<_> = (0..209).map(|number| format!("\"All Platform Metric {number} (a, b)\"")).collect();
    let mut text = headings.join(",") + "\n";
    for row in 0..300 {
        let cell = |column: u32| match (row + column) % 5 {
            0 => String::new(),
            1 => format!("{}.{column}", row % 100),
            _ => (row * column).to_string(),
        };
        text.push_str(&(0..209).map(cell).collect::<Vec<_>>().join(","));
        text.push('\n');
    }
    let headings_only = headings.join(",");
    let schema = tables.make("wide", &[utf8(&headings_only), utf8(&text), utf8(""), utf8(&headings_only)]);
    assert_eq!(schema.columns.len(), 209);
    tables.compare();
}

#[test]
fn a_sheet_of_70000_rows_has_the_values_of_its_csv() {
    let mut csv = String::from("Campaign ID,Name,Sent,CTR\n");
    let mut sheet = String::from("<worksheet><sheetData>");
    for row in 0..70_001 {
        let cells = match row {
            0 => ["Campaign ID", "Name", "Sent", "CTR"]
                .map(|text| format!("t=\"inlineStr\"><is><t>{text}</t></is>"))
                .to_vec(),
            row => {
                let (id, name, sent, rate) =
                    (format!("{row:024x}"), format!("Name {row}"), row * 3, f64::from(row) / 8.0);
                writeln!(csv, "{id},{name},{sent},{rate}").unwrap();
                let texts = [id, name].map(|text| format!("t=\"inlineStr\"><is><t>{text}</t></is>"));
                texts.into_iter().chain([format!("><v>{sent}</v>"), format!("><v>{rate}</v>")]).collect()
            }
        };
        sheet.push_str("<row>");
        cells.iter().for_each(|cell| write!(sheet, "<c {cell}</c>").unwrap());
        sheet.push_str("</row>");
    }
    sheet.push_str("</sheetData></worksheet>");
    let part =
        Part { table: "sheet".into(), number: 0, entry: 0, content: Content::Xlsx, sheet: Some("sheet1".into()) };
    let mut tables = Tables::new();
    let schema = tables.make_of(&part, &[(&utf8(&csv), &workbook(&sheet))]);
    assert_eq!(schema.columns[2].column_type, Some(ColumnType::Int64));
    tables.compare();
}

/// A workbook with one sheet.
fn workbook(sheet: &str) -> Vec<u8> {
    let package = "http://schemas.openxmlformats.org/package/2006/relationships";
    let document = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
    let relation = |kind: &str, target: &str| {
        format!(
            "<Relationships xmlns=\"{package}\"><Relationship Id=\"r1\" Type=\"{document}/{kind}\" Target=\"{target}\"/></Relationships>"
        )
    };
    let sheets = format!(
        "<workbook xmlns:r=\"{document}\"><sheets><sheet name=\"sheet1\" sheetId=\"1\" r:id=\"r1\"/></sheets></workbook>"
    );
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in [
        ("_rels/.rels", relation("officeDocument", "xl/workbook.xml").as_str()),
        ("xl/workbook.xml", &sheets),
        ("xl/_rels/workbook.xml.rels", &relation("worksheet", "worksheets/sheet1.xml")),
        ("xl/worksheets/sheet1.xml", sheet),
    ] {
        archive.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(content.as_bytes()).unwrap();
    }
    archive.finish().unwrap().into_inner()
}
