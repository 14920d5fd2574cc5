//! Copies of secrets: what a hook makes of a value when it passes it on.
//!
//! A copy is the value itself, or without white space around it, or as a string of JSON, or a line
//! of it. All but lines have a placeholder that the hook makes of the value's own placeholder.

use std::cmp::Reverse;
use std::collections::HashSet;

use memchr::memmem;

use super::PLACEHOLDER;
use super::looks::{SECRET_NAMES, plain};
use crate::text::clip;

/// Shorter values are replaced in their own place alone: elsewhere, `a` or `vm` is chance.
const MIN_TRACED_BYTES: usize = 6;

/// Maximum number of copies to search for. Each is searched for in every value. User data of
/// 100 KiB has 3000 lines.
const MAX_TRACES: usize = 16 * 1024;

/// A text to search for.
#[derive(PartialEq, Eq)]
struct Trace {
    text: String,
    placeholder: String,
    /// Whether it is a line of a value, and not all of it.
    is_line: bool,
}

impl Trace {
    fn beginning(&self) -> Option<&[u8; MIN_TRACED_BYTES]> {
        self.text.as_bytes().first_chunk()
    }
}

/// The copies of all secrets.
#[derive(Default)]
pub(super) struct Traces {
    /// Once sorted, the longest first.
    all: Vec<Trace>,
    /// Their first bytes. Most values have none of them, and most traces are in no value.
    beginnings: HashSet<[u8; MIN_TRACED_BYTES]>,
}

impl Traces {
    /// Adds the copies of a value.
    pub(super) fn add(&mut self, value: &str, placeholder: &str) {
        self.add_spellings(value, placeholder, false);
        self.add_spellings(value.trim(), placeholder.trim(), false);
        for line in value.trim().lines().map(str::trim) {
            // A key of YAML, and the first line of user data, say nothing.
            let is_key = (line.ends_with(':') && !line.contains(char::is_whitespace))
                || SECRET_NAMES.contains(&&*plain(line));
            if line.len() < value.trim().len() && !is_key && !placeholder.contains(line) {
                self.add_spellings(line, PLACEHOLDER, true);
            }
            if self.are_too_many() {
                return;
            }
        }
    }

    /// Adds a text, and the strings of JSON that hold it: those of serde and Python, those of Go,
    /// which escapes marks of HTML, and those of Python by default, in ASCII. And a string in a
    /// string, as in an annotation that holds a manifest.
    fn add_spellings(&mut self, text: &str, placeholder: &str, is_line: bool) {
        if text.len() < MIN_TRACED_BYTES {
            return;
        }
        let mut add = |text: String, placeholder: &str| {
            self.all.push(Trace { text, placeholder: placeholder.to_owned(), is_line });
        };
        add(text.to_owned(), placeholder);
        for escape in [json, json_of_go, json_in_ascii] {
            let (once, shown) = (escape(text), escape(placeholder));
            if once != text {
                add(escape(&once), &escape(&shown));
                add(once, &shown);
            }
        }
    }

    pub(super) fn are_too_many(&self) -> bool {
        self.all.len() > MAX_TRACES
    }

    /// Sorts what was added: a text that contains another one is replaced before it.
    pub(super) fn sort(&mut self) {
        self.all.sort_by(|a, b| {
            (Reverse(a.text.len()), &a.text, a.is_line).cmp(&(
                Reverse(b.text.len()),
                &b.text,
                b.is_line,
            ))
        });
        self.all.dedup_by(|later, earlier| later.text == earlier.text);
        self.beginnings = self.all.iter().filter_map(Trace::beginning).copied().collect();
    }

    /// Returns a text without copies. `None` if it has none. Adds the number of lines to `lines`.
    pub(super) fn replace(&self, text: &str, lines: &mut usize) -> Option<String> {
        let mut out: Option<String> = None;
        let windows = text.as_bytes().windows(MIN_TRACED_BYTES).filter_map(<[u8]>::first_chunk);
        let found: HashSet<_> = windows.filter(|it| self.beginnings.contains(*it)).collect();
        if found.is_empty() {
            return None;
        }
        let is_begun = |trace: &&Trace| trace.beginning().is_some_and(|it| found.contains(it));
        for trace in self.all.iter().filter(is_begun) {
            let now = out.as_deref().unwrap_or(text);
            let found = memmem::find_iter(now.as_bytes(), trace.text.as_bytes()).count();
            if found > 0 {
                *lines += if trace.is_line { found } else { 0 };
                out = Some(now.replace(&trace.text, &trace.placeholder));
            }
        }
        out
    }

    /// Returns a text without the beginning of a copy at its end, where it may have been cut.
    pub(super) fn without_beginning_at_end(&self, text: &str) -> String {
        let beginning = |trace: &Trace| {
            let longest = trace.text.len().saturating_sub(1).min(text.len());
            (MIN_TRACED_BYTES..=longest)
                .rev()
                .find(|&bytes| text.as_bytes().ends_with(&trace.text.as_bytes()[..bytes]))
        };
        match self.all.iter().filter_map(beginning).max() {
            Some(bytes) => format!("{}{PLACEHOLDER}", clip(text, text.len() - bytes)),
            None => text.to_owned(),
        }
    }
}

/// Returns a text as it stands in a string of JSON.
fn json(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

fn json_of_go(text: &str) -> String {
    let escaped = json(text).replace('&', "\\u0026");
    escaped.replace('<', "\\u003c").replace('>', "\\u003e")
}

fn json_in_ascii(text: &str) -> String {
    let mut out = String::new();
    for c in json(text).chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.extend([format!("\\u{unit:04x}")]);
            }
        }
    }
    out
}
