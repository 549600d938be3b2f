//! From the vendor's JSON to the lines of a snapshot.
//!
//! This file owns the form of a line. A record keeps all its fields, their names and order, and the digits of its numbers,
//! so that the same data gives the same bytes. It must not know where records come from or how they are compressed.

use std::{collections::HashSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

use crate::config::Shape;

/// Lines of JSON, each with its line end.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Lines {
    /// The text.
    pub text: String,
    /// Number of lines.
    pub count: u64,
}

impl Lines {
    fn push(&mut self, write: impl FnOnce(&mut String)) {
        write(&mut self.text);
        self.text.push('\n');
        self.count += 1;
    }
}

/// A record, unchanged but for white space, on one line.
pub fn record(json: &RawValue) -> Lines {
    let mut lines = Lines::default();
    lines.push(|line| compact(json.get(), line));
    lines
}

/// A record on one line, with a field in front that the vendor gives outside the record. If the record itself has a field
/// of that name, it is left unchanged.
pub fn record_with(field: &str, value: &str, json: &RawValue) -> Lines {
    let mut lines = Lines::default();
    lines.push(|line| with_field(field, value, json, line));
    lines
}

/// The statistics of one campaign exceed the largest plausible size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the statistics of campaign {campaign_id} are more than {MOST_TEXT} bytes of lines")]
pub struct TooMuch {
    campaign_id: String,
}

/// The vendor's statistics of one campaign, as lines in the given shape. An empty list gives one line with the campaign
/// only.
///
/// # Errors
///
/// The lines exceed a size that is far beyond any campaign's.
pub fn statistics(campaign_id: &str, json: &RawValue, shape: Shape) -> Result<Lines, TooMuch> {
    let mut listed: Vec<&RawValue> = serde_json::from_str(json.get()).unwrap_or_else(|_| vec![json]);
    if listed.is_empty() {
        listed.extend(serde_json::from_str::<&RawValue>("{}"));
    }
    let mut lines = Lines::default();
    for element in listed {
        match shape {
            Shape::Raw => lines.push(|line| with_field("campaign_id", campaign_id, element, line)),
            Shape::Rows => rows(campaign_id, element, &mut lines)?,
        }
    }
    Ok(lines)
}

fn with_field(field: &str, value: &str, json: &RawValue, line: &mut String) {
    let object = Object::of(json);
    if object.as_ref().is_some_and(|object| object.0.iter().any(|(key, _)| key == field)) {
        compact(json.get(), line);
        return;
    }
    line.push('{');
    string(field, line);
    line.push(':');
    string(value, line);
    let from = line.len();
    line.push(',');
    match object {
        Some(Object(fields)) if fields.is_empty() => line.truncate(from),
        Some(_) => {
            compact(json.get(), line);
            // Of the record's own braces, the first is removed and the last stays.
            line.remove(from + 1);
            return;
        }
        // Not an object: no API is known to send one.
        None => {
            line.push_str("\"value\":");
            compact(json.get(), line);
        }
    }
    line.push('}');
}

/// Dimensions of statistics, the outermost first: the field of the parts, and the column of a part's name.
const SPLITS: [(&str, &str); 3] = [("platforms", "platform"), ("locales", "locale"), ("variations", "variation")];

/// One line for each platform, locale and variation. Metrics become columns, named by their path: `clicks` of
/// `performance_stats` is `performance_stats_clicks`.
fn rows(campaign_id: &str, element: &RawValue, lines: &mut Lines) -> Result<(), TooMuch> {
    split(element, &mut Vec::new(), &Columns::default(), &mut |names, columns| {
        lines.push(|line| {
            line.push_str("{\"campaign_id\":");
            string(campaign_id, line);
            for (depth, (_, column)) in SPLITS.iter().enumerate() {
                line.push(',');
                string(column, line);
                line.push(':');
                match names.get(depth) {
                    Some(name) => string(name, line),
                    None => line.push_str("null"),
                }
            }
            for (name, value) in columns {
                line.push(',');
                string(name, line);
                line.push(':');
                compact(value.get(), line);
            }
            line.push('}');
        });
        match lines.text.len() <= MOST_TEXT {
            true => Ok(()),
            false => Err(TooMuch { campaign_id: campaign_id.to_owned() }),
        }
    })
}

/// Most bytes of lines for one campaign, far above any real one: it bounds memory.
const MOST_TEXT: usize = 64 * 1024 * 1024;

/// Depth to which metrics are flattened; deeper values stay one column.
const DEEPEST: usize = 16;

/// Columns in order, with unique names.
#[derive(Clone, Default)]
struct Columns<'a> {
    values: Vec<(String, &'a RawValue)>,
    names: HashSet<String>,
}

impl<'a> Columns<'a> {
    fn push(&mut self, name: &str, json: &'a RawValue) {
        let is_split = |name: &str| name == "campaign_id" || SPLITS.iter().any(|(_, column)| *column == name);
        let mut name = name.to_owned();
        // Two paths can give the same name, and most readers keep only one of two equal names.
        while is_split(&name) || self.names.contains(&name) {
            name.push('_');
        }
        self.names.insert(name.clone());
        self.values.push((name, json));
    }

    /// A value as a column; an object as one column for each of its values.
    fn flatten(&mut self, name: &str, json: &'a RawValue, depth: usize) {
        match Object::of(json).filter(|_| depth < DEEPEST) {
            Some(Object(fields)) if !fields.is_empty() => {
                for (key, value) in fields {
                    self.flatten(&format!("{name}_{key}"), value, depth + 1);
                }
            }
            _ => self.push(name, json),
        }
    }
}

/// Descends through the dimensions; `outer` are the columns of the outer ones. Stops at the first error of `emit`.
fn split<'a>(
    json: &'a RawValue,
    names: &mut Vec<String>,
    outer: &Columns<'a>,
    emit: &mut impl FnMut(&[String], &[(String, &'a RawValue)]) -> Result<(), TooMuch>,
) -> Result<(), TooMuch> {
    let mut columns = outer.clone();
    let container = SPLITS.get(names.len()).map(|(container, _)| *container);
    let mut parts = Vec::new();
    match Object::of(json) {
        Some(Object(fields)) => {
            for (key, value) in fields {
                match Object::of(value).filter(|_| Some(key.as_str()) == container) {
                    Some(Object(inner)) => parts.extend(inner),
                    None => columns.flatten(&key, value, 0),
                }
            }
        }
        None => columns.flatten("value", json, 0),
    }
    if parts.is_empty() {
        return emit(names, &columns.values);
    }
    parts.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (name, part) in parts {
        names.push(name);
        split(part, names, &columns, emit)?;
        names.pop();
    }
    Ok(())
}

/// An object's fields in their order.
struct Object<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Object<'a> {
    fn of(json: &'a RawValue) -> Option<Self> {
        serde_json::from_str(json.get()).ok()
    }
}

/// The fields of an object in their order; `None` if `json` is not an object.
pub fn fields(json: &RawValue) -> Option<Vec<(String, &RawValue)>> {
    Object::of(json).map(|object| object.0)
}

/// The value of a field, if it is a number or a string that is not empty.
pub fn text(fields: &[(String, &RawValue)], name: &str) -> Option<String> {
    let (_, value) = fields.iter().find(|(key, _)| key == name)?;
    let text = match value.get().as_bytes().first()? {
        b'"' => serde_json::from_str::<Text>(value.get()).ok()?.0,
        b'-' | b'0'..=b'9' => value.get().to_owned(),
        _ => return None,
    };
    (!text.is_empty()).then_some(text)
}

/// A JSON string. A lone surrogate, which UTF-8 cannot hold, is kept as escaped bytes.
pub struct Text(pub String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Text, E> {
                Ok(Text(str::from_utf8(bytes).map_or_else(|_| bytes.escape_ascii().to_string(), str::to_owned)))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some((Text(key), value)) = map.next_entry::<Text, &'de RawValue>()? {
                    fields.push((key, value));
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Fields).map(Object)
    }
}

/// JSON without the white space between its parts.
fn compact(json: &str, line: &mut String) {
    let (mut in_string, mut escaped) = (false, false);
    for c in json.chars() {
        if in_string {
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else if c == '"' {
            in_string = true;
        } else if c.is_ascii_whitespace() {
            continue;
        }
        line.push(c);
    }
}

fn string(text: &str, line: &mut String) {
    line.push_str(&Value::from(text).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_record_keeps_its_digits_its_order_and_the_space_in_its_strings() {
        let json =
            raw("{ \"b\": 1.10,\n \"a\" : [ 1e400, \"two \\\" words\\\\\" ] ,\t\"c\": 12345678901234567890123 }");
        let text = "{\"b\":1.10,\"a\":[1e400,\"two \\\" words\\\\\"],\"c\":12345678901234567890123}\n";
        assert_eq!(record(&json), Lines { text: text.into(), count: 1 });
    }

    #[test]
    fn a_field_that_a_record_lacks_is_put_in_front() {
        let line = |json| record_with("parent", "p", &raw(json)).text;
        assert_eq!(line("{\"a\": 1}"), "{\"parent\":\"p\",\"a\":1}\n");
        assert_eq!(line("{}"), "{\"parent\":\"p\"}\n");
        assert_eq!(line("{\"a\": 1, \"parent\": null}"), "{\"a\":1,\"parent\":null}\n");
        assert_eq!(line("[1, 2]"), "{\"parent\":\"p\",\"value\":[1,2]}\n");
    }

    #[test]
    fn rows_are_one_for_each_platform_locale_and_variation_and_drop_nothing() {
        let json = raw(r#"[{"note": 7, "platforms": {"IOS": {"locales": {"default": {"variations": {
                "2": {"performance_stats": {"clicks": 2, "ctr": 0.10}},
                "1": {"performance_stats": {"clicks": 1, "deep": {"er": []}}, "late": null}}}}},
                "ANDROID": {"locales": {}}}}]"#);
        let lines = statistics("c", &json, Shape::Rows).unwrap();
        let expected = [
            r#"{"campaign_id":"c","platform":"ANDROID","locale":null,"variation":null,"note":7}"#,
            r#"{"campaign_id":"c","platform":"IOS","locale":"default","variation":"1","note":7,"performance_stats_clicks":1,"performance_stats_deep_er":[],"late":null}"#,
            r#"{"campaign_id":"c","platform":"IOS","locale":"default","variation":"2","note":7,"performance_stats_clicks":2,"performance_stats_ctr":0.10}"#,
        ];
        assert_eq!(lines.text.lines().collect::<Vec<_>>(), expected);
        assert_eq!(lines.count, 3);
    }

    #[test]
    fn a_campaign_with_an_empty_list_of_statistics_keeps_a_line() {
        let line = |shape| statistics("c", &raw("[]"), shape).unwrap();
        assert_eq!(line(Shape::Raw), Lines { text: "{\"campaign_id\":\"c\"}\n".into(), count: 1 });
        let nulls = "{\"campaign_id\":\"c\",\"platform\":null,\"locale\":null,\"variation\":null}\n";
        assert_eq!(line(Shape::Rows), Lines { text: nulls.into(), count: 1 });
    }

    #[test]
    fn two_paths_to_one_column_stay_two_columns() {
        let json = raw(r#"[{"a": {"b": 1}, "a_b": 2, "platform": 3}]"#);
        let text = statistics("c", &json, Shape::Rows).unwrap().text;
        assert!(text.ends_with("\"a_b\":1,\"a_b_\":2,\"platform_\":3}\n"), "{text}");
    }

    #[test]
    fn deep_nesting_and_countless_columns_are_bounded() {
        let deep = format!("{}1{}", "{\"a\":".repeat(20_000), "}".repeat(20_000));
        assert_eq!(statistics("c", &raw(&format!("[{deep}]")), Shape::Rows).unwrap().count, 1);
        let wide: Vec<_> = (0..50_000).map(|number| format!("\"m{number}\":1")).collect();
        let leaves: Vec<_> = (0..1_000).map(|number| format!("\"p{number}\":{{}}")).collect();
        let hostile = format!("[{{{},\"platforms\":{{{}}}}}]", wide.join(","), leaves.join(","));
        assert!(statistics("c", &raw(&hostile), Shape::Rows).is_err());
    }
}
