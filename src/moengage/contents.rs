//! The contents of a page, in the form that all JSON APIs share.

use serde::{Deserialize, Deserializer};
use serde_json::{Value, value::RawValue};

/// A page, borrowed from its text.
pub(super) struct PageContents<'a> {
    pub(super) items: Vec<RawRecord<'a>>,
    pub(super) total: Option<u64>,
    pub(super) is_followed: bool,
}

/// One record in the text of a page.
pub(super) struct RawRecord<'a> {
    /// `None` if the record has none.
    pub(super) id: Option<String>,
    pub(super) json: &'a RawValue,
}

/// Reads a total, also as text or with a decimal point.
pub(super) fn total<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Number(number) => number.as_u64().or_else(|| {
            let number = number.as_f64()?;
            (number.fract() == 0.0 && (0.0..1e15).contains(&number)).then_some(number as u64)
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    })
}
