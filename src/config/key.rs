//! Names as parts of object keys.

/// Converts a name to a part of a key. Characters other than Unicode letters, digits, `.`, `-` and `_` become `_`. A
/// leading `.` or `_` becomes `-`, because Spark and Athena ignore names that begin with those.
pub fn key_part(name: &str) -> String {
    name.chars()
        .enumerate()
        .map(|(at, c)| match c {
            '.' | '_' if at == 0 => '-',
            '.' | '-' | '_' => c,
            c if c.is_alphanumeric() => c,
            _ if at == 0 => '-',
            _ => '_',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_parts_keep_letters_of_any_script_and_nothing_that_could_be_a_path() {
        assert_eq!(key_part("Report - test"), "Report_-_test");
        assert_eq!(key_part("Año nuevo 50% off+1"), "Año_nuevo_50__off_1");
        assert_eq!(key_part("../etc/passwd"), "-._etc_passwd");
        assert_eq!(key_part("_staging"), "-staging");
        assert_eq!(key_part("a/b\\c\0d"), "a_b_c_d");
        assert_eq!(key_part(" leading"), "-leading");
    }
}
