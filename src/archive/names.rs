//! Names of entries that are dangerous to unpack.
//!
//! This file owns the warnings about names. They do not reject an archive: they are for the person or program that unpacks
//! it later.

use std::collections::HashSet;

use super::ArchiveEntry;

/// Most warnings listed; the rest is counted.
const MOST_WARNINGS: usize = 100;

/// Most characters shown of a name.
const SHOWN_CHARS: usize = 120;

/// Warnings about the names of `entries`, and those of `oddity`, by index, about entries that are not files.
pub(super) fn warnings(entries: &[ArchiveEntry], oddity: impl Fn(usize) -> Option<&'static str>) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut unlisted = 0_usize;
    let mut seen = HashSet::with_capacity(entries.len());
    for (index, ArchiveEntry { name, .. }) in entries.iter().enumerate() {
        // A gzip member need not have a name, and several without one are no duplicates.
        let is_duplicate = !seen.insert(name.as_str()) && !name.is_empty();
        let findings = [
            (name.split(['/', '\\']).any(|part| part == ".."), "its name has a \"..\" component"),
            (name.starts_with('/'), "its name is an absolute path"),
            (name.contains('\\'), "its name has a backslash"),
            (has_drive_letter(name), "its name begins with a drive letter"),
            (name.contains(char::is_control), "its name has a control character"),
            (is_duplicate, "an earlier entry has the same name"),
        ];
        let findings = findings.into_iter().filter_map(|(found, finding)| found.then_some(finding));
        for finding in findings.chain(oddity(index)) {
            if warnings.len() < MOST_WARNINGS {
                warnings.push(format!("{}: {finding}", entry(name)));
            } else {
                unlisted += 1;
            }
        }
    }
    if unlisted > 0 {
        warnings.push(format!("and {unlisted} more warnings"));
    }
    warnings
}

/// An entry in messages, on one line of a log.
pub(super) fn entry(name: &str) -> String {
    if name.chars().nth(SHOWN_CHARS).is_none() {
        return format!("entry {name:?}");
    }
    format!("entry {:?}…", name.chars().take(SHOWN_CHARS).collect::<String>())
}

fn has_drive_letter(name: &str) -> bool {
    matches!(name.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic())
}
