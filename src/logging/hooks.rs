//! What hooks log: lines of their stderr, and `$/log` of the worker protocol.

use std::fmt;

use serde_json::{Map, Value};
use tracing::{Level, Span};

use crate::text::{clip, escape_line};

/// Maximum number of a line's fields.
const MAX_FIELDS: usize = 32;

/// Maximum length of a field's name; a longer one is cut.
const MAX_NAME_BYTES: usize = 64;

/// Maximum length of a field's text; a longer one is cut. All fields together are then about as
/// long as four messages.
const MAX_TEXT_BYTES: usize = 1024;

/// A line that a hook logs.
pub struct HookLine<'a> {
    pub level: Level,
    /// The span of the call to which it belongs, if that is known.
    pub span: Option<&'a Span>,
    pub worker: &'a str,
    pub pid: i32,
    pub fields: &'a HookFields,
    pub text: &'a str,
}

impl HookLine<'_> {
    /// Logs it.
    pub fn log(&self) {
        let _call = self.span.map(Span::enter);
        let Self { worker, pid, text, .. } = *self;
        let fields = (!self.fields.0.is_empty()).then(|| tracing::field::display(self.fields));
        match self.level {
            Level::ERROR => tracing::error!(target: "hook", worker, pid, fields, "{text}"),
            Level::WARN => tracing::warn!(target: "hook", worker, pid, fields, "{text}"),
            Level::INFO => tracing::info!(target: "hook", worker, pid, fields, "{text}"),
            _ => tracing::debug!(target: "hook", worker, pid, fields, "{text}"),
        }
    }
}

/// Fields that a hook has added to a line: texts, numbers and booleans, of bounded number and
/// length.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct HookFields(Map<String, Value>);

impl HookFields {
    /// Takes the fields of a JSON object. Other values become their JSON text, and what is too much
    /// is counted in a last field `…`.
    #[must_use]
    pub fn new(object: Map<String, Value>) -> Self {
        let left_out = object.len().saturating_sub(MAX_FIELDS);
        let mut fields = Map::new();
        for (name, value) in object.into_iter().take(MAX_FIELDS) {
            let value = match value {
                Value::String(text) => harmless(&text, MAX_TEXT_BYTES).into(),
                Value::Array(_) | Value::Object(_) => {
                    harmless(&value.to_string(), MAX_TEXT_BYTES).into()
                }
                value => value,
            };
            fields.insert(harmless(&name, MAX_NAME_BYTES), value);
        }
        if left_out > 0 {
            fields.insert("…".to_owned(), format!("{left_out} more").into());
        }
        Self(fields)
    }

    /// Returns the length of the names and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let value_bytes = |value: &Value| value.as_str().map_or(8, str::len);
        self.0.iter().map(|(name, value)| name.len() + value_bytes(value)).sum()
    }
}

/// As JSON, which the log's layer reads again: events have fields of known names only.
impl fmt::Display for HookFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Writes to a string cannot fail, and names are strings.
        f.write_str(&serde_json::to_string(&self.0).unwrap_or_default())
    }
}

fn harmless(text: &str, limit: usize) -> String {
    clip(&escape_line(text), limit).to_owned()
}

/// Whether lines of hooks with this level are logged.
#[must_use]
pub fn logs_hook_lines(level: Level) -> bool {
    match level {
        Level::ERROR => tracing::enabled!(target: "hook", Level::ERROR),
        Level::WARN => tracing::enabled!(target: "hook", Level::WARN),
        Level::INFO => tracing::enabled!(target: "hook", Level::INFO),
        _ => tracing::enabled!(target: "hook", Level::DEBUG),
    }
}

/// Returns the least severe level of hooks' lines that is logged.
#[must_use]
pub fn least_hook_level() -> Level {
    let levels = [Level::DEBUG, Level::INFO, Level::WARN];
    levels.into_iter().find(|&level| logs_hook_lines(level)).unwrap_or(Level::ERROR)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> HookFields {
        let Value::Object(object) = value else { panic!("no object: {value}") };
        HookFields::new(object)
    }

    #[test]
    fn fields_are_flat_and_harmless() {
        let fields = fields(json!({
            "disk": "vda\u{1b}[2J\n", "count": 7, "share": 0.5, "ok": true, "none": null,
            "list": [1, {"a": "b"}], "na\nme": "x",
        }));
        let expected = json!({
            "disk": "vda\\u{1b}[2J\\n", "count": 7, "share": 0.5, "ok": true, "none": null,
            "list": "[1,{\"a\":\"b\"}]", "na\\nme": "x",
        });
        assert_eq!(serde_json::from_str::<Value>(&fields.to_string()).unwrap(), expected);
    }

    #[test]
    fn fields_are_bounded() {
        let long = "\u{7f}".repeat(100_000);
        let many: Map<_, _> =
            (0..1000).map(|number| (format!("{number:04}{long}"), long.clone().into())).collect();
        let fields = HookFields::new(many);
        assert!(fields.bytes() <= MAX_FIELDS * (MAX_NAME_BYTES + MAX_TEXT_BYTES) + 16);
        assert_eq!(fields.0.len(), MAX_FIELDS + 1);
        assert_eq!(fields.0["…"], "968 more");
    }
}
