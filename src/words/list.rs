//! A JSON object with a list of any length, written item by item.

use serde::Serialize;

/// Writes a JSON object whose last field is a list, item by item and as `to_string_pretty` writes the whole, so that memory
/// is bounded for a list of any length.
#[derive(Debug)]
pub struct ListText {
    /// The object up to the list's bracket.
    head: String,
    is_empty: bool,
}

impl ListText {
    /// The text of a list called `name`, of which nothing is written yet.
    pub fn new(name: &'static str) -> Self {
        Self { head: format!("{{\n  \"{name}\": ["), is_empty: true }
    }

    /// The same after the fields of `head`, which is an object with at least one.
    pub fn after<T: Serialize>(head: &T, name: &'static str) -> Self {
        let written = serde_json::to_string_pretty(head).unwrap_or_default();
        let fields = written.strip_suffix("\n}").unwrap_or_default();
        Self { head: format!("{fields},\n  \"{name}\": ["), is_empty: true }
    }

    /// Appends `item` to the text.
    pub fn push<T: Serialize>(&mut self, text: &mut String, item: &T) {
        if self.is_empty {
            *text += &self.head;
        }
        // Words, numbers and instants can always be written. JSON has no line breaks within texts.
        let written = serde_json::to_string_pretty(item).unwrap_or_default().replace('\n', "\n    ");
        *text += if self.is_empty { "\n    " } else { ",\n    " };
        *text += &written;
        self.is_empty = false;
    }

    /// Appends the end of the object and a line break.
    pub fn end(self, text: &mut String) {
        match self.is_empty {
            true => *text += &format!("{}]\n}}\n", self.head),
            false => *text += "\n  ]\n}\n",
        }
    }
}
