//! Quotes values for YAML and for CEL. Every value in a manifest goes through [`scalar`] or
//! [`cel_string`], whatever it contains.

use std::fmt::Write as _;

/// Words that YAML 1.1, which Kubernetes reads, takes for something other than a string.
const YAML_WORDS: [&str; 10] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "~"];

/// Units of amounts and times. A number with one of them is a string: unlike `1e3`, `0x1f`, `1_0`.
const UNITS: [&str; 10] = ["s", "ms", "m", "k", "M", "G", "Ki", "Mi", "Gi", "MiB"];

/// Returns a YAML scalar that is read as this string: plain if that is safe, in single quotes if it
/// has double quotes (conditions do), otherwise in double quotes.
pub(super) fn scalar(text: &str) -> String {
    if is_plain(text) {
        text.to_owned()
    } else if text.contains('"') && text.chars().all(is_printable) {
        format!("'{}'", text.replace('\'', "''"))
    } else {
        double_quoted(text)
    }
}

/// Returns a CEL literal of this string, on one line.
pub(super) fn cel_string(text: &str) -> String {
    double_quoted(text)
}

/// Returns a JSON string, on one line. All readers of double quotes understand its escapes.
pub(crate) fn json_string(text: &str) -> String {
    double_quoted(text)
}

/// The escapes are those that YAML, CEL and JSON have in common. Characters above U+FFFF are never
/// escaped: JSON writes them as two escapes, which the others do not understand.
fn double_quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            _ if is_printable(char) => quoted.push(char),
            _ => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(char));
            }
        }
    }
    quoted.push('"');
    quoted
}

/// Whether a character can stand in a manifest: YAML's line breaks, invisible characters and those
/// that change the order in which text is shown cannot.
pub(super) fn is_printable(char: char) -> bool {
    !char.is_control()
        && !matches!(
            char,
            '\u{ad}'
                | '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff0}'..='\u{ffff}'
        )
}

/// Whether YAML reads the text as a string without quotes, in a block and in `[…]`. Names and paths
/// do.
fn is_plain(text: &str) -> bool {
    let unit = text.trim_start_matches(|char: char| char.is_ascii_digit());
    if unit.len() < text.len() {
        return UNITS.contains(&unit);
    }
    let first_is_safe =
        text.starts_with(|first: char| first.is_ascii_alphabetic() || matches!(first, '/'));
    let rest_is_safe =
        text.chars().all(|char| char.is_ascii_alphanumeric() || "/._- @:".contains(char));
    let has_indicator = text.contains(": ") || text.ends_with([':', ' ']);
    // "012:34" does not begin with a letter, so no number and no date is left.
    first_is_safe
        && rest_is_safe
        && !has_indicator
        && !YAML_WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_stay_plain() {
        let sentence = "Copper Lantern Works";
        for plain in ["vms", sentence, "/var/run/x.sock", "r.example/a:1.0", "64Gi", "30s", "24MiB"]
        {
            assert_eq!(scalar(plain), plain);
        }
    }

    #[test]
    fn what_yaml_reads_otherwise_is_quoted() {
        for text in [
            "", "yes", "NO", "null", "y", "1", "1e3", "0600", "0x1f", "1.5s", "5a", "-x", "a: b",
            "a:", "#x", "a #b",
        ] {
            assert_eq!(scalar(text), format!("\"{text}\""));
        }
        assert_eq!(scalar("\"it's\" in x"), "'\"it''s\" in x'");
        assert_eq!(scalar("a\nb"), r#""a\nb""#);
        assert_eq!(scalar("\"\u{85}\u{2028}\u{7f}"), r#""\"\u0085\u2028\u007f""#);
        assert_eq!(scalar("Kupfer-Wärme 🙂"), "\"Kupfer-Wärme 🙂\"");
    }

    /// What `tests/manifests` does with more inputs, and with the YAML of Kubernetes.
    #[test]
    fn yaml_reads_what_was_quoted() {
        let long = "ä: ".repeat(1000);
        for text in [
            "",
            " ",
            "a",
            "a: b",
            ": ",
            "- a",
            "#",
            "a #b",
            "'",
            "\"",
            "it's \"quoted\"",
            "''",
            "\\",
            "C:\\new\\u0041",
            "\n",
            "a\nb\n",
            "\r\n",
            "\t",
            "  two  spaces ",
            "---",
            "...",
            "%YAML",
            "*a",
            "&a",
            "!a",
            "|",
            ">",
            "?",
            "[a, b]",
            "{a: b}",
            "@a",
            "`a`",
            "null",
            "~",
            "yes",
            "Off",
            "1e3",
            "0x1f",
            "1_000",
            "012",
            "12:30:45",
            "2026-11-27",
            ".inf",
            "Kupfer-Wärme 電源 🙂 e\u{301}",
            "a\u{85}b\u{2028}c",
            "\u{202e}\u{200b}\u{feff}\u{7f}\u{1}",
            "$(A) {{ .x }} %s",
            &long,
        ] {
            let yaml = format!("key: {}\nlist: [{}]\n", scalar(text), scalar(text));
            let read: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
            assert_eq!(read, serde_json::json!({"key": text, "list": [text]}), "{yaml}");
        }
    }

    #[test]
    fn cel_literals_cannot_be_left() {
        assert_eq!(cel_string(r#"a" || true || "\"#), r#""a\" || true || \"\\""#);
        assert_eq!(cel_string("\u{202e}\n"), r#""\u202e\n""#);
    }
}
