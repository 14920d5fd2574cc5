//! Makes texts of hooks and callers harmless, and cuts texts to a maximum length.
//!
//! # Theory of operation
//! A text that came from outside is escaped where it leaves the program: in a log line, in a
//! status, in a container's termination message, on a terminal. There it could move the cursor, set
//! the title, forge a line, or show its characters in another order than they have. Escaping twice
//! changes nothing, so no place has to know whether another one has done it. Backslashes stay as
//! they are: a text that was escaped is for people, and is never read back.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Maximum length of a hook's line in the log, as it is written there, with the note on what was
/// cut. Under 16 KiB, so that container runtimes do not split the log line, which has more fields.
pub const MAX_LINE_BYTES: usize = 8 * 1024;

/// Length of the longest note on what was cut: ` [18446744073709551615 more bytes]`.
const NOTE_BYTES: usize = 34;

/// The mark for lines that were left out.
const GAP: &str = "[…]";

/// Escapes the control characters of a text, except for tabs and the ends of lines.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    escape_all(text, |c| is_control(c) && c != '\n')
}

/// Escapes the control characters of a text that must stay on one line, except for tabs.
#[must_use]
pub fn escape_line(text: &str) -> Cow<'_, str> {
    escape_all(text, is_control)
}

fn escape_all(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    // Most texts are printable ASCII, which takes a fraction of the time to see.
    let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if is_plain || !text.contains(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for c in text.chars() {
        if is_escaped(c) { push_escaped(&mut out, c) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// Whether a character controls a terminal or the order in which characters are shown: C0 except
/// for tab, DEL, C1, the line and paragraph separators, and what changes the direction of text.
fn is_control(c: char) -> bool {
    match c {
        '\t' => false,
        '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            true
        }
        _ => c.is_control(),
    }
}

fn push_escaped(out: &mut String, c: char) {
    match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        // Writing to a string cannot fail.
        _ => drop(write!(out, "\\u{{{:x}}}", u32::from(c))),
    }
}

/// Returns a line or message of a hook's for the log: escaped, at most [`MAX_LINE_BYTES`] long, and
/// with a note on what is missing: its own end, and the `cut` bytes behind `bytes`. Ends of lines
/// stay, and count as if they were escaped.
#[must_use]
pub fn hook_line(bytes: &[u8], cut: usize) -> String {
    let bytes = bytes.trim_ascii_end();
    // An ordinary line.
    if let (0, Ok(text)) = (cut, std::str::from_utf8(bytes))
        && text.len() <= MAX_LINE_BYTES
        && !text.contains(is_control)
    {
        return text.to_owned();
    }
    let mut out = String::with_capacity(bytes.len().min(MAX_LINE_BYTES));
    // The length of the text as a line, and the place before which the note fits.
    let (mut length, mut read) = (0, 0);
    let (mut end, mut read_at_end) = (0, 0);
    for (c, from) in characters(bytes) {
        let before = out.len();
        if is_control(c) && c != '\n' {
            push_escaped(&mut out, c);
        } else {
            out.push(c);
        }
        length += out.len() - before + usize::from(c == '\n');
        if length > MAX_LINE_BYTES {
            break;
        }
        read += from;
        if length <= MAX_LINE_BYTES - NOTE_BYTES {
            (end, read_at_end) = (out.len(), read);
        }
    }
    if cut > 0 || length > MAX_LINE_BYTES {
        out.truncate(end);
        push_note(&mut out, cut.saturating_add(bytes.len() - read_at_end));
    }
    out
}

/// Returns the characters of a text, and the number of bytes that each takes there. What is not
/// UTF-8 becomes the replacement character.
fn characters(bytes: &[u8]) -> impl Iterator<Item = (char, usize)> {
    bytes.utf8_chunks().flat_map(|chunk| {
        let invalid = chunk.invalid().len();
        let replaced = (invalid > 0).then_some((char::REPLACEMENT_CHARACTER, invalid));
        chunk.valid().chars().map(|c| (c, c.len_utf8())).chain(replaced)
    })
}

/// Returns the longest prefix of `text` that has at most `bytes` bytes and ends between two
/// characters.
#[must_use]
pub fn clip(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Cuts a text to at most `bytes` bytes, between two characters, with a note on what is missing.
pub fn truncate(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        let kept = clip(text, bytes.saturating_sub(NOTE_BYTES)).len();
        let missing = text.len() - kept;
        text.truncate(kept);
        push_note(text, missing);
    }
}

fn push_note(out: &mut String, missing: usize) {
    // Writing to a string cannot fail.
    let _ = write!(out, " [{missing} more bytes]");
}

/// Leaves out lines in the middle until the text is at most `limit` long by `measure`. The first
/// line says what happened; the last ones contain the message of a stack trace. `measure` must be
/// additive: the length of a text is the sum of the lengths of its parts.
#[must_use]
pub fn fit(text: &str, limit: usize, measure: impl Fn(&str) -> usize) -> String {
    if measure(text) <= limit {
        return text.to_owned();
    }
    let mut lines = text.lines();
    let head = cut(lines.next().unwrap_or_default(), limit / 2, &measure);
    let mut remaining = limit.saturating_sub(measure(head) + measure("\n") + measure(GAP));
    let mut tail = Vec::new();
    for line in lines.rev() {
        let Some(room) = remaining.checked_sub(measure("\n")).filter(|room| *room > 0) else {
            break;
        };
        let kept = cut(line, room, &measure);
        remaining = room - measure(kept);
        tail.push(kept);
        if kept.len() < line.len() {
            break;
        }
    }
    let tail: String = tail.iter().rev().flat_map(|line| ["\n", line]).collect();
    format!("{head}\n{GAP}{tail}")
}

/// Returns the longest prefix of `text` that is at most `room` long by `measure`.
fn cut(text: &str, room: usize, measure: impl Fn(&str) -> usize) -> &str {
    let mut used = 0;
    let end = text.char_indices().find(|(_, c)| {
        used += measure(c.encode_utf8(&mut [0; 4]));
        used > room
    });
    end.map_or(text, |(at, _)| &text[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every character that is escaped, one per kind at least, and how.
    const ESCAPED: &[(&str, &str)] = &[
        ("\0", "\\u{0}"),
        ("\u{7}", "\\u{7}"),
        ("\r", "\\r"),
        ("\u{b}", "\\u{b}"),
        ("\u{1b}[31m", "\\u{1b}[31m"),
        ("\u{1b}]0;title\u{7}", "\\u{1b}]0;title\\u{7}"),
        ("\u{7f}", "\\u{7f}"),
        ("\u{80}", "\\u{80}"),
        ("\u{9b}2J", "\\u{9b}2J"),
        ("\u{9f}", "\\u{9f}"),
        ("\u{61c}", "\\u{61c}"),
        ("\u{200e}\u{200f}", "\\u{200e}\\u{200f}"),
        ("\u{2028}\u{2029}", "\\u{2028}\\u{2029}"),
        ("\u{202a}\u{202e}", "\\u{202a}\\u{202e}"),
        ("\u{2066}\u{2069}", "\\u{2066}\\u{2069}"),
    ];

    #[test]
    fn control_characters_are_escaped() {
        for (raw, expected) in ESCAPED {
            assert_eq!(escape(raw), *expected);
            assert_eq!(escape_line(raw), *expected);
            assert_eq!(escape(&escape(raw)), *expected, "twice");
            assert_eq!(hook_line(format!("a{raw}b").as_bytes(), 0), format!("a{expected}b"));
        }
        assert_eq!((&*escape("a\nb"), &*escape_line("a\nb")), ("a\nb", "a\\nb"));
        for same in ["", "a\tb \\ \"x\"", "Grüße, 世界, שלום, e\u{301}, a\u{a0}b, \u{2027}\u{202f}"]
        {
            assert!(matches!(escape_line(same), Cow::Borrowed(text) if text == same), "{same:?}");
        }
    }

    #[test]
    fn a_hooks_line_is_as_long_as_promised_whatever_it_holds() {
        for (unit, of_unit) in [
            (&b"x"[..], "x"),
            (b"\x1b", "\\u{1b}"),
            (b"\xff", "\u{fffd}"),
            ("é".as_bytes(), "é"),
            ("\u{202e}".as_bytes(), "\\u{202e}"),
            (b"\nx", "\nx"),
        ] {
            for count in [1, 1000, 4000, 8192, 8193, 20_000] {
                let line = hook_line(&unit.repeat(count), 0);
                let shown = escape_line(&line).len();
                assert!(shown <= MAX_LINE_BYTES, "{count} × {of_unit:?}: {shown}");
                match line.strip_suffix(" more bytes]").and_then(|line| line.rsplit_once(" [")) {
                    None => assert_eq!(line, of_unit.repeat(count)),
                    Some((kept, missing)) => {
                        let pieces = kept.chars().count() * unit.len() / unit_chars(of_unit);
                        let missing: usize = missing.parse().unwrap();
                        assert_eq!(pieces + missing, unit.len() * count, "{count} × {of_unit:?}");
                        assert!(shown > MAX_LINE_BYTES - 64, "{shown}");
                    }
                }
            }
        }
        assert_eq!(hook_line(b"line \r", 0), "line");
        assert_eq!(hook_line(b"line", 7), "line [7 more bytes]");
    }

    fn unit_chars(of_unit: &str) -> usize {
        of_unit.chars().count()
    }

    #[test]
    fn cuts_between_characters() {
        for (bytes, expected) in [(0, ""), (1, "a"), (2, "a"), (3, "aé"), (4, "aéb"), (9, "aéb")]
        {
            assert_eq!(clip("aéb", bytes), expected);
        }
    }

    /// By bytes, and with three for each byte.
    const MEASURES: [fn(&str) -> usize; 2] = [str::len, |text| 3 * text.len()];

    #[test]
    fn short_texts_stay_as_they_are() {
        let text = "hook x failed:\nline 1\nline 2";
        assert_eq!(fit(text, text.len(), str::len), text);
    }

    #[test]
    fn long_texts_keep_their_first_and_their_last_lines() {
        let lines: Vec<String> = (0..400).map(|n| format!("line {n} of a stack trace")).collect();
        let text = format!("hook x failed:\n{}", lines.join("\n"));
        for measure in MEASURES {
            let fitted = fit(&text, 4096, measure);
            assert!((4096 * 9 / 10..=4096).contains(&measure(&fitted)));
            assert!(fitted.starts_with("hook x failed:\n[…]\n"), "{fitted}");
            assert!(fitted.ends_with("line 398 of a stack trace\nline 399 of a stack trace"));
        }
    }

    #[test]
    fn one_endless_line_is_cut_between_characters() {
        for text in ["é".repeat(10_000), format!("head\n{}", "é".repeat(10_000))] {
            for measure in MEASURES {
                let fitted = fit(&text, 4096, measure);
                assert!((4096 / 3..=4096).contains(&measure(&fitted)), "{}", fitted.len());
            }
        }
    }
}
