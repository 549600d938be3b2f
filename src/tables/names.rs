//! Names of tables and columns.
//!
//! This file owns which table an entry of an archive becomes, and which column a heading becomes. All names are lower-case
//! ASCII words joined by `_`, begin with a letter, and are unique, so that every query engine accepts them. It must not
//! know what is in an entry.

use std::collections::HashSet;

use jiff::civil::Date;

use super::{Content, Layout, Listed, Part};

/// The column that names the entry a row comes from.
pub const ENTRY_COLUMN: &str = "_entry";

/// The column that keeps, as a JSON object, the values of a row that fit no column.
pub const RESCUED_COLUMN: &str = "_rescued";

/// The member of the rescued object that lists the cells beyond the last heading.
pub const SURPLUS: &str = "_surplus";

/// The column that engines make of the `date=` in an object's key. A file must not have a column of that name: engines
/// show only one of the two, or refuse the table.
const PARTITION_COLUMN: &str = "date";

/// The table whose entries have no name but the report's and the date.
const UNNAMED_TABLE: &str = "data";

/// Most characters of a name, without the number of a repeated one. BigQuery permits 300, Glue 255; keys of objects have other parts.
const MOST_CHARS: usize = 128;

/// Names of sheets that spreadsheet programs give to the only sheet of a workbook.
const UNNAMED_SHEETS: [&str; 2] = ["sheet1", "sheet_1"];

/// The tables of an archive. The result depends on the names and their order alone. Folders are neither parts nor left
/// alone.
pub fn layout(entries: &[Listed], report: &str, date: Date) -> Layout {
    let mut layout = Layout::default();
    for (index, entry) in entries.iter().enumerate().filter(|(_, entry)| !entry.name.ends_with(['/', '\\'])) {
        let Some(content) = entry.content.filter(|content| *content != Content::Xlsx || !entry.sheets.is_empty())
        else {
            layout.left_alone.push(entry.name.clone());
            continue;
        };
        let words = entry_words(&entry.name, report, date);
        let mut add = |sheet: Option<&str>| {
            let sheet_words = sheet.map(self::words).unwrap_or_default();
            let is_unnamed = UNNAMED_SHEETS.contains(&sheet_words.join("_").as_str());
            let words = words.iter().chain(sheet_words.iter().filter(|_| !is_unnamed));
            let table = name(&words.map(String::as_str).collect::<Vec<_>>(), "table").unwrap_or(UNNAMED_TABLE.into());
            let number = layout.parts.iter().filter(|part| part.table == table).count();
            layout.parts.push(Part { table, number, entry: index, content, sheet: sheet.map(str::to_owned) });
        };
        match content {
            Content::Xlsx => entry.sheets.iter().for_each(|sheet| add(Some(sheet))),
            Content::Csv | Content::Ndjson => add(None),
        }
    }
    layout
}

/// The name that the report had when its file was called `file_name`: `report`, unless it was renamed since. Its tables keep
/// their names.
pub fn name_at(file_name: &str, report: &str, date: Date) -> String {
    let before_date = file_name.rfind(&date.strftime("%Y%m%d").to_string()).map(|at| &file_name[..at]);
    match before_date.filter(|name| !words(name).is_empty() && words(name) != words(report)) {
        Some(former) => former.to_owned(),
        None => report.to_owned(),
    }
}

/// The words of an entry's path without extension, report name and dates.
fn entry_words(path: &str, report: &str, date: Date) -> Vec<String> {
    let mut folders: Vec<&str> = path.split(['/', '\\']).filter(|part| !matches!(*part, "" | "." | "..")).collect();
    let file = folders.pop().unwrap_or_default();
    let stem = Content::stem(file);
    let report = words(report);
    let own_words = |part: &str| without_dates(without_prefix(words(part), &report), date);
    let mut all: Vec<_> = folders.into_iter().flat_map(own_words).collect();
    let own = own_words(stem);
    // `flows/…_FLOWS_EMAIL_…` repeats its folder.
    if own.starts_with(&all) {
        all.clear();
    }
    all.extend(own);
    all
}

fn without_prefix(words: Vec<String>, prefix: &[String]) -> Vec<String> {
    words.strip_prefix(prefix).map(<[String]>::to_vec).unwrap_or(words)
}

/// Removes the partition's date, every other one, and a time of day after a date: with it, each day would have a table of
/// its own.
fn without_dates(words: Vec<String>, date: Date) -> Vec<String> {
    let compact = date.strftime("%Y%m%d").to_string();
    let words = split_times(words);
    let mut kept = Vec::new();
    let mut rest = words.as_slice();
    while let Some((word, further)) = rest.split_first() {
        rest = match date_length(rest, &compact) {
            0 => {
                kept.push(word.clone());
                further
            }
            length => {
                let after = &rest[length..];
                &after[time_length(after)..]
            }
        };
    }
    kept
}

fn is_date(word: &str) -> bool {
    let year = word.len() == 8 && (word.starts_with("19") || word.starts_with("20"));
    year && Date::strptime("%Y%m%d", word).is_ok()
}

/// The number of words at the beginning that are a date: `20261121`, the date `known`; a year, a month and a day; or a day, a
/// month and a year, the first two in either order.
fn date_length(words: &[String], known: &str) -> usize {
    if words.first().is_some_and(|word| word == known || is_date(word)) {
        return 1;
    }
    let [a, b, c, ..] = words else { return 0 };
    let orders: &[[&String; 3]] = match (a.len(), c.len()) {
        (4, _) => &[[a, b, c]],
        (2, 4) => &[[c, b, a], [c, a, b]],
        _ => &[],
    };
    let is_any = orders.iter().any(|[year, month, day]| is_date(&format!("{year}{month}{day}")));
    if is_any { 3 } else { 0 }
}

/// Splits the end of a date from a time that a `t` joins to it, as in `20261121T0930` and `2026-11-21T09-30`. The time begins
/// with a `T` then, which no other word has.
fn split_times(words: Vec<String>) -> Vec<String> {
    let mut split: Vec<String> = Vec::with_capacity(words.len());
    for word in words {
        let joined = word.split_once('t').filter(|(end, time)| {
            let begin = split.len().checked_sub(2).filter(|_| end.len() == 2).map(|at| split[at..].concat());
            is_date(&(begin.unwrap_or_default() + end)) && time_length(&[format!("T{time}")]) == 1
        });
        match joined {
            Some((end, time)) => split.extend([end.to_owned(), format!("T{time}")]),
            None => split.push(word),
        }
    }
    split
}

/// The number of words at the beginning that are a time of day: `093000`, `09` `30` `00`, `t0930`, or what follows a date
/// directly.
fn time_length(words: &[String]) -> usize {
    let is_time = |text: &str| {
        let pairs = text.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).ok()?.parse::<u8>().ok());
        let limits = [24, 60, 60];
        text.len() <= 6 && pairs.zip(limits).all(|(pair, limit)| pair.is_some_and(|pair| pair < limit))
    };
    let Some(first) = words.first() else { return 0 };
    let fewest = match first.chars().next() {
        Some('T') => 2,
        Some('t') => 4,
        _ => 6,
    };
    (1..=words.len().min(3))
        .rev()
        .find(|length| {
            let text = words[..*length].concat();
            let text = text.trim_start_matches(['t', 'T']).trim_end_matches('z');
            let are_pairs =
                *length == 1 || words[..*length].iter().all(|word| word.trim_matches(['t', 'T', 'z']).len() == 2);
            text.len() >= fewest && text.len() % 2 == 0 && are_pairs && is_time(text)
        })
        .unwrap_or(0)
}

/// The lower-case ASCII words of a text. Letters of other alphabets are transliterated.
pub fn words(text: &str) -> Vec<String> {
    let ascii = deunicode::deunicode(text).to_ascii_lowercase();
    ascii.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// A name of words; `None` without a word. `prefix` goes before a digit, because names begin with a letter.
fn name(words: &[&str], prefix: &str) -> Option<String> {
    let first = words.first()?;
    let mut name = words.join("_");
    if first.starts_with(|c: char| c.is_ascii_digit()) {
        name = format!("{prefix}_{name}");
    }
    name.truncate(MOST_CHARS);
    name.truncate(name.trim_end_matches('_').len());
    Some(name)
}

/// The name that a heading alone has, at a position that counts from 0.
fn base(heading: &str, position: usize) -> String {
    let words = words(heading);
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    name(&words, "column").unwrap_or_else(|| format!("column_{}", position + 1))
}

/// A column that a table already has.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Its name.
    pub name: &'a str,
    /// The heading that it was named after.
    pub heading: &'a str,
}

/// One column name for each heading of a file.
///
/// A heading that the table knows gets the column that it had, also if the order of the headings has changed. Of equal
/// headings, the first gets the first column. Other headings get a known column whose heading differs in case and
/// punctuation only, else a new name: a repeated one has `_2`, `_3` and so on. `date` is the partition's, so a column
/// `Date` is `date_2`.
pub fn columns(headings: &[String], known: &[Known<'_>]) -> Vec<String> {
    let mut names: Vec<Option<String>> = vec![None; headings.len()];
    let mut taken: HashSet<String> = HashSet::from([PARTITION_COLUMN.to_owned()]);
    for (heading, name) in headings.iter().zip(&mut names).filter(|(heading, _)| !heading.trim().is_empty()) {
        let same = known.iter().filter(|known| known.heading.trim() == heading.trim());
        if let Some(column) = same.map(|known| known.name).find(|name| !taken.contains(*name)) {
            taken.insert(column.to_owned());
            *name = Some(column.to_owned());
        }
    }
    for (position, heading) in headings.iter().enumerate() {
        if names[position].is_some() {
            continue;
        }
        let base = base(heading, position);
        // A known column of this name with an unrelated heading is another column.
        let is_other = |name: &str| known.iter().any(|known| known.name == name && !is_alike(known, heading, position));
        let candidates = (1..).map(|number| if number == 1 { base.clone() } else { format!("{base}_{number}") });
        let free = candidates.into_iter().find(|name| !taken.contains(name) && !is_other(name));
        names[position] = free.inspect(|name| {
            taken.insert(name.clone());
        });
    }
    names.into_iter().flatten().collect()
}

/// Whether a heading differs from that of a known column in case and punctuation only. Their names do not tell: they are cut,
/// and letters of other alphabets are transliterated.
fn is_alike(known: &Known<'_>, heading: &str, position: usize) -> bool {
    let letters =
        |text: &str| text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>();
    letters(known.heading) == letters(heading) && base(known.heading, position) == base(heading, position)
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;

    fn tables(report: &str, names: &[&str]) -> Vec<String> {
        let entries: Vec<_> = names
            .iter()
            .map(|name| Listed { name: (*name).into(), content: Content::of(name), sheets: Vec::new() })
            .collect();
        let layout = layout(&entries, report, date(2026, 11, 21));
        layout.parts.into_iter().map(|part| format!("{}/part-{}", part.table, part.number)).collect()
    }

    fn table(report: &str, name: &str) -> String {
        tables(report, &[name]).join(" ").replace("/part-0", "")
    }

    fn named(headings: &[&str], known: &[(&str, &str)]) -> Vec<String> {
        let headings: Vec<_> = headings.iter().map(|heading| (*heading).to_owned()).collect();
        let known: Vec<_> = known.iter().map(|(name, heading)| Known { name, heading }).collect();
        columns(&headings, &known)
    }

    #[test]
    fn the_only_file_of_a_gzip_names_no_table_by_its_extension() {
        let name = "Report_test_20261121.zip".to_owned();
        let entries = [Listed { name, content: Some(Content::Csv), sheets: Vec::new() }];
        assert_eq!(layout(&entries, "Report test", date(2026, 11, 21)).parts[0].table, UNNAMED_TABLE);
    }

    #[test]
    fn an_archive_from_before_a_report_was_renamed_has_the_former_name() {
        let day = date(2026, 11, 21);
        for (file_name, report, expected) in [
            ("Report_test_20261121.zip", "Report test", "Report test"),
            ("Report_test_20261121.zip", "Renamed", "Report_test_"),
            ("20261121.zip", "dump", "dump"),
            ("", "Report test", "Report test"),
        ] {
            assert_eq!(name_at(file_name, report, day), expected, "{file_name}");
        }
    }

    #[test]
    fn a_table_is_named_after_what_a_path_has_beside_report_and_date() {
        assert_eq!(table("Report test", "Report_test_PUSH_20261121.csv"), "push");
        assert_eq!(table("Report test", "flows/Report_test_FLOWS_EMAIL_20261121.csv"), "flows_email");
        assert_eq!(table("Report test", "flows/Report_test_EMAIL_20261121.csv"), "flows_email");
        assert_eq!(table("Report test", "flows/Report_test_FLOWS_ON_SITE_20261121.csv"), "flows_on_site");
        assert_eq!(table("Report test", "Report_test_20261121.csv"), "data");
        assert_eq!(table("Report test", "Report_test_20261121/PUSH.csv"), "push");
        assert_eq!(table("Push", "Push_PUSH_20261121.csv"), "push");
        assert_eq!(table("r", "General_Push_Shop_2026-11-20.csv"), "general_push_shop");
        assert_eq!(table("r", "General_Push_Shop_20261120.CSV"), "general_push_shop");
        for date in [
            "2026-11-21T09-30-00",
            "20261121T093000Z",
            "20261121T0930",
            "2026-11-21_09-30-00",
            "20261121_093000",
            "21-11-2026",
            "11-21-2026",
            "21.11.2026 09:30:00",
        ] {
            assert_eq!(table("r", &format!("r_PUSH_{date}.csv")), "push", "{date}");
        }
        assert_eq!(table("r", "r_PUSH_20261121T09.csv"), "push");
        assert_eq!(table("r", "r_PUSH_20261121_t0930.csv"), "push");
        assert_eq!(table("r", "r_PUSH_20261121_t10.csv"), "push_t10");
        assert_eq!(table("r", "r_PUSH_20261121_2.csv"), "push_2");
        assert_eq!(table("r", "r_PUSH_20261121_09_77_00.csv"), "push_09_77_00");
        assert_eq!(table("r", "r_21t09_20261121.csv"), "table_21t09");
        assert_eq!(table("Отчёт", "Отчёт_SMS_20261121.csv"), "sms");
        assert_eq!(table("r", "../../etc/2 pass.csv"), "etc_2_pass");
        assert_eq!(table("r", "2_pass.csv"), "table_2_pass");
        assert_eq!(table("r", ""), "data");
    }

    #[test]
    fn two_entries_of_one_table_are_two_parts() {
        let parts = tables("r", &["r_PUSH_20261121.csv", "r_SMS_20261121.csv", "r_push_20261121.CSV"]);
        assert_eq!(parts, ["push/part-0", "sms/part-0", "push/part-1"]);
    }

    #[test]
    fn entries_of_other_kinds_are_left_alone_and_listed() {
        let names = ["readme.pdf", "a.csv.gz", "flows/", "flows/a.csv", "__MACOSX/flows/._a.csv", "b"];
        let entries = names.map(|name| Listed { name: name.into(), content: Content::of(name), sheets: Vec::new() });
        let layout = layout(&entries, "r", date(2026, 11, 21));
        assert_eq!(layout.left_alone, ["readme.pdf", "a.csv.gz", "__MACOSX/flows/._a.csv", "b"]);
        assert_eq!(layout.parts.len(), 1);
        assert_eq!((layout.parts[0].table.as_str(), layout.parts[0].entry), ("flows_a", 3));
    }

    #[test]
    fn each_sheet_of_a_workbook_is_a_table_and_an_unnamed_one_has_the_name_of_its_entry() {
        let sheets = ["sheet1", "By Day"].map(str::to_owned).to_vec();
        let charts = Listed { name: "Charts.xlsx".into(), content: Some(Content::Xlsx), sheets: Vec::new() };
        let entries =
            [Listed { name: "General_Push_20261121.xlsx".into(), content: Some(Content::Xlsx), sheets }, charts];
        let layout = layout(&entries, "r", date(2026, 11, 21));
        let tables: Vec<_> = layout.parts.iter().map(|part| part.table.as_str()).collect();
        assert_eq!(tables, ["general_push", "general_push_by_day"]);
        assert_eq!(layout.parts[1].sheet.as_deref(), Some("By Day"));
        assert_eq!(layout.left_alone, ["Charts.xlsx"]);
    }

    #[test]
    fn a_heading_becomes_words_of_ascii() {
        let headings = ["All Platform CTR(Android+iOS)", "Größe", "Tag Category: Region ", "100% Reach", "日付"];
        let expected = ["all_platform_ctr_android_ios", "grosse", "tag_category_region", "column_100_reach", "ri_fu"];
        assert_eq!(named(&headings, &[]), expected);
    }

    #[test]
    fn repeated_empty_and_reserved_headings_get_names_of_their_own() {
        let headings = ["Variation", "variation", "Variation 2", "", "Date", "_entry", "_Rescued", "  ", "Column 4"];
        let expected = [
            "variation",
            "variation_2",
            "variation_2_2",
            "column_4",
            "date_2",
            "entry",
            "rescued",
            "column_8",
            "column_4_2",
        ];
        assert_eq!(named(&headings, &[]), expected);
        let long = "long ".repeat(100);
        let names = named(&[&long, &long], &[]);
        assert_eq!((names[0].len(), names[1].len()), (128, 130));
    }

    #[test]
    fn a_known_heading_keeps_its_column_when_headings_move_or_change_in_punctuation() {
        let known = [("ctr", "CTR"), ("ctr_2", "CTR(%)"), ("variation", "Variation"), ("variation_2", "Variation")];
        assert_eq!(named(&["CTR(%)", "CTR"], &known), ["ctr_2", "ctr"]);
        assert_eq!(named(&["ctr %", "CTR"], &known), ["ctr_2", "ctr"]);
        assert_eq!(
            named(&["Variation", "Variation", "Variation"], &known),
            ["variation", "variation_2", "variation_3"]
        );
        assert_eq!(named(&["Variation 2"], &known), ["variation_2_2"]);
        assert_eq!(named(&["Variation "], &known), ["variation"]);
    }

    #[test]
    fn headings_whose_names_alone_are_equal_have_columns_of_their_own() {
        let long = "Conversion Goal ".repeat(9);
        for (before, after) in
            [(long.clone() + "alpha", long + "beta"), ("事".into(), "是".into()), ("".into(), "Column 1".into())]
        {
            let first = named(&[&before], &[]);
            let second = named(&[&after], &[(&first[0], &before)]);
            assert_eq!(second, [format!("{}_2", first[0])], "{before:?}, {after:?}");
        }
    }

    proptest! {
        #[test]
        fn names_of_columns_are_unique_and_every_engine_accepts_them(
            headings in proptest::collection::vec("[a-c_ 12]{0,4}|\\PC{0,5}|date|_entry", 0..12),
            later in proptest::collection::vec("[a-c_ 12]{0,4}|date", 0..12),
        ) {
            let first = columns(&headings, &[]);
            prop_assert_eq!(first.len(), headings.len());
            let known: Vec<_> = first.iter().zip(&headings).map(|(name, heading)| Known { name, heading }).collect();
            let second = columns(&later, &known);
            prop_assert_eq!(second.len(), later.len());
            for names in [&first, &second] {
                let distinct: HashSet<_> = names.iter().collect();
                prop_assert_eq!(distinct.len(), names.len());
                for name in names {
                    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                    prop_assert!(name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(is_plain));
                    prop_assert!(name != PARTITION_COLUMN);
                }
            }
            prop_assert_eq!(columns(&headings, &known), first.clone());
        }
    }
}
