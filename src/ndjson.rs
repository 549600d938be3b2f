//! From the vendor's JSON to lines: what one record looks like in a snapshot.
//!
//! This file owns the form of a line. Nothing of a record is dropped or renamed, numbers keep their digits and fields
//! their order, so that the same data gives the same bytes. It must not know where records come from or how they are
//! compressed.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::config::Shape;

/// Lines of JSON, each with its line end.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Lines {
    /// The text.
    pub text: String,
    /// How many lines.
    pub count: u64,
}

impl Lines {
    fn push(&mut self, write: impl FnOnce(&mut String)) {
        write(&mut self.text);
        self.text.push('\n');
        self.count += 1;
    }
}

/// A record as it came, on one line.
pub fn record(json: &RawValue) -> Lines {
    let mut lines = Lines::default();
    lines.push(|line| compact(json.get(), line));
    lines
}

/// A record as it came, on one line, with a field in front that the vendor says elsewhere than in the record. A field
/// of that name in the record itself is left as it is.
pub fn record_with(field: &str, value: &str, json: &RawValue) -> Lines {
    let mut lines = Lines::default();
    lines.push(|line| with_field(field, value, json, line));
    lines
}

/// What the vendor lists for one campaign, as lines in the given shape.
pub fn statistics(campaign_id: &str, json: &RawValue, shape: Shape) -> Lines {
    let listed: Vec<&RawValue> = serde_json::from_str(json.get()).unwrap_or_else(|_| vec![json]);
    let mut lines = Lines::default();
    for element in listed {
        match shape {
            Shape::Raw => lines.push(|line| with_field("campaign_id", campaign_id, element, line)),
            Shape::Rows => rows(campaign_id, element, &mut lines),
        }
    }
    lines
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
            // The record's own brackets: the first makes way, the last stays.
            line.remove(from + 1);
            return;
        }
        // Nobody has seen one, and nothing is dropped for being odd.
        None => {
            line.push_str("\"value\":");
            compact(json.get(), line);
        }
    }
    line.push('}');
}

/// What statistics are split by, from the outside in: the field that holds the parts, and the column that names one.
const SPLITS: [(&str, &str); 3] = [("platforms", "platform"), ("locales", "locale"), ("variations", "variation")];

/// One line for each platform, locale and variation. Metrics become columns, named by their path: `clicks` of
/// `performance_stats` is `performance_stats_clicks`.
fn rows(campaign_id: &str, element: &RawValue, lines: &mut Lines) {
    split(element, &mut Vec::new(), &[], &mut |names, columns| {
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
    });
}

type Columns<'a> = Vec<(String, &'a RawValue)>;

/// Goes down the splits; `outer` are the columns found on the way.
fn split<'a>(
    json: &'a RawValue,
    names: &mut Vec<String>,
    outer: &[(String, &'a RawValue)],
    emit: &mut impl FnMut(&[String], &[(String, &'a RawValue)]),
) {
    let mut columns: Columns<'_> = outer.to_vec();
    let container = SPLITS.get(names.len()).map(|(container, _)| *container);
    let mut parts = Vec::new();
    match Object::of(json) {
        Some(Object(fields)) => {
            for (key, value) in fields {
                match Object::of(value) {
                    Some(Object(inner)) if Some(key.as_str()) == container => parts.extend(inner),
                    _ => flatten(&key, value, &mut columns),
                }
            }
        }
        None => flatten("value", json, &mut columns),
    }
    if parts.is_empty() {
        emit(names, &columns);
        return;
    }
    parts.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (name, part) in parts {
        names.push(name);
        split(part, names, &columns, emit);
        names.pop();
    }
}

/// A value as a column; an object as one column for each of its values.
fn flatten<'a>(name: &str, json: &'a RawValue, columns: &mut Columns<'a>) {
    match Object::of(json) {
        Some(Object(fields)) if !fields.is_empty() => {
            for (key, value) in fields {
                flatten(&format!("{name}_{key}"), value, columns);
            }
        }
        _ => {
            let mut name = name.to_owned();
            let is_taken = |name: &str| {
                let splits = SPLITS.iter().map(|(_, column)| *column);
                splits.chain(["campaign_id"]).any(|taken| taken == name)
            };
            // Two paths can come to one name; a reader would see only one of them.
            while is_taken(&name) || columns.iter().any(|(taken, _)| *taken == name) {
                name.push('_');
            }
            columns.push((name, json));
        }
    }
}

/// An object's fields in their order.
struct Object<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Object<'a> {
    fn of(json: &'a RawValue) -> Option<Self> {
        serde_json::from_str(json.get()).ok()
    }
}

/// The fields of an object as text, in their order; `None` when `json` is no object.
pub fn fields(json: &RawValue) -> Option<Vec<(String, &RawValue)>> {
    Object::of(json).map(|object| object.0)
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
                while let Some((key, value)) = map.next_entry::<String, &'de RawValue>()? {
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
    line.push_str(&serde_json::Value::from(text).to_string());
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
    fn what_a_record_does_not_say_itself_is_put_in_front() {
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
        let lines = statistics("c", &json, Shape::Rows);
        let expected = [
            r#"{"campaign_id":"c","platform":"ANDROID","locale":null,"variation":null,"note":7}"#,
            r#"{"campaign_id":"c","platform":"IOS","locale":"default","variation":"1","note":7,"performance_stats_clicks":1,"performance_stats_deep_er":[],"late":null}"#,
            r#"{"campaign_id":"c","platform":"IOS","locale":"default","variation":"2","note":7,"performance_stats_clicks":2,"performance_stats_ctr":0.10}"#,
        ];
        assert_eq!(lines.text.lines().collect::<Vec<_>>(), expected);
        assert_eq!(lines.count, 3);
    }

    #[test]
    fn two_paths_to_one_column_stay_two_columns() {
        let json = raw(r#"[{"a": {"b": 1}, "a_b": 2, "platform": 3}]"#);
        let text = statistics("c", &json, Shape::Rows).text;
        assert!(text.ends_with("\"a_b\":1,\"a_b_\":2,\"platform_\":3}\n"), "{text}");
    }
}
