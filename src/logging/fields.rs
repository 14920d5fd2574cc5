//! The fields of an event or a span, as they are written.
//!
//! A log of JSON is the hot path: each call has two lines at least, so a field is written as soon
//! as it is recorded. A log of text is for people, and its fields are kept as values.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};

use super::Format;
use crate::text::{MAX_LINE_BYTES, clip, escape, escape_line, truncate};

/// Maximum length of a message as it is written; longer ones are cut. An error has at most twenty
/// lines of 1 KiB, and its hook's command.
pub(super) const MAX_MESSAGE_BYTES: usize = 3 * MAX_LINE_BYTES;

/// Maximum length of any other field: the longest is a hook's command.
pub(super) const MAX_FIELD_BYTES: usize = 4 * 1024;

/// Initial capacity for the fields of a line: those of a call's last line are shorter.
const JSON_CAPACITY: usize = 256;

/// Fields whose texts are JSON, and are logged as the values that they stand for. (Events have no
/// such fields.)
const JSON_FIELDS: [&str; 5] = ["fields", "workers", "programs", "limits", "changes"];

/// A field whose text is a JSON object with fields of the shim's, which take its place. What is in
/// it is harmless.
pub(super) const ABOUT: &str = "about";

/// The fields of an event or a span.
pub(super) struct Fields {
    format: Format,
    pub(super) message: String,
    /// In a log of JSON: the others, each as `,"name":value`.
    pub(super) json: Vec<u8>,
    /// In a log of text: the others.
    pub(super) values: Vec<(Cow<'static, str>, Value)>,
}

impl Fields {
    pub(super) fn new(format: Format) -> Self {
        Self { format, message: String::new(), json: Vec::new(), values: Vec::new() }
    }

    /// Sets the message. In JSON it may have several lines.
    pub(super) fn set_message(&mut self, message: String) {
        self.message = message;
        let escape = if self.format == Format::Json { escape } else { escape_line };
        if let Cow::Owned(escaped) = escape(&self.message) {
            self.message = escaped;
        }
        truncate(&mut self.message, MAX_MESSAGE_BYTES);
    }

    /// Adds a field whose text is harmless, or a number.
    pub(super) fn insert(&mut self, name: &'static str, value: impl Serialize + Into<Value>) {
        match self.format {
            Format::Json => {
                if self.json.capacity() == 0 {
                    self.json.reserve(JSON_CAPACITY);
                }
                self.json.extend_from_slice(b",\"");
                self.json.extend_from_slice(name.as_bytes());
                self.json.extend_from_slice(b"\":");
                // Cannot fail: it writes to memory, and keys are strings.
                let _ = serde_json::to_writer(&mut self.json, &value);
            }
            Format::Text => self.values.push((name.into(), value.into())),
        }
    }

    /// Adds another's fields.
    pub(super) fn append(&mut self, other: Self) {
        self.json.extend(other.json);
        self.values.extend(other.values);
    }

    fn insert_about(&mut self, object: &str) {
        match self.format {
            Format::Json => {
                let inside = object.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
                if let Some(inside) = inside.filter(|inside| !inside.is_empty()) {
                    self.json.push(b',');
                    self.json.extend_from_slice(inside.as_bytes());
                }
            }
            Format::Text => {
                let object: Map<String, Value> = serde_json::from_str(object).unwrap_or_default();
                self.values.extend(object.into_iter().map(|(name, value)| (name.into(), value)));
            }
        }
    }
}

/// Escapes a text that stays on its line, and cuts it. Most texts stay as they are.
fn harmless(text: &str) -> Cow<'_, str> {
    match escape_line(text) {
        Cow::Borrowed(text) => Cow::Borrowed(clip(text, MAX_FIELD_BYTES)),
        Cow::Owned(text) => Cow::Owned(clip(&text, MAX_FIELD_BYTES).to_owned()),
    }
}

/// Does the same with the texts in a value. The names of its fields are the shim's own, or were
/// made harmless already.
fn make_value_harmless(value: &mut Value) {
    match value {
        Value::String(text) => *text = harmless(text).into_owned(),
        Value::Array(values) => values.iter_mut().for_each(make_value_harmless),
        Value::Object(values) => values.values_mut().for_each(make_value_harmless),
        _ => {}
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.set_message(text),
            name if JSON_FIELDS.contains(&name) => {
                let mut value: Value = serde_json::from_str(&text).unwrap_or_default();
                make_value_harmless(&mut value);
                self.insert(name, value);
            }
            name => self.insert(name, harmless(&text)),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.set_message(value.to_owned()),
            ABOUT => self.insert_about(value),
            name => self.insert(name, harmless(value)),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field.name(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_field_holds_a_control_character_or_is_longer_than_allowed() {
        let hostile = "a\nb\u{1b}[2J\u{9b}\u{7f}\u{2028}\u{202e}";
        for (format, newline) in [(Format::Json, "\n"), (Format::Text, "\\n")] {
            let mut fields = Fields::new(format);
            fields.set_message(hostile.to_owned());
            let escaped = "b\\u{1b}[2J\\u{9b}\\u{7f}\\u{2028}\\u{202e}";
            assert_eq!(fields.message, format!("a{newline}{escaped}"));
            assert_eq!(harmless(hostile), format!("a\\n{escaped}"));
            let mut nested = serde_json::json!({"a": [hostile, {"b": hostile}, 7]});
            make_value_harmless(&mut nested);
            assert_eq!(nested["a"][0], format!("a\\n{escaped}"));
            assert_eq!(nested["a"][1]["b"], format!("a\\n{escaped}"));
            let long = "\u{1b}".repeat(100_000);
            fields.set_message(long.clone());
            let (kept, missing) = fields.message.rsplit_once(" [").unwrap();
            let missing: usize = missing.strip_suffix(" more bytes]").unwrap().parse().unwrap();
            assert_eq!(kept.len() + missing, escape_line(&long).len());
            assert!(fields.message.len() <= MAX_MESSAGE_BYTES);
            assert_eq!(harmless(&long).len(), MAX_FIELD_BYTES);
        }
    }

    #[test]
    fn fields_of_json_are_written_as_they_come() {
        let mut fields = Fields::new(Format::Json);
        fields.insert("text", harmless("a\"b\u{1b}"));
        fields.insert("number", 1.5);
        fields.insert_about(r#"{"hook":"onDefineDomain","name":"vm"}"#);
        fields.insert_about("{}");
        let mut more = Fields::new(Format::Json);
        more.insert("changed", true);
        fields.append(more);
        let json = String::from_utf8(fields.json).unwrap();
        let expected = "{\"text\":\"a\\\"b\\\\u{1b}\",\"number\":1.5,\"hook\":\"onDefineDomain\",\
                        \"name\":\"vm\",\"changed\":true}";
        assert_eq!(format!("{{{}}}", json.strip_prefix(',').unwrap()), expected);
    }
}
