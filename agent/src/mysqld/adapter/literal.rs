//! Values that people write, as `SET GLOBAL` takes them.

use schemadock_agent_plan::accounts::quote;

/// What an option file's number may end with, and the power of two it stands for.
const UNITS: [(char, u32); 6] = [('k', 10), ('m', 20), ('g', 30), ('t', 40), ('p', 50), ('e', 60)];

/// Whether `name` can be the name of a variable, a component's included. Anything else reaches no statement.
pub(super) fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '.';
    !name.is_empty() && name.chars().all(plain)
}

/// The value as SQL: numbers as numbers (with units multiplied out), words and all else as text.
pub(super) fn literal(value: &str) -> String {
    let value = value.trim();
    if is_number(value) {
        return value.to_owned();
    }
    expanded(value).map_or_else(|| quote(value), |number| number.to_string())
}

/// The value as text, whatever it looks like.
pub(super) fn as_text(value: &str) -> String {
    quote(value.trim())
}

fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let bare = text.strip_prefix('-').unwrap_or(text);
    match bare.split_once('.') {
        Some((whole, part)) => digits(whole) && digits(part),
        None => digits(bare),
    }
}

fn expanded(text: &str) -> Option<u64> {
    let unit = text.chars().next_back()?.to_ascii_lowercase();
    let shift = UNITS.iter().find(|(own, _)| *own == unit)?.1;
    let digits = &text[..text.len() - 1];
    if !is_number(digits) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// The name of an object, quoted.
pub(super) fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_numbers_or_texts() {
        for (written, sql) in [
            ("64M", "67108864"),
            (" 2g ", "2147483648"),
            ("1.5", "1.5"),
            ("-1", "-1"),
            ("18446744073709551615", "18446744073709551615"),
            ("ON", "'ON'"),
            ("a'b", r"'a\'b'"),
            ("G", "'G'"),
            ("", "''"),
            ("99999999999G", "'99999999999G'"),
            ("1e3", "'1e3'"),
            ("nan", "'nan'"),
            ("5é", "'5é'"),
            ("1); DROP TABLE x", "'1); DROP TABLE x'"),
        ] {
            assert_eq!(literal(written), sql, "{written:?}");
        }
        assert_eq!(as_text(" 5 "), "'5'");
    }

    #[test]
    fn only_plain_names_reach_a_statement() {
        assert!(is_name("max_connections") && is_name("validate_password.length"));
        for bad in ["", "MAX_connections", "a b", "a=1,b", "`a`", "a-b", "@@a"] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }
}
