//! Words of commands for a POSIX shell, which people copy.
//!
//! This file owns their quoting. It must not know the commands.

/// `text` as one word, in quotes.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// `text` as one word, in quotes where it needs them.
pub fn word(text: &str) -> String {
    match text.chars().all(|c| c.is_alphanumeric() || "-_./".contains(c)) && !text.is_empty() {
        true => text.to_owned(),
        false => quoted(text),
    }
}
